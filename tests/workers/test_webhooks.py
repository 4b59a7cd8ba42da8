"""The courier, over a real receiver and a real database: every event arrives, whatever happens."""

import asyncio
import contextlib
from collections import Counter
from collections.abc import AsyncIterator, Callable
from dataclasses import replace
from datetime import UTC, datetime

import asyncpg
import pytest
from aiohttp import web

from service.commands import developers, endpoints, escrows
from service.commands.deliveries import acknowledge, claim, fan_out, reconcile, settle
from service.commands.mails import open_mailbox
from service.commands.perform import House, tend
from service.gateways.post import HttpPost
from service.rules.delivery import STANDARD, Reply, judge
from service.rules.lane import retry_slots
from service.rules.signing import standard_signature
from service.store.db import Transaction
from service.store.deliveries import Attempt
from service.wire.webhooks import WebhookUpdate
from tests.makers import Shop, act, arrange, make_buyer, make_escrow, make_shop, reread
from tests.outbox import WORDS, send_all
from tests.receiver import Parcel, Receiver, make_endpoint, receiving, verify
from workers.timers import Timers
from workers.webhooks import Courier

STATUS_UPDATED = "escrow.status.updated"


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


@pytest.fixture
async def courier(house: House, post: HttpPost) -> AsyncIterator[Courier]:
    hired = Courier(house, post, chance=lambda: 0.5)
    yield hired
    await hired.close(grace_seconds=0)


@contextlib.asynccontextmanager
async def working(courier: Courier) -> AsyncIterator[None]:
    """The courier at work for as long as the block."""
    task = asyncio.create_task(courier.run())
    try:
        yield
    finally:
        await courier.close(grace_seconds=0)
        await task


async def until(fact: Callable[[], object], seconds: float = 5) -> None:
    async with asyncio.timeout(seconds):
        while not fact():  # noqa: ASYNC110 - facts of a receiver and of the database
            await asyncio.sleep(0.01)


async def rows(house: House, query: str, *args: object) -> list[tuple[object, ...]]:
    return [tuple(row) for row in await house.pool.fetch(query, *args)]


async def states(house: House) -> list[tuple[object, ...]]:
    return await rows(
        house, "SELECT state, attempt, last_status, last_fault FROM delivery ORDER BY recorded_at"
    )


async def fall_due(owner: asyncpg.Connection) -> None:
    """Time passes: every wait and every lease is over."""
    await owner.execute("UPDATE delivery SET visible_at = now() WHERE state = 'pending'")
    await owner.execute("UPDATE lane SET next_due_at = now(), hold_until = '-infinity'")


async def test_every_event_of_a_life_arrives_signed(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, receiver.url, events=["*"])
    await make_escrow(house, shop, status="completed")
    await courier.settle_all()
    receiver.parcels.sort(key=lambda parcel: parcel.headers["webhook-id"])
    assert receiver.types == ["escrow.created", STATUS_UPDATED, STATUS_UPDATED]
    for parcel in receiver.parcels:
        verify(parcel, made["secret"])
        assert parcel.headers["X-Webhook-Event"] == parcel.type
        assert parcel.headers["Content-Type"] == "application/json"
    stored = await rows(house, "SELECT body FROM webhook_body ORDER BY recorded_at")
    assert [(parcel.body,) for parcel in receiver.parcels] == stored
    sent = [(p.headers["X-Webhook-Id"], p.headers["webhook-id"]) for p in receiver.parcels]
    told = "SELECT id::text, event_id::text FROM delivery ORDER BY recorded_at"
    assert sent == await rows(house, told)
    assert await states(house) == [("delivered", 1, 200, None)] * 3


async def test_only_what_was_subscribed_to_arrives(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url)
    await make_endpoint(house, shop, receiver.url, events=["invitation.*", "identity.*"])
    await make_escrow(house, shop, status="paid")
    await courier.settle_all()
    assert receiver.types == [STATUS_UPDATED]


async def test_the_creator_and_each_party_with_a_developer_are_told_once(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    creator, seller, stranger = [await make_shop(house) for _ in range(3)]
    for shop in (creator, seller, stranger):
        await make_endpoint(house, shop, f"{receiver.url}/{shop.developer_id}", events=["escrow.*"])
    await make_escrow(house, creator, mode="quick", seller_email=seller.email)
    await make_escrow(house, seller)
    await courier.settle_all()
    told = await rows(
        house,
        """SELECT e.developer_id::text, count(*) FROM delivery d
           JOIN webhook_endpoint e ON e.id = d.endpoint_id GROUP BY 1 ORDER BY 2""",
    )
    assert told == [(creator.developer_id, 1), (seller.developer_id, 2)]


async def test_a_retry_is_the_same_delivery_with_the_same_body_at_another_time(
    house: House, owner: asyncpg.Connection, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, receiver.url)
    await make_escrow(house, shop, status="paid")
    receiver.says(500)
    await courier.settle_all()
    assert await states(house) == [("pending", 1, 500, None)]
    waits = "SELECT extract(epoch FROM visible_at - clock_timestamp())::float8 FROM delivery"
    assert 4 < await house.pool.fetchval(waits) <= 5
    receiver.says(204)
    await fall_due(owner)
    await courier.settle_all()
    assert await states(house) == [("delivered", 2, 204, None)]
    first, second = receiver.parcels
    for name in ("X-Webhook-Id", "webhook-id", "X-Webhook-Signature"):
        assert first.headers[name] == second.headers[name]
    assert first.headers["X-Webhook-Timestamp"] < second.headers["X-Webhook-Timestamp"]
    assert first.body == second.body
    verify(second, made["secret"])
    attempts = await rows(house, "SELECT n, status, fault, address FROM webhook_attempt ORDER BY n")
    assert attempts == [(1, 500, None, "127.0.0.1"), (2, 204, None, "127.0.0.1")]


async def test_the_endpoint_shows_its_last_attempt_and_its_run_of_failures(
    house: House, owner: asyncpg.Connection, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, receiver.url)
    shown = "SELECT failure_count, last_response_status FROM endpoint_standing"
    assert await rows(house, shown) == [(0, None)]
    await make_escrow(house, shop, status="paid")
    receiver.says(500)
    await courier.settle_all()
    await fall_due(owner)
    await courier.settle_all()
    assert await rows(house, shown) == [(2, 500)]
    receiver.says(200)
    await fall_due(owner)
    await courier.settle_all()
    assert await rows(house, shown) == [(0, 200)]
    at = await house.pool.fetchval("SELECT last_triggered_at FROM endpoint_standing")
    assert abs((datetime.now(UTC) - at).total_seconds()) < 5
    assert made["isActive"] is True


async def test_no_answer_is_status_0(house: House, courier: Courier) -> None:
    shop = await make_shop(house)
    async with receiving() as gone:
        pass
    await make_endpoint(house, shop, gone.url)
    await make_escrow(house, shop, status="paid")
    await courier.settle_all()
    assert await states(house) == [("pending", 1, 0, "refused")]
    shown = await rows(house, "SELECT failure_count, last_response_status FROM endpoint_standing")
    assert shown == [(1, 0)]


async def test_the_brief_ladder_gives_up_after_three_attempts(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url, ladder="brief")
    await make_escrow(house, shop, status="paid")
    receiver.says(500)
    async with working(courier):
        await until(lambda: len(receiver.parcels) == 3)
        await asyncio.sleep(0.1)
    assert await states(house) == [("exhausted", 3, 500, None)]
    first, second, third = [
        datetime.fromisoformat(p.headers["X-Webhook-Timestamp"]) for p in receiver.parcels
    ]
    assert 1 <= (second - first).total_seconds() < 1.6
    assert 2 <= (third - second).total_seconds() < 2.6


async def test_gone_disables_the_endpoint_and_keeps_what_waits_until_it_is_enabled(
    house: House, owner: asyncpg.Connection, receiver: Receiver, post: HttpPost
) -> None:
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, receiver.url)
    one_at_a_time = Courier(house, post, slots=1)
    await make_escrow(house, shop, status="completed")
    receiver.says(410)
    await one_at_a_time.settle_all()
    assert await states(house) == [("cancelled", 1, 410, None), ("parked", 0, None, None)]
    disabled = "SELECT is_active, disabled_reason FROM endpoint_standing"
    assert await rows(house, disabled) == [(False, "the receiver answered 410 Gone")]
    await make_escrow(house, shop, status="paid")
    await one_at_a_time.settle_all()
    assert len(receiver.parcels) == 1

    receiver.says(200)
    enabled = WebhookUpdate.model_validate({"isActive": True})
    await act(house, shop.actor, endpoints.update(shop.developer_id, made["id"], enabled))
    await one_at_a_time.settle_all()
    assert await states(house) == [("cancelled", 1, 410, None), ("delivered", 1, 200, None)]
    assert await rows(house, disabled) == [(True, None)]


async def test_disabling_is_told_to_the_developers_other_endpoint(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    async with receiving() as other:
        made = await make_endpoint(house, shop, receiver.url)
        await make_endpoint(house, shop, other.url, events=["endpoint.*"])
        receiver.says(410)
        await make_escrow(house, shop, status="paid")
        await courier.settle_all()
        assert other.types == ["endpoint.disabled"]
        assert made["id"] in other.parcels[0].body.decode()


@pytest.mark.parametrize("language", ["en", "ar"])
async def test_disabling_is_mailed_to_the_developer_once(
    house: House, owner: asyncpg.Connection, receiver: Receiver, courier: Courier, language: str
) -> None:
    shop = await make_shop(house)
    email = await owner.fetchval("SELECT email FROM developer WHERE id = $1", shop.developer_id)
    await owner.execute("UPDATE app_user SET language = $1 WHERE id = $2", language, shop.user_id)
    made = await make_endpoint(house, shop, receiver.url)

    async def answer(_: Parcel) -> web.Response:
        return web.Response(status=500, headers={"webhook-delivery": "disable"})

    receiver.answer = answer
    for _ in range(3):
        await make_escrow(house, shop, status="completed")
    await courier.settle_all()
    await send_all(house)
    [mail] = await open_mailbox(house.pool, WORDS, house.policy, house.vault, email)
    assert receiver.url in mail.subject
    assert "webhook-delivery: disable" in mail.text
    assert f'lang="{language}"' in mail.html
    assert mail.links == [f"http://amana.test/dashboard/webhooks/{made['id']}"]


async def test_retry_after_holds_the_whole_lane(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url)
    await make_escrow(house, shop, status="paid")
    receiver.says(429, Retry_After="2")
    await courier.settle_all()
    assert await states(house) == [("pending", 1, 429, None)]
    receiver.says(200)
    await make_escrow(house, shop, status="paid")
    async with working(courier):
        await until(lambda: len(receiver.parcels) == 2, seconds=20)
    first, second = receiver.stamps
    assert (second - first).total_seconds() >= 2
    async with asyncio.timeout(20):
        while (await states(house))[1][0] != "delivered":  # noqa: ASYNC110 - rows
            await asyncio.sleep(0.01)
    assert await states(house) == [("pending", 1, 429, None), ("delivered", 1, 200, None)]


async def test_a_dead_endpoint_does_not_hold_up_a_healthy_one(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    dead_shop, shop = await make_shop(house), await make_shop(house)
    async with receiving() as dead:
        dead.dawdles(30)
        await make_endpoint(house, dead_shop, dead.url)
        await make_endpoint(house, shop, receiver.url)
        for _ in range(10):
            await make_escrow(house, dead_shop, status="completed")
        await make_escrow(house, shop, status="completed")
        async with working(courier):
            await until(lambda: len(receiver.parcels) == 2, seconds=2)
            assert dead.at_once == 16


async def breakers_end(owner: asyncpg.Connection) -> None:
    """Time passes: every breaker's hold is over in the same moment, and every retry is due."""
    await owner.execute("UPDATE delivery SET visible_at = now() WHERE state = 'pending'")
    await owner.execute(
        "UPDATE lane SET breaker_until = now(), hold_until = now(), next_due_at = now()"
    )


OPEN = "SELECT count(*) FROM lane WHERE breaker = 'open'"


async def all_open(house: House, lanes: int) -> None:
    async with asyncio.timeout(20):
        while await house.pool.fetchval(OPEN) < lanes:  # noqa: ASYNC110 - the database
            await asyncio.sleep(0.05)


async def test_when_hundreds_recover_in_the_same_second_each_is_probed_and_first_attempts_go_on(
    house: House, owner: asyncpg.Connection, receiver: Receiver, post: HttpPost
) -> None:
    lanes, failures, slots = 200, 10, 192
    shop, fresh = await make_shop(house), await make_shop(house)
    many = replace(house, policy=replace(house.policy, max_webhooks_per_developer=lanes))
    for number in range(lanes):
        await make_endpoint(
            many, shop, f"{receiver.url}/{number}", events=["escrow.created"], timeoutSeconds=30
        )
    for _ in range(failures):
        await make_escrow(house, shop)
    receiver.says(500)
    async with working(Courier(house, post, slots=slots, chance=lambda: 0.9)):
        await all_open(house, lanes)
    assert len(receiver.parcels) == lanes * failures  # an open one burns none
    receiver.parcels.clear()
    receiver.most_at_once = 0
    in_flight, answered = Counter[str](), Counter[str]()
    breaches: list[str] = []

    async def answer(parcel: Parcel) -> web.Response:
        lane = parcel.path
        in_flight[lane] += 1
        if in_flight[lane] > max(1, answered[lane]):  # the probe, then 1; each success adds one
            breaches.append(lane)
        await asyncio.sleep(0.1)
        in_flight[lane] -= 1
        answered[lane] += 1
        return web.Response()

    receiver.answer = answer
    await breakers_end(owner)
    await make_endpoint(house, fresh, f"{receiver.url}/fresh", events=["escrow.created"])
    async with working(Courier(house, post, slots=slots)):
        await until(lambda: receiver.at_once >= retry_slots(slots))
        await make_escrow(house, fresh)
        await until(lambda: any(p.path.endswith("fresh") for p in receiver.parcels), seconds=2)
        await until(lambda: len(answered) == lanes + 1, seconds=20)
    assert breaches == []
    assert receiver.most_at_once <= retry_slots(slots) + 1  # the fresh one is no retry


async def test_after_its_breaker_a_lane_is_sent_one_then_two_then_four_up_to_its_cap(
    house: House, owner: asyncpg.Connection, receiver: Receiver, post: HttpPost
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url, events=["escrow.created"], timeoutSeconds=30)
    for _ in range(50):
        await make_escrow(house, shop)
    receiver.says(500)
    async with working(Courier(house, post, chance=lambda: 0.9)):
        await all_open(house, 1)
    await breakers_end(owner)
    gates = [asyncio.Event()]

    async def answer(_: Parcel) -> web.Response:
        await gates[-1].wait()
        return web.Response()

    receiver.answer = answer
    seen = []
    async with working(Courier(house, post)):
        for expected in (1, 1, 2, 4, 8, 16, 16):
            await until(lambda least=expected: receiver.at_once >= least)
            await asyncio.sleep(0.15)
            seen.append(receiver.at_once)
            gate = gates[-1]
            gates.append(asyncio.Event())
            gate.set()
            await asyncio.sleep(0)
    assert seen == [1, 1, 2, 4, 8, 16, 16]  # the probe first


async def test_the_cap_holds_over_several_workers(
    house: House, owner: asyncpg.Connection, receiver: Receiver, post: HttpPost
) -> None:
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, receiver.url)
    await owner.execute("UPDATE lane SET cap = 5, send_window = 5")
    for _ in range(12):
        await make_escrow(house, shop, status="completed")
    receiver.dawdles(0.05)
    crew = [Courier(house, post) for _ in range(4)]
    async with contextlib.AsyncExitStack() as stack:
        for courier in crew:
            await stack.enter_async_context(working(courier))
        await until(lambda: len(receiver.parcels) == 24, seconds=20)
        await until(lambda: receiver.at_once == 0)
        await asyncio.sleep(0.2)
    assert receiver.most_at_once == 5
    assert await states(house) == [("delivered", 1, 200, None)] * 24
    assert made["isActive"]


async def test_nothing_is_open_in_the_database_while_a_receiver_dawdles(
    house: House, owner: asyncpg.Connection, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url)
    await make_escrow(house, shop, status="paid")
    receiver.dawdles(0.3)
    await courier.drain()
    await until(lambda: receiver.at_once == 1)
    open_now = await owner.fetchval(
        """SELECT count(*) FROM pg_stat_activity WHERE datname = current_database()
           AND xact_start IS NOT NULL AND pid <> pg_backend_pid()"""
    )
    assert open_now == 0
    await courier.settle_all()


async def test_what_a_dead_worker_had_claimed_is_sent_again_and_its_late_answer_is_fenced(
    house: House, owner: asyncpg.Connection, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url)
    await make_escrow(house, shop, status="paid")
    await tend(house, fan_out)
    (lost,) = await tend(house, claim(10))
    due = "SELECT extract(epoch FROM next_due_at - clock_timestamp())::float8 FROM lane"
    assert 39 < await house.pool.fetchval(due) <= 40  # deadline 10 s and 30 s: never infinity
    await courier.settle_all()
    assert receiver.parcels == []

    await fall_due(owner)
    await courier.settle_all()
    assert await states(house) == [("delivered", 2, 200, None)]
    reply = Reply(status=500)
    late = Attempt(
        lost, datetime.now(UTC), reply, judge(reply, 1, STANDARD, datetime.now(UTC), 0.5)
    )
    assert await tend(house, settle([late])) == set()
    assert await states(house) == [("delivered", 2, 200, None)]
    assert await rows(house, "SELECT n, status FROM webhook_attempt") == [(2, 200)]


async def test_at_shutdown_what_is_in_flight_is_given_back_unburned(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url)
    await make_escrow(house, shop, status="paid")
    receiver.dawdles(30)
    async with working(courier):
        await until(lambda: receiver.at_once == 1)
    assert await states(house) == [("pending", 0, None, None)]
    assert await rows(house, "SELECT claim_token FROM delivery") == [(None,)]
    assert await rows(house, "SELECT 1 FROM webhook_attempt") == []
    wait = "SELECT extract(epoch FROM visible_at - clock_timestamp())::float8 FROM delivery"
    assert await house.pool.fetchval(wait) < 1.1


async def test_what_is_in_flight_at_shutdown_may_end(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url)
    await make_escrow(house, shop, status="paid")
    receiver.dawdles(0.2)
    await courier.drain()
    await until(lambda: receiver.at_once == 1)
    await courier.close(grace_seconds=5)
    assert await states(house) == [("delivered", 1, 200, None)]


async def test_an_event_without_any_wake_up_is_found_within_a_second(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url)
    async with working(courier):
        await asyncio.sleep(0.1)
        await make_escrow(house, shop, status="paid")
        await until(lambda: receiver.parcels, seconds=1.5)


async def test_a_lost_hint_is_put_right_by_the_reconciler(
    house: House, owner: asyncpg.Connection, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url)
    await make_escrow(house, shop, status="paid")
    await tend(house, fan_out)
    await owner.execute("UPDATE lane SET next_due_at = 'infinity'")
    await courier.settle_all()
    assert receiver.parcels == []
    assert await tend(house, reconcile) == 1
    await courier.settle_all()
    assert len(receiver.parcels) == 1


async def test_what_raced_past_a_disabling_is_parked_by_the_reconciler(
    house: House, owner: asyncpg.Connection, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url)
    await make_escrow(house, shop, status="paid")
    await tend(house, fan_out)
    await owner.execute("UPDATE webhook_endpoint SET is_active = false")
    await courier.settle_all()
    assert await states(house) == [("pending", 0, None, None)]
    await tend(house, reconcile)
    assert await states(house) == [("parked", 0, None, None)]
    assert receiver.parcels == []


async def test_a_pace_is_kept(house: House, receiver: Receiver, courier: Courier) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url, maxPerSecond=2)
    for _ in range(3):
        await make_escrow(house, shop, status="completed")
    async with working(courier):
        await until(lambda: len(receiver.parcels) == 6, seconds=20)
    stamps = sorted(receiver.stamps)
    assert (stamps[-1] - stamps[0]).total_seconds() > 1.5


async def test_a_pace_is_reached_without_polling(
    house: House, receiver: Receiver, post: HttpPost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.webhooks.POLL_SECONDS", 3600.0)
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url, maxPerSecond=20)
    for _ in range(6):
        await make_escrow(house, shop, status="completed")
    async with working(Courier(house, post)):
        await until(lambda: len(receiver.parcels) == 12, seconds=20)


async def test_what_happens_while_a_lane_is_held_is_sent_when_the_hold_ends(
    house: House, receiver: Receiver, post: HttpPost, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("workers.webhooks.POLL_SECONDS", 3600.0)
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url, maxPerSecond=1)
    await make_escrow(house, shop, status="paid")
    courier = Courier(house, post)
    async with working(courier):
        await until(lambda: receiver.parcels)
        await make_escrow(house, shop, status="paid")
        courier.wake()
        await until(lambda: len(receiver.parcels) == 2, seconds=20)


async def test_custom_headers_ride_along_and_a_rotated_secret_signs_beside_the_new_one(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, receiver.url, headers={"X-Tenant": "blue"})
    rotate = endpoints.regenerate_secret(shop.developer_id, made["id"], overlap_hours=1)
    rotated = await act(house, shop.actor, rotate)
    await make_escrow(house, shop, status="paid")
    await courier.settle_all()
    (parcel,) = receiver.parcels
    assert parcel.headers["X-Tenant"] == "blue"
    verify(parcel, rotated["secret"])
    assert len(parcel.headers["webhook-signature"].split(" ")) == 2


async def test_at_most_five_secrets_sign_and_the_oldest_beyond_is_dead_at_once(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, receiver.url)
    secrets = [made["secret"]]
    for _ in range(6):
        rotate = endpoints.regenerate_secret(shop.developer_id, made["id"], overlap_hours=168)
        secrets.append((await act(house, shop.actor, rotate))["secret"])
    assert await rows(house, "SELECT count(*) FROM endpoint_secret") == [(5,)]
    await make_escrow(house, shop, status="paid")
    await courier.settle_all()
    (parcel,) = receiver.parcels
    verify(parcel, secrets[-1])
    sent_at = int(parcel.headers["webhook-timestamp"])
    assert parcel.headers["webhook-signature"].split(" ") == [
        standard_signature(secret.encode(), parcel.headers["webhook-id"], sent_at, parcel.body)
        for secret in secrets[:1:-1]
    ]

    # A shorter overlap shortens that of the older ones; none ends them all.
    rotate = endpoints.regenerate_secret(shop.developer_id, made["id"], overlap_hours=1)
    await act(house, shop.actor, rotate)
    soon = "SELECT count(*) FROM endpoint_secret WHERE expires_at < now() + interval '61 min'"
    assert await rows(house, soon) == [(4,)]
    await act(house, shop.actor, endpoints.regenerate_secret(shop.developer_id, made["id"], 0))
    assert await rows(house, "SELECT expires_at FROM endpoint_secret") == [(None,)]
    await act(house, shop.actor, endpoints.delete(shop.developer_id, made["id"]))
    assert await rows(house, "SELECT expires_at FROM endpoint_secret") == []


async def test_a_secret_regenerated_without_overlap_is_dead_at_once(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, receiver.url)
    rotate = endpoints.regenerate_secret(shop.developer_id, made["id"], overlap_hours=0)
    rotated = await act(house, shop.actor, rotate)
    await make_escrow(house, shop, status="paid")
    await courier.settle_all()
    (parcel,) = receiver.parcels
    verify(parcel, rotated["secret"])
    assert len(parcel.headers["webhook-signature"].split(" ")) == 1
    with pytest.raises(AssertionError):
        assert parcel.headers["X-Webhook-Signature"] == made["secret"]


async def test_an_inner_address_is_exhausted_at_once_and_the_endpoint_flagged(
    house: House, receiver: Receiver
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url)
    await make_escrow(house, shop, status="paid")
    strict = HttpPost()
    await Courier(house, strict).settle_all()
    await strict.close()
    assert await states(house) == [("exhausted", 1, 0, "blocked")]
    assert await rows(house, "SELECT flag, is_active FROM webhook_endpoint") == [("blocked", True)]
    assert receiver.parcels == []


async def acknowledgements(house: House) -> list[tuple[object, ...]]:
    return await rows(house, "SELECT escrow_id::text FROM deadline WHERE kind = 'acknowledged'")


async def on_ack(house: House, shop: Shop) -> str:
    buyer = await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid", auto_complete="on_ack")
    return escrow.id


async def test_the_creators_2xx_to_a_payment_arms_the_completion_once(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url)
    await make_endpoint(house, shop, receiver.url, events=["*"])
    escrow_id = await on_ack(house, shop)
    await courier.settle_all()
    assert await acknowledgements(house) == [(escrow_id,)]
    assert (await reread(house, escrow_id)).status == "paid"
    await Timers(house).fire()
    assert (await reread(house, escrow_id)).status == "completed"
    await courier.settle_all()
    await Timers(house).fire()
    assert len(await acknowledgements(house)) == 1


async def test_a_failure_arms_nothing_until_the_retry_succeeds(
    house: House, owner: asyncpg.Connection, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url)
    receiver.says(500)
    escrow_id = await on_ack(house, shop)
    await courier.settle_all()
    assert await acknowledgements(house) == []
    receiver.says(200)
    await fall_due(owner)
    await courier.settle_all()
    assert await acknowledgements(house) == [(escrow_id,)]


async def test_a_busy_escrow_holds_up_neither_its_delivery_nor_its_completion_for_ever(
    house: House, owner: asyncpg.Connection, receiver: Receiver, post: HttpPost
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url)
    escrow_id = await on_ack(house, shop)
    courier = Courier(house, post)
    async with owner.transaction():
        await owner.execute("SELECT FROM escrow WHERE id = $1 FOR UPDATE", escrow_id)
        async with working(courier):
            await until(lambda: receiver.parcels)
            async with asyncio.timeout(5):
                while await states(house) != [("delivered", 1, 200, None)]:  # noqa: ASYNC110 - rows
                    await asyncio.sleep(0.01)
        assert await acknowledgements(house) == []
    await Courier(house, post).settle_all()
    assert await acknowledgements(house) == [(escrow_id,)]
    assert len(receiver.parcels) == 1


async def test_a_receipt_that_a_dead_worker_left_is_found_and_counts_once(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url)
    escrow_id = await on_ack(house, shop)
    await tend(house, fan_out)
    (one,) = await tend(house, claim(10))
    now, reply = datetime.now(UTC), Reply(status=200)
    died_after = Attempt(one, now, reply, judge(reply, 1, STANDARD, now, 0.5))
    await tend(house, settle([died_after]))
    assert await acknowledgements(house) == []
    await courier.settle_all()
    assert await acknowledgements(house) == [(escrow_id,)]
    assert await asyncio.gather(*(tend(house, acknowledge) for _ in range(5))) == [0] * 5
    await Timers(house).fire()
    assert (await reread(house, escrow_id)).status == "completed"
    await courier.settle_all()
    assert len(await acknowledgements(house)) == 1


async def test_receipts_read_at_once_arm_one_completion(house: House, receiver: Receiver) -> None:
    shop = await make_shop(house)
    for _ in range(2):
        await make_endpoint(house, shop, receiver.url)
    escrow_id = await on_ack(house, shop)
    await tend(house, fan_out)
    now, reply = datetime.now(UTC), Reply(status=200)
    outcome = judge(reply, 1, STANDARD, now, 0.5)
    sent = [Attempt(one, now, reply, outcome) for one in await tend(house, claim(10))]
    assert set(await tend(house, settle(sent))) == {one.claimed.id for one in sent}
    await asyncio.gather(*(tend(house, acknowledge) for _ in range(8)))
    assert await acknowledgements(house) == [(escrow_id,)]


async def test_an_escrow_that_was_delivered_by_hand_needs_no_receipt(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url)
    escrow_id = await on_ack(house, shop)
    await act(house, shop.actor, escrows.deliver(escrow_id))
    await courier.settle_all()
    assert await acknowledgements(house) == []
    assert (
        await rows(house, "SELECT 1 FROM delivery WHERE acknowledges AND acknowledged_at IS NULL")
        == []
    )


async def test_a_manual_escrow_and_another_event_acknowledge_nothing(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url, events=["*"])
    await make_escrow(house, shop, status="paid")
    await make_escrow(house, shop, auto_complete="on_ack")
    await courier.settle_all()
    assert len(receiver.parcels) == 3
    assert await acknowledgements(house) == []


async def test_only_the_creators_endpoint_acknowledges(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    creator, other = await make_shop(house), await make_shop(house)
    async with receiving() as silent:
        silent.says(500)
        await make_endpoint(house, creator, silent.url)
        await make_endpoint(house, other, receiver.url)
        buyer = await make_buyer(house)
        await act_as_user_of(house, other, buyer.email)
        await make_escrow(house, creator, buyer, status="paid", auto_complete="on_ack")
        await courier.settle_all()
    assert receiver.types == [STATUS_UPDATED]
    assert await acknowledgements(house) == []


async def act_as_user_of(house: House, shop: Shop, email: str) -> None:
    async def swap(tx: Transaction) -> None:
        await developers.dissociate(tx, shop.developer_id)
        await developers.associate(tx, shop.developer_id, email)

    await arrange(house, swap)


async def test_a_body_that_is_gone_is_exhausted_not_sent(
    house: House, owner: asyncpg.Connection, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url)
    await make_escrow(house, shop, status="paid")
    await owner.execute("DELETE FROM webhook_body")
    await courier.settle_all()
    assert await states(house) == [("exhausted", 1, 0, "no_body")]
    assert receiver.parcels == []


async def test_many_wake_ups_at_once_are_one(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url)
    await make_escrow(house, shop, status="completed")
    await asyncio.gather(*(courier.drain() for _ in range(20)))
    await courier.settle_all()
    assert len(receiver.parcels) == 2


async def test_a_receiver_that_redirects_is_not_followed(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    async def answer(_: Parcel) -> web.Response:
        return web.Response(status=307, headers={"Location": receiver.url})

    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url)
    await make_escrow(house, shop, status="paid")
    receiver.answer = answer
    await courier.settle_all()
    assert await states(house) == [("pending", 1, 307, None)]
    assert len(receiver.parcels) == 1
