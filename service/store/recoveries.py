"""Recoveries: what an endpoint has missed, put on its way again in chunks. All times are real.

Law: what was delivered, or is on its way, is never touched; running a chunk twice changes nothing.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from uuid import UUID

from service.rules.delivery import ATTEMPTS_MAX
from service.store.attempts import CLOCKS_APART
from service.store.db import Reader, Row, Transaction
from service.store.ids import first_uuid
from service.wire.deliveries import RecoveryState

EVENTS_A_CHUNK = 5000
"""Of the house's events so many are looked at in a chunk: most are of other developers."""


@dataclass(frozen=True, slots=True)
class Recovery:
    """A recovery as it stands. `count` is what was found to be sent, `recovered` what was sent on.

    `after_event`: how far it has come, among the failed deliveries or, if `is_missing`, among the
    events without one.
    """

    id: UUID
    endpoint_id: str
    since: datetime
    until: datetime
    state: RecoveryState
    is_missing: bool
    after_event: UUID | None
    count: int
    recovered: int
    created_at: datetime
    finished_at: datetime | None


def _recovery(row: Row) -> Recovery:
    return Recovery(**dict(row))


HAS_OPEN = "SELECT EXISTS (SELECT FROM recovery WHERE endpoint_id = $1 AND finished_at IS NULL)"
# How many of the window were given up or wait for a retry, along delivery_stopped and
# delivery_retry. What is in flight, or due anyway, is on its way.
COUNT_FAILED = """
SELECT (SELECT count(*) FROM delivery d
        WHERE d.endpoint_id = $1 AND d.event_id >= $2 AND d.recorded_at >= $3
          AND d.recorded_at < $4 AND d.state IN ('exhausted', 'cancelled') AND d.attempt < $5)
     + (SELECT count(*) FROM delivery d
        WHERE d.endpoint_id = $1 AND d.event_id >= $2 AND d.recorded_at >= $3
          AND d.recorded_at < $4 AND d.state = 'pending' AND d.attempt > 0 AND d.attempt < $5
          AND d.claim_token IS NULL AND d.visible_at > statement_timestamp())
"""
INSERT_RECOVERY = """
INSERT INTO recovery (id, endpoint_id, since, until, count, due_at, created_at)
VALUES ($1, $2, $3, $4, $5, clock_timestamp(), clock_timestamp())
RETURNING id, endpoint_id, since, until, state, is_missing, after_event, count, recovered,
          created_at, finished_at
"""


async def has_open(tx: Transaction, endpoint_id: str) -> bool:
    """Whether a recovery of the endpoint is under way. Relies on the endpoint's lock."""
    return bool(await tx.fetchval(HAS_OPEN, endpoint_id))


async def insert_recovery(
    tx: Transaction, recovery_id: UUID, endpoint_id: str, since: datetime, until: datetime
) -> Recovery:
    """A new recovery, due at once, with the number of deliveries that it has found so far."""
    count = await tx.fetchval(COUNT_FAILED, endpoint_id, _floor(since), since, until, ATTEMPTS_MAX)
    row = await tx.fetchrow(INSERT_RECOVERY, recovery_id, endpoint_id, since, until, count)
    if row is None:
        raise AssertionError("an insert without its row")
    return _recovery(row)


LIST_RECOVERIES = """
SELECT id, endpoint_id, since, until, state, is_missing, after_event, count, recovered, created_at,
       finished_at
FROM recovery WHERE endpoint_id = $1 ORDER BY created_at DESC, id DESC LIMIT $2
"""


async def list_recoveries(reader: Reader, endpoint_id: str, limit: int) -> list[Recovery]:
    """At most `limit` recoveries of the endpoint, newest first."""
    return [_recovery(row) for row in await reader.fetch(LIST_RECOVERIES, endpoint_id, limit)]


# The recovery that has waited longest, skipping what another worker holds. The endpoint is locked
# after it; the order is this one everywhere: recovery, endpoint, deliveries, lane.
LOCK_RECOVERY = """
SELECT id, endpoint_id, since, until, state, is_missing, after_event, count, recovered, created_at,
       finished_at
FROM recovery WHERE finished_at IS NULL
ORDER BY due_at, id LIMIT 1 FOR NO KEY UPDATE SKIP LOCKED
"""


async def lock_recovery(tx: Transaction) -> Recovery | None:
    """One that is under way, locked until the end of this transaction; None if there is none."""
    row = await tx.fetchrow(LOCK_RECOVERY)
    return _recovery(row) if row else None


# Relies on the endpoint's lock. What has no body any more stays as it is: nothing could be sent;
# likewise what was sent too often. The others begin a new ladder.
RESEND_FAILED = """
WITH chunk AS MATERIALIZED (
    SELECT d.id, d.event_id FROM delivery d
    WHERE d.endpoint_id = $1 AND d.event_id > $2 AND d.event_id < $3
      AND d.recorded_at >= $4 AND d.recorded_at < $5 AND d.attempt < $7
      AND (d.state IN ('exhausted', 'cancelled')
           OR d.state = 'pending' AND d.claim_token IS NULL AND d.visible_at > clock_timestamp())
      AND EXISTS (SELECT FROM webhook_body b
                  WHERE b.event_id = d.event_id AND b.recorded_at = d.recorded_at)
    ORDER BY d.event_id LIMIT $6
    FOR NO KEY UPDATE
), sent AS (
    UPDATE delivery d SET state = 'pending', visible_at = clock_timestamp(), settled_at = NULL,
        ladder_from = d.attempt
    FROM chunk c WHERE d.id = c.id
    RETURNING d.id
)
SELECT (SELECT count(*) FROM sent) AS sent, (SELECT count(*) FROM chunk) AS seen,
       (SELECT c.event_id FROM chunk c ORDER BY c.event_id DESC LIMIT 1) AS last
"""
# What the endpoint's developer heard of in the next stretch of the house's events, never from
# before the account. Locks nothing: it is most of the work, and nobody need wait for it.
LOOK_FOR_MISSING = """
WITH scanned AS MATERIALIZED (
    SELECT v.id, v.subject_kind, v.subject_id, v.type, v.step, v.recorded_at
    FROM event v
    WHERE v.id > greatest($2, (
              SELECT o.id FROM webhook_endpoint e
              JOIN event o ON o.subject_id = e.developer_id AND o.seq = 1 AND o.step = 'enrol'
              WHERE e.id = $1))
      AND v.id < $3
    ORDER BY v.id LIMIT $6
), heard AS MATERIALIZED (
    SELECT s.subject_kind, s.subject_id
    FROM (SELECT DISTINCT subject_kind, subject_id FROM scanned WHERE type IS NOT NULL) AS s
    JOIN webhook_endpoint e ON e.id = $1
    JOIN developer p ON p.id = e.developer_id
    WHERE EXISTS (SELECT FROM audience(s.subject_kind, s.subject_id) a
                  WHERE a.developer_id = p.id OR p.user_id = ANY (a.user_ids))
)
SELECT ARRAY(SELECT s.id FROM scanned s JOIN heard h USING (subject_kind, subject_id)
             WHERE s.type IS NOT NULL AND s.step <> 'test'
               AND s.recorded_at >= $4 AND s.recorded_at < $5) AS ids,
       (SELECT s.id FROM scanned s ORDER BY s.id DESC LIMIT 1) AS last
"""
# The first of them that the endpoint wants and that were never turned into a delivery there: from
# before it was made, or while it was disabled. Only such as were fanned out: the others are on
# their way by themselves. Relies on the endpoint's lock. The columns are those of fan_out.
DELIVER_MISSING = """
WITH chunk AS MATERIALIZED (
    SELECT v.id FROM event v JOIN webhook_endpoint e ON e.id = $1
    WHERE v.id = ANY ($2::uuid[]) AND v.fanned_at IS NOT NULL AND v.subject_id <> e.id
      AND e.events && ARRAY['*', v.type, split_part(v.type, '.', 1) || '.*']
      AND NOT EXISTS (SELECT FROM delivery d WHERE d.endpoint_id = e.id AND d.event_id = v.id)
      AND EXISTS (SELECT FROM webhook_body b
                  WHERE b.event_id = v.id AND b.recorded_at = v.recorded_at)
    ORDER BY v.id LIMIT $3
), made AS (
    INSERT INTO delivery (id, endpoint_id, event_id, recorded_at, position, type, acknowledges,
                          visible_at, created_at)
    SELECT ordered_uuid(clock_timestamp()), e.id, v.id, v.recorded_at, v.position, v.type,
           v.type = 'escrow.status.updated' AND v.from_state = 'pending' AND v.to_state = 'paid'
           AND EXISTS (SELECT FROM audience(v.subject_kind, v.subject_id) a
                       WHERE a.on_ack AND a.developer_id = e.developer_id),
           clock_timestamp(), clock_timestamp()
    FROM chunk c JOIN event v ON v.id = c.id JOIN webhook_endpoint e ON e.id = $1
    ORDER BY v.id
    ON CONFLICT (endpoint_id, event_id) DO NOTHING
    RETURNING id
)
SELECT (SELECT count(*) FROM made) AS sent, (SELECT count(*) FROM chunk) AS seen,
       (SELECT c.id FROM chunk c ORDER BY c.id DESC LIMIT 1) AS last
"""


@dataclass(frozen=True, slots=True)
class Chunk:
    """What one chunk did; `last` is the event up to which it came, None at the end."""

    sent: int
    last: UUID | None


@dataclass(frozen=True, slots=True)
class Missing:
    """Events that may have no delivery there; `last`: up to where was looked, None at the end."""

    ids: Sequence[UUID]
    last: UUID | None


async def resend_failed(tx: Transaction, recovery: Recovery, size: int) -> Chunk:
    """The window's next deliveries that have failed fall due. Relies on the endpoint's lock."""
    row = await tx.fetchrow(RESEND_FAILED, *_window(tx, recovery), size, ATTEMPTS_MAX)
    if row is None:
        raise AssertionError("a count without a row")
    return Chunk(row["sent"], row["last"] if row["seen"] else None)


async def look_for_missing(tx: Transaction, recovery: Recovery) -> Missing:
    """What of the window's next events the developer heard. Takes no lock."""
    row = await tx.fetchrow(LOOK_FOR_MISSING, *_window(tx, recovery), EVENTS_A_CHUNK)
    if row is None:
        raise AssertionError("an array without a row")
    return Missing(row["ids"], row["last"])


async def deliver_missing(
    tx: Transaction, recovery: Recovery, missing: Missing, size: int
) -> Chunk:
    """Deliveries for the first `size` of the events without one. Relies on the endpoint's lock."""
    if not missing.ids:
        return Chunk(0, missing.last)
    row = await tx.fetchrow(DELIVER_MISSING, recovery.endpoint_id, list(missing.ids), size)
    if row is None:
        raise AssertionError("a count without a row")
    return Chunk(row["sent"], row["last"] if row["seen"] == size else missing.last)


def _window(tx: Transaction, recovery: Recovery) -> tuple[str, UUID, UUID, datetime, datetime]:
    """The endpoint, the events' ids after and before which, and their times."""
    return (
        recovery.endpoint_id,
        recovery.after_event or _floor(recovery.since),
        first_uuid(recovery.until + (tx.now - tx.real_now) + CLOCKS_APART),
        recovery.since,
        recovery.until,
    )


# Due at once: whoever polls next goes on. Relies on the recovery's lock.
MOVE_RECOVERY = """
UPDATE recovery SET state = $2, is_missing = $3, after_event = $4, count = greatest(count, $5),
    recovered = $5, due_at = clock_timestamp(),
    finished_at = CASE WHEN $2 IN ('done', 'cancelled') THEN clock_timestamp() END
WHERE id = $1
"""


async def move_recovery(
    tx: Transaction,
    recovery: Recovery,
    *,
    state: str,
    is_missing: bool,
    after_event: UUID | None,
    recovered: int,
) -> None:
    """How far the recovery has come, or that it has ended."""
    await tx.execute(MOVE_RECOVERY, recovery.id, state, is_missing, after_event, recovered)


def _floor(since: datetime) -> UUID:
    return first_uuid(since - CLOCKS_APART)
