"""Every step of a milestone escrow: its checks in the spec's order, then what it does.

Pure functions over a frozen aggregate; nothing has happened yet. Law: the first check that fails
answers, and the order is the contract (milestones.md 4). Amounts in minor units.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from service.rules import errors as no
from service.rules.engagement import (
    ROLES,
    SINGLE,
    Funding,
    Holder,
    Milestone,
    MilestoneEscrow,
)
from service.rules.errors import Refused
from service.rules.machine import NOWHERE, Actor, Role
from service.rules.milestone import (
    APPROVED_ONE,
    CREATED,
    DISPUTED_ALL,
    DISPUTED_ONE,
    FREEZE,
    FUNDED,
    LINKED,
    NOTED,
    RELEASED_ALL,
    RELEASED_ONE,
    RESOLVED_ALL,
    RESOLVED_ONE,
    STATUS_CHANGED,
    UNFREEZE,
    UPDATED,
    WHO,
    WITHDRAWN,
    Done,
    Leg,
    done,
)
from service.rules.milestone_terms import (
    EVIDENCE_MAX,
    FUNDING_TIMES_MAX,
    NOTE_MAX,
    REASON_MAX,
    RECIPIENTS_MAX,
    STATUS_MAX,
    Terms,
    check_batch,
    check_terms,
    check_text,
    shown,
    too_large,
)
from service.rules.money import MAX_MINOR
from service.rules.payouts import Distribution, Payout, back_to_payers, distribution, payout
from service.rules.postings import Posting, distribute, hold, pay, refund, wallet, withdraw

RESOLVED_TEXT = "resolved"
BY_CLOCK, BY_RESOLVER = "clock", "resolver"

# ---- What an event says beyond the escrow -------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Funded:
    """Who has paid how much, and the balance after it."""

    payer: str
    amount_minor: int
    balance_minor: int


@dataclass(frozen=True, slots=True)
class Paid:
    """A payout: who was paid, and the parts of the amount."""

    receiver: str
    parts: Payout


@dataclass(frozen=True, slots=True)
class Opened:
    """A dispute: its reason, and who has opened it."""

    reason: str
    by: str


@dataclass(frozen=True, slots=True)
class Share:
    """One recipient of a distribution; who it is once the e-mail is looked up."""

    to: Holder
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Shared:
    """How a dispute's money went, `by` the resolver or the clock (back to the payers, no fee)."""

    by: str
    shares: tuple[Share, ...]
    parts: Distribution


@dataclass(frozen=True, slots=True)
class Changed:
    """The fields of the terms that an update has changed."""

    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Noted:
    """A note on a dispute, and whose."""

    text: str
    by: str
    index: int | None


@dataclass(frozen=True, slots=True)
class Linked:
    """Who has come, by the e-mail that was named, and to which role."""

    email: str
    role: Role


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A milestone's new status text; `evidence` None leaves what was there."""

    index: int
    status: str
    evidence: str | None = None


# ---- Who ----------------------------------------------------------------------------------------


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


# ---- Create, link, freeze -----------------------------------------------------------------------


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


def is_independent(escrow: MilestoneEscrow) -> bool:
    """Whether the resolver's user, where there is one, holds no other role."""
    resolver = escrow.roles[Role.DISPUTE_RESOLVER].user_id
    if resolver is None:
        return True
    return roles_of(escrow, resolver) == {Role.DISPUTE_RESOLVER}


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


# ---- Fund ---------------------------------------------------------------------------------------


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
        raise _other_version(escrow, expected_version)
    _refuse_final(escrow)
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


# ---- Status and approval ------------------------------------------------------------------------


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
    _check_indexes(escrow, [change.index for change in changes])
    for change in changes:
        _refuse_over(escrow, change.index)
    after = escrow
    for change in changes:
        one = after.milestones[change.index]
        evidence = one.evidence if change.evidence is None else change.evidence
        after = _with(after, change.index, replace(one, status=change.status, evidence=evidence))
    legs = [Leg(STATUS_CHANGED, change.index) for change in changes]
    return done("change_milestone_status", escrow, after, legs, now)


def approve(escrow: MilestoneEscrow, indexes: Sequence[int], actor: Actor, now: datetime) -> Done:
    """The approver accepts milestones."""
    check_batch(indexes)
    _check_indexes(escrow, indexes)
    check_role("approve_milestone", escrow, actor)
    for index in indexes:
        if escrow.is_single:
            _refuse_final(escrow)
        _refuse_over(escrow, index)
        if escrow.milestones[index].approved:
            raise no.MilestoneAlreadyApproved(index=index)
    after = _each(escrow, indexes, lambda one: replace(one, approved=True))
    return done("approve_milestone", escrow, after, [Leg(APPROVED_ONE, i) for i in indexes], now)


# ---- Release ------------------------------------------------------------------------------------


def release(escrow: MilestoneEscrow, actor: Actor, now: datetime) -> Done:
    """Single: exactly the amount is paid out; a surplus stays."""
    _refuse_final(escrow)
    check_role("release", escrow, actor)
    open_one = next((i for i, one in enumerate(escrow.milestones) if not one.approved), None)
    if open_one is not None:
        raise no.EscrowNotCompleted(index=open_one)
    if escrow.is_disputed:
        raise no.EscrowInDispute
    _check_balance(escrow, escrow.amount_minor)
    leg = _payout(escrow, None, escrow.amount_minor)
    after = _paid(_every(escrow, lambda one: replace(one, released=True)), [leg])
    return done("release", escrow, after, [leg], now)


def release_milestones(
    escrow: MilestoneEscrow, indexes: Sequence[int], actor: Actor, now: datetime
) -> Done:
    """Multi: each of the milestones' amounts is paid out."""
    check_role("release", escrow, actor)
    check_batch(indexes)
    _check_indexes(escrow, indexes)
    for index in indexes:
        _refuse_over(escrow, index)
        if not escrow.milestones[index].approved:
            raise no.MilestoneNotCompleted(index=index)
        if escrow.milestones[index].disputed:
            raise no.MilestoneInDispute(index=index)
    _check_balance(escrow, sum(_amount(escrow, index) for index in indexes))
    legs = [_payout(escrow, index, _amount(escrow, index)) for index in indexes]
    after = _paid(_each(escrow, indexes, lambda one: replace(one, released=True)), legs)
    return done("release", escrow, after, legs, now)


def _payout(escrow: MilestoneEscrow, index: int | None, amount: int) -> Leg:
    parts = payout(amount, escrow.protocol_fee_bps, escrow.platform_fee_bps)
    receiver = escrow.receiver_of(index)
    if receiver.user_id is None:
        raise no.ReceiverNotRegistered(email=receiver.email)
    platform_id = _platform_id(escrow, parts.platform)
    postings = pay(escrow.id, receiver.user_id, platform_id, parts, escrow.currency)
    event = RELEASED_ALL if index is None else RELEASED_ONE
    return Leg(event, index, tuple(postings), Paid(receiver.email, parts))


def _platform_id(escrow: MilestoneEscrow, fee: int) -> str | None:
    """Who gets a platform fee; `ReceiverNotRegistered` where there is one and nobody yet."""
    platform = escrow.roles[Role.PLATFORM]
    if escrow.platform_fee_bps and platform.user_id is None:
        raise no.ReceiverNotRegistered(email=platform.email)
    return platform.user_id if fee else None


# ---- Dispute ------------------------------------------------------------------------------------


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
    after = _every(escrow, lambda one: _disputed(one, reason, now))
    said = Opened(reason, named(escrow, actor.user_id))
    return done("dispute", escrow, after, [Leg(DISPUTED_ALL, said=said)], now)


def dispute_milestones(
    escrow: MilestoneEscrow, indexes: Sequence[int], reason: str, actor: Actor, now: datetime
) -> Done:
    """Multi: some milestones are disputed, the others go on."""
    check_batch(indexes)
    check_text("reason", reason, REASON_MAX)
    _check_indexes(escrow, indexes)
    for index in indexes:
        one = escrow.milestones[index]
        if one.disputed:
            raise no.MilestoneAlreadyInDispute(index=index)
        if one.resolved:
            raise no.MilestoneAlreadyResolved(index=index)
        if one.released:
            raise no.MilestoneAlreadyReleased(index=index)
    _check_disputer(escrow, indexes, actor)
    after = _each(escrow, indexes, lambda one: _disputed(one, reason, now))
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
        _check_indexes(escrow, [index])
    if index is not None and not escrow.milestones[index].disputed:
        raise no.MilestoneNotInDispute(index=index)
    if not escrow.is_disputed:
        raise no.EscrowNotInDispute
    said = Noted(text, named(escrow, actor.user_id), index)
    return done("note_dispute", escrow, escrow, [Leg(NOTED, index, said=said)], now)


# ---- Resolution ---------------------------------------------------------------------------------


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
    after = _paid(_every(escrow, lambda one: _resolved(one, None)), [leg])
    return done("resolve_dispute", escrow, after, [leg], now)


def resolve_milestone(
    escrow: MilestoneEscrow, index: int, shares: Sequence[Share], actor: Actor, now: datetime
) -> Done:
    """Multi: up to the milestone's amount is distributed; the rest stays in the pool."""
    _check_indexes(escrow, [index])
    _check_shares(escrow, shares)
    check_role("resolve_dispute", escrow, actor)
    _refuse_over(escrow, index)
    if not escrow.milestones[index].disputed:
        raise no.MilestoneNotInDispute(index=index)
    total = sum(share.amount_minor for share in shares)
    if total > _amount(escrow, index):
        raise no.DistributionsExceedMilestone(
            needed=shown(total, escrow.currency),
            balance=shown(_amount(escrow, index), escrow.currency),
            currency=escrow.currency,
        )
    _refuse_short(escrow, total)
    leg = _distributed(escrow, index, shares)
    after = _paid(_with(escrow, index, _resolved(escrow.milestones[index], RESOLVED_TEXT)), [leg])
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
        amount = min(amount, _amount(escrow, index))
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
        ended = _every(escrow, lambda one: _resolved(one, text))
    else:
        ended = _with(escrow, index, _resolved(escrow.milestones[index], text))
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
    return done("withdraw_remaining", escrow, _paid(escrow, [leg]), [leg], now)


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
    platform_id = _platform_id(escrow, parts.platform)
    postings = distribute(escrow.id, recipients, platform_id, parts, escrow.currency)
    event = RESOLVED_ALL if index is None else RESOLVED_ONE
    return Leg(event, index, tuple(postings), Shared(BY_RESOLVER, tuple(shares), parts))


def _user(share: Share) -> str:
    if share.to.user_id is None:
        raise no.RecipientNotRegistered(email=share.to.email)
    return share.to.user_id


def _resolved(one: Milestone, text: str | None) -> Milestone:
    return replace(one, disputed=False, resolved=True, status=text or one.status)


# ---- Update -------------------------------------------------------------------------------------


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
    _refuse_final(escrow)
    if expected_version is not None and expected_version != escrow.version:
        raise _other_version(escrow, expected_version)
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


# ---- What several steps ask ---------------------------------------------------------------------


def _refuse_final(escrow: MilestoneEscrow) -> None:
    if not escrow.is_over:
        return
    if any(one.released for one in escrow.milestones):
        raise no.EscrowAlreadyReleased
    raise no.EscrowAlreadyResolved


def _refuse_over(escrow: MilestoneEscrow, index: int) -> None:
    if escrow.milestones[index].released:
        raise no.MilestoneAlreadyReleased(index=index)
    if escrow.milestones[index].resolved:
        raise no.MilestoneAlreadyResolved(index=index)


def _check_indexes(escrow: MilestoneEscrow, indexes: Sequence[int]) -> None:
    last = len(escrow.milestones) - 1
    for index in indexes:
        if not 0 <= index <= last:
            raise no.MilestoneNotFound(index=index, last=last)


def _check_balance(escrow: MilestoneEscrow, needed: int) -> None:
    if escrow.held_minor < needed:
        raise no.EscrowBalanceNotEnough(
            balance=shown(escrow.held_minor, escrow.currency),
            needed=shown(needed, escrow.currency),
            currency=escrow.currency,
        )


def _other_version(escrow: MilestoneEscrow, expected: int) -> Refused:
    return no.EscrowPropertiesMismatch(
        reason=f"The terms were changed meanwhile: version {escrow.version}, not {expected}."
    )


def _amount(escrow: MilestoneEscrow, index: int) -> int:
    amount = escrow.milestones[index].amount_minor
    if amount is None:
        raise AssertionError(f"milestone {index} of {escrow.id} has no amount")
    return amount


def _paid(escrow: MilestoneEscrow, legs: Sequence[Leg]) -> MilestoneEscrow:
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


def _with(escrow: MilestoneEscrow, index: int, one: Milestone) -> MilestoneEscrow:
    milestones = escrow.milestones
    return replace(escrow, milestones=(*milestones[:index], one, *milestones[index + 1 :]))


def _each(
    escrow: MilestoneEscrow, indexes: Sequence[int], change: Callable[[Milestone], Milestone]
) -> MilestoneEscrow:
    chosen = set(indexes)
    return replace(
        escrow,
        milestones=tuple(
            change(one) if index in chosen else one for index, one in enumerate(escrow.milestones)
        ),
    )


def _every(escrow: MilestoneEscrow, change: Callable[[Milestone], Milestone]) -> MilestoneEscrow:
    return replace(escrow, milestones=tuple(change(one) for one in escrow.milestones))


# ---- What a step can be refused with ------------------------------------------------------------

_OF_BATCH = (no.BatchEmpty, no.BatchTooLarge, no.DuplicateMilestoneIndex)
_OF_TERMS = (
    no.PlatformFeeTooHigh, no.AmountMustBePositive, no.AmountTooLarge, no.NoMilestoneDefined,
    no.TooManyMilestones, no.FlagsMustBeFalse, no.StringTooLong, no.ResolverMustBeIndependent,
)  # fmt: skip
_OF_SHARES = (
    no.AmountsMustBePositive, no.AmountTooLarge, no.TooManyDistributions, no.DuplicateRecipient,
    no.RecipientNotRegistered, no.OnlyDisputeResolver,
)  # fmt: skip
_OVER = (no.EscrowAlreadyReleased, no.EscrowAlreadyResolved)
_ONE_OVER = (no.MilestoneAlreadyReleased, no.MilestoneAlreadyResolved)

REFUSALS: Mapping[str, tuple[type[Refused], ...]] = {
    "create": (*_OF_TERMS, no.DailyCapReached),
    "fund": (
        no.EscrowFrozen, no.AmountMustBePositive, no.AmountTooLarge, no.EscrowPropertiesMismatch,
        *_OVER, no.FundingLimitExceeded, no.OnlyOwnWallet, no.InsufficientFunds,
        no.BalanceTooLarge,
    ),
    "change_milestone_status": (
        no.EscrowFrozen, *_OF_BATCH, no.OnlyServiceProviderCanChangeStatus,
        no.EmptyMilestoneStatus, no.StringTooLong, no.MilestoneNotFound, *_ONE_OVER,
    ),
    "approve_milestone": (
        no.EscrowFrozen, *_OF_BATCH, no.MilestoneNotFound, no.OnlyApproverCanApprove, *_OVER,
        *_ONE_OVER, no.MilestoneAlreadyApproved,
    ),
    "release": (
        no.EscrowFrozen, *_OVER, no.OnlyReleaseSignerCanRelease, no.EscrowNotCompleted,
        no.EscrowInDispute, *_OF_BATCH, no.MilestoneNotFound, *_ONE_OVER,
        no.MilestoneNotCompleted, no.MilestoneInDispute, no.EscrowBalanceNotEnough,
        no.ReceiverNotRegistered, no.BalanceTooLarge,
    ),
    "dispute": (
        no.EscrowFrozen, *_OF_BATCH, no.StringTooLong, no.MilestoneNotFound,
        no.EscrowAlreadyInDispute, no.MilestoneAlreadyInDispute, *_OVER, *_ONE_OVER,
        no.UnauthorizedToDispute, no.ResolverCannotDispute,
    ),
    "note_dispute": (
        no.EscrowFrozen, no.StringTooLong, no.OnlyRoleHoldersCanNote, no.MilestoneNotFound,
        no.MilestoneNotInDispute, no.EscrowNotInDispute,
    ),
    "resolve_dispute": (
        no.EscrowFrozen, no.MilestoneNotFound, *_OF_SHARES, *_ONE_OVER, no.EscrowNotInDispute,
        no.MilestoneNotInDispute, no.DistributionsExceedMilestone,
        no.InsufficientFundsForResolution, no.DistributionsMustEqualBalance,
        no.TotalMustBePositive, no.ReceiverNotRegistered, no.BalanceTooLarge,
    ),
    "withdraw_remaining": (
        no.EscrowFrozen, *_OF_SHARES, no.EscrowNotFullyProcessed, no.TotalMustBePositive,
        no.InsufficientFundsForResolution, no.BalanceTooLarge,
    ),
    "update": (
        no.EscrowFrozen, *_OF_TERMS, no.OnlyPlatformCanUpdate, no.PlatformCannotBeChanged,
        no.EscrowInDispute, *_OVER, no.EscrowPropertiesMismatch, no.MilestoneApprovedCannotChange,
    ),
}  # fmt: skip
"""Step -> what may stand against it, about in the order of its checks."""
