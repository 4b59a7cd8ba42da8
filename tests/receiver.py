"""A developer's webhook receiver: answers as it is told and remembers what it was sent."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson
from aiohttp import web
from standardwebhooks import Webhook

from service.commands import endpoints
from service.commands.perform import House
from service.rules.signing import body_signature, standard_secret
from service.wire.webhooks import WebhookCreate
from tests.makers import Shop, act


@dataclass(frozen=True)
class Parcel:
    """One request as it came in."""

    headers: Mapping[str, str]
    body: bytes
    path: str = ""

    @property
    def type(self) -> str:
        told: str = orjson.loads(self.body)["type"]
        return told


@dataclass
class Receiver:
    """`answer` decides what a parcel is answered; 200 unless a test says otherwise."""

    url: str = ""
    parcels: list[Parcel] = field(default_factory=list)
    answer: Callable[[Parcel], Awaitable[web.Response]] | None = None
    at_once: int = 0
    most_at_once: int = 0

    @property
    def types(self) -> list[str]:
        return [parcel.type for parcel in self.parcels]

    @property
    def stamps(self) -> list[datetime]:
        """When each parcel's attempt began, by its header."""
        named = [parcel.headers["X-Webhook-Timestamp"] for parcel in self.parcels]
        return [datetime.fromisoformat(stamp) for stamp in named]

    async def take(self, request: web.Request) -> web.Response:
        self.at_once += 1
        self.most_at_once = max(self.most_at_once, self.at_once)
        try:
            parcel = Parcel(request.headers.copy(), await request.read(), request.path)
            self.parcels.append(parcel)
            return await self.answer(parcel) if self.answer else web.Response()
        finally:
            self.at_once -= 1

    def says(self, status: int, **headers: str) -> None:
        """Answer every parcel from now on with this status."""
        named = {name.replace("_", "-"): value for name, value in headers.items()}

        async def answer(_: Parcel) -> web.Response:
            return web.Response(status=status, headers=named)

        self.answer = answer

    def dawdles(self, seconds: float) -> None:
        """Answer 200 after a while."""

        async def answer(_: Parcel) -> web.Response:
            await asyncio.sleep(seconds)
            return web.Response()

        self.answer = answer


@contextlib.asynccontextmanager
async def receiving() -> AsyncIterator[Receiver]:
    """A receiver on a free port of this machine."""
    receiver = Receiver()
    app = web.Application()
    app.router.add_post("/{tail:.*}", receiver.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    receiver.url = f"http://127.0.0.1:{runner.addresses[0][1]}/hook"
    try:
        yield receiver
    finally:
        await runner.cleanup()


async def make_endpoint(house: House, shop: Shop, url: str, **options: Any) -> dict[str, Any]:
    """An endpoint of this shop, as create shows it; `options` are create's fields."""
    wanted = WebhookCreate.model_validate({"url": url, **options})
    made: dict[str, Any] = await act(house, shop.actor, endpoints.create(shop.developer_id, wanted))
    return made["webhook"]


def verify(parcel: Parcel, secret: str) -> None:
    """Both signature sets, by the official package and by a plain HMAC."""
    Webhook(standard_secret(secret)).verify(parcel.body, dict(parcel.headers))
    assert parcel.headers["X-Webhook-Signature"] == body_signature(secret, parcel.body)
