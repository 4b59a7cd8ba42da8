"""The invariants' rounds: by the minute what has changed, by night everything.

Every worker process has them; whoever comes soon after another finds it done and leaves it.
"""

from datetime import timedelta

import structlog

from service.commands.checks import check_all, check_changed, seal
from service.commands.perform import House
from service.store.checks import read_results
from service.store.clock import read_clock

MINUTE_KEPT = timedelta(seconds=30)
FULL_KEPT = timedelta(hours=12)

log = structlog.get_logger()


async def run_minute(house: House) -> None:
    """Seal full thousands of events, then ask of what has changed since the last time."""
    made = await seal(house)
    if made:
        log.info("events_sealed", seals=made)
    if not await _is_fresh(house, "G", MINUTE_KEPT):
        await check_changed(house)


async def run_full(house: House) -> None:
    """Ask everything of everybody, unless that was done within `FULL_KEPT`."""
    if not await _is_fresh(house, "A", FULL_KEPT):
        results = await check_all(house)
        log.info("invariants_checked", ok=all(result.ok for result in results))


async def _is_fresh(house: House, invariant_id: str, kept: timedelta) -> bool:
    """Whether this invariant held when it was asked within that time."""
    clock = await read_clock(house.pool)
    return any(
        one.id == invariant_id and one.ok and one.checked_at > clock.real_now - kept
        for one in await read_results(house.pool)
    )
