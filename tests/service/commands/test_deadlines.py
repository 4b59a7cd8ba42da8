"""Time: the sweep and the sandbox's clock fire what is due, in order; nobody holds others up."""

import asyncio
from dataclasses import replace
from datetime import datetime, timedelta
from uuid import uuid4

import asyncpg
import pytest
from structlog.testing import capture_logs

from service.commands import deadlines, endpoints, escrows
from service.commands.deadlines import BATCH, LEASE, sweep
from service.commands.perform import House, tend
from service.rules.errors import ClockAdvancing
from service.rules.machine import SYSTEM
from service.store.clock import lease_clock, read_clock
from service.store.db import Transaction
from service.store.deadlines import Arming, arm_deadlines, read_open
from service.wire.webhooks import WebhookCreate
from tests.books import read_log
from tests.makers import (
    act,
    advance,
    arrange,
    jump,
    make_buyer,
    make_escrow,
    make_shop,
    reread,
)

pytestmark = pytest.mark.usefixtures("sound")
DAY = timedelta(days=1)
HOUR = timedelta(hours=1)


async def clock(house: House) -> datetime:
    return (await read_clock(house.pool)).now


async def freeze(owner: asyncpg.Connection, escrow_id: str, *, frozen: bool = True) -> None:
    await owner.execute("UPDATE escrow SET frozen = $2 WHERE id = $1", escrow_id, frozen)


async def damage(owner: asyncpg.Connection, escrow_id: str) -> None:
    """The escrow's account is emptied behind the ledger's back: its release cannot be posted."""
    await owner.execute(
        "UPDATE account SET balance_minor = 0 WHERE kind = 'held' AND owner = $1", escrow_id
    )


async def repair(owner: asyncpg.Connection, escrow_id: str) -> None:
    await owner.execute(
        "UPDATE account SET balance_minor = 100000 WHERE kind = 'held' AND owner = $1", escrow_id
    )


# 1. The sandbox's clock --------------------------------------------------------------------------


async def test_deadlines_fire_in_due_order_each_at_its_own_time(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house, funds="1000")
    late = await make_escrow(house, shop, buyer, status="paid", estimated_delivery_days=5)
    soon = await make_escrow(house, shop, buyer, status="paid", estimated_delivery_days=1)
    delivered = await make_escrow(house, shop, buyer, mode="quick", status="delivered")
    pending = await make_escrow(house, shop, buyer)
    fired = await advance(house, await clock(house) + 40 * DAY)
    assert [(one.escrow_id, one.kind) for one in fired] == [
        (soon.id, "delivery_overdue"),
        (soon.id, "overdue_refund"),
        (late.id, "delivery_overdue"),
        (delivered.id, "completion"),
        (late.id, "overdue_refund"),
        (pending.id, "expiry"),
    ]
    assert [one.due_at for one in fired] == sorted(one.due_at for one in fired)
    rows = await house.pool.fetch(
        "SELECT d.due_at, d.fired_at, e.updated_at FROM deadline d JOIN escrow e"
        " ON e.id = d.escrow_id WHERE d.fired_at IS NOT NULL AND d.kind <> 'delivery_overdue'"
    )
    assert all(row["due_at"] == row["fired_at"] == row["updated_at"] for row in rows)
    at = await house.pool.fetch(
        "SELECT at, actor_kind FROM event WHERE actor_kind = 'clock' ORDER BY position"
    )
    assert [row["at"] for row in at] == [one.due_at for one in fired]


async def test_a_chain_is_fired_within_one_advance(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid", estimated_delivery_days=1)
    assert escrow.paid_at is not None
    await advance(house, escrow.paid_at + 4 * DAY)
    after = await reread(house, escrow.id)
    assert (after.status, after.cancel_reason) == ("cancelled", "undelivered")
    assert after.cancelled_at == escrow.paid_at + 4 * DAY
    assert [(step, actor) for step, _, actor in await read_log(house, escrow.id)][-2:] == [
        ("note_overdue", "clock"),
        ("refund_overdue", "clock"),
    ]


async def test_the_notice_says_since_when_the_delivery_is_due(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid", estimated_delivery_days=1)
    await jump(house, 2 * DAY)
    await sweep(house)
    body = await house.pool.fetchval(
        "SELECT convert_from(b.body, 'UTF8')::jsonb -> 'data' ->> 'overdueSince' FROM event v"
        " JOIN webhook_body b ON b.event_id = v.id WHERE v.type = 'escrow.delivery.overdue'"
    )
    assert escrow.paid_at is not None
    since = datetime.fromisoformat(body)
    assert abs(since - (escrow.paid_at + DAY)) < timedelta(milliseconds=1)


async def test_what_is_due_at_the_very_moment_is_fired_and_what_is_due_after_it_is_not(
    house: House,
):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="delivered")
    due = escrow.completion_deadline
    assert due is not None
    assert await advance(house, due - timedelta(microseconds=1)) == []
    # The clock runs on meanwhile: the deadline may be due by now, and is fired at its own time.
    await advance(house, due)
    assert (await reread(house, escrow.id)).completed_at == due


async def test_the_clock_stands_where_it_was_moved_and_goes_on(house: House):
    to = await clock(house) + 10 * DAY
    await advance(house, to)
    now = await read_clock(house.pool)
    assert to <= now.now < to + timedelta(seconds=30)
    assert not now.is_advancing


async def test_the_clock_never_goes_back(house: House):
    to = await clock(house) + 10 * DAY
    await advance(house, to)
    await advance(house, to - 5 * DAY)
    assert await clock(house) >= to


async def test_a_second_advance_is_told_that_one_is_under_way_until_its_lease_lapses(
    house: House, owner: asyncpg.Connection
):
    now = await clock(house)
    assert await tend(house, lambda tx: lease_clock(tx, uuid4(), LEASE))
    with pytest.raises(ClockAdvancing) as refusal:
        await advance(house, now + 2 * DAY)
    assert refusal.value.code == "CLOCK_ADVANCING"
    await owner.execute("UPDATE clock SET lease_until = clock_timestamp() - interval '1s'")
    assert await advance(house, now + 2 * DAY) == []


async def test_two_advances_at_once_fire_everything_once(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    made = [await make_escrow(house, shop, buyer) for _ in range(10)]
    to = await clock(house) + 40 * DAY
    ended = await asyncio.gather(*(advance(house, to) for _ in range(3)), return_exceptions=True)
    refused = [one for one in ended if isinstance(one, BaseException)]
    fired = [d.escrow_id for one in ended if not isinstance(one, BaseException) for d in one]
    assert all(isinstance(one, ClockAdvancing) for one in refused)
    assert len(refused) < len(ended)
    assert sorted(fired) == sorted(one.id for one in made)


# 2. The sweep ------------------------------------------------------------------------------------


async def test_the_sweep_fires_what_is_due_and_nothing_else(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    due = await make_escrow(house, shop, buyer, mode="quick", status="delivered")
    waiting = await make_escrow(house, shop, buyer)
    assert (await sweep(house)).fired == []
    await jump(house, 8 * DAY)
    assert [one.escrow_id for one in (await sweep(house)).fired] == [due.id]
    assert (await reread(house, due.id)).status == "completed"
    assert (await reread(house, waiting.id)).status == "pending"
    assert (await sweep(house)).fired == []


async def test_the_sweep_takes_a_chain_step_by_step(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid", estimated_delivery_days=1)
    await jump(house, 30 * DAY)
    assert [one.kind for one in (await sweep(house)).fired] == [
        "delivery_overdue",
        "overdue_refund",
    ]
    assert (await reread(house, escrow.id)).cancel_reason == "undelivered"


async def test_more_than_a_batch_is_swept_at_once_and_no_more_than_the_limit(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    for _ in range(BATCH + 20):
        await make_escrow(house, shop, buyer)
    await jump(house, 40 * DAY)
    first = await sweep(house, limit=10)
    assert len(first.fired) == 10
    assert len((await sweep(house)).fired) == BATCH + 10


async def test_the_sweep_stands_aside_while_the_clock_is_being_advanced(
    house: House, owner: asyncpg.Connection
):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer)
    await jump(house, 40 * DAY)
    assert await tend(house, lambda tx: lease_clock(tx, uuid4(), LEASE))
    assert (await sweep(house)).fired == []
    assert (await reread(house, escrow.id)).status == "pending"
    await owner.execute("UPDATE clock SET lease_until = clock_timestamp() - interval '1s'")
    assert len((await sweep(house)).fired) == 1


async def test_an_escrow_that_somebody_holds_is_passed_by_and_met_again(
    house: House, owner: asyncpg.Connection
):
    shop, buyer = await make_shop(house), await make_buyer(house)
    held, other, third = [await make_escrow(house, shop, buyer) for _ in range(3)]
    await jump(house, 40 * DAY)
    async with owner.transaction():
        await owner.execute("SELECT FROM escrow WHERE id = $1 FOR UPDATE", held.id)
        swept = asyncio.create_task(sweep(house))
        for _ in range(500):
            free = [(await reread(house, one.id)).status for one in (other, third)]
            if free == ["cancelled", "cancelled"]:
                break
            await asyncio.sleep(0.01)
        assert free == ["cancelled", "cancelled"]
        assert (await reread(house, held.id)).status == "pending"
    await swept
    await sweep(house)
    assert (await reread(house, held.id)).status == "cancelled"


async def test_a_failing_escrow_is_passed_over_and_holds_nobody_up(
    house: House, owner: asyncpg.Connection
):
    shop, buyer = await make_shop(house), await make_buyer(house)
    made = [
        await make_escrow(house, shop, buyer, mode="quick", status="delivered") for _ in range(4)
    ]
    bad = made[1]
    await damage(owner, bad.id)
    await jump(house, 8 * DAY)
    with capture_logs() as logs:
        done = await sweep(house)
    assert [(one["event"], one["escrow_id"]) for one in logs] == [("deadline_failed", bad.id)]
    assert [one.escrow_id for one in done.failed] == [bad.id]
    assert {one.escrow_id for one in done.fired} == {one.id for one in made if one is not bad}
    assert (await reread(house, bad.id)).status == "delivered"
    await repair(owner, bad.id)
    assert [one.escrow_id for one in (await sweep(house)).fired] == [bad.id]


async def test_a_failing_escrow_does_not_stop_the_sandboxs_clock(
    house: House, owner: asyncpg.Connection
):
    shop, buyer = await make_shop(house), await make_buyer(house)
    bad = await make_escrow(house, shop, buyer, mode="quick", status="delivered")
    good = await make_escrow(house, shop, buyer, mode="quick", status="delivered")
    await damage(owner, bad.id)
    to = await clock(house) + 10 * DAY
    with capture_logs():
        fired = await advance(house, to)
    assert [one.escrow_id for one in fired] == [good.id]
    assert await clock(house) >= to
    await repair(owner, bad.id)
    await sweep(house)
    assert (await reread(house, bad.id)).status == "completed"


@pytest.mark.parametrize("how", ["sweep", "advance"])
async def test_frozen_escrows_wait_and_hold_nobody_up(
    house: House, owner: asyncpg.Connection, how: str
):
    shop, buyer = await make_shop(house), await make_buyer(house)
    frozen, good = await make_escrow(house, shop, buyer), await make_escrow(house, shop, buyer)
    await freeze(owner, frozen.id)
    if how == "sweep":
        await jump(house, 40 * DAY)
        fired = (await sweep(house)).fired
    else:
        fired = await advance(house, await clock(house) + 40 * DAY)
    assert [one.escrow_id for one in fired] == [good.id]
    await freeze(owner, frozen.id, frozen=False)
    assert [one.escrow_id for one in (await sweep(house)).fired] == [frozen.id]


async def test_a_deadline_that_the_rules_refuse_is_an_alarm_and_the_sweep_goes_on(house: House):
    """Armed for a state that the escrow is not in: nothing is taken, and nothing is lost."""
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer)
    good = await make_escrow(house, shop, buyer, mode="quick", status="delivered")

    async def arm(tx: Transaction) -> None:
        await arm_deadlines(tx, [Arming(escrow.id, "acknowledged", tx.now, 1)])

    await arrange(house, arm)
    await jump(house, 8 * DAY)
    with capture_logs() as logs:
        done = await sweep(house)
    assert [(one["event"], one["kind"]) for one in logs] == [("deadline_failed", "acknowledged")]
    assert [one.escrow_id for one in done.failed] == [escrow.id]
    assert [one.escrow_id for one in done.fired] == [good.id]
    assert (await reread(house, escrow.id)).status == "pending"
    assert "acknowledged" in {one.kind for one in await read_open(house.pool, escrow.id)}


# 3. Deadlines as rows ----------------------------------------------------------------------------


async def test_leaving_a_state_stops_its_clocks_and_an_open_one_is_not_armed_twice(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="delivered")

    async def again(tx: Transaction) -> None:
        due = tx.now + DAY
        await arm_deadlines(tx, [Arming(escrow.id, "completion", due, 9)] * 2)

    await arrange(house, again)
    rows = await house.pool.fetch(
        "SELECT kind, armed_version, fired_at, cancelled_at IS NOT NULL AS stopped FROM deadline"
        " WHERE escrow_id = $1 ORDER BY id",
        escrow.id,
    )
    assert [(row["kind"], row["armed_version"], row["stopped"]) for row in rows] == [
        ("expiry", 1, True),
        ("delivery_overdue", 2, True),
        ("completion", 3, False),
    ]
    assert all(row["fired_at"] is None for row in rows)


# 4. on_ack ---------------------------------------------------------------------------------------


async def on_ack_escrow(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    asked = WebhookCreate.model_validate({"url": "https://partner.test/hook"})
    await act(house, shop.actor, endpoints.create(shop.developer_id, asked))
    escrow = await make_escrow(house, shop, buyer, auto_complete="on_ack", status="paid")
    return shop, buyer, escrow


async def acknowledge(house: House, escrow_id: str) -> None:
    """What settling a 2xx does."""

    async def arm(tx: Transaction) -> None:
        await arm_deadlines(tx, [Arming(escrow_id, "acknowledged", tx.now, 2)])

    await tend(house, arm, SYSTEM)


async def test_an_acknowledged_escrow_is_completed_by_the_sweep_exactly_once(house: House):
    _, _, escrow = await on_ack_escrow(house)
    for _ in range(3):
        await acknowledge(house, escrow.id)
    sweeps = await asyncio.gather(sweep(house), sweep(house))
    await sweep(house)
    assert sum(len(one.fired) for one in sweeps) <= 1
    after = await reread(house, escrow.id)
    assert after.status == "completed"
    assert [entry for entry in await read_log(house, escrow.id) if entry[0] == "deliver"] == [
        ("deliver", "escrow.status.updated", "clock")
    ]
    await acknowledge_too_late(house, escrow.id)


async def acknowledge_too_late(house: House, escrow_id: str) -> None:
    """A final escrow arms nothing more."""
    assert await read_open(house.pool, escrow_id) == []


async def test_the_seller_and_the_acknowledgement_deliver_once(house: House):
    for _ in range(8):
        shop, _, escrow = await on_ack_escrow(house)
        await acknowledge(house, escrow.id)
        await asyncio.gather(
            act(house, shop.actor, escrows.deliver(escrow.id)),
            sweep(house),
            return_exceptions=True,
        )
        await sweep(house)
        delivered = [e for e in await read_log(house, escrow.id) if e[0] == "deliver"]
        assert len(delivered) == 1
        assert (await reread(house, escrow.id)).status == "completed"


async def test_an_escrow_that_nobody_acknowledges_is_refunded_like_any_other(house: House):
    _, _, escrow = await on_ack_escrow(house)
    await advance(house, await clock(house) + 30 * DAY)
    assert (await reread(house, escrow.id)).cancel_reason == "undelivered"


async def test_bells_ring_for_what_the_clock_has_done(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    await make_escrow(house, shop, buyer)
    rung: list[str] = []

    class Noting:
        def ring(self, names) -> None:
            rung.extend(names)

    await advance(replace(house, bell=Noting()), await clock(house) + 40 * DAY)
    assert {"webhooks", "mails"} <= set(rung)
    assert deadlines.BATCH == BATCH


async def test_the_clock_is_given_back_however_its_holder_fared(house: House):
    with pytest.raises(ZeroDivisionError):
        async with deadlines.holding_clock(house):
            raise ZeroDivisionError
    async with deadlines.holding_clock(house):
        with pytest.raises(ClockAdvancing):
            await advance(house, await clock(house) + DAY)
    assert await advance(house, await clock(house) + DAY) == []
