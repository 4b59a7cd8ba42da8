"""Who may open which page: every page x every kind of visitor -> what they see or where they go.

Law: TABLE is written by hand and knows nothing of how a page is guarded; a page that is served and
has no row here fails. Every form is sent with a token that is good for its sender, so that whoever
is refused is refused for who they are; without a good token nobody changes anything.
"""

import re
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field, replace
from uuid import UUID

import aiohttp
import asyncpg
import pytest
import pytest_asyncio

from service.commands import (
    attempts,
    developers,
    endpoints,
    escrows,
    files,
    identity,
    milestones,
    payments,
    sessions,
    visits,
)
from service.commands.charges import HouseBook
from service.commands.mails import SIGN_IN_LINK, open_mailbox
from service.commands.payments import Wish
from service.commands.perform import House
from service.gateways.files import ObjectStorage, open_storage
from service.gateways.payments.provider import Order
from service.gateways.payments.sandbox import SandboxProvider
from service.ingress.main import make_app
from service.ingress.routes import routes
from service.ingress.uploads import keep_file
from service.rules.engagement import MULTI
from service.rules.machine import Actor, ActorKind, Role
from service.rules.milestone_terms import MilestoneTerms, Terms
from service.rules.payment import ACCEPT_PAY, BANK_TRANSFER, TOPUP
from service.rules.payment import SANDBOX as SANDBOX_PROVIDER
from service.rules.policy import Policy
from service.settings import Settings
from service.store.clock import read_clock
from service.store.consoles import read_account
from service.store.endpoints import read_endpoints
from service.store.payments import read_payment
from service.wire.identity import NewVerification
from service.wire.sessions import NewMilestoneSession, NewSession
from service.wire.webhooks import WebhookCreate
from tests.attachments import PDF, PNG
from tests.house import SECRET_KEY
from tests.makers import (
    Buyer,
    Shop,
    act,
    arrange,
    make_buyer,
    make_escrow,
    make_shop,
    make_terms,
)
from tests.outbox import WORDS, send_all, tokens_of
from tests.service.ingress.conftest import listening
from tests.service.ingress.pages.people import Browser, Page, cookie_of
from tests.service.ingress.test_permissions import fingerprint

VISITORS = ("nobody", "unregistered", "stranger", "seller", "buyer")
"""`nobody` has a cookie of ours and no session; `unregistered` has proven an e-mail and has no
account; `stranger` has an account and is no party."""
TITLE = "A camera that nobody else hears of"
BACK = "https://shop.example/back"
ENTITY, UUID4, ANYTHING = r"[0-9a-f]{24}", r"[0-9a-f-]{36}", r"\S+"
OTHER_METHODS = ("HEAD", "PUT", "PATCH", "DELETE", "OPTIONS", "TRACE")


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def client(migrated: Settings) -> AsyncIterator[aiohttp.ClientSession]:
    """A client of the sandbox's ingress as it is served, one for all rows."""
    async with listening(make_app(migrated)) as url, aiohttp.ClientSession(url) as session:
        yield session


@dataclass
class World:
    """The house, the people, and the cookie of each kind of visitor."""

    house: House
    owner: asyncpg.Connection
    shop: Shop
    buyer: Buyer
    emails: Mapping[str, str]
    cookies: Mapping[str, str]
    storage: ObjectStorage

    def token(self, who: str, purpose: str) -> str:
        """What a form of this visitor carries for this purpose."""
        return self.house.vault.link_token(f"form/{purpose}", self.cookies[who])

    async def escrow(self, mode: str = "quick", status: str = "pending") -> str:
        """The id of an escrow between seller and buyer."""
        made = await make_escrow(
            self.house, self.shop, self.buyer, mode=mode, status=status, title=TITLE
        )
        return made.id


@pytest.fixture
async def world(house: House, owner: asyncpg.Connection, migrated: Settings) -> World:
    """A clean house with every kind of visitor."""
    shop, buyer, other = await make_shop(house), await make_buyer(house), await make_buyer(house)
    emails = {
        "unregistered": "new@example.com",
        "stranger": other.email,
        "seller": shop.email,
        "buyer": buyer.email,
    }
    cookies = {who: await cookie_of(owner, email) for who, email in emails.items()}
    cookies["nobody"] = secrets.token_urlsafe(32)
    back = [BACK]
    await arrange(house, lambda tx: developers.allow_redirects(tx, shop.developer_id, back))
    return World(
        house, owner, shop, buyer, emails, cookies, open_storage(migrated.storage_url or "")
    )


# ---- What is asked ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Asked:
    """What fills the path's braces, its query, and the form with what its token is for."""

    path: Mapping[str, str] = field(default_factory=dict)
    query: str = ""
    purpose: str = ""
    fields: Mapping[str, str] = field(default_factory=dict)
    file: bytes | None = None


Asking = Callable[[World, str], Awaitable[Asked]]
"""Arranges a fresh sound request for this visitor."""


def plain(purpose: str = "", **fields: str) -> Asking:
    """The same request for everybody."""

    async def asking(_world: World, _who: str) -> Asked:
        return Asked({}, "", purpose, fields)

    return asking


NOTHING = plain()


def at_escrow(mode: str, status: str, step: str = "", **fields: str) -> Asking:
    """The page of an escrow between seller and buyer, or of one of its steps."""

    async def asking(world: World, _who: str) -> Asked:
        escrow_id = await world.escrow(mode, status)
        path = {"id": escrow_id, "step": step} if step else {"id": escrow_id}
        return Asked(path, "", f"escrow/{escrow_id}/{step}", fields)

    return asking


async def make_milestones(world: World) -> str:
    """The id of a milestone escrow: the seller provides, the buyer approves and releases."""
    seller, buyer = world.emails["seller"], world.emails["buyer"]
    resolver = await make_buyer(world.house)
    roles = {
        Role.APPROVER: buyer,
        Role.SERVICE_PROVIDER: seller,
        Role.PLATFORM: seller,
        Role.RELEASE_SIGNER: buyer,
        Role.DISPUTE_RESOLVER: resolver.email,
        Role.RECEIVER: seller,
    }
    parts = (MilestoneTerms("First", 1000), MilestoneTerms("Second", 2000))
    terms = Terms(MULTI, "job-1", TITLE, "", "TND", None, 100, roles, parts)
    command = milestones.create(world.shop.developer_id, terms)
    escrow_id: str = (await act(world.house, world.shop.actor, command))["escrow"]["id"]
    return escrow_id


def at_milestones(step: str = "", **fields: str) -> Asking:
    """The page of a milestone escrow, or of one of its steps."""

    async def asking(world: World, _who: str) -> Asked:
        escrow_id = await make_milestones(world)
        path = {"id": escrow_id, "step": step} if step else {"id": escrow_id}
        return Asked(path, "", f"escrow/{escrow_id}/{step}", fields)

    return asking


async def a_milestones_checkout(world: World, _who: str) -> Asked:
    """The buyer is to approve the first milestone."""
    escrow_id = await make_milestones(world)
    asked = {
        "action": "approve_milestone",
        "targetUserEmail": world.buyer.email,
        "redirectUrl": BACK,
    }
    wanted = NewMilestoneSession.model_validate(asked)
    command = sessions.create_of_milestones(world.shop.developer_id, escrow_id, wanted)
    session_id: str = (await act(world.house, world.shop.actor, command))["sessionId"]
    return Asked(
        {"id": session_id}, "", f"checkout/{session_id}", {"milestone_0": "yes", "version": "1"}
    )


async def make_session(world: World, escrow_id: str, email: str) -> str:
    """The id of a session in which this person is to pay."""
    asked = {"action": "accept_pay", "targetUserEmail": email, "redirectUrl": BACK}
    wanted = NewSession.model_validate(asked)
    command = sessions.create(world.shop.developer_id, escrow_id, wanted)
    session_id: str = (await act(world.house, world.shop.actor, command))["sessionId"]
    return session_id


async def a_checkout(world: World, _who: str) -> Asked:
    """The buyer is to pay."""
    session_id = await make_session(world, await world.escrow(), world.buyer.email)
    paid = {"way": "wallet", "amount": "100.000"}
    return Asked({"id": session_id}, "", f"checkout/{session_id}", paid)


async def a_checkout_without_a_phone(world: World, who: str) -> Asked:
    """As `a_checkout`, for a buyer who has verified none."""
    await world.owner.execute(
        "UPDATE app_user SET phone_verified_at = NULL WHERE email = $1", world.buyer.email
    )
    return await a_checkout(world, who)


async def a_newcomers_checkout(world: World, _who: str) -> Asked:
    """Somebody is to pay who has not registered."""
    email = world.emails["unregistered"]
    made = await make_escrow(world.house, world.shop, buyer_email=email, mode="quick", title=TITLE)
    session_id = await make_session(world, made.id, email)
    paid = {"way": "wallet", "amount": "100.000"}
    return Asked({"id": session_id}, "", f"checkout/{session_id}", paid)


async def a_payment(world: World, _who: str) -> Asked:
    """The buyer's top-up by bank transfer; the form turns away."""
    wish = Wish(TOPUP, BANK_TRANSFER, 1000, "TND", world.buyer.user_id)
    made = await act(world.house, world.buyer.actor, payments.begin(wish))
    payment_id: str = made["payment"]["id"]
    return Asked({"id": payment_id}, "", f"pay/{payment_id}", {"act": "cancel"})


async def a_payout(world: World, _who: str) -> Asked:
    """The buyer's payout that waits; the form takes it back."""
    wanted = payments.request_payout(
        world.buyer.user_id, BANK_TRANSFER, 1000, "TND", "Bo Y\nTN5910006035183598478831"
    )
    made = await act(world.house, world.buyer.actor, wanted)
    return Asked({}, "", "wallet", {"act": "cancel_payout", "id": made["payment"]["id"]})


async def a_guests_payment(world: World, _who: str) -> Asked:
    """Of somebody without an account, behind the handle of their session."""
    email = f"guest-{secrets.token_hex(4)}@example.com"
    made = await make_escrow(world.house, world.shop, buyer_email=email)
    session_id = await make_session(world, made.id, email)
    wish = Wish(
        ACCEPT_PAY,
        BANK_TRANSFER,
        made.amount_ledger_minor,
        "TND",
        escrow_id=made.id,
        session_id=UUID(session_id),
        payer_email=email,
    )
    begun = await act(world.house, Actor(ActorKind.USER), payments.begin(wish))
    payment_id: str = begun["payment"]["id"]
    path = {"id": payment_id, "session": session_id}
    return Asked(path, "", f"pay/{payment_id}", {"act": "cancel"})


async def a_guests_payment_by_guess(world: World, who: str) -> Asked:
    """The payment of a guest, behind a handle that is not its session's."""
    asked = await a_guests_payment(world, who)
    return replace(asked, path={**asked.path, "session": "00000000-0000-4000-8000-000000000000"})


async def a_charge(world: World, _who: str) -> Asked:
    """The sandbox provider's page of the buyer's top-up; the form pays."""
    house, now = world.house, (await read_clock(world.house.pool)).real_now
    wish = Wish(TOPUP, SANDBOX_PROVIDER, 1000, "TND", world.buyer.user_id)
    made = await act(house, world.buyer.actor, payments.begin(wish))
    payment = await read_payment(house.pool, made["payment"]["id"])
    assert payment is not None
    provider = SandboxProvider(HouseBook(house), [SECRET_KEY], house.policy.public_url, lambda: now)
    assert payment.expires_at is not None
    back = f"{house.policy.public_url}/pay/{payment.id}"
    placed = await provider.place(Order(payment.id, 1000, "TND", TITLE, back, payment.expires_at))
    await act(
        house,
        world.buyer.actor,
        payments.hand_over(payment.id, placed.provider_reference, placed.page_url),
    )
    reference = placed.provider_reference
    return Asked({"reference": reference}, "", f"sandbox/pay/{reference}", {"pays": "yes"})


async def an_address(_world: World, who: str) -> Asked:
    """Nobody asks for two codes at once."""
    return Asked({}, "", "sign_in", {"email": f"{who}-{secrets.token_hex(4)}@example.com"})


async def a_code(world: World, _who: str) -> Asked:
    """The right digits for somebody's e-mail."""
    email = f"{secrets.token_hex(4)}@example.com"
    code_id = await visits.ask_code(world.house, email, None, "en", None)
    code = world.house.vault.code(visits.SIGN_IN, code_id)
    return Asked({"code": code_id}, "", "sign_in_code", {"code": code})


async def a_codes_link(world: World, who: str) -> Asked:
    """What is mailed with a code."""
    asked = await a_code(world, who)
    token = world.house.vault.link_token(SIGN_IN_LINK, asked.path["code"])
    return Asked({**asked.path, "token": token}, "", "sign_in_link", {})


async def a_phones_code(world: World, _who: str) -> Asked:
    """The right digits for the buyer's phone."""
    await world.owner.execute("UPDATE sign_in_code SET created_at = created_at - interval '1 min'")
    code_id = await visits.ask_phone_code(
        world.house, world.buyer.email, "+21620123456", None, "en"
    )
    code = world.house.vault.code(visits.PHONE, code_id)
    return Asked({"code": code_id}, "", "phone_code", {"code": code})


async def an_invitation(world: World, _who: str) -> Asked:
    """The link of somebody who is invited to buy."""
    email = f"{secrets.token_hex(4)}@example.com"
    terms = make_terms(world.shop, email, "quick", title=TITLE)
    command = escrows.create(world.shop.developer_id, terms)
    made = await act(world.house, world.shop.actor, command)
    [token] = await tokens_of(world.house, email)
    names = {"first_name": "New", "last_name": "Comer", "language": "fr"}
    path = {"token": token, "escrow": made["escrow"]["id"]}
    return Asked(path, "", f"register_invited/{token}", names)


async def a_verification(world: World, _who: str) -> Asked:
    """The link of somebody who is to show who they are; live, since the sandbox decides at once."""
    policy = replace(world.house.policy, environment="live")
    live = replace(world.house, policy=policy)
    email = f"{secrets.token_hex(4)}@example.com"
    wanted = NewVerification.model_validate({"email": email})
    await act(live, world.shop.actor, identity.request(world.shop.developer_id, wanted))
    await send_all(live)
    [mail] = await open_mailbox(live.pool, WORDS, policy, live.vault, email)
    token = mail.links[0].rpartition("/")[2]
    return Asked({"token": token}, "", f"identity/{token}", {}, PNG)


async def a_hook(world: World, _who: str) -> Asked:
    """An endpoint of the developer whose account has the buyer's e-mail; the form enables it."""
    account = await read_account(world.house.pool, world.buyer.email)
    if account is None:
        await arrange(world.house, lambda tx: developers.enrol(tx, world.buyer.email, "Of Bo"))
        return await a_hook(world, _who)
    mine = await read_endpoints(world.house.pool, account.id)
    if not mine:
        wanted = WebhookCreate(url="https://hooks.example/inbox")
        await act(world.house, world.shop.actor, endpoints.create(account.id, wanted))
        return await a_hook(world, _who)
    return Asked({"id": mine[0].id}, "", f"developers/{mine[0].id}", {"act": "enable"})


async def a_delivery(world: World, who: str) -> Asked:
    """A delivery to that endpoint; the form sends it again."""
    asked = await a_hook(world, who)
    account = await read_account(world.house.pool, world.buyer.email)
    assert account is not None
    command = attempts.send_test(account.id, asked.path["id"])
    made = await act(world.house, world.shop.actor, command)
    return replace(asked, path={**asked.path, "delivery": made["delivery"]["id"]})


async def a_file(world: World, _who: str) -> Asked:
    """The signed link of a file that a step has recorded."""

    async def chunks() -> AsyncIterator[bytes]:
        yield PDF

    file = await keep_file(world.storage, "a.pdf", chunks())
    clock = await read_clock(world.house.pool)
    await arrange(world.house, lambda tx: files.record(tx, [file]))
    link = files.view_url("", world.house.vault, file.key, clock.real_now)
    return Asked({"key": file.key}, f"?{link.partition('?')[2]}")


async def an_unsigned_file(world: World, who: str) -> Asked:
    """The file's key alone."""
    return replace(await a_file(world, who), query="")


NAMES = {"first_name": "New", "last_name": "Comer", "language": "fr"}
SETTINGS = {"act": "save", **NAMES, "timezone": ""}
TO_TOP_UP = {"act": "top_up", "amount": "20", "method": BANK_TRANSFER}


# ---- The table ----------------------------------------------------------------------------------


@dataclass(frozen=True)
class Row:
    """A route, and each visitor's word for what becomes of a sound request.

    A word is a status; `sign-in` and `register`, which lead there and back; `-> …`, a redirect to
    a path that matches the pattern.
    """

    route: str
    nobody: str
    unregistered: str
    stranger: str
    seller: str
    buyer: str
    asking: Asking = NOTHING
    case: str = ""

    @property
    def method(self) -> str:
        return self.route.partition(" ")[0]

    @property
    def path(self) -> str:
        return self.route.partition(" ")[2]

    @property
    def words(self) -> Mapping[str, str]:
        return {who: getattr(self, who) for who in VISITORS}


def everybody(route: str, word: str, asking: Asking = NOTHING, case: str = "") -> Row:
    """A row whose page asks nobody who they are."""
    return Row(route, word, word, word, word, word, asking, case)


ESCROW = "/dashboard/escrow/{id}"
TO_HOME, TO_CODE = "-> /dashboard", rf"-> /sign-in/{ENTITY}\?next=/dashboard"
SAVED = r"-> /dashboard/settings\?saved=yes"
TO_PAY = rf"-> /pay/{ENTITY}"
DONE = r"-> /dashboard/escrow/{id}\?done=yes"

# fmt: off
TABLE: tuple[Row, ...] = (
    #   route                               nobody     unregistered  stranger  seller  buyer
    Row("GET /dashboard",                   "sign-in", "register",   "200",    "200",  "200"),
    Row("GET /dashboard/settings",          "sign-in", "register",   "200",    "200",  "200"),
    Row("POST /dashboard/settings",         "sign-in", "register",   SAVED,    SAVED,  SAVED,
        plain("settings", **SETTINGS)),
    Row(f"GET {ESCROW}",                    "sign-in", "register",   "404",    "200",  "200",
        at_escrow("quick", "paid")),
    Row(f"GET {ESCROW}/contract",           "sign-in", "register",   "404",    "200",  "200",
        at_escrow("standard", "pending")),
    Row(f"GET {ESCROW}/{{step}}",           "sign-in", "register",   "404",    "200",  "404",
        at_escrow("quick", "paid", "deliver"), "deliver"),
    Row(f"POST {ESCROW}/{{step}}",          "sign-in", "register",   "404",    DONE,   "404",
        at_escrow("quick", "paid", "deliver"), "deliver"),
    Row(f"GET {ESCROW}/{{step}}",           "sign-in", "register",   "404",    "404",  "200",
        at_escrow("quick", "delivered", "complete"), "complete"),
    Row(f"POST {ESCROW}/{{step}}",          "sign-in", "register",   "404",    "404",  DONE,
        at_escrow("quick", "delivered", "complete"), "complete"),
    Row(f"POST {ESCROW}/{{step}}",          "sign-in", "register",   "404",    "404",  DONE,
        at_escrow("quick", "pending", "accept_pay", way="wallet", amount="100.000"), "accept_pay"),
    Row(f"POST {ESCROW}/{{step}}",          "sign-in", "register",   "404",    DONE,   DONE,
        at_escrow("standard", "pending", "sign_contract", signature="Bo Y"), "sign_contract"),
    Row(f"POST {ESCROW}/{{step}}",          "sign-in", "register",   "404",    DONE,   DONE,
        at_escrow("quick", "paid", "dispute", reason="No."), "dispute"),
    Row(f"GET {ESCROW}",                    "sign-in", "register",   "404",    "200",  "200",
        at_milestones(), "milestones"),
    Row(f"GET {ESCROW}/{{step}}",           "sign-in", "register",   "404",    "404",  "200",
        at_milestones("approve_milestone"), "approve_milestone"),
    Row(f"POST {ESCROW}/{{step}}",          "sign-in", "register",   "404",    "404",  DONE,
        at_milestones("approve_milestone", milestone_1="yes", version="1"), "approve_milestone"),
    Row(f"POST {ESCROW}/{{step}}",          "sign-in", "register",   "404",    DONE,   "404",
        at_milestones("change_milestone_status", milestone="0", status="half", version="1"),
        "change_milestone_status"),
    Row(f"POST {ESCROW}/{{step}}",          "sign-in", "register",   "404",    DONE,   DONE,
        at_milestones("dispute", milestone_0="yes", reason="No.", version="1"),
        "dispute of milestones"),
    Row(f"GET {ESCROW}/contract",           "sign-in", "register",   "404",    "404",  "404",
        at_milestones(), "of milestones, which have none"),
    Row("GET /dashboard/wallet",            "sign-in", "register",   "200",    "200",  "200"),
    Row("POST /dashboard/wallet",           "sign-in", "register",   TO_PAY,   TO_PAY, TO_PAY,
        plain("wallet", **TO_TOP_UP)),
    Row("POST /dashboard/wallet",           "sign-in", "register",   "404",    "404",
        r"-> /dashboard/wallet\?done=yes", a_payout, "the buyer's payout"),
    Row("GET /dashboard/wallet/statement.csv",
                                            "sign-in", "register",   "200",    "200",  "200"),
    Row("GET /developers",                  "sign-in", "200",        "200",    "200",  "200"),
    Row("GET /developers/webhooks/{id}",    "sign-in", "404",        "404",    "404",  "200",
        a_hook),
    Row("POST /developers/webhooks/{id}",   "sign-in", "404",        "404",    "404",
        r"-> /developers/webhooks/{id}\?done=enable", a_hook),
    Row("GET /developers/webhooks/{id}/deliveries/{delivery}",
                                            "sign-in", "404",        "404",    "404",  "200",
        a_delivery),
    Row("POST /developers/webhooks/{id}/deliveries/{delivery}",
                                            "sign-in", "404",        "404",    "404",
        r"-> /developers/webhooks/{id}/deliveries/{delivery}\?done=yes", a_delivery),
    Row("GET /pay/{id}",                    "sign-in", "404",        "404",    "404",  "200",
        a_payment),
    Row("POST /pay/{id}",                   "sign-in", "404",        "404",    "404",  TO_PAY,
        a_payment),
    everybody("GET /pay/{id}/{session}",    "200", a_guests_payment),
    everybody("POST /pay/{id}/{session}",   rf"-> /pay/{ENTITY}/{UUID4}", a_guests_payment),
    everybody("GET /pay/{id}/{session}",    "404", a_guests_payment_by_guess, "guessed"),
    everybody("POST /pay/{id}/{session}",   "404", a_guests_payment_by_guess, "guessed"),
    Row("GET /checkout/{id}",               "200",     "200",        "200",    "200",  "200",
        a_checkout),
    Row("POST /checkout/{id}",              "403",     "403",        "403",    "403",
        rf"-> {BACK}\?session_id={UUID4}&status=completed", a_checkout),
    Row("GET /checkout/{id}",               "200",     "200",        "200",    "200",  "200",
        a_milestones_checkout, "milestones"),
    Row("POST /checkout/{id}",              "403",     "403",        "403",    "403",
        rf"-> {BACK}\?session_id={UUID4}&status=completed", a_milestones_checkout, "milestones"),
    Row("GET /checkout/{id}",               "200",     "200",        "200",    "200",  "phone",
        a_checkout_without_a_phone, "no phone"),
    Row("POST /checkout/{id}",              "403",     "403",        "403",    "403",  "phone",
        a_checkout_without_a_phone, "no phone"),
    Row("GET /checkout/{id}",               "200",     "register",   "200",    "200",  "200",
        a_newcomers_checkout, "newcomer"),
    Row("POST /checkout/{id}",              "403",     "register",   "403",    "403",  "403",
        a_newcomers_checkout, "newcomer"),
    everybody("GET /files/{key}",           "200", a_file),
    everybody("GET /files/{key}",           "404", an_unsigned_file, "unsigned"),
    Row("GET /sign-in",                     "200",     TO_HOME,      TO_HOME,  TO_HOME, TO_HOME),
    everybody("POST /sign-in",              TO_CODE, an_address),
    everybody("GET /sign-in/{code}",        "200", a_code),
    everybody("POST /sign-in/{code}",       TO_HOME, a_code),
    Row("GET /sign-in/{code}",              "404",     "404",        "404",    "404",  "404",
        a_phones_code, "a phone's"),
    everybody("GET /sign-in/{code}/{token}",  "200", a_codes_link),
    everybody("POST /sign-in/{code}/{token}", TO_HOME, a_codes_link),
    Row("GET /sign-out",                    "-> /sign-in", "200",    "200",    "200",  "200"),
    everybody("POST /sign-out",             "-> /sign-in", plain("sign_out")),
    Row("GET /register",                    "sign-in", "200",        TO_HOME,  TO_HOME, TO_HOME),
    Row("POST /register",                   "sign-in", TO_HOME,      TO_HOME,  TO_HOME, TO_HOME,
        plain("register", **NAMES)),
    everybody("GET /register/{token}",      "200", an_invitation),
    everybody("POST /register/{token}",     "-> /dashboard/escrow/{escrow}", an_invitation),
    everybody("GET /identity/{token}",      "200", a_verification),
    everybody("POST /identity/{token}",     "-> /identity/{token}", a_verification),
    Row("GET /phone",                       "sign-in", "register",   "200",    "200",  "200"),
    Row("POST /phone",                      "sign-in", "register",   *[
        rf"-> /phone/{ENTITY}\?next=/dashboard"] * 3,
        plain("phone", phone="+216 20 123 456")),
    Row("GET /phone/{code}",                "sign-in", "register",   "404",    "404",  "200",
        a_phones_code),
    Row("POST /phone/{code}",               "sign-in", "register",   "404",    "404",  TO_HOME,
        a_phones_code),
    everybody("GET /sandbox/pay/{reference}", "200", a_charge),
    everybody("POST /sandbox/pay/{reference}", rf"-> http://amana\.test/pay/{ENTITY}", a_charge),
)
# fmt: on

PAGES = {
    f"{route.method} {route.path}"
    for route in routes(Policy(environment="sandbox"))
    if route.is_page
}
FIRST = {"sign-in": "/sign-in", "register": "/register", "phone": "/phone"}
REFUSED = frozenset({*FIRST, "403", "404"})
FORMS = [row for row in TABLE if row.method == "POST"]
OPEN = frozenset({"GET /checkout/{id}", "POST /checkout/{id}", "GET /register/{token}"})
"""Pages that tell whoever has their link what they are about."""


def named(row: Row) -> str:
    """The row, in the name of its test."""
    return f"{row.route} {row.case}".strip()


def test_every_page_has_its_row_and_every_row_its_page() -> None:
    assert PAGES ^ {row.route for row in TABLE} == set()
    assert len({named(row) for row in TABLE}) == len(TABLE)


def test_a_live_deployment_serves_no_page_of_the_sandboxs_provider() -> None:
    live = {f"{one.method} {one.path}" for one in routes(Policy(environment="live")) if one.is_page}
    assert {one for one in PAGES - live if "/sandbox/" not in one} == set()
    assert [one for one in live if "sandbox" in one] == []


# ---- Asking -------------------------------------------------------------------------------------


async def ask(
    client: aiohttp.ClientSession, row: Row, asked: Asked, cookie: str, token: str, **headers: str
) -> Page:
    """What this row's route answers to whoever has this cookie and sends this token."""
    browser, path = Browser(client, cookie), row.path.format(**asked.path) + asked.query
    if row.method == "GET":
        return await browser.get(path, **headers)
    if asked.file is None:
        return await browser.post(path, {"form_token": token, **asked.fields}, **headers)
    form = aiohttp.FormData()
    form.add_field("form_token", token)
    form.add_field("files", asked.file, filename="a.png")
    return await browser.post(path, form, **headers)


def fault(page: Page, word: str, row: Row, asked: Asked) -> str | None:
    """What is wrong with this answer: where it leads, its status, its headers, its markup."""
    place = re.escape(row.path.format(**asked.path))
    if word in FIRST:
        status, leads = 303, rf"{FIRST[word]}\?next={place}"
    elif word.startswith("-> "):
        status, leads = 303, filled(word.removeprefix("-> "), asked)
    else:
        status, leads = int(word), ""
    if page.status != status or re.fullmatch(leads, page.location) is None:
        return f"{page.status} {page.location} {page.words[:300]}"
    return bare(page)


def filled(pattern: str, asked: Asked) -> str:
    """The pattern with what stands in the path; its own braces stay."""
    for name, text in asked.path.items():
        pattern = pattern.replace(f"{{{name}}}", re.escape(text))
    return pattern


def bare(page: Page) -> str | None:
    """What is missing of what every answer to a browser carries, or is too much in its markup."""
    wanted = {"X-Content-Type-Options": "nosniff", "Referrer-Policy": "no-referrer"}
    found = {name: page.headers.get(name) for name in wanted}
    if found != wanted:
        return f"headers: {found}"
    policy = page.headers.get("Content-Security-Policy", "")
    if "frame-ancestors 'none'" not in policy or "default-src 'none'" not in policy:
        return f"policy: {policy}"
    if "unsafe" in policy or "*" in policy:
        return f"policy: {policy}"
    if "no-store" not in page.headers.get("Cache-Control", ""):
        return f"cache: {page.headers.get('Cache-Control')}"
    inline = re.search(r"<style|\sstyle=|<[^>]+\son[a-z]+=|<script(?![^>]*\ssrc=)", page.text)
    if inline is not None:
        return f"inline: {inline[0]}"
    outside = re.search(r"(?:src|href)=\"(?:https?:)?//(?!amana\.test|shop\.example)", page.text)
    return f"outside: {outside[0]}" if outside else None


# ---- The matrix ---------------------------------------------------------------------------------


@pytest.mark.parametrize("row", TABLE, ids=named)
async def test_each_visitor_is_answered_as_the_table_says(
    world: World, client: aiohttp.ClientSession, row: Row
) -> None:
    """First those who are turned away: nothing changes, nothing is told. A GET changes nothing."""
    answers = {}
    turned_away = [who for who, word in row.words.items() if word in REFUSED]
    asked = await row.asking(world, "nobody")
    before = await fingerprint(world.owner)
    for who in turned_away:
        page = await ask(client, row, asked, world.cookies[who], world.token(who, asked.purpose))
        answers[who] = fault(page, row.words[who], row, asked) or row.words[who]
        assert row.route in OPEN or TITLE not in page.text, who
    assert await fingerprint(world.owner) == before
    for who in row.words.keys() - turned_away:
        asked = await row.asking(world, who)
        before = await fingerprint(world.owner)
        page = await ask(client, row, asked, world.cookies[who], world.token(who, asked.purpose))
        answers[who] = fault(page, row.words[who], row, asked) or row.words[who]
        if row.method == "GET":
            assert await fingerprint(world.owner) == before, who
    assert answers == row.words


@pytest.mark.parametrize("row", FORMS, ids=named)
async def test_a_form_that_is_not_this_visitors_own_for_this_purpose_changes_nothing(
    world: World, client: aiohttp.ClientSession, row: Row
) -> None:
    asked = await row.asking(world, "nobody")
    before, answers = await fingerprint(world.owner), {}
    for who, word in row.words.items():
        other = "buyer" if who != "buyer" else "seller"
        own, theirs = (world.token(one, asked.purpose) for one in (who, other))
        tried = [
            await ask(client, row, asked, world.cookies[who], ""),
            await ask(client, row, asked, world.cookies[who], theirs),
            await ask(client, row, asked, world.cookies[who], world.token(who, "another")),
            await ask(
                client, row, asked, world.cookies[who], own, **{"Sec-Fetch-Site": "cross-site"}
            ),
            await ask(client, row, asked, world.cookies[who], own, Origin="https://evil.example"),
        ]
        # Some are sent elsewhere, or told that nothing is there, before the form is looked at.
        may = {"403", word} if word in REFUSED else {"403"}
        faults = [[fault(page, one, row, asked) for one in may] for page in tried]
        answers[who] = next((str(found) for found in faults if None not in found), "refused")
    assert answers == dict.fromkeys(VISITORS, "refused")
    assert await fingerprint(world.owner) == before


async def test_a_form_without_a_cookie_is_refused_whatever_it_carries(
    world: World, client: aiohttp.ClientSession
) -> None:
    """Nobody can make a token for a browser that has no cookie of ours yet."""
    asked = {row: await row.asking(world, "nobody") for row in FORMS}
    before = await fingerprint(world.owner)
    for row, one in asked.items():
        for token in ("", world.token("buyer", one.purpose), "x" * 43):
            page = await ask(client, row, one, "", token)
            assert page.status in (303, 403, 404), named(row)
            if page.status == 303:
                assert page.location.startswith("/sign-in?next="), named(row)
    assert await fingerprint(world.owner) == before


async def test_a_method_that_a_page_does_not_have_is_405_and_changes_nothing(
    world: World, client: aiohttp.ClientSession
) -> None:
    by_path = {row.path: row for row in TABLE}
    asked = {path: await row.asking(world, "buyer") for path, row in by_path.items()}
    before = await fingerprint(world.owner)
    cookie = {"Cookie": f"amana_session={world.cookies['buyer']}"}
    for path, one in asked.items():
        for method in OTHER_METHODS:
            place = path.format(**one.path) + one.query
            async with client.request(method, place, headers=cookie) as answer:
                assert answer.status == 405, f"{method} {path}"
                assert set(answer.headers["Allow"].split(", ")) <= {"GET", "POST"}
    assert await fingerprint(world.owner) == before


async def test_a_session_that_is_over_is_nobodys(
    world: World, client: aiohttp.ClientSession
) -> None:
    await world.owner.execute("UPDATE visit SET expires_at = now() - interval '1 second'")
    page = await Browser(client, world.cookies["buyer"]).get("/dashboard")
    assert (page.status, page.location) == (303, "/sign-in?next=/dashboard")


async def test_a_new_browsers_cookie_is_kept_from_scripts_and_other_sites(
    client: aiohttp.ClientSession,
) -> None:
    page = await Browser(client, None).get("/sign-in")
    name, *flags = page.headers["Set-Cookie"].split("; ")
    assert re.fullmatch(r"amana_session=[A-Za-z0-9_-]{43}", name)
    assert set(flags) == {"HttpOnly", "Path=/", "SameSite=Lax"}
