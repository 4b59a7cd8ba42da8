"""The two providers behind one face: somebody pays, and a notification arrives."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime

import aiohttp
import pytest
from aiohttp import web

from service.gateways.payments.provider import PaymentProvider
from service.gateways.payments.sandbox import SandboxProvider, post_notification
from service.gateways.payments.stripe import StripeProvider
from tests.charge_book import MemoryBook
from tests.stripe_server import ABSENT, DECLINED_CARD, KEY, PYTHON, Counter, stripe_at_work

SECRET = "whsec_amana"
SECRET_KEYS = ("n" * 32, "o" * 32)
NOTIFIED_SECONDS = 10.0

Parcel = tuple[Mapping[str, str], bytes]


@dataclass
class Door:
    """A door of this machine that keeps what is posted to it."""

    url: str
    parcels: asyncio.Queue[Parcel]

    async def next(self) -> Parcel:
        async with asyncio.timeout(NOTIFIED_SECONDS):
            return await self.parcels.get()


@dataclass
class Outside:
    """A provider, and what a payer does with the page that it has given."""

    provider: PaymentProvider
    door: Door
    pay: Callable[[str], Awaitable[None]]
    decline: Callable[[str], Awaitable[None]]


@contextlib.asynccontextmanager
async def opened_door() -> AsyncIterator[Door]:
    parcels: asyncio.Queue[Parcel] = asyncio.Queue()

    async def take(request: web.Request) -> web.Response:
        parcels.put_nowait((dict(request.headers), await request.read()))
        return web.Response()

    app = web.Application()
    app.router.add_post("/{tail:.*}", take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield Door(f"http://127.0.0.1:{runner.addresses[0][1]}/payments/notifications", parcels)
    finally:
        await runner.cleanup()


@pytest.fixture
async def door():
    async with opened_door() as opened:
        yield opened


@pytest.fixture
def book():
    return MemoryBook()


@pytest.fixture
def sandbox(book):
    return SandboxProvider(book, SECRET_KEYS, "http://localhost:8080", lambda: datetime.now(UTC))


@pytest.fixture(scope="session")
async def stripe_at_loopback():
    """One fake Stripe for all tests of a worker, with a door of its own."""
    if not PYTHON.exists():
        pytest.skip(ABSENT)
    async with opened_door() as door, stripe_at_work(SECRET, door.url) as counter:
        yield door, counter


@pytest.fixture
async def counter(stripe_at_loopback):
    """The fake Stripe, as if nobody had asked it anything."""
    door, counter = stripe_at_loopback
    while not door.parcels.empty():
        door.parcels.get_nowait()
    counter.answer, counter.kept = None, {}
    counter.asked.clear()
    counter.pages.clear()
    return counter


@pytest.fixture
async def stripe(counter: Counter):
    provider = StripeProvider(KEY, [SECRET], api_base=counter.url, total_seconds=5.0)
    yield provider
    await provider.close()


@pytest.fixture
async def sandbox_outside(sandbox, book, door):
    async with aiohttp.ClientSession() as session:

        async def press(reference: str, *, paid: bool) -> None:
            charge = await book.press(reference, datetime.now(UTC), paid=paid)
            for sending in sandbox.notifications(charge):
                assert await post_notification(session, door.url, sending) == 200

        async def pay(reference: str) -> None:
            await press(reference, paid=True)

        async def decline(reference: str) -> None:
            await press(reference, paid=False)

        yield Outside(sandbox, door, pay, decline)


@pytest.fixture
async def stripe_outside(stripe, counter, stripe_at_loopback):
    async def decline(reference: str) -> None:
        await counter.pay(reference, DECLINED_CARD)

    return Outside(stripe, stripe_at_loopback[0], counter.pay, decline)


@pytest.fixture(params=["sandbox", "stripe"])
def outside(request):
    """Either provider; the suite cannot tell which."""
    return request.getfixturevalue(f"{request.param}_outside")
