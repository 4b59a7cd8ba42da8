"""A migration leaves the running version working: what version 3 asks for is still there.

`statements_of_version_3.sql` is every constant of its `service/store`, as it was released. Once a
later migration drops what is for version 3 alone, the statements of version 4 take their place.
"""

import re
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from service.commands.deliveries import fan_out
from service.commands.perform import House, tend
from service.store.deliveries import claim_deliveries
from tests.makers import Shop, make_escrow, make_shop
from tests.receiver import make_endpoint

SOURCE = Path(__file__).with_name("statements_of_version_3.sql").read_text()
STATEMENTS = dict(
    re.findall(r"^-- (\w+\.\w+)\n(.+?);\n(?=\n-- \w+\.\w+\n|\Z)", SOURCE, re.S | re.M)
)
CLAIM, SETTLE, READ = (
    STATEMENTS[f"{name}"]
    for name in (
        "deliveries.CLAIM_DELIVERIES",
        "deliveries.SETTLE_DELIVERIES",
        "endpoints.READ_ENDPOINT",
    )
)
# The fields of its `Endpoint` and `Claimed`, which are made of whole rows.
ENDPOINT = {
    "id", "developer_id", "url", "events", "is_active", "ladder", "timeout_seconds",
    "max_per_second", "disabled_reason", "flag", "seq", "created_at", "updated_at",
    "failure_count", "last_triggered_at", "last_response_status",
}  # fmt: skip
CLAIMED = [
    "id", "claim_token", "attempt", "endpoint_id", "event_id", "type", "acknowledges", "body",
    "url", "ladder", "timeout_seconds", "headers", "secrets", "hold_seconds",
]  # fmt: skip
SLOTS, ROWS_A_LANE, MARGIN_SECONDS = 64, 4, 30.0


def test_all_of_them_are_here():
    assert len(STATEMENTS) == SOURCE.count("\n-- ") + 1 == 229


@pytest.mark.parametrize("label", sorted(STATEMENTS))
async def test_every_statement_of_version_3_fits_the_schema(
    house: House, owner: asyncpg.Connection, label: str
):
    assert (await owner.prepare(STATEMENTS[label])).get_query()


@pytest.mark.parametrize("label", ["lanes.RECONCILE_LANES", "deliveries.READ_STRANDED"])
async def test_what_version_3_asks_of_the_pending_reads_no_settled_rows(
    owner: asyncpg.Connection, label: str
):
    async with owner.transaction():
        await owner.execute("SET LOCAL enable_seqscan = off")
        plan = await owner.fetch(f"EXPLAIN (GENERIC_PLAN) {STATEMENTS[label]}")
    assert any("delivery_due" in row[0] for row in plan)


async def test_version_3_reads_an_endpoint_with_the_fields_that_it_knows(house: House):
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, "http://127.0.0.1:9/hook", ed25519=True)
    row = await house.pool.fetchrow(READ, made["id"])
    assert row is not None
    assert set(dict(row)) == ENDPOINT


async def due(house: House, count: int) -> tuple[Shop, dict[str, Any]]:
    """A shop and its endpoint, which has a pair as well, with so many deliveries that are due."""
    shop = await make_shop(house)
    made = await make_endpoint(
        house, shop, "http://127.0.0.1:9/hook", events=["escrow.created"], ed25519=True
    )
    for _ in range(count):
        await make_escrow(house, shop)
    await tend(house, fan_out)
    return shop, made


async def claim(house: House) -> list[asyncpg.Record]:
    return list(await house.pool.fetch(CLAIM, SLOTS, ROWS_A_LANE, MARGIN_SECONDS))


async def settle(house: House, rows: list[asyncpg.Record], *outcomes: tuple[Any, ...]) -> dict:
    """Each outcome: state, retry in seconds, whether it is given back, its status."""
    at = await house.pool.fetchval("SELECT clock_timestamp()")
    settled = await house.pool.fetch(
        SETTLE,
        [row["id"] for row in rows],
        [row["claim_token"] for row in rows],
        [state for state, *_ in outcomes],
        [retry for _, retry, *_ in outcomes],
        [given_back for *_, given_back, _ in outcomes],
        [status == 200 for *_, status in outcomes],
        [int(status == 500) for *_, status in outcomes],
        [False for _ in outcomes],
        [None for _ in outcomes],
        [at for _ in outcomes],
        [status for *_, status in outcomes],
        [None for _ in outcomes],
        ["127.0.0.1" for _ in outcomes],
        [1 for _ in outcomes],
        [2 for _ in outcomes],
        [3 for _ in outcomes],
        [4 for _ in outcomes],
        [b"ok" for _ in outcomes],
    )
    return {row[0]: row[1] for row in settled}


async def test_a_worker_of_version_3_claims_with_the_secrets_that_it_can_sign_with(house: House):
    _, made = await due(house, 2)
    rows = await claim(house)
    assert [list(row.keys()) for row in rows] == [CLAIMED] * 2
    assert [(row["endpoint_id"], row["attempt"]) for row in rows] == [(made["id"], 1)] * 2
    sealed = await house.pool.fetchval(
        "SELECT sealed FROM endpoint_secret WHERE public_key IS NULL"
    )
    assert [row["secrets"] for row in rows] == [[sealed]] * 2
    assert await claim(house) == []


async def test_a_worker_of_version_3_settles_and_the_lane_goes_on(house: House):
    await due(house, 3)
    rows = await claim(house)
    done, again, back = rows
    told = await settle(
        house,
        rows,
        ("delivered", None, False, 200),
        ("pending", 60.0, False, 500),
        ("pending", 0.0, True, 0),
    )
    assert told == {done["id"]: 0, again["id"]: 0, back["id"]: 0}
    state = "SELECT state, attempt, last_status FROM delivery WHERE id = $1"
    assert tuple(await house.pool.fetchrow(state, done["id"])) == ("delivered", 1, 200)
    assert tuple(await house.pool.fetchrow(state, again["id"])) == ("pending", 1, 500)
    assert tuple(await house.pool.fetchrow(state, back["id"])) == ("pending", 0, None)
    attempts = await house.pool.fetch("SELECT delivery_id, status, answer FROM webhook_attempt")
    assert {tuple(row) for row in attempts} == {(done["id"], 200, b"ok"), (again["id"], 500, b"ok")}
    lane = await house.pool.fetchrow("SELECT failure_count, streak, last_status FROM lane")
    assert tuple(lane) == (1, 1, 500)

    async def by_version_4(tx: Any) -> list[Any]:
        return await claim_deliveries(tx, SLOTS, 0, SLOTS)

    [taken] = await tend(house, by_version_4)
    assert taken.id == back["id"]
    assert await settle(house, rows, *[("delivered", None, False, 200)] * 3) == {}
