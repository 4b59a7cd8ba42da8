"""/healthz, /readyz and /metrics, the same on every door: alive, able to work, figures.

Outside the limiter and the keys. /metrics answers loopback and who knows METRICS_TOKEN; a
request that a proxy forwarded is not loopback, wherever the proxy stands.
"""

import asyncio
import hmac
import ipaddress
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from typing import Any

import orjson
from aiohttp import web
from prometheus_client import CollectorRegistry, generate_latest
from prometheus_client.exposition import CONTENT_TYPE_PLAIN_0_0_4

from service.store.db import Reader
from service.store.schema import CURRENT_VERSION, read_version

CHECK_TIMEOUT_SECONDS = 3.0


class NotReady(Exception):
    """What a check found, as a sentence for the operator; it is shown to whoever asks."""


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a process leans on. `ask` raises when it is not there."""

    name: str
    ask: Callable[[], Awaitable[object]]
    required: bool = True


class Health:
    """The three handlers of one process; `look` brings up to date what must be asked for."""

    def __init__(
        self,
        checks: Sequence[Check],
        registry: CollectorRegistry,
        metrics_token: str | None,
        look: Callable[[], Awaitable[object]] | None = None,
    ) -> None:
        self._checks = checks
        self._registry = registry
        self._token = metrics_token
        self._look = look

    def mount(self, app: web.Application) -> None:
        """Put the three paths onto a door."""
        app.router.add_get("/healthz", self.alive)
        app.router.add_get("/readyz", self.ready)
        app.router.add_get("/metrics", self.metrics)

    async def alive(self, _: web.Request) -> web.Response:
        """The process answers."""
        return _json(200, {"status": "alive"})

    async def ready(self, _: web.Request) -> web.Response:
        """Whether work can be taken: every required check holds; the others are reported."""
        told = await asyncio.gather(*(_ask(check) for check in self._checks))
        found = dict(zip((check.name for check in self._checks), told, strict=True))
        fit = all(found[check.name] == "ok" for check in self._checks if check.required)
        return _json(200 if fit else 503, {"status": "ready" if fit else "not ready", **found})

    async def metrics(self, request: web.Request) -> web.Response:
        """The figures, for loopback or with the token; 403 otherwise."""
        if not (is_loopback(request) or self._knows_token(request)):
            return _json(403, {"error": "Forbidden", "message": "Send METRICS_TOKEN as a bearer."})
        if self._look is not None:
            await self._look()
        return web.Response(
            body=generate_latest(self._registry), headers={"Content-Type": CONTENT_TYPE_PLAIN_0_0_4}
        )

    def _knows_token(self, request: web.Request) -> bool:
        if self._token is None:
            return False
        given = request.headers.get("Authorization", "")
        return hmac.compare_digest(
            given.encode(errors="surrogateescape"), f"Bearer {self._token}".encode()
        )


async def require_schema(reader: Reader) -> None:
    """Ask whether the database answers and has what this program was written for.

    A newer schema is good enough: while a release goes out, the older processes still run.

    Raises:
        NotReady: it was never migrated, or not to this version.
        Unavailable: the database is away.
    """
    version = await read_version(reader)
    if version is None:
        raise NotReady("the database has no schema; run `amana migrate`")
    if version < CURRENT_VERSION:
        raise NotReady(
            f"the schema is at version {version} and {CURRENT_VERSION} is needed;"
            " run `amana migrate`"
        )


async def _ask(check: Check) -> str:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            await check.ask()
    except NotReady as found:
        return str(found)
    except Exception:  # noqa: BLE001 - whatever a check raises, the answer is that it failed
        return "away"
    return "ok"


def is_loopback(request: web.Request) -> bool:
    """Whether the request was made on this machine and no proxy says that it forwarded it."""
    if "X-Forwarded-For" in request.headers or "Forwarded" in request.headers:
        return False
    try:
        return ipaddress.ip_address(request.remote or "").is_loopback
    except ValueError:
        return False


def _json(status: int, body: dict[str, Any]) -> web.Response:
    return web.Response(
        status=status, body=orjson.dumps(body), headers={"Content-Type": "application/json"}
    )
