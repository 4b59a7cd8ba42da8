"""The rates' feed: exact, bounded, and a whole answer or none of it."""

import time
from decimal import Decimal

import pytest
from aiohttp import web

from service.gateways.fx import BODY_MAX_BYTES, HttpRateFeed, read_rates
from service.rules.errors import GatewayFailure
from tests.feed import GOOD, feeding, told

BOTH = {"USD": Decimal("3.12"), "EUR": Decimal("3.4")}


@pytest.fixture
async def feed():
    async with feeding() as opened:
        yield opened


@pytest.fixture
async def gateway(feed):
    opened = HttpRateFeed(feed.url, total_seconds=0.5)
    yield opened
    await opened.close()


@pytest.mark.parametrize(
    "said",
    [
        GOOD,
        b'{"USD": 3.12, "EUR": 3.4}',
        b'{"EUR": 34e-1, "USD": 3.120, "GBP": null, "BTC": -1, "TND": 1}',
        b'{"base": "TND", "date": "2026-01-31", "rates": {"USD": 3.12, "EUR": 3.4, "XAU": 1e9}}',
    ],
)
def test_either_shape_gives_the_same_rates_and_other_currencies_are_passed_by(said):
    assert read_rates(said) == BOTH


def test_a_feed_may_know_one_of_the_currencies_only():
    assert read_rates(b'{"EUR": 3}') == {"EUR": Decimal(3)}


def test_a_rate_is_kept_to_its_last_digit():
    assert str(read_rates(b'{"USD": 3.1234567890123456789}')["USD"]) == "3.1234567890123456789"


@pytest.mark.parametrize(
    ("said", "reason"),
    [
        (b'{"USD": 0}', "its rate of USD is not between"),
        (b'{"USD": 3.12, "EUR": -3.4}', "its rate of EUR is not between"),
        (b'{"USD": 1000000.01}', "its rate of USD is not between"),
        (b'{"USD": 1e-9}', "its rate of USD is not between"),
        (b'{"USD": "3.12"}', "its rate of USD is no number"),
        (b'{"USD": true}', "its rate of USD is no number"),
        (b'{"USD": null, "EUR": 3.4}', "its rate of USD is no number"),
        (b'{"USD": {"rate": 3.12}}', "its rate of USD is no number"),
        (b'{"USD": NaN}', "NaN is not a JSON number"),
        (b'{"USD": Infinity}', "Infinity is not a JSON number"),
        (b'{"USD": 1e99999999}', "a number must be between"),
        (b'{"USD": 3.12, "USD": 9}', 'the key "USD" appears twice'),
        (b'{"base": "USD", "rates": {"USD": 1, "EUR": 0.92}}', 'its "base" is not "TND"'),
        (b'{"rates": {"USD": 3.12}}', 'its "base" is not "TND"'),
        (b'{"base": "TND", "USD": 3.12}', 'its "rates" are no object'),
        (b'{"base": "TND", "rates": [3.12]}', 'its "rates" are no object'),
        (b'{"base": "TND", "rates": {}}', "it names none of USD, EUR"),
        (b"{}", "it names none of USD, EUR"),
        (b"[3.12]", "must be a JSON object"),
        (b'{"USD": 3.1', "is not valid JSON"),
        (b"", "is not valid JSON"),
        (b'{"USD": 3.12, "\xff": 1}', "is not valid UTF-8"),
    ],
)
def test_an_answer_that_cannot_be_trusted_as_a_whole_gives_nothing(said, reason):
    with pytest.raises(GatewayFailure) as failure:
        read_rates(said)
    assert reason in str(failure.value)


async def test_it_asks_for_json_and_brings_the_rates(feed, gateway):
    asked = []

    async def answer(request):
        asked.append((request.method, request.path, request.headers["Accept"]))
        return told(GOOD, kind="application/vnd.rates+json; charset=utf-8")

    feed.answer = answer
    assert await gateway.fetch() == BOTH
    assert asked == [("GET", "/rates", "application/json")]


@pytest.mark.parametrize("status", [204, 301, 404, 429, 500, 503])
async def test_any_status_but_200_is_a_failure_whatever_the_body_says(feed, gateway, status):
    feed.says(GOOD if status != 204 else b"", status)
    with pytest.raises(GatewayFailure, match=f"it answered {status}"):
        await gateway.fetch()


async def test_a_redirect_is_not_followed(feed, gateway):
    async def answer(request):
        if request.path == "/rates":
            raise web.HTTPFound("/elsewhere")
        return told(GOOD)

    feed.answer = answer
    with pytest.raises(GatewayFailure, match="it answered 302"):
        await gateway.fetch()
    assert feed.asked == 1


@pytest.mark.parametrize("kind", ["text/html", "text/plain", "application/xml"])
async def test_an_answer_of_another_type_is_a_failure(feed, gateway, kind):
    feed.says(GOOD, kind=kind)
    with pytest.raises(GatewayFailure, match=f"it answered {kind}, which is not JSON"):
        await gateway.fetch()


@pytest.mark.parametrize("after_head", [False, True])
async def test_a_slow_answer_is_a_failure_in_time(feed, gateway, after_head):
    feed.dawdles(5, after_head=after_head)
    began = time.monotonic()
    with pytest.raises(GatewayFailure, match=r"no answer within 0\.5 s"):
        await gateway.fetch()
    assert time.monotonic() - began < 2


async def test_an_answer_may_be_64_kib_and_no_more(feed, gateway):
    feed.says(GOOD.ljust(BODY_MAX_BYTES))
    assert await gateway.fetch() == BOTH
    feed.says(GOOD.ljust(BODY_MAX_BYTES + 1))
    with pytest.raises(GatewayFailure, match="longer than 64 KiB"):
        await gateway.fetch()
    feed.floods()
    with pytest.raises(GatewayFailure, match="longer than 64 KiB"):
        await gateway.fetch()


async def test_a_feed_that_is_not_there_is_a_failure_that_shows_no_password():
    gateway = HttpRateFeed("http://me:hidden@127.0.0.1:9/rates")
    with pytest.raises(GatewayFailure, match="ClientConnectorError") as failure:
        await gateway.fetch()
    assert "hidden" not in str(failure.value)
    await gateway.close()
