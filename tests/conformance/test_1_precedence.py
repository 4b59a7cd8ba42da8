"""escrows.md 1, the Ruling on precedence: of two checks that fail, the first one answers.

Every pair of checks of a path is broken at once; the answer must be that of the earlier one.
"""

import itertools
import secrets

import pytest
import pytest_asyncio

from tests.conformance.conftest import serving
from tests.conformance.shapes import Like, changed, e1, e2, invalid, saying
from tests.conformance.world import ESCROWS, NOTHING, World, new_email, order

LIMITED = e1(429, retryAfter=Like("seconds", lambda v: type(v) is int and 1 <= v <= 120))
ANSWERS = {
    "rate limit": (429, LIMITED),
    "key": (401, e1(401)),
    "association": (403, e1(403, saying("associated"))),
    "id syntax": (400, e2("Invalid escrow ID")),
    "existence": (404, e2("Escrow not found")),
    "access": (403, e1(403, saying("access"))),
    "party": (403, e1(403, saying("only the seller"))),
    "idempotency key": (400, e1(400, saying("Idempotency-Key"))),
    "used key": (422, e1(422, code="IDEMPOTENCY_KEY_REUSED")),
    "body": (400, e1(400, saying("JSON"))),
}
READ = ("rate limit", "key", "id syntax", "existence", "access")
WRITE = (*READ, "party", "idempotency key", "body")
DELIVER = (*READ[:2], "association", *WRITE[2:], "state")
UPDATE = (*WRITE, "fields", "state")
LIST = ("rate limit", "key", "association", "query")
CREATE = ("rate limit", "key", "idempotency key", "used key", "body", "403", "fields", "rules")


def pairs(checks):
    return pytest.mark.parametrize(("first", "second"), list(itertools.combinations(checks, 2)))


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def narrow_door(migrated):
    """An ingress that lets each address in once a minute; the address is the one forwarded."""
    proxies = {"trusted_proxies": ("127.0.0.0/8",)}
    settings = type(migrated).model_validate(
        {**migrated.model_dump(), **proxies, "rate_limit_per_minute": 1}
    )
    async with serving(settings) as session:
        yield session


@pytest.fixture
def ask(narrow_door):
    """`await ask(who, broken, method, path, body)`: one call with the broken checks of the door."""

    async def asked(who, broken, method, path, body=NOTHING):
        who = who.by(narrow_door)
        headers = {"X-Forwarded-For": f"2001:db8::{secrets.token_hex(2)}:{secrets.token_hex(2)}"}
        if "key" in broken:
            headers["Authorization"] = ""
        if "rate limit" in broken:
            await who.get("/api/v1/me", headers=headers)
        key = "" if "idempotency key" in broken else None
        key = "used" if "used key" in broken and key is None else key
        given = {"raw": b"{"} if "body" in broken else {"body": body}
        return await who.ask(method, path, headers=headers, key=key, **given)

    return asked


async def an_escrow(world: World, broken, status):
    """(who asks, path) of a quick escrow with these checks broken."""
    is_associated = "association" not in broken
    who = await world.partner(associated=is_associated)
    buyers = await world.partner()
    await world.top_up(buyers.user.email, 100)
    third = {} if is_associated else {"seller": await world.person()}
    life = await world.life("quick", status, partner=who, buyer=buyers.user, **third)
    if "access" in broken:
        who = await world.partner(associated=is_associated)
    elif "party" in broken and is_associated:
        who = buyers
    path = life.path
    if "existence" in broken:
        path = f"{ESCROWS}/{'0' * 24}"
    if "id syntax" in broken:
        path = f"{ESCROWS}/X"
    return who, path


@pairs(DELIVER)
async def test_deliver_is_answered_by_the_first_check_that_fails(world, ask, first, second):
    broken = {first, second}
    who, path = await an_escrow(world, broken, "pending" if "state" in broken else "paid")
    answer = await ask(who, broken, "POST", f"{path}/deliver")
    assert answer.differs(*ANSWERS[first]) == []


@pairs(UPDATE)
async def test_update_is_answered_by_the_first_check_that_fails(world, ask, first, second):
    broken = {first, second}
    who, path = await an_escrow(world, broken, "paid" if "state" in broken else "pending")
    body = {"title": "", "amount": -1} if "fields" in broken else {"title": "New"}
    answer = await ask(who, broken, "PUT", path, body)
    expected = {**ANSWERS, "fields": (400, invalid("title", "amount"))}[first]
    assert answer.differs(*expected) == []


@pairs(READ)
@pytest.mark.parametrize("tail", ["", "/contract", "/proof"])
async def test_a_read_is_answered_by_the_first_check_that_fails(world, ask, tail, first, second):
    broken = {first, second}
    who, path = await an_escrow(world, broken, "pending")
    answer = await ask(who, broken, "GET", f"{path}{tail}")
    assert answer.differs(*ANSWERS[first]) == []


@pairs(LIST)
async def test_the_list_is_answered_by_the_first_check_that_fails(world, ask, first, second):
    broken = {first, second}
    who = await world.partner(associated="association" not in broken)
    query = "?limit=0" if "query" in broken else ""
    assert (await ask(who, broken, "GET", f"{ESCROWS}{query}")).differs(*ANSWERS[first]) == []


@pairs(CREATE)
async def test_create_is_answered_by_the_first_check_that_fails(world, ask, first, second):
    broken = {first, second}
    who = await world.partner(associated="403" not in broken)
    if "used key" in broken:
        third = {"sellerEmail": new_email()}
        used = await who.post(ESCROWS, order("quick", new_email(), **third), key="used")
        assert used.status == 201
    changes = {"title": 5, "buyerEmail": "x"} if "fields" in broken else {}
    if "rules" in broken:
        changes["currency"] = "USD"  # there is no rate
    body = changed(order("instant", new_email()), changes)
    answer = await ask(who, broken, "POST", ESCROWS, body)
    expected = {
        **ANSWERS,
        "403": (403, e1(403)),
        "fields": (400, invalid("title", "buyerEmail")),
    }[first]
    assert answer.differs(*expected) == []


async def test_who_may_never_take_a_step_is_told_so_before_its_state(world: World):
    """The 403 of the wrong party comes before the 400 of the wrong status."""
    life = await world.life("quick")
    answer = await life.partner.post(f"{life.path}/reject-delivery")
    assert answer.differs(403, e1(403, saying("only the buyer"))) == []
