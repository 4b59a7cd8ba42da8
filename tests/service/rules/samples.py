"""An escrow as the rules see it, in any mode and status, with consistent books. No database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from service.rules import proof
from service.rules.aggregate import (
    CancellationRequest,
    Contract,
    Dispute,
    Escrow,
    Person,
    PurchaseProof,
    Rejection,
    Submission,
)
from service.rules.escrow import INSTANT, PROOF, STANDARD
from service.rules.files import PDF, StoredFile
from service.rules.machine import CLOCK, SYSTEM, Actor, ActorKind, Role, Step

PROOF_POLICY = {
    "type": "purchase_proof_required",
    "proofUploadDeadlineHours": 24,
    "buyerReviewDeadlineHours": 12,
}
NOW = datetime(2026, 3, 14, 9, 26, 53, 589793, tzinfo=UTC)
SELLER = Person("5e11e7" + "0" * 18, "seller@example.com", "Sana", "Seller")
BUYER = Person("b0e7" + "0" * 20, "buyer@example.com", "Bilel", "Buyer")
CREATOR_ID = "c7ea" + "0" * 20
STRANGER_ID = "57a9" + "0" * 20

ACTORS: dict[Role, Actor] = {
    Role.SELLER: Actor(ActorKind.USER, user_id=SELLER.id),
    Role.BUYER: Actor(ActorKind.USER, user_id=BUYER.id),
    Role.CREATOR: Actor(ActorKind.DEVELOPER, developer_id=CREATOR_ID),
    Role.OPERATOR: Actor(ActorKind.OPERATOR),
    Role.CLOCK: CLOCK,
    Role.SYSTEM: SYSTEM,
}
"""One actor for each role that an actor can stand in to an escrow that exists."""

STRANGER = Actor(ActorKind.DEVELOPER, developer_id=STRANGER_ID, user_id=STRANGER_ID)


def make_sample(
    mode: str = "instant",
    status: str = "pending",
    *,
    amount: int = 100_000,
    escrow_fee: int = 5_000,
    developer_fee: int = 0,
    **changes: Any,
) -> Escrow:
    """An escrow of `amount` millimes; funded states hold it, final ones have paid it out."""
    created = NOW - timedelta(days=2)
    escrow = Escrow(
        id="e5c7" + "0" * 20,
        mode=mode,
        status=status,
        creator_id=CREATOR_ID,
        seller_email=SELLER.email,
        buyer_email=BUYER.email,
        title="A camera",
        currency="TND",
        ledger_currency="TND",
        amount_minor=amount,
        fx_rate=Decimal(1),
        amount_ledger_minor=amount,
        escrow_fee_minor=escrow_fee,
        estimated_delivery_days=3,
        created_at=created,
        updated_at=created,
        seller=SELLER,
        buyer=BUYER,
        seq=4,
        developer_fee_minor=developer_fee,
        developer_fee_user_id=STRANGER_ID if developer_fee else None,
        fulfillment_policy=PROOF_POLICY if mode == PROOF else None,
        contract=Contract("c0" * 12, "As described.", 1, created, created)
        if mode == STANDARD
        else None,
    )
    return replace(_in_state(escrow, created + timedelta(days=1)), **changes)


def make_dispute(opener: str = "buyer", back_to: str = "delivered", **changes: Any) -> Dispute:
    """An open dispute that the other party has not answered."""
    dispute = Dispute(
        id="d15" + "0" * 21,
        ticket_number=42,
        opener=opener,
        opened_by=SELLER if opener == Role.SELLER else BUYER,
        reason="It is not what was agreed.",
        opened_at=NOW - timedelta(hours=6),
        back_to=back_to,
    )
    return replace(dispute, **changes)


def make_request(**changes: Any) -> CancellationRequest:
    """The buyer's request to cancel, which waits for an answer."""
    request = CancellationRequest("ca4ce1" + "0" * 18, BUYER, NOW - timedelta(hours=3), "Too late.")
    return replace(request, **changes)


def make_proof(phase: str = proof.WAITING, paid_at: datetime = NOW) -> PurchaseProof:
    """A purchase proof in this phase, with the deadlines that the phase has."""
    uploaded_by = paid_at + timedelta(hours=24)
    reviewed = phase in (proof.REVIEW, proof.ACCEPTED, proof.TIMED_OUT, proof.OPERATOR)
    return PurchaseProof(
        phase,
        uploaded_by,
        uploaded_by + timedelta(hours=12) if reviewed else None,
        correction_rounds=1 if phase == proof.CORRECTION else 0,
    )


def make_submission() -> Submission:
    """A receipt that the seller has handed in."""
    file = StoredFile("f1" * 32, PDF, 1_000, "ab" * 32, "receipt.pdf")
    return Submission("5b" * 12, NOW, (file,), "As agreed.")


def unsigned(escrow: Escrow) -> Escrow:
    """With a contract that nobody has signed."""
    assert escrow.contract is not None
    contract = replace(escrow.contract, seller_signed_at=None, buyer_signed_at=None)
    return replace(escrow, contract=contract)


def ripe(name: str, escrow: Escrow, role: Role, target: str | None = None) -> Escrow:
    """The escrow, with nothing but the table in this role's way to this step.

    `target` is where the step is to lead, where it leads to several states.
    """
    if name == "sign_contract" and escrow.contract is not None:
        return unsigned(escrow)
    if name in ("accept_cancellation", "reject_cancellation"):
        return replace(escrow, cancellation=make_request())
    if name == "deliver" and escrow.proof is not None:
        return replace(escrow, proof=replace(escrow.proof, phase=proof.ACCEPTED))
    if name == "withdraw_dispute" and escrow.dispute is not None:
        back_to = target or escrow.dispute.back_to
        return replace(escrow, dispute=make_dispute(_side(role), back_to))
    rows = [row for row in proof.STEPS if row.name == name and role in row.who]
    if rows and escrow.proof is not None and escrow.status == "paid":
        return replace(escrow, proof=make_proof(rows[0].source, escrow.paid_at or NOW))
    return escrow


def brought(row: Step, escrow: Escrow, role: Role) -> Escrow:
    """The escrow with what whoever takes this step brings along."""
    match row.name:
        case "dispute":
            dispute = make_dispute(_side(role), escrow.status, opened_at=NOW)
            return replace(escrow, dispute=dispute)
        case "answer_dispute" if escrow.dispute and escrow.dispute.opener != _side(role):
            return replace(escrow, dispute=replace(escrow.dispute, answered_at=NOW))
        case "submit_proof" if escrow.proof is not None:
            shown = (*escrow.proof.submissions, make_submission())
            return replace(escrow, proof=replace(escrow.proof, submissions=shown))
        case "request_cancellation":
            return replace(escrow, cancellation=make_request(requested_at=NOW))
        case "reject_delivery":
            returned = Rejection(NOW, escrow.delivered_at or NOW, "It is broken.")
            return replace(escrow, rejections=(*escrow.rejections, returned))
        case "sign_contract" if escrow.contract is not None:
            side = {f"{_side(role)}_signed_at": NOW}
            return replace(escrow, contract=replace(escrow.contract, **side))
        case "update":
            return replace(escrow, title="Another camera")
    return escrow


def _side(role: Role) -> str:
    return "seller" if role is Role.SELLER else "buyer"


def _in_state(escrow: Escrow, then: datetime) -> Escrow:
    amount = escrow.amount_ledger_minor
    is_final = escrow.status in ("completed", "cancelled")
    funded = replace(
        escrow,
        paid_at=then,
        funded_minor=amount,
        held_minor=0 if is_final else amount,
        proof=make_proof(proof.ACCEPTED, then) if escrow.mode == PROOF else None,
    )
    match escrow.status:
        case "paid":
            waiting = make_proof(proof.WAITING, then) if escrow.mode == PROOF else None
            return replace(funded, proof=waiting)
        case "delivered":
            return replace(funded, delivered_at=then)
        case "disputed":
            return _disputed(funded, then)
        case "completed":
            fees = escrow.escrow_fee_minor + escrow.developer_fee_minor
            return replace(
                funded,
                delivered_at=then,
                completed_at=then,
                released_minor=amount - fees,
                fees_minor=fees,
            )
        case "cancelled":
            return replace(escrow, cancelled_at=then, cancel_reason="seller")
    return escrow


def _disputed(escrow: Escrow, then: datetime) -> Escrow:
    """An instant escrow has no other state to be disputed in than paid."""
    if escrow.mode == INSTANT:
        return replace(escrow, dispute=make_dispute(back_to="paid"))
    return replace(escrow, delivered_at=then, dispute=make_dispute())
