"""`amana migrate` as an operator types it."""

import asyncpg

from tests.service.cli.conftest import Amana

READ_AHEAD = "SELECT ahead FROM commit_order"


async def test_the_order_leaps_where_it_is_said_that_a_copy_was_put_back(
    amana: Amana, owner: asyncpg.Connection
) -> None:
    assert (await amana("migrate")).exit_code == 0
    before = await owner.fetchval(READ_AHEAD)
    assert (await amana("migrate")).exit_code == 0
    assert await owner.fetchval(READ_AHEAD) == before
    assert (await amana("migrate", "--restored")).exit_code == 0
    assert await owner.fetchval(READ_AHEAD) > before + 1_000_000
