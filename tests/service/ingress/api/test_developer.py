"""The stored signature and the list of redirect URLs, over HTTP."""

import base64
import io
from unittest.mock import ANY

import pytest

from service.ingress.routes import ROUTES
from service.store.vault import Vault
from service.wire.developer import IMAGE_BYTES_MAX, SIGNATURE_BODY_BYTES_MAX
from tests.pictures import PICTURES, data_uri

SIGNATURE = "/api/developer/signature"
REDIRECTS = "/api/developer/redirect-urls"
PNG, JPEG, GIF = PICTURES["png"], PICTURES["jpeg"], PICTURES["gif"]


@pytest.fixture
async def client(ingress):
    async with ingress(ROUTES, RATE_LIMIT_PER_MINUTE="0") as opened:
        yield opened


@pytest.fixture
def call(client):
    """`await call(developer, method, path, json)` gives (status, body)."""

    async def made(developer, method, path, json=None, **headers):
        sent = {**developer.headers, **headers}
        async with client.request(method, path, json=json, headers=sent) as response:
            return response.status, await response.json()

    return made


@pytest.fixture
async def developer(enrolled):
    return await enrolled(associated=False)


def refused(field, sentence):
    return (
        400,
        {
            "error": "Bad Request",
            "message": f"Validation failed: {field}: {sentence}",
            "details": {field: sentence},
        },
    )


# ---- The signature ------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [SIGNATURE, "/developer/signature"])
@pytest.mark.parametrize("kind", sorted(PICTURES))
async def test_a_signature_is_stored_and_never_shown(call, developer, path, kind):
    assert await call(developer, "GET", path) == (200, {"hasSignature": False})
    body = {"signatureImage": data_uri(PICTURES[kind], kind), "unknown": 1}
    stored = {"message": "Signature stored", "hasSignature": True}
    assert await call(developer, "PUT", path, body) == (200, stored)
    for either in (SIGNATURE, "/developer/signature"):
        assert await call(developer, "GET", either) == (200, {"hasSignature": True})


async def test_a_stored_signature_is_sealed_and_the_newest_one(call, developer, owner):
    for content in (PNG, GIF):
        kind = "png" if content is PNG else "gif"
        await call(developer, "PUT", SIGNATURE, {"signatureImage": data_uri(content, kind)})
    kept = await owner.fetchval(
        "SELECT i.sealed FROM developer d JOIN signature_image i ON i.id = d.signature_id"
        " WHERE d.id = $1",
        developer.developer_id,
    )
    assert "data:image" not in kept
    assert Vault(["k" * 32]).open(kept.encode()) == data_uri(GIF, "gif")
    log = await owner.fetch(
        "SELECT seq, step, type FROM event WHERE subject_id = $1 ORDER BY seq",
        developer.developer_id,
    )
    assert [tuple(row) for row in log] == [
        (1, "enrol", None),
        (2, "store_signature", None),
        (3, "store_signature", None),
    ]


async def test_another_developer_has_none(call, developer, enrolled):
    await call(developer, "PUT", SIGNATURE, {"signatureImage": data_uri(PNG)})
    assert await call(await enrolled(), "GET", SIGNATURE) == (200, {"hasSignature": False})


def gif_of(width: int, height: int) -> bytes:
    return GIF[:6] + width.to_bytes(2, "little") + height.to_bytes(2, "little") + GIF[10:]


TOO_LARGE = "must be at most 4096 pixels wide and high, and have at most 1,000,000 pixels"
NOT_A_URI = "must be a base64 data URI of a PNG, JPEG, GIF or WEBP image"
NOT_ITS_TYPE = "must hold an image of the type that it declares"


@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ({}, "is required"),
        ({"signatureImage": None}, "is required"),
        ({"signatureImage": 5}, "must be a string"),
        ({"signatureImage": ""}, NOT_A_URI),
        ({"signatureImage": "https://shop.example/me.png"}, NOT_A_URI),
        ({"signatureImage": base64.b64encode(PNG).decode()}, NOT_A_URI),
        ({"signatureImage": "data:image/svg+xml;base64,PHN2Zy8+"}, NOT_A_URI),
        ({"signatureImage": "data:image/png," + "A" * 40}, NOT_A_URI),
        ({"signatureImage": "data:image/png;base64,"}, NOT_ITS_TYPE),
        ({"signatureImage": "data:image/png;base64,@@@@"}, "must be valid base64 after the comma"),
        ({"signatureImage": data_uri(PNG)[:-1]}, "must be valid base64 after the comma"),
        ({"signatureImage": data_uri(PNG) + "é"}, "must be valid base64 after the comma"),
        ({"signatureImage": data_uri(PNG) + "\n"}, "must be valid base64 after the comma"),
        ({"signatureImage": data_uri(JPEG)}, NOT_ITS_TYPE),
        ({"signatureImage": "data:image/png;base64,QQ=="}, NOT_ITS_TYPE),
        ({"signatureImage": "data:image/png;base64,QR=="}, "must be valid base64 after the comma"),
        (
            {"signatureImage": data_uri(PNG).replace("iVBO", "iV\nBO")},
            "must be valid base64 after the comma",
        ),
        ({"signatureImage": data_uri(PNG[:8] + bytes(60))}, NOT_ITS_TYPE),
        ({"signatureImage": data_uri(PNG[:-1])}, NOT_ITS_TYPE),
        ({"signatureImage": data_uri(PICTURES["webp"], "jpeg")}, NOT_ITS_TYPE),
        ({"signatureImage": data_uri(gif_of(4097, 1), "gif")}, TOO_LARGE),
        ({"signatureImage": data_uri(gif_of(1, 4097), "gif")}, TOO_LARGE),
        ({"signatureImage": data_uri(gif_of(1000, 1001), "gif")}, TOO_LARGE),
        ({"signatureImage": data_uri(b"<svg/>" * 20)}, NOT_ITS_TYPE),
        ({"signatureImage": data_uri(b"%PDF-1.7" * 20)}, NOT_ITS_TYPE),
        (
            {"signatureImage": data_uri(PNG + bytes(IMAGE_BYTES_MAX))},
            "must be an image of at most 512 KiB",
        ),
    ],
)
async def test_what_is_no_such_image_is_refused_and_changes_nothing(
    call, developer, body, sentence
):
    assert await call(developer, "PUT", SIGNATURE, body) == refused("signatureImage", sentence)
    assert await call(developer, "GET", SIGNATURE) == (200, {"hasSignature": False})


@pytest.mark.parametrize(("width", "height"), [(1000, 1000), (4096, 244)])
async def test_an_image_of_just_a_million_pixels_is_taken(call, developer, width, height):
    body = {"signatureImage": data_uri(gif_of(width, height), "gif")}
    assert (await call(developer, "PUT", SIGNATURE, body))[0] == 200


async def test_an_image_of_just_512_kib_is_taken(call, developer):
    content = PNG + bytes(IMAGE_BYTES_MAX - len(PNG))
    assert (await call(developer, "PUT", SIGNATURE, {"signatureImage": data_uri(content)}))[
        0
    ] == 200


async def test_a_body_over_1_mib_is_too_large(client, developer):
    body = io.BytesIO(b'{"signatureImage": "' + b"x" * SIGNATURE_BODY_BYTES_MAX)
    async with client.put(SIGNATURE, data=body, headers=developer.headers) as response:
        assert response.status == 413
        assert await response.json() == {
            "error": "Payload Too Large",
            "message": "The body must be at most 1048576 bytes.",
        }


async def test_the_same_key_stores_a_signature_once(call, developer, owner):
    body = {"signatureImage": data_uri(PNG)}
    answers = [
        await call(developer, "PUT", SIGNATURE, body, **{"Idempotency-Key": "s"}) for _ in range(2)
    ]
    assert answers[0] == answers[1] == (200, {"message": ANY, "hasSignature": True})
    events = "SELECT count(*) FROM event WHERE subject_id = $1 AND step = 'store_signature'"
    assert await owner.fetchval(events, developer.developer_id) == 1
    other = {"signatureImage": data_uri(GIF, "gif")}
    status, answer = await call(developer, "PUT", SIGNATURE, other, **{"Idempotency-Key": "s"})
    assert (status, answer["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")


# ---- The redirect URLs --------------------------------------------------------------------------


async def test_the_list_is_empty_until_it_is_set_and_stays_as_it_was_given(call, developer):
    assert await call(developer, "GET", REDIRECTS) == (200, {"urls": []})
    given = ["https://shop.example/app", " http://localhost:3000 ", "https://shop.example/app"]
    kept = ["https://shop.example/app", "http://localhost:3000"]
    assert await call(developer, "PUT", REDIRECTS, {"urls": given}) == (
        200,
        {"message": "Redirect URLs stored", "urls": kept},
    )
    assert await call(developer, "GET", REDIRECTS) == (200, {"urls": kept})
    await call(developer, "PUT", REDIRECTS, {"urls": []})
    assert await call(developer, "GET", REDIRECTS) == (200, {"urls": []})


async def test_every_bad_entry_is_named_at_once_and_nothing_is_stored(call, developer):
    await call(developer, "PUT", REDIRECTS, {"urls": ["https://shop.example/"]})
    bad = {
        "http://shop.example/": "must begin with https:// (http:// only for localhost)",
        "https://u@shop.example/": "must name no user or password",
        "https://shop.example/#x": "must have no fragment",
        "https://shop.example/?x": "must have no query: everything below the path is allowed",
        "nowhere": "must begin with https:// (http:// only for localhost)",
    }
    urls = ["https://shop.example/fine", *bad]
    status, answer = await call(developer, "PUT", REDIRECTS, {"urls": urls})
    assert status == 400
    assert answer["details"] == {f"urls.{n}": told for n, told in enumerate(bad.values(), 1)}
    assert await call(developer, "GET", REDIRECTS) == (200, {"urls": ["https://shop.example/"]})


@pytest.mark.parametrize(
    ("body", "field", "sentence"),
    [
        ({}, "urls", "is required"),
        ({"urls": "https://shop.example/"}, "urls", "must be a list"),
        ({"urls": [5]}, "urls.0", "must be a string"),
        ({"urls": ["https://shop.example/"] * 21}, "urls", "must have at most 20 entries"),
        ({"urls": [], "url": 1}, "url", "is not a known field"),
    ],
)
async def test_a_bad_list_is_refused(call, developer, body, field, sentence):
    assert await call(developer, "PUT", REDIRECTS, body) == refused(field, sentence)


async def test_the_same_key_sets_the_list_once(call, developer):
    body = {"urls": ["https://shop.example/"]}
    first = await call(developer, "PUT", REDIRECTS, body, **{"Idempotency-Key": "r"})
    await call(developer, "PUT", REDIRECTS, {"urls": []})
    assert await call(developer, "PUT", REDIRECTS, body, **{"Idempotency-Key": "r"}) == first
    assert await call(developer, "GET", REDIRECTS) == (200, {"urls": []})
