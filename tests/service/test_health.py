"""Readiness asks whether the schema is the one that this program was written for."""

import contextlib
import json
from collections.abc import AsyncIterator

import asyncpg
import pytest
from aiohttp import web
from prometheus_client import CollectorRegistry

from service.cli.embedded import Urls
from service.commands.perform import House
from service.health import Check, Health, NotReady, require_schema
from service.store.db import open_pool
from service.store.schema import CURRENT_VERSION


@contextlib.asynccontextmanager
async def at_version(owner: asyncpg.Connection, version: int) -> AsyncIterator[None]:
    """The database as a release of that version has left it."""
    await owner.execute("UPDATE schema_version SET version = $1", version)
    try:
        yield
    finally:
        await owner.execute("UPDATE schema_version SET version = $1", CURRENT_VERSION)


async def ready(*checks: Check) -> tuple[int, dict[str, str]]:
    response = await Health(checks, CollectorRegistry(), None).ready(None)
    assert isinstance(response, web.Response)
    assert isinstance(response.body, bytes)
    return response.status, json.loads(response.body)


async def test_an_older_schema_is_not_ready_and_says_what_to_do(
    house: House, owner: asyncpg.Connection
) -> None:
    check = Check("database", lambda: require_schema(house.pool))
    assert await ready(check) == (200, {"status": "ready", "database": "ok"})
    async with at_version(owner, CURRENT_VERSION - 1):
        assert await ready(check) == (
            503,
            {
                "status": "not ready",
                "database": f"the schema is at version {CURRENT_VERSION - 1} and"
                f" {CURRENT_VERSION} is needed; run `amana migrate`",
            },
        )


async def test_a_newer_schema_is_ready_while_a_release_goes_out(
    house: House, owner: asyncpg.Connection
) -> None:
    async with at_version(owner, CURRENT_VERSION + 1):
        await require_schema(house.pool)


async def test_a_database_without_a_schema_says_what_to_do(urls: Urls) -> None:
    pool = await open_pool(urls.owner("postgres"), size=1)
    with pytest.raises(NotReady, match=r"^the database has no schema; run `amana migrate`$"):
        await require_schema(pool)
    await pool.close()


async def test_what_is_not_required_is_reported_only_and_faults_are_not_shown() -> None:
    async def fails() -> None:
        raise ConnectionError("redis://:secret@10.0.0.1")

    redis = Check("redis", fails, required=False)
    assert await ready(redis) == (200, {"status": "ready", "redis": "away"})
    database = Check("database", fails)
    assert await ready(database, redis) == (
        503,
        {"status": "not ready", "database": "away", "redis": "away"},
    )
