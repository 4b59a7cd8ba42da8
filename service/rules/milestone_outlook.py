"""What may happen next to a milestone escrow: each role's steps, legal now, or why not.

Law: whose a step is, is read off the table (`WHO`), and nothing is predicted by other rules: each
is tried on the checks themselves, with the least that it needs. Whoever is not registered yet is
looked at as if they were.
"""

from collections.abc import Callable, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from datetime import datetime

from service.rules.engagement import Holder, MilestoneEscrow
from service.rules.errors import Refused
from service.rules.machine import Actor, ActorKind, Role
from service.rules.milestone import WHO
from service.rules.milestone_changes import update
from service.rules.milestone_disputes import dispute, dispute_milestones, note
from service.rules.milestone_ground import check_frozen, roles_of
from service.rules.milestone_progress import (
    approve,
    change_status,
    check_fund,
    release,
    release_milestones,
)
from service.rules.milestone_resolution import resolve, resolve_milestone, withdraw_remaining
from service.rules.milestone_said import Share, StatusChange
from service.rules.milestone_terms import MILESTONES_MAX, MilestoneTerms, standing_terms
from service.rules.outlook import NOBODY_YET

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


def _approve(escrow: MilestoneEscrow, index: int, actor: Actor, now: datetime) -> object:
    return approve(escrow, [index], actor, now)


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


def _update(escrow: MilestoneEscrow, _: int, actor: Actor, now: datetime) -> object:
    """One more milestone; where there is room for none, other words for the last."""
    terms = standing_terms(escrow)
    parts, added = terms.milestones, MilestoneTerms("-", None if escrow.is_single else 1)
    if len(parts) == MILESTONES_MAX:
        parts, added = parts[:-1], replace(parts[-1], description="-")
    holders = {holder.email: holder for holder in escrow.holders()}
    return update(escrow, replace(terms, milestones=(*parts, added)), holders, actor, now)


TRIES: Mapping[str, Try] = {
    "fund": _fund,
    "change_milestone_status": _status,
    "approve_milestone": _approve,
    "release": _release,
    "dispute": _dispute,
    "note_dispute": _note,
    "resolve_dispute": _resolve,
    "withdraw_remaining": _withdraw,
    "update": _update,
}
"""A step that people take -> how it is tried on one milestone. Whose it is, is the table's."""
OF_THE_WHOLE = frozenset({"fund", "note_dispute", "withdraw_remaining", "update"})
OF_EACH_ALWAYS = frozenset({"approve_milestone", "change_milestone_status"})
"""The steps that are about single milestones in single release too."""


def outlook(escrow: MilestoneEscrow, role: Role, now: datetime) -> list[MilestoneProspect]:
    """Every step of this role, as it stands now; of `Role.PAYER`: what anybody may do."""
    if role is Role.PAYER:
        return _prospects(escrow, {role}, NOBODY_YET, now)
    holder = escrow.roles[role]
    if holder.user_id is not None:
        return _prospects(escrow, {role}, holder.user_id, now)
    roles = {**escrow.roles, role: replace(holder, user_id=NOBODY_YET)}
    return _prospects(replace(escrow, roles=roles), {role}, NOBODY_YET, now)


def outlook_of_receiver(
    escrow: MilestoneEscrow, receiver: Holder, now: datetime
) -> list[MilestoneProspect]:
    """Every step of a milestone's own receiver, by this one capacity."""
    user_id = receiver.user_id or NOBODY_YET
    seen = replace(
        escrow,
        milestones=tuple(
            replace(one, receiver=replace(receiver, user_id=user_id))
            if one.receiver == receiver
            else one
            for one in escrow.milestones
        ),
    )
    return _prospects(seen, {Role.MILESTONE_RECEIVER}, user_id, now)


def outlook_of(escrow: MilestoneEscrow, user_id: str, now: datetime) -> list[MilestoneProspect]:
    """Every step of this user, in whatever roles, each once; `fund` is there for everybody."""
    return _prospects(escrow, {*roles_of(escrow, user_id), Role.PAYER}, user_id, now)


def _prospects(
    escrow: MilestoneEscrow, held: AbstractSet[Role], user_id: str, now: datetime
) -> list[MilestoneProspect]:
    actor = Actor(ActorKind.USER, user_id=user_id)
    return [
        _prospect(escrow, name, TRIES[name], actor, now)
        for name, who in WHO.items()
        if name in TRIES and who & held
    ]


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
