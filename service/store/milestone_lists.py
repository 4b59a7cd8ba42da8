"""Milestone escrows looked at from outside: balances of many, lists by any fact, the event log."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from service.rules.engagement import MilestoneEscrow
from service.rules.machine import Role
from service.store.db import Reader
from service.store.escrows import BEYOND_IDS, FIRST_ID, ID_SLACK, anywhere
from service.store.ids import first_id
from service.store.milestones import as_milestone_escrow

# ---- Balances of many ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class EscrowBalance:
    """The live balance of one milestone escrow, in minor units."""

    id: str
    balance_minor: int
    currency: str


READ_BALANCES = """
SELECT e.id, coalesce(a.balance_minor, 0)::bigint AS balance_minor, e.currency
FROM escrow e
LEFT JOIN account a ON a.kind = 'held' AND a.owner = e.id AND a.currency = e.ledger_currency
WHERE e.id = ANY ($1::text[]) AND e.mode = 'milestone'
"""


async def read_balances(reader: Reader, ids: Sequence[str]) -> dict[str, EscrowBalance]:
    """The balances of those of the escrows that there are, by id."""
    rows = await reader.fetch(READ_BALANCES, list(ids))
    return {row["id"]: EscrowBalance(**dict(row)) for row in rows}


# ---- Lists --------------------------------------------------------------------------------------

CREATED_AT, UPDATED_AT, AMOUNT = "createdAt", "updatedAt", "amount"


@dataclass(frozen=True, slots=True)
class MilestoneScope:
    """What a list shows: what the developer has created or its user holds a role in, sifted.

    Somebody's e-mail is the one that was named, or their own. `title` stands anywhere in the
    title; amounts are in major units of whatever currency; `created_from` is included,
    `created_before` is not. `after` is the (key, id) of the last one that was shown.
    """

    developer_id: str
    user_id: str | None
    engagement_id: str | None = None
    title: str | None = None
    status: str | None = None
    release_mode: str | None = None
    role: Role | None = None
    role_email: str | None = None
    participant: str | None = None
    created_from: datetime | None = None
    created_before: datetime | None = None
    min_amount: Decimal | None = None
    max_amount: Decimal | None = None
    order_by: str = CREATED_AT
    descending: bool = True
    after: tuple[Decimal, str] | None = None


# Each way to somebody's escrows along its own index; see the function in schema.sql for what is
# left to be walked. Locks nothing.
LIST_MILESTONE_ESCROWS = """
SELECT (reading).*, sort_key FROM list_milestone_escrows(
    $1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20)
"""


async def list_milestone_escrows(
    reader: Reader, scope: MilestoneScope, limit: int
) -> list[tuple[MilestoneEscrow, Decimal]]:
    """At most `limit` escrows of the scope in its order, each with the key that it is sorted by."""
    key, after_id = scope.after or (None, None)
    sign = -1 if scope.descending else 1
    rows = await reader.fetch(
        LIST_MILESTONE_ESCROWS, *_sieve(scope, after_id), limit, scope.order_by, sign, key, after_id
    )
    return [(as_milestone_escrow(row), row["sort_key"]) for row in rows]


def _sieve(scope: MilestoneScope, after_id: str | None) -> tuple[object, ...]:
    """$1 to $15: whose, what by, and the bounds of the ids."""
    start, end = scope.created_from, scope.created_before
    low = FIRST_ID if start is None else first_id(start)
    below = BEYOND_IDS if end is None else first_id(end + ID_SLACK)
    if after_id is not None and scope.order_by == CREATED_AT:
        if scope.descending:
            below = min(below, after_id)
        else:
            low = max(low, after_id + "0")  # longer than it, and before any other id
    return (
        scope.developer_id,
        scope.user_id,
        scope.engagement_id,
        None if scope.title is None else anywhere(scope.title),
        scope.status,
        scope.release_mode,
        None if scope.role is None else scope.role.value,
        scope.role_email,
        scope.participant,
        start,
        end,
        scope.min_amount,
        scope.max_amount,
        low,
        below,
    )


# ---- The event log ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event of an escrow: its states, and what was said beyond them (JSON).

    `body` is its webhook's exact bytes, where they were asked for and are still kept.
    """

    seq: int
    id: str
    type: str
    at: datetime
    actor_kind: str
    escrow_id: str
    from_state: str
    to_state: str
    currency: str
    said: str
    body: bytes | None = None


# The currency is fixed before there is an amount to be told of.
READ_EVENTS = """
SELECT v.seq, v.id::text AS id, v.type, v.at, v.actor_kind, v.subject_id AS escrow_id, v.from_state,
       v.to_state, e.currency, v.said
FROM event v JOIN escrow e ON e.id = v.subject_id
WHERE v.subject_id = $1 AND v.seq > $2 AND v.type IS NOT NULL
ORDER BY v.seq LIMIT $3
"""


async def read_events(
    reader: Reader, escrow_id: str, after_seq: int, limit: int
) -> list[LoggedEvent]:
    """The next `limit` events of this escrow after that seq, oldest first, without their bodies."""
    rows = await reader.fetch(READ_EVENTS, escrow_id, after_seq, limit)
    return [LoggedEvent(**dict(row)) for row in rows]


# Up to $4 bytes of bodies, and one event at least: the sizes are known without unpacking them. A
# row more than $3 says that there are more.
READ_EVENTS_WHOLE = """
WITH next AS (
    SELECT * FROM event v
    WHERE v.subject_id = $1 AND v.seq > $2 AND v.type IS NOT NULL
    ORDER BY v.seq LIMIT $3::integer + 1
), sized AS (
    SELECT n.*, b.body, count(*) OVER (ORDER BY n.seq) AS place, count(*) OVER () AS found,
           sum(octet_length(b.body)) OVER (
               ORDER BY n.seq ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING) AS bytes_before
    FROM next n
    LEFT JOIN webhook_body b ON b.event_id = n.id AND b.recorded_at = n.recorded_at
)
SELECT s.seq, s.id::text AS id, s.type, s.at, s.actor_kind, s.subject_id AS escrow_id, s.from_state,
       s.to_state, e.currency, s.said, s.body, s.found > s.place AS has_more
FROM sized s JOIN escrow e ON e.id = s.subject_id
WHERE s.place <= $3 AND coalesce(s.bytes_before, 0) < $4
ORDER BY s.seq
"""


async def read_events_whole(
    reader: Reader, escrow_id: str, after_seq: int, limit: int, bytes_max: int
) -> tuple[list[LoggedEvent], bool]:
    """As `read_events`, with the bodies that are still kept, and whether there are more events.

    Fewer than `limit` where their bodies reach `bytes_max`.
    """
    rows = await reader.fetch(READ_EVENTS_WHOLE, escrow_id, after_seq, limit, bytes_max)
    found = [
        LoggedEvent(**{name: value for name, value in row.items() if name != "has_more"})
        for row in rows
    ]
    return found, bool(rows) and bool(rows[-1]["has_more"])
