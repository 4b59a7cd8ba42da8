"""Checkout sessions of the milestone family: which action is to be had for whom, now.

Source: milestones.md 2. A session is a promise of one step to one e-mail; the step's own checks
decide again when it is taken, and their refusals are told as they are.
"""

from collections.abc import Mapping
from datetime import datetime

from service.rules import errors as no
from service.rules.engagement import FINAL, ROLES, MilestoneEscrow
from service.rules.errors import Refused
from service.rules.machine import Role
from service.rules.milestone import WHO, Done, open_steps
from service.rules.milestone_outlook import outlook
from service.rules.milestone_steps import NOT_YOURS, check_fund
from service.rules.session import EVERY

FUND, DISPUTE, WITHDRAW = "fund", "dispute", "withdraw_remaining"
ACTIONS = (FUND, "approve_milestone", "change_milestone_status", "release", DISPUTE,
           "resolve_dispute", WITHDRAW)  # fmt: skip


def _whose(action: str) -> tuple[Role, type[Refused]]:
    [role] = WHO[action] - {Role.CLOCK}
    return role, NOT_YOURS[action]


WHOSE: Mapping[str, tuple[Role, type[Refused]]] = {
    action: _whose(action) for action in ACTIONS if action not in (FUND, DISPUTE)
}
"""Action of one role -> whose the table says it is, and what everybody else is told."""


def check_action(escrow: MilestoneEscrow, action: str, email: str, now: datetime) -> None:
    """Whether this person could take the action now, as if they had registered.

    Raises:
        EscrowFrozen: nothing can be done with it now.
        OfMilestones: it is another's, or the escrow is not in a state for it.
    """
    if escrow.frozen:
        raise no.EscrowFrozen
    if action == FUND:
        check_fund(escrow, 1, None)
        return
    held = [role for role in ROLES if escrow.roles[role].email == email]
    is_receiver = any(one.receiver and one.receiver.email == email for one in escrow.milestones)
    if action == DISPUTE:
        _check_dispute(escrow, held, now, is_receiver=is_receiver)
        return
    role, refusal = WHOSE[action]
    if role not in held:
        raise refusal()
    _check_legal(escrow, role, action, now)


def _check_dispute(
    escrow: MilestoneEscrow, held: list[Role], now: datetime, *, is_receiver: bool
) -> None:
    if Role.DISPUTE_RESOLVER in held:
        raise no.ResolverCannotDispute
    if not held and not is_receiver:
        raise no.UnauthorizedToDispute
    _check_legal(escrow, held[0] if held else Role.RECEIVER, DISPUTE, now)


def _check_legal(escrow: MilestoneEscrow, role: Role, action: str, now: datetime) -> None:
    prospect = next(one for one in outlook(escrow, role, now) if one.step == action)
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
    lost = {
        action
        for action, (role, _) in WHOSE.items()
        if before.roles[role].email != after.roles[role].email
    }
    gone = {holder.email for holder in before.holders()} - {
        holder.email for holder in after.holders()
    }
    return [(action, EVERY) for action in ACTIONS if action in late | lost] + [
        (DISPUTE, email) for email in sorted(gone)
    ]


OF_SESSIONS: tuple[type[Refused], ...] = (
    no.NoRedirectUrlsConfigured,
    no.RedirectUrlMustBeHttps,
    no.RedirectUrlNotAllowed,
    no.EscrowFrozen,
    *(refusal for _, refusal in dict(WHOSE).values()),
    no.UnauthorizedToDispute,
    no.ResolverCannotDispute,
    no.EscrowAlreadyReleased,
    no.EscrowAlreadyResolved,
    no.EscrowAlreadyInDispute,
    no.EscrowInDispute,
    no.EscrowNotInDispute,
    no.EscrowNotCompleted,
    no.EscrowBalanceNotEnough,
    no.EscrowNotFullyProcessed,
    no.MilestoneAlreadyReleased,
    no.MilestoneAlreadyResolved,
    no.MilestoneAlreadyApproved,
    no.MilestoneAlreadyInDispute,
    no.MilestoneInDispute,
    no.MilestoneNotInDispute,
    no.MilestoneNotCompleted,
    no.ReceiverNotRegistered,
    no.TotalMustBePositive,
)
"""What may stand against a new session."""
