"""Stripe on this machine: `localstripe`, a fake that others wrote, behind a counter of ours.

async with stripe_at_work(secret, receiver_url) as counter: ...

localstripe keeps payment intents, charges and refunds, and signs its own notifications. It has
neither Checkout pages nor idempotency keys; the counter stands before it and adds both over its
payment intents, as Stripe documents them, and can be told to fail. All of it is on loopback.
"""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from uuid import uuid4

import aiohttp
import orjson
from aiohttp import web

PYTHON = Path(__file__).parents[1] / ".venv" / "localstripe" / "bin" / "python"
ABSENT = "localstripe is not installed: make localstripe"
KEY = "sk_test_amana"
OPEN_MIN, OPEN_MAX = 30 * 60, 24 * 3600
"""Seconds from being asked for within which a Checkout page must end."""
GOOD_CARD, DECLINED_CARD = "4242424242424242", "4000000000000341"

# As its own start does, but on loopback only, without its file in /tmp, and no longer than we live.
RUN = """
import os, socket, sys, threading
from aiohttp import web
from localstripe import resources
from localstripe.server import app
resources.Store.dump_to_disk = lambda _: None
def watch():
    sys.stdin.read()
    os._exit(0)
threading.Thread(target=watch, daemon=True).start()
listening = socket.create_server(("127.0.0.1", 0))
print(listening.getsockname()[1], flush=True)
web.run_app(app, sock=listening, print=None, access_log=None)
"""

Answer = Callable[[web.Request], Awaitable[web.StreamResponse | None]]


@dataclass
class Counter:
    """The address that the library is given. `answer` may answer in Stripe's place."""

    fake_url: str
    session: aiohttp.ClientSession
    url: str = ""
    answer: Answer | None = None
    asked: list[tuple[str, str]] = field(default_factory=list)
    pages: dict[str, dict[str, Any]] = field(default_factory=dict)
    kept: dict[str, tuple[object, web.Response]] = field(default_factory=dict)

    async def take(self, request: web.Request) -> web.StreamResponse:
        self.asked.append((request.method, request.path))
        told = await self.answer(request) if self.answer else None
        if told is not None:
            return told
        return await self.kept_or_made(request)

    async def kept_or_made(self, request: web.Request) -> web.Response:
        """The answer as Stripe gives it: the same for the same idempotency key."""
        key = request.headers.get("Idempotency-Key")
        if request.method != "POST" or key is None:
            return await self._served(request)
        asked = (request.path, await request.read())
        if key not in self.kept:
            response = await self._served(request)
            self.kept[key] = (asked, response)
        elif self.kept[key][0] != asked:
            error = {"type": "idempotency_error", "message": "Other parameters were given before."}
            return web.json_response({"error": error}, status=400)
        _, kept = self.kept[key]
        return web.Response(
            body=kept.body, status=kept.status, headers={"Content-Type": "application/json"}
        )

    async def _served(self, request: web.Request) -> web.Response:
        pages = "/v1/checkout/sessions"
        if request.path == pages and request.method == "POST":
            form = await request.post()
            if not OPEN_MIN <= int(form["expires_at"]) - time.time() <= OPEN_MAX:
                told = "The page must end between 30 minutes and 24 hours from now."
                error = {"type": "invalid_request_error", "param": "expires_at", "message": told}
                return web.json_response({"error": error}, status=400)
            return web.json_response(await self._open(form))
        if request.path.startswith(f"{pages}/"):
            named, _, verb = request.path.removeprefix(f"{pages}/").partition("/")
            page = self.pages.get(named)
            if page is None:
                error = {"type": "invalid_request_error", "message": "No such checkout.session"}
                return web.json_response({"error": error}, status=404)
            if verb == "expire":
                if page["status"] != "open":
                    error = {"type": "invalid_request_error", "message": "It is not open."}
                    return web.json_response({"error": error}, status=400)
                self.expire(named)
            return web.json_response(await self._seen(page))
        status, body = await self.fake(request.method, request.path_qs, await request.read())
        return web.Response(body=body, status=status, content_type="application/json")

    async def _open(self, form: Mapping[str, Any]) -> dict[str, Any]:
        price = "line_items[0][price_data]"
        marked = "payment_intent_data[metadata][amana_payment]"
        assert form["mode"] == "payment"
        assert form["line_items[0][quantity]"] == "1"
        page_id = f"cs_test_{uuid4().hex}"
        intent = await self.made(
            "payment_intents",
            {
                "amount": form[f"{price}[unit_amount]"],
                "currency": form[f"{price}[currency]"],
                "metadata[amana_payment]": form[marked],
            },
        )
        self.pages[page_id] = {
            "id": page_id,
            "object": "checkout.session",
            "status": "open",
            "payment_status": "unpaid",
            "payment_intent": None,
            "intent": intent["id"],
            "amount_total": int(form[f"{price}[unit_amount]"]),
            "currency": form[f"{price}[currency]"],
            "url": f"{self.url}/pay/{page_id}",
            "success_url": form["success_url"],
            "expires_at": int(form["expires_at"]),
            "metadata": {"amana_payment": form["metadata[amana_payment]"]},
        }
        return self.pages[page_id]

    async def _seen(self, page: Mapping[str, Any]) -> dict[str, Any]:
        """As `expand[]=payment_intent` shows it; there is no intent before somebody pays."""
        if page["payment_intent"] is None:
            return dict(page)
        _, body = await self.fake("GET", f"/v1/payment_intents/{page['payment_intent']}")
        return {**page, "payment_intent": _load(body)}

    async def pay(self, page_id: str, card: str = GOOD_CARD) -> None:
        """What a payer does on the page; a card that is declined leaves it open."""
        page = self.pages[page_id]
        intent = page["intent"]
        method = await self.made(
            "payment_methods",
            {
                "type": "card",
                "card[number]": card,
                "card[exp_month]": "12",
                "card[exp_year]": "2090",
                "card[cvc]": "123",
            },
        )
        await self.made(f"payment_intents/{intent}", {"payment_method": method["id"]})
        status, _ = await self.fake("POST", f"/v1/payment_intents/{intent}/confirm")
        assert status == (402 if card == DECLINED_CARD else 200)
        page["payment_intent"] = intent
        if status == 200:
            page.update(status="complete", payment_status="paid")

    def made_of(self, payment_id: str) -> int:
        """How many pages there are of this payment of ours since the counter was cleared."""
        return sum(page["metadata"]["amana_payment"] == payment_id for page in self.pages.values())

    def expire(self, page_id: str) -> None:
        """Nobody has paid in time."""
        self.pages[page_id].update(status="expired")

    async def made(self, path: str, form: Mapping[str, str]) -> dict[str, Any]:
        """What localstripe makes of a form."""
        status, body = await self.fake("POST", f"/v1/{path}", aiohttp.FormData(form))
        assert status == 200, body
        return _load(body)

    async def fake(self, method: str, path: str, body: Any = None) -> tuple[int, bytes]:
        """localstripe's own answer."""
        headers = {"Authorization": f"Bearer {KEY}"}
        if isinstance(body, bytes):
            headers["Content-Type"] = "application/x-www-form-urlencoded"
        url = f"{self.fake_url}{path}"
        async with self.session.request(method, url, data=body, headers=headers) as response:
            return response.status, await response.read()


def _load(body: bytes) -> dict[str, Any]:
    loaded: dict[str, Any] = orjson.loads(body)
    return loaded


@contextlib.asynccontextmanager
async def stripe_at_work(secret: str, receiver_url: str) -> AsyncIterator[Counter]:
    """A localstripe of its own that notifies the receiver, and the counter before it."""
    process = await asyncio.create_subprocess_exec(
        PYTHON,
        "-c",
        RUN,
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.DEVNULL,
    )
    assert process.stdout is not None
    try:
        port = int(await process.stdout.readline())
        async with aiohttp.ClientSession() as session:
            counter = Counter(f"http://127.0.0.1:{port}", session)
            hook = {"url": receiver_url, "secret": secret}
            async with session.post(f"{counter.fake_url}/_config/webhooks/a", json=hook) as told:
                assert told.status == 200
            app = web.Application()
            app.router.add_route("*", "/{tail:.*}", counter.take)
            runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
            await runner.setup()
            await web.TCPSite(runner, "127.0.0.1", 0).start()
            counter.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
            try:
                yield counter
            finally:
                await runner.cleanup()
    finally:
        process.kill()
        await process.wait()
