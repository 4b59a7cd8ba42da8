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

CHECK_TIMEOUT_SECONDS = 3.0


@dataclass(frozen=True, slots=True)
class Check:
    """One thing that a process leans on. `ask` raises when it is not there."""

    name: str
    ask: Callable[[], Awaitable[object]]
    required: bool = True


class Health:
    """The three handlers of one process."""

    def __init__(
        self, checks: Sequence[Check], registry: CollectorRegistry, metrics_token: str | None
    ) -> None:
        self._checks = checks
        self._registry = registry
        self._token = metrics_token

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
        found = await asyncio.gather(*(_ask(check) for check in self._checks))
        fit = all(ok or not check.required for check, ok in zip(self._checks, found, strict=True))
        told = {
            check.name: "ok" if ok else "away"
            for check, ok in zip(self._checks, found, strict=True)
        }
        return _json(200 if fit else 503, {"status": "ready" if fit else "not ready", **told})

    async def metrics(self, request: web.Request) -> web.Response:
        """The figures, for loopback or with the token; 403 otherwise."""
        if not (is_loopback(request) or self._knows_token(request)):
            return _json(403, {"error": "Forbidden", "message": "Send METRICS_TOKEN as a bearer."})
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


async def _ask(check: Check) -> bool:
    try:
        async with asyncio.timeout(CHECK_TIMEOUT_SECONDS):
            await check.ask()
    except Exception:  # noqa: BLE001 - whatever a check raises, the answer is that it failed
        return False
    return True


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
