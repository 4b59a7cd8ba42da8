"""The demo's lives of instant escrows: released on delivery, with or without an account."""

from datetime import datetime
from typing import Any

from service.cli.moment import (
    ACCEPTED,
    CREATED,
    INVITED,
    NAMED,
    OVER,
    SOLD,
    Moment,
    Sent,
    Unexpected,
    changed,
    until,
)
from service.cli.partner import Reply
from service.cli.tale import HOOK, Tale, World, is_of
from service.cli.visitor import RECEIPT, Visitor

LIVED = (CREATED, changed("pending", "paid"), changed("paid", "completed"))


async def by_deliver(world: World) -> None:
    """Paid, delivered, and released in the same moment."""
    buyer = await world.person("Karim", "Haddad", funds=500)
    terms: dict[str, Any] = {"mode": "instant", "amount": 120}
    tale = await world.open("Instant, completed by deliver", "Two tickets", buyer, **terms)
    await tale.pay()
    await tale.hear(changed("pending", "paid"))
    await tale.deliver()
    await tale.close("completed", webhooks=LIVED, mails=(NAMED, *SOLD), buyer=-120, seller=120)


async def by_acknowledgement(world: World) -> None:
    """The shop's 2xx to the payment completes it; its 500 does not."""
    buyer = await world.person("Leila", "Mansour", funds=100)
    terms: dict[str, Any] = {"mode": "instant", "amount": 45, "autoComplete": "on_ack"}
    tale = await world.open("Instant, completed on_ack", "A game key", buyer, **terms)
    world.partner.answer(HOOK, Reply(500))
    await tale.pay()
    await until_refused(tale)
    if (status := await tale.status()) != "paid":
        raise Unexpected(f"it is {status} although the shop answered 500")
    completed = await tale.hear(changed("paid", "completed"))
    at = datetime.fromisoformat(completed.event["timestamp"])
    tale.moments.append(Moment(at, "step", "the worker completes it, on the 2xx", "completed"))
    await tale.close("completed", webhooks=LIVED, mails=(NAMED, *SOLD), buyer=-45, seller=45)


async def until_refused(tale: Tale) -> None:
    """Wait until the shop has refused a webhook of this escrow, and note it."""

    async def look() -> Moment | None:
        for one in tale.world.partner.received:
            if one.is_verified and not one.is_accepted and is_of(one, tale.id):
                at = tale.world.business(one.at)
                return Moment(at, "step", f"the shop's receiver answers {one.status}")
        return None

    tale.moments.append(await until(look, "the scripted 500 was not asked for"))


async def by_invitation(world: World) -> None:
    """A stranger is invited by mail, registers through its first link, and pays."""
    terms: dict[str, Any] = {"mode": "instant", "amount": 80, "is_known": False}
    buyer = "rim@people.example"
    tale = await world.open("Instant, its buyer invited", "A lamp", buyer, **terms)
    mail = await tale.expect_mail(INVITED)
    token = mail["links"][0].rpartition("/register/")[2]
    at = world.now()
    named = {"token": token, "firstName": "Rim", "lastName": "Gharbi"}
    joined = await world.ask("POST", "/v1/sandbox/register", named, status=201)
    if joined["escrows"] != [tale.id]:
        raise Unexpected(f"registering linked {joined['escrows']}")
    tale.moments.append(Moment(at, "step", "the buyer registers through the mailed link"))
    await world.ask("POST", "/v1/sandbox/register", named, status=404)  # the link is spent
    await world.fund(buyer, 80)
    tale.before["buyer"] = await world.wallet(buyer)
    await tale.pay()
    await tale.deliver()
    webhooks, mails = (*LIVED, ACCEPTED), (INVITED, *SOLD)
    await tale.close("completed", webhooks=webhooks, mails=mails, buyer=-80, seller=80)


async def by_guest(world: World) -> None:
    """Without an account, by bank transfer: the first receipt is not accepted, the second is."""
    terms: dict[str, Any] = {"mode": "instant", "amount": 60, "is_known": False}
    buyer = "hedi@people.example"
    tale = await world.open("Instant, paid by a guest", "A concert ticket", buyer, **terms)
    await tale.expect_mail(INVITED)
    hedi, link = tale.visitor("buyer"), await tale.link("buyer", "accept_pay")
    await transfer(tale, hedi, link, approve=False)
    await tale.expect_mail(Sent("buyer", "was not accepted"))
    await transfer(tale, hedi, link, approve=True)
    await tale.hear(changed("pending", "paid"))
    await hedi.open(link)
    await hedi.follow()
    tale.check_return(hedi)
    await tale.deliver()
    webhooks = (*LIVED, "escrow.deposit_proof.rejected")
    mails = (INVITED, Sent("buyer", "was not accepted"), *SOLD)
    await tale.close("completed", webhooks=webhooks, mails=mails, seller=60)


async def transfer(tale: Tale, guest: Visitor, link: str, *, approve: bool) -> None:
    """From the shop's link to a receipt that is uploaded, and the operator's word on it."""
    world = tale.world
    at = world.now()
    await guest.open(link)
    await guest.press("Pay as a guest")
    payment = guest.page.url.parts[2]  # /pay/<payment>/<session>
    await guest.press(files={"proof": RECEIPT})
    await tale.note(at, "a guest transfers the money and uploads the receipt")
    at = world.now()
    await world.ask("POST", f"/v1/sandbox/payments/{payment}/decide", {"approve": approve})
    await tale.note(at, f"the operator {'approves' if approve else 'rejects'} it")


async def by_cancellation(world: World) -> None:
    """The buyer thinks better of it, and cancels with a key of their own."""
    buyer = await world.person("Youssef", "Trabelsi", funds=300)
    own = {"email": "youssef@apps.example", "company": "Youssef's app", "userEmail": buyer}
    key = (await world.ask("POST", "/v1/sandbox/developers", own, status=201))["apiKey"]
    terms: dict[str, Any] = {"mode": "instant", "amount": 250}
    tale = await world.open("Instant, cancelled by its buyer", "A phone", buyer, **terms)
    await tale.do("the buyer cancels", "/v1/escrows/{id}/cancel", key=key)
    webhooks = (CREATED, changed("pending", "cancelled"))
    await tale.close("cancelled", webhooks=webhooks, mails=(NAMED, Sent("seller", "Cancelled")))


async def by_expiry(world: World) -> None:
    """Nobody pays: two reminders, and after a month the clock cancels it."""
    terms: dict[str, Any] = {"mode": "instant", "amount": 60, "is_known": False}
    tale = await world.open("Instant, expired", "A chair", "nobody@people.example", **terms)
    reminder = Sent("buyer", "Reminder")
    await tale.expect_mail(INVITED)
    await tale.wait_days(2)
    await tale.expect_mail(reminder)
    await tale.wait_days(5)
    await tale.expect_mail(reminder, count=2)
    await tale.wait_days(25)
    webhooks = (CREATED, changed("pending", "cancelled"))
    mails = (reminder, reminder, INVITED, *OVER)
    await tale.close("cancelled", webhooks=webhooks, mails=mails)
