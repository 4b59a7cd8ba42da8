"""escrows.md 2: keys, association and limits, a test a sentence."""

import secrets
from datetime import UTC, datetime, timedelta

import pytest

from service.commands import developers
from service.settings import Settings
from tests.conformance.shapes import INSTANT_TEXT, SENTENCE, Like, e1, e2, saying
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
from tests.makers import arrange

ME = f"{V1}/me"
LIMITED_HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")
SECONDS = Like("seconds", lambda v: type(v) is int and 1 <= v <= 120)
TOO_MANY = e1(429, retryAfter=SECONDS)


async def knock(partner: Partner, **headers):
    """A call with these headers in place of the key."""
    return await partner.get(ME, headers={"Authorization": "", **headers})


# ---- Keys ---------------------------------------------------------------------------------------


async def test_a_key_opens_as_a_bearer_or_as_x_api_key(partner: Partner):
    for headers in (
        {"Authorization": f"Bearer {partner.key}"},
        {"Authorization": f"bearer {partner.key}"},
        {"X-API-Key": partner.key},
    ):
        answer = await knock(partner, **headers)
        assert (answer.status, answer.body["developer"]["id"]) == (200, partner.developer_id)


async def test_a_key_is_sk_sandbox_and_64_hex_digits(partner: Partner):
    prefix, digits = partner.key.rsplit("_", 1)
    assert prefix == "sk_sandbox"
    assert len(digits) == 64
    assert set(digits) <= set("0123456789abcdef")


async def test_only_a_hash_of_the_key_is_stored(partner: Partner, owner):
    rows = await owner.fetch("SELECT * FROM api_key")
    assert len(rows) == 2
    assert partner.key not in str([dict(row) for row in rows])
    assert partner.key.encode() not in [row["hash"] for row in rows]


@pytest.mark.parametrize(
    "headers",
    [
        {},
        {"Authorization": "Bearer"},
        {"Authorization": "Basic eDp5"},
        {"Authorization": "Bearer nonsense"},
        {"X-API-Key": "sk_sandbox_" + "a" * 64},
        {"X-API-Key": "sk_sandbox_" + "a" * 63},
        {"X-API-Key": "sk_sandbox_" + "A" * 64},
        {"X-API-Key": "sk_test_" + "a" * 64},
        {"X-API-Key": "'; DROP TABLE api_key; --"},
    ],
    ids=str,
)
@pytest.mark.parametrize("path", [ME, ESCROWS, f"{ESCROWS}/{'0' * 24}", WEBHOOKS])
async def test_without_a_key_that_is_known_it_is_401(partner: Partner, headers, path):
    answer = await partner.get(path, headers={"Authorization": "", **headers})
    assert answer.differs(401, e1(401)) == []


async def test_a_key_of_the_other_environment_is_401_and_told_to_use_the_other_key(
    world: World, partner: Partner, live_door
):
    answer = await knock(partner, **{"X-API-Key": "sk_live_" + "a" * 64})
    assert answer.differs(401, e1(401, saying("use your sandbox key"))) == []
    async with live_door() as session:
        answer = await partner.by(session).get(ME)
        assert answer.differs(401, e1(401, saying("use your live key"))) == []


async def test_a_live_deployment_has_no_sandbox_helpers(partner: Partner, live_door, live):
    async with live_door() as session:
        for path in ("clock", "mailbox"):
            answer = await live.by(session).get(f"{SANDBOX}/{path}")
            assert answer.differs(404, e2("Not found")) == []


async def test_a_deactivated_key_is_401(world: World, partner: Partner):
    await arrange(world.house, lambda tx: developers.revoke_key(tx, partner.key[:16]))
    assert (await partner.get(ME)).differs(401, e1(401, saying("deactivated"))) == []


async def test_a_key_may_be_given_an_expiry(world: World, partner: Partner, owner):
    rotated = await arrange(
        world.house,
        lambda tx: developers.rotate_key(tx, partner.key[:16], timedelta(hours=1)),
    )
    told = await partner.get(ME)
    assert (told.status, told.body["apiKey"]["isActive"]) == (200, True)
    ends = datetime.fromisoformat(told.body["apiKey"]["expiresAt"])
    assert timedelta(minutes=59) < ends - datetime.now(UTC) <= timedelta(hours=1, seconds=5)
    await owner.execute("UPDATE api_key SET expires_at = now() WHERE expires_at IS NOT NULL")
    assert (await partner.get(ME)).differs(401, e1(401, saying("expired"))) == []
    assert (await knock(partner, **{"X-API-Key": rotated.api_key})).status == 200


# ---- Association --------------------------------------------------------------------------------


async def test_a_user_is_associated_with_at_most_one_developer(world: World, partner: Partner):
    other = await world.partner(associated=False)
    async with world.unchanged():
        answer = await other.put(f"{SANDBOX}/association", {"email": partner.user.email})
        assert answer.differs(409, e1(409, code="USER_ALREADY_ASSOCIATED")) == []


async def test_a_developer_is_associated_with_exactly_one_user(world: World, partner: Partner):
    life = await world.life(partner=partner)
    person = await world.person()
    answer = await partner.put(f"{SANDBOX}/association", {"email": person.email})
    assert answer.differs(200, {"userId": person.id}) == []
    listed = (await partner.get(f"{ESCROWS}?role=seller")).body["escrows"]
    assert listed == []
    assert (await partner.get(life.path)).status == 200  # as its creator
    assert (await partner.ask("DELETE", f"{SANDBOX}/association")).status == 200
    assert (await partner.get(ESCROWS)).differs(403, e1(403)) == []


NEEDED = [
    ("GET", f"{V1}/balance"),
    ("GET", ESCROWS),
    ("POST", f"{ESCROWS}/{'0' * 24}/deliver"),
    ("POST", f"{ESCROWS}/{'0' * 24}/reject-delivery"),
]
NOT_NEEDED = [
    ("GET", ME, 200),
    ("GET", f"{ESCROWS}/{'0' * 24}", 404),
    ("PUT", f"{ESCROWS}/{'0' * 24}", 404),
    ("POST", f"{ESCROWS}/{'0' * 24}/cancel", 404),
    ("GET", f"{ESCROWS}/{'0' * 24}/contract", 404),
    ("GET", f"{ESCROWS}/{'0' * 24}/proof", 404),
    ("GET", f"{V1}/identity-verifications?email=a@example.org", 200),
    ("GET", WEBHOOKS, 200),
    ("GET", "/api/developer/signature", 200),
    ("GET", "/api/developer/redirect-urls", 200),
]


@pytest.mark.parametrize(("method", "path"), NEEDED)
async def test_association_is_needed_here(world: World, method, path):
    lone = await world.partner(associated=False)
    answer = await lone.ask(method, path)
    assert answer.differs(403, e1(403, saying("associated"))) == []


@pytest.mark.parametrize(("method", "path", "status"), NOT_NEEDED)
async def test_association_is_not_needed_here(world: World, method, path, status):
    lone = await world.partner(associated=False)
    assert (await lone.ask(method, path)).status == status


async def test_create_with_a_seller_email_needs_no_association(world: World):
    lone = await world.partner(associated=False)
    for mode in ("standard", "quick"):
        body = order(mode, new_email(), sellerEmail=new_email())
        assert (await lone.post(ESCROWS, body)).status == 201


# ---- The rate limit -----------------------------------------------------------------------------


@pytest.fixture
def limited(migrated, another_door):
    """`async with limited(2) as session:` a door with this limit a minute and client address."""

    def opened(limit, **more):
        read = type(migrated).model_validate(
            {**migrated.model_dump(), "trusted_proxies": "127.0.0.0/8"}
        )
        return another_door(
            rate_limit_per_minute=limit, trusted_proxies=read.trusted_proxies, **more
        )

    return opened


def address() -> dict[str, str]:
    """A client's address that nobody has had so far."""
    return {"X-Forwarded-For": f"2001:db8::{secrets.token_hex(2)}:{secrets.token_hex(2)}"}


async def test_the_headers_are_on_every_response_of_a_limited_path(partner: Partner, limited):
    async with limited(50) as session:
        who, client = partner.by(session), address()
        seen = []
        for path, status in ((ME, 200), (f"{ESCROWS}/x", 400), (f"{ESCROWS}/{'0' * 24}", 404),
                             ("/api/nowhere", 404), (f"{ESCROWS}?limit=0", 400),
                             ("/api/developer/signature", 200)):  # fmt: skip
            answer = await who.get(path, headers=client)
            assert answer.status == status
            seen.append(int(answer.headers["X-RateLimit-Remaining"]))
            assert answer.headers["X-RateLimit-Limit"] == "50"
            assert INSTANT_TEXT.fullmatch(answer.headers["X-RateLimit-Reset"])
            reset = datetime.fromisoformat(answer.headers["X-RateLimit-Reset"])
            assert timedelta(seconds=-1) < reset - datetime.now(UTC) <= timedelta(seconds=61)
        assert seen == [49, 48, 47, 46, 45, 44]
        bare = await who.get(ME, headers={**client, "Authorization": ""})
        assert (bare.status, bare.headers["X-RateLimit-Remaining"]) == (401, "43")
        wrong = await who.ask("DELETE", ME, headers=client)
        assert (wrong.status, wrong.headers["X-RateLimit-Remaining"]) == (405, "42")


async def test_the_limit_is_100_a_minute_by_default(partner: Partner, limited):
    async with limited(Settings().rate_limit_per_minute) as session:
        answer = await partner.by(session).get(ME, headers=address())
        assert answer.headers["X-RateLimit-Limit"] == "100"


async def test_the_limiter_does_not_cover_the_sandboxs_helpers_nor_other_paths(
    partner: Partner, limited
):
    async with limited(1) as session:
        who, client = partner.by(session), address()
        for path in (f"{SANDBOX}/clock", "/healthz", "/nowhere") * 2:
            answer = await who.get(path, headers=client)
            assert answer.status in (200, 404)
            assert not any(name in answer.headers for name in LIMITED_HEADERS)


async def test_the_other_name_of_the_signature_is_no_way_around_the_limit(
    partner: Partner, limited
):
    async with limited(2) as session:
        who, client = partner.by(session), address()
        seen = [
            await who.get(path, headers=client)
            for path in ("/api/developer/signature", *["/developer/signature"] * 2)
        ]
        assert [answer.status for answer in seen] == [200, 200, 429]
        assert seen[2].differs(429, TOO_MANY) == []


async def test_one_too_many_is_429_with_retry_after_and_is_not_carried_out(
    world: World, partner: Partner, limited
):
    async with limited(2) as session:
        who, client = partner.by(session), address()
        for _ in range(2):
            assert (await who.get(ME, headers=client)).status == 200
        async with world.unchanged():
            answer = await who.post(ESCROWS, order("instant", new_email()), headers=client)
        assert answer.differs(429, TOO_MANY) == []
        assert answer.headers["Retry-After"] == str(answer.body["retryAfter"])
        assert answer.headers["X-RateLimit-Remaining"] == "0"
        assert all(name in answer.headers for name in LIMITED_HEADERS)
        assert (await who.get(ME, headers=address())).status == 200


async def test_the_window_is_shared_by_all_ingress_processes(partner: Partner, limited):
    client = address()
    async with limited(2) as one, limited(2) as other:
        for session in (one, other):
            assert (await partner.by(session).get(ME, headers=client)).status == 200
        for session in (one, other):
            assert (await partner.by(session).get(ME, headers=client)).status == 429


async def test_the_client_is_taken_from_x_forwarded_for_only_when_the_proxies_are_trusted(
    world: World, partner: Partner, another_door
):
    async with another_door(rate_limit_per_minute=100_000) as session:
        left = [
            int((await partner.by(session).get(ME, headers=address())).headers[LIMITED_HEADERS[1]])
            for _ in range(2)
        ]
    assert left[1] == left[0] - 1


async def test_a_key_with_a_limit_of_its_own_has_a_window_of_its_own(
    world: World, partner: Partner, limited, owner
):
    await owner.execute(
        "UPDATE api_key SET rate_limit_per_minute = 3 WHERE developer_id = $1",
        partner.developer_id,
    )
    async with limited(1) as session:
        who, client = partner.by(session), address()
        other = (await world.partner()).by(session)
        for left in (2, 1, 0):
            answer = await who.get(ME, headers=address())
            assert (answer.status, answer.headers["X-RateLimit-Limit"]) == (200, "3")
            assert answer.headers["X-RateLimit-Remaining"] == str(left)
        assert (await who.get(ME, headers=address())).differs(429, TOO_MANY) == []
        assert (await other.get(ME, headers=client)).status == 200
        assert (await other.get(ME, headers=client)).status == 429


async def test_unknown_and_missing_keys_count_per_address(partner: Partner, limited):
    async with limited(2) as session:
        who, client = partner.by(session), address()
        for key in ("", "Bearer sk_sandbox_" + "0" * 64):
            answer = await who.get(ME, headers={**client, "Authorization": key})
            assert answer.status == 401
        assert (await who.get(ME, headers=client)).differs(429, TOO_MANY) == []


async def test_0_switches_it_off_in_the_sandbox(partner: Partner):
    for _ in range(3):
        answer = await partner.get(ME)
        assert answer.status == 200
        assert not any(name in answer.headers for name in LIMITED_HEADERS)


async def test_without_redis_the_limiter_lets_everybody_in(
    partner: Partner, another_door, unused_tcp_port
):
    away = f"redis://127.0.0.1:{unused_tcp_port}/0"
    async with another_door(rate_limit_per_minute=1, redis_url=away) as session:
        who = partner.by(session)
        for _ in range(3):
            assert (await who.get(ME)).status == 200


# ---- The daily cap ------------------------------------------------------------------------------


async def test_the_daily_cap_is_429_with_limit_count_and_remaining(
    world: World, partner: Partner, another_door
):
    told = {
        "error": "Rate Limit Exceeded",
        "message": SENTENCE,
        "limit": 2,
        "count": 2,
        "remaining": 0,
    }
    async with another_door(daily_escrow_cap=2) as session:
        who, other = partner.by(session), (await world.partner()).by(session)
        for _ in range(2):
            assert (await who.post(ESCROWS, order("instant", new_email()))).status == 201
        async with world.unchanged():
            answer = await who.post(ESCROWS, order("instant", new_email()))
            assert answer.differs(429, told) == []
            assert (await who.post(ESCROWS, {"title": 5})).status == 400
        assert (await other.post(ESCROWS, order("instant", new_email()))).status == 201
    assert (await partner.post(ESCROWS, order("instant", new_email()))).status == 201
