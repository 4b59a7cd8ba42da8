"""Every magic amount once, in a browser: wallet, the provider's page, and back; then the books."""

import socket
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from service.cli.house import open_house
from service.commands.charges import HouseBook
from service.gateways.payments.sandbox import SandboxProvider
from service.ingress.connection import Runner
from service.ingress.main import make_app
from service.rules.payment import SANDBOX, TOPUP
from service.settings import load_settings
from service.store.ledger import read_balance
from service.store.payments import list_of_user
from tests.books import assert_sound
from tests.browser import overflow, serious
from tests.house import CLEAN
from tests.makers import make_buyer
from tests.service.ingress.pages.people import cookie_of
from workers.metrics import WorkMetrics
from workers.payments import Payments

# amount, what the page says on the way back, then the states and the wallet once 6 s have passed
MAGIC = [
    ("20", "Your wallet", ["succeeded"], (20_000, 0)),
    ("20.01", "This was not paid", ["failed"], (0, 0)),
    ("20.02", "Not paid yet", ["succeeded"], (20_020, 0)),
    ("20.03", "Your wallet", ["succeeded"], (20_030, 0)),
    ("20.04", "This payment was cancelled", ["cancelled", "needs_operator"], (0, 0)),
    ("20.05", "Your wallet", ["succeeded"], (20_050, 0)),
    ("20.06", "We are looking into it", ["needs_operator"], (0, 0)),
    ("20.07", "We are looking into it", ["needs_operator"], (0, 0)),
]


class Street:
    """An ingress at the address that it names, and somebody with an empty wallet."""

    def __init__(self, settings, house, buyer, cookie) -> None:
        self.settings, self.house, self.buyer, self.cookie = settings, house, buyer, cookie

    @property
    def url(self):
        return self.settings.amana_public_url

    async def six_seconds_later(self):
        """The worker's round, as it comes then."""

        def now():
            return datetime.now(UTC) + timedelta(seconds=6)

        keys = self.settings.secret_keys
        provider = SandboxProvider(HouseBook(self.house), keys, self.url, now)
        await Payments(self.house, {SANDBOX: provider}, WorkMetrics(), now).turn()


@pytest.fixture
async def street(environ, owner, redis):
    await owner.execute(CLEAN)
    with socket.create_server(("127.0.0.1", 0)) as listener:
        url = f"http://127.0.0.1:{listener.getsockname()[1]}"
        settings = load_settings(environ | {"AMANA_PUBLIC_URL": url})
        runner = Runner(make_app(settings), access_log=None, shutdown_timeout=2)
        await runner.setup()
        await web.SockSite(runner, listener).start()
        async with open_house(settings) as house:
            buyer = await make_buyer(house, funds="0")
            yield Street(settings, house, buyer, await cookie_of(owner, buyer.email))
            await assert_sound(house)
        await runner.cleanup()


@pytest.mark.parametrize(("amount", "says", "states", "money"), MAGIC)
async def test_an_amount_does_what_its_page_says(
    street: Street, phone, amount, says, states, money
) -> None:
    page = await phone("en", scripts=False)
    cookie = {"name": "amana_session", "value": street.cookie, "url": street.url}
    await page.context.add_cookies([cookie])
    await page.goto(f"{street.url}/dashboard/wallet")
    await page.fill("#amount", amount)
    await page.check("input[value=sandbox]")
    await page.click("button[value=top_up]")
    assert "/sandbox/pay/sbx_" in page.url
    await page.click("button[value=yes]")
    assert page.url.startswith(street.url)
    assert says in await page.inner_text("main")
    await street.six_seconds_later()
    payments = await list_of_user(street.house.pool, street.buyer.user_id, (TOPUP,), 9)
    assert sorted(one.state for one in payments) == states
    balance = await read_balance(street.house.pool, street.buyer.user_id, "TND")
    assert (balance.available, balance.pending) == money


async def pages(street: Street, page, language):
    """Each of the payments' pages in turn, as a person meets it."""
    await page.context.add_cookies(
        [{"name": "amana_session", "value": street.cookie, "url": street.url}]
    )
    wallet = f"{street.url}/dashboard/wallet?lang={language}"
    await page.goto(wallet)
    yield "wallet"
    await page.click("button[value=top_up]")
    yield "wallet, with what is wrong"
    for way in ("sandbox", "bank_transfer"):
        await page.goto(wallet)
        await page.fill("#amount", "20")
        await page.check(f"input[value={way}]")
        await page.click("button[value=top_up]")
        yield way


@pytest.mark.parametrize("language", ["en", "fr", "ar"])
async def test_the_payments_pages_keep_nobody_out(street: Street, phone, language) -> None:
    page = await phone(language, screen={"width": 320, "height": 640})
    async for name in pages(street, page, language):
        assert await serious(page) == [], name
        assert await overflow(page) <= 0, name
        assert await page.get_attribute("html", "lang") == language
        assert len(await page.content()) < 50_000
