"""Stored answers: the same key and request get the same bytes, in the effect's transaction.

A caller is a developer, or a user whose form came.
"""

from dataclasses import dataclass
from datetime import datetime

from service.store.db import Reader, Transaction


@dataclass(frozen=True, slots=True)
class Stored:
    """An answer that was given before."""

    fingerprint: bytes
    status: int
    body: bytes
    is_sealed: bool


# After the lock, in a statement of its own: its snapshot must see what the last holder committed.
READ_ANSWER = """
SELECT fingerprint, status, body, is_sealed FROM idempotency
WHERE caller_id = $1 AND key = $2 AND expires_at > statement_timestamp()
"""


async def read_answer(reader: Reader, caller_id: str, key: str) -> Stored | None:
    """The answer stored under this key, unless it has expired."""
    row = await reader.fetchrow(READ_ANSWER, caller_id, key)
    return Stored(**dict(row)) if row else None


INSERT_ANSWER = """
INSERT INTO idempotency (caller_id, key, fingerprint, status, body, is_sealed, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
ON CONFLICT (caller_id, key) DO UPDATE SET
    fingerprint = excluded.fingerprint, status = excluded.status, body = excluded.body,
    is_sealed = excluded.is_sealed, expires_at = excluded.expires_at
"""


async def insert_answer(
    tx: Transaction, caller_id: str, key: str, answer: Stored, expires_at: datetime
) -> None:
    """The answer, for replay until `expires_at`; takes the place of an expired one."""
    await tx.execute(
        INSERT_ANSWER,
        caller_id,
        key,
        answer.fingerprint,
        answer.status,
        answer.body,
        answer.is_sealed,
        expires_at,
    )


# Batches, so that the retention job holds no long lock.
DELETE_EXPIRED = """
DELETE FROM idempotency WHERE (caller_id, key) IN (
    SELECT caller_id, key FROM idempotency WHERE expires_at <= statement_timestamp()
    LIMIT $1 FOR UPDATE SKIP LOCKED)
"""


async def delete_expired(tx: Transaction, limit: int) -> int:
    """How many expired answers went, at most `limit`."""
    status = await tx.execute(DELETE_EXPIRED, limit)
    return int(status.split()[-1])
