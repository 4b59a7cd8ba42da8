"""The clock's door to the write path: `fire_due` serves the sweep and the sandbox's clock alike.

Batches share a transaction: the escrows are locked in id order, those that somebody else holds
are passed over and met again. Should a batch fail, its members are tried one by one, so that one
bad escrow holds nobody up.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from uuid import UUID, uuid4

import structlog

from service.commands.invitations import REMINDER, fire_reminders
from service.commands.perform import House, perform, tend
from service.commands.sessions import SESSION, fire_sessions
from service.commands.steps import fire_due_of
from service.rules.clocks import KINDS
from service.rules.engagement import RESOLVER
from service.rules.errors import ClockAdvancing, Unavailable
from service.rules.machine import CLOCK
from service.store.clock import lease_clock, move_clock, read_clock, release_clock
from service.store.db import Transaction
from service.store.deadlines import Deadline, read_due
from service.wire.base import Wire

BATCH = 100
LANES = 3
"""Batches of a sweep that are under way at once: one is thought over while others are written."""
LEASE = timedelta(seconds=30)
OF_STEPS = KINDS | {RESOLVER}
"""The kinds at whose end a step of an escrow's table is taken, of either family."""

log = structlog.get_logger()


class Fired(Wire):
    """How many deadlines a batch has fired."""

    count: int


@dataclass(slots=True)
class Sweep:
    """What one sweep has done.

    `passed_over` are the ids of deadlines that this sweep does not look at again: somebody else
    holds their escrow, or they are among the `failed`.
    """

    fired: list[Deadline] = field(default_factory=list)
    passed_over: set[int] = field(default_factory=set)
    failed: list[Deadline] = field(default_factory=list)


async def sweep(
    house: House, *, limit: int = BATCH * 50, passing_over: Collection[int] = ()
) -> Sweep:
    """Fire what is due by the present clock, at most `limit` deadlines.

    Stands aside while the sandbox's clock is being advanced.
    """
    done = Sweep(passed_over=set(passing_over))
    while len(done.fired) < limit:
        clock = await read_clock(house.pool)
        if clock.is_advancing:
            break
        most = min(BATCH * LANES, limit - len(done.fired))
        due = await read_due(house.pool, clock.now, most, done.passed_over)
        if not due:
            break
        firing = (_fire_batch(house, part, done, now=None) for part in _shared_out(due))
        for failure in await asyncio.gather(*firing, return_exceptions=True):
            if failure is not None:
                raise failure
    return done


def _shared_out(due: Sequence[Deadline]) -> list[list[Deadline]]:
    """A part for each lane, in due order; what belongs to one escrow stays together."""
    lane_of: dict[str, int] = {}
    parts: list[list[Deadline]] = [[] for _ in range(LANES)]
    for one in due:
        parts[lane_of.setdefault(one.escrow_id, len(lane_of) % LANES)].append(one)
    return [part for part in parts if part]


Finish = Callable[[Transaction], Awaitable[None]]


@asynccontextmanager
async def holding_clock(house: House) -> AsyncIterator[UUID]:
    """Hold the sandbox's clock for as long as the block: nobody else moves it, no sweep runs.

    What the block reads of the clock stays true until it moves it itself.

    Raises:
        ClockAdvancing: another call is at it.
    """
    holder = uuid4()
    if not await tend(house, lambda tx: lease_clock(tx, holder, LEASE)):
        raise ClockAdvancing
    try:
        yield holder
    finally:
        with suppress(Unavailable):  # the lease lapses by itself then
            await tend(house, lambda tx: release_clock(tx, holder))


async def advance(house: House, holder: UUID, to: datetime) -> list[Deadline]:
    """Fire every deadline up to `to`, each at its own time, and move the clock along; what fired.

    The last move, `move(holder, to)`, is left to the caller's own transaction. Should this die
    half-way, the clock stands at the last deadline that it fired.
    """
    done = Sweep()
    while due := await read_due(house.pool, to, 1, done.passed_over):
        await _fire_batch(house, due, done, now=due[0].due_at)
        await tend(house, move(holder, due[0].due_at))
    return done.fired


def move(holder: UUID, to: datetime) -> Finish:
    """Business time is at least `to` once this is done; ClockAdvancing without the lease."""

    async def move(tx: Transaction) -> None:
        if not await move_clock(tx, holder, to, LEASE):
            raise ClockAdvancing

    return move


async def _fire_batch(
    house: House, due: Sequence[Deadline], done: Sweep, *, now: datetime | None
) -> None:
    """Fire what can be fired; the rest is passed over, so that a sweep comes to its end."""
    try:
        fired = await _fired_of(house, due, now)
    except Unavailable:
        raise
    except Exception:
        if len(due) > 1:
            for one in due:
                await _fire_batch(house, [one], done, now=now)
            return
        log.exception("deadline_failed", escrow_id=due[0].escrow_id, kind=due[0].kind)
        done.failed += due
        done.passed_over.add(due[0].id)
        return
    done.fired += fired
    moved = {one.escrow_id for one in fired}
    done.passed_over |= {one.id for one in due if one.escrow_id not in moved}


async def _fired_of(house: House, due: Sequence[Deadline], now: datetime | None) -> list[Deadline]:
    """Each kind by its own way; an unknown one is a failure, not something to be met for ever."""
    unknown = {one.kind for one in due} - {REMINDER, SESSION, *OF_STEPS}
    if unknown:
        raise AssertionError(f"nobody fires deadlines of the kind {', '.join(sorted(unknown))}")
    escrows = sorted({one.escrow_id for one in due if one.kind in OF_STEPS})
    reminders = [one.id for one in due if one.kind == REMINDER]
    sessions = [one for one in due if one.kind == SESSION]
    fired: list[Deadline] = []
    if escrows:
        fired += await _fired(house, _steps(escrows, waits=now is not None), now)
    if reminders:
        fired += await _fired(house, _reminders(reminders), now)
    if sessions:
        fired += await _fired(house, _sessions(sessions, waits=now is not None), now)
    return fired


Firing = Callable[[Transaction], Awaitable[list[Deadline]]]


def _steps(escrow_ids: Sequence[str], *, waits: bool) -> Firing:
    """A sweep waits for nobody's lock; the sandbox's clock does, to keep the order."""
    return lambda tx: fire_due_of(tx, escrow_ids, skip_locked=not waits)


def _reminders(ids: Sequence[int]) -> Firing:
    return lambda tx: fire_reminders(tx, ids)


def _sessions(due: Sequence[Deadline], *, waits: bool) -> Firing:
    return lambda tx: fire_sessions(tx, due, skip_locked=not waits)


async def _fired(house: House, firing: Firing, now: datetime | None) -> list[Deadline]:
    """Carry the firing out as the clock; what it fired."""
    fired: list[Deadline] = []

    async def command(tx: Transaction) -> Fired:
        fired[:] = await firing(tx)
        return Fired(count=len(fired))

    await perform(house, CLOCK, command, now=now)
    return fired
