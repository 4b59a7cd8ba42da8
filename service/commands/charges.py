"""The sandbox provider's book over the database: what its gateway is handed by the mains."""

from collections.abc import Sequence
from datetime import datetime

from service.commands.perform import House, tend
from service.rules.charges import Charge
from service.store.sandbox_charges import (
    insert_refund,
    note_told,
    open_charge,
    press_charge,
    read_charge,
    read_untold,
)


class HouseBook:
    """A `ChargeBook` that every process of ours shares."""

    def __init__(self, house: House) -> None:
        self._house = house

    async def open(self, charge: Charge) -> Charge:
        """Write it down, unless there is one of this reference; whichever stands."""
        await tend(self._house, lambda tx: open_charge(tx, charge))
        found = await self.read(charge.reference)
        if found is None:
            raise AssertionError(f"the charge {charge.reference} is gone")
        return found

    async def read(self, reference: str) -> Charge | None:
        """The charge of this reference."""
        return await read_charge(self._house.pool, reference)

    async def press(self, reference: str, at: datetime, *, paid: bool) -> Charge | None:
        """Note the first button that is pressed; later ones change nothing."""
        await tend(self._house, lambda tx: press_charge(tx, reference, at, paid=paid))
        return await self.read(reference)

    async def refund(self, reference: str, refund_id: str, amount_minor: int) -> Charge | None:
        """Note the refund, once for each id."""
        await tend(self._house, lambda tx: insert_refund(tx, reference, refund_id, amount_minor))
        return await self.read(reference)

    async def untold(self, limit: int, after: str = "") -> Sequence[tuple[str, int]]:
        """(reference, how many were sent) of pressed charges with notifications to be sent.

        The first so many in the order of their references, those after this one.
        """
        return await read_untold(self._house.pool, limit, after)

    async def note_told(self, reference: str, told: int, *, is_all: bool) -> None:
        """So many of its notifications were sent; whether that is all of them."""
        await tend(self._house, lambda tx: note_told(tx, reference, told, is_all=is_all))
