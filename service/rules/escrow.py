"""THE TABLE of the buyer-seller family. Source: escrows.md 4.

Everything that moves an escrow stands in `STEPS`: a person's step and the clock's are the same
row. When the clock takes one stands in `clocks.py`.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any

from service.rules import errors, proof
from service.rules.aggregate import (
    ACCEPTED,
    CLOSED,
    REJECTED,
    CancellationRequest,
    Escrow,
    PurchaseProof,
    Settlement,
)
from service.rules.errors import Refused
from service.rules.fees import Shares, shares
from service.rules.machine import NOWHERE, Actor, ActorKind, Movement, Role, Step, Table
from service.rules.postings import Account, Posting, clearing, hold, refund, release, wallet

PENDING, PAID, DELIVERED = "pending", "paid", "delivered"
COMPLETED, CANCELLED, DISPUTED = "completed", "cancelled", "disputed"
STATUSES = (PENDING, PAID, DELIVERED, COMPLETED, CANCELLED, DISPUTED)
FINAL = frozenset({COMPLETED, CANCELLED})

STANDARD, QUICK, PROOF, INSTANT = "standard", "quick", proof.MODE, "instant"
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
    Step("remind_dispute",       _CLOCK,      DISPUTED,  DISPUTED,  _A,   _NO,      (),
         "The other party is reminded to answer before the clock decides."),
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


def check_role(name: str, escrow: Escrow, actor: Actor) -> frozenset[Role]:
    """The actor's roles here; WrongParty where none of them ever takes this step."""
    allowed = frozenset(
        role for row in STEPS if row.name == name and escrow.mode in row.modes for role in row.who
    )
    held = roles(actor, escrow)
    if allowed and not held & allowed:
        raise errors.WrongParty(party=_people(allowed), act=_verb(name))
    return held


def choose(name: str, escrow: Escrow, actor: Actor, target: str | None = None) -> Step:
    """The table's row for this step now, by this actor; refuses in the spec's order.

    Order: who may at all (403), then frozen, then the state (400/409), then what else stands
    against it. `target` where one step leads to two states and the escrow does not say to which.
    """
    held = check_role(name, escrow, actor)
    if escrow.frozen and name not in FLAGS:
        raise errors.EscrowFrozen
    if name == "withdraw_dispute" and escrow.dispute is not None:
        target = escrow.dispute.back_to
    row = TABLE.find(name, escrow.status, escrow.mode, target)
    if row is None:
        raise wrong_state(name, escrow)
    if not held & row.who:
        raise errors.WrongParty(party=_people(row.who), act=_verb(name))
    obstacle = GUARDS[name](escrow, held) if name in GUARDS else None
    if obstacle is not None:
        raise obstacle
    return row


def _no_delivery(escrow: Escrow, _: frozenset[Role]) -> Refused | None:
    if escrow.mode == INSTANT and escrow.has_pending_cancellation:
        return errors.CancellationPending()
    if escrow.proof is not None and escrow.proof.phase not in proof.OPEN_GATE:
        return errors.ProofNotAccepted()
    return None


def _no_payment(escrow: Escrow, _: frozenset[Role]) -> Refused | None:
    if escrow.contract is not None and not escrow.contract.is_fully_signed:
        return errors.ContractNotSigned()
    is_ready = escrow.seller is not None and not escrow.seller_awaits_identity
    return None if is_ready else errors.SellerNotReady()


def _no_signature(escrow: Escrow, held: frozenset[Role]) -> Refused | None:
    contract = escrow.contract
    if contract is None:
        raise AssertionError(f"standard escrow {escrow.id} has no contract")
    signed = contract.seller_signed_at if Role.SELLER in held else contract.buyer_signed_at
    return errors.ContractAlreadySigned() if signed else None


def _no_request(escrow: Escrow, _: frozenset[Role]) -> Refused | None:
    return errors.CancellationAlreadyRequested() if escrow.has_pending_cancellation else None


def _no_answer(escrow: Escrow, _: frozenset[Role]) -> Refused | None:
    return None if escrow.has_pending_cancellation else errors.NoPendingCancellation()


def _no_withdrawal(escrow: Escrow, held: frozenset[Role]) -> Refused | None:
    opener = escrow.dispute.opener if escrow.dispute else ""
    if opener in held:
        return None
    return errors.WrongParty(party=opener, act=_verb("withdraw_dispute"))


def _wrong_phase(name: str) -> "Guard":
    def guard(escrow: Escrow, held: frozenset[Role]) -> Refused | None:
        row = _proof_row(name, escrow)
        if row is None or not held & row.who:
            return errors.ProofWrongPhase(phase=escrow.proof.phase if escrow.proof else "none")
        return None

    return guard


def _proof_row(name: str, escrow: Escrow) -> Step | None:
    return proof.TABLE.find(name, escrow.proof.phase, escrow.mode) if escrow.proof else None


Guard = Callable[[Escrow, frozenset[Role]], Refused | None]
GUARDS: Mapping[str, Guard] = {
    "accept_pay": _no_payment,
    "sign_contract": _no_signature,
    "deliver": _no_delivery,
    "request_cancellation": _no_request,
    "accept_cancellation": _no_answer,
    "reject_cancellation": _no_answer,
    "withdraw_dispute": _no_withdrawal,
    **{
        name: _wrong_phase(name)
        for name in sorted({row.name for row in proof.STEPS} - {"accept_pay"})
    },
}
"""What may stand against a step beyond who takes it and the state that it is taken from."""


@dataclass(frozen=True, slots=True)
class Taken:
    """A step that was taken: the escrow before and after it, and the money that moves.

    `due_at` is when it was due, where the clock took it.
    """

    row: Step
    before: Escrow
    after: Escrow
    postings: tuple[Posting, ...] = ()
    due_at: datetime | None = None

    @property
    def events(self) -> tuple[str | None, ...]:
        """One entry an event row; None for a step that only the audit trail sees."""
        return events_of(self.row, self.before) or (None,)

    @property
    def leaves_state(self) -> bool:
        """Whether the clocks of the state before stop and those of the one after start."""
        return self.row.source != self.row.target


def events_of(row: Step, escrow: Escrow) -> tuple[str, ...]:
    """The row's webhooks; what cancels the escrow also closes a guest's proof, and says so."""
    closes = row.target == CANCELLED and escrow.deposit is not None
    return row.events + _NO_DEPOSIT if closes else row.events


def take(
    row: Step,
    escrow: Escrow,
    actor: Actor,
    now: datetime,
    *,
    changed: Escrow | None = None,
    sellers_part: int | None = None,
) -> Taken:
    """The escrow after this step, and what it posts. Pure: nothing has happened yet.

    `changed` is the escrow with what the actor brought along (other terms, a reason, a person).
    `sellers_part` (minor units, more than 0) is the seller's of a split; the rest is refunded.
    """
    after = replace(
        changed or escrow,
        **_moments(row, escrow, now),
        status=row.target,
        updated_at=now,
        seq=escrow.seq + max(1, len(events_of(row, escrow))),
        frozen=FLAGS.get(row.name, escrow.frozen),
        cancel_reason=cancel_reason(row, actor, escrow),
        completion_deadline=escrow.completion_deadline if row.source == row.target else None,
    )
    after = replace(
        after,
        cancellation=_cancellation(row, after, actor, now),
        proof=_proof(row, after, now),
    )
    if row.target != PENDING and escrow.deposit is not None:
        rejected = escrow.deposit if row.target == CANCELLED else None
        after = replace(after, deposit=None, rejected_deposit=rejected)
    taken = _moved(row, escrow, after, sellers_part)
    if row.name in ("resolve_dispute", "withdraw_dispute"):
        return replace(taken, after=_resolved(row, taken, roles(actor, escrow), now))
    return taken


def _moved(row: Step, escrow: Escrow, after: Escrow, sellers_part: int | None) -> Taken:
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


def _cancellation(
    row: Step, after: Escrow, actor: Actor, now: datetime
) -> CancellationRequest | None:
    """The pending request is answered by its steps, and closed by a dispute and by every end."""
    request = after.cancellation
    if request is None or not after.has_pending_cancellation:
        return request
    match row.name:
        case "accept_cancellation" | "reject_cancellation":
            status = ACCEPTED if row.name == "accept_cancellation" else REJECTED
            answered_by = after.seller if Role.SELLER in roles(actor, after) else None
            return replace(request, status=status, answered_at=now, answered_by=answered_by)
        case _ if row.target in FINAL or row.name == "dispute":
            return replace(request, status=CLOSED, answered_at=now)
    return request


def _proof(row: Step, after: Escrow, now: datetime) -> PurchaseProof | None:
    """The proof's next phase and its deadlines. escrows.md 4."""
    if after.mode != PROOF:
        return None
    if row.name == "accept_pay":
        return PurchaseProof(proof.WAITING, now + timedelta(hours=proof.upload_hours(after)))
    step, standing = _proof_row(row.name, after), after.proof
    if row.name == "withdraw_dispute" and standing is not None and after.dispute is not None:
        return _thawed(standing, now - after.dispute.opened_at)
    if step is None or standing is None:
        return standing
    standing = replace(standing, phase=step.target)
    match step.target:
        case proof.REVIEW:
            begins = max(now, standing.upload_deadline)
            due = begins + timedelta(hours=proof.review_hours(after))
            return replace(standing, review_deadline=due)
        case proof.CORRECTION:
            due = now + timedelta(hours=proof.upload_hours(after))
            rounds = standing.correction_rounds + 1
            return replace(
                standing, upload_deadline=due, review_deadline=None, correction_rounds=rounds
            )
    return standing


def _thawed(standing: PurchaseProof, later: timedelta) -> PurchaseProof:
    """The deadline that stood still is due so much later: what is shown is what fires."""
    if standing.phase in (proof.WAITING, proof.CORRECTION):
        return replace(standing, upload_deadline=standing.upload_deadline + later)
    if standing.phase == proof.REVIEW and standing.review_deadline is not None:
        return replace(standing, review_deadline=standing.review_deadline + later)
    return standing


def _resolved(row: Step, taken: Taken, held: frozenset[Role], now: datetime) -> Escrow:
    """The dispute's end, with how the money was shared where it moved."""
    before, after = taken.before, taken.after
    if after.dispute is None:
        raise AssertionError(f"escrow {after.id} has no dispute to end")
    if row.name == "withdraw_dispute":
        ended = replace(after.dispute, resolved_at=now, outcome="withdrawn")
        return replace(after, dispute=ended)
    refunded = after.refunded_minor - before.refunded_minor
    part = before.held_minor - refunded
    due = _shares(before, part) if part else Shares(0, 0, 0)
    by = next((r.value for r in (Role.OPERATOR, Role.CLOCK) if r in held), "offer")
    settlement = Settlement(part, refunded, due.platform, due.developer, due.net, by)
    outcome = "split" if part and refunded else "seller" if part else "buyer"
    ended = replace(after.dispute, resolved_at=now, outcome=outcome, settlement=settlement)
    return replace(after, dispute=ended)


def _shares(escrow: Escrow, sellers_part: int) -> Shares:
    return shares(
        sellers_part,
        escrow.amount_ledger_minor,
        escrow.escrow_fee_minor,
        escrow.developer_fee_minor,
    )


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


def payer(escrow: Escrow) -> Account:
    """Who funds this escrow and gets a refund: the buyer's wallet, or where a guest's money lies.

    A guest's refund goes to clearing; a payment of its own takes it out of there.
    """
    if escrow.guest_provider is not None:
        return clearing(escrow.guest_provider)
    if escrow.buyer is None:
        raise AssertionError(f"escrow {escrow.id} is paid by nobody")
    return wallet(escrow.buyer.id)


def _held(row: Step, escrow: Escrow, after: Escrow) -> Taken:
    amount = escrow.amount_ledger_minor
    return Taken(
        row,
        escrow,
        replace(after, funded_minor=amount, held_minor=amount),
        tuple(hold(escrow.id, payer(after), amount, escrow.ledger_currency)),
    )


def _settled(row: Step, escrow: Escrow, after: Escrow, *, sellers_part: int) -> Taken:
    """What is held leaves: the seller's part less fees to the seller, the rest to the buyer."""
    if escrow.seller is None or (escrow.buyer is None and escrow.guest_provider is None):
        raise AssertionError(f"escrow {escrow.id} holds money and lacks a party")
    refunded = escrow.held_minor - sellers_part
    legs = refund(escrow.id, payer(escrow), refunded, escrow.ledger_currency)
    parts = Shares(0, 0, 0)
    if sellers_part:
        parts = _shares(escrow, sellers_part)
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
    if sources and name in _CLASHES:
        return _CLASHES[name](status)
    if name == "reject_delivery" and status == DISPUTED:
        return errors.DisputeOpen(act=_verb(name))
    hint = _AFTER_PAYMENT if name == "cancel" else ""
    needed = " or ".join(sources) or "in another mode"
    return errors.WrongStatus(status=status, needed=needed, act=_verb(name), hint=hint)


def _not_payable(status: str) -> Refused:
    if status == CANCELLED:
        return errors.EscrowCancelled()
    return errors.PaymentAlreadyDone(status=status)


def _not_completable(status: str) -> Refused:
    if status == CANCELLED:
        return errors.EscrowCancelled()
    if status == COMPLETED:
        return errors.EscrowAlreadyCompleted()
    return errors.EscrowNotDelivered(status=status)


def _not_disputable(status: str) -> Refused:
    if status == DISPUTED:
        return errors.DisputeAlreadyOpened()
    return errors.DisputeInvalidStatus(status=status)


def _not_cancellable_now(status: str) -> Refused:
    return errors.CancelEscrowInvalidStatus(status=status)


def _not_askable(status: str) -> Refused:
    return errors.CancellationRequestInvalidStatus(status=status)


_CLASHES: Mapping[str, Callable[[str], Refused]] = {
    **dict.fromkeys(("accept_pay", "approve_deposit", "sign_contract"), _not_payable),
    "complete": _not_completable,
    "dispute": _not_disputable,
    "cancel_escrow": _not_cancellable_now,
    "request_cancellation": _not_askable,
    **dict.fromkeys(
        ("accept_cancellation", "reject_cancellation"), lambda _: errors.NoPendingCancellation()
    ),
    **dict.fromkeys(
        ("answer_dispute", "remind_dispute", "resolve_dispute", "withdraw_dispute"),
        lambda _: errors.NoOpenDispute(),
    ),
    **dict.fromkeys(
        sorted({row.name for row in proof.STEPS} - {"accept_pay"}),
        lambda _: errors.ProofWrongPhase(phase="none"),
    ),
}
"""Step -> what is said when it is taken in a status from which it does not lead anywhere."""


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
