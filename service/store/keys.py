"""API keys: looked up by their SHA-256 in one query, never stored, never logged."""

from collections.abc import Sequence
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


# Reads keys by the unique index on their hash. Keys live in real time, so that a sandbox whose
# clock is moved forward does not expire them.
READ_KEYS = """
SELECT k.hash, k.id, k.developer_id, k.operator_id, d.user_id, k.rate_limit_per_minute, k.is_active,
       coalesce(k.expires_at <= now(), false) AS is_expired,
       coalesce(k.last_used_at < now() - interval '1 minute', true) AS is_idle
FROM api_key k LEFT JOIN developer d ON d.id = k.developer_id
WHERE k.hash = ANY ($1::bytea[])
"""

# Locks the key's row for an instant; the second of two writers in a minute changes nothing.
NOTE_KEY_USE = """
UPDATE api_key SET last_used_at = now()
WHERE id = $1 AND coalesce(last_used_at < now() - interval '1 minute', true)
"""


async def read_keys(reader: Reader, hashes: Sequence[bytes]) -> list[KeyFacts | None]:
    """The keys with these SHA-256 (32 bytes each), active or not; None where there is none."""
    rows = await reader.fetch(READ_KEYS, list(set(hashes)))
    found = {row[0]: KeyFacts(*row[1:]) for row in rows}
    return [found.get(key_hash) for key_hash in hashes]


async def read_key(reader: Reader, key_hash: bytes) -> KeyFacts | None:
    """The key with this SHA-256; None when there is none."""
    [key] = await read_keys(reader, [key_hash])
    return key


async def note_key_use(tx: Transaction, key_id: str) -> None:
    """Remember that the key is in use, at most once a minute."""
    await tx.execute(NOTE_KEY_USE, key_id)
