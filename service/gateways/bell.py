"""The bell: after COMMIT it wakes a worker through arq. Every ring is a hint; none is a promise.

What must happen stands in PostgreSQL and is found by polling; a ring that is lost costs a second.
Each ring that is sent is a job of its own: one with a shared id would be refused while its job
runs, or removed by the end of it. Rings that come too close together become one, which is sent at
the end of the wait.
"""

import asyncio
import math
import time
from collections.abc import Callable, Iterable, Sequence
from typing import Any, Protocol
from uuid import uuid4

import orjson
import structlog
from arq import ArqRedis
from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

QUEUE = "amana:bells"
APART_SECONDS = 0.02
"""Rings of one name, by one process, are at least so far apart."""
EXPIRES_MS = 60_000
"""After so long a ring that no worker heard is forgotten: a worker that comes back polls anyway."""
TIMEOUT_SECONDS = 0.2
PAUSE_SECONDS = 1.0

log = structlog.get_logger()


class Bell(Protocol):
    """Wakes workers up."""

    def ring(self, names: Iterable[str]) -> None:
        """Fire and forget; never raises, never waits."""


class SilentBell:
    """Rings nothing: where there is no Redis, workers find everything by polling."""

    def ring(self, names: Iterable[str]) -> None:
        """Do nothing."""


class ArqBell:
    """Puts jobs named after the bell onto arq's queue.

    `on_lost` is called with the number of names that were not rung because Redis was away.
    """

    def __init__(
        self,
        redis_url: str,
        on_lost: Callable[[int], None],
        *,
        apart_seconds: float = APART_SECONDS,
    ) -> None:
        self._on_lost = on_lost
        self._redis = lazy_redis(redis_url, TIMEOUT_SECONDS)
        self._apart_seconds = apart_seconds
        self._sent_at: dict[str, float] = {}
        self._waiting: dict[str, asyncio.TimerHandle] = {}
        self._quiet_until = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    def ring(self, names: Iterable[str]) -> None:
        """Each name is sent now, or once it may be again: whatever was committed, a job follows it.

        Quiet for a second after Redis was found away.
        """
        loop = asyncio.get_running_loop()
        names, now = set(names), loop.time()
        if now < self._quiet_until:
            self._on_lost(len(names))
            return
        fresh = []
        for name in names - self._waiting.keys():
            wait_seconds = self._sent_at.get(name, -math.inf) + self._apart_seconds - now
            if wait_seconds > 0:
                self._waiting[name] = loop.call_later(wait_seconds, self._send, [name])
            else:
                fresh.append(name)
        if fresh:
            self._send(fresh)

    def _send(self, names: Sequence[str]) -> None:
        now = asyncio.get_running_loop().time()
        for name in names:
            self._waiting.pop(name, None)
            self._sent_at[name] = now
        task = asyncio.create_task(self._enqueue(names))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _enqueue(self, names: Sequence[str]) -> None:
        """What arq's `enqueue_job` does for each new id, in one round trip: it takes three for one.

        Its checks are for ids that may be there already. What nobody heard in time goes.
        """
        now_ms = int(time.time() * 1000)
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                pipe.zremrangebyscore(QUEUE, "-inf", now_ms - EXPIRES_MS)
                for name in names:
                    job_id = f"{name}:{uuid4().hex}"
                    job = serialize_job(name, (), {}, None, now_ms, serializer=dump_job)
                    pipe.psetex(f"{job_key_prefix}{job_id}", EXPIRES_MS, job)
                    pipe.zadd(QUEUE, {job_id: now_ms})
                await pipe.execute()
        except (RedisError, OSError, TimeoutError) as away:
            self._quiet_until = asyncio.get_running_loop().time() + PAUSE_SECONDS
            self._on_lost(len(names))
            log.warning("bell_not_rung", bells=names, reason=type(away).__name__)

    async def close(self) -> None:
        """Send what waits, let rings under way end, then leave."""
        for waiting in self._waiting.values():
            waiting.cancel()
        if self._waiting:
            self._send(list(self._waiting))
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=1)
        await self._redis.aclose(close_connection_pool=True)


def lazy_redis(redis_url: str, timeout_seconds: float = 5.0) -> ArqRedis:
    """arq's client on its own pool: it connects when it is used, not when it is made."""
    pool = ConnectionPool.from_url(
        redis_url, socket_timeout=timeout_seconds, socket_connect_timeout=timeout_seconds
    )
    return ArqRedis(
        pool, job_serializer=dump_job, job_deserializer=load_job, default_queue_name=QUEUE
    )


def dump_job(job: dict[str, Any]) -> bytes:
    """arq's job as JSON: a queue must not be able to make us run a pickle."""
    return orjson.dumps(job, default=str)


def load_job(raw: bytes) -> dict[str, Any]:
    """The job back from JSON."""
    job: dict[str, Any] = orjson.loads(raw)
    return job
