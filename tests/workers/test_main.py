"""The crew of a worker process: it ends when told to, and when one of it cannot go on."""

import asyncio

import pytest

from service.gateways.bell import lazy_redis
from workers.main import Crew
from workers.metrics import WorkMetrics


class Steady:
    """A keeper that works until it is closed."""

    def __init__(self) -> None:
        self.closed = asyncio.Event()

    def wake(self) -> None:
        """Nothing is ever due."""

    async def run(self) -> None:
        await self.closed.wait()

    async def close(self) -> None:
        self.closed.set()


class Broken(Steady):
    """A keeper that meets what it cannot survive."""

    async def run(self) -> None:
        raise BrokenPipeError("nobody reads the log")


class HardOfHearing(Crew):
    """A crew whose bell loses the first cancellation, as Redis' client does at times."""

    async def _listen(self) -> None:
        try:
            await asyncio.sleep(60)
        except asyncio.CancelledError:
            await asyncio.sleep(60)


@pytest.fixture
async def redis(redis_url):
    client = lazy_redis(redis_url)
    yield client
    await client.connection_pool.disconnect()


@pytest.mark.parametrize("kind", [Crew, HardOfHearing])
async def test_it_ends_when_told_to(redis, kind):
    stop = asyncio.Event()
    asyncio.get_running_loop().call_later(0.1, stop.set)
    async with asyncio.timeout(5):
        await kind({"steady": Steady()}, redis, WorkMetrics()).run(stop)


async def test_a_keeper_that_cannot_go_on_ends_the_process_with_its_error(redis):
    steady = Steady()
    with pytest.raises(BrokenPipeError):
        async with asyncio.timeout(5):
            await Crew({"b": Broken(), "s": steady}, redis, WorkMetrics()).run(asyncio.Event())
    assert steady.closed.is_set()
