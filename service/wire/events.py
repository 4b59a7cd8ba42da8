"""The bodies of webhooks: `{id, type, timestamp, data}`. Source: escrows.md 7."""

from collections.abc import Callable, Mapping
from datetime import datetime
from uuid import UUID

from service.rules.escrow import STATUS_UPDATED, Taken
from service.wire.base import Wire, dump_json
from service.wire.escrows import Snapshot, snapshot


class Envelope(Wire):
    """What every delivery carries; its exact bytes are stored, signed and sent."""

    id: str
    type: str
    timestamp: datetime
    data: Wire


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


def _status_updated(taken: Taken, _: datetime) -> Wire:
    return EscrowData.model_construct(escrow=snapshot(taken.after, taken.before.status))


def _created(taken: Taken, _: datetime) -> Wire:
    return EscrowData.model_construct(escrow=snapshot(taken.after))


def _overdue(taken: Taken, at: datetime) -> Wire:
    return OverdueData.model_construct(escrow=snapshot(taken.after), overdue_since=at)


def _linked(taken: Taken, at: datetime) -> Wire:
    role = "seller" if taken.before.seller != taken.after.seller else "buyer"
    email = taken.after.seller_email if role == "seller" else taken.after.buyer_email
    invitation = Acceptance.model_construct(email=email, role=role, accepted_at=at)
    return InvitationData.model_construct(escrow=snapshot(taken.after), invitation=invitation)


DATA: Mapping[str, Callable[[Taken, datetime], Wire]] = {
    STATUS_UPDATED: _status_updated,
    "escrow.created": _created,
    "escrow.delivery.overdue": _overdue,
    "invitation.accepted": _linked,
}
"""Event type -> its `data`, from the step that was taken and its business time."""


def escrow_event(event_id: UUID, event_type: str, taken: Taken, at: datetime) -> bytes:
    """The exact bytes of this step's webhook."""
    return dump_json(
        {
            "id": str(event_id),
            "type": event_type,
            "timestamp": at,
            "data": DATA[event_type](taken, at),
        }
    )
