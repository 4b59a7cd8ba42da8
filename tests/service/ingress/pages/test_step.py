"""Every step is taken through its page by who may; what is refused says why and changes nothing."""

import asyncio
import re
from pathlib import Path

import aiohttp
import pytest

from service.commands import disputes, papers
from service.ingress.pages import contract, escrow, settings, static, step
from service.ingress.pages.standing import PAGES
from service.ingress.route import Auth, Route
from service.rules.dispute import Split
from service.rules.files import StoredFile
from service.store.escrows import read_escrow
from tests.attachments import PNG
from tests.books import count_rows
from tests.browser import overflow, serious
from tests.makers import act, make_buyer, make_escrow, make_shop, reread, user_actor
from tests.previews import HOSTILE
from tests.service.ingress.pages.people import cookie_of, signed_in, stranger

ROUTES = (
    Route("GET", "/dashboard/escrow/{id}", escrow.read, Auth.NONE, is_page=True, says="One."),
    Route("GET", "/dashboard/escrow/{id}/contract", contract.read, Auth.NONE, is_page=True,
          says="Its contract."),
    Route("GET", "/dashboard/escrow/{id}/{step}", step.read, Auth.NONE, is_page=True, says="A."),
    Route("POST", "/dashboard/escrow/{id}/{step}", step.take, Auth.NONE, is_page=True, says="A."),
    Route("GET", "/dashboard/settings", settings.read, Auth.NONE, is_page=True, says="Own."),
    Route("GET", "/static/{name}", static.send, Auth.NONE, says="A file of the pages."),
)  # fmt: skip

SIGNED = ("sellers_signature", "buyers_signature")
CSS = Path(static.__file__).parent / "static" / "pages.css"
LINES = """() => {
    const block = document.querySelector("blockquote"), text = block.firstChild;
    const style = getComputedStyle(block), outer = block.getBoundingClientRect();
    const start = outer.left + parseFloat(style.borderLeftWidth) + parseFloat(style.paddingLeft);
    let at = 0;
    return text.data.split("\\n").map(line => {
        const range = document.createRange();
        range.setStart(text, at);
        range.setEnd(text, at + line.length);
        at += line.length + 1;
        const box = range.getBoundingClientRect();
        return [line, box.top, Math.round(box.left - start), Math.round(outer.right - box.right)];
    }).filter(([line]) => line);
}"""
"""Every line: itself, its top, how far it is from where lines begin, and from where they end."""

# (step, who, mode, status, further steps, what is filled in, status after it, what is seen of it)
STEPS = [
    ("sign_contract", "seller", "standard", "pending", (), {"signature": "Sana S"}, "pending"),
    ("sign_contract", "buyer", "standard", "pending", (), {"signature": "بلال"}, "pending"),
    ("accept_pay", "buyer", "standard", "pending", SIGNED,
     {"way": "wallet", "amount": "100.000"}, "paid"),
    ("accept_pay", "buyer", "instant", "pending", (),
     {"way": "wallet", "amount": "100.000"}, "paid"),
    ("deliver", "seller", "quick", "paid", (), {}, "delivered"),
    ("deliver", "seller", "instant", "paid", (), {}, "completed"),
    ("complete", "buyer", "quick", "delivered", (), {}, "completed"),
    ("reject_delivery", "buyer", "quick", "delivered", (), {}, "paid"),
    ("reject_delivery", "buyer", "quick", "delivered", (), {"reason": "Broken\nbadly"}, "paid"),
    ("cancel", "seller", "quick", "pending", (), {}, "cancelled"),
    ("cancel", "buyer", "quick", "pending", (), {}, "cancelled"),
    ("cancel_escrow", "seller", "quick", "paid", (), {}, "cancelled"),
    ("request_cancellation", "buyer", "quick", "paid", (), {"reason": "Too late"}, "paid"),
    ("accept_cancellation", "seller", "quick", "paid", ("request_cancellation",), {},
     "cancelled"),
    ("reject_cancellation", "seller", "quick", "paid", ("request_cancellation",), {}, "paid"),
    ("dispute", "buyer", "quick", "delivered", (), {"reason": "No camera"}, "disputed"),
    ("dispute", "seller", "quick", "paid", (), {"reason": "Nobody home"}, "disputed"),
    ("withdraw_dispute", "buyer", "quick", "disputed", (), {}, "paid"),
    ("answer_dispute", "seller", "quick", "disputed", (), {"text": "It is."}, "disputed"),
    ("answer_dispute", "buyer", "quick", "disputed", (), {"seller_amount": "12,5"}, "disputed"),
]  # fmt: skip


def path_of(made, name=""):
    return f"/dashboard/escrow/{made.id}{'/' if name else ''}{name}"


async def arranged(house, mode, status, then=(), **changes):
    """An escrow, and its parties' e-mails by role."""
    shop, buyer = await make_shop(house), await make_buyer(house)
    made = await make_escrow(house, shop, buyer, mode=mode, status=status, then=then, **changes)
    return made, {"seller": shop.email, "buyer": buyer.email}


@pytest.mark.parametrize(("name", "who", "mode", "status", "then", "fields", "after"), STEPS)
async def test_a_step_is_taken_by_who_may_and_sent_twice_does_no_more(
    ingress, house, owner, name, who, mode, status, then, fields, after
):
    made, emails = await arranged(house, mode, status, then)
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, emails[who])
        assert f'href="{path_of(made, name)}"' in (await person.get(path_of(made))).text
        page = await person.get(path_of(made, name))
        assert page.status == 200
        sent = {"form_token": page.token, "once": page.nonce, **fields}
        answer = await person.post(path_of(made, name), sent)
        assert (answer.status, answer.location) == (303, f"{path_of(made)}?done=yes")
        taken = await reread(house, made.id)
        assert taken.status == after
        assert taken.seq > made.seq
        rows = await count_rows(house)
        again = await person.post(path_of(made, name), sent)
        assert (again.status, again.location) == (answer.status, answer.location)
        assert await reread(house, made.id) == taken
        assert await count_rows(house) == rows
        assert "Done." in (await person.get(f"{path_of(made)}?done=yes")).words


@pytest.mark.parametrize(("name", "who", "mode", "status", "then", "fields", "after"), STEPS)
async def test_the_same_step_is_refused_to_strangers_and_changes_nothing(
    ingress, house, owner, name, who, mode, status, then, fields, after
):
    made, emails = await arranged(house, mode, status, then)
    other = await make_buyer(house)
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, emails[who])
        sent = {"form_token": (await person.get(path_of(made, name))).token, **fields}
        before = await count_rows(house)
        nosy = await signed_in(client, owner, other.email)
        missing = "/dashboard/escrow/" + "0" * 24
        for path in (path_of(made), path_of(made, name), path_of(made, "contract")):
            page = await nosy.get(path)
            nothing = await nosy.get(path.replace(path_of(made), missing))
            assert (page.status, page.words.split(" Request id")[0]) == (
                404, nothing.words.split(" Request id")[0])  # fmt: skip
        assert (await nosy.post(path_of(made, name), sent)).status == 404
        anybody = stranger(client)
        for answer in (
            await anybody.get(path_of(made, name)), await anybody.post(path_of(made, name), sent)
        ):  # fmt: skip
            assert answer.status == 303
            assert answer.location.startswith("/sign-in")
        # A token of another page of the same person, and none at all.
        wrong = (await person.get(path_of(made, name).replace(name, _another(name)))).text
        assert (await person.post(path_of(made, name), fields)).status == 403
        forged = {**sent, "form_token": "A" * 43}
        assert (await person.post(path_of(made, name), forged)).status == 403
        foreign = {"Sec-Fetch-Site": "cross-site"}
        assert (await person.post(path_of(made, name), sent, **foreign)).status == 403
        assert sent["form_token"] not in wrong
        assert await count_rows(house) == before
        assert await read_escrow(house.pool, made.id) == made


def _another(name):
    return "dispute" if name != "dispute" else "cancel_escrow"


@pytest.mark.parametrize("name", PAGES)
@pytest.mark.parametrize("who", ["seller", "buyer"])
async def test_where_nothing_can_be_done_the_page_says_why_and_has_no_form(
    ingress, house, owner, name, who
):
    made, emails = await arranged(house, "quick", "completed")
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, emails[who])
        page = await person.get(path_of(made, name))
        assert page.status in (404, 409)  # 404: it is never this side's in this mode
        assert "<form" not in page.text
        if page.status == 409:
            assert 'role="alert"' in page.text
        assert "Traceback" not in page.text


async def test_a_page_that_was_left_open_says_what_has_happened_meanwhile(ingress, house, owner):
    made, emails = await arranged(house, "quick", "delivered")
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, emails["buyer"])
        sent = {"form_token": (await person.get(path_of(made, "complete"))).token}
        await person.send(path_of(made, "dispute"), reason="No camera")
        page = await person.post(path_of(made, "complete"), sent)
        assert page.status == 409
        assert "only once the seller has delivered" in page.words
        assert (await reread(house, made.id)).status == "disputed"


async def test_an_answer_with_files_sent_twice_is_one_statement_and_keeps_its_files_once(
    ingress, house, owner, tmp_path
):
    made, emails = await arranged(house, "quick", "disputed")
    path = path_of(made, "answer_dispute")
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, emails["seller"])
        page = await person.get(path)

        async def answer():
            form = aiohttp.FormData()
            for name, text in (
                ("form_token", page.token), ("once", page.nonce), ("text", "It is."),
            ):  # fmt: skip
                form.add_field(name, text)
            form.add_field("files", PNG, filename="a.png")
            return await person.post(path, form)

        answers = [*await asyncio.gather(answer(), answer()), await answer()]
        assert {one.status for one in answers} == {303}
    counts = await house.pool.fetchrow(
        "SELECT (SELECT count(*) FROM dispute_statement) AS statements,"
        " (SELECT count(*) FROM file) AS files,"
        " (SELECT count(*) FROM mail WHERE template = 'dispute_answered') AS mails"
    )
    assert dict(counts) == {"statements": 1, "files": 1, "mails": 1}


async def test_two_tabs_at_once_take_a_step_once(ingress, house, owner):
    made, emails = await arranged(house, "quick", "delivered")
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, emails["buyer"])
        sent = {"form_token": (await person.get(path_of(made, "complete"))).token}
        answers = await asyncio.gather(
            *(person.post(path_of(made, "complete"), sent) for _ in range(4))
        )
        assert sorted(answer.status for answer in answers) == [303, 409, 409, 409]


async def test_what_was_typed_is_kept_and_the_error_stands_beside_it(ingress, house, owner):
    made, emails = await arranged(house, "quick", "delivered")
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, emails["buyer"])
        page = await person.send(path_of(made, "dispute"), reason=" ")
        assert page.status == 400
        assert 'aria-describedby="reason-error"' in page.text
        page = await person.send(path_of(made, "dispute"), reason="<b>" + "w" * 2000)
        assert page.status == 400
        assert "&lt;b&gt;www" in page.text
        assert "at most 2000 characters" in page.words
        assert (await reread(house, made.id)).status == "delivered"


async def test_who_cannot_afford_it_is_led_to_the_wallet_and_nothing_is_paid(ingress, house, owner):
    shop, buyer = await make_shop(house), await make_buyer(house, funds="1")
    made = await make_escrow(house, shop, buyer, mode="quick")
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, buyer.email)
        page = await person.send(path_of(made, "accept_pay"), way="wallet", amount="100.000")
        assert page.status == 409
        assert 'href="/dashboard/wallet"' in page.text
        page = await person.send(path_of(made, "accept_pay"), way="wallet", amount="99.000")
        assert page.status == 409
        assert "The amount was changed meanwhile" in page.words
        assert (await reread(house, made.id)).status == "pending"


async def test_an_offer_is_accepted_by_the_other_side_as_it_was_made(ingress, house, owner):
    made, emails = await arranged(house, "quick", "disputed")
    offered = disputes.answer(made.id, None, (), Split(60_000, 40_000))
    await act(house, user_actor(made.seller_id), offered)
    async with ingress(ROUTES) as client:
        buyer = await signed_in(client, owner, emails["buyer"])
        page = await buyer.get(path_of(made, "answer_dispute"))
        assert "Accept the offer: 60.000 TND for the seller, 40.000 TND for the buyer" in page.words
        offer_id = page.text.split('name="accept_offer" value="')[1][:24]
        seller = await signed_in(client, owner, emails["seller"])
        assert 'name="accept_offer"' not in (await seller.get(path_of(made, "answer_dispute"))).text
        answer = await buyer.post(
            path_of(made, "answer_dispute"), {"form_token": page.token, "accept_offer": offer_id}
        )
        assert answer.status == 303
        assert (await reread(house, made.id)).status == "completed"
        page = await seller.get(path_of(made))
        assert "60.000 TND for the seller before fees, 40.000 TND returned" in page.words


@pytest.mark.parametrize("offer", ["100.001", "-1", "1.0001", "NaN", "1e2", "x"])
async def test_an_offer_that_cannot_be_is_said_so(ingress, house, owner, offer):
    made, emails = await arranged(house, "quick", "disputed")
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, emails["seller"])
        page = await person.send(path_of(made, "answer_dispute"), seller_amount=offer)
        assert page.status == 400
        assert "seller_amount-error" in page.text
        page = await person.send(path_of(made, "answer_dispute"))
        assert page.status == 400
        assert "text-error" in page.text


async def test_a_proof_is_sent_corrected_and_accepted(ingress, house, owner):
    made, emails = await arranged(house, "quick_proof", "paid")
    async with ingress(ROUTES) as client:
        seller = await signed_in(client, owner, emails["seller"])
        buyer = await signed_in(client, owner, emails["buyer"])
        path = path_of(made, "submit_proof")
        page = await seller.post_files(path, [("a.png", PNG)], note="The bill")
        assert page.status == 303
        page = await buyer.get(path_of(made))
        assert "The bill" in page.words
        assert "a.png" in page.words
        assert 'href="/files/' in page.text
        page = await buyer.send(path_of(made, "review_proof"), act="correct")
        assert page.status == 400
        answer = await buyer.send(
            path_of(made, "review_proof"), act="correct", correction="Sharper, please"
        )
        assert answer.status == 303
        assert "Sharper, please" in (await seller.get(path_of(made))).words
        assert (await seller.post_files(path, [("b.png", PNG)])).status == 303
        path = path_of(made, "review_proof")
        for fields in (
            {}, {"act": ""}, {"act": "agree"}, {"correction": "Blurred"},
            {"act": "accept", "correction": "Blurred"},
        ):  # fmt: skip
            page = await buyer.send(path, **fields)
            assert (page.status, "correction-error" in page.text) == (400, True)
            assert fields.get("correction", "") in page.text
        assert (await reread(house, made.id)).proof.phase == "submitted_waiting_buyer_review"
        answer = await buyer.send(path, act="accept")
        assert answer.status == 303
        assert (await seller.send(path_of(made, "deliver"))).status == 303
    taken = await reread(house, made.id)
    assert (taken.status, taken.proof.phase) == ("delivered", "accepted")


@pytest.mark.parametrize(
    ("files", "says"),
    [
        ([], "Please choose a file."),
        ([("a.png", b"<script>")], "is not a PNG, JPEG, WEBP or PDF"),
        ([("a.png", b"")], "This file is empty"),
        ([(f"{n}.png", PNG) for n in range(11)], "at most 10 files"),
    ],
)
async def test_a_file_that_cannot_be_taken_is_said_so_and_what_was_typed_is_kept(
    ingress, house, owner, files, says
):
    made, emails = await arranged(house, "quick_proof", "paid")
    async with ingress(ROUTES) as client:
        seller = await signed_in(client, owner, emails["seller"])
        page = await seller.post_files(path_of(made, "submit_proof"), files, note="The bill")
        assert page.status == 400
        assert says in page.words
        assert "The bill" in page.text
    assert (await reread(house, made.id)).seq == made.seq
    assert (await count_rows(house))["file"] == 0


@pytest.mark.parametrize("name", ["update", "resolve_dispute", "freeze", "../x", "pay"])
async def test_what_is_no_persons_step_has_no_page(ingress, house, owner, name):
    made, emails = await arranged(house, "quick", "pending")
    async with ingress(ROUTES) as client:
        person = await signed_in(client, owner, emails["seller"])
        assert (await person.get(path_of(made, name))).status == 404


async def test_the_escrows_page_shows_who_how_much_until_when_and_what_next(ingress, house, owner):
    made, emails = await arranged(
        house, "quick", "delivered", ("reject_delivery", "deliver"), title=HOSTILE
    )
    async with ingress(ROUTES) as client:
        page = await (await signed_in(client, owner, emails["seller"])).get(path_of(made))
        assert page.status == 200
        assert "<script" not in page.text
        assert "<b onmouseover" not in page.text
        for words in (
            "Seller: S", "(you)", "fee, borne by the seller 5.000 TND",
            "For the seller 95.000 TND", "If the buyer does not object by", "in 7 days",
            "Deliveries that were sent back", "It is broken.", "The buyer is next.",
            "What you cannot do now", "Where it stands",
        ):  # fmt: skip
            assert words in page.words, words
        assert len(page.text) <= 50_000
        assert "Tunis time" in page.words


async def test_a_frozen_escrow_offers_nothing(ingress, house, owner):
    made, emails = await arranged(house, "quick", "paid")
    await owner.execute("UPDATE escrow SET frozen = true WHERE id = $1", made.id)
    async with ingress(ROUTES) as client:
        page = await (await signed_in(client, owner, emails["seller"])).get(path_of(made))
        assert "on hold while we look into it" in page.words
        assert 'class="primary"' not in page.text


async def test_a_contracts_page_links_its_newest_document_with_what_is_printed_on_it(
    ingress, house, owner
):
    made, emails = await arranged(house, "standard", "pending")
    [due] = await papers.claim(house)
    order = await papers.drawn_up(house, due)
    file = StoredFile("d" * 64, "application/pdf", 1000, "e" * 64, "contract.pdf")
    assert await papers.keep(house, order, file)
    async with ingress(ROUTES) as client:
        for email in emails.values():
            page = await (await signed_in(client, owner, email)).get(path_of(made, "contract"))
            assert f'href="/files/{file.key}?' in page.text
            assert "Open as PDF" in page.words
            printed = re.findall(r"[0-9a-f]{64}", page.words)
            assert printed == [order.fingerprint]


@pytest.mark.parametrize("terms", ["\u0633\n" * 5000, "&\n" * 5000, "\u0633" * 10_000])
async def test_a_contract_of_the_longest_terms_is_a_small_page_however_short_its_lines(
    ingress, house, owner, terms
):
    made, emails = await arranged(house, "standard", "pending", contract_terms=terms.strip())
    async with ingress(ROUTES) as client:
        seller = await signed_in(client, owner, emails["seller"])
        for name in ("contract", "sign_contract"):
            page = await seller.get(path_of(made, name))
            assert page.status == 200
            assert len(page.text.encode()) + len(CSS.read_bytes()) <= 50_000


async def test_each_line_of_a_contract_stands_in_its_own_direction(ingress, house, owner, phone):
    terms = "One, of 12.\n\u0627\u0644\u0633\u0637\u0631 12.\n\nThree."
    made, emails = await arranged(house, "standard", "pending", contract_terms=terms)
    page = await phone("en")
    async with ingress(ROUTES) as client:
        url = str(client._base_url).rstrip("/")
        cookie = await cookie_of(owner, emails["seller"])
        await page.context.add_cookies([{"name": "amana_session", "value": cookie, "url": url}])
        await page.goto(url + path_of(made, "contract"))
        lines = await page.evaluate(LINES)
    (_, first, left, _), (_, second, _, right), (_, third, again, _) = lines
    assert first < second < third
    assert third - second > 1.5 * (second - first)  # the empty line
    assert (left, again) == (0, 0)
    assert right == 0


@pytest.mark.parametrize(
    "terms", ["Line one.\n\u0627\u0644\u0633\u0637\u0631 123\n\u202egnp.elif", HOSTILE]
)
async def test_a_contract_is_shown_whole_and_inert(ingress, house, owner, terms):
    made, emails = await arranged(
        house, "standard", "pending", ("buyers_signature",), contract_terms=terms
    )
    async with ingress(ROUTES) as client:
        page = await (await signed_in(client, owner, emails["seller"])).get(
            path_of(made, "contract")
        )
        assert page.status == 200
        [shown] = re.findall("<blockquote>(.*?)</blockquote>", page.text, re.S)
        assert shown.count("\n") == terms.count("\n")
        assert "\u202e" not in page.text
        assert "<script" not in page.text
        assert "The document is being made." in page.words
        assert "Bo Y signed as the buyer on" in page.words
        assert "The seller has not signed yet." in page.words
        assert f'href="{path_of(made, "sign_contract")}"' in page.text
        quick, theirs = await arranged(house, "quick", "pending")
        page = await (await signed_in(client, owner, theirs["seller"])).get(
            path_of(quick, "contract")
        )
        assert page.status == 404


async def test_a_longest_contract_fits_on_its_page(ingress, house, owner):
    made, emails = await arranged(
        house, "standard", "pending", contract_terms=("word " * 20 + "\n") * 99
    )
    async with ingress(ROUTES) as client:
        page = await (await signed_in(client, owner, emails["buyer"])).get(
            path_of(made, "contract")
        )
        assert len(page.text.encode()) <= 50_000


@pytest.mark.parametrize("language", ["en", "ar"])
async def test_the_pages_keep_nobody_out_on_a_phone(ingress, house, owner, phone, language):
    made, emails = await arranged(house, "standard", "disputed", title=HOSTILE)
    pending, theirs = await arranged(house, "standard", "pending", title=HOSTILE)
    proof, prover = await arranged(house, "quick_proof", "paid")
    page = await phone(language)
    async with ingress(ROUTES) as client:
        url = str(client._base_url)
        for email, paths in (
            (emails["seller"], [path_of(made), path_of(made, "contract"),
                                path_of(made, "answer_dispute")]),
            (theirs["buyer"], [path_of(pending), path_of(pending, "sign_contract")]),
            (prover["seller"], [path_of(proof, "submit_proof"), path_of(proof, "deliver")]),
        ):  # fmt: skip
            cookie = {"name": "amana_session", "value": await cookie_of(owner, email), "url": url}
            await page.context.clear_cookies()
            await page.context.add_cookies([cookie])
            for path in paths:
                await page.goto(f"{url}{path}?lang={language}")
                assert await page.locator("h1").count() == 1, path
                assert await overflow(page) <= 0, path
                assert await serious(page) == [], path


async def test_a_step_is_taken_without_a_script(ingress, house, owner, phone):
    made, emails = await arranged(house, "quick", "delivered")
    page = await phone("ar", scripts=False)
    async with ingress(ROUTES) as client:
        url = str(client._base_url)
        cookie = await cookie_of(owner, emails["buyer"])
        await page.context.add_cookies([{"name": "amana_session", "value": cookie, "url": url}])
        await page.goto(f"{url}{path_of(made)}?lang=ar")
        await page.locator("a.primary").click()
        await page.locator("button.primary").click()
        assert page.url.endswith(f"{path_of(made)}?done=yes&lang=ar")
        assert "تمّ ذلك" in await page.inner_text("main")
    assert (await reread(house, made.id)).status == "completed"


def test_every_step_that_has_a_page_is_taken_here():
    taken = {name for name, *_ in STEPS} | {"submit_proof", "review_proof"}
    assert taken == set(PAGES)
