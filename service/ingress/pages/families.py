"""Which family's page answers under an address that both families have.

An id tells nothing of its escrow, so its mode is read first; what is no escrow's, nor a session's,
is answered by the first family's page, as not there.
"""

from uuid import UUID

from aiohttp import web

from service.ingress.api.sessions import is_uuid
from service.ingress.call import Call
from service.ingress.pages import (
    checkout,
    escrow,
    milestone_checkout,
    milestone_escrow,
    milestone_step,
    step,
)
from service.ingress.route import is_entity_id
from service.store.milestones import is_milestone_escrow
from service.store.sessions import read_session


async def read_escrow(call: Call[None, None]) -> web.Response:
    """An escrow's page."""
    if await _is_of_milestones(call):
        return await milestone_escrow.read(call)
    return await escrow.read(call)


async def read_step(call: Call[None, None]) -> web.StreamResponse:
    """A step's page."""
    if await _is_of_milestones(call):
        return await milestone_step.read(call)
    return await step.read(call)


async def take_step(call: Call[None, None]) -> web.StreamResponse:
    """A step's form."""
    if await _is_of_milestones(call):
        return await milestone_step.take(call)
    return await step.take(call)


async def read_checkout(call: Call[None, None]) -> web.StreamResponse:
    """A session's page."""
    if await _is_promised_of_milestones(call):
        return await milestone_checkout.read(call)
    return await checkout.read(call)


async def take_checkout(call: Call[None, None]) -> web.StreamResponse:
    """A session's form."""
    if await _is_promised_of_milestones(call):
        return await milestone_checkout.take(call)
    return await checkout.take(call)


async def _is_of_milestones(call: Call[None, None]) -> bool:
    escrow_id = call.path["id"]
    return is_entity_id(escrow_id) and await is_milestone_escrow(call.house.pool, escrow_id)


async def _is_promised_of_milestones(call: Call[None, None]) -> bool:
    found = call.path["id"]
    session = await read_session(call.house.pool, UUID(found)) if is_uuid(found) else None
    return session is not None and session.of_milestones
