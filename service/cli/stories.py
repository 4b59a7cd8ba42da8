"""The demo's stories: what people and their shop do, and what must come of it.

Each is one life of an escrow; `STORIES` is the order in which they are lived.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from service.cli.partner import Reply
from service.cli.seed import SELLER
from service.cli.tale import (
    ACCEPTED,
    CREATED,
    HOOK,
    LOOK_EVERY_SECONDS,
    PATIENCE_SECONDS,
    Moment,
    Sent,
    Tale,
    Unexpected,
    World,
    changed,
    is_of,
)

INSTANT = (CREATED, changed("pending", "paid"), changed("paid", "completed"))
SOLD = (
    Sent("buyer", "You paid"),
    Sent("seller", "is in escrow"),
    Sent("buyer", "Completed"),
    Sent("seller", "You were paid"),
)
NAMED = Sent("buyer", "New escrow")
INVITED = Sent("buyer", "sells you")


async def by_deliver(world: World) -> None:
    """Paid, delivered, and released in the same moment."""
    buyer = await world.person("Karim", "Haddad", funds=500)
    terms: dict[str, Any] = {"mode": "instant", "amount": 120}
    tale = await world.open("Instant, completed by deliver", "Two tickets", buyer, **terms)
    await tale.pay()
    await tale.hear(changed("pending", "paid"))
    await tale.deliver()
    await tale.close("completed", webhooks=INSTANT, mails=(NAMED, *SOLD), buyer=-120, seller=120)


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
    await tale.close("completed", webhooks=INSTANT, mails=(NAMED, *SOLD), buyer=-45, seller=45)


async def until_refused(tale: Tale) -> None:
    """Wait until the shop has refused a webhook of this escrow, and note it."""
    clock = asyncio.get_running_loop().time
    give_up_at = clock() + PATIENCE_SECONDS
    while clock() < give_up_at:
        for one in tale.world.partner.received:
            if one.is_verified and not one.is_accepted and is_of(one, tale.id):
                at = tale.world.business(one.at)
                tale.moments.append(Moment(at, "step", f"the shop's receiver answers {one.status}"))
                return
        await asyncio.sleep(LOOK_EVERY_SECONDS)
    raise Unexpected("the scripted 500 was not asked for")


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
    webhooks, mails = (*INSTANT, ACCEPTED), (INVITED, *SOLD)
    await tale.close("completed", webhooks=webhooks, mails=mails, buyer=-80, seller=80)


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


async def by_completion(world: World) -> None:
    """Delivered, and nobody objects for seven days: the clock completes it, less the fee."""
    buyer = await world.person("Amel", "Jaziri", funds=1000)
    await world.ask("PUT", "/v1/sandbox/fx", {"currency": "EUR", "rate": "3.4"})
    terms: dict[str, Any] = {
        "mode": "quick",
        "amount": 200,
        "currency": "EUR",
        "sellerEmail": SELLER,
        "estimatedDeliveryDays": 4,
    }
    tale = await world.open("Quick, completed by the clock", "A used bicycle", buyer, **terms)
    await tale.pay()
    await tale.expect_mail(Sent("seller", "is in escrow"))
    await tale.wait_days(2)
    await tale.deliver()
    await tale.expect_mail(Sent("buyer", "please confirm"))
    await tale.wait_days(7)
    webhooks = (
        CREATED,
        changed("pending", "paid"),
        changed("paid", "delivered"),
        changed("delivered", "completed"),
    )
    mails = (NAMED, Sent("buyer", "please confirm"), *SOLD)
    await tale.close("completed", webhooks=webhooks, mails=mails, buyer=-680, seller=646)


async def by_rejection(world: World) -> None:
    """Repriced in dollars, delivered, sent back, delivered again; then the clock completes it."""
    buyer = await world.person("Sami", "Bouzid", funds=1000)
    own = {"email": "sami@apps.example", "company": "Sami's app", "userEmail": buyer}
    key = (await world.ask("POST", "/v1/sandbox/developers", own, status=201))["apiKey"]
    await world.ask("PUT", "/v1/sandbox/fx", {"currency": "USD", "rate": "3"})
    terms: dict[str, Any] = {
        "mode": "quick",
        "amount": 100,
        "currency": "USD",
        "sellerEmail": SELLER,
        "estimatedDeliveryDays": 4,
    }
    tale = await world.open("Quick, sent back and delivered again", "A guitar", buyer, **terms)
    await world.ask("PUT", "/v1/sandbox/fx", {"currency": "USD", "rate": "3.1"})
    change = {"amount": 120, "title": "A guitar and its case"}
    updated = await tale.do(
        "the seller updates the price", "/v1/escrows/{id}", change, method="PUT"
    )
    tale.escrow = {**tale.escrow, "amountTnd": updated["amountTnd"]}
    await tale.pay()
    await tale.expect_mail(Sent("seller", "is in escrow"))
    await tale.deliver()
    await tale.expect_mail(Sent("buyer", "please confirm"))
    reason = {"reason": "A string is broken."}
    await tale.do("the buyer sends it back", "/v1/escrows/{id}/reject-delivery", reason, key=key)
    await tale.deliver()
    await tale.expect_mail(Sent("buyer", "please confirm"), count=2)
    await tale.wait_days(7)
    webhooks = (
        CREATED,
        "escrow.updated",
        changed("pending", "paid"),
        changed("paid", "delivered"),
        "escrow.delivery.rejected delivered → paid",
        changed("delivered", "paid"),
        changed("paid", "delivered"),
        changed("delivered", "completed"),
    )
    confirm = Sent("buyer", "please confirm")
    mails = (NAMED, confirm, confirm, Sent("seller", "rejected the delivery"), *SOLD)
    net = Decimal("353.4")  # 120 USD at 3.1, less 5 %
    await tale.close("completed", webhooks=webhooks, mails=mails, buyer=-372, seller=net)


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
    cancelled = (Sent("buyer", "Cancelled"), Sent("seller", "Cancelled"))
    mails = (reminder, reminder, INVITED, *cancelled)
    await tale.close("cancelled", webhooks=webhooks, mails=mails)


STORIES: Sequence[Callable[[World], Awaitable[None]]] = (
    by_deliver,
    by_acknowledgement,
    by_invitation,
    by_cancellation,
    by_completion,
    by_rejection,
    by_expiry,
)
