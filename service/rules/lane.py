"""How a lane goes on: its window, its breaker, its run of failures, and who is told of that.

One lane an endpoint; endpoints are scheduled, not deliveries. Source: webhooks.md 5. Law: pure;
time is a parameter, and a lane's memory has a fixed size however much passes through it.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from enum import IntFlag, StrEnum

from service.rules.delivery import Fault, Outcome, Reply, State

CAP = 16
SLOW_MS = 2000
"""A lane whose attempts take so long on average is slow."""
MEAN_OVER = 8
"""The moving average is moved by an eighth of what a new attempt differs from it."""
RETRY_PERCENT, SLOW_PERCENT = 40, 25
"""Of a worker's slots: the most that retries have, and that slow lanes have together. The other
60 % are kept for first attempts, also while none waits: the next one is never behind a retry."""

SAMPLE_MINUTES = 5
SAMPLE_LEAST = 10
FAILED_SHARE = 0.7
OPEN_SECONDS = 30
OPEN_MAX_SECONDS = 15 * 60

DAY = timedelta(days=1)
MAILED_AFTER = DAY
MAILED_AGAIN_AFTER = 3 * DAY
DISABLED_AFTER = 5 * DAY
DISABLED_ATTEMPTS = 20
DISABLED_OVER = 3 * DAY


class Breaker(StrEnum):
    """Open: nothing is sent. Half open: one probe is under way, or allowed."""

    CLOSED = "closed"
    OPEN = "open"
    HALF_OPEN = "half_open"


@dataclass(slots=True)
class Sample:
    """What was attempted in the last minutes: `minute` (since 1970) is that of the first bucket."""

    minute: int = 0
    attempts: list[int] = field(default_factory=lambda: [0] * SAMPLE_MINUTES)
    failures: list[int] = field(default_factory=lambda: [0] * SAMPLE_MINUTES)

    def add(self, now: datetime, *, failed: bool) -> None:
        """Count one attempt that has ended now."""
        passed = min(max(int(now.timestamp()) // 60 - self.minute, 0), SAMPLE_MINUTES)
        if passed:
            self.minute = int(now.timestamp()) // 60
            empty = [0] * passed
            self.attempts = (empty + self.attempts)[:SAMPLE_MINUTES]
            self.failures = (empty + self.failures)[:SAMPLE_MINUTES]
        self.attempts[0] += 1
        self.failures[0] += failed

    @property
    def is_bad(self) -> bool:
        """Whether enough was attempted, and too much of it failed."""
        attempts = sum(self.attempts)
        return attempts >= SAMPLE_LEAST and sum(self.failures) >= FAILED_SHARE * attempts


@dataclass(slots=True)
class Lane:
    """A lane as its row remembers it.

    `window`: attempts at once, at most `cap`; `halved_at`: when last a failure narrowed it, so that
    those that were in flight with that failure do not narrow it again. `streak` is the run of
    failures that are the receiver's, `failure_count` of all that were no success, `failing_since`
    when that began, `exhausted_at` when the first delivery in it was given up, `gives_up` whether
    that was by one of these attempts. `hold_until` is set where these attempts hold the lane.
    """

    cap: int = CAP
    window: int = CAP
    halved_at: datetime | None = None
    streak: int = 0
    failure_count: int = 0
    failing_since: datetime | None = None
    exhausted_at: datetime | None = None
    last_attempt_at: datetime | None = None
    last_status: int | None = None
    mean_ms: int = 0
    breaker: Breaker = Breaker.CLOSED
    breaker_until: datetime | None = None
    trips: int = 0
    sample: Sample = field(default_factory=Sample)
    hold_until: datetime | None = None
    gives_up: bool = False


@dataclass(frozen=True, slots=True)
class Ended:
    """One attempt that has ended."""

    outcome: Outcome
    reply: Reply
    started_at: datetime


def turn(lane: Lane, ended: Sequence[Ended], now: datetime) -> Lane:
    """The lane after these attempts, in the order of their answers; `lane` is left as it is."""
    sample = Sample(lane.sample.minute, list(lane.sample.attempts), list(lane.sample.failures))
    after = replace(lane, sample=sample)
    for one in ended:
        if one.outcome.gives_back or one.reply.fault is Fault.NO_BODY:
            continue  # nothing was asked of the receiver
        after.last_attempt_at, after.last_status = one.started_at, one.reply.status
        after.mean_ms += round((one.reply.total_ms - after.mean_ms) / MEAN_OVER)
        if one.outcome.is_success:
            _succeeded(after, now)
        else:
            _failed(after, one, now)
    return after


def _succeeded(lane: Lane, now: datetime) -> None:
    lane.streak = lane.failure_count = 0
    lane.failing_since = lane.exhausted_at = None
    if lane.breaker is not Breaker.CLOSED:
        lane.breaker, lane.breaker_until = Breaker.CLOSED, None
        lane.window, lane.sample = 1, Sample()  # from here 1, 2, 4 …: each success adds one
        return
    lane.window = min(lane.cap, lane.window + 1)
    if lane.window == lane.cap:
        lane.trips = 0
    lane.sample.add(now, failed=False)


def _failed(lane: Lane, one: Ended, now: datetime) -> None:
    lane.failure_count += 1
    lane.failing_since = lane.failing_since or one.started_at
    if one.outcome.state is State.EXHAUSTED and lane.exhausted_at is None:
        lane.exhausted_at, lane.gives_up = now, True
    if one.outcome.halves and (lane.halved_at is None or one.started_at > lane.halved_at):
        lane.window, lane.halved_at = max(1, lane.window // 2), now
    if one.outcome.hold_seconds:
        _hold(lane, now + timedelta(seconds=one.outcome.hold_seconds))
    if one.outcome.streak:  # who says when to come back is no broken receiver
        lane.streak += one.outcome.streak
        _count_against(lane, now)


def _count_against(lane: Lane, now: datetime) -> None:
    """A failure that is the receiver's: the breaker opens, or its probe has failed."""
    if lane.breaker is Breaker.OPEN:
        return  # it was in flight when the breaker opened
    if lane.breaker is Breaker.CLOSED:
        lane.sample.add(now, failed=True)
        if not lane.sample.is_bad:
            return
    lane.breaker_until = now + timedelta(seconds=open_seconds(lane.trips))
    lane.breaker, lane.trips, lane.sample = Breaker.OPEN, lane.trips + 1, Sample()
    _hold(lane, lane.breaker_until)


def open_seconds(trips: int) -> int:
    """How long a breaker stays open that has opened so many times before, since it was well."""
    return min(OPEN_SECONDS << min(trips, 10), OPEN_MAX_SECONDS)


def _hold(lane: Lane, until: datetime) -> None:
    lane.hold_until = max(lane.hold_until or until, until)


def retry_slots(slots: int) -> int:
    """How many of a worker's slots retries may have."""
    return max(1, slots * RETRY_PERCENT // 100)


def slow_slots(slots: int) -> int:
    """How many of a worker's slots slow lanes may have together."""
    return max(1, slots * SLOW_PERCENT // 100)


class Told(IntFlag):
    """What is told about a run of failures: an event, and mails; a lane remembers what was.

    EXHAUSTED is mailed at once by the settle that gives up the run's first delivery (`gives_up`),
    and not remembered: a success that follows would end the run before anybody looks.
    """

    NOTHING = 0
    FAILING = 1
    EXHAUSTED = 2
    DAY = 4
    THREE_DAYS = 8


MAILS = Told.EXHAUSTED | Told.DAY | Told.THREE_DAYS


@dataclass(frozen=True, slots=True)
class Run:
    """A lane's run of failures, as far as its developer is told of it.

    `told_since` is when the run began that `told` speaks of: perhaps one that is over. Without
    `failing_since` there is none: a success has ended it, or the endpoint was enabled again.
    """

    failing_since: datetime | None
    exhausted_at: datetime | None
    last_attempt_at: datetime | None
    last_status: int | None
    failure_count: int
    breaker: Breaker
    told: Told
    told_since: datetime | None = None


@dataclass(frozen=True, slots=True)
class Notices:
    """What is to be told now: the endpoint fails or works again, a mail, the end; then `told`."""

    fails: bool = False
    recovers: bool = False
    mail: Told = Told.NOTHING
    disables: bool = False
    told: Told = Told.NOTHING


def notices(run: Run, now: datetime) -> Notices:
    """What the developer is to be told of this run; nothing where `told` is as before.

    The mails are of a day and of three days of failures; of two that are due at once the later is
    sent. `endpoint.failing` comes with the first exhausted delivery, the first of these mails, or
    the breaker's opening; `endpoint.recovered` with the first success after it.
    """
    if run.failing_since is None:
        recovers = Told.FAILING in run.told and 200 <= (run.last_status or 0) <= 299
        return Notices(
            recovers=recovers, told=Told.NOTHING if recovers else run.told & Told.FAILING
        )
    lasted = now - run.failing_since
    due = Told.DAY if lasted >= MAILED_AFTER else Told.NOTHING
    due |= Told.THREE_DAYS if lasted >= MAILED_AGAIN_AFTER else Told.NOTHING
    told = run.told if run.told_since == run.failing_since else run.told & Told.FAILING
    fresh = due & ~told
    fails = bool(due) or run.exhausted_at is not None or run.breaker is not Breaker.CLOSED
    last = Told(1 << (fresh.value.bit_length() - 1)) if fresh else Told.NOTHING
    return Notices(
        fails=fails and Told.FAILING not in told,
        mail=last,
        disables=_is_given_up(run, now),
        told=told | due | (Told.FAILING if fails else Told.NOTHING),
    )


def _is_given_up(run: Run, now: datetime) -> bool:
    """Failures for five days; and enough of them, over enough time, to be sure."""
    if run.failing_since is None or run.last_attempt_at is None:
        return False
    return (
        now - run.failing_since >= DISABLED_AFTER
        and run.failure_count >= DISABLED_ATTEMPTS
        and run.last_attempt_at - run.failing_since >= DISABLED_OVER
    )
