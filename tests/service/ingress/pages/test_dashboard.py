"""The dashboard: what waits comes first, nothing of others is shown, and it walks on by cursors."""

import re

import pytest

from service.ingress.pages import dashboard, static
from service.ingress.route import Auth, Route
from tests.browser import overflow, serious
from tests.makers import make_buyer, make_escrow, make_shop
from tests.previews import HOSTILE
from tests.service.ingress.pages.people import cookie_of, signed_in, stranger

ROUTES = (
    Route("GET", "/dashboard", dashboard.read_list, Auth.NONE, is_page=True, says="Escrows."),
    Route("GET", "/static/{name}", static.send, Auth.NONE, says="A file of the pages."),
)
LINK = re.compile(r'href="/dashboard/escrow/([0-9a-f]{24})[^"]*"><span')


async def test_what_waits_for_the_person_comes_first_then_the_rest_newest_first(
    ingress, house, owner
):
    shop, buyer = await make_shop(house), await make_buyer(house)
    made = [
        await make_escrow(house, shop, buyer, mode="quick", status=status)
        for status in ("pending", "paid", "delivered", "completed")
    ]
    pending, paid, delivered, completed = (one.id for one in made)
    async with ingress(ROUTES) as client:
        bo = await signed_in(client, owner, buyer.email)
        page = await bo.get("/dashboard")
        assert LINK.findall(page.text) == [delivered, pending, completed, paid]
        assert "You buy from" in page.words
        seller = await signed_in(client, owner, shop.email)
        page = await seller.get("/dashboard")
        assert LINK.findall(page.text) == [paid, completed, delivered, pending]
        assert "You sell to Bo Y" in page.words
        assert len(page.text) <= 50_000


async def test_who_has_nothing_is_told_what_will_be_here(ingress, house, owner):
    buyer = await make_buyer(house, funds="12.5")
    async with ingress(ROUTES) as client:
        page = await (await signed_in(client, owner, buyer.email)).get("/dashboard")
    assert page.status == 200
    assert "You have no escrow yet" in page.words
    assert "Available in your wallet 12.500 TND" in page.words
    assert 'href="/dashboard/wallet"' in page.text


async def test_nobody_sees_the_escrows_of_others(ingress, house, owner):
    escrow = await make_escrow(house, await make_shop(house), mode="quick", title="Private")
    other = await make_buyer(house)
    async with ingress(ROUTES) as client:
        page = await (await signed_in(client, owner, other.email)).get("/dashboard?q=Private")
        assert page.status == 200
        assert escrow.id not in page.text
        page = await stranger(client).get("/dashboard")
        assert (page.status, page.location) == (303, "/sign-in?next=/dashboard")
        page = await (await signed_in(client, owner, "new@example.com")).get("/dashboard")
        assert (page.status, page.location) == (303, "/register?next=/dashboard")


async def test_it_walks_on_through_both_lists_without_a_gap(ingress, house, owner, monkeypatch):
    monkeypatch.setattr(dashboard, "ENTRIES", 2)
    shop, buyer = await make_shop(house), await make_buyer(house)
    made = {"pending": [], "completed": []}
    for status in ("pending", "completed", "pending", "pending", "completed", "pending"):
        escrow = await make_escrow(house, shop, buyer, mode="instant", status=status)
        made[status].insert(0, escrow.id)
    async with ingress(ROUTES) as client:
        bo = await signed_in(client, owner, buyer.email)
        seen, path, pages = [], "/dashboard", 0
        while path:
            page = await bo.get(path)
            assert page.status == 200
            seen += LINK.findall(page.text)
            older = re.search(r'<p><a href="([^"]+)">Show older ones', page.text)
            path, pages = older and older[1].replace("&amp;", "&"), pages + 1
        assert seen == made["pending"] + made["completed"]
        assert pages in (3, 4)
        assert "Back to the newest" in page.words


@pytest.mark.parametrize(
    "query", ["?before=x", "?turn='%20OR%201=1", "?before=" + "F" * 24, "?q=" + "w" * 999]
)
async def test_a_cursor_or_a_text_that_was_tampered_with_does_no_harm(ingress, house, owner, query):
    buyer = await make_buyer(house)
    await make_escrow(house, await make_shop(house), buyer, mode="quick")
    async with ingress(ROUTES) as client:
        page = await (await signed_in(client, owner, buyer.email)).get(f"/dashboard{query}")
    assert page.status == 200


@pytest.mark.parametrize("query", ["?q=%00", "?q=%ff", "?q=a&q=b"])
async def test_a_query_that_cannot_be_read_in_one_way_is_400(ingress, house, owner, query):
    buyer = await make_buyer(house)
    async with ingress(ROUTES) as client:
        page = await (await signed_in(client, owner, buyer.email)).get(f"/dashboard{query}")
    assert page.status == 400


async def test_a_search_shows_what_was_typed_and_nothing_else(ingress, house, owner):
    shop, buyer = await make_shop(house), await make_buyer(house)
    coat = await make_escrow(house, shop, buyer, mode="quick", title="A coat")
    await make_escrow(house, shop, buyer, mode="quick", title="A hat")
    async with ingress(ROUTES) as client:
        bo = await signed_in(client, owner, buyer.email)
        page = await bo.get("/dashboard?q=COAT&lang=fr")
        assert LINK.findall(page.text) == [coat.id]
        assert 'value="COAT"' in page.text
        assert 'href="/dashboard?lang=fr"' in page.text
        page = await bo.get('/dashboard?q="><script>')
        assert "<script" not in page.text
        assert "Nothing found" in page.words


async def test_who_was_named_by_somebodys_app_is_told(ingress, house, owner):
    shop, buyer = await make_shop(house, company="Shop & <b>Co</b>"), await make_buyer(house)
    await make_escrow(house, shop, buyer, mode="quick", title=HOSTILE)
    async with ingress(ROUTES) as client:
        page = await (await signed_in(client, owner, buyer.email)).get("/dashboard")
        assert "New: Shop & <b>Co</b> named you as the buyer" in page.words
        assert "<script" not in page.text
        assert "<b>Co" not in page.text
        page = await (await signed_in(client, owner, shop.email)).get("/dashboard")
        assert "New:" not in page.words


@pytest.mark.parametrize("language", ["en", "ar"])
@pytest.mark.parametrize("scripts", [True, False])
async def test_it_keeps_nobody_out_on_a_phone(ingress, house, owner, phone, language, scripts):
    buyer = await make_buyer(house)
    shop = await make_shop(house)
    for mode, status in (("quick", "delivered"), ("standard", "pending"), ("quick", "disputed")):
        await make_escrow(house, shop, buyer, mode=mode, status=status, title=HOSTILE)
    page = await phone(language, scripts=scripts)
    async with ingress(ROUTES) as client:
        url = str(client._base_url)
        await page.context.add_cookies(
            [{"name": "amana_session", "value": await cookie_of(owner, buyer.email), "url": url}]
        )
        await page.goto(f"{url}/dashboard?lang={language}")
        assert await page.locator("h1").count() == 1
        assert await overflow(page) <= 0
        if scripts:
            assert await serious(page) == []
