"""The invariants and the freeze, of the milestone family."""

from decimal import Decimal

import asyncpg
import pytest

from service.commands import milestones
from service.commands.checks import check_all, lift
from service.commands.perform import House, perform
from service.rules.errors import EscrowFrozen, StillBreached
from service.rules.machine import Actor, ActorKind, Role
from tests.books import assert_sound, read_log
from tests.makers import make_buyer
from tests.milestones import Crew, approve, look, make_crew, make_milestones, release

OPERATOR = Actor(ActorKind.OPERATOR)


@pytest.fixture
async def crew(house: House) -> Crew:
    return await make_crew(house)


async def broken(house: House) -> set[str]:
    """The invariants that do not hold."""
    return {one.id for one in await check_all(house) if not one.ok and one.id != "G"}


async def test_every_invariant_holds_for_a_life_of_each_mode(house: House, crew: Crew):
    single = await make_milestones(house, crew, amount="100", funded="120")
    multi = await make_milestones(house, crew, amounts=("60", "40"), funded="80")
    for one in (single, multi):
        await approve(house, crew, one.id, 0)
    await release(house, crew, single.id)
    await release(house, crew, multi.id, 0)
    assert await broken(house) == set()
    await assert_sound(house)


@pytest.mark.parametrize(
    ("harm", "mend", "letter"),
    [
        ("UPDATE milestone_funding SET amount_minor = amount_minor + 1", "- 1", "C"),
        ("UPDATE milestone_funding SET is_held = false", "", "C"),
        ("UPDATE milestone SET approved = true, released = true", "", "D"),
        ("UPDATE escrow SET seq = seq + 1 WHERE mode = 'milestone'", "", "F"),
    ],
)
async def test_a_breach_freezes_the_escrow_that_it_names(
    house: House, owner: asyncpg.Connection, crew: Crew, harm: str, mend: str, letter: str
):
    escrow = await make_milestones(house, crew, amounts=("60", "40"), funded="10")
    other = await make_milestones(house, crew, amount="5")
    await owner.execute(f"{harm} {'AND' if 'WHERE' in harm else 'WHERE'} true")
    assert letter in await broken(house)
    assert (await look(house, escrow.id)).frozen
    with pytest.raises(EscrowFrozen):
        await perform(house, crew.payer.actor, milestones.fund(escrow.id, Decimal(1)))
    if not mend:
        return
    with pytest.raises(StillBreached):
        await lift(house, OPERATOR, escrow.id)
    await owner.execute("UPDATE milestone_funding SET amount_minor = amount_minor - 1")
    await lift(house, OPERATOR, escrow.id)
    assert not (await look(house, escrow.id)).frozen
    assert not (await look(house, other.id)).frozen
    assert [step for step, _, _ in await read_log(house, escrow.id)][-2:] == ["freeze", "unfreeze"]
    await perform(house, crew.payer.actor, milestones.fund(escrow.id, Decimal(1)))
    await assert_sound(house)


async def test_whoever_registers_while_it_is_frozen_is_linked_when_it_is_lifted(
    house: House, owner: asyncpg.Connection, crew: Crew
):
    people = {role: crew.email(role) for role in crew.people}
    roles = {**people, Role.APPROVER: "late@example.com"}
    escrow = await make_milestones(house, crew, amount="5", funded="5", roles=roles)
    await owner.execute("UPDATE milestone_funding SET amount_minor = amount_minor + 1")
    await check_all(house)
    await make_buyer(house, "late@example.com", "0")
    assert (await look(house, escrow.id)).roles[Role.APPROVER].user_id is None
    await owner.execute("UPDATE milestone_funding SET amount_minor = amount_minor - 1")
    await lift(house, OPERATOR, escrow.id)
    assert (await look(house, escrow.id)).roles[Role.APPROVER].user_id is not None
    await assert_sound(house)
