"""Claims: deliveries up to their 2xx >= 0.6 x a bare aiohttp client, >= 3 x one arq job each.

All to the same sink over as many connections. The client signs nothing, claims nothing and writes
nothing down; nor do the jobs, whose worker has every setting that makes it faster than by default.
Ours counts until the last delivery is settled in the database. Mails are put aside. None of them is
measured while it starts: the events are held back until the worker's first checks are over.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Callable, Sequence
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import aiohttp
import uvloop
from arq import ArqRedis, Worker, func
from redis.asyncio import ConnectionPool

from bench.ground import Ground
from bench.report import Finding, at_least
from bench.shop import Shop, create_escrows, open_shop
from bench.sink import Sink, sink
from service.gateways.bell import dump_job, load_job
from workers.webhooks import SLOTS

ENDPOINTS = 16
CONNECTIONS = SLOTS
EVENTS = 1000
ROUNDS = 3
WITHIN_SECONDS = 60.0
STARTED_SECONDS = 3.0
LEAST = 0.6
LEAST_OF_JOBS = 3.0
JOBS = 4000
QUEUE = "bench:deliveries"

PUT_MAILS_ASIDE = "UPDATE mail SET state = 'cancelled' WHERE state = 'pending'"
BODY = b'{"type":"escrow.created","data":{"escrow":{"title":"%s"}}}' % (b"x" * 1200)
HOLD_BACK = "SELECT FROM event WHERE fanned_at IS NULL FOR NO KEY UPDATE"
BODIES = """
SELECT b.body FROM webhook_body b JOIN event v ON v.id = b.event_id WHERE v.fanned_at IS NULL
"""
SETTLED = (
    "SELECT count(*), extract(epoch FROM max(settled_at)) FROM delivery"
    " WHERE state = 'delivered' AND type <> 'canary'"
)


async def measure(ground: Ground) -> list[Finding]:
    """Floor, then ours, by turns."""
    async with sink() as receiver:
        urls = tuple(receiver.url(str(n)) for n in range(ENDPOINTS))
        shop = await open_shop(ground, "deliver", urls)
        turns = [await _turn(ground, shop, receiver, urls) for _ in range(ROUNDS)]
        posts = [(url, BODY) for _ in range(JOBS // ENDPOINTS) for url in urls]
        jobs = JOBS / await asyncio.to_thread(_time, do_jobs, ground.urls.redis, posts)
    ours, floor = (median(turn[side] for turn in turns) for side in range(2))
    ratio = median(turn[0] / turn[1] for turn in turns)
    return [
        at_least(
            "webhooks delivered and settled / posted as an arq job each",
            f"{ours:.0f}/s",
            f"{jobs:.0f}/s",
            ours / jobs,
            LEAST_OF_JOBS,
        ),
        at_least(
            "webhooks delivered and settled / posted by a bare client",
            f"{ours:.0f}/s",
            f"{floor:.0f}/s",
            ratio,
            LEAST,
        ),
    ]


async def _turn(
    ground: Ground, shop: Shop, receiver: Sink, urls: Sequence[str]
) -> tuple[float, float]:
    owner = await ground.owner()
    await create_escrows(ground, shop, EVENTS)
    await owner.execute(PUT_MAILS_ASIDE)
    bodies = [row["body"] for row in await owner.fetch(BODIES)]
    posts = [(url, body) for body in bodies for url in urls]
    floor = len(posts) / await asyncio.to_thread(_time, post_all, posts)
    await receiver.arrivals()
    before, _ = await owner.fetchrow(SETTLED)
    held = owner.transaction()
    await held.start()
    await owner.execute(HOLD_BACK)
    with ground.running("work"):
        await asyncio.sleep(STARTED_SECONDS)
        await held.rollback()
        give_up_at = time.monotonic() + WITHIN_SECONDS
        while True:
            count, last = await owner.fetchrow(SETTLED)
            if count - before >= len(posts):
                break
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"{count - before} of {len(posts)} were delivered")
            await asyncio.sleep(0.1)
    first = min(at for _, at in await receiver.arrivals())
    await owner.close()
    return len(posts) / (float(last) - first), floor


def _time(work: Callable[..., None], *given: Any) -> float:
    """How many seconds this work took in a process of its own."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=work, args=(theirs, *given), daemon=True
    )
    process.start()
    seconds: float = ours.recv()
    process.join(10)
    return seconds


def post_all(told: "Connection[float, Any]", posts: Sequence[tuple[str, bytes]]) -> None:
    """The floor's process: a session, so many at once, read each answer."""

    async def run() -> float:
        waiting = iter(posts)
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        headers = {"Content-Type": "application/json"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:

            async def one_after_the_other() -> None:
                for url, body in waiting:
                    async with session.post(url, data=body) as answer:
                        await answer.read()
                        answer.raise_for_status()

            began = time.perf_counter()
            await asyncio.gather(*(one_after_the_other() for _ in range(CONNECTIONS)))
            return time.perf_counter() - began

    told.send(uvloop.run(run()))


def do_jobs(
    told: "Connection[float, Any]", redis_url: str, posts: Sequence[tuple[str, bytes]]
) -> None:
    """The process of one arq worker: the jobs stand in Redis already, each posts one body."""
    left = len(posts)
    done = asyncio.Event()

    async def deliver(ctx: dict[str, Any], url: str, body: str) -> None:
        nonlocal left
        async with ctx["session"].post(url, data=body.encode()) as answer:
            await answer.read()
            answer.raise_for_status()
        left -= 1
        if not left:
            done.set()

    async def run() -> float:
        redis = ArqRedis(ConnectionPool.from_url(redis_url), job_serializer=dump_job,
                         job_deserializer=load_job, default_queue_name=QUEUE)  # fmt: skip
        for url, body in posts:
            await redis.enqueue_job("deliver", url, body.decode())
        connector = aiohttp.TCPConnector(limit=CONNECTIONS)
        headers = {"Content-Type": "application/json"}
        async with aiohttp.ClientSession(connector=connector, headers=headers) as session:
            worker = Worker(
                functions=[func(deliver, name="deliver", keep_result=0)],
                queue_name=QUEUE,
                redis_pool=redis,
                job_serializer=dump_job,
                job_deserializer=load_job,
                handle_signals=False,
                ctx={"session": session},
                max_jobs=CONNECTIONS,
                queue_read_limit=4 * CONNECTIONS,
                poll_delay=0.01,
                keep_result=0,
                log_results=False,
            )
            began = time.perf_counter()
            working = asyncio.create_task(worker.async_run())
            await done.wait()
            seconds = time.perf_counter() - began
            working.cancel()
            await asyncio.wait({working}, timeout=5)
        return seconds

    told.send(uvloop.run(run()))
