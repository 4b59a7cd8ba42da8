"""Payments: begun, handed over, reported, decided; and what a paid one does to its escrow.

A door asks the outside between `begin` and `hand_over`, never inside of them; whatever is lost on
the way the worker finds by asking. `hear` takes every report, asked for or not, however often.
"""

from dataclasses import dataclass, replace
from datetime import timedelta
from uuid import UUID

import structlog

from service.commands.files import record as record_files
from service.commands.payment_mails import tell_payer
from service.commands.payment_steps import blank, open_refund, start, take
from service.commands.perform import Answer, Command, House, perform
from service.commands.steps import lock, record
from service.rules import escrow as escrows
from service.rules.aggregate import Deposit, Escrow
from service.rules.clocks import turn
from service.rules.errors import (
    AmountChanged,
    BalanceTooLarge,
    NotPayable,
    PaymentNotFound,
    PaymentNotOpen,
    PhoneNotVerified,
    Refused,
    SellerNotReady,
    WrongParty,
)
from service.rules.escrow import PENDING as ESCROW_PENDING
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
    FINAL,
    GUEST,
    NEEDS_OPERATOR,
    PAYOUT,
    REFUND,
    SUCCEEDED,
    TOPUP,
    Outcome,
    Payment,
    Report,
    ask_again,
    judge,
)
from service.rules.session import COMPLETED, RETRY_HOURS
from service.store.db import Transaction
from service.store.deadlines import turn_deadlines
from service.store.ledger import lock_wallet
from service.store.payments import (
    lock_payments,
    note_asked,
    note_placed,
    read_booked,
    read_payment,
)
from service.store.sessions import end_session, prolong_session
from service.wire.payments import PaymentAnswer, shape

OPERATOR = Actor(ActorKind.OPERATOR)
RETRY = timedelta(hours=RETRY_HOURS)
REVIEWED_WITHIN = timedelta(days=365)
"""A session whose proof is under review lives until that is decided; beyond this it is given up."""
_ROLES = {
    ActorKind.OPERATOR: Role.OPERATOR,
    ActorKind.CLOCK: Role.CLOCK,
    ActorKind.SYSTEM: Role.SYSTEM,
}

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
    """

    async def command(tx: Transaction) -> PaymentAnswer:
        return PaymentAnswer(payment=shape(await begun(tx, wish)))

    return command


async def begun(tx: Transaction, wish: Wish) -> Payment:
    """As `begin`, in whatever transaction."""
    expected = None
    if wish.kind == ACCEPT_PAY:
        if wish.escrow_id is None:
            raise AssertionError("a payment for an escrow names it")
        escrow = await lock(tx, wish.escrow_id)
        expected = escrow.amount_ledger_minor
        if wish.shown_minor not in (None, escrow.amount_minor):
            raise AmountChanged(
                amount=to_decimal(escrow.amount_minor, escrow.currency), currency=escrow.currency
            )
        if wish.user_id is None:
            _check_guest(escrow, wish)
        else:
            _check_buyer(tx, escrow, wish.user_id)
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


def _check_buyer(tx: Transaction, escrow: Escrow, user_id: str) -> None:
    choose("accept_pay", escrow, Actor(ActorKind.USER, user_id=user_id))
    if escrow.buyer is None:
        raise WrongParty(party="buyer", act="pay")
    if tx.policy.phone_is_required and not escrow.buyer.is_phone_verified:
        raise PhoneNotVerified


def _check_guest(escrow: Escrow, wish: Wish) -> None:
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
    await _pay_inline(tx, after, await lock(tx, wish.escrow_id or ""))
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
        PaymentNotFound: this provider has no such payment of ours.
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
        if payment.provider != heard.provider or payment.kind == PAYOUT:
            raise PaymentNotFound
        report = heard.report
        booked = await read_booked(tx, payment, report.charge_reference)
        name = judge(payment, report, booked)
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
        log.warning("payment_strayed", payment=payment.id, provider=payment.provider)
        return await _stray(tx, payment, report)
    changes = {} if payment.provider_reference else {"provider_reference": heard.reference}
    is_money = name in ("settle", "receive_wrong", "receive_late") and payment.mode != REFUND
    after = await take(tx, payment, name, Role.SYSTEM, report if is_money else None, **changes)
    if after.state == NEEDS_OPERATOR:
        log.warning("payment_needs_operator", payment=after.id, provider=after.provider, step=name)
    await tell_payer(tx, after, name)
    if after.state == SUCCEEDED and after.kind == ACCEPT_PAY and escrow is not None:
        await _pay_inline(tx, after, escrow)
    return after


async def _stray(tx: Transaction, origin: Payment, report: Report) -> Payment:
    """Money for what is over is a payment of its own."""
    draft = replace(
        blank(tx, origin.kind, origin.provider, report.amount_minor, report.currency),
        user_id=origin.user_id,
        escrow_id=origin.escrow_id,
        payer_email=origin.payer_email,
        expected_minor=origin.expected_minor,
        origin_id=origin.id,
    )
    return await start(tx, draft, "receive_stray", Role.SYSTEM, report)


async def _pay_inline(tx: Transaction, payment: Payment, escrow: Escrow) -> None:
    """The wallet has the money: the escrow is paid from it, if all still stands as it was shown."""
    payer = Actor(ActorKind.USER, user_id=payment.user_id, request_id=tx.actor.request_id)
    try:
        row = choose("accept_pay", escrow, payer)
        if payment.user_id is None or escrow.amount_ledger_minor != payment.expected_minor:
            raise PaymentNotOpen(state=payment.state, act="pay")
        _check_buyer(tx, escrow, payment.user_id)
    except Refused as refusal:
        log.info("payment_kept_in_wallet", payment=payment.id, reason=type(refusal).__name__)
        await tell_payer(tx, payment, "keep")
        return
    available = await lock_wallet(tx, payment.user_id, escrow.ledger_currency)
    if available < escrow.amount_ledger_minor:
        log.info("payment_kept_in_wallet", payment=payment.id, reason="InsufficientFunds")
        await tell_payer(tx, payment, "keep")
        return
    await _end_session(tx, payment)
    actor, tx.actor = tx.actor, payer
    try:
        await record(tx, [escrows.take(row, escrow, payer, tx.now)])
    finally:
        tx.actor = actor


async def _end_session(tx: Transaction, payment: Payment) -> None:
    if payment.session_id is not None:
        await end_session(tx, payment.session_id, COMPLETED)


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
    after = await take(tx, payment, "prove", Role.BUYER, proof_file=key)
    if after.session_id is not None:
        await prolong_session(tx, after.session_id, tx.now + REVIEWED_WITHIN)
    if after.mode == GUEST and escrow is not None:
        await _turn(tx, escrow, replace(escrow, deposit=deposit_of(after)))
    return after


async def _turn(tx: Transaction, before: Escrow, after: Escrow) -> None:
    """The escrow's clocks, where only a guest's proof has come or gone."""
    await turn_deadlines(tx, [turn(before, after, tx.now, tx.policy)])


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
        after = await take(tx, payment, "cancel", who)
        await _no_more_deposit(tx, escrow)
        return PaymentAnswer(payment=shape(after))

    return command


async def _no_more_deposit(tx: Transaction, escrow: Escrow | None) -> None:
    """The proof is looked at no more: the escrow may expire again."""
    if escrow is not None and escrow.deposit is not None and escrow.status == ESCROW_PENDING:
        await _turn(tx, escrow, replace(escrow, deposit=None))


def end_without_report(payment_id: str, name: str) -> Command:
    """The provider will not say: `decline` what it refused for good, `escalate` what it lost."""

    async def command(tx: Transaction) -> PaymentAnswer:
        payment, _ = await _locked(tx, payment_id)
        if payment.is_open:
            payment = await take(tx, payment, name, Role.SYSTEM)
            await tell_payer(tx, payment, name)
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


def decide(
    payment_id: str,
    *,
    approves: bool,
    note: str | None = None,
    received: tuple[int, str] | None = None,
) -> Command:
    """The operator's word. `received` (minor units, currency) is what the bank statement shows.

    A transfer that was proven is approved or rejected; what needs the operator is credited, sent
    back or written off; a refund and a payout are marked as made.

    Raises:
        PaymentNotFound: there is none of this id.
        PaymentNotOpen: there is nothing to decide.
        Refused: the escrow cannot be paid any more.
    """

    async def command(tx: Transaction) -> PaymentAnswer:
        payment, escrow = await _locked(tx, payment_id)
        if payment.state in FINAL:
            raise PaymentNotOpen(state=payment.state, act="approve" if approves else "reject")
        decided = _decided if payment.state == NEEDS_OPERATOR else _answered
        after = await decided(tx, payment, escrow, approves, note, received)
        return PaymentAnswer(payment=shape(after))

    return command


async def _answered(
    tx: Transaction,
    payment: Payment,
    escrow: Escrow | None,
    approves: bool,  # noqa: FBT001 - the operator's word, handed on
    note: str | None,
    received: tuple[int, str] | None,
) -> Payment:
    """The word on what is under way by hand."""
    asked = (payment.amount_minor, payment.currency)
    if not approves:
        after = await take(tx, payment, "reject", Role.OPERATOR, note=note)
        await tell_payer(tx, after, "reject")
        if after.mode == GUEST and escrow is not None:
            await _reject_deposit(tx, after, escrow)
        return after
    if payment.kind == PAYOUT:
        paid = await take(tx, payment, "approve", Role.OPERATOR, note=note)
        await tell_payer(tx, paid, "approve")
        return paid
    report = Report(Outcome.SUCCEEDED, *(received or asked), f"{payment.id}:statement")
    is_as_asked = (report.amount_minor, report.currency) == asked
    if payment.provider not in BY_HAND:
        raise PaymentNotOpen(state=payment.state, act="approve")
    if not is_as_asked or (payment.mode == GUEST and not _takes_deposit(payment, escrow)):
        after = await take(tx, payment, "receive_wrong", Role.OPERATOR, report, note=note)
        await _no_more_deposit(tx, escrow)
        return after
    after = await take(tx, payment, "approve", Role.OPERATOR, report, note=note)
    await tell_payer(tx, after, "approve")
    if after.mode == GUEST and escrow is not None:
        await _approve_deposit(tx, after, escrow)
    elif after.kind == ACCEPT_PAY and escrow is not None:
        await _pay_inline(tx, after, escrow)
    return after


async def _decided(
    tx: Transaction,
    payment: Payment,
    escrow: Escrow | None,
    approves: bool,  # noqa: FBT001 - the operator's word, handed on
    note: str | None,
    received: tuple[int, str] | None,
) -> Payment:
    """The word on what needs the operator."""
    if payment.kind == REFUND:
        name = "approve" if approves else "reject"
        refund = await take(tx, payment, name, Role.OPERATOR, note=note)
        await tell_payer(tx, refund, name)
        return refund
    if received is not None and payment.received_minor == 0:
        report = Report(Outcome.SUCCEEDED, *received, f"{payment.id}:statement")
        payment = await take(tx, payment, "receive_late", Role.OPERATOR, report)
    if approves:
        after = await take(tx, payment, "credit", Role.OPERATOR, note=note)
        await tell_payer(tx, after, "credit")
        if after.mode == GUEST and escrow is not None:
            await _approve_deposit(tx, after, escrow)
        return after
    if payment.received_minor == 0:
        return await take(tx, payment, "write_off", Role.OPERATOR, note=note)
    after = await take(tx, payment, "send_back", Role.OPERATOR, note=note)
    await open_refund(tx, after)
    return after


def _takes_deposit(payment: Payment, escrow: Escrow | None) -> bool:
    """Whether the escrow is still to be paid with exactly this."""
    if escrow is None or escrow.amount_ledger_minor != payment.amount_minor:
        return False
    try:
        choose("approve_deposit", escrow, OPERATOR)
    except Refused:
        return False
    return escrow.seller is not None


async def _approve_deposit(tx: Transaction, payment: Payment, escrow: Escrow) -> None:
    """The escrow's own step takes the money out of clearing."""
    row = choose("approve_deposit", escrow, tx.actor)
    if escrow.amount_ledger_minor != payment.amount_minor or escrow.seller is None:
        raise NotPayable(provider=payment.provider, reason="the escrow's amount is another one now")
    await _end_session(tx, payment)
    funded = replace(escrow, guest_provider=payment.provider)
    await record(tx, [escrows.take(row, escrow, tx.actor, tx.now, changed=funded)])


async def _reject_deposit(tx: Transaction, payment: Payment, escrow: Escrow) -> None:
    """The guest may try again from the same link."""
    try:
        row = choose("reject_deposit", escrow, tx.actor)
    except Refused as refusal:
        log.info("deposit_not_rejected", payment=payment.id, reason=type(refusal).__name__)
        return
    changed = replace(escrow, deposit=None, rejected_deposit=deposit_of(payment))
    await record(tx, [escrows.take(row, escrow, tx.actor, tx.now, changed=changed)])
    if payment.session_id is not None:
        await prolong_session(tx, payment.session_id, tx.now + RETRY)


def deposit_of(payment: Payment) -> Deposit:
    """A guest's payment with its proof, as the escrow sees it."""
    return Deposit(
        payment.id,
        payment.payer_email or "",
        payment.amount_minor,
        payment.currency,
        payment.provider,
        payment.note,
    )


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
