"""The end of a dispute, by the resolver or by time, and what is left over after all.

Pure functions over a frozen aggregate; nothing has happened yet. Law: the first check that
fails answers, and the order is the contract (milestones.md 4). Amounts in minor units.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from service.rules import errors as no
from service.rules.engagement import Funding, Holder, Milestone, MilestoneEscrow
from service.rules.machine import Actor
from service.rules.milestone import RESOLVED_ALL, RESOLVED_ONE, WITHDRAWN, Done, Leg, done
from service.rules.milestone_ground import (
    amount_of,
    check_indexes,
    check_role,
    paid_out,
    platform_of,
    refuse_over,
    with_every,
    with_one,
)
from service.rules.milestone_said import BY_CLOCK, BY_RESOLVER, Share, Shared
from service.rules.milestone_terms import RECIPIENTS_MAX, shown, too_large
from service.rules.money import MAX_MINOR
from service.rules.payouts import Distribution, back_to_payers, distribution
from service.rules.postings import distribute, refund, wallet, withdraw

RESOLVED_TEXT = "resolved"


def resolve(escrow: MilestoneEscrow, shares: Sequence[Share], actor: Actor, now: datetime) -> Done:
    """Single: the whole balance is distributed."""
    _check_shares(escrow, shares)
    check_role("resolve_dispute", escrow, actor)
    if not escrow.is_disputed:
        raise no.EscrowNotInDispute
    total = sum(share.amount_minor for share in shares)
    _refuse_short(escrow, total)
    if total != escrow.held_minor:
        raise no.DistributionsMustEqualBalance(
            needed=shown(total, escrow.currency),
            balance=shown(escrow.held_minor, escrow.currency),
            currency=escrow.currency,
        )
    leg = _distributed(escrow, None, shares)
    after = paid_out(with_every(escrow, lambda one: _resolved(one, None)), [leg])
    return done("resolve_dispute", escrow, after, [leg], now)


def resolve_milestone(
    escrow: MilestoneEscrow, index: int, shares: Sequence[Share], actor: Actor, now: datetime
) -> Done:
    """Multi: up to the milestone's amount is distributed; the rest stays in the pool."""
    check_indexes(escrow, [index])
    _check_shares(escrow, shares)
    check_role("resolve_dispute", escrow, actor)
    refuse_over(escrow, index)
    if not escrow.milestones[index].disputed:
        raise no.MilestoneNotInDispute(index=index)
    total = sum(share.amount_minor for share in shares)
    if total > amount_of(escrow, index):
        raise no.DistributionsExceedMilestone(
            needed=shown(total, escrow.currency),
            balance=shown(amount_of(escrow, index), escrow.currency),
            currency=escrow.currency,
        )
    _refuse_short(escrow, total)
    leg = _distributed(escrow, index, shares)
    after = paid_out(
        with_one(escrow, index, _resolved(escrow.milestones[index], RESOLVED_TEXT)), [leg]
    )
    return done("resolve_dispute", escrow, after, [leg], now)


def expire(
    escrow: MilestoneEscrow,
    fundings: Sequence[Funding],
    index: int | None,
    now: datetime,
    due_at: datetime,
) -> Done:
    """The resolver's deadline has passed: what there is goes back to the payers, without a fee.

    `fundings` are by the payers' first times; `index` is the milestone in multi, None in single.
    """
    amount = escrow.held_minor
    if index is not None:
        amount = min(amount, amount_of(escrow, index))
    parts = back_to_payers(amount, [one.amount_minor for one in fundings])
    shares = tuple(
        Share(Holder(one.email, one.user_id), part)
        for one, part in zip(fundings, parts, strict=True)
        if part
    )
    postings = [
        posting
        for share in shares
        for posting in refund(
            escrow.id, wallet(share.to.user_id or ""), share.amount_minor, escrow.currency
        )
    ]
    whole = Distribution(amount, 0, 0, tuple(share.amount_minor for share in shares))
    event = RESOLVED_ALL if index is None else RESOLVED_ONE
    leg = Leg(event, index, tuple(postings), Shared(BY_CLOCK, shares, whole))
    text = None if index is None else RESOLVED_TEXT
    if index is None:
        ended = with_every(escrow, lambda one: _resolved(one, text))
    else:
        ended = with_one(escrow, index, _resolved(escrow.milestones[index], text))
    after = replace(
        ended,
        held_minor=escrow.held_minor - amount,
        refunded_minor=escrow.refunded_minor + amount,
    )
    ended_by_time = done("resolve_dispute", escrow, after, [leg], now)
    return replace(ended_by_time, due_at=due_at)


def withdraw_remaining(
    escrow: MilestoneEscrow, shares: Sequence[Share], actor: Actor, now: datetime
) -> Done:
    """What is left over of a final escrow is paid out, all or part of it, without a fee."""
    _check_shares(escrow, shares)
    check_role("withdraw_remaining", escrow, actor)
    if not escrow.is_over:
        raise no.EscrowNotFullyProcessed
    total = sum(share.amount_minor for share in shares)
    if total <= 0:
        raise no.TotalMustBePositive
    _refuse_short(escrow, total)
    amounts = [share.amount_minor for share in shares]
    postings = withdraw(escrow.id, [_user(share) for share in shares], amounts, escrow.currency)
    parts = Distribution(total, 0, 0, tuple(amounts))
    leg = Leg(WITHDRAWN, None, tuple(postings), Shared(BY_RESOLVER, tuple(shares), parts))
    return done("withdraw_remaining", escrow, paid_out(escrow, [leg]), [leg], now)


def _check_shares(escrow: MilestoneEscrow, shares: Sequence[Share]) -> None:
    if any(share.amount_minor <= 0 for share in shares):
        raise no.AmountsMustBePositive
    if any(share.amount_minor > MAX_MINOR for share in shares):
        raise too_large(escrow.currency)
    if len(shares) > RECIPIENTS_MAX:
        raise no.TooManyDistributions(limit=RECIPIENTS_MAX)
    emails = [share.to.email for share in shares]
    twice = next((one for n, one in enumerate(emails) if one in emails[:n]), None)
    if twice is not None:
        raise no.DuplicateRecipient(email=twice)
    nobody = next((share.to.email for share in shares if share.to.user_id is None), None)
    if nobody is not None:
        raise no.RecipientNotRegistered(email=nobody)


def _refuse_short(escrow: MilestoneEscrow, total: int) -> None:
    if escrow.held_minor < total:
        raise no.InsufficientFundsForResolution(
            balance=shown(escrow.held_minor, escrow.currency),
            needed=shown(total, escrow.currency),
            currency=escrow.currency,
        )


def _distributed(escrow: MilestoneEscrow, index: int | None, shares: Sequence[Share]) -> Leg:
    if not shares:
        raise no.TotalMustBePositive
    amounts = [share.amount_minor for share in shares]
    parts = distribution(amounts, escrow.protocol_fee_bps, escrow.platform_fee_bps)
    recipients = [_user(share) for share in shares]
    platform_id = platform_of(escrow, parts.platform)
    postings = distribute(escrow.id, recipients, platform_id, parts, escrow.currency)
    event = RESOLVED_ALL if index is None else RESOLVED_ONE
    return Leg(event, index, tuple(postings), Shared(BY_RESOLVER, tuple(shares), parts))


def _user(share: Share) -> str:
    if share.to.user_id is None:
        raise no.RecipientNotRegistered(email=share.to.email)
    return share.to.user_id


def _resolved(one: Milestone, text: str | None) -> Milestone:
    return replace(one, disputed=False, resolved=True, status=text or one.status)
