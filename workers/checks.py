"""The invariants' rounds: by the minute what has changed, by night everything.

Every worker process has them; whoever comes soon after another finds it done and leaves it.
"""

from collections.abc import Sequence
from datetime import timedelta

import structlog

from service.commands.checks import check_all, check_changed, seal
from service.commands.perform import House
from service.store.checks import Result, read_results
from service.store.clock import read_clock

MINUTE_KEPT = timedelta(seconds=30)
FULL_KEPT = timedelta(hours=12)

log = structlog.get_logger()


async def run_minute(house: House) -> None:
    """Seal full thousands of events, then ask of what has changed since the last time."""
    made = await seal(house)
    if made:
        log.info("events_sealed", seals=made)
    results = await read_results(house.pool)
    is_doubtful = any(not result.ok for result in results)
    if is_doubtful or not await _is_fresh(house, results, "G", MINUTE_KEPT):
        await check_changed(house)


async def run_full(house: House) -> None:
    """Ask everything of everybody, unless that was done within `FULL_KEPT`."""
    if not await _is_fresh(house, await read_results(house.pool), "A", FULL_KEPT):
        results = await check_all(house)
        log.info("invariants_checked", ok=all(result.ok for result in results))


async def _is_fresh(
    house: House, results: Sequence[Result], invariant_id: str, kept: timedelta
) -> bool:
    """Whether this invariant was asked within that time."""
    clock = await read_clock(house.pool)
    return any(
        result.id == invariant_id and result.checked_at > clock.real_now - kept
        for result in results
    )
