"""A migration leaves the running version working: what version 5 asks for is still there.

`statements_of_version_5.sql` is every constant of its `service/store`, as it was released. Once a
later migration drops what is for version 5 alone, the statements of its successor take their place.
"""

import re
from datetime import datetime
from pathlib import Path
from typing import Any

import asyncpg
import pytest

from service.commands.deliveries import fan_out
from service.commands.perform import House, tend
from service.rules.lane import Lane
from tests.makers import make_escrow, make_shop
from tests.receiver import make_endpoint

SOURCE = Path(__file__).with_name("statements_of_version_5.sql").read_text()
STATEMENTS = dict(
    re.findall(r"^-- (\w+\.\w+)\n(.+?);\n(?=\n-- \w+\.\w+\n|\Z)", SOURCE, re.S | re.M)
)
CLAIM, SETTLE, TURN = (
    STATEMENTS[f"{name}"]
    for name in (
        "deliveries.CLAIM_DELIVERIES",
        "deliveries.SETTLE_DELIVERIES",
        "lanes.TURN_LANES",
    )
)
# The fields of its `Claimed`, which is made of whole rows, and of the lane that a settle gives.
CLAIMED = [
    "id", "claim_token", "attempt", "endpoint_id", "event_id", "type", "acknowledges", "body",
    "url", "ladder", "timeout_seconds", "headers", "secrets", "hold_seconds", "is_slow",
    "recorded_at", "rung",
]  # fmt: skip
LANE = [
    "endpoint_id", "cap", "send_window", "next_due_at", "hold_until", "turn_at", "streak",
    "failure_count", "last_attempt_at", "last_status", "breaker", "breaker_until", "breaker_trips",
    "failing_since", "mean_ms", "first_due_at", "halved_at", "exhausted_at", "told",
    "sample_minute", "sample_attempts", "sample_failures", "told_since",
]  # fmt: skip
SLOTS, ROWS_A_LANE, SLOW_MS, MARGIN_SECONDS = 64, 4, 2000, 30.0


def test_all_of_them_are_here():
    assert len(STATEMENTS) == SOURCE.count("\n-- ") + 1 == 292


@pytest.mark.parametrize("label", sorted(STATEMENTS))
async def test_every_statement_of_version_5_fits_the_schema(
    house: House, owner: asyncpg.Connection, label: str
):
    assert (await owner.prepare(STATEMENTS[label])).get_query()


async def due(house: House, count: int) -> None:
    """A shop and its endpoint with so many deliveries that are due."""
    shop = await make_shop(house)
    await make_endpoint(house, shop, "http://127.0.0.1:9/hook", events=["escrow.created"])
    for _ in range(count):
        await make_escrow(house, shop)
    await tend(house, fan_out)


async def claim(house: House) -> list[asyncpg.Record]:
    return list(
        await house.pool.fetch(CLAIM, SLOTS, SLOTS, SLOTS, ROWS_A_LANE, SLOW_MS, MARGIN_SECONDS)
    )


async def settle(
    house: House, rows: list[asyncpg.Record], *outcomes: tuple[Any, ...]
) -> list[asyncpg.Record]:
    """Each outcome: state, retry in seconds, whether it is given back, its status."""
    at = await house.pool.fetchval("SELECT clock_timestamp()")
    many: list[Any] = [None for _ in outcomes]
    return list(
        await house.pool.fetch(
            SETTLE,
            [row["id"] for row in rows],
            [row["claim_token"] for row in rows],
            [state for state, *_ in outcomes],
            [retry for _, retry, *_ in outcomes],
            [given_back for *_, given_back, _ in outcomes],
            [at for _ in outcomes],
            [status for *_, status in outcomes],
            many,
            ["127.0.0.1" for _ in outcomes],
            many,
            many,
            many,
            [4 for _ in outcomes],
            [5 for _ in outcomes],
            [b"ok" for _ in outcomes],
        )
    )


async def turn(house: House, endpoint_id: str, at: datetime, *, gives_back: bool) -> float | None:
    """What its worker writes of a lane where nothing has changed; when something is due there."""
    lane = Lane()
    nothing: list[Any] = [None]
    row = await house.pool.fetchrow(
        TURN, [endpoint_id], [lane.window], nothing, [0], [0], nothing, nothing, [at], [200], [5],
        ["closed"], nothing, [0], [0], ["{0,0,0,0,0}"], ["{0,0,0,0,0}"], nothing, nothing,
        [gives_back], at,
    )  # fmt: skip
    assert row is not None
    due_seconds: float | None = row["due_seconds"]
    return due_seconds


async def test_a_worker_of_version_5_claims_settles_and_turns_the_lane(house: House):
    await due(house, 3)
    rows = await claim(house)
    assert [list(row.keys()) for row in rows] == [CLAIMED] * 3
    [settled] = await settle(
        house,
        rows,
        ("delivered", None, False, 200),
        ("pending", 60.0, False, 500),
        ("delivered", None, False, 200),
    )
    assert set(settled[0]) == {row["id"] for row in rows}
    assert list(settled[2].keys()) == LANE
    due_seconds = await turn(house, rows[0]["endpoint_id"], settled[1], gives_back=False)
    assert 0 < (due_seconds or 0) <= 60  # with the retry, or early with what was in flight
    assert await claim(house) == []
    state = "SELECT state, attempt, last_status FROM delivery ORDER BY last_status, id"
    found = [tuple(row) for row in await house.pool.fetch(state)]
    assert found == [("delivered", 1, 200), ("delivered", 1, 200), ("pending", 1, 500)]


async def test_what_a_worker_of_version_5_gives_back_is_found_by_the_second_claim_at_the_latest(
    house: House, owner: asyncpg.Connection
):
    await due(house, 2)
    rows = await claim(house)
    assert await claim(house) == []  # the lane knows by now that nothing waits
    [settled] = await settle(house, rows, *[("pending", 0.0, True, 0)] * 2)
    await turn(house, rows[0]["endpoint_id"], settled[1], gives_back=True)
    again = [one for _ in range(2) for one in await claim(house)]
    assert {row["id"] for row in again} == {row["id"] for row in rows}
