"""A checkout is for one person, once, in time: every action over HTTP, and all that is refused."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from urllib.parse import parse_qsl, urlsplit

import aiohttp
import pytest

from service.commands import amendments, sessions
from service.commands.developers import allow_redirects
from service.ingress.pages import checkout, paying, static
from service.ingress.route import Auth, Route
from service.rules.aggregate import Escrow
from service.rules.checkout import way_back
from service.store.parts import read_paper
from service.store.sessions import read_session
from service.wire.sessions import NewSession
from tests.attachments import PNG
from tests.books import assert_sound, count_rows
from tests.browser import overflow, serious
from tests.makers import act, arrange, jump, make_buyer, make_escrow, make_shop, reread, user_actor
from tests.previews import HOSTILE
from tests.service.ingress.pages.people import cookie_of, signed_in, stranger

BACK = "https://shop.example/back?cart=7&x="
FILES = 110 * 1024 * 1024
ROUTES = (
    Route("GET", "/checkout/{id}", checkout.read, Auth.NONE, is_page=True, says="One step."),
    Route("POST", "/checkout/{id}", checkout.take, Auth.NONE, is_page=True,
          body_bytes_max=FILES, says="Take it."),
    Route("GET", "/pay/{id}", paying.read_one, Auth.NONE, is_page=True, says="One."),
    Route("GET", "/pay/{id}/{session}", paying.read_one, Auth.NONE, is_page=True, says="One."),
    Route("GET", "/static/{name}", static.send, Auth.NONE, says="A file of the pages."),
)  # fmt: skip
SIGNED = ("sellers_signature", "buyers_signature")
WALLET = {"way": "wallet", "amount": "100.000"}

# (action, who, mode, status, further steps, what is filled in, status after it)
ACTIONS = [
    ("sign_contract", "seller", "standard", "pending", (), {"signature": "Sana S"}, "pending"),
    ("sign_contract", "buyer", "standard", "pending", (), {"signature": "بلال"}, "pending"),
    ("accept_pay", "buyer", "standard", "pending", SIGNED, WALLET, "paid"),
    ("accept_pay", "buyer", "quick", "pending", (), WALLET, "paid"),
    ("accept_pay", "buyer", "instant", "pending", (), WALLET, "paid"),
    ("complete", "buyer", "quick", "delivered", (), {}, "completed"),
    ("dispute", "buyer", "quick", "delivered", (), {"reason": "No camera"}, "disputed"),
    ("dispute", "seller", "quick", "paid", (), {"reason": "Nobody home"}, "disputed"),
    ("request_cancellation", "buyer", "quick", "paid", (), {"reason": "Too late"}, "paid"),
    ("cancel_escrow", "seller", "quick", "paid", (), {}, "cancelled"),
    ("accept_cancellation", "seller", "quick", "paid", ("request_cancellation",), {},
     "cancelled"),
    ("reject_cancellation", "seller", "quick", "paid", ("request_cancellation",), {}, "paid"),
    ("withdraw_dispute", "buyer", "quick", "disputed", (), {}, "paid"),
    ("answer_dispute", "seller", "quick", "disputed", (), {"text": "It is."}, "disputed"),
]  # fmt: skip
EVERY_ACTION = pytest.mark.parametrize(
    ("name", "who", "mode", "status", "then", "fields", "after"), ACTIONS
)


class Booth:
    """A shop whose people may be sent back, an escrow of its own, and sessions for it."""

    def __init__(self, house, shop, buyer):
        self.house, self.shop, self.buyer = house, shop, buyer
        self.emails = {"seller": shop.email, "buyer": buyer.email}
        self.escrow: Escrow | None = None

    async def session(self, action, who):
        """The id of a new session."""
        asked = NewSession.model_validate(
            {"action": action, "targetUserEmail": self.emails[who], "redirectUrl": BACK}
        )
        command = sessions.create(self.shop.developer_id, self.escrow.id, asked)
        return (await act(self.house, self.shop.actor, command))["sessionId"]

    async def status(self, session_id):
        return (await read_session(self.house.pool, session_id)).status

    async def now(self):
        return await reread(self.house, self.escrow.id)


async def open_booth(house, mode="quick", status="pending", then=(), funds="1000", **changes):
    booth = Booth(house, await make_shop(house), await make_buyer(house, funds=funds))
    shop, allowed = booth.shop, ["https://shop.example/back"]
    await arrange(house, lambda tx: allow_redirects(tx, shop.developer_id, allowed))
    booth.escrow = await make_escrow(
        house, shop, booth.buyer, mode=mode, status=status, then=then, **changes
    )
    return booth


def path_of(session_id):
    return f"/checkout/{session_id}"


def returned(location, session_id, status):
    """Whether this is the shop's address with the two merged in, and nothing else."""
    parts = urlsplit(location)
    return (f"{parts.scheme}://{parts.netloc}{parts.path}", dict(parse_qsl(parts.query, True))) == (
        "https://shop.example/back",
        {"cart": "7", "x": "", "session_id": session_id, "status": status},
    )


# ---- Every action -------------------------------------------------------------------------------


@EVERY_ACTION
async def test_an_action_is_finished_once_and_leads_back(
    ingress, house, owner, name, who, mode, status, then, fields, after
):
    booth = await open_booth(house, mode, status, then)
    session = await booth.session(name, who)
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, booth.emails[who])
        page = await person.get(path_of(session))
        assert page.status == 200
        assert "100.000 TND" in page.words
        assert "borne by the seller" in page.words
        assert "https://shop.example" in page.headers["Content-Security-Policy"]
        sent = {"form_token": page.token, **fields}
        answer = await person.post(path_of(session), sent)
        assert answer.status == 303, answer.words
        assert returned(answer.location, session, "completed")
        assert (await booth.now()).status == after
        assert await booth.status(session) == "completed"
        before = await count_rows(house)
        replay = await person.post(path_of(session), sent)
        assert returned(replay.location, session, "completed")
        over = await person.get(path_of(session))
        assert over.status == 200
        assert "This is done" in over.words
        assert await count_rows(house) == before
    await assert_sound(house)


@EVERY_ACTION
async def test_nobody_else_finishes_it_and_no_form_from_elsewhere(
    ingress, house, owner, name, who, mode, status, then, fields, after
):
    booth = await open_booth(house, mode, status, then)
    session = await booth.session(name, who)
    other = await make_buyer(house)
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, booth.emails[who])
        before = await count_rows(house)
        token = (await person.get(path_of(session))).token
        for wrong in (fields, {"form_token": "A" * 43, **fields}):
            assert (await person.post(path_of(session), wrong)).status == 403
        sent = {"form_token": token, **fields}
        foreign = await person.post(path_of(session), sent, **{"Sec-Fetch-Site": "cross-site"})
        assert foreign.status == 403
        nosy = await signed_in(client, owner, other.email)
        page = await nosy.get(path_of(session))
        assert page.status == 200
        assert "You are signed in with another address" in page.words
        assert booth.emails[who] not in page.text
        assert booth.emails["seller"] not in page.text
        refused = await nosy.post(path_of(session), {"form_token": page.token, **fields})
        assert refused.status == 403
        leaving = await nosy.post(path_of(session), {"form_token": page.token, "act": "leave"})
        assert leaving.status == 403
        assert await count_rows(house) == before
        assert await booth.status(session) == "pending"


@EVERY_ACTION
async def test_two_tabs_at_once_take_it_once(
    ingress, house, owner, name, who, mode, status, then, fields, after
):
    booth = await open_booth(house, mode, status, then)
    session = await booth.session(name, who)
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, booth.emails[who])
        sent = {"form_token": (await person.get(path_of(session))).token, **fields}
        answers = await asyncio.gather(*(person.post(path_of(session), sent) for _ in range(2)))
    assert {answer.status for answer in answers} == {303}
    for answer in answers:  # a browser shows the last of them
        assert returned(answer.location, session, "completed")
    assert (await booth.now()).status == after
    await assert_sound(house)


@EVERY_ACTION
async def test_an_expired_one_does_nothing_and_says_so(
    ingress, house, owner, name, who, mode, status, then, fields, after
):
    booth = await open_booth(house, mode, status, then)
    session = await booth.session(name, who)
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, booth.emails[who])
        token = (await person.get(path_of(session))).token
        await jump(house, timedelta(minutes=31))
        before = await booth.now()
        page = await person.get(path_of(session))
        assert page.status == 200
        assert "This link has expired" in page.words
        assert f"session_id={session}&amp;status=expired" in page.text
        answer = await person.post(path_of(session), {"form_token": token, **fields})
        assert returned(answer.location, session, "expired")
        assert await booth.now() == before
        other = booth.emails["seller" if who == "buyer" else "buyer"]
        for anybody in (stranger(client), await signed_in(client, owner, other)):
            page = await anybody.get(path_of(session))
            assert "This link has expired" in page.words
            is_for_guests = (name, mode) == ("accept_pay", "instant")
            assert ("shop.example" in page.text) is is_for_guests


async def test_what_is_over_sends_only_its_person_back(ingress, house, owner):
    booth = await open_booth(house)
    session = await booth.session("accept_pay", "buyer")
    async with ingress(ROUTES) as client:
        seller = await signed_in(client, owner, booth.emails["seller"])
        token = (await seller.get(path_of(session))).token
        await jump(house, timedelta(minutes=31))
        answer = await seller.post(path_of(session), {"form_token": token})
        assert (answer.status, answer.location) == (303, path_of(session))
        assert "shop.example" not in (await seller.get(path_of(session))).text


async def test_a_guest_is_led_back_from_a_link_that_is_over(ingress, house):
    booth = await open_booth(house, "instant")
    session = await booth.session("accept_pay", "buyer")
    async with ingress(ROUTES) as client:
        await jump(house, timedelta(minutes=31))
        page = await stranger(client).get(path_of(session))
        assert f"session_id={session}&amp;status=expired" in page.text


# ---- Who is there -------------------------------------------------------------------------------


async def test_anybody_with_the_link_sees_title_sum_and_action_and_nothing_else(ingress, house):
    booth = await open_booth(house, title=HOSTILE)
    session = await booth.session("accept_pay", "buyer")
    before = await count_rows(house)
    async with ingress(ROUTES) as client:
        page = await stranger(client).get(path_of(session))
        assert page.status == 200
        assert "100.000 TND" in page.words
        assert "Pay into escrow" in page.words
        assert "<script" not in page.text
        assert f"/sign-in?next=/checkout/{session}" in page.text
        for secret in (*booth.emails.values(), booth.escrow.id, "shop.example", "Bo Y", "•••"):
            assert secret not in page.text
        sent = await stranger(client).post(path_of(session), {"form_token": "A" * 43})
        assert sent.status == 403
    assert await count_rows(house) == before


@pytest.mark.parametrize("found", ["0" * 36, "x", "6f9619ff-8b86-4011-b42d-00c04fc964ff"])
async def test_there_is_a_page_for_what_is_not_there(ingress, house, found):
    async with ingress(ROUTES) as client:
        page = await stranger(client).get(path_of(found))
    assert page.status == 404
    assert "There is nothing here" in page.words


async def test_who_has_not_registered_does_that_first(ingress, house, owner):
    booth = await open_booth(house, buyer_email="new@example.com")
    booth.emails["buyer"] = "new@example.com"
    session = await booth.session("accept_pay", "buyer")
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, "new@example.com")
        page = await person.get(path_of(session))
        assert (page.status, page.location) == (
            303, f"/register?next=/checkout/{session}"
        )  # fmt: skip


async def test_a_buyer_without_a_verified_phone_verifies_it_first(ingress, house, owner):
    booth = await open_booth(house)
    await owner.execute("UPDATE app_user SET phone_verified_at = NULL")
    session = await booth.session("accept_pay", "buyer")
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, booth.emails["buyer"])
        page = await person.get(path_of(session))
        assert (page.status, page.location) == (303, f"/phone?next=/checkout/{session}")


async def test_whoever_is_signed_in_as_another_may_sign_out_there(ingress, house, owner):
    booth = await open_booth(house)
    session = await booth.session("accept_pay", "buyer")
    async with ingress(ROUTES) as client:
        seller = await signed_in(client, owner, booth.emails["seller"])
        token = (await seller.get(path_of(session))).token
        out = await seller.post(path_of(session), {"form_token": token, "act": "sign_out"})
        assert (out.status, out.location) == (303, path_of(session))
        assert "Sign in to go on" in (await seller.get(path_of(session))).words


async def test_turning_away_cancels_the_link_and_leads_back(ingress, house, owner):
    booth = await open_booth(house)
    session = await booth.session("accept_pay", "buyer")
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, booth.emails["buyer"])
        answer = await person.send(path_of(session), act="leave")
        assert returned(answer.location, session, "cancelled")
        assert await booth.status(session) == "cancelled"
        assert (await booth.now()).status == "pending"
        assert "This link is over" in (await person.get(path_of(session))).words


# ---- What stands against it ---------------------------------------------------------------------


async def test_an_amount_that_was_changed_meanwhile_is_shown_before_it_is_paid(
    ingress, house, owner
):
    booth = await open_booth(house)
    session = await booth.session("accept_pay", "buyer")
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, booth.emails["buyer"])
        token = (await person.get(path_of(session))).token
        changes = amendments.Changes(amount=Decimal(120))
        await act(
            house, user_actor(booth.shop.user_id), amendments.update(booth.escrow.id, changes)
        )
        page = await person.post(path_of(session), {"form_token": token, **WALLET})
        assert page.status == 409
        assert "The amount was changed meanwhile" in page.words
        assert "120.000 TND" in page.words
        assert (await booth.now()).status == "pending"
        again = {"form_token": token, **WALLET, "amount": "120.000"}
        assert returned((await person.post(path_of(session), again)).location, session, "completed")


async def test_terms_that_were_changed_meanwhile_are_shown_before_they_are_signed(
    ingress, house, owner
):
    booth = await open_booth(house, "standard")
    session = await booth.session("sign_contract", "buyer")
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, booth.emails["buyer"])
        page = await person.get(path_of(session))
        assert "As described." in page.words
        changes = amendments.Changes(contract_terms="As <b>new</b>.")
        await act(
            house, user_actor(booth.shop.user_id), amendments.update(booth.escrow.id, changes)
        )
        sent = {"form_token": page.token, "signature": "Bo", "version": "1"}
        page = await person.post(path_of(session), sent)
        assert page.status == 409
        assert "The terms were changed meanwhile" in page.words
        assert "As <b>new</b>." in page.words
        assert (await booth.now()).contract.buyer_signed_at is None
        answer = await person.post(path_of(session), {**sent, "version": "2"})
        assert returned(answer.location, session, "completed")


@pytest.mark.parametrize(
    ("fields", "said"),
    [
        ({"signature": ""}, "Please fill this in."),
        ({"signature": "n" * 201}, "Please write at most 200 characters."),
        ({"drawn": "data:image/png;base64,AAAA"}, "What your browser sent was incomplete"),
        ({"drawn": "data:text/html;base64,PHNjcmlwdD4="}, "What your browser sent was incomplete"),
    ],
)
async def test_what_was_typed_stays_and_what_is_wrong_is_said(ingress, house, owner, fields, said):
    booth = await open_booth(house, "standard")
    session = await booth.session("sign_contract", "buyer")
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, booth.emails["buyer"])
        page = await person.send(path_of(session), **fields)
        assert page.status == 400
        assert said in page.words
        assert "This was not sent." in page.words
        assert await booth.status(session) == "pending"


async def test_who_has_too_little_is_offered_to_pay_the_rest_and_cannot_pay_from_the_wallet(
    ingress, house, owner
):
    booth = await open_booth(house, funds="40")
    session = await booth.session("accept_pay", "buyer")
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, booth.emails["buyer"])
        page = await person.get(path_of(session))
        assert "60.000 TND" in page.words
        assert 'value="wallet"' not in page.text
        refused = await person.post(path_of(session), {"form_token": page.token, **WALLET})
        assert refused.status == 409
        assert "Your wallet does not hold enough" in refused.words
        sent = {"form_token": page.token, "way": "bank_transfer", "amount": "100.000"}
        answer = await person.post(path_of(session), sent)
        assert answer.status == 303
        assert answer.location.startswith("/pay/")
        assert "60.000 TND" in (await person.get(answer.location)).words
        page = await person.get(path_of(session))
        assert "We are asking whether your payment has arrived." in page.words
        assert await booth.status(session) == "pending"


async def test_a_guest_pays_an_instant_escrow_by_bank_transfer(ingress, house):
    booth = await open_booth(house, "instant")
    session = await booth.session("accept_pay", "buyer")
    async with ingress(ROUTES) as client:
        guest = stranger(client)
        guest._cookie = "g" * 43
        page = await guest.get(path_of(session))
        assert "Pay as a guest by bank transfer" in page.words
        sent = {"form_token": page.token, "act": "guest", "amount": "100.000"}
        changed = await guest.post(path_of(session), {**sent, "amount": "99"})
        assert changed.status == 409
        assert "The amount was changed meanwhile" in changed.words
        answer = await guest.post(path_of(session), sent)
        assert answer.status == 303
        assert answer.location.startswith("/pay/")
        assert answer.location.endswith(f"/{session}")
        assert "A payment as a guest is under way" in (await guest.get(path_of(session))).words


async def test_no_guest_pays_what_is_not_instant(ingress, house):
    booth = await open_booth(house, "quick")
    session = await booth.session("accept_pay", "buyer")
    async with ingress(ROUTES) as client:
        guest = stranger(client)
        guest._cookie = "g" * 43
        page = await guest.get(path_of(session))
        assert "guest" not in page.words
        other = await open_booth(house, "instant")
        token = (await guest.get(path_of(await other.session("accept_pay", "buyer")))).token
        sent = {"form_token": token, "act": "guest", "amount": "100.000"}
        assert (await guest.post(path_of(session), sent)).status == 403


async def test_a_proof_is_sent_and_accepted_and_its_file_is_shown(ingress, house, owner):
    booth = await open_booth(house, "quick_proof", "paid")
    sending = await booth.session("submit_proof", "seller")
    async with ingress(ROUTES) as client:
        seller = await signed_in(client, owner, booth.emails["seller"])
        none = await seller.send(path_of(sending), note="Here")
        assert none.status == 400
        assert "Please choose a file." in none.words
        answer = await _uploaded(client, owner, booth.emails["seller"], sending)
        assert returned(answer, sending, "completed")
        looking = await booth.session("review_proof", "buyer")
        buyer = await signed_in(client, owner, booth.emails["buyer"])
        page = await buyer.get(path_of(looking))
        assert "receipt.png" in page.words
        assert "/files/" in page.text
        empty = await buyer.send(path_of(looking), act="correct")
        assert empty.status == 400
        done = await buyer.send(path_of(looking), act="correct", correction="Sharper")
        assert returned(done.location, looking, "completed")
    assert (await booth.now()).proof.phase == "correction_requested"


async def _uploaded(client, owner, email, session):
    """Where the browser is sent after a form with a file."""
    cookie = await cookie_of(owner, email)
    page = await client.get(path_of(session), headers={"Cookie": f"amana_session={cookie}"})
    token = (await page.text()).split('name="form_token" value="')[1].split('"')[0]
    form = aiohttp.FormData()
    form.add_field("form_token", token)
    form.add_field("note", "Here")
    form.add_field("files", PNG, filename="receipt.png", content_type="image/png")
    async with client.post(
        path_of(session), data=form, allow_redirects=False,
        headers={"Cookie": f"amana_session={cookie}"},
    ) as answer:  # fmt: skip
        return answer.headers.get("Location", "")


@pytest.mark.parametrize(
    ("url", "wanted"),
    [
        ("https://s.example/", "https://s.example/?session_id=i&status=completed"),
        ("https://s.example/b?a=1", "https://s.example/b?a=1&session_id=i&status=completed"),
        ("https://s.example/b?status=paid&a=%20", "https://s.example/b?a=%20&session_id=i&status=completed"),
        ("https://s.example/b?session%5Fid=x&", "https://s.example/b?session_id=i&status=completed"),
    ],
)  # fmt: skip
def test_the_way_back_keeps_the_query_and_says_each_thing_once(url, wanted):
    assert way_back(url, "i", "completed") == wanted


# ---- In a real browser --------------------------------------------------------------------------


@pytest.mark.parametrize("language", ["en", "fr", "ar"])
async def test_it_keeps_nobody_out_on_a_phone(ingress, house, owner, phone, language):
    booth = await open_booth(house, "standard", title=HOSTILE)
    session = await booth.session("sign_contract", "buyer")
    page = await phone(language)
    async with ingress(ROUTES) as client:
        base = str(client._base_url).rstrip("/")
        await page.goto(base + path_of(session))
        assert await serious(page) == []
        assert await overflow(page) <= 0
        cookie = await cookie_of(owner, booth.emails["buyer"])
        await page.context.add_cookies([{"name": "amana_session", "value": cookie, "url": base}])
        await page.goto(f"{base}{path_of(session)}?lang={language}")
        assert await page.get_attribute("html", "dir") == ("rtl" if language == "ar" else "ltr")
        assert await page.locator("canvas").is_visible()
        assert await serious(page) == []
        assert await overflow(page) <= 0


async def test_a_signature_is_drawn(ingress, house, owner, phone):
    booth = await open_booth(house, "standard")
    session = await booth.session("sign_contract", "buyer")
    page = await phone()
    async with ingress(ROUTES) as client:
        base = str(client._base_url).rstrip("/")
        cookie = await cookie_of(owner, booth.emails["buyer"])
        await page.context.add_cookies([{"name": "amana_session", "value": cookie, "url": base}])
        await page.route("https://shop.example/**", lambda route: route.fulfill(body="back"))
        await page.goto(base + path_of(session))
        await page.locator("canvas").scroll_into_view_if_needed()
        box = await page.locator("canvas").bounding_box()
        await page.mouse.move(box["x"] + 20, box["y"] + 20)
        await page.mouse.down()
        await page.mouse.move(box["x"] + 150, box["y"] + 60, steps=5)
        await page.mouse.up()
        await page.get_by_role("button", name="Sign the contract").click()
        await page.wait_for_url("https://shop.example/**")
        assert page.url.endswith("&status=completed")
    paper = await read_paper(house.pool, booth.escrow.contract.id)
    assert paper.signatures["buyer"].method == "drawn"
    assert not paper.images["buyer"].startswith("data:")  # it is sealed


async def test_without_a_script_a_name_is_typed(ingress, house, owner, phone):
    booth = await open_booth(house, "standard")
    session = await booth.session("sign_contract", "buyer")
    page = await phone("ar", scripts=False)
    async with ingress(ROUTES) as client:
        base = str(client._base_url).rstrip("/")
        cookie = await cookie_of(owner, booth.emails["buyer"])
        await page.context.add_cookies([{"name": "amana_session", "value": cookie, "url": base}])
        await page.route("https://shop.example/**", lambda route: route.fulfill(body="back"))
        await page.goto(base + path_of(session))
        assert not await page.locator("canvas").is_visible()
        await page.locator("#signature").fill("بلال")
        await page.locator("button.primary").click()
        await page.wait_for_url("https://shop.example/**")
    assert (await booth.now()).contract.buyer_signed_at is not None
