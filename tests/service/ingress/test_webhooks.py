"""Webhook endpoints over HTTP: what each call answers, and every refusal."""

import re

import pytest

from service.ingress.routes import ROUTES
from service.rules.signing import standard_secret

PATH = "/api/developer/webhooks"
URL = "https://example.com/hook"
INSTANT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
UNKNOWN = "0" * 24
PUBLIC_KEY = re.compile(r"whpk_[A-Za-z0-9+/]{43}=")


@pytest.fixture
async def client(ingress):
    async with ingress(ROUTES, RATE_LIMIT_PER_MINUTE="0") as opened:
        yield opened


@pytest.fixture
def call(client):
    """`await call(developer, method, tail, json)` gives (status, body)."""

    async def made(developer, method, tail="", json=None, **headers):
        sent = {**developer.headers, **headers}
        async with client.request(method, PATH + tail, json=json, headers=sent) as response:
            return response.status, await response.json()

    return made


@pytest.fixture
async def developer(enrolled):
    return await enrolled(associated=False)


async def added(call, developer, **options):
    status, answer = await call(developer, "POST", json={"url": URL, **options})
    assert status == 201, answer
    return answer["webhook"]


async def test_create_answers_with_the_secret_in_both_forms(call, developer):
    status, answer = await call(developer, "POST", json={"url": URL})
    webhook = answer["webhook"]
    assert status == 201
    assert answer == {
        "message": "Webhook created",
        "webhook": {
            "id": webhook["id"],
            "url": URL,
            "secret": webhook["secret"],
            "standardSecret": standard_secret(webhook["secret"]),
            "events": ["escrow.status.updated"],
            "isActive": True,
            "createdAt": webhook["createdAt"],
        },
    }
    assert re.fullmatch(r"[0-9a-f]{64}", webhook["secret"])
    assert re.fullmatch(r"[0-9a-f]{24}", webhook["id"])
    assert INSTANT.fullmatch(webhook["createdAt"])


async def test_the_list_and_the_one_show_the_same_without_a_secret(call, developer):
    made = await added(call, developer, events=["*", "escrow.created", "*"], unknown=1)
    status, listed = await call(developer, "GET")
    expected = {
        "id": made["id"],
        "url": URL,
        "events": ["*", "escrow.created"],
        "isActive": True,
        "lastTriggeredAt": None,
        "lastResponseStatus": None,
        "failureCount": 0,
        "createdAt": made["createdAt"],
        "updatedAt": made["createdAt"],
        "ladder": "standard",
        "timeoutSeconds": 10,
        "maxPerSecond": None,
        "headers": {},
        "fifo": False,
        "ed25519": False,
        "publicKey": None,
        "disabledReason": None,
        "flag": None,
    }
    assert (status, listed) == (200, {"webhooks": [expected]})
    assert await call(developer, "GET", f"/{made['id']}") == (200, {"webhook": expected})


async def test_update_changes_what_it_names_and_nothing_else(call, developer):
    made = await added(call, developer)
    changes = {"events": ["escrow.*"], "isActive": False, "ladder": "brief", "timeoutSeconds": 30}
    status, answer = await call(developer, "PUT", f"/{made['id']}", changes)
    assert (status, answer["message"]) == (200, "Webhook updated")
    for name, value in changes.items():
        assert answer["webhook"][name] == value
    assert answer["webhook"]["url"] == URL
    assert await call(developer, "GET", f"/{made['id']}") == (200, {"webhook": answer["webhook"]})
    status, again = await call(developer, "PUT", f"/{made['id']}", {})
    assert (status, again["webhook"]["events"]) == (200, ["escrow.*"])


async def test_a_pace_is_set_kept_and_taken_off_by_0(call, developer):
    made = await added(call, developer, maxPerSecond=5)
    for given, kept in (({}, 5), ({"maxPerSecond": 7}, 7), ({"maxPerSecond": None}, 7),
                        ({"maxPerSecond": 0}, None), ({}, None)):  # fmt: skip
        status, answer = await call(developer, "PUT", f"/{made['id']}", given)
        assert (status, answer["webhook"]["maxPerSecond"]) == (200, kept)
    free = await added(call, developer, maxPerSecond=0)
    assert (await call(developer, "GET", f"/{free['id']}"))[1]["webhook"]["maxPerSecond"] is None


async def test_what_is_wrong_with_the_address_is_shown_until_there_is_another(
    call, developer, owner
):
    made = await added(call, developer)
    await owner.execute("UPDATE webhook_endpoint SET flag = 'blocked' WHERE id = $1", made["id"])
    for change, flag in (({}, "blocked"), ({"url": f"{URL}/2"}, None)):
        status, answer = await call(developer, "PUT", f"/{made['id']}", change)
        assert (status, answer["webhook"]["flag"]) == (200, flag)
        assert (await call(developer, "GET", f"/{made['id']}"))[1]["webhook"]["flag"] == flag


async def test_every_option_is_set_at_create_and_shown_as_it_was_set(call, developer):
    options = {
        "ladder": "brief",
        "timeoutSeconds": 20,
        "headers": {"X-Tenant": "t-1", "Authorization": "Bearer abcdef"},
        "maxPerSecond": 7,
        "fifo": True,
        "ed25519": True,
    }
    made = await added(call, developer, **options)
    assert PUBLIC_KEY.fullmatch(made["publicKey"])
    _, shown = await call(developer, "GET", f"/{made['id']}")
    assert {name: shown["webhook"][name] for name in options} == options
    assert shown["webhook"]["publicKey"] == made["publicKey"]


async def test_update_changes_each_option_and_leaves_the_others(call, developer):
    made = await added(call, developer, fifo=True, headers={"X-Tenant": "t-1"})
    kept = {"fifo": True, "headers": {"X-Tenant": "t-1"}, "ed25519": False}
    for change in ({}, {"headers": {"X-A": "b"}}, {"headers": {}}, {"fifo": False}):
        kept |= change
        status, answer = await call(developer, "PUT", f"/{made['id']}", change)
        assert status == 200
        assert {name: answer["webhook"][name] for name in kept} == kept
        assert (await call(developer, "GET", f"/{made['id']}"))[1] == {"webhook": answer["webhook"]}


async def test_ed25519_is_switched_on_kept_and_switched_off(call, developer, owner):
    made = await added(call, developer)
    assert "publicKey" not in made
    tail = f"/{made['id']}"
    _, on = await call(developer, "PUT", tail, {"ed25519": True})
    public = on["webhook"]["publicKey"]
    assert PUBLIC_KEY.fullmatch(public)
    _, again = await call(developer, "PUT", tail, {"ed25519": True})
    assert again["webhook"]["publicKey"] == public
    _, rotated = await call(developer, "POST", f"{tail}/regenerate-secret", {"overlapHours": 1})
    assert PUBLIC_KEY.fullmatch(rotated["publicKey"])
    assert rotated["publicKey"] != public
    count = "SELECT count(*) FROM endpoint_secret WHERE endpoint_id = $1 AND public_key IS NOT NULL"
    assert await owner.fetchval(count, made["id"]) == 2
    _, off = await call(developer, "PUT", tail, {"ed25519": False})
    assert (off["webhook"]["publicKey"], off["webhook"]["ed25519"]) == (None, False)
    assert await owner.fetchval(count, made["id"]) == 0
    assert "publicKey" not in (await call(developer, "POST", f"{tail}/regenerate-secret", {}))[1]


async def test_headers_and_private_keys_lie_sealed(call, developer, owner):
    made = await added(call, developer, headers={"X-Token": "t0p-s3cret"}, ed25519=True)
    sealed = await owner.fetchval("SELECT headers FROM webhook_endpoint WHERE id = $1", made["id"])
    assert b"t0p-s3cret" not in sealed
    keys = "SELECT sealed FROM endpoint_secret WHERE endpoint_id = $1"
    assert all(b"whsk_" not in row["sealed"] for row in await owner.fetch(keys, made["id"]))
    await call(
        developer, "PUT", f"/{made['id']}", {"fifo": True}, **{"Idempotency-Key": "headers-1"}
    )
    kept = "SELECT body FROM idempotency WHERE key = 'headers-1'"
    assert b"t0p-s3cret" not in await owner.fetchval(kept)


async def test_a_new_secret_is_another_one(call, developer):
    made = await added(call, developer)
    tail = f"/{made['id']}/regenerate-secret"
    for body in (None, {}, {"overlapHours": 168}):
        status, answer = await call(developer, "POST", tail, body)
        assert (status, answer["message"]) == (200, "Secret regenerated")
        assert answer["secret"] != made["secret"]
        assert answer["standardSecret"] == standard_secret(answer["secret"])


async def test_a_deleted_endpoint_is_gone_and_makes_room(call, developer):
    made = [await added(call, developer) for _ in range(2)]
    assert await call(developer, "DELETE", f"/{made[0]['id']}") == (
        200,
        {"message": "Webhook deleted"},
    )
    assert await call(developer, "GET", f"/{made[0]['id']}") == (
        404,
        {"error": "Webhook not found"},
    )
    await added(call, developer)


async def test_the_third_endpoint_is_one_too_many(call, developer):
    for _ in range(2):
        await added(call, developer)
    assert await call(developer, "POST", json={"url": URL}) == (
        400,
        {"error": "Maximum 2 webhooks allowed per developer"},
    )


@pytest.mark.parametrize(
    ("body", "error"),
    [
        ({}, "Invalid URL format"),
        ({"url": 5}, "Invalid URL format"),
        ({"url": ""}, "Invalid URL format"),
        ({"url": "nowhere"}, "Invalid URL format"),
        ({"url": "https://u:p@example.com/"}, "Invalid URL format"),
        ({"url": "https://127.0.0.1/"}, "Invalid URL format"),
        ({"url": "https://169.254.169.254/"}, "Invalid URL format"),
        ({"url": URL, "events": []}, "events must not be empty"),
        ({"url": URL, "events": "*"}, "events must be a list"),
        ({"url": URL, "events": ["*", "escrow.exploded"]}, "Unknown event type: escrow.exploded"),
        ({"url": URL, "events": ["escrow.status.*"]}, "Unknown event type: escrow.status.*"),
        ({"url": URL, "ladder": "steep"}, "ladder must be one of 'standard' or 'brief'"),
        ({"url": URL, "timeoutSeconds": 31}, "timeoutSeconds must be at most 30"),
        ({"url": URL, "timeoutSeconds": "5"}, "timeoutSeconds must be a whole number"),
        ({"url": URL, "maxPerSecond": 1001}, "maxPerSecond must be at most 1000"),
        ({"url": URL, "maxPerSecond": -1}, "maxPerSecond must be at least 0"),
        ({"url": URL, "headers": {"Host": "x"}}, "headers must not set Host"),
    ],
)
async def test_a_bad_body_is_refused_in_one_sentence(call, developer, body, error):
    assert await call(developer, "POST", json=body) == (400, {"error": error})
    assert await call(developer, "GET") == (200, {"webhooks": []})


@pytest.mark.parametrize("hours", [0, 169, -1, 1.5, "2"])
async def test_an_overlap_is_1_to_168_hours(call, developer, hours):
    made = await added(call, developer)
    tail = f"/{made['id']}/regenerate-secret"
    status, answer = await call(developer, "POST", tail, {"overlapHours": hours})
    assert status == 400
    assert list(answer) == ["error"]
    assert answer["error"].startswith("overlapHours must be")


@pytest.mark.parametrize("tail", [f"/{UNKNOWN}", "/nonsense", f"/{UNKNOWN[:-1]}G"])
@pytest.mark.parametrize("method", ["GET", "PUT", "DELETE"])
async def test_no_such_endpoint_is_404(call, developer, method, tail):
    body = {} if method == "PUT" else None
    assert await call(developer, method, tail, body) == (404, {"error": "Webhook not found"})


async def test_anothers_endpoint_is_no_endpoint(call, developer, enrolled):
    made = await added(call, developer)
    stranger = await enrolled()
    for method, tail, body in (
        ("GET", "", None),
        ("PUT", "", {"isActive": False}),
        ("DELETE", "", None),
        ("POST", "/regenerate-secret", {}),
    ):
        answer = await call(stranger, method, f"/{made['id']}{tail}", body)
        assert answer == (404, {"error": "Webhook not found"})
    assert (await call(stranger, "GET"))[1] == {"webhooks": []}


async def test_the_same_key_gives_the_same_secret_once(call, developer, owner):
    answers = [
        await call(developer, "POST", json={"url": URL}, **{"Idempotency-Key": "k-1"})
        for _ in range(2)
    ]
    assert answers[0] == answers[1]
    assert len((await call(developer, "GET"))[1]["webhooks"]) == 1
    secret = answers[0][1]["webhook"]["secret"].encode()
    kept = "SELECT body FROM idempotency WHERE caller_id = $1"
    assert secret not in await owner.fetchval(kept, developer.developer_id)
    sealed = "SELECT sealed FROM endpoint_secret ORDER BY id DESC LIMIT 1"
    assert secret not in await owner.fetchval(sealed)


async def test_development_may_name_its_own_machine(ingress, developer):
    async with ingress(ROUTES, RATE_LIMIT_PER_MINUTE="0", WEBHOOK_ALLOW_PRIVATE="1") as client:
        for url, status in (("http://localhost:3000/hook", 201), ("http://10.0.0.1:81/", 201)):
            async with client.post(PATH, json={"url": url}, headers=developer.headers) as response:
                assert response.status == status
