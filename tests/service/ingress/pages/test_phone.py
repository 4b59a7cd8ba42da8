"""Verifying a phone: numbers as people write them, the gateway's bad days."""

import asyncio
from datetime import timedelta
from urllib.parse import urlsplit

import pytest
from aiohttp import web

from service.commands.mails import open_mailbox
from service.commands.visits import PHONE, SIGN_IN, ask_code
from service.gateways import sms
from service.ingress.middlewares import HOUSE
from service.ingress.routes import ROUTES
from service.store.users import read_user
from tests.makers import make_buyer
from tests.outbox import WORDS, send_all
from tests.service.ingress.conftest import listening
from tests.service.ingress.pages.people import Browser, cookie_of, signed_in
from tests.service.ingress.pages.test_arrival import phoneless

PAGES = tuple(row for row in ROUTES if row.is_page or row.path == "/static/{name}")
NUMBER = "+21620123456"
LIVE = {"AMANA_ENV": "live", "AMANA_PUBLIC_URL": "https://amana.example"}


@pytest.fixture
async def place(ingress, house):
    """A client of the pages, and their house."""
    async with ingress(PAGES) as client:
        yield client, ingress.app[HOUSE]


def code_in(location):
    return urlsplit(location).path.rpartition("/")[2]


class Live(Browser):
    """The browser of somebody at a live deployment, behind https."""

    def __init__(self, client, cookie):
        super().__init__(client, None)
        self._live = cookie

    async def _ask(self, method, path, fields, headers):
        cookie = {"Cookie": f"__Host-amana_session={self._live}"}
        return await super()._ask(method, path, fields, headers | cookie)


@pytest.mark.parametrize(
    "written",
    [
        "+216 20 123 456",
        "+216-20-123-456",
        "(+216) 20.123.456",
        "\u200e+216\u00a020\u202f123\u2011456",
        "00216 20 123 456",
        "+٢١٦ ٢٠ ١٢٣ ٤٥٦",
        "\u2068+21620123456\u2069",
    ],
)
async def test_a_number_may_be_written_as_people_do(place, house, owner, written):
    client, app_house = place
    buyer = await phoneless(house, owner)
    bo = await signed_in(client, owner, buyer.email)
    answer = await bo.send("/phone", phone=written)
    assert answer.status == 303
    await bo.send(answer.location, code=app_house.vault.code(PHONE, code_in(answer.location)))
    stored = "SELECT phone FROM app_user WHERE email = $1"
    assert await house.pool.fetchval(stored, buyer.email) == NUMBER


@pytest.mark.parametrize(
    "written", ["+", "+1", "00", "+216 20 123 456 789 01", "+2162012345x", "<b>"]
)
async def test_what_is_no_number_is_kept_and_nothing_is_sent(place, house, owner, written):
    client, _ = place
    bo = await signed_in(client, owner, (await phoneless(house, owner)).email)
    page = await bo.send("/phone", phone=written)
    assert page.status == 400
    assert f'value="{written.replace("<", "&lt;").replace(">", "&gt;")}"' in page.text
    assert await house.pool.fetchval("SELECT count(*) FROM sign_in_code") == 0


async def test_in_the_sandbox_the_code_is_found_in_the_mailbox(place, house, owner):
    client, app_house = place
    buyer = await phoneless(house, owner)
    bo = await signed_in(client, owner, buyer.email)
    answer = await bo.send("/phone", phone=NUMBER)
    await send_all(app_house)
    [mail] = await open_mailbox(house.pool, WORDS, app_house.policy, app_house.vault, buyer.email)
    code = app_house.vault.code(PHONE, code_in(answer.location))
    assert code in mail.text
    assert NUMBER in (await bo.get(answer.location)).words
    assert (await bo.send(answer.location, code=code)).status == 303
    assert (await read_user(house.pool, buyer.email)).person.is_phone_verified


async def test_a_code_is_its_owners_and_for_its_purpose_only(place, house, owner):
    client, app_house = place
    buyer, other = await phoneless(house, owner), await make_buyer(house)
    bo = await signed_in(client, owner, buyer.email)
    answer = await bo.send("/phone", phone=NUMBER)
    code = app_house.vault.code(PHONE, code_in(answer.location))
    thief = await signed_in(client, owner, other.email)
    assert (await thief.get(answer.location)).status == 404
    token = app_house.vault.link_token("form/phone_code", thief._cookie)
    sent = {"form_token": token, "code": code}
    assert (await thief.post(answer.location, sent)).status == 404
    code_id = await ask_code(app_house, buyer.email, None, "en", None)
    assert (await bo.get(f"/phone/{code_id}")).status == 404
    assert (await bo.get(f"/sign-in/{code_in(answer.location)}")).status == 404
    digits = app_house.vault.code(SIGN_IN, code_id)
    token = app_house.vault.link_token("form/phone_code", bo._cookie)
    assert (await bo.post(f"/phone/{code_id}", {"form_token": token, "code": digits})).status == 404
    assert not (await read_user(house.pool, buyer.email)).person.is_phone_verified


async def test_wrong_digits_end_it_and_another_is_sent_half_a_minute_later(place, house, owner):
    client, app_house = place
    buyer = await phoneless(house, owner)
    bo = await signed_in(client, owner, buyer.email)
    answer = await bo.send("/phone?next=/dashboard/wallet", phone=NUMBER)
    code = app_house.vault.code(PHONE, code_in(answer.location))
    wrong = str((int(code) + 1) % 10**6).zfill(6)
    for _ in range(5):
        page = await bo.send(answer.location, code=wrong)
        assert page.status == 400
    assert 'href="/phone?next=/dashboard/wallet"' in page.text
    early = await bo.send("/phone", phone=NUMBER)
    assert early.status == 429
    assert f'value="{NUMBER}"' in early.text
    await owner.execute(
        "UPDATE sign_in_code SET created_at = created_at - $1::interval", timedelta(seconds=31)
    )
    assert (await bo.send("/phone", phone=NUMBER)).status == 303
    assert not (await read_user(house.pool, buyer.email)).person.is_phone_verified


async def test_the_same_form_sent_twice_goes_on_twice(place, house, owner):
    client, app_house = place
    buyer = await phoneless(house, owner)
    bo = await signed_in(client, owner, buyer.email)
    page = (await bo.send("/phone?next=/dashboard/wallet", phone=NUMBER)).location
    code = app_house.vault.code(PHONE, code_in(page))
    sent = {"form_token": (await bo.get(page)).token, "code": code}
    for answer in (await bo.post(page, sent), await bo.post(page, sent), await bo.get(page)):
        assert (answer.status, answer.location) == (303, "/dashboard/wallet")


# ---- Live ---------------------------------------------------------------------------------------


async def slow(_request):
    await asyncio.sleep(5)
    return web.Response()


async def elsewhere(_request):
    raise web.HTTPFound("/other")


async def away(request):
    request.transport.abort()
    return web.Response()


@pytest.mark.parametrize("answer", [slow, elsewhere, away])
async def test_a_gateway_that_does_not_take_it_is_said_and_the_number_kept(
    ingress, house, owner, monkeypatch, answer
):
    monkeypatch.setattr(sms, "SECONDS", 0.3)
    gateway = web.Application()
    gateway.router.add_post("/sms", answer)
    buyer = await phoneless(house, owner)
    async with listening(gateway) as url, ingress(PAGES, SMS_URL=f"{url}/sms", **LIVE) as client:
        bo = Live(client, await cookie_of(owner, buyer.email))
        page = await bo.send("/phone", phone="+216 20 123 456")
    assert page.status == 502
    assert "could not be sent" in page.words
    assert 'value="+216 20 123 456"' in page.text
    assert await house.pool.fetchval("SELECT count(*) FROM mail") == 0


async def test_what_is_sent_says_the_code_in_the_persons_language(ingress, house, owner):
    told = []

    async def take(request):
        told.append(await request.json())
        return web.Response(status=204)

    gateway = web.Application()
    gateway.router.add_post("/sms", take)
    buyer = await phoneless(house, owner)
    await owner.execute("UPDATE app_user SET language = 'ar' WHERE email = $1", buyer.email)
    async with listening(gateway) as url, ingress(PAGES, SMS_URL=f"{url}/sms", **LIVE) as client:
        bo = Live(client, await cookie_of(owner, buyer.email))
        answer = await bo.send("/phone?next=/dashboard/wallet", phone=NUMBER)
        code = ingress.app[HOUSE].vault.code(PHONE, code_in(answer.location))
        assert told == [{"to": NUMBER, "text": told[0]["text"]}]
        assert code in told[0]["text"]
        assert "أمانة" in told[0]["text"] or "Amana" in told[0]["text"]
        assert any("\u0600" <= letter <= "\u06ff" for letter in told[0]["text"])
        done = await bo.send(answer.location, code=code)
    assert (done.status, done.location) == (303, "/dashboard/wallet")
    assert (await read_user(house.pool, buyer.email)).person.is_phone_verified


async def test_where_no_message_can_be_sent_nobody_is_asked_for_a_number(ingress, house, owner):
    buyer = await phoneless(house, owner)
    async with ingress(PAGES, **LIVE) as client:
        cookie = await cookie_of(owner, buyer.email)
        bo, vault = Live(client, cookie), ingress.app[HOUSE].vault
        page = await bo.get("/phone?next=/dashboard/wallet")
        assert (page.status, page.location) == (303, "/dashboard/wallet")
        token = vault.link_token("form/phone", cookie)
        answer = await bo.post("/phone", {"form_token": token, "phone": NUMBER})
        assert (answer.status, answer.location) == (303, "/dashboard")
    assert await house.pool.fetchval("SELECT count(*) FROM sign_in_code") == 0
