"""What is said with the steps of a milestone escrow: asked for, and told by its events."""

from dataclasses import dataclass

from service.rules.engagement import Holder
from service.rules.machine import Role
from service.rules.payouts import Distribution, Payout

BY_CLOCK, BY_RESOLVER = "clock", "resolver"


@dataclass(frozen=True, slots=True)
class Funded:
    """Who has paid how much, and the balance after it."""

    payer: str
    amount_minor: int
    balance_minor: int


@dataclass(frozen=True, slots=True)
class Paid:
    """A payout: who was paid, and the parts of the amount."""

    receiver: str
    parts: Payout


@dataclass(frozen=True, slots=True)
class Opened:
    """A dispute: its reason, and who has opened it."""

    reason: str
    by: str


@dataclass(frozen=True, slots=True)
class Share:
    """One recipient of a distribution; who it is once the e-mail is looked up."""

    to: Holder
    amount_minor: int


@dataclass(frozen=True, slots=True)
class Shared:
    """How a dispute's money went, `by` the resolver or the clock (back to the payers, no fee)."""

    by: str
    shares: tuple[Share, ...]
    parts: Distribution


@dataclass(frozen=True, slots=True)
class Changed:
    """The fields of the terms that an update has changed."""

    fields: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Noted:
    """A note on a dispute, and whose."""

    text: str
    by: str
    index: int | None


@dataclass(frozen=True, slots=True)
class Linked:
    """Who has come, by the e-mail that was named, and to which role."""

    email: str
    role: Role


@dataclass(frozen=True, slots=True)
class StatusChange:
    """A milestone's new status text; `evidence` None leaves what was there."""

    index: int
    status: str
    evidence: str | None = None
