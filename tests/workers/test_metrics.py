"""The worker's figures: attempts by answer, what was fenced, and what waits in the tables."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from service.commands.deliveries import claim, fan_out
from service.commands.perform import House, tend
from service.rules.delivery import STANDARD, Fault, Reply, judge
from service.settings import Settings
from service.store.db import open_pool
from service.store.deliveries import Attempt, Claimed
from tests.makers import make_escrow, make_shop
from tests.receiver import make_endpoint
from workers.metrics import WAITING, WorkMetrics

NOWHERE = "http://127.0.0.1:9/"


def shown(metrics: WorkMetrics, name: str, **labels: str) -> float | None:
    return metrics.registry.get_sample_value(name, labels)


def attempt(claimed: Claimed, reply: Reply) -> Attempt:
    now = datetime.now(UTC)
    return Attempt(claimed, now, reply, judge(reply, claimed.attempt, STANDARD, now, 0.5))


async def claim_one(house: House) -> Claimed:
    shop = await make_shop(house)
    await make_endpoint(house, shop, NOWHERE)
    await make_escrow(house, shop, status="paid")
    await tend(house, fan_out)
    [claimed] = await tend(house, claim(1))
    return claimed


async def test_attempts_are_counted_by_answer_and_state_and_the_fenced_apart(house: House) -> None:
    claimed, metrics = await claim_one(house), WorkMetrics()
    replies = [Reply(status=200), Reply(status=204), Reply(status=500), Reply(fault=Fault.TIMEOUT)]
    metrics.note_settled([attempt(claimed, reply) for reply in replies], 3)
    counted = "amana_delivery_attempts_total"
    assert shown(metrics, counted, answer="2xx", state="delivered") == 2
    assert shown(metrics, counted, answer="5xx", state="pending") == 1
    assert shown(metrics, counted, answer="timeout", state="pending") == 1
    assert shown(metrics, "amana_fenced_settles_total") == 1


async def test_what_waits_is_read_from_the_tables(house: House, owner: asyncpg.Connection) -> None:
    metrics = WorkMetrics()
    await metrics.look(house.pool)
    idle = {name: shown(metrics, name) for name, _ in WAITING}
    assert math.isnan(idle.pop("amana_canary_seconds") or 0)  # there never was one
    assert set(idle.values()) == {0}

    await claim_one(house)
    await owner.execute("UPDATE delivery SET visible_at = now() - interval '5 s'")
    await owner.execute("UPDATE lane SET next_due_at = now() - interval '60 s'")
    await owner.execute("UPDATE mail SET visible_at = now() - interval '9 s'")
    await make_escrow(house, await make_shop(house))
    await metrics.look(house.pool)
    assert shown(metrics, "amana_lane_due_seconds") == pytest.approx(60, abs=5)
    assert shown(metrics, "amana_mail_due_seconds") == pytest.approx(9, abs=5)
    assert shown(metrics, "amana_expired_leases") == 1
    assert 0 < (shown(metrics, "amana_unfanned_seconds") or 0) < 5

    await owner.execute("UPDATE lane SET hold_until = now() + interval '60 s'")
    await metrics.look(house.pool)
    assert shown(metrics, "amana_lanes_held") == 1
    assert shown(metrics, "amana_lane_held_seconds") == pytest.approx(60, abs=5)
    assert shown(metrics, "amana_lane_due_seconds") == 0


async def test_breakers_are_counted_by_their_state(house: House, owner: asyncpg.Connection) -> None:
    shop = await make_shop(house)
    for _ in range(3):
        await make_endpoint(house, await make_shop(house), NOWHERE)
    gone = await make_endpoint(house, shop, NOWHERE)
    trip = "UPDATE lane SET breaker = $2, breaker_until = now() WHERE endpoint_id = $1"
    ids = [row["id"] for row in await owner.fetch("SELECT id FROM webhook_endpoint ORDER BY id")]
    for id_, state in zip(ids, ("open", "open", "half_open", "open"), strict=True):
        await owner.execute(trip, id_, state)
    await owner.execute("UPDATE webhook_endpoint SET is_active = false WHERE id = $1", gone["id"])
    metrics = WorkMetrics()
    await metrics.look(house.pool)
    assert shown(metrics, "amana_breakers_open") == 2
    assert shown(metrics, "amana_breakers_half_open") == 1


async def test_the_way_from_the_commit_to_the_first_attempt_is_measured(house: House) -> None:
    claimed, metrics = await claim_one(house), WorkMetrics()
    started = claimed.recorded_at + timedelta(milliseconds=80)
    reply = Reply(status=200)
    outcome = judge(reply, 1, STANDARD, started, 0.5)
    again = replace(claimed, attempt=2)
    lost = judge(Reply(fault=Fault.OURS), 1, STANDARD, started, 0.5)
    metrics.note_settled(
        [
            Attempt(claimed, started, reply, outcome),
            Attempt(again, started, reply, outcome),
            Attempt(claimed, started, Reply(fault=Fault.OURS), lost),
        ],
        3,
    )
    name = "amana_first_attempt_seconds"
    assert shown(metrics, f"{name}_count") == 1
    assert shown(metrics, f"{name}_sum") == pytest.approx(0.08)


async def test_what_waits_is_not_known_while_the_database_is_away(migrated: Settings) -> None:
    pool, metrics = await open_pool(migrated.database_url or "", size=1), WorkMetrics()
    await pool.close()
    await metrics.look(pool)
    assert all(math.isnan(shown(metrics, name) or 0) for name, _ in WAITING)
