"""A real ingress over a migrated database, with whatever routes a test wants."""

import contextlib
import secrets
from dataclasses import dataclass

import aiohttp
import asyncpg
import pytest
from aiohttp import web
from redis.asyncio import Redis

from service.cli.house import open_house
from service.cli.migrate import migrate_at
from service.commands.developers import enrol
from service.ingress.connection import Runner
from service.ingress.main import make_app
from service.settings import load_settings
from tests.makers import arrange
from tests.service.ingress.documented import documented


@dataclass(frozen=True)
class Developer:
    """Somebody with a key."""

    key: str
    developer_id: str
    user_id: str | None

    @property
    def headers(self):
        return {"Authorization": f"Bearer {self.key}"}


@pytest.fixture(scope="session")
async def environ(owner_url, application_url, redis_url, tmp_path_factory):
    """The variables of an ingress over this worker's migrated database."""
    environ = {
        "DATABASE_URL": application_url,
        "DATABASE_ADMIN_URL": owner_url,
        "REDIS_URL": redis_url,
        "STORAGE_URL": f"file://{tmp_path_factory.mktemp('files')}",
        "AMANA_SECRET_KEY": "k" * 32,
    }
    await migrate_at(load_settings(environ))
    return environ


@pytest.fixture
async def redis(redis_url):
    """This worker's Redis, emptied."""
    client = Redis.from_url(redis_url)
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture
def enrolled(environ):
    """Make developers: `await enrolled()`, `await enrolled(associated=False)`."""

    async def make(*, associated=True):
        name = secrets.token_hex(6)
        user = f"{name}@users.example" if associated else None

        async def work(tx):
            return await enrol(tx, f"{name}@dev.example", "Company", user_email=user)

        async with open_house(load_settings(environ)) as house:
            made = await arrange(house, work)
        return Developer(made.api_key, made.developer_id, made.user_id)

    return make


@pytest.fixture
async def owner(owner_url, environ):
    """A connection as the database's owner, for what has no command yet."""
    connection = await asyncpg.connect(owner_url)
    yield connection
    await connection.close()


@contextlib.asynccontextmanager
async def listening(app):
    """The application on a free port; gives its base URL."""
    runner = Runner(app, access_log=None, shutdown_timeout=2)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
def ingress(environ, redis):
    """`async with ingress(routes, PORT="…") as client:` a client of an ingress with these rows.

    `ingress.app` is the application that was opened last.
    """

    @contextlib.asynccontextmanager
    async def opened(routes, **changed):
        app = make_app(load_settings(environ | changed), routes)
        opened.app = app
        held = [documented()] if routes is None else []  # rows of a test's own are in no document
        async with (
            listening(app) as url,
            aiohttp.ClientSession(url, trace_configs=held) as client,
        ):
            yield client

    return opened
