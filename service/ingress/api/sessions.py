"""Checkout sessions: made and read by a developer; in the sandbox finished without a browser."""

from collections.abc import Callable, Mapping
from typing import Any
from uuid import UUID

from service.commands import cancellations, contracts, disputes, escrows, sessions
from service.commands.amendments import update
from service.commands.contracts import TYPED, Mark
from service.commands.perform import Answer, Command
from service.ingress.api.escrows import changes_of
from service.ingress.bodies import as_model
from service.ingress.call import Call, Caller
from service.ingress.route import Subject
from service.rules.errors import Invalid, SessionNotFound
from service.store.db import Reader
from service.store.sessions import Session, read_session
from service.wire.base import Body
from service.wire.sessions import (
    NewSession,
    NothingInput,
    ReasonInput,
    SessionAnswer,
    SessionEnd,
    SignatureInput,
    UpdateInput,
    WalletPayment,
    WhyInput,
)


def _is_uuid(text: str) -> bool:
    try:
        return str(UUID(text)) == text
    except ValueError:
        return False


async def _read(reader: Reader, session_id: str) -> Session | None:
    return await read_session(reader, UUID(session_id))


def _is_its_developer(caller: Caller, session: Session) -> bool:
    return caller.developer_id == session.developer_id


def _anybody(_: Caller, __: Session) -> bool:
    return True


# Another developer's session is told from none at all by nothing.
SESSION = Subject(
    "id", _is_uuid, SessionNotFound, _read, SessionNotFound, _is_its_developer, SessionNotFound
)
ANY_SESSION = Subject(
    "id", _is_uuid, SessionNotFound, _read, SessionNotFound, _anybody, SessionNotFound
)


async def create(call: Call[NewSession, None]) -> Answer:
    """A hosted page for one step of one person."""
    return await call.perform(sessions.create(call.developer_id, call.subject.id, call.body))


async def read_one(call: Call[None, None]) -> SessionAnswer:
    """How the session stands."""
    return SessionAnswer.model_construct(session=sessions.shape(call.subject))


Taking = Callable[[str, Any], Command]
ACTS: Mapping[str, tuple[type[Body], Taking]] = {
    "update": (UpdateInput, lambda escrow_id, given: update(escrow_id, changes_of(given))),
    "sign_contract": (
        SignatureInput,
        lambda escrow_id, given: contracts.sign(escrow_id, Mark(TYPED, name=given.signature)),
    ),
    "accept_pay": (WalletPayment, lambda escrow_id, given: escrows.pay(escrow_id, given.amount)),
    "deliver": (NothingInput, lambda escrow_id, _: escrows.deliver(escrow_id)),
    "complete": (NothingInput, lambda escrow_id, _: escrows.complete(escrow_id)),
    "reject_delivery": (
        WhyInput,
        lambda escrow_id, given: escrows.reject_delivery(escrow_id, given.reason),
    ),
    "cancel": (NothingInput, lambda escrow_id, _: escrows.cancel(escrow_id)),
    "cancel_escrow": (NothingInput, lambda escrow_id, _: cancellations.cancel_paid(escrow_id)),
    "request_cancellation": (
        WhyInput,
        lambda escrow_id, given: cancellations.request(escrow_id, given.reason),
    ),
    "accept_cancellation": (NothingInput, lambda escrow_id, _: cancellations.accept(escrow_id)),
    "reject_cancellation": (NothingInput, lambda escrow_id, _: cancellations.reject(escrow_id)),
    "dispute": (
        ReasonInput,
        lambda escrow_id, given: disputes.open_dispute(escrow_id, given.reason),
    ),
    "withdraw_dispute": (NothingInput, lambda escrow_id, _: disputes.withdraw(escrow_id)),
}
"""A person's step: what they bring along, and the command. For pages and the sandbox alike."""


async def complete(call: Call[SessionEnd, None]) -> Answer:
    """Finish the session as the person to whom it is bound, through the page's own commands."""
    session = call.subject
    if session.action not in ACTS:
        raise Invalid({"input": f"{session.action} cannot be finished here yet"})
    brings, taking = ACTS[session.action]
    given = as_model(brings, call.body.input or {})
    person = await sessions.bound_person(call.house.pool, session, call.actor)
    command = sessions.complete(session.id, taking(session.escrow_id, given))
    return await call.perform(command, person)


async def turn_away(call: Call[None, None]) -> Answer:
    """The person leaves without taking the step."""
    return await call.perform(sessions.turn_away(call.subject.id))
