"""Who is told what about a payment by mail; rows, in the transaction of the step that they tell."""

from collections.abc import Mapping, Sequence
from itertools import product

from service.commands.mails import message_id_of
from service.rules.aggregate import Escrow
from service.rules.money import to_decimal
from service.rules.payment import ACCEPT_PAY, GUEST, PAYOUT, REFUND, TOPUP, Payment, page_of
from service.store.db import Transaction
from service.store.escrows import read_escrow
from service.store.ids import entity_id
from service.store.mails import NewMail, insert_mails
from service.store.users import read_user_by_id
from service.words.facts import PaymentFacts

WALLET = "/dashboard/wallet"

_IN = (TOPUP, ACCEPT_PAY, GUEST)


def _told(template: str, modes: Sequence[str], *steps: str) -> Mapping[tuple[str, str], str]:
    return dict.fromkeys(product(modes, steps), template)


TEMPLATES: Mapping[tuple[str, str], str] = {
    **_told("payment_received", (TOPUP,), "settle", "approve", "credit"),
    (ACCEPT_PAY, "credit"): "payment_received",
    **_told("payment_failed", (TOPUP, ACCEPT_PAY), "decline", "reject", "write_off"),
    **_told("payment_looked_at", _IN, "receive_wrong", "receive_stray"),
    **_told("payment_unknown", _IN, "escalate"),
    **_told("payment_sent_back", _IN, "send_back"),
    (ACCEPT_PAY, "keep"): "payment_kept",
    (GUEST, "reject"): "deposit_rejected",
    (PAYOUT, "begin"): "payout_requested",
    (PAYOUT, "approve"): "payout_paid",
    (PAYOUT, "reject"): "payout_rejected",
    (PAYOUT, "credit"): "payout_returned",
    **dict.fromkeys(((REFUND, "approve"), (REFUND, "settle")), "refund_made"),
}
"""Mode and step -> the mail to whom the payment belongs; every other step is told on the pages.

A payment that pays its escrow is told by the escrow's own mail; `keep` is no step of the table: the
money has come, and the escrow could not be paid with it.
"""


async def tell_payer(tx: Transaction, payment: Payment, step: str) -> None:
    """The mail about this step on this payment, if there is one and somebody to write to."""
    template = TEMPLATES.get((payment.mode, step))
    if template is None:
        return
    escrow = await read_escrow(tx, payment.escrow_id) if payment.escrow_id else None
    to = await _whom(tx, payment, escrow)
    if to is None:
        return
    recipient, language = to
    mail_id = entity_id(tx.now)
    mail = NewMail(
        id=mail_id,
        recipient=recipient,
        template=template,
        language=language,
        facts=dict(_facts(payment, escrow)),
        dedupe_key=f"{template}:{payment.id}:{payment.seq}",
        message_id=message_id_of(mail_id, tx.policy),
    )
    await insert_mails(tx, [mail])


async def _whom(tx: Transaction, payment: Payment, escrow: Escrow | None) -> tuple[str, str] | None:
    """The address and the language: the user's, else a guest's as the escrow knows it."""
    if payment.user_id is not None:
        person = await read_user_by_id(tx, payment.user_id)
        return (person.email, person.language) if person else None
    if payment.payer_email is None:
        return None
    return payment.payer_email, escrow.language if escrow else "en"


def _facts(payment: Payment, escrow: Escrow | None) -> PaymentFacts:
    received = payment.received_currency
    minor, currency = (
        (payment.received_minor, received) if received else (payment.amount_minor, payment.currency)
    )
    is_own = payment.kind == ACCEPT_PAY or (payment.kind == TOPUP and payment.settled_at is None)
    has_page = payment.user_id is not None or payment.session_id is not None
    return PaymentFacts(
        payment_id=payment.id,
        amount=format(to_decimal(minor, currency), "f"),
        currency=currency,
        page=page_of(payment) if is_own and has_page else _page(payment, escrow),
        title=escrow.title if escrow else None,
        payee=payment.payee,
        note=payment.note,
    )


def _page(payment: Payment, escrow: Escrow | None) -> str:
    """A guest has no wallet to look into."""
    if payment.user_id is None and escrow is not None:
        return f"/dashboard/escrow/{escrow.id}"
    return WALLET
