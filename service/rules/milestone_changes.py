"""A milestone escrow opened, its roles linked, its terms changed, and the flag.

Pure functions over a frozen aggregate; nothing has happened yet. Law: the first check that
fails answers, and the order is the contract (milestones.md 4). Amounts in minor units.
"""

from collections.abc import Callable
from dataclasses import replace
from datetime import datetime

from service.rules import errors as no
from service.rules.engagement import ROLES, SINGLE, Holder, Milestone, MilestoneEscrow
from service.rules.machine import NOWHERE, Actor, Role
from service.rules.milestone import CREATED, FREEZE, LINKED, UNFREEZE, UPDATED, Done, Leg, done
from service.rules.milestone_ground import check_role, is_independent, other_version, refuse_final
from service.rules.milestone_said import Changed, Linked
from service.rules.milestone_terms import Terms, check_terms


def created(escrow: MilestoneEscrow, now: datetime) -> Done:
    """The new escrow's first step; its terms were checked by `check_terms`."""
    return done("create", replace(escrow, status=NOWHERE), escrow, [Leg(CREATED)], now)


def linked(escrow: MilestoneEscrow, email: str, user_id: str, now: datetime) -> Done | None:
    """The step by which this user takes every place that waits for the e-mail; None if none does.

    Nor where the resolver would hold another role by it.
    """
    taken = _with_holders(escrow, lambda h: _taken(h, email, user_id))
    if taken == escrow or not is_independent(taken):
        return None
    role = next(
        (role for role in ROLES if taken.roles[role] != escrow.roles[role]),
        Role.MILESTONE_RECEIVER,
    )
    return done("link_role", escrow, taken, [Leg(LINKED, said=Linked(email, role))], now)


def flagged(escrow: MilestoneEscrow, now: datetime, *, frozen: bool) -> Done:
    """Freeze or unfreeze it."""
    return done(FREEZE if frozen else UNFREEZE, escrow, escrow, [], now)


def _taken(holder: Holder, email: str, user_id: str) -> Holder:
    waits = holder.user_id is None and holder.email == email
    return Holder(email, user_id) if waits else holder


def _with_holders(escrow: MilestoneEscrow, change: Callable[[Holder], Holder]) -> MilestoneEscrow:
    return replace(
        escrow,
        roles={role: change(holder) for role, holder in escrow.roles.items()},
        milestones=tuple(
            replace(one, receiver=change(one.receiver)) if one.receiver else one
            for one in escrow.milestones
        ),
    )


def check_update(escrow: MilestoneEscrow, terms: Terms, actor: Actor) -> None:
    """What stands against an update before anybody who is named is looked up: fields, then role.

    Raises:
        OfMilestones: the first check that fails.
    """
    check_terms(terms, standing=len(escrow.milestones))
    check_role("update", escrow, actor)


def update(
    escrow: MilestoneEscrow,
    terms: Terms,
    holders: dict[str, Holder],
    actor: Actor,
    now: datetime,
    *,
    expected_version: int | None = None,
) -> Done | None:
    """Other terms; None where they are those that stand. `holders`: who is behind each e-mail."""
    check_update(escrow, terms, actor)
    if terms.roles[Role.PLATFORM] != escrow.roles[Role.PLATFORM].email:
        raise no.PlatformCannotBeChanged
    if escrow.is_disputed:
        raise no.EscrowInDispute
    refuse_final(escrow)
    if expected_version is not None and expected_version != escrow.version:
        raise other_version(escrow, expected_version)
    if terms.release_mode != escrow.release_mode:
        raise no.EscrowPropertiesMismatch(reason="releaseMode cannot be changed.")
    amended = _amended(escrow, terms, holders)
    fields = changed_fields(escrow, amended)
    if not fields:
        return None
    if escrow.is_settled:
        _refuse_other_terms(escrow, amended)
    elif any(one.approved for one in escrow.milestones):
        index = next(i for i, one in enumerate(escrow.milestones) if one.approved)
        raise no.MilestoneApprovedCannotChange(index=index)
    if not is_independent(amended):
        raise no.ResolverMustBeIndependent
    after = replace(amended, version=escrow.version + 1)
    return done("update", escrow, after, [Leg(UPDATED, said=Changed(fields))], now)


def _amended(escrow: MilestoneEscrow, terms: Terms, holders: dict[str, Holder]) -> MilestoneEscrow:
    known = {holder.email: holder for holder in escrow.holders()}

    def holder_of(email: str) -> Holder:
        stands = known.get(email)
        return stands if stands and stands.user_id else holders[email]

    milestones = []
    for index, asked in enumerate(terms.milestones):
        is_new = index >= len(escrow.milestones)
        old = Milestone("") if is_new else escrow.milestones[index]
        receiver = holder_of(asked.receiver) if asked.receiver else None
        milestones.append(
            replace(
                old,
                description=asked.description,
                amount_minor=asked.amount_minor,
                receiver=receiver,
            )
        )
    return replace(
        escrow,
        engagement_id=terms.engagement_id,
        title=terms.title,
        description=terms.description,
        currency=terms.currency,
        amount_minor=terms.total_minor,
        platform_fee_bps=terms.platform_fee_bps,
        receiver_memo=terms.receiver_memo,
        resolver_deadline_days=terms.resolver_deadline_days,
        roles={role: holder_of(email) for role, email in terms.roles.items()},
        milestones=tuple(milestones),
    )


FIELDS: dict[str, Callable[[MilestoneEscrow], object]] = {
    "engagementId": lambda e: e.engagement_id,
    "title": lambda e: e.title,
    "description": lambda e: e.description,
    "currency": lambda e: e.currency,
    "amount": lambda e: e.amount_minor if e.release_mode == SINGLE else None,
    "platformFeeBps": lambda e: e.platform_fee_bps,
    "receiverMemo": lambda e: e.receiver_memo,
    "resolverDeadlineDays": lambda e: e.resolver_deadline_days,
    "roles": lambda e: {role: holder.email for role, holder in e.roles.items()},
    "milestones": lambda e: [_terms_of(one) for one in e.milestones],
}
"""A field of the terms -> what of the escrow says it."""


def changed_fields(before: MilestoneEscrow, after: MilestoneEscrow) -> tuple[str, ...]:
    """The fields of the terms in which the two differ."""
    return tuple(name for name, of in FIELDS.items() if of(before) != of(after))


def _terms_of(one: Milestone) -> tuple[str, int | None, str | None]:
    return one.description, one.amount_minor, one.receiver.email if one.receiver else None


def _refuse_other_terms(escrow: MilestoneEscrow, amended: MilestoneEscrow) -> None:
    """Once money was here, milestones may be appended and unapproved ones be described anew."""
    others = [name for name in changed_fields(escrow, amended) if name != "milestones"]
    if others:
        raise no.EscrowPropertiesMismatch(reason=f"{others[0]} cannot be changed once funded.")
    if len(amended.milestones) < len(escrow.milestones):
        raise no.EscrowPropertiesMismatch(reason="No milestone can be removed once funded.")
    for index, old in enumerate(escrow.milestones):
        was, now = _terms_of(old), _terms_of(amended.milestones[index])
        if was[1:] != now[1:] or (was[0] != now[0] and old.approved):
            raise no.EscrowPropertiesMismatch(
                reason=f"Milestone {index} cannot be changed so once funded."
            )
