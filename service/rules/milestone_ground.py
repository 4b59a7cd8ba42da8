"""What the steps of a milestone escrow stand on: who may, what refuses several of them, and
how their milestones and sums are changed.

Law: whose a step is, is read off the table (`WHO`), here and nowhere else.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace

from service.rules import errors as no
from service.rules.engagement import ROLES, Milestone, MilestoneEscrow
from service.rules.errors import Refused
from service.rules.machine import Actor, Role
from service.rules.milestone import WHO, Leg
from service.rules.milestone_terms import shown
from service.rules.postings import Posting


def roles_of(escrow: MilestoneEscrow, user_id: str | None) -> frozenset[Role]:
    """The roles that this user holds; a milestone's own receiver has one of their own."""
    if user_id is None:
        return frozenset()
    held = {role for role in ROLES if escrow.roles[role].user_id == user_id}
    if any(one.receiver and one.receiver.user_id == user_id for one in escrow.milestones):
        held.add(Role.MILESTONE_RECEIVER)
    return frozenset(held)


NOT_YOURS: Mapping[str, type[Refused]] = {
    "change_milestone_status": no.OnlyServiceProviderCanChangeStatus,
    "approve_milestone": no.OnlyApproverCanApprove,
    "release": no.OnlyReleaseSignerCanRelease,
    "dispute": no.UnauthorizedToDispute,
    "note_dispute": no.OnlyRoleHoldersCanNote,
    "resolve_dispute": no.OnlyDisputeResolver,
    "withdraw_remaining": no.OnlyDisputeResolver,
    "update": no.OnlyPlatformCanUpdate,
}
"""Step -> what everybody is told whose role does not take it."""


def check_role(step: str, escrow: MilestoneEscrow, actor: Actor) -> None:
    """Whether the actor holds a role that the table gives this step.

    Raises:
        OfMilestones: they do not.
    """
    if not roles_of(escrow, actor.user_id) & WHO[step]:
        raise NOT_YOURS[step]


def named(escrow: MilestoneEscrow, user_id: str | None) -> str:
    """The e-mail under which this user is named here."""
    return next((h.email for h in escrow.holders() if user_id and h.user_id == user_id), "")


def check_frozen(escrow: MilestoneEscrow) -> None:
    """A frozen escrow takes no step."""
    if escrow.frozen:
        raise no.EscrowFrozen


def is_independent(escrow: MilestoneEscrow) -> bool:
    """Whether the resolver's user, where there is one, holds no other role."""
    resolver = escrow.roles[Role.DISPUTE_RESOLVER].user_id
    if resolver is None:
        return True
    return roles_of(escrow, resolver) == {Role.DISPUTE_RESOLVER}


def refuse_final(escrow: MilestoneEscrow) -> None:
    """Nothing more is done with an escrow of which everything is over."""
    if not escrow.is_over:
        return
    if any(one.released for one in escrow.milestones):
        raise no.EscrowAlreadyReleased
    raise no.EscrowAlreadyResolved


def refuse_over(escrow: MilestoneEscrow, index: int) -> None:
    """Nothing more is done with a milestone that is over."""
    if escrow.milestones[index].released:
        raise no.MilestoneAlreadyReleased(index=index)
    if escrow.milestones[index].resolved:
        raise no.MilestoneAlreadyResolved(index=index)


def check_indexes(escrow: MilestoneEscrow, indexes: Sequence[int]) -> None:
    """Each names a milestone, or `MilestoneNotFound`."""
    last = len(escrow.milestones) - 1
    for index in indexes:
        if not 0 <= index <= last:
            raise no.MilestoneNotFound(index=index, last=last)


def check_balance(escrow: MilestoneEscrow, needed: int) -> None:
    """The pool has as much as is to be released."""
    if escrow.held_minor < needed:
        raise no.EscrowBalanceNotEnough(
            balance=shown(escrow.held_minor, escrow.currency),
            needed=shown(needed, escrow.currency),
            currency=escrow.currency,
        )


def other_version(escrow: MilestoneEscrow, expected: int) -> Refused:
    """What is told to whoever has read other terms."""
    return no.EscrowPropertiesMismatch(
        reason=f"The terms were changed meanwhile: version {escrow.version}, not {expected}."
    )


def check_seen(escrow: MilestoneEscrow, version: int) -> None:
    """The terms are those that somebody has seen, or `EscrowPropertiesMismatch`."""
    if version != escrow.version:
        raise other_version(escrow, version)


def amount_of(escrow: MilestoneEscrow, index: int) -> int:
    """The amount of a milestone of multi release."""
    amount = escrow.milestones[index].amount_minor
    if amount is None:
        raise AssertionError(f"milestone {index} of {escrow.id} has no amount")
    return amount


def platform_of(escrow: MilestoneEscrow, fee: int) -> str | None:
    """Who gets a platform fee; `ReceiverNotRegistered` where there is one and nobody yet."""
    platform = escrow.roles[Role.PLATFORM]
    if escrow.platform_fee_bps and platform.user_id is None:
        raise no.ReceiverNotRegistered(email=platform.email)
    return platform.user_id if fee else None


def paid_out(escrow: MilestoneEscrow, legs: Sequence[Leg]) -> MilestoneEscrow:
    """The escrow's sums after what these legs post out of it: fees are those of the reasons."""
    out: list[Posting] = [posting for leg in legs for posting in leg.postings]
    fees = sum(p.amount_minor for p in out if p.reason.endswith("_fee"))
    released = sum(p.amount_minor for p in out) - fees
    return replace(
        escrow,
        held_minor=escrow.held_minor - released - fees,
        released_minor=escrow.released_minor + released,
        fees_minor=escrow.fees_minor + fees,
    )


def with_one(escrow: MilestoneEscrow, index: int, one: Milestone) -> MilestoneEscrow:
    """The escrow with this milestone in the place of the one that was there."""
    milestones = escrow.milestones
    return replace(escrow, milestones=(*milestones[:index], one, *milestones[index + 1 :]))


def with_each(
    escrow: MilestoneEscrow, indexes: Sequence[int], change: Callable[[Milestone], Milestone]
) -> MilestoneEscrow:
    """The escrow with these milestones changed."""
    chosen = set(indexes)
    return replace(
        escrow,
        milestones=tuple(
            change(one) if index in chosen else one for index, one in enumerate(escrow.milestones)
        ),
    )


def with_every(
    escrow: MilestoneEscrow, change: Callable[[Milestone], Milestone]
) -> MilestoneEscrow:
    """The escrow with all its milestones changed."""
    return replace(escrow, milestones=tuple(change(one) for one in escrow.milestones))
