"""The bodies of webhooks: `{id, type, timestamp, data}`. Source: escrows.md 7."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

from service.rules.escrow import STATUS_UPDATED, Taken
from service.rules.money import to_decimal
from service.rules.terms import UPDATABLE
from service.wire.base import Wire, absent, dump_json
from service.wire.escrows import Snapshot, snapshot, wire_mode
from service.wire.parts import (
    CancellationAsked,
    CheckoutAction,
    Disputed,
    Named,
    ProofInfo,
    cancellation,
    checkout_actions,
    disputed,
    named,
    proof_info,
)
from service.wire.proofs import Submission, ViewUrl, submissions


class EscrowData(Wire):
    """`{escrow: E}`, with `oldStatus` in it where the status changed."""

    escrow: Snapshot


class Terms(Wire):
    """A contract's new terms."""

    id: str
    terms: str
    language: str


class UpdateData(Wire):
    """`escrow.updated`: the request's fields that changed; the contract when its terms did."""

    updated_fields: list[str]
    escrow: Snapshot
    contract: Terms | None = absent()


class Signed(Wire):
    """The moment of a party's signature."""

    signed_at: datetime


class SignedContract(Wire):
    """A contract in `contract.signed`."""

    id: str
    escrow_id: str
    signed_by: str
    seller_signature: Signed | None
    buyer_signature: Signed | None
    is_fully_signed: bool
    signed_at: datetime


class SignatureData(Wire):
    """`contract.signed`, one per signature."""

    contract: SignedContract
    escrow: Snapshot


class CancellationData(Wire):
    """`escrow.cancellation.…`."""

    escrow: Snapshot
    cancellation_request: CancellationAsked


class Rejected(Wire):
    """A rejected delivery; `reason` is absent when none was given."""

    reason: str | None = absent()
    rejected_at: datetime
    previous_delivered_at: datetime
    rejected_by: Named


class RejectionData(Wire):
    """`escrow.delivery.rejected`."""

    escrow: Snapshot
    delivery_rejection: Rejected


class DisputeData(Wire):
    """`escrow.dispute.…`."""

    escrow: Snapshot
    dispute: Disputed


class DepositProof(Wire):
    """A guest's payment proof; `reason` is absent when none was given."""

    id: str
    buyer_email: str
    reason: str | None = absent()
    amount: Decimal
    method: str


class DepositData(Wire):
    """`escrow.deposit_proof.rejected`."""

    escrow: Snapshot
    deposit_proof: DepositProof


class OverdueData(Wire):
    """`escrow.delivery.overdue`: since when the delivery is due."""

    escrow: Snapshot
    overdue_since: datetime


class Acceptance(Wire):
    """The invitation that a party followed."""

    email: str
    role: str
    accepted_at: datetime


class InvitationData(Wire):
    """`invitation.accepted`."""

    escrow: Snapshot
    invitation: Acceptance


class ProofEscrow(Wire):
    """The escrow, as the events of its purchase proof name it."""

    id: str
    title: str
    status: str
    mode: str


class Proof(ProofInfo):
    """Where the purchase proof stands; `checkout_actions` are the steps that it waits for.

    `submissions` is absent while nothing was handed in.
    """

    submissions: list[Submission] | None = absent()
    latest_submission: Submission | None
    checkout_actions: list[CheckoutAction]


class ProofData(Wire):
    """`escrow.proof.…`."""

    escrow: ProofEscrow
    proof: Proof


@dataclass(frozen=True, slots=True)
class Setting:
    """What a body says beyond its step: when, and how this deployment names tickets and files."""

    at: datetime
    ticket_prefix: str
    view_url: ViewUrl


def _status_updated(taken: Taken, _: Setting) -> EscrowData:
    return EscrowData.model_construct(escrow=snapshot(taken.after, taken.before.status))


def _created(taken: Taken, _: Setting) -> EscrowData:
    return EscrowData.model_construct(escrow=snapshot(taken.after))


def _updated(taken: Taken, _: Setting) -> UpdateData:
    before, after = taken.before, taken.after
    changed = [field for field, of in UPDATABLE.items() if of(before) != of(after)]
    contract = None
    if "contractTerms" in changed and after.contract is not None:
        contract = Terms.model_construct(
            id=after.contract.id, terms=after.contract.terms, language=after.language
        )
    return UpdateData.model_construct(
        updated_fields=changed, escrow=snapshot(after), contract=contract
    )


def _signed(taken: Taken, setting: Setting) -> SignatureData:
    before, contract = taken.before.contract, taken.after.contract
    if contract is None:
        raise AssertionError(f"escrow {taken.after.id} has no contract to sign")
    had = before.seller_signed_at if before else None
    return SignatureData.model_construct(
        contract=SignedContract.model_construct(
            id=contract.id,
            escrow_id=taken.after.id,
            signed_by="seller" if contract.seller_signed_at != had else "buyer",
            seller_signature=_moment(contract.seller_signed_at),
            buyer_signature=_moment(contract.buyer_signed_at),
            is_fully_signed=contract.is_fully_signed,
            signed_at=setting.at,
        ),
        escrow=snapshot(taken.after),
    )


def _moment(signed_at: datetime | None) -> Signed | None:
    return Signed.model_construct(signed_at=signed_at) if signed_at else None


def _cancellation(taken: Taken, _: Setting) -> CancellationData:
    asked = cancellation(taken.after.cancellation)
    if asked is None:
        raise AssertionError(f"nobody has asked to cancel escrow {taken.after.id}")
    return CancellationData.model_construct(
        escrow=snapshot(taken.after), cancellation_request=asked
    )


def _rejected(taken: Taken, _: Setting) -> RejectionData:
    escrow, rejection = taken.after, taken.after.rejections[-1]
    if escrow.buyer is None:
        raise AssertionError(f"a delivery of escrow {escrow.id} is rejected by nobody")
    return RejectionData.model_construct(
        escrow=snapshot(escrow, taken.before.status),
        delivery_rejection=Rejected.model_construct(
            reason=rejection.reason,
            rejected_at=rejection.rejected_at,
            previous_delivered_at=rejection.previous_delivered_at,
            rejected_by=named(escrow.buyer),
        ),
    )


def _disputed(taken: Taken, setting: Setting) -> DisputeData:
    return DisputeData.model_construct(
        escrow=snapshot(taken.after), dispute=disputed(taken.after, setting.ticket_prefix)
    )


def _overdue(taken: Taken, _: Setting) -> OverdueData:
    if taken.due_at is None:
        raise AssertionError(f"escrow {taken.after.id} is overdue by no deadline")
    return OverdueData.model_construct(escrow=snapshot(taken.after), overdue_since=taken.due_at)


def _no_deposit(taken: Taken, _: Setting) -> DepositData:
    deposit = taken.after.rejected_deposit
    if deposit is None:
        raise AssertionError(f"no deposit of escrow {taken.after.id} is rejected")
    return DepositData.model_construct(
        escrow=snapshot(taken.after),
        deposit_proof=DepositProof.model_construct(
            id=deposit.id,
            buyer_email=deposit.buyer_email,
            reason=deposit.reason,
            amount=to_decimal(deposit.amount_minor, deposit.currency),
            method=deposit.method,
        ),
    )


def _linked(taken: Taken, setting: Setting) -> InvitationData:
    role = "seller" if taken.before.seller != taken.after.seller else "buyer"
    email = taken.after.seller_email if role == "seller" else taken.after.buyer_email
    invitation = Acceptance.model_construct(email=email, role=role, accepted_at=setting.at)
    return InvitationData.model_construct(escrow=snapshot(taken.after), invitation=invitation)


def _proof(taken: Taken, setting: Setting) -> ProofData:
    escrow = taken.after
    standing = proof_info(escrow.proof)
    given = submissions(escrow, setting.view_url)
    return ProofData.model_construct(
        escrow=ProofEscrow.model_construct(
            id=escrow.id, title=escrow.title, status=escrow.status, mode=wire_mode(escrow.mode)
        ),
        proof=Proof.model_construct(
            phase=standing.phase,
            correction_rounds=standing.correction_rounds,
            upload_deadline=standing.upload_deadline,
            review_deadline=standing.review_deadline,
            submissions=given or None,
            latest_submission=given[-1] if given else None,
            checkout_actions=checkout_actions(escrow),
        ),
    )


DATA: Mapping[str, Callable[[Taken, Setting], Wire]] = {
    STATUS_UPDATED: _status_updated,
    "escrow.created": _created,
    "escrow.updated": _updated,
    "contract.signed": _signed,
    "escrow.cancellation.requested": _cancellation,
    "escrow.cancellation.accepted": _cancellation,
    "escrow.cancellation.rejected": _cancellation,
    "escrow.delivery.rejected": _rejected,
    "escrow.delivery.overdue": _overdue,
    "escrow.deposit_proof.rejected": _no_deposit,
    "escrow.dispute.opened": _disputed,
    "escrow.dispute.resolved": _disputed,
    "escrow.proof.required": _proof,
    "escrow.proof.submitted": _proof,
    "escrow.proof.correction_requested": _proof,
    "escrow.proof.accepted": _proof,
    "escrow.proof.accepted_by_timeout": _proof,
    "escrow.proof.needs_review": _proof,
    "escrow.proof.expired": _proof,
    "invitation.accepted": _linked,
}
"""Event type -> its `data`, from the step that was taken."""


def escrow_event(event_id: UUID, event_type: str, taken: Taken, setting: Setting) -> bytes:
    """The exact bytes of this step's webhook."""
    return envelope(event_id, event_type, DATA[event_type](taken, setting), setting.at)


def envelope(
    event_id: UUID, event_type: str, told: Wire | Mapping[str, Any], at: datetime
) -> bytes:
    """What every delivery of this event carries: these bytes are stored, signed and sent."""
    return dump_json({"id": str(event_id), "type": event_type, "timestamp": at, "data": told})
