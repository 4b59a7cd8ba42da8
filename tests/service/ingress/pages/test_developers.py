"""`/developers`: what a developer has, what can be done about it, in three languages."""

import re
import secrets

import pytest
from aiohttp import web

from service.commands import visits
from service.commands.developers import enrol
from service.gateways.post import HttpPost
from service.ingress.pages import developers, static
from service.ingress.route import Auth, Route
from service.ingress.routes import ROUTES as ALL
from tests.browser import overflow, serious
from tests.house import CLEAN, SECRET_KEY
from tests.makers import Shop, arrange, make_escrow, make_shop
from tests.receiver import make_endpoint, receiving, verify
from tests.service.ingress.pages.people import Browser, signed_in, stranger
from workers import recoveries
from workers.webhooks import Courier

ROUTES = (
    *(route for route in ALL if route.path.startswith("/developers")),
    Route("GET", "/static/{name}", static.send, Auth.NONE, says="A file of the pages."),
)
LINK = re.compile(r'href="(/developers/webhooks/[^"?]+)')
EMAIL = "dev@example.com"
OPTIONS = {"AMANA_SECRET_KEY": SECRET_KEY, "WEBHOOK_ALLOW_PRIVATE": "1"}


@pytest.fixture
async def receiver():
    async with receiving() as opened:
        yield opened


@pytest.fixture
async def courier(house):
    post = HttpPost(allow_private=True)
    hired = Courier(house, post, chance=lambda: 0.5)
    yield hired
    await hired.close(grace_seconds=0)
    await post.close()


@pytest.fixture
async def client(ingress, house, owner):
    await owner.execute(CLEAN)
    async with ingress(ROUTES, **OPTIONS) as opened:
        yield opened


@pytest.fixture
async def shop(house, owner):
    made = await arrange(
        house, lambda tx: enrol(tx, EMAIL, "Café <b>", user_email="seller@example.com")
    )
    return Shop(made.developer_id, made.api_key, made.user_id, "seller@example.com")


@pytest.fixture
async def dev(client, owner, shop):
    return await signed_in(client, owner, EMAIL)


async def a_page(dev, house, shop, receiver, **options):
    made = await make_endpoint(house, shop, receiver.url, **options)
    return made, f"/developers/webhooks/{made['id']}"


async def test_endpoints_and_keys_are_listed_with_how_they_are(
    dev, house, owner, shop, receiver, courier
):
    receiver.says(500)
    await a_page(dev, house, shop, receiver, events=["escrow.*"])
    page = await dev.get("/developers")
    assert page.status == 200
    assert "Developer account of Café <b>" in page.words
    assert "Nothing sent yet" in page.words
    assert shop.api_key[:16] in page.words
    assert "First key" in page.words
    assert "Never used" in page.words
    assert shop.api_key[:20] not in page.text
    await make_escrow(house, shop)
    await courier.settle_all()
    await owner.execute("UPDATE api_key SET last_used_at = now()")
    page = await dev.get("/developers")
    assert "Failing ( 1 in a row)" in page.words
    assert "Last used on" in page.words


async def test_who_has_no_account_is_told_so_and_sees_nothing(client, owner, house, shop, receiver):
    _, path = await a_page(None, house, shop, receiver)
    for email in ("seller@example.com", "nobody@example.com"):
        other = await signed_in(client, owner, email)
        page = await other.get("/developers")
        assert (page.status, "There is no developer account" in page.words) == (200, True)
        assert receiver.url not in page.text
        assert (await other.get(path)).status == 404
        assert (await other.post(path, {"form_token": "x", "act": "rotate"})).status == 404


async def test_another_developers_endpoint_is_none(client, owner, house, dev, shop, receiver):
    stranger = await make_shop(house)
    _, path = await a_page(None, house, stranger, receiver)
    assert (await dev.get(path)).status == 404


async def test_a_delivery_is_shown_with_its_attempts_and_sent_again(
    dev, house, shop, receiver, courier
):
    async def echo(parcel):
        return web.Response(status=500, text=f"<script>bad {parcel.headers['X-Token']}</script>")

    receiver.answer = echo
    _, path = await a_page(
        dev, house, shop, receiver, events=["escrow.created"], headers={"X-Token": "t0p-s3cret"}
    )
    await make_escrow(house, shop)
    await courier.settle_all()
    page = await dev.get(path)
    [delivery] = [link for link in LINK.findall(page.text) if "/deliveries/" in link]
    page = await dev.get(delivery)
    assert "Answered 500" in page.words
    assert "<script>bad •••</script>" in page.words
    assert "<script>" not in page.text
    assert "X-Token" in page.words
    assert "t0p-s3cret" not in page.text
    assert '"type":"escrow.created"' in page.words
    receiver.says(200)
    sent = await dev.send(delivery, act="resend")
    assert (sent.status, sent.location) == (303, f"{delivery}?done=yes")
    assert "It is on its way" in (await dev.get(sent.location)).words
    await courier.settle_all()
    page = await dev.get(delivery)
    assert "Answered 200" in page.words
    assert "Delivered" in page.words
    assert len(receiver.parcels) == 2


async def test_the_account_is_reached_by_the_mailed_code_without_being_a_user(
    ingress, house, owner, shop
):
    async with ingress(ALL, **OPTIONS) as client:
        door = await stranger(client).get("/developers")
        assert (door.status, door.location) == (303, "/sign-in?next=/developers")
        code_id = await visits.ask_code(house, EMAIL, None, "en", None)
        cookie = secrets.token_urlsafe(32)
        token = house.vault.link_token("form/sign_in_code", cookie)
        code = house.vault.code(visits.SIGN_IN, code_id)
        came = await Browser(client, cookie).post(
            f"/sign-in/{code_id}?next=/developers", {"form_token": token, "code": code}
        )
        assert (came.status, came.location) == (303, "/developers")
        session = re.search(r"amana_session=([^;]+)", came.headers["Set-Cookie"])[1]
        page = await Browser(client, session).get("/developers")
    assert (page.status, "Developer account of" in page.words) == (200, True)


async def act_on(dev, path, **fields):
    """One of the page's forms, by what its button says."""
    page = await dev.get(path)
    return await dev.post(path, {"form_token": page.token, **fields})


async def test_a_test_event_is_sent_and_leads_to_its_delivery(dev, house, shop, receiver, courier):
    made, path = await a_page(dev, house, shop, receiver)
    sent = await act_on(dev, path, act="test", type="escrow.dispute.opened")
    assert sent.status == 303
    assert re.fullmatch(rf"{path}/deliveries/[0-9a-f-]{{36}}\?done=yes", sent.location)
    await courier.settle_all()
    [parcel] = receiver.parcels
    verify(parcel, made["secret"])
    assert parcel.type == "escrow.dispute.opened"
    assert (await act_on(dev, path, act="test", type="escrow.exploded")).status == 404


async def test_a_new_secret_is_shown_once_and_signs_beside_the_old_one(
    dev, house, shop, receiver, courier
):
    made, path = await a_page(dev, house, shop, receiver, ed25519=True)
    page = await act_on(dev, path, act="rotate", overlap="24")
    assert page.status == 200
    [secret] = re.findall(r"<code>([0-9a-f]{64})</code>", page.text)
    assert re.search(r"<code>whsec_[^<]+</code>", page.text)
    assert re.search(r"<code>whpk_[^<]+</code>", page.text)
    assert "signs beside it for 24 hours more" in page.words
    assert secret not in (await dev.get(path)).text
    await act_on(dev, path, act="test", type="webhook.test")
    await courier.settle_all()
    verify(receiver.parcels[0], secret)
    assert len(receiver.parcels[0].headers["webhook-signature"].split(" ")) == 4
    assert (await act_on(dev, path, act="rotate", overlap="5")).status == 404
    assert made["secret"] != secret


async def test_a_recovery_begins_here_and_shows_how_far_it_is(dev, house, shop, receiver, courier):
    receiver.says(400)
    _, path = await a_page(dev, house, shop, receiver, events=["escrow.created"], ladder="brief")
    await make_escrow(house, shop)
    await courier.settle_all()
    receiver.says(200)
    begun = await act_on(dev, path, act="recover", since="2026-01-01")
    assert (begun.status, begun.location) == (303, f"{path}?done=recover")
    page = await dev.get(begun.location)
    assert "The recovery has begun" in page.words
    assert "0 of 1 on their way" in page.words
    again = await act_on(dev, path, act="recover", since="2026-01-01")
    assert (again.status, "under way already" in again.words) == (409, True)
    await recoveries.turn(house)
    await courier.settle_all()
    page = await dev.get(path)
    assert "1 of 1 on their way" in page.words
    assert "Finished" in page.words
    for since in ("", "soon", "2100-01-01"):
        wrong = await act_on(dev, path, act="recover", since=since)
        assert (wrong.status, "not in the future" in wrong.words) == (400, True)


async def test_a_disabled_endpoint_is_enabled_and_offers_nothing_else(
    dev, house, shop, receiver, courier
):
    receiver.says(410)
    _, path = await a_page(dev, house, shop, receiver, events=["escrow.created"])
    await make_escrow(house, shop)
    await courier.settle_all()
    page = await dev.get(path)
    assert "Disabled" in page.words
    assert "Send a test event" not in page.words
    done = await act_on(dev, path, act="enable")
    assert (done.status, done.location) == (303, f"{path}?done=enable")
    page = await dev.get(done.location)
    assert "The endpoint is enabled" in page.words
    assert "Send a test event" in page.words
    assert (await act_on(dev, path, act="explode")).status == 404


async def test_the_list_narrows_and_walks_on(dev, house, shop, receiver, courier, monkeypatch):
    monkeypatch.setattr(developers, "ENTRIES", 2)
    _, path = await a_page(dev, house, shop, receiver, events=["escrow.created"])
    for _ in range(3):
        await make_escrow(house, shop)
    await courier.settle_all()
    seen, at = [], path
    while at:
        page = await dev.get(at)
        seen += [link for link in LINK.findall(page.text) if "/deliveries/" in link]
        older = re.search(r'href="([^"]+)">Show older ones', page.text)
        at = older[1].replace("&amp;", "&") if older else None
    assert len(seen) == len(set(seen)) == 3
    page = await dev.get(f"{path}?state=exhausted")
    assert "Nothing here" in page.words


async def test_a_form_of_another_visitor_changes_nothing(dev, client, owner, house, shop, receiver):
    _, path = await a_page(dev, house, shop, receiver)
    page = await dev.get(path)
    twin = await signed_in(client, owner, EMAIL)
    refused = await twin.post(path, {"form_token": page.token, "act": "rotate", "overlap": "0"})
    assert refused.status == 403


@pytest.mark.parametrize("language", ["en", "fr", "ar"])
async def test_every_page_fits_a_phone_and_keeps_nobody_out(
    ingress, house, owner, shop, receiver, courier, phone, language
):
    receiver.says(500)
    made = await make_endpoint(house, shop, receiver.url, events=["*"], ed25519=True)
    await make_escrow(house, shop, title="x" * 200)
    await courier.settle_all()
    delivery = await house.pool.fetchval("SELECT id::text FROM delivery")
    path = f"/developers/webhooks/{made['id']}"
    async with ingress(ROUTES, **OPTIONS) as client:
        dev = await signed_in(client, owner, EMAIL)
        page = await phone(language)
        base = str(client._base_url).rstrip("/")
        await page.context.add_cookies(
            [{"name": "amana_session", "value": dev._cookie, "url": base}]
        )
        for where in ("/developers", path, f"{path}/deliveries/{delivery}"):
            await page.goto(f"{base}{where}?lang={language}")
            assert await page.get_attribute("html", "lang") == language
            assert await overflow(page) == 0
            assert await serious(page) == []
