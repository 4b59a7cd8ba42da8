"""The bodies of the milestone family's webhooks. Source: milestones.md 6.

`{escrow: <the GET object>, …}` plus what happened, with full amounts: the flow of money can be
rebuilt from the events alone.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import TypeVar
from uuid import UUID

from service.rules.escrow import STATUS_UPDATED
from service.rules.milestone import (
    APPROVED_ONE,
    CREATED,
    DISPUTED_ALL,
    DISPUTED_ONE,
    FUNDED,
    LINKED,
    NOTED,
    RELEASED_ALL,
    RELEASED_ONE,
    RESOLVED_ALL,
    RESOLVED_ONE,
    STATUS_CHANGED,
    UPDATED,
    WITHDRAWN,
    Done,
    Leg,
)
from service.rules.milestone_said import Changed, Funded, Linked, Noted, Opened, Paid, Shared
from service.rules.milestone_terms import shown
from service.wire.base import Wire, absent, dump_json
from service.wire.events import envelope
from service.wire.milestone_shapes import MilestoneEscrowShape, shape
from service.wire.milestones import NAME_OF

SaidT = TypeVar("SaidT")


class Plain(Wire):
    """What every event of this family has: the escrow after it, and which milestone it is about."""

    escrow: MilestoneEscrowShape
    milestone_index: int | None = absent()


class FundedData(Plain):
    """`milestone_escrow.funded`."""

    payer: str
    amount: str
    balance: str


class UpdatedData(Plain):
    """`milestone_escrow.updated`."""

    updated_fields: list[str]


class FeesShape(Wire):
    """Both fees."""

    protocol: str
    platform: str


class ReleasedData(Plain):
    """`milestone_escrow.released`, `milestone.released`."""

    receiver: str
    gross: str
    fees: FeesShape
    net: str


class ReportedData(Plain):
    """`milestone.status_changed`: how it stands now, and what there is to see."""

    status: str
    evidence: str


class DisputedData(Plain):
    """`….disputed`."""

    reason: str
    opened_by: str


class SharedShape(Wire):
    """What one recipient gets."""

    email: str
    gross: str
    net: str


class SharedData(Plain):
    """`….dispute_resolved`, `milestone_escrow.withdrawn`; `by` is `resolver` or `clock`."""

    by: str
    total: str
    fees: FeesShape
    distributions: list[SharedShape]


class NoteShape(Wire):
    """A note and its writer."""

    text: str
    by: str


class NotedData(Plain):
    """`milestone_escrow.dispute_noted`."""

    note: NoteShape


class AcceptedShape(Wire):
    """Who has come."""

    email: str
    role: str
    accepted_at: datetime


class LinkedData(Plain):
    """`invitation.accepted`."""

    invitation: AcceptedShape


@dataclass(frozen=True, slots=True)
class Telling:
    """What one event is told from: the step, the happening in it, the escrow as it is shown."""

    done: Done
    leg: Leg
    escrow: MilestoneEscrowShape
    at: datetime

    def amount(self, minor: int) -> str:
        """Minor units of the escrow's currency as a decimal string."""
        return shown(minor, self.done.after.currency)

    def fees(self, protocol: int, platform: int) -> FeesShape:
        """Both fees, in minor units, as they are shown."""
        return FeesShape.model_construct(
            protocol=self.amount(protocol), platform=self.amount(platform)
        )


def _plain(told: Telling) -> Plain:
    return Plain.model_construct(escrow=told.escrow, milestone_index=told.leg.index)


def _funded(told: Telling) -> FundedData:
    said = _said(told.leg, Funded)
    return FundedData.model_construct(
        escrow=told.escrow,
        payer=said.payer,
        amount=told.amount(said.amount_minor),
        balance=told.amount(said.balance_minor),
    )


def _updated(told: Telling) -> UpdatedData:
    fields = list(_said(told.leg, Changed).fields)
    return UpdatedData.model_construct(escrow=told.escrow, updated_fields=fields)


def _reported(told: Telling) -> ReportedData:
    index = told.leg.index
    if index is None:
        raise TypeError(f"{told.leg.event} is about no milestone")
    one = told.done.after.milestones[index]
    return ReportedData.model_construct(
        escrow=told.escrow, milestone_index=index, status=one.status, evidence=one.evidence
    )


def _released(told: Telling) -> ReleasedData:
    said = _said(told.leg, Paid)
    return ReleasedData.model_construct(
        escrow=told.escrow,
        milestone_index=told.leg.index,
        receiver=said.receiver,
        gross=told.amount(said.parts.gross),
        fees=told.fees(said.parts.protocol, said.parts.platform),
        net=told.amount(said.parts.net),
    )


def _disputed(told: Telling) -> DisputedData:
    said = _said(told.leg, Opened)
    return DisputedData.model_construct(
        escrow=told.escrow, milestone_index=told.leg.index, reason=said.reason, opened_by=said.by
    )


def _shared(told: Telling) -> SharedData:
    said = _said(told.leg, Shared)
    return SharedData.model_construct(
        escrow=told.escrow,
        milestone_index=told.leg.index,
        by=said.by,
        total=told.amount(said.parts.total),
        fees=told.fees(said.parts.protocol, said.parts.platform),
        distributions=[
            SharedShape.model_construct(
                email=share.to.email,
                gross=told.amount(share.amount_minor),
                net=told.amount(net),
            )
            for share, net in zip(said.shares, said.parts.nets, strict=True)
        ],
    )


def _noted(told: Telling) -> NotedData:
    said = _said(told.leg, Noted)
    return NotedData.model_construct(
        escrow=told.escrow,
        milestone_index=said.index,
        note=NoteShape.model_construct(text=said.text, by=said.by),
    )


def _linked(told: Telling) -> LinkedData:
    said = _said(told.leg, Linked)
    return LinkedData.model_construct(
        escrow=told.escrow,
        invitation=AcceptedShape.model_construct(
            email=said.email, role=NAME_OF.get(said.role, "receiver"), accepted_at=told.at
        ),
    )


def _said(leg: Leg, kind: type[SaidT]) -> SaidT:
    if not isinstance(leg.said, kind):
        raise TypeError(f"{leg.event} says {leg.said!r}, which is no {kind.__name__}")
    return leg.said


DATA: Mapping[str, Callable[[Telling], Plain]] = {
    CREATED: _plain,
    FUNDED: _funded,
    UPDATED: _updated,
    STATUS_CHANGED: _reported,
    APPROVED_ONE: _plain,
    RELEASED_ALL: _released,
    RELEASED_ONE: _released,
    DISPUTED_ALL: _disputed,
    DISPUTED_ONE: _disputed,
    RESOLVED_ALL: _shared,
    RESOLVED_ONE: _shared,
    WITHDRAWN: _shared,
    NOTED: _noted,
    LINKED: _linked,
}
"""Event type -> its `data`."""


@dataclass(frozen=True, slots=True)
class Told:
    """One event: the exact bytes of its webhook, and what they say beyond the escrow, as JSON."""

    body: bytes | None = None
    said: str | None = None


def tell(done: Done, ids: list[UUID], at: datetime) -> list[Told]:
    """Each of this step's events, in the order of `done.events`."""
    escrow = shape(done.after)
    tellings: list[Told] = []
    for leg, uid in zip(done.legs, ids, strict=False):
        told = DATA[leg.event](Telling(done, leg, escrow, at))
        tellings.append(_told(uid, leg.event, told, at))
    if STATUS_UPDATED in done.events:
        moved = Plain.model_construct(escrow=shape(done.after, done.before.status))
        tellings.append(_told(ids[-1], STATUS_UPDATED, moved, at))
    return tellings or [Told()]


def _told(uid: UUID, event_type: str, told: Plain, at: datetime) -> Told:
    said = dump_json(told.model_dump(exclude={"escrow"})).decode()
    return Told(envelope(uid, event_type, told, at), said)
