"""The sandbox's doors to every step of a person, and to the operator's word: operations.md 6."""

import base64

import pytest

from service.ingress.api.sandbox import ACTS
from service.rules.errors import NoOpenDispute
from service.wire.base import instant
from tests.books import assert_sound, count_rows
from tests.makers import bring_on, make_buyer, make_escrow, make_shop, reread
from tests.service.commands.asking import available

SANDBOX = "/api/v1/sandbox"
NOBODY = "nobody@example.org"


@pytest.fixture
async def client(house, ingress):
    async with ingress(None, RATE_LIMIT_PER_MINUTE="0") as opened:
        yield opened


@pytest.fixture
async def shop(house):
    return await make_shop(house)


@pytest.fixture
async def buyer(house):
    return await make_buyer(house)


@pytest.fixture(autouse=True)
async def sound(house):
    """Whatever was done, the books balance."""
    yield
    await assert_sound(house)


async def sent(client, shop, path, body, **headers):
    async with client.post(
        f"{SANDBOX}/{path}", json=body, headers={**shop.headers, **headers}
    ) as response:
        return response.status, await response.json()


async def acted(client, shop, escrow, email, step, **given):
    body = {"email": email, "step": step, **({"input": given} if given else {})}
    return await sent(client, shop, f"escrows/{escrow.id}/act", body)


async def detail_of(client, shop, escrow):
    path = f"/api/v1/escrows/{escrow.id}"
    async with client.get(path, headers=shop.headers) as response:
        return await response.json()


# ---- act ----------------------------------------------------------------------------------------

PNG_BYTES = base64.b64decode(
    "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJg"
    "gg=="
)
PNG = {"name": "receipt.png", "contentBase64": base64.b64encode(PNG_BYTES).decode()}
LEGAL = {
    # step: mode, state, steps before, who, input, the status after it
    "update": ("quick", "pending", (), "seller", {"title": "Two cameras"}, "pending"),
    "accept_pay": ("quick", "pending", (), "buyer", {}, "paid"),
    "sign_contract": ("standard", "pending", (), "buyer", {"signature": "Bo Y"}, "pending"),
    "deliver": ("quick", "paid", (), "seller", {}, "delivered"),
    "complete": ("quick", "delivered", (), "buyer", {}, "completed"),
    "reject_delivery": ("quick", "delivered", (), "buyer", {"reason": "Broken."}, "paid"),
    "cancel": ("quick", "pending", (), "buyer", {}, "cancelled"),
    "cancel_escrow": ("quick", "delivered", (), "seller", {}, "cancelled"),
    "request_cancellation": ("quick", "delivered", (), "buyer", {"reason": "Late."}, "delivered"),
    "accept_cancellation": (
        "quick", "paid", ("request_cancellation",), "seller", {}, "cancelled"),
    "reject_cancellation": (
        "quick", "delivered", ("request_cancellation",), "seller", {}, "delivered"),
    "dispute": ("instant", "paid", (), "seller", {"reason": "Unpaid.", "files": [PNG]}, "disputed"),
    "answer_dispute": (
        "instant", "paid", ("buyers_dispute",), "seller",
        {"text": "It is one.", "files": [PNG], "offer": {"sellerAmount": 60, "buyerAmount": "40"}},
        "disputed"),
    "submit_proof": (
        "quick_proof", "paid", (), "seller", {"files": [PNG, PNG], "note": "As agreed."}, "paid"),
    "accept_proof": ("quick_proof", "paid", ("submit_proof",), "buyer", {}, "paid"),
    "review_proof": ("quick_proof", "paid", ("submit_proof",), "buyer", {"accept": True}, "paid"),
    "request_correction": (
        "quick_proof", "paid", ("submit_proof",), "buyer", {"correction": "Unreadable."}, "paid"),
    "withdraw_dispute": ("quick", "delivered", ("buyers_dispute",), "buyer", {}, "delivered"),
}  # fmt: skip


def test_every_step_that_the_door_offers_is_tried():
    assert set(LEGAL) == set(ACTS)


@pytest.mark.parametrize("step", LEGAL)
async def test_each_step_is_taken_as_this_person_and_answers_the_escrow_as_it_is_read(
    house, client, shop, buyer, step
):
    mode, state, then, who, given, after = LEGAL[step]
    escrow = await make_escrow(house, shop, buyer, mode=mode, status=state, then=then)
    seller = who == "seller"
    status, told = await acted(
        client, shop, escrow, shop.email if seller else buyer.email, step, **given
    )
    assert (status, told["escrow"]["status"]) == (200, after)
    assert told == await detail_of(client, shop, escrow)
    row = await house.pool.fetchrow(
        "SELECT step, actor_kind, actor_id, key_id, ip FROM event WHERE subject_id = $1"
        " ORDER BY seq DESC LIMIT 1",
        escrow.id,
    )
    taken = "accept_proof" if step == "review_proof" else step
    assert (row["step"], row["actor_kind"]) == (taken, "user")
    assert row["actor_id"] == (shop.user_id if seller else buyer.user_id)
    assert (row["key_id"] is not None, row["ip"]) == (True, "127.0.0.1")


@pytest.mark.parametrize("step", LEGAL)
async def test_nobody_takes_it_in_their_place(house, client, shop, buyer, step):
    mode, state, then, who, given, _ = LEGAL[step]
    escrow = await make_escrow(house, shop, buyer, mode=mode, status=state, then=then)
    stranger = await make_buyer(house)
    before = await count_rows(house), await reread(house, escrow.id)
    other = buyer.email if who == "seller" else shop.email
    anybodys = ("cancel", "dispute", "sign_contract", "answer_dispute")
    wrong = [stranger.email] if step in anybodys else [
        stranger.email, other,
    ]  # fmt: skip
    for email in wrong:
        status, told = await acted(client, shop, escrow, email, step, **given)
        assert (status, told["error"]) == (403, "Forbidden")
    status, told = await acted(client, shop, escrow, NOBODY, step, **given)
    assert (status, told["code"]) == (409, "USER_NOT_REGISTERED")
    assert (await count_rows(house), await reread(house, escrow.id)) == before


@pytest.mark.parametrize(
    ("body", "fields"),
    [
        ({}, {"email", "step"}),
        ({"email": "x", "step": ""}, {"email", "step"}),
        ({"email": NOBODY, "step": "fly"}, {"step"}),
        ({"email": NOBODY, "step": "resolve_dispute"}, {"step"}),
        ({"email": NOBODY, "step": "dispute"}, {"reason"}),
        ({"email": NOBODY, "step": "dispute", "input": {"reason": "x" * 2001}}, {"reason"}),
        ({"email": NOBODY, "step": "dispute", "input": {"reason": " "}}, {"reason"}),
        ({"email": NOBODY, "step": "sign_contract", "input": {"signature": ""}}, {"signature"}),
        ({"email": NOBODY, "step": "deliver", "input": {"fast": True}}, {"fast"}),
        ({"email": NOBODY, "step": "deliver", "input": []}, {"input"}),
        ({"email": NOBODY, "step": "deliver", "hours": 1}, {"hours"}),
    ],
)
async def test_what_is_asked_badly_is_400_and_names_its_fields(
    house, client, shop, buyer, body, fields
):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="paid")
    before = await count_rows(house)
    status, told = await sent(client, shop, f"escrows/{escrow.id}/act", body)
    assert (status, told["error"], set(told["details"])) == (400, "Bad Request", fields)
    assert await count_rows(house) == before


async def test_a_third_partys_seller_lives_a_whole_escrow_without_a_key(house, client, shop, buyer):
    seller = await make_buyer(house, funds="0")
    escrow = await make_escrow(house, shop, buyer, mode="standard", seller_email=seller.email)
    for email, step, given in (
        (seller.email, "sign_contract", {"signature": "S. Eller"}),
        (buyer.email, "sign_contract", {"signature": "Bo Y"}),
        (buyer.email, "accept_pay", {}),
        (seller.email, "deliver", {}),
        (buyer.email, "reject_delivery", {}),
        (seller.email, "deliver", {}),
        (buyer.email, "dispute", {"reason": "Still broken."}),
        (buyer.email, "withdraw_dispute", {}),
        (buyer.email, "complete", {}),
    ):
        status, _ = await acted(client, shop, escrow, email, step, **given)
        assert status == 200, step
    assert await available(house, seller.user_id) == 95_000


# ---- files, proofs and answers ------------------------------------------------------------------

BAD_INPUT = [
    ("submit_proof", {}, {"files"}),
    ("submit_proof", {"files": [], "note": ""}, {"files", "note"}),
    ("submit_proof", {"files": "x", "note": 1}, {"files", "note"}),
    ("submit_proof", {"files": [PNG] * 11}, {"files"}),
    ("submit_proof", {"files": [{"name": "", "contentBase64": "?"}], "more": 1},
     {"files.0.name", "files.0.contentBase64", "more"}),
    ("submit_proof", {"files": [{"name": "a.png"}], "note": "x" * 2001},
     {"files.0.contentBase64", "note"}),
    ("review_proof", {}, {"accept", "correction"}),
    ("review_proof", {"accept": True, "correction": "No."}, {"accept", "correction"}),
    ("review_proof", {"accept": False}, {"accept"}),
    ("review_proof", {"correction": " "}, {"correction"}),
    ("review_proof", {"accept": True, "files": [PNG]}, {"files"}),
    ("answer_dispute", {}, {"text"}),
    ("answer_dispute", {"text": "x" * 2001, "files": 1, "offer": {}},
     {"text", "files", "offer.sellerAmount", "offer.buyerAmount"}),
    ("answer_dispute", {"offer": {"sellerAmount": 1, "buyerAmount": 1, "currency": "USD"}},
     {"offer.currency"}),
    ("answer_dispute", {"offer": {"sellerAmount": "1.0001", "buyerAmount": -1}},
     {"offer.buyerAmount"}),
    ("answer_dispute", {"offer": {"sellerAmount": "1.0001", "buyerAmount": "0.00005"}},
     {"offer.sellerAmount", "offer.buyerAmount"}),
    ("answer_dispute", {"acceptOffer": "0" * 24, "text": "?"}, {"text"}),
    ("dispute", {"files": [{}]}, {"reason", "files.0.name", "files.0.contentBase64"}),
]  # fmt: skip


@pytest.mark.parametrize(("step", "given", "fields"), BAD_INPUT)
async def test_every_bad_field_of_an_input_is_named_at_once(
    house, client, shop, buyer, step, given, fields
):
    escrow = await make_escrow(house, shop, buyer, mode="quick_proof", status="paid")
    before = await count_rows(house)
    body = {"email": shop.email, "step": step, "input": given}
    status, told = await sent(client, shop, f"escrows/{escrow.id}/act", body)
    assert (status, set(told["details"])) == (400, fields)
    assert await count_rows(house) == before


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [
        (b"", 400, "FILE_EMPTY"),
        (b"<script>alert(1)</script>" * 10, 400, "FILE_TYPE_UNKNOWN"),
        (PNG_BYTES[:-8], 400, "FILE_TYPE_UNKNOWN"),
        (b"PK\x03\x04" + b"0" * 100, 400, "FILE_TYPE_UNKNOWN"),
    ],
)
async def test_a_file_is_what_it_holds_and_not_what_it_is_called(
    house, client, shop, buyer, content, status, code
):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="disputed")
    before = await count_rows(house), await reread(house, escrow.id)
    bad = {"name": "photo.png", "contentBase64": base64.b64encode(content).decode()}
    got, told = await acted(client, shop, escrow, shop.email, "answer_dispute", files=[PNG, bad])
    assert (got, told.get("code")) == (status, code)
    assert (await count_rows(house), await reread(house, escrow.id)) == before


async def test_the_files_of_a_proof_are_shown_at_signed_addresses(house, client, shop, buyer):
    escrow = await make_escrow(house, shop, buyer, mode="quick_proof", status="paid")
    await acted(client, shop, escrow, shop.email, "submit_proof", files=[PNG], note="Here.")
    path = f"/api/v1/escrows/{escrow.id}/proof"
    async with client.get(path, headers=shop.headers) as response:
        told = (await response.json())["proof"]
    [submission] = told["submissions"]
    assert (told["submissionCount"], submission["note"]) == (1, "Here.")
    assert told["latestSubmission"]["submittedAt"] == submission["submittedAt"]
    [attachment] = submission["attachments"]
    assert attachment["mimeType"] == "image/png"
    path = "/files/" + attachment["viewUrl"].partition("/files/")[2]
    async with client.get(path) as response:
        assert (response.status, await response.read()) == (200, PNG_BYTES)


async def test_an_offer_is_made_read_and_accepted_through_the_doors(house, client, shop, buyer):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="disputed")
    offer = {"sellerAmount": 60, "buyerAmount": "40.000"}
    await acted(client, shop, escrow, shop.email, "answer_dispute", offer=offer)
    path = f"/api/v1/escrows/{escrow.id}/dispute"
    async with client.get(path, headers=shop.headers) as response:
        [made] = (await response.json())["dispute"]["offers"]
    own = await acted(client, shop, escrow, shop.email, "answer_dispute", acceptOffer=made["id"])
    assert (own[0], own[1]["code"]) == (409, "OFFER_OWN")
    gone = await acted(client, shop, escrow, buyer.email, "answer_dispute", acceptOffer="x")
    assert (gone[0], gone[1]["code"]) == (409, "OFFER_CLOSED")
    short = await acted(client, shop, escrow, buyer.email, "answer_dispute",
                        offer={"sellerAmount": 60, "buyerAmount": 39})  # fmt: skip
    assert (short[0], short[1]["code"]) == (400, "SPLIT_MUST_EQUAL_HELD")
    status, told = await acted(
        client, shop, escrow, buyer.email, "answer_dispute", acceptOffer=made["id"]
    )
    assert (status, told["escrow"]["status"]) == (200, "completed")
    assert told["escrow"]["settlement"]["resolvedBy"] == "offer"


@pytest.mark.parametrize(("accept", "phase"), [(True, "accepted"), (False, "rejected")])
async def test_the_operator_decides_a_proof(house, client, shop, buyer, accept, phase):
    rounds = ("submit_proof", "request_correction") * 4
    escrow = await make_escrow(house, shop, buyer, mode="quick_proof", status="paid", then=rounds)
    status, told = await sent(client, shop, f"proofs/{escrow.id}/decide", {"accept": accept})
    assert (status, told["escrow"]["proofInfo"]["phase"]) == (200, phase)
    assert told == await detail_of(client, shop, escrow)
    again = await sent(client, shop, f"proofs/{escrow.id}/decide", {"accept": accept})
    assert (again[0], again[1]["code"]) == (409, "PROOF_WRONG_PHASE")


async def test_a_decision_says_which(client, shop, house, buyer):
    escrow = await make_escrow(house, shop, buyer, mode="quick_proof", status="paid")
    for body in ({}, {"accept": "yes"}, {"accept": True, "why": "?"}):
        status, told = await sent(client, shop, f"proofs/{escrow.id}/decide", body)
        assert (status, len(told["details"])) == (400, 1)


# ---- resolve ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("body", "settlement", "status"),
    [
        ({"to": "seller"}, (100, 0, 5, 95), "completed"),
        ({"to": "buyer"}, (0, 100, 0, 0), "cancelled"),
        ({"sellerAmount": 40, "buyerAmount": 60}, (40, 60, 2, 38), "completed"),
        ({"sellerAmount": "40.000", "buyerAmount": "60"}, (40, 60, 2, 38), "completed"),
        ({"sellerAmount": 0, "buyerAmount": 100}, (0, 100, 0, 0), "cancelled"),
        ({"sellerAmount": 100, "buyerAmount": 0}, (100, 0, 5, 95), "completed"),
    ],
)
async def test_the_operator_settles(house, client, shop, buyer, body, settlement, status):
    escrow = await make_escrow(
        house, shop, buyer, mode="quick", status="delivered", then=("buyers_dispute",)
    )
    code, told = await sent(client, shop, f"disputes/{escrow.id}/resolve", body)
    after = await reread(house, escrow.id)
    sellers, buyers, fee, net = settlement
    assert (code, told) == (200, await detail_of(client, shop, escrow))
    assert told["escrow"]["status"] == status
    assert told["escrow"]["settlement"] == {
        "sellerAmount": sellers,
        "buyerAmount": buyers,
        "escrowFee": fee,
        "developerFee": 0,
        "sellerNet": net,
        "resolvedBy": "operator",
    }
    assert told["escrow"]["disputeTicket"] == {
        "ticketNumber": f"DHM-{after.dispute.ticket_number:05d}",
        "type": "dispute",
        "subject": "Dispute: A camera",
        "status": "resolved",
        "createdAt": instant(after.dispute.opened_at),
        "previewReason": "It is not a camera.",
    }
    assert await available(house, shop.user_id) == net * 1000
    assert await available(house, buyer.user_id) == (900 + buyers) * 1000


@pytest.mark.parametrize(
    "body",
    [
        {"sellerAmount": 40, "buyerAmount": 59.999},
        {"sellerAmount": 40, "buyerAmount": 61},
        {"sellerAmount": 0, "buyerAmount": 0},
        {"sellerAmount": -1, "buyerAmount": 101},
        {"sellerAmount": 101, "buyerAmount": -1},
        {"sellerAmount": 10**18, "buyerAmount": 1},
        {"sellerAmount": 10**30, "buyerAmount": 1},
        {"sellerAmount": -(10**20), "buyerAmount": 10**20},
    ],
)
async def test_parts_that_are_not_what_is_held_are_400(house, client, shop, buyer, body):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="disputed")
    before = await count_rows(house), await reread(house, escrow.id)
    status, told = await sent(client, shop, f"disputes/{escrow.id}/resolve", body)
    assert status == 400, told
    assert told.get("code") == "SPLIT_MUST_EQUAL_HELD" or "details" in told
    assert (await count_rows(house), await reread(house, escrow.id)) == before


@pytest.mark.parametrize(
    "body",
    [
        {},
        {"to": "seller", "sellerAmount": 40, "buyerAmount": 60},
        {"to": "seller", "sellerAmount": 40},
        {"sellerAmount": 40},
        {"buyerAmount": 40},
        {"to": "me"},
        {"sellerAmount": 40.0001, "buyerAmount": 59.9999},
        {"sellerAmount": "forty", "buyerAmount": 60},
        {"sellerAmount": True, "buyerAmount": 60},
        {"to": "seller", "note": "?"},
    ],
)
async def test_a_word_that_is_not_clear_is_400(house, client, shop, buyer, body):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="disputed")
    before = await count_rows(house)
    status, told = await sent(client, shop, f"disputes/{escrow.id}/resolve", body)
    assert (status, told["error"]) == (400, "Bad Request")
    assert told["details"]
    assert await count_rows(house) == before


@pytest.mark.parametrize("state", ["pending", "paid", "delivered", "completed", "cancelled"])
async def test_without_a_dispute_there_is_nothing_to_settle(house, client, shop, buyer, state):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status=state)
    for body in ({"to": "seller"}, {"to": "buyer"}, {"sellerAmount": 1, "buyerAmount": 2}):
        status, told = await sent(client, shop, f"disputes/{escrow.id}/resolve", body)
        assert (status, told) == (
            409,
            {"error": "Conflict", "message": str(NoOpenDispute()), "code": "NO_OPEN_DISPUTE"},
        )


async def test_one_key_settles_once(house, client, shop, buyer):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="disputed")
    path, body = f"disputes/{escrow.id}/resolve", {"to": "seller"}
    answers = [await sent(client, shop, path, body, **{"Idempotency-Key": "k"}) for _ in range(2)]
    assert answers[0] == answers[1]
    assert answers[0][0] == 200
    status, told = await sent(client, shop, path, body)
    assert (status, told["code"]) == (409, "NO_OPEN_DISPUTE")
    assert (await bring_on(house, shop, escrow.id)).status == "completed"
