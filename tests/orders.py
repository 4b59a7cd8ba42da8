"""Orders as the tests place them with a payment provider."""

from datetime import UTC, datetime, timedelta

from service.gateways.payments.provider import Order

ORDERED = "a" * 24


def ordered(payment_id: str = ORDERED, amount_minor: int = 50_000, currency: str = "TND") -> Order:
    """A lamp for 50 dinars, unless said otherwise; to be paid within the hour."""
    return Order(
        payment_id=payment_id,
        amount_minor=amount_minor,
        currency=currency,
        description="A lamp",
        return_url="http://localhost:8080/checkout/1",
        expires_at=datetime.now(UTC).replace(minute=0, second=0, microsecond=0)
        + timedelta(hours=2),
    )
