"""What the functions of delivery promise about a lane's time; their `moment` stands in for it."""

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from service.commands.deliveries import claim, fan_out, settle
from service.commands.perform import House, tend
from service.rules.delivery import STANDARD, Fault, Reply, judge
from service.settings import Settings
from service.store.deliveries import Attempt
from tests.makers import make_escrow, make_shop
from tests.receiver import make_endpoint

CLAIM = "SELECT * FROM claim_deliveries(64, 64, 64, 4, 2000, interval '30 seconds', $1)"
WIDE = "UPDATE lane SET cap = 100, send_window = 100"


@pytest.mark.parametrize(("most", "claims"), [(20, 5), (4, 5), (3, 7), (1, 20)])
async def test_a_paced_lane_sends_all_that_its_pace_allows_when_it_is_looked_at_in_time(
    house: House, owner: asyncpg.Connection, most: int, claims: int
) -> None:
    shop = await make_shop(house)
    await make_endpoint(
        house, shop, "http://127.0.0.1:9/hook", events=["escrow.created"], maxPerSecond=most
    )
    await owner.execute(WIDE)
    for _ in range(20):
        await make_escrow(house, shop)
    await tend(house, fan_out)
    start = moment = datetime.now(UTC)
    left = 20
    for _ in range(claims):
        claimed = await house.pool.fetch(CLAIM, moment)
        assert 0 < len(claimed) <= most
        left -= len(claimed)
        [hold] = {row["hold_seconds"] for row in claimed}
        assert hold == pytest.approx(len(claimed) / most)
        early = moment + timedelta(seconds=hold * 0.9)
        assert await house.pool.fetch(CLAIM, early) == []
        moment += timedelta(seconds=hold)
    assert left == 0
    assert (moment - start).total_seconds() == pytest.approx(20 / most)


async def test_a_pace_is_exact_over_many_claimers(house: House, owner: asyncpg.Connection) -> None:
    shop = await make_shop(house)
    await make_endpoint(
        house, shop, "http://127.0.0.1:9/hook", events=["escrow.created"], maxPerSecond=10
    )
    await owner.execute(WIDE)
    for _ in range(40):
        await make_escrow(house, shop)
    await tend(house, fan_out)
    start = datetime.now(UTC)
    at: list[float] = []
    for tenth in range(40):  # eight workers look every tenth of a second
        moment = start + timedelta(seconds=tenth / 10)
        taken = await asyncio.gather(*(house.pool.fetch(CLAIM, moment) for _ in range(8)))
        at += [tenth / 10] * sum(map(len, taken))
    assert len(at) == 40
    most = max(sum(second <= one < second + 1 for one in at) for second in at)
    assert most <= 12  # ten, and what one claim takes at once beyond the second's begin
    assert at[-1] >= 3


async def test_a_lane_without_a_pace_is_not_held(house: House) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, "http://127.0.0.1:9/hook", events=["escrow.created"])
    await make_escrow(house, shop)
    await tend(house, fan_out)
    [row] = await house.pool.fetch(CLAIM, datetime.now(UTC))
    assert row["hold_seconds"] is None


async def test_a_claim_looks_once_at_a_lane_that_gives_nothing(
    house: House, owner: asyncpg.Connection
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, "http://127.0.0.1:9/hook", events=["escrow.created"])
    await make_escrow(house, shop)
    await tend(house, fan_out)
    (one,) = await tend(house, claim(64))
    ours = Reply(fault=Fault.OURS)
    now = datetime.now(UTC)
    outcome = judge(ours, one.rung, STANDARD, now, 0.5)
    await tend(house, settle([Attempt(one, now, ours, outcome)]))
    visits = "SELECT n_tup_upd FROM pg_stat_xact_user_tables WHERE relname = 'lane'"
    async with owner.transaction():
        before = await owner.fetchval(visits) or 0
        assert await owner.fetch(CLAIM, datetime.now(UTC)) == []  # it is due in a second
        assert await owner.fetchval(visits) - before == 1


async def test_a_lane_is_late_since_something_was_due_not_since_it_has_happened(
    house: House, owner: asyncpg.Connection
) -> None:
    """What is recovered, or waits again after a disabling, may be of yesterday."""
    shop = await make_shop(house)
    await make_endpoint(house, shop, "http://127.0.0.1:9/hook", events=["escrow.created"])
    for _ in range(2):
        await make_escrow(house, shop)
    await tend(house, fan_out)
    await owner.execute(
        "UPDATE delivery SET recorded_at = recorded_at - interval '1 day', visible_at = now()"
    )
    await owner.execute("UPDATE lane SET first_due_at = '-infinity'")
    await tend(house, claim(1))
    age = "SELECT extract(epoch FROM clock_timestamp() - next_due_at)::float8 FROM lane"
    assert await house.pool.fetchval(age) < 60


SETTLE = """
SELECT (settle_deliveries(
    array_agg(c.id), array_agg(c.claim_token), array_agg('delivered'::text),
    array_agg(NULL::float8), array_agg(false), array_agg(now()), array_agg(200),
    array_agg(NULL::text), array_agg('::1'::text), array_agg(1), array_agg(1), array_agg(1),
    array_agg(1), array_agg(1), array_agg('ok'::bytea))).settled
FROM unnest($1::uuid[], $2::uuid[]) AS c (id, claim_token)
"""
LANES_DUE = "UPDATE lane SET next_due_at = '-infinity', first_due_at = '-infinity'"
FILL = """
INSERT INTO delivery (id, endpoint_id, event_id, recorded_at, position, type, visible_at,
                      created_at, state, settled_at, attempt)
SELECT gen_random_uuid(), $1, gen_random_uuid(), now() - interval '1 hour', n, 'filled',
       now() - interval '1 hour', now(), $2, CASE WHEN $2 = 'delivered' THEN now() END,
       CASE WHEN $2 = 'delivered' THEN 1 ELSE 0 END
FROM generate_series(1, 5000) AS n
"""
FILL_SMALL = FILL.replace("$1", "lpad(to_hex(n), 24, '0')").replace("$2", "'delivered'")
"""An endpoint each: its deliveries are as quickly found by any index."""
READ = """
SELECT coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)
FROM pg_stat_xact_user_tables WHERE relname = 'delivery'
"""


async def claim_and_settle(session: asyncpg.Connection) -> int:
    claimed = await session.fetch(CLAIM, datetime.now(UTC))
    await session.execute(
        SETTLE, [row["id"] for row in claimed], [row["claim_token"] for row in claimed]
    )
    return len(claimed)


async def test_what_a_session_planned_for_small_lanes_holds_for_a_large_one(
    house: House, owner: asyncpg.Connection, migrated: Settings
) -> None:
    shops = [await make_shop(house) for _ in range(5)]
    url = "http://127.0.0.1:9/hook"
    made = [await make_endpoint(house, shop, url) for shop in shops for _ in range(2)]
    session = await asyncpg.connect(migrated.admin_url)
    await session.execute("SET session_replication_role = replica")  # rows without their events
    await session.execute(FILL_SMALL)
    await session.execute("ANALYZE delivery")
    await session.execute(LANES_DUE)
    await session.execute("SET plan_cache_mode = force_generic_plan")  # else after five, perhaps
    assert await claim_and_settle(session) == 0
    for state in ("delivered", "pending"):
        await session.execute(FILL, made[0]["id"], state)
    await session.execute(LANES_DUE)
    async with session.transaction():
        before = await session.fetchval(READ) or 0
        assert await claim_and_settle(session) == 16
        assert await session.fetchval(READ) - before < 500
    await session.close()
    await owner.execute("TRUNCATE delivery")
    await owner.execute("ANALYZE delivery")
