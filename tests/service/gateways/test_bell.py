"""The bell over a real Redis and arq's own worker: whoever rings is heard after it."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from arq import ArqRedis, Worker, func

from service.gateways.bell import QUEUE, ArqBell, dump_job, lazy_redis, load_job

APART_SECONDS = 0.3


@pytest.fixture
async def redis(redis_url: str) -> AsyncIterator[ArqRedis]:
    client = lazy_redis(redis_url)
    await client.flushdb()
    yield client
    await client.flushdb()
    await client.aclose(close_connection_pool=True)


@contextlib.asynccontextmanager
async def bell_at(redis_url: str, apart_seconds: float = APART_SECONDS) -> AsyncIterator[ArqBell]:
    bell = ArqBell(redis_url, lambda _: None, apart_seconds=apart_seconds)
    yield bell
    await bell.close()


async def until(fact: Callable[[], Any], seconds: float = 10) -> None:
    async with asyncio.timeout(seconds):
        while not await fact():  # noqa: ASYNC110 - a fact of Redis
            await asyncio.sleep(0.01)


class Ears:
    """arq's worker; each job waits for the gate before it ends."""

    def __init__(self, redis: ArqRedis) -> None:
        self.heard = 0
        self.gate = asyncio.Event()

        async def ring(_: dict[Any, Any]) -> None:
            self.heard += 1
            await self.gate.wait()

        self.worker = Worker(
            functions=[func(ring, name="timers", keep_result=0)],
            queue_name=QUEUE,
            redis_pool=redis,
            job_serializer=dump_job,
            job_deserializer=load_job,
            handle_signals=False,
            poll_delay=0.01,
            burst=True,
        )

    async def heard_so_often(self, times: int) -> bool:
        return self.heard == times


async def test_a_ring_during_anothers_job_is_heard_after_it(
    redis: ArqRedis, redis_url: str
) -> None:
    ears = Ears(redis)
    async with bell_at(redis_url, 3600) as one, bell_at(redis_url, 3600) as other:
        one.ring(["timers"])
        await until(lambda: redis.zcard(QUEUE))
        working = asyncio.create_task(ears.worker.async_run())
        await until(lambda: ears.heard_so_often(1))
        other.ring(["timers"])
        await until(lambda: ears.heard_so_often(2))
        ears.gate.set()
        await working
    assert ears.heard == 2
    assert await redis.keys("*timers*") == []


async def test_rings_that_come_too_close_are_one_that_is_sent_at_the_end(
    redis: ArqRedis, redis_url: str
) -> None:
    async with bell_at(redis_url) as bell:
        bell.ring(["timers"])
        await until(lambda: redis.zcard(QUEUE))
        await redis.delete(QUEUE)  # a worker took it
        for _ in range(5):
            bell.ring(["timers"])
        await asyncio.sleep(0)
        assert await redis.zcard(QUEUE) == 0
        await until(lambda: redis.zcard(QUEUE))
        await asyncio.sleep(2 * APART_SECONDS)
        assert await redis.zcard(QUEUE) == 1


async def test_each_bell_has_its_own_pace(redis: ArqRedis, redis_url: str) -> None:
    async with bell_at(redis_url, 3600) as bell:
        bell.ring(["timers"])
        bell.ring(["timers", "mails"])

        async def both() -> bool:
            return await redis.zcard(QUEUE) == 2

        await until(both)


async def test_a_ring_that_waits_is_sent_at_the_end(redis: ArqRedis, redis_url: str) -> None:
    async with bell_at(redis_url, 3600) as bell:
        bell.ring(["timers"])
        bell.ring(["timers"])
    assert await redis.zcard(QUEUE) == 2


async def test_rings_that_nobody_hears_do_not_pile_up_for_ever(
    redis: ArqRedis, redis_url: str
) -> None:
    await redis.zadd(QUEUE, {"timers:of-an-hour-ago": 1.0})
    async with bell_at(redis_url) as bell:
        bell.ring(["timers"])
    assert await redis.zcard(QUEUE) == 1
    assert await redis.zscore(QUEUE, "timers:of-an-hour-ago") is None


async def test_without_redis_it_is_silent_and_harms_nobody_and_counts_what_was_lost() -> None:
    lost: list[int] = []
    bell = ArqBell("redis://127.0.0.1:1", lost.append)
    bell.ring(["timers", "mails"])
    await until(lambda: asyncio.sleep(0, lost))
    for _ in range(2):
        bell.ring(["timers"])
        await asyncio.sleep(0.02)
    await bell.close()
    assert lost == [2, 1, 1]
