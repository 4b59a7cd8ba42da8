"""An escrow as the rules see it, in any mode and status, with consistent books. No database."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

from service.rules.escrow import PROOF, STANDARD, Contract, Escrow, Person
from service.rules.machine import CLOCK, SYSTEM, Actor, ActorKind, Role

PROOF_POLICY = {"type": "purchase_proof_required", "proofUploadDeadlineHours": 24}
NOW = datetime(2026, 3, 14, 9, 26, 53, 589793, tzinfo=UTC)
SELLER = Person("5e11e7" + "0" * 18, "seller@example.com", "Sana", "Seller")
BUYER = Person("b0e7" + "0" * 20, "buyer@example.com", "Bilel", "Buyer")
CREATOR_ID = "c7ea" + "0" * 20
STRANGER_ID = "57a9" + "0" * 20

ACTORS: dict[Role, Actor] = {
    Role.SELLER: Actor(ActorKind.USER, user_id=SELLER.id),
    Role.BUYER: Actor(ActorKind.USER, user_id=BUYER.id),
    Role.CREATOR: Actor(ActorKind.DEVELOPER, developer_id=CREATOR_ID),
    Role.OPERATOR: Actor(ActorKind.OPERATOR),
    Role.CLOCK: CLOCK,
    Role.SYSTEM: SYSTEM,
}
"""One actor for each role that an actor can stand in to an escrow that exists."""

STRANGER = Actor(ActorKind.DEVELOPER, developer_id=STRANGER_ID, user_id=STRANGER_ID)


def make_sample(
    mode: str = "instant",
    status: str = "pending",
    *,
    amount: int = 100_000,
    escrow_fee: int = 5_000,
    developer_fee: int = 0,
    **changes: Any,
) -> Escrow:
    """An escrow of `amount` millimes; funded states hold it, final ones have paid it out."""
    created = NOW - timedelta(days=2)
    escrow = Escrow(
        id="e5c7" + "0" * 20,
        mode=mode,
        status=status,
        creator_id=CREATOR_ID,
        seller_email=SELLER.email,
        buyer_email=BUYER.email,
        title="A camera",
        currency="TND",
        ledger_currency="TND",
        amount_minor=amount,
        fx_rate=Decimal(1),
        amount_ledger_minor=amount,
        escrow_fee_minor=escrow_fee,
        estimated_delivery_days=3,
        created_at=created,
        updated_at=created,
        seller=SELLER,
        buyer=BUYER,
        seq=4,
        developer_fee_minor=developer_fee,
        developer_fee_user_id=STRANGER_ID if developer_fee else None,
        fulfillment_policy=PROOF_POLICY if mode == PROOF else None,
        contract=Contract("c0" * 12, "As described.", created, created)
        if mode == STANDARD
        else None,
    )
    return replace(_in_state(escrow, created + timedelta(days=1)), **changes)


def _in_state(escrow: Escrow, then: datetime) -> Escrow:
    amount = escrow.amount_ledger_minor
    match escrow.status:
        case "paid":
            return replace(escrow, paid_at=then, funded_minor=amount, held_minor=amount)
        case "delivered" | "disputed":
            return replace(
                escrow, paid_at=then, delivered_at=then, funded_minor=amount, held_minor=amount
            )
        case "completed":
            fees = escrow.escrow_fee_minor + escrow.developer_fee_minor
            return replace(
                escrow,
                paid_at=then,
                delivered_at=then,
                completed_at=then,
                funded_minor=amount,
                released_minor=amount - fees,
                fees_minor=fees,
            )
        case "cancelled":
            return replace(escrow, cancelled_at=then, cancel_reason="seller")
    return escrow
