"""Deliveries as their developer sees them, and one more attempt because the developer wants it.

Law: an attempt is redacted by who looks (`Viewer`).
"""

from collections.abc import Mapping
from typing import Any
from uuid import UUID

import orjson

from service.commands.perform import Command, House
from service.rules.delivery import ATTEMPTS_MAX
from service.rules.errors import (
    BodyNotKept,
    DeliveryNotFound,
    DeliverySettling,
    EndpointDisabled,
    TooManyAttempts,
    WebhookNotFound,
)
from service.rules.events import TEST
from service.store import attempts, endpoints
from service.store.attempts import Delivery
from service.store.db import Transaction
from service.store.endpoints import Endpoint
from service.store.events import Entry, append_events
from service.store.ids import event_id
from service.wire import deliveries as wire
from service.wire.base import Wire
from service.wire.deliveries import DeliveryAnswer, Viewer, seen_headers, seen_text
from service.wire.events import envelope
from service.wire.webhooks import EndpointData, ToldWebhook

STEP = "test"
"""The audit trail's word for a test event; the feed and recoveries leave it out."""


def resend(developer_id: str, endpoint_id: str, delivery_id: UUID) -> Command:
    """The delivery falls due now, whatever became of it; one that is being sent right now is left.

    It goes on where its ladder stood; behind the ladder's end it has this one attempt, and so has
    what had ended in a fifo lane: newer events wait for the attempt, not for a ladder.

    Raises:
        WebhookNotFound, DeliveryNotFound: the developer has no such endpoint, it no such delivery.
        EndpointDisabled: nothing is sent there.
        BodyNotKept: the event's bytes are kept no longer.
        TooManyAttempts: it was sent again so often already.
        DeliverySettling: its receipt is still to be passed on to the escrow.
    """

    async def command(tx: Transaction) -> DeliveryAnswer:
        await lock_active(tx, developer_id, endpoint_id)
        before = await attempts.read_delivery(tx, delivery_id)
        if before is None or before.endpoint_id != endpoint_id:
            raise DeliveryNotFound
        if await attempts.read_body(tx, before.event_id, before.recorded_at) is None:
            raise BodyNotKept
        if before.attempt >= ATTEMPTS_MAX:
            raise TooManyAttempts(count=before.attempt)
        if await attempts.resend(tx, delivery_id):
            await attempts.hurry_lane(tx, endpoint_id)
            await _note(tx, endpoint_id, "resend")
            tx.ring("webhooks")
        elif before.state != "pending":
            raise DeliverySettling
        return await _shown(tx, delivery_id)

    return command


def send_test(
    developer_id: str,
    endpoint_id: str,
    event_type: str | None = None,
    sample: Mapping[str, Any] | Wire | None = None,
) -> Command:
    """An event for this endpoint alone, subscribed or not: `webhook.test`, or one like a real one.

    `sample` is what the event's `data` says, where a type is given.

    Raises:
        WebhookNotFound: the developer has no such endpoint.
        EndpointDisabled: nothing is sent there.
    """

    async def command(tx: Transaction) -> DeliveryAnswer:
        endpoint = await lock_active(tx, developer_id, endpoint_id)
        uid, kind = event_id(tx.now), event_type or TEST
        told = sample if sample is not None else EndpointData(webhook=_told(endpoint))
        body = envelope(uid, kind, told, tx.now)
        await _note(tx, endpoint_id, STEP, uid, kind, body)
        delivery_id = event_id(tx.real_now)
        await attempts.insert_test(tx, delivery_id, endpoint_id, uid, kind)
        await attempts.hurry_lane(tx, endpoint_id)
        return await _shown(tx, delivery_id)

    return command


def shape(delivery: Delivery) -> wire.Delivery:
    """The delivery as a list shows it."""
    return wire.Delivery(**_facts(delivery))


async def in_full(
    house: House, endpoint: Endpoint, delivery: Delivery, viewer: Viewer
) -> wire.DeliveryInFull:
    """The delivery with its attempts and what is sent, for who looks."""
    custom = orjson.loads(house.vault.open(endpoint.headers)) if endpoint.headers else {}
    body = await attempts.read_body(house.pool, delivery.event_id, delivery.recorded_at)
    logged = await attempts.read_attempts(house.pool, delivery.id)
    return wire.DeliveryInFull(
        **_facts(delivery),
        request=wire.Sent(
            url=endpoint.url,
            headers=seen_headers(custom),
            body=seen_text(body, viewer, {}),
        ),
        attempts=[
            wire.Attempt(
                n=one.n,
                started_at=one.started_at,
                status=one.status,
                error_class=one.fault,
                address=one.address,
                dns_ms=one.dns_ms,
                connect_ms=one.connect_ms,
                tls_ms=one.tls_ms,
                first_byte_ms=one.first_byte_ms,
                total_ms=one.total_ms,
                answer=seen_text(one.answer, viewer, custom),
            )
            for one in logged
        ],
    )


def _facts(delivery: Delivery) -> dict[str, Any]:
    return {
        "id": str(delivery.id),
        "event_id": str(delivery.event_id),
        "type": delivery.type,
        "state": delivery.state,
        "attempt": delivery.attempt,
        "next_attempt_at": delivery.next_attempt_at,
        "last_status": delivery.last_status,
        "last_error_class": delivery.last_fault,
        "created_at": delivery.created_at,
        "settled_at": delivery.settled_at,
    }


async def lock_active(tx: Transaction, developer_id: str, endpoint_id: str) -> Endpoint:
    """The developer's endpoint, under this transaction's lock.

    Raises:
        WebhookNotFound, EndpointDisabled.
    """
    endpoint = await endpoints.lock_endpoint(tx, endpoint_id)
    if endpoint is None or endpoint.developer_id != developer_id:
        raise WebhookNotFound
    if not endpoint.is_active:
        raise EndpointDisabled
    return endpoint


def _told(endpoint: Endpoint) -> ToldWebhook:
    return ToldWebhook(
        id=endpoint.id,
        url=endpoint.url,
        is_active=endpoint.is_active,
        failure_count=endpoint.failure_count,
        disabled_reason=endpoint.disabled_reason,
    )


async def _note(
    tx: Transaction,
    endpoint_id: str,
    step: str,
    uid: UUID | None = None,
    event_type: str | None = None,
    body: bytes | None = None,
) -> None:
    seq = await endpoints.next_seq(tx, endpoint_id)
    entry = Entry(
        id=uid or event_id(tx.now),
        subject_id=endpoint_id,
        subject_kind="endpoint",
        seq=seq,
        step=step,
        type=event_type,
        body=body,
    )
    await append_events(tx, [entry])


async def _shown(tx: Transaction, delivery_id: UUID) -> DeliveryAnswer:
    after = await attempts.read_delivery(tx, delivery_id)
    if after is None:
        raise AssertionError(f"delivery {delivery_id} has gone under its endpoint's lock")
    return DeliveryAnswer(delivery=shape(after))
