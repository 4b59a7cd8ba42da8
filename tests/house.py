"""The house under test: a migrated database, real Redis, and the doors as they are served."""

import asyncio
from collections.abc import AsyncIterator, Iterator

import asyncpg
import pytest
import pytest_asyncio

from service.cli.migrate import migrate_at
from service.commands.perform import House
from service.gateways.bell import SilentBell
from service.gateways.post import HttpPost
from service.rules.policy import Policy
from service.settings import Settings
from service.store.db import Pool, open_pool
from service.store.vault import Vault

SECRET_KEY = "a-secret-key-that-only-the-tests-know-0123456789"

# Everything that a test may have written; the clock goes back, the tables of the rules stay.
CLEAN = """
SET session_replication_role = replica;
DO $$
DECLARE t text;
BEGIN
    FOR t IN SELECT c.relname FROM pg_class c
             WHERE c.relnamespace = 'public'::regnamespace AND c.relkind IN ('r', 'p')
               AND NOT c.relispartition
               AND c.relname NOT IN (
                   'schema_version', 'currency', 'transition', 'clock', 'dispute_counter',
                   'commit_order')
    LOOP
        EXECUTE format('DELETE FROM %I', t);
    END LOOP;
END $$;
UPDATE clock SET shift = '0', held_by = NULL, lease_until = NULL;
UPDATE dispute_counter SET last_number = 0;
SET session_replication_role = origin;
"""


@pytest.fixture(scope="session")
def settings(
    owner_url: str,
    application_url: str,
    redis_url: str,
    tmp_path_factory: pytest.TempPathFactory,
) -> Settings:
    """Sandbox settings on this worker's own database and Redis."""
    return Settings(
        amana_public_url="http://amana.test",
        database_url=application_url,
        database_admin_url=owner_url,
        redis_url=redis_url,
        storage_url=f"file://{tmp_path_factory.mktemp('files')}",
        amana_secret_key=SECRET_KEY,
        webhook_allow_private=True,
        rate_limit_per_minute=0,
    )


@pytest.fixture(scope="session")
def migrated(settings: Settings) -> Iterator[Settings]:
    """The settings of a database that has the schema."""
    asyncio.run(migrate_at(settings))
    return settings


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def owner(migrated: Settings) -> AsyncIterator[asyncpg.Connection]:
    """The owner's connection: cleaning and looking, never arranging."""
    connection = await asyncpg.connect(migrated.admin_url)
    yield connection
    await connection.close()


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def pool(migrated: Settings) -> AsyncIterator[Pool]:
    """The application's pool."""
    opened = await open_pool(migrated.database_url or "", size=12)
    yield opened
    await opened.close()


@pytest_asyncio.fixture(loop_scope="session")
async def house(pool: Pool, owner: asyncpg.Connection) -> AsyncIterator[House]:
    """A clean house with the default policy and a silent bell."""
    await owner.execute(CLEAN)
    yield House(
        pool,
        Policy(public_url="http://amana.test", webhook_allow_private=True),
        Vault([SECRET_KEY]),
        SilentBell(),
    )


@pytest_asyncio.fixture(loop_scope="session")
async def post() -> AsyncIterator[HttpPost]:
    """The real post, which may go to this machine."""
    opened = HttpPost(allow_private=True)
    yield opened
    await opened.close()
