"""Lanes: one an endpoint; they say when something is due there. All times are real."""

from collections.abc import Sequence

from service.store.db import Transaction

# Locks only the lanes that are late, skipping busy ones: their holder sets the time itself. Errs
# early only; what it repairs is a hint that was lost.
RECONCILE_LANES = """
WITH late AS MATERIALIZED (
    SELECT l.endpoint_id FROM lane l
    WHERE EXISTS (SELECT FROM delivery d WHERE d.endpoint_id = l.endpoint_id
                    AND d.state = 'pending' AND d.visible_at < l.next_due_at)
    ORDER BY l.endpoint_id
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE lane l SET next_due_at = least(l.next_due_at, (
    SELECT min(d.visible_at) FROM delivery d
    WHERE d.endpoint_id = l.endpoint_id AND d.state = 'pending'))
FROM late WHERE l.endpoint_id = late.endpoint_id
"""


async def reconcile_lanes(tx: Transaction) -> int:
    """How many lanes were due earlier than they said; they say so now."""
    status = await tx.execute(RECONCILE_LANES)
    return int(status.split()[-1])


# Relies on the endpoints' locks; comes after their deliveries.
WAKE_LANES = """
UPDATE lane SET next_due_at = clock_timestamp(), hold_until = '-infinity', send_window = cap,
    streak = 0
WHERE endpoint_id = ANY ($1::text[])
"""


async def wake_lanes(tx: Transaction, endpoint_ids: Sequence[str]) -> None:
    """These lanes are due and start afresh: no hold, whole window."""
    await tx.execute(WAKE_LANES, list(endpoint_ids))
