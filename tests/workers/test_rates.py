"""The rates' job: hourly, sooner after a failure, one worker for all, and never a bad rate."""

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from itertools import pairwise

import aiohttp
import asyncpg
import pytest
from aiohttp import web

from service.commands import rates
from service.commands.perform import House
from service.gateways.fx import HttpRateFeed
from service.ingress.connection import Runner
from service.ingress.main import make_app
from service.settings import Settings
from tests.feed import Feed, feeding
from tests.makers import arrange, make_shop
from workers.main import opened
from workers.metrics import WorkMetrics
from workers.rates import RETRY_MAX_SECONDS, Rates

HOUR = 3600.0
STORED = "SELECT currency, rate, source FROM fx_rate ORDER BY id"
BOTH = [("USD", Decimal("3.12"), "fetched"), ("EUR", Decimal("3.4"), "fetched")]
BAD = {
    "500": lambda feed: feed.says(b"{}", 500),
    "wrong type": lambda feed: feed.says(b"<html></html>", kind="text/html"),
    "broken": lambda feed: feed.says(b'{"USD": 3.1'),
    "absurd": lambda feed: feed.says(b'{"USD": 3.12, "EUR": 0}'),
    "oversized": lambda feed: feed.floods(),
    "slow": lambda feed: feed.dawdles(5),
}


class Worker:
    """One worker's job with a watch of its own; the spread's chance is always one half."""

    def __init__(self, house: House, url: str) -> None:
        self.now, self.metrics = 0.0, WorkMetrics()
        self.gateway = HttpRateFeed(url, total_seconds=0.3)
        self.rates = Rates(house, self.gateway, self.metrics, lambda: self.now, lambda: 0.5)

    async def turn_after(self, seconds: float) -> None:
        self.now += seconds
        await self.rates.turn()

    def counted(self, end: str) -> float:
        return self.metrics.registry.get_sample_value("amana_rate_fetches_total", {"end": end}) or 0

    async def age(self, house: House, currency: str) -> float | None:
        await self.metrics.look(house.pool)
        return self.metrics.registry.get_sample_value(
            "amana_rate_age_seconds", {"currency": currency}
        )


@pytest.fixture
async def feed() -> AsyncIterator[Feed]:
    async with feeding() as opened_feed:
        yield opened_feed


@pytest.fixture
async def workers(house: House, feed: Feed) -> AsyncIterator[tuple[Worker, Worker]]:
    both = Worker(house, feed.url), Worker(house, feed.url)
    yield both
    for one in both:
        await one.gateway.close()


@pytest.fixture
def worker(workers: tuple[Worker, Worker]) -> Worker:
    return workers[0]


async def stored(house: House) -> list[tuple[str, Decimal, str]]:
    return [tuple(row) for row in await house.pool.fetch(STORED)]


async def grow_old(owner: asyncpg.Connection, age: str) -> None:
    """Real time cannot be moved: the rates are."""
    await owner.execute("UPDATE fx_rate SET fetched_at = fetched_at - $1::text::interval", age)


async def test_it_fetches_at_once_and_then_once_an_hour(
    house: House, owner: asyncpg.Connection, feed: Feed, worker: Worker
) -> None:
    await worker.turn_after(0)
    assert await stored(house) == BOTH
    await worker.turn_after(15)
    await worker.turn_after(HOUR - 15)
    assert feed.asked == 1
    await grow_old(owner, "61 min")
    await worker.turn_after(300)
    assert (feed.asked, worker.counted("stored")) == (2, 2)
    assert await stored(house) == BOTH * 2


async def test_what_another_worker_has_fetched_is_not_fetched_again(
    house: House, owner: asyncpg.Connection, feed: Feed, workers: tuple[Worker, Worker]
) -> None:
    for one in workers:
        await one.turn_after(0)
    assert feed.asked == 1
    await grow_old(owner, "1 hour")
    for one in workers:
        await one.turn_after(HOUR + 300)
    assert feed.asked == 2
    assert [one.counted("stored") for one in workers] == [2, 0]


async def test_of_two_that_ask_at_the_same_moment_one_stores_its_answer(
    house: House, feed: Feed, workers: tuple[Worker, Worker]
) -> None:
    feed.dawdles(0.1)
    await asyncio.gather(*(one.turn_after(0) for one in workers))
    assert feed.asked == 2
    assert sorted(one.counted("stored") for one in workers) == [0, 1]
    assert sorted(one.counted("spared") for one in workers) == [0, 1]
    assert await stored(house) == BOTH


async def test_the_operators_rate_is_replaced_by_the_next_fetch_and_keeps_none_off(
    house: House, feed: Feed, worker: Worker
) -> None:
    await arrange(house, lambda tx: rates.set_rate(tx, "USD", Decimal(3), "operator"))
    await worker.turn_after(0)
    assert await stored(house) == [("USD", Decimal(3), "operator"), *BOTH]


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_answer_stores_nothing_is_counted_and_the_next_good_one_counts(
    house: House, feed: Feed, worker: Worker, kind: str
) -> None:
    BAD[kind](feed)
    await worker.turn_after(0)
    assert (await stored(house), worker.counted("failed")) == ([], 1)
    feed.answer = None
    await worker.turn_after(30)
    assert (await stored(house), worker.counted("stored")) == (BOTH, 1)


async def test_it_asks_ever_less_often_while_the_feed_fails(
    house: House, feed: Feed, worker: Worker
) -> None:
    feed.says(b"", 500)
    asked_at = []
    for _ in range(4 * 60 * 12):
        before = feed.asked
        await worker.turn_after(5)
        if feed.asked > before:
            asked_at.append(worker.now)
    waits = [late - early for early, late in pairwise(asked_at)]
    assert waits[:4] == [25, 45, 90, 180]
    assert set(waits[6:]) == {RETRY_MAX_SECONDS * 0.75}
    assert worker.counted("failed") == len(asked_at)


async def test_a_database_that_refuses_does_not_have_the_feed_asked_each_turn(
    house: House, owner: asyncpg.Connection, feed: Feed, worker: Worker
) -> None:
    await owner.execute("REVOKE INSERT ON fx_rate FROM amana_app")
    try:
        with pytest.raises(asyncpg.InsufficientPrivilegeError):
            await worker.turn_after(0)
        await worker.turn_after(15)
        assert feed.asked == 1
    finally:
        await owner.execute("GRANT INSERT ON fx_rate TO amana_app")
    await worker.turn_after(15)
    assert await stored(house) == BOTH


async def test_the_age_of_the_newest_rate_is_shown_for_each_currency(
    house: House, owner: asyncpg.Connection, feed: Feed, worker: Worker
) -> None:
    assert await worker.age(house, "USD") == float("inf")
    await worker.turn_after(0)
    await grow_old(owner, "2 hours")
    await arrange(house, lambda tx: rates.set_rate(tx, "USD", Decimal(3), "operator"))
    assert await worker.age(house, "USD") == pytest.approx(0, abs=10)
    assert await worker.age(house, "EUR") == pytest.approx(2 * HOUR, abs=10)


async def test_the_last_good_rate_counts_until_its_limit_then_creates_are_refused_then_it_recovers(
    house: House, owner: asyncpg.Connection, migrated: Settings, feed: Feed, worker: Worker
) -> None:
    shop = await make_shop(house)
    wanted = {"title": "A camera", "amount": 100, "currency": "USD",
              "buyerEmail": "rim@buyer.example", "mode": "instant"}  # fmt: skip
    runner = Runner(make_app(migrated), access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()

    async def create() -> tuple[int, object]:
        async with aiohttp.ClientSession() as client:
            url = f"http://127.0.0.1:{runner.addresses[0][1]}/api/v1/escrows"
            async with client.post(url, json=wanted, headers=shop.headers) as response:
                told = await response.json()
                if response.status == 201:
                    return 201, told["escrow"]["amountTnd"]
                return response.status, told.get("code")

    try:
        assert await create() == (503, "FX_RATE_UNAVAILABLE")
        await worker.turn_after(0)
        assert await create() == (201, 312)
        feed.says(b"no", 500)
        await grow_old(owner, "47 h 59 min")
        await worker.turn_after(2 * HOUR)
        assert (worker.counted("failed"), await create()) == (1, (201, 312))
        await grow_old(owner, "1 min")
        assert await create() == (503, "FX_RATE_UNAVAILABLE")
        feed.says(b'{"USD": 3.2}')
        await worker.turn_after(HOUR)
        assert await create() == (201, 320)
    finally:
        await runner.cleanup()


async def test_fx_url_is_all_that_a_worker_needs(
    house: House, migrated: Settings, feed: Feed
) -> None:
    stop = asyncio.Event()
    async with opened(migrated.model_copy(update={"fx_url": feed.url})) as (crew, _):
        running = asyncio.create_task(crew.run(stop))
        async with asyncio.timeout(10):
            while not await stored(house):  # noqa: ASYNC110 - the database has no event
                await asyncio.sleep(0.05)
        stop.set()
        await running
    assert await stored(house) == BOTH
