"""Recoveries: found by their rows, in chunks, one transaction each; races change nothing."""

import asyncio
from datetime import UTC, datetime, timedelta

import asyncpg
import pytest

from service.commands import attempts, endpoints, recoveries
from service.commands.deliveries import fan_out
from service.commands.perform import House, tend
from service.gateways.post import HttpPost
from service.store import recoveries as store
from service.store.attempts import list_deliveries
from service.store.db import Transaction
from service.wire.webhooks import WebhookUpdate
from tests.makers import Shop, act, make_escrow, make_shop
from tests.receiver import Receiver, make_endpoint, receiving
from workers import recoveries as worker
from workers.metrics import WorkMetrics
from workers.rounds import Round
from workers.webhooks import Courier

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.fixture
async def receiver():
    async with receiving() as opened:
        yield opened


@pytest.fixture
async def courier(house: House):
    post = HttpPost(allow_private=True)
    hired = Courier(house, post, chance=lambda: 0.5)
    yield hired
    await hired.close(grace_seconds=0)
    await post.close()


async def given_up(
    house: House, receiver: Receiver, courier: Courier, count: int
) -> tuple[Shop, str]:
    """An endpoint before which so many deliveries were given up; its shop and its id."""
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, receiver.url, events=["escrow.created"], ladder="brief")
    receiver.says(404)
    for _ in range(count):
        await make_escrow(house, shop)
    await courier.settle_all()
    receiver.says(200)
    receiver.parcels.clear()
    return shop, made["id"]


async def ask(house: House, shop: Shop, endpoint_id: str, since: datetime = LONG_AGO) -> dict:
    answer = await act(
        house, shop.actor, recoveries.recover(shop.developer_id, endpoint_id, since, None)
    )
    return answer["recovery"]


async def newest(house: House, endpoint_id: str) -> store.Recovery:
    [found] = await store.list_recoveries(house.pool, endpoint_id, 1)
    return found


async def test_it_goes_on_in_chunks_and_says_how_far_it_is(
    house: House, receiver: Receiver, courier: Courier, monkeypatch: pytest.MonkeyPatch
):
    shop, endpoint_id = await given_up(house, receiver, courier, 5)
    monkeypatch.setattr(recoveries, "CHUNK", 2)
    assert (await ask(house, shop, endpoint_id))["count"] == 5
    seen = []
    while await tend(house, recoveries.run_chunk):
        one = await newest(house, endpoint_id)
        seen.append((one.state, one.recovered, one.is_missing))
    assert seen == [
        ("running", 2, False),
        ("running", 4, False),
        ("running", 5, False),
        ("running", 5, True),
        ("running", 5, True),
        ("done", 5, True),
    ]
    await courier.settle_all()
    assert len(receiver.parcels) == 5


async def test_a_crash_between_chunks_loses_nothing_and_repeats_nothing(
    house: House, receiver: Receiver, courier: Courier, monkeypatch: pytest.MonkeyPatch
):
    shop, endpoint_id = await given_up(house, receiver, courier, 4)
    monkeypatch.setattr(recoveries, "CHUNK", 2)
    await ask(house, shop, endpoint_id)

    async def dies(tx):
        await recoveries.run_chunk(tx)
        raise ZeroDivisionError

    for _ in range(3):
        with pytest.raises(ZeroDivisionError):
            await tend(house, dies)
        await tend(house, recoveries.run_chunk)
    await worker.turn(house)
    assert (await newest(house, endpoint_id)).recovered == 4
    await courier.settle_all()
    assert len(receiver.parcels) == 4


async def test_what_was_delivered_or_is_on_its_way_is_left_alone(
    house: House, owner: asyncpg.Connection, receiver: Receiver, courier: Courier
):
    shop, endpoint_id = await given_up(house, receiver, courier, 3)
    [first, second, _] = await list_deliveries(house.pool, endpoint_id, limit=9)
    await act(house, shop.actor, attempts.resend(shop.developer_id, endpoint_id, first.id))
    await courier.settle_all()
    await act(house, shop.actor, attempts.resend(shop.developer_id, endpoint_id, second.id))
    assert (await ask(house, shop, endpoint_id))["count"] == 1
    await worker.turn(house)
    await courier.settle_all()
    assert len(receiver.parcels) == 3
    assert (await newest(house, endpoint_id)).recovered == 1


async def test_what_waits_for_hours_on_its_ladder_is_sent_now(
    house: House, owner: asyncpg.Connection, receiver: Receiver, courier: Courier
):
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, receiver.url, events=["escrow.created"])
    receiver.says(500)
    await make_escrow(house, shop)
    await courier.settle_all()
    await owner.execute("UPDATE delivery SET attempt = 8, visible_at = now() + interval '20 h'")
    receiver.says(200)
    assert (await ask(house, shop, made["id"]))["count"] == 1
    await worker.turn(house)
    await courier.settle_all()
    [one] = await list_deliveries(house.pool, made["id"], limit=9)
    assert (one.state, one.attempt) == ("delivered", 9)


async def test_what_is_recovered_begins_a_new_ladder(
    house: House, owner: asyncpg.Connection, receiver: Receiver, courier: Courier
):
    shop, endpoint_id = await given_up(house, receiver, courier, 1)
    receiver.says(500)
    for times in (1, 2):
        await ask(house, shop, endpoint_id)
        await worker.turn(house)
        for _ in range(3):
            await courier.settle_all()
            await owner.execute("UPDATE delivery SET visible_at = now() WHERE state = 'pending'")
            await owner.execute("UPDATE lane SET next_due_at = now()")
        [one] = await list_deliveries(house.pool, endpoint_id, limit=9)
        assert (one.state, one.attempt) == ("exhausted", 1 + 3 * times)


async def test_what_was_attempted_a_thousand_times_is_recovered_no_more(
    house: House, owner: asyncpg.Connection, receiver: Receiver, courier: Courier
):
    shop, endpoint_id = await given_up(house, receiver, courier, 2)
    await owner.execute(
        "UPDATE delivery SET attempt = 1000 WHERE id = (SELECT id FROM delivery LIMIT 1)"
    )
    assert (await ask(house, shop, endpoint_id))["count"] == 1
    await worker.turn(house)
    await courier.settle_all()
    assert len(receiver.parcels) == 1


async def test_it_is_found_by_looking_where_no_bell_rings(
    house: House, receiver: Receiver, courier: Courier
):
    shop, endpoint_id = await given_up(house, receiver, courier, 1)
    looking = Round("recoveries", 0.1, lambda: worker.turn(house), WorkMetrics())
    task = asyncio.create_task(looking.run())
    await ask(house, shop, endpoint_id)
    async with asyncio.timeout(5):
        while (await newest(house, endpoint_id)).state != "done":  # noqa: ASYNC110 - a row's fact
            await asyncio.sleep(0.05)
    await looking.close()
    await task


async def test_the_window_bounds_what_is_sent(
    house: House, owner: asyncpg.Connection, receiver: Receiver, courier: Courier
):
    shop, endpoint_id = await given_up(house, receiver, courier, 2)
    between = await owner.fetchval("SELECT max(recorded_at) FROM delivery")
    assert (await ask(house, shop, endpoint_id, between))["count"] == 1
    await worker.turn(house)
    await courier.settle_all()
    assert len(receiver.parcels) == 1


async def test_what_happened_while_it_was_disabled_is_made_up_for(
    house: House, receiver: Receiver, courier: Courier
):
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, receiver.url, events=["escrow.*"])
    off = WebhookUpdate.model_validate({"isActive": False})
    await act(house, shop.actor, endpoints.update(shop.developer_id, made["id"], off))
    stranger = await make_shop(house)
    await make_escrow(house, shop, status="paid")
    await make_escrow(house, stranger, status="paid")
    await tend(house, fan_out)
    await act(house, shop.actor, endpoints.enable(shop.developer_id, made["id"]))
    await courier.settle_all()
    assert receiver.parcels == []
    await ask(house, shop, made["id"])
    await worker.turn(house)
    await courier.settle_all()
    assert receiver.types == ["escrow.created", "escrow.status.updated"]
    await ask(house, shop, made["id"])
    await worker.turn(house)
    await courier.settle_all()
    assert len(receiver.parcels) == 2


async def test_what_was_never_sent_there_is_made_up_for_chunk_by_chunk(
    house: House, receiver: Receiver, courier: Courier, monkeypatch: pytest.MonkeyPatch
):
    shop = await make_shop(house)
    for _ in range(5):
        await make_escrow(house, shop)
    while await tend(house, fan_out):
        pass
    made = await make_endpoint(house, shop, receiver.url, events=["escrow.*"])
    monkeypatch.setattr(recoveries, "CHUNK", 2)
    await ask(house, shop, made["id"])
    seen = []
    while await tend(house, recoveries.run_chunk):
        one = await newest(house, made["id"])
        seen.append((one.state, one.recovered))
    assert [recovered for _, recovered in seen][:4] == [0, 2, 4, 5]
    assert seen[-1] == ("done", 5)
    await courier.settle_all()
    assert receiver.types == ["escrow.created"] * 5


async def test_a_test_event_is_not_recovered_at_another_endpoint(
    house: House, receiver: Receiver, courier: Courier
):
    shop = await make_shop(house)
    one, other = [
        await make_endpoint(house, shop, f"{receiver.url}/{n}", events=["*"]) for n in range(2)
    ]
    await act(house, shop.actor, attempts.send_test(shop.developer_id, one["id"]))
    await courier.settle_all()
    await ask(house, shop, other["id"])
    await worker.turn(house)
    await courier.settle_all()
    assert len(receiver.parcels) == 1


@pytest.mark.parametrize("end", ["disable", "delete"])
async def test_it_is_cancelled_with_its_endpoint(
    house: House, receiver: Receiver, courier: Courier, end: str
):
    shop, endpoint_id = await given_up(house, receiver, courier, 2)
    await ask(house, shop, endpoint_id)
    off = WebhookUpdate.model_validate({"isActive": False})
    if end == "disable":
        await act(house, shop.actor, endpoints.update(shop.developer_id, endpoint_id, off))
    else:
        await act(house, shop.actor, endpoints.delete(shop.developer_id, endpoint_id))
    await worker.turn(house)
    await courier.settle_all()
    assert (await newest(house, endpoint_id)).state == "cancelled"
    assert receiver.parcels == []


async def test_two_workers_and_deliveries_under_way_send_each_once(
    house: House, receiver: Receiver, courier: Courier, monkeypatch: pytest.MonkeyPatch
):
    shop, endpoint_id = await given_up(house, receiver, courier, 9)  # the breaker trips at 10
    monkeypatch.setattr(recoveries, "CHUNK", 2)
    await ask(house, shop, endpoint_id)
    await asyncio.gather(worker.turn(house), worker.turn(house), courier.settle_all())
    await worker.turn(house)
    await courier.settle_all()
    sent = [parcel.headers["X-Webhook-Id"] for parcel in receiver.parcels]
    assert sorted(sent) == sorted(set(sent))
    assert len(sent) == 9
    assert (await newest(house, endpoint_id)).recovered == 9


async def test_two_who_ask_at_once_have_one_recovery(
    house: House, receiver: Receiver, courier: Courier
):
    shop, endpoint_id = await given_up(house, receiver, courier, 1)
    asked = [ask(house, shop, endpoint_id) for _ in range(4)]
    ends = await asyncio.gather(*asked, return_exceptions=True)
    assert sum(isinstance(one, dict) for one in ends) == 1
    codes = {one.code for one in ends if not isinstance(one, dict)}
    assert codes == {"RECOVERY_UNDER_WAY"}


async def test_a_window_in_the_sandboxs_moved_time_is_of_real_time(
    house: House, owner: asyncpg.Connection, receiver: Receiver, courier: Courier
):
    await owner.execute("UPDATE clock SET shift = '40 days'")
    shop, endpoint_id = await given_up(house, receiver, courier, 2)
    since = datetime.now(UTC) - timedelta(minutes=5)
    assert (await ask(house, shop, endpoint_id, since))["count"] == 2
    await worker.turn(house)
    await courier.settle_all()
    assert len(receiver.parcels) == 2


async def test_nobody_waits_for_the_endpoint_while_its_missing_events_are_looked_for(
    house: House, owner: asyncpg.Connection, receiver: Receiver, courier: Courier
):
    shop, endpoint_id = await given_up(house, receiver, courier, 1)
    await ask(house, shop, endpoint_id)
    await tend(house, recoveries.run_chunk)
    one = await newest(house, endpoint_id)

    async def look(tx: Transaction) -> store.Missing:
        return await store.look_for_missing(tx, one)

    async with owner.transaction():
        await owner.execute("LOCK TABLE webhook_endpoint IN EXCLUSIVE MODE")
        assert len((await tend(house, look)).ids) == 1


async def test_what_was_before_the_account_is_not_looked_at(
    house: House, receiver: Receiver, courier: Courier, monkeypatch: pytest.MonkeyPatch
):
    await make_escrow(house, await make_shop(house), status="completed")
    shop, endpoint_id = await given_up(house, receiver, courier, 1)
    await ask(house, shop, endpoint_id, datetime(1970, 1, 2, tzinfo=UTC))
    seen = []
    monkeypatch.setattr(store, "EVENTS_A_CHUNK", 1)
    while await tend(house, recoveries.run_chunk):
        one = await newest(house, endpoint_id)
        if one.is_missing and one.after_event:
            seen.append(one.after_event)
    begun = await house.pool.fetchval(
        "SELECT id FROM event WHERE subject_id = $1 AND step = 'enrol'", shop.developer_id
    )
    assert seen
    assert min(seen) > begun
