"""How a delivery goes on after an attempt: ladders, the outcome table, who subscribes to what.

Source: webhooks.md 5. Law: pure; time and chance are parameters. Seconds everywhere.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from enum import StrEnum

RETRY_AFTER_MAX_SECONDS = 3600.0
RETRY_AFTER_SPREAD = 0.2
TIMEOUT_SECONDS = 10
TIMEOUT_MAX_SECONDS = 30
LEASE_MARGIN_SECONDS = 30
"""A claim lasts the attempt's deadline and this: long enough to settle, short enough to recover."""
GIVEN_BACK_SECONDS = 1.0
"""When an attempt that was our own fault falls due again: soon, but not in a tight loop."""
ROWS_PER_LANE = 4
ATTEMPTS_MAX = 1000
"""Of one delivery, however often it is sent again: beyond it, no wish is granted any more."""

HEADER_NAME = re.compile(r"[A-Za-z0-9!#$%&'*+.^_`|~-]{1,100}")
HEADER_VALUE = re.compile(r"[ -~]*")
# Receivers behind CGI or WSGI have one variable for all the names that differ in these only.
FOLDED = re.compile(r"[^a-z0-9]")
HEADERS_MAX = 10
HEADERS_BYTES_MAX = 4096
OURS_TO_SET = (
    "webhook-",
    "x-webhook-",
    "content-",
    "proxy-",
    "accept-encoding",
    "connection",
    "expect",
    "host",
    "keep-alive",
    "te",
    "trailer",
    "transfer-encoding",
    "upgrade",
)
"""Names, or beginnings of names where they end in a dash, that no custom header may have."""


class State(StrEnum):
    """Where a delivery stands; everything but pending and parked is final."""

    PENDING = "pending"
    PARKED = "parked"
    DELIVERED = "delivered"
    EXHAUSTED = "exhausted"
    CANCELLED = "cancelled"


class Fault(StrEnum):
    """Why an attempt has no usable answer."""

    TIMEOUT = "timeout"
    RESET = "reset"
    REFUSED = "refused"
    DNS = "dns"
    TLS = "tls"
    PROTOCOL = "protocol"
    BLOCKED = "blocked"
    BAD_URL = "bad_url"
    NO_BODY = "no_body"
    OURS = "ours"


class DisableReason(StrEnum):
    """Why an endpoint is sent nothing more: the end of a sentence, as its developer reads it."""

    GONE = "the receiver answered 410 Gone"
    ASKED = "the receiver answered `webhook-delivery: disable`"
    FAILING = "no attempt has succeeded for five days"


UNREACHABLE = frozenset({Fault.BLOCKED, Fault.BAD_URL})
"""Faults of the endpoint's address: trying again cannot help, and the endpoint is flagged."""


@dataclass(frozen=True, slots=True)
class Ladder:
    """Seconds between attempts: the n-th is the wait before attempt n + 1."""

    name: str
    waits_seconds: tuple[float, ...]
    spread: float
    client_errors_final: bool

    @property
    def attempts(self) -> int:
        """How many attempts there are in all."""
        return len(self.waits_seconds) + 1

    def wait_seconds(self, attempt: int) -> float | None:
        """The wait after this attempt (the first is 1); None when it was the last."""
        return self.waits_seconds[attempt - 1] if attempt < self.attempts else None


MINUTE, HOUR = 60.0, 3600.0
STANDARD = Ladder(
    "standard",
    (5, 5 * MINUTE, 30 * MINUTE, 2 * HOUR, 5 * HOUR, 10 * HOUR, 14 * HOUR, 20 * HOUR, 24 * HOUR),
    spread=0.2,
    client_errors_final=False,
)
BRIEF = Ladder("brief", (1, 2), spread=0.0, client_errors_final=True)
LADDERS = {ladder.name: ladder for ladder in (STANDARD, BRIEF)}


@dataclass(frozen=True, slots=True)
class Reply:
    """What came of one attempt: a status (0: none) or a fault, and how long it took."""

    status: int = 0
    fault: Fault | None = None
    retry_after: str | None = None
    asks_disable: bool = False
    answer: bytes = b""
    address: str | None = None
    dns_ms: int | None = None
    connect_ms: int | None = None
    tls_ms: int | None = None
    first_byte_ms: int | None = None
    total_ms: int = 0

    @property
    def is_success(self) -> bool:
        """Any 2xx, and only that."""
        return self.fault is None and 200 <= self.status <= 299


@dataclass(frozen=True, slots=True)
class Outcome:
    """What an attempt means for its delivery, its lane and its endpoint.

    `retry_seconds` is set exactly when the delivery stays pending. `streak` adds to the lane's run
    of failures (a success ends it), `halves` halves its window, `hold_seconds` stops all of it.
    """

    state: State
    retry_seconds: float | None = None
    is_success: bool = False
    streak: int = 0
    halves: bool = False
    hold_seconds: float = 0.0
    gives_back: bool = False
    disable_reason: DisableReason | None = None
    flag: str | None = None


DELIVERED = Outcome(State.DELIVERED, is_success=True)


def judge(
    reply: Reply, attempt: int | None, ladder: Ladder, now: datetime, chance: float
) -> Outcome:
    """The outcome table. `chance` in [0, 1) spreads the waits.

    `attempt` counts from 1 where the ladder began; None: there is this one alone.
    """
    if reply.fault is Fault.OURS:
        return Outcome(State.PENDING, retry_seconds=GIVEN_BACK_SECONDS, gives_back=True)
    if reply.fault is Fault.NO_BODY:
        return Outcome(State.EXHAUSTED)
    if reply.fault in UNREACHABLE:
        return Outcome(State.EXHAUSTED, streak=1, flag=str(reply.fault))
    asked = DisableReason.ASKED if reply.asks_disable else None
    if reply.is_success:
        return replace(DELIVERED, disable_reason=asked) if asked else DELIVERED
    if reply.status == 410 or asked:
        return Outcome(State.CANCELLED, streak=1, disable_reason=asked or DisableReason.GONE)
    return _failed(reply, attempt, ladder, now, chance)


def _failed(
    reply: Reply, attempt: int | None, ladder: Ladder, now: datetime, chance: float
) -> Outcome:
    pause = (
        retry_after_seconds(reply.retry_after, now)
        if reply.fault is None and reply.status in (429, 503)
        else None
    )
    hold = 0.0 if pause is None else pause * (1 + RETRY_AFTER_SPREAD * chance)
    polite = pause is not None or reply.status == 429
    wait = _next_wait(reply, attempt, ladder, pause, chance)
    return Outcome(
        State.EXHAUSTED if wait is None else State.PENDING,
        retry_seconds=wait,
        streak=0 if polite else 1,
        halves=polite or reply.fault is not None or reply.status in (502, 504),
        hold_seconds=hold,
    )


def _next_wait(
    reply: Reply, attempt: int | None, ladder: Ladder, pause: float | None, chance: float
) -> float | None:
    wait = None if attempt is None else ladder.wait_seconds(attempt)
    is_client_error = reply.fault is None and 400 <= reply.status <= 499
    if wait is None or (ladder.client_errors_final and is_client_error):
        return None
    if pause is not None:
        return max(wait, pause) * (1 + RETRY_AFTER_SPREAD * chance)
    return wait * (1 - ladder.spread + 2 * ladder.spread * chance)


def retry_after_seconds(text: str | None, now: datetime) -> float | None:
    """How long a `Retry-After` (seconds or an HTTP date) asks to wait, at most an hour.

    None when it says nothing usable: absent, garbage, zero or in the past.
    """
    if text is None or len(text) > 64:
        return None
    text = text.strip()
    if text.isascii() and text.isdigit():
        asked = float(text)
    else:
        try:
            at = parsedate_to_datetime(text)
        except (ValueError, TypeError, OverflowError):
            return None
        asked = ((at if at.tzinfo else at.replace(tzinfo=UTC)) - now).total_seconds()
    return min(asked, RETRY_AFTER_MAX_SECONDS) if asked > 0 else None


def header_fault(headers: Mapping[str, str]) -> str | None:
    """What is wrong with an endpoint's custom headers, as a sentence's end; None if nothing."""
    if len(headers) > HEADERS_MAX:
        return f"must be at most {HEADERS_MAX}"
    if sum(len(name) + len(value) for name, value in headers.items()) > HEADERS_BYTES_MAX:
        return f"must be at most {HEADERS_BYTES_MAX} bytes together"
    for name, value in headers.items():
        if not HEADER_NAME.fullmatch(name) or not HEADER_VALUE.fullmatch(value):
            return f"must have names of tokens and values of printable ASCII: {name!r} has not"
        folded = FOLDED.sub("-", name.lower())
        if folded in OURS_TO_SET or folded.startswith(
            tuple(start for start in OURS_TO_SET if start.endswith("-"))
        ):
            return f"must not set {name}"
    return None
