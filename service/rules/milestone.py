"""THE TABLES of the milestone family. Source: milestones.md 1, 2 and 4.

Three of them: the escrow's steps in `single` and in `multi` (`STEPS`), a milestone's own
(`MILESTONE_STEPS`), and THE COUPLING, which says what the escrow's status is for what its
milestones are. The order of a step's checks stands beside the step: `milestone_progress.py`,
`milestone_disputes.py`, `milestone_resolution.py`, `milestone_changes.py`.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime

from service.rules.engagement import (
    FINAL,
    IN_DISPUTE,
    MULTI,
    PENDING_RELEASE,
    RELEASE_MODES,
    RELEASED,
    RESOLVED,
    SINGLE,
    STATUSES,
    WORKING,
    Milestone,
    MilestoneEscrow,
)
from service.rules.escrow import STATUS_UPDATED
from service.rules.machine import NOWHERE, Movement, Role, Step, Table
from service.rules.postings import Posting

FAMILY, MODE = "milestone", "milestone"
"""The family of the tables' rows, and the `mode` of the escrows in the table that both share."""

# ---- A milestone's own table --------------------------------------------------------------------

OPEN, APPROVED, DISPUTED = "open", "approved", "disputed"
MILESTONE_STATES = (OPEN, APPROVED, DISPUTED, RELEASED, RESOLVED)

_A = frozenset(RELEASE_MODES)
_S = frozenset({SINGLE})
_M = frozenset({MULTI})

_DEVELOPER = frozenset({Role.DEVELOPER})
_PAYER = frozenset({Role.PAYER})
_PROVIDER = frozenset({Role.SERVICE_PROVIDER})
_APPROVER = frozenset({Role.APPROVER})
_SIGNER = frozenset({Role.RELEASE_SIGNER})
_PLATFORM = frozenset({Role.PLATFORM})
_RESOLVER = frozenset({Role.DISPUTE_RESOLVER})
_RESOLVER_T = _RESOLVER | {Role.CLOCK}  # or time
_DISPUTER = frozenset(
    {Role.APPROVER, Role.SERVICE_PROVIDER, Role.PLATFORM, Role.RELEASE_SIGNER, Role.RECEIVER,
     Role.MILESTONE_RECEIVER}
)  # fmt: skip
_ANY_ROLE = _DISPUTER | _RESOLVER
_SYSTEM = frozenset({Role.SYSTEM})
_OPERATOR = frozenset({Role.OPERATOR})
_NO = Movement.NONE

# fmt: off
MILESTONE_STEPS = (
    #    step                       who          from      to        modes moves
    Step("change_milestone_status", _PROVIDER,   OPEN,     OPEN,     _A, _NO,                 (),
         "The provider says how the work stands: a text, and no state."),
    Step("change_milestone_status", _PROVIDER,   APPROVED, APPROVED, _A, _NO,                 (),
         "The provider says how the work stands: a text, and no state."),
    Step("change_milestone_status", _PROVIDER,   DISPUTED, DISPUTED, _A, _NO,                 (),
         "The provider says how the work stands: a text, and no state."),
    Step("approve_milestone",       _APPROVER,   OPEN,     APPROVED, _A, _NO,                 (),
         "The approver accepts the work; this is not taken back."),
    Step("approve_milestone",       _APPROVER,   DISPUTED, DISPUTED, _A, _NO,                 (),
         "The approver accepts the work; the dispute stays."),
    Step("release",                 _SIGNER,     APPROVED, RELEASED, _A, Movement.PAY,        (),
         "It is paid: its amount less both fees to its receiver."),
    Step("dispute",                 _DISPUTER,   OPEN,     DISPUTED, _A, _NO,                 (),
         "Somebody with a role, not the resolver, disputes it."),
    Step("dispute",                 _DISPUTER,   APPROVED, DISPUTED, _A, _NO,                 (),
         "Somebody with a role, not the resolver, disputes it."),
    Step("resolve_dispute",         _RESOLVER_T, DISPUTED, RESOLVED, _A, Movement.DISTRIBUTE, (),
         "The resolver distributes money, or the deadline passes: back to the payers."),
)
# fmt: on
MILESTONE_TABLE = Table("one milestone", MILESTONE_STEPS, FINAL)
"""Not in the database: an event's states are the escrow's. CHECKs on `milestone` restate it."""


def state_of(one: Milestone) -> str:
    """The milestone's state in its own table, from its flags."""
    if one.released:
        return RELEASED
    if one.resolved:
        return RESOLVED
    if one.disputed:
        return DISPUTED
    return APPROVED if one.approved else OPEN


def steps_for(one: Milestone) -> frozenset[str]:
    """The steps for which the milestone stands right; nothing is approved twice."""
    steps = {row.name for row in MILESTONE_STEPS if row.source == state_of(one)}
    return frozenset(steps - {"approve_milestone"} if one.approved else steps)


def open_steps(escrow: MilestoneEscrow) -> frozenset[str]:
    """The steps for which some milestone stands right."""
    return frozenset().union(*map(steps_for, escrow.milestones))


# ---- The coupling -------------------------------------------------------------------------------

States = Sequence[str]


@dataclass(frozen=True, slots=True)
class Coupling:
    """The escrow has this status in these modes if `holds` of its milestones' states."""

    status: str
    modes: frozenset[str]
    holds: Callable[[States], bool]
    says: str


def _is_over(states: States) -> bool:
    return all(state in FINAL for state in states)


# fmt: off
COUPLING = (
    Coupling(IN_DISPUTE,      _A, lambda s: DISPUTED in s,
             "anything is disputed"),
    Coupling(RELEASED,        _A, lambda s: _is_over(s) and RELEASED in s,
             "all is over, and anything was released"),
    Coupling(RESOLVED,        _A, _is_over,
             "all is over, and nothing was released"),
    Coupling(PENDING_RELEASE, _S, lambda s: all(state == APPROVED for state in s),
             "all milestones are approved"),
    Coupling(PENDING_RELEASE, _M, lambda s: APPROVED in s,
             "a milestone is approved and not over"),
    Coupling(WORKING,         _A, lambda _: True,
             "else"),
)
# fmt: on
"""THE COUPLING: the first row that fits."""


def coupled(release_mode: str, states: States) -> str:
    """The escrow's status for these states of its milestones (at least one)."""
    return next(c.status for c in COUPLING if release_mode in c.modes and c.holds(states))


def status_of(escrow: MilestoneEscrow) -> str:
    """The status that follows from the milestones as they are."""
    return coupled(escrow.release_mode, [state_of(one) for one in escrow.milestones])


# ---- The escrow's table -------------------------------------------------------------------------

CREATED, FUNDED, UPDATED = (
    "milestone_escrow.created",
    "milestone_escrow.funded",
    "milestone_escrow.updated",
)
RELEASED_ALL, RELEASED_ONE = "milestone_escrow.released", "milestone.released"
DISPUTED_ALL, DISPUTED_ONE = "milestone_escrow.disputed", "milestone.disputed"
RESOLVED_ALL, RESOLVED_ONE = "milestone_escrow.dispute_resolved", "milestone.dispute_resolved"
WITHDRAWN, NOTED = "milestone_escrow.withdrawn", "milestone_escrow.dispute_noted"
STATUS_CHANGED, APPROVED_ONE = "milestone.status_changed", "milestone.approved"
LINKED = "invitation.accepted"

FREEZE, UNFREEZE = "freeze", "unfreeze"
FLAGS = {FREEZE: True, UNFREEZE: False}
"""The steps that set the flag and leave the state alone; a frozen escrow takes no other."""

_ALIVE = (WORKING, PENDING_RELEASE, IN_DISPUTE)


def _told(event: str, source: str, target: str) -> tuple[str, ...]:
    """The step's own event, and the status' where it moves."""
    moved = source not in (target, NOWHERE)
    return (event, STATUS_UPDATED) if moved else (event,)


def _rows(
    name: str,
    who: frozenset[str],
    ways: Sequence[tuple[str, str]],
    modes: frozenset[str],
    moves: Movement,
    event: str,
    says: str,
) -> list[Step]:
    return [
        Step(name, who, source, target, modes, moves, _told(event, source, target), says)
        for source, target in ways
    ]


def _stays(states: Sequence[str]) -> list[tuple[str, str]]:
    return [(state, state) for state in states]


_W, _P, _D, _R, _X = WORKING, PENDING_RELEASE, IN_DISPUTE, RELEASED, RESOLVED

# fmt: off
STEPS = (
    Step("create", _DEVELOPER, NOWHERE, WORKING, _A, _NO, (CREATED,),
         "A developer opens the escrow; roles that nobody is registered for are invited."),
    *_rows("link_role", _SYSTEM, _stays(STATUSES), _A, _NO, LINKED,
           "Somebody who was named has registered and is linked to their roles."),
    *_rows("fund", _PAYER, _stays(_ALIVE), _A, Movement.FUND, FUNDED,
           "Anybody pays into the pool from their own wallet: in part, again, or too much."),
    *_rows("change_milestone_status", _PROVIDER, _stays(_ALIVE), _A, _NO, STATUS_CHANGED,
           "The provider says how the work on a milestone stands."),
    *_rows("approve_milestone", _APPROVER, [(_W, _W), (_W, _P), (_D, _D)], _A, _NO, APPROVED_ONE,
           "The approver accepts a milestone; this is not taken back."),
    *_rows("approve_milestone", _APPROVER, [(_P, _P)], _M, _NO, APPROVED_ONE,
           "The approver accepts another milestone."),
    *_rows("release", _SIGNER, [(_P, _R)], _S, Movement.PAY, RELEASED_ALL,
           "The signer releases the amount: less both fees to the receiver."),
    *_rows("release", _SIGNER, [(_P, _P), (_P, _W), (_P, _R), (_D, _D)], _M, Movement.PAY,
           RELEASED_ONE, "The signer releases milestones: each less both fees to its receiver."),
    *_rows("dispute", _DISPUTER, [(_W, _D), (_P, _D)], _S, _NO, DISPUTED_ALL,
           "Somebody with a role, not the resolver, disputes the escrow."),
    *_rows("dispute", _DISPUTER, [(_W, _D), (_P, _D), (_D, _D)], _M, _NO, DISPUTED_ONE,
           "Somebody with a role, not the resolver, disputes milestones."),
    *_rows("note_dispute", _ANY_ROLE, [(_D, _D)], _A, _NO, NOTED,
           "Somebody with a role adds a note to the dispute."),
    *_rows("resolve_dispute", _RESOLVER_T, [(_D, _X)], _S, Movement.DISTRIBUTE, RESOLVED_ALL,
           "The resolver distributes all of the balance, or time gives it back to the payers."),
    *_rows("resolve_dispute", _RESOLVER_T, [(_D, _D), (_D, _W), (_D, _P), (_D, _R), (_D, _X)],
           _M, Movement.DISTRIBUTE, RESOLVED_ONE,
           "The resolver distributes up to a milestone's amount, or time gives it back."),
    *_rows("withdraw_remaining", _RESOLVER, _stays((_R, _X)), _A, Movement.WITHDRAW, WITHDRAWN,
           "The resolver pays out what was left over, without a fee."),
    *_rows("update", _PLATFORM, [(_W, _W)], _A, _NO, UPDATED,
           "The platform changes the terms; once funded, it appends milestones."),
    *_rows("update", _PLATFORM, [(_P, _W)], _S, _NO, UPDATED,
           "The platform appends milestones, which are not approved yet."),
    *_rows("update", _PLATFORM, [(_P, _P)], _M, _NO, UPDATED,
           "The platform appends milestones."),
    *(Step(name, who, status, status, _A, _NO, (), says)
      for status in STATUSES
      for name, who, says in (
          (FREEZE,   _SYSTEM,   "An invariant is breached: nothing moves until it is looked at."),
          (UNFREEZE, _OPERATOR, "The operator lifts the freeze once its check passes."))),
)
# fmt: on
TABLE = Table(FAMILY, STEPS, FINAL)
WHO: Mapping[str, frozenset[Role]] = {
    name: frozenset(Role(role) for row in STEPS if row.name == name for role in row.who)
    for name in dict.fromkeys(row.name for row in STEPS)
}
"""Step -> the roles that take it, in the table's order. Nothing else says who may."""


@dataclass(frozen=True, slots=True)
class Leg:
    """Money that one happening moves, and what its event says of it beyond the escrow."""

    event: str
    index: int | None = None
    postings: tuple[Posting, ...] = ()
    said: object = None


@dataclass(frozen=True, slots=True)
class Done:
    """A step of this family that was taken: one `Leg` an event, then the status' where it moved.

    `due_at` is when it was due, where the clock took it.
    """

    row: Step
    before: MilestoneEscrow
    after: MilestoneEscrow
    legs: tuple[Leg, ...]
    due_at: datetime | None = None

    @property
    def events(self) -> tuple[str | None, ...]:
        """One entry an event row, in order; None for a step that only the audit trail sees."""
        moved = (STATUS_UPDATED,) if STATUS_UPDATED in self.row.events else ()
        return (*(leg.event for leg in self.legs), *moved) or (None,)

    @property
    def postings(self) -> tuple[Posting, ...]:
        """Everything that moves, in order."""
        return tuple(posting for leg in self.legs for posting in leg.postings)


def done(
    name: str, before: MilestoneEscrow, changed: MilestoneEscrow, legs: Sequence[Leg], now: datetime
) -> Done:
    """The step as its row says, with the status that follows from the milestones.

    Raises:
        AssertionError: the tables have no such step; the coupling and the checks disagree.
    """
    target = status_of(changed)
    row = TABLE.find(name, before.status, before.release_mode, target)
    if row is None:
        raise AssertionError(f"{name} of {before.id} leads from {before.status} to {target}")
    bare = Done(row, before, changed, tuple(legs))
    after = replace(
        changed,
        status=target,
        updated_at=now,
        seq=before.seq + len(bare.events),
        frozen=FLAGS.get(name, before.frozen),
    )
    return replace(bare, after=after)
