"""Gathering: what is asked for at the same time is done together.

Under load a transaction a request is mostly ceremony, so requests that come while others are being
served wait for their turn and share one. Nobody waits for company: the first one goes at once.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

AskT = TypeVar("AskT")
GivenT = TypeVar("GivenT")

TOGETHER_MAX = 64
LANES_MAX = 4
PATIENCE_SECONDS = 0.001
"""How long the next ones wait for those before them; then another lane is opened for them."""


class Gathering(Generic[AskT, GivenT]):
    """`serve` answers many at once: one answer, or the exception to be raised, for each."""

    def __init__(
        self, serve: Callable[[Sequence[AskT]], Awaitable[Sequence[GivenT | Exception]]]
    ) -> None:
        self._serve = serve
        self._waiting: list[tuple[AskT, asyncio.Future[GivenT]]] = []
        self._open_lanes = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, one: AskT) -> GivenT:
        """The answer to this one. Raises what `serve` raised, or gave in its place."""
        loop = asyncio.get_running_loop()
        future: asyncio.Future[GivenT] = loop.create_future()
        self._waiting.append((one, future))
        if not self._open_lanes:
            self._open_lane()
        elif len(self._waiting) == 1:
            loop.call_later(PATIENCE_SECONDS, self._lose_patience, future)
        return await future

    def _lose_patience(self, first: "asyncio.Future[GivenT]") -> None:
        waits = bool(self._waiting) and self._waiting[0][1] is first
        if waits and self._open_lanes < LANES_MAX:
            self._open_lane()

    def _open_lane(self) -> None:
        self._open_lanes += 1
        # A context of its own: what is logged here belongs to no single request.
        task = asyncio.get_running_loop().create_task(self._run_lane(), context=Context())
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _run_lane(self) -> None:
        try:
            while self._waiting:
                await self._serve_some()
        finally:
            self._open_lanes -= 1

    async def _serve_some(self) -> None:
        group, self._waiting = self._waiting[:TOGETHER_MAX], self._waiting[TOGETHER_MAX:]
        given: Sequence[GivenT | Exception]
        try:
            given = await self._serve([one for one, _ in group])
            if len(given) != len(group):
                raise AssertionError(f"{len(given)} answers for {len(group)} that asked")
        except Exception as failure:  # noqa: BLE001 - whoever asked is told, each of them
            given = [failure] * len(group)
        except BaseException:
            for _, future in group:
                future.cancel()
            raise
        for (_, future), answer in zip(group, given, strict=True):
            if future.done():  # whoever asked has gone
                continue
            if isinstance(answer, Exception):
                future.set_exception(answer)
            else:
                future.set_result(answer)
