"""The demo's lives of milestone escrows: single and multi release, disputes resolved three ways.

By the resolver, in part, and by the clock; an over-funded one is emptied. Everybody acts on their
pages, by the links that the shop sends them to.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from service.cli.moment import Moment, Sent, Unexpected, changed
from service.cli.tale import BACK, Tale, World

MILESTONE_HOOK = "/milestones"
ROLES = {
    "approver": "client",
    "releaseSigner": "client",
    "serviceProvider": "studio",
    "receiver": "studio",
    "platform": "platform",
    "disputeResolver": "resolver",
}
"""A role -> the side of the tale whose person holds it."""
CREATED, FUNDED = "milestone_escrow.created", "milestone_escrow.funded"
REPORTED, APPROVED = "milestone.status_changed", "milestone.approved"
WITHDRAWN = "milestone_escrow.withdrawn"
SIDES = tuple(dict.fromkeys(ROLES.values()))
NAMED = tuple(Sent(side, "You are named") for side in SIDES)


def disputed_by(opener: str) -> tuple[Sent, ...]:
    """Everybody hears of a dispute but whoever has opened it."""
    return tuple(Sent(side, "Dispute: ") for side in SIDES if side != opener)


def moved(says: str, *payees: str) -> tuple[Sent, ...]:
    """Everybody hears of money that has moved, in these words; payees of what they got."""
    return tuple(Sent(side, "You get " if side in payees else says) for side in SIDES)


RELEASED, RESOLVED, REST = "was released", "Dispute resolved", Sent("client", "You get ")


@dataclass
class MilestoneTale(Tale):
    """As `Tale`, of a milestone escrow; wallets are those of its currency."""

    currency: str = "USDC"
    purses: dict[str, Decimal] = field(default_factory=dict)

    async def link(self, side: str, action: str) -> str:
        """The shop's link for one step of this side's person."""
        asked = {"action": action, "targetUserEmail": self.people[side], "redirectUrl": BACK}
        path = f"/v1/milestone-escrows/{self.id}/sessions"
        made = await self.world.ask("POST", path, asked, status=201)
        self.sessions.append(made["sessionId"])
        return str(made["url"])

    async def status(self) -> str:
        """Where the escrow stands."""
        return str((await self.look())["status"])

    async def look(self) -> Mapping[str, Any]:
        """The escrow."""
        found = await self.world.ask("GET", f"/v1/milestone-escrows/{self.id}")
        shown: Mapping[str, Any] = found["escrow"]
        return shown

    async def share(self, action: str, says: str, *amounts: tuple[str, str], **typed: str) -> None:
        """The resolver gives these sides so much each, on the page."""
        page = self.visitor("resolver")
        at = self.world.now()
        await page.open(await self.link("resolver", action))
        if not page.page.has_button:
            await page.come_in()
        [form] = {id(one.form): one.form for one in page.page.buttons if one.is_primary}.values()
        rows = {form.fields[name]: name.replace("who_", "share_") for name in form.fields
                if name.startswith("who_") and form.fields[name]}  # fmt: skip
        given = {rows[self.people[side]]: amount for side, amount in amounts}
        await page.press(files=None, **given, **typed)
        self.check_return(page)
        await self.note(at, says)

    async def finish(
        self,
        status: str,
        webhooks: Sequence[str],
        mails: Sequence[Sent],
        balance: str = "0",
        **changes: str,
    ) -> None:
        """Hold the life against what it should be: webhooks, mails, what each side has more."""
        self.webhooks, self.mails = webhooks, (*NAMED, *mails)
        for webhook in webhooks:
            await self.hear(webhook)
        for mail in self.mails:
            await self.expect_mail(mail)
        for side, before in self.purses.items():
            change = await purse(self.world, self.people[side], self.currency) - before
            self.money[side] = change
            if change != Decimal(changes.get(side, "0")):
                self.complaints.append(f"the {side}'s wallet changed by {change}")
        shown = await self.look()
        if (shown["status"], Decimal(shown["balance"])) != (status, Decimal(balance)):
            self.complaints.append(f"it is {shown['status']} and holds {shown['balance']}")


async def purse(world: World, email: str, currency: str) -> Decimal:
    """What is in this wallet of this currency."""
    found = await world.ask("GET", f"/v1/sandbox/users/{email}/balance?currency={currency}")
    return Decimal(found["balance"]["available"])


async def start(
    world: World,
    title: str,
    thing: str,
    cast: Sequence[str],
    *,
    funds: int,
    currency: str = "USDC",
    **terms: Any,
) -> MilestoneTale:
    """The shop opens a milestone escrow between a `cast` of four, of whom the client has money."""
    await listen(world)
    people, names = {}, iter(cast)
    for side in dict.fromkeys(ROLES.values()):
        people[side] = await world.person(next(names), "Mejri", funds=1)
    if funds:
        body = {"amount": funds, "currency": currency}
        await world.ask("POST", f"/v1/sandbox/users/{people['client']}/topup", body)
    asked = {
        "engagementId": f"job-{len(world.tales)}",
        "title": thing,
        "description": "As we have agreed.",
        "currency": currency,
        "platformFeeBps": 500,
        "roles": {role: people[side] for role, side in ROLES.items()},
        **terms,
    }
    at = world.now()
    made = (await world.ask("POST", "/v1/milestone-escrows", asked, status=201))["escrow"]
    tale = MilestoneTale(world, title, made, people, {}, currency=currency)
    for side in ("client", "studio", "platform"):
        tale.purses[side] = await purse(world, people[side], currency)
    tale.moments.append(Moment(at, "step", "the shop opens it", made["status"]))
    world.tales.append(tale)
    await tale.hear(CREATED)
    return tale


async def listen(world: World) -> None:
    """The shop's second endpoint takes this family's events; the first has the statuses already."""
    url = f"{world.partner.url}{MILESTONE_HOOK}"
    listed = await world.ask("GET", "/developer/webhooks")
    if any(one["url"] == url for one in listed["webhooks"]):
        return
    wanted = {"url": url, "events": ["milestone_escrow.*", "milestone.*"]}
    made = (await world.ask("POST", "/developer/webhooks", wanted, status=201))["webhook"]
    world.partner.trust(MILESTONE_HOOK, made["secret"])


# ---- The lives ----------------------------------------------------------------------------------


async def by_single_release(world: World) -> None:
    """Paid in twice and too much, approved, released at once; the rest goes back to the client."""
    tale = await start(
        world, "Milestones, single release, over-funded", "A website",
        ("Aziz", "Beya", "Chiraz", "Dali"), funds=2000,
        releaseMode="single", amount="1000",
        milestones=[{"description": "Design"}, {"description": "Pages"}],
    )  # fmt: skip
    await tale.take("client", "fund", "the client pays in a part", sum="600")
    await tale.take("client", "fund", "the client pays in too much", sum="500.5")
    report = {"milestone": "0", "status": "designed", "evidence": "https://work.example/design"}
    await tale.take("studio", "change_milestone_status", "the studio reports", files=None, **report)
    ticks = {"milestone_0": "yes", "milestone_1": "yes"}
    await tale.take("client", "approve_milestone", "the client approves both", files=None, **ticks)
    await tale.take("client", "release", "the client releases")
    if Decimal((await tale.look())["balance"]) != Decimal("100.5"):
        raise Unexpected("the surplus is not left over")
    back = ("client", "100.5")
    await tale.share("withdraw_remaining", "the resolver gives the surplus back", back)
    webhooks = (
        *(CREATED, FUNDED, FUNDED, REPORTED, APPROVED, APPROVED),
        *(changed("working", "pendingRelease"), "milestone_escrow.released"),
        *(changed("pendingRelease", "released"), WITHDRAWN),
    )
    mails = (*moved(RELEASED, "studio"), REST)
    await tale.finish("released", webhooks, mails, client="-1000", studio="947", platform="50")


async def by_multi_release(world: World) -> None:
    """One milestone is released, the other disputed and resolved in part; the rest goes back."""
    tale = await start(
        world, "Milestones, multi release, resolved in part", "A garden",
        ("Emna", "Firas", "Ghada", "Haroun"), funds=500,
        releaseMode="multi",
        milestones=[{"description": "Trees", "amount": "300"},
                    {"description": "A pond", "amount": "200"}],
    )  # fmt: skip
    await tale.take("client", "fund", "the client pays in", sum="500")
    await tale.take("client", "approve_milestone", "the client approves", milestone_0="yes")
    await tale.take("client", "release", "the client releases the trees", milestone_0="yes")
    why = {"milestone_1": "yes", "reason": "The pond leaks."}
    await tale.take("client", "dispute", "the client disputes the pond", files=None, **why)
    part = ("studio", "120")
    await tale.share("resolve_dispute", "the resolver gives the studio a part", part, milestone="1")
    rest = ("client", "80")
    await tale.share("withdraw_remaining", "the resolver gives the rest back", rest)
    webhooks = (
        *(CREATED, FUNDED, APPROVED, changed("working", "pendingRelease")),
        *("milestone.released", changed("pendingRelease", "working")),
        *("milestone.disputed", changed("working", "inDispute")),
        *("milestone.dispute_resolved", changed("inDispute", "released"), WITHDRAWN),
    )
    mails = (*moved(RELEASED, "studio"), *disputed_by("client"), *moved(RESOLVED, "studio"), REST)
    await tale.finish("released", webhooks, mails, client="-420", studio="397.74", platform="21")


async def by_resolver(world: World) -> None:
    """Disputed by the studio, with a note by the client; the resolver shares all of it."""
    tale = await start(
        world, "Milestones, resolved by the resolver", "A logo",
        ("Asma", "Hedi", "Olfa", "Ridha"), funds=100, currency="EUR",
        releaseMode="single", amount="100", milestones=[{"description": "Three drafts"}],
    )  # fmt: skip
    await tale.take("client", "fund", "the client pays in", sum="100")
    why = {"reason": "The drafts are there and nobody answers."}
    await tale.take("studio", "dispute", "the studio opens a dispute", files=None, **why)
    note = {"email": tale.people["client"], "step": "note_dispute",
            "input": {"text": "Two of them are the same."}}  # fmt: skip
    path = "/v1/sandbox/milestone-escrows/{id}/act"
    await tale.do("the client adds a note", path, note)
    parts = (("client", "40"), ("studio", "60"))
    await tale.share("resolve_dispute", "the resolver shares it out", *parts)
    webhooks = (
        *(CREATED, FUNDED, "milestone_escrow.disputed", changed("working", "inDispute")),
        *("milestone_escrow.dispute_noted", "milestone_escrow.dispute_resolved"),
        changed("inDispute", "resolved"),
    )
    mails = (*disputed_by("studio"), *moved(RESOLVED, "client", "studio"))
    await tale.finish("resolved", webhooks, mails, client="-62.12", studio="56.82", platform="5")


async def by_resolvers_deadline(world: World) -> None:
    """Nobody resolves the dispute within five days: all of it goes back, without a fee."""
    tale = await start(
        world, "Milestones, resolved by the clock", "A film",
        ("Sonia", "Tarek", "Wafa", "Zied"), funds=50, currency="USD",
        releaseMode="single", amount="50", resolverDeadlineDays=5,
        milestones=[{"description": "The cut"}],
    )  # fmt: skip
    await tale.take("client", "fund", "the client pays in", sum="50")
    await tale.take("client", "dispute", "the client opens a dispute", reason="Nothing came.")
    await tale.wait_days(6)
    webhooks = (
        *(CREATED, FUNDED, "milestone_escrow.disputed", changed("working", "inDispute")),
        *("milestone_escrow.dispute_resolved", changed("inDispute", "resolved")),
    )
    await tale.finish("resolved", webhooks, (*disputed_by("client"), *moved(RESOLVED, "client")))


MILESTONE_STORIES: Sequence[Callable[[World], Awaitable[None]]] = (
    by_single_release,
    by_multi_release,
    by_resolver,
    by_resolvers_deadline,
)
"""In the order in which they are lived."""
