"""Payments at the door: what providers tell unasked, and the sandbox's operator.

Law: 200 is said after COMMIT only. A notification that is not the provider's is 400 and changes
nothing; of a payment that we do not know, 404, so that the provider's own log shows it.
"""

from collections.abc import Mapping

import structlog
from aiohttp import web

from service.commands import payments
from service.commands.payments import Heard
from service.commands.perform import Answer
from service.gateways.payments.provider import PaymentProvider
from service.ingress.bodies import read_body
from service.ingress.call import Call, Caller
from service.ingress.errors import PathUnknown
from service.ingress.route import Subject, is_entity_id
from service.rules.errors import NotificationRefused, PaymentNotFound
from service.rules.machine import SYSTEM, Actor, ActorKind
from service.rules.payment import Payment
from service.store.payments import read_payment
from service.wire.payments import Decision

PROVIDERS: web.AppKey[Mapping[str, PaymentProvider]] = web.AppKey("payment_providers")
NOTIFICATION_BYTES_MAX = 64 * 1024

log = structlog.get_logger()


async def notify(call: Call[None, None]) -> web.Response:
    """A provider's notification: read by the provider, taken to heart, then 200."""
    provider = call.request.app[PROVIDERS].get(call.path["provider"])
    if provider is None:
        raise PathUnknown
    body = await read_body(call.request, NOTIFICATION_BYTES_MAX)
    try:
        told = provider.read(call.request.headers, body)
    except NotificationRefused as refusal:
        log.warning("notification_refused", provider=provider.name, reason=str(refusal))
        raise
    if told is not None:
        heard = Heard(provider.name, told.payment_id, told.provider_reference, told.report)
        try:
            await payments.hear(call.house, SYSTEM, heard)
        except PaymentNotFound:
            log.error("notification_unknown", provider=provider.name, notification=told.event_id)  # noqa: TRY400 - a refusal, not a bug
            raise
    return web.Response(status=200)


async def decide(call: Call[Decision, None]) -> Answer:
    """The operator's word on a payment, in the sandbox."""
    operator = Actor(ActorKind.OPERATOR, ip=call.actor.ip, request_id=call.actor.request_id)
    command = payments.decide(call.subject.id, approves=call.body.approve)
    return await call.perform(command, operator)


def _anybody(_: Caller, __: Payment) -> bool:
    return True


ANY_PAYMENT = Subject(
    "id", is_entity_id, PaymentNotFound, read_payment, PaymentNotFound, _anybody, PaymentNotFound
)
