"""What waits to be delivered, as the metrics show it. All times are real."""

from dataclasses import dataclass

from service.store.canary import ENDPOINT
from service.store.db import Reader


@dataclass(frozen=True, slots=True)
class Outbox:
    """Ages are those of the oldest, in seconds, 0 where nothing waits.

    `unfanned_seconds`: of events without their deliveries; `due_seconds`: of lanes that are due and
    not held. `held_lanes` are due but must wait, for `held_seconds` the oldest; `expired_leases`
    were claimed by who has died. `open_breakers` and `half_open_breakers` are of active endpoints.
    `canary_seconds`: since the canary last arrived, NaN before the first and after one was lost.
    """

    unfanned_seconds: float
    due_seconds: float
    held_lanes: int
    held_seconds: float
    expired_leases: int
    open_breakers: int
    half_open_breakers: int
    canary_seconds: float


# One look along the partial indexes event_unfanned, lane_due, delivery_in_flight, lane_tripped.
READ_OUTBOX = """
SELECT coalesce(extract(epoch FROM t.moment - (
           SELECT min(v.recorded_at) FROM event v
           WHERE v.fanned_at IS NULL AND v.type IS NOT NULL)), 0)::float8,
       coalesce(extract(epoch FROM t.moment - (
           SELECT min(l.next_due_at) FROM lane l
           WHERE l.next_due_at <= t.moment AND l.hold_until <= t.moment)), 0)::float8,
       (SELECT count(*) FROM lane l WHERE l.next_due_at <= t.moment AND l.hold_until > t.moment),
       coalesce(extract(epoch FROM t.moment - (
           SELECT min(l.next_due_at) FROM lane l
           WHERE l.next_due_at <= t.moment AND l.hold_until > t.moment)), 0)::float8,
       (SELECT count(*) FROM delivery d
        WHERE d.state = 'pending' AND d.claim_token IS NOT NULL AND d.visible_at <= t.moment),
       (SELECT count(*) FROM lane l JOIN webhook_endpoint e ON e.id = l.endpoint_id
        WHERE l.breaker = 'open' AND e.is_active),
       (SELECT count(*) FROM lane l JOIN webhook_endpoint e ON e.id = l.endpoint_id
        WHERE l.breaker = 'half_open' AND e.is_active),
       coalesce(extract(epoch FROM t.moment - (
           SELECT l.last_attempt_at FROM lane l
           WHERE l.endpoint_id = $1 AND l.last_status = 204)), 'NaN')::float8
FROM (SELECT clock_timestamp() AS moment) AS t
"""


async def read_outbox(reader: Reader) -> Outbox:
    """For the metrics."""
    row = await reader.fetchrow(READ_OUTBOX, ENDPOINT)
    if row is None:
        raise AssertionError("a SELECT without a row")
    return Outbox(*row)
