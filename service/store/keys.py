"""API keys: looked up by their SHA-256 in one query, never stored, never logged."""

from dataclasses import dataclass

from service.store.db import Reader, Transaction


@dataclass(frozen=True, slots=True)
class KeyFacts:
    """A key and whose it is. `is_idle`: its last use is not noted, or longer ago than a minute."""

    key_id: str
    developer_id: str | None
    operator_id: str | None
    user_id: str | None
    rate_limit_per_minute: int | None
    is_active: bool
    is_expired: bool
    is_idle: bool


# Reads one key by the unique index on its hash. Keys live in real time, so that a sandbox whose
# clock is moved forward does not expire them.
READ_KEY = """
SELECT k.id, k.developer_id, k.operator_id, d.user_id, k.rate_limit_per_minute, k.is_active,
       coalesce(k.expires_at <= now(), false) AS is_expired,
       coalesce(k.last_used_at < now() - interval '1 minute', true) AS is_idle
FROM api_key k LEFT JOIN developer d ON d.id = k.developer_id
WHERE k.hash = $1
"""

# Locks the key's row for an instant; the second of two writers in a minute changes nothing.
NOTE_KEY_USE = """
UPDATE api_key SET last_used_at = now()
WHERE id = $1 AND coalesce(last_used_at < now() - interval '1 minute', true)
"""


async def read_key(reader: Reader, key_hash: bytes) -> KeyFacts | None:
    """The key with this SHA-256 (32 bytes), active or not; None when there is none."""
    row = await reader.fetchrow(READ_KEY, key_hash)
    return None if row is None else KeyFacts(*row)


async def note_key_use(tx: Transaction, key_id: str) -> None:
    """Remember that the key is in use, at most once a minute."""
    await tx.execute(NOTE_KEY_USE, key_id)
