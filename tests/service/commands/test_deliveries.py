"""Upkeep of deliveries: what fan-out, claim and settle promise when many do it at once."""

import asyncio
from collections import Counter
from dataclasses import replace
from datetime import UTC, datetime
from uuid import UUID

import asyncpg
import orjson
import pytest

from service.commands import attempts, deliveries, endpoints
from service.commands.deliveries import (
    claim,
    drop_partitions,
    exhaust_parked,
    fan_out,
    prepare_partitions,
    reconcile,
    settle,
    skip_head,
    watch,
)
from service.commands.perform import House, tend
from service.rules.delivery import STANDARD, Fault, Reply, judge
from service.rules.errors import DeliveryNotFound, WebhookRefused
from service.rules.machine import Actor, ActorKind
from service.store.deliveries import Attempt, Claimed
from service.wire.webhooks import WebhookUpdate
from tests.books import assert_sound, read_log
from tests.makers import Shop, act, make_escrow, make_shop
from tests.receiver import make_endpoint

URL = "http://127.0.0.1:9/hook"
OPERATOR = Actor(ActorKind.OPERATOR)


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
    return Attempt(one, now, reply, judge(reply, one.rung, STANDARD, now, 0.5))


def last_rung(one: Claimed) -> Claimed:
    """As if it were its last attempt."""
    return replace(one, attempt=10, rung=10)


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
    assert await lane(house, "send_window") == 3  # 4, then one more by each 200, then half
    (last,) = await tend(house, claim(4))
    await tend(house, settle([ended(last, Reply(status=200))]))
    assert await lane(house, "send_window") == 4


async def test_a_narrow_window_bounds_what_is_in_flight(
    house: House, owner: asyncpg.Connection
) -> None:
    await listening_shop(house, events=5)
    await owner.execute("UPDATE lane SET send_window = 2")
    assert len(await tend(house, claim(64))) == 2
    assert await tend(house, claim(64)) == []


async def time_passes(owner: asyncpg.Connection, seconds: int) -> None:
    """Everything that was to happen in so many seconds is due; leases end as well."""
    span = f"interval '{seconds} seconds'"
    await owner.execute(
        f"UPDATE delivery SET visible_at = visible_at - {span} WHERE state = 'pending'"
    )
    await owner.execute(
        f"""UPDATE lane SET hold_until = hold_until - {span}, next_due_at = next_due_at - {span},
            first_due_at = first_due_at - {span}, breaker_until = breaker_until - {span}"""
    )


async def trip(house: House) -> None:
    """Ten failures: the lane's breaker opens."""
    for _ in range(10):
        claimed = await tend(house, claim(1))
        await tend(house, settle([ended(one, Reply(status=500)) for one in claimed]))


async def test_an_open_breaker_burns_no_attempt_and_a_half_open_one_lets_one_probe_through(
    house: House, owner: asyncpg.Connection
) -> None:
    await listening_shop(house, events=30)
    await trip(house)
    assert await lane(house, "breaker") == "open"
    for _ in range(3):
        assert await tend(house, claim(64)) == []
    await time_passes(owner, 31)
    probes = await asyncio.gather(*(tend(house, claim(64)) for _ in range(6)))
    [probe] = [one for claimed in probes for one in claimed]
    assert await lane(house, "breaker") == "half_open"
    await tend(house, settle([ended(probe, Reply(status=500))]))
    held = "SELECT extract(epoch FROM hold_until - clock_timestamp())::float8 FROM lane"
    assert 58 < await house.pool.fetchval(held) <= 60
    assert await lane(house, "breaker") == "open"
    burned = await house.pool.fetchval("SELECT sum(attempt) FROM delivery")
    assert burned == 11
    await time_passes(owner, 61)
    for at_once in (1, 1, 2, 4):  # the probe, then slowly
        claimed = await tend(house, claim(64))
        assert len(claimed) == at_once
        await tend(house, settle([ended(one, Reply(status=200)) for one in claimed]))
    assert await lane(house, "breaker") == "closed"


async def test_no_probe_goes_out_while_something_is_still_in_flight(
    house: House, owner: asyncpg.Connection
) -> None:
    await listening_shop(house, events=30)
    (straggler,) = await tend(house, claim(1))
    await trip(house)
    await owner.execute("UPDATE lane SET hold_until = now(), next_due_at = now()")
    assert await tend(house, claim(64)) == []
    await tend(house, settle([ended(straggler, Reply(status=500))]))
    assert await lane(house, "breaker_trips") == 1
    await owner.execute("UPDATE lane SET hold_until = now(), next_due_at = now()")
    assert len(await tend(house, claim(64))) == 1


async def test_enabling_an_endpoint_closes_its_breaker(
    house: House, owner: asyncpg.Connection
) -> None:
    shop = await listening_shop(house, events=30)
    await trip(house)
    endpoint = await owner.fetchval("SELECT id FROM webhook_endpoint")
    for is_active in (False, True):
        wanted = WebhookUpdate.model_validate({"isActive": is_active})
        await act(house, shop.actor, endpoints.update(shop.developer_id, endpoint, wanted))
    assert await lane(house, "breaker") == "closed"
    assert len(await tend(house, claim(64))) == 16


# Shares ------------------------------------------------------------------------------------------


async def tried_once(house: House, owner: asyncpg.Connection, events: int) -> Shop:
    """A shop whose deliveries have all failed once and are due again."""
    shop = await listening_shop(house, events)
    await owner.execute(
        """UPDATE delivery SET attempt = 1, visible_at = now() WHERE endpoint_id IN (
           SELECT id FROM webhook_endpoint WHERE developer_id = $1)""",
        shop.developer_id,
    )
    await tend(house, reconcile)
    return shop


async def test_retries_take_no_more_than_their_share_and_first_attempts_pass_them(
    house: House, owner: asyncpg.Connection
) -> None:
    for _ in range(4):
        await tried_once(house, owner, 12)
    for _ in range(2):
        await listening_shop(house, events=6)
    claimed = await tend(house, claim(20, retries=8))
    assert Counter(one.is_retry for one in claimed) == {True: 8, False: 12}
    assert await tend(house, claim(20, retries=0)) == []
    assert all(one.is_retry for one in await tend(house, claim(64)))


async def test_in_one_lane_a_backlog_of_retries_does_not_hold_up_what_is_new(
    house: House, owner: asyncpg.Connection
) -> None:
    shop = await tried_once(house, owner, 12)
    await waiting(house, shop, 3)
    claimed = await tend(house, claim(8, retries=0))
    assert [one.attempt for one in claimed] == [1, 1, 1]


async def test_slow_lanes_share_their_part(house: House, owner: asyncpg.Connection) -> None:
    for _ in range(3):
        await listening_shop(house, events=8)
    await owner.execute("UPDATE lane SET mean_ms = 2000")
    await listening_shop(house, events=8)
    claimed = await tend(house, claim(16, slow=4))
    assert Counter(one.is_slow for one in claimed) == {True: 4, False: 8}
    assert len({one.endpoint_id for one in claimed if one.is_slow}) == 3
    assert await tend(house, claim(16, slow=0)) == []


async def test_the_lanes_mean_says_that_it_is_slow(house: House) -> None:
    await listening_shop(house, events=8)
    for is_slow in (False, False, True):
        claimed = await tend(house, claim(2))
        assert {one.is_slow for one in claimed} == {is_slow}
        replies = [Reply(status=200, total_ms=6000) for _ in claimed]
        answered = zip(claimed, replies, strict=True)
        await tend(house, settle([ended(one, reply) for one, reply in answered]))


# Fifo --------------------------------------------------------------------------------------------


async def fifo_shop(house: House, events: int) -> tuple[Shop, str]:
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, URL, events=["*"], fifo=True)
    await waiting(house, shop, events)
    return shop, made["id"]


async def in_order(house: House) -> list[UUID]:
    rows = await house.pool.fetch("SELECT d.id FROM delivery d JOIN event v ON v.id = d.event_id "
                                  "ORDER BY v.position")  # fmt: skip
    return [row["id"] for row in rows]


async def test_a_fifo_lane_sends_one_at_a_time_in_the_order_of_the_events(house: House) -> None:
    await fifo_shop(house, events=5)
    sent = []
    for _ in range(5):
        taken = await asyncio.gather(*(tend(house, claim(64)) for _ in range(4)))
        [one] = [one for claimed in taken for one in claimed]
        sent.append(one.id)
        await tend(house, settle([ended(one, Reply(status=200))]))
    assert sent == await in_order(house)


async def test_a_failure_holds_a_fifo_lane_until_its_head_is_through(
    house: House, owner: asyncpg.Connection
) -> None:
    await fifo_shop(house, events=3)
    first, second, _ = await in_order(house)
    for attempt in (1, 2, 3):
        (head,) = await tend(house, claim(64))
        assert (head.id, head.attempt) == (first, attempt)
        await tend(house, settle([ended(head, Reply(status=500))]))
        assert await tend(house, claim(64)) == []
        await time_passes(owner, 3000)
    (head,) = await tend(house, claim(64))
    await tend(house, settle([ended(head, Reply(status=200))]))
    assert [one.id for one in await tend(house, claim(64))] == [second]


async def test_what_is_sent_again_in_a_fifo_lane_has_one_attempt_and_holds_up_nothing_newer(
    house: House, owner: asyncpg.Connection
) -> None:
    shop, endpoint = await fifo_shop(house, events=2)
    first, second = await in_order(house)
    for _ in range(2):
        (head,) = await tend(house, claim(64))
        await tend(house, settle([ended(head, Reply(status=200))]))
    await waiting(house, shop, 1)
    await act(house, shop.actor, attempts.resend(shop.developer_id, endpoint, first))
    (again,) = await tend(house, claim(64))
    assert (again.id, again.attempt, again.rung) == (first, 2, None)
    await tend(house, settle([ended(again, Reply(status=500))]))
    states = dict(await owner.fetch("SELECT id, state FROM delivery"))
    assert (states[first], states[second]) == ("exhausted", "delivered")
    (newer,) = await tend(house, claim(64))
    assert newer.id == (await in_order(house))[2]


async def test_a_head_that_is_hurried_by_hand_keeps_its_ladder(house: House) -> None:
    shop, endpoint = await fifo_shop(house, events=1)
    (head,) = await tend(house, claim(64))
    await tend(house, settle([ended(head, Reply(status=500))]))
    await act(house, shop.actor, attempts.resend(shop.developer_id, endpoint, head.id))
    (again,) = await tend(house, claim(64))
    assert (again.attempt, again.rung) == (2, 2)


async def test_a_lane_without_an_order_has_no_head_to_skip(house: House) -> None:
    await listening_shop(house, events=1)
    endpoint = await house.pool.fetchval("SELECT id FROM webhook_endpoint")
    with pytest.raises(WebhookRefused):
        await act(house, OPERATOR, skip_head(endpoint))


async def test_the_operator_skips_the_head_of_a_fifo_lane(house: House) -> None:
    _, endpoint = await fifo_shop(house, events=3)
    first, second, third = await in_order(house)
    (head,) = await tend(house, claim(64))
    with pytest.raises(DeliveryNotFound):  # it is being sent
        await act(house, OPERATOR, skip_head(endpoint))
    await tend(house, settle([ended(head, Reply(status=500))]))
    await act(house, OPERATOR, skip_head(endpoint))
    skipped = "SELECT id FROM delivery WHERE state = 'cancelled'"
    assert await house.pool.fetchval(skipped) == first
    (head,) = await tend(house, claim(64))
    assert head.id == second
    await tend(house, settle([ended(head, Reply(status=200))]))
    assert [one.id for one in await tend(house, claim(64))] == [third]
    assert ("skip", None, "operator") in await read_log(house, endpoint)


async def test_a_fifo_lane_waits_for_an_older_event_that_is_still_being_fanned_out(
    house: House, owner: asyncpg.Connection
) -> None:
    shop, _ = await fifo_shop(house, events=0)
    for _ in range(3):
        await make_escrow(house, shop)
    waits = "fanned_at IS NULL AND type IS NOT NULL"
    oldest = f"SELECT id FROM event WHERE {waits} ORDER BY position LIMIT 1"
    async with owner.transaction():  # another worker has it
        await owner.fetchval(f"{oldest} FOR UPDATE")
        assert await tend(house, fan_out) == 2
        assert await tend(house, claim(64)) == []
    assert await tend(house, fan_out) == 1
    (head,) = await tend(house, claim(64))
    assert head.id == (await in_order(house))[0]


# What is told ------------------------------------------------------------------------------------


async def told(house: House) -> list[str]:
    rows = await house.pool.fetch(
        "SELECT type FROM event WHERE subject_kind = 'endpoint' AND type IS NOT NULL "
        "ORDER BY position"
    )
    return [row["type"] for row in rows]


async def mails(house: House) -> list[tuple[str, str]]:
    rows = await house.pool.fetch(
        "SELECT template, facts->>'reason' AS why FROM mail WHERE template LIKE 'endpoint%' "
        "ORDER BY id"
    )
    return [(row["template"], row["why"]) for row in rows]


async def fail_for(owner: asyncpg.Connection, days: int, attempts: int = 20) -> None:
    """As if the lane had failed for so many days until now."""
    await owner.execute(
        """UPDATE lane SET failing_since = now() - make_interval(days => $1),
           last_attempt_at = now(), failure_count = $2""",
        days,
        attempts,
    )


async def test_an_endpoint_that_fails_is_told_of_once_and_so_is_its_recovery(
    house: House, owner: asyncpg.Connection
) -> None:
    await listening_shop(house, events=30)
    assert await tend(house, watch) == 0
    await trip(house)
    assert sorted(await asyncio.gather(*(tend(house, watch) for _ in range(4)))) == [0, 0, 0, 1]
    assert await told(house) == ["endpoint.failing"]
    await time_passes(owner, 31)
    (probe,) = await tend(house, claim(64))
    await tend(house, settle([ended(probe, Reply(status=200))]))
    assert await tend(house, watch) == 1
    assert await tend(house, watch) == 0
    assert await told(house) == ["endpoint.failing", "endpoint.recovered"]
    assert await mails(house) == []


async def test_mails_go_out_once_each_and_after_five_days_the_endpoint_is_disabled(
    house: House, owner: asyncpg.Connection
) -> None:
    await listening_shop(house, events=2)
    (one,) = await tend(house, claim(1))
    await owner.execute("UPDATE delivery SET attempt = 10 WHERE id = $1", one.id)
    last = last_rung(one)
    await tend(house, settle([ended(last, Reply(status=500))]))
    for days in (0, 1, 2, 3, 4, 5):
        await fail_for(owner, days)
        for _ in range(2):
            await tend(house, watch)
    assert await mails(house) == [
        ("endpoint_failing", "exhausted"),
        ("endpoint_failing", "day"),
        ("endpoint_failing", "three_days"),
        ("endpoint_disabled", "failing"),
    ]
    assert await told(house) == ["delivery.exhausted", "endpoint.failing", "endpoint.disabled"]
    states = "SELECT state FROM delivery ORDER BY recorded_at"
    assert [row[0] for row in await house.pool.fetch(states)] == ["exhausted", "parked"]
    reason = "SELECT disabled_reason FROM webhook_endpoint WHERE NOT is_active"
    assert await house.pool.fetchval(reason) == "no attempt has succeeded for five days"


async def test_the_first_that_a_run_gives_up_is_mailed_though_a_success_follows_at_once(
    house: House,
) -> None:
    await listening_shop(house, events=3)
    first, second, third = await tend(house, claim(3))
    gone = last_rung(first)
    answers = [ended(gone, Reply(status=500)), ended(second, Reply(status=200))]
    await tend(house, settle(answers))
    assert await mails(house) == [("endpoint_failing", "exhausted")]
    await tend(house, watch)
    await tend(house, settle([ended(last_rung(third), Reply(status=500))]))
    await tend(house, watch)
    assert await mails(house) == [("endpoint_failing", "exhausted")]  # one a day
    assert await told(house) == ["delivery.exhausted"] * 2 + ["endpoint.failing"]


async def test_whoever_was_told_of_as_failing_is_told_of_as_recovered_after_an_enable_too(
    house: House, owner: asyncpg.Connection
) -> None:
    shop = await listening_shop(house, events=30)
    await trip(house)
    await tend(house, watch)
    endpoint = await owner.fetchval("SELECT id FROM webhook_endpoint")
    wanted = WebhookUpdate.model_validate({"isActive": False})
    await act(house, shop.actor, endpoints.update(shop.developer_id, endpoint, wanted))
    await act(house, shop.actor, endpoints.enable(shop.developer_id, endpoint))
    assert await tend(house, watch) == 0
    (one, *_) = await tend(house, claim(64))
    await tend(house, settle([ended(one, Reply(status=200))]))
    assert await tend(house, watch) == 1
    assert await told(house) == ["endpoint.failing", "endpoint.recovered"]


async def test_enabling_what_is_active_is_worth_a_probe_and_forgets_nothing(
    house: House, owner: asyncpg.Connection
) -> None:
    shop = await listening_shop(house, events=30)
    await trip(house)
    await tend(house, watch)
    endpoint = await owner.fetchval("SELECT id FROM webhook_endpoint")
    shown = "SELECT breaker, breaker_trips, failing_since, failure_count, told FROM lane"
    before = tuple(await owner.fetchrow(shown))
    await act(house, shop.actor, endpoints.enable(shop.developer_id, endpoint))
    assert tuple(await owner.fetchrow(shown)) == before
    assert len(await tend(house, claim(64))) == 1  # the one probe that a wish is worth


@pytest.mark.parametrize("failures", [0, 10])
async def test_enabling_what_is_active_overrules_no_retry_after(
    house: House, owner: asyncpg.Connection, failures: int
) -> None:
    shop = await listening_shop(house, events=30)
    (one,) = await tend(house, claim(1))
    if failures:
        await trip(house)
    await tend(house, settle([ended(one, Reply(status=503, retry_after="600"))]))
    endpoint = await owner.fetchval("SELECT id FROM webhook_endpoint")
    await act(house, shop.actor, endpoints.enable(shop.developer_id, endpoint))
    assert await tend(house, claim(64)) == []
    await time_passes(owner, 700)
    assert len(await tend(house, claim(64))) >= 1


async def test_many_that_fail_are_told_of_in_more_than_one_transaction(
    house: House, owner: asyncpg.Connection, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(deliveries, "WATCH_BATCH", 2)
    for _ in range(5):
        await listening_shop(house)
    await fail_for(owner, days=1)
    assert [await tend(house, watch) for _ in range(4)] == [2, 2, 1, 0]
    assert await told(house) == ["endpoint.failing"] * 5
    assert len(await mails(house)) == 5


@pytest.mark.parametrize(("days", "attempts"), [(4, 100), (6, 19)])
async def test_less_than_that_disables_nobody(
    house: House, owner: asyncpg.Connection, days: int, attempts: int
) -> None:
    await listening_shop(house, events=1)
    await fail_for(owner, days, attempts)
    await tend(house, watch)
    assert await house.pool.fetchval("SELECT is_active FROM webhook_endpoint")


async def test_what_was_given_up_is_told_and_what_tells_of_endpoints_is_not(house: House) -> None:
    shop = await listening_shop(house, events=3)
    await make_endpoint(house, shop, URL, events=["endpoint.*", "delivery.*"], ladder="brief")
    claimed = await tend(house, claim(3))
    gone = [last_rung(one) for one in claimed]
    await tend(house, settle([ended(one, Reply(fault=Fault.RESET)) for one in gone]))
    assert await told(house) == ["delivery.exhausted"] * 3
    await waiting(house, shop, 0)
    news = await tend(house, claim(64))
    assert {one.type for one in news} == {"delivery.exhausted"}
    data = orjson.loads(news[0].body or b"")["data"]
    assert data["webhook"]["id"] == claimed[0].endpoint_id
    assert data["delivery"] == {
        "id": str(claimed[0].id), "eventId": str(claimed[0].event_id), "type": "escrow.created",
        "attempt": 10, "lastStatus": 0, "lastErrorClass": "reset",
    }  # fmt: skip
    await tend(house, settle([ended(last_rung(n), Reply(status=500)) for n in news]))
    assert await told(house) == ["delivery.exhausted"] * 3
    await assert_sound(house)


async def test_after_a_settle_a_claim_finds_what_had_no_room_and_then_nothing(
    house: House, owner: asyncpg.Connection
) -> None:
    await listening_shop(house, events=2)
    await owner.execute("UPDATE lane SET cap = 1, send_window = 1")
    for _ in range(2):
        (one,) = await tend(house, claim(64))
        assert await lane(house, "next_due_at > clock_timestamp() + interval '30 seconds'")
        assert await tend(house, settle([ended(one, Reply(status=200))])) == {one.id}
        assert await lane(house, "next_due_at <= clock_timestamp()")
    assert await tend(house, claim(64)) == []
    assert await lane(house, "next_due_at = 'infinity' AND first_due_at = 'infinity'")


async def test_a_settle_lets_no_held_lane_go_on(house: House, owner: asyncpg.Connection) -> None:
    await listening_shop(house, events=2)
    await owner.execute("UPDATE lane SET cap = 1, send_window = 1")
    (one,) = await tend(house, claim(64))
    await owner.execute("UPDATE lane SET hold_until = clock_timestamp() + interval '50 seconds'")
    await tend(house, settle([ended(one, Reply(status=200))]))
    assert await tend(house, claim(64)) == []
    await owner.execute("UPDATE lane SET hold_until = clock_timestamp()")
    assert len(await tend(house, claim(64))) == 1


async def test_after_a_failure_the_lane_is_due_with_the_retry(house: House) -> None:
    await listening_shop(house, events=1)
    (one,) = await tend(house, claim(64))
    await tend(house, settle([ended(one, Reply(status=500))]))
    assert await tend(house, claim(64)) == []
    due = "SELECT extract(epoch FROM next_due_at - clock_timestamp())::float8 FROM lane"
    assert 4 < await house.pool.fetchval(due) <= 5


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


async def old_week(owner: asyncpg.Connection, days: int) -> tuple[str, str]:
    """Partitions of the week so many days ago, with a body and an attempt in each; their names."""
    at = f"now() - interval '{days} days'"
    body = f"INSERT INTO webhook_body VALUES (gen_random_uuid(), {at}, 'x')"
    await owner.execute(body)
    await owner.execute(
        f"""INSERT INTO webhook_attempt (delivery_id, n, recorded_at, started_at, status, total_ms,
            answer) VALUES (gen_random_uuid(), 1, {at}, {at}, 200, 1, '')"""
    )
    await owner.execute("SELECT make_webhook_partitions(4)")
    week = await owner.fetchval(f"SELECT to_char(({at}) AT TIME ZONE 'UTC', 'IYYY\"w\"IW')")
    return f"webhook_body_{week}", f"webhook_attempt_{week}"


async def there(owner: asyncpg.Connection, table: str) -> bool:
    return await owner.fetchval("SELECT to_regclass($1) IS NOT NULL", table)  # type: ignore[no-any-return]


async def test_weeks_go_as_whole_partitions_attempts_after_30_days_and_bodies_after_90(
    house: House, owner: asyncpg.Connection
) -> None:
    made = {days: await old_week(owner, days) for days in (20, 50, 110)}
    assert await tend(house, drop_partitions) == 3
    shown = {days: [await there(owner, part) for part in parts] for days, parts in made.items()}
    assert shown == {20: [True, True], 50: [True, False], 110: [False, False]}
    assert await tend(house, drop_partitions) == 0
    shorter = replace(house, policy=replace(house.policy, body_retention_days=40))
    assert await tend(shorter, drop_partitions) == 1
    await owner.execute(f"DROP TABLE {', '.join(p for p in made[20])}")


async def test_a_week_stays_while_an_open_delivery_points_into_it(
    house: House, owner: asyncpg.Connection
) -> None:
    body, _ = await old_week(owner, 110)
    await listening_shop(house, events=1)
    for state, attempt in (("pending", 0), ("pending", 3), ("parked", 2)):
        await owner.execute(
            """UPDATE delivery SET state = $1, attempt = $2,
               recorded_at = now() - interval '110 days'""",
            state,
            attempt,
        )
        await tend(house, drop_partitions)
        assert await there(owner, body)
    assert await tend(house, exhaust_parked) == 1
    ended = "SELECT state, last_fault FROM delivery"
    assert tuple(await owner.fetchrow(ended)) == ("exhausted", "no_body")
    await tend(house, drop_partitions)
    assert not await there(owner, body)


async def test_what_is_parked_for_a_shorter_time_waits_on(
    house: House, owner: asyncpg.Connection
) -> None:
    await listening_shop(house, events=1)
    await owner.execute("UPDATE delivery SET state = 'parked'")
    assert await tend(house, exhaust_parked) == 0


async def test_nobody_can_have_everything_dropped(house: House) -> None:
    for days in ((0, 30), (90, -1)):
        with pytest.raises(asyncpg.RaiseError):
            await house.pool.fetchval("SELECT drop_webhook_partitions($1, $2)", *days)
