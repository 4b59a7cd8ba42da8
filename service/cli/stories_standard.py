"""The demo's life of a standard escrow: a contract between a shop and a stranger."""

from decimal import Decimal
from typing import Any

from service.cli.moment import (
    ACCEPTED,
    CONFIRM,
    CREATED,
    INVITED,
    SIGNED,
    SOLD,
    Moment,
    Sent,
    Unexpected,
    changed,
    until,
)
from service.cli.tale import Tale, World

TERMS = "The seller sends the camera with both lenses, insured.\nThe buyer tests it for 7 days."


async def by_signing(world: World) -> None:
    """Invited by mail, registered, signed by both, paid by card, confirmed: all on the pages."""
    terms: dict[str, Any] = {
        "mode": "standard",
        "amount": 250,
        "estimatedDeliveryDays": 7,
        "contractTerms": TERMS,
        "is_known": False,
    }
    buyer = "rania@people.example"
    tale = await world.open("Standard, lived on the pages", "A camera", buyer, **terms)
    await register(tale, "Rania", "Gharbi")
    await world.fund(buyer, 100)
    tale.before["buyer"] = await world.wallet(buyer)
    await tale.take("seller", "sign_contract", "the seller signs", signature="Demo Seller")
    await tale.take("buyer", "sign_contract", "the buyer signs", signature="Rania Gharbi")
    await pay_by_card(tale)
    await tale.deliver()
    await tale.take("buyer", "complete", "the buyer confirms on the page")
    await read_paper(tale)
    webhooks = (
        *(CREATED, ACCEPTED, SIGNED, SIGNED, changed("pending", "paid")),
        *(changed("paid", "delivered"), changed("delivered", "completed")),
    )
    both = (Sent("buyer", "Signed by both"), Sent("seller", "Signed by both"))
    mails = (INVITED, Sent("buyer", "has signed the contract"), *both, CONFIRM, *SOLD)
    net = Decimal("237.5")  # 250 less 5 %
    await tale.close("completed", webhooks=webhooks, mails=mails, buyer=-100, seller=net)


async def register(tale: Tale, first_name: str, last_name: str) -> None:
    """The stranger, whose browser is set to French, registers on the page of the mailed link."""
    mail = await tale.expect_mail(INVITED)
    stranger, at = tale.visitor("buyer", "fr"), tale.world.now()
    await stranger.open(mail["links"][0])
    await stranger.press(first_name=first_name, last_name=last_name)
    await tale.note(at, "the buyer registers on the page of the mailed link")


async def pay_by_card(tale: Tale) -> None:
    """The buyer verifies a phone, then pays by card what the wallet lacks."""
    buyer, at = tale.visitor("buyer"), tale.world.now()
    await buyer.open(await tale.link("buyer", "accept_pay"))
    await buyer.press(phone="+216 20 123 456")
    await buyer.enter_code()
    await buyer.press(way="sandbox")
    await buyer.press()  # on the card provider's page: this amount is approved
    if not buyer.left_for:  # on the page that says so, with the way back
        await buyer.follow()
    tale.check_return(buyer)
    await tale.note(at, "the buyer pays, 150 TND of it by card")
    await tale.check_held()


async def read_paper(tale: Tale) -> None:
    """The contract as both have signed it is a PDF by now."""

    async def look() -> str | None:
        path = f"/v1/escrows/{tale.id}/contract"
        printed = (await tale.world.ask("GET", path))["contract"]["pdfVersions"]
        return next((str(one["url"]) for one in printed if one["type"] == "fully-signed"), None)

    content = await tale.world.download(await until(look, "the signed contract is not printed"))
    if not content.startswith(b"%PDF"):
        raise Unexpected(f"the contract is no PDF: {content[:20]!r}")
    says = f"the contract lies there as a PDF of {len(content) // 1000} kB"
    tale.moments.append(Moment(tale.world.now(), "step", says))
