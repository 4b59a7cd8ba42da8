"""The courier's beats: who waits for whom, and what is kept when one fails."""

import asyncio

import asyncpg
import pytest

from service.commands import deliveries
from service.commands.perform import House
from service.gateways.post import HttpPost, Request
from service.rules.delivery import Reply
from tests.makers import make_escrow, make_shop
from tests.receiver import make_endpoint, receiving
from tests.workers.test_webhooks import rows, until, working
from workers import webhooks
from workers.webhooks import Courier

HOLD = "SELECT FROM webhook_endpoint WHERE id = $1 FOR NO KEY UPDATE"
NOWHERE = "http://127.0.0.1:9/hook"


class Answering:
    """A post of which each request is answered by the test, or after `seconds` with 200."""

    def __init__(self, seconds: float | None = None) -> None:
        self._seconds = seconds
        self.asked: list[asyncio.Future[Reply]] = []

    async def send(self, _: Request) -> Reply:
        asked: asyncio.Future[Reply] = asyncio.get_running_loop().create_future()
        self.asked.append(asked)
        if self._seconds is None:
            return await asked
        await asyncio.sleep(self._seconds)
        return Reply(status=200, total_ms=20)

    async def close(self) -> None:
        """Nothing is open."""


async def test_an_endpoint_that_somebody_holds_holds_up_no_other(
    house: House, owner: asyncpg.Connection, post: HttpPost
) -> None:
    async with receiving() as gone, receiving() as well:
        gone.says(410)
        one, other = await make_shop(house), await make_shop(house)
        made = await make_endpoint(house, one, gone.url, events=["escrow.created"])
        await make_endpoint(house, other, well.url, events=["escrow.created"])
        courier = Courier(house, post)
        async with working(courier):
            async with owner.transaction():  # as who parks a long backlog has it
                await owner.execute(HOLD, made["id"])
                await make_escrow(house, one)
                courier.wake()
                await until(lambda: len(gone.parcels) == 1)
                await asyncio.sleep(0.1)
                await make_escrow(house, other)
                courier.wake()
                await until(lambda: len(well.parcels) == 1, seconds=2.5)
            await until(lambda: not courier._grave)
    assert await rows(house, "SELECT is_active FROM webhook_endpoint ORDER BY 1") == [
        (False,),
        (True,),
    ]


async def test_a_claim_that_fails_drops_nothing_that_has_ended(
    house: House, post: HttpPost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> list[object]:
        raise asyncpg.DataError("a row that no claim can be made of")

    async with receiving() as receiver:
        shop = await make_shop(house)
        await make_endpoint(house, shop, receiver.url, events=["escrow.created"])
        await make_escrow(house, shop)
        courier = Courier(house, post)
        await courier.drain()
        await courier._land()
        with monkeypatch.context() as patched:
            patched.setattr(deliveries.deliveries, "claim_deliveries", broken)
            await courier.drain()
        await courier.close(0)
    assert await rows(house, "SELECT state, attempt FROM delivery") == [("delivered", 1)]


async def test_a_beat_that_cannot_begin_drops_nothing(
    house: House, post: HttpPost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def broken(*_: object) -> object:
        raise asyncpg.InvalidPasswordError("rotated")

    async with receiving() as receiver:
        shop = await make_shop(house)
        await make_endpoint(house, shop, receiver.url, events=["escrow.created"])
        courier = Courier(house, post)
        for _ in range(2):  # the second beat fails behind one that had a batch
            await make_escrow(house, shop)
            await courier.drain()
            await courier._land()
            await courier._beat()
        await make_escrow(house, shop)
        await courier.drain()
        await courier._land()
        with monkeypatch.context() as patched:
            patched.setattr(webhooks, "tend", broken)
            with pytest.raises(asyncpg.InvalidPasswordError):
                await courier._beat()
        await courier.close(0)
    assert await rows(house, "SELECT DISTINCT state FROM delivery") == [("delivered",)]


async def test_an_attempt_that_ends_within_a_beat_wakes_the_next(house: House) -> None:
    """It is in the batch one turn of the loop before its slot is free."""
    shop = await make_shop(house)
    await make_endpoint(house, shop, NOWHERE, events=["escrow.created"])
    for _ in range(5):
        await make_escrow(house, shop)
    post = Answering()
    courier = Courier(house, post, slots=3)
    await courier.drain()
    await until(lambda: len(post.asked) == 3)
    post.asked[0].set_result(Reply(status=200, total_ms=1))
    await until(lambda: len(courier._ended) == 1)
    post.asked[1].set_result(Reply(status=200, total_ms=1))
    await until(lambda: len(courier._ended) == 2)
    await courier._beat()
    await asyncio.sleep(0.02)  # its timer has run
    await courier._beat()
    assert not courier._is_gathering
    await courier.close(0)


@pytest.mark.parametrize("slots", [1, 4])
async def test_a_free_slot_waits_for_no_poll_where_something_is_due(
    house: House, slots: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Lanes that were served before and wait for nothing take no turn from one that does."""
    monkeypatch.setattr(webhooks, "POLL_SECONDS", 60.0)
    shops = [await make_shop(house) for _ in range(slots + 1)]
    for shop in shops:
        await make_endpoint(house, shop, NOWHERE, events=["escrow.created"], fifo=True)
    for shop in shops[1:]:
        await make_escrow(house, shop)
    for _ in range(4):
        await make_escrow(house, shops[0])
    post = Answering(seconds=0.02)
    courier = Courier(house, post, slots=slots)
    async with working(courier):
        await until(lambda: len(post.asked) == slots + 4)
