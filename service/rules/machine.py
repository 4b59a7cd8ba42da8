"""How a table of steps is read: who acts, what a row says, which row applies.

A family's table (`escrow.py`, `proof.py`) is a tuple of `Step`s; legal steps, webhook events,
`docs/states.md`, the `transition` rows of the database, the exhaustive tests and the API's "what
next" are all derived from it.
"""

from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass, replace
from enum import StrEnum

NOWHERE = "-"
"""The state before the first one: what `create` leaves."""


class Role(StrEnum):
    """In which capacity somebody takes a step."""

    DEVELOPER = "developer"
    SELLER = "seller"
    BUYER = "buyer"
    CREATOR = "creator"
    OPERATOR = "operator"
    CLOCK = "clock"
    SYSTEM = "system"
    # Of the milestone family: rules/milestone.py.
    APPROVER = "approver"
    SERVICE_PROVIDER = "service_provider"
    PLATFORM = "platform"
    RELEASE_SIGNER = "release_signer"
    DISPUTE_RESOLVER = "dispute_resolver"
    RECEIVER = "receiver"
    MILESTONE_RECEIVER = "milestone_receiver"
    PAYER = "payer"


class ActorKind(StrEnum):
    """Who is at the door."""

    DEVELOPER = "developer"
    USER = "user"
    OPERATOR = "operator"
    CLOCK = "clock"
    SYSTEM = "system"


@dataclass(frozen=True, slots=True)
class Actor:
    """Who acts, from where; written onto every event. Ids are 24 hex characters."""

    kind: ActorKind
    developer_id: str | None = None
    user_id: str | None = None
    key_id: str | None = None
    ip: str | None = None
    request_id: str | None = None

    @property
    def id(self) -> str | None:
        """The id that the event log names: the developer's for a key, else the user's."""
        return self.developer_id or self.user_id

    def as_user(self, user_id: str | None) -> "Actor":
        """A person who acts through this door; None: whoever is no user, a guest."""
        return replace(self, kind=ActorKind.USER, developer_id=None, user_id=user_id)


CLOCK = Actor(ActorKind.CLOCK)
SYSTEM = Actor(ActorKind.SYSTEM)


class Movement(StrEnum):
    """What a step does with the money; `postings.py` says from where to where."""

    NONE = "none"
    HOLD = "hold"
    RELEASE = "release"
    REFUND = "refund"
    SPLIT = "split"
    # Of the milestone family: rules/payouts.py.
    FUND = "fund"
    PAY = "pay"
    DISTRIBUTE = "distribute"
    WITHDRAW = "withdraw"
    # Between the outside and a wallet: rules/payment.py.
    PROMISE = "promise"
    FORGO = "forgo"
    SETTLE = "settle"
    RECEIVE = "receive"
    DIVERT = "divert"
    CREDIT = "credit"
    RESERVE = "reserve"
    RETURN = "return"
    PAY_OUT = "pay_out"
    PAY_BACK = "pay_back"


@dataclass(frozen=True, slots=True)
class Step:
    """One row of a table: step, who, from, to, in which modes, what moves, which events, why."""

    name: str
    who: frozenset[str]
    source: str
    target: str
    modes: frozenset[str]
    moves: Movement
    events: tuple[str, ...]
    says: str


class Table:
    """The rows of one family, and the questions that are asked of them."""

    def __init__(self, family: str, rows: Iterable[Step], final: Collection[str]) -> None:
        self.family = family
        self.rows = tuple(rows)
        self.final = frozenset(final)
        self._by_key: dict[tuple[str, str, str], tuple[Step, ...]] = {}
        for row in self.rows:
            for mode in row.modes:
                key = (row.name, row.source, mode)
                self._by_key[key] = (*self._by_key.get(key, ()), row)

    def find(self, name: str, source: str, mode: str, target: str | None = None) -> Step | None:
        """The row of this step from this state; `target` picks where two lead out of one state."""
        rows = [r for r in self._by_key.get((name, source, mode), ()) if target in (None, r.target)]
        if len(rows) > 1:
            raise ValueError(f"{name} leads from {source} to more than one state: name the target")
        return rows[0] if rows else None

    def legal(self, source: str, mode: str) -> Iterator[Step]:
        """Every row that leads out of this state in this mode, in the table's order."""
        return (row for row in self.rows if row.source == source and mode in row.modes)

    def sources(self, name: str, mode: str) -> frozenset[str]:
        """The states from which this step is legal in this mode."""
        return frozenset(r.source for r in self.rows if r.name == name and mode in r.modes)

    def transitions(self) -> Iterator[tuple[str, str, str, str, str]]:
        """(family, mode, step, from, to) for the database's `transition` table."""
        return (
            (self.family, mode, row.name, row.source, row.target)
            for row in self.rows
            for mode in sorted(row.modes)
        )
