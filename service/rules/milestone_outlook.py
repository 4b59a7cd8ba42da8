"""What may happen next to a milestone escrow: each role's steps, legal now, or why not.

Law: nothing is predicted by other rules: each step is tried on the checks themselves, with the
least that it needs. Whoever is not registered yet is looked at as if they were.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime

from service.rules.engagement import ROLES, Holder, MilestoneEscrow
from service.rules.errors import Refused
from service.rules.machine import Actor, ActorKind, Role
from service.rules.milestone_steps import (
    Share,
    StatusChange,
    approve,
    change_status,
    check_frozen,
    check_fund,
    dispute,
    dispute_milestones,
    note,
    release,
    release_milestones,
    resolve,
    resolve_milestone,
    roles_of,
    withdraw_remaining,
)

NOBODY_YET = "0" * 24
Try = Callable[[MilestoneEscrow, int, Actor, datetime], object]


@dataclass(frozen=True, slots=True)
class MilestoneProspect:
    """A step of a role; `indexes` are the milestones on which it is legal now.

    None where the step is about the whole. `obstacle` is why it is not to be had, if it is not.
    """

    step: str
    indexes: tuple[int, ...] | None
    obstacle: Refused | None


def _status(escrow: MilestoneEscrow, index: int, actor: Actor, now: datetime) -> object:
    return change_status(escrow, [StatusChange(index, "done")], actor, now)


def _release(escrow: MilestoneEscrow, index: int, actor: Actor, now: datetime) -> object:
    if escrow.is_single:
        return release(escrow, actor, now)
    return release_milestones(escrow, [index], actor, now)


def _dispute(escrow: MilestoneEscrow, index: int, actor: Actor, now: datetime) -> object:
    if escrow.is_single:
        return dispute(escrow, "-", actor, now)
    return dispute_milestones(escrow, [index], "-", actor, now)


def _resolve(escrow: MilestoneEscrow, index: int, actor: Actor, now: datetime) -> object:
    to = Holder("anybody", actor.user_id)
    if escrow.is_single:
        return resolve(escrow, _all_of(escrow.held_minor, to), actor, now)
    amount = min(escrow.held_minor, escrow.milestones[index].amount_minor or 0)
    return resolve_milestone(escrow, index, _all_of(amount, to), actor, now)


def _withdraw(escrow: MilestoneEscrow, _: int, actor: Actor, now: datetime) -> object:
    to = Holder("anybody", actor.user_id)
    return withdraw_remaining(escrow, _all_of(escrow.held_minor, to), actor, now)


def _fund(escrow: MilestoneEscrow, _: int, __: Actor, ___: datetime) -> object:
    check_fund(escrow, 1, None)
    return None


def _note(escrow: MilestoneEscrow, _: int, actor: Actor, now: datetime) -> object:
    return note(escrow, "-", None, actor, now)


def _all_of(amount: int, to: Holder) -> list[Share]:
    return [Share(to, amount)] if amount else []


_OWN: Mapping[Role, tuple[tuple[str, Try], ...]] = {
    Role.APPROVER: (
        (
            "approve_milestone",
            lambda escrow, index, actor, now: approve(escrow, [index], actor, now),
        ),
    ),
    Role.SERVICE_PROVIDER: (("change_milestone_status", _status),),
    Role.PLATFORM: (),
    Role.RELEASE_SIGNER: (("release", _release),),
    Role.DISPUTE_RESOLVER: (("resolve_dispute", _resolve), ("withdraw_remaining", _withdraw)),
    Role.RECEIVER: (),
}
OF_THE_WHOLE = frozenset({"fund", "note_dispute", "withdraw_remaining"})
OF_EACH_ALWAYS = frozenset({"approve_milestone", "change_milestone_status"})
"""The steps that are about single milestones in single release too."""


def outlook(escrow: MilestoneEscrow, role: Role, now: datetime) -> list[MilestoneProspect]:
    """Every step of this role, as it stands now."""
    user_id = escrow.roles[role].user_id or NOBODY_YET
    actor = Actor(ActorKind.USER, user_id=user_id)
    escrow = _as_if_registered(escrow, role)
    steps = _OWN[role]
    if role is not Role.DISPUTE_RESOLVER:
        steps = (*steps, ("dispute", _dispute))
    return [_prospect(escrow, name, attempt, actor, now) for name, attempt in steps]


def outlook_of(escrow: MilestoneEscrow, user_id: str, now: datetime) -> list[MilestoneProspect]:
    """Every step of this user, in whatever roles, each once; `fund` is there for everybody."""
    held = roles_of(escrow, user_id)
    actor = Actor(ActorKind.USER, user_id=user_id)
    steps: list[tuple[str, Try]] = [one for role in ROLES if role in held for one in _OWN[role]]
    if held and Role.DISPUTE_RESOLVER not in held:
        steps.append(("dispute", _dispute))
    if held:
        steps.append(("note_dispute", _note))
    steps.append(("fund", _fund))
    return [_prospect(escrow, name, attempt, actor, now) for name, attempt in steps]


def _as_if_registered(escrow: MilestoneEscrow, role: Role) -> MilestoneEscrow:
    holder = escrow.roles[role]
    if holder.user_id is not None:
        return escrow
    roles = {one: escrow.roles[one] for one in ROLES}
    return replace(escrow, roles={**roles, role: replace(holder, user_id=NOBODY_YET)})


def _prospect(
    escrow: MilestoneEscrow, name: str, attempt: Try, actor: Actor, now: datetime
) -> MilestoneProspect:
    is_whole = name in OF_THE_WHOLE or (escrow.is_single and name not in OF_EACH_ALWAYS)
    legal: list[int] = []
    obstacle: Refused | None = None
    for index in range(1 if is_whole else len(escrow.milestones)):
        try:
            check_frozen(escrow)
            attempt(escrow, index, actor, now)
        except Refused as refusal:
            obstacle = obstacle or refusal
        else:
            legal.append(index)
    return MilestoneProspect(name, None if is_whole else tuple(legal), None if legal else obstacle)
