"""The whole life of a standard escrow as two people see it, on phones, in English and in Arabic.

And in French without a script. With PICTURES=1 its stations are photographed into docs/pages/.
"""

import io
import re

import pytest
from pypdf import PdfReader

from service.commands import profiles
from service.commands.visits import PHONE
from service.gateways.files import open_storage
from service.store.profiles import Profile
from tests.makers import act, user_actor
from tests.service.ingress.pages.street import draw
from workers.papers import Printer

BUYER = "nour@example.org"
TERMS = {
    "en": "The seller sends the camera with both lenses, insured.\nThe buyer tests it for 7 days.",
    "ar": "يرسل البائع الكاميرا مع العدستين، مؤمَّنة.\nللمشتري 7 أيام للتجربة.",
    "fr": "Le vendeur envoie un appareil et ses objectifs.\nLe client teste 7 jours.",
}
TITLE = {"en": "A camera with two lenses", "ar": "كاميرا بعدستين", "fr": "Un appareil photo"}
NAMES = {"en": ("Nour", "Trabelsi"), "ar": ("نور", "الطرابلسي"), "fr": ("Nour", "Trabelsi")}


@pytest.mark.parametrize(("language", "scripts"), [("en", True), ("ar", True), ("fr", False)])
async def test_a_standard_escrow_is_lived_on_two_phones(
    street, person, tmp_path, language, scripts
):
    speaking = profiles.change(
        street.shop.user_id, Profile("Sami", "Ben Ali", language, "Africa/Tunis")
    )
    await act(street.house, user_actor(street.shop.user_id), speaking)
    nour = await person(language, "buyer", scripts=scripts)
    seller = await person(language, "seller", scripts=scripts)
    made = await street.call(
        "POST",
        "/escrows",
        {
            "title": TITLE[language], "amount": 250, "buyerEmail": BUYER, "language": language,
            "estimatedDeliveryDays": 7, "contractTerms": TERMS[language],
        },
    )  # fmt: skip
    escrow_id = made["escrow"]["id"]

    # An invited buyer registers.
    await nour.go(await street.link(BUYER), "invited")
    await nour.page.locator("#first_name").fill(NAMES[language][0])
    await nour.page.locator("#last_name").fill(NAMES[language][1])
    await nour.press()
    await nour.page.wait_for_url(f"**/dashboard/escrow/{escrow_id}")
    await nour.look("escrow")

    # Both sign: the seller types a name after signing in by a code, the buyer draws.
    await seller.go(await street.session(escrow_id, "sign_contract", street.shop.email), "door")
    await seller.come_in()
    await seller.look()
    await seller.page.locator("#signature").fill("Sami Ben Ali")
    await seller.press("button.primary:last-of-type")
    await seller.is_back()
    await nour.go(await street.session(escrow_id, "sign_contract", BUYER))
    if scripts:
        await draw(nour.page)
    else:
        assert not await nour.page.locator("canvas").is_visible()
        await nour.page.locator("#signature").fill("Nour Trabelsi")
    await nour.look("sign")
    await nour.press("button.primary:last-of-type")
    await nour.is_back()

    await paid_by_card(street, nour, escrow_id)

    # The seller delivers by API, the buyer completes on the page.
    await street.call("POST", f"/escrows/{escrow_id}/deliver")
    await nour.go(await street.session(escrow_id, "complete", BUYER), "complete")
    await nour.press("button.primary:last-of-type")
    await nour.is_back()
    await nour.go(f"{street.url}/dashboard/escrow/{escrow_id}", "completed")
    await nour.go(f"{street.url}/dashboard", "dashboard")
    await nour.go(f"{street.url}/dashboard/wallet")
    await seller.go(f"{street.url}/dashboard/escrow/{escrow_id}", "completed")
    await seller.go(f"{street.url}/dashboard/wallet", "wallet")

    escrow = (await street.call("GET", f"/escrows/{escrow_id}"))["escrow"]
    assert escrow["status"] == "completed"
    balance = (await street.call("GET", "/balance"))["balance"]
    assert balance == {"available": 237.5, "pending": 0, "escrow": 0}
    await printed(street, escrow_id, tmp_path, language)


async def paid_by_card(street, nour, escrow_id):
    """The buyer verifies a phone and pays by card, the wallet being empty."""
    await nour.page.goto(await street.session(escrow_id, "accept_pay", BUYER))
    await nour.page.wait_for_url(re.compile(r"/phone\?"))
    await nour.look("phone")
    await nour.page.locator("#phone").fill("+216 20 123 456")
    await nour.press()
    await nour.page.wait_for_url(re.compile(r"/phone/[0-9a-f]{24}"))
    await nour.page.locator("#code").fill(nour.code(PHONE))
    await nour.press()
    await nour.page.wait_for_url(re.compile(r"^[^?]*/checkout/"))
    await nour.look("pay")
    await nour.page.locator('input[name="way"][value="sandbox"]').check()
    await nour.press("button.primary:last-of-type")
    await nour.page.wait_for_url("**/sandbox/pay/**")
    await nour.look("card")
    await nour.press()
    await nour.is_back()
    assert (await street.call("GET", f"/escrows/{escrow_id}"))["escrow"]["status"] == "paid"


async def printed(street, escrow_id, folder, language):
    """The contract as it was signed by both is a PDF in its language."""
    storage = open_storage(street.settings.storage_url)
    await Printer(street.house, storage, folder).turn()
    contract = (await street.call("GET", f"/escrows/{escrow_id}/contract"))["contract"]
    assert contract["pdfVersions"][-1]["type"] == "fully-signed"
    async with street.client.get(contract["pdfUrl"]) as answer:
        assert answer.status == 200
        pdf = PdfReader(io.BytesIO(await answer.read()))
    said = pdf.pages[0].extract_text()
    assert {"en": "insured", "ar": "العدستين", "fr": "objectifs"}[language] in said
