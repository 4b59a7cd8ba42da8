"""Deliveries over HTTP: listed, read with attempts, sent again, tried out, recovered, enabled."""

import asyncio
import re
from datetime import UTC, datetime, timedelta

import orjson
import pytest
from aiohttp import web

from service.commands.deliveries import fan_out
from service.commands.perform import tend
from service.gateways.post import HttpPost
from service.ingress.routes import ROUTES
from service.rules.events import TEST
from tests.house import CLEAN, SECRET_KEY
from tests.makers import make_escrow, make_shop, top_up
from tests.receiver import make_endpoint, receiving, verify
from workers import recoveries
from workers.webhooks import Courier

PATH = "/api/developer/webhooks"
UUID = re.compile(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
NONE = "00000000-0000-7000-8000-000000000000"
NOT_FOUND = (404, {"error": "Delivery not found"})


@pytest.fixture
async def client(ingress, house, owner):
    await owner.execute(CLEAN)
    async with ingress(
        ROUTES, RATE_LIMIT_PER_MINUTE="0", AMANA_SECRET_KEY=SECRET_KEY, WEBHOOK_ALLOW_PRIVATE="1"
    ) as opened:
        yield opened


@pytest.fixture
def call(client):
    """`await call(shop, method, tail, json)` gives (status, body)."""

    async def made(shop, method, tail="", json=None, **headers):
        sent = {**shop.headers, **headers}
        async with client.request(method, PATH + tail, json=json, headers=sent) as response:
            return response.status, await response.json()

    return made


@pytest.fixture
async def receiver():
    async with receiving() as opened:
        yield opened


@pytest.fixture
async def courier(house):
    post = HttpPost(allow_private=True)
    hired = Courier(house, post, chance=lambda: 0.5)
    yield hired
    await hired.close(grace_seconds=0)
    await post.close()


@pytest.fixture
async def shop(house):
    return await make_shop(house)


async def a_life(house, shop, receiver, courier, **options):
    """An endpoint that was told of an escrow's life; its id."""
    made = await make_endpoint(house, shop, receiver.url, events=["*"], **options)
    await make_escrow(house, shop, status="completed")
    await courier.settle_all()
    return made


async def test_the_list_shows_the_newest_first_with_every_field(
    call, house, shop, receiver, courier
):
    made = await a_life(house, shop, receiver, courier)
    status, answer = await call(shop, "GET", f"/{made['id']}/deliveries")
    assert status == 200
    told = answer["deliveries"]
    assert [one["type"] for one in told] == ["escrow.status.updated"] * 2 + ["escrow.created"]
    for one in told:
        assert UUID.fullmatch(one["id"])
        assert UUID.fullmatch(one["eventId"])
        assert one == one | {
            "state": "delivered",
            "attempt": 1,
            "nextAttemptAt": None,
            "lastStatus": 200,
            "lastErrorClass": None,
        }
        assert one["settledAt"] >= one["createdAt"]
    assert answer["nextCursor"] is None
    sent = {parcel.headers["X-Webhook-Id"] for parcel in receiver.parcels}
    assert sent == {one["id"] for one in told}


async def test_the_list_walks_by_cursor_and_narrows(call, house, shop, receiver, courier):
    made = await a_life(house, shop, receiver, courier)
    seen, cursor = [], ""
    for _ in range(3):
        _, page = await call(
            shop, "GET", f"/{made['id']}/deliveries?limit=1{cursor and f'&cursor={cursor}'}"
        )
        seen += [one["id"] for one in page["deliveries"]]
        cursor = page["nextCursor"]
    assert cursor is None
    _, whole = await call(shop, "GET", f"/{made['id']}/deliveries")
    assert seen == [one["id"] for one in whole["deliveries"]]
    tomorrow = (datetime.now(UTC) + timedelta(days=1)).date()
    for query, count in (
        ("state=delivered", 3), ("state=pending", 0), ("event=escrow.created", 1),
        ("from=2026-01-01", 3), (f"from={tomorrow}", 0),
        ("event=escrow.created&state=delivered", 1),
    ):  # fmt: skip
        _, page = await call(shop, "GET", f"/{made['id']}/deliveries?{query}")
        assert len(page["deliveries"]) == count, query


@pytest.mark.parametrize(
    "query", ["state=lost", "from=yesterday", "cursor=x", "limit=0", "limit=101"]
)
async def test_a_bad_query_is_refused(call, house, shop, receiver, query):
    made = await make_endpoint(house, shop, receiver.url)
    status, answer = await call(shop, "GET", f"/{made['id']}/deliveries?{query}")
    assert (status, answer["error"]) == (400, "Bad Request")
    assert list(answer["details"]) == [query.partition("=")[0]]


async def test_one_delivery_is_shown_with_every_attempt_and_what_is_sent(
    call, house, owner, shop, receiver, courier
):
    receiver.says(500)
    made = await make_endpoint(
        house, shop, receiver.url, events=["escrow.created"], headers={"X-Token": "t0p-s3cret"}
    )

    async def echo(parcel):  # a receiver that tells in its error what it was sent
        return web.Response(status=500, text=f"bad token {parcel.headers['X-Token']}!")

    receiver.answer = echo
    await make_escrow(house, shop)
    await courier.settle_all()
    receiver.says(204)
    await owner.execute("UPDATE delivery SET visible_at = now()")
    await owner.execute("UPDATE lane SET next_due_at = now()")
    await courier.settle_all()
    _, listed = await call(shop, "GET", f"/{made['id']}/deliveries")
    delivery = listed["deliveries"][0]
    status, answer = await call(shop, "GET", f"/{made['id']}/deliveries/{delivery['id']}")
    told = answer["delivery"]
    assert status == 200
    assert {name: told[name] for name in delivery} == delivery
    assert [(one["n"], one["status"], one["errorClass"]) for one in told["attempts"]] == [
        (1, 500, None),
        (2, 204, None),
    ]
    for one in told["attempts"]:
        assert one["address"] == "127.0.0.1"
        assert one["totalMs"] >= one["firstByteMs"] >= 0
        assert set(one) == {
            "n", "startedAt", "status", "errorClass", "address", "dnsMs", "connectMs", "tlsMs",
            "firstByteMs", "totalMs", "answer",
        }  # fmt: skip
    assert told["attempts"][0]["answer"] == "bad token •••!"
    assert told["request"]["url"] == receiver.url
    assert told["request"]["headers"] == {"X-Token": "•••"}
    assert told["request"]["body"].encode() == receiver.parcels[0].body


async def test_resend_makes_one_more_attempt_with_the_same_body(
    call, house, shop, receiver, courier
):
    made = await a_life(house, shop, receiver, courier)
    _, listed = await call(shop, "GET", f"/{made['id']}/deliveries")
    delivery = listed["deliveries"][0]
    tail = f"/{made['id']}/deliveries/{delivery['id']}"
    status, answer = await call(shop, "POST", f"{tail}/resend")
    assert status == 202
    assert answer["delivery"] == delivery | {
        "state": "pending",
        "settledAt": None,
        "nextAttemptAt": answer["delivery"]["nextAttemptAt"],
    }
    await courier.settle_all()
    first, again = [p for p in receiver.parcels if p.headers["X-Webhook-Id"] == delivery["id"]]
    assert first.body == again.body
    verify(again, made["secret"])
    _, told = await call(shop, "GET", tail)
    assert (told["delivery"]["state"], told["delivery"]["attempt"]) == ("delivered", 2)


async def test_an_exhausted_delivery_has_one_attempt_by_resend(
    call, house, owner, shop, receiver, courier
):
    receiver.says(400)
    made = await make_endpoint(house, shop, receiver.url, events=["escrow.created"], ladder="brief")
    await make_escrow(house, shop)
    await courier.settle_all()
    _, listed = await call(shop, "GET", f"/{made['id']}/deliveries?state=exhausted")
    [delivery] = listed["deliveries"]
    receiver.says(200)
    status, _ = await call(shop, "POST", f"/{made['id']}/deliveries/{delivery['id']}/resend")
    assert status == 202
    await courier.settle_all()
    _, listed = await call(shop, "GET", f"/{made['id']}/deliveries?state=delivered")
    assert [one["attempt"] for one in listed["deliveries"]] == [2]


async def test_two_resends_at_once_make_one_attempt(call, house, shop, receiver, courier):
    made = await a_life(house, shop, receiver, courier)
    _, listed = await call(shop, "GET", f"/{made['id']}/deliveries")
    tail = f"/{made['id']}/deliveries/{listed['deliveries'][0]['id']}/resend"
    answers = await asyncio.gather(*(call(shop, "POST", tail) for _ in range(5)))
    assert {status for status, _ in answers} == {202}
    await courier.settle_all()
    assert len(receiver.parcels) == 4


async def test_what_is_in_flight_is_not_sent_twice_by_a_resend(
    call, house, shop, receiver, courier
):
    made = await make_endpoint(house, shop, receiver.url, events=["escrow.created"])
    receiver.dawdles(0.5)
    await make_escrow(house, shop)
    working = asyncio.create_task(courier.settle_all())
    while not receiver.parcels:  # noqa: ASYNC110 - a fact of the receiver
        await asyncio.sleep(0.01)
    _, listed = await call(shop, "GET", f"/{made['id']}/deliveries")
    [delivery] = listed["deliveries"]
    assert (delivery["state"], delivery["nextAttemptAt"]) == ("pending", None)
    status, _ = await call(shop, "POST", f"/{made['id']}/deliveries/{delivery['id']}/resend")
    assert status == 202
    await working
    await courier.settle_all()
    assert len(receiver.parcels) == 1


async def test_a_receipt_that_is_still_to_be_passed_on_waits_for_it(
    call, house, owner, shop, receiver, courier
):
    made = await a_life(house, shop, receiver, courier)
    _, listed = await call(shop, "GET", f"/{made['id']}/deliveries")
    delivery = listed["deliveries"][0]["id"]
    await owner.execute("UPDATE delivery SET acknowledges = true")
    status, answer = await call(shop, "POST", f"/{made['id']}/deliveries/{delivery}/resend")
    assert (status, answer["code"]) == (409, "DELIVERY_SETTLING")
    await owner.execute("UPDATE delivery SET acknowledged_at = now()")
    status, _ = await call(shop, "POST", f"/{made['id']}/deliveries/{delivery}/resend")
    assert status == 202
    row = "SELECT acknowledges, acknowledged_at FROM delivery WHERE id = $1"
    assert tuple(await owner.fetchrow(row, delivery)) == (False, None)


async def test_what_is_kept_no_longer_cannot_be_sent_again(
    call, house, owner, shop, receiver, courier
):
    made = await a_life(house, shop, receiver, courier)
    _, listed = await call(shop, "GET", f"/{made['id']}/deliveries")
    tail = f"/{made['id']}/deliveries/{listed['deliveries'][0]['id']}"
    await owner.execute("DELETE FROM webhook_body")
    status, answer = await call(shop, "POST", f"{tail}/resend")
    assert (status, answer["code"]) == (409, "BODY_NOT_KEPT")
    _, told = await call(shop, "GET", tail)
    assert told["delivery"]["request"]["body"] is None


async def test_what_was_attempted_a_thousand_times_is_sent_no_more(
    call, house, owner, shop, receiver, courier
):
    made = await a_life(house, shop, receiver, courier)
    _, listed = await call(shop, "GET", f"/{made['id']}/deliveries")
    tail = f"/{made['id']}/deliveries/{listed['deliveries'][0]['id']}"
    await owner.execute("UPDATE delivery SET attempt = 1000")
    before = await owner.fetch("SELECT * FROM delivery ORDER BY id")
    status, answer = await call(shop, "POST", f"{tail}/resend")
    assert (status, answer["code"]) == (409, "TOO_MANY_ATTEMPTS")
    assert await owner.fetch("SELECT * FROM delivery ORDER BY id") == before


async def test_a_test_event_goes_to_this_endpoint_alone_and_verifies(
    call, house, shop, receiver, courier
):
    made = await make_endpoint(house, shop, receiver.url, events=["escrow.created"])
    await make_endpoint(house, shop, f"{receiver.url}/other", events=["*"])
    status, answer = await call(shop, "POST", f"/{made['id']}/test")
    assert (status, answer["delivery"]["type"]) == (202, TEST)
    assert answer["delivery"]["state"] == "pending"
    await courier.settle_all()
    [parcel] = receiver.parcels
    verify(parcel, made["secret"])
    told = orjson.loads(parcel.body)
    assert (told["id"], told["type"]) == (answer["delivery"]["eventId"], TEST)
    assert told["data"]["webhook"]["id"] == made["id"]


async def test_a_test_event_of_a_type_looks_like_a_real_one(call, house, shop, receiver, courier):
    made = await make_endpoint(house, shop, receiver.url)
    status, _ = await call(shop, "POST", f"/{made['id']}/test", {"type": "escrow.status.updated"})
    assert status == 202
    await make_escrow(house, shop, status="paid")
    await courier.settle_all()
    sample, real = (orjson.loads(parcel.body) for parcel in receiver.parcels)
    assert sample["type"] == real["type"]
    assert set(sample["data"]["escrow"]) == set(real["data"]["escrow"])


async def test_a_disabled_endpoint_is_neither_tried_out_nor_recovered_until_it_is_enabled(
    call, house, shop, receiver, courier
):
    made = await a_life(house, shop, receiver, courier)
    tail = f"/{made['id']}"
    _, listed = await call(shop, "GET", f"{tail}/deliveries")
    await call(shop, "PUT", tail, {"isActive": False})
    for path, body in (
        ("/test", None),
        ("/recover", {"since": "2026-01-01"}),
        (f"/deliveries/{listed['deliveries'][0]['id']}/resend", None),
    ):
        status, answer = await call(shop, "POST", tail + path, body)
        assert (status, answer["code"]) == (409, "ENDPOINT_DISABLED")
    status, answer = await call(shop, "POST", f"{tail}/enable")
    assert (status, answer["webhook"]["isActive"]) == (200, True)
    assert (await call(shop, "POST", f"{tail}/test"))[0] == 202


async def test_enable_lets_what_was_parked_fall_due(call, house, shop, receiver, courier):
    made = await make_endpoint(house, shop, receiver.url, events=["*"])
    await make_escrow(house, shop)
    await tend(house, fan_out)
    await call(shop, "PUT", f"/{made['id']}", {"isActive": False})
    _, listed = await call(shop, "GET", f"/{made['id']}/deliveries?state=parked")
    [parked] = listed["deliveries"]
    assert parked["nextAttemptAt"] is None
    await courier.settle_all()
    assert receiver.parcels == []
    status, answer = await call(shop, "POST", f"/{made['id']}/enable")
    assert (status, answer["webhook"]["isActive"]) == (200, True)
    await courier.settle_all()
    assert receiver.types == ["escrow.created"]
    assert (await call(shop, "POST", f"/{made['id']}/enable"))[0] == 200


async def test_enable_takes_the_reason_off_an_endpoint_that_asked_for_no_more(
    call, house, shop, receiver, courier
):
    receiver.says(410)
    made = await make_endpoint(house, shop, receiver.url, events=["*"])
    await make_escrow(house, shop)
    await courier.settle_all()
    _, told = await call(shop, "GET", f"/{made['id']}")
    assert (told["webhook"]["isActive"], bool(told["webhook"]["disabledReason"])) == (False, True)
    _, answer = await call(shop, "POST", f"/{made['id']}/enable")
    assert (answer["webhook"]["isActive"], answer["webhook"]["disabledReason"]) == (True, None)


async def test_recover_sends_in_the_background_what_was_missed_and_nothing_else(
    call, house, owner, shop, receiver, courier
):
    made = await make_endpoint(house, shop, receiver.url, events=["*"], ladder="brief")
    await make_escrow(house, shop)
    await courier.settle_all()
    receiver.says(400)
    await make_escrow(house, shop, status="paid")
    await courier.settle_all()
    receiver.says(200)
    before = len(receiver.parcels)
    status, answer = await call(shop, "POST", f"/{made['id']}/recover", {"since": "2026-01-01"})
    recovery = answer["recovery"]
    assert (status, recovery["state"], recovery["count"]) == (202, "pending", 2)
    assert len(receiver.parcels) == before
    status, again = await call(shop, "POST", f"/{made['id']}/recover", {"since": "2026-01-01"})
    assert (status, again["code"]) == (409, "RECOVERY_UNDER_WAY")
    await recoveries.turn(house)
    await courier.settle_all()
    assert len(receiver.parcels) == before + 2
    _, told = await call(shop, "GET", f"/{made['id']}/recoveries")
    [after] = told["recoveries"]
    assert (after["id"], after["state"]) == (recovery["id"], "done")
    assert (after["count"], after["recovered"]) == (2, 2)
    assert after["finishedAt"] >= after["createdAt"]
    _, listed = await call(shop, "GET", f"/{made['id']}/deliveries?state=delivered")
    assert len(listed["deliveries"]) == 3


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "since is required"),
        ({"since": "soon"}, "since must be an ISO 8601 instant with its offset, or a date"),
        ({"since": "2100-01-01"}, "since must be in the past"),
        ({"since": "2026-02-01", "until": "2026-01-01"}, "until must be after since"),
        ({"since": "2026-01-01", "till": 1}, "till is not a known field"),
        ({"since": 5}, "since must be an ISO 8601 instant with its offset, or a date"),
    ],
)
async def test_a_recovery_needs_a_window_that_has_begun(call, house, shop, receiver, body, error):
    made = await make_endpoint(house, shop, receiver.url)
    assert await call(shop, "POST", f"/{made['id']}/recover", body) == (400, {"error": error})


async def test_an_unknown_type_is_not_tried_out(call, house, shop, receiver):
    made = await make_endpoint(house, shop, receiver.url)
    answer = await call(shop, "POST", f"/{made['id']}/test", {"type": "escrow.exploded"})
    assert answer == (400, {"error": "Unknown event type: escrow.exploded"})


@pytest.mark.parametrize("delivery", [NONE, "nonsense", NONE.upper()[:-1] + "A"])
async def test_no_such_delivery_is_404(call, house, shop, receiver, delivery):
    made = await make_endpoint(house, shop, receiver.url)
    assert await call(shop, "GET", f"/{made['id']}/deliveries/{delivery}") == NOT_FOUND
    assert await call(shop, "POST", f"/{made['id']}/deliveries/{delivery}/resend") == NOT_FOUND


async def test_a_delivery_is_found_at_its_own_endpoint_and_by_its_developer_only(
    call, house, shop, receiver, courier
):
    made = await a_life(house, shop, receiver, courier)
    other = await make_endpoint(house, shop, receiver.url)
    stranger = await make_shop(house)
    _, listed = await call(shop, "GET", f"/{made['id']}/deliveries")
    delivery = listed["deliveries"][0]["id"]
    assert await call(shop, "GET", f"/{other['id']}/deliveries/{delivery}") == NOT_FOUND
    for method, path in (
        ("GET", "/deliveries"),
        ("GET", f"/deliveries/{delivery}"),
        ("POST", f"/deliveries/{delivery}/resend"),
        ("POST", "/recover"),
        ("GET", "/recoveries"),
        ("POST", "/test"),
        ("POST", "/enable"),
    ):
        answer = await call(stranger, method, f"/{made['id']}{path}")
        assert answer == (404, {"error": "Webhook not found"})


async def test_the_same_key_sends_again_once(call, house, shop, receiver, courier):
    made = await a_life(house, shop, receiver, courier)
    _, listed = await call(shop, "GET", f"/{made['id']}/deliveries")
    tail = f"/{made['id']}/deliveries/{listed['deliveries'][0]['id']}/resend"
    answers = []
    for _ in range(2):
        answers.append(await call(shop, "POST", tail, **{"Idempotency-Key": "again-1"}))
        await courier.settle_all()
    assert answers[0] == answers[1]
    assert len(receiver.parcels) == 4


async def test_the_buyers_developer_recovers_too(call, house, receiver, courier):
    """A party's developer has missed what happened before they had an endpoint."""
    seller, party = await make_shop(house), await make_shop(house)
    await top_up(house, party.email, "1000")
    await make_escrow(house, seller, status="paid", buyer_email=party.email)
    await tend(house, fan_out)
    made = await make_endpoint(house, party, receiver.url, events=["*"])
    status, answer = await call(party, "POST", f"/{made['id']}/recover", {"since": "2026-01-01"})
    assert (status, answer["recovery"]["count"]) == (202, 0)
    await recoveries.turn(house)
    await courier.settle_all()
    assert sorted(receiver.types) == ["escrow.created", "escrow.status.updated"]


async def test_a_wish_is_worth_a_probe_of_an_open_breaker(
    call, house, owner, shop, receiver, courier
):
    receiver.says(500)
    made = await make_endpoint(house, shop, receiver.url, events=["escrow.created"])
    for _ in range(12):
        await make_escrow(house, shop)
    await courier.settle_all()
    breaker = "SELECT breaker FROM lane WHERE endpoint_id = $1"
    assert await owner.fetchval(breaker, made["id"]) == "open"
    receiver.says(200)
    before = len(receiver.parcels)
    await courier.settle_all()
    assert len(receiver.parcels) == before
    assert (await call(shop, "POST", f"/{made['id']}/test"))[0] == 202
    await courier.settle_all()
    assert len(receiver.parcels) > before
    assert await owner.fetchval(breaker, made["id"]) == "closed"


async def test_what_a_receiver_has_asked_to_wait_for_is_waited_for(
    call, house, owner, shop, receiver, courier
):
    receiver.says(503, Retry_After="60")
    made = await make_endpoint(house, shop, receiver.url, events=["escrow.created"])
    await make_escrow(house, shop)
    await courier.settle_all()
    receiver.says(200)
    await call(shop, "POST", f"/{made['id']}/test")
    await courier.settle_all()
    assert len(receiver.parcels) == 1
