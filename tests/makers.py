"""Arranging through the product's own commands: a shop, people with money, escrows in any state.

    shop = await make_shop(house)
    buyer = await make_buyer(house, funds="500")
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="delivered")

Everything that is made goes through `perform`, so a state that the product cannot reach yet is
refused here with a KeyError. Amounts are decimal strings in the currency's major unit.
"""

import secrets
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import orjson

from service.commands import (
    amendments,
    cancellations,
    contracts,
    deadlines,
    developers,
    disputes,
    escrows,
    proofs,
    users,
    wallets,
)
from service.commands.contracts import TYPED, Mark
from service.commands.perform import Command, House, perform, tend
from service.rules.aggregate import Escrow, Person
from service.rules.files import PDF, StoredFile
from service.rules.machine import SYSTEM, Actor, ActorKind
from service.rules.money import to_minor
from service.rules.terms import Terms
from service.store.clock import lease_clock, move_clock
from service.store.db import Transaction
from service.store.deadlines import Deadline
from service.store.escrows import read_escrow
from service.wire.base import Wire

_SIGNED = ("sellers_signature", "buyers_signature")
PATHS: dict[str, dict[str, tuple[str, ...]]] = {
    mode: {"pending": (), "cancelled": ("cancel",)}
    for mode in ("standard", "quick", "quick_proof", "instant")
}
PATHS["standard"] |= {
    "paid": (*_SIGNED, "pay"),
    "delivered": (*_SIGNED, "pay", "deliver"),
    "completed": (*_SIGNED, "pay", "deliver", "complete"),
    "disputed": (*_SIGNED, "pay", "buyers_dispute"),
}
PATHS["quick"] |= {
    "paid": ("pay",),
    "delivered": ("pay", "deliver"),
    "completed": ("pay", "deliver", "complete"),
    "disputed": ("pay", "buyers_dispute"),
}
PATHS["quick_proof"] |= {
    "paid": ("pay",),
    "delivered": ("pay", "submit_proof", "accept_proof", "deliver"),
    "completed": ("pay", "submit_proof", "accept_proof", "deliver", "complete"),
    "disputed": ("pay", "buyers_dispute"),
}
PATHS["instant"] |= {
    "paid": ("pay",),
    "completed": ("pay", "deliver"),
    "disputed": ("pay", "buyers_dispute"),
}
"""Mode and state -> the steps that lead there today."""

SELLER, BUYER, OPERATOR = "seller", "buyer", "operator"
_OF_SELLER: dict[str, Callable[[str], Command]] = {
    "sellers_signature": lambda escrow_id: contracts.sign(escrow_id, Mark(TYPED, name="S. Eller")),
    "deliver": escrows.deliver,
    "cancel": escrows.cancel,
    "update": lambda escrow_id: amendments.update(
        escrow_id, amendments.Changes(title="Another camera")
    ),
    "cancel_escrow": cancellations.cancel_paid,
    "accept_cancellation": cancellations.accept,
    "reject_cancellation": cancellations.reject,
    "sellers_dispute": lambda escrow_id: disputes.open_dispute(escrow_id, "I was not heard."),
    "sellers_withdrawal": disputes.withdraw,
    "sellers_answer": lambda escrow_id: disputes.answer(escrow_id, "It is one."),
    "submit_proof": lambda escrow_id: proofs.submit(escrow_id, [make_file()]),
}
_OF_BUYER: dict[str, Callable[[str], Command]] = {
    "buyers_signature": lambda escrow_id: contracts.sign(escrow_id, Mark(TYPED, name="Bo Y")),
    "pay": escrows.pay,
    "complete": escrows.complete,
    "reject_delivery": lambda escrow_id: escrows.reject_delivery(escrow_id, "It is broken."),
    "request_cancellation": lambda escrow_id: cancellations.request(escrow_id, "Too late."),
    "buyers_dispute": lambda escrow_id: disputes.open_dispute(escrow_id, "It is not a camera."),
    "buyers_withdrawal": disputes.withdraw,
    "buyers_answer": lambda escrow_id: disputes.answer(escrow_id, "You were."),
    "accept_proof": proofs.accept,
    "request_correction": lambda escrow_id: proofs.request_correction(escrow_id, "Unreadable."),
}
_OF_OPERATOR: dict[str, Callable[[str], Command]] = {
    "to_seller": lambda escrow_id: disputes.resolve(escrow_id, "seller"),
    "to_buyer": lambda escrow_id: disputes.resolve(escrow_id, "buyer"),
    "proof_accepted": lambda escrow_id: proofs.decide(escrow_id, accepts=True),
    "proof_rejected": lambda escrow_id: proofs.decide(escrow_id, accepts=False),
}
STEPS: dict[str, tuple[str, Callable[[str], Command]]] = {
    name: (who, command)
    for who, of in ((SELLER, _OF_SELLER), (BUYER, _OF_BUYER), (OPERATOR, _OF_OPERATOR))
    for name, command in of.items()
}
"""A step that somebody takes here -> who, and the command."""

PROOF_POLICY = {
    "type": "purchase_proof_required",
    "proofUploadDeadlineHours": 24,
    "buyerReviewDeadlineHours": 24,
}


def make_file(filename: str = "receipt.pdf") -> StoredFile:
    """A file that a door has stored, as far as a command can tell."""
    return StoredFile(secrets.token_hex(32), PDF, 1_000, "ab" * 32, filename)


async def jump(house: House, ahead: timedelta) -> None:
    """Business time moves on, and nobody has swept yet."""
    holder = uuid4()

    async def move(tx: Transaction) -> None:
        assert await lease_clock(tx, holder, timedelta(seconds=30))
        assert await move_clock(tx, holder, tx.now + ahead, timedelta())

    await tend(house, move)


async def advance(house: House, to: datetime) -> list[Deadline]:
    """The sandbox's clock moves to `to`, through what is due; what was fired."""
    async with deadlines.holding_clock(house) as holder:
        fired = await deadlines.advance(house, holder, to)
        await tend(house, deadlines.move(holder, to))
        return fired


class Done(Wire):
    """The answer of an arrangement that nobody reads."""


@dataclass(frozen=True)
class Buyer:
    """A registered user, as an actor."""

    user_id: str
    email: str

    @property
    def actor(self) -> Actor:
        return user_actor(self.user_id)


@dataclass(frozen=True)
class Shop:
    """A developer with a key, and the user that sells."""

    developer_id: str
    api_key: str
    user_id: str
    email: str

    @property
    def actor(self) -> Actor:
        return Actor(ActorKind.DEVELOPER, developer_id=self.developer_id, user_id=self.user_id)

    @property
    def headers(self) -> dict[str, str]:
        return {"X-API-Key": self.api_key}


async def act(house: House, actor: Actor, command: Command) -> Any:
    """Carry one command out as this actor; its answer, parsed."""
    return orjson.loads((await perform(house, actor, command)).body)


async def arrange(
    house: House, work: Callable[[Transaction], Awaitable[Any]], actor: Actor = SYSTEM
) -> Any:
    """Carry command functions out in one transaction of `perform`; what `work` returns."""
    made: list[Any] = []

    async def command(tx: Transaction) -> Done:
        made[:] = [await work(tx)]
        return Done()

    await perform(house, actor, command)
    return made[0]


async def make_shop(house: House, email: str | None = None, company: str = "Shop") -> Shop:
    """A developer whose associated user sells."""
    email = email or f"shop-{secrets.token_hex(4)}@example.com"
    made = await arrange(
        house, lambda tx: developers.enrol(tx, email, company, user_email=f"seller-{email}")
    )
    return Shop(made.developer_id, made.api_key, made.user_id, f"seller-{email}")


async def make_buyer(house: House, email: str | None = None, funds: str = "1000") -> Buyer:
    """A registered user with `funds` TND in the wallet."""
    email = email or f"buyer-{secrets.token_hex(4)}@example.com"
    person: Person = (await arrange(house, lambda tx: users.register(tx, email, "Bo", "Y"))).person
    await top_up(house, email, funds)
    return Buyer(person.id, email)


async def top_up(house: House, email: str, amount: str, currency: str = "TND") -> None:
    """Money for a wallet; nothing for 0."""
    minor = to_minor(Decimal(amount), currency)
    if minor:
        await arrange(house, lambda tx: wallets.top_up(tx, email, minor, currency))


def make_terms(shop: Shop, buyer_email: str, mode: str = "instant", **changes: Any) -> Terms:
    """Legal terms of 100 TND in this mode; `changes` are fields of `Terms`."""
    sound: dict[str, Any] = {
        "title": "A camera",
        "amount": Decimal(100),
        "currency": "TND",
        "buyer_email": buyer_email,
        "seller_email": shop.email if mode in ("quick", "quick_proof") else None,
        "mode": "quick" if mode == "quick_proof" else mode,
        "estimated_delivery_days": 3,
        "contract_terms": "As described." if mode == "standard" else None,
        "auto_sign": False,
        "developer_fee_bps": 0,
        "fulfillment_policy": PROOF_POLICY if mode == "quick_proof" else None,
        "language": "en",
        "auto_complete": "manual",
    }
    return Terms(**{**sound, **changes})


async def make_escrow(
    house: House,
    shop: Shop,
    buyer: Buyer | None = None,
    *,
    mode: str = "instant",
    status: str = "pending",
    then: tuple[str, ...] = (),
    **changes: Any,
) -> Escrow:
    """An escrow of this shop, brought to `status` step by step, and `then` on by these steps.

    `changes` are fields of `Terms`. Without a buyer one is made, with 1000 TND.
    """
    steps = PATHS[mode][status]
    buyer = buyer or await make_buyer(house)
    terms = make_terms(shop, changes.pop("buyer_email", buyer.email), mode, **changes)
    created = await act(house, shop.actor, escrows.create(shop.developer_id, terms))
    escrow_id: str = created["escrow"]["id"]
    return await bring_on(house, shop, escrow_id, *steps, *then)


async def bring_on(house: House, shop: Shop, escrow_id: str, *steps: str) -> Escrow:
    """The escrow after these steps of `STEPS`, each by whoever takes it; the shop by its key."""
    escrow = await reread(house, escrow_id)
    actors = {
        SELLER: shop.actor if escrow.seller_id == shop.user_id else user_actor(escrow.seller_id),
        BUYER: user_actor(escrow.buyer_id),
        OPERATOR: Actor(ActorKind.OPERATOR),
    }
    for name in steps:
        who, command = STEPS[name]
        await act(house, actors[who], command(escrow_id))
    return await reread(house, escrow_id)


def user_actor(user_id: str | None) -> Actor:
    """The registered person, at no door in particular."""
    return Actor(ActorKind.USER, user_id=user_id)


async def reread(house: House, escrow_id: str) -> Escrow:
    """The escrow as it stands now."""
    escrow = await read_escrow(house.pool, escrow_id)
    assert escrow is not None, escrow_id
    return escrow
