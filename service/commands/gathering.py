"""Gathering: what is asked for at the same time is done together.

Under load a transaction a request is mostly ceremony, so requests that come while others are being
served wait for their turn and share one. Whoever comes after one that was alone goes at once; after
a group, the first one waits for company, a millisecond at most.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from contextvars import Context
from typing import Generic, TypeVar

AskT = TypeVar("AskT")
GivenT = TypeVar("GivenT")

TOGETHER_MAX = 64
ENOUGH = 16
"""So many share well: then a second group is begun beside the first."""
LANES = 2
"""While one group is being written, the next is read; more at once makes them small and dear."""
LANES_MAX = 4
"""Where those in the lanes are held up, by a lock say, others need not be."""
PATIENCE_SECONDS = 0.001
"""How long the first waits for company while nobody is being served."""
HELD_UP_SECONDS = 0.05
"""After which those before them are taken for held up: several times what a group needs."""


class Gathering(Generic[AskT, GivenT]):
    """`serve` answers many at once: one answer, or the exception to be raised, for each."""

    def __init__(
        self, serve: Callable[[Sequence[AskT]], Awaitable[Sequence[GivenT | Exception]]]
    ) -> None:
        self._serve = serve
        self._waiting: list[tuple[AskT, asyncio.Future[GivenT]]] = []
        self._open_lanes = 0
        self._under_way = 0
        self._last_count = 0
        self._tasks: set[asyncio.Task[None]] = set()

    async def ask(self, one: AskT) -> GivenT:
        """The answer to this one. Raises what `serve` raised, or gave in its place."""
        future: asyncio.Future[GivenT] = asyncio.get_running_loop().create_future()
        self._waiting.append((one, future))
        if len(self._waiting) == 1:
            self._mind(future)
        elif len(self._waiting) == ENOUGH:
            self._open_second_lane()
        return await future

    def _mind(self, first: "asyncio.Future[GivenT]") -> None:
        """See to it that the first of those who wait does not wait for long."""
        if not self._open_lanes and self._last_count <= 1:
            self._open_lane()
            return
        seconds = HELD_UP_SECONDS if self._open_lanes else PATIENCE_SECONDS
        asyncio.get_running_loop().call_later(seconds, self._lose_patience, first)

    def _lose_patience(self, first: "asyncio.Future[GivenT]") -> None:
        waits = bool(self._waiting) and self._waiting[0][1] is first
        if waits and self._open_lanes < LANES_MAX:
            self._open_lane()

    def _open_second_lane(self) -> None:
        if self._open_lanes < LANES:
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
                if self._under_way and len(self._waiting) < ENOUGH:
                    break  # the other lane takes them, with those who come meanwhile
        finally:
            self._open_lanes -= 1

    async def _serve_some(self) -> None:
        group = self._take()
        self._under_way += 1
        try:
            await self._serve_group(group)
        finally:
            self._under_way -= 1

    def _take(self) -> list[tuple[AskT, "asyncio.Future[GivenT]"]]:
        """Those whose turn it is: half where nobody is served, so that the lanes alternate."""
        half = -(-len(self._waiting) // 2)
        count = TOGETHER_MAX if self._under_way else min(TOGETHER_MAX, max(ENOUGH, half))
        group, self._waiting = self._waiting[:count], self._waiting[count:]
        self._last_count = len(group)
        if self._waiting:
            self._mind(self._waiting[0][1])
        if len(self._waiting) >= ENOUGH:
            self._open_second_lane()
        return group

    async def _serve_group(self, group: "list[tuple[AskT, asyncio.Future[GivenT]]]") -> None:
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
