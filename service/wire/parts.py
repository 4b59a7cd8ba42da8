"""The parts of an escrow on the wire: rejections, requests, disputes, proofs. escrows.md 3, 7."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal
from typing import Annotated

from pydantic import Field

from service.rules import proof as phases
from service.rules.aggregate import (
    CancellationRequest,
    Dispute,
    Escrow,
    Person,
    PurchaseProof,
    Rejection,
    Settlement,
)
from service.rules.escrow import PAID
from service.rules.money import to_decimal
from service.wire.base import Wire, absent

PREVIEW_CHARACTERS = 140


class Named(Wire):
    """A person without their e-mail."""

    id: Annotated[str, Field(alias="_id")]
    first_name: str
    last_name: str


class DeliveryRejection(Wire):
    """A delivery that the buyer sent back."""

    rejected_at: datetime
    reason: str | None
    previous_delivered_at: datetime


class CancellationAsked(Wire):
    """The buyer's last request to cancel."""

    requested_by: Named
    reason: str | None
    status: str
    requested_at: datetime
    accepted_by: Named | None = absent()
    rejected_by: Named | None = absent()


class Ticket(Wire):
    """A dispute as its ticket."""

    ticket_number: str
    type: str
    subject: str
    status: str
    created_at: datetime
    preview_reason: str


class Settled(Wire):
    """How a dispute's money was shared, in the ledger's currency."""

    seller_amount: Decimal
    buyer_amount: Decimal
    escrow_fee: Decimal
    developer_fee: Decimal
    seller_net: Decimal
    resolved_by: str


class Disputed(Wire):
    """A dispute in its events."""

    ticket_number: str
    opened_by: Named
    reason: str
    status: str
    outcome: str | None = absent()
    settlement: Settled | None = absent()


class CheckoutAction(Wire):
    """A step that the proof waits for, and whose it is."""

    action: str
    target_user_email: str
    description: str


class ProofInfo(Wire):
    """Where a purchase proof stands; no file, and no address of one."""

    phase: str | None
    correction_rounds: int
    upload_deadline: datetime | None
    review_deadline: datetime | None


def named(person: Person) -> Named:
    """The person by name."""
    return Named.model_construct(
        id=person.id, first_name=person.first_name, last_name=person.last_name
    )


def rejections(given: Sequence[Rejection]) -> list[DeliveryRejection]:
    """Every rejected delivery, oldest first."""
    return [
        DeliveryRejection.model_construct(
            rejected_at=one.rejected_at,
            reason=one.reason,
            previous_delivered_at=one.previous_delivered_at,
        )
        for one in given
    ]


def cancellation(request: CancellationRequest | None) -> CancellationAsked | None:
    """The last request to cancel, with who answered it; nobody where the clock did."""
    if request is None:
        return None
    answered_by = named(request.answered_by) if request.answered_by else None
    return CancellationAsked.model_construct(
        requested_by=named(request.requested_by),
        reason=request.reason,
        status=request.status,
        requested_at=request.requested_at,
        accepted_by=answered_by if request.status == "accepted" else None,
        rejected_by=answered_by if request.status == "rejected" else None,
    )


def ticket_number(dispute: Dispute, prefix: str) -> str:
    """`DHM-00042`: at least five digits."""
    return f"{prefix}-{dispute.ticket_number:05d}"


def ticket(escrow: Escrow, prefix: str) -> Ticket | None:
    """The last dispute's ticket."""
    dispute = escrow.dispute
    if dispute is None:
        return None
    return Ticket.model_construct(
        ticket_number=ticket_number(dispute, prefix),
        type="dispute",
        subject=f"Dispute: {escrow.title}",
        status=_ticket_status(dispute),
        created_at=dispute.opened_at,
        preview_reason=dispute.reason[:PREVIEW_CHARACTERS],
    )


def disputed(escrow: Escrow, prefix: str) -> Disputed:
    """The dispute as its events tell it."""
    dispute = escrow.dispute
    if dispute is None:
        raise AssertionError(f"escrow {escrow.id} has no dispute")
    return Disputed.model_construct(
        ticket_number=ticket_number(dispute, prefix),
        opened_by=named(dispute.opened_by),
        reason=dispute.reason,
        status=_ticket_status(dispute),
        outcome=dispute.outcome,
        settlement=settled(dispute.settlement, escrow.ledger_currency),
    )


def settled(settlement: Settlement | None, currency: str) -> Settled | None:
    """The amounts in the ledger's currency."""
    if settlement is None:
        return None
    return Settled.model_construct(
        seller_amount=to_decimal(settlement.seller_minor, currency),
        buyer_amount=to_decimal(settlement.buyer_minor, currency),
        escrow_fee=to_decimal(settlement.escrow_fee_minor, currency),
        developer_fee=to_decimal(settlement.developer_fee_minor, currency),
        seller_net=to_decimal(settlement.seller_net_minor, currency),
        resolved_by=settlement.resolved_by,
    )


def proof_info(standing: PurchaseProof | None) -> ProofInfo:
    """The proof's phase; null before the escrow is paid."""
    if standing is None:
        return ProofInfo.model_construct(
            phase=None, correction_rounds=0, upload_deadline=None, review_deadline=None
        )
    return ProofInfo.model_construct(
        phase=standing.phase,
        correction_rounds=standing.correction_rounds,
        upload_deadline=standing.upload_deadline,
        review_deadline=standing.review_deadline,
    )


def checkout_actions(escrow: Escrow) -> list[CheckoutAction]:
    """What the proof waits for now, as a checkout session's action."""
    if escrow.status != PAID or escrow.proof is None:
        return []
    if escrow.proof.phase in (phases.WAITING, phases.CORRECTION):
        action, email, says = "submit_proof", escrow.seller_address, "Upload the purchase proof."
    elif escrow.proof.phase == phases.REVIEW:
        action, email, says = "review_proof", escrow.buyer_address, "Review the purchase proof."
    else:
        return []
    return [
        CheckoutAction.model_construct(action=action, target_user_email=email, description=says)
    ]


def _ticket_status(dispute: Dispute) -> str:
    return "open" if dispute.is_open else "resolved"
