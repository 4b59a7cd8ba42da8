"""Developers, their association with a user, and their keys."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from service.rules.aggregate import Person
from service.rules.escrow import STATUS_UPDATED
from service.store.canary import DEVELOPER as CANARY
from service.store.db import Reader, Row, Transaction
from service.store.ids import first_id
from service.store.users import as_person


@dataclass(frozen=True, slots=True)
class NewKey:
    """A key to be stored: its SHA-256 and its first characters, never the key."""

    id: str
    name: str
    prefix: str
    hash: bytes
    environment: str


INSERT_DEVELOPER = """
INSERT INTO developer (id, email, company, user_id, redirect_urls, created_at)
VALUES ($1, $2, $3, $4, $5, $6)
"""


async def insert_developer(
    tx: Transaction,
    developer_id: str,
    email: str,
    company: str,
    user_id: str | None,
    redirect_urls: list[str],
) -> None:
    """A new developer; a taken e-mail or user is refused by the constraint."""
    await tx.execute(INSERT_DEVELOPER, developer_id, email, company, user_id, redirect_urls, tx.now)


INSERT_KEY = """
INSERT INTO api_key (id, developer_id, name, prefix, hash, environment, created_at)
VALUES ($1, $2, $3, $4, $5, $6, $7)
"""


async def insert_key(tx: Transaction, developer_id: str, key: NewKey) -> None:
    """A new key of this developer."""
    await tx.execute(
        INSERT_KEY,
        key.id,
        developer_id,
        key.name,
        key.prefix,
        key.hash,
        key.environment,
        tx.real_now,
    )


# Locks the developer's row and counts its event.
ASSOCIATE = "UPDATE developer SET user_id = $2, seq = seq + 1 WHERE id = $1 RETURNING seq"


async def associate(tx: Transaction, developer_id: str, user_id: str | None) -> int:
    """The developer acts as this user from now on, or as nobody; the seq of its event."""
    seq: int = await tx.fetchval(ASSOCIATE, developer_id, user_id)
    return seq


NEXT_DEVELOPER_SEQ = "UPDATE developer SET seq = seq + 1 WHERE id = $1 RETURNING seq"


async def next_developer_seq(tx: Transaction, developer_id: str) -> int:
    """The seq of the developer's next event; the row stays locked."""
    seq: int = await tx.fetchval(NEXT_DEVELOPER_SEQ, developer_id)
    return seq


# The image is sealed: a drawn signature is personal, and worth stealing.
STORE_SIGNATURE = """
WITH image AS (INSERT INTO signature_image (sealed) VALUES ($2) RETURNING id)
UPDATE developer SET signature_id = image.id, seq = seq + 1 FROM image
WHERE developer.id = $1 RETURNING seq
"""


async def store_signature(tx: Transaction, developer_id: str, sealed: str) -> int:
    """Keep this sealed data URI as the developer's signature; the seq of its event."""
    seq: int = await tx.fetchval(STORE_SIGNATURE, developer_id, sealed)
    return seq


READ_HAS_SIGNATURE = "SELECT signature_id IS NOT NULL FROM developer WHERE id = $1"


async def read_has_signature(reader: Reader, developer_id: str) -> bool:
    """Whether the developer has a stored signature."""
    return bool(await reader.fetchval(READ_HAS_SIGNATURE, developer_id))


STORE_REDIRECT_URLS = (
    "UPDATE developer SET redirect_urls = $2, seq = seq + 1 WHERE id = $1 RETURNING seq"
)


async def store_redirect_urls(tx: Transaction, developer_id: str, urls: Sequence[str]) -> int:
    """The developer's whole list from now on; the seq of its event."""
    seq: int = await tx.fetchval(STORE_REDIRECT_URLS, developer_id, list(urls))
    return seq


READ_REDIRECT_URLS = "SELECT redirect_urls FROM developer WHERE id = $1"


async def read_redirect_urls(reader: Reader, developer_id: str) -> list[str]:
    """The developer's list, in the order in which it was given."""
    return list(await reader.fetchval(READ_REDIRECT_URLS, developer_id))


READ_OWN_KEY = """
SELECT k.id AS key_id, k.name, k.prefix, k.environment, k.is_active, k.last_used_at, k.expires_at,
       k.rate_limit_per_minute, k.metadata, k.created_at, d.id AS developer_id, d.email, d.company
FROM api_key k JOIN developer d ON d.id = k.developer_id WHERE k.id = $1
"""


async def read_own_key(reader: Reader, key_id: str) -> Row | None:
    """A key with its developer, for the one who holds it."""
    return await reader.fetchrow(READ_OWN_KEY, key_id)


READ_DEVELOPERS = """
SELECT d.id, d.email, d.company, u.email AS user_email, d.created_at, count(k.id) AS keys
FROM developer d LEFT JOIN app_user u ON u.id = d.user_id
LEFT JOIN api_key k ON k.developer_id = d.id AND k.is_active
WHERE d.id <> $1
GROUP BY d.id, u.email ORDER BY d.id
"""


async def read_developers(reader: Reader) -> list[Row]:
    """Every developer: id, e-mail, company, the user's e-mail, when, how many active keys.

    Without the house's own: the canary's.
    """
    return await reader.fetch(READ_DEVELOPERS, CANARY)


READ_KEYS = """
SELECT k.id, k.prefix, k.name, d.email, k.is_active, k.expires_at, k.last_used_at
FROM api_key k JOIN developer d ON d.id = k.developer_id ORDER BY d.id, k.id
"""


async def read_keys(reader: Reader) -> list[Row]:
    """Every developer's key: id, first characters, name, the developer's e-mail, its state."""
    return await reader.fetch(READ_KEYS)


# Locks the developers, then their keys: two rotations of one key make one new key.
LOCK_KEYS = """
SELECT k.id, k.name, k.developer_id, d.user_id
FROM api_key k JOIN developer d ON d.id = k.developer_id
WHERE (k.id = $1 OR k.prefix = $1) AND k.is_active
  AND coalesce(k.expires_at > statement_timestamp(), true)
ORDER BY k.id FOR NO KEY UPDATE
"""


async def lock_keys(tx: Transaction, key: str) -> list[Row]:
    """The active keys with this id or these first characters, and whose they are."""
    return await tx.fetch(LOCK_KEYS, key)


RETIRE_KEY = """
UPDATE api_key SET is_active = $2 > statement_timestamp(), expires_at = least(expires_at, $2)
WHERE id = $1
"""


async def retire_key(tx: Transaction, key_id: str, at: datetime) -> None:
    """The key is good until then (real time) at most."""
    await tx.execute(RETIRE_KEY, key_id, at)


@dataclass(frozen=True, slots=True)
class Opening:
    """What create must know of the developer, both e-mails and the currency, in one reading."""

    company: str
    own: Person | None
    signature_id: int | None
    can_acknowledge: bool
    seller: Person | None
    is_seller_verified: bool
    buyer: Person | None
    rate: Decimal | None
    rate_at: datetime | None


@dataclass(frozen=True, slots=True)
class Question:
    """Around whom and what an escrow is to be opened; no `seller_email`: the developer's user."""

    developer_id: str
    seller_email: str | None
    buyer_email: str
    currency: str
    wants_acknowledgement: bool


READ_OPENINGS = """
SELECT d.company, d.signature_id,
       o.id AS own_id, o.email AS own_user_email, o.first_name AS own_first_name,
       o.last_name AS own_last_name, o.language AS own_language,
       o.timezone AS own_timezone,
       o.phone_verified_at IS NOT NULL AS own_phone_verified,
       s.id AS seller_id, s.email AS seller_user_email, s.first_name AS seller_first_name,
       s.last_name AS seller_last_name, s.language AS seller_language,
       s.timezone AS seller_timezone,
       s.phone_verified_at IS NOT NULL AS seller_phone_verified,
       s.email_verified_at IS NOT NULL AS is_seller_verified,
       b.id AS buyer_id, b.email AS buyer_user_email, b.first_name AS buyer_first_name,
       b.last_name AS buyer_last_name, b.language AS buyer_language,
       b.timezone AS buyer_timezone,
       b.phone_verified_at IS NOT NULL AS buyer_phone_verified,
       r.rate, r.fetched_at AS rate_at,
       q.wants_acknowledgement AND EXISTS (
           SELECT FROM webhook_endpoint w
           WHERE w.developer_id = d.id AND w.is_active AND w.deleted_at IS NULL
             AND w.events && ARRAY[$6, 'escrow.*', '*']) AS can_acknowledge
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::boolean[]) WITH ORDINALITY
     AS q (developer_id, seller_email, buyer_email, currency, wants_acknowledgement, n)
JOIN developer d ON d.id = q.developer_id
LEFT JOIN app_user o ON o.id = d.user_id
LEFT JOIN app_user s ON s.email = coalesce(q.seller_email, o.email)
LEFT JOIN app_user b ON b.email = q.buyer_email AND b.email_verified_at IS NOT NULL
LEFT JOIN LATERAL (SELECT rate, fetched_at FROM fx_rate WHERE currency = q.currency
                   ORDER BY fetched_at DESC LIMIT 1) r ON true
ORDER BY q.n
"""


async def read_openings(reader: Reader, questions: Sequence[Question]) -> list[Opening]:
    """Everything around each new escrow, in the questions' order."""
    if not questions:
        return []
    rows = await reader.fetch(
        READ_OPENINGS,
        [question.developer_id for question in questions],
        [question.seller_email for question in questions],
        [question.buyer_email for question in questions],
        [question.currency for question in questions],
        [question.wants_acknowledgement for question in questions],
        STATUS_UPDATED,
    )
    if len(rows) != len(questions):
        raise AssertionError("a key of a developer, and no such developer")
    return [
        Opening(
            company=row["company"],
            own=as_person(row, "own"),
            signature_id=row["signature_id"],
            can_acknowledge=row["can_acknowledge"],
            seller=as_person(row, "seller"),
            is_seller_verified=row["is_seller_verified"],
            buyer=as_person(row, "buyer"),
            rate=row["rate"],
            rate_at=row["rate_at"],
        )
        for row in rows
    ]


READ_COMPANY = "SELECT company FROM developer WHERE id = $1"


async def read_company(reader: Reader, developer_id: str) -> str:
    """The developer's company, as people are told who has opened an escrow."""
    company: str = await reader.fetchval(READ_COMPANY, developer_id)
    return company


READ_LANGUAGE = """
SELECT coalesce(u.language, 'en') FROM developer d LEFT JOIN app_user u ON u.id = d.user_id
WHERE d.id = $1
"""


async def read_language(reader: Reader, developer_id: str) -> str:
    """The language of the developer's user; English where there is none."""
    language: str = await reader.fetchval(READ_LANGUAGE, developer_id)
    return language


# Serializes one developer's creations while the operator's cap is on, so that it is exact. The ids
# begin with their time: the day is a range of the creator's index.
LOCK_CREATIONS = "SELECT pg_advisory_xact_lock(hashtextextended('cap/' || $1, 0))"
COUNT_SINCE = "SELECT count(*) FROM escrow WHERE creator_id = $1 AND id >= $2"


async def count_today(tx: Transaction, developer_id: str) -> int:
    """How many escrows this developer has created on this day (UTC)."""
    await tx.fetchval(LOCK_CREATIONS, developer_id)
    midnight = tx.now.replace(hour=0, minute=0, second=0, microsecond=0)
    count: int = await tx.fetchval(COUNT_SINCE, developer_id, first_id(midnight))
    return count
