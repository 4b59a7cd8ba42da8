"""Arranging milestone escrows through the product's own commands.

    crew = await make_crew(house)
    escrow = await make_milestones(house, crew, amounts=("60", "40"))       # multi
    escrow = await make_milestones(house, crew, amount="100", count=2)      # single

Amounts are decimal strings in the currency's major unit.
"""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from service.commands import milestones
from service.commands.perform import Command, House
from service.rules.engagement import MULTI, ROLES, SINGLE, MilestoneEscrow
from service.rules.machine import Actor, Role
from service.rules.milestone_said import StatusChange
from service.rules.milestone_terms import MilestoneTerms, Terms
from service.rules.money import to_minor
from service.store.milestones import read_milestone_escrow
from service.wire.milestones import DistributionGiven
from tests.makers import Buyer, Shop, act, make_buyer, make_shop, top_up, user_actor


@dataclass(frozen=True)
class Crew:
    """A developer, a user for each role, a payer with money, and a stranger."""

    shop: Shop
    people: dict[Role, Buyer]
    payer: Buyer
    stranger: Buyer

    def actor(self, role: Role) -> Actor:
        """Whoever holds this role."""
        return self.people[role].actor

    def email(self, role: Role) -> str:
        """Their e-mail."""
        return self.people[role].email


async def make_crew(house: House, currency: str = "USDC", funds: str = "1000000") -> Crew:
    """Seven people, of whom the payer has money in this currency."""
    shop = await make_shop(house)
    tag = secrets.token_hex(3)
    people = {
        role: await make_buyer(house, f"{role.value.replace('_', '-')}-{tag}@example.com", "0")
        for role in ROLES
    }
    payer = await make_buyer(house, f"payer-{tag}@example.com", "0")
    await top_up(house, payer.email, funds, currency)
    stranger = await make_buyer(house, f"stranger-{tag}@example.com", "0")
    return Crew(shop, people, payer, stranger)


def make_milestone_terms(
    crew: Crew,
    *,
    amount: str | None = None,
    amounts: Sequence[str] = (),
    count: int = 1,
    currency: str = "USDC",
    receivers: Sequence[str | None] = (),
    **changes: Any,
) -> Terms:
    """Legal terms: single release of `amount` over `count` milestones, or multi of `amounts`."""
    is_single = amount is not None
    if is_single:
        parts = [MilestoneTerms(f"Part {n}") for n in range(count)]
    else:
        to = [*receivers, *(None for _ in amounts)]
        parts = [
            MilestoneTerms(f"Part {n}", to_minor(Decimal(one), currency), to[n])
            for n, one in enumerate(amounts)
        ]
    sound: dict[str, Any] = {
        "release_mode": SINGLE if is_single else MULTI,
        "engagement_id": "job-17",
        "title": "A website",
        "description": "Three pages.",
        "currency": currency,
        "amount_minor": to_minor(Decimal(amount), currency) if amount is not None else None,
        "platform_fee_bps": 500,
        "roles": {role: crew.email(role) for role in ROLES},
        "milestones": tuple(parts),
    }
    return Terms(**{**sound, **changes})


async def make_milestones(
    house: House, crew: Crew, *, funded: str = "0", **asked: Any
) -> MilestoneEscrow:
    """A milestone escrow of these terms, funded with so much by the crew's payer."""
    terms = make_milestone_terms(crew, **asked)
    made = await act(house, crew.shop.actor, milestones.create(crew.shop.developer_id, terms))
    escrow_id: str = made["escrow"]["id"]
    if Decimal(funded):
        await fund(house, crew, escrow_id, funded)
    return await look(house, escrow_id)


async def fund(house: House, crew: Crew, escrow_id: str, amount: str) -> None:
    """The crew's payer pays so much in."""
    await act(house, crew.payer.actor, milestones.fund(escrow_id, Decimal(amount)))


async def approve(house: House, crew: Crew, escrow_id: str, *indexes: int) -> None:
    """The approver accepts these."""
    await act(house, crew.actor(Role.APPROVER), milestones.approve(escrow_id, indexes))


async def release(house: House, crew: Crew, escrow_id: str, *indexes: int) -> Any:
    """The signer releases these, or all in single release."""
    command = milestones.release(escrow_id, indexes or None)
    return await act(house, crew.actor(Role.RELEASE_SIGNER), command)


async def dispute(house: House, crew: Crew, escrow_id: str, *indexes: int) -> None:
    """The provider disputes these, or all in single release."""
    command = milestones.dispute(escrow_id, "It is not what we agreed.", indexes or None)
    await act(house, crew.actor(Role.SERVICE_PROVIDER), command)


def shares(*given: tuple[str, str]) -> list[DistributionGiven]:
    """(e-mail, amount) as a body's distributions."""
    return [DistributionGiven(email=email, amount=Decimal(amount)) for email, amount in given]


async def resolve(
    house: House, crew: Crew, escrow_id: str, *given: tuple[str, str], index: int | None = None
) -> None:
    """The resolver distributes."""
    command = milestones.resolve(escrow_id, shares(*given), index)
    await act(house, crew.actor(Role.DISPUTE_RESOLVER), command)


def status(escrow_id: str, index: int, text: str = "done") -> Command:
    """The command by which one milestone's status is changed."""
    return milestones.change_status(escrow_id, [StatusChange(index, text)])


async def look(house: House, escrow_id: str) -> MilestoneEscrow:
    """The escrow as it stands now."""
    escrow = await read_milestone_escrow(house.pool, escrow_id)
    assert escrow is not None, escrow_id
    return escrow


async def as_user(house: House, user_id: str, command: Command) -> Any:
    """Carry the command out as this user."""
    return await act(house, user_actor(user_id), command)
