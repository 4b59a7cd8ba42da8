"""Deliveries as their developer looks at them, with their attempts; and sent once more on request.

The log of attempts is written by settling (store/deliveries.py). All times are real.
"""

from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from uuid import UUID

from service.store.db import Reader, Row, Transaction
from service.store.ids import first_uuid, last_uuid

CLOCKS_APART = timedelta(minutes=1)
"""An event's id has the time of its transaction's beginning, its row that of the writing."""


@dataclass(frozen=True, slots=True)
class Delivery:
    """A delivery as it stands; `is_in_flight`: it is being sent right now.

    `next_attempt_at` is None for what is final, kept or in flight.
    """

    id: UUID
    endpoint_id: str
    developer_id: str
    event_id: UUID
    type: str
    state: str
    attempt: int
    is_in_flight: bool
    next_attempt_at: datetime | None
    last_status: int | None
    last_fault: str | None
    recorded_at: datetime
    created_at: datetime
    settled_at: datetime | None


@dataclass(frozen=True, slots=True)
class LoggedAttempt:
    """One attempt; phases in milliseconds, None where there was none or it was not measured."""

    n: int
    started_at: datetime
    status: int
    fault: str | None
    address: str | None
    dns_ms: int | None
    connect_ms: int | None
    tls_ms: int | None
    first_byte_ms: int | None
    total_ms: int
    answer: bytes = field(repr=False)


def _delivery(row: Row) -> Delivery:
    return Delivery(**dict(row))


# Newest first along the unique index of endpoint and event, whose ids begin with their time: `$4`
# and `$6` are bounds of ids. What has stopped has an index of its own (delivery_stopped), and what
# waits has two: each is little beside what was delivered. `$2` decides which part is run. A
# delivery of a deleted endpoint is nobody's.
LIST_DELIVERIES = """
SELECT d.id, d.endpoint_id, e.developer_id, d.event_id, d.type, d.state, d.attempt,
       d.claim_token IS NOT NULL AND d.visible_at > clock_timestamp() AS is_in_flight,
       CASE WHEN d.state = 'pending'
             AND NOT (d.claim_token IS NOT NULL AND d.visible_at > clock_timestamp())
            THEN d.visible_at END AS next_attempt_at,
       d.last_status, d.last_fault, d.recorded_at, d.created_at, d.settled_at
FROM (
    (SELECT a.id FROM delivery a
     WHERE coalesce($2, 'delivered') = 'delivered'
       AND a.endpoint_id = $1 AND ($2::text IS NULL OR a.state = $2)
       AND ($3::text IS NULL OR a.type = $3)
       AND a.event_id >= $4 AND ($5::timestamptz IS NULL OR a.created_at >= $5) AND a.event_id < $6
     ORDER BY a.event_id DESC LIMIT $7)
    UNION ALL
    (SELECT s.id FROM delivery s
     WHERE $2 IN ('exhausted', 'cancelled', 'parked') AND s.endpoint_id = $1
       AND s.state IN ('exhausted', 'cancelled', 'parked') AND s.state = $2
       AND ($3::text IS NULL OR s.type = $3)
       AND s.event_id >= $4 AND ($5::timestamptz IS NULL OR s.created_at >= $5) AND s.event_id < $6
     ORDER BY s.event_id DESC LIMIT $7)
    UNION ALL
    (SELECT w.id FROM delivery w
     WHERE $2 = 'pending' AND w.endpoint_id = $1
       AND (w.state = 'pending' AND w.attempt = 0 OR w.state = 'pending' AND w.attempt > 0)
       AND ($3::text IS NULL OR w.type = $3)
       AND w.event_id >= $4 AND ($5::timestamptz IS NULL OR w.created_at >= $5) AND w.event_id < $6
     ORDER BY w.event_id DESC LIMIT $7)) AS page
JOIN delivery d ON d.id = page.id
JOIN webhook_endpoint e ON e.id = d.endpoint_id AND e.deleted_at IS NULL
ORDER BY d.event_id DESC
"""


async def list_deliveries(
    reader: Reader,
    endpoint_id: str,
    *,
    state: str | None = None,
    event_type: str | None = None,
    since: datetime | None = None,
    before: UUID | None = None,
    limit: int,
) -> list[Delivery]:
    """At most `limit` deliveries of the endpoint, of the newest events first, below `before`."""
    rows = await reader.fetch(
        LIST_DELIVERIES,
        endpoint_id,
        state,
        event_type,
        first_uuid((since or datetime.fromtimestamp(0, UTC) + CLOCKS_APART) - CLOCKS_APART),
        since,
        before or last_uuid(),
        limit,
    )
    return [_delivery(row) for row in rows]


READ_DELIVERY = """
SELECT d.id, d.endpoint_id, e.developer_id, d.event_id, d.type, d.state, d.attempt,
       d.claim_token IS NOT NULL AND d.visible_at > clock_timestamp() AS is_in_flight,
       CASE WHEN d.state = 'pending'
             AND NOT (d.claim_token IS NOT NULL AND d.visible_at > clock_timestamp())
            THEN d.visible_at END AS next_attempt_at,
       d.last_status, d.last_fault, d.recorded_at, d.created_at, d.settled_at
FROM delivery d JOIN webhook_endpoint e ON e.id = d.endpoint_id AND e.deleted_at IS NULL
WHERE d.id = $1
"""


async def read_delivery(reader: Reader, delivery_id: UUID) -> Delivery | None:
    """The delivery; None where there is none, or its endpoint was deleted."""
    row = await reader.fetchrow(READ_DELIVERY, delivery_id)
    return _delivery(row) if row else None


READ_ATTEMPTS = """
SELECT n, started_at, status, fault, address, dns_ms, connect_ms, tls_ms,
       first_byte_ms, total_ms, answer
FROM webhook_attempt WHERE delivery_id = $1 ORDER BY n, recorded_at
"""


async def read_attempts(reader: Reader, delivery_id: UUID) -> list[LoggedAttempt]:
    """Every attempt that is still kept, in order."""
    return [LoggedAttempt(*row) for row in await reader.fetch(READ_ATTEMPTS, delivery_id)]


READ_BODY = "SELECT body FROM webhook_body WHERE event_id = $1 AND recorded_at = $2"


async def read_body(reader: Reader, event_id: UUID, recorded_at: datetime) -> bytes | None:
    """The exact bytes of this event's webhook; None when they are kept no longer."""
    body: bytes | None = await reader.fetchval(READ_BODY, event_id, recorded_at)
    return body


# Relies on the endpoint's lock. Not what is in flight: that is being sent anyway. A receipt that
# was passed on to its escrow is not passed on twice; one that is still to be is left alone. What
# had ended has no ladder in a fifo lane: newer events do not wait for it again.
RESEND = """
UPDATE delivery d
SET state = 'pending', visible_at = clock_timestamp(), claim_token = NULL, settled_at = NULL,
    acknowledges = d.acknowledges AND d.acknowledged_at IS NULL, acknowledged_at = NULL,
    ladder_from = CASE WHEN d.state = 'pending' OR NOT e.fifo THEN d.ladder_from END
FROM webhook_endpoint e
WHERE d.id = $1 AND e.id = d.endpoint_id
  AND NOT (d.state = 'pending' AND d.claim_token IS NOT NULL AND d.visible_at > clock_timestamp())
  AND NOT (d.state = 'delivered' AND d.acknowledges AND d.acknowledged_at IS NULL)
RETURNING d.id
"""


async def resend(tx: Transaction, delivery_id: UUID) -> bool:
    """Let the delivery fall due now, whatever became of it; False where it is left as it is."""
    return await tx.fetchval(RESEND, delivery_id) is not None


# Comes after the deliveries, as everywhere. What the receiver has asked for (Retry-After) stays; an
# open breaker lets its one probe through now: whoever asks has perhaps mended what was broken.
HURRY_LANE = """
UPDATE lane SET next_due_at = least(next_due_at, clock_timestamp()),
    first_due_at = '-infinity',
    hold_until = CASE WHEN breaker = 'open' AND hold_until <= breaker_until THEN '-infinity'
                      ELSE hold_until END
WHERE endpoint_id = $1
"""


async def hurry_lane(tx: Transaction, endpoint_id: str) -> None:
    """Something is due in this lane now, and worth a probe. Relies on the endpoint's lock."""
    await tx.execute(HURRY_LANE, endpoint_id)


# The event counts as fanned out, so that nobody but this endpoint hears of it.
MARK_TOLD = """
UPDATE event SET fanned_at = clock_timestamp() WHERE id = $1 RETURNING recorded_at, position
"""
INSERT_DELIVERY = """
INSERT INTO delivery (id, endpoint_id, event_id, recorded_at, position, type, visible_at,
                      created_at)
VALUES ($1, $2, $3, $4, $5, $6, clock_timestamp(), clock_timestamp())
"""


async def insert_test(
    tx: Transaction, delivery_id: UUID, endpoint_id: str, event_id: UUID, event_type: str
) -> None:
    """The event, written in this transaction, goes to this endpoint alone, subscribed or not."""
    told = await tx.fetchrow(MARK_TOLD, event_id)
    if told is None:
        raise AssertionError(f"event {event_id} was not written before its delivery")
    await tx.execute(INSERT_DELIVERY, delivery_id, endpoint_id, event_id, *told, event_type)


@dataclass(frozen=True, slots=True)
class Recent:
    """How an endpoint has fared: its deliveries by state, over the last day's events."""

    pending: int
    parked: int
    delivered: int
    exhausted: int
    cancelled: int


# Along the unique index; of a busy endpoint the newest only.
COUNT_RECENT = """
SELECT count(*) FILTER (WHERE r.state = 'pending') AS pending,
       count(*) FILTER (WHERE r.state = 'parked') AS parked,
       count(*) FILTER (WHERE r.state = 'delivered') AS delivered,
       count(*) FILTER (WHERE r.state = 'exhausted') AS exhausted,
       count(*) FILTER (WHERE r.state = 'cancelled') AS cancelled
FROM (SELECT d.state FROM delivery d WHERE d.endpoint_id = $1 AND d.event_id >= $2
      ORDER BY d.event_id DESC LIMIT 10000) AS r
"""


async def count_recent(reader: Reader, endpoint_id: str, since: datetime) -> Recent:
    """The endpoint's deliveries of events since then by state, of the newest 10 000."""
    row = await reader.fetchrow(COUNT_RECENT, endpoint_id, first_uuid(since))
    if row is None:
        raise AssertionError("a count without a row")
    return Recent(**dict(row))
