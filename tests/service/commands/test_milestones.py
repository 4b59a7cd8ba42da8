"""The milestone family's steps carried out: money, flags, events, books."""

from datetime import timedelta
from decimal import Decimal

import orjson
import pytest

from service.commands import milestones
from service.commands.deadlines import sweep
from service.commands.perform import House, perform, rehearse
from service.rules.errors import EscrowAlreadyResolved
from service.rules.machine import Role
from service.rules.milestone_terms import MILESTONES_MAX
from service.store.ledger import read_balance
from tests.books import assert_sound, read_log
from tests.makers import jump
from tests.milestones import (
    Crew,
    approve,
    dispute,
    fund,
    look,
    make_crew,
    make_milestones,
    release,
    resolve,
)


@pytest.fixture
async def crew(house: House) -> Crew:
    return await make_crew(house)


async def available(house: House, user_id: str, currency: str = "USDC") -> int:
    return (await read_balance(house.pool, user_id, currency)).available


async def test_a_single_release_pays_the_amount_less_both_fees(house: House, crew: Crew):
    escrow = await make_milestones(house, crew, amount="100", count=2, funded="120")
    await approve(house, crew, escrow.id, 0, 1)
    await release(house, crew, escrow.id)
    after = await look(house, escrow.id)
    assert (after.status, after.held_minor) == ("released", 20_000_000)
    assert await available(house, crew.people[Role.RECEIVER].user_id) == 94_700_000
    assert await available(house, crew.people[Role.PLATFORM].user_id) == 5_000_000
    assert [entry[:2] for entry in await read_log(house, escrow.id)] == [
        ("create", "milestone_escrow.created"),
        ("fund", "milestone_escrow.funded"),
        ("approve_milestone", "milestone.approved"),
        ("approve_milestone", "milestone.approved"),
        ("approve_milestone", "escrow.status.updated"),
        ("release", "milestone_escrow.released"),
        ("release", "escrow.status.updated"),
    ]
    await assert_sound(house)


async def test_multi_releases_resolves_and_withdraws_each_from_one_pool(house: House, crew: Crew):
    escrow = await make_milestones(house, crew, amounts=("60", "40"), funded="70")
    await approve(house, crew, escrow.id, 0)
    await release(house, crew, escrow.id, 0)
    await dispute(house, crew, escrow.id, 1)
    assert (await look(house, escrow.id)).status == "inDispute"
    await fund(house, crew, escrow.id, "90")
    to = ((crew.email(Role.RECEIVER), "25"), (crew.payer.email, "5"))
    await resolve(house, crew, escrow.id, *to, index=1)
    after = await look(house, escrow.id)
    assert after.status == "released"
    assert after.milestones[1].status == "resolved"
    assert after.held_minor == 70_000_000
    await assert_sound(house)


async def all_overdue(house: House, crew: Crew, *, but: int = 0) -> str:
    """An escrow of as many milestones as there can be, whose disputes are late at once."""
    escrow = await make_milestones(
        house, crew, amounts=["1"] * MILESTONES_MAX, funded="30", resolver_deadline_days=1
    )
    await dispute(house, crew, escrow.id, *range(MILESTONES_MAX - but))
    await jump(house, timedelta(days=1))
    return escrow.id


async def test_every_milestones_deadline_may_be_due_before_a_persons_step(house: House, crew: Crew):
    escrow_id = await all_overdue(house, crew, but=1)
    command = milestones.fund(escrow_id, Decimal(1))
    told = orjson.loads((await rehearse(house, crew.payer.actor, command, 200)).body)
    assert [one["step"] for one in told["steps"]] == [
        *["resolve_dispute"] * (MILESTONES_MAX - 1),
        "fund",
    ]
    assert (await look(house, escrow_id)).status == "inDispute"
    await perform(house, crew.payer.actor, command)
    after = await look(house, escrow_id)
    assert (after.status, after.held_minor) == ("working", 1_000_000)
    assert after.refunded_minor == 30_000_000
    await assert_sound(house)


async def test_what_the_clock_has_ended_refuses_the_step_and_stays_ended(house: House, crew: Crew):
    escrow_id = await all_overdue(house, crew)
    with pytest.raises(EscrowAlreadyResolved):
        await perform(house, crew.payer.actor, milestones.fund(escrow_id, Decimal(1)))
    assert (await look(house, escrow_id)).status == "resolved"
    await assert_sound(house)


async def test_a_sweep_fires_every_milestones_deadline(house: House, crew: Crew):
    escrow_id = await all_overdue(house, crew)
    assert len((await sweep(house)).fired) == MILESTONES_MAX
    assert (await look(house, escrow_id)).status == "resolved"
    await assert_sound(house)
