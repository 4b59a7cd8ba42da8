"""escrows.md 3.8: `GET /escrows/:id/contract`, a test a sentence."""

import pytest

from tests.conformance.shapes import ID, INSTANT, Like, changed, e1, e2
from tests.conformance.world import ESCROWS, Life, Partner, World

NOT_FOUND = e2("Contract not found for this escrow")
IMAGE_OR_NULL = Like("an image or null", lambda v: v is None or v.startswith("data:image/"))
SIGNED = {"signedAt": INSTANT, "signatureImage": IMAGE_OR_NULL, "signedName": "A Name"}


def contract(life: Life, **changes) -> dict:
    """The whole answer, before any paper is printed; `version` and `signedName` are ours."""
    shape = {
        "id": ID,
        "escrow": life.id,
        "version": 1,
        "terms": "As described.",
        "language": "en",
        "pdfUrl": None,
        "sellerSignature": None,
        "buyerSignature": None,
        "isFullySigned": False,
        "pdfVersions": [],
        "createdAt": INSTANT,
        "updatedAt": INSTANT,
    }
    return {"contract": changed(shape, changes)}


async def test_a_new_contract_has_exactly_this_body(world: World):
    life = await world.life("standard")
    answer = await life.partner.get(f"{life.path}/contract")
    assert answer.differs(200, contract(life)) == []
    shown = answer.body["contract"]
    assert shown["id"] == life.answer.body["contract"]["id"]
    assert shown["createdAt"] == shown["updatedAt"] == life.answer.escrow["createdAt"]


@pytest.mark.parametrize("language", ["en", "fr", "ar"])
async def test_its_language_is_the_one_of_the_creation(world: World, language):
    life = await world.life(
        "standard", language=language, contractTerms="Ünï\n\u0643\u0645\u0627 😀"
    )
    answer = await life.partner.get(f"{life.path}/contract")
    shown = contract(life, language=language, terms="Ünï\n\u0643\u0645\u0627 😀")
    assert answer.differs(200, shown) == []


@pytest.mark.parametrize("signed", [("seller",), ("buyer",), ("seller", "buyer")])
async def test_a_signature_is_null_until_it_is_given(world: World, signed):
    life = await world.life("standard")
    for side in signed:
        await world.act(life, getattr(life, side), "sign_contract", signature="A Name")
    answer = await life.partner.get(f"{life.path}/contract")
    given = {f"{side}Signature": SIGNED for side in signed}
    shown = contract(life, **given, isFullySigned=len(signed) == 2)
    assert answer.differs(200, shown) == []
    moments = (await life.read())["signatures"]
    for side in signed:
        signature = answer.body["contract"][f"{side}Signature"]
        assert signature["signedAt"] == moments[f"{side}SignedAt"]


async def test_the_creator_and_the_parties_may_read_it(world: World):
    creator = await world.partner(associated=False)
    sellers, buyers = await world.partner(), await world.partner()
    life = await world.life("standard", partner=creator, seller=sellers.user, buyer=buyers.user)
    for who in (creator, sellers, buyers):
        answer = await who.get(f"{life.path}/contract")
        assert answer.differs(200, contract(life)) == []


async def test_a_stranger_is_403_a_bad_id_400_and_an_unknown_one_404(world: World):
    life, stranger = await world.life("standard"), await world.partner()
    assert (await stranger.get(f"{life.path}/contract")).differs(403, e1(403)) == []
    for odd, status, sentence in (
        ("x", 400, "Invalid escrow ID"),
        ("0" * 24, 404, "Escrow not found"),
    ):
        answer = await stranger.get(f"{ESCROWS}/{odd}/contract")
        assert answer.differs(status, e2(sentence)) == []


@pytest.mark.parametrize("kind", ["quick", "quick_proof", "instant"])
async def test_quick_and_instant_are_404(world: World, partner: Partner, kind):
    life = await world.life(kind, partner=partner)
    assert (await partner.get(f"{life.path}/contract")).differs(404, NOT_FOUND) == []


async def test_a_stranger_to_a_quick_escrow_is_403_before_the_404(world: World):
    life, stranger = await world.life("quick"), await world.partner()
    assert (await stranger.get(f"{life.path}/contract")).differs(403, e1(403)) == []


async def test_changed_terms_are_shown_with_their_moment(world: World):
    life = await world.life("standard")
    await world.advance(hours=1)
    assert (await life.partner.put(life.path, {"contractTerms": "Otherwise."})).status == 200
    answer = await life.partner.get(f"{life.path}/contract")
    assert answer.differs(200, contract(life, version=2, terms="Otherwise.")) == []
    assert answer.body["contract"]["updatedAt"] > answer.body["contract"]["createdAt"]
