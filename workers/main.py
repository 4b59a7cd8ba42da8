"""Door 2 as a process: the table of jobs and of clockwork, and the bell that wakes them.

A bell is an arq job that wakes one keeper of this process and ends at once; the keeper finds what
is due in PostgreSQL. Redis may go away at any time: the keepers go on at their own pace, and arq
is taken up again when it is back.
"""

import asyncio
import contextlib
import tempfile
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any, Protocol

import structlog
from aiohttp import web
from arq import ArqRedis, Worker, func

from service.commands import expiries
from service.commands.canary import send_canary
from service.commands.charges import HouseBook
from service.commands.perform import House, tend
from service.gateways.bell import QUEUE, ArqBell, dump_job, lazy_redis, load_job
from service.gateways.files import Access, Storage, open_storage
from service.gateways.fx import HttpRateFeed, RateFeed
from service.gateways.mail import SandboxMailer, SmtpMailer
from service.gateways.payments.opening import open_providers
from service.gateways.payments.provider import PaymentProvider
from service.gateways.post import HttpPost
from service.health import Check, Health, require_schema
from service.logs import configure_logs
from service.process import run
from service.settings import Settings
from service.store.db import open_pool
from service.store.vault import Vault
from service.words.mails import Words
from workers import checks, papers, recoveries, retention
from workers.canary import CanaryPost
from workers.mails import Postman
from workers.metrics import WorkMetrics
from workers.papers import Printer
from workers.payments import EVERY_SECONDS, Payments
from workers.rates import Rates
from workers.rounds import Round
from workers.timers import Timers
from workers.webhooks import Courier

MINUTE, HOUR, DAY = 60.0, 3600.0, 86_400.0
RATES_SECONDS = 15.0  # how often the rates' job looks whether it is due; see workers/rates.py

# Bells end within microseconds; all of them may be read at once and none waits for a slot.
BELLS_AT_ONCE = 50
QUEUE_READ_LIMIT = 200
POLL_DELAY_SECONDS = 0.05
JOB_TIMEOUT_SECONDS = 10
AWAY_SECONDS = 1.0
# Then the pool has 5 s of its own: together less than the 25 s that a platform waits.
DRAIN_SECONDS = 18.0
HEALTH_DRAIN_SECONDS = 1.0
CANCEL_AGAIN_SECONDS = 0.5

log = structlog.get_logger()


class Keeper(Protocol):
    """Somebody who works until closed, at the latest a moment after being woken."""

    def wake(self) -> None: ...
    async def run(self) -> None: ...
    async def close(self) -> None: ...


def keepers(
    house: House,
    courier: Courier,
    postman: Postman,
    metrics: WorkMetrics,
    feed: RateFeed | None = None,
    providers: Mapping[str, PaymentProvider] | None = None,
    storage: Storage | None = None,
    printer: Printer | None = None,
) -> Mapping[str, Keeper]:
    """Who works in this process, by the bell that wakes them; then the pace of the others."""
    rates = None if feed is None else Rates(house, feed, metrics)
    payments = Payments(house, providers or {}, metrics)

    async def orphans(house: House) -> None:
        if storage is not None:
            await retention.remove_orphans(house, storage)

    def each(name: str, seconds: float, work: Callable[[House], Awaitable[object]]) -> Round:
        return Round(name, seconds, lambda: work(house), metrics)

    return {
        "webhooks": courier,
        "mails": postman,
        "timers": Round("timers", 1.0, Timers(house).fire, metrics),
        "payments": Round("payments", EVERY_SECONDS, payments.turn, metrics),
        "recoveries": each("recoveries", recoveries.EVERY_SECONDS, recoveries.turn),
        "checks": each("checks", MINUTE, checks.run_minute),
        "full_checks": each("full_checks", DAY, checks.run_full),
        "retention": each("retention", HOUR, retention.tidy),
        "expiries": each("expiries", HOUR, expiries.warn),
        "partitions": each("partitions", HOUR, retention.turn_partitions),
        "canary": each("canary", MINUTE, lambda h: tend(h, send_canary)),
        **({"files": each("files", DAY, orphans)} if storage else {}),
        **(
            {"papers": Round("papers", papers.EVERY_SECONDS, printer.turn, metrics)}
            if printer
            else {}
        ),
        **({"rates": Round("rates", RATES_SECONDS, rates.turn, metrics)} if rates else {}),
    }


class Crew:
    """The keepers of one process, their bell, and their end."""

    def __init__(
        self, keepers: Mapping[str, Keeper], redis: ArqRedis, metrics: WorkMetrics
    ) -> None:
        self._keepers = keepers
        self._redis = redis
        self._metrics = metrics
        self._is_closing = False

    async def run(self, until: asyncio.Event) -> None:
        """Work until the event, then drain: what is in flight ends or is given back.

        A keeper that ends by itself has met what it cannot survive: all end then, and its error
        is raised, so that whoever supervises the process starts it again.
        """
        stopping = asyncio.create_task(until.wait())
        working = [asyncio.create_task(keeper.run()) for keeper in self._keepers.values()]
        listening = asyncio.create_task(self._listen())
        await asyncio.wait((stopping, *working), return_when=asyncio.FIRST_COMPLETED)
        self._is_closing = True
        try:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(DRAIN_SECONDS):
                    await asyncio.gather(*(keeper.close() for keeper in self._keepers.values()))
                    await asyncio.gather(*working)
        finally:
            for task in (stopping, *working):
                task.cancel()
            await asyncio.gather(_end(listening), *working, return_exceptions=True)

    async def _listen(self) -> None:
        """Hear the bells, for as long as there is a Redis; the same worker begins again."""
        ears = self._ears()
        is_away = False
        while not self._is_closing:
            try:
                await self._redis.ping()
                if is_away:
                    log.info("redis_returned")
                is_away = False
                await ears.async_run()
            except asyncio.CancelledError:
                if self._is_closing:
                    raise
            except Exception as away:  # noqa: BLE001 - arq ends with whatever its connection did
                if not is_away:
                    log.warning("redis_away", reason=type(away).__name__)
                is_away = True
                await asyncio.sleep(AWAY_SECONDS)

    def _ears(self) -> Worker:
        def bell(name: str, keeper: Keeper) -> Any:
            async def ring(ctx: dict[Any, Any], *args: Any, **kwargs: Any) -> None:  # noqa: ARG001 - arq's shape
                self._metrics.bells.labels(name).inc()
                keeper.wake()

            return func(ring, name=name, keep_result=0, timeout=JOB_TIMEOUT_SECONDS)

        return Worker(
            functions=[bell(name, keeper) for name, keeper in self._keepers.items()],
            queue_name=QUEUE,
            redis_pool=self._redis,
            job_serializer=dump_job,
            job_deserializer=load_job,
            handle_signals=False,
            poll_delay=POLL_DELAY_SECONDS,
            max_jobs=BELLS_AT_ONCE,
            queue_read_limit=QUEUE_READ_LIMIT,
            keep_result=0,
            log_results=False,
        )


async def _end(task: "asyncio.Task[None]") -> None:
    """Cancel until it has ended: Redis' client loses a cancellation that its answer overtakes."""
    while not task.done():
        task.cancel()
        await asyncio.wait({task}, timeout=CANCEL_AGAIN_SECONDS)


@contextlib.asynccontextmanager
async def opened(settings: Settings) -> AsyncIterator[tuple[Crew, Health]]:
    """The crew of these settings and how it is; everything is closed at the end."""
    async with contextlib.AsyncExitStack() as stack:
        pool = await open_pool(
            settings.database_url or "", application="amana work", pgbouncer=settings.pgbouncer
        )
        stack.push_async_callback(pool.close)
        metrics = WorkMetrics()
        bell = ArqBell(settings.redis_url or "", metrics.bells_lost.inc)
        stack.push_async_callback(bell.close)
        house = House(pool, settings.policy(), Vault(settings.secret_keys), bell)
        post = CanaryPost(HttpPost(allow_private=settings.webhook_allow_private))
        stack.push_async_callback(post.close)
        smtp_url, sender = settings.smtp_url, settings.mail_from
        mailer = SmtpMailer(smtp_url, sender) if smtp_url else SandboxMailer()
        redis = lazy_redis(settings.redis_url or "")
        stack.push_async_callback(redis.aclose, close_connection_pool=True)
        courier = Courier(house, post, metrics=metrics)
        postman = Postman(house, mailer, Words.read(), metrics=metrics)
        feed = HttpRateFeed(settings.fx_url) if settings.fx_url else None
        if feed is not None:
            stack.push_async_callback(feed.close)
        providers = open_providers(
            settings.providers,
            book=HouseBook(house),
            secret_keys=settings.secret_keys,
            public_url=settings.amana_public_url,
            stripe_secret_key=settings.stripe_secret_key,
            stripe_webhook_secrets=settings.stripe_webhook_secret,
            stripe_api_base=settings.stripe_api_base,
        )
        for provider in providers.values():
            stack.push_async_callback(provider.close)
        storage, printer = None, None
        if settings.storage_url is not None:
            storage = open_storage(settings.storage_url, Access(*settings.storage_access))
            fonts = stack.enter_context(tempfile.TemporaryDirectory(prefix="amana-fonts-"))
            printer = Printer(house, storage, Path(fonts))
        kept = keepers(house, courier, postman, metrics, feed, providers, storage, printer)
        crew = Crew(kept, redis, metrics)
        checks = (
            Check("database", lambda: require_schema(pool)),
            Check("redis", redis.ping, required=False),
        )
        look = partial(metrics.look, pool)
        yield crew, Health(checks, metrics.registry, settings.metrics_token, look)


async def _work(settings: Settings, stop: asyncio.Event) -> None:
    async with opened(settings) as (crew, health), _answering(settings, health):
        log.info("worker_started", environment=settings.amana_env, port=settings.worker_port)
        await crew.run(stop)
    log.info("worker_stopped")


@contextlib.asynccontextmanager
async def _answering(settings: Settings, health: Health) -> AsyncIterator[None]:
    """/healthz, /readyz and /metrics on WORKER_PORT, unless it is 0."""
    if settings.worker_port == 0:
        yield
        return
    app = web.Application()
    health.mount(app)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=HEALTH_DRAIN_SECONDS)
    await runner.setup()
    try:
        await web.TCPSite(runner, settings.amana_host, settings.worker_port).start()
        yield
    finally:
        await runner.cleanup()


def work(settings: Settings) -> None:
    """Work until SIGTERM or SIGINT, then drain; returns within 25 s of the signal.

    Raises:
        SettingsError: DATABASE_URL, REDIS_URL, AMANA_SECRET_KEY, STORAGE_URL or, live, SMTP_URL is
            not set.
        Unavailable: the database cannot be reached at the start.
        OSError: WORKER_PORT is taken, or STORAGE_URL's folder cannot be made.
    """
    settings.require("DATABASE_URL", "REDIS_URL", "AMANA_SECRET_KEY", "STORAGE_URL")
    if not settings.is_sandbox:
        settings.require("SMTP_URL")
    configure_logs(settings.log_format, settings.log_level)
    run(partial(_work, settings))
