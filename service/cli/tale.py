"""What the demo's stories are told with: a world of people and a shop, and an escrow's tale.

Everything is done through the real doors, by HTTP: the shop's by a developer's key, people's on
their pages. What is seen is what an outsider sees: answers, pages, webhooks, mails, wallets.
"""

import json
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Any

import aiohttp

from service.cli.moment import (
    ACCEPTED,
    CREATED,
    PATIENCE_SECONDS,
    SIGNED,
    Moment,
    Sent,
    Unexpected,
    until,
)
from service.cli.partner import Partner, Received, standard_form
from service.cli.seed import SELLER
from service.cli.visitor import Upload, Visitor

HOOK = "/hook"
BACK = "https://shop.example/thanks"
DAY = 86_400


class World:
    """A deployment as the shop's developer sees it, the shop's receiver, and the passing time."""

    def __init__(self, session: aiohttp.ClientSession, key: str, partner: Partner) -> None:
        self.partner = partner
        self.tales: list[Tale] = []
        self.complaints: list[str] = []
        self._session = session
        self._key = key
        self._visitors: dict[str, Visitor] = {}
        # From each real moment on, how far business time was ahead.
        self._shifts = [(datetime.min.replace(tzinfo=UTC), timedelta())]

    async def ask(
        self, method: str, path: str, body: Any = None, *, status: int = 200, key: str = ""
    ) -> Any:
        """The answer's object; fractions are Decimals. Raises Unexpected for another status."""
        headers = {"X-API-Key": key or self._key}
        asked = self._session.request(method, f"/api{path}", json=body, headers=headers)
        async with asked as response:
            raw = await response.text()
        if response.status != status:
            raise Unexpected(f"{method} {path} answered {response.status}: {raw[:300]}")
        return json.loads(raw, parse_float=Decimal)

    async def subscribe(self) -> None:
        """The shop's receiver is told what becomes of its escrows, and keeps the secret."""
        events = ["escrow.*", SIGNED, ACCEPTED]
        wanted = {"url": f"{self.partner.url}{HOOK}", "events": events}
        made = (await self.ask("POST", "/developer/webhooks", wanted, status=201))["webhook"]
        self.partner.trust(HOOK, made["secret"])
        if made["standardSecret"] != standard_form(made["secret"]):
            raise Unexpected("standardSecret is not the secret in the form of the libraries")
        await self.ask("PUT", "/developer/redirect-urls", {"urls": [BACK]})

    async def person(self, first_name: str, last_name: str, funds: int) -> str:
        """Somebody with an account and so many TND in the wallet; the e-mail."""
        email = f"{first_name.lower()}@people.example"
        named = {"email": email, "firstName": first_name, "lastName": last_name}
        await self.ask("POST", "/v1/sandbox/users", named, status=201)
        await self.fund(email, funds)
        return email

    async def fund(self, email: str, amount: int) -> None:
        """Put so many TND into this wallet."""
        await self.ask("POST", f"/v1/sandbox/users/{email}/topup", {"amount": amount})

    async def wallet(self, email: str, kind: str = "available") -> Decimal:
        """What is in this wallet, in TND."""
        found = await self.ask("GET", f"/v1/sandbox/users/{email}/balance")
        return Decimal(found["balance"][kind])

    def visitor(self, email: str, language: str = "en") -> Visitor:
        """This person's browser, the same one every time."""
        if email not in self._visitors:
            self._visitors[email] = Visitor(self._session, email, language, self.expect_mail)
        return self._visitors[email]

    async def mailbox(self, email: str) -> list[Any]:
        """The mails that this address was sent, newest first."""
        found: list[Any] = (await self.ask("GET", f"/v1/sandbox/mailbox?to={email}"))["mails"]
        return found

    async def expect_mail(self, email: str, is_it: Callable[[Mapping[str, Any]], bool]) -> Any:
        """Wait for such a mail to this address; the newest."""

        async def look() -> Any:
            return next((mail for mail in await self.mailbox(email) if is_it(mail)), None)

        return await until(look, f"no such mail to {email}")

    async def download(self, url: str) -> bytes:
        """What this signed link leads to."""
        async with self._session.get(url) as answer:
            if answer.status != 200:
                raise Unexpected(f"a file answered {answer.status}")
            return await answer.read()

    async def open(
        self, title: str, thing: str, buyer: str, *, is_known: bool = True, **terms: Any
    ) -> "Tale":
        """The shop opens an escrow with this buyer; its tale."""
        before = {"seller": await self.wallet(SELLER)}
        if is_known:
            before["buyer"] = await self.wallet(buyer)
        at = self.now()
        asked = {"title": thing, "buyerEmail": buyer, **terms}
        made = await self.ask("POST", "/v1/escrows", asked, status=201)
        tale = Tale(self, title, made["escrow"], {"seller": SELLER, "buyer": buyer}, before)
        tale.moments.append(Moment(at, "step", "the shop opens it", made["escrow"]["status"]))
        self.tales.append(tale)
        await tale.hear(CREATED)
        return tale

    async def advance(self, seconds: int) -> list[Any]:
        """Business time passes; what the clock fired on the way."""
        before = datetime.now(UTC)
        answer = await self.ask("POST", "/v1/sandbox/clock/advance", {"seconds": seconds})
        shift = datetime.fromisoformat(answer["now"]) - datetime.now(UTC)
        self._shifts.append((before, shift))
        fired: list[Any] = answer["fired"]
        return fired

    def now(self) -> datetime:
        """Business time."""
        return self.business(datetime.now(UTC))

    def business(self, real: datetime) -> datetime:
        """The business time of a real moment."""
        return real + next(shift for since, shift in reversed(self._shifts) if since <= real)


@dataclass
class Tale:
    """One escrow's life as it is lived; `complaints` is empty when it was lived as it should be."""

    world: World
    title: str
    escrow: Mapping[str, Any]
    people: Mapping[str, str]
    before: dict[str, Decimal]
    moments: list[Moment] = field(default_factory=list)
    money: dict[str, Decimal] = field(default_factory=dict)
    complaints: list[str] = field(default_factory=list)
    webhooks: Sequence[str] = ()
    mails: Sequence[Sent] = ()
    sessions: list[str] = field(default_factory=list)
    currency: str = "TND"

    @property
    def id(self) -> str:
        """The escrow's."""
        return str(self.escrow["id"])

    async def do(
        self, says: str, path: str, body: Any = None, *, key: str = "", method: str = "POST"
    ) -> Any:
        """Take a step of the escrow, as who says so; the answer's escrow."""
        at = self.world.now()
        answer = await self.world.ask(method, path.format(id=self.id), body, key=key)
        self.moments.append(Moment(at, "step", says, answer["escrow"]["status"]))
        return answer["escrow"]

    async def note(self, at: datetime, says: str) -> None:
        """What was done elsewhere than by `do` becomes a moment, with the state it led to."""
        self.moments.append(Moment(at, "step", says, await self.status()))

    def visitor(self, side: str, language: str = "en") -> Visitor:
        """The browser of this side's person."""
        return self.world.visitor(self.people[side], language)

    async def link(self, side: str, action: str) -> str:
        """The shop's link for one step of this side's person: the page of a checkout session."""
        asked = {"action": action, "targetUserEmail": self.people[side], "redirectUrl": BACK}
        made = await self.world.ask("POST", f"/v1/escrows/{self.id}/sessions", asked, status=201)
        self.sessions.append(made["sessionId"])
        return str(made["url"])

    async def take(
        self,
        side: str,
        action: str,
        says: str,
        button: str = "",
        *,
        files: Mapping[str, Upload] | None = None,
        **typed: str,
    ) -> None:
        """Take a step on the page that the shop sends this side's person to, and be sent back.

        `button` where it is not the page's primary one; `files` and `typed` are filled in.
        """
        at, person = self.world.now(), self.visitor(side)
        await person.open(await self.link(side, action))
        if not person.page.has_button:
            await person.come_in()
        await person.press(button, files=files, **typed)
        self.check_return(person)
        await self.note(at, says)

    def check_return(self, person: Visitor) -> None:
        """The person was sent back to the shop with the last session completed, else Unexpected."""
        if person.left_for != f"{BACK}?session_id={self.sessions[-1]}&status=completed":
            raise Unexpected(f"{person.email} was sent to {person.left_for or 'no shop'}")

    async def pay(self) -> None:
        """The buyer pays from the wallet; exactly the amount is held."""
        body = {"email": self.people["buyer"]}
        await self.do("the buyer pays into escrow", "/v1/sandbox/escrows/{id}/pay", body)
        await self.check_held()

    async def check_held(self) -> None:
        """Exactly the amount is held for the buyer, else Unexpected."""
        held = await self.world.wallet(self.people["buyer"], "escrow")
        if held != self.escrow["amountTnd"]:
            raise Unexpected(f"{held} TND are held instead of {self.escrow['amountTnd']}")

    async def deliver(self) -> None:
        """The seller delivers."""
        await self.do("the seller delivers", "/v1/escrows/{id}/deliver")

    async def wait_days(self, days: int) -> None:
        """Business time passes; the clock's steps on the way become moments."""
        for fired in await self.world.advance(days * DAY):
            if fired["escrowId"] == self.id:
                at = datetime.fromisoformat(fired["dueAt"])
                self.moments.append(Moment(at, "clock", f"the clock strikes: {fired['kind']}"))

    async def status(self) -> str:
        """Where the escrow stands."""
        found = await self.world.ask("GET", f"/v1/escrows/{self.id}")
        return str(found["escrow"]["status"])

    async def hear(self, webhook: str) -> Received:
        """Wait until the shop has accepted this webhook of the escrow."""
        try:
            return await self.world.partner.wait_for(
                lambda one: is_of(one, self.id) and name_of(one) == webhook, PATIENCE_SECONDS
            )
        except TimeoutError:
            raise Unexpected(f"no webhook {webhook} within {PATIENCE_SECONDS:.0f} s") from None

    async def read_mails(self) -> list[tuple[str, Any]]:
        """(side, mail) of every mail about this escrow that was sent; a guest's names a session."""
        names = (self.id, *self.sessions)
        return [
            (side, mail)
            for side, email in self.people.items()
            for mail in await self.world.mailbox(email)
            if any(name in mail["text"] for name in names)
        ]

    async def expect_mail(self, wanted: Sent, count: int = 1) -> Any:
        """Wait until this mail was sent so many times; the newest."""

        async def look() -> Any:
            found = [mail for side, mail in await self.read_mails() if wanted.is_it(side, mail)]
            return found[0] if len(found) >= count else None

        return await until(look, f"no mail to the {wanted.to}: {wanted.subject}")

    async def close(
        self,
        status: str,
        *,
        webhooks: Sequence[str],
        mails: Sequence[Sent],
        buyer: int | Decimal = 0,
        seller: int | Decimal = 0,
    ) -> None:
        """Wait for what is still under way, and hold the life against what it should be.

        `buyer` and `seller` are by how many TND their wallets changed.
        """
        self.webhooks, self.mails = webhooks, mails
        for webhook in webhooks:
            await self.hear(webhook)
        for mail in mails:
            await self.expect_mail(mail)
        for side, before in self.before.items():
            self.money[side] = await self.world.wallet(self.people[side]) - before
            if self.money[side] != {"buyer": buyer, "seller": seller}[side]:
                self.complaints.append(f"the {side}'s wallet changed by {self.money[side]}")
        if (found := await self.status()) != status:
            self.complaints.append(f"it is {found} instead of {status}")

    async def write_down(self) -> None:
        """The webhooks and mails so far become moments; the clock's get the state they led to."""
        states = {}
        for one in self.heard():
            states[datetime.fromisoformat(one.event["timestamp"])] = reached(one)
            tries = self.tries(one)
            again = f" (attempt {tries})" if tries > 1 else ""
            at = self.world.business(one.at)
            self.moments.append(Moment(at, "webhook", name_of(one) + again))
        self.moments = [
            replace(one, state=states.get(one.at, "")) if one.kind == "clock" else one
            for one in self.moments
        ]
        for side, mail in await self.read_mails():
            at = self.world.business(datetime.fromisoformat(mail["sentAt"]))
            self.moments.append(Moment(at, "mail", f"to the {side}: {mail['subject']}"))

    async def recheck(self) -> None:
        """Complain of everything that came and should not have, or did not come."""
        came, wanted = Counter(map(name_of, self.heard())), Counter(self.webhooks)
        self.complaints += [f"webhook missing: {name}" for name in (wanted - came).elements()]
        self.complaints += [f"webhook unforeseen: {name}" for name in (came - wanted).elements()]
        left = list(self.mails)
        for side, mail in await self.read_mails():
            found = next((one for one in left if one.is_it(side, mail)), None)
            if found is None:
                self.complaints.append(f"mail unforeseen, to the {side}: {mail['subject']}")
            else:
                left.remove(found)
        self.complaints += [f"mail missing, to the {one.to}: {one.subject}" for one in left]

    def heard(self) -> list[Received]:
        """The webhooks of this escrow that were verified and accepted, each once."""
        return [one for one in self.world.partner.accepted if is_of(one, self.id)]

    def tries(self, accepted: Received) -> int:
        """How many attempts this event took."""
        wanted = accepted.headers["webhook-id"]
        return sum(one.headers.get("webhook-id") == wanted for one in self.world.partner.received)


def is_of(received: Received, escrow_id: str) -> bool:
    """Whether the webhook is about this escrow."""
    return bool(received.event["data"]["escrow"]["id"] == escrow_id)


def name_of(received: Received) -> str:
    """The type, and where the status changed from what to what."""
    event = received.event
    escrow = event["data"]["escrow"]
    if "oldStatus" not in escrow:
        return str(event["type"])
    return f"{event['type']} {escrow['oldStatus']} → {escrow['status']}"


def reached(received: Received) -> str:
    """The state that this webhook tells of, where it tells of a new one."""
    escrow = received.event["data"]["escrow"]
    return str(escrow["status"]) if "oldStatus" in escrow else ""


def complaints_of(partner: Partner) -> Iterator[str]:
    """Every delivery that did not verify."""
    for one in partner.received:
        for complaint in one.complaints:
            yield f"a webhook on {one.path} at {one.at.isoformat()}: {complaint}"
