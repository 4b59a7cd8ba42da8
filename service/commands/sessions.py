"""Checkout sessions: a promise of one step to one e-mail, kept inside the step's transaction.

Law: the session is claimed under the escrow's lock and before its step, in one transaction: two
who finish it at once take the step once, and a refused step leaves the session as it was.
"""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID, uuid4

from service.commands.milestone_inputs import check_input
from service.commands.milestone_steps import lock as lock_milestones
from service.commands.milestones import as_seen
from service.commands.payments import Wish, begun, paid_at_once, proven
from service.commands.perform import Command
from service.commands.steps import lock, reread
from service.rules.aggregate import Escrow
from service.rules.checkout import choose_redirect
from service.rules.engagement import MilestoneEscrow
from service.rules.errors import SessionNotFound, SessionNotPending, UserNotRegistered
from service.rules.machine import Actor
from service.rules.milestone_session import HANGS_ON_TERMS, bound, check_action
from service.rules.money import to_minor
from service.rules.payment import ACCEPT_PAY, BY_HAND, Payment
from service.rules.session import (
    CANCELLED,
    COMPLETED,
    EXPIRED,
    MINUTES,
    PENDING,
    check,
)
from service.store.db import Reader, Transaction
from service.store.deadlines import Arming, Deadline, arm_deadlines, fire_deadlines
from service.store.developers import read_redirect_urls
from service.store.escrows import lock_escrows
from service.store.milestones import read_milestone_escrow
from service.store.sessions import (
    Session,
    end_session,
    insert_session,
    read_session,
)
from service.store.users import read_bound
from service.wire.base import OwnBody
from service.wire.escrows import Detail, detail
from service.wire.milestone_shapes import MilestoneEscrowShape
from service.wire.milestone_shapes import shape as milestone_shape
from service.wire.sessions import (
    NewMilestoneSession,
    NewSession,
    SessionCreated,
    SessionEnded,
    SessionPayment,
    SessionShape,
    kept,
)

SESSION = "session"
"""The kind of a session's deadline; its subject is the session's id."""


def create(developer_id: str, escrow_id: str, asked: NewSession) -> Command:
    """A session of 30 minutes for this e-mail.

    Raises:
        StepClash: redirect URL, mode, target or status stand against it, in this order.
    """

    async def command(tx: Transaction) -> SessionCreated:
        allowed = await read_redirect_urls(tx, developer_id)
        redirect_url = choose_redirect(asked.redirect_url, allowed)
        escrow = await lock(tx, escrow_id)
        check(asked.action, escrow, asked.target_user_email)
        return await _opened(tx, developer_id, escrow, asked, redirect_url)

    return command


def create_of_milestones(
    developer_id: str,
    escrow_id: str,
    asked: NewMilestoneSession,
    given: OwnBody | None = None,
) -> Command:
    """A session of 30 minutes for one step of a milestone escrow; its body may be `given` now.

    Raises:
        StepClash: redirect URL, target or status stand against it, in this order.
        InvalidPayload, OfMilestones: what the step itself has against the body.
    """

    async def command(tx: Transaction) -> SessionCreated:
        allowed = await read_redirect_urls(tx, developer_id)
        redirect_url = choose_redirect(asked.redirect_url, allowed)
        escrow = await lock_milestones(tx, escrow_id)
        await _check_action(tx, escrow, asked, given)
        brought = None if given is None else kept(given)
        is_bound = given is not None and asked.action in HANGS_ON_TERMS
        version = escrow.version if is_bound else None
        return await _opened(tx, developer_id, escrow, asked, redirect_url, brought, version)

    return command


async def _check_action(
    tx: Transaction, escrow: MilestoneEscrow, asked: NewMilestoneSession, given: OwnBody | None
) -> None:
    """Whether the person could take the step, as if they had registered; with this body."""
    email = asked.target_user_email
    user = await read_bound(tx, escrow.id, email)
    person = user.person if user and user.is_email_verified else None
    seen, actor = bound(escrow, email, person.id if person else None, tx.now)
    if given is None:
        check_action(seen, asked.action, actor, tx.now)
    else:
        await check_input(tx, seen, given, actor, person.email if person else email)


async def _opened(
    tx: Transaction,
    developer_id: str,
    escrow: Escrow | MilestoneEscrow,
    asked: NewSession | NewMilestoneSession,
    redirect_url: str,
    given: Mapping[str, Any] | None = None,
    terms_version: int | None = None,
) -> SessionCreated:
    session = Session(
        id=uuid4(),
        escrow_id=escrow.id,
        developer_id=developer_id,
        action=asked.action,
        email=asked.target_user_email,
        redirect_url=redirect_url,
        metadata=asked.metadata,
        status=PENDING,
        expires_at=tx.now + timedelta(minutes=MINUTES),
        completed_at=None,
        created_at=tx.now,
        of_milestones=isinstance(escrow, MilestoneEscrow),
        input=given,
        terms_version=terms_version,
    )
    await insert_session(tx, session)
    clock = Arming(escrow.id, SESSION, session.expires_at, escrow.seq, str(session.id))
    await arm_deadlines(tx, [clock])
    return SessionCreated.model_construct(
        session_id=str(session.id),
        url=f"{tx.policy.public_url}/checkout/{session.id}",
        expires_at=session.expires_at,
    )


async def bound_person(reader: Reader, session: Session, door: Actor) -> Actor:
    """The person to whom the session is bound, as an actor through this door.

    Raises:
        UserNotRegistered: nobody has registered with the session's e-mail, or by it.
    """
    user = await read_bound(reader, session.escrow_id, session.email)
    if user is None:
        raise UserNotRegistered
    return door.as_user(user.person.id)


def complete(session_id: UUID, taking: Command) -> Command:
    """The person takes the step that was promised; `taking` is the step's own command.

    Raises:
        SessionNotPending: it was spent, cancelled, or has expired.
        EscrowPropertiesMismatch: its input was given for other terms.
        Refused: as the step; the session stays pending.
    """

    async def command(tx: Transaction) -> SessionEnded:
        session = await _claim(tx, session_id, COMPLETED)
        seen = session.terms_version
        await (taking if seen is None else as_seen(session.escrow_id, seen, taking))(tx)
        return ended(session, await _standing(tx, session))

    return command


async def _standing(tx: Transaction, session: Session) -> Detail | MilestoneEscrowShape:
    """The session's escrow as it now is, of whichever family."""
    if not session.of_milestones:
        escrow = await reread(tx, session.escrow_id)
        return detail(escrow, tx.policy.ticket_prefix).escrow
    whole = await read_milestone_escrow(tx, session.escrow_id)
    if whole is None:
        raise AssertionError(f"the locked escrow {session.escrow_id} is gone")
    return milestone_shape(whole)


def pay_otherwise(
    session_id: UUID, provider: str, *, is_proven: bool = False, shown: Decimal | None = None
) -> Command:
    """The sandbox's card, or its bank transfer: with a proof it waits for the operator.

    Whoever has not registered pays as a guest.

    Raises:
        SessionNotPending: it was spent, cancelled, or has expired.
        Refused: as `payments.begin`.
    """

    async def command(tx: Transaction) -> SessionEnded:
        session = await read_session(tx, session_id)
        if session is None:
            raise SessionNotFound
        escrow = await lock(tx, session.escrow_id)
        wish = Wish(
            ACCEPT_PAY,
            provider,
            escrow.amount_ledger_minor,
            escrow.ledger_currency,
            tx.actor.user_id,
            escrow.id,
            session.id,
            None if tx.actor.user_id else session.email,
            None if shown is None else to_minor(shown, escrow.currency) or 0,
        )
        if provider in BY_HAND:
            payment = await begun(tx, wish)
            if is_proven:
                payment = await proven(tx, payment, escrow, None)
        else:
            payment = await paid_at_once(tx, wish)
        left = await read_session(tx, session_id) or session
        return ended(left, await _standing(tx, left), payment)

    return command


def turn_away(session_id: UUID) -> Command:
    """The person leaves without taking the step."""

    async def command(tx: Transaction) -> SessionEnded:
        return ended(await _claim(tx, session_id, CANCELLED))

    return command


async def _claim(tx: Transaction, session_id: UUID, status: str) -> Session:
    session = await read_session(tx, session_id)
    if session is None:
        raise SessionNotFound
    await lock(tx, session.escrow_id)
    claimed = await end_session(tx, session_id, status)
    if claimed is None:
        now = await read_session(tx, session_id)
        raise SessionNotPending(status=EXPIRED if now is None else now.status)
    return claimed


async def fire_sessions(
    tx: Transaction, due: Sequence[Deadline], *, skip_locked: bool = False
) -> list[Deadline]:
    """End the sessions whose time has come at `tx.now`; what was fired.

    Their escrows are locked first, as by whoever finishes or cancels them; with `skip_locked` the
    sessions of those that somebody else holds are left for later.
    """
    locked = await lock_escrows(tx, [one.escrow_id for one in due], skip_locked=skip_locked)
    free = {one.escrow.id for one in locked}
    fired = await fire_deadlines(tx, [one.id for one in due if one.escrow_id in free])
    for deadline in fired:
        await end_session(tx, UUID(deadline.subject), EXPIRED)
    return fired


def shape(session: Session) -> SessionShape:
    """The session as its developer sees it."""
    return SessionShape.model_construct(
        session_id=str(session.id),
        escrow_id=session.escrow_id,
        action=session.action,
        target_user_email=session.email,
        status=session.status,
        metadata=session.metadata,
        expires_at=session.expires_at,
        completed_at=session.completed_at,
        created_at=session.created_at,
    )


def ended(
    session: Session,
    escrow: Detail | MilestoneEscrowShape | None = None,
    payment: Payment | None = None,
) -> SessionEnded:
    """How the session ended, and the escrow after it; `payment` where one was begun outside."""
    paid = SessionPayment(id=payment.id, status=payment.state) if payment else None
    return SessionEnded.model_construct(session=shape(session), escrow=escrow, payment=paid)
