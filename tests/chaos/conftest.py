"""What the tests of faults have in common: a seed that is printed, worlds, and their figures."""

import os
import random
import secrets
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import asyncpg
import pytest
import pytest_asyncio

from service.settings import Settings
from tests.chaos.world import World, alone, borrowed
from tests.house import CLEAN

SEED = int(os.environ.get("CHAOS_SEED") or secrets.randbelow(1_000_000))
FIGURES = pytest.StashKey[list[str]]()

Tell = Callable[..., None]


@pytest.fixture
def chance(request: pytest.FixtureRequest) -> random.Random:
    """The chance of one test: the same for the same CHAOS_SEED, whatever else runs."""
    print(f"CHAOS_SEED={SEED}")
    return random.Random(f"{SEED}/{request.node.name}")


@pytest.fixture
def tell(request: pytest.FixtureRequest) -> Tell:
    """`tell(kills=5, duplicates=3)`: figures for the end of the run."""
    told = request.config.stash.setdefault(FIGURES, [])

    def say(**figures: object) -> None:
        shown = ", ".join(f"{name} {_short(value)}" for name, value in figures.items())
        told.append(f"{request.node.name}: {shown}")

    return say


def _short(value: object) -> str:
    return f"{value:.2f}" if isinstance(value, float) else str(value)


def pytest_terminal_summary(
    terminalreporter: pytest.TerminalReporter, config: pytest.Config
) -> None:
    told = config.stash.get(FIGURES, [])
    if told:
        terminalreporter.section(f"chaos, CHAOS_SEED={SEED}")
        for line in told:
            terminalreporter.write_line(line)


@pytest_asyncio.fixture(loop_scope="session")
async def world(tmp_path: Path) -> AsyncIterator[World]:
    """Servers of its own; at the end `amana check` and `amana balance` must find nothing."""
    async with alone(tmp_path) as made:
        yield made
        await made.checked()


@pytest_asyncio.fixture(loop_scope="session")
async def small(migrated: Settings, owner: asyncpg.Connection) -> AsyncIterator[World]:
    """A clean world over the test run's PostgreSQL, made in a moment."""
    await owner.execute(CLEAN)
    async with borrowed(migrated) as made:
        yield made
