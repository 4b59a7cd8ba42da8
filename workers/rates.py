"""The rates' job: asks the feed once an hour; after a failure sooner, then ever less often.

Law: a bad answer stores nothing. The newest rate stays in use until FX_MAX_AGE_HOURS. Every worker
process has this job; whoever comes within the hour after another finds it done and asks nobody.
"""

import random
import time
from collections.abc import Callable
from datetime import timedelta

import structlog

from service.commands.perform import House, tend
from service.commands.rates import fetched_ago, record_fetched
from service.gateways.fx import RateFeed
from service.rules.errors import GatewayFailure
from workers.metrics import WorkMetrics

EVERY = timedelta(hours=1)
SPREAD_SECONDS = 300.0
"""So that of several workers one comes first and the others find it done."""
RETRY_SECONDS, RETRY_MAX_SECONDS = 30.0, 900.0

log = structlog.get_logger()


class Rates:
    """Keeps the rates fresh; `turn` is called every few seconds and mostly finds nothing due."""

    def __init__(
        self,
        house: House,
        feed: RateFeed,
        metrics: WorkMetrics,
        clock: Callable[[], float] = time.monotonic,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._house, self._feed, self._metrics = house, feed, metrics
        self._clock, self._chance = clock, chance
        self._due_at = clock()
        self._failures = 0

    async def turn(self) -> None:
        """Ask the feed if that is due; a failure is logged and counted, and asked again later."""
        if self._clock() < self._due_at:
            return
        self._rest(RETRY_SECONDS)  # should the database fail: the feed is not asked each turn
        ago = await fetched_ago(self._house.pool)
        if ago is not None and ago < EVERY:
            self._rest_after(ago)
            return
        try:
            rates = await self._feed.fetch()
        except GatewayFailure as failure:
            self._note_failed(failure)
            return
        is_ours = await tend(self._house, lambda tx: record_fetched(tx, rates, EVERY))
        self._rest_after(timedelta())
        self._metrics.rate_fetches.labels("stored" if is_ours else "spared").inc()
        log.info("rates_fetched", stored=is_ours, **{name: str(rates[name]) for name in rates})

    def _note_failed(self, failure: GatewayFailure) -> None:
        wait = min(RETRY_MAX_SECONDS, RETRY_SECONDS * 2 ** min(self._failures, 10))
        wait *= 1 - self._chance() / 2
        self._failures += 1
        self._rest(wait)
        self._metrics.rate_fetches.labels("failed").inc()
        log.warning(
            "rates_not_fetched",
            reason=str(failure),
            failures=self._failures,
            retry_seconds=round(wait),
        )

    def _rest_after(self, ago: timedelta) -> None:
        """Until an hour after a fetch that was so long ago, and a bit."""
        self._failures = 0
        self._rest((EVERY - ago).total_seconds() + SPREAD_SECONDS * self._chance())

    def _rest(self, seconds: float) -> None:
        self._due_at = self._clock() + seconds
