"""The invariants and the freeze, of the milestone family."""

from decimal import Decimal
from itertools import product

import asyncpg
import pytest

from service.commands import milestones
from service.commands.checks import check_all, lift
from service.commands.perform import House, perform
from service.rules.engagement import RELEASE_MODES, RELEASED, RESOLVED, SINGLE, STATUSES
from service.rules.errors import EscrowFrozen, StillBreached
from service.rules.machine import Actor, ActorKind, Role
from service.rules.milestone import APPROVED, DISPUTED, MILESTONE_STATES, OPEN, coupled
from service.store.checks import read_breaches_among
from tests.books import assert_sound, read_log
from tests.makers import make_buyer
from tests.milestones import Crew, approve, dispute, look, make_crew, make_milestones, release

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
        ("UPDATE milestone SET approved = true WHERE position = 0", "", "D"),
        ("UPDATE milestone SET amount_minor = amount_minor + 1 WHERE position = 0", "", "C"),
        ("UPDATE milestone SET amount_minor = NULL WHERE position = 0", "", "C"),
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


async def test_each_disputed_milestone_needs_its_own_deadline(
    house: House, owner: asyncpg.Connection, crew: Crew
):
    escrow = await make_milestones(
        house, crew, amounts=("60", "40", "1"), funded="101", resolver_deadline_days=3
    )
    await dispute(house, crew, escrow.id, 0, 1)
    assert await broken(house) == set()
    await owner.execute("UPDATE deadline SET cancelled_at = now() WHERE subject = '1'")
    assert await broken(house) == {"E"}
    [breach] = await read_breaches_among(house.pool, "E", [escrow.id])
    assert breach.says.endswith("no resolver deadline is open for milestone 1")
    whole = await make_milestones(
        house, crew, amount="5", count=2, funded="5", resolver_deadline_days=3
    )
    await dispute(house, crew, whole.id)
    assert await read_breaches_among(house.pool, "E", [whole.id]) == []
    await owner.execute("UPDATE deadline SET cancelled_at = now() WHERE escrow_id = $1", whole.id)
    assert len(await read_breaches_among(house.pool, "E", [whole.id])) == 1


FLAGS = {
    OPEN: "false, false, false, false, NULL, NULL",
    APPROVED: "true, false, false, false, NULL, NULL",
    DISPUTED: "true, true, false, false, now(), '-'",
    RELEASED: "true, false, true, false, NULL, NULL",
    RESOLVED: "false, false, false, true, now(), '-'",
}
"""A milestone's state -> its flags, when it was disputed, and why."""


@pytest.mark.parametrize("mode", RELEASE_MODES)
async def test_the_coupling_in_the_check_is_that_of_the_rules(
    house: House, owner: asyncpg.Connection, crew: Crew, mode: str
):
    asked = {"amount": "5", "count": 3} if mode == SINGLE else {"amounts": ("1", "2", "3")}
    escrow = await make_milestones(house, crew, **asked)
    for states in product(MILESTONE_STATES, repeat=3):
        for position, state in enumerate(states):
            await owner.execute(
                "UPDATE milestone SET (approved, disputed, released, resolved, disputed_at,"
                f" dispute_reason) = ({FLAGS[state]}) WHERE position = {position}"
            )
        right = coupled(mode, states)
        for status in (right, *(one for one in STATUSES if one != right)):
            await owner.execute("UPDATE escrow SET status = $1", status)
            found = await read_breaches_among(house.pool, "D", [escrow.id])
            assert bool(found) == (status != right), (states, status)
            if status != right:
                break


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
