"""The clock: the database's, plus the sandbox's shift."""

from dataclasses import dataclass
from datetime import datetime, timedelta

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
UPDATE clock SET advancing_until = $1, lease_until = statement_timestamp() + $2
WHERE coalesce(lease_until <= statement_timestamp(), true) OR advancing_until = $1
RETURNING true
"""


async def lease_clock(tx: Transaction, until: datetime, lease: timedelta) -> bool:
    """Whether the advance to `until` may go on; renews its lease."""
    return bool(await tx.fetchval(LEASE_CLOCK, until, lease))


# Forward only: a shift that is smaller than today's is not taken.
SHIFT_CLOCK = """
UPDATE clock SET shift = greatest(shift, $1 - statement_timestamp()),
    advancing_until = CASE WHEN $2 THEN NULL ELSE advancing_until END,
    lease_until = CASE WHEN $2 THEN NULL ELSE lease_until END
RETURNING business_now()
"""


async def shift_clock(tx: Transaction, to: datetime, *, done: bool) -> None:
    """Business time is at least `to` from now on; `done` gives the lease back."""
    await tx.fetchval(SHIFT_CLOCK, to, done)
