"""The makers reach every state that they name, and the books balance after each."""

import pytest

from service.commands.perform import House
from service.store.ledger import read_trial_balance
from tests.makers import PATHS, make_buyer, make_escrow, make_shop


@pytest.mark.parametrize(
    ("mode", "status"), [(mode, status) for mode, paths in PATHS.items() for status in paths]
)
async def test_an_escrow_reaches_every_state_that_the_makers_name(
    house: House, mode: str, status: str
) -> None:
    shop = await make_shop(house)
    buyer = await make_buyer(house, funds="250")
    escrow = await make_escrow(house, shop, buyer, mode=mode, status=status)
    assert (escrow.mode, escrow.status) == (mode, status)
    assert sum(line.balance_minor for line in await read_trial_balance(house.pool)) == 0
