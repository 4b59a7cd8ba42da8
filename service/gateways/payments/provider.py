"""What every payment provider can do, in one Protocol; bank transfers need none of it.

Law: whatever we ask for carries our own id as its idempotency key, so that asking again after a
lost answer gives the same payment and the same refund. Payouts are made by the operator by hand.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from service.rules.payment import Payment, Report, page_of


@dataclass(frozen=True, slots=True)
class Order:
    """A payment to be made on the provider's page. `description` is shown to the payer.

    `expires_at` belongs to the payment: it is the same when the order is repeated.
    """

    payment_id: str
    amount_minor: int
    currency: str
    description: str
    return_url: str
    expires_at: datetime


@dataclass(frozen=True, slots=True)
class Placed:
    """The provider has the order: its own name for it, and the page to send the payer to."""

    provider_reference: str
    page_url: str


@dataclass(frozen=True, slots=True)
class Reversal:
    """Send back what came, or a part of it. `refund_id` is the refund's own payment id."""

    refund_id: str
    charge_reference: str
    amount_minor: int
    currency: str


@dataclass(frozen=True, slots=True)
class Notification:
    """A report that came unasked, and is the provider's own; `event_id` is for the log.

    `payment_id` is ours: the payment's, or the refund's.
    """

    event_id: str
    payment_id: str
    provider_reference: str
    report: Report


class PaymentProvider(Protocol):
    """A provider with a hosted page and signed notifications.

    `place`, `ask`, `withdraw` and `send_back` raise GatewayFailure; `permanent` says that the same
    request will never be taken.
    """

    @property
    def name(self) -> str:
        """One of `rules.payment.PROVIDERS`."""

    @property
    def page_origin(self) -> str:
        """Whose pages people pay on, as `https://host`: a form that leads there must name it."""

    def check(self, amount_minor: int, currency: str) -> None:
        """Raise NotPayable where this provider cannot take such an amount."""

    async def place(self, order: Order) -> Placed:
        """Open the payment, or find it opened."""

    def read(self, headers: Mapping[str, str], body: bytes) -> Notification | None:
        """The notification, or None where it is genuine and none of our business.

        Header names are matched whatever their case. Raises NotificationRefused.
        """

    async def ask(self, provider_reference: str) -> Report:
        """How a payment or a refund stands."""

    async def withdraw(self, provider_reference: str) -> None:
        """Close the page: nobody can pay there any more. What was paid before stays paid."""

    async def send_back(self, reversal: Reversal) -> tuple[str, Report]:
        """Refund, or find it refunded: the provider's name for the refund, and how it stands."""

    async def close(self) -> None:
        """Close every connection."""


def order_of(payment: Payment, public_url: str) -> Order:
    """What a provider is asked for: the same whenever it is asked again."""
    if payment.expires_at is None:
        raise AssertionError(f"payment {payment.id} never ends")
    return Order(
        payment.id,
        payment.amount_minor,
        payment.currency,
        f"Amana {payment.id}",
        f"{public_url}{page_of(payment)}",
        payment.expires_at,
    )
