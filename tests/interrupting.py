"""Ends a coroutine at any of its awaits, as `asyncio` itself would.

steps = await count_awaits(work())          # how often it gives way in one whole run
ended = await cancelled_at(work(), n)       # cancelled when it gives way for the n-th time
"""

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Generator
from typing import Any


class Stepped:
    """Awaits a coroutine and calls `at` each time before it gives way to the loop."""

    def __init__(self, work: Coroutine[Any, Any, Any], at: Callable[[int], None]) -> None:
        self.work = work
        self.at = at

    def __await__(self) -> Generator[Any, Any, Any]:
        awaiting = self.work.__await__()
        count = 0
        thrown: BaseException | None = None
        while True:
            try:
                future = awaiting.throw(thrown) if thrown is not None else next(awaiting)
            except StopIteration as ended:
                return ended.value
            thrown = None
            count += 1
            self.at(count)
            try:
                yield future
            except BaseException as error:  # noqa: BLE001 - handed on, as the loop does
                thrown = error


async def count_awaits(work: Coroutine[Any, Any, Any]) -> int:
    """How often the work gives way until it is done."""
    counts: list[int] = [0]
    await Stepped(work, counts.append)
    return counts[-1]


async def cancelled_at(work: Coroutine[Any, Any, Any], n: int) -> Any:
    """What the work gives, or CancelledError where being cancelled at its n-th await ended it."""
    task: asyncio.Task[Any]

    def cancel(count: int) -> None:
        if count == n:
            task.cancel()

    async def run() -> Any:
        return await Stepped(work, cancel)

    task = asyncio.create_task(run())
    try:
        return await task
    except asyncio.CancelledError as cancelled:
        return cancelled


async def until(
    holds: Callable[[], Awaitable[bool]], *, seconds: float = 5.0, every: float = 0.01
) -> None:
    """Waits until this holds; fails after `seconds`."""
    deadline = asyncio.get_running_loop().time() + seconds
    while not await holds():
        assert asyncio.get_running_loop().time() < deadline, f"not within {seconds} s"
        await asyncio.sleep(every)
