"""A feed of exchange rates: a real server on this machine that answers as it is told."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass

from aiohttp import web

GOOD = b'{"base": "TND", "rates": {"USD": 3.12, "EUR": 3.4}}'


@dataclass
class Feed:
    """Answers GOOD unless a test says otherwise; counts how often it was asked."""

    url: str = ""
    asked: int = 0
    answer: Callable[[web.Request], Awaitable[web.StreamResponse]] | None = None

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        return await self.answer(request) if self.answer else told(GOOD)

    def says(self, body: bytes, status: int = 200, kind: str = "application/json") -> None:
        """Answer this from now on."""

        async def answer(_: web.Request) -> web.Response:
            return told(body, status, kind)

        self.answer = answer

    def dawdles(self, seconds: float, *, after_head: bool = False) -> None:
        """Answer GOOD after a while: all of it, or what comes after the head."""

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            if after_head:
                await response.prepare(request)
            await asyncio.sleep(seconds)
            return response if after_head else told(GOOD)

        self.answer = answer

    def floods(self) -> None:
        """Answer white space without end, without a declared length."""

        async def answer(request: web.Request) -> web.StreamResponse:
            response = web.StreamResponse(headers={"Content-Type": "application/json"})
            await response.prepare(request)
            with contextlib.suppress(ConnectionError):
                while True:
                    await response.write(b" " * 8192)
            return response

        self.answer = answer


def told(body: bytes, status: int = 200, kind: str = "application/json") -> web.Response:
    return web.Response(body=body, status=status, headers={"Content-Type": kind})


@contextlib.asynccontextmanager
async def feeding() -> AsyncIterator[Feed]:
    """A feed on a free port of this machine."""
    feed = Feed()
    app = web.Application()
    app.router.add_get("/{tail:.*}", feed.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    feed.url = f"http://127.0.0.1:{runner.addresses[0][1]}/rates"
    try:
        yield feed
    finally:
        await runner.cleanup()
