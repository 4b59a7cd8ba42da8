"""escrows.md 3.10: the stored signature and the redirect allow-list, a test a sentence.

The webhook endpoints of 3.10 are section 7's: test_7_webhooks.py.
"""

import base64

import pytest

from tests.conformance.shapes import SENTENCE, e1, invalid
from tests.conformance.world import Partner, World
from tests.pictures import PICTURES, data_uri

PATHS = ("/api/developer/signature", "/developer/signature")
REDIRECTS = "/api/developer/redirect-urls"


def of_size(size: int) -> str:
    return data_uri(PICTURES["png"].ljust(size, b"\0"))


# ---- The signature ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", PATHS)
@pytest.mark.parametrize("kind", PICTURES)
async def test_each_kind_of_image_is_stored_and_never_returned(partner: Partner, path, kind):
    assert (await partner.get(path)).differs(200, {"hasSignature": False}) == []
    answer = await partner.put(path, {"signatureImage": data_uri(PICTURES[kind], kind)})
    assert answer.differs(200, {"message": SENTENCE, "hasSignature": True}) == []
    for other in PATHS:
        assert (await partner.get(other)).differs(200, {"hasSignature": True}) == []


async def test_the_image_is_at_most_512_kib(world: World, partner: Partner):
    path = PATHS[0]
    async with world.unchanged():
        answer = await partner.put(path, {"signatureImage": of_size(512 * 1024 + 1)})
        assert answer.differs(400, invalid("signatureImage")) == []
    assert (await partner.get(path)).differs(200, {"hasSignature": False}) == []
    assert (await partner.put(path, {"signatureImage": of_size(512 * 1024)})).status == 200


@pytest.mark.parametrize("path", PATHS)
async def test_a_body_over_1_mib_is_413(partner: Partner, path):
    answer = await partner.put(path, {"signatureImage": "x" * 1024 * 1024})
    assert answer.differs(413, e1(413)) == []


BAD = {
    "no image": "A Name",
    "no base64": "data:image/png;base64,%%%",
    "no padding": data_uri(PICTURES["png"]).rstrip("=")[:-1],
    "nothing": "",
    "empty": "data:image/png;base64,",
    "no data URI": base64.b64encode(PICTURES["png"]).decode(),
    "another type": data_uri(b"<svg/>", "svg+xml"),
    "text as an image": data_uri(b"<script>alert(1)</script>"),
    "another image than it says": data_uri(PICTURES["gif"]),
    "an address": "https://example.org/signature.png",
    "a number": 5,
    "a list": [data_uri(PICTURES["png"])],
    "null": None,
}


@pytest.mark.parametrize("name", BAD)
async def test_anything_else_is_400_and_nothing_is_stored(partner: Partner, name):
    answer = await partner.put(PATHS[0], {"signatureImage": BAD[name]})
    assert answer.differs(400, invalid("signatureImage")) == []
    assert (await partner.get(PATHS[0])).differs(200, {"hasSignature": False}) == []


async def test_no_image_at_all_is_400(partner: Partner):
    assert (await partner.put(PATHS[0], {})).differs(400, invalid("signatureImage")) == []
    assert (await partner.put(PATHS[0])).differs(400, e1(400)) == []


async def test_a_new_signature_takes_the_place_of_the_old_one(world: World, partner: Partner):
    for kind in ("png", "gif"):
        await partner.put(PATHS[0], {"signatureImage": data_uri(PICTURES[kind], kind)})
    life = await world.life("standard", partner=partner, autoSign=True)
    contract = (await partner.get(f"{life.path}/contract")).body["contract"]
    assert contract["sellerSignature"]["signatureImage"] == data_uri(PICTURES["gif"], "gif")


async def test_it_is_the_developers_own(world: World, partner: Partner):
    await partner.put(PATHS[0], {"signatureImage": data_uri(PICTURES["png"])})
    other = await world.partner()
    assert (await other.get(PATHS[0])).differs(200, {"hasSignature": False}) == []


@pytest.mark.parametrize("path", [*PATHS, REDIRECTS])
@pytest.mark.parametrize("method", ["GET", "PUT"])
async def test_the_same_key_opens_them_as_api_v1_and_association_is_not_needed(
    world: World, path, method
):
    lone = await world.partner(associated=False)
    body = {"urls": [], "signatureImage": data_uri(PICTURES["png"])}
    body.pop("signatureImage" if path == REDIRECTS else "urls")
    given = (body,) if method == "PUT" else ()
    assert (await lone.ask(method, path, *given)).status == 200
    answer = await lone.ask(method, path, *given, headers={"Authorization": ""})
    assert answer.differs(401, e1(401)) == []


# ---- The redirect allow-list --------------------------------------------------------------------

URLS = ["https://shop.example.org/back", "https://shop.example.org", "http://localhost:3000/a"]


async def urls(partner: Partner) -> list[str]:
    answer = await partner.get(REDIRECTS)
    assert answer.status == 200
    assert list(answer.body) == ["urls"]
    return answer.body["urls"]


async def test_the_list_is_empty_at_first_and_then_what_was_put(partner: Partner):
    assert await urls(partner) == []
    answer = await partner.put(REDIRECTS, {"urls": URLS})
    assert answer.status == 200
    assert answer.body["urls"] == await urls(partner) == URLS
    await partner.put(REDIRECTS, {"urls": URLS[:1]})
    assert await urls(partner) == URLS[:1]
    await partner.put(REDIRECTS, {"urls": []})
    assert await urls(partner) == []


async def test_the_list_has_at_most_20_entries(partner: Partner):
    many = [f"https://shop.example.org/{n}" for n in range(21)]
    answer = await partner.put(REDIRECTS, {"urls": many})
    assert answer.differs(400, invalid("urls")) == []
    assert await urls(partner) == []
    assert (await partner.put(REDIRECTS, {"urls": many[:20]})).status == 200
    assert await urls(partner) == many[:20]


@pytest.mark.parametrize("bad", [None, "https://shop.example.org", 5, {"0": "x"}])
async def test_urls_must_be_a_list(partner: Partner, bad):
    assert (await partner.put(REDIRECTS, {"urls": bad})).differs(400, invalid("urls")) == []


@pytest.mark.parametrize(
    "bad",
    [
        "http://shop.example.org/",
        "ftp://shop.example.org/",
        "javascript:alert(1)",
        "shop.example.org/back",
        "https://",
        "https://user:pass@shop.example.org/",
        "https://shop.example.org/#part",
        "https://shop.example.org:99999/",
        "",
        5,
        None,
    ],
)
async def test_an_entry_that_no_redirect_could_match_is_400_and_nothing_is_stored(
    partner: Partner, bad
):
    await partner.put(REDIRECTS, {"urls": URLS[:1]})
    answer = await partner.put(REDIRECTS, {"urls": [URLS[1], bad]})
    assert answer.differs(400, invalid("urls.1")) == []
    assert await urls(partner) == URLS[:1]


async def test_the_list_is_the_developers_own(world: World, partner: Partner):
    await partner.put(REDIRECTS, {"urls": URLS})
    assert await urls(await world.partner()) == []
