"""The bodies of webhooks: `{id, type, timestamp, data}`. Source: escrows.md 7."""

from collections.abc import Callable, Mapping
from datetime import datetime, timedelta
from uuid import UUID

from service.rules import proof
from service.rules.escrow import STATUS_UPDATED, Escrow, Taken, upload_hours
from service.wire.base import Wire, dump_json
from service.wire.escrows import Snapshot, snapshot, wire_mode


class EscrowData(Wire):
    """`{escrow: E}`, with `oldStatus` in it where the status changed."""

    escrow: Snapshot


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


class Proof(Wire):
    """Where the purchase proof stands; `checkout_actions` are the steps that it waits for."""

    phase: str
    correction_rounds: int
    upload_deadline: datetime | None
    review_deadline: datetime | None
    latest_submission: None
    checkout_actions: list[str]


class ProofData(Wire):
    """`escrow.proof.…`."""

    escrow: ProofEscrow
    proof: Proof


def _status_updated(taken: Taken, _: datetime) -> Wire:
    return EscrowData.model_construct(escrow=snapshot(taken.after, taken.before.status))


def _created(taken: Taken, _: datetime) -> Wire:
    return EscrowData.model_construct(escrow=snapshot(taken.after))


def _overdue(taken: Taken, at: datetime) -> Wire:
    estimate = timedelta(days=taken.after.estimated_delivery_days)
    since = (taken.after.paid_at or at) + estimate
    return OverdueData.model_construct(escrow=snapshot(taken.after), overdue_since=since)


def _linked(taken: Taken, at: datetime) -> Wire:
    role = "seller" if taken.before.seller != taken.after.seller else "buyer"
    email = taken.after.seller_email if role == "seller" else taken.after.buyer_email
    invitation = Acceptance.model_construct(email=email, role=role, accepted_at=at)
    return InvitationData.model_construct(escrow=snapshot(taken.after), invitation=invitation)


def _proof_required(taken: Taken, at: datetime) -> Wire:
    return _proof(taken.after, proof.WAITING, at, ["submit_proof"])


def _proof_expired(taken: Taken, at: datetime) -> Wire:
    return _proof(taken.after, proof.EXPIRED, at, [])


def _proof(escrow: Escrow, phase: str, at: datetime, actions: list[str]) -> Wire:
    """Nothing was handed in so far: no review, no submission, no correction."""
    return ProofData.model_construct(
        escrow=ProofEscrow.model_construct(
            id=escrow.id, title=escrow.title, status=escrow.status, mode=wire_mode(escrow.mode)
        ),
        proof=Proof.model_construct(
            phase=phase,
            correction_rounds=0,
            upload_deadline=(escrow.paid_at or at) + timedelta(hours=upload_hours(escrow)),
            review_deadline=None,
            latest_submission=None,
            checkout_actions=actions,
        ),
    )


DATA: Mapping[str, Callable[[Taken, datetime], Wire]] = {
    STATUS_UPDATED: _status_updated,
    "escrow.created": _created,
    "escrow.delivery.overdue": _overdue,
    "escrow.proof.required": _proof_required,
    "escrow.proof.expired": _proof_expired,
    "invitation.accepted": _linked,
}
"""Event type -> its `data`, from the step that was taken and its business time."""


def escrow_event(event_id: UUID, event_type: str, taken: Taken, at: datetime) -> bytes:
    """The exact bytes of this step's webhook."""
    return envelope(event_id, event_type, DATA[event_type](taken, at), at)


def envelope(event_id: UUID, event_type: str, told: Wire, at: datetime) -> bytes:
    """What every delivery of this event carries: these bytes are stored, signed and sent."""
    return dump_json({"id": str(event_id), "type": event_type, "timestamp": at, "data": told})
