"""Deliveries: made by fan-out, claimed, settled. The row is the job; all times are real."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import datetime
from uuid import UUID

from service.rules.delivery import LEASE_MARGIN_SECONDS, ROWS_PER_LANE, Outcome, Reply
from service.rules.lane import SLOW_MS, Lane
from service.store.db import Reader, Transaction
from service.store.lanes import lane_of


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that is ours until its lease ends; `secrets` newest first, all still sealed.

    `hold_seconds`: its lane has a pace and takes no further claim for so long. `is_slow`: the lane
    took long on average until now. `recorded_at`: just before the event's commit. `rung`: which
    attempt this is of its ladder, None where it has this one alone; `attempt` counts all of them.
    """

    id: UUID
    claim_token: UUID
    attempt: int
    endpoint_id: str
    event_id: UUID
    type: str
    acknowledges: bool
    body: bytes | None = field(repr=False)
    url: str
    ladder: str
    timeout_seconds: int
    headers: bytes | None = field(repr=False)
    secrets: Sequence[bytes] = field(repr=False)
    hold_seconds: float | None
    is_slow: bool
    recorded_at: datetime
    rung: int | None

    @property
    def is_retry(self) -> bool:
        """Whether it was tried before, as far as anybody knows."""
        return self.attempt > 1


@dataclass(frozen=True, slots=True)
class Attempt:
    """What came of sending a claimed delivery, and what it means."""

    claimed: Claimed
    started_at: datetime
    reply: Reply
    outcome: Outcome


# Locks: see fan_out in schema.sql.
FAN_OUT = "SELECT fan_out($1)"


async def fan_out(tx: Transaction, limit: int) -> int:
    """Turn events into deliveries to whoever subscribed; how many events, at most `limit`."""
    fanned: int = await tx.fetchval(FAN_OUT, limit)
    return fanned


# Locks: see claim_deliveries in schema.sql. Never waits.
CLAIM_DELIVERIES = "SELECT * FROM claim_deliveries($1, $2, $3, $4, $5, make_interval(secs => $6))"


async def claim_deliveries(tx: Transaction, slots: int, retries: int, slow: int) -> list[Claimed]:
    """At most `slots` due deliveries, fairly over the lanes; each attempt counts from here.

    Of them at most `retries` that were tried before, and `slow` of slow lanes.
    """
    rows = await tx.fetch(
        CLAIM_DELIVERIES, slots, retries, slow, ROWS_PER_LANE, SLOW_MS, LEASE_MARGIN_SECONDS
    )
    return [Claimed(*row) for row in rows]


# Locks: see settle_deliveries in schema.sql.
SETTLE_DELIVERIES = """
SELECT * FROM settle_deliveries($1, $2, $3, $4, $5, $6, $7, $8, $9, $10,
                                $11, $12, $13, $14, $15)
"""


@dataclass(frozen=True, slots=True)
class Settled:
    """What was settled of one lane, and the lane, which is locked; `at` is when."""

    endpoint_id: str
    ids: Sequence[UUID]
    at: datetime
    lane: Lane


async def settle_deliveries(tx: Transaction, attempts: Sequence[Attempt]) -> list[Settled]:
    """Write the attempts whose claim is still ours, and their deliveries; the others are left."""
    outcomes = [attempt.outcome for attempt in attempts]
    replies = [attempt.reply for attempt in attempts]
    rows = await tx.fetch(
        SETTLE_DELIVERIES,
        [attempt.claimed.id for attempt in attempts],
        [attempt.claimed.claim_token for attempt in attempts],
        [outcome.state.value for outcome in outcomes],
        [outcome.retry_seconds for outcome in outcomes],
        [outcome.gives_back for outcome in outcomes],
        [attempt.started_at for attempt in attempts],
        [reply.status for reply in replies],
        [reply.fault for reply in replies],
        [reply.address for reply in replies],
        [reply.dns_ms for reply in replies],
        [reply.connect_ms for reply in replies],
        [reply.tls_ms for reply in replies],
        [reply.first_byte_ms for reply in replies],
        [reply.total_ms for reply in replies],
        [reply.answer for reply in replies],
    )
    return [Settled(row[2]["endpoint_id"], row[0], row[1], lane_of(row[2])) for row in rows]


# Locks in id order the escrows that are free, passing over those that somebody holds: their
# receipts are taken up later.
LOCK_RECEIPTS = """
WITH receipt AS MATERIALIZED (
    SELECT d.id, v.subject_id FROM delivery d JOIN event v ON v.id = d.event_id
    WHERE d.acknowledges AND d.state = 'delivered' AND d.acknowledged_at IS NULL
    ORDER BY d.settled_at LIMIT $1
), free AS MATERIALIZED (
    SELECT x.id FROM escrow x WHERE x.id IN (SELECT subject_id FROM receipt)
    ORDER BY x.id
    FOR NO KEY UPDATE SKIP LOCKED
)
SELECT r.id, free.id IS NOT NULL AS is_free FROM receipt r LEFT JOIN free ON free.id = r.subject_id
"""
# Relies on the escrows' locks, and on a snapshot that is younger than they: a request to cancel
# may have come between. Where the escrow's clocks stand still, this one does as well. What another
# reader has passed on meanwhile is passed on already.
ACKNOWLEDGE = """
WITH receipt AS MATERIALIZED (
    SELECT d.id, v.subject_id FROM delivery d JOIN event v ON v.id = d.event_id
    WHERE d.id = ANY ($1::uuid[]) AND d.acknowledged_at IS NULL
), armed AS (
    INSERT INTO deadline (escrow_id, kind, due_at, armed_version, remaining)
    SELECT x.id, 'acknowledged', $2, x.seq,
           CASE WHEN x.status = 'disputed'
                     OR EXISTS (SELECT FROM cancellation_request q
                                WHERE q.escrow_id = x.id AND q.status = 'pending')
                THEN interval '0' END
    FROM escrow x
    WHERE x.id IN (SELECT subject_id FROM receipt) AND x.status IN ('paid', 'disputed')
    ON CONFLICT (escrow_id, kind, subject) WHERE fired_at IS NULL AND cancelled_at IS NULL
    DO NOTHING
    RETURNING escrow_id
), passed_on AS (
    UPDATE delivery d SET acknowledged_at = clock_timestamp() FROM receipt r WHERE d.id = r.id
)
SELECT count(*) FROM armed
"""


async def acknowledge(tx: Transaction, limit: int) -> tuple[int, int]:
    """Pass delivered receipts on to their escrows, at most `limit`.

    How many paid `on_ack` escrows may complete now, and of how many somebody holds the escrow.
    """
    receipts = await tx.fetch(LOCK_RECEIPTS, limit)
    free = [row["id"] for row in receipts if row["is_free"]]
    armed = await tx.fetchval(ACKNOWLEDGE, free, tx.now) if free else 0
    return armed, len(receipts) - len(free)


# Relies on the endpoints' locks. What is in flight ends by itself: its settle is still ours.
# Pending rows are found by two indexes, of those never tried and of the others, hence the OR.
PARK_DELIVERIES = """
UPDATE delivery SET state = 'parked', claim_token = NULL
WHERE endpoint_id = ANY ($1::text[])
  AND (state = 'pending' AND attempt = 0 OR state = 'pending' AND attempt > 0)
  AND (claim_token IS NULL OR visible_at <= clock_timestamp())
"""
UNPARK_DELIVERIES = """
UPDATE delivery SET state = 'pending', visible_at = clock_timestamp()
WHERE endpoint_id = ANY ($1::text[]) AND state = 'parked'
"""
CANCEL_DELIVERIES = """
UPDATE delivery SET state = 'cancelled', claim_token = NULL, settled_at = clock_timestamp()
WHERE endpoint_id = ANY ($1::text[])
  AND (state = 'parked' OR state = 'pending' AND attempt = 0 OR state = 'pending' AND attempt > 0)
  AND (state = 'parked' OR claim_token IS NULL OR visible_at <= clock_timestamp())
"""


async def park_deliveries(tx: Transaction, endpoint_ids: Sequence[str]) -> None:
    """What waits for these endpoints is kept until they are enabled again."""
    await tx.execute(PARK_DELIVERIES, list(endpoint_ids))


async def unpark_deliveries(tx: Transaction, endpoint_ids: Sequence[str]) -> None:
    """What was kept for these endpoints falls due."""
    await tx.execute(UNPARK_DELIVERIES, list(endpoint_ids))


async def cancel_deliveries(tx: Transaction, endpoint_ids: Sequence[str]) -> None:
    """What waits for these endpoints is not sent any more."""
    await tx.execute(CANCEL_DELIVERIES, list(endpoint_ids))


# What a fan-out or a retry put before an endpoint while it was disabled or deleted.
READ_STRANDED = """
SELECT e.id FROM webhook_endpoint e
WHERE NOT e.is_active AND (
    EXISTS (SELECT FROM delivery d
            WHERE d.endpoint_id = e.id AND d.state = 'pending' AND d.attempt = 0)
    OR EXISTS (SELECT FROM delivery d
               WHERE d.endpoint_id = e.id AND d.state = 'pending' AND d.attempt > 0
                 AND (d.claim_token IS NULL OR d.visible_at <= clock_timestamp())))
ORDER BY e.id
"""
# Relies on the endpoints' locks; reads again whether they are inactive.
CLEAR_STRANDED = """
UPDATE delivery d
SET state = CASE WHEN e.deleted_at IS NULL THEN 'parked' ELSE 'cancelled' END,
    settled_at = CASE WHEN e.deleted_at IS NULL THEN NULL ELSE clock_timestamp() END,
    claim_token = NULL
FROM webhook_endpoint e
WHERE e.id = ANY ($1::text[]) AND NOT e.is_active AND d.endpoint_id = e.id
  AND (d.state = 'pending' AND d.attempt = 0 OR d.state = 'pending' AND d.attempt > 0)
  AND (d.claim_token IS NULL OR d.visible_at <= clock_timestamp())
"""


async def read_stranded(reader: Reader) -> list[str]:
    """The inactive endpoints before which deliveries wait in vain."""
    return [row["id"] for row in await reader.fetch(READ_STRANDED)]


async def clear_stranded(tx: Transaction, endpoint_ids: Sequence[str]) -> None:
    """Park what waits for a disabled endpoint, cancel what waits for a deleted one."""
    await tx.execute(CLEAR_STRANDED, list(endpoint_ids))


# Relies on the endpoint's lock. Not what is in flight: its answer is under way.
SKIP_HEAD = """
UPDATE delivery SET state = 'cancelled', claim_token = NULL, settled_at = clock_timestamp()
WHERE id = fifo_head($1) AND (claim_token IS NULL OR visible_at <= clock_timestamp())
RETURNING id
"""


async def skip_head(tx: Transaction, endpoint_id: str) -> UUID | None:
    """Cancel the first in the events' order of this lane; None where it is empty or in flight."""
    skipped: UUID | None = await tx.fetchval(SKIP_HEAD, endpoint_id)
    return skipped


# Locks what it ends, passing over what an endpoint that is being enabled takes up.
EXHAUST_PARKED = """
WITH old AS (
    SELECT d.id FROM delivery d
    WHERE d.state = 'parked' AND d.recorded_at < clock_timestamp() - make_interval(days => $1)
    LIMIT $2 FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE delivery d SET state = 'exhausted', last_fault = 'no_body', settled_at = clock_timestamp()
FROM old WHERE d.id = old.id
"""


async def exhaust_parked(tx: Transaction, days: int, limit: int) -> int:
    """Give up at most `limit` deliveries that are parked and older than this; how many."""
    status = await tx.execute(EXHAUST_PARKED, days, limit)
    return int(status.split()[-1])


# Run as the owner: the application's role has no DDL.
MAKE_PARTITIONS = "SELECT make_webhook_partitions($1)"


async def make_partitions(tx: Transaction, weeks_ahead: int) -> int:
    """How many weekly partitions of bodies and attempts were made."""
    made: int = await tx.fetchval(MAKE_PARTITIONS, weeks_ahead)
    return made


DROP_PARTITIONS = "SELECT drop_webhook_partitions($1, $2)"


async def drop_partitions(tx: Transaction, body_days: int, attempt_days: int) -> int:
    """How many weekly partitions went that are older than these, and that nothing open needs."""
    dropped: int = await tx.fetchval(DROP_PARTITIONS, body_days, attempt_days)
    return dropped
