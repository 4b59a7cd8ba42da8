"""The invariants, by the clock: what changed every minute, everything once a day."""

from service.commands.perform import House


async def run_minute(house: House) -> None:
    """Check what changed since the last run, and seal the log."""


async def run_full(house: House) -> None:
    """Check everything."""
