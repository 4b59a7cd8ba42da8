"""The canary's developer and endpoint: the house's own, so that an event goes the whole way."""

from service.store.db import Transaction

DEVELOPER = "00000000000000000000ca4a"
ENDPOINT = "00000000000000000000ca4b"
EMAIL = "canary@amana.invalid"
TYPE = "canary"
SINK_URL = "canary:sink"
"""No address: the worker's own post takes what goes there, nothing is dialled."""

# Waits for nobody; what is there already stays as it is.
MAKE_CANARY = """
WITH shop AS (
    INSERT INTO developer (id, email, company, created_at) VALUES ($1, $2, 'Canary', $6)
    ON CONFLICT DO NOTHING RETURNING id
), made AS (
    INSERT INTO webhook_endpoint (id, developer_id, url, events, ladder, seq, created_at,
                                  updated_at)
    SELECT $3, id, $4, ARRAY[$5::text], 'brief', 0, $6, $6 FROM shop
    RETURNING id
), cage AS (
    INSERT INTO lane (endpoint_id) SELECT id FROM made
)
INSERT INTO endpoint_secret (endpoint_id, sealed, created_at)
SELECT id, $7, clock_timestamp() FROM made
"""
IS_THERE = "SELECT EXISTS (SELECT FROM developer WHERE id = $1)"
# Only one worker sends the canary; the others pass by.
LOCK_CANARY = "SELECT seq FROM developer WHERE id = $1 FOR NO KEY UPDATE SKIP LOCKED"
# Relies on the lock above, and on a snapshot that is younger. `seq` is that of the last event.
HAS_EVENT_SINCE = """
SELECT EXISTS (
    SELECT FROM event v JOIN developer d ON d.id = v.subject_id AND d.seq = v.seq
    WHERE d.id = $1 AND v.recorded_at > clock_timestamp() - make_interval(secs => $2))
"""
# Relies on the lock above, and on a snapshot that is younger.
IS_UNDER_WAY = """
SELECT EXISTS (
    SELECT FROM event v JOIN developer d ON d.id = v.subject_id AND d.seq = v.seq
    WHERE d.id = $1 AND v.recorded_at > clock_timestamp() - make_interval(secs => $3)
      AND NOT EXISTS (SELECT FROM delivery w WHERE w.endpoint_id = $2 AND w.event_id = v.id
                        AND w.state IN ('delivered', 'exhausted')))
"""
# Relies on the lock above. As if it had never been tried: it goes the way of first attempts.
SEND_AGAIN = """
UPDATE delivery d
SET state = 'pending', attempt = 0, visible_at = clock_timestamp(), settled_at = NULL
FROM developer p JOIN event v ON v.subject_id = p.id AND v.seq = p.seq
WHERE p.id = $1 AND d.endpoint_id = $2 AND d.event_id = v.id
  AND d.state IN ('delivered', 'exhausted')
  AND d.settled_at <= clock_timestamp() - make_interval(secs => $3)
RETURNING d.id
"""


async def make_canary(tx: Transaction, sealed_secret: bytes) -> None:
    """The canary's rows, where they are not there yet."""
    await tx.execute(MAKE_CANARY, DEVELOPER, EMAIL, ENDPOINT, SINK_URL, TYPE, tx.now, sealed_secret)


async def lock_canary(tx: Transaction) -> bool | None:
    """Whether it is ours until the transaction's end, or another worker's; None: there is none."""
    if not await tx.fetchval(IS_THERE, DEVELOPER):
        return None
    return await tx.fetchval(LOCK_CANARY, DEVELOPER) is not None


async def has_event_since(tx: Transaction, seconds: float) -> bool:
    """Whether its last event is younger than this. Relies on its lock."""
    return bool(await tx.fetchval(HAS_EVENT_SINCE, DEVELOPER, seconds))


async def is_under_way(tx: Transaction, seconds: float) -> bool:
    """Whether its last event is younger than this and has not ended. Relies on its lock."""
    return bool(await tx.fetchval(IS_UNDER_WAY, DEVELOPER, ENDPOINT, seconds))


async def send_again(tx: Transaction, every_seconds: float) -> bool:
    """Whether its last event has ended so long ago and falls due again. Relies on its lock."""
    return await tx.fetchval(SEND_AGAIN, DEVELOPER, ENDPOINT, every_seconds) is not None
