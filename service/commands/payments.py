"""Payments: begun, handed over, reported, decided. What follows for escrows: `payment_ends`.

A door asks the outside between `begin` and `hand_over`, never inside of them; whatever is lost on
the way the worker finds by asking. `hear` takes every report, asked for or not, however often.
"""

from dataclasses import dataclass, replace
from uuid import UUID

import structlog

from service.commands.files import record as record_files
from service.commands.payment_ends import (
    OPERATOR,
    approve_deposit,
    check_buyer,
    check_session,
    deposit_of,
    no_more_deposit,
    pay_inline,
    reject_deposit,
    review_over,
    takes_deposit,
    turn_for,
    under_review,
)
from service.commands.payment_mails import tell_payer
from service.commands.payment_steps import blank, open_refund, open_refund_again, start, take
from service.commands.payment_steps import cancel as cancelled
from service.commands.perform import Answer, Command, House, perform
from service.commands.steps import lock
from service.rules.aggregate import Escrow
from service.rules.errors import (
    AmountChanged,
    BalanceTooLarge,
    ChargeBooked,
    NotPayable,
    PaymentNotFound,
    PaymentNotOpen,
    SellerNotReady,
    TooManyPayments,
)
from service.rules.escrow import choose
from service.rules.files import StoredFile
from service.rules.machine import Actor, ActorKind, Role
from service.rules.money import to_decimal
from service.rules.payment import (
    ACCEPT_PAY,
    ASK_AFTER,
    BY_HAND,
    BY_HAND_OPEN,
    CREATED,
    FAILED,
    FINAL,
    GUEST,
    NEEDS_OPERATOR,
    OPEN_MAX,
    PAYOUT,
    REFUND,
    SUCCEEDED,
    TOPUP,
    Outcome,
    Payment,
    Report,
    ask_again,
    is_sent_after_all,
    judge,
)
from service.store.db import Transaction
from service.store.payments import (
    count_open,
    lock_payments,
    note_asked,
    note_placed,
    read_booked,
    read_payment,
)
from service.wire.payments import PaymentAnswer, shape

_ROLES = {
    ActorKind.OPERATOR: Role.OPERATOR,
    ActorKind.CLOCK: Role.CLOCK,
    ActorKind.SYSTEM: Role.SYSTEM,
}
_INCOMING = (TOPUP, ACCEPT_PAY)

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Wish:
    """What somebody wants to pay; minor units. Without `user_id` it is a guest's, with an e-mail.

    `shown_minor` is the escrow's amount, in its own currency, as the payer has seen it.
    `provider` is configured, and has been asked whether it takes the amount: the door's to see to.
    """

    kind: str
    provider: str
    amount_minor: int
    currency: str
    user_id: str | None = None
    escrow_id: str | None = None
    session_id: UUID | None = None
    payer_email: str | None = None
    shown_minor: int | None = None


def begin(wish: Wish) -> Command:
    """A new payment, promised where it is to come into a wallet.

    Raises:
        Refused: the escrow cannot be paid, or not by this person.
        AmountChanged: it is another one by now than the payer has seen.
        NotPayable: a guest pays by bank transfer, and exactly what is asked.
        PaymentUnderWay: a guest's payment for this escrow is under way.
        TooManyPayments: this person has enough of them under way.
        SessionNotPending: the session was spent, cancelled, or has expired.
    """

    async def command(tx: Transaction) -> PaymentAnswer:
        if wish.user_id is not None and await count_open(tx, wish.user_id) >= OPEN_MAX:
            raise TooManyPayments(limit=OPEN_MAX)
        return PaymentAnswer(payment=shape(await begun(tx, wish)))

    return command


async def begun(tx: Transaction, wish: Wish) -> Payment:
    """As `begin`, in whatever transaction."""
    expected = None
    if wish.kind == ACCEPT_PAY:
        if wish.escrow_id is None:
            raise AssertionError("a payment for an escrow names it")
        escrow = await lock(tx, wish.escrow_id)
        if wish.session_id is not None:
            await check_session(tx, wish.session_id, wish.escrow_id)
        expected = escrow.amount_ledger_minor
        if wish.shown_minor not in (None, escrow.amount_minor):
            raise AmountChanged(
                amount=to_decimal(escrow.amount_minor, escrow.currency), currency=escrow.currency
            )
        if wish.user_id is None:
            _check_guest(escrow, wish)
        else:
            check_buyer(tx, escrow, wish.user_id)
    is_by_hand = wish.provider in BY_HAND
    made = blank(tx, wish.kind, wish.provider, wish.amount_minor, wish.currency)
    draft = replace(
        made,
        user_id=wish.user_id,
        escrow_id=wish.escrow_id,
        session_id=wish.session_id,
        payer_email=wish.payer_email,
        expected_minor=expected,
        expires_at=tx.real_now + BY_HAND_OPEN
        if is_by_hand and wish.user_id is not None
        else made.expires_at,
        ask_at=None if is_by_hand else tx.real_now + ASK_AFTER,
    )
    return await start(tx, draft, "begin", Role.BUYER)


def _check_guest(escrow: Escrow, wish: Wish) -> None:
    if wish.session_id is None:
        raise AssertionError("a guest is known by the session alone")
    choose("approve_deposit", escrow, OPERATOR)
    if escrow.seller is None:
        raise SellerNotReady
    if wish.provider not in BY_HAND:
        raise NotPayable(provider=wish.provider, reason="a guest pays by bank transfer")
    if (wish.amount_minor, wish.currency) != (escrow.amount_ledger_minor, escrow.ledger_currency):
        raise NotPayable(provider=wish.provider, reason="the escrow takes exactly its amount")


async def topped_up(
    tx: Transaction, user_id: str, provider: str, amount_minor: int, currency: str
) -> Payment:
    """A top-up that is begun and settled at once: the sandbox's helper.

    Raises:
        BalanceTooLarge: the wallet would pass the ledger's bound.
    """
    payment = await begun(tx, Wish(TOPUP, provider, amount_minor, currency, user_id))
    report = Report(Outcome.SUCCEEDED, amount_minor, currency, payment.id)
    return await take(tx, payment, "settle", Role.SYSTEM, report)


async def paid_at_once(tx: Transaction, wish: Wish) -> Payment:
    """A payment for an escrow that is begun and settled at once: the sandbox's card."""
    payment = await begun(tx, wish)
    report = Report(Outcome.SUCCEEDED, wish.amount_minor, wish.currency, payment.id)
    after = await take(tx, payment, "settle", Role.SYSTEM, report)
    await pay_inline(tx, after, await lock(tx, wish.escrow_id or ""))
    return after


def hand_over(payment_id: str, provider_reference: str, page_url: str) -> Command:
    """The provider has it. A notification may have been here before: then nothing is undone."""

    async def command(tx: Transaction) -> PaymentAnswer:
        payment, _ = await _locked(tx, payment_id)
        if payment.state == CREATED:
            payment = await take(
                tx,
                payment,
                "hand_over",
                Role.SYSTEM,
                provider_reference=provider_reference,
                page_url=page_url,
            )
        elif payment.page_url is None and payment.mode != REFUND:
            await note_placed(tx, payment.id, provider_reference, page_url)
            tx.ring("payments")
        return PaymentAnswer(payment=shape(payment))

    return command


@dataclass(frozen=True, slots=True)
class Heard:
    """What a provider says of a payment. `reference` is its name for it; asked for or not."""

    provider: str
    payment_id: str
    reference: str
    report: Report
    is_answer: bool = False


async def hear(house: House, actor: Actor, heard: Heard) -> Answer:
    """Take a report to heart; what a wallet cannot hold waits in clearing for the operator.

    Raises:
        PaymentNotFound: this provider has no such payment of ours, or no such refund.
        Unavailable: the database is away; nothing was changed.
    """
    try:
        return await perform(house, actor, notify(heard))
    except BalanceTooLarge:
        return await perform(house, actor, notify(heard, fits=False))


def notify(heard: Heard, *, fits: bool = True) -> Command:
    """The step that follows from a report, if any."""

    async def command(tx: Transaction) -> PaymentAnswer:
        payment, escrow = await _locked(tx, heard.payment_id)
        report = heard.report
        is_refund = payment.kind == REFUND
        is_other = payment.provider != heard.provider or payment.kind == PAYOUT
        if is_other or report.is_of_refund != is_refund:
            raise PaymentNotFound  # what goes out must never count as what came in
        booked = await read_booked(tx, payment, report.charge_reference)
        name = judge(payment, report, booked)
        if is_sent_after_all(payment, report):
            log.error("refund_sent_after_all", refund=payment.id, provider=payment.provider)
        if name == "settle" and payment.mode != REFUND and not fits:
            name = "receive_wrong"
        if name is not None:
            payment = await _follow_report(tx, payment, escrow, name, heard)
        if heard.is_answer and payment.is_open:
            age = tx.real_now - (payment.created_at or tx.real_now)
            await note_asked(tx, payment.id, tx.real_now + ask_again(age))
        return PaymentAnswer(payment=shape(payment))

    return command


async def _follow_report(
    tx: Transaction, payment: Payment, escrow: Escrow | None, name: str, heard: Heard
) -> Payment:
    report = heard.report
    if name == "receive_stray":
        return await _stray(tx, payment, report, Role.SYSTEM)
    changes = {} if payment.provider_reference else {"provider_reference": heard.reference}
    is_money = name in ("settle", "receive_wrong", "receive_late") and payment.mode != REFUND
    after = await take(tx, payment, name, Role.SYSTEM, report if is_money else None, **changes)
    if after.state == NEEDS_OPERATOR:
        log.warning("payment_needs_operator", payment=after.id, provider=after.provider, step=name)
    await tell_payer(tx, after, name)
    await _refund_again(tx, after)
    if after.state == SUCCEEDED and after.kind == ACCEPT_PAY and escrow is not None:
        await pay_inline(tx, after, escrow)
    return after


async def _stray(tx: Transaction, origin: Payment, report: Report, who: Role) -> Payment:
    """Money for what is over is a payment of its own, which waits for the operator."""
    draft = replace(
        blank(tx, origin.kind, origin.provider, report.amount_minor, report.currency),
        user_id=origin.user_id,
        escrow_id=origin.escrow_id,
        payer_email=origin.payer_email,
        payee=origin.payee,
        expected_minor=origin.expected_minor,
        # A refund that came back is one of the same charge; it is asked for again.
        origin_id=origin.origin_id if origin.kind == REFUND else origin.id,
    )
    stray = await start(tx, draft, "receive_stray", who, report)
    log.warning("payment_strayed", payment=origin.id, stray=stray.id, provider=origin.provider)
    await tell_payer(tx, stray, "receive_stray")
    return stray


async def _refund_again(tx: Transaction, refund: Payment) -> None:
    if refund.kind == REFUND and refund.state == FAILED:
        log.warning("refund_failed", refund=refund.id, provider=refund.provider)
        await open_refund_again(tx, refund)


def prove(payment_id: str, proof: StoredFile | None) -> Command:
    """A proof of the bank transfer is here; its session outlives its 30 minutes.

    The sandbox may do without a file. While a guest's proof is looked at, the escrow cannot expire.
    """

    async def command(tx: Transaction) -> PaymentAnswer:
        payment, escrow = await _locked(tx, payment_id)
        _check_own(tx, payment)
        return PaymentAnswer(payment=shape(await proven(tx, payment, escrow, proof)))

    return command


async def proven(
    tx: Transaction, payment: Payment, escrow: Escrow | None, proof: StoredFile | None
) -> Payment:
    """As `prove`, of the locked payment and its locked escrow."""
    if payment.provider not in BY_HAND:
        raise PaymentNotOpen(state=payment.state, act="prove")
    if proof is not None:
        await record_files(tx, [proof], escrow_id=payment.escrow_id, uploaded_by=payment.user_id)
    key = proof.key if proof else None
    if payment.mode == GUEST and payment.session_id is not None:
        await check_session(tx, payment.session_id, payment.escrow_id)
    after = await take(tx, payment, "prove", Role.BUYER, proof_file=key)
    await under_review(tx, after)
    if after.mode == GUEST and escrow is not None:
        await turn_for(tx, escrow, replace(escrow, deposit=deposit_of(after)))
    return after


def cancel(payment_id: str) -> Command:
    """Whoever pays, or asked for the payout, turns away; the clock where nobody came.

    Raises:
        PaymentNotOpen: it is over.
    """

    async def command(tx: Transaction) -> PaymentAnswer:
        payment, escrow = await _locked(tx, payment_id)
        who = _ROLES.get(tx.actor.kind)
        if who is None:
            _check_own(tx, payment)
            who = Role.SELLER if payment.kind == PAYOUT else Role.BUYER
        after = await cancelled(tx, payment, who)
        await review_over(tx, payment, after)
        await no_more_deposit(tx, escrow)
        return PaymentAnswer(payment=shape(after))

    return command


def end_without_report(payment_id: str, name: str) -> Command:
    """The provider will not say: `decline` what it refused for good, `escalate` what it lost."""

    async def command(tx: Transaction) -> PaymentAnswer:
        payment, _ = await _locked(tx, payment_id)
        if payment.is_open:
            payment = await take(tx, payment, name, Role.SYSTEM)
            await tell_payer(tx, payment, name)
            await _refund_again(tx, payment)
            log.warning("payment_ended_unreported", payment=payment.id, step=name)
        return PaymentAnswer(payment=shape(payment))

    return command


def request_payout(
    user_id: str, provider: str, amount_minor: int, currency: str, payee: str | None = None
) -> Command:
    """The user's money is to leave: it cannot be spent any more from now on.

    `payee` is the name and the account that the operator pays to, at most 500 characters.

    Raises:
        InsufficientFunds: the wallet does not hold it.
    """

    async def command(tx: Transaction) -> PaymentAnswer:
        draft = replace(
            blank(tx, PAYOUT, provider, amount_minor, currency),
            user_id=user_id,
            payee=payee,
            expires_at=tx.real_now + BY_HAND_OPEN,
        )
        payout = await start(tx, draft, "begin", Role.SELLER)
        await tell_payer(tx, payout, "begin")
        return PaymentAnswer(payment=shape(payout))

    return command


def take_up(payout_id: str) -> Command:
    """The operator is about to make this transfer: nobody takes it back any more.

    Raises:
        PaymentNotFound: there is no payout of this id.
        PaymentNotOpen: it was taken back, or somebody has taken it up.
    """

    async def command(tx: Transaction) -> PaymentAnswer:
        payout, _ = await _locked(tx, payout_id)
        if payout.kind != PAYOUT:
            raise PaymentNotFound
        return PaymentAnswer(payment=shape(await take(tx, payout, "take_up", Role.OPERATOR)))

    return command


def returned(payment_id: str, received: tuple[int, str] | None = None) -> Command:
    """The bank has sent back what had left; `received` (minor units, currency) where not all of it.

    It is a payment of its own, which the operator credits; a refund is sent back once more.

    Raises:
        PaymentNotFound: there is none of this id.
        PaymentNotOpen: it has not left.
        ChargeBooked: this was said before.
    """

    async def command(tx: Transaction) -> PaymentAnswer:
        gone, _ = await _locked(tx, payment_id)
        if gone.kind not in (PAYOUT, REFUND) or gone.state != SUCCEEDED:
            raise PaymentNotOpen(state=gone.state, act="return")
        came = received or (gone.amount_minor, gone.currency)
        report = Report(Outcome.SUCCEEDED, *came, f"{gone.id}:returned")
        await _check_unbooked(tx, gone, report)
        return PaymentAnswer(payment=shape(await _stray(tx, gone, report, Role.OPERATOR)))

    return command


@dataclass(frozen=True, slots=True)
class Statement:
    """What a bank statement shows: minor units, the currency, and the bank's name for the line.

    One line is booked once. Without a name it is the payment's only one.
    """

    amount_minor: int
    currency: str
    line: str | None = None

    def report(self, payment: Payment) -> Report:
        """The money that has come."""
        charge = f"{payment.id}:statement" if self.line is None else f"statement:{self.line}"
        return Report(Outcome.SUCCEEDED, self.amount_minor, self.currency, charge)


async def _check_unbooked(tx: Transaction, payment: Payment, report: Report) -> None:
    if report.charge_reference in await read_booked(tx, payment, report.charge_reference):
        raise ChargeBooked(payment=payment.id)


def decide(
    payment_id: str,
    *,
    approves: bool,
    note: str | None = None,
    received: Statement | None = None,
) -> Command:
    """The operator's word; the answer is the payment, or the new one that waits for a word now.

    A transfer that was proven is approved or rejected; what needs the operator is credited, sent
    back or written off; a refund and a payout are marked as made. What a statement shows for a
    transfer that is over is a payment of its own.

    Raises:
        PaymentNotFound: there is none of this id.
        PaymentNotOpen: there is nothing to decide.
        ChargeBooked: this line of the statement was booked before.
        Refused: the escrow cannot be paid any more.
    """

    async def command(tx: Transaction) -> PaymentAnswer:
        payment, escrow = await _locked(tx, payment_id)
        if received is not None and approves and _is_over(payment):
            after = await _found(tx, payment, received)
        elif payment.state in FINAL:
            raise PaymentNotOpen(state=payment.state, act="approve" if approves else "reject")
        else:
            decided = _decided if payment.state == NEEDS_OPERATOR else _answered
            after = await decided(tx, payment, escrow, approves, note, received)
        return PaymentAnswer(payment=shape(after))

    return command


def _is_over(payment: Payment) -> bool:
    """Nothing more is to come for it: what comes all the same is another payment."""
    has_come = payment.state == NEEDS_OPERATOR and payment.received_minor > 0
    return payment.state in FINAL or has_come


async def _found(tx: Transaction, payment: Payment, received: Statement) -> Payment:
    if payment.kind not in _INCOMING or payment.provider not in BY_HAND:
        raise PaymentNotOpen(state=payment.state, act="approve")
    report = received.report(payment)
    await _check_unbooked(tx, payment, report)
    return await _stray(tx, payment, report, Role.OPERATOR)


async def _answered(
    tx: Transaction,
    payment: Payment,
    escrow: Escrow | None,
    approves: bool,  # noqa: FBT001 - the operator's word, handed on
    note: str | None,
    received: Statement | None,
) -> Payment:
    """The word on what is under way by hand."""
    if not approves:
        after = await take(tx, payment, "reject", Role.OPERATOR, note=note)
        await tell_payer(tx, after, "reject")
        await review_over(tx, payment, after)
        await reject_deposit(tx, after, escrow)
        return after
    if payment.kind == PAYOUT:
        paid = await take(tx, payment, "approve", Role.OPERATOR, note=note)
        await tell_payer(tx, paid, "approve")
        return paid
    if payment.provider not in BY_HAND:
        raise PaymentNotOpen(state=payment.state, act="approve")
    asked = (payment.amount_minor, payment.currency)
    report = (received or Statement(*asked)).report(payment)
    await _check_unbooked(tx, payment, report)
    is_as_asked = (report.amount_minor, report.currency) == asked
    if not is_as_asked or (payment.mode == GUEST and not takes_deposit(payment, escrow)):
        return await _received_wrong(tx, payment, escrow, report, note)
    return await _approved(tx, payment, escrow, report, note)


async def _received_wrong(
    tx: Transaction, payment: Payment, escrow: Escrow | None, report: Report, note: str | None
) -> Payment:
    """The money waits; the proof is looked at no more."""
    after = await take(tx, payment, "receive_wrong", Role.OPERATOR, report, note=note)
    await tell_payer(tx, after, "receive_wrong")
    await review_over(tx, payment, after)
    await reject_deposit(tx, after, escrow)
    return after


async def _approved(
    tx: Transaction, payment: Payment, escrow: Escrow | None, report: Report, note: str | None
) -> Payment:
    after = await take(tx, payment, "approve", Role.OPERATOR, report, note=note)
    await tell_payer(tx, after, "approve")
    if after.kind == ACCEPT_PAY and escrow is not None:
        if after.mode == GUEST:
            await approve_deposit(tx, after, escrow)
        elif not await pay_inline(tx, after, escrow):
            await review_over(tx, payment, after)
    return after


async def _decided(
    tx: Transaction,
    payment: Payment,
    escrow: Escrow | None,
    approves: bool,  # noqa: FBT001 - the operator's word, handed on
    note: str | None,
    received: Statement | None,
) -> Payment:
    """The word on what needs the operator."""
    if payment.kind == REFUND:
        name = "approve" if approves else "reject"
        refund = await take(tx, payment, name, Role.OPERATOR, note=note)
        await tell_payer(tx, refund, name)
        await _refund_again(tx, refund)
        return refund
    if received is not None:
        report = received.report(payment)
        await _check_unbooked(tx, payment, report)
        payment = await take(tx, payment, "receive_late", Role.OPERATOR, report)
    name = "credit" if approves else "send_back" if payment.received_minor else "write_off"
    after = await take(tx, payment, name, Role.OPERATOR, note=note)
    await tell_payer(tx, after, name)
    if name == "send_back":
        await open_refund(tx, after)
    elif name == "credit" and after.mode == GUEST and escrow is not None:
        await approve_deposit(tx, after, escrow)
    return after


def send_refund(refund_id: str) -> Command:
    """The provider is to send it back: the worker asks it to, under the refund's own id.

    Raises:
        NotPayable: there is no charge of a provider's behind it; the operator sends it by hand.
    """

    async def command(tx: Transaction) -> PaymentAnswer:
        payment, _ = await _locked(tx, refund_id)
        origin = await read_payment(tx, payment.origin_id) if payment.origin_id else None
        if payment.kind != REFUND:
            raise PaymentNotOpen(state=payment.state, act="send")
        if payment.provider in BY_HAND or origin is None or origin.charge_reference is None:
            raise NotPayable(provider=payment.provider, reason="it can only be sent back by hand")
        after = await take(
            tx,
            payment,
            "send",
            Role.OPERATOR,
            expires_at=tx.real_now + BY_HAND_OPEN,
            ask_at=tx.real_now,
        )
        tx.ring("payments")
        return PaymentAnswer(payment=shape(after))

    return command


async def _locked(tx: Transaction, payment_id: str) -> tuple[Payment, Escrow | None]:
    """The payment under its lock, and its escrow under its own, which comes first.

    Raises:
        PaymentNotFound: there is none of this id.
        DeadlineDue: the escrow's clock comes first.
    """
    seen = await read_payment(tx, payment_id)
    if seen is None:
        raise PaymentNotFound
    escrow = None
    if seen.kind == ACCEPT_PAY and seen.escrow_id is not None:
        escrow = await lock(tx, seen.escrow_id)
    [payment] = await lock_payments(tx, [payment_id])
    return payment, escrow


def _check_own(tx: Transaction, payment: Payment) -> None:
    """Only whoever pays; a guest is known by the session, which the door has seen."""
    if tx.actor.kind is not ActorKind.USER or tx.actor.user_id != payment.user_id:
        raise PaymentNotFound
