"""Deliveries to a webhook endpoint: what became of them, sent again, recovered, tried out."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from aiohttp import web

from service.commands import attempts, recoveries
from service.commands.perform import Answer
from service.ingress.api.webhooks import ENDPOINT
from service.ingress.call import Call, Caller
from service.ingress.route import Subject
from service.rules.errors import DeliveryNotFound
from service.store.attempts import Delivery, list_deliveries, read_delivery
from service.store.db import Reader
from service.store.endpoints import Endpoint
from service.store.recoveries import list_recoveries
from service.wire.deliveries import (
    DeliveryInFullAnswer,
    DeliveryList,
    DeliveryQuery,
    Recover,
    RecoveryList,
    TestEvent,
    Viewer,
)

RECOVERIES_SHOWN = 20

SAMPLES: web.AppKey[Callable[[str], Mapping[str, Any]]] = web.AppKey("samples")
"""What the `data` of a type looks like: `main` brings it along: examples know the handlers."""


def is_uuid(text: str) -> bool:
    """Whether this is a UUID in its usual form."""
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


async def _read(reader: Reader, delivery_id: str) -> Delivery | None:
    return await read_delivery(reader, UUID(delivery_id))


def _may_see(caller: Caller, delivery: Delivery) -> bool:
    return caller.developer_id == delivery.developer_id


def _lies_in(delivery: Delivery, endpoint: Endpoint) -> bool:
    return delivery.endpoint_id == endpoint.id


# Of another endpoint, also of one's own, it is told from none at all by nothing.
DELIVERY = Subject(
    "delivery",
    is_uuid,
    DeliveryNotFound,
    _read,
    DeliveryNotFound,
    _may_see,
    DeliveryNotFound,
    within=ENDPOINT,
    lies_in=_lies_in,
)


async def read_list(call: Call[None, DeliveryQuery]) -> DeliveryList:
    """Of the newest events first, by cursor."""
    query = call.query
    found = await list_deliveries(
        call.house.pool,
        call.subject.id,
        state=query.state,
        event_type=query.event,
        since=query.created_from,
        before=query.cursor,
        limit=query.limit + 1,
    )
    shown = found[: query.limit]
    return DeliveryList(
        deliveries=[attempts.shape(one) for one in shown],
        next_cursor=str(shown[-1].event_id) if len(found) > query.limit else None,
    )


async def read_one(call: Call[None, None]) -> DeliveryInFullAnswer:
    """One delivery with its attempts."""
    told = await attempts.in_full(call.house, call.outer, call.subject, Viewer.DEVELOPER)
    return DeliveryInFullAnswer(delivery=told)


async def resend(call: Call[None, None]) -> Answer:
    """Send it once more, now."""
    return await call.perform(attempts.resend(call.developer_id, call.outer.id, call.subject.id))


async def send_test(call: Call[TestEvent, None]) -> Answer:
    """Send an event to this endpoint that nothing has happened for."""
    kind = call.body.type
    sample = None if kind is None else call.request.app[SAMPLES](kind)
    return await call.perform(attempts.send_test(call.developer_id, call.subject.id, kind, sample))


async def recover(call: Call[Recover, None]) -> Answer:
    """Send in the background what this endpoint has missed."""
    wanted = recoveries.recover(
        call.developer_id, call.subject.id, call.body.since, call.body.until
    )
    return await call.perform(wanted)


async def read_recoveries(call: Call[None, None]) -> RecoveryList:
    """The newest recoveries and how far they have come."""
    found = await list_recoveries(call.house.pool, call.subject.id, RECOVERIES_SHOWN)
    return RecoveryList(recoveries=[recoveries.shape(one) for one in found])
