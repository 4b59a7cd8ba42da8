"""Registering by a link or by a code: who comes out of it; more than test_arrival has."""

import pytest

from service.commands import escrows, users
from service.ingress.middlewares import HOUSE
from service.ingress.routes import ROUTES
from service.store.users import read_user
from tests.books import assert_sound, count_rows
from tests.makers import act, arrange, make_buyer, make_shop, reread
from tests.service.ingress.pages.people import signed_in
from tests.service.ingress.pages.test_arrival import (
    CODE,
    EMAIL,
    HOSTILE,
    Walker,
    coded,
    entered,
    invited,
)
from tests.service.ingress.pages.test_sign_in import a_checkout

PAGES = tuple(row for row in ROUTES if row.is_page or row.path == "/static/{name}")
NAMES = {"first_name": "Nour", "last_name": "T", "language": "ar"}


@pytest.fixture
async def place(ingress, house):
    """A client of the pages, and their house."""
    async with ingress(PAGES) as client:
        yield client, ingress.app[HOUSE]


async def a_doubtful(house, email=EMAIL):
    """Somebody with an account whose e-mail nobody has proven."""
    return await arrange(
        house, lambda tx: users.register(tx, email, "Doubt", "Ful", is_email_verified=False)
    )


# ---- An invitation's link -----------------------------------------------------------------------


async def test_the_link_proves_the_address_of_an_account_that_nobody_had_proven(place, house):
    client, app_house = place
    await a_doubtful(app_house)
    path, escrow_id = await invited(app_house, await make_shop(app_house))
    walker = Walker(client)
    page = await walker.get(path)
    assert 'name="first_name"' not in page.text
    assert "has an account already" in page.words
    answer = await walker.send(path)
    assert (answer.status, answer.location) == (303, f"/dashboard/escrow/{escrow_id}")
    assert (await walker.get(answer.location)).status == 200
    user = await read_user(house.pool, EMAIL)
    assert user.is_email_verified
    assert user.person.first_name == "Doubt"
    assert (await reread(house, escrow_id)).buyer_id == user.person.id
    await assert_sound(house)


async def test_the_link_of_an_escrow_that_is_over_registers_nobody(place, house):
    client, app_house = place
    shop = await make_shop(app_house)
    path, escrow_id = await invited(app_house, shop)
    walker = Walker(client)
    token = (await walker.get(path)).token
    await act(app_house, shop.actor, escrows.cancel(escrow_id))
    before = await count_rows(house)
    page = await Walker(client).get(path)
    assert page.status == 404
    assert 'href="/sign-in?next=/dashboard"' in page.text
    late = await walker.post(path, {"form_token": token, **NAMES})
    assert late.status == 404
    assert "Set-Cookie" not in late.headers
    assert await count_rows(house) == before


async def test_the_link_signs_in_whom_it_was_sent_to_and_nobody_else(place, house, owner):
    client, app_house = place
    other = await make_buyer(house)
    path, escrow_id = await invited(app_house, await make_shop(app_house))
    before = await signed_in(client, owner, other.email)
    walker = Walker(client)
    walker._cookie = before._cookie
    assert EMAIL in (await walker.get(path)).words
    assert (await walker.send(path, **NAMES)).status == 303
    page = await walker.get("/dashboard")
    assert EMAIL in page.words
    assert other.email not in page.words
    assert (await before.get("/dashboard")).status == 303
    assert (await reread(house, escrow_id)).buyer.email == EMAIL


async def test_whoever_registers_has_their_name_language_and_no_verified_phone(place, house):
    client, app_house = place
    path, _ = await invited(app_house, await make_shop(app_house))
    page = await Walker(client).get(f"{path}?lang=fr")
    assert 'value="fr" checked' in page.text
    names = {"first_name": " نور ", "last_name": "Å" * 100, "language": "ar"}
    await Walker(client).send(f"{path}?lang=fr", **names)
    person = (await read_user(house.pool, EMAIL)).person
    assert (person.first_name, person.last_name, person.language) == ("نور", "Å" * 100, "ar")
    assert not person.is_phone_verified
    assert await house.pool.fetchval("SELECT phone FROM app_user WHERE email = $1", EMAIL) is None


async def test_a_hostile_name_is_inert_on_the_other_sides_page(place, house, owner):
    client, app_house = place
    shop = await make_shop(app_house)
    path, escrow_id = await invited(app_house, shop)
    await Walker(client).send(path, first_name=HOSTILE, last_name="{{ 7 * 7 }}", language="en")
    seller = await signed_in(client, owner, shop.email)
    page = await seller.get(f"/dashboard/escrow/{escrow_id}")
    assert HOSTILE not in page.text
    assert HOSTILE in page.words
    assert "{{ 7 * 7 }}" in page.words


@pytest.mark.parametrize("name", ["a\0b", "a\nb", "\u200f\u202e", "\ud800", "w" * 70_000])
async def test_a_name_that_cannot_be_kept_is_refused_and_nobody_registers(place, house, name):
    client, app_house = place
    path, _ = await invited(app_house, await make_shop(app_house))
    walker = Walker(client)
    token = (await walker.get(path)).token
    fields = {"form_token": token, **NAMES, "first_name": name}
    raw = "&".join(f"{one}={text.replace(chr(10), '%0A')}" for one, text in fields.items())
    sent = raw.encode("utf-8", "surrogatepass")
    quoted = b"".join(
        b"%%%02X" % byte if byte > 126 or byte < 32 else bytes([byte]) for byte in sent
    )
    kind = {"Content-Type": "application/x-www-form-urlencoded"}
    answer = await walker.post(path, quoted, **kind)
    assert answer.status in (400, 413)
    assert "at most 100 characters" not in answer.words
    assert await read_user(house.pool, EMAIL) is None


async def test_a_link_that_nobody_was_sent_says_nothing(place):
    client, _ = place
    for token in ("x" * 43, "x", "%00", "%ED%A0%80", "x" * 5000):
        page = await Walker(client).get(f"/register/{token}")
        assert page.status == 404, token


# ---- A code without an invitation ---------------------------------------------------------------


async def test_a_code_proves_the_address_of_an_account_that_nobody_had_proven(place, house):
    client, app_house = place
    await a_doubtful(app_house)
    path, escrow_id = await invited(app_house, await make_shop(app_house))
    walker = Walker(client)
    await entered(walker, app_house)
    assert (await walker.get("/dashboard")).location == "/register?next=/dashboard"
    await walker.send("/register?next=/dashboard", **NAMES)
    assert (await walker.get(f"/dashboard/escrow/{escrow_id}")).status == 200
    assert (await read_user(house.pool, EMAIL)).is_email_verified
    assert (await Walker(client).get(path)).status == 404  # the link is spent by it
    await assert_sound(house)


async def test_registering_twice_at_once_or_again_is_registering_once(place, house):
    client, app_house = place
    walker = Walker(client)
    await entered(walker, app_house)
    token = (await walker.get("/register")).token
    for first_name in ("Nour", "Another"):
        fields = {"form_token": token, **NAMES, "first_name": first_name}
        answer = await walker.post("/register", fields)
        assert (answer.status, answer.location) == (303, "/dashboard")
    assert (await read_user(house.pool, EMAIL)).person.first_name == "Nour"
    assert await house.pool.fetchval("SELECT count(*) FROM app_user WHERE email = $1", EMAIL) == 1


async def test_what_was_wrong_is_kept_and_nothing_else_is_lost(place, house):
    client, app_house = place
    walker = Walker(client)
    await entered(walker, app_house)
    page = await walker.send(
        "/register?next=/dashboard/wallet&lang=fr",
        first_name=HOSTILE, last_name=" ", language="ar",
    )  # fmt: skip
    assert page.status == 400
    assert HOSTILE not in page.text
    assert 'id="last_name-error"' in page.text
    assert 'value="ar" checked' in page.text
    assert 'action="/register?next=/dashboard/wallet&amp;lang=fr"' in page.text
    assert await read_user(house.pool, EMAIL) is None


async def test_a_newcomer_walks_from_a_shops_link_to_the_checkout(place, house):
    """Sign in by a code, register, verify a phone: each leads on to the next, and to the step."""
    client, app_house = place
    path, _ = await a_checkout(app_house, "newcomer@example.org")
    walker = Walker(client)
    assert (await walker.get(path)).status == 200
    page, code = await coded(walker, app_house, "", f"/sign-in?next={path}")
    assert (await walker.send(page, code=code)).location == path
    answer = await walker.get(path)
    assert answer.location == f"/register?next={path}"
    answer = await walker.send(answer.location, **NAMES)
    assert answer.location == path
    answer = await walker.get(path)
    assert answer.location == f"/phone?next={path}"
    answer = await walker.send(answer.location, phone="+216 20 123 456")
    code_id = answer.location.partition("?")[0].rpartition("/")[2]
    answer = await walker.send(answer.location, code=app_house.vault.code("phone", code_id))
    assert (answer.status, answer.location) == (303, path)
    checkout = await walker.get(path)
    assert checkout.status == 200
    assert '<html lang="ar" dir="rtl">' in checkout.text
    assert 'name="way"' in checkout.text
    await assert_sound(house)


@pytest.mark.parametrize("page", ["/register", "/phone"])
async def test_whoever_was_signed_out_on_the_way_still_gets_there(place, house, page):
    client, _ = place
    path, _ = await a_checkout(house)
    answer = await Walker(client).get(f"{page}?next={path}&lang=ar")
    assert answer.location == f"/sign-in?next={path}&lang=ar"
    evil = await Walker(client).get(f"{page}?next=//evil.example")
    assert evil.location == "/sign-in?next=/dashboard"
    assert CODE.match(evil.location) is None
