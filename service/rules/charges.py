"""What the sandbox's provider does with a payment: magic amounts, and what it knows of a charge."""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum

from service.rules.money import EXPONENTS


class Conduct(StrEnum):
    """What this provider does with a payment, by the hundredths of its amount."""

    APPROVE = "approve"
    DECLINE = "decline"
    PENDING = "pending"
    TWICE = "twice"
    LATE = "late"
    FORGED = "forged"
    WRONG_AMOUNT = "wrong_amount"
    WRONG_CURRENCY = "wrong_currency"


MAGIC: Mapping[int, Conduct] = {
    1: Conduct.DECLINE,
    2: Conduct.PENDING,
    3: Conduct.TWICE,
    4: Conduct.LATE,
    5: Conduct.FORGED,
    6: Conduct.WRONG_AMOUNT,
    7: Conduct.WRONG_CURRENCY,
}
"""Hundredths -> conduct: 20.02 is pending first; whatever is not here is approved."""


def conduct(amount_minor: int, currency: str) -> Conduct:
    """What the amount asks for."""
    hundredths = amount_minor * 100 // 10 ** EXPONENTS[currency] % 100
    return MAGIC.get(hundredths, Conduct.APPROVE)


@dataclass(frozen=True, slots=True)
class Charge:
    """What the provider knows of one payment. Times are real; refunds are in the order they came.

    `paid` is None while nobody has pressed a button, else whether it was the one that pays.
    """

    reference: str
    payment_id: str
    amount_minor: int
    currency: str
    description: str
    return_url: str
    expires_at: datetime
    paid: bool | None = None
    pressed_at: datetime | None = None
    refunds: tuple[tuple[str, int], ...] = ()

    @property
    def conduct(self) -> Conduct:
        """What happens to it once it is paid."""
        return conduct(self.amount_minor, self.currency)
