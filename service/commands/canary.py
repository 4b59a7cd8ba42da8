"""The canary: once a minute an event of the house's own goes to a sink of our own.

It is claimed, signed, sent and settled like a partner's delivery; only that the post takes it
itself instead of dialling. Its age says whether the line works. Every five minutes the event is a
new one, which is written and fanned out as well; in between the last one is sent again, since rows
of the log stay for ever. A canary that has not arrived is waited for: no other covers it up.
"""

import secrets

from service.store import canary
from service.store.db import Transaction
from service.store.developers import next_developer_seq
from service.store.events import Entry, append_events
from service.store.ids import event_id
from service.store.lanes import hint_lanes
from service.wire.endpoint_events import CanaryData
from service.wire.events import envelope

EVERY_SECONDS = 55.0
NEW_AFTER_SECONDS = 295.0
LOST_AFTER_SECONDS = 3595.0
"""One that has not ended is waited for so long; its age has told of it since."""
SECRET_BYTES = 32


async def send_canary(tx: Transaction) -> bool:
    """One more, unless somebody has sent one within the minute; whether it was."""
    is_ours = await canary.lock_canary(tx)
    if is_ours is None:
        await canary.make_canary(tx, tx.vault.seal(secrets.token_hex(SECRET_BYTES)))
        is_ours = await canary.lock_canary(tx)
    if not is_ours or await canary.is_under_way(tx, LOST_AFTER_SECONDS):
        return False
    if not await canary.has_event_since(tx, NEW_AFTER_SECONDS):
        await _append(tx)
        return True
    if not await canary.send_again(tx, EVERY_SECONDS):
        return False
    await hint_lanes(tx, [canary.ENDPOINT])
    tx.ring("webhooks")
    return True


async def _append(tx: Transaction) -> None:
    uid = event_id(tx.now)
    entry = Entry(
        id=uid,
        subject_id=canary.DEVELOPER,
        subject_kind="developer",
        seq=await next_developer_seq(tx, canary.DEVELOPER),
        step="canary",
        type=canary.TYPE,
        body=envelope(uid, canary.TYPE, CanaryData(), tx.now),
    )
    await append_events(tx, [entry])
