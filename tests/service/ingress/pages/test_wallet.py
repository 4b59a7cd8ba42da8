"""The wallet's pages: money in, money out, and a statement that says it in words."""

import asyncio
import csv
import io
import re

import aiohttp
import pytest

from service.cli.house import open_house
from service.commands import payments
from service.ingress.main import make_app
from service.ingress.pages.wallet import LINES, harmless
from service.rules.machine import Actor, ActorKind
from service.rules.payee import account_of
from service.settings import load_settings
from service.store.ledger import read_balance
from service.store.payments import list_of_user
from tests.books import assert_sound
from tests.house import CLEAN
from tests.makers import act, make_buyer, make_escrow, make_shop, top_up
from tests.service.ingress.conftest import listening
from tests.service.ingress.pages.people import signed_in, stranger

WALLET = "/dashboard/wallet"
IBAN = "GB82 WEST 1234 5698 7654 32"
PAYOUT = {
    "act": "request_payout",
    "payout_amount": "40",
    "payout_name": "Bo Y",
    "payout_account": IBAN,
}


class Place:
    """An ingress, and the browser of somebody with 100 TND."""

    def __init__(self, house, client, owner, buyer, bo) -> None:
        self.house, self.client, self.owner, self.buyer, self.bo = house, client, owner, buyer, bo

    async def money(self):
        balance = await read_balance(self.house.pool, self.buyer.user_id, "TND")
        return balance.available, balance.pending

    async def of(self, kind):
        """What is under way, or a payout: the fixture's own top-up is over."""
        is_open = kind != "payout"
        mine = (self.buyer.user_id, (kind,), 10)
        return await list_of_user(self.house.pool, *mine, is_open=is_open)


@pytest.fixture
async def place(environ, owner, redis):
    await owner.execute(CLEAN)
    settings = load_settings(environ)
    async with (
        open_house(settings) as house,
        listening(make_app(settings)) as url,
        aiohttp.ClientSession(url) as client,
    ):
        buyer = await make_buyer(house, funds="100")
        yield Place(house, client, owner, buyer, await signed_in(client, owner, buyer.email))
        await assert_sound(house)


async def test_the_wallet_is_its_owners(place: Place) -> None:
    page = await place.bo.get(WALLET)
    assert page.status == 200
    assert "100.000 TND" in page.words
    elsewhere = await stranger(place.client).get(WALLET)
    assert (elsewhere.status, elsewhere.location.partition("?")[0]) == (303, "/sign-in")
    unregistered = await signed_in(place.client, place.owner, "nobody@example.com")
    led = await unregistered.get(f"{WALLET}/statement.csv")
    assert (led.status, led.location.partition("?")[0]) == (303, "/register")


async def test_a_card_leads_to_the_providers_page(place: Place) -> None:
    sent = await place.bo.send(WALLET, act="top_up", amount="20", method="sandbox")
    assert sent.status == 303
    assert "/sandbox/pay/sbx_" in sent.location
    assert await place.money() == (100_000, 20_000)


async def test_a_transfer_leads_to_its_instructions(place: Place) -> None:
    sent = await place.bo.send(WALLET, act="top_up", amount="20,5", method="bank_transfer")
    [payment] = await place.of("topup")
    assert (sent.status, sent.location, payment.amount_minor) == (303, f"/pay/{payment.id}", 20_500)
    assert f"/pay/{payment.id}" in (await place.bo.get(WALLET)).text


@pytest.mark.parametrize(
    ("fields", "wrong"),
    [
        ({"amount": "1.2345", "method": "sandbox"}, "amount-error"),
        ({"amount": "", "method": "sandbox"}, "amount-error"),
        ({"amount": "-5", "method": "sandbox"}, "amount-error"),
        ({"amount": "7", "method": "barter"}, "method-error"),
        ({"amount": "7"}, "method-error"),
    ],
)
async def test_what_is_wrong_is_told_beside_the_field(place: Place, fields, wrong) -> None:
    sent = await place.bo.send(WALLET, act="top_up", **fields)
    assert sent.status == 400
    assert f'id="{wrong}"' in sent.text
    if fields["amount"]:
        assert f'value="{fields["amount"]}"' in sent.text
    assert await place.of("topup") == []


async def test_each_currency_has_a_wallet_with_its_own_forms(place: Place) -> None:
    """USDC has six decimals; the dinars' wallet knows nothing of it."""
    usdc = f"{WALLET}?currency=USDC"
    await top_up(place.house, place.buyer.email, "50.000001", "USDC")
    page = await place.bo.get(usdc)
    assert "50.000001 USDC" in page.words
    assert "100.000 TND" in page.words
    fields = {"currency": "USDC", "method": "bank_transfer"}
    sent = await place.bo.post(
        WALLET, {"form_token": page.token, "act": "top_up", "amount": "0.000001", **fields}
    )
    [payment] = await place.of("topup")
    assert (sent.status, payment.amount_minor, payment.currency) == (303, 1, "USDC")
    asked = {"form_token": page.token, **PAYOUT, "payout_amount": "40.5", "currency": "USDC"}
    done = await place.bo.post(WALLET, asked)
    assert (done.status, done.location) == (303, f"{WALLET}?done=yes&currency=USDC"), done.words
    [payout] = await place.of("payout")
    assert (payout.amount_minor, payout.currency) == (40_500_000, "USDC")
    assert (await place.money())[0] == 100_000
    balance = await read_balance(place.house.pool, place.buyer.user_id, "USDC")
    assert balance.available == 9_500_001


async def test_what_is_wrong_in_a_currencys_form_is_told_in_its_wallet(place: Place) -> None:
    page = await place.bo.get(f"{WALLET}?currency=EUR")
    fields = {"currency": "EUR", "amount": "1.234", "method": "sandbox", "act": "top_up"}
    sent = await place.bo.post(WALLET, {"form_token": page.token, **fields})
    assert sent.status == 400
    assert "120.50" in sent.words
    assert 'name="currency" value="EUR"' in sent.text
    assert await place.of("topup") == []


@pytest.mark.parametrize("at_once", [True, False])
@pytest.mark.parametrize(
    ("fields", "kind", "after"),
    [
        (PAYOUT, "payout", (60_000, 40_000)),
        ({"act": "top_up", "amount": "20", "method": "sandbox"}, "topup", (100_000, 20_000)),
        ({"act": "top_up", "amount": "20", "method": "bank_transfer"}, "topup", (100_000, 20_000)),
    ],
)
async def test_the_same_form_sent_twice_is_done_once_and_answered_alike(
    place: Place, fields, kind, after, at_once
) -> None:
    page = await place.bo.get(WALLET)
    sent = {"form_token": page.token, "once": page.nonce, **fields}
    if at_once:
        answers = await asyncio.gather(*(place.bo.post(WALLET, sent) for _ in range(3)))
    else:
        answers = [await place.bo.post(WALLET, sent) for _ in range(3)]
    assert {one.status for one in answers} == {303}
    assert len({one.location for one in answers}) == 1
    assert len(await place.of(kind)) == 1
    assert await place.money() == after
    # The page once more, or other words on the same: that is another wish.
    other = {"payout_amount": "30"} if kind == "payout" else {"amount": "30"}
    assert (await place.bo.post(WALLET, sent | other)).status == 303
    assert (await place.bo.send(WALLET, **fields | other)).status == 303
    assert len(await place.of(kind)) == 3


@pytest.mark.parametrize("name", ["a\x1b[2Jb", "a\u202eb", "a\nb", " ", "w" * 101])
async def test_a_payees_name_is_one_line_that_can_be_shown(place: Place, name) -> None:
    sent = await place.bo.send(WALLET, **PAYOUT | {"payout_name": name})
    assert (sent.status, 'id="payout_name-error"' in sent.text) == (400, True)
    assert await place.of("payout") == []


async def test_a_form_that_was_refused_is_not_remembered(place: Place) -> None:
    page = await place.bo.get(WALLET)
    sent = {"form_token": page.token, "once": page.nonce, **PAYOUT, "payout_amount": "140"}
    assert (await place.bo.post(WALLET, sent)).status == 400
    await top_up(place.house, place.buyer.email, "100")
    assert (await place.bo.post(WALLET, sent)).status == 303
    assert len(await place.of("payout")) == 1


async def test_a_payout_is_asked_for_and_taken_back(place: Place) -> None:
    assert (await place.bo.send(WALLET, **PAYOUT)).status == 303
    [payout] = await place.of("payout")
    assert (payout.payee, await place.money()) == (f"Bo Y\n{IBAN}", (60_000, 40_000))
    page = await place.bo.get(WALLET)
    assert "Waits for the transfer" in page.words
    assert (await place.bo.send(WALLET, act="cancel_payout", id=payout.id)).status == 303
    assert await place.money() == (100_000, 0)
    assert "Taken back" in (await place.bo.get(WALLET)).words
    assert (await place.bo.send(WALLET, act="cancel_payout", id=payout.id)).status == 400


async def test_a_payout_that_the_operator_is_making_is_not_taken_back(place: Place) -> None:
    await place.bo.send(WALLET, **PAYOUT)
    [payout] = await place.of("payout")
    assert "Take back" in (await place.bo.get(WALLET)).words
    await act(place.house, Actor(ActorKind.OPERATOR), payments.take_up(payout.id))
    page = await place.bo.get(WALLET)
    assert ("Under way" in page.words, "Take back" in page.words) == (True, False)
    assert (await place.bo.send(WALLET, act="cancel_payout", id=payout.id)).status == 400
    assert await place.money() == (60_000, 40_000)


async def test_a_payout_that_is_not_made_says_why(place: Place) -> None:
    await place.bo.send(WALLET, **PAYOUT)
    [payout] = await place.of("payout")
    command = payments.decide(payout.id, approves=False, note="The account is closed.")
    await act(place.house, Actor(ActorKind.OPERATOR), command)
    page = await place.bo.get(WALLET)
    assert "Reason: The account is closed." in page.words
    assert await place.money() == (100_000, 0)


async def test_nobody_takes_back_anothers_payout(place: Place) -> None:
    await place.bo.send(WALLET, **PAYOUT)
    [payout] = await place.of("payout")
    other = await make_buyer(place.house)
    theirs = await signed_in(place.client, place.owner, other.email)
    for name in (payout.id, "0" * 24, "x"):
        assert (await theirs.send(WALLET, act="cancel_payout", id=name)).status == 404
    assert await place.money() == (60_000, 40_000)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"payout_amount": "100.001"}, "does not hold enough"),
        ({"payout_account": "GB82 WEST 1234 5698 7654 33"}, "not a whole IBAN"),
        ({"payout_account": "1"}, "not a whole IBAN"),
        ({"payout_name": " "}, "Please fill this in."),
    ],
)
async def test_a_payout_that_cannot_be_made_is_refused(place: Place, change, words) -> None:
    sent = await place.bo.send(WALLET, **PAYOUT | change)
    assert sent.status == 400
    assert words in sent.words
    assert (await place.money(), await place.of("payout")) == ((100_000, 0), [])


async def test_another_sites_form_moves_nothing(place: Place) -> None:
    sent = await place.bo.post(WALLET, {"form_token": "A" * 43, **PAYOUT})
    assert (sent.status, await place.money()) == (403, (100_000, 0))


async def test_the_statement_says_each_entry_in_words(place: Place) -> None:
    shop = await make_shop(place.house)
    await make_escrow(place.house, shop, place.buyer, status="paid", title="A <red> lamp")
    page = await place.bo.get(WALLET)
    assert "Paid into escrow: A <red> lamp -100.000 TND" in page.words
    assert "Put in 100.000 TND" in page.words
    assert "Nothing" not in page.words
    french = await place.bo.get(f"{WALLET}?lang=fr")
    assert "Versement" in french.words


async def test_the_statement_is_walked_and_narrowed_by_days(place: Place) -> None:
    for n in range(LINES):
        await top_up(place.house, place.buyer.email, f"1.{n:03}")
    first = await place.bo.get(WALLET)
    assert first.text.count("Put in") == LINES
    older = re.search(r'href="(/dashboard/wallet\?before=\d+)"', first.text)
    assert older is not None
    second = await place.bo.get(older[1])
    assert second.text.count("Put in") == 1
    for query in ("?to=2020-01-01", "?from=2999-01-01"):
        assert "No entries" in (await place.bo.get(WALLET + query)).words
    for query in (
        "?before=x",
        "?from=yesterday&to=0000-00-00",
        "?currency=<b>",
        "?before=" + "9" * 40,
    ):
        assert (await place.bo.get(WALLET + query)).text.count("Put in") == LINES


async def test_the_csv_has_every_entry_and_no_formula(place: Place) -> None:
    shop = await make_shop(place.house)
    await make_escrow(place.house, shop, place.buyer, status="paid", title='=HYPERLINK("x","y")')
    sent = await place.bo.get(f"{WALLET}/statement.csv")
    assert sent.headers["Content-Type"] == "text/csv; charset=utf-8"
    rows = list(csv.reader(io.StringIO(sent.text.removeprefix("\ufeff"))))
    assert rows[0] == ["Time (UTC)", "What", "Escrow", "Escrow id", "Amount", "Currency"]
    assert [row[1] for row in rows[1:]] == ["Paid into escrow", "Put in"]
    assert [row[4] for row in rows[1:]] == ["-100.000", "100.000"]
    assert rows[1][2] == '\'=HYPERLINK("x","y")'


@pytest.mark.parametrize("cell", ["=1", "+1", "-1", "@x", "\t=1", " =1", "\r=1", "\uff1d1"])
def test_no_cell_begins_like_a_formula(cell: str) -> None:
    assert harmless(cell) == f"'{cell}"


def test_what_is_no_formula_stays_as_it_is() -> None:
    assert harmless("A camera = good") == "A camera = good"


@pytest.mark.parametrize(
    ("text", "kept"),
    [
        ("gb82west12345698765432", IBAN),
        (IBAN, IBAN),
        ("GB82 WEST 1234 5698 7654 31", None),
        ("08 006 0123456789 12 34", "08 006 0123456789 12 34"),
        ("1234", None),
        ("9" * 101, None),
        ("08 006\x1b[1A 0123456789", None),
        ("08 006 \u202e0123456789", None),
    ],
)
def test_an_iban_is_checked_and_other_accounts_are_taken(text: str, kept: str | None) -> None:
    assert account_of(text) == kept
