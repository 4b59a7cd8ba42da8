"""Recoveries: a developer's wish that a worker fulfils, chunk by chunk.

Law: the row is the job. A chunk is one transaction; what it moves and how far it came are written
together, so that a crash loses nothing and repeats nothing.
"""

from datetime import datetime
from uuid import UUID

from service.commands.attempts import lock_active
from service.commands.perform import Command
from service.rules.errors import RecoveryUnderWay, WebhookRefused
from service.store import attempts, endpoints, recoveries
from service.store.db import Transaction
from service.store.events import Entry, append_events
from service.store.ids import event_id
from service.store.recoveries import Recovery
from service.wire import deliveries as wire
from service.wire.deliveries import RecoveryAnswer

CHUNK = 500
"""So many deliveries are written in one transaction, under the endpoint's lock."""
DONE, RUNNING, CANCELLED = "done", "running", "cancelled"
FUTURE = "since must be in the past"


def recover(
    developer_id: str, endpoint_id: str, since: datetime, until: datetime | None
) -> Command:
    """What the endpoint has missed of the events since then is put on its way, in the background.

    `since` and `until` (now, if none is given) are real time. What waits for its next attempt
    has it now; what was delivered is left alone, and so is what is being sent.

    Raises:
        WebhookNotFound: the developer has no such endpoint.
        EndpointDisabled: nothing is sent there.
        WebhookRefused: the window has not begun yet.
        RecoveryUnderWay: another one of this endpoint has not ended.
    """

    async def command(tx: Transaction) -> RecoveryAnswer:
        await lock_active(tx, developer_id, endpoint_id)
        end = min(until or tx.real_now, tx.real_now)
        if since >= end:
            raise WebhookRefused(reason=FUTURE)
        if await recoveries.has_open(tx, endpoint_id):
            raise RecoveryUnderWay
        made = await recoveries.insert_recovery(tx, event_id(tx.real_now), endpoint_id, since, end)
        await _note(tx, endpoint_id)
        tx.ring("recoveries")
        return RecoveryAnswer(recovery=shape(made))

    return command


def shape(recovery: Recovery) -> wire.Recovery:
    """The recovery as its developer sees it."""
    return wire.Recovery(
        id=str(recovery.id),
        state=recovery.state,
        count=recovery.count,
        recovered=recovery.recovered,
        since=recovery.since,
        until=recovery.until,
        created_at=recovery.created_at,
        finished_at=recovery.finished_at,
    )


async def run_chunk(tx: Transaction) -> bool:
    """One chunk of the recovery that has waited longest; False: none is under way."""
    recovery = await recoveries.lock_recovery(tx)
    if recovery is None:
        return False
    missing = await recoveries.look_for_missing(tx, recovery) if recovery.is_missing else None
    endpoint = await endpoints.lock_endpoint(tx, recovery.endpoint_id)
    if endpoint is None or not endpoint.is_active:
        await _move(tx, recovery, CANCELLED, recovery.recovered, recovery.after_event)
        return True
    if missing is not None:
        chunk = await recoveries.deliver_missing(tx, recovery, missing, CHUNK)
    else:
        chunk = await recoveries.resend_failed(tx, recovery, CHUNK)
    if chunk.sent:
        await attempts.hurry_lane(tx, recovery.endpoint_id)
        tx.ring("webhooks")
    is_over = chunk.last is None
    await _move(
        tx,
        recovery,
        DONE if is_over and recovery.is_missing else RUNNING,
        recovery.recovered + chunk.sent,
        chunk.last,
        is_missing=recovery.is_missing or is_over,
    )
    return True


async def _move(
    tx: Transaction,
    recovery: Recovery,
    state: str,
    recovered: int,
    after_event: UUID | None,
    *,
    is_missing: bool | None = None,
) -> None:
    await recoveries.move_recovery(
        tx,
        recovery,
        state=state,
        is_missing=recovery.is_missing if is_missing is None else is_missing,
        after_event=after_event,
        recovered=recovered,
    )


async def _note(tx: Transaction, endpoint_id: str) -> None:
    seq = await endpoints.next_seq(tx, endpoint_id)
    entry = Entry(event_id(tx.now), endpoint_id, "endpoint", seq, "recover")
    await append_events(tx, [entry])
