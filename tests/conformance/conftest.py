"""The real ingress over a clean house, and the world that its sandbox helpers make."""

import contextlib
import dataclasses
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from typing import Any

import aiohttp
import pytest
import pytest_asyncio

from service.commands import developers
from service.commands.perform import House
from service.ingress.main import make_app
from service.settings import Settings
from tests.makers import arrange
from tests.service.ingress.conftest import listening

pytest.register_assert_rewrite("tests.conformance.world")

# Once its assertions can speak.
from tests.conformance.world import Partner, World, new_email  # noqa: E402 - see above

OpenDoor = Callable[..., AbstractAsyncContextManager[aiohttp.ClientSession]]


@contextlib.asynccontextmanager
async def serving(settings: Settings) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of an ingress with these settings and all its routes."""
    async with (
        listening(make_app(settings)) as url,
        aiohttp.ClientSession(url, cookie_jar=aiohttp.DummyCookieJar()) as session,
    ):
        yield session


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def door(migrated: Settings) -> AsyncIterator[aiohttp.ClientSession]:
    """One ingress for all these tests: a sandbox without a rate limit."""
    async with serving(migrated) as session:
        yield session


@pytest.fixture
def another_door(migrated: Settings) -> OpenDoor:
    """`async with another_door(platform_fee_bps=250) as session:` beside the first one."""

    def opened(**changes: Any) -> AbstractAsyncContextManager[aiohttp.ClientSession]:
        return serving(migrated.model_copy(update=changes))

    return opened


@pytest_asyncio.fixture(scope="session", loop_scope="session")
async def counting(owner) -> str:
    """A query of how many rows each table has."""
    tables = await owner.fetch(
        "SELECT relname FROM pg_class WHERE relnamespace = 'public'::regnamespace"
        " AND relkind IN ('r', 'p') AND NOT relispartition ORDER BY relname"
    )
    return " UNION ALL ".join(
        f"SELECT '{row['relname']}', count(*) FROM {row['relname']}" for row in tables
    )


@pytest.fixture
async def world(house: House, door: aiohttp.ClientSession, counting: str) -> World:
    """A clean sandbox."""
    return await World.made(house, door, counting)


@pytest.fixture
async def partner(world: World) -> Partner:
    """A developer with a user that sells."""
    return await world.partner()


@pytest.fixture
def live_door(another_door: OpenDoor) -> OpenDoor:
    """The same house as a live deployment, with a limit that nobody meets."""

    def opened() -> AbstractAsyncContextManager[aiohttp.ClientSession]:
        changes = {"webhook_allow_private": False, "rate_limit_per_minute": 1_000_000}
        return another_door(amana_env="live", **changes)

    return opened


@pytest.fixture
def live_house(house: House) -> House:
    """The same house with the policy of a live deployment."""
    policy = dataclasses.replace(house.policy, environment="live")
    return dataclasses.replace(house, policy=policy)


@pytest.fixture
async def live(world: World, live_house: House) -> Partner:
    """A developer with a live key."""
    made = await arrange(live_house, lambda tx: developers.enrol(tx, new_email("dev"), "Live"))
    return Partner(world.session, made.api_key, made.developer_id, "Live", None)
