"""Signing in: where it leads, in which language, for whom; more than test_arrival has."""

import asyncio
import re

import pytest

from service.commands import developers, sessions
from service.commands.mails import open_mailbox
from service.commands.visits import PER_NETWORK_MAX, SIGN_IN
from service.ingress.middlewares import HOUSE
from service.ingress.routes import ROUTES
from service.wire.sessions import NewSession
from tests.makers import act, arrange, make_buyer, make_escrow, make_shop
from tests.outbox import WORDS, send_all
from tests.service.ingress.pages.people import Browser, signed_in
from tests.service.ingress.pages.test_arrival import EMAIL, Walker, coded, entered

PAGES = tuple(row for row in ROUTES if row.is_page or row.path == "/static/{name}")
BACK = "https://shop.example/back"


@pytest.fixture
async def place(ingress, house):
    """A client of the pages, and their house."""
    async with ingress(PAGES) as client:
        yield client, ingress.app[HOUSE]


async def a_checkout(house, email=None):
    """The path of a session in which this person, else a registered one, is to pay; the e-mail."""
    shop = await make_shop(house)
    email = email or (await make_buyer(house)).email
    escrow = await make_escrow(house, shop, buyer_email=email, mode="quick")
    await arrange(house, lambda tx: developers.allow_redirects(tx, shop.developer_id, [BACK]))
    asked = {"action": "accept_pay", "targetUserEmail": email, "redirectUrl": BACK}
    command = sessions.create(shop.developer_id, escrow.id, NewSession.model_validate(asked))
    made = await act(house, shop.actor, command)
    return f"/checkout/{made['sessionId']}", email


async def recipients(house):
    rows = await house.pool.fetch("SELECT recipient FROM mail WHERE template = 'sign_in_code'")
    return [row["recipient"] for row in rows]


# ---- For a checkout -----------------------------------------------------------------------------


@pytest.mark.parametrize("written", [str, str.upper, lambda handle: f"{handle}?lang=fr"])
async def test_a_checkouts_code_goes_to_its_own_address_however_the_link_is_written(
    place, house, written
):
    client, _ = place
    path, email = await a_checkout(house)
    asking = f"/sign-in?next=/checkout/{written(path.removeprefix('/checkout/'))}"
    walker = Walker(client)
    page = await walker.get(asking)
    assert 'name="email"' not in page.text
    assert await recipients(house) == []  # looking sends nothing
    answer = await walker.post(asking, {"form_token": page.token, "email": "thief@example.org"})
    assert answer.status == 303
    assert await recipients(house) == [email]


async def test_it_leads_to_the_checkout_and_nothing_on_the_way_shows_the_whole_address(
    place, house
):
    client, app_house = place
    path, email = await a_checkout(house)
    walker = Walker(client)
    page, code = await coded(walker, app_house, "ignored@example.org", f"/sign-in?next={path}")
    assert email not in (await walker.get(page)).text
    answer = await walker.send(page, code=code)
    assert (answer.status, answer.location) == (303, path)
    checkout = await walker.get(path)
    assert checkout.status == 200
    assert 'name="way"' in checkout.text


async def test_whoever_is_signed_in_as_another_is_asked_for_the_right_ones_code(
    place, house, owner
):
    client, app_house = place
    path, email = await a_checkout(house)
    other = await make_buyer(house)
    before = await signed_in(client, owner, other.email)
    walker = Walker(client)
    walker._cookie = before._cookie
    asking = f"/sign-in?next={path}"
    assert (await walker.get(asking)).status == 200
    page, code = await coded(walker, app_house, other.email, asking)
    assert await recipients(house) == [email]
    assert (await walker.send(page, code=code)).location == path
    assert email in (await walker.get("/dashboard")).words
    assert (await before.get("/dashboard")).status == 303  # the other's session is over
    again = await walker.get(asking)
    assert (again.status, again.location) == (303, path)


# ---- Where it leads, in which language ----------------------------------------------------------


async def test_a_language_chosen_on_the_way_rides_along_to_the_end(place):
    client, app_house = place
    walker = Walker(client)
    page = await walker.get("/sign-in?next=/dashboard/wallet")
    switch = re.search(r'href="(\?[^"]*lang=ar)"', page.text)[1].replace("&amp;", "&")
    assert switch == "?next=%2Fdashboard%2Fwallet&lang=ar"
    page, code = await coded(walker, app_house, EMAIL, f"/sign-in{switch}")
    shown = await walker.get(page)
    assert '<html lang="ar" dir="rtl">' in shown.text
    assert "?next=%2Fdashboard%2Fwallet&amp;lang=fr" in shown.text
    answer = await walker.send(page, code=code)
    assert answer.location == "/dashboard/wallet?lang=ar"
    answer = await walker.get(answer.location)
    assert answer.location == "/register?next=/dashboard/wallet&lang=ar"
    asking = await walker.get(answer.location)
    assert '<html lang="ar" dir="rtl">' in asking.text
    assert 'value="ar" checked' in asking.text
    named = {"first_name": "Nour", "last_name": "T", "language": "fr"}
    answer = await walker.send(answer.location, **named)
    assert answer.location == "/dashboard/wallet"  # what was chosen in the form is stored now
    assert '<html lang="fr"' in (await walker.get(answer.location)).text


async def test_whoever_is_signed_in_is_spoken_to_in_their_own_language(place, house, owner):
    client, _ = place
    buyer = await make_buyer(house)
    await owner.execute("UPDATE app_user SET language = 'fr' WHERE email = $1", buyer.email)
    bo = await signed_in(client, owner, buyer.email)
    for path in ("/sign-out", "/phone"):
        page = await bo.get(path, **{"Accept-Language": "ar"})
        assert '<html lang="fr"' in page.text, path


async def test_whoever_is_not_signed_in_has_nothing_to_sign_out_of(place):
    client, _ = place
    page = await Walker(client).get("/sign-out")
    assert (page.status, page.location) == (303, "/sign-in")


# ---- The code -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "written",
    [
        lambda code: f"{code[:3]}\u00a0{code[3:]}\n",
        lambda code: f"\u2068{code}\u2069",  # copied from a mail, with the marks around it
        lambda code: code.translate({48 + n: 0x660 + n for n in range(10)}),
        lambda code: code.translate({48 + n: 0x6F0 + n for n in range(10)}),
    ],
    ids=["spaced", "isolated", "arabic", "persian"],
)
async def test_a_code_may_be_typed_as_people_do(place, written):
    client, app_house = place
    walker = Walker(client)
    page, code = await coded(walker, app_house)
    assert (await walker.send(page, code=written(code))).status == 303


async def test_five_tries_at_once_are_five_tries(place):
    client, app_house = place
    walker = Walker(client)
    page, code = await coded(walker, app_house)
    token = (await walker.get(page)).token
    wrong = {"form_token": token, "code": str((int(code) + 1) % 10**6).zfill(6)}
    answers = await asyncio.gather(*(walker.post(page, wrong) for _ in range(5)))
    said = [re.search(r"try (\d) more", one.words) for one in answers]
    assert sorted(one[1] if one else "over" for one in said) == ["1", "2", "3", "4", "over"]
    assert (await walker.post(page, {"form_token": token, "code": code})).status == 400


async def test_a_code_that_is_over_says_so_and_leads_to_another(place, owner):
    client, app_house = place
    walker = Walker(client)
    page, _ = await coded(walker, app_house, EMAIL, "/sign-in?next=/dashboard/wallet&lang=fr")
    await owner.execute("UPDATE sign_in_code SET expires_at = now()")
    shown = await walker.get(page)
    assert 'name="code"' not in shown.text
    assert 'href="/sign-in?next=/dashboard/wallet&amp;lang=fr"' in shown.text


async def test_a_code_signs_in_once(place):
    client, app_house = place
    walker = Walker(client)
    page, code = await coded(walker, app_house)
    first = Browser(client, walker._cookie)
    token = (await first.get(page)).token
    assert (await walker.send(page, code=code)).status == 303
    late = await first.post(page, {"form_token": token, "code": code})
    assert (late.status, "Set-Cookie" in late.headers) == (400, False)


async def test_signing_in_ends_what_the_cookie_stood_for_before(place, house):
    client, app_house = place
    walker = Walker(client)
    await entered(walker, app_house, (await make_buyer(house)).email)
    first = Browser(client, walker._cookie)
    assert (await first.get("/dashboard")).status == 200
    page, code = await coded_anew(walker, app_house, (await make_buyer(house)).email)
    assert (await walker.send(page, code=code)).status == 303
    assert (await first.get("/dashboard")).location.startswith("/sign-in")


async def coded_anew(walker, house, email):
    """As `coded`, where somebody is signed in already, whom the page leads on."""
    token = house.vault.link_token("form/sign_in", walker._cookie)
    answer = await walker.post("/sign-in", {"form_token": token, "email": email})
    code_id = re.match(r"/sign-in/([0-9a-f]{24})", answer.location)[1]
    return answer.location, house.vault.code(SIGN_IN, code_id)


async def test_no_more_than_five_codes_an_hour_are_mailed_to_an_address(place, house, owner):
    client, app_house = place
    for _ in range(PER_NETWORK_MAX):
        await coded(Walker(client), app_house)
        await owner.execute(
            "UPDATE sign_in_code SET created_at = created_at - interval '31 seconds'"
        )
    answer = await Walker(client).send("/sign-in", email=EMAIL)
    assert answer.status == 429
    assert len(await recipients(house)) == PER_NETWORK_MAX


async def test_the_address_sent_twice_is_one_mail_and_leads_to_one_code(place, house):
    client, app_house = place
    walker = Walker(client)
    asking = "/sign-in?next=/dashboard/wallet"
    sent = {"form_token": (await walker.get(asking)).token, "email": EMAIL}
    answers = await asyncio.gather(*(walker.post(asking, sent) for _ in range(2)))
    assert {one.status for one in answers} == {303}
    [path] = {one.location for one in answers}
    assert await recipients(house) == [EMAIL]
    code = app_house.vault.code(SIGN_IN, re.match(r"/sign-in/([0-9a-f]{24})", path)[1])
    assert (await walker.send(path, code=code)).location == "/dashboard/wallet"


# ---- The link -----------------------------------------------------------------------------------


async def mailed(house, email=EMAIL):
    """The path of the link in the newest mail to this address."""
    await send_all(house)
    mails = await open_mailbox(house.pool, WORDS, house.policy, house.vault, email)
    return mails[0].links[0].removeprefix(house.policy.public_url)


async def test_the_mails_link_signs_in_in_any_browser_and_by_a_press_only(place):
    client, app_house = place
    walker = Walker(client)
    page, _ = await coded(walker, app_house)
    link = await mailed(app_house)
    assert link.startswith(f"{page.partition('?')[0]}/")
    phone = Walker(client)
    for _ in range(2):  # a mailbox looks at links by itself
        shown = await phone.get(link)
        assert shown.status == 200
        assert EMAIL not in shown.text
    answer = await phone.send(link)
    assert (answer.status, answer.location) == (303, "/dashboard")
    assert EMAIL in (await phone.get("/register")).text
    again = await phone.get(link)
    assert (again.status, again.location) == (303, "/dashboard")
    thief = Walker(client)
    assert "of no use any more" in (await thief.get(link)).words
    token = app_house.vault.link_token("form/sign_in_link", thief._cookie)
    late = await thief.post(link, {"form_token": token})
    assert (late.status, "Set-Cookie" in late.headers) == (400, False)


@pytest.mark.parametrize("forge", [lambda token: "A" * 43, lambda token: token[:-1], str.upper])
async def test_a_forged_link_is_no_page(place, forge):
    client, app_house = place
    walker = Walker(client)
    await coded(walker, app_house)
    start, _, token = (await mailed(app_house)).rpartition("/")
    assert (await walker.get(f"{start}/{forge(token)}")).status == 404
    sent = {"form_token": app_house.vault.link_token("form/sign_in_link", walker._cookie)}
    assert (await walker.post(f"{start}/{forge(token)}", sent)).status == 404


async def test_another_browser_is_told_that_the_code_is_not_for_it_and_burns_no_try(place):
    client, app_house = place
    walker, thief = Walker(client), Walker(client)
    page, code = await coded(walker, app_house)
    shown = await thief.get(page)
    assert 'name="code"' not in shown.text
    assert "only in the browser that asked for it" in shown.words
    token = app_house.vault.link_token("form/sign_in_code", thief._cookie)
    for _ in range(6):
        answer = await thief.post(page, {"form_token": token, "code": code})
        assert (answer.status, "Set-Cookie" in answer.headers) == (400, False)
        assert "only in the browser that asked for it" in answer.words
    assert (await walker.send(page, code=code)).status == 303


@pytest.mark.parametrize(
    "name", ["0" * 24, "x", "%00", "%ED%A0%80", "%F0%9F%90%AB", "0" * 5000, "..%2F", "'--"]
)
async def test_a_page_for_no_code_is_none(place, name):
    client, _ = place
    assert (await Walker(client).get(f"/sign-in/{name}")).status == 404


async def test_the_same_form_sent_twice_goes_on_twice(place):
    client, app_house = place
    walker = Walker(client)
    page, code = await coded(walker, app_house, EMAIL, "/sign-in?next=/dashboard/wallet")
    sent = {"form_token": (await walker.get(page)).token, "code": code}
    for _ in range(2):
        answer = await walker.post(page, sent)
        assert (answer.status, answer.location) == (303, "/dashboard/wallet")
    again = await walker.get(page)
    assert (again.status, again.location) == (303, "/dashboard/wallet")


async def test_no_log_line_has_an_address_a_code_or_a_token(place, capsys):
    client, app_house = place
    walker = Walker(client)
    page, code = await coded(walker, app_house)
    await walker.send(page, code="000000" if code != "000000" else "111111")
    first = walker._cookie
    await walker.send(page, code=code)
    logged = capsys.readouterr().out
    assert "request_answered" in logged
    for secret in (EMAIL, first, walker._cookie, walker._cookie[:20]):
        assert secret not in logged
    assert re.search(rf"\b{code}\b", logged) is None
