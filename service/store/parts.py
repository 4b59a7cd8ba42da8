"""What belongs to an escrow and has rows of its own; written where a step has changed it.

Every statement relies on the escrow's lock.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from service.rules.aggregate import Escrow
from service.rules.escrow import Taken
from service.store.db import Reader, Transaction

AMEND_ESCROW = """
UPDATE escrow SET title = $2, description = $3, estimated_delivery_days = $4, amount_minor = $5,
    fx_rate = $6, amount_ledger_minor = $7, escrow_fee_minor = $8, developer_fee_minor = $9
WHERE id = $1
"""
UPDATE_CONTRACT = """
UPDATE contract SET terms = $2, version = $3, updated_at = $4
WHERE id = $1 AND (terms, version) IS DISTINCT FROM ($2, $3)
"""
INSERT_REJECTION = """
INSERT INTO delivery_rejection (escrow_id, n, reason, rejected_at, previous_delivered_at)
VALUES ($1, $2, $3, $4, $5)
"""
WRITE_CANCELLATION = """
INSERT INTO cancellation_request (id, escrow_id, requested_by, reason, status, requested_at,
                                  answered_at, answered_by)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8)
ON CONFLICT (id) DO UPDATE SET status = excluded.status, answered_at = excluded.answered_at,
                               answered_by = excluded.answered_by
"""
WRITE_DISPUTE = """
INSERT INTO dispute (id, escrow_id, ticket_number, opener, opened_by, reason, opened_at, back_to,
                     answered_at, resolved_at, outcome, resolved_by, seller_minor, buyer_minor,
                     escrow_fee_minor, developer_fee_minor, seller_net_minor)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17)
ON CONFLICT (id) DO UPDATE SET
    answered_at = excluded.answered_at, resolved_at = excluded.resolved_at,
    outcome = excluded.outcome, resolved_by = excluded.resolved_by,
    seller_minor = excluded.seller_minor, buyer_minor = excluded.buyer_minor,
    escrow_fee_minor = excluded.escrow_fee_minor,
    developer_fee_minor = excluded.developer_fee_minor,
    seller_net_minor = excluded.seller_net_minor
"""
WRITE_PROOF = """
INSERT INTO purchase_proof (escrow_id, phase, correction_rounds, upload_deadline, review_deadline)
VALUES ($1, $2, $3, $4, $5)
ON CONFLICT (escrow_id) DO UPDATE SET
    phase = excluded.phase, correction_rounds = excluded.correction_rounds,
    upload_deadline = excluded.upload_deadline, review_deadline = excluded.review_deadline
"""
INSERT_SUBMISSION = """
INSERT INTO proof_submission (id, escrow_id, n, note, submitted_at) VALUES ($1, $2, $3, $4, $5)
"""
INSERT_ATTACHMENTS = """
INSERT INTO proof_attachment (submission_id, position, file_key)
SELECT $1, f.position, f.key FROM unnest($2::text[]) WITH ORDINALITY AS f (key, position)
"""
NOTE_CORRECTION = "UPDATE proof_submission SET correction = $2 WHERE id = $1"


async def write_parts(tx: Transaction, taken: Sequence[Taken]) -> None:
    """Whatever of an escrow beside its state is another after the step than before it."""
    for one in taken:
        before, after = one.before, one.after
        if terms_of(before) != terms_of(after):
            await _amend(tx, after)
        if after.contract != before.contract and after.contract is not None:
            contract = after.contract
            await tx.execute(UPDATE_CONTRACT, contract.id, contract.terms, contract.version, tx.now)
        for n, rejection in enumerate(after.rejections[len(before.rejections) :]):
            await tx.execute(
                INSERT_REJECTION,
                after.id,
                len(before.rejections) + n + 1,
                rejection.reason,
                rejection.rejected_at,
                rejection.previous_delivered_at,
            )
        if after.cancellation != before.cancellation:
            await _write_cancellation(tx, after)
        if after.dispute != before.dispute:
            await _write_dispute(tx, after)
        if after.proof != before.proof:
            await _write_proof(tx, before, after)


def terms_of(escrow: Escrow) -> tuple[object, ...]:
    """What an update may change of the row itself."""
    return (
        escrow.title,
        escrow.description,
        escrow.estimated_delivery_days,
        escrow.amount_minor,
        escrow.fx_rate,
        escrow.amount_ledger_minor,
        escrow.escrow_fee_minor,
        escrow.developer_fee_minor,
    )


async def _amend(tx: Transaction, escrow: Escrow) -> None:
    await tx.execute(AMEND_ESCROW, escrow.id, *terms_of(escrow))


async def _write_cancellation(tx: Transaction, escrow: Escrow) -> None:
    request = escrow.cancellation
    if request is not None:
        await tx.execute(
            WRITE_CANCELLATION,
            request.id,
            escrow.id,
            request.requested_by.id,
            request.reason,
            request.status,
            request.requested_at,
            request.answered_at,
            request.answered_by.id if request.answered_by else None,
        )


async def _write_dispute(tx: Transaction, escrow: Escrow) -> None:
    dispute = escrow.dispute
    if dispute is None:
        return
    shared = dispute.settlement
    await tx.execute(
        WRITE_DISPUTE,
        dispute.id,
        escrow.id,
        dispute.ticket_number,
        dispute.opener,
        dispute.opened_by.id,
        dispute.reason,
        dispute.opened_at,
        dispute.back_to,
        dispute.answered_at,
        dispute.resolved_at,
        dispute.outcome,
        shared.resolved_by if shared else None,
        shared.seller_minor if shared else None,
        shared.buyer_minor if shared else None,
        shared.escrow_fee_minor if shared else None,
        shared.developer_fee_minor if shared else None,
        shared.seller_net_minor if shared else None,
    )


async def _write_proof(tx: Transaction, before: Escrow, after: Escrow) -> None:
    proof = after.proof
    if proof is None:
        return
    await tx.execute(
        WRITE_PROOF,
        after.id,
        proof.phase,
        proof.correction_rounds,
        proof.upload_deadline,
        proof.review_deadline,
    )
    had = {one.id: one for one in before.proof.submissions} if before.proof else {}
    for n, given in enumerate(proof.submissions, start=1):
        if given.id not in had:
            await tx.execute(
                INSERT_SUBMISSION, given.id, after.id, n, given.note, given.submitted_at
            )
            await tx.execute(INSERT_ATTACHMENTS, given.id, [file.key for file in given.files])
        elif given.correction != had[given.id].correction:
            await tx.execute(NOTE_CORRECTION, given.id, given.correction)


# Locks the one row until the transaction ends: disputes are few, and none may leave a gap.
NEXT_TICKET = "UPDATE dispute_counter SET last_number = last_number + 1 RETURNING last_number"


async def next_ticket(tx: Transaction) -> int:
    """The number of the next dispute's ticket."""
    number: int = await tx.fetchval(NEXT_TICKET)
    return number


# ---- Contracts -----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Signature:
    """How a party signed: with the stored image, by drawing, or by typing a name.

    `image` is sealed by the vault.
    """

    contract_id: str
    version: int
    role: str
    user_id: str
    email: str
    method: str
    image_id: int | None
    name: str | None
    ip: str | None
    signed_at: datetime


INSERT_IMAGE = "INSERT INTO signature_image (sealed) VALUES ($1) RETURNING id"


async def insert_image(tx: Transaction, sealed: str) -> int:
    """Keep this sealed data URI, to which any number of signatures may refer; its id."""
    image_id: int = await tx.fetchval(INSERT_IMAGE, sealed)
    return image_id


INSERT_SIGNATURES = """
INSERT INTO contract_signature (contract_id, version, role, user_id, email, method, image_id, name,
                                ip, signed_at)
SELECT * FROM unnest($1::text[], $2::integer[], $3::text[], $4::text[], $5::text[], $6::text[],
                     $7::bigint[], $8::text[], $9::text[], $10::timestamptz[])
"""


async def insert_signatures(tx: Transaction, given: Sequence[Signature]) -> None:
    """Keep how each party signed its version."""
    if not given:
        return
    await tx.execute(
        INSERT_SIGNATURES,
        [one.contract_id for one in given],
        [one.version for one in given],
        [one.role for one in given],
        [one.user_id for one in given],
        [one.email for one in given],
        [one.method for one in given],
        [one.image_id for one in given],
        [one.name for one in given],
        [one.ip for one in given],
        [one.signed_at for one in given],
    )


@dataclass(frozen=True, slots=True)
class Paper:
    """A contract's moments, its signatures by role, and the sealed images of those with one."""

    created_at: datetime
    updated_at: datetime
    signatures: dict[str, Signature]
    images: dict[str, str]


READ_PAPER = "SELECT created_at, updated_at FROM contract WHERE id = $1"
READ_SIGNATURES = """
SELECT s.contract_id, s.version, s.role, s.user_id, s.email, s.method, s.image_id, s.name, s.ip,
       s.signed_at, i.sealed
FROM contract_signature s JOIN contract c ON c.id = s.contract_id
LEFT JOIN signature_image i ON i.id = s.image_id
WHERE c.id = $1 AND s.version = c.version
"""


async def read_paper(reader: Reader, contract_id: str) -> Paper | None:
    """The contract with the signatures of its newest version."""
    row = await reader.fetchrow(READ_PAPER, contract_id)
    if row is None:
        return None
    rows = [dict(one) for one in await reader.fetch(READ_SIGNATURES, contract_id)]
    images = {one["role"]: one.pop("sealed") for one in rows}
    return Paper(
        row["created_at"],
        row["updated_at"],
        {one["role"]: Signature(**one) for one in rows},
        {role: sealed for role, sealed in images.items() if sealed is not None},
    )
