"""The way in, in a real browser on a phone: every page of it in each language, right and wrong."""

import pytest

from service.commands import escrows
from service.commands.mails import SIGN_IN_LINK
from service.commands.visits import PHONE, SIGN_IN
from service.ingress.middlewares import HOUSE
from service.ingress.routes import ROUTES
from tests.browser import overflow, photograph, serious
from tests.makers import act, make_shop
from tests.service.ingress.pages.people import cookie_of
from tests.service.ingress.pages.test_arrival import CODE, EMAIL, invited, phoneless
from tests.service.ingress.pages.test_sign_in import a_checkout

PAGES = tuple(row for row in ROUTES if row.is_page or row.path == "/static/{name}")
LANGUAGES = ["en", "fr", "ar"]
NARROW = {"width": 320, "height": 640}
LONG = "w" * 101


@pytest.fixture
async def place(ingress, house):
    """A client of the pages, their house and their address."""
    async with ingress(PAGES) as client:
        yield client, ingress.app[HOUSE], str(client._base_url).rstrip("/")


async def looked_at(page, tmp_path, name):
    """The page as it stands keeps nobody out."""
    await photograph(page, tmp_path / f"{name}.png")
    assert await serious(page) == [], name
    assert await overflow(page) <= 0, name
    assert len(await page.content()) < 50_000, name
    assert await page.locator("h1").count() == 1, name


async def enter(page, base, owner, email):
    """The browser is signed in as this person."""
    cookie = await cookie_of(owner, email)
    await page.context.add_cookies([{"name": "amana_session", "value": cookie, "url": base}])


@pytest.mark.parametrize("language", LANGUAGES)
async def test_signing_in_keeps_nobody_out_when_things_go_wrong(
    place, phone, owner, tmp_path, language
):
    _client, app_house, base = place
    page = await phone(language)
    await page.goto(f"{base}/sign-in")
    await page.locator("#email").fill("nobody")
    await page.locator("button.primary").click()
    assert await page.locator("#email-error").count() == 1
    assert await page.locator("#email").input_value() == "nobody"
    await looked_at(page, tmp_path, "address-wrong")
    await page.locator("#email").fill(EMAIL)
    await page.locator("button.primary").click()
    await page.wait_for_url("**/sign-in/**")
    await looked_at(page, tmp_path, "code")
    code_id = CODE.search(page.url)[1]
    code = app_house.vault.code(SIGN_IN, code_id)
    await page.locator("#code").fill(str((int(code) + 1) % 10**6).zfill(6))
    await page.locator("button.primary").click()
    assert await page.locator("#code-error").count() == 1
    await looked_at(page, tmp_path, "code-wrong")
    await owner.execute("UPDATE sign_in_code SET expires_at = now()")
    await page.goto(page.url)
    assert await page.locator("#code").count() == 0
    await looked_at(page, tmp_path, "code-over")
    await page.locator("main a.primary").click()
    await page.locator("#email").fill(EMAIL)
    await page.locator("button.primary").click()  # too soon
    assert await page.locator("#email-error").count() == 1
    await looked_at(page, tmp_path, "address-too-soon")
    token = app_house.vault.link_token(SIGN_IN_LINK, code_id)
    await page.goto(f"{base}/sign-in/{code_id}/{token}")
    await looked_at(page, tmp_path, "mailed-link")
    await page.locator("button.primary").click()
    await page.wait_for_url("**/register?**")


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_checkouts_address_and_an_old_link_keep_nobody_out(
    place, phone, house, tmp_path, language
):
    _client, app_house, base = place
    page = await phone(language, screen=NARROW)
    path, email = await a_checkout(app_house)
    await page.goto(f"{base}/sign-in?next={path}")
    assert await page.locator("#email").count() == 0
    assert f"{email[0]}•••@example.com" in await page.inner_text("main")
    await looked_at(page, tmp_path, "bound")
    shop = await make_shop(app_house)
    link, escrow_id = await invited(app_house, shop)
    await page.goto(base + link)
    await page.locator("#first_name").fill(LONG[:60])
    await page.locator("button.primary").click()
    assert await page.locator("#last_name-error").count() == 1
    assert await page.locator("#first_name").input_value() == LONG[:60]
    await looked_at(page, tmp_path, "invited-wrong")
    await act(app_house, shop.actor, escrows.cancel(escrow_id))
    await page.goto(base + link)
    await looked_at(page, tmp_path, "link-over")
    await page.locator("a.quiet").first.click()
    await page.wait_for_url("**/sign-in?**")


@pytest.mark.parametrize("language", LANGUAGES)
async def test_registering_a_phone_and_signing_out_keep_nobody_out(
    place, phone, owner, house, tmp_path, language
):
    _client, app_house, base = place
    page = await phone(language, dark=language == "fr", screen=NARROW)
    await enter(page, base, owner, EMAIL)
    await page.goto(f"{base}/dashboard/wallet?lang={language}")
    await page.wait_for_url("**/register?**")
    await looked_at(page, tmp_path, "register")
    await page.locator("#first_name").fill("نور")
    await page.locator("#last_name").fill("ت")
    await page.locator("button.primary").click()
    await page.wait_for_url("**/dashboard/wallet**")
    await page.goto(f"{base}/phone?next=/dashboard/settings")
    assert await page.get_attribute("html", "lang") == language  # stored by registering
    await looked_at(page, tmp_path, "phone")
    await page.locator("#phone").fill("20 123 456")
    await page.locator("button.primary").click()
    assert await page.locator("#phone-error").count() == 1
    await looked_at(page, tmp_path, "phone-wrong")
    await page.locator("#phone").fill("+216 20 123 456")
    await page.locator("button.primary").click()
    await page.wait_for_url("**/phone/**")
    await looked_at(page, tmp_path, "phone-code")
    code_id = page.url.partition("?")[0].rpartition("/")[2]
    await page.locator("#code").fill(app_house.vault.code(PHONE, code_id))
    await page.locator("button.primary").click()
    await page.wait_for_url("**/dashboard/settings")
    await page.goto(f"{base}/sign-out")
    await looked_at(page, tmp_path, "sign-out")
    await page.locator("button.primary").click()
    await page.wait_for_url("**/sign-in")
    await page.goto(f"{base}/dashboard")
    await page.wait_for_url("**/sign-in?**")


async def test_without_a_script_a_newcomer_registers_and_verifies_a_phone(
    place, phone, house, owner
):
    _client, app_house, base = place
    page = await phone("fr", scripts=False)
    await page.goto(f"{base}/sign-in?next=/dashboard/wallet")
    await page.locator("#email").fill(EMAIL)
    await page.locator("button.primary").click()
    await page.wait_for_url("**/sign-in/**")
    code_id = page.url.partition("?")[0].rpartition("/")[2]
    await page.locator("#code").fill(app_house.vault.code(SIGN_IN, code_id))
    await page.locator("button.primary").click()
    await page.wait_for_url("**/register?**")
    await page.locator("#first_name").fill("Nour")
    await page.locator("#last_name").fill("T")
    await page.locator("button.primary").click()
    await page.wait_for_url("**/dashboard/wallet**")
    await page.goto(f"{base}/phone?next=/dashboard")
    await page.locator("#phone").fill("+216 20 123 456")
    await page.locator("button.primary").click()
    await page.wait_for_url("**/phone/**")
    code_id = page.url.partition("?")[0].rpartition("/")[2]
    await page.locator("#code").fill(app_house.vault.code(PHONE, code_id))
    await page.locator("button.primary").click()
    await page.wait_for_url("**/dashboard")
    verified = "SELECT phone_verified_at IS NOT NULL FROM app_user WHERE email = $1"
    assert await house.pool.fetchval(verified, EMAIL)


async def test_signed_in_pages_show_who_that_is(place, phone, house, owner):
    _client, _, base = place
    buyer = await phoneless(house, owner)
    page = await phone()
    await enter(page, base, owner, buyer.email)
    for path in ("/phone", "/sign-out"):
        await page.goto(base + path)
        assert buyer.email in await page.inner_text("body"), path
