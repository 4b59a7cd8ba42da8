"""The servers of a test run: one PostgreSQL and one Redis, a database per xdist worker.

The process that leads the run starts them once and stops them at its end; workers get their place.
"""

import asyncio
import contextlib
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

from service.cli.embedded import Urls, servers

pytest_plugins = ("tests.house", "tests.browser")

# Nothing of a test run must survive the machine: no wait for the disk.
FASTER = {"fsync": "off", "full_page_writes": "off", "max_connections": "200"}
RUN = pytest.StashKey[contextlib.ExitStack]()
URLS = pytest.StashKey[Urls]()


def start_servers(config: pytest.Config) -> Urls:
    """Start the run's servers, once; `pytest_unconfigure` stops them."""
    if URLS not in config.stash:
        stack = contextlib.ExitStack()
        folder = Path(tempfile.mkdtemp(prefix="amana-test-"))
        stack.callback(shutil.rmtree, folder, ignore_errors=True)
        config.stash[RUN] = stack
        config.stash[URLS] = stack.enter_context(servers(folder / "var", FASTER))
    return config.stash[URLS]


class Lead:
    """What only the process that leads an xdist run does: start the servers, tell each worker."""

    @pytest.hookimpl(optionalhook=True)
    def pytest_configure_node(self, node) -> None:
        urls = start_servers(node.config)
        node.workerinput["servers"] = (str(urls.sockets), urls.redis, urls.smtp)


def pytest_configure(config: pytest.Config) -> None:
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Lead())


def pytest_unconfigure(config: pytest.Config) -> None:
    if RUN in config.stash:
        config.stash[RUN].close()


@pytest.fixture(scope="session")
def urls(pytestconfig: pytest.Config) -> Urls:
    """The servers of the run."""
    if hasattr(pytestconfig, "workerinput"):
        sockets, redis, smtp = pytestconfig.workerinput["servers"]
        return Urls(Path(sockets), redis, smtp)
    return start_servers(pytestconfig)


@pytest.fixture(scope="session")
def database(urls: Urls, worker_id: str) -> Iterator[str]:
    """The name of this worker's own database: new, empty, dropped at the end."""
    name = f"test_{worker_id}"
    asyncio.run(as_owner(urls, f"CREATE DATABASE {name}"))
    yield name
    asyncio.run(as_owner(urls, f"DROP DATABASE IF EXISTS {name} WITH (FORCE)"))


async def as_owner(urls: Urls, statement: str) -> None:
    """Run one statement on the cluster as its owner."""
    connection = await asyncpg.connect(urls.owner("postgres"))
    await connection.execute(statement)
    await connection.close()


@pytest.fixture(scope="session")
def owner_url(urls: Urls, database: str) -> str:
    """The owner's DSN of this worker's database."""
    return urls.owner(database)


@pytest.fixture(scope="session")
def application_url(urls: Urls, database: str) -> str:
    """The application's DSN of this worker's database; the role exists once it is migrated."""
    return urls.application(database)


@pytest.fixture(scope="session")
def redis_url(urls: Urls, worker_id: str) -> str:
    """This worker's own Redis database."""
    number = int(worker_id.removeprefix("gw")) + 1 if worker_id != "master" else 0
    return f"{urls.redis}?db={number}"
