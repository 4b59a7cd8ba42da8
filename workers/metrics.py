"""What a worker counts about itself, and what it reads of the tables; served at /metrics."""

import asyncio
import contextlib
import math
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from dataclasses import astuple

from prometheus_client import CollectorRegistry, Counter, Gauge, ProcessCollector

from service.rules.delivery import Reply
from service.rules.errors import Unavailable
from service.rules.money import RATED_CURRENCIES
from service.store.db import Clash, Reader
from service.store.deliveries import Attempt
from service.store.mails import read_mail_backlog
from service.store.outbox import read_outbox
from service.store.rates import read_ages

READ_TIMEOUT_SECONDS = 3.0

# The fields of store/outbox.py's Outbox, then those of store/mails.py's Backlog. Every worker
# reads the same tables and shows the same figures: take the greatest of them, never the sum.
WAITING = (
    ("amana_unfanned_seconds", "Age of the oldest event without its deliveries."),
    ("amana_lane_due_seconds", "For how long the oldest lane is due that is not held."),
    ("amana_lanes_held", "Lanes that are due but must wait."),
    ("amana_expired_leases", "Deliveries whose claim has lapsed."),
    ("amana_mails_due", "Mails that are due."),
    ("amana_mail_due_seconds", "For how long the oldest mail is due."),
    ("amana_mails_failed", "Mails of the last day that were given up."),
)


class WorkMetrics:
    """The worker's figures."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        ProcessCollector(registry=self.registry)
        self.bells = self._counter("amana_bells", "Bells heard.", "bell")
        self.rounds = self._counter("amana_rounds", "Rounds, by how they ended.", "round", "end")
        self.mails = self._counter("amana_mails", "Mails tried, by their state after it.", "state")
        self.slots = Gauge(
            "amana_delivery_slots", "Deliveries that are being sent.", registry=self.registry
        )
        self._attempts = self._counter(
            "amana_delivery_attempts",
            "Webhook attempts, by what came back and the delivery's state after it.",
            "answer",
            "state",
        )
        self._fenced = self._counter(
            "amana_fenced_settles", "Webhook attempts that ended after their claim was lost."
        )
        self._waiting = [
            Gauge(name, sentence, registry=self.registry) for name, sentence in WAITING
        ]
        self.payment_failures = self._counter(
            "amana_payment_failures", "Times that a payment provider failed.", "provider"
        )
        self.rate_fetches = self._counter(
            "amana_rate_fetches", "Times that the rates' feed was asked, by the end.", "end"
        )
        self._rate_ages = Gauge(
            "amana_rate_age_seconds",
            "Age of the newest exchange rate; +Inf where there never was one.",
            ["currency"],
            registry=self.registry,
        )

    def note_settled(self, batch: Sequence[Attempt], settled: int) -> None:
        """Count a batch of attempts; `settled` of them were still ours to settle."""
        ends = Tally((_answer(one.reply), one.outcome.state.value) for one in batch)
        for labels, count in ends.items():
            self._attempts.labels(*labels).inc(count)
        self._fenced.inc(len(batch) - settled)

    async def look(self, reader: Reader) -> None:
        """Read what waits in the tables; NaN while the database is away."""
        figures: Sequence[float] = [math.nan] * len(WAITING)
        ages: Mapping[str, float | None] = dict.fromkeys(RATED_CURRENCIES, math.nan)
        with contextlib.suppress(Unavailable, Clash, TimeoutError):
            async with asyncio.timeout(READ_TIMEOUT_SECONDS):
                outbox, mails = await read_outbox(reader), await read_mail_backlog(reader)
                ages = await read_ages(reader, RATED_CURRENCIES)
            figures = (*astuple(outbox), *astuple(mails))
        for gauge, figure in zip(self._waiting, figures, strict=True):
            gauge.set(figure)
        for currency, age in ages.items():
            self._rate_ages.labels(currency).set(math.inf if age is None else age)

    def _counter(self, name: str, sentence: str, *labels: str) -> Counter:
        return Counter(name, sentence, labels, registry=self.registry)


def _answer(reply: Reply) -> str:
    """The class of an answer: its fault, else `2xx` to `5xx`."""
    return reply.fault.value if reply.fault else f"{reply.status // 100}xx"
