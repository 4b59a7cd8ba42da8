"""Webhook endpoints and their secrets. A deleted endpoint keeps its row: its history names it."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from service.store.db import Reader, Row, Transaction

SECRETS_MAX = 5
"""How many secrets of an endpoint sign at once, of each scheme."""


@dataclass(frozen=True, slots=True)
class Endpoint:
    """An endpoint as it stands, with what its lane says of the last attempts.

    `flag`: what was wrong with its address (`blocked`, `bad_url`) when that was last refused.
    `headers` is sealed JSON; with a `public_key` it is signed by Ed25519 too.
    """

    id: str
    developer_id: str
    url: str
    events: Sequence[str]
    is_active: bool
    ladder: str
    timeout_seconds: int
    max_per_second: int | None
    fifo: bool
    headers: bytes | None = field(repr=False)
    disabled_reason: str | None
    flag: str | None
    seq: int
    created_at: datetime
    updated_at: datetime
    failure_count: int
    last_triggered_at: datetime | None
    last_response_status: int | None
    public_key: str | None


def _endpoint(row: Row) -> Endpoint:
    return Endpoint(**dict(row))


# Locks the developer's row, so that two creations cannot both find room.
LOCK_DEVELOPER = "SELECT id FROM developer WHERE id = $1 FOR NO KEY UPDATE"
COUNT_ENDPOINTS = """
SELECT count(*) FROM webhook_endpoint WHERE developer_id = $1 AND deleted_at IS NULL
"""


async def lock_count(tx: Transaction, developer_id: str) -> int:
    """How many endpoints the developer has; nobody else adds one until this transaction ends."""
    await tx.fetchval(LOCK_DEVELOPER, developer_id)
    count: int = await tx.fetchval(COUNT_ENDPOINTS, developer_id)
    return count


# The endpoint and its lane, which starts wide open and idle.
INSERT_ENDPOINT = """
WITH made AS (
    INSERT INTO webhook_endpoint (id, developer_id, url, events, ladder, timeout_seconds, headers,
                                  max_per_second, fifo, seq, created_at, updated_at)
    VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, 1, $10, $10)
    RETURNING id
)
INSERT INTO lane (endpoint_id) SELECT id FROM made
"""


@dataclass(frozen=True, slots=True)
class NewEndpoint:
    """What an endpoint starts with; `headers` is sealed JSON."""

    id: str
    developer_id: str
    url: str
    events: Sequence[str]
    ladder: str
    timeout_seconds: int
    headers: bytes | None = field(repr=False)
    max_per_second: int | None
    fifo: bool


async def insert_endpoint(tx: Transaction, endpoint: NewEndpoint) -> None:
    """A new endpoint, active, with its lane."""
    await tx.execute(
        INSERT_ENDPOINT,
        endpoint.id,
        endpoint.developer_id,
        endpoint.url,
        list(endpoint.events),
        endpoint.ladder,
        endpoint.timeout_seconds,
        endpoint.headers,
        endpoint.max_per_second,
        endpoint.fifo,
        tx.now,
    )


# Secrets live in real time: receivers compare with their own clocks.
INSERT_SIGNING_KEY = """
INSERT INTO endpoint_secret (endpoint_id, sealed, public_key, created_at)
VALUES ($1, $2, $3, clock_timestamp())
"""
# All but so many of the newest that are live, of one scheme: each of them costs 48 bytes (by
# Ed25519 93) in a header that receivers bound. Relies on the endpoint's lock.
DELETE_SIGNING_KEYS = """
DELETE FROM endpoint_secret
WHERE endpoint_id = $1 AND (public_key IS NOT NULL) = $3 AND id NOT IN (
    SELECT s.id FROM endpoint_secret s
    WHERE s.endpoint_id = $1 AND coalesce(s.expires_at > clock_timestamp(), true)
      AND (s.public_key IS NOT NULL) = $3
    ORDER BY s.id DESC LIMIT $2)
"""
EXPIRE_SIGNING_KEYS = """
UPDATE endpoint_secret SET expires_at = clock_timestamp() + make_interval(hours => $2)
WHERE endpoint_id = $1 AND (public_key IS NOT NULL) = $3
  AND (expires_at IS NULL OR expires_at > clock_timestamp() + make_interval(hours => $2))
"""


async def insert_secret(
    tx: Transaction,
    endpoint_id: str,
    sealed: bytes,
    *,
    public_key: str | None = None,
    overlap_hours: int = 0,
) -> None:
    """The newest secret of its scheme: by Ed25519 where there is a public half, else by HMAC.

    The older ones of the scheme sign for `overlap_hours` more, SECRETS_MAX in all. The oldest
    beyond are dead at once, and without an overlap all of them. Relies on the endpoint's lock.
    """
    is_pair = public_key is not None
    kept = SECRETS_MAX - 1 if overlap_hours else 0
    await tx.execute(DELETE_SIGNING_KEYS, endpoint_id, kept, is_pair)
    await tx.execute(EXPIRE_SIGNING_KEYS, endpoint_id, overlap_hours, is_pair)
    await tx.execute(INSERT_SIGNING_KEY, endpoint_id, sealed, public_key)


async def delete_pairs(tx: Transaction, endpoint_id: str) -> None:
    """Nothing is signed by Ed25519 there any more. Relies on the endpoint's lock."""
    is_pair = True
    await tx.execute(DELETE_SIGNING_KEYS, endpoint_id, 0, is_pair)


DELETE_EXPIRED_KEYS = "DELETE FROM endpoint_secret WHERE expires_at <= clock_timestamp()"


async def delete_expired_secrets(tx: Transaction) -> int:
    """How many secrets went whose overlap is over; they sign nothing since."""
    status = await tx.execute(DELETE_EXPIRED_KEYS)
    return int(status.split()[-1])


READ_ENDPOINTS = "SELECT * FROM endpoint_standing WHERE developer_id = $1 ORDER BY id"


async def read_endpoints(reader: Reader, developer_id: str) -> list[Endpoint]:
    """The developer's endpoints, oldest first."""
    return [_endpoint(row) for row in await reader.fetch(READ_ENDPOINTS, developer_id)]


READ_ENDPOINT = "SELECT * FROM endpoint_standing WHERE id = $1"


async def read_endpoint(reader: Reader, endpoint_id: str) -> Endpoint | None:
    """The endpoint; None for a deleted one or none at all."""
    row = await reader.fetchrow(READ_ENDPOINT, endpoint_id)
    return _endpoint(row) if row else None


# Locks the endpoints in id order; their deliveries and then their lanes come after, everywhere.
LOCK_ENDPOINTS = """
SELECT id FROM webhook_endpoint WHERE id = ANY ($1::text[]) ORDER BY id FOR NO KEY UPDATE
"""


async def lock_endpoints(tx: Transaction, ids: Sequence[str]) -> None:
    """Hold these endpoints, in id order."""
    await tx.fetch(LOCK_ENDPOINTS, list(ids))


async def lock_endpoint(tx: Transaction, endpoint_id: str) -> Endpoint | None:
    """As `read_endpoint`, under this transaction's lock."""
    await lock_endpoints(tx, [endpoint_id])
    return await read_endpoint(tx, endpoint_id)


# Relies on the endpoint's lock. An active endpoint has no reason to be disabled.
MOVE_ENDPOINT = """
UPDATE webhook_endpoint SET
    url = $2, events = $3, is_active = $4, ladder = $5, timeout_seconds = $6, max_per_second = $7,
    fifo = $8, headers = $9,
    flag = CASE WHEN url = $2 THEN flag END,
    disabled_reason = CASE WHEN $4 THEN NULL ELSE disabled_reason END,
    seq = seq + 1, updated_at = $10
WHERE id = $1
"""


async def move_endpoint(tx: Transaction, endpoint: Endpoint) -> None:
    """The endpoint as it now is; its keys stay."""
    await tx.execute(
        MOVE_ENDPOINT,
        endpoint.id,
        endpoint.url,
        list(endpoint.events),
        endpoint.is_active,
        endpoint.ladder,
        endpoint.timeout_seconds,
        endpoint.max_per_second,
        endpoint.fifo,
        endpoint.headers,
        tx.now,
    )


# Relies on the endpoint's lock.
NEXT_SEQ = """
UPDATE webhook_endpoint SET seq = seq + 1, updated_at = $2 WHERE id = $1 RETURNING seq
"""


async def next_seq(tx: Transaction, endpoint_id: str) -> int:
    """Count one more event of this endpoint; its number."""
    seq: int = await tx.fetchval(NEXT_SEQ, endpoint_id, tx.now)
    return seq


# Relies on the endpoint's lock.
DELETE_ENDPOINT = """
UPDATE webhook_endpoint
SET is_active = false, deleted_at = $2, updated_at = $2, headers = NULL, seq = seq + 1
WHERE id = $1
"""


async def delete_endpoint(tx: Transaction, endpoint_id: str) -> None:
    """Nothing is sent there any more, and no secret of it signs."""
    await tx.execute(DELETE_ENDPOINT, endpoint_id, tx.now)
    for is_pair in (False, True):
        await tx.execute(DELETE_SIGNING_KEYS, endpoint_id, 0, is_pair)


@dataclass(frozen=True, slots=True)
class Addressed:
    """An endpoint whose developer is written to, in their `language`."""

    id: str
    url: str
    developer_email: str
    language: str


READ_ADDRESSED = """
SELECT e.id, e.url, d.email AS developer_email,
       coalesce((SELECT u.language FROM app_user u WHERE u.id = d.user_id), 'en') AS language
FROM webhook_endpoint e JOIN developer d ON d.id = e.developer_id
WHERE e.id = ANY ($1::text[]) AND e.is_active
ORDER BY e.id
"""


async def read_addressed(reader: Reader, ids: Sequence[str]) -> list[Addressed]:
    """Those of the endpoints that are active."""
    return [Addressed(**dict(row)) for row in await reader.fetch(READ_ADDRESSED, list(ids))]


# Relies on the endpoints' locks.
DISABLE_ENDPOINTS = """
UPDATE webhook_endpoint e
SET is_active = false, disabled_reason = given.reason, seq = e.seq + 1, updated_at = $3
FROM unnest($1::text[], $2::text[]) AS given (id, reason), developer d
WHERE e.id = given.id AND e.is_active AND d.id = e.developer_id
RETURNING e.id, e.developer_id, e.url, e.seq, e.disabled_reason, d.email AS developer_email,
          coalesce((SELECT u.language FROM app_user u WHERE u.id = d.user_id), 'en') AS language,
          (SELECT l.failure_count FROM lane l WHERE l.endpoint_id = e.id) AS failure_count
"""
FLAG_ENDPOINTS = """
UPDATE webhook_endpoint e SET flag = given.flag
FROM unnest($1::text[], $2::text[]) AS given (id, flag)
WHERE e.id = given.id
"""


@dataclass(frozen=True, slots=True)
class Disabled:
    """An endpoint that has just been disabled; `language` is its developer's."""

    id: str
    developer_id: str
    developer_email: str
    language: str
    url: str
    seq: int
    disabled_reason: str
    failure_count: int


async def disable_endpoints(tx: Transaction, reasons: Mapping[str, str]) -> list[Disabled]:
    """Those of the endpoints (id → reason) that were active until now. Relies on their locks."""
    rows = await tx.fetch(DISABLE_ENDPOINTS, list(reasons), list(reasons.values()), tx.now)
    return [Disabled(**dict(row)) for row in rows]


async def flag_endpoints(tx: Transaction, flags: Mapping[str, str]) -> None:
    """Note what is wrong with these endpoints' addresses (id → fault). Relies on their locks."""
    await tx.execute(FLAG_ENDPOINTS, list(flags), list(flags.values()))
