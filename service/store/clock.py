"""The clock: the database's, plus the sandbox's shift."""

from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from service.store.db import Reader, Transaction

READ_CLOCK = """
SELECT business_now() AS now, statement_timestamp() AS real_now,
       coalesce(lease_until > statement_timestamp(), false) AS is_advancing
FROM clock
"""


@dataclass(frozen=True, slots=True)
class Clock:
    """Business time, real time, and whether somebody is advancing the one against the other."""

    now: datetime
    real_now: datetime
    is_advancing: bool


async def read_clock(reader: Reader) -> Clock:
    """One reading of the clock."""
    row = await reader.fetchrow(READ_CLOCK)
    if row is None:
        raise AssertionError("the clock's row is missing; run `amana migrate`")
    return Clock(row["now"], row["real_now"], row["is_advancing"])


# Opens a transaction: reads the clock and, where an idempotency key came along, tries its
# transaction-level advisory lock without waiting: a second request in flight is told so.
OPEN = """
SELECT business_now(), statement_timestamp(),
       $1::text IS NULL OR pg_try_advisory_xact_lock(hashtextextended($1 || '/' || $2, 0))
"""


async def open_transaction(tx: Transaction, owner: str | None, key: str | None) -> bool:
    """Sets the transaction's clocks; False when this owner's key is in flight elsewhere."""
    row = await tx.fetchrow(OPEN, owner, key)
    if row is None:
        raise AssertionError("a SELECT without a row")
    tx.now = tx.held_clock or row[0]
    tx.real_now = row[1]
    return bool(row[2])


# One advance at a time: the lease lapses by itself should its holder die.
LEASE_CLOCK = """
UPDATE clock SET held_by = $1, lease_until = statement_timestamp() + $2
WHERE coalesce(lease_until <= statement_timestamp(), true)
RETURNING true
"""


async def lease_clock(tx: Transaction, holder: UUID, lease: timedelta) -> bool:
    """Whether this holder may move the clock; nobody else does while the lease runs."""
    return bool(await tx.fetchval(LEASE_CLOCK, holder, lease))


RELEASE_CLOCK = "UPDATE clock SET lease_until = statement_timestamp() WHERE held_by = $1"


async def release_clock(tx: Transaction, holder: UUID) -> None:
    """Others may move the clock at once, however this holder fared."""
    await tx.execute(RELEASE_CLOCK, holder)


# Forward only, by the holder of the lease only; the lease runs anew.
MOVE_CLOCK = """
UPDATE clock SET shift = greatest(shift, $2 - statement_timestamp()),
    lease_until = statement_timestamp() + $3
WHERE held_by = $1 AND lease_until > statement_timestamp()
RETURNING true
"""


async def move_clock(tx: Transaction, holder: UUID, to: datetime, lease: timedelta) -> bool:
    """Business time is at least `to` from now on; False where the lease was lost meanwhile."""
    return bool(await tx.fetchval(MOVE_CLOCK, holder, to, lease))
