"""Timers: armed with a state, stopped when it is left, fired through `perform` by the clock."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.store.db import Reader, Transaction


@dataclass(frozen=True, slots=True)
class Deadline:
    """An open deadline of an escrow."""

    id: int
    escrow_id: str
    kind: str
    subject: str
    due_at: datetime


# Relies on the escrows' locks. What an invitation or a session waits for outlives a state, but
# not the escrow.
STOP_DEADLINES = """
UPDATE deadline SET cancelled_at = $3
FROM unnest($1::text[], $2::boolean[]) AS left_state (escrow_id, is_final)
WHERE deadline.escrow_id = left_state.escrow_id AND fired_at IS NULL AND cancelled_at IS NULL
  AND (left_state.is_final OR kind NOT IN ('invitation_reminder', 'session'))
"""


async def stop_deadlines(
    tx: Transaction, escrow_ids: Sequence[str], is_final: Sequence[bool]
) -> None:
    """The clocks of the state that each escrow leaves; all of its clocks where it is final."""
    if escrow_ids:
        await tx.execute(STOP_DEADLINES, list(escrow_ids), list(is_final), tx.now)


ARM_DEADLINES = """
INSERT INTO deadline (escrow_id, kind, subject, due_at, armed_version)
SELECT * FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[])
ON CONFLICT (escrow_id, kind, subject) WHERE fired_at IS NULL AND cancelled_at IS NULL DO NOTHING
"""


@dataclass(frozen=True, slots=True)
class Arming:
    """A deadline to be armed; `version` is the escrow's seq at that moment."""

    escrow_id: str
    kind: str
    due_at: datetime
    version: int
    subject: str = ""


async def arm_deadlines(tx: Transaction, armings: Sequence[Arming]) -> None:
    """Each deadline, unless one of its kind and subject is open already."""
    if not armings:
        return
    await tx.execute(
        ARM_DEADLINES,
        [a.escrow_id for a in armings],
        [a.kind for a in armings],
        [a.subject for a in armings],
        [a.due_at for a in armings],
        [a.version for a in armings],
    )


# Relies on the escrow's lock; whoever lost the race finds nothing open and does nothing.
FIRE_DEADLINES = """
UPDATE deadline SET fired_at = $2
WHERE id = ANY ($1::bigint[]) AND fired_at IS NULL AND cancelled_at IS NULL AND remaining IS NULL
  AND due_at <= $2
RETURNING id, escrow_id, kind, subject, due_at
"""


async def fire_deadlines(tx: Transaction, ids: Sequence[int]) -> list[Deadline]:
    """Those of the deadlines that were still open and due; they are fired now."""
    return [Deadline(**dict(row)) for row in await tx.fetch(FIRE_DEADLINES, list(ids), tx.now)]


# Earliest first. What belongs to a frozen escrow waits until it is unfrozen.
READ_DUE = """
SELECT d.id, d.escrow_id, d.kind, d.subject, d.due_at
FROM deadline d JOIN escrow e ON e.id = d.escrow_id AND NOT e.frozen
WHERE d.fired_at IS NULL AND d.cancelled_at IS NULL AND d.remaining IS NULL
  AND d.due_at <= $1 AND NOT d.id = ANY ($3::bigint[])
ORDER BY d.due_at, d.id LIMIT $2
"""


async def read_due(
    reader: Reader, until: datetime, limit: int, passing_over: Collection[int] = ()
) -> list[Deadline]:
    """At most `limit` deadlines that are due, in due order, without those of these ids."""
    rows = await reader.fetch(READ_DUE, until, limit, list(passing_over))
    return [Deadline(**dict(row)) for row in rows]


READ_OPEN = """
SELECT id, escrow_id, kind, subject, due_at FROM deadline
WHERE escrow_id = $1 AND fired_at IS NULL AND cancelled_at IS NULL ORDER BY due_at, id
"""


async def read_open(reader: Reader, escrow_id: str) -> list[Deadline]:
    """The open deadlines of an escrow, earliest first."""
    return [Deadline(**dict(row)) for row in await reader.fetch(READ_OPEN, escrow_id)]
