"""Two steps at the same moment, for every pair that the table makes legal in a state.

The law: what comes out is what one after the other would have given, in one of the two orders.
The loser gets the refusal of the state that the winner left; the books balance after each round.
A new row of the table is raced as soon as its command stands in `COMMANDS`.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from service.commands import escrows, users
from service.commands.deadlines import sweep
from service.commands.perform import Command, House, perform
from service.commands.steps import fire_due_of
from service.rules.errors import (
    ContractNotSigned,
    EscrowCancelled,
    InsufficientFunds,
    PaymentAlreadyDone,
    Refused,
    WrongStatus,
)
from service.rules.escrow import CLOCKS, FINAL, PROOF, TABLE, Escrow, choose
from service.rules.machine import CLOCK, Actor, Role
from service.store.db import Transaction
from service.store.deadlines import read_open
from service.store.escrows import lock_escrows
from service.store.ledger import read_balance
from service.wire.base import Wire
from tests.books import assert_sound
from tests.makers import (
    PATHS,
    Buyer,
    Done,
    Shop,
    act,
    advance,
    arrange,
    jump,
    make_buyer,
    make_escrow,
    make_shop,
    reread,
    top_up,
)

ROUNDS = 6
COMMANDS: dict[str, Callable[[str], Command]] = {
    "accept_pay": escrows.pay,
    "cancel": escrows.cancel,
    "complete": escrows.complete,
    "deliver": escrows.deliver,
}
"""The steps that somebody can take today, by their names in the table."""


# 1. Every pair -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Runner:
    """Somebody who takes a step: a person by a command, or the clock by its deadline."""

    name: str
    who: Role
    kind: str | None = None

    def __str__(self) -> str:
        return f"{self.kind or self.name}-{self.who}"


def runners(mode: str, state: str) -> Iterator[Runner]:
    """Everybody who may take a step out of this state, once a role; then its clocks."""
    for row in TABLE.legal(state, mode):
        if row.name in COMMANDS:
            people = row.who & {Role.SELLER, Role.BUYER, Role.CREATOR}
            yield from (Runner(row.name, role) for role in sorted(people))
    for clock in CLOCKS:
        after_another = clock.kind == "delivery_overdue" and mode == PROOF
        if clock.state == state and mode in clock.modes and not after_another:
            yield Runner(clock.step, Role.CLOCK, clock.kind)


def pairs() -> Iterator[Any]:
    for mode, paths in PATHS.items():
        for state in sorted(set(paths) - FINAL):
            every = list(runners(mode, state))
            for one, other in itertools.combinations_with_replacement(every, 2):
                if one.kind and other.kind and one != other:
                    continue  # one escrow's deadlines are due one after the other
                yield pytest.param(mode, state, one, other, id=f"{mode}-{state}-{one}-{other}")


async def fire(house: House, escrow_id: str, kind: str) -> str:
    """The clock takes this deadline's step, at its own time; "passed" where it lost the race."""
    [deadline] = [d for d in await read_open(house.pool, escrow_id) if d.kind == kind] or [None]
    if deadline is None:
        return "passed"
    fired: list[str] = []

    async def command(tx: Transaction) -> Wire:
        locked = await lock_escrows(tx, [escrow_id])
        if locked[0].due == deadline.id:
            fired[:] = [one.kind for one in await fire_due_of(tx, [escrow_id])]
        return Done()

    await perform(house, CLOCK, command, now=deadline.due_at)
    return "won" if fired else "passed"


def actor_of(runner: Runner, shop: Shop, buyer: Buyer) -> Actor:
    if runner.who is Role.CLOCK:
        return CLOCK
    return buyer.actor if runner.who is Role.BUYER else shop.actor


async def run(house: House, runner: Runner, escrow: Escrow, actor: Actor) -> str:
    """`won`, `passed` (the clock came too late), or the refusal's name."""
    if runner.kind is not None:
        return await fire(house, escrow.id, runner.kind)
    try:
        await act(house, actor, COMMANDS[runner.name](escrow.id))
    except Refused as refusal:
        return type(refusal).__name__
    return "won"


def after(runner: Runner, escrow: Escrow, state: str, actor: Actor) -> tuple[str, str]:
    """What this runner gets in this state by the table, and the state that is left."""
    try:
        row = choose(runner.name, replace(escrow, status=state), actor)
    except Refused as refusal:
        return "passed" if runner.kind else type(refusal).__name__, state
    if row.name == "accept_pay" and escrow.contract is not None:
        return ContractNotSigned.__name__, state  # nobody can sign yet
    return "won", row.target


async def arranged(house: House, mode: str, state: str, two: tuple[Runner, Runner]):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode=mode, status=state)
    kinds = {runner.kind for runner in two}
    if "overdue_refund" in kinds:
        await fire(house, escrow.id, "delivery_overdue")
    escrow = await reread(house, escrow.id)
    return shop, buyer, escrow


@pytest.mark.parametrize(("mode", "state", "one", "other"), list(pairs()))
async def test_two_steps_at_once_end_as_one_after_the_other(
    house: House, mode: str, state: str, one: Runner, other: Runner
):
    for n in range(ROUNDS):
        shop, buyer, escrow = await arranged(house, mode, state, (one, other))
        two = (one, other) if n % 2 else (other, one)
        actors = [actor_of(runner, shop, buyer) for runner in two]
        got = await asyncio.gather(
            *(run(house, runner, escrow, actor) for runner, actor in zip(two, actors, strict=True)),
            return_exceptions=True,
        )
        left = await reread(house, escrow.id)
        possible = []
        for first, second in ((0, 1), (1, 0)):
            outcome = ["", ""]
            outcome[first], middle = after(two[first], escrow, state, actors[first])
            outcome[second], end = after(two[second], escrow, middle, actors[second])
            if two[first].kind is not None and two[first] == two[second]:
                outcome[second], end = "passed", middle
            possible.append((outcome, end))
        assert (got, left.status) in possible
    await assert_sound(house, in_time=False)


def test_every_command_of_the_table_is_raced():
    known = {
        name for name in COMMANDS if TABLE.sources(name, "quick") | TABLE.sources(name, "instant")
    }
    assert known == set(COMMANDS)
    assert len(list(pairs())) > 20


# 2. Many at once, and money ----------------------------------------------------------------------


async def outcomes(*work: Coroutine[Any, Any, Any]) -> list[str]:
    ended = await asyncio.gather(*work, return_exceptions=True)
    assert all(isinstance(one, Refused) or not isinstance(one, BaseException) for one in ended), (
        ended
    )
    return sorted(type(one).__name__ if isinstance(one, Refused) else "won" for one in ended)


async def test_of_many_deliveries_one_pays_the_seller(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house, funds="2000")
    for _ in range(15):
        escrow = await make_escrow(house, shop, buyer, status="paid")
        before = (await read_balance(house.pool, shop.user_id, "TND")).available
        got = await outcomes(
            *(act(house, shop.actor, escrows.deliver(escrow.id)) for _ in range(5))
        )
        assert got == ["WrongStatus"] * 4 + ["won"]
        paid = (await read_balance(house.pool, shop.user_id, "TND")).available - before
        assert paid == 100_000
    await assert_sound(house)


async def test_a_delivery_wins_against_a_cancellation_that_comes_too_late_by_its_nature(
    house: House,
):
    """After payment nobody cancels that way: whoever comes first, the refusal is the same."""
    shop, buyer = await make_shop(house), await make_buyer(house, funds="2000")
    for n in range(12):
        escrow = await make_escrow(house, shop, buyer, status="paid")
        work = [
            act(house, shop.actor, escrows.deliver(escrow.id)),
            act(house, buyer.actor, escrows.cancel(escrow.id)),
        ]
        assert await outcomes(*(work if n % 2 else reversed(work))) == ["WrongStatus", "won"]
        assert (await reread(house, escrow.id)).status == "completed"
    await assert_sound(house)


async def test_of_many_payments_of_one_escrow_one_is_taken(house: House):
    shop = await make_shop(house)
    for _ in range(15):
        buyer = await make_buyer(house, funds="1000")
        escrow = await make_escrow(house, shop, buyer)
        got = await outcomes(*(act(house, buyer.actor, escrows.pay(escrow.id)) for _ in range(5)))
        assert got == ["PaymentAlreadyDone"] * 4 + ["won"]
        assert (await read_balance(house.pool, buyer.user_id, "TND")).available == 900_000
    await assert_sound(house)


async def test_a_wallet_that_has_enough_for_one_escrow_pays_one(house: House):
    shop = await make_shop(house)
    for _ in range(15):
        buyer = await make_buyer(house, funds="150")
        made = [await make_escrow(house, shop, buyer) for _ in range(4)]
        got = await outcomes(*(act(house, buyer.actor, escrows.pay(one.id)) for one in made))
        assert got == ["InsufficientFunds"] * 3 + ["won"]
        assert (await read_balance(house.pool, buyer.user_id, "TND")).available == 50_000
    await assert_sound(house)


async def test_money_that_comes_and_goes_at_once_is_neither_lost_nor_made(house: House):
    """Two people who buy from each other, are paid and top up: locks in every order but ours."""
    one, other = await make_shop(house), await make_shop(house)
    for shop in (one, other):
        await top_up(house, shop.email, "1000")
    before = await held_by(house, one, other)
    for _ in range(6):
        work: list[Coroutine[Any, Any, Any]] = []
        for seller, payer in ((one, other), (other, one)) * 3:
            buyer = Buyer(payer.user_id, payer.email)
            paid = await make_escrow(house, seller, buyer, status="paid")
            pending = await make_escrow(house, seller, buyer)
            work += [
                act(house, seller.actor, escrows.deliver(paid.id)),
                act(house, buyer.actor, escrows.pay(pending.id)),
                top_up(house, seller.email, "1"),
            ]
        await asyncio.gather(*work)
        paid_ids = [
            row["id"]
            for row in await house.pool.fetch("SELECT id FROM escrow WHERE status = 'paid'")
        ]
        for kind in ("delivery_overdue", "overdue_refund"):
            await asyncio.gather(*(fire(house, one, kind) for one in paid_ids))
    assert await held_by(house, one, other) == before + 6 * 6 * 1_000
    await assert_sound(house, in_time=False)


async def held_by(house: House, *shops: Shop) -> int:
    wallets = [await read_balance(house.pool, shop.user_id, "TND") for shop in shops]
    return sum(wallet.available + wallet.escrow for wallet in wallets)


# 3. Against the clock that everybody sees --------------------------------------------------------


async def test_once_an_offer_has_expired_no_payment_comes_through(house: House):
    shop = await make_shop(house)
    for _ in range(15):
        buyer = await make_buyer(house, funds="100")
        escrow = await make_escrow(house, shop, buyer)
        await jump(house, timedelta(days=40))
        paid, swept = await asyncio.gather(
            act(house, buyer.actor, escrows.pay(escrow.id)), sweep(house), return_exceptions=True
        )
        assert isinstance(paid, EscrowCancelled)
        assert not isinstance(swept, BaseException)
        assert (await reread(house, escrow.id)).cancel_reason == "expired"
    await assert_sound(house)


async def test_two_sweeps_at_once_fire_everything_once(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    made = [await make_escrow(house, shop, buyer) for _ in range(30)]
    await jump(house, timedelta(days=40))
    sweeps = await asyncio.gather(*(sweep(house) for _ in range(3)))
    await sweep(house)
    fired = [deadline.escrow_id for one in sweeps for deadline in one.fired]
    assert len(fired) == len(set(fired))
    assert {(await reread(house, one.id)).status for one in made} == {"cancelled"}
    await assert_sound(house)


async def test_a_delivery_raced_with_the_sandboxs_clock_is_either_before_or_after(house: House):
    shop = await make_shop(house)
    seen = set()
    for n in range(12):
        buyer = await make_buyer(house, funds="100")
        escrow = await make_escrow(house, shop, buyer, status="paid", estimated_delivery_days=1)
        assert escrow.paid_at is not None

        async def deliver(after_turns: int, escrow_id: str = escrow.id) -> Any:
            for _ in range(after_turns):
                await asyncio.sleep(0)
            return await act(house, shop.actor, escrows.deliver(escrow_id))

        delivered, _ = await asyncio.gather(
            deliver(n * 4),
            advance(house, escrow.paid_at + timedelta(days=5)),
            return_exceptions=True,
        )
        status = (await reread(house, escrow.id)).status
        seen.add(status)
        if isinstance(delivered, BaseException):
            assert isinstance(delivered, WrongStatus)
            assert status == "cancelled"
        else:
            assert status == "completed"
    assert seen <= {"completed", "cancelled"}
    await assert_sound(house, in_time=False)


# 4. Against those who register -------------------------------------------------------------------


async def test_a_registration_raced_with_a_cancellation_is_linked_or_left(house: House):
    shop = await make_shop(house)
    for n in range(15):
        email = f"new{n}@example.org"
        escrow = await make_escrow(house, shop, buyer_email=email)

        def register(email: str = email) -> Awaitable[Any]:
            return arrange(house, lambda tx: users.register(tx, email, "N", "W"))

        await asyncio.gather(register(), act(house, shop.actor, escrows.cancel(escrow.id)))
        left = await reread(house, escrow.id)
        linked = await house.pool.fetchval(
            "SELECT count(*) FROM event WHERE subject_id = $1 AND step = 'link_party'", escrow.id
        )
        assert left.status == "cancelled"
        assert (left.buyer is not None) == bool(linked)
    await assert_sound(house)


def test_the_refusals_of_the_races_are_the_documented_ones():
    assert {kind.code for kind in (PaymentAlreadyDone, EscrowCancelled, InsufficientFunds)} == {
        "PAYMENT_ALREADY_DONE",
        "ESCROW_CANCELLED",
        "INSUFFICIENT_FUNDS",
    }
