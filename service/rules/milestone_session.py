"""Checkout sessions of the milestone family: which action is to be had for whom, now.

Source: milestones.md 2. A session is a promise of one step to one e-mail; the step's own checks
decide again when it is taken, and their refusals are told as they are.
"""

from collections.abc import Mapping
from datetime import datetime

from service.rules import errors as no
from service.rules.engagement import FINAL, MilestoneEscrow
from service.rules.errors import Refused
from service.rules.machine import Actor, ActorKind, Role
from service.rules.milestone import WHO, Done, open_steps, steps_for
from service.rules.milestone_changes import linked
from service.rules.milestone_ground import check_frozen, check_role, roles_of
from service.rules.milestone_outlook import outlook_of
from service.rules.milestone_refusals import REFUSALS
from service.rules.outlook import NOBODY_YET
from service.rules.session import EVERY

FUND, DISPUTE, WITHDRAW = "fund", "dispute", "withdraw_remaining"
ACTIONS = (FUND, "approve_milestone", "change_milestone_status", "release", DISPUTE,
           "resolve_dispute", WITHDRAW)  # fmt: skip


def _whose(action: str) -> Role:
    [role] = WHO[action] - {Role.CLOCK}
    return role


WHOSE: Mapping[str, Role] = {
    action: _whose(action) for action in ACTIONS if action not in (FUND, DISPUTE)
}
"""Action of one role -> whose the table says it is."""


HANGS_ON_TERMS = frozenset(
    {FUND, "approve_milestone", "change_milestone_status", "release", DISPUTE, "resolve_dispute"}
)
"""What is agreed to means something else under other terms: which milestone, how much, to whom.

A remainder is withdrawn when terms no longer change, and a note is only words.
"""


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
    if action == DISPUTE and Role.DISPUTE_RESOLVER in roles_of(escrow, actor.user_id):
        raise no.ResolverCannotDispute
    if action != FUND:
        check_role(action, escrow, actor)
    offered = outlook_of(escrow, actor.user_id or NOBODY_YET, now)
    prospect = next(one for one in offered if one.step == action)
    if prospect.obstacle is not None:
        raise prospect.obstacle


def moot(done: Done) -> list[tuple[str, str]]:
    """(action, e-mail) of the pending sessions that this step ends; EVERY stands for all of them.

    It is too late for all but the remainder; no milestone stands right for it any more, whichever
    way its step was taken; or an update has given the role to somebody else.
    """
    before, after = done.before, done.after
    if after.status in FINAL and before.status not in FINAL:
        return [(action, EVERY) for action in ACTIONS if action != WITHDRAW]
    late = open_steps(before) - open_steps(after)
    if after.status in FINAL and not after.held_minor:
        late |= {WITHDRAW}
    lost = {
        action
        for action, role in WHOSE.items()
        if before.roles[role].email != after.roles[role].email
    }
    gone = {holder.email for holder in before.holders()} - {
        holder.email for holder in after.holders()
    }
    return [(action, EVERY) for action in ACTIONS if action in late | lost] + [
        (DISPUTE, email) for email in sorted(gone)
    ]


def spent(done: Done) -> list[tuple[str, int]]:
    """(action, index) of what cannot be done with this milestone any more, but with another.

    The pending sessions end whose input names it: batches are all or nothing.
    """
    before, after = done.before, done.after
    left = open_steps(after)
    pairs = enumerate(zip(before.milestones, after.milestones, strict=False))
    return [
        (action, index)
        for index, (was, now) in pairs
        for action in ACTIONS
        if action in left and action in steps_for(was) - steps_for(now)
    ]


_OF_MONEY = frozenset({no.InsufficientFunds, no.BalanceTooLarge})
"""What only wallets have against a step: they may be others by the time that it is taken."""
OF_SESSIONS: tuple[type[Refused], ...] = (
    no.NoRedirectUrlsConfigured,
    no.RedirectUrlMustBeHttps,
    no.RedirectUrlNotAllowed,
    *dict.fromkeys(r for action in ACTIONS for r in REFUSALS[action] if r not in _OF_MONEY),
)
"""What may stand against a new session."""
