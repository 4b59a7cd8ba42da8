"""Two steps at the same moment, for every pair that the table makes legal in a standing.

The law: what comes out is what one after the other would have given, in one of the two orders.
The loser gets the refusal of the state that the winner left; the books balance after each test.
A new row of the table is raced as soon as its command stands in `COMMANDS`.
"""

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Coroutine, Iterator
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

import pytest

from service.commands import (
    amendments,
    cancellations,
    contracts,
    disputes,
    escrows,
    proofs,
    users,
)
from service.commands.contracts import TYPED, Mark
from service.commands.deadlines import sweep
from service.commands.perform import Command, House, perform, tend
from service.commands.steps import fire_due_of
from service.rules import proof
from service.rules.aggregate import Escrow
from service.rules.clocks import ACKNOWLEDGED, due_step, is_paused, running
from service.rules.errors import (
    EscrowCancelled,
    InsufficientFunds,
    PaymentAlreadyDone,
    Refused,
    WrongStatus,
)
from service.rules.escrow import COMPLETED, FINAL, PROOF, STANDARD, TABLE, choose, take
from service.rules.machine import CLOCK, Actor, ActorKind, Role
from service.store.db import Transaction
from service.store.deadlines import Arming, arm_deadlines, read_open
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
    make_file,
    make_shop,
    reread,
    top_up,
)
from tests.service.rules.samples import (
    ACTORS,
    brought,
    make_dispute,
    make_proof,
    make_request,
    make_sample,
    unsigned,
)

ROUNDS = 4
COMMANDS: dict[str, Callable[[str], Command]] = {
    "accept_pay": escrows.pay,
    "cancel": escrows.cancel,
    "complete": escrows.complete,
    "deliver": escrows.deliver,
    "reject_delivery": lambda escrow_id: escrows.reject_delivery(escrow_id, None),
    "update": lambda escrow_id: amendments.update(escrow_id, amendments.Changes(title="New")),
    "sign_contract": lambda escrow_id: contracts.sign(escrow_id, Mark(TYPED, name="N. Ame")),
    "cancel_escrow": cancellations.cancel_paid,
    "request_cancellation": lambda escrow_id: cancellations.request(escrow_id, None),
    "accept_cancellation": cancellations.accept,
    "reject_cancellation": cancellations.reject,
    "dispute": lambda escrow_id: disputes.open_dispute(escrow_id, "?"),
    "withdraw_dispute": disputes.withdraw,
    "answer_dispute": lambda escrow_id: disputes.answer(escrow_id, "?"),
    "submit_proof": lambda escrow_id: proofs.submit(escrow_id, [make_file()]),
    "accept_proof": proofs.accept,
    "request_correction": lambda escrow_id: proofs.request_correction(escrow_id, "?"),
    "reject_proof": lambda escrow_id: proofs.decide(escrow_id, accepts=False),
    "resolve_dispute": lambda escrow_id: disputes.resolve(escrow_id, "buyer"),
}
"""The steps that somebody can take today, by their names in the table."""


# 1. Every pair -----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Runner:
    """Somebody who takes a step: a person by a command, or the clock by its deadline.

    `target` where the step leads to two states.
    """

    name: str
    who: Role
    kind: str | None = None
    target: str | None = None

    def __str__(self) -> str:
        return "-".join(filter(None, (self.kind or self.name, self.who, self.target)))

    @property
    def command(self) -> Callable[[str], Command]:
        if (self.name, self.target) == ("resolve_dispute", COMPLETED):
            return lambda escrow_id: disputes.resolve(escrow_id, "seller")
        if (self.name, self.who) == ("accept_proof", Role.OPERATOR):
            return lambda escrow_id: proofs.decide(escrow_id, accepts=True)
        return COMMANDS[self.name]


@dataclass(frozen=True)
class Standing:
    """How an escrow stands when they run: a state that the makers reach, and steps from there."""

    mode: str
    state: str
    then: tuple[str, ...] = ()

    def __str__(self) -> str:
        return "-".join((self.mode, self.state, *self.then))

    def sample(self) -> Escrow:
        """As the rules see it."""
        if "dispute" in "".join(self.then):
            dispute = make_dispute("seller" if "sellers_dispute" in self.then else "buyer")
            return make_sample(self.mode, "disputed", dispute=replace(dispute, back_to=self.state))
        sample = make_sample(self.mode, self.state)
        if self.state == "pending" and self.mode == STANDARD and not self.then:
            sample = unsigned(sample)
        if "request_cancellation" in self.then:
            sample = replace(sample, cancellation=make_request())
        if self.then in PHASES:
            return replace(sample, proof=make_proof(PHASES[self.then]))
        return sample


SIGNED = ("sellers_signature", "buyers_signature")
FURTHER = {
    "pending": ((), SIGNED),
    "paid": ((), ("request_cancellation",), ("buyers_dispute",)),
    "delivered": ((), ("request_cancellation",), ("sellers_dispute",)),
}
SHOWN = ("submit_proof",)
AGAIN = ("request_correction", "submit_proof")
PHASES = {
    SHOWN: proof.REVIEW,
    (*SHOWN, "request_correction"): proof.CORRECTION,
    (*SHOWN, *AGAIN): proof.REVIEW,
    (*SHOWN, *AGAIN * 3, "request_correction"): proof.OPERATOR,
    (*SHOWN, "accept_proof"): proof.ACCEPTED,
}
"""The steps of a purchase proof -> the phase that they lead to."""
STANDINGS = [
    Standing(mode, state, then)
    for mode, paths in PATHS.items()
    for state, ways in FURTHER.items()
    for then in ways
    if state in paths and (then != SIGNED or mode == STANDARD)
] + [Standing(PROOF, "paid", then) for then in PHASES]
ROLES = (Role.SELLER, Role.BUYER, Role.CREATOR, Role.OPERATOR)


def runners(standing: Standing) -> Iterator[Runner]:
    """Everybody who may take a step out of this standing, once a role; then its clocks."""
    sample = standing.sample()
    rows = [row for row in TABLE.legal(sample.status, sample.mode) if row.name in COMMANDS]
    for row in rows:
        ways = {other.target for other in rows if other.name == row.name}
        target = row.target if len(ways) > 1 and row.name == "resolve_dispute" else None
        for role in ROLES if row.name != "resolve_dispute" else (Role.OPERATOR,):
            if role in row.who and is_legal(row.name, sample, ACTORS[role], target):
                runner = Runner(row.name, role, target=target)
                if not (row.name == "withdraw_dispute" and row.target != standing.state):
                    yield runner
    for kind, clock in running(sample).items():
        if not is_paused(kind, sample) and (standing.mode, kind, standing.then) not in TOO_LATE:
            yield Runner(clock.step, Role.CLOCK, kind)


TOO_LATE = {
    (PROOF, "delivery_overdue", ()),
    (PROOF, "delivery_overdue", ("request_cancellation",)),
    (PROOF, "cancellation_answer", ("request_cancellation",)),
    *(
        (PROOF, "delivery_overdue", then)
        for then, phase in PHASES.items()
        if phase in (proof.REVIEW, proof.CORRECTION)
    ),
    ("instant", ACKNOWLEDGED, ("request_cancellation",)),
}
"""Clocks behind another, which would have ended it by then."""


def is_legal(name: str, escrow: Escrow, actor: Actor, target: str | None) -> bool:
    try:
        choose(name, escrow, actor, target)
    except Refused:
        return False
    return True


def pairs() -> Iterator[Any]:
    for standing in STANDINGS:
        every = list(runners(standing))
        for one, other in itertools.combinations_with_replacement(every, 2):
            if one.kind and other.kind and one != other:
                continue  # one escrow's deadlines are due one after the other
            yield pytest.param(standing, one, other, id=f"{standing}-{one}-{other}")


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
    return {
        Role.CLOCK: CLOCK,
        Role.BUYER: buyer.actor,
        Role.SELLER: shop.actor,
        Role.CREATOR: Actor(ActorKind.DEVELOPER, developer_id=shop.developer_id),
        Role.OPERATOR: Actor(ActorKind.OPERATOR),
    }[runner.who]


async def run(house: House, runner: Runner, escrow: Escrow, actor: Actor) -> str:
    """`won`, `passed` (the clock came too late), or the refusal's name."""
    if runner.kind is not None:
        return await fire(house, escrow.id, runner.kind)
    try:
        await act(house, actor, runner.command(escrow.id))
    except Refused as refusal:
        return type(refusal).__name__
    return "won"


def after(runner: Runner, escrow: Escrow, actor: Actor) -> tuple[str, Escrow]:
    """What this runner gets by the rules where the escrow stands so, and how it then stands."""
    name, target = runner.name, runner.target
    if runner.kind is not None:
        if runner.kind not in running(escrow) or is_paused(runner.kind, escrow):
            return "passed", escrow
        name, target = due_step(runner.kind, escrow)
    try:
        row = choose(name, escrow, actor, target)
    except Refused as refusal:
        return type(refusal).__name__, escrow
    role = runner.who if runner.who in row.who else Role.SELLER
    changed = brought(row, escrow, role)
    taken = take(
        row, escrow, actor, escrow.updated_at, changed=changed, sellers_part=escrow.held_minor
    )
    return "won", taken.after


def standing_of(escrow: Escrow) -> tuple[object, ...]:
    """What of an escrow the order of two steps decides."""
    contract, dispute = escrow.contract, escrow.dispute
    return (
        escrow.status,
        escrow.cancel_reason,
        (escrow.held_minor, escrow.released_minor, escrow.refunded_minor, escrow.fees_minor),
        escrow.cancellation and escrow.cancellation.status,
        dispute and (dispute.opener, dispute.back_to, dispute.outcome),
        dispute and dispute.answered_at is None,
        contract and (contract.seller_signed_at is None, contract.buyer_signed_at is None),
        len(escrow.rejections),
        escrow.proof and (escrow.proof.phase, escrow.proof.correction_rounds),
        escrow.proof and len(escrow.proof.submissions),
    )


async def arranged(
    house: House, shop: Shop, buyer: Buyer, standing: Standing, kinds: set[str | None]
) -> Escrow:
    days = 1 if "overdue_refund" in kinds else 90 if standing.state == "delivered" else 3
    escrow = await make_escrow(
        house, shop, buyer, mode=standing.mode, status=standing.state, then=standing.then,
        estimated_delivery_days=days,  # so that nothing else is due before these clocks
    )  # fmt: skip
    if kinds & {"overdue_refund", "cancellation_answer"} and escrow.status == "paid":
        await fire(house, escrow.id, "delivery_overdue")
    if "dispute_answer" in kinds:
        await fire(house, escrow.id, "dispute_reminder")
    if ACKNOWLEDGED in kinds:

        async def arm(tx: Transaction) -> None:
            due = tx.now + timedelta(minutes=1)  # a receipt in a moment: due now, it would be first
            await arm_deadlines(tx, [Arming(escrow.id, ACKNOWLEDGED, due, escrow.seq)])

        await tend(house, arm)
    return await reread(house, escrow.id)


@pytest.mark.parametrize(("standing", "one", "other"), list(pairs()))
async def test_two_steps_at_once_end_as_one_after_the_other(
    house: House, standing: Standing, one: Runner, other: Runner
):
    shop, buyer = await make_shop(house), await make_buyer(house)
    for n in range(ROUNDS):
        escrow = await arranged(house, shop, buyer, standing, {one.kind, other.kind})
        assert escrow.status == standing.sample().status
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
            outcome[first], middle = after(two[first], escrow, actors[first])
            outcome[second], end = after(two[second], middle, actors[second])
            if two[first].kind is not None and two[first] == two[second]:
                outcome[second], end = "passed", middle
            possible.append((outcome, standing_of(end)))
        assert (got, standing_of(left)) in possible
    await assert_sound(house, in_time=False)


def test_every_command_of_the_table_is_raced_from_each_state_and_mode_that_it_is_taken_in():
    raced = {
        (runner.name, standing.sample().status, standing.mode)
        for standing in STANDINGS
        for runner in runners(standing)
        if runner.kind is None
    }
    assert raced == {
        (name, state, mode)
        for name in COMMANDS
        for mode in PATHS
        for state in set(PATHS[mode]) - FINAL
        if name in {row.name for row in TABLE.legal(state, mode)}
    }


def test_an_end_shuts_out_every_other_end():
    """Of two steps that both leave the state for good, one at most can win, whoever they are."""
    ends = 0
    for standing in STANDINGS:
        sample = standing.sample()
        for one, other in itertools.combinations(runners(standing), 2):
            won, middle = after(one, sample, ACTORS[one.who])
            if won == "won" and middle.status in FINAL:
                ends += 1
                assert after(other, middle, ACTORS[other.who])[0] != "won", (standing, one, other)
    assert ends > 100


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
