"""How every step on a milestone escrow is carried out: lock, choose, move, post, tell.

As `steps.py` for the other family, over its own tables.
"""

from datetime import timedelta

from service.commands.due import DeadlineDue
from service.commands.invitations import REMINDER
from service.commands.milestone_mails import write_role_notices
from service.rules.engagement import FINAL, RESOLVER, MilestoneEscrow
from service.rules.errors import MilestoneEscrowNotFound
from service.rules.machine import Actor, ActorKind
from service.rules.milestone import FAMILY, Done
from service.rules.milestone_ground import check_frozen
from service.rules.milestone_resolution import expire
from service.rules.milestone_session import moot, spent
from service.rules.session import EVERY
from service.store import events, ledger
from service.store.db import Transaction
from service.store.deadlines import Arming, Deadline, arm_deadlines, stop_kinds
from service.store.ids import event_id
from service.store.milestones import (
    lock_milestone_escrows,
    move_milestone_escrow,
    read_fundings,
    read_milestone_escrow,
)
from service.store.sessions import Ended, cancel_sessions
from service.wire.milestone_events import tell
from service.wire.sessions import naming

WHOLE = ""
"""The subject of a resolver's deadline about the whole; else it is the milestone."""


async def lock(tx: Transaction, escrow_id: str) -> MilestoneEscrow:
    """The milestone escrow, locked until the transaction ends.

    Raises:
        MilestoneEscrowNotFound: there is none of this id.
        DeadlineDue: the clock comes first (`perform` sees to it).
        EscrowFrozen: nothing can be done with it now.
    """
    locked = await lock_milestone_escrows(tx, [escrow_id])
    if not locked:
        raise MilestoneEscrowNotFound
    if locked[0].due is not None and tx.actor.kind is not ActorKind.CLOCK:
        raise DeadlineDue(escrow_id)
    check_frozen(locked[0].escrow)
    return locked[0].escrow


async def record(tx: Transaction, done: Done) -> None:
    """Move, post, tell: the step that was taken."""
    tx.taken.append(done)
    await move_milestone_escrow(tx, done)
    await cancel_sessions(tx, _over(done))
    await _turn(tx, done)
    await ledger.post_transfers(tx, entries_of(done))
    await events.append_events(tx, told(tx, done))
    await write_role_notices(tx, done)


def _over(done: Done) -> list[Ended]:
    """The sessions that the step ends: all of an action, or those whose input is done with."""
    escrow_id = done.after.id
    return [Ended(escrow_id, *over) for over in moot(done)] + [
        Ended(escrow_id, action, EVERY, naming(action, index)) for action, index in spent(done)
    ]


async def fire_resolver(tx: Transaction, deadline: Deadline) -> None:
    """The step of a resolver's deadline that has just fired, on an escrow that is locked."""
    escrow = await read_milestone_escrow(tx, deadline.escrow_id)
    if escrow is None:
        raise AssertionError(f"the locked escrow {deadline.escrow_id} is gone")
    index = None if deadline.subject == WHOLE else int(deadline.subject)
    disputed = escrow.is_disputed if index is None else escrow.milestones[index].disputed
    if not disputed:
        raise AssertionError(f"the resolver of {escrow.id} is late, and nothing is disputed")
    fundings = await read_fundings(tx, escrow.id)
    await record(tx, expire(escrow, fundings, index, tx.now, deadline.due_at))


def entries_of(done: Done) -> list[ledger.Entry]:
    """Each leg's money belongs to its own event."""
    return [
        ledger.Entry(posting, done.after.id, seq, done.after.id)
        for seq, leg in enumerate(done.legs, start=done.before.seq + 1)
        for posting in leg.postings
    ]


def told(tx: Transaction, done: Done, actor: Actor | None = None) -> list[events.Entry]:
    """One row a webhook of the step, with consecutive seq; one row of audit where it has none."""
    ids = [event_id(tx.now) for _ in done.events]
    tellings = tell(done, ids, tx.now)
    return [
        events.Entry(
            id=uid,
            subject_id=done.after.id,
            subject_kind="escrow",
            seq=seq,
            step=done.row.name,
            type=event_type,
            body=one.body,
            said=one.said,
            family=FAMILY,
            mode=done.after.release_mode,
            from_state=done.row.source,
            to_state=done.row.target,
            actor=actor,
        )
        for seq, (uid, event_type, one) in enumerate(
            zip(ids, done.events, tellings, strict=True), start=done.before.seq + 1
        )
    ]


async def _turn(tx: Transaction, done: Done) -> None:
    """The resolver's deadlines run while their milestones are disputed; at the end nothing does."""
    before, after = done.before, done.after
    subjects = [WHOLE if leg.index is None else str(leg.index) for leg in done.legs]
    if done.row.name == "resolve_dispute":
        await stop_kinds(tx, after.id, [RESOLVER], subjects)
    if done.row.name == "dispute" and after.resolver_deadline_days is not None:
        due = tx.now + timedelta(days=after.resolver_deadline_days)
        await arm_deadlines(
            tx, [Arming(after.id, RESOLVER, due, after.seq, subject) for subject in subjects]
        )
    if after.status in FINAL and before.status not in FINAL:
        await stop_kinds(tx, after.id, [RESOLVER, REMINDER])
