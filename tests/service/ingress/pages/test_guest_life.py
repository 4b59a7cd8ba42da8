"""Money from outside, through the checkout page: a guest's transfer, and the way back from a card.

In a real browser on a phone, from the shop's link until the person is back at the shop.
"""

import re
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import pytest

from service.commands import payments
from service.commands.charges import HouseBook
from service.gateways.payments.sandbox import SandboxProvider
from service.rules.machine import Actor, ActorKind
from service.rules.payment import SANDBOX
from service.store.ledger import read_balance
from tests.attachments import PNG
from tests.makers import act, make_buyer, make_escrow, reread
from workers.metrics import WorkMetrics
from workers.payments import Payments

GUEST = "guest@example.org"
OPERATOR = Actor(ActorKind.OPERATOR)
UPLOAD = {"name": "receipt.png", "mimeType": "image/png", "buffer": PNG}
GUESTS_PAGE = re.compile(r"/pay/([0-9a-f]{24})/[0-9a-f-]{36}")
PAYMENTS_PAGE = re.compile(r"/pay/[0-9a-f]{24}")
WHY = "There is no such transfer."


async def decide(street, someone, **word):
    """The operator's word on the payment that this person looks at."""
    payment_id = GUESTS_PAGE.search(someone.page.url)[1]
    await act(street.house, OPERATOR, payments.decide(payment_id, **word))


async def prove(someone):
    """The receipt is uploaded, and is looked at by the operator now."""
    await someone.page.wait_for_selector("#proof")
    await someone.look()
    await someone.page.set_input_files("#proof", UPLOAD)
    await someone.press()
    await someone.page.wait_for_selector("#proof", state="detached")
    await someone.look()


async def go_home(someone, to):
    """By the quiet link at the page's end."""
    await someone.page.locator("main .way-out a").last.click()
    await someone.page.wait_for_url(to)
    await someone.look()


@pytest.mark.parametrize(
    ("language", "scripts", "from_mail"),
    [("en", True, True), ("ar", False, False), ("fr", True, False)],
)
async def test_a_guest_pays_by_transfer_is_rejected_tries_again_and_is_back_at_the_shop(
    street, person, language, scripts, from_mail
):
    made = await make_escrow(street.house, street.shop, buyer_email=GUEST, amount=Decimal(60))
    link = await street.session(made.id, "accept_pay", GUEST)
    hedi = await person(language, "guest", scripts=scripts)
    await hedi.go(link)
    await hedi.press("button[value=guest]")
    await prove(hedi)
    rejected = hedi.page.url
    await decide(street, hedi, approves=False, note=WHY)
    assert (await reread(street.house, made.id)).status == "pending"
    if from_mail:
        mailed = await street.link(GUEST)
        assert mailed == rejected
        await hedi.go(mailed)
        assert WHY in await hedi.page.inner_text("main")
        await hedi.press()
    else:
        await hedi.go(link)
        await hedi.press("button[value=guest]")
    await prove(hedi)
    assert hedi.page.url != rejected
    await decide(street, hedi, approves=True)
    await hedi.go(hedi.page.url)
    await go_home(hedi, link)
    await hedi.press("a.primary")
    await hedi.is_back()
    paid = await reread(street.house, made.id)
    assert (paid.status, paid.held_minor, paid.buyer) == ("paid", 60_000, None)
    told = await street.house.pool.fetch(
        "SELECT type FROM event WHERE subject_id = $1 AND type IS NOT NULL ORDER BY seq", made.id
    )
    assert [row["type"] for row in told] == [
        "escrow.created", "escrow.deposit_proof.rejected", "escrow.status.updated"
    ]  # fmt: skip
    delivered = await street.call("POST", f"/escrows/{made.id}/deliver")
    assert delivered["escrow"]["status"] == "completed"


# ---- The way back from a card -------------------------------------------------------------------


@pytest.fixture
def at_card(street, person):
    """`await at_card("en", "100.02")`: somebody with 40 TND at the card's page, for the rest."""

    async def sent(language, amount):
        buyer = await make_buyer(street.house, funds="40")
        made = await make_escrow(
            street.house, street.shop, buyer, mode="quick", amount=Decimal(amount)
        )
        link = await street.session(made.id, "accept_pay", buyer.email)
        nour = await person(language, "buyer")
        await nour.is_signed_in(buyer.email)
        await nour.go(f"{link}?lang={language}")
        await nour.page.check("input[name=way][value=sandbox]")
        await nour.press()
        await nour.page.wait_for_url("**/sandbox/pay/**")
        await nour.look()
        return nour, made, buyer, link

    return sent


async def six_seconds_later(street):
    """The worker's round, as it comes then."""

    def now():
        return datetime.now(UTC) + timedelta(seconds=6)

    settings = street.settings
    provider = SandboxProvider(HouseBook(street.house), settings.secret_keys, street.url, now)
    await Payments(street.house, {SANDBOX: provider}, WorkMetrics(), now).turn()


async def money(street, buyer):
    balance = await read_balance(street.house.pool, buyer.user_id, "TND")
    return balance.available, balance.pending, balance.escrow


async def test_whoever_has_paid_the_rest_by_card_is_led_back_to_the_shop(street, at_card):
    nour, made, buyer, _ = await at_card("en", "100")
    await nour.press("button[value=yes]")
    await nour.is_back()
    assert (await reread(street.house, made.id)).status == "paid"
    assert await money(street, buyer) == (0, 0, 100_000)


async def test_a_card_that_takes_its_time_is_asked_after_and_then_done(street, at_card):
    nour, made, buyer, link = await at_card("en", "100.02")
    await nour.press("button[value=yes]")
    await nour.page.wait_for_url(PAYMENTS_PAGE)
    await nour.look()
    assert (await reread(street.house, made.id)).status == "pending"
    await go_home(nour, re.compile(re.escape(link)))
    assert "asking whether your payment has arrived" in await nour.page.inner_text("main")
    await six_seconds_later(street)
    await nour.press("a.primary")
    await nour.page.wait_for_selector("text=This is done")
    await nour.look()
    await nour.press("a.primary")
    await nour.is_back()
    assert await money(street, buyer) == (0, 0, 100_020)


@pytest.mark.parametrize(("amount", "button"), [("100.01", "yes"), ("100", "no")])
async def test_who_was_declined_or_turned_away_may_pay_in_another_way(
    street, at_card, amount, button
):
    nour, made, buyer, link = await at_card("en", amount)
    await nour.press(f"button[value={button}]")
    await nour.page.wait_for_url(PAYMENTS_PAGE)
    await nour.look()
    assert await money(street, buyer) == (40_000, 0, 0)
    await go_home(nour, re.compile(re.escape(link)))
    await nour.page.check("input[name=way][value=bank_transfer]")
    await nour.press()
    await nour.page.wait_for_url(PAYMENTS_PAGE)
    await nour.look()
    assert await nour.page.locator("#proof").count() == 1
    assert (await reread(street.house, made.id)).status == "pending"
