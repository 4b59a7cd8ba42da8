"""The one write path. `perform` for what changes an escrow or moves money, `tend` for upkeep.

One transaction, one reading of the clock, one answer per idempotency key, at most 3 tries when
the database reports a clash. Claim, then pay: a command locks, chooses its row of the table,
moves the state, posts the money, tells. Nothing else begins a transaction (a test holds it).
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import partial
from typing import Any, TypeVar

import structlog

from service.commands.due import DeadlineDue
from service.commands.gathering import Gathering
from service.commands.steps import fire_all_due_of
from service.gateways.bell import Bell
from service.rules.errors import (
    Busy,
    IdempotencyInFlight,
    IdempotencyKeyReused,
    Refused,
    Unavailable,
)
from service.rules.machine import CLOCK, SYSTEM, Actor
from service.rules.policy import Policy
from service.store.clock import open_transaction
from service.store.db import Clash, Pool, Reader, Transaction
from service.store.deadlines import read_open
from service.store.idempotency import Stored, insert_answer, read_answer
from service.store.vault import Vault
from service.wire.base import Wire, dump_json
from service.wire.next import Open, rehearsal

TRIES = 3
DUE_ROUNDS = 5
"""All that is due is fired at once: a second round is for what has come due meanwhile."""
ALONE_AT_ONCE = 3
KEPT = timedelta(days=30)
KEPT_SEALED = timedelta(hours=24)

T = TypeVar("T")
OrderT = TypeVar("OrderT")
GroupCommand = Callable[[Transaction, Sequence[OrderT]], Awaitable[Sequence[Wire | Refused]]]
Command = Callable[[Transaction], Awaitable[Wire]]

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class House:
    """What a door needs to have something done."""

    pool: Pool
    policy: Policy
    vault: Vault
    bell: Bell
    gatherings: dict[GroupCommand[Any], Gathering[Any, bytes]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )


@dataclass(frozen=True, slots=True)
class Idempotency:
    """The caller's key, whose it is (a developer or a user), and SHA-256 over what was sent."""

    caller_id: str
    key: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Answer:
    """The exact bytes of an answer; `replayed` when they were stored before."""

    status: int
    body: bytes
    replayed: bool = False


async def perform(
    house: House,
    actor: Actor,
    command: Command,
    *,
    status: int | Callable[[Wire], int] = 200,
    idempotency: Idempotency | None = None,
    shows_secret: bool = False,
    now: datetime | None = None,
) -> Answer:
    """Carry the command out once and answer with its bytes.

    Deadlines that are due on the locked escrow are committed first, as the clock's steps; a refusal
    of the person's step never undoes them. `now` is given by the sandbox's clock only. `status` may
    depend on what the command answers.

    Raises:
        Refused: the rules say no; nothing was changed by this command.
        Unavailable: the database is away; nothing was changed.
    """
    rounds = 0
    while True:
        try:
            answer, rings = await _tried(
                lambda: _once(
                    house, actor, command, status, idempotency, now, shows_secret=shows_secret
                )
            )
        except DeadlineDue as due:
            rounds += 1
            if rounds > DUE_ROUNDS:
                raise AssertionError(f"escrow {due.escrow_id} has a due step that stays") from due
            await fire(house, due.escrow_id)
        else:
            house.bell.ring(rings)
            return answer


async def rehearse(house: House, actor: Actor, command: Command, status: int) -> Answer:
    """What `perform` would do, due deadlines first: the same code, and then it is rolled back.

    Raises: as `perform`.
    """
    return await _tried(lambda: _rehearsed(house, actor, command, status))


class _Undone(Exception):
    """Nothing of a rehearsal stays."""


async def _rehearsed(house: House, actor: Actor, command: Command, status: int) -> Answer:
    try:
        async with house.pool.begin(actor, house.policy, house.vault) as tx:
            await _open(tx, None, None)
            given = await _through_due(tx, command)
            subject = tx.taken[-1].after.id if tx.taken else ""
            deadlines = [
                Open(d.kind, d.due_at, d.remaining, d.subject) for d in await read_open(tx, subject)
            ]
            told = dump_json(rehearsal(status, given, tx.taken, deadlines))
            raise _Undone
    except _Undone:
        return Answer(200, told)


async def _through_due(tx: Transaction, command: Command) -> Wire:
    """The command, after the clock's steps that come before it, all in this transaction."""
    actor = tx.actor
    for _ in range(DUE_ROUNDS):
        try:
            return await command(tx)
        except DeadlineDue as due:
            tx.actor = CLOCK
            await fire_all_due_of(tx, due.escrow_id)
            tx.actor = actor
    return await command(tx)


async def _tried(work: Callable[[], Awaitable[T]]) -> T:
    """What the work gives, tried again where the database reports a clash, TRIES times in all."""
    for _ in range(TRIES - 1):
        try:
            return await work()
        except Clash:
            continue
    try:
        return await work()
    except Clash as clash:
        raise Busy(f"in the way of others {TRIES} times: {clash}") from clash


async def perform_grouped(
    house: House, command: GroupCommand[OrderT], order: OrderT, *, status: int
) -> Answer:
    """Carry the order out in one transaction with those that came at the same time.

    For commands on aggregates that nobody else knows yet, without an idempotency key. Each order
    is answered or refused by itself; should the transaction fail, each is tried alone.

    Raises: as `perform`.
    """
    gathering = house.gatherings.get(command)
    if gathering is None:
        gathering = house.gatherings[command] = Gathering(partial(_together, house, command))
    return Answer(status, await gathering.ask(order))


async def _together(
    house: House, command: GroupCommand[OrderT], orders: Sequence[OrderT]
) -> Sequence[bytes | Exception]:
    try:
        given, rings = await _group(house, command, orders)
    except Exception as failure:
        # Lost on the way, it may have been committed: then nobody is tried again.
        if isinstance(failure, Unavailable) and not isinstance(failure, Busy):
            raise
        log.info("group_failed", count=len(orders), reason=type(failure).__name__)
    else:
        house.bell.ring(rings)
        return given
    # One may be in the way of all: each alone then, a few at a time.
    few = asyncio.Semaphore(ALONE_AT_ONCE)
    return await asyncio.gather(*(_alone(house, command, order, few) for order in orders))


async def _alone(
    house: House, command: GroupCommand[OrderT], order: OrderT, few: asyncio.Semaphore
) -> bytes | Exception:
    try:
        async with few:
            [given], rings = await _tried(lambda: _group(house, command, [order]))
    except Exception as failure:  # noqa: BLE001 - it is raised at whoever ordered
        return failure
    house.bell.ring(rings)
    return given


async def _group(
    house: House, command: GroupCommand[OrderT], orders: Sequence[OrderT]
) -> tuple[Sequence[bytes | Exception], set[str]]:
    async with house.pool.begin(SYSTEM, house.policy, house.vault) as tx:
        await _open(tx, None, None)
        answers = await command(tx, orders)
        given = [one if isinstance(one, Refused) else dump_json(one) for one in answers]
    return given, tx.rings


async def _once(
    house: House,
    actor: Actor,
    command: Command,
    status: int | Callable[[Wire], int],
    idempotency: Idempotency | None,
    now: datetime | None,
    *,
    shows_secret: bool,
) -> tuple[Answer, set[str]]:
    async with house.pool.begin(actor, house.policy, house.vault) as tx:
        stored = await _open(tx, idempotency, now)
        if stored is not None:
            return stored, set()
        told = await command(tx)
        answer = Answer(status(told) if callable(status) else status, dump_json(told))
        if idempotency is not None:
            await _remember(tx, idempotency, answer, shows_secret=shows_secret)
    return answer, tx.rings


async def _open(tx: Transaction, asked: Idempotency | None, now: datetime | None) -> Answer | None:
    """Reads the clock; the stored answer where this key has one."""
    if now is not None:
        tx.hold_clock(now)
    if asked is None:
        await open_transaction(tx, None, None)
        return None
    if not await open_transaction(tx, asked.caller_id, asked.key):
        raise IdempotencyInFlight
    return await _stored(tx, tx.vault, asked)


async def replay(house: House, asked: Idempotency) -> Answer | None:
    """The answer that this key has already, for a door that asks before it looks at the body.

    A hint that saves work and keeps the order of checks: `perform` decides, under the key's lock.

    Raises:
        IdempotencyKeyReused: the key was used for another request.
    """
    return await _stored(house.pool, house.vault, asked)


async def _stored(reader: Reader, vault: Vault, asked: Idempotency) -> Answer | None:
    stored = await read_answer(reader, asked.caller_id, asked.key)
    if stored is None:
        return None
    if stored.fingerprint != asked.fingerprint:
        raise IdempotencyKeyReused
    body = vault.open(stored.body).encode() if stored.is_sealed else stored.body
    return Answer(stored.status, body, replayed=True)


async def _remember(
    tx: Transaction, asked: Idempotency, answer: Answer, *, shows_secret: bool
) -> None:
    body = tx.vault.seal(answer.body.decode()) if shows_secret else answer.body
    stored = Stored(asked.fingerprint, answer.status, body, shows_secret)
    kept = KEPT_SEALED if shows_secret else KEPT
    await insert_answer(tx, asked.caller_id, asked.key, stored, tx.real_now + kept)


async def fire(house: House, escrow_id: str) -> None:
    """Commit the steps of all deadlines that are due on this escrow, by the clock."""
    house.bell.ring(await _tried(lambda: _fire_once(house, escrow_id)))


async def _fire_once(house: House, escrow_id: str) -> set[str]:
    async with house.pool.begin(CLOCK, house.policy, house.vault) as tx:
        await _open(tx, None, None)
        await fire_all_due_of(tx, escrow_id)
    return tx.rings


async def tend(
    house: House, upkeep: Callable[[Transaction], Awaitable[T]], actor: Actor = SYSTEM
) -> T:
    """One transaction of upkeep: it moves no money and no escrow's state."""
    return await _tried(lambda: _tend_once(house, upkeep, actor))


async def _tend_once(
    house: House, upkeep: Callable[[Transaction], Awaitable[T]], actor: Actor
) -> T:
    async with house.pool.begin(actor, house.policy, house.vault) as tx:
        await _open(tx, None, None)
        done = await upkeep(tx)
    house.bell.ring(tx.rings)
    return done
