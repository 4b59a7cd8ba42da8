"""One process of ours: its loop, its collector, and the signal that ends it."""

import asyncio
import gc
import signal
from collections.abc import Callable, Coroutine
from typing import Any

import uvloop

# What a request or a delivery allocates dies with it. Python's own 700 has all that are in flight
# looked through a few times each: 5 % of a create.
ALLOCATIONS_PER_COLLECTION = 10_000


def run(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    """Run this until it returns; SIGTERM and SIGINT set the event, and cut nothing short."""
    gc.set_threshold(ALLOCATIONS_PER_COLLECTION)
    uvloop.run(_until_stopped(work))


async def _until_stopped(work: Callable[[asyncio.Event], Coroutine[Any, Any, None]]) -> None:
    stop = asyncio.Event()
    for sign in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(sign, stop.set)
    await work(stop)
