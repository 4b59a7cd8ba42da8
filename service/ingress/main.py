"""Door 1: the ingress as an application and as a process."""

import asyncio
from collections.abc import AsyncIterator, Sequence
from contextlib import suppress

import structlog
import uvloop
from aiohttp import web

from service.commands.perform import House
from service.gateways.bell import ArqBell
from service.gateways.limiter import Limiter
from service.health import Check, Health
from service.ingress.api.mailbox import WORDS
from service.ingress.auth import KeyUse
from service.ingress.metrics import DoorMetrics
from service.ingress.middlewares import (
    GATE,
    HOUSE,
    KEY_USE,
    LIMITER,
    METRICS,
    Gate,
    Line,
    door,
)
from service.ingress.route import Route
from service.ingress.routes import routes
from service.logs import configure_logs
from service.settings import Settings
from service.store.db import open_pool
from service.store.schema import CURRENT_VERSION, read_version
from service.store.vault import Vault
from service.words.mails import Words

# SIGTERM: no new work, what is in flight ends within these; the pool then has 5 s of its own.
DRAIN_SECONDS = 18.0
KEEPALIVE_SECONDS = 75.0

log = structlog.get_logger()


def make_app(settings: Settings, table: Sequence[Route] | None = None) -> web.Application:
    """The ingress: `table`'s routes, else all that this deployment serves, and the health paths.

    Pool, Redis and bell are opened when the application starts and closed when it ends.
    """
    app = web.Application(middlewares=[door])
    metrics = app[METRICS] = DoorMetrics()
    app[GATE] = Gate(settings.amana_env, settings.rate_limit_per_minute, settings.trusted_proxies)
    app[WORDS] = Words.read()
    for route in routes(settings.policy()) if table is None else table:
        line = Line(route)
        app.router.add_route(route.method, route.path, line.answer, expect_handler=line.expect)
    Health(_checks(app), metrics.registry, settings.metrics_token).mount(app)

    async def opened(app: web.Application) -> AsyncIterator[None]:
        async for _ in _open(app, settings):
            yield

    app.cleanup_ctx.append(opened)
    return app


async def _open(app: web.Application, settings: Settings) -> AsyncIterator[None]:
    settings.require("DATABASE_URL", "REDIS_URL", "AMANA_SECRET_KEY")
    pool = await open_pool(
        settings.database_url or "", application="amana serve", pgbouncer=settings.pgbouncer
    )
    bell = ArqBell(settings.redis_url or "")
    house = House(pool, settings.policy(), Vault(settings.secret_keys), bell)
    app[HOUSE], app[KEY_USE] = house, KeyUse(house)
    app[LIMITER] = Limiter(settings.redis_url or "", app[METRICS].limiter_away.inc)
    yield
    await app[KEY_USE].close()
    await app[LIMITER].close()
    await bell.close()
    await pool.close()


def _checks(app: web.Application) -> tuple[Check, ...]:
    async def database() -> None:
        version = await read_version(app[HOUSE].pool)
        if version != CURRENT_VERSION:
            raise LookupError(f"the schema is at version {version}; run `amana migrate`")

    async def redis() -> None:
        await app[LIMITER].ping()

    return Check("database", database), Check("redis", redis, required=False)


def serve(settings: Settings) -> None:
    """Answer on PORT until SIGTERM or SIGINT, then drain; returns within 25 s of the signal.

    Raises:
        SettingsError: DATABASE_URL, REDIS_URL or AMANA_SECRET_KEY is not set.
        Unavailable: the database cannot be reached at the start.
        OSError: the port is taken.
    """
    settings.require("DATABASE_URL", "REDIS_URL", "AMANA_SECRET_KEY")
    configure_logs(settings.log_format, settings.log_level)
    log.info("ingress_started", port=settings.port, environment=settings.amana_env)
    if not settings.policy().phone_is_required:
        log.warning("phone_verification_off", reason="SMS_URL is not set")
    with suppress(KeyboardInterrupt, asyncio.CancelledError):
        web.run_app(
            make_app(settings),
            host=settings.amana_host,
            port=settings.port,
            loop=uvloop.new_event_loop(),
            access_log=None,
            print=None,
            shutdown_timeout=DRAIN_SECONDS,
            keepalive_timeout=KEEPALIVE_SECONDS,
        )
    log.info("ingress_stopped")
