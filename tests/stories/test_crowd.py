"""A crowd for some weeks: random steps by random people, against a model of integers.

The model is the table: it says which steps are legal and what each does to the money. Seeded; the
seed stands in the failure's parameters.
"""

import random
from dataclasses import dataclass, field, replace
from datetime import timedelta
from decimal import Decimal

import pytest

from service.commands import escrows
from service.commands.checks import check_all
from service.commands.perform import House
from service.rules.errors import InsufficientFunds, Refused
from service.rules.escrow import STEP_OF_KIND, TABLE, Escrow, choose, take
from service.rules.machine import CLOCK, Actor
from service.store.clock import read_clock
from service.store.ledger import read_balance
from tests.books import assert_sound
from tests.makers import (
    Buyer,
    Shop,
    act,
    advance,
    make_buyer,
    make_escrow,
    make_shop,
    reread,
    top_up,
)

STEPS = 120
COMMANDS = {
    "accept_pay": escrows.pay,
    "deliver": escrows.deliver,
    "complete": escrows.complete,
    "cancel": escrows.cancel,
}


@dataclass
class Model:
    """What everybody should have, and where every escrow should stand."""

    wallets: dict[str, int]
    escrows: dict[str, Escrow] = field(default_factory=dict)
    fees: int = 0

    def take(self, name: str, escrow_id: str, actor: Actor, before: Escrow) -> None:
        """Carry the step out on the model's own escrow. Raises the table's refusal."""
        own = replace(before, status=self.escrows[escrow_id].status)
        row = choose(name, own, actor)
        if row.name == "accept_pay" and self.wallets[own.buyer_id] < own.amount_ledger_minor:
            raise InsufficientFunds
        taken = take(row, own, actor, before.updated_at)
        for posting in taken.postings:
            for account, amount in (
                (posting.source, -posting.amount_minor),
                (posting.target, posting.amount_minor),
            ):
                if account.kind == "available":
                    self.wallets[account.owner] += amount
                if account.kind == "platform_fees":
                    self.fees += amount
        self.escrows[escrow_id] = taken.after


async def agree(house: House, model: Model) -> None:
    for user_id, expected in model.wallets.items():
        assert (await read_balance(house.pool, user_id, "TND")).available == expected
    for escrow_id, expected in model.escrows.items():
        found = await reread(house, escrow_id)
        assert (found.status, found.held_minor) == (expected.status, expected.held_minor)


@pytest.mark.parametrize("seed", [1, 7, 2026])
async def test_a_crowd_does_what_the_table_says_and_no_millime_is_lost(house: House, seed: int):
    chance = random.Random(seed)
    shops = [await make_shop(house) for _ in range(2)]
    buyers = [await make_buyer(house, funds="300") for _ in range(3)]
    model = Model({one.user_id: 300_000 for one in buyers} | {one.user_id: 0 for one in shops})
    for _ in range(STEPS):
        await one_move(house, model, chance, shops, buyers)
    await agree(house, model)
    await assert_sound(house)
    broken = [one for one in await check_all(house) if not one.ok and one.id not in "GH"]
    assert broken == []
    assert model.fees > 0
    assert {one.status for one in model.escrows.values()} >= {"completed", "cancelled"}


async def one_move(
    house: House, model: Model, chance: random.Random, shops: list[Shop], buyers: list[Buyer]
) -> None:
    shop, buyer = chance.choice(shops), chance.choice(buyers)
    what = chance.random()
    if what < 0.25 or not model.escrows:
        amount = Decimal(chance.randint(5_000, 90_000)) / 1000
        made = await make_escrow(
            house, shop, buyer, mode=chance.choice(["quick", "instant"]), amount=amount,
            estimated_delivery_days=chance.randint(1, 5),
        )  # fmt: skip
        model.escrows[made.id] = made
    elif what < 0.32:
        await pass_days(house, model, chance.randint(1, 4))
    elif what < 0.37:
        await top_up(house, buyer.email, "20")
        model.wallets[buyer.user_id] += 20_000
    else:
        await a_step(house, model, chance, shops, buyers)


async def a_step(
    house: House, model: Model, chance: random.Random, shops: list[Shop], buyers: list[Buyer]
) -> None:
    """Somebody tries something; most often somebody who may, on an escrow that is still open."""
    open_ids = [i for i, e in model.escrows.items() if e.status not in TABLE.final]
    pool = open_ids if open_ids and chance.random() < 0.9 else list(model.escrows)
    escrow_id = chance.choice(pool)
    before = await reread(house, escrow_id)
    legal = [r.name for r in TABLE.legal(before.status, before.mode) if r.name in COMMANDS]
    name = chance.choice(legal if legal and chance.random() < 0.8 else sorted(COMMANDS))
    actors = {one.user_id: one.actor for one in (*shops, *buyers)}
    actor = actors[
        before.buyer_id
        if name in ("accept_pay", "complete")
        else before.seller_id
        if chance.random() < 0.9
        else chance.choice(sorted(actors))
    ]
    expected: type[Refused] | None = None
    try:
        model.take(name, escrow_id, actor, before)
    except Refused as refusal:
        expected = type(refusal)
    if expected is None:
        await act(house, actor, COMMANDS[name](escrow_id))
    else:
        with pytest.raises(Refused) as refused:
            await act(house, actor, COMMANDS[name](escrow_id))
        assert type(refused.value) is expected


async def pass_days(house: House, model: Model, days: int) -> None:
    to = (await read_clock(house.pool)).now + timedelta(days=days)
    before = {i: await reread(house, i) for i in model.escrows}
    for fired in await advance(house, to):
        model.take(STEP_OF_KIND[fired.kind], fired.escrow_id, CLOCK, before[fired.escrow_id])
