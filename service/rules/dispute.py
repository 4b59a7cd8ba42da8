"""What is said in a dispute: statements with their evidence, and offers to share what is held.

Both parties may add to it until it is over. A party has one open offer at most: a newer one takes
its place. Source: escrows.md 4 and 6.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import datetime

from service.rules.aggregate import Dispute
from service.rules.errors import OfferClosed, OfferOwn
from service.rules.files import StoredFile
from service.rules.machine import Role

ADDITIONS_MAX = 50
"""Statements and offers of one party in one dispute: enough for anybody who means it."""
REPLACED, ACCEPTED, LAPSED = "replaced", "accepted", "lapsed"
"""What became of an offer; lapsed is one that its dispute has outlived."""


@dataclass(frozen=True, slots=True)
class Split:
    """Who gets how much of what is held, in the ledger's minor units."""

    seller_minor: int
    buyer_minor: int

    def shares_out(self, held_minor: int) -> bool:
        """Whether the parts are 0 or more and sum to this."""
        parts = (self.seller_minor, self.buyer_minor)
        return min(parts) >= 0 and sum(parts) == held_minor


@dataclass(frozen=True, slots=True)
class Statement:
    """What a party has said or shown; `role` is `seller` or `buyer`."""

    id: str
    dispute_id: str
    role: str
    user_id: str
    stated_at: datetime
    text: str | None = None
    files: tuple[StoredFile, ...] = ()


@dataclass(frozen=True, slots=True)
class Offer:
    """A split that a party has proposed. `outcome` says what became of it, None while it stands."""

    id: str
    dispute_id: str
    role: str
    split: Split
    offered_at: datetime
    outcome: str | None = None


def check_acceptance(offer: Offer | None, dispute: Dispute, held: Collection[Role]) -> Offer:
    """The offer, which whoever has these roles may accept now.

    Raises:
        OfferClosed: it is none of this dispute's, was replaced, or is over.
        OfferOwn: they made it themselves.
    """
    if offer is None or offer.dispute_id != dispute.id or offer.outcome is not None:
        raise OfferClosed
    if offer.role in held:
        raise OfferOwn
    return offer
