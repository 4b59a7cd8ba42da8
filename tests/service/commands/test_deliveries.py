"""Upkeep of deliveries: what fan-out, claim and settle promise when many do it at once."""

import asyncio
from collections import Counter
from datetime import UTC, datetime

import asyncpg
import pytest

from service.commands import endpoints
from service.commands.deliveries import claim, fan_out, prepare_partitions, settle
from service.commands.perform import House, tend
from service.rules.delivery import STANDARD, Fault, Reply, judge
from service.store.deliveries import Attempt, Claimed
from tests.makers import Shop, act, make_escrow, make_shop
from tests.receiver import make_endpoint

URL = "http://127.0.0.1:9/hook"


async def waiting(house: House, shop: Shop, events: int) -> None:
    """So many events of this shop, fanned out."""
    for _ in range(events):
        await make_escrow(house, shop)
    while await tend(house, fan_out):
        pass


async def listening_shop(house: House, events: int = 0) -> Shop:
    shop = await make_shop(house)
    await make_endpoint(house, shop, URL, events=["*"])
    await waiting(house, shop, events)
    return shop


def ended(one: Claimed, reply: Reply) -> Attempt:
    now = datetime.now(UTC)
    return Attempt(one, now, reply, judge(reply, one.attempt, STANDARD, now, 0.5))


async def lane(house: House, column: str) -> object:
    return await house.pool.fetchval(f"SELECT {column} FROM lane")


async def test_claims_at_once_never_breach_the_cap(house: House, owner: asyncpg.Connection) -> None:
    await listening_shop(house, events=30)
    await owner.execute("UPDATE lane SET cap = 8, send_window = 8")
    in_flight: list[Claimed] = []
    for _ in range(5):
        taken = await asyncio.gather(*(tend(house, claim(64)) for _ in range(10)))
        in_flight += [one for claimed in taken for one in claimed]
        assert len({one.id for one in in_flight}) == len(in_flight) <= 8
        held = "SELECT count(*) FROM delivery WHERE claim_token IS NOT NULL"
        assert await house.pool.fetchval(held) == 8
        done = [in_flight.pop() for _ in range(3)]
        await tend(house, settle([ended(one, Reply(status=200)) for one in done]))
        while len(in_flight) < 8:
            in_flight += await tend(house, claim(64))


async def test_each_lane_gets_its_share_of_the_slots(house: House) -> None:
    for _ in range(3):
        await listening_shop(house, events=6)
    claimed = await tend(house, claim(9))
    assert sorted(Counter(one.endpoint_id for one in claimed).values()) == [3, 3, 3]
    served_first = {one.endpoint_id for one in claimed}
    fresh = await listening_shop(house, events=1)
    (next_one,) = await tend(house, claim(1))
    assert next_one.endpoint_id not in served_first
    assert fresh.developer_id


async def test_a_claim_counts_the_attempt_and_leases_the_row(house: House) -> None:
    await listening_shop(house, events=1)
    (one,) = await tend(house, claim(1))
    assert one.attempt == 1
    lease = "SELECT extract(epoch FROM visible_at - clock_timestamp())::float8 FROM delivery"
    assert 39 < await house.pool.fetchval(lease) <= 40
    assert await tend(house, claim(1)) == []


async def test_an_expired_lease_is_claimed_again_with_another_token(
    house: House, owner: asyncpg.Connection
) -> None:
    await listening_shop(house, events=1)
    (first,) = await tend(house, claim(1))
    await owner.execute("UPDATE delivery SET visible_at = now()")
    await owner.execute("UPDATE lane SET next_due_at = now()")
    (second,) = await tend(house, claim(1))
    assert (second.id, second.attempt) == (first.id, 2)
    assert second.claim_token != first.claim_token


async def test_fan_outs_at_once_make_each_delivery_once(house: House) -> None:
    shop = await make_shop(house)
    for _ in range(2):
        await make_endpoint(house, shop, URL, events=["*"])
    for _ in range(20):
        await make_escrow(house, shop)
    fanned = await asyncio.gather(*(tend(house, fan_out) for _ in range(8)))
    assert sum(fanned) == 20
    per_event = "SELECT count(*) FROM delivery GROUP BY event_id"
    assert [row[0] for row in await house.pool.fetch(per_event)] == [2] * 20
    unfanned = "SELECT count(*) FROM event WHERE type IS NOT NULL AND fanned_at IS NULL"
    assert await house.pool.fetchval(unfanned) == 0


async def test_an_event_that_nobody_subscribed_to_is_done_with(house: House) -> None:
    await make_escrow(house, await make_shop(house))
    assert await tend(house, fan_out) == 1
    assert await tend(house, fan_out) == 0
    assert await house.pool.fetchval("SELECT count(*) FROM delivery") == 0


async def test_failures_that_were_in_flight_together_halve_the_window_once(house: House) -> None:
    await listening_shop(house, events=4)
    claimed = await tend(house, claim(4))
    await tend(house, settle([ended(one, Reply(fault=Fault.TIMEOUT)) for one in claimed]))
    assert [await lane(house, c) for c in ("send_window", "streak", "failure_count")] == [8, 4, 4]


async def test_a_success_ends_the_streak_and_widens_the_window(
    house: House, owner: asyncpg.Connection
) -> None:
    await listening_shop(house, events=5)
    await owner.execute("UPDATE lane SET send_window = 4, streak = 9, failure_count = 12")
    replies = [Reply(status=500), Reply(status=200), Reply(status=200), Reply(status=429)]
    claimed = await tend(house, claim(4))
    answered = zip(claimed, replies, strict=True)
    await tend(house, settle([ended(one, reply) for one, reply in answered]))
    shown = [await lane(house, c) for c in ("streak", "failure_count", "last_status")]
    assert shown == [0, 1, 429]
    assert await lane(house, "send_window") == 2  # the 429 halves, whatever else came
    (last,) = await tend(house, claim(4))
    await tend(house, settle([ended(last, Reply(status=200))]))
    assert await lane(house, "send_window") == 3


async def test_a_narrow_window_bounds_what_is_in_flight(
    house: House, owner: asyncpg.Connection
) -> None:
    await listening_shop(house, events=5)
    await owner.execute("UPDATE lane SET send_window = 2")
    assert len(await tend(house, claim(64))) == 2
    assert await tend(house, claim(64)) == []


async def test_a_settle_says_where_more_is_due(house: House, owner: asyncpg.Connection) -> None:
    await listening_shop(house, events=2)
    await owner.execute("UPDATE lane SET cap = 1, send_window = 1")
    for is_last in (False, True):
        (one,) = await tend(house, claim(64))
        settled = await tend(house, settle([ended(one, Reply(status=200))]))
        assert list(settled) == [one.id]
        assert (settled[one.id] == 0) is not is_last


async def test_a_settle_says_when_a_held_lane_goes_on(
    house: House, owner: asyncpg.Connection
) -> None:
    await listening_shop(house, events=2)
    await owner.execute("UPDATE lane SET cap = 1, send_window = 1")
    (one,) = await tend(house, claim(64))
    await owner.execute("UPDATE lane SET hold_until = clock_timestamp() + interval '50 seconds'")
    settled = await tend(house, settle([ended(one, Reply(status=200))]))
    assert 20 < (settled[one.id] or 0) < 50


async def test_a_settle_says_when_a_retry_is_due(house: House) -> None:
    await listening_shop(house, events=1)
    (one,) = await tend(house, claim(64))
    settled = await tend(house, settle([ended(one, Reply(status=500))]))
    assert settled == {one.id: pytest.approx(5)}


async def test_a_deleted_endpoints_deliveries_are_cancelled_but_what_is_in_flight_ends(
    house: House,
) -> None:
    shop = await listening_shop(house, events=3)
    (one,) = await tend(house, claim(1))
    await act(house, shop.actor, endpoints.delete(shop.developer_id, one.endpoint_id))
    states = "SELECT state, count(*)::int FROM delivery GROUP BY 1 ORDER BY 1"
    found = [tuple(row) for row in await house.pool.fetch(states)]
    assert found == [("cancelled", 2), ("pending", 1)]
    assert set(await tend(house, settle([ended(one, Reply(status=200))]))) == {one.id}
    await waiting(house, shop, 1)
    found = [tuple(row) for row in await house.pool.fetch(states)]
    assert found == [("cancelled", 2), ("delivered", 1)]


async def test_partitions_take_over_what_the_safety_net_caught(
    house: House, owner: asyncpg.Connection
) -> None:
    await prepare_with(house)
    late = "now() + interval '7 weeks'"
    await owner.execute(f"INSERT INTO webhook_body VALUES (gen_random_uuid(), {late}, 'x')")
    assert await owner.fetchval("SELECT count(*) FROM webhook_body_default") == 1
    made = await house.pool.fetchval("SELECT make_webhook_partitions(7)")
    assert made == 6
    assert await owner.fetchval("SELECT count(*) FROM webhook_body_default") == 0
    assert await owner.fetchval("SELECT count(*) FROM webhook_body") == 1


async def prepare_with(house: House) -> None:
    """The weeks ahead are there; a second time there is nothing to do."""
    await tend(house, prepare_partitions)
    assert await tend(house, prepare_partitions) == 0


async def test_the_application_cannot_make_tables_itself(house: House) -> None:
    with pytest.raises(asyncpg.InsufficientPrivilegeError):
        await house.pool.fetch("CREATE TABLE webhook_body_mine PARTITION OF webhook_body DEFAULT")
