"""The canary goes the way of all deliveries, once a minute however many workers send it."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from service.commands.canary import send_canary
from service.commands.deliveries import fan_out
from service.commands.perform import House, tend
from service.gateways.post import HttpPost
from service.store.canary import DEVELOPER, SINK_URL
from service.store.developers import read_developers
from tests.books import assert_sound
from tests.makers import make_escrow, make_shop
from tests.receiver import Receiver, make_endpoint, receiving
from workers.canary import CanaryPost
from workers.metrics import WorkMetrics
from workers.webhooks import Courier


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


@pytest.fixture
async def courier(house: House) -> AsyncIterator[Courier]:
    post = CanaryPost(HttpPost())  # nothing inner may be dialled
    hired = Courier(house, post)
    yield hired
    await hired.close(grace_seconds=0)
    await post.close()


async def age(house: House) -> float | None:
    metrics = WorkMetrics()
    await metrics.look(house.pool)
    return metrics.registry.get_sample_value("amana_canary_seconds")


async def test_it_is_written_fanned_out_signed_taken_and_settled(
    house: House, courier: Courier
) -> None:
    assert await tend(house, send_canary)
    await courier.settle_all()
    told = """SELECT d.type, d.state, d.attempt, d.last_status, e.url FROM delivery d
              JOIN webhook_endpoint e ON e.id = d.endpoint_id"""
    rows = [tuple(row) for row in await house.pool.fetch(told)]
    assert rows == [("canary", "delivered", 1, 204, SINK_URL)]
    assert 0 <= (await age(house) or -1) < 5
    await assert_sound(house)


async def sent_by_eight(house: House) -> int:
    return sum(await asyncio.gather(*(tend(house, send_canary) for _ in range(8))))


async def pass_minutes(owner: asyncpg.Connection, minutes: int) -> None:
    """As if so much time had passed since the last canary."""
    span = f"interval '{minutes} min'"
    await owner.execute("SET session_replication_role = replica")
    await owner.execute(f"UPDATE event SET recorded_at = recorded_at - {span}")
    await owner.execute(f"UPDATE webhook_body SET recorded_at = recorded_at - {span}")
    await owner.execute(
        f"UPDATE delivery SET recorded_at = recorded_at - {span}, settled_at = settled_at - {span}"
    )
    await owner.execute(f"UPDATE lane SET last_attempt_at = last_attempt_at - {span}")
    await owner.execute("SET session_replication_role = origin")


async def test_many_workers_send_one_a_minute_and_write_an_event_in_five(
    house: House, courier: Courier, owner: asyncpg.Connection
) -> None:
    for minutes, events in ((0, 1), (1, 1), (3, 1), (1, 2), (1, 2)):
        await pass_minutes(owner, minutes)
        assert [await sent_by_eight(house) for _ in range(2)] == [1, 0]
        await courier.settle_all()
        assert await sent_by_eight(house) == 0
        assert 0 <= (await age(house) or -1) < 5
        told = "SELECT count(*) FROM event WHERE subject_id = $1"
        assert await house.pool.fetchval(told, DEVELOPER) == events
    taken = "SELECT count(*) FROM webhook_attempt WHERE status = 204"
    assert await house.pool.fetchval(taken) == 5
    await assert_sound(house)


async def test_one_that_is_lost_is_not_covered_up_by_another(
    house: House, owner: asyncpg.Connection
) -> None:
    assert await sent_by_eight(house) == 1
    await pass_minutes(owner, 6)
    assert await sent_by_eight(house) == 0  # no delivery was made of it
    await tend(house, fan_out)
    await pass_minutes(owner, 6)
    assert await sent_by_eight(house) == 0  # it waits still
    await pass_minutes(owner, 50)
    assert await sent_by_eight(house) == 1  # whatever has eaten it, the line is tried again


async def test_it_is_no_developer(house: House) -> None:
    await tend(house, send_canary)
    assert await read_developers(house.pool) == []


async def test_it_goes_to_nobody_else_and_nobody_elses_goes_to_it(
    house: House, receiver: Receiver
) -> None:
    post = CanaryPost(HttpPost(allow_private=True))
    courier = Courier(house, post)
    await tend(house, send_canary)
    shop = await make_shop(house)
    await make_endpoint(house, shop, receiver.url, events=["*"])
    await make_escrow(house, shop)
    await courier.settle_all()
    await post.close()
    assert receiver.types == ["escrow.created"]
    counted = await house.pool.fetch("SELECT type, count(*) FROM delivery GROUP BY 1 ORDER BY 1")
    assert [tuple(row) for row in counted] == [("canary", 1), ("escrow.created", 1)]
