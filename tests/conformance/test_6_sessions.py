"""escrows.md 6 over HTTP: checkout sessions made, read, finished and turned away from."""

import asyncio
import base64
from datetime import datetime, timedelta
from typing import Any

import pytest

from service.wire.sessions import Action
from tests.books import assert_sound
from tests.conformance.shapes import (
    ID,
    INSTANT,
    SENTENCE,
    UUID,
    detail,
    differences,
    e1,
    e2,
    invalid,
    saying,
    written,
)
from tests.conformance.world import (
    NOTHING,
    RECEIPT,
    SANDBOX,
    V1,
    Answer,
    Life,
    Partner,
    Person,
    World,
)

BACK = "https://shop.example/back"
REDIRECTS = "/api/developer/redirect-urls"
ACTIONS: tuple[str, ...] = Action.__args__  # type: ignore[attr-defined]
UNKNOWN = "00000000-0000-4000-8000-000000000000"


@pytest.fixture
async def shop(world: World) -> Partner:
    """A partner whose people may be sent back to the shop."""
    return await returning(await world.partner())


async def returning(partner: Partner, *urls: str) -> Partner:
    answer = await partner.put(REDIRECTS, {"urls": list(urls or ("https://shop.example/",))})
    assert answer.status == 200
    return partner


def asking(life: Life, action: str = "accept_pay", who: Person | None = None, **more: Any) -> dict:
    """A body of create, for the buyer unless said otherwise."""
    person = who or life.buyer
    assert person is not None
    sound = {"action": action, "targetUserEmail": person.email, "redirectUrl": BACK}
    return {k: v for k, v in {**sound, **more}.items() if v is not NOTHING}


async def create(life: Life, *what: Any, by: Partner | None = None, **more: Any) -> Answer:
    return await (by or life.partner).post(f"{life.path}/sessions", asking(life, *what, **more))


async def made(life: Life, *what: Any, by: Partner | None = None, **more: Any) -> str:
    """The id of a new session."""
    answer = await create(life, *what, by=by, **more)
    assert answer.status == 201, answer.raw
    session_id: str = answer.body["sessionId"]
    return session_id


async def status_of(life: Life, session_id: str) -> str:
    answer = await life.partner.get(f"{V1}/sessions/{session_id}")
    status: str = answer.body["session"]["status"]
    return status


async def finish(world: World, session_id: str, given: Any = NOTHING, **how: Any) -> Answer:
    body = NOTHING if given is NOTHING else {"input": given}
    return await world.root.post(f"{SANDBOX}/sessions/{session_id}/complete", body, **how)


async def turn_away(world: World, session_id: str) -> Answer:
    return await world.root.post(f"{SANDBOX}/sessions/{session_id}/cancel")


def shown(life: Life, session_id: str, action: str = "accept_pay", **changes: Any) -> dict:
    """A session as its developer reads it."""
    sound = {
        "sessionId": session_id,
        "escrowId": life.id,
        "action": action,
        "targetUserEmail": life.buyer.email if life.buyer else life.buyer_email,
        "status": "pending",
        "metadata": {},
        "expiresAt": INSTANT,
        "completedAt": None,
        "createdAt": INSTANT,
    }
    return {**sound, **changes}


def e3(code: str) -> dict:
    """`{error:{code,type,message,user_message}}`."""
    rule = {
        "code": code,
        "type": "business_rule_violation",
        "message": SENTENCE,
        "user_message": SENTENCE,
    }
    return {"error": rule}


# ---- Making one ---------------------------------------------------------------------------------


async def test_a_session_is_made_with_exactly_this_body(world: World, shop: Partner):
    life = await world.life("quick", partner=shop)
    before = await world.now()
    answer = await create(life)
    url = written(r"http://amana\.test/checkout/[0-9a-f-]{36}")
    assert answer.differs(201, {"sessionId": UUID, "url": url, "expiresAt": INSTANT}) == []
    assert answer.body["url"].endswith("/checkout/" + answer.body["sessionId"])
    lasts = datetime.fromisoformat(answer.body["expiresAt"]) - before
    assert timedelta(minutes=30) <= lasts < timedelta(minutes=30, seconds=5)


async def test_a_session_is_read_by_the_developer_that_made_it(world: World, shop: Partner):
    life = await world.life("quick", partner=shop)
    session_id = await made(life, metadata={"order": "1042", "é": ""})
    answer = await shop.get(f"{V1}/sessions/{session_id}")
    wanted = shown(life, session_id, metadata={"order": "1042", "é": ""})
    assert answer.differs(200, {"session": wanted}) == []
    start, end = (
        datetime.fromisoformat(answer.body["session"][k]) for k in ("createdAt", "expiresAt")
    )
    assert end - start == timedelta(minutes=30)
    assert BACK.encode() not in answer.raw


async def test_another_developers_session_is_not_found_also_for_a_party(
    world: World, shop: Partner
):
    buyers = await returning(await world.partner())
    life = await world.life("quick", partner=shop, buyer=buyers.user)
    mine, theirs = await made(life), await made(life, by=buyers)
    not_found = e2("Checkout session not found")
    for who, session_id in ((buyers, mine), (shop, theirs), (await world.partner(), mine)):
        answer = await who.get(f"{V1}/sessions/{session_id}")
        assert answer.differs(404, not_found) == []
    for odd in (UNKNOWN, "x", mine.upper(), mine.replace("-", ""), "0" * 24):
        assert (await shop.get(f"{V1}/sessions/{odd}")).differs(404, not_found) == []
        assert (await finish(world, odd)).differs(404, not_found) == []
        assert (await turn_away(world, odd)).differs(404, not_found) == []


async def test_a_stranger_has_no_access_and_association_is_not_needed(world: World):
    lone = await returning(await world.partner(associated=False))
    life = await world.life("quick", partner=lone, seller=await world.person())
    assert (await create(life)).status == 201
    stranger = await returning(await world.partner())
    assert (await create(life, by=stranger)).differs(403, e1(403, saying("access"))) == []


async def test_an_unknown_action_lists_the_valid_ones(world: World, shop: Partner):
    life = await world.life("quick", partner=shop)
    for odd in ("pay", "", "ACCEPT_PAY", "deliver"):
        answer = await create(life, odd)
        assert answer.differs(400, invalid("action")) == [], odd
        assert all(action in answer.body["details"]["action"] for action in ACTIONS)
        assert all(action in answer.body["message"] for action in ACTIONS)
    assert len(ACTIONS) == 12


@pytest.mark.parametrize(
    ("more", "field"),
    [
        ({"action": NOTHING}, "action"),
        ({"action": 5}, "action"),
        ({"targetUserEmail": NOTHING}, "targetUserEmail"),
        ({"targetUserEmail": "nobody"}, "targetUserEmail"),
        ({"redirectUrl": NOTHING}, "redirectUrl"),
        ({"redirectUrl": ""}, "redirectUrl"),
        ({"redirectUrl": 5}, "redirectUrl"),
        ({"redirectUrl": BACK + "?" + "x" * 2048}, "redirectUrl"),
        ({"metadata": "x"}, "metadata"),
        ({"metadata": ["x"]}, "metadata"),
        ({"metadata": {f"k{n}": "" for n in range(21)}}, "metadata"),
    ],
)
async def test_field_errors_are_e1(world: World, shop: Partner, more: dict, field: str):
    life = await world.life("quick", partner=shop)
    async with world.unchanged(life):
        assert (await create(life, **more)).differs(400, invalid(field)) == []


async def test_metadata_is_20_strings_of_500_characters(world: World, shop: Partner):
    life = await world.life("quick", partner=shop)
    full = {f"k{n}": "é" * 500 for n in range(20)}
    session_id = await made(life, metadata=full)
    read = await shop.get(f"{V1}/sessions/{session_id}")
    assert read.body["session"]["metadata"] == full
    for odd in ("é" * 501, 5, True, None, {}, []):
        answer = await create(life, metadata={"k": odd})
        assert (answer.status, answer.body["error"]) == (400, "Bad Request"), odd
        assert [name.partition(".")[0] for name in answer.body["details"]] == ["metadata"]
    answer = await create(life, metadata=None, extra="ignored")
    assert answer.status == 201


async def test_the_e_mail_is_trimmed_and_lower_cased(world: World, shop: Partner):
    life = await world.life("quick", partner=shop)
    assert life.buyer is not None
    session_id = await made(life, targetUserEmail=f"  {life.buyer.email.upper()} ")
    read = await shop.get(f"{V1}/sessions/{session_id}")
    assert read.body["session"]["targetUserEmail"] == life.buyer.email


async def test_a_repeated_request_makes_one_session(world: World, shop: Partner):
    life = await world.life("quick", partner=shop)
    one, other = [await shop.post(f"{life.path}/sessions", asking(life), key="k") for _ in "12"]
    assert (one.raw, other.headers["Idempotency-Replayed"]) == (other.raw, "true")
    assert await world.house.pool.fetchval("SELECT count(*) FROM checkout_session") == 1


# ---- The allow-list, and the order of the checks ------------------------------------------------

REFUSED_URLS = {
    "http://shop.example/back": "REDIRECT_URL_MUST_BE_HTTPS",
    "http://127.0.0.1:3000/back": "REDIRECT_URL_MUST_BE_HTTPS",
    "javascript:alert(1)": "REDIRECT_URL_MUST_BE_HTTPS",
    "https://evil.example/back": "REDIRECT_URL_NOT_ALLOWED",
    "https://shop.example:444/back": "REDIRECT_URL_NOT_ALLOWED",
    "https://shop.example.evil.example/back": "REDIRECT_URL_NOT_ALLOWED",
    "https://shop.example@evil.example/back": "REDIRECT_URL_NOT_ALLOWED",
    "https://shop.example/backside": "REDIRECT_URL_NOT_ALLOWED",
    "https://shop.example/back/../admin": "REDIRECT_URL_NOT_ALLOWED",
    "https://shop.example/back#part": "REDIRECT_URL_NOT_ALLOWED",
    "http://localhost:3001/": "REDIRECT_URL_NOT_ALLOWED",
}


async def test_the_redirect_url_must_be_on_the_allow_list(world: World):
    shop = await returning(await world.partner(), BACK, "http://localhost:3000")
    life = await world.life("quick", partner=shop)
    async with world.unchanged(life):
        for url, code in REFUSED_URLS.items():
            assert (await create(life, redirectUrl=url)).differs(400, e3(code)) == [], url
    for url in (BACK, f"{BACK}/x?y=1", "HTTPS://SHOP.example:443/back", "http://localhost:3000/a"):
        assert (await create(life, redirectUrl=url)).status == 201, url


async def test_the_order_is_redirect_url_then_mode_then_target_then_status(world: World):
    """Everything is wrong at first; each mending brings the next refusal out."""
    shop = await world.partner()
    life = await world.life("instant", partner=shop)
    asked: dict[str, Any] = {
        "action": "complete",
        "targetUserEmail": "stranger@example.com",
        "redirectUrl": "http://evil.example/",
    }

    async def told(**mended: str) -> Any:
        asked.update(mended)
        answer = await shop.post(f"{life.path}/sessions", asked)
        assert answer.status == 201 or answer.differs(400, e3(answer.body["error"]["code"])) == []
        return answer.body["error"]["code"] if answer.status == 400 else "made"

    assert await told() == "NO_REDIRECT_URLS_CONFIGURED"
    await returning(shop)
    assert await told() == "REDIRECT_URL_MUST_BE_HTTPS"
    assert await told(redirectUrl="https://evil.example/") == "REDIRECT_URL_NOT_ALLOWED"
    assert await told(redirectUrl=BACK) == "INSTANT_ESCROW_NO_COMPLETE_STEP"
    assert await told(action="request_cancellation") == "CHECKOUT_TARGET_NOT_BUYER"
    assert life.seller is not None
    assert life.buyer is not None
    assert await told(targetUserEmail=life.seller.email) == "CANCELLATION_REQUEST_BUYER_ONLY"
    assert await told(targetUserEmail=life.buyer.email) == "CANCELLATION_REQUEST_INVALID_STATUS"
    await world.bring(life, "paid")
    assert await told() == "made"


CLASHES = [
    ("quick", "pending", "sign_contract", "buyer", "QUICK_ESCROW_NO_CONTRACT"),
    ("instant", "pending", "sign_contract", "seller", "INSTANT_ESCROW_NO_CONTRACT"),
    ("instant", "paid", "complete", "buyer", "INSTANT_ESCROW_NO_COMPLETE_STEP"),
    ("quick", "paid", "submit_proof", "seller", "PROOF_NOT_ENABLED"),
    ("standard", "paid", "review_proof", "buyer", "PROOF_NOT_ENABLED"),
    ("standard", "pending", "accept_pay", "buyer", "CONTRACT_NOT_SIGNED"),
    ("standard", "paid", "sign_contract", "buyer", "PAYMENT_ALREADY_DONE"),
    ("standard", "cancelled", "sign_contract", "seller", "ESCROW_CANCELLED"),
    ("quick", "pending", "accept_pay", "seller", "CHECKOUT_TARGET_NOT_BUYER"),
    ("quick", "paid", "accept_pay", "buyer", "PAYMENT_ALREADY_DONE"),
    ("quick", "disputed", "accept_pay", "buyer", "PAYMENT_ALREADY_DONE"),
    ("quick", "cancelled", "accept_pay", "buyer", "ESCROW_CANCELLED"),
    ("quick", "pending", "complete", "buyer", "ESCROW_NOT_DELIVERED"),
    ("quick", "disputed", "complete", "buyer", "ESCROW_NOT_DELIVERED"),
    ("quick", "cancelled", "complete", "buyer", "ESCROW_CANCELLED"),
    ("quick", "completed", "complete", "buyer", "ESCROW_ALREADY_COMPLETED"),
    ("quick_proof", "pending", "submit_proof", "seller", "PROOF_WRONG_PHASE"),
    ("quick_proof", "paid", "review_proof", "buyer", "PROOF_WRONG_PHASE"),
    ("quick_proof", "paid", "submit_proof", "buyer", "CHECKOUT_TARGET_NOT_SELLER"),
    ("quick", "disputed", "dispute", "seller", "DISPUTE_ALREADY_OPENED"),
    ("quick", "pending", "dispute", "buyer", "DISPUTE_INVALID_STATUS"),
    ("quick", "pending", "request_cancellation", "buyer", "CANCELLATION_REQUEST_INVALID_STATUS"),
    ("quick", "paid", "request_cancellation", "seller", "CANCELLATION_REQUEST_BUYER_ONLY"),
    ("quick", "pending", "cancel_escrow", "seller", "CANCEL_ESCROW_INVALID_STATUS"),
    ("quick", "paid", "cancel_escrow", "buyer", "CANCEL_ESCROW_SELLER_ONLY"),
    ("quick", "paid", "accept_cancellation", "seller", "NO_PENDING_CANCELLATION"),
    ("quick", "delivered", "reject_cancellation", "seller", "NO_PENDING_CANCELLATION"),
    ("quick", "paid", "withdraw_dispute", "buyer", "NO_OPEN_DISPUTE"),
    ("quick", "paid", "answer_dispute", "seller", "NO_OPEN_DISPUTE"),
    ("quick", "disputed", "answer_dispute", "buyer", "CHECKOUT_TARGET_NOT_SELLER"),
]


@pytest.mark.parametrize(("kind", "status", "action", "who", "code"), CLASHES)
async def test_what_stands_against_an_action_is_e3_and_stores_nothing(
    world: World, shop: Partner, kind: str, status: str, action: str, who: str, code: str
):
    life = await world.life(kind, status, partner=shop)
    async with world.unchanged(life):
        answer = await create(life, action, getattr(life, who))
        assert answer.differs(400, e3(code)) == []


async def test_who_has_signed_and_who_has_asked_is_told_so(world: World, shop: Partner):
    life = await world.life("standard", partner=shop)
    await world.act(life, life.seller, "sign_contract", signature="A Name")
    answer = await create(life, "sign_contract", life.seller)
    assert answer.differs(400, e3("CONTRACT_ALREADY_SIGNED")) == []
    assert (await create(life, "sign_contract")).status == 201
    asked = await world.life("quick", "paid", partner=shop)
    await world.act(asked, asked.buyer, "request_cancellation")
    answer = await create(asked, "request_cancellation")
    assert answer.differs(400, e3("CANCELLATION_ALREADY_REQUESTED")) == []


async def test_nobody_pays_a_seller_who_has_not_registered(world: World, shop: Partner):
    life = await world.life("quick", partner=shop, sellerEmail="not-yet@example.org")
    assert (await create(life)).differs(400, e3("SELLER_NOT_READY")) == []


# ---- Finishing one ------------------------------------------------------------------------------

FINISHED: list[tuple[str, str, tuple[str, ...], str, str, Any, str]] = [
    ("standard", "pending", (), "sign_contract", "buyer", {"signature": "Bo Yer"}, "pending"),
    ("quick", "pending", (), "accept_pay", "buyer", NOTHING, "paid"),
    ("instant", "pending", (), "accept_pay", "buyer", {"method": "wallet"}, "paid"),
    ("instant", "pending", (), "accept_pay", "buyer", {"amount": 100}, "paid"),
    ("quick", "delivered", (), "complete", "buyer", NOTHING, "completed"),
    ("quick", "paid", (), "dispute", "seller", {"reason": "Why not."}, "disputed"),
    ("instant", "paid", (), "request_cancellation", "buyer", {"reason": "Late."}, "paid"),
    ("quick", "delivered", (), "cancel_escrow", "seller", NOTHING, "cancelled"),
    ("quick", "paid", ("request_cancellation",), "accept_cancellation", "seller", {}, "cancelled"),
    ("quick", "paid", ("request_cancellation",), "reject_cancellation", "seller", {}, "paid"),
    ("quick", "delivered", ("dispute",), "withdraw_dispute", "buyer", NOTHING, "delivered"),
    ("quick_proof", "paid", (), "submit_proof", "seller", {"files": [RECEIPT] * 10}, "paid"),
    ("quick_proof", "paid", ("submit_proof", "request_correction"), "submit_proof", "seller",
     {"files": [RECEIPT], "note": "Better."}, "paid"),
    ("quick_proof", "paid", ("submit_proof",), "review_proof", "buyer", {"accept": True}, "paid"),
    ("quick_proof", "paid", ("submit_proof",), "review_proof", "buyer",
     {"correction": "Unreadable."}, "paid"),
    ("quick", "delivered", ("dispute",), "answer_dispute", "seller",
     {"text": "No.", "files": [RECEIPT], "offer": {"sellerAmount": 60, "buyerAmount": 40}},
     "disputed"),
    ("instant", "paid", (), "dispute", "buyer", {"reason": "Why not.", "files": [RECEIPT]},
     "disputed"),
]  # fmt: skip


@pytest.mark.parametrize(
    ("kind", "status", "then", "action", "who", "given", "after"),
    FINISHED,
    ids=[
        "-".join((row[3], row[0], row[1], *(row[5] if isinstance(row[5], dict) else ()), *row[2]))
        for row in FINISHED
    ],
)
async def test_a_session_is_finished_as_its_person_with_exactly_this_answer(
    world: World,
    shop: Partner,
    kind: str,
    status: str,
    then: tuple[str, ...],
    action: str,
    who: str,
    given: Any,
    after: str,
):
    life = await world.life(kind, status, partner=shop)
    await world.bring_on(life, *then)
    person: Person = getattr(life, who)
    session_id = await made(life, action, person)
    answer = await finish(world, session_id, given)
    session = shown(
        life,
        session_id,
        action,
        targetUserEmail=person.email,
        status="completed",
        completedAt=INSTANT,
    )
    read = await life.read()
    assert answer.differs(200, {"session": session, "escrow": read}) == []
    assert read["status"] == after
    assert (await shop.get(f"{V1}/sessions/{session_id}")).body["session"] == answer.body["session"]
    again = await finish(world, session_id, given)
    assert again.differs(409, e1(409, saying("completed"), code="SESSION_NOT_PENDING")) == []
    await assert_sound(world.house)


async def decide(world: World, paid: Answer, approve: bool) -> Answer:
    """About the payment that this answer names."""
    path = f"{SANDBOX}/payments/{paid.body['payment']['id']}/decide"
    return await world.root.post(path, {"approve": approve})


async def test_a_card_pays_and_ends_the_session(world: World, shop: Partner):
    life = await world.life("instant", partner=shop)
    session_id = await made(life)
    answer = await finish(world, session_id, {"method": "card", "amount": 100})
    assert (answer.status, answer.body["escrow"]["status"]) == (200, "paid"), answer.raw
    assert answer.body["session"]["status"] == "completed"
    assert differences(answer.body["payment"], {"id": ID, "status": "succeeded"}) == []
    await assert_sound(world.house)


async def test_a_transfer_with_a_proof_waits_for_the_operator(world: World, shop: Partner):
    life = await world.life("instant", partner=shop)
    session_id = await made(life)
    answer = await finish(world, session_id, {"method": "bank_transfer", "proof": True})
    assert (answer.status, answer.body["escrow"]["status"]) == (200, "pending"), answer.raw
    assert answer.body["session"]["status"] == "pending"
    assert differences(answer.body["payment"], {"id": ID, "status": "pending"}) == []
    decided = await decide(world, answer, approve=True)
    assert (decided.status, decided.body["payment"]["state"]) == (200, "succeeded")
    assert await status_of(life, session_id) == "completed"
    assert (await life.read())["status"] == "paid"
    await assert_sound(world.house)


async def test_a_guests_proof_outlives_the_session_and_may_be_sent_again(
    world: World, shop: Partner
):
    life = await world.life("instant", partner=shop, buyerEmail="guest@example.org")
    body = {"action": "accept_pay", "targetUserEmail": "guest@example.org", "redirectUrl": BACK}
    session_id = (await shop.post(f"{life.path}/sessions", body)).body["sessionId"]
    for approve, status in ((False, "pending"), (True, "completed")):
        answer = await finish(world, session_id, {"method": "bank_transfer", "proof": True})
        assert answer.status == 200, answer.raw
        under_way = await finish(world, session_id, {"method": "bank_transfer"})
        assert (under_way.status, under_way.body["code"]) == (409, "PAYMENT_UNDER_WAY")
        await world.advance(hours=1)
        assert await status_of(life, session_id) == "pending"
        assert (await decide(world, answer, approve)).status == 200
        assert await status_of(life, session_id) == status
    assert (await life.read())["status"] == "paid"
    await assert_sound(world.house)


@pytest.mark.parametrize(
    ("given", "status", "code"),
    [
        ({"method": "card", "amount": 99}, 409, "AMOUNT_CHANGED"),
        ({"method": "barter"}, 400, None),
        ({"method": "card", "proof": "perhaps"}, 400, None),
    ],
)
async def test_another_way_to_pay_may_be_refused(
    world: World, shop: Partner, given: dict, status: int, code: str | None
):
    life = await world.life("instant", partner=shop)
    answer = await finish(world, await made(life), given)
    assert (answer.status, answer.body.get("code")) == (status, code), answer.raw
    assert (await life.read())["status"] == "pending"


async def test_who_turned_away_leaves_the_escrow_as_it_is(world: World, shop: Partner):
    life = await world.life("quick", partner=shop)
    session_id = await made(life)
    before = await life.read()
    answer = await turn_away(world, session_id)
    assert answer.differs(200, {"session": shown(life, session_id, status="cancelled")}) == []
    assert await life.read() == before
    for again in (await turn_away(world, session_id), await finish(world, session_id)):
        wanted = e1(409, saying("cancelled"), code="SESSION_NOT_PENDING")
        assert again.differs(409, wanted) == []


async def test_a_session_expires_by_the_clock(world: World, shop: Partner):
    life = await world.life("quick", partner=shop)
    session_id = await made(life)
    assert (await world.advance(hours=0.5 - 5 / 3600))["fired"] == []
    assert await status_of(life, session_id) == "pending"
    [fired] = (await world.advance(hours=10 / 3600))["fired"]
    read = (await shop.get(f"{V1}/sessions/{session_id}")).body["session"]
    assert fired == {"escrowId": life.id, "kind": "session", "dueAt": read["expiresAt"]}
    assert read == shown(life, session_id, status="expired") | {
        name: read[name] for name in ("expiresAt", "createdAt")
    }
    for late in (await finish(world, session_id), await turn_away(world, session_id)):
        assert late.differs(409, e1(409, saying("expired"), code="SESSION_NOT_PENDING")) == []
    assert (await life.read())["status"] == "pending"


@pytest.mark.parametrize("frozen", [False, True])
async def test_a_session_has_expired_by_the_clock_also_where_no_sweep_comes(
    world: World, shop: Partner, owner, frozen: bool
):
    life = await world.life(partner=shop)
    session_id = await made(life)
    if frozen:
        await owner.execute("UPDATE escrow SET frozen = true WHERE id = $1", life.id)
    await owner.execute("UPDATE clock SET shift = shift + interval '30 minutes'")
    assert await status_of(life, session_id) == "expired"
    late = await finish(world, session_id)
    assert late.differs(409, e1(409, saying("expired"), code="SESSION_NOT_PENDING")) == []


async def test_a_person_who_has_not_registered_does_so_first(world: World, shop: Partner):
    life = await world.life("quick", partner=shop)
    life.buyer, life.buyer_email = None, "new@example.org"
    answer = await shop.put(life.path, {"title": "Another"})
    invited = await world.life("quick", partner=shop, buyerEmail="new@example.org")
    assert answer.status == 200
    session_id = await made(invited, targetUserEmail="new@example.org")
    async with world.unchanged(invited):
        answer = await finish(world, session_id)
        assert answer.differs(409, e1(409, code="USER_NOT_REGISTERED")) == []
    assert await status_of(invited, session_id) == "pending"
    await world.person("new@example.org", funds=100)
    assert (await finish(world, session_id)).status == 200


async def test_a_refused_step_leaves_the_session_pending(world: World, shop: Partner):
    poor = await world.person(funds=99)
    life = await world.life("quick", partner=shop, buyer=poor)
    session_id = await made(life)
    async with world.unchanged(life):
        answer = await finish(world, session_id)
        assert answer.differs(409, e1(409, code="INSUFFICIENT_FUNDS")) == []
    assert await status_of(life, session_id) == "pending"
    await world.top_up(poor.email, 1)
    assert (await finish(world, session_id)).status == 200
    await assert_sound(world.house)


async def test_the_state_is_checked_again_when_the_person_confirms(world: World, shop: Partner):
    life = await world.life("standard", partner=shop)
    await world.sign(life)
    session_id = await made(life)
    answer = await shop.put(life.path, {"contractTerms": "Otherwise."})
    assert answer.status == 200
    assert (await finish(world, session_id)).differs(409, e1(409, code="CONTRACT_NOT_SIGNED")) == []
    await world.sign(life)
    assert (await finish(world, session_id)).status == 200


async def test_another_amount_than_was_shown_is_refused(world: World, shop: Partner):
    life = await world.life("quick", partner=shop)
    session_id = await made(life)
    assert (await shop.put(life.path, {"amount": 120.5})).status == 200
    answer = await finish(world, session_id, {"amount": 100})
    wanted = e1(409, saying("120.5"), code="AMOUNT_CHANGED")
    assert answer.differs(409, wanted) == []
    assert await status_of(life, session_id) == "pending"
    assert (await finish(world, session_id, {"amount": 120.5})).escrow["status"] == "paid"


@pytest.mark.parametrize(
    ("action", "given"),
    [
        ("accept_pay", {"method": "cash"}),
        ("accept_pay", {"amount": "100"}),
        ("accept_pay", {"unknown": 1}),
        ("sign_contract", {}),
        ("sign_contract", {"signature": " "}),
        ("sign_contract", {"signature": "x" * 201}),
    ],
)
async def test_bad_input_is_400_and_spends_nothing(
    world: World, shop: Partner, action: str, given: dict
):
    life = await world.life("quick" if action == "accept_pay" else "standard", partner=shop)
    session_id = await made(life, action)
    async with world.unchanged(life):
        answer = await finish(world, session_id, given)
        assert (answer.status, answer.body["error"]) == (400, "Bad Request")
        assert answer.body["details"]
    assert await status_of(life, session_id) == "pending"


async def test_the_bodies_of_finish_and_cancel_are_our_own(world: World, shop: Partner):
    life = await world.life("quick", partner=shop)
    session_id = await made(life)
    path = f"{SANDBOX}/sessions/{session_id}/complete"
    for odd in ({"inptu": {}}, {"input": []}, {"input": "x"}):
        assert (await world.root.post(path, odd)).status == 400
    assert (await world.root.post(path, {"input": None})).status == 200


PROOF_INPUT: list[tuple[str, tuple[str, ...], str, dict]] = [
    ("submit_proof", (), "seller", {}),
    ("submit_proof", (), "seller", {"files": []}),
    ("submit_proof", (), "seller", {"files": [RECEIPT] * 11}),
    ("submit_proof", (), "seller", {"files": [{"name": "a.png", "contentBase64": "!"}]}),
    ("review_proof", ("submit_proof",), "buyer", {}),
    ("review_proof", ("submit_proof",), "buyer", {"accept": False}),
    ("review_proof", ("submit_proof",), "buyer", {"accept": True, "correction": "?"}),
    ("review_proof", ("submit_proof",), "buyer", {"correction": "x" * 2001}),
    ("answer_dispute", ("dispute",), "seller", {}),
    ("answer_dispute", ("dispute",), "seller", {"offer": {"sellerAmount": 1}}),
    ("answer_dispute", ("dispute",), "seller", {"text": "?", "acceptOffer": "0" * 24}),
]


@pytest.mark.parametrize(("action", "then", "who", "given"), PROOF_INPUT)
async def test_bad_input_about_proofs_and_answers_is_400_and_spends_nothing(
    world: World, shop: Partner, action: str, then: tuple[str, ...], who: str, given: dict
):
    life = await world.life("quick_proof", "paid", partner=shop)
    await world.bring_on(life, *then)
    session_id = await made(life, action, getattr(life, who))
    async with world.unchanged(life):
        answer = await finish(world, session_id, given)
        assert (answer.status, answer.body["error"]) == (400, "Bad Request")
        assert answer.body["details"]
    assert await status_of(life, session_id) == "pending"


async def test_files_of_nearly_16_mib_are_taken_and_more_is_413(world: World, shop: Partner):
    life = await world.life("quick_proof", "paid", partner=shop)
    session_id = await made(life, "submit_proof", life.seller)
    head, end = b"%PDF-1.7\n", b"\n%%EOF\n"
    content = base64.b64encode(head + b"0" * (9 * 1024 * 1024) + end).decode()
    large = {"name": "large.pdf", "contentBase64": content}
    assert (await finish(world, session_id, {"files": [large, large]})).status == 413
    answer = await finish(world, session_id, {"files": [large, RECEIPT]})
    assert (answer.status, answer.body["session"]["status"]) == (200, "completed")
    too_large = {"name": "a.pdf", "contentBase64": base64.b64encode(
        head + b"0" * (10 * 1024 * 1024) + end).decode()}  # fmt: skip
    disputing = await made(life, "dispute", reason="x")
    answer = await finish(world, disputing, {"reason": "No.", "files": [too_large]})
    assert (answer.status, answer.body["code"]) == (413, "FILE_TOO_LARGE")


# ---- Ended by what happens meanwhile ------------------------------------------------------------


async def test_the_same_step_by_another_way_cancels_a_session(world: World, shop: Partner):
    life = await world.life("quick", partner=shop)
    first, second = await made(life), await made(life)
    await world.pay(life)
    assert [await status_of(life, one) for one in (first, second)] == ["cancelled"] * 2
    answer = await finish(world, first)
    assert answer.differs(409, e1(409, saying("cancelled"), code="SESSION_NOT_PENDING")) == []


async def test_the_other_partys_signing_session_stays(world: World, shop: Partner):
    life = await world.life("standard", partner=shop)
    mine, spare = await made(life, "sign_contract"), await made(life, "sign_contract")
    sellers = await made(life, "sign_contract", life.seller)
    assert (await finish(world, mine, {"signature": "Bo"})).status == 200
    told = [await status_of(life, one) for one in (mine, spare, sellers)]
    assert told == ["completed", "cancelled", "pending"]
    assert (await finish(world, sellers, {"signature": "Sal"})).status == 200


async def test_a_final_status_cancels_what_is_pending(world: World, shop: Partner):
    life = await world.life("quick", "delivered", partner=shop)
    open_ones = [
        await made(life, "dispute", life.seller),
        await made(life, "dispute", life.buyer),
        await made(life, "request_cancellation"),
        await made(life, "cancel_escrow", life.seller),
    ]
    assert (await finish(world, await made(life, "complete"))).status == 200
    assert {await status_of(life, one) for one in open_ones} == {"cancelled"}
    assert (await world.advance(hours=1))["fired"] == []
    await assert_sound(world.house)


# ---- At once, repeated, rehearsed ---------------------------------------------------------------


async def test_of_two_tabs_one_finishes(world: World, shop: Partner):
    for _ in range(4):
        life = await world.life("quick", partner=shop)
        session_id = await made(life)
        answers = await asyncio.gather(*(finish(world, session_id) for _ in range(3)))
        assert sorted(a.status for a in answers) == [200, 409, 409]
        assert {a.body["code"] for a in answers if a.status == 409} == {"SESSION_NOT_PENDING"}
        assert await world.wallet(life.buyer) == 900
    await assert_sound(world.house)


async def test_finishing_while_the_amount_is_changed_is_before_or_after(
    world: World, shop: Partner
):
    for n in range(6):
        life = await world.life("quick", partner=shop)
        session_id = await made(life)
        work = [finish(world, session_id, {"amount": 100}), shop.put(life.path, {"amount": 70})]
        got = await asyncio.gather(*(work if n % 2 else work[::-1]))
        paid, changed = got if n % 2 else got[::-1]
        assert (paid.status, changed.status) in ((200, 400), (409, 200))
        assert await world.wallet(life.buyer) == (900 if paid.status == 200 else 1000)
        assert paid.status == 200 or paid.body["code"] == "AMOUNT_CHANGED"
    await assert_sound(world.house)


async def test_finishing_while_the_clock_is_moved_past_its_time_is_before_or_after(
    world: World, shop: Partner
):
    for _ in range(4):
        life = await world.life("quick", partner=shop)
        session_id = await made(life)
        paid, _ = await asyncio.gather(finish(world, session_id), world.advance(hours=1))
        after = (paid.status, await status_of(life, session_id), (await life.read())["status"])
        assert after in ((200, "completed", "paid"), (409, "expired", "pending"))
    await assert_sound(world.house)


async def test_a_repeated_finish_is_answered_as_the_first(world: World, shop: Partner):
    life = await world.life("quick", partner=shop)
    session_id = await made(life)
    one, other = [await finish(world, session_id, {}, key="once") for _ in "12"]
    assert (one.status, one.raw) == (200, other.raw)
    assert other.headers["Idempotency-Replayed"] == "true"


async def test_none_of_it_is_rehearsed(world: World, shop: Partner):
    life = await world.life("quick", partner=shop)
    session_id = await made(life)
    asked = {
        f"{life.path}/sessions": asking(life),
        f"{SANDBOX}/sessions/{session_id}/complete": {},
        f"{SANDBOX}/sessions/{session_id}/cancel": {},
    }
    async with world.unchanged(life):
        for path, body in asked.items():
            answer = await shop.post(f"{path}?dry_run=true", body)
            assert answer.differs(400, e1(400, saying("dry_run"))) == []
    assert await status_of(life, session_id) == "pending"


async def test_a_finished_session_reads_the_escrow_in_full(world: World, shop: Partner):
    life = await world.life("instant", partner=shop)
    answer = await finish(world, await made(life))
    assert (
        answer.differs(
            200,
            {
                "session": shown(
                    life,
                    answer.body["session"]["sessionId"],
                    status="completed",
                    completedAt=INSTANT,
                ),
                "escrow": detail(life, status="paid", paidAt=INSTANT),
            },
        )
        == []
    )
