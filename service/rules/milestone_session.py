"""Checkout sessions of the milestone family: which action is to be had for whom, now.

Source: milestones.md 2. A session is a promise of one step to one e-mail; the step's own checks
decide again when it is taken, and their refusals are told as they are.
"""

from collections.abc import Callable, Mapping
from datetime import datetime

from service.rules import errors as no
from service.rules.engagement import FINAL, MilestoneEscrow
from service.rules.errors import Refused
from service.rules.machine import Actor, ActorKind, Role
from service.rules.milestone import Done
from service.rules.milestone_outlook import NOBODY_YET, outlook_of
from service.rules.milestone_steps import REFUSALS, check_frozen, linked, roles_of

FUND, DISPUTE, WITHDRAW = "fund", "dispute", "withdraw_remaining"
WHOSE: Mapping[str, tuple[Role, type[Refused]]] = {
    "approve_milestone": (Role.APPROVER, no.OnlyApproverCanApprove),
    "change_milestone_status": (
        Role.SERVICE_PROVIDER,
        no.OnlyServiceProviderCanChangeStatus,
    ),
    "release": (Role.RELEASE_SIGNER, no.OnlyReleaseSignerCanRelease),
    "resolve_dispute": (Role.DISPUTE_RESOLVER, no.OnlyDisputeResolver),
    WITHDRAW: (Role.DISPUTE_RESOLVER, no.OnlyDisputeResolver),
}
"""Action -> whose it is, and what everybody else is told."""
ACTIONS = (FUND, "approve_milestone", "change_milestone_status", "release", DISPUTE,
           "resolve_dispute", WITHDRAW)  # fmt: skip


def bound(
    escrow: MilestoneEscrow, email: str, user_id: str | None, now: datetime
) -> tuple[MilestoneEscrow, Actor]:
    """The escrow, and whoever stands behind the e-mail (None: nobody yet), as if registered."""
    if user_id is not None:
        return escrow, Actor(ActorKind.USER, user_id=user_id)
    come = linked(escrow, email, NOBODY_YET, now)
    return come.after if come else escrow, Actor(ActorKind.USER, user_id=NOBODY_YET)


def check_action(escrow: MilestoneEscrow, action: str, actor: Actor, now: datetime) -> None:
    """Whether this person could take the action now, with the least that it needs.

    Raises:
        EscrowFrozen: nothing can be done with it now.
        OfMilestones: it is another's, or the escrow is not in a state for it.
    """
    check_frozen(escrow)
    held = roles_of(escrow, actor.user_id)
    if action in WHOSE:
        role, refusal = WHOSE[action]
        if role not in held:
            raise refusal()
    if action == DISPUTE and Role.DISPUTE_RESOLVER in held:
        raise no.ResolverCannotDispute
    if action == DISPUTE and not held:
        raise no.UnauthorizedToDispute
    offered = outlook_of(escrow, actor.user_id or NOBODY_YET, now)
    prospect = next(one for one in offered if one.step == action)
    if prospect.obstacle is not None:
        raise prospect.obstacle


def moot(done: Done) -> list[str]:
    """The actions whose pending sessions this step ends: it was their step, or it is too late.

    Where milestones go one by one, the last of them ends the sessions.
    """
    after = done.after
    if after.status in FINAL and done.before.status not in FINAL:
        return [action for action in ACTIONS if action != WITHDRAW]
    left = NOTHING_LEFT.get(done.row.name)
    return [done.row.name] if left is not None and left(after) else []


NOTHING_LEFT: Mapping[str, Callable[[MilestoneEscrow], bool]] = {
    "approve_milestone": lambda e: all(one.approved or one.is_over for one in e.milestones),
    DISPUTE: lambda e: all(one.disputed or one.is_over for one in e.milestones),
    "resolve_dispute": lambda e: not e.is_disputed,
    WITHDRAW: lambda e: e.held_minor == 0,
}
"""Step -> whether it has left nothing of its kind to do; a release can always be followed."""


_OF_MONEY = frozenset({no.InsufficientFunds, no.BalanceTooLarge})
"""What only wallets have against a step: they may be others by the time that it is taken."""
OF_SESSIONS: tuple[type[Refused], ...] = (
    no.NoRedirectUrlsConfigured,
    no.RedirectUrlMustBeHttps,
    no.RedirectUrlNotAllowed,
    *dict.fromkeys(r for action in ACTIONS for r in REFUSALS[action] if r not in _OF_MONEY),
)
"""What may stand against a new session."""
