"""Milestone escrows: read, locked in one query, inserted, moved, listed, their balances.

The row in `escrow` is claimed first; what a step has changed beside it follows, and nothing else.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

from service.rules.engagement import Funding, Holder, Milestone, MilestoneEscrow
from service.rules.machine import Role
from service.rules.milestone import Done
from service.store.db import Reader, Row, Transaction
from service.store.escrows import anywhere

ESCROWS_OWN = -1
"""The position of a role of the escrow; those of 0 and more are milestones' own receivers."""


@dataclass(frozen=True, slots=True)
class LockedMilestones:
    """A milestone escrow under this transaction's lock; `due` names a deadline that is due."""

    escrow: MilestoneEscrow
    due: int | None


# Locks the rows in id order (see lock_milestone_escrows in schema.sql); READ COMMITTED.
LOCK_MILESTONE_ESCROWS = """
SELECT (reading).*, read_at, due_deadline FROM lock_milestone_escrows($1::text[], $2, $3)
"""


async def lock_milestone_escrows(
    tx: Transaction, ids: Sequence[str], *, skip_locked: bool = False
) -> list[LockedMilestones]:
    """Those of the milestone escrows that exist (and are free, with `skip_locked`), in id order.

    The transaction's `now` becomes the moment after the wait, unless its clock is held.
    """
    rows = await tx.fetch(LOCK_MILESTONE_ESCROWS, list(ids), skip_locked, tx.held_clock)
    if rows:
        tx.now = rows[0]["read_at"]
    return [LockedMilestones(as_milestone_escrow(row), row["due_deadline"]) for row in rows]


READ_MILESTONE_ESCROW = "SELECT * FROM milestone_reading WHERE id = $1"


async def read_milestone_escrow(reader: Reader, escrow_id: str) -> MilestoneEscrow | None:
    """The milestone escrow, or None when there is none of this id."""
    row = await reader.fetchrow(READ_MILESTONE_ESCROW, escrow_id)
    return as_milestone_escrow(row) if row else None


# By the primary key, before anything of the escrow is read by one family's statement.
IS_MILESTONE_ESCROW = "SELECT count(*) FROM escrow WHERE id = $1 AND mode = 'milestone'"


async def is_milestone_escrow(reader: Reader, escrow_id: str) -> bool:
    """Whether there is an escrow of this id, and it is of this family."""
    row = await reader.fetchrow(IS_MILESTONE_ESCROW, escrow_id)
    return row is not None and bool(row[0])


# One statement for the four tables; the foreign keys are looked at when it ends.
INSERT_MILESTONE_ESCROW = """
WITH made AS (
    INSERT INTO escrow (id, mode, status, seq, creator_id, title, description, currency,
                        ledger_currency, amount_minor, fx_rate, amount_ledger_minor,
                        escrow_fee_minor, created_at, updated_at)
    VALUES ($1, 'milestone', $2, $3, $4, $5, $6, $7, $7, $8, 1, $8, 0, $9, $9)
), terms AS (
    INSERT INTO milestone_escrow (escrow_id, release_mode, engagement_id, platform_fee_bps,
                                  protocol_fee_bps, receiver_memo, resolver_deadline_days)
    VALUES ($1, $10, $11, $12, $13, $14, $15)
), roles AS (
    INSERT INTO escrow_role (escrow_id, role, position, email, user_id)
    SELECT $1, r.role, r.position, r.email, r.user_id
    FROM unnest($16::text[], $17::smallint[], $18::text[], $19::text[])
        AS r (role, position, email, user_id)
)
INSERT INTO milestone (escrow_id, position, description, status, amount_minor)
SELECT $1, m.n - 1, m.description, m.status, m.amount_minor
FROM unnest($20::text[], $21::text[], $22::bigint[]) WITH ORDINALITY
    AS m (description, status, amount_minor, n)
"""


async def insert_milestone_escrow(tx: Transaction, escrow: MilestoneEscrow) -> None:
    """A new one, unfunded, with its roles and its milestones."""
    await tx.execute(
        INSERT_MILESTONE_ESCROW,
        escrow.id,
        escrow.status,
        escrow.seq,
        escrow.creator_id,
        escrow.title,
        escrow.description,
        escrow.currency,
        escrow.amount_minor,
        escrow.created_at,
        escrow.release_mode,
        escrow.engagement_id,
        escrow.platform_fee_bps,
        escrow.protocol_fee_bps,
        escrow.receiver_memo,
        escrow.resolver_deadline_days,
        *_columns_of_roles(escrow),
        [one.description for one in escrow.milestones],
        [one.status for one in escrow.milestones],
        [one.amount_minor for one in escrow.milestones],
    )


# The claim: relies on the lock, and on `seq` again, should a caller forget it.
MOVE_MILESTONE_ESCROW = """
UPDATE escrow SET
    status = $4, seq = $5, frozen = $6, funded_minor = $7, held_minor = $8, released_minor = $9,
    refunded_minor = $10, fees_minor = $11, updated_at = $12
WHERE id = $1 AND status = $2 AND seq = $3
"""
SAVE_TERMS = """
WITH common AS (
    UPDATE escrow SET title = $2, description = $3, currency = $4, ledger_currency = $4,
                      amount_minor = $5, amount_ledger_minor = $5
    WHERE id = $1
)
UPDATE milestone_escrow SET engagement_id = $6, platform_fee_bps = $7, receiver_memo = $8,
                            resolver_deadline_days = $9, version = $10
WHERE escrow_id = $1
"""
DROP_ROLES = """
DELETE FROM escrow_role
WHERE escrow_id = $1
  AND (role, position) NOT IN (SELECT * FROM unnest($2::text[], $3::smallint[]))
"""
SAVE_ROLES = """
INSERT INTO escrow_role (escrow_id, role, position, email, user_id)
SELECT $1, r.role, r.position, r.email, r.user_id
FROM unnest($2::text[], $3::smallint[], $4::text[], $5::text[])
    AS r (role, position, email, user_id)
ON CONFLICT (escrow_id, role, position)
DO UPDATE SET email = excluded.email, user_id = excluded.user_id
"""
DROP_MILESTONES = "DELETE FROM milestone WHERE escrow_id = $1 AND position >= $2"
SAVE_MILESTONES = """
INSERT INTO milestone (escrow_id, position, description, status, evidence, amount_minor, approved,
                       disputed, released, resolved, dispute_reason, disputed_at)
SELECT $1, m.* FROM unnest(
    $2::smallint[], $3::text[], $4::text[], $5::text[], $6::bigint[], $7::boolean[], $8::boolean[],
    $9::boolean[], $10::boolean[], $11::text[], $12::timestamptz[]) AS m
ON CONFLICT (escrow_id, position) DO UPDATE SET
    description = excluded.description, status = excluded.status, evidence = excluded.evidence,
    amount_minor = excluded.amount_minor, approved = excluded.approved,
    disputed = excluded.disputed, released = excluded.released, resolved = excluded.resolved,
    dispute_reason = excluded.dispute_reason, disputed_at = excluded.disputed_at
"""
SAVE_FUNDINGS = """
INSERT INTO milestone_funding (escrow_id, user_id, n, amount_minor)
SELECT $1, f.user_id, f.n, f.amount_minor
FROM unnest($2::text[], $3::integer[], $4::bigint[]) AS f (user_id, n, amount_minor)
ON CONFLICT (escrow_id, user_id) DO UPDATE SET amount_minor = excluded.amount_minor
"""


async def move_milestone_escrow(tx: Transaction, taken: Done) -> None:
    """From the standing before to the one after the step: the claim, then what else has changed."""
    before, after = taken.before, taken.after
    status = await tx.execute(
        MOVE_MILESTONE_ESCROW,
        after.id,
        before.status,
        before.seq,
        after.status,
        after.seq,
        after.frozen,
        after.funded_minor,
        after.held_minor,
        after.released_minor,
        after.refunded_minor,
        after.fees_minor,
        after.updated_at,
    )
    if status != "UPDATE 1":
        raise AssertionError(f"{status} of escrow {after.id}: moved without its lock")
    if before.version != after.version:
        await _save_terms(tx, after)
    if _columns_of_roles(before) != _columns_of_roles(after):
        await _save_roles(tx, after)
    if before.milestones != after.milestones:
        await _save_milestones(tx, before, after)
    if before.fundings != after.fundings:
        await _save_fundings(tx, before, after)


async def _save_terms(tx: Transaction, after: MilestoneEscrow) -> None:
    await tx.execute(
        SAVE_TERMS,
        after.id,
        after.title,
        after.description,
        after.currency,
        after.amount_minor,
        after.engagement_id,
        after.platform_fee_bps,
        after.receiver_memo,
        after.resolver_deadline_days,
        after.version,
    )


async def _save_roles(tx: Transaction, after: MilestoneEscrow) -> None:
    roles, positions, emails, users = _columns_of_roles(after)
    await tx.execute(DROP_ROLES, after.id, roles, positions)
    await tx.execute(SAVE_ROLES, after.id, roles, positions, emails, users)


async def _save_milestones(
    tx: Transaction, before: MilestoneEscrow, after: MilestoneEscrow
) -> None:
    if len(after.milestones) < len(before.milestones):
        await tx.execute(DROP_MILESTONES, after.id, len(after.milestones))
    old = dict(enumerate(before.milestones))
    new = [(n, one) for n, one in enumerate(after.milestones) if old.get(n) != one]
    if not new:
        return
    await tx.execute(
        SAVE_MILESTONES,
        after.id,
        [n for n, _ in new],
        [one.description for _, one in new],
        [one.status for _, one in new],
        [one.evidence for _, one in new],
        [one.amount_minor for _, one in new],
        [one.approved for _, one in new],
        [one.disputed for _, one in new],
        [one.released for _, one in new],
        [one.resolved for _, one in new],
        [one.dispute_reason for _, one in new],
        [one.disputed_at for _, one in new],
    )


async def _save_fundings(tx: Transaction, before: MilestoneEscrow, after: MilestoneEscrow) -> None:
    new = [(n, one) for n, one in enumerate(after.fundings, 1) if one not in before.fundings]
    await tx.execute(
        SAVE_FUNDINGS,
        after.id,
        [one.user_id for _, one in new],
        [n for n, _ in new],
        [one.amount_minor for _, one in new],
    )


Columns = tuple[list[str], list[int], list[str], list[str | None]]


def _columns_of_roles(escrow: MilestoneEscrow) -> Columns:
    """Role, position, e-mail and user of everybody who is named."""
    rows = [(role.value, ESCROWS_OWN, holder) for role, holder in escrow.roles.items()]
    rows += [
        (Role.MILESTONE_RECEIVER.value, position, one.receiver)
        for position, one in enumerate(escrow.milestones)
        if one.receiver is not None
    ]
    rows.sort(key=lambda row: row[:2])
    return (
        [role for role, _, _ in rows],
        [position for _, position, _ in rows],
        [holder.email for _, _, holder in rows],
        [holder.user_id for _, _, holder in rows],
    )


# The resolver's deadline of one milestone ('' of the whole). Relies on the escrow's lock.
STOP_RESOLVER = """
UPDATE deadline SET cancelled_at = $3
WHERE escrow_id = $1 AND kind = 'resolver' AND subject = $2
  AND fired_at IS NULL AND cancelled_at IS NULL
"""


async def stop_resolver(tx: Transaction, escrow_id: str, subject: str) -> None:
    """The resolver has spoken: their deadline no longer runs."""
    await tx.execute(STOP_RESOLVER, escrow_id, subject, tx.now)


# Locks the wallet, after the escrow: the balance cannot sink before this transaction ends.
READ_PAYER = """
SELECT u.email, coalesce((
    SELECT a.balance_minor FROM account a
    WHERE a.kind = 'available' AND a.owner = u.id AND a.currency = $2 FOR NO KEY UPDATE), 0)
FROM app_user u WHERE u.id = $1
"""


async def lock_payer(tx: Transaction, user_id: str, currency: str) -> tuple[Holder, int]:
    """The user as a payer, and what they can spend in this currency; their wallet is locked."""
    row = await tx.fetchrow(READ_PAYER, user_id, currency)
    if row is None:
        raise AssertionError(f"the acting user {user_id} is gone")
    return Holder(row[0], user_id), row[1]


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
ORDERS = (CREATED_AT, UPDATED_AT, AMOUNT)


@dataclass(frozen=True, slots=True)
class MilestoneScope:
    """What a list shows: what the developer has created or its user holds a role in, sifted.

    Somebody's e-mail is the one that was named, or their own. `title` stands anywhere in the
    title; amounts are in major units of whatever currency;
    `created_from` is included, `created_before` is not. `after` is the (key, id) of the last one
    that was shown.
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


# Newest first is by id, which is time-ordered: each arm walks its own index and stops at what is
# shown. The outer array keeps the view's subqueries away from all but what is shown.
LIST_NEWEST = """
SELECT r.*, 0::numeric AS sort_key FROM milestone_reading r WHERE r.id = ANY (ARRAY(
    (SELECT e.id::text FROM escrow e
     JOIN milestone_escrow m ON m.escrow_id = e.id JOIN currency c ON c.code = e.currency
     WHERE e.creator_id = ANY (ARRAY[$1::text]) AND e.id < $14::text
       AND ($3::text IS NULL OR m.engagement_id = $3)
       AND ($4::text IS NULL OR lower(e.title) LIKE lower($4))
       AND ($5::text IS NULL OR e.status = $5)
       AND ($6::text IS NULL OR m.release_mode = $6)
       AND ($7::text IS NULL OR EXISTS (SELECT FROM escrow_role r
            WHERE r.escrow_id = e.id AND r.role = $7 AND (r.email = $8
              OR r.user_id = (SELECT u.id FROM app_user u WHERE u.email = $8))))
       AND ($9::text IS NULL OR EXISTS (SELECT FROM escrow_role r
            WHERE r.escrow_id = e.id AND (r.email = $9
              OR r.user_id = (SELECT u.id FROM app_user u WHERE u.email = $9))))
       AND ($10::timestamptz IS NULL OR e.created_at >= $10)
       AND ($11::timestamptz IS NULL OR e.created_at < $11)
       AND ($12::numeric IS NULL OR e.amount_minor >= $12 * 10 ^ c.exponent)
       AND ($13::numeric IS NULL OR e.amount_minor <= $13 * 10 ^ c.exponent)
     ORDER BY e.creator_id, e.id DESC LIMIT $15)
    UNION
    (SELECT DISTINCT ON (h.user_id, h.escrow_id) e.id::text FROM escrow_role h
     JOIN escrow e ON e.id = h.escrow_id
     JOIN milestone_escrow m ON m.escrow_id = e.id JOIN currency c ON c.code = e.currency
     WHERE h.user_id = ANY (ARRAY[$2::text]) AND h.escrow_id < $14::text
       AND ($3::text IS NULL OR m.engagement_id = $3)
       AND ($4::text IS NULL OR lower(e.title) LIKE lower($4))
       AND ($5::text IS NULL OR e.status = $5)
       AND ($6::text IS NULL OR m.release_mode = $6)
       AND ($7::text IS NULL OR EXISTS (SELECT FROM escrow_role r
            WHERE r.escrow_id = e.id AND r.role = $7 AND (r.email = $8
              OR r.user_id = (SELECT u.id FROM app_user u WHERE u.email = $8))))
       AND ($9::text IS NULL OR EXISTS (SELECT FROM escrow_role r
            WHERE r.escrow_id = e.id AND (r.email = $9
              OR r.user_id = (SELECT u.id FROM app_user u WHERE u.email = $9))))
       AND ($10::timestamptz IS NULL OR e.created_at >= $10)
       AND ($11::timestamptz IS NULL OR e.created_at < $11)
       AND ($12::numeric IS NULL OR e.amount_minor >= $12 * 10 ^ c.exponent)
       AND ($13::numeric IS NULL OR e.amount_minor <= $13 * 10 ^ c.exponent)
     ORDER BY h.user_id, h.escrow_id DESC LIMIT $15)
    ORDER BY 1 DESC LIMIT $15))
ORDER BY r.id DESC
"""
# By another order every escrow of the caller's is looked at. $14: createdAt, updatedAt or amount;
# $15: 1, or -1 for descending; $16, $17: the key and the id after which it goes on.
LIST_ORDERED = """
WITH own AS (
    SELECT e.id::text AS id, round($15::numeric * CASE $14::text
        WHEN 'createdAt' THEN extract(epoch FROM e.created_at) * 1000000
        WHEN 'updatedAt' THEN extract(epoch FROM e.updated_at) * 1000000
        ELSE e.amount_minor::numeric * 10 ^ (8 - c.exponent) END) AS sort_key
    FROM escrow e
    JOIN milestone_escrow m ON m.escrow_id = e.id JOIN currency c ON c.code = e.currency
    WHERE (e.creator_id = $1 OR EXISTS (
            SELECT FROM escrow_role h WHERE h.escrow_id = e.id AND h.user_id = $2))
       AND ($3::text IS NULL OR m.engagement_id = $3)
       AND ($4::text IS NULL OR lower(e.title) LIKE lower($4))
       AND ($5::text IS NULL OR e.status = $5)
       AND ($6::text IS NULL OR m.release_mode = $6)
       AND ($7::text IS NULL OR EXISTS (SELECT FROM escrow_role r
            WHERE r.escrow_id = e.id AND r.role = $7 AND (r.email = $8
              OR r.user_id = (SELECT u.id FROM app_user u WHERE u.email = $8))))
       AND ($9::text IS NULL OR EXISTS (SELECT FROM escrow_role r
            WHERE r.escrow_id = e.id AND (r.email = $9
              OR r.user_id = (SELECT u.id FROM app_user u WHERE u.email = $9))))
       AND ($10::timestamptz IS NULL OR e.created_at >= $10)
       AND ($11::timestamptz IS NULL OR e.created_at < $11)
       AND ($12::numeric IS NULL OR e.amount_minor >= $12 * 10 ^ c.exponent)
       AND ($13::numeric IS NULL OR e.amount_minor <= $13 * 10 ^ c.exponent)
), shown AS (
    SELECT id, sort_key FROM own
    WHERE $16::numeric IS NULL OR sort_key > $16 OR sort_key = $16 AND id < $17::text
    ORDER BY sort_key, id DESC LIMIT $18
)
SELECT r.*, s.sort_key FROM shown s JOIN milestone_reading r ON r.id = s.id
ORDER BY s.sort_key, r.id DESC
"""
BEYOND_IDS = "g"


async def list_milestone_escrows(
    reader: Reader, scope: MilestoneScope, limit: int
) -> list[tuple[MilestoneEscrow, Decimal]]:
    """At most `limit` escrows of the scope in its order, each with the key that it is sorted by."""
    sieve = (
        scope.developer_id,
        scope.user_id,
        scope.engagement_id,
        None if scope.title is None else anywhere(scope.title),
        scope.status,
        scope.release_mode,
        None if scope.role is None else scope.role.value,
        scope.role_email,
        scope.participant,
        scope.created_from,
        scope.created_before,
        scope.min_amount,
        scope.max_amount,
    )
    key, after_id = scope.after or (None, None)
    if scope.order_by == CREATED_AT and scope.descending:
        rows = await reader.fetch(LIST_NEWEST, *sieve, after_id or BEYOND_IDS, limit)
    else:
        sign = Decimal(-1 if scope.descending else 1)
        rows = await reader.fetch(LIST_ORDERED, *sieve, scope.order_by, sign, key, after_id, limit)
    return [(as_milestone_escrow(row), row["sort_key"]) for row in rows]


# ---- The event log ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class LoggedEvent:
    """One event of an escrow with its webhook's exact bytes, where they are still kept."""

    seq: int
    id: str
    type: str
    at: datetime
    actor_kind: str
    body: bytes | None


READ_EVENTS = """
SELECT v.seq, v.id::text AS id, v.type, v.at, v.actor_kind, b.body
FROM event v LEFT JOIN webhook_body b ON b.event_id = v.id AND b.recorded_at = v.recorded_at
WHERE v.subject_id = $1 AND v.seq > $2 AND v.type IS NOT NULL
ORDER BY v.seq LIMIT $3
"""


async def read_events(
    reader: Reader, escrow_id: str, after_seq: int, limit: int
) -> list[LoggedEvent]:
    """The next `limit` events of this escrow after that seq, oldest first."""
    rows = await reader.fetch(READ_EVENTS, escrow_id, after_seq, limit)
    return [LoggedEvent(**dict(row)) for row in rows]


# ---- A row as the rules want it -----------------------------------------------------------------


def as_milestone_escrow(row: Row) -> MilestoneEscrow:
    """The rules' escrow from a row of `milestone_reading`."""
    named = json.loads(row["roles"])
    own = {n: Holder(email, user) for _, n, email, user in named if n != ESCROWS_OWN}
    return MilestoneEscrow(
        id=row["id"],
        release_mode=row["release_mode"],
        status=row["status"],
        creator_id=row["creator_id"],
        creator_company=row["creator_company"],
        engagement_id=row["engagement_id"],
        title=row["title"],
        description=row["description"] or "",
        currency=row["currency"],
        amount_minor=row["amount_minor"],
        platform_fee_bps=row["platform_fee_bps"],
        protocol_fee_bps=row["protocol_fee_bps"],
        receiver_memo=row["receiver_memo"],
        resolver_deadline_days=row["resolver_deadline_days"],
        version=row["version"],
        roles={
            Role(role): Holder(email, user) for role, n, email, user in named if n == ESCROWS_OWN
        },
        milestones=tuple(
            _milestone(told, own.get(n)) for n, told in enumerate(json.loads(row["milestones"]))
        ),
        fundings=tuple(Funding(*told) for told in json.loads(row["fundings"] or "[]")),
        seq=row["seq"],
        frozen=row["frozen"],
        funded_minor=row["funded_minor"],
        held_minor=row["held_minor"],
        released_minor=row["released_minor"],
        refunded_minor=row["refunded_minor"],
        fees_minor=row["fees_minor"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
    )


def _milestone(told: list[Any], receiver: Holder | None) -> Milestone:
    description, status, evidence, amount, *flags, reason, at = told
    approved, disputed, released, resolved = flags
    return Milestone(
        description,
        status,
        evidence,
        amount,
        receiver,
        approved=approved,
        disputed=disputed,
        released=released,
        resolved=resolved,
        dispute_reason=reason,
        disputed_at=None if at is None else datetime.fromisoformat(at),
    )
