"""How every step on an escrow is carried out: lock, choose, move, post, tell.

`record` writes what the rules have decided, in this order and for any number of escrows at
once: first the states are claimed, then the clocks are turned, then payments that are under way
follow, then all the money moves, theirs too, then the log is told. Nothing moves money before the
claim, and all accounts are locked at once, in id order.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import structlog

from service.commands.due import DeadlineDue
from service.commands.files import view_url
from service.commands.mails import write_notices
from service.commands.milestone_steps import fire_resolver
from service.commands.payment_steps import follow
from service.rules.aggregate import Escrow
from service.rules.clocks import due_step, turn
from service.rules.errors import EscrowNotFound, Refused
from service.rules.escrow import Taken, choose, take
from service.rules.machine import Actor, ActorKind
from service.rules.milestone import MODE
from service.rules.milestone_terms import MILESTONES_MAX
from service.rules.session import moot
from service.store import events, ledger
from service.store.db import Transaction
from service.store.deadlines import Deadline, fire_deadlines, turn_deadlines
from service.store.escrows import lock_escrows, move_escrows, read_escrow
from service.store.ids import event_id
from service.store.parts import write_parts
from service.store.sessions import Ended, cancel_sessions
from service.wire.events import Setting, escrow_event

DUE_STEPS_MAX = MILESTONES_MAX + 20
"""Due on one escrow at once: the disputes of all its milestones; in the other family a few rows in
a row, after a long absence."""

log = structlog.get_logger()


async def lock(tx: Transaction, escrow_id: str) -> Escrow:
    """The escrow, locked until the transaction ends.

    Raises:
        EscrowNotFound: there is none of this id.
        DeadlineDue: the clock comes first (`perform` sees to it).
    """
    locked = await lock_escrows(tx, [escrow_id])
    if not locked:
        raise EscrowNotFound
    if locked[0].due is not None and tx.actor.kind is not ActorKind.CLOCK:
        raise DeadlineDue(escrow_id)
    return locked[0].escrow


async def step(tx: Transaction, escrow_id: str, name: str) -> Escrow:
    """Take the step of this name, as the transaction's actor; the escrow after it."""
    escrow = await lock(tx, escrow_id)
    taken = take(choose(name, escrow, tx.actor), escrow, tx.actor, tx.now)
    await record(tx, [taken])
    return taken.after


async def reread(tx: Transaction, escrow_id: str) -> Escrow:
    """The locked escrow after its step, with its clocks as they were turned."""
    escrow = await read_escrow(tx, escrow_id)
    if escrow is None:
        raise AssertionError(f"the locked escrow {escrow_id} is gone")
    return escrow


async def record(tx: Transaction, taken: Sequence[Taken]) -> None:
    """Move, post, tell: every step that was taken, at most one an escrow, and its payments."""
    if not taken:
        return
    tx.taken += taken
    await move_escrows(tx, taken)
    await write_parts(tx, taken)
    await cancel_sessions(tx, [Ended(t.after.id, *over) for t in taken for over in moot(t)])
    turns = [turn(t.before, t.after, tx.now, tx.policy) for t in taken]
    await turn_deadlines(tx, turns)
    followed = await follow(tx, taken)
    await ledger.post_transfers(tx, [*_entries(taken), *followed])
    await events.append_events(tx, told(tx, taken))
    await write_notices(tx, taken, turns)


async def fire_due_of(
    tx: Transaction, escrow_ids: Sequence[str], *, skip_locked: bool = False
) -> list[Deadline]:
    """Take the earliest due step of each of these escrows of either family, by the clock.

    What was fired.

    A deadline whose race was lost is no longer open, and nothing happens.
    """
    locked = await lock_escrows(tx, escrow_ids, skip_locked=skip_locked)
    escrows = {one.escrow.id: one.escrow for one in locked}
    fired = await fire_deadlines(tx, [one.due for one in locked if one.due is not None])
    ours = [one for one in fired if escrows[one.escrow_id].mode != MODE]
    await record(tx, [_by_clock(tx, deadline, escrows[deadline.escrow_id]) for deadline in ours])
    for deadline in fired:
        if escrows[deadline.escrow_id].mode == MODE:
            await fire_resolver(tx, deadline)
    return fired


async def fire_all_due_of(tx: Transaction, escrow_id: str) -> None:
    """Take every due step of this escrow, the earliest first, by the clock.

    Raises:
        AssertionError: a step that was taken is due again and again.
    """
    for _ in range(DUE_STEPS_MAX):
        if not await fire_due_of(tx, [escrow_id]):
            return
    raise AssertionError(f"escrow {escrow_id} has a due step that stays")


def _by_clock(tx: Transaction, deadline: Deadline, escrow: Escrow) -> Taken:
    try:
        name, target = due_step(deadline.kind, escrow)
        row = choose(name, escrow, tx.actor, target)
    except (Refused, KeyError) as refusal:  # the tables disagree: an alarm, and no lost timer
        raise AssertionError(f"{deadline.kind} of {escrow.id}: {refusal}") from refusal
    taken = take(row, escrow, tx.actor, tx.now, sellers_part=escrow.held_minor)
    return replace(taken, due_at=deadline.due_at)


def _entries(taken: Sequence[Taken]) -> list[ledger.Entry]:
    """The money belongs to the first event of its step."""
    return [
        ledger.Entry(posting, one.after.id, one.before.seq + 1, one.after.id)
        for one in taken
        for posting in one.postings
    ]


def told(tx: Transaction, taken: Sequence[Taken], actor: Actor | None = None) -> list[events.Entry]:
    """One row a webhook of each step, with consecutive seq; one row of audit where it has none.

    By `actor`, where that is not the transaction's.
    """
    entries = []
    url = partial(view_url, tx.policy.public_url, tx.vault, real_now=tx.real_now)
    setting = Setting(tx.now, tx.policy.ticket_prefix, url)
    for one in taken:
        first = one.after.seq - len(one.events) + 1
        for seq, event_type in enumerate(one.events, start=first):
            uid = event_id(tx.now)
            entries.append(
                events.Entry(
                    id=uid,
                    subject_id=one.after.id,
                    subject_kind="escrow",
                    seq=seq,
                    step=one.row.name,
                    type=event_type,
                    body=escrow_event(uid, event_type, one, setting) if event_type else None,
                    family="escrow",
                    mode=one.after.mode,
                    from_state=one.row.source,
                    to_state=one.row.target,
                    actor=actor,
                )
            )
    return entries
