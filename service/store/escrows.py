"""Escrows: read, locked, inserted, moved."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from service.rules.escrow import Contract, Escrow, Taken
from service.store.db import Reader, Row, Transaction
from service.store.users import as_person


@dataclass(frozen=True, slots=True)
class Locked:
    """An escrow under this transaction's lock; `due` names a deadline that is due, if any."""

    escrow: Escrow
    read_at: datetime
    due: int | None


# Locks the rows in id order (see lock_escrows in schema.sql); relies on READ COMMITTED.
LOCK_ESCROWS = "SELECT (reading).*, read_at, due_deadline FROM lock_escrows($1::text[], $2, $3)"


async def lock_escrows(
    tx: Transaction, ids: Sequence[str], *, skip_locked: bool = False
) -> list[Locked]:
    """Those of the escrows that exist (and are free, with `skip_locked`), in id order.

    The transaction's `now` becomes the moment after the wait, unless its clock is held.
    """
    rows = await tx.fetch(LOCK_ESCROWS, list(ids), skip_locked, tx.held_clock)
    if rows:
        tx.now = rows[0]["read_at"]
    return [Locked(as_escrow(row), row["read_at"], row["due_deadline"]) for row in rows]


READ_ESCROW = "SELECT * FROM escrow_reading WHERE id = $1"


async def read_escrow(reader: Reader, escrow_id: str) -> Escrow | None:
    """The escrow, or None when there is none of this id."""
    row = await reader.fetchrow(READ_ESCROW, escrow_id)
    return as_escrow(row) if row else None


INSERT_ESCROWS = """
INSERT INTO escrow (
    id, mode, status, seq, creator_id, seller_id, seller_email, buyer_id, buyer_email, title,
    language, currency, ledger_currency, amount_minor, fx_rate, amount_ledger_minor,
    escrow_fee_minor, developer_fee_bps, developer_fee_minor, developer_fee_user_id,
    estimated_delivery_days, auto_complete, fulfillment_policy, expires_at, created_at, updated_at)
SELECT id, mode, status, seq, creator_id, seller_id, seller_email, buyer_id, buyer_email, title,
       language, currency, ledger_currency, amount_minor, fx_rate, amount_ledger_minor,
       escrow_fee_minor, developer_fee_bps, developer_fee_minor, developer_fee_user_id,
       estimated_delivery_days, auto_complete, fulfillment_policy::jsonb, expires_at, created_at,
       created_at
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::text[],
    $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::bigint[],
    $15::numeric[], $16::bigint[], $17::bigint[], $18::integer[], $19::bigint[], $20::text[],
    $21::integer[], $22::text[], $23::text[], $24::timestamptz[], $25::timestamptz[]
) AS given (
    id, mode, status, seq, creator_id, seller_id, seller_email, buyer_id, buyer_email, title,
    language, currency, ledger_currency, amount_minor, fx_rate, amount_ledger_minor,
    escrow_fee_minor, developer_fee_bps, developer_fee_minor, developer_fee_user_id,
    estimated_delivery_days, auto_complete, fulfillment_policy, expires_at, created_at)
"""


async def insert_escrows(tx: Transaction, escrows: Sequence[Escrow]) -> None:
    """New escrows, pending and unfunded."""
    if not escrows:
        return
    policies = [escrow.fulfillment_policy for escrow in escrows]
    await tx.execute(
        INSERT_ESCROWS,
        [escrow.id for escrow in escrows],
        [escrow.mode for escrow in escrows],
        [escrow.status for escrow in escrows],
        [escrow.seq for escrow in escrows],
        [escrow.creator_id for escrow in escrows],
        [escrow.seller_id for escrow in escrows],
        [escrow.seller_email for escrow in escrows],
        [escrow.buyer_id for escrow in escrows],
        [escrow.buyer_email for escrow in escrows],
        [escrow.title for escrow in escrows],
        [escrow.language for escrow in escrows],
        [escrow.currency for escrow in escrows],
        [escrow.ledger_currency for escrow in escrows],
        [escrow.amount_minor for escrow in escrows],
        [escrow.fx_rate for escrow in escrows],
        [escrow.amount_ledger_minor for escrow in escrows],
        [escrow.escrow_fee_minor for escrow in escrows],
        [escrow.developer_fee_bps for escrow in escrows],
        [escrow.developer_fee_minor for escrow in escrows],
        [escrow.developer_fee_user_id for escrow in escrows],
        [escrow.estimated_delivery_days for escrow in escrows],
        [escrow.auto_complete for escrow in escrows],
        [None if policy is None else json.dumps(policy) for policy in policies],
        [escrow.expires_at for escrow in escrows],
        [escrow.created_at for escrow in escrows],
    )


INSERT_CONTRACTS = """
INSERT INTO contract (id, escrow_id, terms, created_at, updated_at)
SELECT id, escrow_id, terms, $4, $4
FROM unnest($1::text[], $2::text[], $3::text[]) AS given (id, escrow_id, terms)
"""


async def insert_contracts(tx: Transaction, escrows: Sequence[Escrow]) -> None:
    """The contracts of those that have one (standard escrows), unsigned."""
    given = [(one.contract.id, one.id, one.contract.terms) for one in escrows if one.contract]
    if given:
        ids, escrow_ids, terms = zip(*given, strict=True)
        await tx.execute(INSERT_CONTRACTS, ids, escrow_ids, terms, tx.now)


# The claim: relies on the lock of LOCK_ESCROWS, and on `seq` again, should a caller forget it.
MOVE_ESCROWS = """
UPDATE escrow e SET
    status = m.status, seq = m.seq, frozen = m.frozen, seller_id = m.seller_id,
    buyer_id = m.buyer_id, funded_minor = m.funded, held_minor = m.held,
    released_minor = m.released, refunded_minor = m.refunded, fees_minor = m.fees,
    cancel_reason = m.cancel_reason, paid_at = m.paid_at, delivered_at = m.delivered_at,
    completed_at = m.completed_at, cancelled_at = m.cancelled_at, updated_at = m.updated_at
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::boolean[], $7::text[],
    $8::text[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[],
    $14::text[], $15::timestamptz[], $16::timestamptz[], $17::timestamptz[], $18::timestamptz[],
    $19::timestamptz[]
) AS m (id, was, status, seq_was, seq, frozen, seller_id, buyer_id, funded, held, released,
        refunded, fees, cancel_reason, paid_at, delivered_at, completed_at, cancelled_at,
        updated_at)
WHERE e.id = m.id AND e.status = m.was AND e.seq = m.seq_was
"""


async def move_escrows(tx: Transaction, taken: Sequence[Taken]) -> None:
    """Every escrow from the state before to the one after its step; all of them or an error."""
    before = [step.before for step in taken]
    after = [step.after for step in taken]
    status = await tx.execute(
        MOVE_ESCROWS,
        [e.id for e in after],
        [e.status for e in before],
        [e.status for e in after],
        [e.seq for e in before],
        [e.seq for e in after],
        [e.frozen for e in after],
        [e.seller_id for e in after],
        [e.buyer_id for e in after],
        [e.funded_minor for e in after],
        [e.held_minor for e in after],
        [e.released_minor for e in after],
        [e.refunded_minor for e in after],
        [e.fees_minor for e in after],
        [e.cancel_reason for e in after],
        [e.paid_at for e in after],
        [e.delivered_at for e in after],
        [e.completed_at for e in after],
        [e.cancelled_at for e in after],
        [e.updated_at for e in after],
    )
    if status != f"UPDATE {len(taken)}":
        raise AssertionError(f"{status} of {len(taken)} escrows: moved without their lock")


READ_WAITING_FOR = """
SELECT id FROM escrow
WHERE (seller_email = $1 AND seller_id IS NULL OR buyer_email = $1 AND buyer_id IS NULL)
  AND status NOT IN ('completed', 'cancelled')
ORDER BY id
"""


async def read_waiting_for(reader: Reader, email: str) -> list[str]:
    """The ids of the escrows in which this e-mail is a party that has not registered."""
    return [row["id"] for row in await reader.fetch(READ_WAITING_FOR, email)]


# Narrowed by `seller`, `buyer`, `creator` ($1..$3, each an id or NULL for "not by this"). Newest
# first by id, which is time-ordered: each arm walks its own index and stops at what is shown.
LIST_ESCROWS = """
SELECT r.* FROM (
    (SELECT id FROM escrow WHERE seller_id = $1 AND mode <> 'milestone'
       AND ($4::text IS NULL OR status = $4) AND ($5::text IS NULL OR id < $5)
     ORDER BY id DESC LIMIT $6::int + $7::int)
    UNION
    (SELECT id FROM escrow WHERE buyer_id = $2 AND mode <> 'milestone'
       AND ($4::text IS NULL OR status = $4) AND ($5::text IS NULL OR id < $5)
     ORDER BY id DESC LIMIT $6::int + $7::int)
    UNION
    (SELECT id FROM escrow WHERE creator_id = $3 AND mode <> 'milestone'
       AND ($4::text IS NULL OR status = $4) AND ($5::text IS NULL OR id < $5)
     ORDER BY id DESC LIMIT $6::int + $7::int)
    ORDER BY id DESC LIMIT $6 OFFSET $7
) AS shown JOIN escrow_reading r ON r.id = shown.id
ORDER BY r.id DESC
"""
COUNT_ESCROWS = """
SELECT count(*) FROM escrow
WHERE (seller_id = $1 OR buyer_id = $2 OR creator_id = $3)
  AND mode <> 'milestone' AND ($4::text IS NULL OR status = $4)
"""


@dataclass(frozen=True, slots=True)
class Scope:
    """Whose escrows a list shows: those of a seller, a buyer, a creator; None is "not by this"."""

    seller_id: str | None
    buyer_id: str | None
    creator_id: str | None
    status: str | None = None


async def list_escrows(
    reader: Reader, scope: Scope, *, before: str | None, limit: int, offset: int
) -> list[Escrow]:
    """At most `limit` escrows of the scope, newest first, after `before` or `offset`."""
    rows = await reader.fetch(
        LIST_ESCROWS,
        scope.seller_id,
        scope.buyer_id,
        scope.creator_id,
        scope.status,
        before,
        limit,
        offset,
    )
    return [as_escrow(row) for row in rows]


async def count_escrows(reader: Reader, scope: Scope) -> int:
    """How many escrows the scope has."""
    count: int = await reader.fetchval(
        COUNT_ESCROWS, scope.seller_id, scope.buyer_id, scope.creator_id, scope.status
    )
    return count


def as_escrow(row: Row) -> Escrow:
    """The rules' escrow from a row of `escrow_reading`."""
    policy = row["fulfillment_policy"]
    return Escrow(
        id=row["id"],
        mode=row["mode"],
        status=row["status"],
        creator_id=row["creator_id"],
        seller_email=row["seller_email"],
        buyer_email=row["buyer_email"],
        title=row["title"],
        currency=row["currency"],
        ledger_currency=row["ledger_currency"],
        amount_minor=row["amount_minor"],
        fx_rate=row["fx_rate"],
        amount_ledger_minor=row["amount_ledger_minor"],
        escrow_fee_minor=row["escrow_fee_minor"],
        estimated_delivery_days=row["estimated_delivery_days"],
        created_at=row["created_at"],
        updated_at=row["updated_at"],
        seller=as_person(row, "seller"),
        buyer=as_person(row, "buyer"),
        seq=row["seq"],
        frozen=row["frozen"],
        description=row["description"],
        language=row["language"],
        developer_fee_bps=row["developer_fee_bps"],
        developer_fee_minor=row["developer_fee_minor"],
        developer_fee_user_id=row["developer_fee_user_id"],
        auto_complete=row["auto_complete"],
        fulfillment_policy=json.loads(policy) if policy is not None else None,
        funded_minor=row["funded_minor"],
        held_minor=row["held_minor"],
        released_minor=row["released_minor"],
        refunded_minor=row["refunded_minor"],
        fees_minor=row["fees_minor"],
        cancel_reason=row["cancel_reason"],
        expires_at=row["expires_at"],
        paid_at=row["paid_at"],
        delivered_at=row["delivered_at"],
        completed_at=row["completed_at"],
        cancelled_at=row["cancelled_at"],
        completion_deadline=row["completion_deadline"],
        contract=_contract(row),
        creator_company=row["creator_company"],
    )


def _contract(row: Row) -> Contract | None:
    if row["contract_id"] is None:
        return None
    return Contract(
        id=row["contract_id"],
        terms=row["contract_terms"],
        seller_signed_at=row["contract_seller_signed_at"],
        buyer_signed_at=row["contract_buyer_signed_at"],
    )
