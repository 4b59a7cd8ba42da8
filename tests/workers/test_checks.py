"""The rounds of the invariants: what they leave, and that workers leave each other's work alone."""

import asyncpg

from service.commands.perform import House
from service.rules.invariants import NAMES
from service.store.checks import read_results
from tests.makers import make_escrow, make_shop, reread
from workers import checks


async def standing(house: House) -> dict[str, bool]:
    return {one.id: one.ok for one in await read_results(house.pool)}


async def test_the_first_minute_asks_everything(house: House) -> None:
    await checks.run_minute(house)
    assert await standing(house) == dict.fromkeys(NAMES, True)


async def test_two_workers_ask_once_a_minute(house: House) -> None:
    await checks.run_minute(house)
    first = await read_results(house.pool)
    await checks.run_minute(house)
    assert await read_results(house.pool) == first


async def test_a_breach_is_asked_about_at_every_turn(
    house: House, owner: asyncpg.Connection
) -> None:
    paid = await make_escrow(house, await make_shop(house), status="paid")
    await owner.execute(
        "UPDATE escrow SET funded_minor = funded_minor + 1, refunded_minor = 1 WHERE id = $1",
        paid.id,
    )
    await checks.run_full(house)
    assert await standing(house) == dict.fromkeys(NAMES, True) | {"C": False}
    assert (await reread(house, paid.id)).frozen
    before = {one.id: one.checked_at for one in await read_results(house.pool)}
    await checks.run_minute(house)
    await checks.run_full(house)
    after = {one.id: one.checked_at for one in await read_results(house.pool)}
    assert after["A"] == before["A"]
    assert after["C"] > before["C"]


async def test_seals_come_with_the_minute(house: House) -> None:
    await checks.run_minute(house)
    assert await house.pool.fetchval("SELECT count(*) FROM event_seal") == 0
