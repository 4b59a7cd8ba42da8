"""Partners and people who know nothing but the HTTP API: every call goes through the real door.

camera = await world.life("quick")            # a pending escrow of a new partner and buyer
await world.bring(camera, "delivered")
answer = await camera.partner.get(camera.path)
"""

import contextlib
import io
import json
import re
import secrets
from collections.abc import AsyncIterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

import aiohttp

from service.commands import developers, users, wallets
from service.commands.perform import House
from service.rules.money import to_minor
from service.store.db import Transaction
from service.wire.base import dump_json
from tests.conformance.shapes import differences
from tests.makers import arrange

V1 = "/api/v1"
ESCROWS = f"{V1}/escrows"
SANDBOX = f"{V1}/sandbox"
WEBHOOKS = "/api/developer/webhooks"
NOTHING = object()
ONE_PIECE_BYTES = 1024 * 1024
"""What is longer the client sends piece by piece."""
MODES = ("standard", "quick", "instant")
KINDS = ("standard", "quick", "quick_proof", "instant")
"""The modes, and the quick one with a proof policy."""
UNPRINTABLE = [f"a{one}b" for one in "\x01\x07\x0b\x0c\r\x1b\x1f\x7f\x85\x9f"] + ["\x1ca", "a\x85"]
"""Terms with a control character, in their midst or where a trim would have eaten it."""

POLICY = {"type": "purchase_proof_required"}
PIXEL = (
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    "WjR9awAAAABJRU5ErkJggg=="
)
RECEIPT = {"name": "receipt.png", "contentBase64": PIXEL}
"""A file in the sandbox's `input`: one pixel."""
PLAIN_FRACTION = re.compile(r"-?(0|[1-9]\d*)\.\d*[1-9]")


def _fraction(token: str) -> Decimal:
    assert PLAIN_FRACTION.fullmatch(token), f"{token} is not the plain form of this number"
    return Decimal(token)


def _no_constant(token: str) -> None:
    raise AssertionError(f"{token} is no JSON")


@dataclass(frozen=True)
class Answer:
    """What came back; `body` has exact numbers, `raw` the bytes."""

    status: int
    headers: Mapping[str, str]
    raw: bytes

    @property
    def body(self) -> Any:
        return json.loads(self.raw, parse_float=_fraction, parse_constant=_no_constant)

    @property
    def escrow(self) -> dict[str, Any]:
        shown: dict[str, Any] = self.body["escrow"]
        return shown

    def differs(self, status: int, body: Any) -> list[str]:
        """Where this is not the answer that is expected; empty when it is."""
        found = [] if self.status == status else [f"status: {self.status} is not {status}"]
        if self.headers.get("Content-Type") != "application/json; charset=utf-8":
            found.append(f"type: {self.headers.get('Content-Type')}")
        return found + differences(self.body, body)


@dataclass(frozen=True)
class Person:
    """A registered user."""

    id: str
    email: str
    first_name: str
    last_name: str


@dataclass(frozen=True)
class Partner:
    """A developer with a key, as the one who calls."""

    session: aiohttp.ClientSession
    key: str
    developer_id: str
    company: str
    user: Person | None

    async def ask(
        self,
        method: str,
        path: str,
        body: Any = NOTHING,
        *,
        raw: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        key: str | None = None,
    ) -> Answer:
        """One call; `key` is its Idempotency-Key, `raw` the body's bytes as they are."""
        sent = {"Authorization": f"Bearer {self.key}", **(headers or {})}
        if key is not None:
            sent["Idempotency-Key"] = key
        if body is not NOTHING:
            raw = dump_json(body)
            sent.setdefault("Content-Type", "application/json")
        content = raw if raw is None or len(raw) < ONE_PIECE_BYTES else io.BytesIO(raw)
        async with self.session.request(method, path, data=content, headers=sent) as response:
            answer = Answer(response.status, response.headers.copy(), await response.read())
        assert answer.headers["X-Request-Id"]
        assert answer.status < 500 or answer.status == 503, answer
        return answer

    async def get(self, path: str, **how: Any) -> Answer:
        return await self.ask("GET", path, **how)

    async def post(self, path: str, body: Any = NOTHING, **how: Any) -> Answer:
        return await self.ask("POST", path, body, **how)

    async def put(self, path: str, body: Any = NOTHING, **how: Any) -> Answer:
        return await self.ask("PUT", path, body, **how)

    def by(self, session: aiohttp.ClientSession) -> "Partner":
        """The same one, at another door."""
        return Partner(session, self.key, self.developer_id, self.company, self.user)


@dataclass
class Life:
    """An escrow and who is in it."""

    partner: Partner
    mode: str
    seller: Person | None
    buyer: Person | None
    seller_email: str | None = None
    buyer_email: str | None = None
    has_proof: bool = False
    id: str = ""
    answer: Answer | None = None

    @property
    def path(self) -> str:
        return f"{ESCROWS}/{self.id}"

    async def read(self) -> dict[str, Any]:
        """The escrow as its creator reads it."""
        return (await self.partner.get(self.path)).escrow


def new_email(name: str = "someone") -> str:
    """An address that nobody has."""
    return f"{name}-{secrets.token_hex(5)}@example.org"


def order(mode: str, buyer_email: str, /, **changes: Any) -> dict[str, Any]:
    """A sound body of create: 100 TND, due in 3 days. A change to `NOTHING` leaves a field out."""
    sound = {
        "title": "A camera",
        "amount": 100,
        "buyerEmail": buyer_email,
        "mode": mode,
        "estimatedDeliveryDays": 3,
    }
    if mode == "standard":
        sound["contractTerms"] = "As described."
    whole = {**sound, **changes}
    return {name: value for name, value in whole.items() if value is not NOTHING}


PATHS: dict[str, tuple[str, ...]] = {
    "pending": (),
    "cancelled": ("cancel",),
    "paid": ("pay",),
    "delivered": ("pay", "deliver"),
    "completed": ("pay", "deliver", "complete"),
    "disputed": ("pay", "dispute"),
}
"""The steps to each status; instant escrows have no `delivered`, so `deliver` completes them."""


class World:
    """The sandbox, as its helpers make it."""

    def __init__(self, house: House, session: aiohttp.ClientSession, counting: str) -> None:
        self.house = house
        self.session = session
        self._counting = counting

    @classmethod
    async def made(cls, house: House, session: aiohttp.ClientSession, counting: str) -> "World":
        """An empty one; `root`, who calls the sandbox's helpers, is nobody's party."""
        world = cls(house, session, counting)
        world.root = await world.partner(associated=False, company="Root")
        return world

    root: Partner

    async def person(
        self, email: str | None = None, funds: Any = 1000, *, is_verified: bool = True
    ) -> Person:
        """A registered user with `funds` TND."""
        address, millimes = email or new_email("bo"), to_minor(Decimal(funds), "TND")

        async def work(tx: Transaction) -> Person:
            user = await users.register(tx, address, "Bo", "Yer", is_email_verified=is_verified)
            if millimes:
                await wallets.top_up(tx, address, millimes, "TND")
            return Person(user.person.id, address, "Bo", "Yer")

        made: Person = await arrange(self.house, work)
        return made

    async def top_up(self, email: str, amount: Any) -> None:
        """More money for a wallet, in TND."""
        await self._sandbox("POST", f"users/{email}/topup", {"amount": amount})

    async def partner(self, *, associated: bool = True, company: str = "Camera House") -> Partner:
        """Another developer; with a user of its own unless said otherwise."""
        address = new_email("sells") if associated else None

        async def work(tx: Transaction) -> Partner:
            person = None
            if address is not None:
                user = await users.register(tx, address, "Sal", "Er")
                person = Person(user.person.id, address, "Sal", "Er")
            made = await developers.enrol(tx, new_email("dev"), company, user_email=address)
            return Partner(self.session, made.api_key, made.developer_id, company, person)

        made: Partner = await arrange(self.house, work)
        return made

    async def life(
        self,
        kind: str = "instant",
        status: str = "pending",
        *,
        partner: Partner | None = None,
        buyer: Person | None = None,
        seller: Person | None = None,
        **changes: Any,
    ) -> Life:
        """An escrow of this kind in this status; a third-party `seller` is named by e-mail.

        `changes` are fields of create's body.
        """
        partner = partner or await self.partner()
        buyer = buyer or await self.person()
        mode = "quick" if kind == "quick_proof" else kind
        if kind == "quick_proof":
            changes.setdefault("fulfillmentPolicy", POLICY)
        sells = seller or partner.user
        if (mode == "quick" or seller is not None) and sells is not None:
            changes.setdefault("sellerEmail", sells.email)
        life = Life(partner, mode, sells, buyer, has_proof=kind == "quick_proof")
        life.answer = await partner.post(ESCROWS, order(mode, buyer.email, **changes))
        assert life.answer.status == 201, life.answer.raw
        life.id = life.answer.escrow["id"]
        await self.bring(life, status)
        return life

    async def bring(self, life: Life, status: str) -> None:
        """Take a pending escrow to this status, step by step."""
        if status == "completed" and life.mode == "instant":
            status = "delivered"
        await self.bring_on(life, *PATHS[status])

    async def bring_on(self, life: Life, *steps: str) -> None:
        """Take these steps, each by somebody who may."""
        for step in steps:
            await self.step(life, step)

    async def step(self, life: Life, step: str) -> None:
        """One step of somebody's who may take it."""
        if step == "pay":
            assert life.buyer is not None
            if life.mode == "standard":
                await self.sign(life)
            await self.pay(life)
        elif step == "cancel":
            assert (await life.partner.post(f"{life.path}/cancel")).status == 200
        elif step == "deliver" and life.seller == life.partner.user:
            assert (await life.partner.post(f"{life.path}/deliver")).status == 200
        elif step == "deliver":
            await self.act(life, life.seller, "deliver")
        elif step == "submit_proof":
            await self.act(life, life.seller, step, files=[RECEIPT], note="As agreed.")
        elif step == "request_correction":
            await self.act(life, life.buyer, step, correction="Unreadable.")
        else:
            await self.act(life, life.buyer, step, **({"reason": "?"} if step == "dispute" else {}))

    async def sign(self, life: Life) -> None:
        """Both parties sign the contract."""
        for person in (life.seller, life.buyer):
            await self.act(life, person, "sign_contract", signature="A Name")

    async def pay(self, life: Life) -> dict[str, Any]:
        """The buyer pays from the wallet."""
        assert life.buyer is not None
        return await self._sandbox("POST", f"escrows/{life.id}/pay", {"email": life.buyer.email})

    async def act(self, life: Life, person: Person | None, step: str, **given: Any) -> Any:
        """A step as this person."""
        assert person is not None
        asked: dict[str, Any] = {"email": person.email, "step": step}
        if given:
            asked["input"] = given
        return await self._sandbox("POST", f"escrows/{life.id}/act", asked)

    async def set_rate(self, currency: str, rate: str) -> None:
        await self._sandbox("PUT", "fx", {"currency": currency, "rate": rate})

    async def advance(self, *, days: float = 0, hours: float = 0) -> dict[str, Any]:
        """Let this much time pass."""
        return await self._sandbox(
            "POST", "clock/advance", {"seconds": int(days * 86_400 + hours * 3_600)}
        )

    async def now(self) -> datetime:
        return datetime.fromisoformat((await self._sandbox("GET", "clock"))["now"])

    async def wallet(self, person: Person | None) -> Any:
        """What this person can spend, in TND."""
        assert person is not None
        found = await self._sandbox("GET", f"users/{person.email}/balance")
        return found["balance"]["available"]

    @contextlib.asynccontextmanager
    async def unchanged(self, *lives: Life) -> AsyncIterator[None]:
        """Nothing may be stored within, and these escrows read as before."""
        before = await self._stored(lives)
        yield
        assert await self._stored(lives) == before

    async def _stored(self, lives: Sequence[Life]) -> tuple[list[tuple[str, int]], list[Any]]:
        counted = [tuple(row) for row in await self.house.pool.fetch(self._counting)]
        return counted, [await life.read() for life in lives]

    async def _sandbox(
        self, method: str, path: str, body: Any = NOTHING, *, status: int = 200
    ) -> Any:
        answer = await self.root.ask(method, f"{SANDBOX}/{path}", body)
        assert answer.status == status, (path, answer.status, answer.raw)
        return answer.body
