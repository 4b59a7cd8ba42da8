"""A wallet's statement: every transfer into it and out of it, newest first, by keyset."""

from dataclasses import dataclass
from datetime import datetime

from service.store.db import Reader


@dataclass(frozen=True, slots=True)
class Line:
    """One entry: `amount_minor` is below 0 where it left the wallet; `at` is business time.

    `reason` is the posting's (rules/postings.py), `title` the escrow's where there is one, in which
    the wallet's owner has a place if it `is_theirs`: whoever only paid, or was paid, has none.
    """

    id: int
    at: datetime
    reason: str
    amount_minor: int
    currency: str
    escrow_id: str | None
    title: str | None
    subject_id: str
    is_theirs: bool


@dataclass(frozen=True, slots=True)
class Period:
    """From `since` on and before `until`, business time; None is open."""

    since: datetime | None = None
    until: datetime | None = None


# Each half walks one index of `transfer` backwards from the cursor, and stops at the limit.
READ_STATEMENT = """
WITH own AS (
    SELECT id FROM account WHERE kind = 'available' AND owner = $1 AND currency = $2
), lines AS (
    (SELECT t.id, t.at, t.reason, -t.amount_minor AS amount_minor, t.currency, t.escrow_id,
            t.subject_id
     FROM own JOIN transfer t ON t.from_account = own.id
     WHERE t.id < $3 AND ($4::timestamptz IS NULL OR t.at >= $4)
       AND ($5::timestamptz IS NULL OR t.at < $5)
     ORDER BY t.id DESC LIMIT $6)
    UNION ALL
    (SELECT t.id, t.at, t.reason, t.amount_minor, t.currency, t.escrow_id, t.subject_id
     FROM own JOIN transfer t ON t.to_account = own.id
     WHERE t.id < $3 AND ($4::timestamptz IS NULL OR t.at >= $4)
       AND ($5::timestamptz IS NULL OR t.at < $5)
     ORDER BY t.id DESC LIMIT $6)
)
SELECT l.*, e.title, e.id IS NOT NULL AND (
           $1 IN (e.seller_id, e.buyer_id) IS TRUE
           OR EXISTS (SELECT FROM escrow_role r WHERE r.escrow_id = e.id AND r.user_id = $1)
       ) AS is_theirs
FROM lines l LEFT JOIN escrow e ON e.id = l.escrow_id
ORDER BY l.id DESC LIMIT $6
"""
NEWEST = 2**63 - 1


async def read_statement(
    reader: Reader, user_id: str, currency: str, period: Period, *, before: int, limit: int
) -> list[Line]:
    """At most `limit` entries older than the one of this id; `NEWEST` begins at the newest."""
    rows = await reader.fetch(
        READ_STATEMENT, user_id, currency, before, period.since, period.until, limit
    )
    return [Line(**dict(row)) for row in rows]


READ_CURRENCIES = """
SELECT currency FROM account WHERE kind IN ('available', 'pending') AND owner = $1
ORDER BY currency
"""


async def read_currencies(reader: Reader, user_id: str) -> list[str]:
    """The currencies in which this person has, or had, money."""
    return [row["currency"] for row in await reader.fetch(READ_CURRENCIES, user_id)]
