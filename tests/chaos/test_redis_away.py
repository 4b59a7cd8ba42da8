"""Redis flushed, frozen, killed and back empty: it rings bells and counts, and holds no truth."""

import asyncio
import random
import signal
import statistics
import time

import pytest

from tests.chaos.conftest import Tell
from tests.chaos.load import Sink, sinking, trading, under_load
from tests.chaos.world import World, until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(400)]
AWAY_SECONDS = 60
FROZEN_SECONDS = 8
FLUSHES = 10
HEARD_WITHIN_SECONDS = 15  # the poll's second, with room for a busy machine


async def test_without_redis_everything_goes_on_and_it_is_taken_up_again(
    world: World, chance: random.Random, tell: Tell
) -> None:
    ingress, worker = await world.serve(), await world.work()
    marks = [time.time()]
    async with sinking() as sink, trading(world, chance, lambda: [ingress], sink) as trade:
        async with under_load(trade, side_by_side=3):
            await asyncio.sleep(5)
            marks.append(time.time())
            for _ in range(FLUSHES):
                assert world.say_to_redis("FLUSHALL").startswith(b"+OK")
                await asyncio.sleep(chance.uniform(0.1, 0.5))
            marks.append(time.time())
            world.redis_child.process.send_signal(signal.SIGSTOP)
            await asyncio.sleep(FROZEN_SECONDS)
            world.redis_child.process.send_signal(signal.SIGCONT)
            marks.append(time.time())
            await asyncio.sleep(3)
            world.kill_redis()
            marks.append(time.time())
            await asyncio.sleep(AWAY_SECONDS)
            marks.append(time.time())
            await world.start_redis()
            back = await until(lambda: worker.said("redis_returned"))
            marks.append(time.time())
            unheard = await worker.figure("amana_bells_total")
            await asyncio.sleep(5)
        marks.append(time.time())
        await until(world.is_quiet)
        assert await worker.figure("amana_bells_total") > unheard  # bells are heard again
        assert worker.is_up
        # Every request was answered, and at its first try: the limiter fails open.
        assert trade.misses == {}
        assert ingress.said("limiter_away") != []
        await trade.kept()
        pairs = await sink.heard_all(world)
        assert sink.duplicates == 0
        spans = {
            "with_redis": await median_and_most(world, sink, marks[0], marks[1]),
            "flushed": await median_and_most(world, sink, marks[1], marks[2]),
            "frozen": await median_and_most(world, sink, marks[2], marks[3]),
            "away": await median_and_most(world, sink, marks[4], marks[5]),
            "back": await median_and_most(world, sink, marks[6], marks[7]),
        }
        slowest = max(one.seconds for one in trade.answered)
        tell(
            pairs=pairs,
            slowest_answer_seconds=slowest,
            back_after_seconds=back,
            ingress_peak_mib=ingress.memory_mib(),
            worker_peak_mib=worker.memory_mib(),
            **spans,
        )
        assert max(await sink.waits(world, 0, time.time())) < HEARD_WITHIN_SECONDS
    fired = """SELECT count(*) FROM deadline WHERE kind = 'acknowledged'
               AND fired_at BETWEEN to_timestamp($1) AND to_timestamp($2)"""
    assert (await world.rows(fired, marks[4], marks[5]))[0][0] > 0
    await world.sound()


async def median_and_most(world: World, sink: Sink, since: float, till: float) -> str:
    """Seconds from commit to first attempt in this span."""
    waits = await sink.waits(world, since, till)
    return f"{statistics.median(waits):.3f}/{waits[-1]:.3f} s" if waits else "nothing"
