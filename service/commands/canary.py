"""The canary: once a minute an event that goes the way of all others, to a sink of our own.

It is written, fanned out, claimed, signed, sent and settled like a partner's; only that the post
takes it itself instead of dialling. Its age says whether the whole line works.
"""

import secrets

from service.store import canary
from service.store.db import Transaction
from service.store.developers import next_developer_seq
from service.store.events import Entry, append_events
from service.store.ids import event_id
from service.wire.endpoint_events import CanaryData
from service.wire.events import envelope

EVERY_SECONDS = 55.0
SECRET_BYTES = 32


async def send_canary(tx: Transaction) -> bool:
    """One more, unless somebody has sent one within the minute; whether it was."""
    is_due = await canary.lock_due_canary(tx, EVERY_SECONDS)
    if is_due is None:
        await canary.make_canary(tx, tx.vault.seal(secrets.token_hex(SECRET_BYTES)))
        is_due = await canary.lock_due_canary(tx, EVERY_SECONDS)
    if not is_due:
        return False
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
    return True
