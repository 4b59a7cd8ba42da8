"""The clock: fires what is due. Rung by what arms a deadline for now, and every second anyway."""

import structlog

from service.commands.deadlines import sweep
from service.commands.perform import House

log = structlog.get_logger()


async def fire(house: House) -> None:
    """Fire everything that is due by the present clock."""
    done = await sweep(house)
    if done.fired or done.passed_over:
        log.info("deadlines_fired", count=len(done.fired), passed_over=len(done.passed_over))
