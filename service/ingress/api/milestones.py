"""The milestone escrows: create, list, read, and every step that an API key takes as its user."""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import orjson

from service.commands import milestones, sessions
from service.commands.perform import Answer, Command
from service.ingress.bodies import as_model
from service.ingress.call import Call, Caller
from service.ingress.route import Subject, is_entity_id
from service.rules.engagement import MilestoneEscrow
from service.rules.errors import (
    InvalidPayload,
    MilestoneEscrowNotFound,
    NoAccessToEscrow,
    TooManyEscrowsRequested,
)
from service.rules.milestone_ground import roles_of
from service.rules.milestone_said import StatusChange
from service.rules.milestone_terms import BALANCES_MAX, shown
from service.rules.money import EXPONENTS
from service.store.clock import read_clock
from service.store.deadlines import read_open
from service.store.milestone_lists import (
    LoggedEvent,
    MilestoneScope,
    list_milestone_escrows,
    read_balances,
    read_events_whole,
)
from service.store.milestones import read_milestone_escrow
from service.wire.base import OwnBody
from service.wire.milestone_next import MilestoneNextAnswer, milestone_next
from service.wire.milestone_shapes import (
    BalanceRow,
    BalancesAnswer,
    EventsAnswer,
    LoggedShape,
    MilestoneEscrowAnswer,
    MilestoneEscrowPage,
    answer,
    read_cursor,
    retold,
    shape,
    write_cursor,
)
from service.wire.milestones import (
    INDEX,
    ROLE_NAMES,
    ApproveBatch,
    BalancesQuery,
    DisputeGiven,
    EventsQuery,
    Fund,
    MilestoneQuery,
    MilestoneTermsGiven,
    NewMilestoneEscrow,
    NoteGiven,
    Release,
    Resolve,
    StatusBatch,
    StatusGiven,
    Withdraw,
    changes_of,
    terms_of,
)
from service.wire.next import Open
from service.wire.sessions import NewMilestoneSession

NO_MILESTONE = -1
LOG_BYTES_MAX = 1_000_000
"""So many bytes of bodies make a page of the log, or one event that is larger by itself."""


def may_read(caller: Caller, escrow: MilestoneEscrow) -> bool:
    """The developer that created it, or one whose user holds a role."""
    return caller.developer_id == escrow.creator_id or bool(roles_of(escrow, caller.user_id))


READABLE = Subject(
    "id",
    is_entity_id,
    MilestoneEscrowNotFound,
    read_milestone_escrow,
    MilestoneEscrowNotFound,
    may_read,
    NoAccessToEscrow,
)
ANY_MILESTONE_ESCROW = Subject(
    "id",
    is_entity_id,
    MilestoneEscrowNotFound,
    read_milestone_escrow,
    MilestoneEscrowNotFound,
    lambda _caller, _escrow: True,
    MilestoneEscrowNotFound,
)
"""No access check comes before a step's own list."""


async def create(call: Call[NewMilestoneEscrow, None]) -> Answer:
    """Open a milestone escrow."""
    return await call.perform(milestones.create(call.developer_id, terms_of(call.body)))


async def read_one(call: Call[None, None]) -> MilestoneEscrowAnswer:
    """One escrow."""
    return answer(call.subject)


async def read_next(call: Call[None, None]) -> MilestoneNextAnswer:
    """Who may do what now, and what time does."""
    open_ones = await read_open(call.house.pool, call.subject.id)
    clock = await read_clock(call.house.pool)
    deadlines = [Open(d.kind, d.due_at, d.remaining, d.subject) for d in open_ones]
    return milestone_next(call.subject, deadlines, clock.now)


async def read_list(call: Call[None, MilestoneQuery]) -> MilestoneEscrowPage:
    """What the caller has created or holds a role in."""
    query = call.query
    if (query.role is None) != (query.role_email is None):
        raise InvalidPayload({"role": "goes with roleEmail"})
    scope = MilestoneScope(
        developer_id=call.developer_id,
        user_id=call.caller.user_id if call.caller else None,
        engagement_id=query.engagement_id,
        title=query.title,
        status=query.status,
        release_mode=query.release_mode,
        role=ROLE_NAMES[query.role] if query.role else None,
        role_email=query.role_email,
        participant=query.participant,
        created_from=query.start_date,
        created_before=query.end_date,
        min_amount=query.min_amount,
        max_amount=query.max_amount,
        order_by=query.order_by,
        descending=query.order_direction == "desc",
        after=read_cursor(query.cursor) if query.cursor else None,
    )
    found = await list_milestone_escrows(call.house.pool, scope, query.limit + 1)
    page = found[: query.limit]
    more = len(found) > query.limit
    return MilestoneEscrowPage(
        escrows=[shape(escrow) for escrow, _ in page],
        next_cursor=write_cursor(page[-1][1], page[-1][0].id) if more else None,
    )


async def read_many_balances(call: Call[None, BalancesQuery]) -> BalancesAnswer:
    """The live balances, in the order asked; one unknown id fails the whole call."""
    ids = call.query.given
    if len(ids) > BALANCES_MAX:
        raise TooManyEscrowsRequested(limit=BALANCES_MAX)
    if not all(is_entity_id(one) for one in ids):
        raise MilestoneEscrowNotFound
    found = await read_balances(call.house.pool, ids)
    if any(one not in found for one in ids):
        raise MilestoneEscrowNotFound
    return BalancesAnswer(
        balances=[
            BalanceRow(
                id=one,
                balance=shown(found[one].balance_minor, found[one].currency),
                currency=found[one].currency,
                decimals=EXPONENTS[found[one].currency],
            )
            for one in ids
        ]
    )


async def read_log(call: Call[None, EventsQuery]) -> EventsAnswer:
    """The event log, oldest first; a page ends early where its events are large."""
    after = int(call.query.cursor or 0)
    limit = call.query.limit
    found, has_more = await read_events_whole(
        call.house.pool, call.subject.id, after, limit, LOG_BYTES_MAX
    )
    return EventsAnswer(
        events=[
            LoggedShape.model_construct(
                id=one.id,
                seq=one.seq,
                type=one.type,
                timestamp=one.at,
                by=one.actor_kind,
                data=_whole(one),
            )
            for one in found
        ],
        next_cursor=str(found[-1].seq) if has_more else None,
    )


def _whole(event: LoggedEvent) -> Any:
    """The data as they were sent, or what is left of them."""
    return told_of(event) if event.body is None else orjson.loads(event.body)["data"]


def told_of(event: LoggedEvent) -> dict[str, Any]:
    """What an event said, without the rest of the escrow."""
    return retold(
        event.said, event.escrow_id, event.currency, event.type, event.from_state, event.to_state
    )


async def update(call: Call[MilestoneTermsGiven, None]) -> Answer:
    """The platform puts other terms in place."""
    terms = terms_of(call.body, is_update=True)
    return await call.perform(
        milestones.update(call.subject.id, terms, expected_version=call.body.expected_version)
    )


async def fund(call: Call[Fund, None]) -> Answer:
    """The caller's user pays into the pool."""
    body = call.body
    return await call.perform(
        milestones.fund(
            call.subject.id,
            body.amount,
            expected_version=body.expected_version,
            payer=body.payer,
        )
    )


async def change_status(call: Call[StatusGiven, None]) -> Answer:
    """The provider says how one milestone stands."""
    change = StatusChange(_index(call), call.body.status, call.body.evidence)
    return await call.perform(milestones.change_status(call.subject.id, [change]))


async def change_statuses(call: Call[StatusBatch, None]) -> Answer:
    """The provider says how several milestones stand: all or nothing."""
    changes = changes_of(call.body.updates)
    return await call.perform(milestones.change_status(call.subject.id, changes))


async def approve(call: Call[None, None]) -> Answer:
    """The approver accepts one milestone."""
    return await call.perform(milestones.approve(call.subject.id, [_index(call)]))


async def approve_many(call: Call[ApproveBatch, None]) -> Answer:
    """The approver accepts several milestones: all or nothing."""
    return await call.perform(milestones.approve(call.subject.id, call.body.indexes))


async def release(call: Call[Release, None]) -> Answer:
    """The signer releases."""
    return await call.perform(milestones.release(call.subject.id, call.body.milestone_indexes))


async def dispute(call: Call[DisputeGiven, None]) -> Answer:
    """Somebody with a role disputes."""
    body = call.body
    return await call.perform(
        milestones.dispute(call.subject.id, body.reason, body.milestone_indexes)
    )


async def resolve(call: Call[Resolve, None]) -> Answer:
    """The resolver distributes."""
    body = call.body
    return await call.perform(
        milestones.resolve(call.subject.id, body.distributions, body.milestone_index)
    )


async def withdraw(call: Call[Withdraw, None]) -> Answer:
    """The resolver pays out what is left over."""
    return await call.perform(
        milestones.withdraw_remaining(call.subject.id, call.body.distributions)
    )


async def note(call: Call[NoteGiven, None]) -> Answer:
    """Somebody with a role adds a note to the dispute."""
    body = call.body
    return await call.perform(milestones.note(call.subject.id, body.text, body.milestone_index))


class MilestoneAct(NamedTuple):
    """A person's step: what they fill in, and the command on this escrow."""

    brings: type[OwnBody]
    taking: Callable[[str, Any], Command]


ACTS: Mapping[str, MilestoneAct] = {
    "fund": MilestoneAct(
        Fund,
        lambda escrow_id, given: milestones.fund(
            escrow_id,
            given.amount,
            expected_version=given.expected_version,
            payer=given.payer,
        ),
    ),
    "change_milestone_status": MilestoneAct(
        StatusBatch,
        lambda escrow_id, given: milestones.change_status(escrow_id, changes_of(given.updates)),
    ),
    "approve_milestone": MilestoneAct(
        ApproveBatch, lambda escrow_id, given: milestones.approve(escrow_id, given.indexes)
    ),
    "release": MilestoneAct(
        Release,
        lambda escrow_id, given: milestones.release(escrow_id, given.milestone_indexes),
    ),
    "dispute": MilestoneAct(
        DisputeGiven,
        lambda escrow_id, given: milestones.dispute(
            escrow_id, given.reason, given.milestone_indexes
        ),
    ),
    "note_dispute": MilestoneAct(
        NoteGiven,
        lambda escrow_id, given: milestones.note(escrow_id, given.text, given.milestone_index),
    ),
    "resolve_dispute": MilestoneAct(
        Resolve,
        lambda escrow_id, given: milestones.resolve(
            escrow_id, given.distributions, given.milestone_index
        ),
    ),
    "withdraw_remaining": MilestoneAct(
        Withdraw,
        lambda escrow_id, given: milestones.withdraw_remaining(escrow_id, given.distributions),
    ),
    "update": MilestoneAct(
        MilestoneTermsGiven,
        lambda escrow_id, given: milestones.update(
            escrow_id,
            terms_of(given, is_update=True),
            expected_version=given.expected_version,
        ),
    ),
}
"""Step or action -> how a person takes it. For pages, sessions and the sandbox alike."""


def acted(escrow_id: str, name: str, given: Mapping[str, Any]) -> Command:
    """The command of this step with this input.

    Raises:
        InvalidPayload: with every bad field at once.
    """
    return ACTS[name].taking(escrow_id, _brought(name, given))


def _brought(name: str, given: Mapping[str, Any]) -> OwnBody:
    return as_model(ACTS[name].brings, given, InvalidPayload)


async def make_session(call: Call[NewMilestoneSession, None]) -> Answer:
    """A hosted page for one step of one person; an input that comes along must be sound."""
    body = call.body
    given = None if body.input is None else _brought(body.action, body.input)
    return await call.perform(
        sessions.create_of_milestones(call.developer_id, call.subject.id, body, given)
    )


def _index(call: Call[StatusGiven, None] | Call[None, None]) -> int:
    """The milestone that the path names; one that there is not where it names none.

    The rules say so when it is its turn.
    """
    named = call.path["index"]
    return int(named) if INDEX.fullmatch(named) else NO_MILESTONE
