"""The sandbox provider's book, kept in memory: what store/ keeps in a table."""

from dataclasses import replace
from datetime import datetime

from service.gateways.payments.sandbox import Charge


class MemoryBook:
    """A `ChargeBook` for one process."""

    def __init__(self) -> None:
        self._charges: dict[str, Charge] = {}

    async def open(self, charge: Charge) -> Charge:
        return self._charges.setdefault(charge.reference, charge)

    async def read(self, reference: str) -> Charge | None:
        return self._charges.get(reference)

    async def press(self, reference: str, at: datetime, *, paid: bool) -> Charge | None:
        charge = self._charges.get(reference)
        if charge is not None and charge.pressed_at is None:
            self._charges[reference] = replace(charge, paid=paid, pressed_at=at)
        return self._charges.get(reference)

    async def refund(self, reference: str, refund_id: str, amount_minor: int) -> Charge | None:
        charge = self._charges.get(reference)
        if charge is not None and refund_id not in dict(charge.refunds):
            refunds = (*charge.refunds, (refund_id, amount_minor))
            self._charges[reference] = replace(charge, refunds=refunds)
        return self._charges.get(reference)
