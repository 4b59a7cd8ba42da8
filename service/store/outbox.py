"""What waits to be delivered, as the metrics show it. All times are real."""

from dataclasses import dataclass

from service.store.db import Reader


@dataclass(frozen=True, slots=True)
class Outbox:
    """Ages are those of the oldest, in seconds, 0 where nothing waits.

    `unfanned_seconds`: of events without their deliveries; `due_seconds`: of lanes that are due and
    not held. `held_lanes` are due but must wait; `expired_leases` were claimed by who has died.
    """

    unfanned_seconds: float
    due_seconds: float
    held_lanes: int
    expired_leases: int


# One look along the partial indexes event_unfanned, lane_due and delivery_in_flight.
READ_OUTBOX = """
SELECT coalesce(extract(epoch FROM t.moment - (
           SELECT min(v.recorded_at) FROM event v
           WHERE v.fanned_at IS NULL AND v.type IS NOT NULL)), 0)::float8,
       coalesce(extract(epoch FROM t.moment - (
           SELECT min(l.next_due_at) FROM lane l
           WHERE l.next_due_at <= t.moment AND l.hold_until <= t.moment)), 0)::float8,
       (SELECT count(*) FROM lane l WHERE l.next_due_at <= t.moment AND l.hold_until > t.moment),
       (SELECT count(*) FROM delivery d
        WHERE d.state = 'pending' AND d.claim_token IS NOT NULL AND d.visible_at <= t.moment)
FROM (SELECT clock_timestamp() AS moment) AS t
"""


async def read_outbox(reader: Reader) -> Outbox:
    """For the metrics."""
    row = await reader.fetchrow(READ_OUTBOX)
    if row is None:
        raise AssertionError("a SELECT without a row")
    return Outbox(*row)
