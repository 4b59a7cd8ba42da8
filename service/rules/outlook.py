"""What may happen to an escrow next: derived from the tables, by asking them.

Nothing here decides anything: each step is tried on the rules as the party would take it.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

from service.rules import proof
from service.rules.aggregate import Escrow, Person
from service.rules.clocks import running
from service.rules.errors import Refused
from service.rules.escrow import (
    DELIVERED,
    DISPUTED,
    FINAL,
    PENDING,
    STEPS,
    TABLE,
    choose,
)
from service.rules.machine import Actor, ActorKind, Role

PARTIES = (Role.SELLER, Role.BUYER)
NOBODY_YET = "0" * 24
"""Stands for the id of a party who has not registered."""


AGREED = frozenset({"resolve_dispute", "escalate_proof"})
"""What no party takes by itself: the one follows from accepting the other party's offer, the other
from asking for one correction too many."""


@dataclass(frozen=True, slots=True)
class Prospect:
    """A step that a party takes in this mode; `obstacle` is why not now."""

    step: str
    obstacle: Refused | None


def prospects(escrow: Escrow, role: Role) -> Iterator[Prospect]:
    """Every step of this party, in the table's order; as if they had registered."""
    seen = as_registered(escrow, role)
    actor = person(seen, role)
    for name in dict.fromkeys(
        row.name for row in STEPS if role in row.who and escrow.mode in row.modes
    ):
        if name in AGREED:
            continue
        yield Prospect(name, _obstacle(name, seen, actor))


def as_registered(escrow: Escrow, role: Role) -> Escrow:
    """The escrow as if this party had registered: the page sees to that before any step."""
    if role is Role.SELLER:
        return replace(escrow, seller=escrow.seller or _nobody(escrow.seller_email))
    return replace(escrow, buyer=escrow.buyer or _nobody(escrow.buyer_email))


def person(escrow: Escrow, role: Role) -> Actor:
    """This party as an actor; the party must be there (`as_registered`)."""
    user_id = escrow.seller_id if role is Role.SELLER else escrow.buyer_id
    return Actor(ActorKind.USER, user_id=user_id)


def _nobody(email: str) -> Person:
    return Person(id=NOBODY_YET, email=email, first_name="", last_name="")


def _obstacle(name: str, escrow: Escrow, actor: Actor) -> Refused | None:
    """Where a step leads to two states, it may be taken when it leads to either."""
    legal = TABLE.legal(escrow.status, escrow.mode)
    targets = {row.target for row in legal if row.name == name}
    try:
        choose(name, escrow, actor, min(targets) if len(targets) > 1 else None)
    except Refused as refusal:
        return refusal
    return None


def waits_for(escrow: Escrow) -> Role | None:
    """Who holds the matter; None once it is over. escrows.md 4, the states and their exits."""
    if escrow.status in FINAL:
        return None
    if escrow.frozen:
        return Role.OPERATOR
    if escrow.status == DISPUTED:
        return _judge(escrow)
    if escrow.has_pending_cancellation:
        return Role.SELLER
    if escrow.status in (PENDING, DELIVERED):
        return Role.BUYER
    if escrow.proof is not None:
        match escrow.proof.phase:
            case proof.REVIEW:
                return Role.BUYER
            case proof.OPERATOR:
                return Role.OPERATOR
    return Role.SELLER


def awaits(escrow: Escrow, role: Role) -> bool:
    """Whether it is this registered party's turn: all waits for them, or for time.

    As `waits_for`, but while pending each party signs for itself, and nobody pays a seller who has
    not registered. `awaits_seller` and `awaits_buyer` of schema.sql say the same.
    """
    if escrow.status == PENDING and not escrow.frozen:
        contract = escrow.contract
        if contract is not None:
            is_seller = role is Role.SELLER
            if (contract.seller_signed_at if is_seller else contract.buyer_signed_at) is None:
                return True
            if contract.seller_signed_at is None:
                return False
        return role is Role.BUYER and escrow.seller is not None
    return waits_for(escrow) is role


def _judge(escrow: Escrow) -> Role:
    """The other party while unheard, then the operator."""
    if "dispute_answer" in running(escrow) and escrow.dispute is not None:
        return Role.BUYER if escrow.dispute.opener == Role.SELLER else Role.SELLER
    return Role.OPERATOR
