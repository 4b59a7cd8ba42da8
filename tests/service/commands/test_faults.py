"""A command that is interrupted leaves all or nothing, and its connection goes home."""

import asyncio
import hashlib
from collections.abc import AsyncIterator
from dataclasses import replace

import asyncpg
import pytest
import pytest_asyncio

from service.commands import escrows
from service.commands.deadlines import sweep
from service.commands.perform import Command, House, Idempotency, perform, rehearse
from service.rules.aggregate import Escrow
from service.rules.errors import InsufficientFunds, Unavailable
from service.rules.machine import Actor, ActorKind
from service.settings import Settings
from service.store.db import Pool, Transaction, open_pool
from service.wire.base import Wire
from tests.books import assert_sound, count_rows
from tests.interrupting import cancelled_at, count_awaits, until
from tests.makers import (
    STEPS,
    act,
    advance,
    make_buyer,
    make_escrow,
    make_shop,
    make_terms,
    reread,
)

pytestmark = pytest.mark.usefixtures("sound")


@pytest_asyncio.fixture(loop_scope="session")
async def narrow(house: House, migrated: Settings) -> AsyncIterator[House]:
    """The house with two connections of its own: a leaked one would soon be missed."""
    pool = await open_pool(migrated.database_url or "", size=2, application="narrow")
    yield replace(house, pool=pool)
    await pool.close()


async def all_home(pool: Pool) -> None:
    """Every connection is back in the pool and none is inside of a transaction."""
    inner = pool._pool

    async def idle() -> bool:
        return inner.get_idle_size() == inner.get_size()

    await until(idle)
    held = [inner.acquire() for _ in range(inner.get_max_size())]
    connections = [await one for one in held]
    try:
        assert not any(connection.is_in_transaction() for connection in connections)
    finally:
        for connection in connections:
            await inner.release(connection)


# 1. Cancelled ------------------------------------------------------------------------------------


async def test_a_command_cancelled_at_any_await_is_all_or_nothing(house: House, narrow: House):
    shop = await make_shop(house)
    buyer = await make_buyer(house, funds="10000")
    escrow = await make_escrow(house, shop, buyer, status="paid")
    awaits = await count_awaits(perform(narrow, shop.actor, escrows.deliver(escrow.id)))
    done = 0
    for n in range(1, awaits + 1):
        escrow = await make_escrow(house, shop, buyer, status="paid")
        before = await count_rows(house)
        ended = await cancelled_at(perform(narrow, shop.actor, escrows.deliver(escrow.id)), n)
        await all_home(narrow.pool)
        after = await reread(house, escrow.id)
        if not isinstance(ended, asyncio.CancelledError):
            assert after.status == "completed"
        if after.status == "paid":
            assert await count_rows(house) == before
        else:
            assert (after.status, after.held_minor) == ("completed", 0)
            done += 1
        await assert_sound(house)
    assert awaits >= 8, "the command has gone somewhere else"
    assert done < awaits


@pytest.mark.parametrize("name", ["create", "pay"])
async def test_every_command_cancelled_at_any_await_is_all_or_nothing(
    house: House, narrow: House, name: str
):
    shop = await make_shop(house)
    buyer = await make_buyer(house, funds="10000")

    async def command() -> Command:
        if name == "create":
            return escrows.create(shop.developer_id, make_terms(shop, buyer.email, "standard"))
        return escrows.pay((await make_escrow(house, shop, buyer)).id)

    actor = shop.actor if name == "create" else buyer.actor
    awaits = await count_awaits(perform(narrow, actor, await command()))
    for n in range(1, awaits + 1):
        one = await command()
        before = await count_rows(house)
        ended = await cancelled_at(perform(narrow, actor, one), n)
        await all_home(narrow.pool)
        if await count_rows(house) == before:
            assert isinstance(ended, asyncio.CancelledError)
        await assert_sound(house)


READY: dict[str, tuple[str, str, tuple[str, ...]]] = {
    "sellers_signature": ("standard", "pending", ()),
    "buyers_signature": ("standard", "pending", ("sellers_signature",)),
    "pay": ("quick_proof", "pending", ()),
    "update": ("standard", "pending", ("sellers_signature",)),
    "cancel": ("standard", "pending", ()),
    "deliver": ("quick", "paid", ("request_cancellation",)),
    "complete": ("quick", "delivered", ("request_cancellation",)),
    "reject_delivery": ("quick", "delivered", ("request_cancellation",)),
    "request_cancellation": ("quick", "delivered", ()),
    "accept_cancellation": ("quick", "delivered", ("request_cancellation",)),
    "reject_cancellation": ("quick", "delivered", ("request_cancellation",)),
    "cancel_escrow": ("quick", "paid", ("request_cancellation",)),
    "buyers_dispute": ("quick", "delivered", ("request_cancellation",)),
    "sellers_dispute": ("instant", "paid", ()),
    "buyers_withdrawal": ("quick", "delivered", ("buyers_dispute",)),
    "sellers_withdrawal": ("instant", "paid", ("sellers_dispute",)),
    "to_seller": ("quick", "delivered", ("buyers_dispute",)),
    "to_buyer": ("quick", "paid", ("buyers_dispute",)),
    "sellers_answer": ("quick", "delivered", ("buyers_dispute",)),
    "buyers_answer": ("quick", "delivered", ("sellers_dispute",)),
    "submit_proof": ("quick_proof", "paid", ("submit_proof", "request_correction")),
    "accept_proof": ("quick_proof", "paid", ("submit_proof",)),
    "request_correction": ("quick_proof", "paid", ("submit_proof",)),
    "proof_accepted": ("quick_proof", "paid", ("submit_proof", "request_correction") * 4),
    "proof_rejected": ("quick_proof", "paid", ("submit_proof", "request_correction") * 4),
}
"""A step of the makers -> a standing in which it has as much to write as it can have."""


@pytest.mark.parametrize("name", STEPS)
async def test_each_step_cancelled_at_any_await_is_all_or_nothing(
    house: House, narrow: House, name: str
):
    shop = await make_shop(house)
    buyer = await make_buyer(house, funds="100000")
    mode, status, then = READY[name]
    who, command = STEPS[name]
    actor = {"seller": shop.actor, "buyer": buyer.actor}.get(who, Actor(ActorKind.OPERATOR))

    async def arranged() -> Escrow:
        return await make_escrow(house, shop, buyer, mode=mode, status=status, then=then)

    whole = await arranged()
    awaits = await count_awaits(perform(narrow, actor, command(whole.id)))
    whole = await reread(house, whole.id)
    done = 0
    for n in range(1, awaits + 1):
        escrow = await arranged()
        before = await count_rows(house)
        ended = await cancelled_at(perform(narrow, actor, command(escrow.id)), n)
        await all_home(narrow.pool)
        after = await reread(house, escrow.id)
        if after.seq == escrow.seq:
            assert isinstance(ended, asyncio.CancelledError)
            assert (after, await count_rows(house)) == (escrow, before)
        else:
            assert (after.status, after.seq) == (whole.status, whole.seq)
            done += 1
    await assert_sound(house)
    assert awaits >= 7, "the command has gone somewhere else"
    assert done < awaits


async def test_a_rehearsal_cancelled_at_any_await_leaves_nothing(house: House, narrow: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="delivered")
    command = escrows.complete(escrow.id)
    before = await count_rows(house)
    awaits = await count_awaits(rehearse(narrow, buyer.actor, command, 200))
    for n in range(1, awaits + 1):
        await cancelled_at(rehearse(narrow, buyer.actor, command, 200), n)
        await all_home(narrow.pool)
        assert (await reread(house, escrow.id), await count_rows(house)) == (escrow, before)
    assert awaits >= 7


async def test_a_cancelled_request_is_found_out_by_its_key(house: House, narrow: House):
    """Whether it was carried out or not: the key gives the answer, once."""
    shop = await make_shop(house)
    terms = make_terms(shop, "new@example.org")

    def work(n: int):
        asked = Idempotency(shop.developer_id, f"k{n}", hashlib.sha256(b"").digest())
        return perform(
            narrow, shop.actor, escrows.create(shop.developer_id, terms), idempotency=asked
        )

    awaits = await count_awaits(work(0))
    for n in range(1, awaits + 1):
        before = await house.pool.fetchval("SELECT count(*) FROM escrow")
        await cancelled_at(work(n), n)
        await all_home(narrow.pool)
        await work(n)
        assert await house.pool.fetchval("SELECT count(*) FROM escrow") == before + 1


# 2. The connection drops -------------------------------------------------------------------------

END = "SELECT pg_terminate_backend($1)"


async def drop(owner: asyncpg.Connection, tx: Transaction) -> None:
    """End this transaction's server process, as a crash or an operator would."""
    pid = await tx.fetchval("SELECT pg_backend_pid()")
    await owner.execute(END, pid)

    async def gone() -> bool:
        return not await owner.fetchval(
            "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE pid = $1)", pid
        )

    await until(gone)


@pytest.mark.parametrize("moment", ["before", "after"])
async def test_a_connection_that_drops_in_the_middle_leaves_no_half_effect(
    house: House, narrow: House, owner: asyncpg.Connection, moment: str
):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid")
    before = await count_rows(house)

    async def command(tx: Transaction) -> Wire:
        if moment == "before":
            await drop(owner, tx)
        answer = await escrows.deliver(escrow.id)(tx)
        await drop(owner, tx)
        return answer

    with pytest.raises(Unavailable):
        await act(narrow, shop.actor, command)
    assert await count_rows(house) == before
    assert (await reread(house, escrow.id)).status == "paid"
    await act(narrow, shop.actor, escrows.deliver(escrow.id))
    await all_home(narrow.pool)


async def test_a_connection_that_drops_between_requests_costs_one_refusal_at_most(
    house: House, narrow: House, owner: asyncpg.Connection
):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid")
    await narrow.pool.fetchval("SELECT 1")
    await owner.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = 'narrow'"
        " AND datname = current_database()"
    )
    for _ in range(3):
        try:
            await act(narrow, shop.actor, escrows.deliver(escrow.id))
        except Unavailable:
            continue
        break
    assert (await reread(house, escrow.id)).status == "completed"


async def test_a_pool_without_a_free_connection_says_so_within_its_time(
    house: House, narrow: House
):
    shop = await make_shop(house)
    started, finish = asyncio.Semaphore(0), asyncio.Event()

    async def occupies(tx: Transaction) -> Wire:
        started.release()
        await finish.wait()
        raise InsufficientFunds

    busy = [asyncio.create_task(act(narrow, shop.actor, occupies)) for _ in range(2)]
    await started.acquire()
    await started.acquire()
    with pytest.raises(Unavailable):
        await act(narrow, shop.actor, escrows.cancel("0" * 24))
    finish.set()
    await asyncio.gather(*busy, return_exceptions=True)
    await all_home(narrow.pool)


async def test_a_lock_that_is_not_had_in_time_is_unavailable_and_nothing_is_changed(
    house: House, migrated: Settings, owner: asyncpg.Connection
):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid")
    url = f"{migrated.database_url}&lock_timeout=100"
    impatient = replace(house, pool=await open_pool(url, size=1))
    async with owner.transaction():
        await owner.execute("SELECT FROM escrow WHERE id = $1 FOR UPDATE", escrow.id)
        with pytest.raises(Unavailable):
            await act(impatient, shop.actor, escrows.deliver(escrow.id))
    await act(impatient, shop.actor, escrows.deliver(escrow.id))
    await impatient.pool.close()


async def test_a_database_that_is_away_fires_nothing_and_says_so(house: House, migrated: Settings):
    shop = await make_shop(house)
    escrow = await make_escrow(house, shop)
    pool = await open_pool(migrated.database_url or "", size=1)
    away = replace(house, pool=pool)
    await pool.close()
    with pytest.raises(Unavailable):
        await sweep(away)
    with pytest.raises(Unavailable):
        await advance(away, escrow.created_at)
    with pytest.raises(Unavailable):
        await open_pool("postgresql://nobody@127.0.0.1:1/nowhere")
