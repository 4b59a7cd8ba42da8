"""What a worker counts about itself, and what it reads of the tables; served at /metrics."""

import asyncio
import contextlib
import math
from collections import Counter as Tally
from collections.abc import Mapping, Sequence
from dataclasses import astuple

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram, ProcessCollector

from service.rules.delivery import Reply
from service.rules.errors import Unavailable
from service.rules.money import RATED_CURRENCIES
from service.store.canary import TYPE as CANARY
from service.store.db import Clash, Reader
from service.store.deliveries import Attempt
from service.store.mails import read_mail_backlog
from service.store.outbox import read_outbox
from service.store.rates import read_ages

READ_TIMEOUT_SECONDS = 3.0
CLAIM_BUCKETS_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 1.0)
FIRST_ATTEMPT_BUCKETS_SECONDS = (0.01, 0.025, 0.05, 0.1, 0.15, 0.25, 0.5, 1.0, 5.0, 60.0, 3600.0)

# The fields of store/outbox.py's Outbox, then those of store/mails.py's Backlog. Every worker
# reads the same tables and shows the same figures: take the greatest of them, never the sum.
WAITING = (
    ("amana_unfanned_seconds", "Age of the oldest event without its deliveries."),
    ("amana_lane_due_seconds", "For how long the oldest lane is due that is not held."),
    ("amana_lanes_held", "Lanes that are due but must wait."),
    ("amana_lane_held_seconds", "For how long the oldest lane is due that is held."),
    ("amana_expired_leases", "Deliveries whose claim has lapsed."),
    ("amana_breakers_open", "Active endpoints whose breaker is open."),
    ("amana_breakers_half_open", "Active endpoints whose breaker lets one probe through."),
    ("amana_canary_seconds", "Since the canary last arrived; NaN where the last one did not."),
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
        self.bells_lost = self._counter(
            "amana_bells_lost", "Bells that were not rung because Redis was away."
        )
        self.rounds = self._counter("amana_rounds", "Rounds, by how they ended.", "round", "end")
        self.mails = self._counter("amana_mails", "Mails tried, by their state after it.", "state")
        self.slots = Gauge(
            "amana_delivery_slots", "Deliveries that are being sent.", registry=self.registry
        )
        self.retry_slots = Gauge(
            "amana_delivery_slots_of_retries",
            "Of the deliveries that are being sent, those that were tried before.",
            registry=self.registry,
        )
        self.slow_slots = Gauge(
            "amana_delivery_slots_of_slow_lanes",
            "Of the deliveries that are being sent, those of slow lanes.",
            registry=self.registry,
        )
        self.claim_seconds = Histogram(
            "amana_claim_seconds",
            "How long the database took for a claim.",
            buckets=CLAIM_BUCKETS_SECONDS,
            registry=self.registry,
        )
        self._first_attempt = Histogram(
            "amana_first_attempt_seconds",
            "From an event's commit to the first attempt at a delivery of it.",
            buckets=FIRST_ATTEMPT_BUCKETS_SECONDS,
            registry=self.registry,
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
        """Count a batch of attempts; `settled` of them were still ours to settle.

        The canary, which nobody has received, counts with those that were lost only.
        """
        sent = [one for one in batch if one.claimed.type != CANARY]
        ends = Tally((_answer(one.reply), one.outcome.state.value) for one in sent)
        for labels, count in ends.items():
            self._attempts.labels(*labels).inc(count)
        self._fenced.inc(len(batch) - settled)
        for one in sent:
            if not (one.claimed.is_retry or one.outcome.gives_back):
                waited = (one.started_at - one.claimed.recorded_at).total_seconds()
                self._first_attempt.observe(max(0.0, waited))

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
