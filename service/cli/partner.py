"""The partner's side of webhooks, for the demo, `amana listen` and the tests: a receiver.

Law: it takes nothing from our own signing. Each delivery is checked twice over the raw body, by
the official `standardwebhooks` package and by a plain HMAC-SHA256, before it is read at all.
"""

import asyncio
import base64
import contextlib
import hashlib
import hmac
import json
import time
from collections import defaultdict, deque
from collections.abc import AsyncIterator, Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any
from uuid import UUID

from aiohttp import web
from standardwebhooks.webhooks import Webhook, WebhookVerificationError

BODY_BYTES_MAX = 1_000_000


@dataclass(frozen=True, slots=True)
class Reply:
    """What to answer a delivery with, and after how long."""

    status: int = 200
    headers: Mapping[str, str] = field(default_factory=dict)
    body: bytes = b""
    after_seconds: float = 0.0


@dataclass(frozen=True, slots=True)
class Received:
    """One attempt as it came in. `complaints` is empty when both signatures hold."""

    at: datetime
    path: str
    headers: Mapping[str, str]
    body: bytes
    complaints: tuple[str, ...]
    status: int

    @property
    def event(self) -> Any:
        """The envelope: `id`, `type`, `timestamp`, `data`."""
        return json.loads(self.body)

    @property
    def is_verified(self) -> bool:
        """Whether the body is what was signed, by both schemes, and the headers agree with it."""
        return not self.complaints

    @property
    def is_accepted(self) -> bool:
        """Whether it was answered 2xx, so that it must not come again."""
        return 200 <= self.status < 300


class Partner:
    """A receiver of webhooks, one path an endpoint.

        async with Partner().listening() as partner:
            partner.trust("/hook", secret)
            partner.answer("/hook", Reply(500), Reply(200))
            received = await partner.wait_for(lambda one: one.event["type"] == "escrow.created")

    A delivery that does not verify is answered 401; else the next scripted answer, then 200.
    """

    def __init__(self) -> None:
        self.received: list[Received] = []
        self.url = ""
        self._secrets: dict[str, list[str]] = defaultdict(list)
        self._replies: dict[str, deque[Reply]] = defaultdict(deque)
        self._came = asyncio.Condition()

    def trust(self, path: str, secret: str) -> None:
        """Take what this secret signed on this path, beside what the earlier ones did."""
        self._secrets[path].insert(0, secret)

    def answer(self, path: str, *replies: Reply) -> None:
        """Answer the next deliveries on this path so, one each."""
        self._replies[path].extend(replies)

    @property
    def accepted(self) -> list[Received]:
        """The first delivery of each event that was verified and answered 2xx, as they came."""
        first: dict[str, Received] = {}
        for one in self.received:
            if one.is_accepted and one.is_verified:
                first.setdefault(one.event["id"], one)
        return list(first.values())

    async def wait_for(
        self, wanted: Callable[[Received], bool], patience_seconds: float = 10.0
    ) -> Received:
        """The first that is wanted of what was accepted, waiting for it. Raises TimeoutError."""
        async with asyncio.timeout(patience_seconds), self._came:
            while True:
                found = next((one for one in self.accepted if wanted(one)), None)
                if found is not None:
                    return found
                await self._came.wait()

    @contextlib.asynccontextmanager
    async def listening(self, host: str = "127.0.0.1", port: int = 0) -> AsyncIterator["Partner"]:
        """Listen on a port (0: any free one); `url` is its address then."""
        app = web.Application(client_max_size=BODY_BYTES_MAX)
        app.router.add_post("/{tail:.*}", self._take)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=1)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            self.url = f"http://{host}:{runner.addresses[0][1]}"
            yield self
        finally:
            await runner.cleanup()

    async def _take(self, request: web.Request) -> web.Response:
        body = await request.read()
        headers = {name.lower(): value for name, value in request.headers.items()}
        secrets = self._secrets.get(request.path, [])
        complaints = tuple(find_faults(secrets, headers, body))
        replies = self._replies[request.path]
        reply = Reply(401) if complaints else (replies.popleft() if replies else Reply())
        now = datetime.now(UTC)
        if reply.after_seconds:
            await asyncio.sleep(reply.after_seconds)
        self.received.append(Received(now, request.path, headers, body, complaints, reply.status))
        async with self._came:
            self._came.notify_all()
        return web.Response(status=reply.status, headers=reply.headers, body=reply.body)


def find_faults(secrets: Sequence[str], headers: Mapping[str, str], body: bytes) -> Iterator[str]:
    """What is wrong with a delivery; nothing when it may be believed.

    `secrets` are the endpoint's live ones, newest first, as shown at its creation; `headers` have
    lower-case names.
    """
    if not secrets:
        yield "no secret is known for this path"
        return
    if not any(is_standard(secret, headers, body) for secret in secrets):
        yield "webhook-signature does not verify"
    if not any(is_plain(secret, headers, body) for secret in secrets):
        yield "X-Webhook-Signature does not verify"
    yield from _disagreements(headers, body)


def is_standard(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether the official package takes it; it also refuses what is older than 5 minutes."""
    try:
        Webhook(standard_form(secret)).verify(body, dict(headers), json_parse=False)
    except (WebhookVerificationError, ValueError):
        return False
    return True


def is_plain(secret: str, headers: Mapping[str, str], body: bytes) -> bool:
    """Whether the hex HMAC-SHA256 over the raw body, keyed with the secret's text, is right."""
    expected = hmac.new(secret.encode(), body, hashlib.sha256).hexdigest()
    given = headers.get("x-webhook-signature", "")
    return hmac.compare_digest(expected.encode(), given.encode(errors="surrogateescape"))


def standard_form(secret: str) -> str:
    """The secret as Standard Webhooks libraries take it: the API's `standardSecret`."""
    return "whsec_" + base64.b64encode(secret.encode()).decode()


def _disagreements(headers: Mapping[str, str], body: bytes) -> Iterator[str]:
    """Where the other headers do not say what the body says."""
    try:
        event = json.loads(body)
        told = (event["type"], event["id"])
    except (ValueError, KeyError, TypeError):
        yield "the body is no envelope"
        return
    if told[0] != headers.get("x-webhook-event"):
        yield "X-Webhook-Event is not the body's type"
    if told[1] != headers.get("webhook-id"):
        yield "webhook-id is not the event's id"
    try:
        UUID(headers.get("x-webhook-id", ""))
        at = datetime.fromisoformat(headers.get("x-webhook-timestamp", ""))
        if abs(at.timestamp() - time.time()) > 300:
            yield "X-Webhook-Timestamp is not of this attempt"
    except ValueError:
        yield "X-Webhook-Id or X-Webhook-Timestamp is malformed"
