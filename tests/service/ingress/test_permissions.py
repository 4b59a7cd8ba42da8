"""Who may do what: every route that is served x every kind of caller -> what is answered.

Law: TABLE is written by hand from escrows.md 2 and 3 and knows nothing of how a route is guarded;
a route that is served and has no row here fails. Whoever is let in is answered with the status of
success, so each row also shows that the request itself is sound: a refused one was refused for
who sent it, and has changed nothing.
"""

import hashlib
import re
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from http import HTTPStatus
from typing import Any

import aiohttp
import asyncpg
import orjson
import pytest
import pytest_asyncio
from aiohttp import web

from service.commands import (
    attempts,
    developers,
    disputes,
    endpoints,
    escrows,
    identity,
    payments,
    proofs,
    sessions,
    users,
)
from service.commands import milestones as milestone_commands
from service.commands.charges import HouseBook
from service.commands.developers import Enrolled
from service.commands.payments import Wish
from service.commands.perform import House
from service.gateways.payments.provider import Order
from service.gateways.payments.sandbox import SandboxProvider
from service.ingress.connection import Runner
from service.ingress.main import make_app
from service.ingress.routes import routes
from service.rules.machine import Actor, ActorKind, Role
from service.rules.milestone_terms import MilestoneTerms
from service.rules.milestone_terms import Terms as MilestoneTermsOfAll
from service.rules.payment import BANK_TRANSFER, TOPUP
from service.rules.payment import SANDBOX as SANDBOX_PROVIDER
from service.rules.policy import Policy
from service.settings import Settings
from service.store.db import Transaction
from service.store.endpoints import read_endpoints
from service.store.vault import hash_token
from service.wire.identity import NewVerification
from service.wire.sessions import NewSession
from service.wire.webhooks import WebhookCreate
from tests.house import SECRET_KEY
from tests.makers import Shop, act, arrange, make_file, make_terms, top_up, user_actor
from tests.outbox import tokens_of
from tests.pictures import PICTURES, data_uri

MALFORMED_ID, UNKNOWN_ID = "0123456789ABCDEF01234567", "0" * 24
UNKNOWN_SESSION = "00000000-0000-4000-8000-000000000000"
TITLE, HOOK = "A camera that nobody else hears of", "https://hooks.example/inbox"
SECRETS = re.compile(rf"{TITLE}|{HOOK}|@(users|dev|new)\.example")
"""What no refusal may tell to anybody."""
METHODS = frozenset({"GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE"})


# ---- Who asks -----------------------------------------------------------------------------------

KEYLESS = {
    "no key": "Send your API key",
    "malformed": "not an API key",
    "other environment": "use your sandbox key",
    "unknown": "unknown",
    "deleted": "unknown",
    "revoked": "deactivated",
    "expired": "expired",
    "operator": "",  # `ok_…` opens the console's API, not this one
}
"""Callers without a key that may be used, and what the 401 tells them."""

DEVELOPERS = ("unassociated", "stranger", "creator", "seller", "buyer", "ownerless")
"""`creator` has made the escrow between others, so has `ownerless`, whose user is nobody;
`stranger` has a user who is no party; `unassociated` has neither."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def owner(migrated: Settings) -> AsyncIterator[asyncpg.Connection]:
    """The owner's connection, one for all rows."""
    connection = await asyncpg.connect(migrated.admin_url)
    yield connection
    await connection.close()


@pytest.fixture(scope="module")
def app(migrated: Settings) -> web.Application:
    """The sandbox's ingress, as it is served."""
    return make_app(migrated)


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(app: web.Application) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of it, one for all rows."""
    async with listening(app) as url, aiohttp.ClientSession(url) as session:
        yield session


@asynccontextmanager
async def listening(app: web.Application) -> AsyncIterator[str]:
    """The application on a free port; gives its base URL."""
    runner = Runner(app, access_log=None, shutdown_timeout=2)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        yield f"http://127.0.0.1:{runner.addresses[0][1]}"
    finally:
        await runner.cleanup()


@pytest.fixture
async def live(migrated: Settings) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of a live ingress, over the sandbox's database."""
    settings = migrated.model_copy(
        update={
            "amana_env": "live",
            "rate_limit_per_minute": 1_000_000,  # other tests share the window of this address
            "webhook_allow_private": False,
        }
    )
    async with listening(make_app(settings)) as url, aiohttp.ClientSession(url) as session:
        yield session


@dataclass
class World:
    """The house, who is at its door with which headers, and the people behind them."""

    house: House
    headers: dict[str, dict[str, str]]
    enrolled: dict[str, Enrolled]

    def actor(self, who: str) -> Actor:
        """This developer at the API."""
        one = self.enrolled[who]
        return Actor(ActorKind.DEVELOPER, developer_id=one.developer_id, user_id=one.user_id)


@pytest.fixture
async def world(house: House, owner: asyncpg.Connection) -> World:
    """A clean house with every kind of caller."""
    seen: dict[str, Any] = {}

    async def people(tx: Transaction) -> None:
        for who in DEVELOPERS:
            user = None if who in ("unassociated", "ownerless") else f"{who}@users.example"
            seen[who] = await developers.enrol(tx, f"{who}@dev.example", who, user_email=user)
        creator = seen["creator"].developer_id
        for who in ("deleted", "revoked", "expired"):
            seen[who] = await developers.add_key(tx, creator, who)
        ids = {row["name"]: row["id"] for row in await tx.fetch("SELECT name, id FROM api_key")}
        await developers.revoke_key(tx, ids["revoked"])
        await developers.rotate_key(tx, ids["expired"], timedelta(days=1))

    await arrange(house, people)
    await owner.execute("DELETE FROM api_key WHERE name = 'deleted'")
    await owner.execute(
        "UPDATE api_key SET expires_at = now() WHERE hash = $1", hash_token(seen["expired"])
    )
    await top_up(house, "buyer@users.example", "1000")
    genuine = seen["creator"].api_key
    keys = {
        "malformed": genuine[:-1],
        "other environment": genuine.replace("sk_sandbox_", "sk_live_"),
        "unknown": genuine[:-64] + genuine[-64:][::-1],
        "operator": await operators_key(owner, "ok_" + "5" * 64),
        **{who: seen[who] for who in ("deleted", "revoked", "expired")},
        **{who: seen[who].api_key for who in DEVELOPERS},
    }
    headers = {who: {"Authorization": f"Bearer {key}"} for who, key in keys.items()}
    return World(house, {"no key": {}, **headers}, {who: seen[who] for who in DEVELOPERS})


async def operators_key(owner: asyncpg.Connection, key: str) -> str:
    """A key of an operator's own; nothing in the product makes one yet."""
    operator_id = hashlib.sha256(key.encode()).hexdigest()[:24]
    await owner.execute(
        "INSERT INTO operator VALUES ($1, $2, now())", operator_id, f"{operator_id}@ops.example"
    )
    await owner.execute(
        "INSERT INTO api_key (id, operator_id, name, prefix, hash, environment, created_at)"
        " VALUES ($1, $1, 'console', $2, $3, 'sandbox', now())",
        operator_id,
        key[:16],
        hash_token(key),
    )
    return key


# ---- What is asked ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """The rest of a request: what fills the path's braces, the JSON body (or `raw`), the query.

    `headers` are those that the request is signed with.
    """

    path: Mapping[str, str] = field(default_factory=dict)
    json: object = None
    query: Mapping[str, str] = field(default_factory=dict)
    raw: bytes | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


Asking = Callable[[World, str], Awaitable[Asked]]
"""Arranges a fresh sound request for this developer's row."""


def plain(json: object = None, query: Mapping[str, str] | None = None, **path: str) -> Asking:
    """The same request for everybody."""

    async def asking(_world: World, _who: str) -> Asked:
        return Asked(path, json, query or {})

    return asking


NOTHING = plain()


def by_name(make: Callable[[str], object]) -> Asking:
    """A body that names the caller, so that no two are alike."""

    async def asking(_world: World, who: str) -> Asked:
        return Asked({}, make(who))

    return asking


def at_escrow(mode: str = "quick", status: str = "pending", json: object = None) -> Asking:
    """An escrow between the seller and the buyer, made by the creator or by `ownerless`."""

    async def asking(world: World, who: str) -> Asked:
        maker = "ownerless" if who == "ownerless" else "creator"
        return Asked({"id": await make_escrow(world, maker, mode, status)}, json)

    return asking


async def make_escrow(world: World, maker: str, mode: str, status: str) -> str:
    """The id of an escrow in this status that this developer made between others."""
    house, made = world.house, world.enrolled[maker]
    seller = Shop(made.developer_id, "", "", "seller@users.example")
    terms = make_terms(seller, "buyer@users.example", mode, seller_email=seller.email, title=TITLE)
    created = await act(house, world.actor(maker), escrows.create(made.developer_id, terms))
    escrow_id: str = created["escrow"]["id"]
    if status != "pending":
        await act(house, world.actor("buyer"), escrows.pay(escrow_id))
    if status == "delivered":
        await act(house, world.actor("seller"), escrows.deliver(escrow_id))
    if status == "disputed":
        await act(house, world.actor("buyer"), disputes.open_dispute(escrow_id, "It is late."))
    if status == "undecided":
        for _ in range(4):
            await act(house, world.actor("seller"), proofs.submit(escrow_id, [make_file()]))
            await act(house, world.actor("buyer"), proofs.request_correction(escrow_id, "No."))
    return escrow_id


MILESTONE_ROLES = {
    Role.APPROVER: "buyer", Role.RELEASE_SIGNER: "buyer", Role.SERVICE_PROVIDER: "seller",
    Role.RECEIVER: "seller", Role.PLATFORM: "seller", Role.DISPUTE_RESOLVER: "creator",
}  # fmt: skip
"""Who holds which role in the milestone escrow of the table."""


def milestone_terms() -> MilestoneTermsOfAll:
    """A website for 100 TND in one payout."""
    return MilestoneTermsOfAll(
        release_mode="single",
        engagement_id="job-17",
        title=TITLE,
        description="",
        currency="TND",
        amount_minor=100_000,
        platform_fee_bps=0,
        roles={role: f"{who}@users.example" for role, who in MILESTONE_ROLES.items()},
        milestones=(MilestoneTerms("The design"),),
    )


def at_milestones(
    *done: str, json: object = None, listed: bool = False, index: str | None = None
) -> Asking:
    """A milestone escrow after these steps, made by the creator or by `ownerless`."""

    async def asking(world: World, who: str) -> Asked:
        maker = "ownerless" if who == "ownerless" else "creator"
        made = world.enrolled[maker].developer_id
        command = milestone_commands.create(made, milestone_terms())
        created = await act(world.house, world.actor(maker), command)
        escrow_id: str = created["escrow"]["id"]
        steps = {
            "fund": ("buyer", milestone_commands.fund(escrow_id, Decimal(110))),
            "approve": ("buyer", milestone_commands.approve(escrow_id, [0])),
            "release": ("buyer", milestone_commands.release(escrow_id)),
            "dispute": ("seller", milestone_commands.dispute(escrow_id, "It is late.")),
        }
        if "fund" in done:
            await top_up(world.house, "buyer@users.example", "110")
        for name in done:
            by, step = steps[name]
            await act(world.house, world.actor(by), step)
        if listed:
            return Asked(query={"ids": escrow_id})
        return Asked({"id": escrow_id, **({} if index is None else {"index": index})}, json)

    return asking


def to_seller(amount: str) -> dict[str, object]:
    """Distributions of so much to the seller."""
    return {"distributions": [{"email": "seller@users.example", "amount": amount}]}


def at_hook(json: object = None) -> Asking:
    """The webhook endpoint of the creator's; it is made where there is none."""

    async def asking(world: World, _who: str) -> Asked:
        creator = world.actor("creator")
        mine = await read_endpoints(world.house.pool, creator.developer_id or "")
        if not mine:
            command = endpoints.create(creator.developer_id or "", WebhookCreate(url=HOOK))
            await act(world.house, creator, command)
            return await asking(world, _who)
        return Asked({"id": mine[0].id}, json)

    return asking


async def at_delivery(world: World, who: str) -> Asked:
    """A delivery to the creator's endpoint."""
    hook = (await at_hook()(world, who)).path["id"]
    creator = world.actor("creator")
    command = attempts.send_test(creator.developer_id or "", hook)
    made = await act(world.house, creator, command)
    return Asked({"id": hook, "delivery": made["delivery"]["id"]})


TO_PAY = {
    "action": "accept_pay",
    "targetUserEmail": "buyer@users.example",
    "redirectUrl": "https://shop.example/back",
}


async def returning(world: World, who: str) -> str:
    """This developer's id, after the URL of TO_PAY was put on the allow-list."""
    developer_id = world.enrolled[who].developer_id
    allowed = ["https://shop.example/"]
    await arrange(world.house, lambda tx: developers.allow_redirects(tx, developer_id, allowed))
    return developer_id


async def a_new_session(world: World, who: str) -> Asked:
    """For the buyer, who is to pay."""
    await returning(world, who)
    asked: Asked = await at_escrow(json=TO_PAY)(world, who)
    return asked


async def a_milestone_session(world: World, who: str) -> Asked:
    """For the buyer, who is to approve."""
    await returning(world, who)
    given = {**TO_PAY, "action": "approve_milestone", "input": {"indexes": [0]}}
    return await at_milestones(json=given)(world, who)


async def a_session(world: World, _who: str) -> Asked:
    """A session that the creator has made."""
    developer_id = await returning(world, "creator")
    escrow_id = await make_escrow(world, "creator", "quick", "pending")
    wanted = NewSession.model_validate(TO_PAY)
    command = sessions.create(developer_id, escrow_id, wanted)
    made = await act(world.house, world.actor("creator"), command)
    return Asked({"id": made["sessionId"]})


async def a_verification(world: World, _who: str) -> Asked:
    """An identity verification that the creator has asked for."""
    creator = world.actor("creator")
    wanted = NewVerification(email="somebody@new.example")
    made = await act(world.house, creator, identity.request(creator.developer_id or "", wanted))
    return Asked({"id": made["id"]})


async def a_transfer(world: World, _who: str) -> Asked:
    """A top-up by bank transfer whose proof is here: the operator is to decide."""
    buyer = user_actor(world.actor("buyer").user_id)
    wish = Wish(TOPUP, BANK_TRANSFER, 1000, "TND", buyer.user_id)
    made = await act(world.house, buyer, payments.begin(wish))
    payment_id: str = made["payment"]["id"]
    await act(world.house, buyer, payments.prove(payment_id, None))
    return Asked({"id": payment_id}, {"approve": True})


async def a_notification(world: World, _who: str) -> Asked:
    """What the sandbox's provider tells of a payment that was just made at its page."""
    buyer = user_actor(world.actor("buyer").user_id)
    wish = Wish(TOPUP, SANDBOX_PROVIDER, 1000, "TND", buyer.user_id)
    made = await act(world.house, buyer, payments.begin(wish))
    payment_id, now = made["payment"]["id"], datetime.now(UTC)
    book, keys = HouseBook(world.house), [SECRET_KEY]
    provider = SandboxProvider(book, keys, world.house.policy.public_url, lambda: now)
    expires = now + timedelta(hours=1)
    order = Order(payment_id, 1000, "TND", TITLE, "https://shop.example/back", expires)
    placed = await provider.place(order)
    charge = await book.press(placed.provider_reference, now, paid=True)
    assert charge is not None
    [sending] = provider.notifications(charge)
    return Asked({"provider": SANDBOX_PROVIDER}, raw=sending.body, headers=sending.headers)


async def an_association(world: World, who: str) -> Asked:
    """With a user who is nobody's yet."""
    email = f"new-{who}@users.example"
    await arrange(world.house, lambda tx: users.register(tx, email, "New", "User"))
    return Asked({}, {"email": email})


async def an_invitation(world: World, who: str) -> Asked:
    """The link of somebody whom the creator has invited."""
    email = f"invited-{who}@users.example"
    shop = Shop(world.enrolled["creator"].developer_id, "", "", "seller@users.example")
    command = escrows.create(shop.developer_id, make_terms(shop, email, "quick"))
    await act(world.house, world.actor("creator"), command)
    [token] = await tokens_of(world.house, email)
    return Asked({}, {"token": token, "firstName": "New", "lastName": "User"})


def a_new_escrow(**changes: object) -> dict[str, object]:
    """A body for create, between a third party and somebody unknown."""
    sound = {
        "title": TITLE,
        "amount": 100,
        "mode": "quick",
        "sellerEmail": "seller@users.example",
        "buyerEmail": "somebody@users.example",
        "estimatedDeliveryDays": 3,
    }
    return {key: value for key, value in {**sound, **changes}.items() if value is not None}


AS_SELLER = a_new_escrow(sellerEmail=None, mode="instant")


def acting(who: str, step: str) -> dict[str, object]:
    """A body for the sandbox's `act`."""
    return {"email": f"{who}@users.example", "step": step}


PNG = data_uri(PICTURES["png"])
WITH_FEE = a_new_escrow(developerFeePercentage=1)


# ---- The table ----------------------------------------------------------------------------------

REFUSALS: Mapping[str, tuple[int, str]] = {
    "assoc": (403, "not associated with a user"),
    "out": (403, "no access to this escrow"),
    "seller": (403, "Only the seller"),
    "buyer": (403, "Only the buyer"),
    "sells": (403, "so it cannot sell"),
    "fee": (403, "A developer fee is paid to your associated user"),
    "own": (400, "developerFeePercentage"),
    "hook": (404, "Webhook not found"),
    "ident": (404, "You have no identity verification with this id"),
    "session": (404, "Checkout session not found"),
    "far": (403, "You have no access to this escrow"),
    "wallet": (403, "Only the acting user's own wallet"),
    "short": (409, "The wallet does not hold enough"),
    "prov": (403, "Only the service provider"),
    "appr": (403, "Only the approver"),
    "sign": (403, "Only the release signer"),
    "plat": (403, "Only the platform"),
    "disp": (403, "Only a role's holder can dispute"),
    "judge": (403, "The dispute resolver decides"),
    "reslv": (403, "Only the dispute resolver"),
    "role": (403, "Only somebody who holds a role"),
}
CODED = {"far", "wallet", "short", "prov", "appr", "sign", "plat", "disp", "judge", "reslv", "role"}
"""What a word of the table stands for: the status, and a part of what is told."""

E2 = frozenset(
    {
        "Not found",
        "Webhook not found",
        "Delivery not found",
        "Escrow not found",
        "Invalid escrow ID",
        "Checkout session not found",
        "Payment not found",
    }
)
"""What is told as `{error}` and nothing else."""


@dataclass(frozen=True)
class Row:
    """One route, or one case of it. `answers` has a word for each of DEVELOPERS.

    A number is the status of success. `open` routes ask for no key at all; `of` is what the id
    in the path names.
    """

    route: str
    answers: str
    asking: Asking = NOTHING
    of: str = ""
    case: str = ""

    @property
    def method(self) -> str:
        return self.route.split()[0]

    @property
    def path(self) -> str:
        return self.route.split()[1]

    @property
    def is_open(self) -> bool:
        return self.answers.startswith("open")

    @property
    def words(self) -> dict[str, str]:
        """What every kind of caller is answered, in a word."""
        words = self.answers.split()
        if self.is_open:
            return dict.fromkeys((*KEYLESS, *DEVELOPERS), words[1])
        return dict.fromkeys(KEYLESS, "401") | dict(zip(DEVELOPERS, words, strict=True))


V1, SANDBOX = "/api/v1", "/api/v1/sandbox"
DEVELOPER, HOOKS = "/api/developer", "/api/developer/webhooks"
MILES = "/api/v1/milestone-escrows"
A_JOB = {
    "releaseMode": "single",
    "engagementId": "job-17",
    "title": TITLE,
    "currency": "TND",
    "amount": "100",
    "roles": {
        "approver": "buyer@users.example",
        "releaseSigner": "buyer@users.example",
        "serviceProvider": "seller@users.example",
        "receiver": "seller@users.example",
        "platform": "seller@users.example",
        "disputeResolver": "creator@users.example",
    },
    "milestones": [{"description": "Another design"}],
}

# fmt: off
TABLE = (
    # Route                                        unass strng creat sellr buyer ownerless
    Row(f"GET {V1}/me",                           "200   200   200   200   200   200"),
    Row(f"GET {V1}/balance",                      "assoc 200   200   200   200   assoc"),
    Row(f"GET {V1}/assurance",                    "200   200   200   200   200   200"),

    Row(f"POST {V1}/escrows",                     "201   201   201   201   201   201",
        plain(a_new_escrow())),
    Row(f"POST {V1}/escrows",                     "sells 201   201   201   201   sells",
        plain(AS_SELLER), case="as the seller"),
    Row(f"POST {V1}/escrows",                     "fee   201   201   own   201   fee",
        plain(WITH_FEE), case="with a fee"),
    Row(f"GET {V1}/escrows",                      "assoc 200   200   200   200   assoc"),
    Row(f"GET {V1}/escrows/{{id}}",               "out   out   200   200   200   200",
        at_escrow(), of="escrow"),
    Row(f"PUT {V1}/escrows/{{id}}",               "out   out   200   200   seller 200",
        at_escrow(json={"description": "With its box."}), of="escrow"),
    Row(f"GET {V1}/escrows/{{id}}/next",          "out   out   200   200   200   200",
        at_escrow(), of="escrow"),
    Row(f"GET {V1}/escrows/{{id}}/contract",      "out   out   200   200   200   200",
        at_escrow("standard"), of="escrow"),
    Row(f"GET {V1}/escrows/{{id}}/proof",         "out   out   200   200   200   200",
        at_escrow("quick_proof", "paid"), of="escrow"),
    Row(f"GET {V1}/escrows/{{id}}/dispute",       "out   out   200   200   200   200",
        at_escrow(status="disputed"), of="escrow"),
    Row(f"POST {V1}/escrows/{{id}}/deliver",      "assoc out   seller 200  seller assoc",
        at_escrow(status="paid"), of="escrow"),
    Row(f"POST {V1}/escrows/{{id}}/reject-delivery", "assoc out buyer buyer 200  assoc",
        at_escrow(status="delivered", json={"reason": "It is scratched."}), of="escrow"),
    Row(f"POST {V1}/escrows/{{id}}/cancel",       "out   out   200   200   200   200",
        at_escrow(), of="escrow"),

    Row(f"POST {V1}/escrows/{{id}}/sessions",     "out   out   201   201   201   201",
        a_new_session, of="escrow"),
    Row(f"GET {V1}/sessions/{{id}}",              "session session 200 session session session",
        a_session, of="session"),

    Row(f"POST {MILES}",                          "201   201   201   201   201   201",
        plain(A_JOB)),
    Row(f"GET {MILES}",                           "200   200   200   200   200   200"),
    Row(f"GET {MILES}/balances",                  "200   200   200   200   200   200",
        at_milestones(listed=True)),
    Row(f"GET {MILES}/{{id}}",                    "far   far   200   200   200   200",
        at_milestones(), of="milestone"),
    Row(f"GET {MILES}/{{id}}/next",               "far   far   200   200   200   200",
        at_milestones(), of="milestone"),
    Row(f"GET {MILES}/{{id}}/events",             "far   far   200   200   200   200",
        at_milestones(), of="milestone"),
    Row(f"PUT {MILES}/{{id}}",                    "plat  plat  plat  200   plat  plat",
        at_milestones(json=A_JOB), of="milestone"),
    Row(f"POST {MILES}/{{id}}/fund",              "wallet short short short 200  wallet",
        at_milestones(json={"amount": "100"}), of="milestone"),
    Row(f"POST {MILES}/{{id}}/milestones/status", "prov  prov  prov  200   prov  prov",
        at_milestones(json={"updates": [{"index": 0, "status": "done"}]}), of="milestone"),
    Row(f"POST {MILES}/{{id}}/milestones/approve", "appr appr  appr  appr  200   appr",
        at_milestones(json={"indexes": [0]}), of="milestone"),
    Row(f"POST {MILES}/{{id}}/milestones/{{index}}/status", "prov prov prov 200 prov prov",
        at_milestones(json={"status": "done"}, index="0"), of="milestone"),
    Row(f"POST {MILES}/{{id}}/milestones/{{index}}/approve", "appr appr appr appr 200 appr",
        at_milestones(index="0"), of="milestone"),
    Row(f"POST {MILES}/{{id}}/release",           "sign  sign  sign  sign  200   sign",
        at_milestones("fund", "approve"), of="milestone"),
    Row(f"POST {MILES}/{{id}}/dispute",           "disp  disp  judge 200   200   disp",
        at_milestones(json={"reason": "It is late."}), of="milestone"),
    Row(f"POST {MILES}/{{id}}/resolve-dispute",   "reslv reslv 200   reslv reslv reslv",
        at_milestones("fund", "dispute", json=to_seller("110")), of="milestone"),
    Row(f"POST {MILES}/{{id}}/withdraw-remaining", "reslv reslv 200  reslv reslv reslv",
        at_milestones("fund", "approve", "release", json=to_seller("10")), of="milestone"),
    Row(f"POST {MILES}/{{id}}/dispute-notes",     "role  role  200   200   200   role",
        at_milestones("dispute", json={"text": "Look."}), of="milestone"),

    Row(f"POST {MILES}/{{id}}/sessions",          "far   far   201   201   201   201",
        a_milestone_session, of="milestone"),

    Row(f"POST {V1}/identity-verifications",      "201   201   201   201   201   201",
        plain({"email": "somebody@new.example"})),
    Row(f"GET {V1}/identity-verifications",       "200   200   200   200   200   200",
        plain(query={"email": "somebody@new.example"})),
    Row(f"GET {V1}/identity-verifications/{{id}}", "ident ident 200  ident ident ident",
        a_verification, of="ident"),

    Row(f"PUT {DEVELOPER}/signature",             "200   200   200   200   200   200",
        plain({"signatureImage": PNG})),
    Row(f"GET {DEVELOPER}/signature",             "200   200   200   200   200   200"),
    Row("PUT /developer/signature",               "200   200   200   200   200   200",
        plain({"signatureImage": PNG})),
    Row("GET /developer/signature",               "200   200   200   200   200   200"),
    Row(f"PUT {DEVELOPER}/redirect-urls",         "200   200   200   200   200   200",
        by_name(lambda who: {"urls": [f"https://{who}.example/back"]})),
    Row(f"GET {DEVELOPER}/redirect-urls",         "200   200   200   200   200   200"),

    Row(f"POST {HOOKS}",                          "201   201   201   201   201   201",
        plain({"url": HOOK})),
    Row(f"GET {HOOKS}",                           "200   200   200   200   200   200"),
    Row(f"GET {HOOKS}/{{id}}",                    "hook  hook  200   hook  hook  hook",
        at_hook(), of="hook"),
    Row(f"PUT {HOOKS}/{{id}}",                    "hook  hook  200   hook  hook  hook",
        at_hook({"isActive": False}), of="hook"),
    Row(f"POST {HOOKS}/{{id}}/regenerate-secret", "hook  hook  200   hook  hook  hook",
        at_hook(), of="hook"),
    Row(f"DELETE {HOOKS}/{{id}}",                 "hook  hook  200   hook  hook  hook",
        at_hook(), of="hook"),

    Row(f"POST {HOOKS}/{{id}}/enable",            "hook  hook  200   hook  hook  hook",
        at_hook(), of="hook"),
    Row(f"POST {HOOKS}/{{id}}/test",              "hook  hook  202   hook  hook  hook",
        at_hook({"type": "escrow.created"}), of="hook"),
    Row(f"GET {HOOKS}/{{id}}/deliveries",         "hook  hook  200   hook  hook  hook",
        at_hook(), of="hook"),
    Row(f"GET {HOOKS}/{{id}}/deliveries/{{delivery}}", "hook hook 200 hook hook hook",
        at_delivery, of="delivery"),
    Row(f"POST {HOOKS}/{{id}}/deliveries/{{delivery}}/resend", "hook hook 202 hook hook hook",
        at_delivery, of="delivery"),
    Row(f"POST {HOOKS}/{{id}}/recover",           "hook  hook  202   hook  hook  hook",
        at_hook({"since": "2026-01-01"}), of="hook"),
    Row(f"GET {HOOKS}/{{id}}/recoveries",         "hook  hook  200   hook  hook  hook",
        at_hook(), of="hook"),
    Row(f"GET {V1}/events",                       "200   200   200   200   200   200"),
    Row(f"GET {V1}/event-types",                  "200   200   200   200   200   200"),

    Row(f"POST {SANDBOX}/developers",             "201   201   201   201   201   201",
        by_name(lambda who: {"email": f"new-{who}@dev.example", "company": "New"})),
    Row(f"POST {SANDBOX}/users",                  "201   201   201   201   201   201",
        by_name(lambda who: {"email": f"{who}@new.example", "firstName": "A", "lastName": "B"})),
    Row(f"POST {SANDBOX}/users/{{email}}/topup",  "200   200   200   200   200   200",
        plain({"amount": 1}, email="buyer@users.example"), of="user"),
    Row(f"GET {SANDBOX}/users/{{email}}/balance", "200   200   200   200   200   200",
        plain(email="buyer@users.example"), of="user"),
    Row(f"PUT {SANDBOX}/association",             "200   200   200   200   200   200",
        an_association),
    Row(f"DELETE {SANDBOX}/association",          "200   200   200   200   200   200"),
    Row(f"POST {SANDBOX}/escrows/{{id}}/pay",     "200   200   200   200   200   200",
        at_escrow(json={"email": "buyer@users.example"}), of="escrow"),
    Row(f"POST {SANDBOX}/escrows/{{id}}/act",     "200   200   200   200   200   200",
        at_escrow(status="paid", json=acting("seller", "deliver")), of="escrow"),
    Row(f"POST {SANDBOX}/escrows/{{id}}/act",     "seller seller seller seller seller seller",
        at_escrow(status="paid", json=acting("buyer", "deliver")), of="escrow", case="as another"),
    Row(f"POST {SANDBOX}/milestone-escrows/{{id}}/act", "200 200 200 200 200 200",
        at_milestones(json=acting("buyer", "approve_milestone") | {"input": {"indexes": [0]}}),
        of="milestone"),
    Row(f"POST {SANDBOX}/sessions/{{id}}/complete", "200  200   200   200   200   200",
        a_session, of="session"),
    Row(f"POST {SANDBOX}/sessions/{{id}}/cancel", "200   200   200   200   200   200",
        a_session, of="session"),
    Row(f"POST {SANDBOX}/payments/{{id}}/decide", "200   200   200   200   200   200",
        a_transfer, of="payment"),
    Row(f"POST {SANDBOX}/disputes/{{id}}/resolve", "200  200   200   200   200   200",
        at_escrow(status="disputed", json={"to": "buyer"}), of="escrow"),
    Row(f"POST {SANDBOX}/proofs/{{id}}/decide",   "200   200   200   200   200   200",
        at_escrow("quick_proof", "undecided", json={"accept": True}), of="escrow"),
    Row(f"POST {SANDBOX}/register",               "201   201   201   201   201   201",
        an_invitation),
    Row(f"GET {SANDBOX}/mailbox",                 "200   200   200   200   200   200"),
    Row(f"GET {SANDBOX}/clock",                   "200   200   200   200   200   200"),
    Row(f"POST {SANDBOX}/clock/advance",          "200   200   200   200   200   200",
        plain({"seconds": 1})),
    Row(f"PUT {SANDBOX}/fx",                      "200   200   200   200   200   200",
        plain({"currency": "USD", "rate": "3.1"})),

    Row("GET /openapi.json",                      "open  200"),
    Row("GET /docs",                              "open  200"),
    Row("GET /mailbox",                           "open  200"),
    Row("GET /static/{name}",                     "open  200", plain(name="mailbox.css")),
    Row("POST /payments/notifications/{provider}", "open 200", a_notification),
)
# fmt: on

ROWS = {row.route: row for row in TABLE if not row.case}
PATHS = sorted({row.path for row in TABLE})
HEALTH = frozenset({"/healthz", "/readyz", "/metrics"})
ALL = routes(Policy(environment="sandbox"))
SERVED = [route for route in ALL if not route.is_page]
PAGES = {f"{route.method} {route.path}" for route in ALL if route.is_page}
"""A page asks who the browser's visitor is: its doors are tried in pages/test_doors.py."""


def named(row: Row) -> str:
    """The row, in the name of its test."""
    return f"{row.route} {row.case}".strip()


EVERY_ROW = pytest.mark.parametrize("row", TABLE, ids=named)


def test_every_route_has_its_row_and_every_row_its_route() -> None:
    served = {f"{route.method} {route.path}" for route in SERVED}
    assert served ^ {row.route for row in TABLE} == set()


# ---- Asking -------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Told:
    """An answer: `text` is its body."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def body(self) -> dict[str, Any]:
        return orjson.loads(self.text)  # type: ignore[no-any-return]


async def ask(
    client: aiohttp.ClientSession, row: Row, asked: Asked, headers: Mapping[str, str]
) -> Told:
    """What this row's route answers to this request."""
    path = row.path.format(**asked.path)
    sent = {**headers, **asked.headers}
    how = {"json": asked.json, "data": asked.raw, "params": asked.query, "headers": sent}
    async with client.request(row.method, path, **how) as response:  # type: ignore[arg-type]
        return Told(response.status, await response.text(), response.headers)


async def fingerprint(owner: asyncpg.Connection) -> dict[str, str]:
    """What stands in every table, but for when a key was last used."""
    tables = await owner.fetch(
        "SELECT oid::regclass::text AS name FROM pg_class"
        " WHERE relnamespace = 'public'::regnamespace AND relkind = 'r' ORDER BY 1"
    )
    every = " UNION ALL ".join(
        f"SELECT '{table['name']}' AS name, md5(string_agg(line, '/' ORDER BY line)) AS sum"
        f" FROM (SELECT (to_jsonb(t) - 'last_used_at')::text AS line FROM {table['name']} t) AS l"
        for table in tables
    )
    return {row["name"]: row["sum"] for row in await owner.fetch(every)}


CODED_WORDS = {REFUSALS[word][1] for word in CODED} | {"There is no milestone escrow"}
"""What the refusals of the milestone family say: each of them has a code."""


def refused(who: str, word: str) -> tuple[int, str]:
    """The status of this word, and a part of what is told."""
    return (401, KEYLESS[who]) if word == "401" else REFUSALS[word]


def fault(told: Told, status: int, says: str) -> str | None:
    """What is wrong with this refusal: its status, its family, its words."""
    if told.status != status:
        return f"{told.status} {told.text}"
    body = told.body
    if body["error"] in E2:
        shape, sentence = {"error"}, body["error"]
    else:
        shape, sentence = {"error", "message"}, body.get("message", "")
        if says in CODED_WORDS:
            shape.add("code")
        if body["error"] != HTTPStatus(status).phrase:
            return f"error is {body['error']!r}"
    if set(body) - {"details"} != shape or ("details" in body) > (status == 400):
        return f"family: {told.text}"
    if says not in sentence:
        return f"says {sentence!r}"
    if told.headers["Content-Type"] != "application/json; charset=utf-8":
        return told.headers["Content-Type"]
    if (told.headers.get("WWW-Authenticate") == "Bearer") != (status == 401):
        return "WWW-Authenticate"
    return None


# ---- The matrix ---------------------------------------------------------------------------------


@EVERY_ROW
async def test_each_caller_is_answered_as_the_table_says(
    world: World, client: aiohttp.ClientSession, owner: asyncpg.Connection, row: Row
) -> None:
    """First those who are refused, by a request that would do: nothing changes, nothing leaks."""
    answers: dict[str, str] = {}
    let_in = {who for who, word in row.words.items() if word.startswith("2")}
    theirs = {who: await row.asking(world, who) for who in ("creator", "ownerless")}
    before = await fingerprint(owner)
    for who in row.words.keys() - let_in:
        asked = theirs.get(who, theirs["creator"])
        told = await ask(client, row, asked, world.headers[who])
        answers[who] = fault(told, *refused(who, row.words[who])) or row.words[who]
        assert not SECRETS.search(told.text), who
    assert await fingerprint(owner) == before
    for who in let_in:
        asked = theirs[who] if who in theirs else await row.asking(world, who)
        told = await ask(client, row, asked, world.headers[who])
        answers[who] = str(told.status) if told.status < 300 else f"{told.status} {told.text}"
    assert answers == row.words


@pytest.mark.parametrize(
    "row",
    [
        row for row in TABLE if row.of not in ("", "milestone") and row.method in ("POST", "PUT")
    ],  # of a milestone escrow no access check comes before a step's own list
    ids=named,
)
async def test_whoever_is_refused_is_refused_before_the_body_is_looked_at(
    world: World, client: aiohttp.ClientSession, row: Row
) -> None:
    theirs = {who: await row.asking(world, who) for who in ("creator", "ownerless")}
    answers, broken = {}, {"Idempotency-Key": "", "Content-Type": "application/json"}
    for who, word in row.words.items():
        asked = replace(theirs.get(who, theirs["creator"]), json=None, raw=b"{")
        told = await ask(client, row, asked, world.headers[who] | broken)
        is_early = word in ("401", "assoc") or (word in REFUSALS and SANDBOX not in row.path)
        wanted = refused(who, word) if is_early else (400, "Idempotency-Key")
        answers[who] = fault(told, *wanted) or word
    assert answers == row.words


REHEARSED = frozenset(
    {
        f"POST {V1}/escrows",
        f"PUT {V1}/escrows/{{id}}",
        f"POST {V1}/escrows/{{id}}/deliver",
        f"POST {V1}/escrows/{{id}}/reject-delivery",
        f"POST {V1}/escrows/{{id}}/cancel",
        *(
            row.route
            for row in TABLE
            if row.path.startswith(MILES)
            and row.method != "GET"
            and not row.path.endswith("/sessions")
        ),
        f"POST {SANDBOX}/milestone-escrows/{{id}}/act",
        f"POST {SANDBOX}/escrows/{{id}}/pay",
        f"POST {SANDBOX}/escrows/{{id}}/act",
        f"POST {SANDBOX}/disputes/{{id}}/resolve",
        f"POST {SANDBOX}/proofs/{{id}}/decide",
    }
)
"""What can be asked with `dry_run=true`."""


@pytest.mark.parametrize("row", [row for row in TABLE if row.route in REHEARSED], ids=named)
async def test_a_rehearsal_is_refused_to_the_same_and_changes_nothing_for_the_others(
    world: World, client: aiohttp.ClientSession, owner: asyncpg.Connection, row: Row
) -> None:
    theirs = {who: await row.asking(world, who) for who in ("creator", "ownerless")}
    before, answers = await fingerprint(owner), {}
    for who, word in row.words.items():
        asked = replace(theirs.get(who, theirs["creator"]), query={"dry_run": "true"})
        told = await ask(client, row, asked, world.headers[who])
        if word.startswith("2"):
            answers[who] = word if told.status == 200 else f"{told.status} {told.text}"
        else:
            answers[who] = fault(told, *refused(who, word)) or word
    assert answers == row.words
    assert await fingerprint(owner) == before


async def test_what_cannot_be_rehearsed_is_not_done_instead(
    world: World, client: aiohttp.ClientSession, owner: asyncpg.Connection
) -> None:
    asked = {
        row: replace(await row.asking(world, "creator"), query={"dry_run": "true"})
        for row in TABLE
        if row.method != "GET" and row.route not in REHEARSED
    }
    before, answers = await fingerprint(owner), {}
    for row, one in asked.items():
        told = await ask(client, row, one, world.headers["creator"])
        answers[named(row)] = fault(told, 400, "dry_run is for the steps of an escrow") or "refused"
    assert answers == dict.fromkeys(map(named, asked), "refused")
    assert await fingerprint(owner) == before


def test_every_word_of_the_table_says_something() -> None:
    words = {word for row in TABLE for word in row.words.values()}
    assert {word for word in words if not word.isdigit()} == set(REFUSALS)
    assert {word for word in words if word.isdigit()} == {"200", "201", "202", "401"}


# ---- What an id names ---------------------------------------------------------------------------

NAMED: Mapping[str, tuple[str, tuple[int, str], tuple[int, str]]] = {
    "escrow": ("id", (400, "Invalid escrow ID"), (404, "Escrow not found")),
    "hook": ("id", (404, "Webhook not found"), (404, "Webhook not found")),
    "delivery": ("delivery", *[(404, "Delivery not found")] * 2),
    "ident": ("id", (400, "The id of an identity verification"), (404, "You have no identity")),
    "session": ("id", *[(404, "Checkout session not found")] * 2),
    "payment": ("id", *[(404, "Payment not found")] * 2),
    "milestone": ("id", *[(404, "There is no milestone escrow")] * 2),
    "user": ("email", (404, "No user has this e-mail"), (404, "No user has this e-mail")),
}
"""What an id names -> its parameter, the refusal of an ill-formed one and of one that is nobody's.
"""


@pytest.mark.parametrize("row", [row for row in TABLE if row.of], ids=named)
async def test_key_and_association_come_before_the_id_and_the_id_before_access(
    world: World, client: aiohttp.ClientSession, owner: asyncpg.Connection, row: Row
) -> None:
    parameter, ill_formed, unknown = NAMED[row.of]
    sound = await row.asking(world, "creator")
    before, answers, expected = await fingerprint(owner), {}, {}
    nobodys = UNKNOWN_SESSION if row.of == "session" else UNKNOWN_ID
    for written, refusal in ((MALFORMED_ID, ill_formed), (nobodys, unknown)):
        asked = replace(sound, path={**sound.path, parameter: written})
        for who, word in row.words.items():
            case = f"{who}, {written}"
            # What it lies in comes before it.
            is_first = word in ("401", "assoc") or (word, row.of) == ("hook", "delivery")
            told = await ask(client, row, asked, world.headers[who])
            wanted = refused(who, word) if is_first else refusal
            answers[case] = fault(told, *wanted) or "as expected"
            expected[case] = "as expected"
    assert answers == expected
    assert await fingerprint(owner) == before


def test_every_id_in_a_path_says_what_it_names() -> None:
    api = [row for row in TABLE if "{" in row.path and not row.is_open]
    assert [row.route for row in api if row.of not in NAMED] == []


# ---- Keys ---------------------------------------------------------------------------------------


async def told_me(client: aiohttp.ClientSession, headers: Mapping[str, str]) -> Told:
    return await ask(client, ROWS[f"GET {V1}/me"], Asked(), headers)


async def test_a_key_that_was_deleted_is_told_from_one_that_never_was_by_nothing(
    world: World, client: aiohttp.ClientSession
) -> None:
    deleted, unknown = [
        await told_me(client, world.headers[who] | {"X-Request-Id": "same"})
        for who in ("deleted", "unknown")
    ]
    same = (deleted.status, deleted.text, {**deleted.headers, "Date": ""})
    assert same == (unknown.status, unknown.text, {**unknown.headers, "Date": ""})


async def test_the_other_environments_key_is_told_to_use_this_ones(
    world: World, client: aiohttp.ClientSession
) -> None:
    told = await told_me(client, world.headers["other environment"])
    assert told.body == {
        "error": "Unauthorized",
        "message": "This is a live key and this is the sandbox environment; use your sandbox key"
        " (sk_sandbox_…).",
    }


async def test_a_key_is_found_by_its_hash_and_stands_nowhere(
    world: World, client: aiohttp.ClientSession, owner: asyncpg.Connection
) -> None:
    key = world.enrolled["creator"].api_key
    lines = [row[0] for row in await owner.fetch("SELECT to_jsonb(k)::text FROM api_key k")]
    assert sum(hashlib.sha256(key.encode()).hexdigest() in line for line in lines) == 1
    for one in world.enrolled.values():
        assert not any(one.api_key[20:] in line for line in lines)
    tail = "0" if key[-1] != "0" else "1"
    for near in (key[:-1] + tail, key[:11] + ("0" if key[11] != "0" else "1") + key[12:]):
        told = await told_me(client, {"X-API-Key": near})
        assert (told.status, "unknown" in told.text) == (401, True)
    for other in (key.upper(), key[:16], key + "0", f"{key} {key}", f"{key}%", "' OR true --"):
        told = await told_me(client, {"X-API-Key": other})
        assert (told.status, "not an API key" in told.text) == (401, True)
    assert (await told_me(client, {"X-API-Key": key})).status == 200


async def test_an_operators_key_opens_no_developers_path_however_it_is_written(
    world: World, client: aiohttp.ClientSession, owner: asyncpg.Connection
) -> None:
    key = await operators_key(owner, "sk_sandbox_" + "5" * 64)
    for headers in (world.headers["operator"], {"X-API-Key": key}):
        told = await told_me(client, headers)
        assert (told.status, set(told.body)) == (401, {"error", "message"})
    assert "operator's" in told.text


async def test_me_is_whoever_asks(world: World, client: aiohttp.ClientSession) -> None:
    for who in DEVELOPERS:
        told = await told_me(client, world.headers[who])
        assert told.body["developer"]["id"] == world.enrolled[who].developer_id
        assert world.enrolled[who].api_key[20:] not in told.text


# ---- Lists --------------------------------------------------------------------------------------


VERIFICATIONS = f"GET {V1}/identity-verifications"


async def test_a_list_shows_nobody_elses(world: World, client: aiohttp.ClientSession) -> None:
    mine = await make_escrow(world, "creator", "quick", "pending")
    other = await make_escrow(world, "ownerless", "quick", "pending")
    hook = (await at_hook()(world, "creator")).path["id"]
    verification = (await a_verification(world, "creator")).path["id"]
    creator = world.headers["creator"]
    await ask(client, ROWS[f"PUT {DEVELOPER}/redirect-urls"], Asked({}, {"urls": [HOOK]}), creator)
    await ask(
        client, ROWS[f"PUT {DEVELOPER}/signature"], Asked({}, {"signatureImage": PNG}), creator
    )

    async def told(who: str, route: str) -> dict[str, Any]:
        asked = await ROWS[route].asking(world, who)
        return (await ask(client, ROWS[route], asked, world.headers[who])).body

    seen = {}
    for who in DEVELOPERS:
        seen[who] = [
            {one["id"] for one in (await told(who, f"GET {V1}/escrows")).get("escrows", [])},
            [one["id"] for one in (await told(who, f"GET {HOOKS}"))["webhooks"]],
            (await told(who, f"GET {DEVELOPER}/redirect-urls"))["urls"],
            (await told(who, f"GET {DEVELOPER}/signature"))["hasSignature"],
            [one["id"] for one in (await told(who, VERIFICATIONS))["verifications"]],
        ]
    nothing: list[Any] = [set(), [], [], False, []]
    party = [{mine, other}, *nothing[1:]]
    assert seen == dict.fromkeys(DEVELOPERS, nothing) | {
        "creator": [{mine}, [hook], [HOOK], True, [verification]],
        "seller": party,
        "buyer": party,
    }


async def test_a_stored_answer_is_for_the_developer_who_stored_it(
    world: World, client: aiohttp.ClientSession, owner: asyncpg.Connection
) -> None:
    cancel = ROWS[f"POST {V1}/escrows/{{id}}/cancel"]
    asked = await cancel.asking(world, "creator")
    key = {"Idempotency-Key": "the same"}
    before = await fingerprint(owner)
    assert (await ask(client, cancel, asked, world.headers["stranger"] | key)).status == 403
    assert await fingerprint(owner) == before  # a refusal leaves the key free
    first = await ask(client, cancel, asked, world.headers["creator"] | key)
    assert (first.status, first.headers.get("Idempotency-Replayed")) == (200, None)
    again = await ask(client, cancel, asked, world.headers["creator"] | key)
    assert (again.text, again.headers["Idempotency-Replayed"]) == (first.text, "true")
    for who in ("stranger", "unassociated", "revoked", "no key"):
        told = await ask(client, cancel, asked, world.headers[who] | key)
        assert told.status in (401, 403)
        assert "Idempotency-Replayed" not in told.headers
    told = await ask(client, cancel, asked, world.headers["seller"] | key)
    assert (told.status, "must be pending" in told.text) == (400, True)


# ---- Methods and doors --------------------------------------------------------------------------


async def test_a_method_that_a_path_does_not_have_is_405_and_changes_nothing(
    world: World, client: aiohttp.ClientSession, owner: asyncpg.Connection
) -> None:
    """Asked with a key that may do whatever the path's own methods do."""
    by_path = {path: [row for row in TABLE if row.path == path] for path in PATHS}
    asked = {path: await rows[0].asking(world, "creator") for path, rows in by_path.items()}
    before = await fingerprint(owner)
    for path, rows in by_path.items():
        has = {row.method for row in rows}
        allowed = ", ".join(sorted(has))
        for method in sorted(METHODS - has):
            other = replace(rows[0], route=f"{method} {path}")
            told = await ask(client, other, asked[path], world.headers["creator"])
            assert (told.status, told.headers["Allow"]) == (405, allowed), other.route
            assert "Access-Control-Allow-Origin" not in told.headers
            sentence = f"{method} is not allowed here; try {allowed}."
            body = {"error": "Method Not Allowed", "message": sentence}
            assert method == "HEAD" or told.body == body
    assert await fingerprint(owner) == before


async def test_nothing_is_served_beside_the_table(
    app: web.Application, client: aiohttp.ClientSession
) -> None:
    served = {
        f"{route.method} {route.resource.canonical}"
        for route in app.router.routes()
        if route.resource is not None and route.resource.canonical not in HEALTH
    }
    assert served == {row.route for row in TABLE} | PAGES
    for near in ("/api/v1/me/", "/API/v1/me", "/api/v1//me", "/api/v2/me", "/api/v1/sandbox", "/"):
        async with client.get(near) as response:
            assert (response.status, await response.json()) == (404, {"error": "Not found"})


async def test_a_live_deployment_has_none_of_the_sandboxs_paths(
    world: World, live: aiohttp.ClientSession, owner: asyncpg.Connection
) -> None:
    rows = [row for row in TABLE if SANDBOX in row.path or row.path == "/mailbox"]
    asked = {row: await row.asking(world, "creator") for row in rows}
    before = await fingerprint(owner)
    for row, one in asked.items():
        for who in ("no key", "creator", "other environment"):
            told = await ask(live, row, one, world.headers[who])
            assert (told.status, told.body) == (404, {"error": "Not found"}), named(row)
    assert await fingerprint(owner) == before


async def test_a_live_deployment_tells_a_sandbox_key_to_use_a_live_one(
    world: World, live: aiohttp.ClientSession
) -> None:
    told = await told_me(live, world.headers["creator"])
    assert told.status == 401
    assert "use your live key (sk_live_…)" in told.body["message"]


async def test_the_mailbox_page_is_for_this_machine_only(client: aiohttp.ClientSession) -> None:
    for headers in ({"X-Forwarded-For": "203.0.113.7"}, {"Host": "amana.example"}):
        assert (await ask(client, ROWS["GET /mailbox"], Asked(), headers)).status == 403
