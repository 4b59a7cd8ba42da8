"""The doors of payments: a provider tells, a person presses, the sandbox's operator decides."""

import re
from datetime import UTC, datetime

import aiohttp
import pytest

from service.cli.house import open_house
from service.commands import payments
from service.commands.charges import HouseBook
from service.commands.payments import Wish
from service.commands.perform import perform
from service.gateways.payments.provider import Order
from service.gateways.payments.sandbox import SIGNATURE, SandboxProvider
from service.ingress.main import make_app
from service.rules.machine import SYSTEM
from service.rules.payment import SANDBOX, TOPUP, Payment
from service.settings import load_settings
from service.store.payments import read_payment
from tests.books import assert_sound
from tests.house import CLEAN
from tests.makers import act, make_buyer, make_shop
from tests.service.ingress.conftest import listening

AMOUNT = 100_000
TOKEN = re.compile(r'name="form_token" value="([^"]+)"')
NOTIFY = "/payments/notifications/sandbox"


class Shown:
    """An ingress, a payment that is placed at the sandbox's provider, and its page."""

    def __init__(self, house, url, payment_id, shop) -> None:
        self.house, self.url, self.payment_id, self.shop = house, url, payment_id, shop
        self.book = HouseBook(house)
        self.provider = SandboxProvider(
            self.book, ["k" * 32], house.policy.public_url, lambda: datetime.now(UTC)
        )

    @property
    def page(self) -> str:
        return f"{self.url}/sandbox/pay/sbx_{self.payment_id}"

    async def stands(self) -> Payment:
        found = await read_payment(self.house.pool, self.payment_id)
        assert found is not None
        return found


@pytest.fixture
async def shown(environ, owner, redis):
    await owner.execute(CLEAN)
    settings = load_settings(environ)
    async with open_house(settings) as house, listening(make_app(settings)) as url:
        shop, buyer = await make_shop(house), await make_buyer(house, funds="0")
        wish = Wish(TOPUP, SANDBOX, AMOUNT, "TND", buyer.user_id)
        made = await act(house, buyer.actor, payments.begin(wish))
        found = Shown(house, url, made["payment"]["id"], shop)
        expires = (await found.stands()).expires_at
        order = Order(found.payment_id, AMOUNT, "TND", "A <camera>", f"{url}/healthz", expires)
        placed = await found.provider.place(order)
        handed = payments.hand_over(found.payment_id, placed.provider_reference, placed.page_url)
        await perform(house, SYSTEM, handed)
        yield found
        await assert_sound(house)


async def press(shown: Shown, session: aiohttp.ClientSession, pays: str) -> tuple[int, str]:
    """The page is opened and one of its buttons pressed: status and where it leads."""
    async with session.get(shown.page) as page:
        token = TOKEN.search(await page.text())
    fields = {"form_token": token[1] if token else "", "pays": pays}
    async with session.post(shown.page, data=fields, allow_redirects=False) as sent:
        return sent.status, sent.headers.get("Location", "")


def browser() -> aiohttp.ClientSession:
    return aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True))


async def test_a_button_is_pressed_and_the_provider_tells_us(shown: Shown) -> None:
    async with browser() as session:
        async with session.get(shown.page) as page:
            text = await page.text()
            # From where it sends people back to, they may be sent on to any shop.
            assert "form-action 'self' https: http:;" in page.headers["Content-Security-Policy"]
        assert "100.000 TND" in text.replace("\xa0", " ")
        assert "A &lt;camera&gt;" in text
        assert await press(shown, session, "yes") == (303, f"{shown.url}/healthz")
        assert (await shown.stands()).state == "succeeded"
        async with session.get(shown.page) as page:
            text = await page.text()
        assert "A button was pressed already." in text
        assert 'name="pays"' not in text
    assert await shown.book.untold(9) == []


async def test_whoever_turns_away_has_paid_nothing(shown: Shown) -> None:
    async with browser() as session:
        assert (await press(shown, session, "no"))[0] == 303
    assert (await shown.stands()).state == "cancelled"


async def test_no_other_site_presses_a_button(shown: Shown) -> None:
    async with browser() as session, session.post(shown.page, data={"pays": "yes"}) as forged:
        assert forged.status == 403
    assert (await shown.stands()).state == "pending"


async def test_the_page_speaks_french_and_arabic(shown: Shown) -> None:
    async with browser() as session:
        for language, words in (("fr", "Payer"), ("ar", "ادفع")):
            async with session.get(f"{shown.page}?lang={language}") as page:
                assert words in await page.text()


async def test_a_forged_notification_changes_nothing(shown: Shown) -> None:
    charge = await shown.book.press(f"sbx_{shown.payment_id}", datetime.now(UTC), paid=True)
    assert charge is not None
    [sending] = shown.provider.notifications(charge)
    async with aiohttp.ClientSession() as session:
        for headers in ({}, {SIGNATURE: "0" * 64}):
            async with session.post(shown.url + NOTIFY, data=sending.body, headers=headers) as no:
                assert no.status == 400
        assert (await shown.stands()).state == "pending"
        for _ in range(2):
            async with session.post(
                shown.url + NOTIFY, data=sending.body, headers=sending.headers
            ) as taken:
                assert taken.status == 200
    assert (await shown.stands()).state == "succeeded"


async def test_a_notification_of_an_unknown_payment_is_404(shown: Shown) -> None:
    expires = (await shown.stands()).expires_at
    await shown.provider.place(Order("f" * 24, AMOUNT, "TND", "x", "http://x.test", expires))
    charge = await shown.book.press(f"sbx_{'f' * 24}", datetime.now(UTC), paid=True)
    assert charge is not None
    [sending] = shown.provider.notifications(charge)
    async with aiohttp.ClientSession() as session:
        for path in (NOTIFY, "/payments/notifications/stripe", "/payments/notifications/nobody"):
            async with session.post(
                shown.url + path, data=sending.body, headers=sending.headers
            ) as unknown:
                assert unknown.status == 404


async def test_a_notification_that_is_too_large_is_not_read(shown: Shown) -> None:
    async with (
        aiohttp.ClientSession() as session,
        session.post(shown.url + NOTIFY, data=b"x" * 70_000) as large,
    ):
        assert large.status == 413


async def test_the_sandboxs_operator_decides_by_hand_only(shown: Shown) -> None:
    url = f"{shown.url}/api/v1/sandbox/payments/{shown.payment_id}/decide"
    async with aiohttp.ClientSession(headers=shown.shop.headers) as session:
        async with session.post(url, json={"approve": True}) as refused:
            assert refused.status == 409
            assert "PAYMENT_NOT_OPEN" in await refused.text()
        async with session.post(url.replace(shown.payment_id, "0" * 24), json={}) as unknown:
            assert unknown.status == 404
