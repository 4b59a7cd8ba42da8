"""`GET /escrows/:id/next`, and what a rehearsal (`?dry_run=true`) answers. Both are ours."""

from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any, NamedTuple

from service.rules.aggregate import Escrow
from service.rules.clocks import due_step, running
from service.rules.engagement import RESOLVER
from service.rules.escrow import TABLE, Taken
from service.rules.machine import Movement, Role
from service.rules.milestone import Done
from service.rules.milestone_terms import shown
from service.rules.money import to_decimal
from service.rules.outlook import PARTIES, Prospect, prospects, waits_for
from service.rules.postings import PLATFORM_FEE, PROTOCOL_FEE, Account, Posting
from service.wire.base import Wire, absent
from service.wire.escrows import wire_mode


class NextStep(Wire):
    """A step of a party: legal now, or why not. `code` is absent where the refusal has none."""

    step: str
    legal: bool
    code: str | None = absent()
    message: str | None = absent()


class NextParty(Wire):
    """A party and every step that is theirs in this mode."""

    email: str
    registered: bool
    steps: list[NextStep]


class NextParties(Wire):
    """Both sides."""

    seller: NextParty
    buyer: NextParty


class NextDeadline(Wire):
    """A running deadline and what the clock does at its end.

    A paused one has `remainingSeconds`, and falls due so long after it goes on. Of a milestone
    escrow `to` is always null, and `milestoneIndex` is there where it is about one milestone.
    """

    kind: str
    due_at: datetime | None
    paused: bool
    remaining_seconds: int | None = absent()
    step: str | None
    to: str | None
    outcome: str | None
    milestone_index: int | None = absent()


class NextEscrow(Wire):
    """The escrow that is looked at."""

    id: str
    status: str
    mode: str
    frozen: bool
    proof_phase: str | None = absent()


class NextAnswer(Wire):
    """200 of `GET /escrows/:id/next`. `waitsFor`: seller, buyer, operator; null once it is over."""

    escrow: NextEscrow
    waits_for: str | None
    parties: NextParties
    deadlines: list[NextDeadline]


class PostingSide(Wire):
    """An account of the ledger."""

    account: str
    owner: str


class RehearsedPosting(Wire):
    """Money that would move; its amount as the family has it: a decimal string of milestones."""

    source: PostingSide
    target: PostingSide
    amount: Decimal | str
    currency: str
    reason: str


class RehearsedStep(Wire):
    """A row of the table that would be taken, and the events that it would tell."""

    escrow_id: str
    step: str
    from_status: str
    to_status: str
    events: list[str]
    postings: list[RehearsedPosting]


class RehearsedFees(Wire):
    """The fees of the escrow as it would stand."""

    escrow_fee: Decimal
    developer_fee: Decimal


class RehearsedMilestoneFees(Wire):
    """What a milestone escrow's step would deduct."""

    protocol: str
    platform: str
    currency: str


class Rehearsal(Wire):
    """200 of a command with `?dry_run=true`: what it would do; nothing was changed.

    `answer` is the body that the command would give, `status` its status. The clock's steps that
    are due come first, as they would. A milestone escrow's `fees` are of a step that pays out.
    """

    dry_run: bool
    status: int
    answer: Any
    steps: list[RehearsedStep]
    fees: RehearsedFees | RehearsedMilestoneFees | None
    deadlines: list[NextDeadline]


PAYS_OUT = frozenset({Movement.PAY, Movement.DISTRIBUTE, Movement.WITHDRAW})
RESOLVER_OUTCOME = "The money goes back to the payers, without a fee."


class Open(NamedTuple):
    """An open deadline: what remains of it where it is paused, and what of the escrow it is about.

    Of a milestone escrow's resolver the subject is the milestone's index; empty for the whole.
    """

    kind: str
    due_at: datetime
    remaining: timedelta | None
    subject: str


def next_answer(escrow: Escrow, open_deadlines: Sequence[Open]) -> NextAnswer:
    """Who may do what now, what time does, and who holds the matter."""
    seller, buyer = (_party(escrow, role) for role in PARTIES)
    waits = waits_for(escrow)
    return NextAnswer.model_construct(
        escrow=NextEscrow.model_construct(
            id=escrow.id,
            status=escrow.status,
            mode=wire_mode(escrow.mode),
            frozen=escrow.frozen,
            proof_phase=escrow.proof.phase if escrow.proof else None,
        ),
        waits_for=waits.value if waits else None,
        parties=NextParties.model_construct(seller=seller, buyer=buyer),
        deadlines=next_deadlines(escrow, open_deadlines),
    )


def _party(escrow: Escrow, role: Role) -> NextParty:
    is_seller = role is Role.SELLER
    person = escrow.seller if is_seller else escrow.buyer
    return NextParty.model_construct(
        email=escrow.seller_address if is_seller else escrow.buyer_address,
        registered=person is not None,
        steps=[_step(one) for one in prospects(escrow, role)],
    )


def _step(prospect: Prospect) -> NextStep:
    no = prospect.obstacle
    return NextStep.model_construct(
        step=prospect.step,
        legal=no is None,
        code=no.code if no else None,
        message=str(no) if no else None,
    )


def next_deadlines(escrow: Escrow, open_deadlines: Sequence[Open]) -> list[NextDeadline]:
    """Each open deadline with the row that its end would take."""
    return [_deadline(escrow, one) for one in open_deadlines]


def _deadline(escrow: Escrow, one: Open) -> NextDeadline:
    kind, due_at, remaining, _ = one
    step = target = outcome = None
    if kind in running(escrow):
        step, target = due_step(kind, escrow)
        row = TABLE.find(step, running(escrow)[kind].state, escrow.mode, target)
        target, outcome = (row.target, row.says) if row else (None, None)
    return NextDeadline.model_construct(
        kind=kind,
        due_at=None if remaining is not None else due_at,
        paused=remaining is not None,
        remaining_seconds=None if remaining is None else int(remaining.total_seconds()),
        step=step,
        to=target,
        outcome=outcome,
    )


def rehearsal(
    status: int, answer: Any, taken: Sequence[Taken | Done], open_deadlines: Sequence[Open]
) -> Rehearsal:
    """What the command would have done; of the last escrow that it moved, fees and deadlines."""
    last = taken[-1] if taken else None
    escrow = last.after if isinstance(last, Taken) else None
    return Rehearsal.model_construct(
        dry_run=True,
        status=status,
        answer=answer,
        steps=[_rehearsed(one) for one in taken],
        fees=_fees(last),
        deadlines=next_deadlines(escrow, open_deadlines)
        if escrow
        else [resolver_deadline(one) for one in open_deadlines],
    )


def resolver_deadline(one: Open) -> NextDeadline:
    """A deadline of a milestone escrow: the resolver's, a reminder's or a session's.

    The status to which it leads is not told: it hangs on all milestones as they stand then.
    """
    kind, due_at, remaining, subject = one
    is_resolver = kind == RESOLVER
    return NextDeadline.model_construct(
        kind=kind,
        due_at=due_at if remaining is None else None,
        paused=remaining is not None,
        remaining_seconds=None if remaining is None else int(remaining.total_seconds()),
        step="resolve_dispute" if is_resolver else None,
        to=None,
        outcome=RESOLVER_OUTCOME if is_resolver else None,
        milestone_index=int(subject) if is_resolver and subject else None,
    )


def _rehearsed(taken: Taken | Done) -> RehearsedStep:
    return RehearsedStep.model_construct(
        escrow_id=taken.after.id,
        step=taken.row.name,
        from_status=taken.row.source,
        to_status=taken.row.target,
        events=[event for event in taken.events if event is not None],
        postings=[_posting(one, is_text=isinstance(taken, Done)) for one in taken.postings],
    )


def _posting(posting: Posting, *, is_text: bool) -> RehearsedPosting:
    return RehearsedPosting.model_construct(
        source=_side(posting.source),
        target=_side(posting.target),
        amount=shown(posting.amount_minor, posting.currency)
        if is_text
        else to_decimal(posting.amount_minor, posting.currency),
        currency=posting.currency,
        reason=posting.reason,
    )


def _side(account: Account) -> PostingSide:
    return PostingSide.model_construct(account=account.kind, owner=account.owner)


def _fees(last: Taken | Done | None) -> RehearsedFees | RehearsedMilestoneFees | None:
    if last is None:
        return None
    if isinstance(last, Done):
        return _milestone_fees(last) if last.row.moves in PAYS_OUT else None
    escrow, currency = last.after, last.after.ledger_currency
    return RehearsedFees.model_construct(
        escrow_fee=to_decimal(escrow.escrow_fee_minor, currency),
        developer_fee=to_decimal(escrow.developer_fee_minor, currency),
    )


def _milestone_fees(done: Done) -> RehearsedMilestoneFees:
    currency = done.after.currency
    protocol, platform = (
        sum(posting.amount_minor for posting in done.postings if posting.reason == reason)
        for reason in (PROTOCOL_FEE, PLATFORM_FEE)
    )
    return RehearsedMilestoneFees.model_construct(
        protocol=shown(protocol, currency), platform=shown(platform, currency), currency=currency
    )
