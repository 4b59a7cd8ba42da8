"""The whole life of a standard escrow as two people see it, on phones, in English and in Arabic.

With PICTURES=1 each station is photographed into docs/pages/.
"""

import io
import os
import re
import socket
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from pypdf import PdfReader

from service.cli.house import open_house
from service.commands import developers, profiles
from service.commands.mails import open_mailbox
from service.commands.visits import PHONE, SIGN_IN
from service.gateways.files import open_storage
from service.ingress.connection import Runner
from service.ingress.main import make_app
from service.settings import load_settings
from service.store.profiles import Profile
from tests.books import assert_sound
from tests.browser import overflow, photograph, serious
from tests.house import CLEAN
from tests.makers import act, arrange, make_shop, user_actor
from tests.outbox import WORDS, send_all
from workers.papers import Printer

PICTURES = Path(__file__).parents[4] / "docs" / "pages"
BUYER, BACK = "nour@example.org", "https://shop.example/back"
TERMS = {
    "en": "The seller sends the camera with both lenses, insured.\nThe buyer tests it for 7 days.",
    "ar": "يرسل البائع الكاميرا مع العدستين، مؤمَّنة.\nللمشتري 7 أيام للتجربة.",
}
TITLE = {"en": "A camera with two lenses", "ar": "كاميرا بعدستين"}
NAMES = {"en": ("Nour", "Trabelsi"), "ar": ("نور", "الطرابلسي")}


class Street:
    """A deployment at the address that it names, a shop that sells there, and its API."""

    def __init__(self, settings, house, shop, client) -> None:
        self.settings, self.house, self.shop, self.client = settings, house, shop, client
        self.url = settings.amana_public_url

    async def call(self, method, path, body=None):
        async with self.client.request(
            method, f"{self.url}/api/v1{path}", json=body, headers=self.shop.headers
        ) as answer:
            assert answer.status in (200, 201), await answer.text()
            return await answer.json()

    async def session(self, escrow_id, action, email):
        body = {"action": action, "targetUserEmail": email, "redirectUrl": BACK}
        return (await self.call("POST", f"/escrows/{escrow_id}/sessions", body))["url"]

    async def link(self, email):
        """The first link in the newest mail to this person."""
        await send_all(self.house)
        house = self.house
        mails = await open_mailbox(house.pool, WORDS, house.policy, house.vault, email)
        return mails[0].links[0]


@pytest.fixture
async def street(environ, owner, redis):
    await owner.execute(CLEAN)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        settings = load_settings(environ | {"AMANA_PUBLIC_URL": url})
        runner = Runner(make_app(settings), access_log=None, shutdown_timeout=2)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        async with open_house(settings) as house, aiohttp.ClientSession() as client:
            shop = await make_shop(house)
            await arrange(
                house, lambda tx: developers.allow_redirects(tx, shop.developer_id, [BACK])
            )
            yield Street(settings, house, shop, client)
            await assert_sound(house)
        await runner.cleanup()


class Person:
    """Somebody with a phone in their hand; every page that they see is looked at."""

    def __init__(self, street, page, language, who) -> None:
        self.street, self.page, self.language, self.who = street, page, language, who
        self.seen = 0

    async def look(self, name):
        """Nothing keeps this person out of the page, and it is in their language."""
        assert await self.page.get_attribute("html", "lang") == self.language
        assert await serious(self.page) == []
        assert await overflow(self.page) == 0
        self.seen += 1
        if os.environ.get("PICTURES"):
            path = PICTURES / self.language / f"{self.who}-{self.seen:02}-{name}.png"
            await photograph(self.page, path)

    async def go(self, url, name):
        await self.page.goto(url)
        await self.look(name)

    async def press(self, selector="button.primary"):
        await self.page.locator(f"main {selector}").first.click()

    async def come_in(self):
        """From the page's door through the mailed code, and back to the page."""
        await self.press("a.primary, main button.primary")
        await self.page.wait_for_url(re.compile(r"/sign-in\?"))
        await self.look("sign-in")
        await self.press()
        await self.page.wait_for_url(re.compile(r"/sign-in/[0-9a-f]{24}"))
        await self.look("code")
        await self.page.locator("#code").fill(self.code(SIGN_IN))
        await self.press()
        await self.page.wait_for_url(re.compile(r"^[^?]*/checkout/"))

    def code(self, purpose):
        code_id = re.search(r"/([0-9a-f]{24})", self.page.url)[1]
        return self.street.house.vault.code(purpose, code_id)

    async def is_back(self):
        await self.page.wait_for_url("https://shop.example/**")
        assert self.page.url.endswith("&status=completed")


@pytest.fixture
def person(street, phone):
    async def made(language, who):
        page = await phone(language)
        await page.route("https://shop.example/**", lambda route: route.fulfill(body="back"))
        return Person(street, page, language, who)

    return made


async def draw(page):
    await page.locator("canvas").scroll_into_view_if_needed()
    box = await page.locator("canvas").bounding_box()
    await page.mouse.move(box["x"] + 30, box["y"] + 40)
    await page.mouse.down()
    for x, y in ((80, 20), (130, 60), (180, 25), (240, 50)):
        await page.mouse.move(box["x"] + x, box["y"] + y, steps=5)
    await page.mouse.up()


@pytest.mark.parametrize("language", ["en", "ar"])
async def test_a_standard_escrow_is_lived_on_two_phones(street, person, tmp_path, language):
    speaking = profiles.change(
        street.shop.user_id, Profile("Sami", "Ben Ali", language, "Africa/Tunis")
    )
    await act(street.house, user_actor(street.shop.user_id), speaking)
    nour, seller = await person(language, "buyer"), await person(language, "seller")
    made = await street.call(
        "POST",
        "/escrows",
        {
            "title": TITLE[language], "amount": 250, "buyerEmail": BUYER, "language": language,
            "estimatedDeliveryDays": 7, "contractTerms": TERMS[language],
        },
    )  # fmt: skip
    escrow_id = made["escrow"]["id"]

    # An invited buyer registers.
    await nour.go(await street.link(BUYER), "invited")
    await nour.page.locator("#first_name").fill(NAMES[language][0])
    await nour.page.locator("#last_name").fill(NAMES[language][1])
    await nour.press()
    await nour.page.wait_for_url(f"**/dashboard/escrow/{escrow_id}")
    await nour.look("escrow")

    # Both sign: the seller types a name after signing in by a code, the buyer draws.
    await seller.go(await street.session(escrow_id, "sign_contract", street.shop.email), "door")
    await seller.come_in()
    await seller.look("sign")
    await seller.page.locator("#signature").fill("Sami Ben Ali")
    await seller.press("button.primary:last-of-type")
    await seller.is_back()
    await nour.go(await street.session(escrow_id, "sign_contract", BUYER), "sign")
    await draw(nour.page)
    await nour.look("signed")
    await nour.press("button.primary:last-of-type")
    await nour.is_back()

    await paid_by_card(street, nour, escrow_id)

    # The seller delivers by API, the buyer completes on the page.
    await street.call("POST", f"/escrows/{escrow_id}/deliver")
    await nour.go(await street.session(escrow_id, "complete", BUYER), "complete")
    await nour.press("button.primary:last-of-type")
    await nour.is_back()
    await nour.go(f"{street.url}/dashboard/escrow/{escrow_id}", "completed")
    await nour.go(f"{street.url}/dashboard", "dashboard")
    await nour.go(f"{street.url}/dashboard/wallet", "wallet")
    await seller.go(f"{street.url}/dashboard/escrow/{escrow_id}", "completed")
    await seller.go(f"{street.url}/dashboard/wallet", "wallet")

    escrow = (await street.call("GET", f"/escrows/{escrow_id}"))["escrow"]
    assert escrow["status"] == "completed"
    balance = (await street.call("GET", "/balance"))["balance"]
    assert balance == {"available": 237.5, "pending": 0, "escrow": 0}
    await printed(street, escrow_id, tmp_path, language)


async def paid_by_card(street, nour, escrow_id):
    """The buyer verifies a phone and pays by card, the wallet being empty."""
    await nour.page.goto(await street.session(escrow_id, "accept_pay", BUYER))
    await nour.page.wait_for_url(re.compile(r"/phone\?"))
    await nour.look("phone")
    await nour.page.locator("#phone").fill("+216 20 123 456")
    await nour.press()
    await nour.page.wait_for_url(re.compile(r"/phone/[0-9a-f]{24}"))
    await nour.page.locator("#code").fill(nour.code(PHONE))
    await nour.press()
    await nour.page.wait_for_url(re.compile(r"^[^?]*/checkout/"))
    await nour.look("pay")
    await nour.page.locator('input[name="way"][value="sandbox"]').check()
    await nour.press("button.primary:last-of-type")
    await nour.page.wait_for_url("**/sandbox/pay/**")
    await nour.look("card")
    await nour.press()
    await nour.page.wait_for_url(re.compile(r"/pay/|/checkout/|shop\.example"))
    assert (await street.call("GET", f"/escrows/{escrow_id}"))["escrow"]["status"] == "paid"


async def printed(street, escrow_id, folder, language):
    """The contract as it was signed by both is a PDF in its language."""
    storage = open_storage(street.settings.storage_url)
    await Printer(street.house, storage, folder).turn()
    contract = (await street.call("GET", f"/escrows/{escrow_id}/contract"))["contract"]
    assert contract["pdfVersions"][-1]["type"] == "fully-signed"
    async with street.client.get(contract["pdfUrl"]) as answer:
        assert answer.status == 200
        pdf = PdfReader(io.BytesIO(await answer.read()))
    said = pdf.pages[0].extract_text()
    assert ("insured" if language == "en" else "العدستين") in said
