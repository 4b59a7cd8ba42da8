"""Events to be pulled, over HTTP, and the catalogue of their types."""

import orjson
import pytest
from jsonschema import Draft202012Validator
from structlog.testing import capture_logs

from service.ingress.routes import ROUTES
from service.rules.events import CATALOGUE, TEST
from service.wire.deliveries import read_cursor, write_cursor
from tests.house import CLEAN
from tests.makers import make_escrow, make_shop
from tests.service.store.test_feed import quiet

EVENTS, TYPES = "/api/v1/events", "/api/v1/event-types"


@pytest.fixture
async def client(ingress, house, owner):
    await owner.execute(CLEAN)
    async with ingress(ROUTES, RATE_LIMIT_PER_MINUTE="0") as opened:
        yield opened


@pytest.fixture
async def shop(house):
    return await make_shop(house)


@pytest.fixture
def ask(client, house, shop):
    async def asked(path, **query):
        await quiet(house)
        async with client.get(path, params=query, headers=shop.headers) as response:
            return response.status, orjson.loads(await response.read())

    return asked


async def test_the_feed_tells_the_envelopes_and_goes_on_by_its_cursor(ask, house, shop):
    await make_escrow(house, shop, status="completed")
    status, first = await ask(EVENTS, limit="2")
    assert status == 200
    assert [one["type"] for one in first["events"]] == ["escrow.created", "escrow.status.updated"]
    assert first["hasMore"] is True
    assert set(first["events"][0]) == {"id", "type", "timestamp", "data"}
    _, second = await ask(EVENTS, after=first["nextCursor"])
    assert [one["data"]["escrow"]["status"] for one in second["events"]] == ["completed"]
    assert second["hasMore"] is False
    _, third = await ask(EVENTS, after=second["nextCursor"])
    assert (third["events"], third["hasMore"]) == ([], False)


async def test_latest_begins_with_what_comes(ask, house, shop):
    await make_escrow(house, shop)
    _, now = await ask(EVENTS, after="latest")
    assert now["events"] == []
    await make_escrow(house, shop)
    _, then = await ask(EVENTS, after=now["nextCursor"])
    assert len(then["events"]) == 1


async def test_types_narrow_the_feed(ask, house, shop):
    await make_escrow(house, shop, status="paid")
    _, told = await ask(EVENTS, types="escrow.created, contract.*")
    assert [one["type"] for one in told["events"]] == ["escrow.created"]


async def test_a_cursor_that_was_never_come_to_is_refused_and_logged(ask, house, shop):
    await make_escrow(house, shop)
    _, now = await ask(EVENTS, after="latest")
    xid, _ = read_cursor(now["nextCursor"])
    with capture_logs() as told:
        status, answer = await ask(EVENTS, after=write_cursor(xid + 1000, 0))
    assert (status, answer["code"]) == (409, "CURSOR_BEYOND_END")
    assert [line["cursor"] for line in told if line["event"] == "feed_was_set_back"] == [xid + 1000]


@pytest.mark.parametrize(
    "query",
    [
        {"after": "nonsense"},
        {"after": "!"},
        {"after": "MS4t"},
        {"types": "escrow.exploded"},
        {"types": ""},
        {"limit": "0"},
        {"limit": "501"},
    ],
)
async def test_a_bad_query_is_refused(ask, query):
    status, answer = await ask(EVENTS, **query)
    assert (status, answer["error"], list(answer["details"])) == (400, "Bad Request", list(query))


async def test_every_type_has_its_schema_and_real_bodies_meet_theirs(ask, house, shop):
    status, answer = await ask(TYPES)
    assert status == 200
    told = {one["type"]: one for one in answer["eventTypes"]}
    assert set(told) == CATALOGUE | {TEST}
    for one in told.values():
        Draft202012Validator.check_schema(one["schema"])
        assert one["description"].endswith(".")
        assert set(one) == {"type", "description", "schema"}
    await make_escrow(house, shop, status="disputed", mode="standard")
    await make_escrow(house, shop, status="completed", mode="quick_proof")
    _, feed = await ask(EVENTS)
    assert len({one["type"] for one in feed["events"]}) > 5
    for event in feed["events"]:
        Draft202012Validator(told[event["type"]]["schema"]).validate(event)
