"""Payments on the wire: amounts as numbers in the currency's major unit, times are real."""

from datetime import datetime
from decimal import Decimal

from service.rules.money import to_decimal
from service.rules.payment import BY_HAND, Payment, transfer_reference
from service.wire.base import OwnBody, Wire, absent


class PaymentShape(Wire):
    """One payment; `transferReference` is what the payer writes on a bank transfer."""

    id: str
    kind: str
    state: str
    provider: str
    amount: Decimal
    currency: str
    received_amount: Decimal | None = absent()
    received_currency: str | None = absent()
    escrow_id: str | None = absent()
    created_at: datetime | None
    settled_at: datetime | None
    transfer_reference: str | None = absent()


class PaymentAnswer(Wire):
    """200: the payment as it stands."""

    payment: PaymentShape


class Decision(OwnBody):
    """The operator's word."""

    approve: bool


def shape(payment: Payment) -> PaymentShape:
    """The payment as it is shown."""
    received = payment.received_currency
    return PaymentShape(
        id=payment.id,
        kind=payment.kind,
        state=payment.state,
        provider=payment.provider,
        amount=to_decimal(payment.amount_minor, payment.currency),
        currency=payment.currency,
        received_amount=to_decimal(payment.received_minor, received) if received else None,
        received_currency=received,
        escrow_id=payment.escrow_id,
        created_at=payment.created_at,
        settled_at=payment.settled_at,
        transfer_reference=transfer_reference(payment.id) if payment.provider in BY_HAND else None,
    )
