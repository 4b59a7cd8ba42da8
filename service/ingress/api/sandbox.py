"""The sandbox's helpers: the same commands as the real doors, without the waiting. operations.md 6.

Mounted only where AMANA_ENV is sandbox; any valid sandbox key may use them.
"""

from datetime import UTC, datetime, timedelta
from decimal import Decimal
from uuid import UUID

from service.commands import (
    developers,
    disputes,
    escrows,
    proofs,
    rates,
    users,
    wallets,
)
from service.commands.deadlines import advance, holding_clock, move
from service.commands.perform import Answer, Command, perform, replay
from service.commands.registration import follow_link
from service.ingress.api import milestones
from service.ingress.api.escrows import ESCROW
from service.ingress.api.sessions import ACTS, acted
from service.ingress.call import Call, Caller
from service.ingress.route import Subject
from service.rules.aggregate import Escrow
from service.rules.dispute import Split
from service.rules.errors import EscrowNotFound, Invalid, InvalidEscrowId, UserNotFound
from service.rules.machine import Actor, ActorKind
from service.rules.money import EXPONENTS, to_minor
from service.store.clock import read_clock
from service.store.db import Reader, Transaction
from service.store.escrows import read_escrow
from service.store.ledger import read_balance
from service.store.users import User, read_user
from service.wire.account import BalanceAnswer, BalanceQuery, balance
from service.wire.base import Wire
from service.wire.escrows import detail
from service.wire.sandbox import (
    Act,
    Advance,
    AdvanceAnswer,
    AssociationAnswer,
    ByEmail,
    ClockAnswer,
    DeveloperAnswer,
    FiredDeadline,
    NewDeveloper,
    NewRate,
    NewUser,
    ProofDecision,
    RateAnswer,
    Registration,
    RegistrationAnswer,
    Resolution,
    TopUp,
    UserAnswer,
    user_shape,
)
from service.wire.text import an_email

# Deadlines are armed up to ten years ahead, ids carry 48 bits of milliseconds: far below both ends.
CLOCK_CEILING = datetime(2200, 1, 1, tzinfo=UTC)


async def make_developer(call: Call[NewDeveloper, None]) -> Answer:
    """Another developer with a key of its own."""
    body = call.body

    async def command(tx: Transaction) -> Wire:
        made = await developers.enrol(
            tx,
            body.email,
            body.company,
            user_email=body.user_email,
            redirect_urls=body.redirect_urls,
        )
        return DeveloperAnswer(
            developer_id=made.developer_id, api_key=made.api_key, user_id=made.user_id
        )

    return await perform(
        call.house,
        call.actor,
        command,
        status=call.status,
        idempotency=call.idempotency,
        shows_secret=True,
    )


async def make_user(call: Call[NewUser, None]) -> Answer:
    """A user; linked to what waits for the e-mail."""
    body = call.body

    async def command(tx: Transaction) -> Wire:
        user = await users.register(
            tx,
            body.email,
            body.first_name,
            body.last_name,
            is_email_verified=body.email_verified,
            is_phone_verified=body.phone_verified,
            language=body.language,
        )
        return UserAnswer(user=user_shape(user.person))

    return await perform(
        call.house, call.actor, command, status=call.status, idempotency=call.idempotency
    )


async def top_up(call: Call[TopUp, None]) -> Answer:
    """Credit a wallet from the sandbox's provider."""
    amount, currency = call.body.amount, call.body.currency
    email = call.subject.person.email
    minor = to_minor(amount, currency)
    if minor is None:
        places = EXPONENTS[currency]
        raise Invalid({"amount": f"must have at most {places} decimals in {currency}"})

    async def command(tx: Transaction) -> Wire:
        after = await wallets.top_up(tx, email, minor, currency)
        return balance(after.available, after.pending, after.escrow, currency)

    return await perform(call.house, call.actor, command, idempotency=call.idempotency)


async def read_wallet(call: Call[None, BalanceQuery]) -> BalanceAnswer:
    """Anybody's wallet."""
    currency = call.query.currency
    found = await read_balance(call.house.pool, call.subject.person.id, currency)
    return balance(found.available, found.pending, found.escrow, currency)


async def associate(call: Call[ByEmail, None]) -> Answer:
    """The calling developer acts as this user."""

    async def command(tx: Transaction) -> Wire:
        user_id = await developers.associate(tx, call.developer_id, call.body.email)
        return AssociationAnswer(user_id=user_id)

    return await perform(call.house, call.actor, command, idempotency=call.idempotency)


async def dissociate(call: Call[None, None]) -> Answer:
    """The calling developer acts as nobody."""

    async def command(tx: Transaction) -> Wire:
        await developers.dissociate(tx, call.developer_id)
        return AssociationAnswer(user_id=None)

    return await perform(call.house, call.actor, command)


async def pay(call: Call[ByEmail, None]) -> Answer:
    """accept_pay from this user's wallet: the same command as the checkout page's."""
    payer = await users.registered(call.house.pool, call.body.email)
    return await call.perform(escrows.pay(call.subject.id), call.actor.as_user(payer.person.id))


async def act(call: Call[Act, None]) -> Answer:
    """Any step of the table as this person."""
    if call.body.step not in ACTS:
        raise Invalid({"step": f"must be one of {', '.join(ACTS)}"})
    taking = await acted(call.request, call.body.step, call.body.input or {})
    person = (await users.registered(call.house.pool, call.body.email)).person
    command = shown(call.subject.id, taking(call.subject.id))
    return await call.perform(command, call.actor.as_user(person.id))


async def act_on_milestones(call: Call[Act, None]) -> Answer:
    """Any step of a milestone escrow as this person."""
    if call.body.step not in milestones.ACTS:
        raise Invalid({"step": f"must be one of {', '.join(milestones.ACTS)}"})
    command = milestones.acted(call.subject.id, call.body.step, call.body.input or {})
    person = (await users.registered(call.house.pool, call.body.email)).person
    return await call.perform(command, call.actor.as_user(person.id))


def shown(escrow_id: str, taking: Command) -> Command:
    """The command, answering with the escrow as it then stands."""

    async def command(tx: Transaction) -> Wire:
        await taking(tx)
        escrow = await read_escrow(tx, escrow_id)
        if escrow is None:
            raise EscrowNotFound
        return detail(escrow, tx.policy.ticket_prefix)

    return command


async def resolve_dispute(call: Call[Resolution, None]) -> Answer:
    """The operator settles a dispute."""
    body, currency = call.body, call.subject.ledger_currency
    amounts = (body.seller_amount, body.buyer_amount)
    if (body.to is None) == (amounts == (None, None)) or (None in amounts) != (body.to is not None):
        raise Invalid({"to": "give either to, or sellerAmount and buyerAmount"})
    split = None
    if body.to is None:
        minors = [to_minor(Decimal(amount or 0), currency) for amount in amounts]
        if None in minors:
            places = EXPONENTS[currency]
            raise Invalid({"sellerAmount": f"must have at most {places} decimals in {currency}"})
        split = Split(*(minor or 0 for minor in minors))
    operator = Actor(ActorKind.OPERATOR, ip=call.actor.ip, request_id=call.actor.request_id)
    return await call.perform(disputes.resolve(call.subject.id, body.to, split), operator)


async def decide_proof(call: Call[ProofDecision, None]) -> Answer:
    """The operator decides a purchase proof."""
    operator = Actor(ActorKind.OPERATOR, ip=call.actor.ip, request_id=call.actor.request_id)
    return await call.perform(proofs.decide(call.subject.id, accepts=call.body.accept), operator)


async def register(call: Call[Registration, None]) -> Answer:
    """Follow an invitation's link."""
    body = call.body

    async def command(tx: Transaction) -> Wire:
        person, linked = await follow_link(
            tx, body.token, body.first_name, body.last_name, email=body.email
        )
        return RegistrationAnswer(user=user_shape(person), escrows=linked)

    return await perform(
        call.house, call.actor, command, status=call.status, idempotency=call.idempotency
    )


async def read_time(call: Call[None, None]) -> ClockAnswer:
    """The deployment's business time."""
    return ClockAnswer(now=(await read_clock(call.house.pool)).now)


async def advance_clock(call: Call[Advance, None]) -> Answer:
    """Move the clock forward; what falls due on the way fires in due order."""
    async with holding_clock(call.house) as holder:
        # A request with the same key may have held the clock until just now.
        stored = await replay(call.house, call.idempotency) if call.idempotency else None
        return stored or await _advance(call, holder)


async def _advance(call: Call[Advance, None], holder: UUID) -> Answer:
    to = _target(call.body, (await read_clock(call.house.pool)).now)
    fired = await advance(call.house, holder, to)

    async def command(tx: Transaction) -> Wire:
        await move(holder, to)(tx)
        shown = [
            FiredDeadline(escrow_id=one.escrow_id, kind=one.kind, due_at=one.due_at)
            for one in fired
        ]
        return AdvanceAnswer(now=(await read_clock(tx)).now, fired=shown)

    return await perform(call.house, call.actor, command, idempotency=call.idempotency)


def _target(body: Advance, now: datetime) -> datetime:
    if (body.seconds is None) == (body.to is None):
        raise Invalid({"seconds": "give either seconds or to"})
    latest = CLOCK_CEILING
    if body.to is None:
        ahead = timedelta(seconds=body.seconds or 0)
        if ahead > latest - now:
            raise Invalid({"seconds": f"must not lead beyond {latest.year}"})
        return now + ahead
    try:
        to = datetime.fromisoformat(body.to)
    except ValueError:
        raise Invalid({"to": "must be an ISO 8601 instant"}) from None
    if to.tzinfo is None:
        raise Invalid({"to": "must be an ISO 8601 instant with its offset"})
    if not now <= to <= latest:
        raise Invalid({"to": f"must lie in the future, and not beyond {latest.year}"})
    return to


async def set_rate(call: Call[NewRate, None]) -> Answer:
    """The rate that new escrows lock from now on."""

    async def command(tx: Transaction) -> Wire:
        await rates.set_rate(tx, call.body.currency, call.body.rate, "sandbox")
        return RateAnswer(currency=call.body.currency, rate=Decimal(call.body.rate))

    return await perform(call.house, call.actor, command, idempotency=call.idempotency)


async def _read_user(reader: Reader, email: str) -> User | None:
    try:
        return await read_user(reader, an_email(email))
    except ValueError:
        return None


def _anybody(_: Caller, __: User) -> bool:
    return True


def _anyone(_: Caller, __: Escrow) -> bool:
    return True


USER = Subject(
    "email", lambda _: True, UserNotFound, _read_user, UserNotFound, _anybody, UserNotFound
)
ANY_ESCROW = Subject(
    "id", ESCROW.is_written, InvalidEscrowId, ESCROW.read, EscrowNotFound, _anyone, EscrowNotFound
)
