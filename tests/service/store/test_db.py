"""The pool: what is kept off a connection that a PgBouncer in transaction mode hands around."""

import asyncio
import contextlib
import shutil
import signal
import time
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from service.cli.embedded import Urls
from service.cli.ports import find_free_port, is_taken
from service.cli.postgres import step_down
from service.cli.processes import spawn
from service.commands.perform import House
from service.gateways.bell import SilentBell
from service.rules.policy import Policy
from service.settings import Settings
from service.store.db import Pool, open_pool
from service.store.vault import Vault
from tests.house import SECRET_KEY
from tests.makers import make_escrow, make_shop

INI = """
[databases]
* = host={sockets}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = {port}
auth_type = trust
auth_file = {users}
pool_mode = transaction
default_pool_size = 2
unix_socket_dir =
"""


@pytest.fixture
def bouncer(urls: Urls, migrated: Settings, tmp_path: Path) -> Iterator[str]:
    """The database's URL through a PgBouncer that has two connections for everybody."""
    program = shutil.which("pgbouncer")
    if program is None:
        pytest.skip("this machine has no pgbouncer (on Debian: apt install pgbouncer)")
    parts, port = urlsplit(migrated.database_url or ""), find_free_port()
    ini, users = tmp_path / "pgbouncer.ini", tmp_path / "users.txt"
    ini.write_text(INI.format(sockets=urls.sockets, port=port, users=users))
    users.write_text(f'"{parts.username}" ""\n')
    child = spawn(
        [program, str(ini)],
        prefix=step_down(urls.sockets),
        log=tmp_path / "pgbouncer.log",
        dies_by=signal.SIGTERM,
    )
    try:
        give_up_at = time.monotonic() + 10
        while not is_taken(port):
            said = (tmp_path / "pgbouncer.log").read_text()
            assert child.process.poll() is None, said
            assert time.monotonic() < give_up_at, said
            time.sleep(0.02)
        yield f"postgresql://{parts.username}@127.0.0.1:{port}{parts.path}"
    finally:
        child.end(signal.SIGTERM, 5)


@contextlib.asynccontextmanager
async def opened(url: str):
    pool = await open_pool(url, size=8, pgbouncer=True)
    try:
        yield pool
    finally:
        await pool.close()


def house_over(pool: Pool) -> House:
    policy = Policy(public_url="http://amana.test", webhook_allow_private=True)
    return House(pool, policy, Vault([SECRET_KEY]), SilentBell())


async def test_with_pgbouncer_set_no_statement_stays_prepared(house: House, migrated: Settings):
    async with opened(migrated.database_url or "") as pool:
        for _ in range(3):
            await make_escrow(house_over(pool), await make_shop(house_over(pool)))
        prepared = await asyncio.gather(
            *(pool.fetchval("SELECT count(*) FROM pg_prepared_statements") for _ in range(8))
        )
    assert set(prepared) == {0}


async def test_lives_of_escrows_go_through_a_pgbouncer_of_few_connections(
    house: House, bouncer: str
):
    async with opened(bouncer) as pool:
        through = house_over(pool)
        shops = await asyncio.gather(*(make_shop(through) for _ in range(8)))
        made = await asyncio.gather(
            *(make_escrow(through, shop, status="completed") for shop in shops for _ in range(3))
        )
    assert {escrow.status for escrow in made} == {"completed"}
