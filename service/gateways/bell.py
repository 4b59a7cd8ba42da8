"""The bell: after COMMIT it wakes a worker through arq. Every ring is a hint; none is a promise.

What must happen stands in PostgreSQL and is found by polling; a ring that is lost costs a second.
Ids are time buckets: the rings of one bucket become one job, and a job that is running swallows
no ring for longer than that (a fixed id would be refused while its job runs).
"""

import asyncio
import time
from collections.abc import Iterable, Sequence
from typing import Any, Protocol

import orjson
import structlog
from arq import ArqRedis
from arq.constants import job_key_prefix
from arq.jobs import serialize_job
from redis.asyncio import ConnectionPool
from redis.exceptions import RedisError

QUEUE = "amana:bells"
BUCKET_SECONDS = 0.02
EXPIRES_MS = 60_000
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
    """Puts a job named after the bell onto arq's queue."""

    def __init__(self, redis_url: str) -> None:
        self._redis = lazy_redis(redis_url, TIMEOUT_SECONDS)
        self._rung: dict[str, int] = {}
        self._quiet_until = 0.0
        self._tasks: set[asyncio.Task[None]] = set()

    def ring(self, names: Iterable[str]) -> None:
        """One job a name and time bucket; quiet for a second after Redis was found away."""
        now = time.monotonic()
        if now < self._quiet_until:
            return
        bucket = int(now / BUCKET_SECONDS)
        fresh = [name for name in names if self._rung.get(name) != bucket]
        if fresh:
            self._rung.update(dict.fromkeys(fresh, bucket))
            task = asyncio.create_task(self._enqueue(fresh))
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    async def _enqueue(self, names: Sequence[str]) -> None:
        """What arq's `enqueue_job` does for each, in one round trip: it takes three for one."""
        now = time.time()
        bucket, now_ms = int(now / BUCKET_SECONDS), int(now * 1000)
        try:
            async with self._redis.pipeline(transaction=True) as pipe:
                for name in names:
                    job = serialize_job(name, (), {}, None, now_ms, serializer=dump_job)
                    pipe.psetex(f"{job_key_prefix}{name}:{bucket}", EXPIRES_MS, job)
                    pipe.zadd(QUEUE, {f"{name}:{bucket}": now_ms}, nx=True)
                await pipe.execute()
        except (RedisError, OSError, TimeoutError) as away:
            self._quiet_until = time.monotonic() + PAUSE_SECONDS
            log.warning("bell_not_rung", bells=names, reason=type(away).__name__)

    async def close(self) -> None:
        """Let rings under way end, then leave."""
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
