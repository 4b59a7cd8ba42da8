"""The ledger: what is posted is balanced, whole or not at all, and never changed."""

import asyncio
import random
from typing import Any

import asyncpg
import pytest

from service.commands.perform import House
from service.rules.errors import BalanceTooLarge, InsufficientFunds
from service.rules.money import MAX_MINOR
from service.rules.postings import PLATFORM_FEES, Account, Posting, held, wallet
from service.store import events
from service.store.db import Transaction
from service.store.ids import event_id
from service.store.ledger import (
    Entry,
    lock_wallet,
    post_transfers,
    read_balance,
    read_trial_balance,
)
from service.store.users import next_user_seq
from tests.books import assert_sound
from tests.makers import arrange, make_buyer

OUTSIDE = Account("outside", "test")


def leg(source: Account, target: Account, amount: int, currency: str = "TND") -> Posting:
    return Posting(source, target, amount, currency, "test")


async def post(house: House, user_id: str, *legs: Posting) -> None:
    """Post these legs under an event of this user."""

    async def work(tx: Transaction) -> None:
        seq = await next_user_seq(tx, user_id)
        await post_transfers(tx, [Entry(one, user_id, seq) for one in legs])
        await events.append_events(
            tx, [events.Entry(event_id(tx.now), user_id, "user", seq, "top_up")]
        )

    await arrange(house, work)


async def balances(house: House, *users: Any) -> list[int]:
    return [(await read_balance(house.pool, u.user_id, "TND")).available for u in users]


async def two(house: House, funds: str = "1"):
    return await make_buyer(house, funds=funds), await make_buyer(house, funds=funds)


async def test_a_posting_moves_money_and_opens_the_accounts_that_are_missing(house: House):
    one, other = await two(house)
    await post(
        house,
        one.user_id,
        leg(wallet(one.user_id), wallet(other.user_id), 300),
        leg(wallet(one.user_id), PLATFORM_FEES, 50),
    )
    assert await balances(house, one, other) == [650, 1_300]
    lines = {line.kind: line.balance_minor for line in await read_trial_balance(house.pool)}
    assert lines["platform_fees"] == 50
    await assert_sound(house)


async def test_only_accounts_with_a_floor_keep_a_balance(house: House):
    one, _ = await two(house)
    await post(house, one.user_id, leg(wallet(one.user_id), PLATFORM_FEES, 50))
    rows = await house.pool.fetch("SELECT kind, balance_minor FROM account")
    for row in rows:
        keeps = row["kind"] in ("available", "pending", "held")
        assert (row["balance_minor"] is not None) == keeps


async def test_a_wallet_that_is_short_refuses_all_of_it(house: House):
    one, other = await two(house)
    with pytest.raises(InsufficientFunds):
        await post(
            house,
            one.user_id,
            leg(wallet(one.user_id), wallet(other.user_id), 900),
            leg(wallet(one.user_id), PLATFORM_FEES, 101),
        )
    assert await balances(house, one, other) == [1_000, 1_000]
    await assert_sound(house)


async def test_what_comes_in_the_same_posting_may_go_out_of_it(house: House):
    """Balances are judged after the whole, whatever the order of its legs."""
    one, other = await two(house)
    await post(
        house,
        one.user_id,
        leg(wallet(one.user_id), wallet(other.user_id), 1_500),
        leg(OUTSIDE, wallet(one.user_id), 500),
    )
    assert await balances(house, one, other) == [0, 2_500]
    await assert_sound(house)


async def test_a_round_trip_leaves_the_balance_and_both_transfers(house: House):
    one, other = await two(house)
    await post(
        house,
        one.user_id,
        leg(wallet(one.user_id), wallet(other.user_id), 100),
        leg(wallet(other.user_id), wallet(one.user_id), 100),
    )
    assert await balances(house, one, other) == [1_000, 1_000]
    assert await house.pool.fetchval("SELECT count(*) FROM transfer WHERE reason = 'test'") == 2
    await assert_sound(house)


async def test_the_largest_balance_is_the_bound(house: House):
    one, _ = await two(house, funds="0")
    await post(house, one.user_id, leg(OUTSIDE, wallet(one.user_id), MAX_MINOR))
    with pytest.raises(BalanceTooLarge):
        await post(house, one.user_id, leg(OUTSIDE, wallet(one.user_id), 1))
    assert await balances(house, one) == [MAX_MINOR]


async def test_currencies_do_not_mix(house: House):
    one, other = await two(house)
    await post(house, one.user_id, leg(OUTSIDE, wallet(one.user_id), 7, "USD"))
    with pytest.raises(InsufficientFunds):
        await post(house, one.user_id, leg(wallet(one.user_id), wallet(other.user_id), 8, "USD"))
    assert (await read_balance(house.pool, one.user_id, "USD")).available == 7
    assert await balances(house, one) == [1_000]
    await assert_sound(house)


@pytest.mark.parametrize(
    "posting",
    [
        leg(OUTSIDE, wallet("x"), 0),
        leg(OUTSIDE, PLATFORM_FEES, -1),
        leg(OUTSIDE, OUTSIDE, 1),
        leg(OUTSIDE, wallet("x"), 1, "XXX"),
        leg(OUTSIDE, Account("pocket", "x"), 1),
    ],
    ids=["nothing", "negative", "to itself", "unknown currency", "unknown kind"],
)
async def test_a_posting_that_makes_no_sense_is_refused_by_the_database(
    house: House, posting: Posting
):
    one, _ = await two(house)
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await post(house, one.user_id, posting)
    await assert_sound(house)


async def test_a_transfer_belongs_to_an_event(house: House):
    one, _ = await two(house)

    async def orphan(tx: Transaction) -> None:
        await post_transfers(tx, [Entry(leg(OUTSIDE, wallet(one.user_id), 1), one.user_id, 99)])

    with pytest.raises(asyncpg.ForeignKeyViolationError):
        await arrange(house, orphan)
    assert await balances(house, one) == [1_000]


async def test_a_wallet_that_is_read_under_its_lock_does_not_sink_meanwhile(house: House):
    one, other = await two(house)
    locked, go = asyncio.Event(), asyncio.Event()

    async def look(tx: Transaction) -> int:
        before = await lock_wallet(tx, one.user_id, "TND")
        locked.set()
        await go.wait()
        assert await lock_wallet(tx, one.user_id, "TND") == before
        return before

    looking = asyncio.create_task(arrange(house, look))
    await locked.wait()
    spending = asyncio.create_task(
        post(house, one.user_id, leg(wallet(one.user_id), wallet(other.user_id), 1_000))
    )
    await asyncio.sleep(0.05)
    assert not spending.done()
    go.set()
    assert await looking == 1_000
    await spending
    assert await balances(house, one) == [0]


async def test_a_wallet_that_was_never_opened_holds_nothing(house: House):
    one, _ = await two(house)
    assert await arrange(house, lambda tx: lock_wallet(tx, one.user_id, "EUR")) == 0


async def test_postings_in_every_direction_at_once_end_balanced_and_without_a_deadlock(
    house: House,
):
    """A seeded crowd; legs are given in random order, the locks are taken in one."""
    seed = 20_260_314
    chance = random.Random(seed)
    people = [await make_buyer(house, funds="1000") for _ in range(6)]
    before = await house.pool.fetchval(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )

    async def crowd(payer: Any) -> None:
        for _ in range(12):
            others = chance.sample([one for one in people if one is not payer], 3)
            legs = [
                leg(wallet(payer.user_id), wallet(others[0].user_id), chance.randint(1, 9)),
                leg(wallet(others[1].user_id), wallet(payer.user_id), chance.randint(1, 9)),
                leg(wallet(others[2].user_id), PLATFORM_FEES, chance.randint(1, 9)),
            ]
            chance.shuffle(legs)
            await post(house, payer.user_id, *legs)

    await asyncio.gather(*(crowd(payer) for payer in people))
    after = await house.pool.fetchval(
        "SELECT deadlocks FROM pg_stat_database WHERE datname = current_database()"
    )
    assert after == before
    fees = next(
        line.balance_minor
        for line in await read_trial_balance(house.pool)
        if line.kind == "platform_fees"
    )
    assert sum(await balances(house, *people)) + fees == 6 * 1_000_000
    await assert_sound(house)


async def test_two_who_open_the_same_account_at_once_open_one(house: House):
    one, other = await two(house)
    for n in range(10):
        shared = Account("outside", f"provider-{n}")
        await asyncio.gather(
            *(
                post(house, payer.user_id, leg(wallet(payer.user_id), shared, 1))
                for payer in (one, other)
            )
        )
    assert await house.pool.fetchval("SELECT count(*) FROM account WHERE kind = 'outside'") >= 10
    await assert_sound(house)


async def test_an_empty_posting_is_nothing(house: House):
    await arrange(house, lambda tx: post_transfers(tx, []))
    assert await house.pool.fetchval("SELECT count(*) FROM transfer") == 0
    assert held("e").kind == "held"
