"""A payment's own page: the transfer's instructions and proof, the provider's way back."""

import re
import secrets
from datetime import timedelta
from decimal import Decimal
from urllib.parse import unquote
from uuid import UUID

import aiohttp
import pytest

from service.cli.house import open_house
from service.commands import amendments, developers, payments, sessions
from service.commands.payments import Heard, Wish
from service.commands.perform import perform
from service.ingress.main import make_app
from service.rules.machine import SYSTEM, Actor, ActorKind
from service.rules.payment import (
    ACCEPT_PAY,
    BANK_TRANSFER,
    OPEN_MAX,
    SANDBOX,
    TOPUP,
    Outcome,
    Report,
    page_of,
    transfer_reference,
)
from service.settings import load_settings
from service.store.ledger import read_balance
from service.store.payments import read_payment
from service.store.sessions import read_session
from service.wire.sessions import NewSession
from tests.attachments import PNG
from tests.books import assert_sound
from tests.house import CLEAN
from tests.makers import act, arrange, jump, make_buyer, make_escrow, make_shop, reread
from tests.service.ingress.conftest import listening
from tests.service.ingress.pages.people import cookie_of

AMOUNT = 100_000
TOKEN = re.compile(r'name="form_token" value="([^"]+)"')
OPERATOR = Actor(ActorKind.OPERATOR)
GUEST = Actor(ActorKind.USER)
BACK = "https://shop.example/back"


class Place:
    """An ingress, a shop and a buyer with an empty wallet."""

    def __init__(self, house, url, owner, shop, buyer) -> None:
        self.house, self.url, self.owner, self.shop, self.buyer = house, url, owner, shop, buyer

    async def begin(self, buyer, provider=BANK_TRANSFER, **wish):
        """A top-up of 100 TND unless said otherwise; the payment."""
        asked = {"kind": TOPUP, "provider": provider, "amount_minor": AMOUNT, "currency": "TND"}
        asked |= {"user_id": buyer.user_id if buyer else None} | wish
        actor = buyer.actor if buyer else GUEST
        made = await act(self.house, actor, payments.begin(Wish(**asked)))
        return await self.stands(made["payment"]["id"])

    async def stands(self, payment_id):
        return await read_payment(self.house.pool, payment_id)

    async def session(self, escrow, email):
        """A checkout session in which this person pays the escrow; its id."""
        await arrange(
            self.house,
            lambda tx: developers.allow_redirects(
                tx, self.shop.developer_id, ["https://shop.example/"]
            ),
        )
        wanted = NewSession.model_validate(
            {"action": "accept_pay", "targetUserEmail": email, "redirectUrl": BACK}
        )
        made = await act(
            self.house,
            self.shop.actor,
            sessions.create(self.shop.developer_id, escrow.id, wanted),
        )
        return made["sessionId"]

    async def guest(self):
        """An instant escrow of somebody who has not registered, its session, their payment."""
        escrow = await make_escrow(self.house, self.shop, buyer_email="guest@example.com")
        session_id = await self.session(escrow, "guest@example.com")
        payment = await self.begin(
            None,
            kind=ACCEPT_PAY,
            escrow_id=escrow.id,
            session_id=UUID(session_id),
            payer_email="guest@example.com",
        )
        return escrow, session_id, payment

    async def card(self):
        """An escrow of the buyer, its session, their payment by card."""
        escrow = await make_escrow(self.house, self.shop, self.buyer)
        session_id = await self.session(escrow, self.buyer.email)
        wish = {"kind": ACCEPT_PAY, "escrow_id": escrow.id, "session_id": UUID(session_id)}
        return escrow, session_id, await self.begin(self.buyer, SANDBOX, **wish)

    async def pay(self, payment):
        """The provider has the money."""
        report = Report(Outcome.SUCCEEDED, payment.amount_minor, payment.currency, "ch_1")
        await payments.hear(self.house, SYSTEM, Heard(SANDBOX, payment.id, "ref", report))

    async def signed_in(self, buyer):
        """A browser of theirs."""
        return self.browser({"amana_session": await cookie_of(self.owner, buyer.email)})

    def browser(self, cookies=None):
        jar = aiohttp.CookieJar(unsafe=True)
        return aiohttp.ClientSession(self.url, cookie_jar=jar, cookies=cookies)

    async def decide(self, payment, **word):
        return await act(self.house, OPERATOR, payments.decide(payment.id, **word))


@pytest.fixture
async def place(environ, owner, redis):
    await owner.execute(CLEAN)
    settings = load_settings(environ | {"BANK_TRANSFER_DETAILS": "Amana <Bank>\nTN59 1000 6035"})
    async with open_house(settings) as house, listening(make_app(settings)) as url:
        shop, buyer = await make_shop(house), await make_buyer(house, funds="0")
        yield Place(house, url, owner, shop, buyer)
        await assert_sound(house)


async def look(browser, payment, status=200):
    """The payment's page."""
    async with browser.get(page_of(payment), allow_redirects=False) as page:
        text = await page.text()
        assert page.status == status, text
        return text


async def send(browser, payment, act, content=None, token=None):
    """One of its forms: (status, where it leads, the page)."""
    if token is None:
        token = TOKEN.search(await look(browser, payment))[1]
    form = aiohttp.FormData()
    form.add_field("form_token", token)
    form.add_field("act", act)
    if content is not None:
        form.add_field("proof", content, filename="receipt.png")
    async with browser.post(page_of(payment), data=form, allow_redirects=False) as sent:
        return sent.status, sent.headers.get("Location", ""), await sent.text()


# ---- By bank transfer, into a wallet ------------------------------------------------------------


async def test_the_page_tells_how_to_transfer(place: Place) -> None:
    payment = await place.begin(place.buyer)
    async with await place.signed_in(place.buyer) as browser:
        text = await look(browser, payment)
    assert transfer_reference(payment.id) in text
    assert "Amana &lt;Bank&gt;" in text
    assert "TN59 1000 6035" in text
    assert "100.000 TND" in text.replace("\xa0", " ")


async def test_a_proof_is_kept_then_reviewed_then_approved(place: Place) -> None:
    payment = await place.begin(place.buyer)
    async with await place.signed_in(place.buyer) as browser:
        assert (await send(browser, payment, "prove", PNG))[:2] == (303, page_of(payment))
        assert "under review" in await look(browser, payment)
        key = (await place.stands(payment.id)).proof_file
        kept = await place.owner.fetchrow("SELECT * FROM file WHERE key = $1", key)
        assert (kept["mime_type"], kept["bytes"], kept["uploaded_by"]) == (
            "image/png",
            len(PNG),
            place.buyer.user_id,
        )
        await place.decide(payment, approves=True)
        assert "Your transfer has come" in await look(browser, payment)
    balance = await read_balance(place.house.pool, place.buyer.user_id, "TND")
    assert (balance.available, balance.pending) == (AMOUNT, 0)


async def test_a_rejected_proof_says_why_and_may_be_tried_again(place: Place) -> None:
    payment = await place.begin(place.buyer)
    async with await place.signed_in(place.buyer) as browser:
        await send(browser, payment, "prove", PNG)
        await place.decide(payment, approves=False, note="It is <unreadable>.")
        text = await look(browser, payment)
        assert "was not accepted" in text
        assert "It is &lt;unreadable&gt;." in text
        status, location, _ = await send(browser, payment, "again")
        assert status == 303
        again = await place.stands(location.split("/")[2])
        assert (again.state, again.amount_minor) == ("created", AMOUNT)
        assert again.id != payment.id


@pytest.mark.parametrize("content", [None, b"", b"<html>no picture</html>", PNG[:40]])
async def test_what_is_no_proof_is_told_beside_the_field(place: Place, content) -> None:
    payment = await place.begin(place.buyer)
    async with await place.signed_in(place.buyer) as browser:
        status, _, text = await send(browser, payment, "prove", content)
    assert status == 400
    assert 'id="proof-error"' in text
    assert (await place.stands(payment.id)).state == "created"
    assert await place.owner.fetchval("SELECT count(*) FROM file") == 0


async def test_a_proof_that_is_sent_twice_is_one_proof(place: Place) -> None:
    payment = await place.begin(place.buyer)
    async with await place.signed_in(place.buyer) as browser:
        token = TOKEN.search(await look(browser, payment))[1]
        assert (await send(browser, payment, "prove", PNG, token))[0] == 303
        status, _, text = await send(browser, payment, "prove", PNG, token)
        assert status == 400
        assert "under review" in text
    assert await place.owner.fetchval("SELECT count(*) FROM file") == 1


async def test_whoever_turns_away_is_promised_nothing(place: Place) -> None:
    payment = await place.begin(place.buyer)
    async with await place.signed_in(place.buyer) as browser:
        assert (await send(browser, payment, "cancel"))[0] == 303
        assert "was cancelled" in await look(browser, payment)
    assert (await read_balance(place.house.pool, place.buyer.user_id, "TND")).pending == 0


async def test_a_payment_is_its_payers_alone(place: Place) -> None:
    payment, other = await place.begin(place.buyer), await make_buyer(place.house)
    async with await place.signed_in(other) as browser:
        await look(browser, payment, 404)
        form = {"form_token": "x", "act": "cancel"}
        async with browser.post(page_of(payment), data=form) as sent:
            assert sent.status == 404
    async with (
        place.browser() as browser,
        browser.get(page_of(payment), allow_redirects=False) as page,
    ):
        assert unquote(page.headers["Location"]) == f"/sign-in?next=/pay/{payment.id}"
    assert (await place.stands(payment.id)).state == "created"


async def test_another_sites_form_changes_nothing(place: Place) -> None:
    payment = await place.begin(place.buyer)
    async with await place.signed_in(place.buyer) as browser:
        status, _, _ = await send(browser, payment, "cancel", token="A" * 43)
    assert status == 403
    assert (await place.stands(payment.id)).state == "created"


# ---- A guest ------------------------------------------------------------------------------------


async def test_a_guest_proves_by_the_sessions_link_and_is_approved(place: Place) -> None:
    escrow, session_id, payment = await place.guest()
    async with place.browser() as browser:
        assert "A camera" in await look(browser, payment)
        assert (await send(browser, payment, "prove", PNG))[0] == 303
        assert "under review" in await look(browser, payment)
        await place.decide(payment, approves=True)
        assert "Your transfer has come" in await look(browser, payment)
    assert (await reread(place.house, escrow.id)).status == "paid"
    session = await read_session(place.house.pool, UUID(session_id))
    assert session is not None
    assert session.status == "completed"


async def test_a_guests_page_is_found_by_the_sessions_handle_only(place: Place) -> None:
    _, session_id, payment = await place.guest()
    stranger = await make_buyer(place.house)
    async with place.browser() as browser:
        for handle in (secrets.token_hex(16), "0" * 8, str(UUID(int=1))):
            async with browser.get(f"/pay/{payment.id}/{handle}") as page:
                assert page.status == 404
    async with await place.signed_in(stranger) as browser:
        async with browser.get(f"/pay/{payment.id}") as page:
            assert page.status == 404
        other = await place.begin(place.buyer)
        async with browser.get(f"/pay/{other.id}/{session_id}") as page:
            assert page.status == 404


async def test_a_rejected_guest_tries_again_from_the_same_link(place: Place) -> None:
    escrow, session_id, payment = await place.guest()
    async with place.browser() as browser:
        await send(browser, payment, "prove", PNG)
        await place.decide(payment, approves=False, note="No such transfer.")
        assert "No such transfer." in await look(browser, payment)
        status, location, _ = await send(browser, payment, "again")
        assert status == 303
        assert location.endswith(session_id)
        again = await place.stands(location.split("/")[2])
        assert (await send(browser, again, "prove", PNG))[0] == 303
        await place.decide(again, approves=True)
    assert (await reread(place.house, escrow.id)).status == "paid"


@pytest.mark.parametrize("ended", ["expired", "turned away"])
async def test_a_guest_does_not_go_on_once_the_session_is_over(place: Place, ended: str) -> None:
    _, session_id, payment = await place.guest()
    async with place.browser() as browser:
        await send(browser, payment, "prove", PNG)
        await place.decide(payment, approves=False)
        token = TOKEN.search(await look(browser, payment))[1]
        if ended == "expired":
            await jump(place.house, timedelta(hours=25))
        else:
            await act(place.house, GUEST, sessions.turn_away(UUID(session_id)))
        sent = await send(browser, payment, "again", token=token)
        assert sent[:2] == (303, f"/checkout/{session_id}")
        async with browser.get(f"/checkout/{session_id}") as page:
            assert 'name="act" value="guest"' not in await page.text()
    assert await place.owner.fetchval(COUNT_FOR_ESCROWS) == 1


async def test_a_guest_proves_nothing_once_the_session_has_expired(place: Place) -> None:
    _, session_id, payment = await place.guest()
    async with place.browser() as browser:
        token = TOKEN.search(await look(browser, payment))[1]
        await jump(place.house, timedelta(minutes=31))
        sent = await send(browser, payment, "prove", PNG, token)
        assert sent[:2] == (303, f"/checkout/{session_id}")
    assert (await place.stands(payment.id)).state == "created"
    assert await place.owner.fetchval("SELECT count(*) FROM file") == 0


async def test_what_stands_against_trying_again_is_told(place: Place) -> None:
    payment = await place.begin(place.buyer)
    await act(place.house, place.buyer.actor, payments.cancel(payment.id))
    for _n in range(OPEN_MAX):
        await place.begin(place.buyer)
    async with await place.signed_in(place.buyer) as browser:
        status, _, text = await send(browser, payment, "again")
    assert status == 400
    assert "ten payments under way" in text


# ---- By card ------------------------------------------------------------------------------------


async def test_the_provider_is_asked_once_on_the_way_back(place: Place) -> None:
    payment = await place.begin(place.buyer, SANDBOX)
    async with await place.signed_in(place.buyer) as browser:
        assert "Not paid yet" in await look(browser, payment)
        assert (await send(browser, payment, "cancel"))[0] == 303
        assert "was cancelled" in await look(browser, payment)
        status, location, _ = await send(browser, payment, "again")
    assert status == 303
    assert "/sandbox/pay/sbx_" in location


async def test_whoever_has_paid_by_card_goes_back_to_the_shop(place: Place) -> None:
    escrow, session_id, payment = await place.card()
    await place.pay(payment)
    assert (await reread(place.house, escrow.id)).status == "paid"
    async with (
        await place.signed_in(place.buyer) as browser,
        browser.get(page_of(payment), allow_redirects=False) as page,
    ):
        assert page.status == 303
        assert page.headers["Location"] == f"{BACK}?session_id={session_id}&status=completed"


async def test_whoever_has_paid_too_late_goes_back_to_the_checkout(place: Place) -> None:
    escrow, session_id, payment = await place.card()
    changes = amendments.Changes(amount=Decimal(90))
    await act(place.house, place.shop.actor, amendments.update(escrow.id, changes))
    await place.pay(payment)
    async with (
        await place.signed_in(place.buyer) as browser,
        browser.get(page_of(payment), allow_redirects=False) as page,
    ):
        assert page.headers["Location"] == f"/checkout/{session_id}"


async def test_a_payments_form_may_end_at_the_shop(place: Place) -> None:
    _, _, payment = await place.card()
    async with (
        await place.signed_in(place.buyer) as browser,
        browser.get(page_of(payment)) as page,
    ):
        assert "https://shop.example" in page.headers["Content-Security-Policy"]


async def test_a_page_that_is_loaded_again_and_again_asks_the_provider_now_and_then(
    place: Place,
) -> None:
    payment = await place.begin(place.buyer, SANDBOX)
    async with await place.signed_in(place.buyer) as browser:
        handed = payments.hand_over(payment.id, f"sbx_{payment.id}", "http://page.test")
        await perform(place.house, SYSTEM, handed)
        await place.owner.execute(CHARGE, f"sbx_{payment.id}", payment.id)
        await look(browser, payment)
        first = (await place.stands(payment.id)).asked_at
        assert first is not None
        for _n in range(3):
            await look(browser, payment)
        assert (await place.stands(payment.id)).asked_at == first
        await place.owner.execute("UPDATE payment SET asked_at = asked_at - interval '6 s'")
        await look(browser, payment)
        assert (await place.stands(payment.id)).asked_at > first


COUNT_FOR_ESCROWS = "SELECT count(*) FROM payment WHERE kind = 'accept_pay'"
CHARGE = """
INSERT INTO sandbox_charge (reference, payment_id, amount_minor, currency, description, return_url,
                            expires_at)
VALUES ($1, $2, 100000, 'TND', 'A', 'http://a.test', now() + interval '30 minutes')
"""
