"""`GET /milestone-escrows/:id/next`: who may do what now, and what time does. Ours."""

from collections.abc import Sequence
from datetime import datetime

from service.rules.engagement import ROLES, Holder, MilestoneEscrow
from service.rules.machine import Role
from service.rules.milestone_outlook import MilestoneProspect, outlook, outlook_of_receiver
from service.wire.base import Wire, absent
from service.wire.milestones import NAME_OF
from service.wire.next import NextDeadline, Open, resolver_deadline

RECEIVER_OF_ITS_OWN = "milestoneReceiver"


class MilestoneNextStep(Wire):
    """A step of a role: legal now, or why not.

    `milestoneIndexes` are those on which it is legal; absent where it is about the whole.
    """

    step: str
    legal: bool
    milestone_indexes: list[int] | None = absent()
    code: str | None = absent()
    message: str | None = absent()


class MilestoneNextRole(Wire):
    """A role, who holds it, and their steps.

    Milestones' own receivers have the role `milestoneReceiver`, and `milestoneIndexes`: which.
    """

    role: str
    email: str
    registered: bool
    milestone_indexes: list[int] | None = absent()
    steps: list[MilestoneNextStep]


class MilestoneNextEscrow(Wire):
    """The escrow that is looked at."""

    id: str
    status: str
    release_mode: str
    frozen: bool
    version: int


class MilestoneNextAnswer(Wire):
    """200 of `GET /milestone-escrows/:id/next`; `anybody`: the steps that need no role."""

    escrow: MilestoneNextEscrow
    roles: list[MilestoneNextRole]
    anybody: list[MilestoneNextStep]
    deadlines: list[NextDeadline]


def milestone_next(
    escrow: MilestoneEscrow, deadlines: Sequence[Open], now: datetime
) -> MilestoneNextAnswer:
    """Each role's steps as the rules take them, and the open deadlines."""
    return MilestoneNextAnswer.model_construct(
        escrow=MilestoneNextEscrow.model_construct(
            id=escrow.id,
            status=escrow.status,
            release_mode=escrow.release_mode,
            frozen=escrow.frozen,
            version=escrow.version,
        ),
        roles=[*(_role(escrow, role, now) for role in ROLES), *_receivers(escrow, now)],
        anybody=[_step(one) for one in outlook(escrow, Role.PAYER, now)],
        deadlines=[resolver_deadline(one) for one in deadlines],
    )


def _role(escrow: MilestoneEscrow, role: Role, now: datetime) -> MilestoneNextRole:
    holder = escrow.roles[role]
    return MilestoneNextRole.model_construct(
        role=NAME_OF[role],
        email=holder.email,
        registered=holder.user_id is not None,
        steps=[_step(one) for one in outlook(escrow, role, now)],
    )


def _receivers(escrow: MilestoneEscrow, now: datetime) -> list[MilestoneNextRole]:
    """Milestones' own receivers, each once, in the order of their first milestone."""
    owned: dict[Holder, list[int]] = {}
    for index, one in enumerate(escrow.milestones):
        if one.receiver is not None:
            owned.setdefault(one.receiver, []).append(index)
    return [
        MilestoneNextRole.model_construct(
            role=RECEIVER_OF_ITS_OWN,
            email=holder.email,
            registered=holder.user_id is not None,
            milestone_indexes=indexes,
            steps=[_step(one) for one in outlook_of_receiver(escrow, holder, now)],
        )
        for holder, indexes in owned.items()
    ]


def _step(one: MilestoneProspect) -> MilestoneNextStep:
    return MilestoneNextStep.model_construct(
        step=one.step,
        legal=one.obstacle is None,
        milestone_indexes=None if one.indexes is None else list(one.indexes),
        code=one.obstacle.code if one.obstacle else None,
        message=str(one.obstacle) if one.obstacle else None,
    )
