"""What a step makes of an escrow is what is read of it afterwards, part by part."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from service.commands import amendments
from service.commands.perform import Command, House, perform
from service.commands.steps import lock, record
from service.rules.aggregate import Escrow
from service.rules.clocks import is_paused, running
from service.rules.escrow import FINAL, Taken, choose, take
from service.rules.machine import Actor, ActorKind
from service.store.db import Transaction
from service.store.deadlines import read_open
from service.wire.base import Wire
from tests.books import assert_sound
from tests.makers import STEPS, Buyer, Done, Shop, make_buyer, make_escrow, make_shop, reread

WALKS = [
    ("standard", "sellers_signature buyers_signature pay deliver complete"),
    ("standard", "update sellers_signature rewrite buyers_signature sellers_signature pay"),
    ("quick", "pay deliver reject_delivery deliver reject_delivery deliver complete"),
    ("quick", "pay request_cancellation reject_cancellation request_cancellation"
              " accept_cancellation"),
    ("quick", "pay request_cancellation deliver reject_cancellation complete"),
    ("quick", "pay request_cancellation buyers_dispute buyers_withdrawal cancel_escrow"),
    ("quick", "pay deliver sellers_dispute sellers_withdrawal buyers_dispute to_seller"),
    ("quick", "pay deliver request_cancellation complete"),
    ("instant", "pay request_cancellation buyers_dispute to_buyer"),
    ("instant", "update pay sellers_dispute sellers_withdrawal deliver"),
    ("quick_proof", "pay submit_proof:seller accept_proof:buyer deliver complete"),
    ("quick_proof", "pay submit_proof:seller request_correction:buyer submit_proof:seller"
                    " escalate_proof:buyer accept_proof:operator deliver"),
    ("quick_proof", "pay submit_proof:seller escalate_proof:buyer reject_proof:operator"),
    ("quick_proof", "pay buyers_dispute buyers_withdrawal submit_proof:seller buyers_dispute"
                    " buyers_withdrawal"),
]  # fmt: skip
"""Steps of the makers and `rewrite`; `step:who` is one that no command takes yet."""
OTHERWISE = amendments.Changes(
    title="Two cameras",
    amount=Decimal("123.456"),
    description="With their cases.",
    estimated_delivery_days=9,
    contract_terms="As agreed since.",
)
"""What `rewrite` changes: everything that an update may."""


async def watched(house: House, actor: Actor, command: Command) -> Taken:
    """The last step that the command takes."""
    seen: list[Taken] = []

    async def watching(tx: Transaction) -> Wire:
        answer = await command(tx)
        seen[:] = tx.taken
        return answer

    await perform(house, actor, watching)
    return seen[-1]


def bare(escrow_id: str, name: str) -> Command:
    """The step as the table has it, with nothing brought along."""

    async def command(tx: Transaction) -> Done:
        escrow = await lock(tx, escrow_id)
        taken = take(choose(name, escrow, tx.actor), escrow, tx.actor, tx.now)
        await record(tx, [taken])
        return Done()

    return command


async def walked(house: House, shop: Shop, buyer: Buyer, escrow: Escrow, name: str) -> Taken:
    actors = {
        "seller": shop.actor, "buyer": buyer.actor, "operator": Actor(ActorKind.OPERATOR),
    }  # fmt: skip
    if ":" in name:
        name, who = name.split(":")
        return await watched(house, actors[who], bare(escrow.id, name))
    if name == "rewrite":
        return await watched(house, shop.actor, amendments.update(escrow.id, OTHERWISE))
    who, command = STEPS[name]
    return await watched(house, actors[who], command(escrow.id))


@pytest.mark.parametrize(("mode", "steps"), WALKS)
async def test_what_is_read_is_what_the_rules_made(house: House, mode: str, steps: str):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode=mode)
    for n, name in enumerate(steps.split()):
        taken = await walked(house, shop, buyer, escrow, name)
        found = await reread(house, escrow.id)
        told = replace(taken.after, completion_deadline=found.completion_deadline)
        assert found == told, (n, name)
        await assert_clocks(house, found)
    await assert_sound(house)


async def assert_clocks(house: House, escrow: Escrow) -> None:
    """The open deadlines are the clocks that run, and those that are paused stand still."""
    found = {one.kind: one for one in await read_open(house.pool, escrow.id)}
    wanted = {} if escrow.status in FINAL else running(escrow)
    assert found.keys() == wanted.keys() - {"acknowledged"}
    for kind, deadline in found.items():
        assert (deadline.remaining is not None) == is_paused(kind, escrow), kind
        assert deadline.remaining is None or deadline.remaining > timedelta(0)
    completion = found.get("completion")
    shown = completion.due_at if completion and completion.remaining is None else None
    assert escrow.completion_deadline == shown
