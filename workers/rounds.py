"""A round: one piece of work that is done when it is woken, and every so often anyway.

Law: a round never ends by a failure. The database being away is waited for; a bug is logged with
its traceback and met again at the next turn.
"""

import asyncio
from collections.abc import Awaitable, Callable

import structlog

from service.rules.errors import Unavailable
from service.store.db import Clash
from workers.metrics import WorkMetrics

AWAY_SECONDS = 0.5

log = structlog.get_logger()


class Round:
    """`work` runs at once, then when woken or after `every_seconds`; one at a time."""

    def __init__(
        self,
        name: str,
        every_seconds: float,
        work: Callable[[], Awaitable[object]],
        metrics: WorkMetrics,
    ) -> None:
        self.name = name
        self.is_closing = False
        self._every_seconds = every_seconds
        self._work = work
        self._metrics = metrics
        self._woken = asyncio.Event()

    def wake(self) -> None:
        """There may be something to do; any number of calls at once count as one."""
        self._woken.set()

    async def run(self) -> None:
        """Until `close`; what is under way is finished first."""
        while not self.is_closing:
            self._woken.clear()
            end = await self._turn()
            self._metrics.rounds.labels(self.name, end).inc()
            await self._rest()

    async def close(self) -> None:
        """Begin nothing new."""
        self.is_closing = True
        self._woken.set()

    async def _turn(self) -> str:
        """How the work ended: done, postponed or failed."""
        try:
            await self._work()
        except (Unavailable, Clash) as away:
            log.warning("round_postponed", round=self.name, reason=str(away))
            await asyncio.sleep(AWAY_SECONDS)
            return "postponed"
        except Exception:
            log.exception("round_failed", round=self.name)
            return "failed"
        return "done"

    async def _rest(self) -> None:
        try:
            async with asyncio.timeout(self._every_seconds):
                await self._woken.wait()
        except TimeoutError:
            return
