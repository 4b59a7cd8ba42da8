"""What the end of a payment means to its escrow and to the session that it was begun in.

The wallet that has the money pays the escrow in the same transaction; a guest's money is held by
the escrow's own step. A session outlives its 30 minutes only while its proof is looked at:
`review_over` takes back the time that `under_review` has given.
"""

from dataclasses import replace
from datetime import timedelta
from uuid import UUID

import structlog

from service.commands.payment_mails import tell_payer
from service.commands.steps import record
from service.rules import escrow as escrows
from service.rules.aggregate import Deposit, Escrow
from service.rules.clocks import turn
from service.rules.errors import (
    NotPayable,
    PaymentNotOpen,
    PhoneNotVerified,
    Refused,
    SessionNotFound,
    SessionNotPending,
    WrongParty,
)
from service.rules.escrow import PENDING as ESCROW_PENDING
from service.rules.escrow import choose
from service.rules.machine import Actor, ActorKind
from service.rules.payment import ACCEPT_PAY, BY_HAND, CANCELLED, GUEST, PENDING, Payment
from service.rules.session import COMPLETED, EXPIRED, MINUTES, RETRY_HOURS
from service.rules.session import PENDING as SESSION_PENDING
from service.store.db import Transaction
from service.store.deadlines import turn_deadlines
from service.store.ledger import lock_wallet
from service.store.sessions import end_session, move_expiry, read_session

OPERATOR = Actor(ActorKind.OPERATOR)
USABLE = timedelta(minutes=MINUTES)
RETRY = timedelta(hours=RETRY_HOURS)
REVIEWED_WITHIN = timedelta(days=365)
"""A session whose proof is under review lives until that is decided; beyond this it is given up."""

log = structlog.get_logger()


# ---- The session --------------------------------------------------------------------------------


async def check_session(tx: Transaction, session_id: UUID, escrow_id: str | None) -> None:
    """The session may be used for paying this escrow, which is locked.

    Raises:
        SessionNotFound: it is of something else.
        SessionNotPending: it was spent, cancelled, or has expired.
    """
    session = await read_session(tx, session_id)
    if session is None or (session.escrow_id, session.action) != (escrow_id, ACCEPT_PAY):
        raise SessionNotFound
    if session.status != SESSION_PENDING or session.expires_at <= tx.now:
        is_late = session.status == SESSION_PENDING
        raise SessionNotPending(status=EXPIRED if is_late else session.status)


async def under_review(tx: Transaction, payment: Payment) -> None:
    """The session outlives its 30 minutes while the proof is looked at."""
    if payment.session_id is not None:
        await move_expiry(tx, payment.session_id, tx.now + REVIEWED_WITHIN)


async def review_over(tx: Transaction, before: Payment, after: Payment) -> None:
    """The proof is looked at no more, and has paid nothing: 24 hours to try again.

    Whoever turns away has what was left of the 30 minutes.
    """
    was_reviewed = before.state == PENDING or after.state != CANCELLED
    if before.provider not in BY_HAND or before.session_id is None or not was_reviewed:
        return
    until = tx.now + RETRY
    if after.state == CANCELLED:
        session = await read_session(tx, before.session_id)
        until = max(tx.now, session.created_at + USABLE) if session else tx.now
    await move_expiry(tx, before.session_id, until)


async def _spend_session(tx: Transaction, payment: Payment) -> None:
    if payment.session_id is not None:
        await end_session(tx, payment.session_id, COMPLETED)


# ---- The escrow of somebody with a wallet --------------------------------------------------------


def check_buyer(tx: Transaction, escrow: Escrow, user_id: str) -> None:
    """This person may pay this escrow now.

    Raises:
        Refused: by the escrow's table, or the phone is not verified where it must be.
    """
    choose("accept_pay", escrow, Actor(ActorKind.USER, user_id=user_id))
    if escrow.buyer is None:
        raise WrongParty(party="buyer", act="pay")
    if tx.policy.phone_is_required and not escrow.buyer.is_phone_verified:
        raise PhoneNotVerified


async def pay_inline(tx: Transaction, payment: Payment, escrow: Escrow) -> bool:
    """The wallet has the money: the escrow is paid from it, if all still stands as it was shown.

    Otherwise the money stays in the wallet and its payer is told so; whether it was paid.
    """
    payer = Actor(ActorKind.USER, user_id=payment.user_id, request_id=tx.actor.request_id)
    try:
        row = choose("accept_pay", escrow, payer)
        if payment.user_id is None or escrow.amount_ledger_minor != payment.expected_minor:
            raise PaymentNotOpen(state=payment.state, act="pay")
        check_buyer(tx, escrow, payment.user_id)
    except Refused as refusal:
        return await _keep(tx, payment, type(refusal).__name__)
    available = await lock_wallet(tx, payment.user_id, escrow.ledger_currency)
    if available < escrow.amount_ledger_minor:
        return await _keep(tx, payment, "InsufficientFunds")
    await _spend_session(tx, payment)
    actor, tx.actor = tx.actor, payer
    try:
        await record(tx, [escrows.take(row, escrow, payer, tx.now)])
    finally:
        tx.actor = actor
    return True


async def _keep(tx: Transaction, payment: Payment, reason: str) -> bool:
    log.info("payment_kept_in_wallet", payment=payment.id, reason=reason)
    await tell_payer(tx, payment, "keep")
    return False


# ---- A guest's escrow ---------------------------------------------------------------------------


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


async def turn_for(tx: Transaction, before: Escrow, after: Escrow) -> None:
    """The escrow's clocks, where only a guest's proof has come or gone."""
    await turn_deadlines(tx, [turn(before, after, tx.now, tx.policy)])


async def no_more_deposit(tx: Transaction, escrow: Escrow | None) -> None:
    """The proof is looked at no more: the escrow may expire again."""
    if escrow is not None and escrow.deposit is not None and escrow.status == ESCROW_PENDING:
        await turn_for(tx, escrow, replace(escrow, deposit=None))


def takes_deposit(payment: Payment, escrow: Escrow | None) -> bool:
    """Whether the escrow is still to be paid with exactly this."""
    if escrow is None or not _is_exact(payment, escrow):
        return False
    try:
        choose("approve_deposit", escrow, OPERATOR)
    except Refused:
        return False
    return escrow.seller is not None


def _is_exact(payment: Payment, escrow: Escrow) -> bool:
    asked = (escrow.amount_ledger_minor, escrow.ledger_currency)
    return (payment.amount_minor, payment.currency) == asked


async def approve_deposit(tx: Transaction, payment: Payment, escrow: Escrow) -> None:
    """The escrow's own step takes the money out of clearing.

    Raises:
        Refused: the escrow is not to be paid with this.
    """
    row = choose("approve_deposit", escrow, tx.actor)
    if not _is_exact(payment, escrow) or escrow.seller is None:
        raise NotPayable(provider=payment.provider, reason="the escrow's amount is another one")
    await _spend_session(tx, payment)
    funded = replace(escrow, guest_provider=payment.provider)
    await record(tx, [escrows.take(row, escrow, tx.actor, tx.now, changed=funded)])


async def reject_deposit(tx: Transaction, payment: Payment, escrow: Escrow | None) -> None:
    """A guest's proof is turned down, and the escrow's developers are told."""
    if payment.mode != GUEST or escrow is None:
        return
    try:
        row = choose("reject_deposit", escrow, tx.actor)
    except Refused as refusal:
        log.info("deposit_not_rejected", payment=payment.id, reason=type(refusal).__name__)
        await no_more_deposit(tx, escrow)
        return
    changed = replace(escrow, deposit=None, rejected_deposit=deposit_of(payment))
    await record(tx, [escrows.take(row, escrow, tx.actor, tx.now, changed=changed)])
