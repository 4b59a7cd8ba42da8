"""Escrows: read, locked, inserted, moved."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from service.rules.aggregate import CancellationRequest as Cancellation
from service.rules.aggregate import (
    Contract,
    Deposit,
    Dispute,
    Escrow,
    Person,
    PurchaseProof,
    Rejection,
    Settlement,
    Submission,
)
from service.rules.escrow import MODES, Taken
from service.rules.files import StoredFile
from service.store.db import Reader, Row, Transaction
from service.store.ids import first_id
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


# Of the buyer-seller family; store/milestones.py reads the other.
READ_ESCROW = "SELECT * FROM escrow_reading WHERE id = $1 AND mode <> 'milestone'"


async def read_escrow(reader: Reader, escrow_id: str) -> Escrow | None:
    """The buyer-seller escrow, or None when there is none of this id."""
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
    completed_at = m.completed_at, cancelled_at = m.cancelled_at, updated_at = m.updated_at,
    guest_provider = m.guest_provider
FROM unnest(
    $1::text[], $2::text[], $3::text[], $4::bigint[], $5::bigint[], $6::boolean[], $7::text[],
    $8::text[], $9::bigint[], $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[],
    $14::text[], $15::timestamptz[], $16::timestamptz[], $17::timestamptz[], $18::timestamptz[],
    $19::timestamptz[], $20::text[]
) AS m (id, was, status, seq_was, seq, frozen, seller_id, buyer_id, funded, held, released,
        refunded, fees, cancel_reason, paid_at, delivered_at, completed_at, cancelled_at,
        updated_at, guest_provider)
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
        [e.guest_provider for e in after],
    )
    if status != f"UPDATE {len(taken)}":
        raise AssertionError(f"{status} of {len(taken)} escrows: moved without their lock")


# A role of a milestone escrow waits whatever its status: a remainder may be left to withdraw.
READ_WAITING_FOR = """
SELECT id, mode FROM escrow
WHERE (seller_email = $1 AND seller_id IS NULL OR buyer_email = $1 AND buyer_id IS NULL)
  AND status NOT IN ('completed', 'cancelled')
UNION
SELECT e.id, e.mode FROM escrow_role r JOIN escrow e ON e.id = r.escrow_id
WHERE r.email = $1 AND r.user_id IS NULL
ORDER BY id
"""


async def read_waiting_for(reader: Reader, email: str) -> list[tuple[str, str]]:
    """Id and mode of the escrows in which this e-mail is somebody who has not registered."""
    return [(row["id"], row["mode"]) for row in await reader.fetch(READ_WAITING_FOR, email)]


# By seller, buyer, creator ($1..$3, each an id or NULL for "not by this"). Newest first by id: each
# arm walks its own index and stops at what is shown. It asks for an array of one and orders by it
# first, which means nothing but to the planner: only that index has this order. For a plain "="
# it would take the primary key for a large seller, and pass by everybody else's newer escrows.
# Ids are time-ordered, so that their bounds ($6, $7) hold the cursor and a range of times as well;
# the times themselves ($8, $9) decide. Who came by a link may have another e-mail than the one that
# was invited. The outer array keeps the view's joins away from all but what is shown.
LIST_ESCROWS = """
SELECT * FROM escrow_reading WHERE id = ANY (ARRAY(
    (SELECT e.id::text FROM escrow e
     WHERE e.seller_id = ANY (ARRAY[$1::text]) AND e.mode = ANY ($4::text[])
       AND ($5::text IS NULL OR e.status = $5) AND e.id < $6::text AND e.id >= $7::text
       AND e.created_at >= $8 AND e.created_at < $9 AND ($10::text IS NULL
           OR lower(e.title) LIKE lower($10) OR e.seller_email LIKE lower($10)
           OR e.buyer_email LIKE lower($10) OR EXISTS (SELECT FROM app_user u
               WHERE u.id IN (e.seller_id, e.buyer_id) AND u.email LIKE lower($10)))
     ORDER BY e.seller_id, e.id DESC LIMIT $11::bigint + $12::bigint)
    UNION
    (SELECT e.id::text FROM escrow e
     WHERE e.buyer_id = ANY (ARRAY[$2::text]) AND e.mode = ANY ($4::text[])
       AND ($5::text IS NULL OR e.status = $5) AND e.id < $6::text AND e.id >= $7::text
       AND e.created_at >= $8 AND e.created_at < $9 AND ($10::text IS NULL
           OR lower(e.title) LIKE lower($10) OR e.seller_email LIKE lower($10)
           OR e.buyer_email LIKE lower($10) OR EXISTS (SELECT FROM app_user u
               WHERE u.id IN (e.seller_id, e.buyer_id) AND u.email LIKE lower($10)))
     ORDER BY e.buyer_id, e.id DESC LIMIT $11::bigint + $12::bigint)
    UNION
    (SELECT e.id::text FROM escrow e
     WHERE e.creator_id = ANY (ARRAY[$3::text]) AND e.mode = ANY ($4::text[])
       AND ($5::text IS NULL OR e.status = $5) AND e.id < $6::text AND e.id >= $7::text
       AND e.created_at >= $8 AND e.created_at < $9 AND ($10::text IS NULL
           OR lower(e.title) LIKE lower($10) OR e.seller_email LIKE lower($10)
           OR e.buyer_email LIKE lower($10) OR EXISTS (SELECT FROM app_user u
               WHERE u.id IN (e.seller_id, e.buyer_id) AND u.email LIKE lower($10)))
     ORDER BY e.creator_id, e.id DESC LIMIT $11::bigint + $12::bigint)
    ORDER BY 1 DESC LIMIT $11 OFFSET $12))
ORDER BY id DESC
"""
COUNT_ESCROWS = """
SELECT count(*) FROM escrow e
WHERE (e.seller_id = $1 OR e.buyer_id = $2 OR e.creator_id = $3) AND e.mode = ANY ($4::text[])
  AND ($5::text IS NULL OR e.status = $5) AND e.id < $6::text AND e.id >= $7::text
  AND e.created_at >= $8 AND e.created_at < $9 AND ($10::text IS NULL
      OR lower(e.title) LIKE lower($10) OR e.seller_email LIKE lower($10)
      OR e.buyer_email LIKE lower($10) OR EXISTS (SELECT FROM app_user u
          WHERE u.id IN (e.seller_id, e.buyer_id) AND u.email LIKE lower($10)))
"""

EARLIEST, LATEST = datetime(1, 1, 2, tzinfo=UTC), datetime(9999, 12, 30, tzinfo=UTC)
FIRST_ID, BEYOND_IDS = "", "g"
ID_SLACK = timedelta(milliseconds=2)
"""An id has the milliseconds of its time only, and those rounded: the last may be one too many."""


@dataclass(frozen=True, slots=True)
class Scope:
    """What a list shows: escrows of a seller, a buyer, a creator (None is "not by this"), sifted.

    `created_from` is included, `created_before` is not; both lie well within the years 1 to 9999.
    `text` stands anywhere in the title or in a party's e-mail, in capitals or not.
    """

    seller_id: str | None
    buyer_id: str | None
    creator_id: str | None
    status: str | None = None
    modes: tuple[str, ...] = MODES
    created_from: datetime | None = None
    created_before: datetime | None = None
    text: str | None = None


async def list_escrows(
    reader: Reader, scope: Scope, *, before: str | None, limit: int, offset: int
) -> list[Escrow]:
    """At most `limit` escrows of the scope, newest first, after `before` or `offset`."""
    rows = await reader.fetch(LIST_ESCROWS, *_sieve(scope, before), limit, offset)
    return [as_escrow(row) for row in rows]


async def count_escrows(reader: Reader, scope: Scope) -> int:
    """How many escrows the scope has."""
    count: int = await reader.fetchval(COUNT_ESCROWS, *_sieve(scope, None))
    return count


def _sieve(scope: Scope, before: str | None) -> tuple[object, ...]:
    """$1 to $10 of both statements."""
    start, end = scope.created_from, scope.created_before
    below = BEYOND_IDS if end is None else first_id(end + ID_SLACK)
    return (
        scope.seller_id,
        scope.buyer_id,
        scope.creator_id,
        list(scope.modes),
        scope.status,
        min(before or BEYOND_IDS, below),
        FIRST_ID if start is None else first_id(start),
        start or EARLIEST,
        end or LATEST,
        None if scope.text is None else anywhere(scope.text),
    )


def anywhere(text: str) -> str:
    """The LIKE pattern of whatever holds this text; its own wildcards stand for themselves."""
    for special in ("\\", "%", "_"):
        text = text.replace(special, f"\\{special}")
    return f"%{text}%"


def as_escrow(row: Row) -> Escrow:
    """The rules' escrow from a row of `escrow_reading`."""
    policy = row["fulfillment_policy"]
    seller, buyer = as_person(row, "seller"), as_person(row, "buyer")
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
        seller=seller,
        buyer=buyer,
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
        creator_company=row["creator_company"],
        contract=_contract(row),
        rejections=_rejections(row),
        cancellation=_cancellation(row, seller, buyer),
        dispute=_dispute(row, seller, buyer),
        proof=_proof(row),
        seller_awaits_identity=row["seller_awaits_identity"],
        guest_provider=row["guest_provider"],
        deposit=Deposit(*json.loads(row["deposit"])) if row["deposit"] is not None else None,
    )


def _contract(row: Row) -> Contract | None:
    if row["contract_id"] is None:
        return None
    return Contract(
        id=row["contract_id"],
        terms=row["contract_terms"],
        version=row["contract_version"],
        seller_signed_at=row["contract_seller_signed_at"],
        buyer_signed_at=row["contract_buyer_signed_at"],
    )


def _rejections(row: Row) -> tuple[Rejection, ...]:
    if row["rejections"] is None:
        return ()
    return tuple(
        Rejection(datetime.fromisoformat(at), datetime.fromisoformat(delivered_at), reason)
        for at, delivered_at, reason in json.loads(row["rejections"])
    )


def _cancellation(row: Row, seller: Person | None, buyer: Person | None) -> Cancellation | None:
    """Only the buyer asks, and only the seller answers, or the clock."""
    if row["cancellation_id"] is None:
        return None
    if buyer is None:
        raise AssertionError(f"escrow {row['id']} has a request to cancel and no buyer")
    return Cancellation(
        id=row["cancellation_id"],
        requested_by=buyer,
        requested_at=row["cancellation_at"],
        reason=row["cancellation_reason"],
        status=row["cancellation_status"],
        answered_at=row["cancellation_answered_at"],
        answered_by=seller if row["cancellation_answered_by"] else None,
    )


def _dispute(row: Row, seller: Person | None, buyer: Person | None) -> Dispute | None:
    if row["dispute_id"] is None:
        return None
    opened_by = seller if row["dispute_opener"] == "seller" else buyer
    if opened_by is None:
        raise AssertionError(f"escrow {row['id']} is disputed by nobody")
    return Dispute(
        id=row["dispute_id"],
        ticket_number=row["ticket_number"],
        opener=row["dispute_opener"],
        opened_by=opened_by,
        reason=row["dispute_reason"],
        opened_at=row["dispute_at"],
        back_to=row["dispute_back_to"],
        answered_at=row["dispute_answered_at"],
        resolved_at=row["dispute_resolved_at"],
        outcome=row["dispute_outcome"],
        settlement=_settlement(row),
    )


def _settlement(row: Row) -> Settlement | None:
    if row["dispute_resolved_by"] is None:
        return None
    return Settlement(
        seller_minor=row["seller_minor"],
        buyer_minor=row["buyer_minor"],
        escrow_fee_minor=row["settled_escrow_fee_minor"],
        developer_fee_minor=row["settled_developer_fee_minor"],
        seller_net_minor=row["seller_net_minor"],
        resolved_by=row["dispute_resolved_by"],
    )


def _proof(row: Row) -> PurchaseProof | None:
    if row["proof_phase"] is None:
        return None
    return PurchaseProof(
        phase=row["proof_phase"],
        upload_deadline=row["upload_deadline"],
        review_deadline=row["review_deadline"],
        correction_rounds=row["correction_rounds"],
        submissions=_submissions(row),
    )


def _submissions(row: Row) -> tuple[Submission, ...]:
    if row["submissions"] is None:
        return ()
    return tuple(
        Submission(
            id=submission_id,
            submitted_at=datetime.fromisoformat(at),
            files=tuple(StoredFile(*file) for file in files or ()),
            note=note,
            correction=correction,
        )
        for submission_id, at, note, correction, files in json.loads(row["submissions"])
    )
