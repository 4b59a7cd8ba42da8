"""Settings: stored as they were sent, told where they are wrong; the way out everywhere."""

import pytest

from service.ingress.pages import dashboard, settings, static
from service.ingress.route import Auth, Route
from service.store.profiles import Profile, read_profile
from tests.browser import overflow, serious
from tests.makers import make_buyer
from tests.service.ingress.pages.people import cookie_of, signed_in, stranger

PATH = "/dashboard/settings"
ROUTES = (
    Route("GET", "/dashboard", dashboard.read_list, Auth.NONE, is_page=True, says="Escrows."),
    Route("GET", PATH, settings.read, Auth.NONE, is_page=True, says="Own."),
    Route("POST", PATH, settings.change, Auth.NONE, is_page=True, says="Own."),
    Route("GET", "/static/{name}", static.send, Auth.NONE, says="A file of the pages."),
)
SOUND = {
    "act": "save",
    "first_name": "Bäe",
    "last_name": "Ÿ",
    "language": "ar",
    "timezone": "Pacific/Auckland",
}


async def test_what_is_saved_is_how_the_person_is_spoken_to_from_then_on(ingress, house, owner):
    buyer = await make_buyer(house)
    async with ingress(ROUTES) as client:
        bo = await signed_in(client, owner, buyer.email)
        page = await bo.get(PATH)
        assert page.status == 200
        assert len(page.text) <= 50_000
        assert '<option value="" selected>' in page.text
        assert "(Africa/Tunis)" in page.words
        answer = await bo.send(PATH, **SOUND)
        assert (answer.status, answer.location) == (303, f"{PATH}?saved=yes")
        page = await bo.get(answer.location)
        assert "حُفظت إعداداتك" in page.words
        assert 'value="Bäe"' in page.text
        assert '<option value="Pacific/Auckland" selected>' in page.text
        assert '<html lang="ar" dir="rtl">' in (await bo.get("/dashboard")).text
    stored = await read_profile(house.pool, buyer.user_id)
    assert stored == Profile("Bäe", "Ÿ", "ar", "Pacific/Auckland")


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"first_name": " "}, {"first_name"}),
        ({"last_name": "w" * 101}, {"last_name"}),
        ({"first_name": "a\u202eb"}, {"first_name"}),
        ({"last_name": "a\nb"}, {"last_name"}),
        ({"language": "tlh"}, {"language"}),
        ({"timezone": "Mars/Phobos"}, {"timezone"}),
        ({"first_name": "", "last_name": "", "timezone": "x"},
         {"first_name", "last_name", "timezone"}),
    ],
)  # fmt: skip
async def test_what_is_wrong_is_said_beside_it_and_nothing_is_stored(
    ingress, house, owner, fields, wrong
):
    buyer = await make_buyer(house)
    before = await read_profile(house.pool, buyer.user_id)
    async with ingress(ROUTES) as client:
        bo = await signed_in(client, owner, buyer.email)
        page = await bo.send(PATH, **(SOUND | fields))
        assert page.status == 400
        names = ("first_name", "last_name", "language", "timezone")
        assert {name for name in names if f'id="{name}-error"' in page.text} == wrong
        if "first_name" not in wrong:
            assert 'value="Bäe"' in page.text
    assert await read_profile(house.pool, buyer.user_id) == before


async def test_signing_out_everywhere_ends_every_session_of_this_person_only(ingress, house, owner):
    buyer, other = await make_buyer(house), await make_buyer(house)
    async with ingress(ROUTES) as client:
        here = await signed_in(client, owner, buyer.email)
        there = await signed_in(client, owner, buyer.email)
        somebody = await signed_in(client, owner, other.email)
        answer = await here.send(PATH, act="sign_out_everywhere")
        assert answer.status == 303
        given = answer.headers["Set-Cookie"]  # the next forms know nothing that other tabs know
        assert given.startswith("amana_session=")
        assert here._cookie not in given
        for browser in (here, there):
            assert (await browser.get(PATH)).status == 303
        assert (await somebody.get(PATH)).status == 200


async def test_nobody_changes_the_settings_of_others(ingress, house, owner):
    buyer, other = await make_buyer(house), await make_buyer(house)
    async with ingress(ROUTES) as client:
        bo = await signed_in(client, owner, buyer.email)
        token = (await (await signed_in(client, owner, other.email)).get(PATH)).token
        assert (await bo.post(PATH, {"form_token": token, **SOUND})).status == 403
        assert (await bo.post(PATH, SOUND)).status == 403
        anybody = stranger(client)
        assert (await anybody.get(PATH)).status == 303
        assert (await anybody.post(PATH, SOUND)).status == 303
        new = await signed_in(client, owner, "new@example.com")
        assert (await new.get(PATH)).location.startswith("/register")
    assert (await read_profile(house.pool, buyer.user_id)) == Profile("Bo", "Y", "en", None)


@pytest.mark.parametrize("language", ["en", "ar"])
async def test_it_keeps_nobody_out_on_a_phone(ingress, house, owner, phone, language):
    buyer = await make_buyer(house)
    page = await phone(language)
    async with ingress(ROUTES) as client:
        url = str(client._base_url)
        cookie = await cookie_of(owner, buyer.email)
        await page.context.add_cookies([{"name": "amana_session", "value": cookie, "url": url}])
        await page.goto(f"{url}{PATH}?lang={language}")
        assert await serious(page) == []
        assert await overflow(page) <= 0
        await page.locator("#first_name").fill("")
        await page.locator("button.primary").click()
        assert await serious(page) == []
        assert await page.locator("#first_name-error").count() == 1
