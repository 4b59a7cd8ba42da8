"""One short fault for each promise of reliability.md, cheap enough for every test run.

Processes where a process has to die or to come back; the doors in this process where that is the
same. `make chaos` asks all of it again under load, with servers that die too. Mail is covered by
tests/workers/test_mails.py, cancelled commands by tests/service/commands/test_faults.py.
"""

import asyncio
import contextlib
import random
from collections import Counter
from collections.abc import AsyncIterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from email.utils import format_datetime
from functools import partial

import pytest
from aiohttp import web

import workers.webhooks
from service.commands.deadlines import sweep
from service.gateways.bell import ArqBell
from service.gateways.post import HttpPost
from service.ingress.main import make_app
from service.settings import load_settings
from tests.books import read_log
from tests.chaos.load import RACES, asked, live_unheard, sinking, trading
from tests.chaos.outside import (
    Answer,
    byte_a_second,
    endless_body,
    lossy_line,
    reset_after_2xx,
    says,
    served,
)
from tests.chaos.world import (
    ESCROWS,
    EXPIRE,
    LANE,
    ONE_ESCROW,
    WALLET,
    Program,
    World,
    until,
)
from tests.makers import make_buyer, make_escrow, make_shop
from tests.receiver import make_endpoint, receiving, verify
from workers.webhooks import Courier

pytestmark = pytest.mark.timeout(60)
ASKING = 12  # the pool has 8 connections


@dataclass(frozen=True)
class Here:
    """An ingress in this process."""

    url: str


@contextlib.asynccontextmanager
async def ingress(world: World) -> AsyncIterator[Here]:
    runner = web.AppRunner(
        make_app(load_settings(world.environ)), access_log=None, shutdown_timeout=1
    )
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield Here(f"http://127.0.0.1:{runner.addresses[0][1]}")
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def courier(world: World) -> AsyncIterator[Courier]:
    post = HttpPost(allow_private=True)
    hired = Courier(world.house, post, chance=lambda: 0.0)
    try:
        yield hired
    finally:
        await hired.close(grace_seconds=0)
        await post.close()


async def has_risen(program: Program, figure: str, above: float) -> bool:
    return await program.figure(figure) > above


async def time_passes(world: World) -> None:
    """Every lease and every wait is over."""
    await world.owner.execute("UPDATE delivery SET visible_at = now() WHERE state = 'pending'")
    await world.owner.execute("UPDATE lane SET next_due_at = now(), hold_until = '-infinity'")


async def test_a_worker_killed_before_it_settles_delivers_again_and_completes_once(
    small: World, chance: random.Random
) -> None:
    worker = await small.work()
    async with sinking() as sink:
        shop, buyer = await make_shop(small.house), await make_buyer(small.house)
        await make_endpoint(small.house, shop, f"{sink.url}/hook", events=["escrow.*"])
        sink.held.add("/hook")
        escrow = await make_escrow(small.house, shop, buyer, status="paid", auto_complete="on_ack")
        await until(lambda: sink.at_once == 2)
        async with small.holding(LANE, f"{sink.url}/hook"):
            sink.held.clear()
            await until(lambda: small.is_waiting("work"))  # answered, not settled
            worker.kill()
        await time_passes(small)
        await small.work()
        await until(small.is_quiet)
        assert sorted(map(len, sink.heard.values())) == [1, 2, 2]
        assert await sink.heard_all(small) == 3
    log = await read_log(small.house, escrow.id)
    assert [step for step, _, _ in log] == ["create", "accept_pay", "deliver"]
    await small.sound()


async def test_an_ingress_killed_between_postings_has_done_nothing_and_the_retry_does_it_once(
    small: World, chance: random.Random
) -> None:
    door = await small.serve()
    async with trading(small, chance, lambda: [door]) as trade, courier(small) as hired:
        await trade.live("First", "delivered")  # the seller's wallet is there from now on
        escrow_id = await trade.open("Second", "delivered")
        await trade.step(escrow_id, "pay")
        async with small.holding(WALLET, trade.shop.user_id):
            delivering = asyncio.create_task(trade.step(escrow_id, "deliver"))
            await until(lambda: small.is_waiting("serve"))
            door.kill()
        door = await small.serve()
        await delivering
        assert not any(one.is_replayed for one in trade.answered)
        await trade.kept()
        await hired.settle_all()
    await small.sound()


async def test_without_redis_requests_deliveries_and_deadlines_go_on_and_bells_are_heard_again(
    small: World, chance: random.Random
) -> None:
    worker = await small.work()
    async with (
        sinking() as sink,
        ingress(small) as door,
        trading(small, chance, lambda: [door], sink, endpoints=1) as trade,
    ):
        await trade.live("With Redis", "delivered")
        assert small.say_to_redis("FLUSHALL").startswith(b"+OK")
        await trade.live("Flushed", "acknowledged")
        small.kill_redis()
        await trade.live("Without", "acknowledged")
        await until(small.is_quiet)
        assert trade.misses == {}
        await trade.kept()
        assert await sink.heard_all(small) == 9
        await small.start_redis()
        await until(lambda: worker.said("redis_returned"))
        heard = await worker.figure("amana_bells_total")
        bell = ArqBell(small.redis.url, lambda _: None)
        bell.ring(["webhooks"])
        await bell.close()
        await until(partial(has_risen, worker, "amana_bells_total", heard))
        assert worker.is_up
    await small.sound()


async def test_cut_connections_and_a_full_pool_are_503_with_retry_after_and_nothing_by_halves(
    small: World, chance: random.Random
) -> None:
    async with (
        ingress(small) as door,
        trading(small, chance, lambda: [door]) as trade,
        courier(small) as hired,
    ):
        escrow_id = await trade.open("Held", "delivered")
        await trade.step(escrow_id, "pay")
        path, _ = trade.request(escrow_id, "deliver")
        async with small.holding(ONE_ESCROW, escrow_id):
            asking = [
                asyncio.create_task(trade.attempt(path, b"{}", f"deliver-{n}"))
                for n in range(ASKING)
            ]
            await until(lambda: trade.misses["503"] >= ASKING - 8)  # the pool is full
            await small.terminate_backends()
            assert await asyncio.gather(*asking) == [None] * ASKING
            stands = "SELECT status, seq FROM escrow WHERE id = $1"
            assert await small.rows(stands, escrow_id) == [("paid", 2)]
        assert trade.misses == {"503": ASKING}
        await trade.step(escrow_id, "deliver", "deliver-0")
        await trade.kept()
        await hired.settle_all()
    await small.sound()


async def test_an_escrow_that_somebody_holds_stops_nobody_elses_deliveries_and_deadlines(
    small: World,
) -> None:
    shop, buyer = await make_shop(small.house), await make_buyer(small.house)
    async with receiving() as receiver, courier(small) as hired:
        await make_endpoint(small.house, shop, receiver.url)
        acknowledged = partial(
            make_escrow, small.house, shop, buyer, status="paid", auto_complete="on_ack"
        )
        held, free = await acknowledged(), await acknowledged()
        held_due, free_due = [await make_escrow(small.house, shop, buyer) for _ in range(2)]
        for escrow in (held_due, free_due):
            await small.owner.execute(EXPIRE, escrow.id)
        async with small.holding(ESCROWS, [held.id, held_due.id]), asyncio.timeout(5):
            await hired.drain()
            await until(lambda: len(receiver.parcels) == 2)
            status = "SELECT count(*) FROM escrow WHERE id = ANY ($1) AND status = $2"

            async def goes_on() -> bool:
                await hired.drain()
                await sweep(small.house)
                done = await small.rows(status, [free.id], "completed")
                return done + await small.rows(status, [free_due.id], "cancelled") == [(1,), (1,)]

            await until(goes_on)
            await sweep(small.house)
            assert await small.rows(status, [held.id], "paid") == [(1,)]
            assert await small.rows(status, [held_due.id], "pending") == [(1,)]

        async def catches_up() -> bool:
            await hired.drain()
            await sweep(small.house)
            return await small.is_quiet()

        await until(catches_up)
        assert await small.rows(status, [held.id], "completed") == [(1,)]
        assert await small.rows(status, [held_due.id], "cancelled") == [(1,)]
    await small.sound()


async def test_an_answer_lost_after_the_commit_is_given_again_from_the_store(
    small: World, chance: random.Random
) -> None:
    async with (
        ingress(small) as door,
        lossy_line(int(door.url.rpartition(":")[2])) as line,
        trading(small, chance, lambda: [door]) as trade,
        courier(small) as hired,
    ):
        await live_unheard(trade, line, "Unheard")
        assert [one.is_replayed for one in trade.answered] == [True] * 3
        await trade.kept()
        await hired.settle_all()
    await small.sound()


@pytest.mark.parametrize("minutes", [10, -10])
async def test_a_wrong_clock_of_the_worker_signs_and_waits_by_the_databases(
    small: World, monkeypatch: pytest.MonkeyPatch, minutes: int
) -> None:
    pause = datetime.now(UTC) + timedelta(seconds=30)

    class Wrong(datetime):
        @classmethod
        def now(cls, tz=None):
            return datetime.now(tz) + timedelta(minutes=minutes)

    monkeypatch.setattr(workers.webhooks, "datetime", Wrong)
    shop = await make_shop(small.house)
    async with receiving() as receiver, courier(small) as hired:
        made = await make_endpoint(small.house, shop, receiver.url)
        receiver.says(429, Retry_After=format_datetime(pause, usegmt=True))
        await make_escrow(small.house, shop, status="paid")
        await hired.settle_all()
        (parcel,) = receiver.parcels
        verify(parcel, made["secret"])  # refuses what is signed five minutes off
        await small.owner.execute("UPDATE lane SET next_due_at = now()")
        await hired.settle_all()
        assert len(receiver.parcels) == 1
    held = "SELECT extract(epoch FROM hold_until - now())::float8 FROM lane"
    [(seconds,)] = await small.rows(held)
    assert 15 < seconds <= 30


async def test_receivers_that_misbehave_are_seen_off_and_a_sound_one_is_served(
    small: World,
) -> None:
    shop = await make_shop(small.house)
    async with contextlib.AsyncExitStack() as stack:
        enter = stack.enter_async_context
        inner = await enter(served(says("200 OK")))
        redirect = says("302 Found", f"Location: {inner.url}")
        answers: list[tuple[Answer, list[object]]] = [
            (says("200 OK"), ["delivered", 200, None]),
            (reset_after_2xx, ["delivered", 200, None]),
            (endless_body, ["delivered", 200, None]),
            (byte_a_second, ["pending", 0, "timeout"]),
            (redirect, ["pending", 302, None]),
            (says("410 Gone"), ["cancelled", 410, None]),
        ]
        wanted = {(await enter(served(answer))).url: outcome for answer, outcome in answers}
        for url in wanted:
            await make_endpoint(small.house, shop, url, timeoutSeconds=1)
        await make_escrow(small.house, shop, status="paid")
        hired = await enter(courier(small))
        await hired.settle_all()
        assert inner.asked_at == []
        found = await small.rows(
            """SELECT e.url, d.state, d.last_status, d.last_fault
               FROM delivery d JOIN webhook_endpoint e ON e.id = d.endpoint_id"""
        )
        assert {url: rest for url, *rest in found} == wanted


@pytest.mark.parametrize("steps", [("deliver", "cancel"), ("deliver", "deliver")])
async def test_two_steps_at_two_doors_are_won_by_one(
    small: World, chance: random.Random, steps: tuple[str, str]
) -> None:
    async with (
        ingress(small) as one,
        ingress(small) as other,
        trading(small, chance, lambda: [one, other]) as trade,
        courier(small) as hired,
    ):
        ends: Counter[tuple[int, int, str]] = Counter()
        for number in range(6):
            escrow_id = await trade.open(f"Raced {number}")
            await trade.step(escrow_id, "pay")
            first, second = await asyncio.gather(
                *(asked(trade, door, escrow_id, step) for door, step in enumerate(steps))
            )
            shown = await small.rows("SELECT status FROM escrow WHERE id = $1", escrow_id)
            ends[first, second, shown[0][0]] += 1
        assert set(ends) <= RACES[steps][1]
        await hired.settle_all()
    await small.sound()
