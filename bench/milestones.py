"""Claim: a command of the milestone family takes < 1.3 x the first family's corresponding one.

Both by `perform` on the same pool, one at a time and by turns, so that both see the same machine:
a quick escrow between seller and buyer, and a single release over three milestones between six
people, one a role, all of them registered; then multi release, one milestone a command. Each family
pays two fees: the developer's, or the platform's, of 5 %, and ours. The floor is one bare
transaction of an UPDATE and an INSERT.
"""

import time
from collections import defaultdict
from dataclasses import dataclass
from decimal import Decimal
from statistics import median
from typing import Any

import asyncpg
import orjson

from bench.ground import Ground
from bench.report import Finding, at_most, told
from bench.shop import open_shop
from service.cli.house import open_house
from service.commands import disputes, escrows, milestones, users, wallets
from service.commands.perform import Command, House, perform
from service.rules.engagement import MULTI, ROLES, SINGLE
from service.rules.machine import SYSTEM, Actor, ActorKind, Role
from service.rules.milestone_said import StatusChange
from service.rules.milestone_terms import MilestoneTerms
from service.rules.milestone_terms import Terms as MilestoneEscrowTerms
from service.rules.terms import Terms
from service.store.db import Transaction
from service.store.users import read_user
from service.wire.milestones import DistributionGiven

ROUNDS, WARM_UP = 40, 6
MILESTONES = 3
AMOUNT = Decimal(100)
FUNDS_MINOR = 900_000_000_000
FEE_BPS = 500
MOST = 1.3
OPERATOR = Actor(ActorKind.OPERATOR)

MAKE_FLOOR = """
CREATE TABLE bench_step (id int PRIMARY KEY, seq int NOT NULL);
CREATE TABLE bench_event (seq serial, row text NOT NULL);
INSERT INTO bench_step VALUES (1, 0);
"""

PAIRS = (
    ("create", "create"),
    ("fund", "pay"),
    ("change status", "deliver"),
    ("approve", "deliver"),
    ("release", "complete"),
    ("dispute", "open dispute"),
    ("resolve dispute", "resolve dispute"),
    ("multi: create", "create"),
    ("multi: fund", "pay"),
    ("multi: approve one", "deliver"),
    ("multi: release one", "complete"),
    ("multi: dispute one", "open dispute"),
    ("multi: resolve one", "resolve dispute"),
)
"""A command of the milestone family -> the first family's that does most alike."""

Spent = defaultdict[str, list[float]]


@dataclass(frozen=True)
class Crew:
    """Who acts: the developer; seller and buyer of the first family; who holds which role."""

    developer: Actor
    seller: Actor
    buyer: Actor
    developer_id: str
    emails: dict[Role, str]
    actors: dict[Role, Actor]


async def measure(ground: Ground) -> list[Finding]:
    """Lives of both families and the floor, by turns; each command's median."""
    shop = await open_shop(ground, "milestones")
    owner = await ground.owner()
    await owner.execute(MAKE_FLOOR)
    async with open_house(ground.settings) as house:
        crew = await _crew(house, shop.developer_id)
        for rounds, is_kept in ((WARM_UP, False), (ROUNDS, True)):
            ours, others, floor = defaultdict(list), defaultdict(list), list[float]()
            for _ in range(rounds):
                await _first_family(house, crew, others)
                await _milestone_family(house, crew, ours)
                await _multi_release(house, crew, ours)
                floor.append(await _bare(owner))
            if is_kept:
                break
    await owner.close()
    bare_ms = 1000 * median(floor)
    return [_found(name, like, ours, others) for name, like in PAIRS] + [
        told("… withdraw remaining", f"{_ms(ours['withdraw']):.1f} ms", f"{bare_ms:.1f} ms bare")
    ]


def _found(name: str, like: str, ours: Spent, others: Spent) -> Finding:
    a, b = _ms(ours[name]), _ms(others[like])
    claim = f"milestones: {name} / {like}"
    return at_most(claim, f"{a:.1f} ms", f"{b:.1f} ms", a / b, MOST)


def _ms(seconds: list[float]) -> float:
    return 1000 * median(seconds)


async def _timed(
    house: House, actor: Actor, command: Command, spent: Spent, name: str
) -> dict[str, Any]:
    began = time.perf_counter()
    answer = await perform(house, actor, command)
    spent[name].append(time.perf_counter() - began)
    found: dict[str, Any] = orjson.loads(answer.body)
    return found


async def _bare(owner: "asyncpg.Connection[asyncpg.Record]") -> float:
    began = time.perf_counter()
    async with owner.transaction():
        await owner.execute("UPDATE bench_step SET seq = seq + 1 WHERE id = 1")
        await owner.execute("INSERT INTO bench_event (row) VALUES ($1)", "x" * 1000)
    return time.perf_counter() - began


# ---- The two families ---------------------------------------------------------------------------


async def _first_family(house: House, crew: Crew, spent: Spent) -> None:
    """One that completes, one that is disputed and resolved."""

    async def take(actor: Actor, command: Command, name: str) -> dict[str, Any]:
        return await _timed(house, actor, command, spent, name)

    for is_disputed in (False, True):
        made = await take(crew.developer, escrows.create(crew.developer_id, _terms(crew)), "create")
        escrow_id = made["escrow"]["id"]
        await take(crew.buyer, escrows.pay(escrow_id), "pay")
        await take(crew.seller, escrows.deliver(escrow_id), "deliver")
        if is_disputed:
            await take(crew.buyer, disputes.open_dispute(escrow_id, "No."), "open dispute")
            await take(OPERATOR, disputes.resolve(escrow_id, "seller"), "resolve dispute")
        else:
            await take(crew.buyer, escrows.complete(escrow_id), "complete")


async def _milestone_family(house: House, crew: Crew, spent: Spent) -> None:
    """One over-funded, released and emptied, one that is disputed and resolved."""

    async def take(role: Role, command: Command, name: str) -> dict[str, Any]:
        return await _timed(house, crew.actors[role], command, spent, name)

    for is_disputed in (False, True):
        create = milestones.create(crew.developer_id, _milestone_terms(crew))
        made = await _timed(house, crew.developer, create, spent, "create")
        escrow_id = made["escrow"]["id"]
        amount = AMOUNT if is_disputed else AMOUNT + 1
        await take(Role.APPROVER, milestones.fund(escrow_id, amount), "fund")
        done = milestones.change_status(escrow_id, [StatusChange(0, "done")])
        await take(Role.SERVICE_PROVIDER, done, "change status")
        approve = milestones.approve(escrow_id, range(MILESTONES))
        await take(Role.APPROVER, approve, "approve")
        if is_disputed:
            await take(Role.SERVICE_PROVIDER, milestones.dispute(escrow_id, "No."), "dispute")
            parts = _parts(crew, AMOUNT)
            resolve = milestones.resolve(escrow_id, parts)
            await take(Role.DISPUTE_RESOLVER, resolve, "resolve dispute")
        else:
            await take(Role.RELEASE_SIGNER, milestones.release(escrow_id), "release")
            withdraw = milestones.withdraw_remaining(escrow_id, _parts(crew, Decimal(1)))
            await take(Role.DISPUTE_RESOLVER, withdraw, "withdraw")


async def _multi_release(house: House, crew: Crew, spent: Spent) -> None:
    """One milestone is released, one is disputed and resolved, one is left."""

    async def take(role: Role, command: Command, name: str) -> None:
        await _timed(house, crew.actors[role], command, spent, f"multi: {name}")

    create = milestones.create(crew.developer_id, _milestone_terms(crew, is_single=False))
    made = await _timed(house, crew.developer, create, spent, "multi: create")
    escrow_id = made["escrow"]["id"]
    await take(Role.APPROVER, milestones.fund(escrow_id, AMOUNT * MILESTONES), "fund")
    await take(Role.APPROVER, milestones.approve(escrow_id, [0]), "approve one")
    await take(Role.RELEASE_SIGNER, milestones.release(escrow_id, [0]), "release one")
    await take(Role.SERVICE_PROVIDER, milestones.dispute(escrow_id, "No.", [1]), "dispute one")
    resolve = milestones.resolve(escrow_id, _parts(crew, AMOUNT), 1)
    await take(Role.DISPUTE_RESOLVER, resolve, "resolve one")


def _parts(crew: Crew, amount: Decimal) -> list[DistributionGiven]:
    return [DistributionGiven(email=crew.emails[Role.RECEIVER], amount=amount)]


def _terms(crew: Crew) -> Terms:
    return Terms(
        title="A camera",
        amount=AMOUNT,
        currency="TND",
        buyer_email=crew.emails[Role.APPROVER],
        seller_email=crew.emails[Role.RECEIVER],
        mode="quick",
        estimated_delivery_days=3,
        contract_terms=None,
        auto_sign=False,
        developer_fee_bps=FEE_BPS,
        fulfillment_policy=None,
        language="en",
        auto_complete="manual",
    )


def _milestone_terms(crew: Crew, *, is_single: bool = True) -> MilestoneEscrowTerms:
    """Single release of the amount, or multi release of so much for each milestone."""
    minor = int(AMOUNT * 1000)
    return MilestoneEscrowTerms(
        release_mode=SINGLE if is_single else MULTI,
        engagement_id="job-1",
        title="A website",
        description="",
        currency="TND",
        amount_minor=minor if is_single else None,
        platform_fee_bps=FEE_BPS,
        roles=crew.emails,
        milestones=tuple(
            MilestoneTerms(f"Part {n}", None if is_single else minor) for n in range(MILESTONES)
        ),
    )


# ---- Who acts -----------------------------------------------------------------------------------


async def _crew(house: House, developer_id: str) -> Crew:
    """A user for each role: the first family's seller receives, its buyer pays and approves.

    The developer's user gets the fee of both families.
    """
    own, buyer = "milestones@seller.example", "milestones@buyer.example"
    others = {
        role: f"{role.value.replace('_', '-')}@bench.example"
        for role in ROLES
        if role not in (Role.APPROVER, Role.PLATFORM)
    }
    emails = {**others, Role.APPROVER: buyer, Role.PLATFORM: own}

    async def register(tx: Transaction) -> DistributionGiven:
        for email in others.values():
            await users.register(tx, email, "Some", "Body")
        await wallets.top_up(tx, buyer, FUNDS_MINOR, "TND")
        return DistributionGiven(email=buyer, amount=Decimal(0))

    await perform(house, SYSTEM, register)
    ids = await _ids(house, tuple(emails.values()))
    actors = {role: Actor(ActorKind.USER, user_id=ids[email]) for role, email in emails.items()}
    return Crew(
        Actor(ActorKind.DEVELOPER, developer_id=developer_id, user_id=ids[own]),
        actors[Role.RECEIVER],
        actors[Role.APPROVER],
        developer_id,
        emails,
        actors,
    )


async def _ids(house: House, emails: tuple[str, ...]) -> dict[str, str]:
    found = {}
    for email in emails:
        user = await read_user(house.pool, email)
        if user is None:
            raise RuntimeError(f"{email} is not registered")
        found[email] = user.person.id
    return found
