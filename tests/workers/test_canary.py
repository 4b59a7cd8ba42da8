"""The canary goes the way of all events, once a minute however many workers send it."""

import asyncio
from collections.abc import AsyncIterator

import asyncpg
import pytest

from service.commands.canary import send_canary
from service.commands.perform import House, tend
from service.gateways.post import HttpPost
from service.store.canary import DEVELOPER, SINK_URL
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


async def test_many_workers_send_one_a_minute(house: House, owner: asyncpg.Connection) -> None:
    sent = await asyncio.gather(*(tend(house, send_canary) for _ in range(8)))
    sent += await asyncio.gather(*(tend(house, send_canary) for _ in range(8)))
    assert sum(sent) == 1
    await owner.execute("SET session_replication_role = replica")
    await owner.execute("UPDATE event SET recorded_at = recorded_at - interval '1 min'")
    await owner.execute("SET session_replication_role = origin")
    assert sum(await asyncio.gather(*(tend(house, send_canary) for _ in range(8)))) == 1
    seqs = await house.pool.fetch("SELECT seq FROM event WHERE subject_id = $1", DEVELOPER)
    assert sorted(row["seq"] for row in seqs) == [1, 2]


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
