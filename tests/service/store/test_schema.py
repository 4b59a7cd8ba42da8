"""The schema's life: whole into an empty database, never twice, also when two come at once."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest
import pytest_asyncio

from service.cli.embedded import Urls
from service.cli.migrate import migrate_at
from service.rules import escrow, identity, proof
from service.rules.errors import Unavailable
from service.settings import Settings
from service.store import schema
from service.store.schema import CURRENT_VERSION, MIGRATIONS, Migrated, migrate, read_version
from tests.conftest import as_owner

TRANSITIONS = [
    *escrow.TABLE.transitions(),
    *proof.TABLE.transitions(),
    *identity.TABLE.transitions(),
]
ROLE = "amana_app_of_a_test"


@pytest_asyncio.fixture(loop_scope="session")
async def neighbours(urls: Urls, worker_id: str) -> AsyncIterator[list[str]]:
    """Two more databases of the same cluster, which share its roles."""
    names = [f"neighbour_{worker_id}_{n}" for n in range(2)]
    for name in names:
        await as_owner(urls, f"CREATE DATABASE {name}")
    yield [urls.owner(name) for name in names]
    for name in names:
        await as_owner(urls, f"DROP DATABASE {name} WITH (FORCE)")


@pytest_asyncio.fixture(loop_scope="session")
async def empty(urls: Urls, worker_id: str) -> AsyncIterator[str]:
    """The owner's DSN of a new, empty database."""
    name = f"empty_{worker_id}"
    await as_owner(urls, f"CREATE DATABASE {name}")
    yield urls.owner(name)
    await as_owner(urls, f"DROP DATABASE {name} WITH (FORCE)")


async def ask(url: str, query: str, *args: object):
    connection = await asyncpg.connect(url)
    try:
        return await connection.fetchval(query, *args)
    finally:
        await connection.close()


async def test_an_empty_database_gets_the_whole_schema_once(empty: str):
    connection = await asyncpg.connect(empty)
    assert await read_version(connection) is None
    assert await migrate(empty, ROLE, TRANSITIONS) == Migrated(0, CURRENT_VERSION, same_role=False)
    assert await read_version(connection) == CURRENT_VERSION
    again = await migrate(empty, ROLE, TRANSITIONS)
    assert again == Migrated(CURRENT_VERSION, CURRENT_VERSION, same_role=False)
    assert await connection.fetchval("SELECT count(*) FROM schema_version") == 1
    assert await connection.fetchval("SELECT count(*) FROM transition") == len(TRANSITIONS)
    await connection.close()


async def test_two_that_migrate_at_once_do_it_once(empty: str):
    done = await asyncio.gather(*(migrate(empty, ROLE, TRANSITIONS) for _ in range(3)))
    assert sorted(one.before for one in done) == [0, CURRENT_VERSION, CURRENT_VERSION]
    assert await ask(empty, "SELECT count(*) FROM schema_version") == 1


async def test_two_databases_of_one_cluster_may_be_migrated_at_once_for_the_same_role(
    neighbours: list[str], worker_id: str
):
    for n in range(4):
        role = f"shared_{worker_id}_{n}"
        await asyncio.gather(*(migrate(url, role, TRANSITIONS) for url in neighbours))
        for url in neighbours:
            assert await ask(url, "SELECT has_table_privilege($1, 'escrow', 'INSERT')", role)


async def test_a_migration_that_fails_leaves_nothing(empty: str):
    broken = [*TRANSITIONS, ("escrow", None, "x", "y", "z")]
    with pytest.raises(asyncpg.NotNullViolationError):
        await migrate(empty, ROLE, broken)  # type: ignore[arg-type]  # that is the point
    assert await ask(empty, "SELECT to_regclass('escrow') IS NULL")
    await migrate(empty, ROLE, TRANSITIONS)


async def test_a_row_that_the_rules_gave_up_goes_unless_history_names_it(empty: str):
    given_up = [("escrow", "instant", "vanish", "paid", "cancelled"),
                ("escrow", "instant", "explode", "paid", "cancelled")]  # fmt: skip
    await migrate(empty, ROLE, [*TRANSITIONS, *given_up])
    await ask(
        empty,
        "INSERT INTO event (subject_id, seq, subject_kind, id, family, mode, step, from_state,"
        " to_state, actor_kind, at) VALUES (repeat('a', 24), 1, 'escrow', gen_random_uuid(),"
        " 'escrow', 'instant', 'vanish', 'paid', 'cancelled', 'system', now())",
    )
    await migrate(empty, ROLE, TRANSITIONS)
    left = await ask(
        empty, "SELECT array_agg(step) FROM transition WHERE step IN ('vanish', 'explode')"
    )
    assert left == ["vanish"]
    assert await ask(empty, "SELECT count(*) FROM transition") == len(TRANSITIONS) + 1


async def test_one_role_for_both_is_told(empty: str, migrated: Settings):
    owner = await ask(empty, "SELECT current_user")
    assert (await migrate(empty, owner, TRANSITIONS)).same_role


async def test_the_applications_role_may_have_any_name(empty: str):
    odd = 'the "app"; DROP ROLE x'
    try:
        await migrate(empty, odd, TRANSITIONS)
        assert await ask(empty, "SELECT has_table_privilege($1, 'escrow', 'INSERT')", odd)
        assert not await ask(empty, "SELECT has_table_privilege($1, 'event', 'UPDATE')", odd)
    finally:
        quoted = await ask(empty, "SELECT quote_ident($1)", odd)
        connection = await asyncpg.connect(empty)
        await connection.execute(f"DROP OWNED BY {quoted}; DROP ROLE {quoted}")
        await connection.close()


async def test_a_database_that_is_away_says_so(migrated: Settings):
    with pytest.raises(Unavailable):
        await migrate("postgresql://nobody@127.0.0.1:1/nowhere", ROLE, TRANSITIONS)


async def test_the_command_migrates_what_the_settings_name(migrated: Settings):
    assert await migrate_at(migrated) == Migrated(CURRENT_VERSION, CURRENT_VERSION, same_role=False)


def test_there_is_a_script_for_every_version():
    scripts = sorted(int(path.name.split("_")[0]) for path in MIGRATIONS.glob("*.sql"))
    assert scripts == list(range(1, CURRENT_VERSION + 1))
    assert schema.SCHEMA.exists()
