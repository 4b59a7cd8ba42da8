"""PostgreSQL restarted, killed, its backends cut, its locks held: 503 or done, never by halves."""

import asyncio
import random
import signal
import time
from collections import Counter

import aiohttp
import pytest

from tests.chaos.conftest import Tell
from tests.chaos.load import Trade, sinking, trading, under_load
from tests.chaos.world import ESCROWS, EXPIRE, ONE_ESCROW, World, until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400)]
CUTS = 6
HELD_SECONDS = 60
ASKING = 20
LATE_SECONDS = 10  # a lane's poll and a busy machine; a stall lasts as long as the lock is held


async def test_restarts_crashes_and_cut_connections_are_survived_without_a_restart_of_ours(
    world: World, chance: random.Random, tell: Tell
) -> None:
    ingress, worker = await world.serve(), await world.work()
    async with sinking() as sink, trading(world, chance, lambda: [ingress], sink) as trade:
        returns = []
        async with under_load(trade):
            await asyncio.sleep(2)
            for by in (signal.SIGINT, signal.SIGKILL):
                await world.stop_postgres(by)
                await asyncio.sleep(chance.uniform(2, 5))
                await world.start_postgres()
                answered = len(trade.answered)
                returns.append(await until(lambda n=answered: len(trade.answered) > n))
                await asyncio.sleep(3)
            cut = 0
            for _ in range(CUTS):
                await asyncio.sleep(chance.uniform(0.2, 1.0))
                cut += await world.terminate_backends()
        recovery = await until(world.is_quiet, every=0.2)
        assert ingress.is_up
        assert worker.is_up
        assert set(trade.misses) <= {"503", "in flight"}  # every request got an answer of ours
        assert trade.misses["503"] > 0
        await trade.kept(replays=len(trade.answered))
        pairs = await sink.heard_all(world)
        tell(
            misses=dict(trade.misses),
            answered=len(trade.answered),
            backends_cut=cut,
            first_answer_after_seconds=[round(one, 2) for one in returns],
            quiet_after_seconds=recovery,
            pairs=pairs,
            duplicates=sink.duplicates,
        )
    await world.sound()


async def test_a_held_lock_and_a_full_pool_are_503_and_harm_nobody_for_long(
    world: World, chance: random.Random, tell: Tell
) -> None:
    """More requests than the pool has connections wait for one escrow that somebody holds."""
    ingress, _ = await world.serve(), await world.work()
    async with (
        trading(world, chance, lambda: [ingress]) as trade,
        trading(world, chance, lambda: [ingress]) as other,
    ):
        await trade.live("First", "delivered")
        escrow_id = await trade.open("Held", "delivered")
        await trade.step(escrow_id, "pay")
        path, _ = trade.request(escrow_id, "deliver")
        async with world.holding(ONE_ESCROW, escrow_id):
            asked = [
                asyncio.create_task(trade.attempt(path, b"{}", f"deliver-{n}"))
                for n in range(ASKING)
            ]
            beside = asyncio.create_task(others(other))
            assert await asyncio.gather(*asked) == [None] * ASKING
            assert trade.misses == {"503": ASKING}
            assert trade.complaints == []
            assert await world.rows("SELECT status FROM escrow WHERE id = $1", escrow_id) == [
                ("paid",)
            ]
        statuses = await beside
        await trade.step(escrow_id, "deliver", "deliver-0")
        await other.live("Afterwards", "delivered")
        await trade.kept(replays=len(trade.answered))
        await other.kept()
        tell(beside=dict(statuses))
        assert set(statuses) <= {200, 503}
    await world.sound()


async def others(trade: Trade, seconds: float = 8.0) -> Counter[int]:
    """What another tenant is answered meanwhile."""
    statuses: Counter[int] = Counter()
    over = time.monotonic() + seconds
    async with aiohttp.ClientSession(headers=trade.shop.headers) as client:
        while time.monotonic() < over:
            async with client.get(f"{trade.ingresses()[0].url}/api/v1/me") as answer:
                statuses[answer.status] += 1
                assert answer.status == 200 or answer.headers["Retry-After"].isdigit()
            await asyncio.sleep(0.05)
    return statuses


async def test_an_idle_transaction_that_holds_one_escrow_stops_no_other_tenant(
    world: World, chance: random.Random, tell: Tell
) -> None:
    """The worker has both a receipt and a deadline of the held escrow to write."""
    ingress, worker = await world.serve(), await world.work()
    async with (
        sinking() as sink,
        trading(world, chance, lambda: [ingress], sink, endpoints=1) as held,
        trading(world, chance, lambda: [ingress], sink, endpoints=1) as free,
    ):
        escrow_id = await held.open("Held", "acknowledged")
        expiring = await held.open("Expiring", "cancelled")
        await until(world.is_quiet)
        path = f"/{held.shop.developer_id}/0"
        sink.held.add(path)
        await held.step(escrow_id, "pay")
        await until(lambda: sink.at_once == 1)
        async with world.holding(ESCROWS, [escrow_id, expiring]):
            sink.held.clear()
            await world.owner.execute(EXPIRE, expiring)
            since = time.time()
            async with under_load(free, side_by_side=2):
                await asyncio.sleep(HELD_SECONDS)
            till = time.time()
            waiting = await world.rows(
                """SELECT d.state, count(*) FROM delivery d
                   JOIN webhook_endpoint e ON e.id = d.endpoint_id
                   WHERE e.url NOT LIKE '%' || $1 GROUP BY 1 ORDER BY 1""",
                path,
            )
            overdue = await world.rows(
                """SELECT count(*) FROM deadline WHERE fired_at IS NULL AND cancelled_at IS NULL
                   AND due_at <= business_now() - interval '3 s' AND escrow_id <> ALL ($1)""",
                [escrow_id, expiring],
            )
        recovery = await until(world.is_quiet, every=0.2)
        waits = await sink.waits(world, since, till)
        tell(
            of_the_free_tenant=dict(waiting),
            free_overdue=overdue[0][0],
            slowest_wait_seconds=waits[-1],
            duplicates=sink.duplicates,
            recovery_seconds=recovery,
        )
        await held.kept()
        await free.kept()
        await sink.heard_all(world)
        assert worker.is_up
        assert waits[-1] < LATE_SECONDS
        assert overdue == [(0,)]
        assert dict(waiting).get("pending", 0) < dict(waiting)["delivered"] / 2
    await world.sound()
