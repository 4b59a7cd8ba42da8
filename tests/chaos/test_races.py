"""Steps raced over two ingress processes, and against the clock: one wins, the books balance."""

import asyncio
import random
from collections import Counter
from datetime import datetime, timedelta
from functools import partial

import pytest

from tests.chaos.conftest import Tell
from tests.chaos.load import RACES, Trade, asked, trading
from tests.chaos.world import World, until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]
ROUNDS = 40
CLOCK_ROUNDS = 12
STATUS = "SELECT status FROM escrow WHERE id = $1"
STEPS = "SELECT step FROM event WHERE subject_id = $1 ORDER BY seq"


@pytest.mark.parametrize("steps", RACES, ids=" and ".join)
async def test_of_two_steps_at_once_the_sound_ones_win(
    world: World, chance: random.Random, tell: Tell, steps: tuple[str, str]
) -> None:
    start, sound = RACES[steps]
    doors = [await world.serve(), await world.serve()]
    async with trading(world, chance, lambda: doors) as trade:
        ends: Counter[tuple[int, int, str]] = Counter()
        for number in range(ROUNDS):
            escrow_id = await trade.open(f"Raced {number}")
            if start == "paid":
                await trade.step(escrow_id, "pay")
            first, second = await asyncio.gather(
                asked(trade, number % 2, escrow_id, steps[0]),
                asked(trade, 1 - number % 2, escrow_id, steps[1]),
            )
            ends[first, second, (await world.rows(STATUS, escrow_id))[0][0]] += 1
        tell(ends=dict(ends))
        assert set(ends) <= sound
    await world.work()  # to fan out, so that nothing waits when it is checked
    await until(world.is_quiet)
    await world.sound()


async def test_a_delivery_raced_with_the_clock_is_paid_or_refunded_never_both(
    world: World, chance: random.Random, tell: Tell
) -> None:
    """The clock is moved at the other door, or comes by itself while the worker sweeps."""
    doors = [await world.serve(), await world.serve()]
    await world.work()
    async with trading(world, chance, lambda: doors) as trade:
        ends: Counter[tuple[int, str]] = Counter()
        for number in range(CLOCK_ROUNDS):
            escrow_id = await trade.open(f"Due {number}")
            await trade.step(escrow_id, "pay")
            due = await refund_at(world, escrow_id)
            if number % 2:
                await advance(trade, doors[0].url, due - timedelta(seconds=1))
                await asyncio.sleep(chance.uniform(0.9, 1.1))
                status = await asked(trade, 0, escrow_id, "deliver")
            else:
                await advance(trade, doors[0].url, due - timedelta(minutes=1))
                status, _ = await asyncio.gather(
                    asked(trade, 0, escrow_id, "deliver", after=chance.uniform(0, 0.06)),
                    advance(trade, doors[1].url, due + timedelta(seconds=1)),
                )
            await until(partial(is_final, world, escrow_id))
            ends[status, (await world.rows(STATUS, escrow_id))[0][0]] += 1
            steps = [step for (step,) in await world.rows(STEPS, escrow_id)]
            assert ("deliver" in steps) + ("refund_overdue" in steps) == 1
        tell(ends=dict(ends))
        assert set(ends) <= {(200, "completed"), (400, "cancelled")}
    await until(world.is_quiet)
    await world.sound()


async def refund_at(world: World, escrow_id: str) -> datetime:
    """When the paid escrow is refunded unless it is delivered."""
    rows = await world.rows(
        """SELECT due_at FROM deadline WHERE escrow_id = $1 AND kind = 'overdue_refund'
           AND fired_at IS NULL AND cancelled_at IS NULL""",
        escrow_id,
    )
    due: datetime = rows[0][0]
    return due


async def advance(trade: Trade, door: str, to: datetime) -> None:
    """Move the sandbox's clock."""
    url = f"{door}/api/v1/sandbox/clock/advance"
    headers = trade.shop.headers
    async with trade.client.post(url, json={"to": to.isoformat()}, headers=headers) as answer:
        assert answer.status == 200, await answer.text()


async def is_final(world: World, escrow_id: str) -> bool:
    return (await world.rows(STATUS, escrow_id))[0][0] in ("completed", "cancelled")
