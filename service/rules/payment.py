"""THE TABLE of payments: money from the outside and to it. Sources: ledger.md 2, escrows.md 5, 6.

Four kinds, and five modes, since a guest's payment has no wallet to be promised to. Every state
names the account that holds the money (`HOLDERS`), every step what it posts. A final payment
stays as it is: money that comes for it afterwards is a payment of its own (`receive_stray`), which
lies in clearing and waits for the operator. `judge` says which step follows from what the outside
reports, however often, late or in whatever order it reports it.
"""

import re
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from uuid import UUID

from service.rules import postings
from service.rules.errors import PaymentNotOpen
from service.rules.machine import NOWHERE, Movement, Role, Step, Table
from service.rules.money import EXPONENTS, MAX_MINOR
from service.rules.postings import Account, Posting

TOPUP, ACCEPT_PAY, PAYOUT, REFUND = "topup", "accept_pay", "payout", "refund"
KINDS = (TOPUP, ACCEPT_PAY, PAYOUT, REFUND)
GUEST = "guest_pay"
"""The mode of an `accept_pay` that nobody with a wallet pays."""
MODES = (*KINDS, GUEST)

CREATED, PENDING, NEEDS_OPERATOR = "created", "pending", "needs_operator"
SUCCEEDED, FAILED, CANCELLED = "succeeded", "failed", "cancelled"
STATES = (CREATED, PENDING, SUCCEEDED, FAILED, CANCELLED, NEEDS_OPERATOR)
FINAL = frozenset({SUCCEEDED, FAILED, CANCELLED})
OPEN = frozenset({CREATED, PENDING})
"""Under way: the outside is asked about these until it has said how they end."""

SANDBOX, BANK_TRANSFER, STRIPE = "sandbox", "bank_transfer", "stripe"
PROVIDERS = (SANDBOX, BANK_TRANSFER, STRIPE)
BY_HAND = frozenset({BANK_TRANSFER})
"""Nobody notifies us of these: the operator reads a bank statement and decides."""

_W = frozenset({TOPUP, ACCEPT_PAY})  # into a wallet
_G = frozenset({GUEST})
_I = _W | _G  # in
_O = frozenset({PAYOUT})
_R = frozenset({REFUND})
_ALL = _I | _O | _R

_PAYER = frozenset({Role.BUYER})
_PAYEE = frozenset({Role.SELLER})
_OPERATOR = frozenset({Role.OPERATOR})
_SYSTEM = frozenset({Role.SYSTEM})
_ENDER = _PAYER | _SYSTEM | frozenset({Role.CLOCK})
_FINDER = _SYSTEM | _OPERATOR

_NO, _PROMISE, _FORGO, _SETTLE = Movement.NONE, Movement.PROMISE, Movement.FORGO, Movement.SETTLE
_RECEIVE, _DIVERT, _CREDIT = Movement.RECEIVE, Movement.DIVERT, Movement.CREDIT
_RESERVE, _RETURN = Movement.RESERVE, Movement.RETURN
_PAY_OUT, _PAY_BACK = Movement.PAY_OUT, Movement.PAY_BACK


def _each(
    name: str,
    who: frozenset[Role],
    sources: tuple[str, ...],
    target: str,
    modes: frozenset[str],
    moves: Movement,
    says: str,
) -> tuple[Step, ...]:
    return tuple(Step(name, who, source, target, modes, moves, (), says) for source in sources)


_BOTH = (CREATED, PENDING)
_NEW, _ASK = (NOWHERE,), (NEEDS_OPERATOR,)

# fmt: off
STEPS = (
    # what comes in         who        from    to              modes    moves
    *_each("begin",         _PAYER,    _NEW,   CREATED,        _W,      _PROMISE,
           "Somebody pays into their wallet; it is promised and cannot be spent."),
    *_each("begin",         _PAYER,    _NEW,   CREATED,        _G,      _NO,
           "A guest chose how to pay."),
    *_each("hand_over",     _SYSTEM,   (CREATED,), PENDING,    _W | _R, _NO,
           "The provider has it."),
    *_each("prove",         _PAYER,    (CREATED,), PENDING,    _I,      _NO,
           "A proof of the bank transfer is uploaded."),
    *_each("settle",        _SYSTEM,   _BOTH,  SUCCEEDED,      _W,      _SETTLE,
           "The provider has the money: it is in the wallet."),
    *_each("approve",       _OPERATOR, _BOTH,  SUCCEEDED,      _W,      _SETTLE,
           "The operator has seen the transfer: it is in the wallet."),
    *_each("approve",       _OPERATOR, _BOTH,  SUCCEEDED,      _G,      _RECEIVE,
           "The operator has seen the transfer; the escrow's own step holds it."),
    *_each("decline",       _SYSTEM,   _BOTH,  FAILED,         _W,      _FORGO,
           "The provider says that it was not paid."),
    *_each("reject",        _OPERATOR, _BOTH,  FAILED,         _W,      _FORGO,
           "The operator finds no such transfer."),
    *_each("reject",        _OPERATOR, _BOTH,  FAILED,         _G,      _NO,
           "The operator finds no such transfer."),
    *_each("cancel",        _ENDER,    _BOTH,  CANCELLED,      _W,      _FORGO,
           "The payer turned away, or what was to be paid is no more."),
    *_each("cancel",        _ENDER,    _BOTH,  CANCELLED,      _G,      _NO,
           "The guest turned away, or what was to be paid is no more."),
    *_each("receive_wrong", _FINDER,   _BOTH,  NEEDS_OPERATOR, _W,      _DIVERT,
           "Money came, of another amount or currency."),
    *_each("receive_wrong", _FINDER,   _BOTH,  NEEDS_OPERATOR, _G,      _RECEIVE,
           "Money came, of another amount or currency, or with no escrow left to hold it."),
    *_each("escalate",      _SYSTEM,   _BOTH,  NEEDS_OPERATOR, _W,      _FORGO,
           "The outside does not say how it ended."),
    *_each("receive_late",  _FINDER,   _ASK,   NEEDS_OPERATOR, _W,      _RECEIVE,
           "Money came while the operator was looking for it."),
    *_each("receive_stray", _FINDER,   _NEW,   NEEDS_OPERATOR, _ALL,    _RECEIVE,
           "Money came for a payment that was over, or what had left came back."),
    *_each("credit",        _OPERATOR, _ASK,   SUCCEEDED,      _W,      _CREDIT,
           "The operator gives what came to the wallet."),
    *_each("credit",        _OPERATOR, _ASK,   SUCCEEDED,      _G,      _NO,
           "The operator gives what came to the escrow, whose own step holds it."),
    *_each("send_back",     _OPERATOR, _ASK,   CANCELLED,      _I,      _NO,
           "What came is to go back: a refund takes it over."),
    *_each("write_off",     _OPERATOR, _ASK,   FAILED,         _W,      _NO,
           "Nothing came."),

    # what goes out
    *_each("begin",         _PAYEE,    _NEW,   CREATED,        _O,      _RESERVE,
           "A payout is asked for; it has left what can be spent."),
    *_each("take_up",       _OPERATOR, (CREATED,), PENDING,    _O,      _NO,
           "The operator makes the bank transfer now: it cannot be taken back any more."),
    *_each("approve",       _OPERATOR, (PENDING,), SUCCEEDED,  _O,      _PAY_OUT,
           "The operator has made the bank transfer."),
    *_each("reject",        _OPERATOR, _BOTH,  FAILED,         _O,      _RETURN,
           "The operator makes no transfer: it can be spent again."),
    *_each("cancel",        _PAYEE,    (CREATED,), CANCELLED,  _O,      _RETURN,
           "Taken back in time: it can be spent again."),
    *_each("credit",        _OPERATOR, _ASK,   CANCELLED,      _O,      _CREDIT,
           "The payout came back: it can be spent again."),
    *_each("open_refund",   _SYSTEM,   _NEW,   NEEDS_OPERATOR, _R,      _NO,
           "What lies in clearing is to go back; the operator decides how."),
    *_each("send",          _OPERATOR, _ASK,   CREATED,        _R,      _NO,
           "The provider is to send it back."),
    *_each("settle",        _SYSTEM,   (*_BOTH, NEEDS_OPERATOR), SUCCEEDED, _R, _PAY_BACK,
           "The provider has sent it back."),
    *_each("approve",       _OPERATOR, _ASK,   SUCCEEDED,      _R,      _PAY_BACK,
           "The operator has sent it back by hand, or seen that the provider did."),
    *_each("decline",       _SYSTEM,   (*_BOTH, NEEDS_OPERATOR), FAILED, _R, _NO,
           "The provider does not send it back: another refund takes it over."),
    *_each("reject",        _OPERATOR, _ASK,   FAILED,         _R,      _NO,
           "The operator finds that the provider did not: another refund takes it over."),
    *_each("escalate",      _SYSTEM,   _BOTH,  NEEDS_OPERATOR, _R,      _NO,
           "The provider does not say whether it was sent back."),
)
# fmt: on
TABLE = Table("payment", STEPS, FINAL)

_OUT = "outside"
_OF_WALLET = {
    **dict.fromkeys((NOWHERE, FAILED, CANCELLED), _OUT),
    **dict.fromkeys((CREATED, PENDING), "pending"),
    SUCCEEDED: "available",
    NEEDS_OPERATOR: "clearing",
}
HOLDERS: Mapping[str, Mapping[str, str]] = {
    TOPUP: _OF_WALLET,
    ACCEPT_PAY: _OF_WALLET,
    GUEST: {
        **dict.fromkeys((NOWHERE, CREATED, PENDING, FAILED, CANCELLED), _OUT),
        SUCCEEDED: "held",
        NEEDS_OPERATOR: "clearing",
    },
    PAYOUT: {
        **dict.fromkeys((NOWHERE, FAILED, CANCELLED), "available"),
        **dict.fromkeys((CREATED, PENDING), "pending"),
        SUCCEEDED: _OUT,
        NEEDS_OPERATOR: "clearing",
    },
    REFUND: {
        **dict.fromkeys((NOWHERE, CREATED, PENDING, NEEDS_OPERATOR, FAILED), "clearing"),
        SUCCEEDED: _OUT,
    },
}
"""Mode -> state -> the kind of account that holds the money.

Two things need saying beside it. What needs the operator holds what was received, be it nothing.
A stray is outside before it came, whatever its mode; one that is sent back leaves its money in
clearing, as a refund does that failed, and the refund that takes it over holds it.
"""


@dataclass(frozen=True, slots=True)
class Payment:
    """One payment. Amounts are minor units; `received` is what has come, 0 while nothing has.

    `provider_reference` is the provider's name for what we asked of it, `charge_reference` its name
    for the money that came: a second report of the same charge is a repetition. `expected_minor` is
    the escrow's amount as the payer was shown it. Times are real; `ask_at` is when the outside is
    asked next, `asked_at` when it last answered. `payee` is to whom a payout goes: a name and an
    account. `seq` counts its events.
    """

    id: str
    kind: str
    state: str
    provider: str
    amount_minor: int
    currency: str
    user_id: str | None = None
    escrow_id: str | None = None
    provider_reference: str | None = None
    charge_reference: str | None = None
    received_minor: int = 0
    received_currency: str | None = None
    origin_id: str | None = None
    session_id: UUID | None = None
    expected_minor: int | None = None
    payer_email: str | None = None
    page_url: str | None = None
    proof_file: str | None = None
    payee: str | None = None
    note: str | None = None
    seq: int = 0
    expires_at: datetime | None = None
    created_at: datetime | None = None
    asked_at: datetime | None = None
    ask_at: datetime | None = None
    decided_by: str | None = None
    settled_at: datetime | None = None

    @property
    def is_open(self) -> bool:
        """Whether it is under way."""
        return self.state in OPEN

    @property
    def mode(self) -> str:
        """The table's mode: the kind, but for a guest's."""
        return GUEST if self.kind == ACCEPT_PAY and self.user_id is None else self.kind


class Outcome(StrEnum):
    """How a payment stands, in the outside's words."""

    PENDING = "pending"
    SUCCEEDED = "succeeded"
    FAILED = "failed"
    CANCELLED = "cancelled"


@dataclass(frozen=True, slots=True)
class Report:
    """What the outside says of a payment, asked or unasked. The amount is in minor units.

    `charge_reference` is stable: the same money is always reported under the same name.
    `is_of_refund`: the money goes out again.

    Raises:
        ValueError: money that came must be an amount which the ledger can keep.
    """

    outcome: Outcome
    amount_minor: int
    currency: str
    charge_reference: str
    is_of_refund: bool = False

    def __post_init__(self) -> None:
        if type(self.amount_minor) is not int:
            raise ValueError(f"{self.amount_minor!r} is no whole number of minor units")
        if self.currency not in EXPONENTS or not 0 < self.amount_minor <= MAX_MINOR:
            raise ValueError(f"{self.amount_minor} {self.currency} cannot be kept")


ASK_AFTER = timedelta(seconds=30)
"""A payment that is under way for so long is asked about; then ever less often."""
ASK_AT_MOST = timedelta(minutes=5)
PAGE_OPEN = timedelta(minutes=30)
"""How long a provider's page may be used."""
BY_HAND_OPEN = timedelta(days=14)
"""How long a bank transfer into a wallet is waited for."""
OPEN_MAX = 10
"""So many payments of one person into their wallet may be under way at once."""
ASKED_LATELY = timedelta(seconds=5)
"""A page does not ask the outside again about what it has told so lately."""
ESCALATE_AFTER = timedelta(hours=1)
"""Beyond its end the outside must have said how it ended; then the operator looks."""


def ask_again(age: timedelta) -> timedelta:
    """How long until the outside is asked again, at this age: 30 s, 1, 2, 4, then 5 minutes."""
    wait = ASK_AFTER
    while wait < min(age, ASK_AT_MOST):
        wait *= 2
    return min(wait, ASK_AT_MOST)


def holder(payment: Payment) -> Account:
    """The account that holds this payment's money as it stands."""
    kind = HOLDERS[payment.mode][payment.state]
    owners = {"held": payment.escrow_id, "clearing": payment.provider, _OUT: payment.provider}
    owner = owners.get(kind, payment.user_id)
    if owner is None:
        raise AssertionError(f"payment {payment.id} has nobody whose {kind} could hold it")
    return Account(kind, owner)


def choose(payment: Payment, name: str, who: Role) -> Step:
    """The row of this step as the payment stands.

    Raises:
        PaymentNotOpen: it does not lead anywhere from here, or not for this role.
    """
    row = TABLE.find(name, payment.state, payment.mode)
    obstacle = GUARDS.get(name, _nothing)
    if row is None or who not in row.who or obstacle(payment):
        raise PaymentNotOpen(state=payment.state, act=name.replace("_", " "))
    return row


def _nothing(_: Payment) -> bool:
    return False


def _is_reported(payment: Payment) -> bool:
    """The provider says how it ends: by hand, money would come from nothing."""
    return payment.mode in _I and payment.provider not in BY_HAND


def _was_not_sent(payment: Payment) -> bool:
    """A refund that no provider was asked for: it cannot have failed there."""
    return payment.mode == REFUND and payment.ask_at is None


def _was_sent(payment: Payment) -> bool:
    """A provider was asked, and would give the same refund again, however it ended."""
    return payment.ask_at is not None


def _is_not_rejectable(payment: Payment) -> bool:
    return _is_reported(payment) or _was_not_sent(payment)


def _is_empty(payment: Payment) -> bool:
    return payment.received_minor == 0


def _is_full(payment: Payment) -> bool:
    return payment.received_minor != 0


def _is_not_creditable(payment: Payment) -> bool:
    """A guest's escrow takes exactly what was asked; a wallet takes whatever came."""
    if payment.mode != GUEST:
        return _is_empty(payment)
    came = (payment.received_minor, payment.received_currency)
    return payment.escrow_id is None or came != (payment.amount_minor, payment.currency)


GUARDS: Mapping[str, Callable[[Payment], bool]] = {
    "approve": _is_reported,
    "reject": _is_not_rejectable,
    "send": _was_sent,
    "receive_late": _is_full,
    "credit": _is_not_creditable,
    "send_back": _is_empty,
    "write_off": _is_full,
}
"""What stands against a step beyond the state and the role."""


def legs(row: Step, payment: Payment, report: Report | None = None) -> list[Posting]:
    """What this step posts for this payment; `report` where money came, and how much.

    A guest's payment that ends well posts up to clearing: from there the escrow's own step takes
    it (`postings.hold` with `postings.clearing(provider)` as the payer).
    """
    provider, amount, currency = payment.provider, payment.amount_minor, payment.currency
    came = (report.amount_minor, report.currency) if report else (amount, currency)
    match row.moves:
        case Movement.NONE:
            return []
        case Movement.RECEIVE:
            return postings.receive(provider, *came)
        case Movement.PAY_BACK:
            return postings.pay_back(provider, amount, currency)
    user_id = payment.user_id
    if user_id is None:
        raise AssertionError(f"payment {payment.id} has no wallet to {row.moves}")
    return _legs_of_wallet(row.moves, payment, user_id, came)


def _legs_of_wallet(
    moves: Movement, payment: Payment, user_id: str, came: tuple[int, str]
) -> list[Posting]:
    provider, amount, currency = payment.provider, payment.amount_minor, payment.currency
    forgone = postings.forgo(user_id, provider, amount, currency)
    match moves:
        case Movement.PROMISE:
            return postings.promise(user_id, provider, amount, currency)
        case Movement.FORGO:
            return forgone
        case Movement.SETTLE:
            return forgone + postings.top_up(user_id, provider, amount, currency)
        case Movement.DIVERT:
            return forgone + postings.receive(provider, *came)
        case Movement.CREDIT:
            received = payment.received_currency or currency
            return postings.credit(user_id, provider, payment.received_minor, received)
        case Movement.RESERVE:
            return postings.reserve(user_id, amount, currency)
        case Movement.RETURN:
            return postings.unreserve(user_id, amount, currency)
        case Movement.PAY_OUT:
            return postings.pay_out(user_id, provider, amount, currency)
    raise AssertionError(f"no payment moves its money by {moves}")


def judge(payment: Payment, report: Report, booked: Collection[str]) -> str | None:
    """The step that follows from a report, or None where it changes nothing.

    `booked` are the charges that this payment and those which strayed from it have received.
    `receive_stray` is the first step of another payment, whose origin this one is; every other is
    a step of this one. A repetition, and whatever came too late to matter, changes nothing; money
    never goes unnoticed.
    """
    if payment.mode == REFUND:
        return _judge_refund(payment, report, booked)
    if payment.mode not in _I:
        raise AssertionError(f"payment {payment.id}: nobody reports a {payment.mode}")
    if report.outcome is Outcome.SUCCEEDED:
        return _judge_money(payment, report, booked)
    if report.outcome is Outcome.PENDING:
        return "hand_over" if payment.state == CREATED and payment.mode in _W else None
    if payment.state not in OPEN:
        return None
    # A guest is not declined by a provider: the proof that was uploaded is the operator's to judge.
    ended = "decline" if payment.mode in _W else None
    return ended if report.outcome is Outcome.FAILED else "cancel"


def _judge_money(payment: Payment, report: Report, booked: Collection[str]) -> str | None:
    if report.charge_reference in booked:
        return None
    if payment.state in FINAL:
        return "receive_stray"
    if payment.state == NEEDS_OPERATOR:
        is_found = payment.received_minor > 0 or payment.mode == GUEST
        return "receive_stray" if is_found else "receive_late"
    asked = (payment.amount_minor, payment.currency)
    if payment.mode == GUEST or asked != (report.amount_minor, report.currency):
        return "receive_wrong"
    return "settle"


def _judge_refund(payment: Payment, report: Report, booked: Collection[str]) -> str | None:
    outcome = report.outcome
    has_failed = outcome in (Outcome.FAILED, Outcome.CANCELLED)
    if payment.state == SUCCEEDED and has_failed:
        return None if report.charge_reference in booked else "receive_stray"
    if payment.state in FINAL:
        return None
    if outcome is Outcome.SUCCEEDED:
        return "settle"
    if outcome is Outcome.PENDING:
        return "hand_over" if payment.state == CREATED else None
    return "decline"


def is_sent_after_all(payment: Payment, report: Report) -> bool:
    """Whether money has left by a refund that was over as failed: another may pay it twice."""
    is_failed_refund = payment.mode == REFUND and payment.state == FAILED
    return is_failed_refund and report.outcome is Outcome.SUCCEEDED


def page_of(payment: Payment) -> str:
    """The path of this payment's own page; a guest's has the session's handle in it."""
    if payment.user_id is None and payment.session_id is not None:
        return f"/pay/{payment.id}/{payment.session_id}"
    return f"/pay/{payment.id}"


def home_of(payment: Payment) -> str:
    """The path of where this payment was begun, and where its payer goes on."""
    if payment.session_id is not None:
        return f"/checkout/{payment.session_id}"
    if payment.escrow_id is not None:
        return f"/dashboard/escrow/{payment.escrow_id}"
    return "/dashboard/wallet"


_GROUP = 4
# Every place where six groups stand, also where two such places overlap.
_WRITTEN = re.compile(r"(?<![0-9a-f])(?=([0-9a-f]{4}(?:[ -]?[0-9a-f]{4}){5})(?![0-9a-f]))")


def transfer_reference(payment_id: str) -> str:
    """What the payer writes on a bank transfer: the id, in capitals and groups of four."""
    groups = (payment_id[n : n + _GROUP] for n in range(0, len(payment_id), _GROUP))
    return "-".join(groups).upper()


def payment_of_transfer(text: str) -> str | None:
    """The payment that a bank statement's line names; None where it could be more than one."""
    found = {re.sub(r"[ -]", "", written) for written in _WRITTEN.findall(text.lower())}
    return found.pop() if len(found) == 1 else None
