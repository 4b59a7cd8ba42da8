"""A street with a shop in it: the deployment at its own address, and people with phones.

    async def test_they_do(street, person):
        nour = await person("ar", "buyer")
        await nour.go(await street.session(escrow_id, "complete", BUYER), "complete")

With PICTURES=1 what a person looks at, where it is to be shown, is photographed into docs/pages/.
"""

import os
import re
import socket
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web

from service.cli.house import open_house
from service.commands import developers
from service.commands.mails import open_mailbox
from service.commands.visits import SIGN_IN
from service.ingress.connection import Runner
from service.ingress.main import make_app
from service.settings import load_settings
from tests.books import assert_sound
from tests.browser import overflow, photograph, serious
from tests.house import CLEAN
from tests.makers import arrange, make_shop
from tests.outbox import WORDS, send_all
from tests.service.ingress.pages.people import cookie_of

PICTURES = Path(__file__).parents[4] / "docs" / "pages"
BACK = "https://shop.example/back"
BANK = "Amana, Tunis\nIBAN TN59 1000 6035 1835 9847 8831"


class Street:
    """A deployment at the address that it names, a shop that sells there, and its API."""

    def __init__(self, settings, house, shop, client, owner) -> None:
        self.settings, self.house, self.shop, self.client = settings, house, shop, client
        self.owner, self.url = owner, settings.amana_public_url

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
        settings = load_settings(environ | {"AMANA_PUBLIC_URL": url, "BANK_TRANSFER_DETAILS": BANK})
        runner = Runner(make_app(settings), access_log=None, shutdown_timeout=2)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        async with open_house(settings) as house, aiohttp.ClientSession() as client:
            shop = await make_shop(house)
            await arrange(
                house, lambda tx: developers.allow_redirects(tx, shop.developer_id, [BACK])
            )
            yield Street(settings, house, shop, client, owner)
            await assert_sound(house)
        await runner.cleanup()


class Person:
    """Somebody with a phone in their hand; every page that they see is looked at."""

    def __init__(self, street, page, language, who, *, scripts=True) -> None:
        self.street, self.page, self.language, self.who = street, page, language, who
        self.scripts, self.seen = scripts, 0

    async def look(self, name=""):
        """Nothing keeps this person out of the page, and it is in their language.

        With a name it is one to be shown: it is counted and may be photographed.
        """
        assert await self.page.get_attribute("html", "lang") == self.language
        assert await overflow(self.page) == 0
        if self.scripts:
            assert await serious(self.page) == []
        if name:
            self.seen += 1
            if os.environ.get("PICTURES"):
                path = PICTURES / self.language / f"{self.who}-{self.seen:02}-{name}.png"
                await photograph(self.page, path)

    async def go(self, url, name=""):
        await self.page.goto(url)
        await self.look(name)

    async def is_signed_in(self, email):
        """As if the mailed code had been written."""
        cookie = await cookie_of(self.street.owner, email)
        await self.page.context.add_cookies(
            [{"name": "amana_session", "value": cookie, "url": self.street.url}]
        )

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
    async def made(language, who, *, scripts=True):
        page = await phone(language, scripts=scripts)
        await page.route("https://shop.example/**", lambda route: route.fulfill(body="back"))
        return Person(street, page, language, who, scripts=scripts)

    return made


async def draw(page):
    await page.locator("canvas").scroll_into_view_if_needed()
    box = await page.locator("canvas").bounding_box()
    await page.mouse.move(box["x"] + 30, box["y"] + 40)
    await page.mouse.down()
    for x, y in ((80, 20), (130, 60), (180, 25), (240, 50)):
        await page.mouse.move(box["x"] + x, box["y"] + y, steps=5)
    await page.mouse.up()
