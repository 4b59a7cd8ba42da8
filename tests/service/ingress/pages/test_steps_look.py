"""Every action of a checkout in a real browser, right and wrong; a life without a script at home.

The actions are taken on a phone, the languages in turn. What is refused and what is over is looked
at as well: axe finds nothing serious on any of it.
"""

import itertools
import re

import pytest

from service.commands import profiles
from service.rules.session import ACTIONS as TABLE
from service.store.ledger import read_balance
from service.store.profiles import Profile
from tests.attachments import PNG
from tests.makers import act, make_buyer, make_escrow, reread, user_actor
from tests.service.ingress.pages.test_checkout import ACTIONS

LANGUAGES = itertools.cycle(("en", "ar", "fr"))
UPLOAD = {"name": "receipt.png", "mimeType": "image/png", "buffer": PNG}
ACCEPT, CORRECT = "button.primary", "button[value=correct]"
PROVEN = ("submit_proof",)

# As ACTIONS, then the button: (action, who, mode, status, further steps, fields, after, button)
STEPS = [
    *((*row, ACCEPT) for row in ACTIONS),
    ("submit_proof", "seller", "quick_proof", "paid", (), {"files": UPLOAD}, "paid", ACCEPT),
    ("review_proof", "buyer", "quick_proof", "paid", PROVEN, {}, "paid", ACCEPT),
    ("review_proof", "buyer", "quick_proof", "paid", PROVEN, {"correction": "Blurred"}, "paid",
     CORRECT),
]  # fmt: skip

# (action, who, mode, status, further steps, fields, button, which blank is wrong)
WRONG = [
    ("sign_contract", "seller", "standard", "pending", (), {}, ACCEPT, "signature"),
    ("dispute", "buyer", "quick", "paid", (), {}, ACCEPT, "reason"),
    ("submit_proof", "seller", "quick_proof", "paid", (), {"note": "Here"}, ACCEPT, "files"),
    ("review_proof", "buyer", "quick_proof", "paid", PROVEN, {}, CORRECT, "correction"),
    ("answer_dispute", "seller", "quick", "disputed", (), {}, ACCEPT, "text"),
    ("answer_dispute", "seller", "quick", "disputed", (), {"seller_amount": "half"}, ACCEPT,
     "seller_amount"),
]  # fmt: skip


async def fill(page, fields):
    """As a person does; `amount` stands on the page already."""
    for name, given in fields.items():
        if name == "files":
            await page.set_input_files("#files", given)
        elif name == "way":
            await page.check(f"input[name=way][value={given}]")
        elif name != "amount":
            await page.fill(f"#{name}", given)


async def sent(street, who, action, mode, status, then):
    """An escrow brought so far, who is to act on it, and the shop's link."""
    buyer = await make_buyer(street.house)
    made = await make_escrow(street.house, street.shop, buyer, mode=mode, status=status, then=then)
    email = {"seller": street.shop.email, "buyer": buyer.email}[who]
    return made, email, await street.session(made.id, action, email)


def test_every_action_of_the_table_is_taken_here():
    assert {name for name, *_ in STEPS} == set(TABLE)


@pytest.mark.parametrize(
    ("name", "who", "mode", "status", "then", "fields", "after", "button", "language"),
    [(*row, language) for row, language in zip(STEPS, LANGUAGES, strict=False)],
)
async def test_an_action_is_taken_on_a_phone_and_every_page_of_it_keeps_nobody_out(
    street, person, name, who, mode, status, then, fields, after, button, language
):
    made, email, link = await sent(street, who, name, mode, status, then)
    someone = await person(language, who)
    address = f"{link}?lang={language}"
    await someone.go(address)  # the door, before anybody is signed in
    assert await someone.page.locator("main a.primary").count() == 1
    await someone.is_signed_in(email)
    await someone.go(address)
    await fill(someone.page, fields)
    await someone.press(button)
    await someone.is_back()
    taken = await reread(street.house, made.id)
    assert taken.status == after
    assert taken.seq > made.seq
    await someone.go(address)  # it works once
    assert await someone.page.locator("main form").count() == 0
    assert await reread(street.house, made.id) == taken


@pytest.mark.parametrize(
    ("name", "who", "mode", "status", "then", "fields", "button", "blank", "language"),
    [(*row, language) for row, language in zip(WRONG, LANGUAGES, strict=False)],
)
async def test_what_is_wrong_is_said_beside_its_blank_to_everybody(
    street, person, name, who, mode, status, then, fields, button, blank, language
):
    made, email, link = await sent(street, who, name, mode, status, then)
    someone = await person(language, who)
    await someone.is_signed_in(email)
    await someone.go(f"{link}?lang={language}")
    await fill(someone.page, fields)
    await someone.press(button)
    await someone.page.wait_for_selector(f"#{blank}-error")
    await someone.look()
    described = await someone.page.get_attribute(f"#{blank}", "aria-describedby")
    assert f"{blank}-error" in described.split()
    for typed, text in fields.items():
        assert await someone.page.input_value(f"#{typed}") == text
    assert await reread(street.house, made.id) == made


# ---- Without a script ---------------------------------------------------------------------------


class AtHome:
    """Somebody on the pages of their own, without a script: no shop has sent them."""

    def __init__(self, street, someone, escrow_id) -> None:
        self.someone, self.page = someone, someone.page
        self.home = f"{street.url}/dashboard/escrow/{escrow_id}"

    async def take(self, step, button=ACCEPT, **fields):
        """From the escrow's page by its link to the step's, and back."""
        await self.someone.go(self.home)
        await self.page.locator(f'main a[href$="/{step}"]').click()
        await self.page.wait_for_url(f"{self.home}/{step}")
        await self.someone.look()
        assert await self.page.locator("script").count() == 0
        await fill(self.page, fields)
        await self.someone.press(button)
        await self.page.wait_for_url(re.compile(r"\?done=yes"))
        await self.someone.look()


async def test_a_purchase_is_proven_rejected_and_completed_in_arabic_without_a_script(
    street, person
):
    house, shop = street.house, street.shop
    buyer = await make_buyer(house, funds="150")
    for user_id, names in ((shop.user_id, ("سامي", "بن علي")), (buyer.user_id, ("نور", "الزين"))):
        speaking = profiles.change(user_id, Profile(*names, "ar", "Africa/Tunis"))
        await act(house, user_actor(user_id), speaking)
    made = await make_escrow(house, shop, buyer, mode="quick_proof", title="حاسوب محمول")
    nour = AtHome(street, await person("ar", "buyer", scripts=False), made.id)
    sami = AtHome(street, await person("ar", "seller", scripts=False), made.id)
    await nour.someone.is_signed_in(buyer.email)
    await sami.someone.is_signed_in(shop.email)
    await nour.take("accept_pay", way="wallet")
    await sami.take("submit_proof", files=UPLOAD, note="الفاتورة")
    await nour.take("review_proof", CORRECT, correction="الصورة غير واضحة")
    await sami.take("submit_proof", files=UPLOAD)
    await nour.take("review_proof")
    await sami.take("deliver")
    await nour.take("reject_delivery", reason="الشاشة مكسورة")
    await sami.take("deliver")
    await nour.take("dispute", reason="ما زالت مكسورة", files=UPLOAD)
    await sami.take("answer_dispute", text="عرض", seller_amount="60.5")
    await nour.take("answer_dispute")  # the offer is the page's first button
    after = await reread(house, made.id)
    assert (after.status, after.dispute.outcome) == ("completed", "split")
    assert (await read_balance(house.pool, buyer.user_id, "TND")).available == 89_500
    assert (await read_balance(house.pool, shop.user_id, "TND")).available == 57_475
