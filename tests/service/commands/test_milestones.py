"""The milestone family's steps carried out: money, flags, events, books."""

import pytest

from service.commands.perform import House
from service.rules.machine import Role
from service.store.ledger import read_balance
from tests.books import assert_sound, read_log
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
