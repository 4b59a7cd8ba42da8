"""Webhook endpoints of the calling developer: create, list, read, update, new secret, delete."""

from typing import Any

from service.commands import endpoints
from service.commands.perform import Answer, Command, perform
from service.ingress.call import Call, Caller
from service.ingress.route import Subject, is_entity_id
from service.rules.errors import WebhookNotFound
from service.store.endpoints import Endpoint, read_endpoint, read_endpoints
from service.wire.webhooks import (
    Regenerate,
    WebhookAnswer,
    WebhookCreate,
    WebhookList,
    WebhookUpdate,
)


def may_manage(caller: Caller, endpoint: Endpoint) -> bool:
    """Its developer, and nobody else."""
    return caller.developer_id == endpoint.developer_id


# Another developer's endpoint is told from none at all by nothing.
ENDPOINT = Subject(
    "id",
    is_entity_id,
    WebhookNotFound,
    read_endpoint,
    WebhookNotFound,
    may_manage,
    WebhookNotFound,
)


async def create(call: Call[WebhookCreate, None]) -> Answer:
    """A new endpoint; its secret is in this answer only."""
    return await perform(
        call.house,
        call.actor,
        endpoints.create(call.developer_id, call.body),
        status=call.status,
        idempotency=call.idempotency,
        shows_secret=True,
    )


async def read_list(call: Call[None, None]) -> WebhookList:
    """Every endpoint, oldest first."""
    found = await read_endpoints(call.house.pool, call.developer_id)
    return WebhookList(webhooks=[endpoints.shape(endpoint, call.house.vault) for endpoint in found])


async def read_one(call: Call[None, None]) -> WebhookAnswer:
    """One endpoint."""
    return WebhookAnswer(webhook=endpoints.shape(call.subject, call.house.vault))


async def update(call: Call[WebhookUpdate, None]) -> Answer:
    """Change what the body names."""
    command = endpoints.update(call.developer_id, call.subject.id, call.body)
    return await _showing_headers(call, command)


async def enable(call: Call[None, None]) -> Answer:
    """Send there again; what was kept for it falls due."""
    return await _showing_headers(call, endpoints.enable(call.developer_id, call.subject.id))


async def _showing_headers(call: Call[Any, None], command: Command) -> Answer:
    """Custom headers often carry a token, so that the answer is kept as one with a secret."""
    return await perform(
        call.house, call.actor, command, idempotency=call.idempotency, shows_secret=True
    )


async def regenerate_secret(call: Call[Regenerate, None]) -> Answer:
    """A new secret, in this answer only; the old one dies at once unless an overlap is asked.

    At most five sign at once: an overlap ends for the oldest beyond.
    """
    overlap = call.body.overlap_hours or 0
    return await perform(
        call.house,
        call.actor,
        endpoints.regenerate_secret(call.developer_id, call.subject.id, overlap),
        idempotency=call.idempotency,
        shows_secret=True,
    )


async def delete(call: Call[None, None]) -> Answer:
    """Send nothing there any more."""
    command = endpoints.delete(call.developer_id, call.subject.id)
    return await perform(call.house, call.actor, command, idempotency=call.idempotency)
