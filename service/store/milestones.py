"""Milestone escrows: read, locked in one query, inserted, moved, listed, their balances.

The row in `escrow` is claimed first; what a step has changed beside it follows, and nothing else.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from service.rules.engagement import Funding, Holder, Milestone, MilestoneEscrow
from service.rules.machine import Role
from service.rules.milestone import Done
from service.rules.postings import FUNDING
from service.store.db import Reader, Row, Transaction
from service.store.ledger import lock_wallet

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
# One row, whoever else has paid: the new payer comes after all who paid before.
ADD_FUNDING = """
INSERT INTO milestone_funding (escrow_id, user_id, n, amount_minor)
SELECT $1::text, $2, coalesce(max(f.n), 0) + 1, $3
FROM milestone_funding f WHERE f.escrow_id = $1::text
ON CONFLICT (escrow_id, user_id)
DO UPDATE SET amount_minor = milestone_funding.amount_minor + excluded.amount_minor, is_held = true
"""
# Seldom: when the pool has become empty, and when it is filled again.
MARK_FUNDINGS = """
UPDATE milestone_funding SET is_held = $2 WHERE escrow_id = $1 AND is_held <> $2
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
    for posting in taken.postings:
        if posting.reason == FUNDING:
            await tx.execute(ADD_FUNDING, after.id, posting.source.owner, posting.amount_minor)
    if (before.held_minor > 0) != (after.held_minor > 0):
        await tx.execute(MARK_FUNDINGS, after.id, after.held_minor > 0)


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


# LIMIT NULL is all of them.
READ_FUNDINGS = """
SELECT f.user_id, u.email, f.amount_minor
FROM milestone_funding f JOIN app_user u ON u.id = f.user_id
WHERE f.escrow_id = $1 ORDER BY f.n LIMIT $2
"""


async def read_fundings(reader: Reader, escrow_id: str, most: int | None = None) -> list[Funding]:
    """What each payer has funded, by their first times; `most` of them, or all."""
    rows = await reader.fetch(READ_FUNDINGS, escrow_id, most)
    return [Funding(**dict(row)) for row in rows]


READ_EMAIL = "SELECT email FROM app_user WHERE id = $1"


async def lock_payer(tx: Transaction, user_id: str, currency: str) -> tuple[Holder, int]:
    """The user as a payer, and what they can spend in this currency; their wallet is locked."""
    email: str | None = await tx.fetchval(READ_EMAIL, user_id)
    if email is None:
        raise AssertionError(f"the acting user {user_id} is gone")
    return Holder(email, user_id), await lock_wallet(tx, user_id, currency)


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
