"""Claim: deliveries up to their 2xx >= 0.3 x a bare aiohttp client that posts the same bodies.

Both to the same sink over as many connections. The floor signs nothing, claims nothing and writes
nothing down. Ours counts until the last delivery is settled in the database. Mails are put aside.
"""

import asyncio
import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.connection import Connection
from statistics import median
from typing import Any

import aiohttp
import uvloop

from bench.ground import Ground
from bench.report import Finding, at_least
from bench.shop import Shop, create_escrows, open_shop
from bench.sink import Sink, sink
from workers.webhooks import SLOTS

ENDPOINTS = 16
CONNECTIONS = SLOTS
EVENTS = 1000
ROUNDS = 3
WITHIN_SECONDS = 60.0
LEAST = 0.3

PUT_MAILS_ASIDE = "UPDATE mail SET state = 'cancelled' WHERE state = 'pending'"
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
    ours, floor = (median(turn[side] for turn in turns) for side in range(2))
    ratio = median(turn[0] / turn[1] for turn in turns)
    return [
        at_least(
            "webhooks delivered and settled / posted by a bare client",
            f"{ours:.0f}/s",
            f"{floor:.0f}/s",
            ratio,
            LEAST,
        )
    ]


async def _turn(
    ground: Ground, shop: Shop, receiver: Sink, urls: Sequence[str]
) -> tuple[float, float]:
    owner = await ground.owner()
    await create_escrows(ground, shop, EVENTS)
    await owner.execute(PUT_MAILS_ASIDE)
    bodies = [row["body"] for row in await owner.fetch(BODIES)]
    posts = [(url, body) for body in bodies for url in urls]
    floor = len(posts) / await asyncio.to_thread(_time_floor, posts)
    await receiver.arrivals()
    before, _ = await owner.fetchrow(SETTLED)
    give_up_at = time.monotonic() + WITHIN_SECONDS
    with ground.running("work"):
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


def _time_floor(posts: Sequence[tuple[str, bytes]]) -> float:
    """How many seconds the floor's process took over all of them."""
    ours, theirs = multiprocessing.get_context("spawn").Pipe()
    process = multiprocessing.get_context("spawn").Process(
        target=post_all, args=(theirs, posts), daemon=True
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
