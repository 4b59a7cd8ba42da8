"""Deliveries, their attempts and recoveries on the wire, and the feed of events. webhooks.md 7."""

import base64
import re
from collections.abc import Mapping, Sequence
from datetime import datetime
from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from service.rules.errors import WebhookRefused
from service.rules.events import CATALOGUE, TEST, unknown
from service.wire.base import Query, Wire
from service.wire.escrows import From, PageNumber, To
from service.wire.webhooks import Plain

STATES = Literal["pending", "parked", "delivered", "exhausted", "cancelled"]
RecoveryState = Literal["pending", "running", "done", "cancelled"]
PAGE_MAX = 100
FEED_MAX = 500
TYPES_MAX = 50
LATEST = "latest"
"""As `after` of the feed: from now on."""

HIDDEN = "•••"
SECRET_CHARACTERS_MIN = 6
"""A custom header's value that is shorter gives nothing away and would blot out ordinary words."""


class Viewer(Enum):
    """Who looks at attempts: their developer by a key, a person on a page, the operator."""

    DEVELOPER = "developer"
    PERSON = "person"
    OPERATOR = "operator"


class DeliveryQuery(Query):
    """The query of `GET …/deliveries`; `event` is a type, `from` of the deliveries' making."""

    state: STATES | None = None
    event: Annotated[str, Field(max_length=100)] | None = None
    created_from: Annotated[From | None, Field(alias="from")] = None
    limit: Annotated[PageNumber, Field(ge=1, le=PAGE_MAX)] = 20
    cursor: UUID | None = None


class Delivery(Wire):
    """A delivery. `nextAttemptAt` is null for what is final, kept back or being sent right now.

    `lastStatus` is 0 where there was no answer; `lastErrorClass` says why.
    """

    id: str
    event_id: str
    type: str
    state: STATES
    attempt: int
    next_attempt_at: datetime | None
    last_status: int | None
    last_error_class: str | None
    created_at: datetime
    settled_at: datetime | None


class Attempt(Wire):
    """One attempt: its phases in milliseconds from its start, and what was answered.

    A phase is null where there was none, as on a kept connection.
    """

    n: int
    started_at: datetime
    status: int
    error_class: str | None
    address: str | None
    dns_ms: int | None
    connect_ms: int | None
    tls_ms: int | None
    first_byte_ms: int | None
    total_ms: int
    answer: str | None


class Sent(Wire):
    """What is sent: the body is null when it is kept no longer, or not for whoever looks."""

    url: str
    headers: Mapping[str, str]
    body: str | None


class DeliveryInFull(Delivery):
    """A delivery with every attempt that is kept, and what is sent."""

    request: Sent
    attempts: list[Attempt]


class DeliveryList(Wire):
    """200 of the list, of the newest events first; `nextCursor` is null on the last page."""

    deliveries: list[Delivery]
    next_cursor: str | None


class DeliveryAnswer(Wire):
    """A delivery that is on its way."""

    delivery: Delivery


class DeliveryInFullAnswer(Wire):
    """200 of `GET …/deliveries/:deliveryId`."""

    delivery: DeliveryInFull


class TestEvent(Plain):
    """The body of `POST …/test`: of which type the event is; `webhook.test` if none is named."""

    __test__ = False  # no test class, whatever a collector thinks of the name
    model_config = ConfigDict(extra="forbid")

    type: str | None = None

    @model_validator(mode="after")
    def _known(self) -> "TestEvent":
        if self.type is not None and self.type not in (*CATALOGUE, TEST):
            raise WebhookRefused(reason=f"Unknown event type: {self.type[:200]}")
        return self


class Recover(Plain):
    """The body of `POST …/recover`: the events since then, and before `until` (now, if absent)."""

    model_config = ConfigDict(extra="forbid")

    since: From
    until: To | None = None

    @model_validator(mode="after")
    def _in_order(self) -> "Recover":
        if self.until is not None and self.until <= self.since:
            raise WebhookRefused(reason="until must be after since")
        return self


class Recovery(Wire):
    """A recovery: `count` is how many deliveries were found, `recovered` how many are on their way.

    Both grow while it runs: last of all it looks for events that were never sent here.
    """

    id: str
    state: RecoveryState
    count: int
    recovered: int
    since: datetime
    until: datetime
    created_at: datetime
    finished_at: datetime | None


class RecoveryAnswer(Wire):
    """202 of `POST …/recover`."""

    recovery: Recovery


class RecoveryList(Wire):
    """200 of `GET …/recoveries`, newest first."""

    recoveries: list[Recovery]


# ---- The feed -----------------------------------------------------------------------------------

CURSOR = re.compile(r"[A-Za-z0-9_-]{2,60}")


def write_cursor(xid: int, position: int) -> str:
    """A place in the feed, as text that says nothing."""
    return base64.urlsafe_b64encode(f"{xid}.{position}".encode()).decode().rstrip("=")


def read_cursor(text: str) -> tuple[int, int]:
    """The place that `write_cursor` has written. Raises ValueError for anything else."""
    if not CURSOR.fullmatch(text):
        raise ValueError("must be a nextCursor of this feed")
    try:
        told = base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode("ascii")
        xid, position = (int(part) for part in told.split("."))
    except ValueError:
        raise ValueError("must be a nextCursor of this feed") from None
    if not (0 <= xid < 1 << 63 and 0 <= position < 1 << 63) or write_cursor(xid, position) != text:
        raise ValueError("must be a nextCursor of this feed")
    return xid, position


def _types(text: object) -> object:
    return [part.strip() for part in text.split(",")] if isinstance(text, str) else text


class FeedQuery(Query):
    """The query of `GET /events`."""

    after: (
        Annotated[
            str,
            Field(
                max_length=60,
                description="The nextCursor of the answer before; `latest`: only what comes.",
            ),
        ]
        | None
    ) = None
    types: (
        Annotated[
            list[str],
            BeforeValidator(_types),
            Field(max_length=TYPES_MAX),
            WithJsonSchema(
                {
                    "type": "string",
                    "description": "Types or wildcards, parted by commas.",
                }
            ),
        ]
        | None
    ) = None
    limit: Annotated[PageNumber, Field(ge=1, le=FEED_MAX)] = 100

    @field_validator("after")
    @classmethod
    def _a_cursor(cls, after: str | None) -> str | None:
        if after not in (None, LATEST):
            read_cursor(after or "")
        return after

    @field_validator("types")
    @classmethod
    def _known(cls, types: list[str] | None) -> list[str] | None:
        strangers = unknown(types or ())
        if strangers:
            raise ValueError(f"must be event types: {', '.join(strangers)[:200]} is none")
        return types


class Envelope(Wire):
    """An event as its webhook tells it."""

    id: str
    type: str
    timestamp: str
    data: Mapping[str, Any]


class Feed(Wire):
    """200 of the feed: events in the order of their commits. Ask again with `nextCursor`.

    A page may be short although `hasMore` says that there is more.
    """

    events: list[Envelope]
    next_cursor: str
    has_more: bool


def feed_bytes(bodies: Sequence[bytes], next_cursor: str, *, has_more: bool) -> bytes:
    """The answer of the feed with the webhooks' exact bytes in it."""
    end = b"true" if has_more else b"false"
    return b'{"events":[%s],"nextCursor":"%s","hasMore":%s}' % (
        b",".join(bodies),
        next_cursor.encode(),
        end,
    )


# ---- Redaction ----------------------------------------------------------------------------------


def seen_headers(custom: Mapping[str, str]) -> dict[str, str]:
    """The custom headers as they are shown beside attempts, whoever looks: names without values."""
    return dict.fromkeys(custom, HIDDEN)


def seen_text(raw: bytes | None, viewer: Viewer, custom: Mapping[str, str]) -> str | None:
    """A body or an answer for who looks: nothing of it for the operator.

    Receivers like to tell in an error what they were sent: the values of custom headers are hidden.
    """
    if raw is None or viewer is Viewer.OPERATOR:
        return None
    text = raw.decode("utf-8", errors="replace")
    for value in sorted(custom.values(), key=len, reverse=True):
        for part in (value, value.rpartition(" ")[2]):  # the token of `Bearer …`, too
            if len(part) >= SECRET_CHARACTERS_MIN:
                text = text.replace(part, HIDDEN)
    return text
