"""The clock's door to the write path: `fire_due` serves the sweep and the sandbox's clock alike.

Batches share a transaction: the escrows are locked in id order, those that somebody else holds
are passed over and met again. Should a batch fail, its members are tried one by one, so that one
bad escrow holds nobody up.
"""

from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

import structlog

from service.commands.invitations import REMINDER, fire_reminders
from service.commands.perform import House, perform, tend
from service.commands.steps import fire_due_of
from service.rules.errors import ClockAdvancing, Unavailable
from service.rules.machine import CLOCK
from service.store.clock import lease_clock, read_clock, shift_clock
from service.store.db import Transaction
from service.store.deadlines import Deadline, read_due
from service.wire.base import Wire

BATCH = 100
LEASE = timedelta(seconds=30)

log = structlog.get_logger()


class Fired(Wire):
    """How many deadlines a batch has fired."""

    count: int


@dataclass(slots=True)
class Sweep:
    """What one sweep has done; escrows whose step failed are passed over until the next one."""

    fired: list[Deadline] = field(default_factory=list)
    passed_over: list[str] = field(default_factory=list)


async def sweep(house: House, *, limit: int = BATCH * 50) -> Sweep:
    """Fire what is due by the present clock, at most `limit` deadlines.

    Stands aside while the sandbox's clock is being advanced.
    """
    done = Sweep()
    while len(done.fired) < limit:
        clock = await read_clock(house.pool)
        if clock.is_advancing:
            break
        due = await read_due(house.pool, clock.now, BATCH, done.passed_over)
        if not due:
            break
        before = len(done.fired) + len(done.passed_over)
        await _fire_batch(house, due, done, now=None)
        if len(done.fired) + len(done.passed_over) == before:
            break  # all of them are held by somebody else
    return done


async def advance(house: House, to: datetime) -> list[Deadline]:
    """Move the sandbox's clock forward to `to`; every deadline on the way fires at its own time.

    Raises:
        ClockAdvancing: another call is at it.
    """
    done = Sweep()
    if not await tend(house, lambda tx: lease_clock(tx, to, LEASE)):
        raise ClockAdvancing
    while due := await read_due(house.pool, to, 1, done.passed_over):
        await _fire_batch(house, due, done, now=due[0].due_at)
        if not await tend(house, lambda tx: lease_clock(tx, to, LEASE)):
            raise ClockAdvancing
    await tend(house, lambda tx: shift_clock(tx, to, done=True))
    house.bell.ring(["webhooks", "mails"])
    return done.fired


async def _fire_batch(
    house: House, due: Sequence[Deadline], done: Sweep, *, now: datetime | None
) -> None:
    escrows = sorted({d.escrow_id for d in due if d.kind != REMINDER})
    reminders = [d.id for d in due if d.kind == REMINDER]
    try:
        if escrows:
            done.fired += await _fired(house, _steps(escrows, waits=now is not None), now)
        if reminders:
            done.fired += await _fired(house, _reminders(reminders), now)
    except Unavailable:
        raise
    except Exception:
        if len(due) == 1:
            log.exception("deadline_failed", escrow_id=due[0].escrow_id, kind=due[0].kind)
            done.passed_over.append(due[0].escrow_id)
            return
        for one in due:
            await _fire_batch(house, [one], done, now=now)


Firing = Callable[[Transaction], Awaitable[list[Deadline]]]


def _steps(escrow_ids: Sequence[str], *, waits: bool) -> Firing:
    """A sweep waits for nobody's lock; the sandbox's clock does, to keep the order."""
    return lambda tx: fire_due_of(tx, escrow_ids, skip_locked=not waits)


def _reminders(ids: Sequence[int]) -> Firing:
    return lambda tx: fire_reminders(tx, ids)


async def _fired(house: House, firing: Firing, now: datetime | None) -> list[Deadline]:
    """Carry the firing out as the clock; what it fired."""
    fired: list[Deadline] = []

    async def command(tx: Transaction) -> Fired:
        fired[:] = await firing(tx)
        return Fired(count=len(fired))

    await perform(house, CLOCK, command, now=now)
    return fired
