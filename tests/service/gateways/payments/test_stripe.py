"""Stripe beyond the contract: faults, what it cannot express, and which notifications count."""

import asyncio
import json
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import stripe as library
from aiohttp import web

from service.gateways.payments.provider import Reversal
from service.gateways.payments.stripe import StripeProvider
from service.rules.errors import GatewayFailure, NotificationRefused, NotPayable
from service.rules.payment import Outcome
from tests.orders import ORDERED, ordered
from tests.service.gateways.payments.conftest import SECRET
from tests.stripe_server import KEY


@pytest.fixture
async def unasked():
    """A provider that nobody needs to answer."""
    provider = StripeProvider(KEY, ["whsec_new", SECRET], api_base="http://127.0.0.1:9")
    yield provider
    await provider.close()


def answers(status, body=b"{}", kind="application/json"):
    async def answer(_):
        return web.Response(status=status, body=body, headers={"Content-Type": kind})

    return answer


def error(kind="invalid_request_error", **facts):
    return json.dumps({"error": {"type": kind, "message": "No.", **facts}}).encode()


@pytest.mark.parametrize(
    ("status", "body", "permanent"),
    [
        (500, error("api_error"), False),
        (502, b"<html>bad gateway</html>", False),
        (503, b"", False),
        (429, error("rate_limit_error"), False),
        (409, error("idempotency_error"), False),
        (401, error(), False),
        (403, error(), False),
        (200, b"<html>no JSON</html>", False),
        (400, error(code="amount_too_small"), True),
        (400, error("idempotency_error"), True),
        (402, error("card_error", code="card_declined"), True),
        (404, error(code="resource_missing"), True),
    ],
)
async def test_whether_asking_again_helps_is_read_off_the_answer(
    stripe, counter, status, body, permanent
):
    counter.answer = answers(status, body)
    calls = [
        lambda: stripe.place(ordered()),
        lambda: stripe.ask("cs_1"),
        lambda: stripe.send_back(Reversal("r", "pi_1", 1_000, "TND")),
    ]
    for call in calls:
        with pytest.raises(GatewayFailure) as failure:
            await call()
        assert failure.value.permanent is permanent
        assert KEY not in str(failure.value)
    assert len(counter.asked) == len(calls)  # the library does not try again behind our back


@pytest.mark.parametrize("minutes", [30, 15, 0])
async def test_a_page_may_be_asked_for_until_its_payment_ends(stripe, counter, minutes):
    ends = datetime.now(UTC) + timedelta(minutes=minutes)
    placed = await stripe.place(replace(ordered(), expires_at=ends))
    asked = counter.pages[placed.provider_reference]["expires_at"]
    assert ends + timedelta(minutes=30) < datetime.fromtimestamp(asked, UTC)


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"object": "refund"}', b'{"object": "charge"}'])
async def test_an_answer_that_says_nothing_of_a_payment_may_be_asked_for_again(
    stripe, counter, body
):
    counter.answer = answers(200, body)
    for call in (
        lambda: stripe.place(ordered()),
        lambda: stripe.ask("cs_1"),
        lambda: stripe.send_back(Reversal("r", "pi_1", 1_000, "TND")),
    ):
        with pytest.raises(GatewayFailure) as failure:
            await call()
        assert not failure.value.permanent


async def test_who_does_not_answer_in_time_may_be_asked_again(counter):
    async def dawdle(_):
        await asyncio.sleep(5)

    counter.answer = dawdle
    provider = StripeProvider(KEY, [SECRET], api_base=counter.url, total_seconds=0.2)
    started = time.monotonic()
    with pytest.raises(GatewayFailure) as failure:
        await provider.place(ordered())
    await provider.close()
    assert not failure.value.permanent
    assert time.monotonic() - started < 2


async def test_who_is_not_there_may_be_asked_again(unasked):
    with pytest.raises(GatewayFailure, match="could not be reached") as failure:
        await unasked.ask("cs_1")
    assert not failure.value.permanent


async def test_an_answer_that_was_lost_is_had_by_asking_again(stripe, counter):
    order = ordered()

    async def lose(request):
        await counter.kept_or_made(request)
        return web.Response(status=504)

    counter.answer = lose
    with pytest.raises(GatewayFailure):
        await stripe.place(order)
    counter.answer = None
    placed = await stripe.place(order)
    assert [page for page in counter.pages if page == placed.provider_reference]
    assert counter.made_of(ORDERED) == 1


@pytest.mark.parametrize(
    ("amount_minor", "currency", "reason"),
    [
        (10_005, "TND", "may have two decimals"),
        (100_000_000, "TND", "too large"),
        (100_000_000, "USD", "too large"),
        (0, "USD", "too large"),
        (1_000_000, "USDC", "takes no USDC"),
    ],
)
async def test_what_stripe_cannot_express_is_refused_before_it_is_asked(
    unasked, amount_minor, currency, reason
):
    with pytest.raises(NotPayable, match=reason):
        await unasked.place(ordered(amount_minor=amount_minor, currency=currency))
    with pytest.raises(NotPayable, match=reason):
        await unasked.send_back(Reversal("r", "pi_1", amount_minor, currency))


@pytest.mark.parametrize(("amount_minor", "currency"), [(10_010, "TND"), (1, "USD"), (1, "EUR")])
def test_what_stripe_can_express_passes(amount_minor, currency):
    assert StripeProvider.check(None, amount_minor, currency) is None  # it reads no account


@pytest.mark.parametrize(
    "wrong",
    [
        {"metadata": {"amana_payment": [1]}},
        {"metadata": {"amana_payment": 3}},
        {"id": 5},
        {"payment_intent": 5},
        {"amount_total": 30_000.0},
        {"amount_total": True},
        {"currency": 5},
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_and_never_coerced(unasked, wrong):
    with pytest.raises(NotificationRefused, match="cannot be read"):
        unasked.read(*event(SESSION | wrong))


def event(thing, *, secret=SECRET, at=None, **fields):
    body = json.dumps({"id": "evt_1", "object": "event", "data": {"object": thing}, **fields})
    signed = library.WebhookSignature.generate_signature_header(body, secret, at)
    return {"Stripe-Signature": signed}, body.encode()


OURS = {"metadata": {"amana_payment": ORDERED}}
INTENT = {
    "object": "payment_intent",
    "id": "pi_1",
    "status": "succeeded",
    "amount": 50_000,
    "amount_received": 50_000,
    "currency": "tnd",
    **OURS,
}
SESSION = {
    "object": "checkout.session",
    "id": "cs_1",
    "status": "complete",
    "payment_status": "paid",
    "payment_intent": "pi_1",
    "amount_total": 50_000,
    "currency": "tnd",
    **OURS,
}
REFUND = {
    "object": "refund",
    "id": "re_1",
    "status": "succeeded",
    "amount": 20_000,
    "currency": "tnd",
    **OURS,
}


@pytest.mark.parametrize(
    ("thing", "outcome", "amount_minor", "charge"),
    [
        (INTENT, Outcome.SUCCEEDED, 50_000, "pi_1"),
        (INTENT | {"amount_received": 49_000}, Outcome.SUCCEEDED, 49_000, "pi_1"),
        (INTENT | {"status": "processing"}, Outcome.PENDING, 50_000, "pi_1"),
        (INTENT | {"status": "requires_payment_method"}, Outcome.PENDING, 50_000, "pi_1"),
        (INTENT | {"status": "canceled"}, Outcome.CANCELLED, 50_000, "pi_1"),
        (SESSION, Outcome.SUCCEEDED, 50_000, "pi_1"),
        (SESSION | {"payment_status": "unpaid"}, Outcome.PENDING, 50_000, "pi_1"),
        (
            SESSION | {"status": "expired", "payment_status": "unpaid", "payment_intent": None},
            Outcome.CANCELLED,
            50_000,
            "cs_1",
        ),
        (REFUND, Outcome.SUCCEEDED, 20_000, "re_1"),
        (REFUND | {"status": "pending"}, Outcome.PENDING, 20_000, "re_1"),
        (REFUND | {"status": "requires_action"}, Outcome.PENDING, 20_000, "re_1"),
        (REFUND | {"status": "failed"}, Outcome.FAILED, 20_000, "re_1"),
        (REFUND | {"status": "canceled"}, Outcome.CANCELLED, 20_000, "re_1"),
    ],
)
async def test_what_a_notification_says(unasked, thing, outcome, amount_minor, charge):
    notification = unasked.read(*event(thing))
    report = notification.report
    assert (notification.payment_id, notification.provider_reference) == (ORDERED, thing["id"])
    assert (report.outcome, report.amount_minor, report.currency) == (outcome, amount_minor, "TND")
    assert report.charge_reference == charge


@pytest.mark.parametrize(
    "thing",
    [
        INTENT | {"metadata": {}},
        INTENT | {"metadata": None},
        {"object": "customer", "id": "cus_1"},
        {"object": "charge", "id": "ch_1", **OURS},
    ],
)
async def test_other_business_on_the_account_is_none_of_ours(unasked, thing):
    assert unasked.read(*event(thing)) is None


@pytest.mark.parametrize(
    "thing",
    [
        INTENT | {"amount_received": 500.5},
        INTENT | {"amount_received": 0},
        INTENT | {"currency": "gbp"},
        REFUND | {"status": "unheard of"},
        {"object": "payment_intent", **OURS},
        {**OURS},
        [],
    ],
)
async def test_a_genuine_notification_that_cannot_be_booked_is_refused_so_that_it_is_seen(
    unasked, thing
):
    with pytest.raises(NotificationRefused, match="cannot be read"):
        unasked.read(*event(thing))


async def test_either_secret_may_have_signed_and_no_other(unasked):
    assert unasked.read(*event(INTENT, secret="whsec_new")) == unasked.read(*event(INTENT))
    with pytest.raises(NotificationRefused, match="signature is wrong"):
        unasked.read(*event(INTENT, secret="whsec_other"))


async def test_a_signature_that_is_older_than_five_minutes_is_refused(unasked):
    with pytest.raises(NotificationRefused):
        unasked.read(*event(INTENT, at=int(time.time()) - 301))


async def test_a_page_that_nobody_paid_in_time_is_cancelled(stripe, counter):
    placed = await stripe.place(ordered())
    counter.expire(placed.provider_reference)
    assert (await stripe.ask(placed.provider_reference)).outcome is Outcome.CANCELLED


async def test_after_a_declined_card_the_payer_may_try_another(stripe_outside, counter):
    placed = await stripe_outside.provider.place(ordered())
    await stripe_outside.decline(placed.provider_reference)
    asked = await stripe_outside.provider.ask(placed.provider_reference)
    assert asked.outcome is Outcome.PENDING


async def test_nothing_of_this_machine_is_sent_along(stripe, counter):
    seen = []

    async def look(request):
        seen.append(dict(request.headers))

    counter.answer = look
    await stripe.place(ordered())
    assert seen[0]["Idempotency-Key"] == f"pay-{ORDERED}"
    assert "X-Stripe-Client-Telemetry" not in seen[0]
    assert "telemetry_id" not in seen[0]["X-Stripe-Client-User-Agent"]
