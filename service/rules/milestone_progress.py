"""A milestone escrow as it goes well: funded, worked on, approved, released.

Pure functions over a frozen aggregate; nothing has happened yet. Law: the first check that
fails answers, and the order is the contract (milestones.md 4). Amounts in minor units.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from service.rules import errors as no
from service.rules.engagement import Holder, MilestoneEscrow
from service.rules.machine import Actor
from service.rules.milestone import (
    APPROVED_ONE,
    FUNDED,
    RELEASED_ALL,
    RELEASED_ONE,
    STATUS_CHANGED,
    Done,
    Leg,
    done,
)
from service.rules.milestone_ground import (
    amount_of,
    check_balance,
    check_indexes,
    check_role,
    other_version,
    paid_out,
    platform_of,
    refuse_final,
    refuse_over,
    with_each,
    with_every,
    with_one,
)
from service.rules.milestone_said import Funded, Paid, StatusChange
from service.rules.milestone_terms import (
    EVIDENCE_MAX,
    FUNDING_TIMES_MAX,
    STATUS_MAX,
    check_batch,
    check_text,
    too_large,
)
from service.rules.money import MAX_MINOR
from service.rules.payouts import payout
from service.rules.postings import hold, pay, wallet


def check_fund(escrow: MilestoneEscrow, amount: int, expected_version: int | None) -> None:
    """What stands against a funding, before the payer's wallet is looked at.

    Raises:
        OfMilestones: the first check that fails.
    """
    if amount <= 0:
        raise no.AmountMustBePositive
    if amount > MAX_MINOR:
        raise too_large(escrow.currency)
    if expected_version is not None and expected_version != escrow.version:
        raise other_version(escrow, expected_version)
    refuse_final(escrow)
    if escrow.held_minor + amount > FUNDING_TIMES_MAX * escrow.amount_minor:
        raise no.FundingLimitExceeded(times=FUNDING_TIMES_MAX)


def fund(escrow: MilestoneEscrow, payer: Holder, amount: int, now: datetime) -> Done:
    """The payer's money comes into the pool; what may stand against it was checked."""
    if payer.user_id is None:
        raise AssertionError(f"escrow {escrow.id} is funded by nobody")
    after = replace(
        escrow,
        funded_minor=escrow.funded_minor + amount,
        held_minor=escrow.held_minor + amount,
    )
    postings = hold(escrow.id, wallet(payer.user_id), amount, escrow.currency)
    said = Funded(payer.email, amount, after.held_minor)
    return done("fund", escrow, after, [Leg(FUNDED, None, tuple(postings), said)], now)


def change_status(
    escrow: MilestoneEscrow, changes: Sequence[StatusChange], actor: Actor, now: datetime
) -> Done:
    """The provider says how milestones stand."""
    check_role("change_milestone_status", escrow, actor)
    check_batch([change.index for change in changes])
    if not all(change.status for change in changes):
        raise no.EmptyMilestoneStatus
    for change in changes:
        check_text("status", change.status, STATUS_MAX)
        check_text("evidence", change.evidence or "", EVIDENCE_MAX)
    check_indexes(escrow, [change.index for change in changes])
    for change in changes:
        refuse_over(escrow, change.index)
    after = escrow
    for change in changes:
        one = after.milestones[change.index]
        evidence = one.evidence if change.evidence is None else change.evidence
        after = with_one(after, change.index, replace(one, status=change.status, evidence=evidence))
    legs = [Leg(STATUS_CHANGED, change.index) for change in changes]
    return done("change_milestone_status", escrow, after, legs, now)


def approve(escrow: MilestoneEscrow, indexes: Sequence[int], actor: Actor, now: datetime) -> Done:
    """The approver accepts milestones."""
    check_batch(indexes)
    check_indexes(escrow, indexes)
    check_role("approve_milestone", escrow, actor)
    for index in indexes:
        if escrow.is_single:
            refuse_final(escrow)
        refuse_over(escrow, index)
        if escrow.milestones[index].approved:
            raise no.MilestoneAlreadyApproved(index=index)
    after = with_each(escrow, indexes, lambda one: replace(one, approved=True))
    return done("approve_milestone", escrow, after, [Leg(APPROVED_ONE, i) for i in indexes], now)


def release(escrow: MilestoneEscrow, actor: Actor, now: datetime) -> Done:
    """Single: exactly the amount is paid out; a surplus stays."""
    refuse_final(escrow)
    check_role("release", escrow, actor)
    open_one = next((i for i, one in enumerate(escrow.milestones) if not one.approved), None)
    if open_one is not None:
        raise no.EscrowNotCompleted(index=open_one)
    if escrow.is_disputed:
        raise no.EscrowInDispute
    check_balance(escrow, escrow.amount_minor)
    leg = _payout(escrow, None, escrow.amount_minor)
    after = paid_out(with_every(escrow, lambda one: replace(one, released=True)), [leg])
    return done("release", escrow, after, [leg], now)


def release_milestones(
    escrow: MilestoneEscrow, indexes: Sequence[int], actor: Actor, now: datetime
) -> Done:
    """Multi: each of the milestones' amounts is paid out."""
    check_role("release", escrow, actor)
    check_batch(indexes)
    check_indexes(escrow, indexes)
    for index in indexes:
        refuse_over(escrow, index)
        if not escrow.milestones[index].approved:
            raise no.MilestoneNotCompleted(index=index)
        if escrow.milestones[index].disputed:
            raise no.MilestoneInDispute(index=index)
    check_balance(escrow, sum(amount_of(escrow, index) for index in indexes))
    legs = [_payout(escrow, index, amount_of(escrow, index)) for index in indexes]
    after = paid_out(with_each(escrow, indexes, lambda one: replace(one, released=True)), legs)
    return done("release", escrow, after, legs, now)


def _payout(escrow: MilestoneEscrow, index: int | None, amount: int) -> Leg:
    parts = payout(amount, escrow.protocol_fee_bps, escrow.platform_fee_bps)
    receiver = escrow.receiver_of(index)
    if receiver.user_id is None:
        raise no.ReceiverNotRegistered(email=receiver.email)
    platform_id = platform_of(escrow, parts.platform)
    postings = pay(escrow.id, receiver.user_id, platform_id, parts, escrow.currency)
    event = RELEASED_ALL if index is None else RELEASED_ONE
    return Leg(event, index, tuple(postings), Paid(receiver.email, parts))
