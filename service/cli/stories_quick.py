"""The demo's lives of quick escrows: confirmed, sent back, proven, disputed, cancelled."""

from decimal import Decimal
from typing import Any

from service.cli.moment import CONFIRM, CREATED, NAMED, OVER, PAID, SOLD, Sent, changed
from service.cli.seed import SELLER
from service.cli.tale import World
from service.cli.visitor import RECEIPT

FUNDED = changed("pending", "paid")
DELIVERED = changed("paid", "delivered")
CONFIRMED = changed("delivered", "completed")
QUICK: dict[str, Any] = {"mode": "quick", "sellerEmail": SELLER, "estimatedDeliveryDays": 4}

REPRICED = Sent("buyer", "Changed")


async def by_completion(world: World) -> None:
    """Delivered, and nobody objects for seven days: the clock completes it, less the fee."""
    buyer = await world.person("Amel", "Jaziri", funds=1000)
    await world.ask("PUT", "/v1/sandbox/fx", {"currency": "EUR", "rate": "3.4"})
    terms = QUICK | {"amount": 200, "currency": "EUR"}
    tale = await world.open("Quick, completed by the clock", "A used bicycle", buyer, **terms)
    await tale.pay()
    await tale.expect_mail(Sent("seller", "is in escrow"))
    await tale.wait_days(2)
    await tale.deliver()
    await tale.expect_mail(CONFIRM)
    await tale.wait_days(7)
    webhooks = (CREATED, FUNDED, DELIVERED, CONFIRMED)
    mails = (NAMED, CONFIRM, *SOLD)
    await tale.close("completed", webhooks=webhooks, mails=mails, buyer=-680, seller=646)


async def by_rejection(world: World) -> None:
    """Repriced in dollars, delivered, sent back, delivered again; then the clock completes it."""
    buyer = await world.person("Sami", "Bouzid", funds=1000)
    own = {"email": "sami@apps.example", "company": "Sami's app", "userEmail": buyer}
    key = (await world.ask("POST", "/v1/sandbox/developers", own, status=201))["apiKey"]
    await world.ask("PUT", "/v1/sandbox/fx", {"currency": "USD", "rate": "3"})
    terms = QUICK | {"amount": 100, "currency": "USD"}
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
    await tale.expect_mail(CONFIRM)
    reason = {"reason": "A string is broken."}
    await tale.do("the buyer sends it back", "/v1/escrows/{id}/reject-delivery", reason, key=key)
    await tale.deliver()
    await tale.expect_mail(CONFIRM, count=2)
    await tale.wait_days(7)
    webhooks = (
        CREATED,
        "escrow.updated",
        FUNDED,
        DELIVERED,
        "escrow.delivery.rejected delivered → paid",
        changed("delivered", "paid"),
        DELIVERED,
        CONFIRMED,
    )
    mails = (NAMED, REPRICED, CONFIRM, CONFIRM, Sent("seller", "rejected the delivery"), *SOLD)
    net = Decimal("353.4")  # 120 USD at 3.1, less 5 %
    await tale.close("completed", webhooks=webhooks, mails=mails, buyer=-372, seller=net)


async def by_proof(world: World) -> None:
    """The seller must prove the purchase; the buyer asks for a better proof, then accepts it."""
    buyer = await world.person("Ines", "Khelifi", funds=500)
    terms = QUICK | {"amount": 300, "fulfillmentPolicy": {"type": "purchase_proof_required"}}
    tale = await world.open("Quick with proof, corrected once", "A console", buyer, **terms)
    await tale.take("buyer", "accept_pay", "the buyer pays on the page", way="wallet")
    await tale.check_held()
    shown, why, better = {"files": RECEIPT}, "It cannot be read.", "Ask for a better proof"
    await tale.take("seller", "submit_proof", "the seller uploads the proof", files=shown)
    says = "the buyer asks for a better one"
    await tale.take("buyer", "review_proof", says, better, correction=why)
    await tale.take("seller", "submit_proof", "the seller uploads another", files=shown)
    await tale.take("buyer", "review_proof", "the buyer accepts it")
    await tale.deliver()
    await tale.take("buyer", "complete", "the buyer confirms on the page")
    submitted = "escrow.proof.submitted"
    webhooks = (
        *(CREATED, FUNDED, "escrow.proof.required"),
        *(submitted, "escrow.proof.correction_requested", submitted, "escrow.proof.accepted"),
        *(DELIVERED, CONFIRMED),
    )
    looks, asked = Sent("buyer", "shows the purchase"), Sent("seller", "asks for a better proof")
    mails = (NAMED, looks, asked, looks, Sent("seller", "proof is accepted"), CONFIRM, *SOLD)
    await tale.close("completed", webhooks=webhooks, mails=mails, buyer=-300, seller=285)


async def by_offer(world: World) -> None:
    """Disputed with evidence; the seller offers a split, the buyer accepts: no operator needed."""
    buyer = await world.person("Nadia", "Ferchichi", funds=400)
    terms = QUICK | {"amount": 400}
    tale = await world.open("Quick, disputed and settled by an offer", "A tent", buyer, **terms)
    await tale.pay()
    await tale.deliver()
    why, shown = "A pole is missing from what the receipt lists.", {"files": RECEIPT}
    await tale.take("buyer", "dispute", "the buyer opens a dispute", reason=why, files=shown)
    says, text = "the seller offers a split", "It is lost. Keep the tent and pay less."
    await tale.take("seller", "answer_dispute", says, text=text, seller_amount="250")
    mail = await tale.expect_mail(Sent("buyer", "Dispute: news"))
    nadia, at = tale.visitor("buyer"), world.now()
    await nadia.open(mail["links"][0])
    await nadia.follow("Answer the dispute")
    await nadia.press("Accept the offer: 250.000 TND for the seller, 150.000 TND for the buyer")
    await tale.note(at, "the buyer accepts the offer, from the mail's link")
    webhooks = (
        *(CREATED, FUNDED, DELIVERED, changed("delivered", "disputed"), "escrow.dispute.opened"),
        *(changed("disputed", "completed"), "escrow.dispute.resolved"),
    )
    settled = (Sent("buyer", "Dispute settled"), Sent("seller", "Dispute settled"))
    told = (Sent("seller", "Dispute: A tent"), Sent("buyer", "Dispute: news"), *settled)
    net = Decimal("237.5")  # 250, less its part of the fee
    mails = (NAMED, *PAID, CONFIRM, *told)
    await tale.close("completed", webhooks=webhooks, mails=mails, buyer=-250, seller=net)


async def by_request(world: World) -> None:
    """The buyer asks to cancel, is declined, asks again, and gets the money back."""
    buyer = await world.person("Omar", "Sassi", funds=90)
    terms = QUICK | {"amount": 90}
    tale = await world.open("Quick, cancelled at the buyer's request", "A watch", buyer, **terms)
    await tale.pay()
    ask, decline, agree = "request_cancellation", "reject_cancellation", "accept_cancellation"
    await tale.take("buyer", ask, "the buyer asks to cancel", reason="I found another one.")
    await tale.take("seller", decline, "the seller declines")
    await tale.take("buyer", ask, "the buyer asks again", reason="You have not sent it yet.")
    await tale.take("seller", agree, "the seller agrees: all of it goes back")
    asked = "escrow.cancellation.requested"
    webhooks = (
        *(CREATED, FUNDED, asked, "escrow.cancellation.rejected", asked),
        *("escrow.cancellation.accepted", changed("paid", "cancelled")),
    )
    asks = Sent("seller", "asks to cancel")
    mails = (NAMED, *PAID, asks, Sent("buyer", "Not cancelled"), asks, *OVER)
    await tale.close("cancelled", webhooks=webhooks, mails=mails)
