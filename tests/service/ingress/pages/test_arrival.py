"""Getting in: an address and a code, an invitation's link, a phone; and what must not get in."""

import asyncio
import re
from datetime import timedelta

import aiohttp
import pytest
from aiohttp import web

from service.commands import escrows
from service.commands.mails import open_mailbox
from service.commands.perform import tend
from service.commands.visits import PHONE, SIGN_IN
from service.ingress.middlewares import HOUSE
from service.ingress.routes import ROUTES
from service.store import sessions as store
from service.store.users import read_user
from tests.browser import overflow, serious
from tests.makers import act, make_buyer, make_escrow, make_shop, make_terms
from tests.outbox import WORDS, send_all
from tests.service.ingress.conftest import listening
from tests.service.ingress.pages.people import Browser, cookie_of, signed_in

PAGES = tuple(row for row in ROUTES if row.is_page or row.path == "/static/{name}")
EMAIL = "nour@example.org"
CODE = re.compile(r"/sign-in/([0-9a-f]{24})")
COOKIE = re.compile(r"amana_session=([^;]*)")
AWAY = (
    "//evil.example", "/\\evil.example", "https://evil.example", "/checkout/../..//evil.example",
    "/dashboard/%2e%2e//evil", "javascript:alert(1)", "/dashboard?next=//evil", "/evil", "",
    "/dashboard/\n/x", "/dashboardevil", "/pay//evil",
)  # fmt: skip
HOSTILE = '"><script>alert(1)</script>'


class Walker(Browser):
    """A browser that keeps its cookie."""

    def __init__(self, client):
        super().__init__(client, None)

    async def _ask(self, method, path, fields, headers):
        page = await super()._ask(method, path, fields, headers)
        given = COOKIE.search(page.headers.get("Set-Cookie", ""))
        if given:
            self._cookie = given[1]
        return page


@pytest.fixture
async def place(ingress, house):
    """The pages, their house, and whoever walks in."""
    async with ingress(PAGES) as client:
        yield client, ingress.app[HOUSE]


async def coded(walker, house, email=EMAIL, path="/sign-in"):
    """The page for the code, once the address was sent; and the code."""
    answer = await walker.send(path, email=email)
    assert answer.status == 303
    return answer.location, house.vault.code(SIGN_IN, CODE.match(answer.location)[1])


async def entered(walker, house, email=EMAIL, path="/sign-in"):
    page, code = await coded(walker, house, email, path)
    return await walker.send(page, code=f" {code[:3]} {code[3:]} ")


# ---- An address and a code ----------------------------------------------------------------------


async def test_whoever_has_the_code_from_the_mail_is_in(place, house):
    client, app_house = place
    buyer = await make_buyer(house)
    walker = Walker(client)
    page, code = await coded(walker, app_house, buyer.email, "/sign-in?next=/dashboard/wallet")
    await send_all(app_house)
    vault, policy = app_house.vault, app_house.policy
    [mail] = await open_mailbox(house.pool, WORDS, policy, vault, buyer.email)
    assert code in mail.subject
    assert code in mail.text
    assert mail.links[0].startswith(f"{policy.public_url}/sign-in/")
    before = walker._cookie
    answer = await walker.send(page, code=code)
    assert (answer.status, answer.location) == (303, "/dashboard/wallet")
    assert walker._cookie != before  # nobody can have planted it
    assert "HttpOnly" in answer.headers["Set-Cookie"]
    assert (await walker.get("/dashboard")).status == 200
    again = await walker.get("/sign-in")
    assert (again.status, again.location) == (303, "/dashboard")


async def test_an_address_that_nobody_has_is_answered_the_same_and_meets_registration(place, house):
    client, app_house = place
    buyer = await make_buyer(house)
    pages = []
    for email in (buyer.email, EMAIL):
        walker = Walker(client)
        page, _ = await coded(walker, app_house, email)
        shown = await walker.get(page)
        pages.append(re.sub(r"\S+@\S+", "", shown.words))
    assert pages[0] == pages[1]
    stranger = Walker(client)
    await asyncio.sleep(0)
    answer = await entered(stranger, app_house, "new@example.org", "/sign-in?next=/dashboard")
    assert answer.location == "/dashboard"
    assert (await stranger.get("/dashboard")).location == "/register?next=/dashboard"
    answer = await stranger.send(
        "/register?next=/dashboard", first_name="Nour", last_name=HOSTILE, language="fr"
    )
    assert (answer.status, answer.location) == (303, "/dashboard")
    home = await stranger.get("/dashboard")
    assert home.status == 200
    assert '<html lang="fr"' in home.text
    user = await read_user(house.pool, "new@example.org")
    assert (user.person.last_name, user.person.is_phone_verified) == (HOSTILE, False)


@pytest.mark.parametrize("away", AWAY)
async def test_no_link_leads_elsewhere_through_signing_in(place, away):
    client, app_house = place
    walker = Walker(client)
    asking = "/sign-in?" + str(aiohttp.helpers.URL.build(query={"next": away})).lstrip("?")
    assert (await entered(walker, app_house, EMAIL, asking)).location == "/dashboard"


async def test_a_wrong_code_says_how_many_tries_are_left_and_the_last_ends_it(place):
    client, app_house = place
    walker = Walker(client)
    page, code = await coded(walker, app_house)
    wrong = str((int(code) + 1) % 10**6).zfill(6)
    for left in (4, 3, 2, 1):
        answer = await walker.send(page, code=wrong)
        assert answer.status == 400
        assert f"try {left} more" in answer.words
    over = await walker.send(page, code=wrong)
    assert "of no use any more" in over.words
    last = await walker.post(page, {"form_token": answer.token, "code": code})
    assert "of no use any more" in last.words
    assert (await walker.get("/dashboard")).location.startswith("/sign-in")


@pytest.mark.parametrize(
    "email", ["", "nobody", "a@b", "a b@example.org", "x" * 300 + "@example.org"]
)
async def test_what_is_no_address_is_said_and_kept(place, house, email):
    client, _ = place
    answer = await Walker(client).send("/sign-in", email=email)
    assert answer.status == 400
    assert "name@example.com" in answer.words
    assert await house.pool.fetchval("SELECT count(*) FROM mail") == 0


async def test_a_second_code_at_once_is_refused_in_words(place):
    client, app_house = place
    await coded(Walker(client), app_house)
    answer = await Walker(client).send("/sign-in", email=EMAIL)
    assert answer.status == 429
    assert "wait a little" in answer.words
    assert "Open the link in the last mail" in answer.words
    assert f'value="{EMAIL}"' in answer.text


async def test_a_checkout_session_is_signed_in_to_by_its_own_address_only(place, house):
    client, _ = place
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick")
    session_id = await house.pool.fetchval("SELECT gen_random_uuid()")
    owner_path = f"/sign-in?next=/checkout/{session_id}"
    unknown = await Walker(client).get(owner_path)
    assert 'name="email"' in unknown.text  # there is no such session
    await insert_session(house, session_id, escrow.id, shop.developer_id, buyer.email)
    walker = Walker(client)
    page = await walker.get(owner_path)
    assert 'name="email"' not in page.text
    assert buyer.email not in page.text
    assert f"{buyer.email[0]}•••@" in page.words
    answer = await walker.send(owner_path, email="thief@example.org")
    assert answer.status == 303
    recipients = await house.pool.fetch(
        "SELECT recipient FROM mail WHERE template = 'sign_in_code'"
    )
    assert [row["recipient"] for row in recipients] == [buyer.email]


async def insert_session(house, session_id, escrow_id, developer_id, email):
    async def made(tx):
        until = tx.now + timedelta(minutes=30)
        await store.insert_session(
            tx,
            store.Session(session_id, escrow_id, developer_id, "accept_pay", email,
                    "https://shop.example/back", {}, "pending", until, None, tx.now,
                    of_milestones=False),
        )  # fmt: skip

    await tend(house, made)


@pytest.mark.parametrize("path", ["/sign-in", "/sign-out", "/register/" + "x" * 43])
async def test_a_form_without_its_token_is_refused(place, house, path):
    client, _ = place
    walker = Walker(client)
    await walker.get("/sign-in")
    for fields in ({"email": EMAIL}, {"form_token": "x" * 43, "email": EMAIL}):
        assert (await walker.post(path, fields)).status == 403
    assert await house.pool.fetchval("SELECT count(*) FROM mail") == 0


async def test_a_token_of_another_page_or_browser_opens_nothing(place, owner, house):
    client, app_house = place
    walker, other = Walker(client), Walker(client)
    page, code = await coded(walker, app_house)
    token = (await walker.get("/sign-in")).token
    assert (await walker.post(page, {"form_token": token, "code": code})).status == 403
    await other.get(page)
    theirs = app_house.vault.link_token("form/sign_in_code", other._cookie)
    assert (await walker.post(page, {"form_token": theirs, "code": code})).status == 403


async def test_an_unknown_code_is_no_page(place):
    client, _ = place
    assert (await Walker(client).get("/sign-in/" + "0" * 24)).status == 404


async def test_the_way_out_asks_first(place, owner, house):
    client, _ = place
    buyer = await make_buyer(house)
    bo = await signed_in(client, owner, buyer.email)
    assert (await bo.get("/sign-out")).status == 200
    assert (await bo.get("/dashboard")).status == 200
    assert (await bo.send("/sign-out")).location == "/sign-in"
    assert (await bo.get("/dashboard")).location == "/sign-in?next=/dashboard"


# ---- An invitation's link -----------------------------------------------------------------------


async def invited(app_house, shop, email=EMAIL, **changes):
    """The path of the link in the invitation of this person, and the escrow's id."""
    changes = {"mode": "quick", "seller_email": shop.email, **changes}
    terms = make_terms(shop, email, **changes)
    made = await act(app_house, shop.actor, escrows.create(shop.developer_id, terms))
    await send_all(app_house)
    mails = await open_mailbox(app_house.pool, WORDS, app_house.policy, app_house.vault, email)
    return mails[0].links[0].removeprefix(app_house.policy.public_url), made["escrow"]["id"]


async def test_the_link_registers_signs_in_and_leads_to_the_escrow(place, house):
    client, app_house = place
    shop = await make_shop(app_house)
    path, escrow_id = await invited(app_house, shop, title=f"A camera {HOSTILE}")
    walker = Walker(client)
    page = await walker.get(path)
    assert page.status == 200
    assert HOSTILE not in page.text
    assert HOSTILE in page.words
    answer = await walker.send(path, first_name="Nour", last_name="T", language="ar")
    assert (answer.status, answer.location) == (303, f"/dashboard/escrow/{escrow_id}")
    page = await walker.get(answer.location)
    assert page.status == 200
    assert '<html lang="ar" dir="rtl">' in page.text
    again = await Walker(client).get(path)
    assert again.status == 404
    assert "expired" in again.words


@pytest.mark.parametrize(
    "fields",
    [{"first_name": ""}, {"last_name": "w" * 101}, {"language": "tlh"}, {"first_name": "a\u202eb"}],
)
async def test_a_name_that_will_not_do_is_said_and_nobody_registers(place, house, fields):
    client, app_house = place
    path, _ = await invited(app_house, await make_shop(app_house))
    sound = {"first_name": "Nour", "last_name": "T", "language": "en"}
    answer = await Walker(client).send(path, **(sound | fields))
    assert answer.status == 400
    assert f'id="{next(iter(fields))}-error"' in answer.text
    assert await read_user(house.pool, EMAIL) is None


async def test_two_tabs_at_once_register_one_person(place, house):
    client, app_house = place
    path, _ = await invited(app_house, await make_shop(app_house))
    walkers = [Walker(client) for _ in range(4)]
    sound = {"first_name": "Nour", "last_name": "T", "language": "en"}
    answers = await asyncio.gather(*(one.send(path, **sound) for one in walkers))
    assert sorted(one.status for one in answers) == [303, 404, 404, 404]


async def test_somebody_known_only_goes_on(place, house):
    client, app_house = place
    path, escrow_id = await invited(app_house, await make_shop(app_house))
    buyer = await make_buyer(house, EMAIL)
    assert buyer.email == EMAIL  # registering has linked the escrow, so that the link is spent
    assert (await Walker(client).get(path)).status == 404
    assert escrow_id


# ---- A phone ------------------------------------------------------------------------------------


async def phoneless(house, owner):
    buyer = await make_buyer(house)
    await owner.execute(
        "UPDATE app_user SET phone_verified_at = NULL WHERE email = $1", buyer.email
    )
    return buyer


async def test_a_phone_is_verified_and_the_person_goes_on(place, house, owner):
    client, app_house = place
    buyer = await phoneless(house, owner)
    bo = await signed_in(client, owner, buyer.email)
    answer = await bo.send("/phone?next=/dashboard/settings", phone="+216 20-123 456")
    assert answer.status == 303
    code = app_house.vault.code(PHONE, answer.location.split("?")[0].rpartition("/")[2])
    stranger = Browser(client, await cookie_of(owner, "other@example.org"))
    assert (await stranger.get(answer.location)).location.startswith("/register")
    done = await bo.send(answer.location, code=code)
    assert (done.status, done.location) == (303, "/dashboard/settings")
    assert (await read_user(house.pool, buyer.email)).person.is_phone_verified


@pytest.mark.parametrize("number", ["", "20123456", "+0123456789", "+216abc", "+" + "1" * 16])
async def test_what_is_no_number_is_said(place, house, owner, number):
    client, _ = place
    bo = await signed_in(client, owner, (await phoneless(house, owner)).email)
    answer = await bo.send("/phone", phone=number)
    assert answer.status == 400
    assert 'id="phone-error"' in answer.text


@pytest.mark.parametrize("status", [200, 500])
async def test_the_gateway_is_given_the_message_and_its_failure_is_said(
    ingress, house, owner, status
):
    told = []

    async def take(request):
        told.append(await request.json())
        return web.Response(status=status)

    gateway = web.Application()
    gateway.router.add_post("/sms", take)
    buyer = await phoneless(house, owner)
    live = {"AMANA_ENV": "live", "AMANA_PUBLIC_URL": "https://amana.example"}
    async with listening(gateway) as url, ingress(PAGES, SMS_URL=f"{url}/sms", **live) as client:
        token = await cookie_of(owner, buyer.email)
        cookie = {"Cookie": f"__Host-amana_session={token}"}
        bo = Browser(client, None)
        page = await bo.get("/phone", **cookie)
        answer = await bo.post(
            "/phone", {"form_token": page.token, "phone": "+21620123456"}, **cookie
        )
        vault = ingress.app[HOUSE].vault
    assert answer.status == (303 if status == 200 else 502)
    [message] = told
    code_id = await house.pool.fetchval("SELECT id FROM sign_in_code")
    assert message["to"] == "+21620123456"
    assert vault.code(PHONE, code_id) in message["text"]
    assert await house.pool.fetchval("SELECT count(*) FROM mail") == 0


# ---- To the eye ---------------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "fr", "ar"])
async def test_the_way_in_keeps_nobody_out(place, phone, house, language):
    client, app_house = place
    base = str(client._base_url).rstrip("/")
    path, _ = await invited(app_house, await make_shop(app_house))
    walker = Walker(client)
    code_page, _ = await coded(walker, app_house, "other@example.org")
    page = await phone(language, scripts=True)
    for one in ("/sign-in", code_page, path):
        await page.goto(base + one)
        assert await page.get_attribute("html", "lang") == language
        assert await serious(page) == []
        assert await overflow(page) == 0
    await page.goto(base + path)
    await page.locator("#first_name").fill("نور")
    await page.locator("#last_name").fill("ت")
    await page.locator("button.primary").click()
    await page.wait_for_url("**/dashboard/escrow/**")


async def test_without_a_script_one_gets_in(place, phone, house):
    client, app_house = place
    buyer = await make_buyer(house)
    base = str(client._base_url).rstrip("/")
    page = await phone("ar", scripts=False)
    await page.goto(f"{base}/sign-in?next=/dashboard")
    await page.locator("#email").fill(buyer.email)
    await page.locator("button.primary").click()
    await page.wait_for_url("**/sign-in/**")
    code = app_house.vault.code(SIGN_IN, CODE.search(page.url)[1])
    await page.locator("#code").fill(code)
    await page.locator("button.primary").click()
    await page.wait_for_url("**/dashboard")
