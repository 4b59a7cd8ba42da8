"""How the invariants stand, as a developer is told it. Source: ledger.md 4."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from service.rules.money import to_decimal
from service.wire.base import Wire


class BreachShape(Wire):
    """What is wrong, with which escrow; `escrowId` is null where it is the caller's own account."""

    escrow_id: str | None
    message: str


class InvariantShape(Wire):
    """One invariant; it also fails, without breaches, where the house as a whole breaches it."""

    id: str
    name: str
    ok: bool
    breaches: Sequence[BreachShape]
    last_ok_at: datetime | None


class TotalShape(Wire):
    """The caller's escrows and wallet in one currency, in major units."""

    currency: str
    held: Decimal
    available: Decimal
    fees: Decimal


class Assurance(Wire):
    """200 of `GET /assurance`; before the first check `checkedAt` is null and nothing is ok."""

    checked_at: datetime | None
    ok: bool
    invariants: Sequence[InvariantShape]
    totals: Sequence[TotalShape]


class Standing(Wire):
    """Whether an escrow is frozen."""

    id: str
    frozen: bool


def total_shape(currency: str, held: int, available: int, fees: int) -> TotalShape:
    """Totals in minor units, as they are told."""
    return TotalShape(
        currency=currency,
        held=to_decimal(held, currency),
        available=to_decimal(available, currency),
        fees=to_decimal(fees, currency),
    )
