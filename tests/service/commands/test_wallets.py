"""Wallets: what comes in from outside."""

import asyncio

import pytest

from service.commands import wallets
from service.commands.perform import House
from service.rules.errors import BalanceTooLarge, UserNotFound
from service.rules.money import MAX_MINOR
from service.store.ledger import Balance, read_balance, read_trial_balance
from tests.books import count_rows, read_log
from tests.makers import arrange, make_buyer

pytestmark = pytest.mark.usefixtures("sound")


async def top_up(house: House, email: str, minor: int, currency: str = "TND") -> Balance:
    return await arrange(house, lambda tx: wallets.top_up(tx, email, minor, currency))


async def test_a_top_up_is_money_from_outside_by_way_of_clearing(house: House):
    buyer = await make_buyer(house, funds="0")
    assert await top_up(house, buyer.email, 1_500) == Balance(1_500, 0, 0, "TND")
    assert {line.kind: line.balance_minor for line in await read_trial_balance(house.pool)} == {
        "available": 1_500,
        "clearing": 0,
        "outside": -1_500,
        "pending": 0,
    }
    payment = await house.pool.fetchrow("SELECT id, kind, state, received_minor FROM payment")
    assert tuple(payment)[1:] == ("topup", "succeeded", 1_500)
    assert [step for step, *_ in await read_log(house, payment["id"])] == ["begin", "settle"]


async def test_each_currency_has_a_wallet_of_its_own(house: House):
    buyer = await make_buyer(house, funds="1")
    await top_up(house, buyer.email, 250, "USD")
    assert (await read_balance(house.pool, buyer.user_id, "USD")).available == 250
    assert (await read_balance(house.pool, buyer.user_id, "TND")).available == 1_000
    assert (await read_balance(house.pool, buyer.user_id, "EUR")) == Balance(0, 0, 0, "EUR")


async def test_top_ups_at_the_same_moment_all_count(house: House):
    buyer = await make_buyer(house, funds="0")
    await asyncio.gather(*(top_up(house, buyer.email, 7) for _ in range(20)))
    assert (await read_balance(house.pool, buyer.user_id, "TND")).available == 140


async def test_a_wallet_takes_the_largest_balance_and_not_a_unit_more(house: House):
    buyer = await make_buyer(house, funds="0")
    await top_up(house, buyer.email, MAX_MINOR)
    before = await count_rows(house)
    with pytest.raises(BalanceTooLarge) as refusal:
        await top_up(house, buyer.email, 1)
    assert refusal.value.code == "AMOUNT_TOO_LARGE"
    assert await count_rows(house) == before


async def test_nobody_unknown_is_topped_up(house: House):
    with pytest.raises(UserNotFound):
        await top_up(house, "no@example.org", 1)
