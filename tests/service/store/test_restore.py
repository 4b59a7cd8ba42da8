"""What a restore leaves: the order of events goes on, for all who follow it.

A dump goes into a cluster of its own; a copy of the server's files comes back as the same cluster.
"""

import asyncio
import contextlib
import shutil
import subprocess
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from uuid import uuid4

import asyncpg
import pytest
import pytest_asyncio

from service.cli.embedded import servers
from service.cli.migrate import migrate_at
from service.cli.postgres import find_binary
from service.commands.checks import check_all, check_changed, seal
from service.commands.perform import House
from service.rules.errors import CursorBeyondEnd
from service.settings import Settings
from service.store import checks
from service.store.checks import Result, read_head
from service.store.db import open_pool
from service.store.feed import Position, read_beginning, read_end, read_feed
from tests.conftest import FASTER
from tests.makers import Shop, make_escrow, make_shop
from tests.service.store.test_feed import INSERT

# The old cluster has counted further than a new one will for long.
BURN = """
DO $$ BEGIN
    FOR n IN 1..5000 LOOP PERFORM pg_current_xact_id(); COMMIT; END LOOP;
END $$
"""
WAITS = "SELECT count(*) FROM pg_locks WHERE relation = 'event'::regclass AND NOT granted"
READ_ORDER = "SELECT ahead, cluster FROM commit_order"


@pytest.fixture
def elsewhere(migrated: Settings) -> Iterator[Settings]:
    """The settings of a cluster that is new and empty."""
    with (
        TemporaryDirectory(prefix="amana-other-") as folder,
        servers(Path(folder) / "var", FASTER) as urls,
    ):
        yield migrated.model_copy(
            update={"database_url": urls.application(), "database_admin_url": urls.owner()}
        )


def restore(owner_url: str, target_url: str, folder: Path) -> None:
    """As docs/operations.md says it."""
    dump = folder / "amana.dump"
    for command in (
        [find_binary("pg_dump"), "--format=custom", f"--file={dump}", owner_url],
        [find_binary("pg_restore"), "--exit-on-error", "--no-owner", "--no-privileges",
         "--dbname", target_url, str(dump)],
    ):  # fmt: skip
        subprocess.run(command, check=True, capture_output=True, timeout=120)


async def quiet(house: House) -> None:
    """Whoever else writes in this cluster has ended what began before."""
    newest = await house.pool.fetchval("SELECT max(xid)::text::bigint FROM event")
    async with asyncio.timeout(10):
        while (await read_end(house.pool)).xid < newest:  # noqa: ASYNC110 - the server
            await asyncio.sleep(0.01)


@pytest_asyncio.fixture(loop_scope="session")
async def left(house: House, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch) -> Shop:
    """A shop with a past that is sealed and checked."""
    monkeypatch.setattr(checks, "EVENTS_A_SEAL", 5)
    await owner.execute(BURN)
    shop = await make_shop(house)
    await make_escrow(house, shop, status="completed")
    await quiet(house)
    assert await seal(house) > 0
    assert breached(await check_all(house)) == []
    return shop


def breached(results: list[Result]) -> list[str]:
    """Without G, how soon events are fanned out: nobody does that here."""
    return [one.id for one in results if not one.ok and one.id != "G"]


async def pulled(house: House, shop: Shop, after: Position) -> list[bytes]:
    await quiet(house)
    stretch = await read_feed(house.pool, shop.developer_id, after, None, 100)
    assert not stretch.has_more
    return [one.body for one in stretch.told]


@pytest_asyncio.fixture(loop_scope="session")
async def again(
    house: House, left: Shop, migrated: Settings, elsewhere: Settings, tmp_path: Path
) -> AsyncIterator[House]:
    """The house in the other cluster, restored and migrated."""
    restore(migrated.admin_url or "", elsewhere.admin_url or "", tmp_path)
    await migrate_at(elsewhere)
    pool = await open_pool(elsewhere.database_url or "", size=4)
    yield replace(house, pool=pool)
    await pool.close()


async def test_whoever_pulls_goes_on_with_the_cursor_that_they_have(
    house: House, left: Shop, again: House, elsewhere: Settings
):
    whole = await pulled(house, left, await read_beginning(house.pool, left.developer_id))
    assert len(whole) == 3
    first = await read_feed(house.pool, left.developer_id, Position(0, 0), None, 1)
    await make_escrow(house, left)  # after the dump: lost, but pulled
    late = await read_end(house.pool)
    assert await pulled(again, left, first.reached) == whole[1:]
    await make_escrow(again, left, status="paid")
    assert len(await pulled(again, left, first.reached)) == 4
    assert len(await pulled(again, left, late)) == 2
    order = await again.pool.fetchrow(READ_ORDER)
    assert order["ahead"] >= 1 << 40
    await migrate_at(elsewhere)
    assert await again.pool.fetchrow(READ_ORDER) == order


async def test_what_happens_after_a_restore_is_sealed_and_checked(
    house: House, left: Shop, again: House, elsewhere: Settings
):
    before = await read_head(again.pool)
    assert before == await read_head(house.pool)
    assert breached(await check_changed(again)) == []
    await make_escrow(again, left, status="completed")
    await make_escrow(again, left, status="completed")
    assert await seal(again) > 0
    assert breached(await check_all(again)) == []
    newest = await make_escrow(again, left)
    owner = await asyncpg.connect(elsewhere.admin_url)
    await owner.execute("UPDATE escrow SET seq = seq + 1 WHERE id = $1", newest.id)
    await owner.close()
    assert breached(await check_changed(again)) == ["F"]


@contextlib.asynccontextmanager
async def living(house: House, settings: Settings, var: Path) -> AsyncIterator[tuple[House, str]]:
    """The house in the data folder's own cluster, for as long as the block; the owner's URL."""
    with servers(var, FASTER) as urls:
        here = settings.model_copy(
            update={"database_url": urls.application(), "database_admin_url": urls.owner()}
        )
        await migrate_at(here)
        pool = await open_pool(urls.application(), size=4)
        yield replace(house, pool=pool), urls.owner()
        await pool.close()


@pytest.fixture
def var() -> Iterator[Path]:
    with TemporaryDirectory(prefix="amana-copied-") as folder:
        yield Path(folder) / "var"


async def test_a_copy_of_the_files_that_is_put_back_hides_nothing_from_whoever_pulls(
    house: House, migrated: Settings, var: Path
):
    copy = var.with_name("copy")
    async with living(house, migrated, var) as (before, _):
        shop = await make_shop(before)
        await make_escrow(before, shop)
        await quiet(before)
        early = await read_end(before.pool)
    shutil.copytree(var, copy, symlinks=True)
    async with living(house, migrated, var) as (lost, _):
        for _ in range(5):
            await make_escrow(lost, shop, status="paid")
        await quiet(lost)
        late = await read_end(lost.pool)
    shutil.rmtree(var)
    copy.rename(var)
    async with living(house, migrated, var) as (again, owner_url):
        assert await again.pool.fetchval("SELECT ahead FROM commit_order") == 0  # it cannot be seen
        with pytest.raises(CursorBeyondEnd):
            await pulled(again, shop, late)
        assert await pulled(again, shop, early) == []
        here = migrated.model_copy(update={"database_admin_url": owner_url})
        await migrate_at(here, is_restored=True)
        assert await pulled(again, shop, late) == []
        await make_escrow(again, shop, status="paid")
        assert len(await pulled(again, shop, late)) == 2
        assert len(await pulled(again, shop, early)) == 2
        assert (await pulled(again, shop, (await read_end(again.pool)))) == []


async def test_a_leap_beside_whoever_writes_passes_nothing_over(
    house: House, migrated: Settings, owner: asyncpg.Connection
):
    shop = await make_shop(house)
    writer = await asyncpg.connect(migrated.admin_url)
    try:
        # As after a failover, which forks the log's timeline.
        await owner.execute("UPDATE commit_order SET cluster = 'before/00000001'")
        async with writer.transaction():
            await writer.execute(INSERT, shop.developer_id, 900, uuid4(), b"under way")
            leaping = asyncio.create_task(migrate_at(migrated))
            async with asyncio.timeout(10):
                while not await owner.fetchval(WAITS) and not leaping.done():  # noqa: ASYNC110
                    await asyncio.sleep(0.01)
            assert not leaping.done()
            latest = await read_end(house.pool)
        await leaping
        assert (await owner.fetchval("SELECT ahead FROM commit_order")) >= 1 << 40
        assert await pulled(house, shop, latest) == [b"under way"]
        await make_escrow(house, shop)
        assert len(await pulled(house, shop, latest)) == 2
    finally:
        await writer.close()


async def test_a_dump_that_is_restored_twice_leaps_further_the_second_time(
    migrated: Settings, owner: asyncpg.Connection
):
    leaps = []
    for _ in range(2):
        await owner.execute("UPDATE commit_order SET ahead = 0, cluster = 'of the dump/00000001'")
        await migrate_at(migrated)
        leaps.append(await owner.fetchval("SELECT ahead FROM commit_order"))
    assert leaps[0] + 1_000_000 < leaps[1] < 1 << 62
