"""escrows.md 1: what holds on every path, a test a sentence."""

import asyncio
import gzip
import json
from decimal import Decimal

import pytest

from service.ingress import bodies
from tests.conformance.raw import speak
from tests.conformance.shapes import ID, e1, e2, instants, invalid, number, written
from tests.conformance.world import (
    ESCROWS,
    SANDBOX,
    V1,
    WEBHOOKS,
    Partner,
    World,
    new_email,
    order,
)
from tests.pictures import PICTURES, data_uri

DRAWN = data_uri(PICTURES["gif"], "gif")
FORM = {"Content-Type": "application/x-www-form-urlencoded"}


def text_of(**changes) -> str:
    """A sound body of create as JSON text; a change is the value's own text."""
    sound = {name: json.dumps(v) for name, v in order("instant", new_email()).items()}
    return "{" + ",".join(f'"{name}":{v}' for name, v in {**sound, **changes}.items()) + "}"


async def create(partner: Partner, text: str | bytes, **headers):
    raw = text if isinstance(text, bytes) else text.encode()
    return await partner.post(ESCROWS, raw=raw, headers=headers)


# ---- Numbers, ids, instants ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("given", "emitted"),
    [
        ("1000", "1000"),
        ("1000.0", "1000"),
        ("1000.000", "1000"),
        ("1e3", "1000"),
        ("1E+3", "1000"),
        ("1000.500", "1000.5"),
        ("0.010", "0.01"),
        ("1e-2", "0.01"),
        ("100000e-4", "10"),
        ("999999999.999", "999999999.999"),
        ("1000000000", "1000000000"),
        ("0.1", "0.1"),
        ("12345678.901", "12345678.901"),
        ("70.07", "70.07"),
    ],
)
async def test_money_is_exact_and_emitted_plainly_without_exponent_or_point_0(
    partner: Partner, given, emitted
):
    answer = await create(partner, text_of(amount=given))
    assert answer.status == 201
    assert f'"amount":{emitted},'.encode() in answer.raw
    assert f'"amountTnd":{emitted},'.encode() in answer.raw
    read = await partner.get(f"{ESCROWS}/{answer.escrow['id']}")
    assert f'"amount":{emitted},'.encode() in read.raw


@pytest.mark.parametrize("text", ['"100"', '"1e2"', '"100.5"', "true", "[100]", '{"n":100}'])
async def test_money_given_as_a_string_or_anything_else_than_a_number_is_400(
    world: World, partner: Partner, text
):
    async with world.unchanged():
        answer = await create(partner, text_of(amount=text))
        assert answer.differs(400, invalid("amount")) == []


async def test_ids_are_24_lower_case_hex_characters_and_time_ordered(world: World):
    made = []
    for _ in range(3):
        made.append((await world.life()).id)
        await world.advance(hours=1)
    assert made == sorted(made)
    assert all(ID.holds(one) for one in made)


async def test_every_timestamp_is_iso_8601_utc_with_z(world: World):
    life = await world.life("quick", "delivered")
    shown = await life.read()
    named = [key for key in shown if key.endswith(("At", "Deadline")) and shown[key] is not None]
    assert len(named) == len(list(instants(shown))) >= 6


# ---- Bodies -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "raw",
    [b"", b" ", b"{", b"}", b"{'a':1}", b'{"a":1,}', b'{"a" 1}', b"{}{}", b"x", b"\xef\xbb\xbf{}"],
)  # fmt: skip
async def test_malformed_json_is_400(world: World, partner: Partner, raw):
    async with world.unchanged():
        assert (await create(partner, raw)).differs(400, e1(400)) == []


@pytest.mark.parametrize("raw", [b"[]", b"null", b"true", b"5", b'"x"', b'[{"title":"x"}]'])
async def test_a_body_that_is_no_object_is_400(world: World, partner: Partner, raw):
    async with world.unchanged():
        assert (await create(partner, raw)).differs(400, e1(400)) == []


UNREADABLE = {
    "not UTF-8": text_of(title='"?"').encode().replace(b"?", b"\xe9"),
    "UTF-16": text_of().encode("utf-16"),
    "a number of 41 characters": text_of(x="1" * 41),
    "a fraction of 41 characters": text_of(x="0." + "1" * 39),
    "a number beyond 10^30": text_of(x="1e31"),
    "a number beyond -10^30": text_of(x="-1e31"),
    "a number closer to 0 than 10^-30": text_of(x="1e-31"),
    "an endless exponent": text_of(amount="1e10000000"),
    "a duplicate key": text_of(x='1,"x":1'),
    "a duplicate key below": text_of(x='[{"y":1,"y":2}]'),
    "NaN": text_of(amount="NaN"),
    "Infinity": text_of(x="Infinity"),
    "-Infinity": text_of(x="-Infinity"),
    "a lone high surrogate": text_of(title=r'"a\ud83d"'),
    "a lone low surrogate": text_of(title=r'"\ude00b"'),
    "a lone surrogate in a key": text_of(x=r'{"\ud83d":1}'),
    "a lone surrogate in an unknown field": text_of(x=r'["\udfff"]'),
    "NUL": text_of(title=r'"a\u0000b"'),
    "NUL in an unknown field": text_of(x=r'"\u0000"'),
    "a raw control character": text_of(title='"a\nb"'),
    "a depth of 65": text_of(x="[" * 64 + "]" * 64),
    "a depth of 10 000": text_of(x="[" * 10_000 + "]" * 10_000),
}


@pytest.mark.parametrize("name", UNREADABLE)
async def test_what_the_one_reader_refuses_is_400_and_nothing_is_stored(
    world: World, partner: Partner, name
):
    async with world.unchanged():
        assert (await create(partner, UNREADABLE[name])).differs(400, e1(400)) == []


READABLE = {
    "a number of 40 characters": text_of(x="0." + "1" * 38),
    "10^30": text_of(x="1e30"),
    "10^-30": text_of(x="1e-30"),
    "negative zero": text_of(x="-0.0"),
    "a surrogate pair": text_of(title=r'"\ud83d\ude00"'),
    "an emoji": text_of(title='"😀"'),
    "a depth of 64": text_of(x="[" * 63 + "]" * 63),
    "white space around": f"\r\n\t {text_of()} \n",
}


@pytest.mark.parametrize("name", READABLE)
async def test_what_it_does_not_refuse_is_read(partner: Partner, name):
    answer = await create(partner, READABLE[name])
    assert answer.status == 201, answer.raw
    assert answer.escrow["title"] in ("A camera", "😀")


async def test_the_body_is_json_whatever_its_content_type_says(partner: Partner):
    assert (await create(partner, text_of(), **FORM)).status == 201


async def test_hostile_text_is_stored_as_it_was_sent(partner: Partner):
    title = "<script>alert(1)</script> \u202e =1+1 '; DROP TABLE escrow; --"
    answer = await partner.post(ESCROWS, order("instant", new_email(), title=title))
    assert answer.escrow["title"] == title
    read = await partner.get(f"{ESCROWS}/{answer.escrow['id']}")
    assert read.escrow["title"] == title


@pytest.mark.parametrize("path", [ESCROWS, WEBHOOKS, f"{V1}/identity-verifications"])
async def test_a_body_over_256_kib_is_413(world: World, partner: Partner, path):
    async with world.unchanged():
        answer = await partner.post(path, {"title": "x" * 256 * 1024})
        assert answer.differs(413, e1(413)) == []


async def test_a_body_of_just_256_kib_is_read(partner: Partner):
    text = text_of(x='"?"')
    text = text.replace("?", "x" * (256 * 1024 - len(text) + 1))
    assert len(text) == 256 * 1024
    assert (await create(partner, text)).status == 201


async def test_a_declared_length_over_the_limit_is_413_at_once(partner: Partner):
    answer = await speak(partner, "POST", ESCROWS, {"Content-Length": "300000"})
    assert answer.differs(413, e1(413)) == []


async def test_a_compressed_body_is_read_and_bounded_by_what_it_holds(partner: Partner):
    packed = gzip.compress(text_of().encode())
    assert (await create(partner, packed, **{"Content-Encoding": "gzip"})).status == 201
    bomb = gzip.compress(b" " * 1024 * 1024)
    answer = await create(partner, bomb, **{"Content-Encoding": "gzip"})
    assert answer.differs(413, e1(413)) == []


async def test_the_body_is_read_within_its_time_or_408(partner: Partner, monkeypatch):
    assert bodies.BODY_TIMEOUT_SECONDS == 10
    monkeypatch.setattr(bodies, "BODY_TIMEOUT_SECONDS", 0.1)
    answer = await speak(partner, "POST", ESCROWS, {"Content-Length": "100"}, b'{"title')
    assert answer.differs(408, e1(408)) == []


PACKED = gzip.compress(text_of().encode())
BADLY_PACKED = {
    "not packed at all": ("gzip", text_of().encode()),
    "cut short": ("gzip", PACKED[:-12]),
    "cut just before its checksum": ("gzip", PACKED[:-8]),
    "cut within its checksum": ("gzip", PACKED[:-3]),
    "with another checksum": ("gzip", PACKED[:-8] + b"\0" * 8),
    "gzip as deflate": ("deflate", b"\xff" + PACKED),
    "packed in a way that we do not know": ("br", text_of().encode()),
    "packed in no way": ("x", text_of().encode()),
    "packed twice": ("gzip, gzip", gzip.compress(PACKED)),
}


@pytest.mark.parametrize("name", BADLY_PACKED)
async def test_a_bad_content_encoding_is_400(world: World, partner: Partner, name):
    encoding, raw = BADLY_PACKED[name]
    async with world.unchanged():
        answer = await create(partner, raw, **{"Content-Encoding": encoding})
        assert answer.differs(400, e1(400)) == []


async def test_a_broken_multipart_body_is_400(world: World, partner: Partner):
    async with world.unchanged():
        for raw in (
            b"--x\r\n",
            b"--x\r\nContent-Disposition: form-data\r\n\r\n{}\r\n--x--",
            b"--y--",
        ):
            answer = await create(
                partner, raw, **{"Content-Type": "multipart/form-data; boundary=x"}
            )
            assert answer.differs(400, e1(400)) == []


async def test_unknown_body_fields_are_ignored_on_the_compatible_paths(partner: Partner):
    body = order("instant", new_email(), color="red", Title="x", buyer_email=5, fee={"a": [1]})
    assert (await partner.post(ESCROWS, body)).status == 201


@pytest.mark.parametrize(
    ("method", "path", "body"),
    [
        ("POST", "users", {"email": "a@example.org", "firstName": "A", "lastName": "B"}),
        ("POST", "developers", {"email": "a@example.org", "company": "C"}),
        ("PUT", "fx", {"currency": "USD", "rate": 3}),
        ("POST", "clock/advance", {"seconds": 1}),
    ],
)
async def test_unknown_body_fields_are_refused_on_paths_of_our_own(
    world: World, method, path, body
):
    async with world.unchanged():
        answer = await world.root.ask(method, f"{SANDBOX}/{path}", {**body, "color": "red"})
        assert answer.differs(400, invalid("color")) == []


# ---- Paths, methods, ids ------------------------------------------------------------------------


@pytest.mark.parametrize(
    "path",
    ["/", "/api", "/api/v1", f"{ESCROWS}/", "/api/v2/escrows", f"{V1}/Escrows", "/api/v1/%00"],
)
async def test_an_unknown_path_is_404(partner: Partner, path):
    for method in ("GET", "POST"):
        assert (await partner.ask(method, path)).differs(404, e2("Not found")) == []


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", ESCROWS, {"GET", "POST"}),
        ("PATCH", f"{ESCROWS}/{'0' * 24}", {"GET", "PUT"}),
        ("GET", f"{ESCROWS}/{'0' * 24}/cancel", {"POST"}),
        ("POST", f"{V1}/me", {"GET"}),
        ("PUT", WEBHOOKS, {"GET", "POST"}),
        ("POST", "/api/developer/signature", {"GET", "PUT"}),
    ],
)
async def test_a_wrong_method_is_405_with_allow(partner: Partner, method, path, allowed):
    answer = await partner.ask(method, path)
    assert answer.differs(405, e1(405)) == []
    assert {one.strip() for one in answer.headers["Allow"].split(",")} - {"HEAD"} == allowed


@pytest.mark.parametrize("odd", ["x", "0" * 23, "F" * 24, "0" * 24, "%00"])
async def test_a_badly_formed_id_of_another_kind_is_the_404_of_its_kind(partner: Partner, odd):
    answer = await partner.get(f"{WEBHOOKS}/{odd}")
    assert answer.differs(404, e2("Webhook not found")) == []


# ---- Request ids and odd headers ----------------------------------------------------------------

OUR_ID = written("[0-9a-f]{24}")


@pytest.mark.parametrize("path", [ESCROWS, "/nowhere", f"{ESCROWS}/x", f"{SANDBOX}/clock"])
async def test_every_answer_carries_a_request_id_of_ours_or_the_callers(partner: Partner, path):
    assert OUR_ID.holds((await partner.get(path)).headers["X-Request-Id"])
    answer = await partner.get(path, headers={"X-Request-Id": "mine-1"})
    assert answer.headers["X-Request-Id"] == "mine-1"
    answer = await partner.get(path, headers={"Authorization": "", "X-Request-Id": "mine-2"})
    assert answer.headers["X-Request-Id"] == "mine-2"


@pytest.mark.parametrize("odd", ["x" * 129, "a b", "<b>", ""])
async def test_a_request_id_that_is_not_sane_is_replaced(partner: Partner, odd):
    answer = await partner.get(ESCROWS, headers={"X-Request-Id": odd})
    assert answer.status == 200
    assert OUR_ID.holds(answer.headers["X-Request-Id"])


@pytest.mark.parametrize("odd", ["\xe9", "k\xff", "\xc3\xa9"])
@pytest.mark.parametrize("name", ["X-Request-Id", "Idempotency-Key", "Authorization", "X-API-Key"])
async def test_non_ascii_bytes_in_a_header_that_we_read_are_400_or_401(
    world: World, partner: Partner, name, odd
):
    body = text_of().encode()
    given = f"Bearer {odd}" if name == "Authorization" else odd
    status = 401 if name in ("Authorization", "X-API-Key") else 400
    async with world.unchanged():
        answer = await speak(
            partner, "POST", ESCROWS, {"Content-Length": str(len(body)), name: given}, body
        )
        assert answer.differs(status, e1(status)) == []


# ---- Idempotency --------------------------------------------------------------------------------

IN_FLIGHT = e1(409, code="IDEMPOTENCY_IN_FLIGHT")
REUSED = e1(422, code="IDEMPOTENCY_KEY_REUSED")


HOOK = {"url": "http://127.0.0.1:9/hook"}


async def on_escrow(world: World, kind: str, status: str, method: str, tail: str, body):
    life = await world.life(kind, status)
    return life.partner, method, life.path + tail, body, 200


async def on_webhook(world: World, method: str, tail: str, body):
    partner = await world.partner()
    made = (await partner.post(WEBHOOKS, HOOK)).body["webhook"]
    return partner, method, f"{WEBHOOKS}/{made['id']}{tail}", body, 200


async def on_own(world: World, method: str, path: str, body, status: int = 200):
    return await world.partner(), method, path, body, status


async def on_delivery(world: World):
    buyers = await world.partner()
    await world.top_up(buyers.user.email, 1000)
    life = await world.life("quick", "delivered", buyer=buyers.user)
    return buyers, "POST", f"{life.path}/reject-delivery", {}, 200


WRITES = {
    "create": lambda w: on_own(w, "POST", ESCROWS, order("instant", new_email()), 201),
    "update": lambda w: on_escrow(w, "quick", "pending", "PUT", "", {"title": "New"}),
    "deliver": lambda w: on_escrow(w, "quick", "paid", "POST", "/deliver", {}),
    "reject-delivery": on_delivery,
    "cancel": lambda w: on_escrow(w, "quick", "pending", "POST", "/cancel", {}),
    "webhook": lambda w: on_own(w, "POST", WEBHOOKS, HOOK, 201),
    "webhook update": lambda w: on_webhook(w, "PUT", "", {"isActive": False}),
    "secret": lambda w: on_webhook(w, "POST", "/regenerate-secret", {}),
    "signature": lambda w: on_own(w, "PUT", "/api/developer/signature", {"signatureImage": DRAWN}),
    "redirects": lambda w: on_own(w, "PUT", "/api/developer/redirect-urls", {"urls": []}),
    "identity": lambda w: on_own(
        w, "POST", f"{V1}/identity-verifications", {"email": new_email()}, 201
    ),
}
"""Every POST and PUT of the documented API: (who, method, path, body, status)."""


@pytest.mark.parametrize("name", WRITES)
async def test_the_same_key_and_request_gives_the_stored_answer_of_every_post_and_put(
    world: World, name
):
    partner, method, path, body, status = await WRITES[name](world)
    first = await partner.ask(method, path, body, key="k")
    assert first.status == status, first.raw
    assert "Idempotency-Replayed" not in first.headers
    async with world.unchanged():
        again = await partner.ask(method, path, body, key="k")
    assert (again.status, again.raw) == (first.status, first.raw)
    assert again.headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize("name", WRITES)
async def test_the_same_key_with_another_body_is_422(world: World, name):
    partner, method, path, body, status = await WRITES[name](world)
    assert (await partner.ask(method, path, body, key="k")).status == status
    async with world.unchanged():
        answer = await partner.ask(method, path, {**body, "other": 1}, key="k")
        assert answer.differs(422, REUSED) == []


async def test_the_same_key_with_another_path_or_method_is_422(world: World, partner: Partner):
    first, second = [await world.life(partner=partner) for _ in range(2)]
    assert (await partner.post(f"{first.path}/cancel", {}, key="k")).status == 200
    async with world.unchanged(second):
        answer = await partner.post(f"{second.path}/cancel", {}, key="k")
        assert answer.differs(422, REUSED) == []
        assert (await partner.post(ESCROWS, {}, key="k")).differs(422, REUSED) == []
        assert (await partner.put(second.path, {}, key="k")).differs(422, REUSED) == []


async def test_the_stored_answer_is_replayed_whatever_the_state_is_by_then(world: World):
    life = await world.life("quick")
    first = await life.partner.put(life.path, {"title": "New"}, key="k")
    await world.bring(life, "delivered")
    again = await life.partner.put(life.path, {"title": "New"}, key="k")
    assert (again.status, again.raw) == (200, first.raw)
    assert (await life.read())["status"] == "delivered"


async def test_only_2xx_answers_are_stored_so_a_refusal_leaves_the_key_free(world: World):
    life = await world.life("quick")
    refused = await life.partner.post(f"{life.path}/deliver", key="k")
    assert refused.status == 400
    await world.bring(life, "paid")
    answer = await life.partner.post(f"{life.path}/deliver", key="k")
    assert answer.status == 200
    assert "Idempotency-Replayed" not in answer.headers
    bad = await life.partner.post(ESCROWS, {"title": ""}, key="k-2")
    good = await life.partner.post(ESCROWS, order("instant", new_email()), key="k-2")
    assert (bad.status, good.status) == (400, 201)


async def test_a_key_in_flight_is_409_and_is_not_waited_for(world: World, owner):
    life = await world.life("instant", "paid")
    taken = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND granted"
    async with owner.transaction():
        await owner.fetch("SELECT id FROM escrow WHERE id = $1 FOR UPDATE", life.id)
        first = asyncio.create_task(life.partner.post(f"{life.path}/deliver", key="k"))
        async with asyncio.timeout(2):
            while not await owner.fetchval(taken):  # noqa: ASYNC110 - a fact of the database
                await asyncio.sleep(0.005)
        second = await life.partner.post(f"{life.path}/deliver", key="k")
        assert second.differs(409, IN_FLIGHT) == []
        assert not first.done()
    assert (await first).status == 200
    again = await life.partner.post(f"{life.path}/deliver", key="k")
    assert (again.status, again.raw) == (200, (await first).raw)


async def test_the_keys_of_two_developers_are_two_keys(world: World, partner: Partner):
    body = order("instant", new_email())
    answers = [await one.post(ESCROWS, body, key="k") for one in (partner, await world.partner())]
    assert [answer.status for answer in answers] == [201, 201]
    assert answers[0].escrow["id"] != answers[1].escrow["id"]


@pytest.mark.parametrize("key", ["a", "!", "~" * 255, " inner space "])
async def test_a_key_is_1_to_255_printable_characters(partner: Partner, key):
    body = order("instant", new_email())
    assert (await partner.post(ESCROWS, body, key=key)).status == 201
    again = await partner.post(ESCROWS, body, key=key)
    assert again.headers["Idempotency-Replayed"] == "true"


@pytest.mark.parametrize("key", ["", "a" * 256, "a\tb"])
async def test_any_other_key_is_400_and_nothing_is_stored(world: World, partner: Partner, key):
    async with world.unchanged():
        answer = await partner.post(ESCROWS, order("instant", new_email()), key=key)
        assert answer.differs(400, e1(400)) == []


async def test_a_get_takes_no_notice_of_a_key(partner: Partner):
    for _ in range(2):
        answer = await partner.get(ESCROWS, key="k")
        assert answer.status == 200
        assert "Idempotency-Replayed" not in answer.headers


# ---- Families -----------------------------------------------------------------------------------


async def test_error_is_the_statuss_reason_phrase_and_the_message_a_sentence(world: World):
    life = await world.life("quick_proof", "paid")
    lone = await world.partner(associated=False)
    for answer, status, extras in (
        (await lone.post(ESCROWS, {"amount": 1, "sellerEmail": "x"}), 400, {"details": True}),
        (await lone.get(ESCROWS, headers={"Authorization": ""}), 401, {}),
        (await lone.get(life.path), 403, {}),
        (await life.partner.post(f"{life.path}/deliver"), 409, {"code": "PROOF_NOT_ACCEPTED"}),
    ):
        told = {**extras, "details": answer.body["details"]} if "details" in extras else extras
        assert answer.differs(status, e1(status, **told)) == []


async def test_validation_names_each_bad_field_with_a_text_and_no_other(partner: Partner):
    answer = await partner.post(ESCROWS, {"title": 5, "mode": "instant", "language": "xx"})
    bad = ("title", "amount", "buyerEmail", "language")
    assert answer.differs(400, invalid(*bad)) == []


async def test_a_value_that_is_shown_in_a_message_cannot_break_the_json(partner: Partner):
    body = order("instant", new_email(), currency='"}\n<b>', **{'a"b': 1})
    assert (await partner.post(ESCROWS, body)).differs(400, invalid("currency")) == []


async def test_numbers_keep_their_exactness_between_two_fields(world: World):
    life = await world.life("quick", amount=Decimal("123456789.987"))
    assert life.answer.escrow["escrowFee"] == number("6172839.499")
