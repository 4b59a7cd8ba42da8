"""Disputes of a milestone escrow: opened, and talked about.

Pure functions over a frozen aggregate; nothing has happened yet. Law: the first check that
fails answers, and the order is the contract (milestones.md 4). Amounts in minor units.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from service.rules import errors as no
from service.rules.engagement import Milestone, MilestoneEscrow
from service.rules.machine import Actor, Role
from service.rules.milestone import DISPUTED_ALL, DISPUTED_ONE, NOTED, Done, Leg, done
from service.rules.milestone_ground import (
    check_indexes,
    check_role,
    named,
    roles_of,
    with_each,
    with_every,
)
from service.rules.milestone_said import Noted, Opened
from service.rules.milestone_terms import NOTE_MAX, REASON_MAX, check_batch, check_text


def dispute(escrow: MilestoneEscrow, reason: str, actor: Actor, now: datetime) -> Done:
    """Single: the whole is disputed."""
    check_text("reason", reason, REASON_MAX)
    if escrow.is_disputed:
        raise no.EscrowAlreadyInDispute
    if escrow.is_resolved:
        raise no.EscrowAlreadyResolved
    if escrow.is_released:
        raise no.EscrowAlreadyReleased
    _check_disputer(escrow, range(len(escrow.milestones)), actor)
    after = with_every(escrow, lambda one: _disputed(one, reason, now))
    said = Opened(reason, named(escrow, actor.user_id))
    return done("dispute", escrow, after, [Leg(DISPUTED_ALL, said=said)], now)


def dispute_milestones(
    escrow: MilestoneEscrow, indexes: Sequence[int], reason: str, actor: Actor, now: datetime
) -> Done:
    """Multi: some milestones are disputed, the others go on."""
    check_batch(indexes)
    check_text("reason", reason, REASON_MAX)
    check_indexes(escrow, indexes)
    for index in indexes:
        one = escrow.milestones[index]
        if one.disputed:
            raise no.MilestoneAlreadyInDispute(index=index)
        if one.resolved:
            raise no.MilestoneAlreadyResolved(index=index)
        if one.released:
            raise no.MilestoneAlreadyReleased(index=index)
    _check_disputer(escrow, indexes, actor)
    after = with_each(escrow, indexes, lambda one: _disputed(one, reason, now))
    said = Opened(reason, named(escrow, actor.user_id))
    return done("dispute", escrow, after, [Leg(DISPUTED_ONE, i, said=said) for i in indexes], now)


def _check_disputer(escrow: MilestoneEscrow, indexes: Sequence[int], actor: Actor) -> None:
    held = roles_of(escrow, actor.user_id)
    if Role.DISPUTE_RESOLVER in held:
        raise no.ResolverCannotDispute
    check_role("dispute", escrow, actor)
    if held == {Role.MILESTONE_RECEIVER}:
        receivers = [escrow.milestones[index].receiver for index in indexes]
        if not all(one is not None and one.user_id == actor.user_id for one in receivers):
            raise no.UnauthorizedToDispute


def _disputed(one: Milestone, reason: str, now: datetime) -> Milestone:
    return replace(one, disputed=True, dispute_reason=reason, disputed_at=now)


def note(
    escrow: MilestoneEscrow, text: str, index: int | None, actor: Actor, now: datetime
) -> Done:
    """Somebody with a role adds words to an open dispute."""
    check_text("text", text, NOTE_MAX)
    check_role("note_dispute", escrow, actor)
    if index is not None:
        check_indexes(escrow, [index])
    if index is not None and not escrow.milestones[index].disputed:
        raise no.MilestoneNotInDispute(index=index)
    if not escrow.is_disputed:
        raise no.EscrowNotInDispute
    said = Noted(text, named(escrow, actor.user_id), index)
    return done("note_dispute", escrow, escrow, [Leg(NOTED, index, said=said)], now)
