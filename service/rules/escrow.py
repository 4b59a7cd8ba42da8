"""THE TABLE of the buyer-seller family, and its clocks. Source: escrows.md 4.

Everything that moves an escrow stands in `STEPS`; everything that time does, in `CLOCKS`. A
person's step and the clock's are the same row. Entering a state arms its clocks, leaving a
state stops them; a dispute freezes them with the time that remains.
"""

import calendar
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

from service.rules import errors
from service.rules.errors import Refused
from service.rules.fees import Shares, shares
from service.rules.machine import NOWHERE, Actor, ActorKind, Movement, Role, Step, Table
from service.rules.policy import Policy
from service.rules.postings import Posting, hold, refund, release, wallet

PENDING, PAID, DELIVERED = "pending", "paid", "delivered"
COMPLETED, CANCELLED, DISPUTED = "completed", "cancelled", "disputed"
STATUSES = (PENDING, PAID, DELIVERED, COMPLETED, CANCELLED, DISPUTED)
FINAL = frozenset({COMPLETED, CANCELLED})

STANDARD, QUICK, PROOF, INSTANT = "standard", "quick", "quick_proof", "instant"
MODES = (STANDARD, QUICK, PROOF, INSTANT)

STATUS_UPDATED = "escrow.status.updated"

_A = frozenset(MODES)
_S = frozenset({STANDARD})
_P = frozenset({PROOF})
_I = frozenset({INSTANT})
_Q = frozenset({STANDARD, QUICK, PROOF})  # those with a delivered state
_N = frozenset({STANDARD, QUICK, INSTANT})  # those without a proof gate

_SELLER = frozenset({Role.SELLER})
_BUYER = frozenset({Role.BUYER})
_EITHER = _SELLER | _BUYER
_CLOCK = frozenset({Role.CLOCK})
_OPERATOR = frozenset({Role.OPERATOR})
_SYSTEM = frozenset({Role.SYSTEM})
_DEVELOPER = frozenset({Role.DEVELOPER})
_EDITOR = _SELLER | {Role.CREATOR}
_CANCELLER = _EITHER | {Role.CREATOR, Role.CLOCK}
_SELLER_T = _SELLER | _CLOCK  # or time
_BUYER_T = _BUYER | _CLOCK  # or time
_REVIEWER = _BUYER | _OPERATOR
_SETTLER = _EITHER | _OPERATOR | _CLOCK

_CREATED = ("escrow.created",)
_LINKED = ("invitation.accepted",)
_EDITED = ("escrow.updated",)
_SIGNED = ("contract.signed",)
_UPDATED = (STATUS_UPDATED,)
_PROOF_DUE = (STATUS_UPDATED, "escrow.proof.required")
_NO_DEPOSIT = ("escrow.deposit_proof.rejected",)
_RETURNED = ("escrow.delivery.rejected", STATUS_UPDATED)
_REQUESTED = ("escrow.cancellation.requested",)
_ACCEPTED = ("escrow.cancellation.accepted", STATUS_UPDATED)
_REJECTED = ("escrow.cancellation.rejected",)
_SUBMITTED = ("escrow.proof.submitted",)
_CORRECT = ("escrow.proof.correction_requested",)
_PROVEN = ("escrow.proof.accepted",)
_TIMED_OUT = ("escrow.proof.accepted_by_timeout",)
_ESCALATED = ("escrow.proof.needs_review",)
_PROOFLESS = ("escrow.proof.expired", STATUS_UPDATED)
_OVERDUE = ("escrow.delivery.overdue",)
_DISPUTED = (STATUS_UPDATED, "escrow.dispute.opened")
_RESOLVED = (STATUS_UPDATED, "escrow.dispute.resolved")

_NO, _HOLD, _RELEASE = Movement.NONE, Movement.HOLD, Movement.RELEASE
_REFUND, _SPLIT = Movement.REFUND, Movement.SPLIT

# fmt: off
STEPS = (
    #    step                    who          from       to         modes moves     events
    Step("create",               _DEVELOPER,  NOWHERE,   PENDING,   _A,   _NO,      _CREATED,
         "A developer opens the escrow; unknown parties are invited."),
    Step("link_party",           _SYSTEM,     PENDING,   PENDING,   _A,   _NO,      _LINKED,
         "An invited party has registered and is linked."),
    Step("link_party",           _SYSTEM,     PAID,      PAID,      _A,   _NO,      _LINKED,
         "An invited party has registered and is linked."),
    Step("link_party",           _SYSTEM,     DELIVERED, DELIVERED, _Q,   _NO,      _LINKED,
         "An invited party has registered and is linked."),
    Step("link_party",           _SYSTEM,     DISPUTED,  DISPUTED,  _A,   _NO,      _LINKED,
         "An invited party has registered and is linked."),
    Step("update",               _EDITOR,     PENDING,   PENDING,   _A,   _NO,      _EDITED,
         "The seller or the creator changes the terms; signatures are wiped."),
    Step("sign_contract",        _EITHER,     PENDING,   PENDING,   _S,   _NO,      _SIGNED,
         "A party signs the contract."),
    Step("accept_pay",           _BUYER,      PENDING,   PAID,      _N,   _HOLD,    _UPDATED,
         "The buyer pays; the money is held."),
    Step("accept_pay",           _BUYER,      PENDING,   PAID,      _P,   _HOLD,    _PROOF_DUE,
         "The buyer pays; the seller must prove the purchase."),
    Step("approve_deposit",      _OPERATOR,   PENDING,   PAID,      _I,   _HOLD,    _UPDATED,
         "The operator approves a guest's payment proof; the money is held."),
    Step("reject_deposit",       _OPERATOR,   PENDING,   PENDING,   _I,   _NO,      _NO_DEPOSIT,
         "The operator rejects a guest's payment proof."),
    Step("cancel",               _CANCELLER,  PENDING,   CANCELLED, _A,   _NO,      _UPDATED,
         "A party or the creator cancels before payment, or the offer expires."),
    Step("deliver",              _SELLER,     PAID,      DELIVERED, _Q,   _NO,      _UPDATED,
         "The seller says that it is delivered; the buyer's time to object begins."),
    Step("deliver",              _SELLER_T,   PAID,      COMPLETED, _I,   _RELEASE, _UPDATED,
         "The seller delivers, or the partner acknowledged: released at once."),
    Step("complete",             _BUYER_T,    DELIVERED, COMPLETED, _Q,   _RELEASE, _UPDATED,
         "The buyer confirms, or the time to object has passed: released."),
    Step("reject_delivery",      _BUYER,      DELIVERED, PAID,      _Q,   _NO,      _RETURNED,
         "The buyer rejects the delivery; no money moves."),
    Step("cancel_escrow",        _SELLER,     PAID,      CANCELLED, _A,   _REFUND,  _UPDATED,
         "The seller cancels; the buyer is refunded in full."),
    Step("cancel_escrow",        _SELLER,     DELIVERED, CANCELLED, _Q,   _REFUND,  _UPDATED,
         "The seller cancels; the buyer is refunded in full."),
    Step("request_cancellation", _BUYER,      PAID,      PAID,      _A,   _NO,      _REQUESTED,
         "The buyer asks to cancel."),
    Step("request_cancellation", _BUYER,      DELIVERED, DELIVERED, _Q,   _NO,      _REQUESTED,
         "The buyer asks to cancel; the completion deadline is frozen."),
    Step("accept_cancellation",  _SELLER_T,   PAID,      CANCELLED, _A,   _REFUND,  _ACCEPTED,
         "The seller agrees, or does not answer in time: refunded."),
    Step("accept_cancellation",  _SELLER,     DELIVERED, CANCELLED, _Q,   _REFUND,  _ACCEPTED,
         "The seller agrees to cancel: refunded."),
    Step("reject_cancellation",  _SELLER,     PAID,      PAID,      _A,   _NO,      _REJECTED,
         "The seller declines; the buyer may ask again."),
    Step("reject_cancellation",  _SELLER_T,   DELIVERED, DELIVERED, _Q,   _NO,      _REJECTED,
         "The seller declines, or does not answer in time; the buyer may ask again."),
    Step("submit_proof",         _SELLER,     PAID,      PAID,      _P,   _NO,      _SUBMITTED,
         "The seller uploads the purchase proof."),
    Step("request_correction",   _BUYER,      PAID,      PAID,      _P,   _NO,      _CORRECT,
         "The buyer asks for a better proof."),
    Step("accept_proof",         _REVIEWER,   PAID,      PAID,      _P,   _NO,      _PROVEN,
         "The proof is accepted; the seller may deliver."),
    Step("pass_proof",           _CLOCK,      PAID,      PAID,      _P,   _NO,      _TIMED_OUT,
         "The buyer did not review in time: the proof counts as accepted."),
    Step("escalate_proof",       _BUYER_T,    PAID,      PAID,      _P,   _NO,      _ESCALATED,
         "One correction too many, or none in time: the operator decides."),
    Step("expire_proof",         _CLOCK,      PAID,      CANCELLED, _P,   _REFUND,  _PROOFLESS,
         "No proof by its deadline: refunded."),
    Step("reject_proof",         _OPERATOR,   PAID,      CANCELLED, _P,   _REFUND,  _UPDATED,
         "The operator rejects the proof: refunded."),
    Step("note_overdue",         _CLOCK,      PAID,      PAID,      _A,   _NO,      _OVERDUE,
         "The estimated delivery has passed; both parties are told."),
    Step("refund_overdue",       _CLOCK,      PAID,      CANCELLED, _I,   _REFUND,  _UPDATED,
         "An instant escrow stayed undelivered: refunded."),
    Step("dispute",              _EITHER,     PAID,      DISPUTED,  _A,   _NO,      _DISPUTED,
         "A party opens a dispute; every timer is frozen."),
    Step("dispute",              _EITHER,     DELIVERED, DISPUTED,  _Q,   _NO,      _DISPUTED,
         "A party opens a dispute; every timer is frozen."),
    Step("answer_dispute",       _EITHER,     DISPUTED,  DISPUTED,  _A,   _NO,      (),
         "The other party answers, or either makes an offer."),
    Step("resolve_dispute",      _SETTLER,    DISPUTED,  COMPLETED, _A,   _SPLIT,   _RESOLVED,
         "Settled with a part for the seller: released, the rest refunded."),
    Step("resolve_dispute",      _SETTLER,    DISPUTED,  CANCELLED, _A,   _REFUND,  _RESOLVED,
         "Settled with nothing for the seller: refunded."),
    Step("withdraw_dispute",     _EITHER,     DISPUTED,  PAID,      _A,   _NO,      _RESOLVED,
         "Whoever opened the dispute takes it back; timers go on."),
    Step("withdraw_dispute",     _EITHER,     DISPUTED,  DELIVERED, _Q,   _NO,      _RESOLVED,
         "Whoever opened the dispute takes it back; timers go on."),
    *(Step(name, who, status, status, _Q if status == DELIVERED else _A, _NO, (), says)
      for status in STATUSES
      for name, who, says in (
          ("freeze",   _SYSTEM,   "An invariant is breached: nothing moves until it is looked at."),
          ("unfreeze", _OPERATOR, "The operator lifts the freeze once its check passes."))),
)
# fmt: on
TABLE = Table("escrow", STEPS, FINAL)

FLAGS = {"freeze": True, "unfreeze": False}
"""The steps that set the flag and leave the state alone; a frozen escrow takes no other."""


@dataclass(frozen=True, slots=True)
class Person:
    """A registered user, as the other party and the partner servers may know them."""

    id: str
    email: str
    first_name: str
    last_name: str
    language: str = "en"
    is_phone_verified: bool = True


@dataclass(frozen=True, slots=True)
class Escrow:
    """One escrow as its row stands: facts only, money in minor units, times in UTC.

    `seller` and `buyer` are None until that person has registered; the e-mails are always there.
    `seq` is its event counter, `completion_deadline` the open deadline of that kind.
    """

    id: str
    mode: str
    status: str
    creator_id: str
    seller_email: str
    buyer_email: str
    title: str
    currency: str
    ledger_currency: str
    amount_minor: int
    fx_rate: Decimal
    amount_ledger_minor: int
    escrow_fee_minor: int
    estimated_delivery_days: int
    created_at: datetime
    updated_at: datetime
    seller: Person | None = None
    buyer: Person | None = None
    seq: int = 0
    frozen: bool = False
    description: str | None = None
    language: str = "en"
    developer_fee_bps: int = 0
    developer_fee_minor: int = 0
    developer_fee_user_id: str | None = None
    auto_complete: str = "manual"
    fulfillment_policy: Mapping[str, object] | None = None
    funded_minor: int = 0
    held_minor: int = 0
    released_minor: int = 0
    refunded_minor: int = 0
    fees_minor: int = 0
    cancel_reason: str | None = None
    expires_at: datetime | None = None
    paid_at: datetime | None = None
    delivered_at: datetime | None = None
    completed_at: datetime | None = None
    cancelled_at: datetime | None = None
    completion_deadline: datetime | None = None
    contract: "Contract | None" = None
    creator_company: str = ""

    @property
    def seller_id(self) -> str | None:
        """The seller's user id, None while not registered."""
        return self.seller.id if self.seller else None

    @property
    def buyer_id(self) -> str | None:
        """The buyer's user id, None while not registered."""
        return self.buyer.id if self.buyer else None


@dataclass(frozen=True, slots=True)
class Contract:
    """A standard escrow's contract; a signature is the moment it was given."""

    id: str
    terms: str
    seller_signed_at: datetime | None = None
    buyer_signed_at: datetime | None = None

    @property
    def is_fully_signed(self) -> bool:
        """Whether both parties have signed."""
        return self.seller_signed_at is not None and self.buyer_signed_at is not None


@dataclass(frozen=True, slots=True)
class Clock:
    """In `state`, the clock takes `step` at `due`; in `modes` only."""

    kind: str
    state: str
    modes: frozenset[str]
    due: Callable[[Escrow, datetime, Policy], datetime]
    step: str
    says: str


def expiry_at(now: datetime, policy: Policy) -> datetime:
    """When an escrow that is opened now expires unpaid."""
    return months_later(now, policy.expiry_months)


def _expiry(_: Escrow, now: datetime, policy: Policy) -> datetime:
    return expiry_at(now, policy)


def _overdue(escrow: Escrow, now: datetime, _: Policy) -> datetime:
    return (escrow.paid_at or now) + timedelta(days=escrow.estimated_delivery_days)


def _undelivered(escrow: Escrow, now: datetime, policy: Policy) -> datetime:
    return _overdue(escrow, now, policy) + timedelta(days=policy.overdue_refund_days)


def _completion(_: Escrow, now: datetime, policy: Policy) -> datetime:
    return now + timedelta(days=policy.completion_days)


def _proof_upload(escrow: Escrow, now: datetime, _: Policy) -> datetime:
    return (escrow.paid_at or now) + timedelta(hours=upload_hours(escrow))


def upload_hours(escrow: Escrow) -> int:
    """How long after payment the purchase proof may be uploaded, by the escrow's own policy."""
    hours = (escrow.fulfillment_policy or {}).get("proofUploadDeadlineHours")
    if type(hours) is not int:
        raise AssertionError(f"escrow {escrow.id} has no policy with an upload deadline")
    return hours


# fmt: off
CLOCKS = (
    #     kind                state      modes due           step              when
    Clock("expiry",           PENDING,   _A,   _expiry,      "cancel",         "after 1 month"),
    Clock("proof_upload",     PAID,      _P,   _proof_upload, "expire_proof",  "by its policy"),
    Clock("delivery_overdue", PAID,      _A,   _overdue,     "note_overdue",   "as estimated"),
    Clock("overdue_refund",   PAID,      _I,   _undelivered, "refund_overdue", "3 days after that"),
    Clock("completion",       DELIVERED, _Q,   _completion,  "complete",       "after 7 days"),
)
# fmt: on
STEP_OF_KIND = {clock.kind: clock.step for clock in CLOCKS} | {"acknowledged": "deliver"}
"""Which step each kind of deadline takes; `acknowledged` is armed by a partner's 2xx."""
ENDED_BY_TIME = tuple(
    (mode, clock.state, clock.kind)
    for clock in CLOCKS
    for mode in sorted(clock.modes)
    for row in (TABLE.find(clock.step, clock.state, mode),)
    if row is not None and row.target != clock.state
)
"""(mode, state, kind): while in this state, this deadline is open. The others wait for a person."""


def months_later(start: datetime, months: int) -> datetime:
    """The same day `months` calendar months on, or that month's last day."""
    index = start.year * 12 + start.month - 1 + months
    year, month = divmod(index, 12)
    day = min(start.day, calendar.monthrange(year, month + 1)[1])
    return start.replace(year=year, month=month + 1, day=day)


def armed(escrow: Escrow, now: datetime, policy: Policy) -> Iterator[tuple[str, datetime]]:
    """The deadlines (kind, due) that entering the escrow's present state arms.

    One that would be due in the past has done its work before (paid again after a rejected
    delivery) and is not armed anew.
    """
    for clock in CLOCKS:
        if clock.state == escrow.status and escrow.mode in clock.modes:
            due = clock.due(escrow, now, policy)
            if due > now:
                yield clock.kind, due


def roles(actor: Actor, escrow: Escrow) -> frozenset[Role]:
    """In which capacities this actor stands to this escrow."""
    if actor.kind is ActorKind.CLOCK:
        return frozenset({Role.CLOCK})
    if actor.kind is ActorKind.SYSTEM:
        return frozenset({Role.SYSTEM})
    if actor.kind is ActorKind.OPERATOR:
        return frozenset({Role.OPERATOR})
    held = set()
    if actor.user_id is not None and actor.user_id == escrow.seller_id:
        held.add(Role.SELLER)
    if actor.user_id is not None and actor.user_id == escrow.buyer_id:
        held.add(Role.BUYER)
    if actor.developer_id is not None and actor.developer_id == escrow.creator_id:
        held.add(Role.CREATOR)
    return frozenset(held)


def choose(name: str, escrow: Escrow, actor: Actor, target: str | None = None) -> Step:
    """The table's row for this step now, by this actor; refuses in the spec's order.

    Order: who may at all (403), then frozen, then the state (400/409).
    """
    allowed = frozenset(
        role for row in STEPS if row.name == name and escrow.mode in row.modes for role in row.who
    )
    held = roles(actor, escrow)
    if allowed and not held & allowed:
        raise errors.WrongParty(party=_people(allowed), act=_verb(name))
    if escrow.frozen and name not in FLAGS:
        raise errors.EscrowFrozen
    row = TABLE.find(name, escrow.status, escrow.mode, target)
    if row is None:
        raise wrong_state(name, escrow)
    if not held & row.who:
        raise errors.WrongParty(party=_people(row.who), act=_verb(name))
    if name == "deliver" and escrow.mode == PROOF:
        raise errors.ProofNotAccepted  # no proof can be handed in yet, so none was accepted
    return row


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that was taken: the escrow before and after it, and the money that moves."""

    row: Step
    before: Escrow
    after: Escrow
    postings: tuple[Posting, ...] = ()

    @property
    def events(self) -> tuple[str | None, ...]:
        """One entry an event row; None for a step that only the audit trail sees."""
        return self.row.events or (None,)

    @property
    def leaves_state(self) -> bool:
        """Whether the clocks of the state before stop and those of the one after start."""
        return self.row.source != self.row.target


def take(
    row: Step, escrow: Escrow, actor: Actor, now: datetime, *, sellers_part: int | None = None
) -> Taken:
    """The escrow after this step, and what it posts. Pure: nothing has happened yet.

    `sellers_part` (minor units, more than 0) is the seller's of a split; the rest is refunded.
    """
    after = replace(
        escrow,
        **_moments(row, escrow, now),
        status=row.target,
        updated_at=now,
        seq=escrow.seq + max(1, len(row.events)),
        frozen=FLAGS.get(row.name, escrow.frozen),
        cancel_reason=cancel_reason(row, actor, escrow),
        completion_deadline=escrow.completion_deadline if row.source == row.target else None,
    )
    match row.moves:
        case Movement.HOLD:
            return _held(row, escrow, after)
        case Movement.RELEASE:
            return _settled(row, escrow, after, sellers_part=escrow.held_minor)
        case Movement.REFUND:
            return _settled(row, escrow, after, sellers_part=0)
        case Movement.SPLIT:
            if sellers_part is None or not 0 < sellers_part <= escrow.held_minor:
                raise AssertionError(f"escrow {escrow.id} cannot be split at {sellers_part}")
            return _settled(row, escrow, after, sellers_part=sellers_part)
    return Taken(row, escrow, after)


def _moments(row: Step, escrow: Escrow, now: datetime) -> dict[str, Any]:
    """The moment of each state; a rejected delivery takes its moment back."""
    if row.source == row.target:
        return {}
    match row.target:
        case "paid":
            return {"delivered_at": None, "paid_at": escrow.paid_at or now}
        case "delivered":
            return {"delivered_at": escrow.delivered_at or now}
        case "completed":
            delivered_at = now if row.name == "deliver" else escrow.delivered_at
            return {"delivered_at": delivered_at, "completed_at": now}
        case "cancelled":
            return {"cancelled_at": now}
    return {}


def _held(row: Step, escrow: Escrow, after: Escrow) -> Taken:
    if escrow.buyer is None:
        raise AssertionError(f"escrow {escrow.id} is paid by nobody")
    amount = escrow.amount_ledger_minor
    payer = wallet(escrow.buyer.id)
    return Taken(
        row,
        escrow,
        replace(after, funded_minor=amount, held_minor=amount),
        tuple(hold(escrow.id, payer, amount, escrow.ledger_currency)),
    )


def _settled(row: Step, escrow: Escrow, after: Escrow, *, sellers_part: int) -> Taken:
    """What is held leaves: the seller's part less fees to the seller, the rest to the buyer."""
    if escrow.seller is None or escrow.buyer is None:
        raise AssertionError(f"escrow {escrow.id} holds money and lacks a party")
    refunded = escrow.held_minor - sellers_part
    legs = refund(escrow.id, wallet(escrow.buyer.id), refunded, escrow.ledger_currency)
    parts = Shares(0, 0, 0)
    if sellers_part:
        parts = shares(
            sellers_part,
            escrow.amount_ledger_minor,
            escrow.escrow_fee_minor,
            escrow.developer_fee_minor,
        )
        legs += release(
            escrow.id,
            escrow.seller.id,
            escrow.developer_fee_user_id,
            parts,
            escrow.ledger_currency,
        )
    settled = replace(
        after,
        held_minor=0,
        refunded_minor=escrow.refunded_minor + refunded,
        released_minor=escrow.released_minor + parts.net,
        fees_minor=escrow.fees_minor + parts.platform + parts.developer,
    )
    return Taken(row, escrow, settled, tuple(legs))


def wrong_state(name: str, escrow: Escrow) -> Refused:
    """Why this step is not to be had in this state, as the spec words it."""
    status = escrow.status
    sources = sorted(TABLE.sources(name, escrow.mode), key=STATUSES.index)
    if name in ("accept_pay", "approve_deposit", "sign_contract", "complete") and sources:
        if status == CANCELLED:
            return errors.EscrowCancelled()
        if name != "complete":
            return errors.PaymentAlreadyDone(status=status)
        if status == COMPLETED:
            return errors.EscrowAlreadyCompleted()
        return errors.EscrowNotDelivered(status=status)
    if name == "reject_delivery" and status == DISPUTED:
        return errors.DisputeOpen(act=_verb(name))
    hint = _AFTER_PAYMENT if name == "cancel" else ""
    needed = " or ".join(sources) or "in another mode"
    return errors.WrongStatus(status=status, needed=needed, act=_verb(name), hint=hint)


def cancel_reason(row: Step, actor: Actor, escrow: Escrow) -> str | None:
    """What `cancelReason` says after this step; None unless it cancels or has been cancelled."""
    if row.source == row.target:
        return escrow.cancel_reason
    if row.target != CANCELLED:
        return None
    if row.name in _REASONS:
        return _REASONS[row.name]
    held = roles(actor, escrow)
    if Role.CLOCK in held:
        return "expired"
    return next(role.value for role in (Role.SELLER, Role.BUYER, Role.CREATOR) if role in held)


_AFTER_PAYMENT = (
    " Once it is paid a buyer asks with request_cancellation and a seller cancels with"
    " cancel_escrow, through a checkout session."
)
_REASONS = {
    "accept_cancellation": "request_accepted",
    "cancel_escrow": "seller",
    "expire_proof": "proof_expired",
    "reject_proof": "proof_rejected",
    "refund_overdue": "undelivered",
    "resolve_dispute": "dispute",
}


def _verb(name: str) -> str:
    return name.replace("_", " ")


def _people(who: frozenset[str]) -> str:
    people = [r for r in Role if r in who and r not in (Role.CLOCK, Role.SYSTEM)]
    return " or ".join(people) if people else "system"
