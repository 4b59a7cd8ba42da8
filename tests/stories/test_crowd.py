"""A crowd for some weeks: random steps by random people, against a model of integers.

The model is the table: it says which steps are legal and what each does to the money. Seeded; the
seed stands in the failure's parameters.
"""

import random
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from service.commands import cancellations, contracts, disputes, escrows
from service.commands.checks import check_all
from service.commands.perform import Command, House
from service.rules.aggregate import CancellationRequest, Dispute, Escrow, Rejection
from service.rules.clocks import due_step
from service.rules.errors import InsufficientFunds, Refused
from service.rules.escrow import CANCELLED, COMPLETED, TABLE, choose, roles, take
from service.rules.machine import CLOCK, Actor, ActorKind, Role, Step
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

STEPS = 320
COMMANDS: dict[str, Callable[[str], Command]] = {
    "sign_contract": lambda i: contracts.sign(i, contracts.Mark(contracts.TYPED, name="Me")),
    "accept_pay": escrows.pay,
    "deliver": escrows.deliver,
    "reject_delivery": lambda i: escrows.reject_delivery(i, None),
    "complete": escrows.complete,
    "cancel": escrows.cancel,
    "cancel_escrow": cancellations.cancel_paid,
    "request_cancellation": lambda i: cancellations.request(i, None),
    "accept_cancellation": cancellations.accept,
    "reject_cancellation": cancellations.reject,
    "dispute": lambda i: disputes.open_dispute(i, "It is not what was agreed."),
    "withdraw_dispute": disputes.withdraw,
}
RESOLVE = "resolve_dispute"
OPERATOR = Actor(ActorKind.OPERATOR)
OF_BUYER = {"accept_pay", "complete", "reject_delivery", "request_cancellation"}
ENDING = {"cancel", "cancel_escrow"}
"""Taken less often than the rest: there is no life after them."""
OF_EITHER = {"sign_contract", "dispute", "withdraw_dispute"}
SOMETIME = datetime(2026, 1, 1, tzinfo=UTC)
"""The model knows the order of things, not their hours."""


@dataclass
class Model:
    """What everybody should have, and where every escrow should stand, by the table alone."""

    wallets: dict[str, int]
    escrows: dict[str, Escrow] = field(default_factory=dict)
    fees: int = 0
    taken: Counter[str] = field(default_factory=Counter)

    def take(
        self,
        name: str,
        escrow_id: str,
        actor: Actor,
        target: str | None = None,
        part: int | None = None,
    ) -> None:
        """Carry the step out on the model's own escrow. Raises the table's refusal."""
        own = self.escrows[escrow_id]
        row = choose(name, own, actor, target)
        if row.name == "accept_pay" and self.wallets[own.buyer_id or ""] < own.amount_ledger_minor:
            raise InsufficientFunds
        changed = brought(row, own, actor)
        taken = take(row, own, actor, SOMETIME, changed=changed, sellers_part=part)
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
        self.taken[f"{name} by time" if actor == CLOCK else name] += 1


def brought(row: Step, own: Escrow, actor: Actor) -> Escrow:
    """The model's escrow with what the actor brings along."""
    side = Role.SELLER if Role.SELLER in roles(actor, own) else Role.BUYER
    person = own.seller if side is Role.SELLER else own.buyer
    assert person is not None
    match row.name:
        case "sign_contract":
            assert own.contract is not None
            signed = replace(own.contract, **{f"{side}_signed_at": SOMETIME})
            return replace(own, contract=signed)
        case "request_cancellation":
            return replace(own, cancellation=CancellationRequest("0" * 24, person, SOMETIME))
        case "dispute":
            dispute = Dispute("0" * 24, 1, side, person, "", SOMETIME, own.status)
            return replace(own, dispute=dispute)
        case "reject_delivery":
            return replace(own, rejections=(*own.rejections, Rejection(SOMETIME, SOMETIME)))
    return own


def parts(escrow: Escrow) -> tuple[object, ...]:
    """What the model knows of an escrow: where it stands, its money, what became of its parts."""
    request, dispute = escrow.cancellation, escrow.dispute
    return (
        escrow.status,
        escrow.cancel_reason,
        (escrow.held_minor, escrow.released_minor, escrow.refunded_minor, escrow.fees_minor),
        len(escrow.rejections),
        request and (request.status, request.answered_by),
        dispute and (dispute.opener, dispute.back_to, dispute.outcome, dispute.settlement),
        escrow.contract and escrow.contract.is_fully_signed,
    )


async def agree(house: House, model: Model) -> None:
    for user_id, expected in model.wallets.items():
        assert (await read_balance(house.pool, user_id, "TND")).available == expected
    for escrow_id, expected in model.escrows.items():
        assert parts(await reread(house, escrow_id)) == parts(expected)


@pytest.mark.parametrize("seed", [1, 7, 2026])
async def test_a_crowd_does_what_the_table_says_and_no_millime_is_lost(house: House, seed: int):
    chance = random.Random(seed)
    shops = [await make_shop(house) for _ in range(2)]
    buyers = [await make_buyer(house, funds="2000") for _ in range(3)]
    model = Model({one.user_id: 2_000_000 for one in buyers} | {one.user_id: 0 for one in shops})
    for _ in range(STEPS):
        await one_move(house, model, chance, shops, buyers)
    await agree(house, model)
    await assert_sound(house)
    broken = [one for one in await check_all(house) if not one.ok and one.id not in "GH"]
    assert broken == []
    assert model.fees > 0
    assert {one.status for one in model.escrows.values()} >= {"completed", "cancelled"}
    assert len(model.taken.keys() & {*COMMANDS, RESOLVE}) >= 10
    assert sum(count for name, count in model.taken.items() if name.endswith("by time")) >= 5


async def one_move(
    house: House, model: Model, chance: random.Random, shops: list[Shop], buyers: list[Buyer]
) -> None:
    shop, buyer = chance.choice(shops), chance.choice(buyers)
    what = chance.random()
    if what < 0.2 or not model.escrows:
        amount = Decimal(chance.randint(5_000, 90_000)) / 1000
        made = await make_escrow(
            house, shop, buyer, mode=chance.choice(["standard", "quick", "instant"]), amount=amount,
            estimated_delivery_days=chance.randint(1, 5),
        )  # fmt: skip
        model.escrows[made.id] = made
    elif what < 0.25:
        await pass_days(house, model, chance.randint(1, 3))
    elif what < 0.28:
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
    own = model.escrows[escrow_id]
    if own.status == "disputed" and chance.random() < 0.4:
        await settle(house, model, chance, own)
        return
    legal = [r.name for r in TABLE.legal(own.status, own.mode) if r.name in COMMANDS]
    likely = legal if legal and chance.random() < 0.85 else sorted(COMMANDS)
    [name] = chance.choices(likely, [1 if one in ENDING else 5 for one in likely])
    actors = {one.user_id: one.actor for one in (*shops, *buyers)}
    party = own.buyer_id if name in OF_BUYER else own.seller_id
    if name in OF_EITHER:
        party = chance.choice([own.seller_id, own.buyer_id])
    actor = actors[party if chance.random() < 0.9 and party else chance.choice(sorted(actors))]
    expected: type[Refused] | None = None
    try:
        model.take(name, escrow_id, actor)
    except Refused as refusal:
        expected = type(refusal)
    if expected is None:
        await act(house, actor, COMMANDS[name](escrow_id))
    else:
        with pytest.raises(Refused) as refused:
            await act(house, actor, COMMANDS[name](escrow_id))
        assert type(refused.value) is expected


async def settle(house: House, model: Model, chance: random.Random, own: Escrow) -> None:
    """The operator decides: any part for the seller, none and all included."""
    held = own.held_minor
    part = chance.choice([0, held, chance.randint(1, held - 1)])
    split = disputes.Split(part, held - part)
    await act(house, OPERATOR, disputes.resolve(own.id, split=split))
    model.take(RESOLVE, own.id, OPERATOR, COMPLETED if part else CANCELLED, part or None)


async def pass_days(house: House, model: Model, days: int) -> None:
    to = (await read_clock(house.pool)).now + timedelta(days=days)
    for fired in await advance(house, to):
        own = model.escrows[fired.escrow_id]
        name, target = due_step(fired.kind, own)
        model.take(name, own.id, CLOCK, target, own.held_minor)
