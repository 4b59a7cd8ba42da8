"""The clock: fires what is due. Rung by what arms a deadline for now, and every second anyway."""

import time

import structlog

from service.commands.deadlines import sweep
from service.commands.perform import House

RETRY_SECONDS = 60.0
"""A deadline that failed is a bug or a breach: it is met again each minute, not each second."""

log = structlog.get_logger()


class Timers:
    """Fires what is due; remembers for a minute what failed."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._failed_until: dict[int, float] = {}

    async def fire(self) -> None:
        """Fire everything that is due by the present clock."""
        now = time.monotonic()
        self._failed_until = {one: at for one, at in self._failed_until.items() if at > now}
        done = await sweep(self._house, passing_over=self._failed_until.keys())
        self._failed_until |= {one.id: now + RETRY_SECONDS for one in done.failed}
        if done.fired or done.failed:
            log.info("deadlines_fired", count=len(done.fired), failed=len(done.failed))
