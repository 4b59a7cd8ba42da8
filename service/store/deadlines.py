"""Timers: armed with a state, stopped when it is left, fired through `perform` by the clock."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.rules.clocks import Turn
from service.store.db import Reader, Transaction


@dataclass(frozen=True, slots=True)
class Deadline:
    """An open deadline of an escrow."""

    id: int
    escrow_id: str
    kind: str
    subject: str
    due_at: datetime
    remaining: timedelta | None = None


EVERY_KIND = "*"
# Relies on the escrows' locks. An invitation's and a session's clocks outlive a state, but not
# the escrow: only EVERY_KIND stops those.
STOP_DEADLINES = """
UPDATE deadline SET cancelled_at = $3
FROM unnest($1::text[], $2::text[]) AS stopped (escrow_id, kind)
WHERE deadline.escrow_id = stopped.escrow_id AND fired_at IS NULL AND cancelled_at IS NULL
  AND stopped.kind IN (deadline.kind, '*')
"""
# What is overdue already keeps nothing of its time, and falls due as soon as it goes on.
PAUSE_DEADLINES = """
UPDATE deadline SET remaining = greatest(due_at - $3, interval '0')
FROM unnest($1::text[], $2::text[]) AS paused (escrow_id, kind)
WHERE deadline.escrow_id = paused.escrow_id AND deadline.kind = paused.kind
  AND fired_at IS NULL AND cancelled_at IS NULL AND remaining IS NULL
"""
RESUME_DEADLINES = """
UPDATE deadline SET due_at = $3::timestamptz + remaining, remaining = NULL
FROM unnest($1::text[], $2::text[]) AS resumed (escrow_id, kind)
WHERE deadline.escrow_id = resumed.escrow_id AND deadline.kind = resumed.kind
  AND fired_at IS NULL AND cancelled_at IS NULL AND remaining IS NOT NULL
"""
ARM_DEADLINES = """
INSERT INTO deadline (escrow_id, kind, subject, due_at, armed_version, remaining)
SELECT escrow_id, kind, subject, due_at, version, CASE WHEN is_paused THEN due_at - $7 END
FROM unnest($1::text[], $2::text[], $3::text[], $4::timestamptz[], $5::bigint[], $6::boolean[])
    AS armed (escrow_id, kind, subject, due_at, version, is_paused)
ON CONFLICT (escrow_id, kind, subject) WHERE fired_at IS NULL AND cancelled_at IS NULL DO NOTHING
"""
# With the time at which the newest of its kind was stopped; nothing where that one has fired.
REARM_DEADLINES = """
INSERT INTO deadline (escrow_id, kind, due_at, armed_version)
SELECT l.escrow_id, l.kind, greatest(l.due_at, $4), back.version
FROM unnest($1::text[], $2::text[], $3::bigint[]) AS back (escrow_id, kind, version)
CROSS JOIN LATERAL (
    SELECT * FROM deadline d WHERE d.escrow_id = back.escrow_id AND d.kind = back.kind
    ORDER BY d.id DESC LIMIT 1
) AS l
WHERE l.fired_at IS NULL
ON CONFLICT (escrow_id, kind, subject) WHERE fired_at IS NULL AND cancelled_at IS NULL DO NOTHING
"""


# Relies on the escrow's lock.
STOP_KINDS = """
UPDATE deadline SET cancelled_at = $3
WHERE escrow_id = $1 AND kind = ANY ($2::text[]) AND fired_at IS NULL AND cancelled_at IS NULL
  AND ($4::text[] IS NULL OR subject = ANY ($4))
"""


async def stop_kinds(
    tx: Transaction, escrow_id: str, kinds: Sequence[str], subjects: Sequence[str] | None = None
) -> None:
    """Stop every open deadline of these kinds: about these subjects, or whatever its subject."""
    told = None if subjects is None else list(subjects)
    await tx.execute(STOP_KINDS, escrow_id, list(kinds), tx.now, told)


@dataclass(frozen=True, slots=True)
class Arming:
    """A deadline to be armed; `version` is the escrow's seq at that moment."""

    escrow_id: str
    kind: str
    due_at: datetime
    version: int
    subject: str = ""
    is_paused: bool = False


async def turn_deadlines(tx: Transaction, turns: Sequence[Turn]) -> None:
    """Stop, pause, resume and arm, as each escrow's step says."""
    stopped = [(t.escrow_id, kind) for t in turns for kind in t.stops]
    stopped += [(t.escrow_id, EVERY_KIND) for t in turns if t.stops_all]
    paused = [(t.escrow_id, kind) for t in turns for kind in t.pauses]
    resumed = [(t.escrow_id, kind) for t in turns for kind in t.resumes]
    for statement, pairs in (
        (STOP_DEADLINES, stopped),
        (PAUSE_DEADLINES, paused),
        (RESUME_DEADLINES, resumed),
    ):
        if pairs:
            await tx.execute(statement, *(list(side) for side in zip(*pairs, strict=True)), tx.now)
    await arm_deadlines(tx, [arming for t in turns for arming in armings(t)])
    back = [(t.escrow_id, kind, t.version) for t in turns for kind in t.rearms]
    if back:
        columns = (list(column) for column in zip(*back, strict=True))
        await tx.execute(REARM_DEADLINES, *columns, tx.now)


def armings(turned: Turn) -> list[Arming]:
    """What a turn of an escrow's clocks arms."""
    return [
        Arming(turned.escrow_id, kind, due, turned.version, is_paused=is_paused)
        for kind, due, is_paused in turned.arms
    ]


async def arm_deadlines(tx: Transaction, armed: Sequence[Arming]) -> None:
    """Each deadline, unless one of its kind and subject is open already."""
    if not armed:
        return
    await tx.execute(
        ARM_DEADLINES,
        [a.escrow_id for a in armed],
        [a.kind for a in armed],
        [a.subject for a in armed],
        [a.due_at for a in armed],
        [a.version for a in armed],
        [a.is_paused for a in armed],
        tx.now,
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
SELECT id, escrow_id, kind, subject, due_at, remaining FROM deadline
WHERE escrow_id = ANY ($1::text[]) AND fired_at IS NULL AND cancelled_at IS NULL ORDER BY due_at, id
"""


async def read_open(reader: Reader, escrow_id: str) -> list[Deadline]:
    """The open deadlines of an escrow, earliest first; a paused one has what remains."""
    return await read_open_of(reader, [escrow_id])


async def read_open_of(reader: Reader, escrow_ids: Sequence[str]) -> list[Deadline]:
    """As `read_open`, of all these escrows."""
    return [Deadline(**dict(row)) for row in await reader.fetch(READ_OPEN, list(escrow_ids))]


# Locks the escrows, passing over those that somebody holds: they may be paid just now. The mail's
# row says that somebody was warned already.
LOCK_EXPIRING = """
SELECT e.id FROM deadline d JOIN escrow e ON e.id = d.escrow_id
WHERE d.kind = 'expiry' AND d.fired_at IS NULL AND d.cancelled_at IS NULL AND d.remaining IS NULL
  AND d.due_at > $1::timestamptz AND d.due_at <= $1::timestamptz + $2::interval
  AND e.created_at <= d.due_at - 2 * $2::interval AND e.status = 'pending' AND NOT e.frozen
  AND NOT EXISTS (SELECT FROM mail m WHERE m.dedupe_key = 'expiry_near:' || e.id || ':buyer')
ORDER BY e.id LIMIT $3 FOR NO KEY UPDATE OF e SKIP LOCKED
"""


async def lock_expiring(tx: Transaction, within: timedelta, limit: int) -> list[str]:
    """The ids of unpaid escrows that expire so soon and of which nobody was told, ours now."""
    return [row["id"] for row in await tx.fetch(LOCK_EXPIRING, tx.now, within, limit)]
