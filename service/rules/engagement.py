"""One milestone escrow as its rows stand: facts only. Money in minor units, times in UTC.

In `single` every milestone carries the escrow's own flags: disputed, released and resolved are
set on all of them at once, so that both modes are read alike.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from service.rules.machine import Role

SINGLE, MULTI = "single", "multi"
RELEASE_MODES = (SINGLE, MULTI)

WORKING, PENDING_RELEASE, IN_DISPUTE = "working", "pendingRelease", "inDispute"
RELEASED, RESOLVED = "released", "resolved"
STATUSES = (WORKING, PENDING_RELEASE, IN_DISPUTE, RELEASED, RESOLVED)
FINAL = frozenset({RELEASED, RESOLVED})

RESOLVER = "resolver"
"""The kind of the resolver's deadline."""

ROLES = (
    Role.APPROVER,
    Role.SERVICE_PROVIDER,
    Role.PLATFORM,
    Role.RELEASE_SIGNER,
    Role.DISPUTE_RESOLVER,
    Role.RECEIVER,
)
"""The roles of the escrow; a milestone may have a receiver of its own beside them."""


@dataclass(frozen=True, slots=True)
class Holder:
    """Who holds a role: the e-mail that was named, and the user once there is one."""

    email: str
    user_id: str | None = None


@dataclass(frozen=True, slots=True)
class Milestone:
    """One milestone; amount and receiver are of multi release only.

    `dispute_reason` and `disputed_at` are of its last dispute, whatever became of it.
    """

    description: str
    status: str = "pending"
    evidence: str = ""
    amount_minor: int | None = None
    receiver: Holder | None = None
    approved: bool = False
    disputed: bool = False
    released: bool = False
    resolved: bool = False
    dispute_reason: str | None = None
    disputed_at: datetime | None = None

    @property
    def is_over(self) -> bool:
        """Whether its money has gone its way."""
        return self.released or self.resolved


@dataclass(frozen=True, slots=True)
class Funding:
    """What one payer has funded in all. Only what gives money back to the payers reads them."""

    user_id: str
    email: str
    amount_minor: int


@dataclass(frozen=True, slots=True)
class MilestoneEscrow:
    """The whole.

    `amount_minor` is the one payout of single release, the milestones' sum in multi. The sums of
    money are the escrow's since it was created: `funded_minor` never sinks, `held_minor` is the
    live balance. `version` counts changes of terms, `seq` events.
    """

    id: str
    release_mode: str
    status: str
    creator_id: str
    engagement_id: str
    title: str
    description: str
    currency: str
    amount_minor: int
    platform_fee_bps: int
    protocol_fee_bps: int
    roles: Mapping[Role, Holder]
    milestones: tuple[Milestone, ...]
    created_at: datetime
    updated_at: datetime
    receiver_memo: str | None = None
    resolver_deadline_days: int | None = None
    version: int = 1
    seq: int = 0
    frozen: bool = False
    creator_company: str = ""
    funded_minor: int = 0
    held_minor: int = 0
    released_minor: int = 0
    refunded_minor: int = 0
    fees_minor: int = 0

    @property
    def mode(self) -> str:
        """What the shared log, the docs and a rehearsal call the mode."""
        return self.release_mode

    @property
    def is_single(self) -> bool:
        """Whether all of it is paid out at once."""
        return self.release_mode == SINGLE

    @property
    def is_disputed(self) -> bool:
        """Whether anything of it is disputed."""
        return any(one.disputed for one in self.milestones)

    @property
    def is_over(self) -> bool:
        """Whether everything is released or resolved."""
        return all(one.is_over for one in self.milestones)

    @property
    def is_released(self) -> bool:
        """Whether everything is released."""
        return all(one.released for one in self.milestones)

    @property
    def is_resolved(self) -> bool:
        """Whether everything is resolved."""
        return all(one.resolved for one in self.milestones)

    @property
    def is_settled(self) -> bool:
        """Whether money was ever here or a milestone is over: the terms stand then."""
        return self.funded_minor > 0 or any(one.is_over for one in self.milestones)

    def receiver_of(self, index: int | None) -> Holder:
        """Who is paid for this milestone, or for the whole (None)."""
        own = None if index is None else self.milestones[index].receiver
        return own or self.roles[Role.RECEIVER]

    def holders(self) -> tuple[Holder, ...]:
        """Everybody who is named, each milestone's own receiver too; the same person perhaps twice.

        In the order of the roles.
        """
        own = (one.receiver for one in self.milestones if one.receiver is not None)
        return (*(self.roles[role] for role in ROLES), *own)
