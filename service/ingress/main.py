"""Door 1: the ingress as an application and as a process."""

import asyncio
import re
from collections.abc import AsyncIterator, Collection, Sequence
from functools import partial
from pathlib import Path

import structlog
from aiohttp import web

from service.commands.charges import HouseBook
from service.commands.perform import House
from service.gateways.bell import ArqBell
from service.gateways.files import Access, open_storage
from service.gateways.limiter import Limiter
from service.gateways.payments.opening import open_providers
from service.gateways.sms import HttpTexter
from service.health import Check, Health, require_schema
from service.ingress.api.deliveries import SAMPLES
from service.ingress.api.mailbox import WORDS
from service.ingress.api.payments import PROVIDERS
from service.ingress.auth import KeyRing, KeyUse
from service.ingress.connection import Runner
from service.ingress.metrics import DoorMetrics
from service.ingress.middlewares import (
    ERROR_PAGE,
    GATE,
    HOUSE,
    KEY_RING,
    KEY_USE,
    LIMITER,
    METRICS,
    Gate,
    Line,
    door,
)
from service.ingress.openapi import DOCUMENT, Document
from service.ingress.pages.page import PAGES, error_page
from service.ingress.pages.paying import BANK_DETAILS, WAYS
from service.ingress.pages.phone import TEXTER
from service.ingress.route import Route
from service.ingress.routes import routes
from service.ingress.told import sample_of
from service.ingress.uploads import STORAGE
from service.logs import configure_logs
from service.process import run
from service.settings import Settings
from service.store.db import open_pool
from service.store.vault import Vault
from service.words.mails import Words
from service.words.pages import Pages

# SIGTERM: no new work, what is in flight ends within these; the pool then has 5 s of its own.
DRAIN_SECONDS = 18.0
KEEPALIVE_SECONDS = 75.0

log = structlog.get_logger()


def make_app(
    settings: Settings, table: Sequence[Route] | None = None, shared: Path | None = None
) -> web.Application:
    """The ingress: `table`'s routes, else all that this deployment serves, and the health paths.

    Pool, Redis and bell are opened when the application starts and closed when it ends. `shared`
    is the folder where the processes of one port count.
    """
    app = web.Application(middlewares=[door])
    metrics = app[METRICS] = DoorMetrics(shared)
    app[GATE] = Gate(settings.amana_env, settings.rate_limit_per_minute, settings.trusted_proxies)
    app[WORDS], app[PAGES], app[ERROR_PAGE] = Words.read(), Pages.read(), error_page
    table = routes(settings.policy()) if table is None else table
    app[DOCUMENT] = Document(table)
    paths = {route.path for route in table}
    app[SAMPLES] = sample_of
    for route in table:
        line = Line(route)
        pattern = as_pattern(route.path, paths)
        app.router.add_route(route.method, pattern, line.answer, expect_handler=line.expect)
    checks = _checks(app, has_storage=settings.storage_url is not None)
    Health(checks, metrics.registry, settings.metrics_token).mount(app)

    async def opened(app: web.Application) -> AsyncIterator[None]:
        async for _ in _open(app, settings):
            yield

    app.cleanup_ctx.append(opened)
    return app


def as_pattern(path: str, paths: Collection[str]) -> str:
    """The path for the router: an id of the API is none of the fixed names beside it.

    So `PUT …/balances` is 405, and not a change of the escrow "balances".
    """
    head, _, last = path.rpartition("/")
    if not path.startswith("/api/") or not last.startswith("{"):
        return path
    beside = {one.removeprefix(f"{head}/") for one in paths if one.startswith(f"{head}/")}
    fixed = sorted(re.escape(name) for name in beside if name.isidentifier())
    return f"{head}/{{{last[1:-1]}:(?!(?:{'|'.join(fixed)})$)[^{{}}/]+}}" if fixed else path


async def _open(app: web.Application, settings: Settings) -> AsyncIterator[None]:
    settings.require("DATABASE_URL", "REDIS_URL", "AMANA_SECRET_KEY")
    pool = await open_pool(
        settings.database_url or "", application="amana serve", pgbouncer=settings.pgbouncer
    )
    bell = ArqBell(settings.redis_url or "", app[METRICS].bells_lost.inc)
    house = House(pool, settings.policy(), Vault(settings.secret_keys), bell)
    app[HOUSE], app[KEY_RING], app[KEY_USE] = house, KeyRing(pool), KeyUse(house)
    app[LIMITER] = Limiter(settings.redis_url or "", app[METRICS].limiter_away.inc)
    if settings.storage_url is not None:
        app[STORAGE] = open_storage(settings.storage_url, Access(*settings.storage_access))
    app[WAYS], app[BANK_DETAILS] = settings.providers, settings.bank_transfer_details or ""
    if settings.sms_url is not None:
        app[TEXTER] = HttpTexter(settings.sms_url)
    app[PROVIDERS] = open_providers(
        settings.providers,
        book=HouseBook(house),
        secret_keys=settings.secret_keys,
        public_url=settings.amana_public_url,
        stripe_secret_key=settings.stripe_secret_key,
        stripe_webhook_secrets=settings.stripe_webhook_secret,
        stripe_api_base=settings.stripe_api_base,
    )
    yield
    for provider in app[PROVIDERS].values():
        await provider.close()
    await app[KEY_USE].close()
    await app[LIMITER].close()
    await bell.close()
    await pool.close()


def _checks(app: web.Application, *, has_storage: bool) -> tuple[Check, ...]:
    async def database() -> None:
        await require_schema(app[HOUSE].pool)

    async def redis() -> None:
        await app[LIMITER].ping()

    async def storage() -> None:
        await app[STORAGE].ping()

    return (
        Check("database", database),
        Check("redis", redis, required=False),
        *((Check("storage", storage, required=False),) if has_storage else ()),
    )


def serve(settings: Settings, shared: Path | None = None) -> None:
    """Answer on PORT until SIGTERM or SIGINT, then drain; returns within 25 s of the signal.

    `shared` is the folder where several processes count that share the port.

    Raises:
        SettingsError: DATABASE_URL, REDIS_URL, AMANA_SECRET_KEY or STORAGE_URL is not set.
        Unavailable: the database cannot be reached at the start.
        OSError: the port is taken, or STORAGE_URL's folder cannot be made.
    """
    settings.require("DATABASE_URL", "REDIS_URL", "AMANA_SECRET_KEY", "STORAGE_URL")
    configure_logs(settings.log_format, settings.log_level)
    run(partial(_serve, settings, shared))


async def _serve(settings: Settings, shared: Path | None, stop: asyncio.Event) -> None:
    runner = Runner(
        make_app(settings, shared=shared),
        access_log=None,
        shutdown_timeout=DRAIN_SECONDS,
        keepalive_timeout=KEEPALIVE_SECONDS,
    )
    await runner.setup()
    try:
        site = web.TCPSite(
            runner, settings.amana_host, settings.port, reuse_port=shared is not None
        )
        await site.start()
        log.info("ingress_started", port=settings.port, environment=settings.amana_env)
        if not settings.policy().phone_is_required:
            log.warning("phone_verification_off", reason="SMS_URL is not set")
        await stop.wait()
    finally:
        await runner.cleanup()
    log.info("ingress_stopped")
