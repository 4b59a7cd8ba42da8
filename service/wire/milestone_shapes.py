"""What we send of the milestone family: the GET object, lists, balances, the log, their cursors.

Amounts leave as decimal strings with exactly the currency's decimals. Source: milestones.md 1, 3.
"""

import base64
import binascii
import re
from datetime import datetime
from decimal import Decimal
from typing import Any

import orjson

from service.rules.engagement import Milestone, MilestoneEscrow
from service.rules.errors import InvalidPayload
from service.rules.escrow import STATUS_UPDATED
from service.rules.machine import Role
from service.rules.milestone_terms import shown
from service.wire.base import Wire, absent


class RolesShape(Wire):
    """Who holds which role, by the e-mail that was named."""

    approver: str
    service_provider: str
    platform: str
    release_signer: str
    dispute_resolver: str
    receiver: str


class MilestoneShape(Wire):
    """A milestone, flat; amount and receiver in multi release only."""

    index: int
    description: str
    status: str
    evidence: str
    approved: bool
    disputed: bool
    released: bool
    resolved: bool
    amount: str | None = absent()
    receiver: str | None = absent()


class Flags(Wire):
    """Of the escrow: anything disputed, all released, all resolved."""

    disputed: bool
    released: bool
    resolved: bool


class MilestoneEscrowShape(Wire):
    """A milestone escrow; what it was asked for can be edited and PUT back.

    Whoever pays without having a place in it is not told who the others are: the e-mails of `roles`
    and each milestone's evidence are empty for them, the memo and receivers are left out.
    """

    id: str
    engagement_id: str
    title: str
    description: str
    release_mode: str
    currency: str
    amount: str
    platform_fee_bps: int
    protocol_fee_bps: int
    receiver_memo: str | None = absent()
    resolver_deadline_days: int | None = absent()
    roles: RolesShape
    milestones: list[MilestoneShape]
    balance: str
    flags: Flags
    status: str
    frozen: bool
    version: int
    created_at: datetime
    updated_at: datetime
    old_status: str | None = absent()


class MilestoneEscrowAnswer(Wire):
    """One escrow: 201 of create, 200 of everything else."""

    escrow: MilestoneEscrowShape


class MilestoneEscrowPage(Wire):
    """200 of `GET /milestone-escrows`."""

    escrows: list[MilestoneEscrowShape]
    next_cursor: str | None


class BalanceRow(Wire):
    """One escrow's live balance."""

    id: str
    balance: str
    currency: str
    decimals: int


class BalancesAnswer(Wire):
    """200 of `GET /milestone-escrows/balances`."""

    balances: list[BalanceRow]


class LoggedShape(Wire):
    """One event of the log: its webhook's envelope, its place, and who did it.

    What happened is kept for good. `data.escrow` is the GET object of that moment for as long as
    the webhook's body is kept (90 days); after that its id, currency and status.
    """

    id: str
    seq: int
    type: str
    timestamp: datetime
    by: str
    data: Any


class EventsAnswer(Wire):
    """200 of `GET …/events`, oldest first."""

    events: list[LoggedShape]
    next_cursor: str | None


def shape(escrow: MilestoneEscrow, old_status: str | None = None) -> MilestoneEscrowShape:
    """The GET object. Built without validation: every value comes from our rows."""
    return MilestoneEscrowShape.model_construct(
        id=escrow.id,
        engagement_id=escrow.engagement_id,
        title=escrow.title,
        description=escrow.description,
        release_mode=escrow.release_mode,
        currency=escrow.currency,
        amount=shown(escrow.amount_minor, escrow.currency),
        platform_fee_bps=escrow.platform_fee_bps,
        protocol_fee_bps=escrow.protocol_fee_bps,
        receiver_memo=escrow.receiver_memo,
        resolver_deadline_days=escrow.resolver_deadline_days,
        roles=_roles(escrow),
        milestones=[
            _milestone(index, one, escrow.currency) for index, one in enumerate(escrow.milestones)
        ],
        balance=shown(escrow.held_minor, escrow.currency),
        flags=Flags.model_construct(
            disputed=escrow.is_disputed, released=escrow.is_released, resolved=escrow.is_resolved
        ),
        status=escrow.status,
        frozen=escrow.frozen,
        version=escrow.version,
        created_at=escrow.created_at,
        updated_at=escrow.updated_at,
        old_status=old_status,
    )


def _roles(escrow: MilestoneEscrow) -> RolesShape:
    return RolesShape.model_construct(
        approver=escrow.roles[Role.APPROVER].email,
        service_provider=escrow.roles[Role.SERVICE_PROVIDER].email,
        platform=escrow.roles[Role.PLATFORM].email,
        release_signer=escrow.roles[Role.RELEASE_SIGNER].email,
        dispute_resolver=escrow.roles[Role.DISPUTE_RESOLVER].email,
        receiver=escrow.roles[Role.RECEIVER].email,
    )


def _milestone(index: int, one: Milestone, currency: str) -> MilestoneShape:
    amount = one.amount_minor
    return MilestoneShape.model_construct(
        index=index,
        description=one.description,
        status=one.status,
        evidence=one.evidence,
        approved=one.approved,
        disputed=one.disputed,
        released=one.released,
        resolved=one.resolved,
        amount=None if amount is None else shown(amount, currency),
        receiver=one.receiver.email if one.receiver else None,
    )


def answer(escrow: MilestoneEscrow) -> MilestoneEscrowAnswer:
    """One escrow as an answer."""
    return MilestoneEscrowAnswer.model_construct(escrow=shape(escrow))


def answer_outside(escrow: MilestoneEscrow) -> MilestoneEscrowAnswer:
    """One escrow for whoever may pay into it, but not read it: without people and their words."""
    whole = shape(escrow)
    nobody = whole.roles.model_copy(update=dict.fromkeys(RolesShape.model_fields, ""))
    veil = {"receiver": None, "evidence": ""}
    veiled = [one.model_copy(update=veil) for one in whole.milestones]
    told = {"roles": nobody, "receiver_memo": None, "milestones": veiled}
    return MilestoneEscrowAnswer.model_construct(escrow=whole.model_copy(update=told))


# ---- Cursors, and the log after its bodies are gone ----------------------------------------------


def write_cursor(key: Decimal, last_id: str) -> str:
    """Where a list goes on, opaque."""
    return base64.urlsafe_b64encode(f"{key:f}~{last_id}".encode()).decode().rstrip("=")


def read_cursor(cursor: str) -> tuple[Decimal, str]:
    """What `write_cursor` has written.

    Raises:
        InvalidPayload: it was written by somebody else.
    """
    try:
        padded = cursor.encode("ascii") + b"=" * (-len(cursor) % 4)
        key, _, last_id = (
            base64.b64decode(padded, altchars=b"-_", validate=True).decode().partition("~")
        )
    except (ValueError, binascii.Error):
        raise InvalidPayload({"cursor": "is none of ours"}) from None
    if not re.fullmatch(r"-?[0-9]{1,40}(\.[0-9]{1,12})?", key) or not re.fullmatch(
        r"[0-9a-f]{24}", last_id
    ):
        raise InvalidPayload({"cursor": "is none of ours"})
    return Decimal(key), last_id


def retold(
    said: str, escrow_id: str, currency: str, event_type: str, from_state: str, to_state: str
) -> dict[str, Any]:
    """An event's data from what is kept for good; of the escrow what the event itself knows."""
    escrow = {"id": escrow_id, "currency": currency, "status": to_state}
    if event_type == STATUS_UPDATED:
        escrow["oldStatus"] = from_state
    return {"escrow": escrow, **orjson.loads(said)}
