"""Webhook endpoints on the wire, and the headers that ride on every delivery. escrows.md 7.

Every 400 of these paths is `{error}` alone, so a model tells what is wrong by a `WebhookRefused`.
"""

from collections.abc import Mapping, Sequence
from datetime import datetime
from typing import Annotated, Any, Literal, Self
from uuid import UUID

from pydantic import Field, ModelWrapValidatorHandler, ValidationError, model_validator

from service.rules.address import BAD_URL
from service.rules.delivery import TIMEOUT_MAX_SECONDS, header_fault
from service.rules.errors import WebhookRefused
from service.rules.events import unknown
from service.rules.signing import body_signature, standard_signatures
from service.wire.base import Body, WholeNumber, Wire, absent, instant
from service.wire.complaints import complaints
from service.wire.ed25519 import ed25519_signature, is_private_key

OVERLAP_HOURS_MAX = 168
EVENTS_MAX = 100


class Plain(Body):
    """A body whose bad fields are told in one sentence."""

    @model_validator(mode="wrap")
    @classmethod
    def _told_in_one(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        try:
            return handler(given)
        except ValidationError as failure:
            bad = complaints(failure)
            if "url" in bad:
                raise WebhookRefused(reason=BAD_URL) from None
            sentence = "; ".join(f"{field} {what}" for field, what in bad.items())
            raise WebhookRefused(reason=sentence) from None


class _Options(Plain):
    """What create and update may both set.

    `maxPerSecond` 0 takes the pace off: `null` is absence, as everywhere, and leaves it as it is.
    `headers` are the whole set; `{}` takes them off.
    """

    events: Annotated[list[str], Field(min_length=1, max_length=EVENTS_MAX)] | None = None
    ladder: Literal["standard", "brief"] | None = None
    timeout_seconds: Annotated[WholeNumber, Field(ge=1, le=TIMEOUT_MAX_SECONDS)] | None = None
    max_per_second: Annotated[WholeNumber, Field(ge=0, le=1000)] | None = None
    headers: dict[str, str] | None = None
    fifo: bool | None = None
    ed25519: bool | None = None

    @model_validator(mode="after")
    def _known(self) -> Self:
        strangers = unknown(self.events or ())
        if strangers:
            raise WebhookRefused(reason=f"Unknown event type: {', '.join(strangers)[:200]}")
        fault = header_fault(self.headers or {})
        if fault is not None:
            raise WebhookRefused(reason=f"headers {fault}")
        return self


class WebhookCreate(_Options):
    """The body of `POST /api/developer/webhooks`."""

    url: str


class WebhookUpdate(_Options):
    """The body of `PUT /api/developer/webhooks/:id`; what is absent stays."""

    url: str | None = None
    is_active: bool | None = None


class Regenerate(Plain):
    """The body of `POST …/regenerate-secret`: how long the old secret signs too (0: not at all)."""

    overlap_hours: Annotated[WholeNumber, Field(ge=1, le=OVERLAP_HOURS_MAX)] | None = None


class Webhook(Wire):
    """An endpoint in full; its secret is never in it.

    `flag`: why its address was refused the last time that it was (`blocked`, `bad_url`).
    `publicKey`: what `v1a` signatures verify with, where `ed25519` is on.
    """

    id: str
    url: str
    events: list[str]
    is_active: bool
    last_triggered_at: datetime | None
    last_response_status: int | None
    failure_count: int
    created_at: datetime
    updated_at: datetime
    ladder: str
    timeout_seconds: int
    max_per_second: int | None
    headers: Mapping[str, str]
    fifo: bool
    ed25519: bool
    public_key: str | None
    disabled_reason: str | None
    flag: str | None


class NewWebhook(Wire):
    """An endpoint as create shows it, once with its secret in both text forms.

    `publicKey` is there where `ed25519` was asked for.
    """

    id: str
    url: str
    secret: str
    standard_secret: str
    public_key: str | None = absent()
    events: list[str]
    is_active: bool
    created_at: datetime


class WebhookCreated(Wire):
    """201 of create."""

    message: str
    webhook: NewWebhook


class WebhookList(Wire):
    """200 of the list."""

    webhooks: list[Webhook]


class WebhookAnswer(Wire):
    """200 of `GET …/:id`."""

    webhook: Webhook


class WebhookUpdated(Wire):
    """200 of update."""

    message: str
    webhook: Webhook


class SecretAnswer(Wire):
    """200 of `POST …/regenerate-secret`; `publicKey` where `ed25519` is on: its pair is new too."""

    message: str
    secret: str
    standard_secret: str
    public_key: str | None = absent()


class Gone(Wire):
    """200 of delete."""

    message: str


class ToldWebhook(Wire):
    """An endpoint as the endpoint family's events name it."""

    id: str
    url: str
    is_active: bool
    failure_count: int
    disabled_reason: str | None = absent()


class EndpointData(Wire):
    """The `data` of `endpoint.*` and `secret.rotated`."""

    webhook: ToldWebhook


def delivery_headers(
    *,
    secrets: Sequence[str],
    delivery_id: UUID,
    event_id: UUID,
    event_type: str,
    body: bytes,
    now: datetime,
    custom: Mapping[str, str],
) -> dict[str, str]:
    """Every header of one attempt at `now`.

    `secrets` are the live ones of both schemes, newest first: every one signs, in one header. The
    body's own signature carries the newest of HMAC's.
    """
    event, seconds = str(event_id), int(now.timestamp())
    shared = [secret for secret in secrets if not is_private_key(secret)]
    signatures = [standard_signatures(shared, event, seconds, body)]
    signatures += [
        ed25519_signature(key, event, seconds, body) for key in secrets if is_private_key(key)
    ]
    return {
        **custom,
        "Content-Type": "application/json",
        "X-Webhook-Signature": body_signature(shared[0], body),
        "X-Webhook-Event": event_type,
        "X-Webhook-Id": str(delivery_id),
        "X-Webhook-Timestamp": instant(now),
        "webhook-id": event,
        "webhook-timestamp": str(seconds),
        "webhook-signature": " ".join(signatures),
    }
