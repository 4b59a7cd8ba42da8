"""Lists of deliveries: what is asked for is found without a walk through what was delivered."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import pytest

from service.commands.perform import House
from service.store.attempts import LIST_DELIVERIES
from service.store.ids import first_uuid, last_uuid
from service.store.recoveries import COUNT_FAILED
from tests.makers import make_shop
from tests.receiver import make_endpoint

EPOCH = datetime(1970, 1, 2, tzinfo=UTC)
DELIVERED = 20_000
# A delivered history, and in the middle of it two of each other state.
HISTORY = """
INSERT INTO delivery (id, endpoint_id, event_id, recorded_at, type, state, attempt, visible_at,
                      created_at, settled_at)
SELECT gen_random_uuid(), $1, ordered_uuid(made.at), made.at, 'escrow.created', made.state, 1,
       now() + interval '1 h', made.at,
       CASE WHEN made.state NOT IN ('pending', 'parked') THEN made.at END
FROM (SELECT now() - make_interval(secs => n) AS at,
             coalesce((ARRAY['exhausted', 'cancelled', 'pending', 'parked'])[(n - 8998) / 2],
                      'delivered') AS state
      FROM generate_series(1, $2) AS n) AS made
"""


@pytest.fixture
async def endpoint_id(house: House, owner: asyncpg.Connection) -> str:
    made = await make_endpoint(house, await make_shop(house), "http://127.0.0.1:9/hook")
    await owner.execute("SET session_replication_role = replica")
    await owner.execute(HISTORY, made["id"], DELIVERED)
    await owner.execute("SET session_replication_role = origin")
    await owner.execute("ANALYZE delivery")
    endpoint_id: str = made["id"]
    return endpoint_id


def nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for below in plan.get("Plans", ()):
        yield from nodes(below)


async def looked_at(owner: asyncpg.Connection, statement: str, *arguments: object) -> int:
    """How many rows of the table were read, by the plan that serves any arguments."""
    await owner.execute("SET plan_cache_mode = force_generic_plan")
    told = await owner.fetchval(
        f"EXPLAIN (ANALYZE, TIMING OFF, FORMAT JSON) {statement}", *arguments
    )
    await owner.execute("RESET plan_cache_mode")
    scans = [n for n in nodes(json.loads(told)[0]["Plan"]) if n.get("Relation Name") == "delivery"]
    return sum(
        n["Actual Loops"] * (n["Actual Rows"] + n.get("Rows Removed by Filter", 0)) for n in scans
    )


@pytest.mark.parametrize("state", ["exhausted", "cancelled", "pending", "parked"])
async def test_the_list_of_a_state_does_not_walk_through_what_was_delivered(
    owner: asyncpg.Connection, endpoint_id: str, state: str
) -> None:
    asked = (endpoint_id, state, None, first_uuid(EPOCH), None, last_uuid(), 50)
    assert [row["state"] for row in await owner.fetch(LIST_DELIVERIES, *asked)] == [state] * 2
    assert await looked_at(owner, LIST_DELIVERIES, *asked) < 20


async def test_the_count_of_a_recovery_does_not_either(
    owner: asyncpg.Connection, endpoint_id: str
) -> None:
    now = datetime.now(UTC) + timedelta(minutes=1)
    asked = (endpoint_id, first_uuid(EPOCH), EPOCH, now, 1000)
    assert await owner.fetchval(COUNT_FAILED, *asked) == 6
    assert await looked_at(owner, COUNT_FAILED, *asked) < 20
