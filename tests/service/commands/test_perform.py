"""The one write path: the clock first, one answer a key, clashes retried, bells after COMMIT."""

import asyncio
import hashlib
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from datetime import timedelta

import pytest

from service.commands import escrows
from service.commands.perform import (
    DUE_ROUNDS,
    TRIES,
    Answer,
    Command,
    House,
    Idempotency,
    perform,
    replay,
    tend,
)
from service.commands.steps import DeadlineDue, step
from service.gateways.bell import SilentBell
from service.rules.errors import (
    EscrowCancelled,
    IdempotencyInFlight,
    IdempotencyKeyReused,
    InsufficientFunds,
    PaymentAlreadyDone,
    Refused,
    Unavailable,
    WrongStatus,
)
from service.rules.machine import SYSTEM
from service.store.clock import read_clock
from service.store.db import Transaction
from service.wire.base import Wire
from tests.books import count_rows, read_log
from tests.makers import (
    Done,
    act,
    arrange,
    jump,
    make_buyer,
    make_escrow,
    make_shop,
    make_terms,
    reread,
    top_up,
)

pytestmark = pytest.mark.usefixtures("sound")
NEW = "new@example.org"


def key_of(developer_id: str, key: str, body: str = "") -> Idempotency:
    return Idempotency(developer_id, key, hashlib.sha256(body.encode()).digest())


# 1. The clock comes first ------------------------------------------------------------------------


async def test_a_due_deadline_is_committed_and_survives_the_refusal_of_the_step(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer)
    await jump(house, timedelta(days=40))
    with pytest.raises(EscrowCancelled):
        await act(house, buyer.actor, escrows.pay(escrow.id))
    after = await reread(house, escrow.id)
    assert (after.status, after.cancel_reason) == ("cancelled", "expired")
    assert await read_log(house, escrow.id) == [
        ("create", "escrow.created", "developer"),
        ("cancel", "escrow.status.updated", "clock"),
    ]


async def test_every_deadline_that_is_due_comes_before_the_step(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid", estimated_delivery_days=1)
    await jump(house, timedelta(days=30))
    with pytest.raises(WrongStatus, match="cancelled"):
        await act(house, shop.actor, escrows.deliver(escrow.id))
    assert [step for step, *_ in await read_log(house, escrow.id)] == [
        "create",
        "accept_pay",
        "note_overdue",
        "refund_overdue",
    ]


async def test_a_step_that_is_still_legal_is_taken_after_the_clocks(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="paid")
    await jump(house, timedelta(days=30))
    answer = await act(house, shop.actor, escrows.deliver(escrow.id))
    assert answer["escrow"]["status"] == "delivered"
    log = await read_log(house, escrow.id)
    assert [(step, actor) for step, _, actor in log][-2:] == [
        ("note_overdue", "clock"),
        ("deliver", "developer"),
    ]


async def test_the_steps_answer_is_kept_under_its_key_though_the_clock_came_first(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="paid")
    await jump(house, timedelta(days=30))
    asked = key_of(shop.developer_id, "k")
    first = await perform(house, shop.actor, escrows.deliver(escrow.id), idempotency=asked)
    again = await perform(house, shop.actor, escrows.deliver(escrow.id), idempotency=asked)
    assert (first.replayed, again.replayed, again.body) == (False, True, first.body)


async def test_a_due_deadline_of_a_frozen_escrow_does_not_come_first(house: House, owner):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer)
    await owner.execute("UPDATE escrow SET frozen = true WHERE id = $1", escrow.id)
    await jump(house, timedelta(days=40))
    with pytest.raises(Refused, match="frozen"):
        await act(house, buyer.actor, escrows.pay(escrow.id))
    assert (await reread(house, escrow.id)).status == "pending"
    await owner.execute("UPDATE escrow SET frozen = false WHERE id = $1", escrow.id)
    with pytest.raises(EscrowCancelled):
        await act(house, buyer.actor, escrows.pay(escrow.id))


async def test_a_clock_that_never_ends_is_a_bug_not_a_loop(house: House):
    shop = await make_shop(house)
    escrow = await make_escrow(house, shop)
    tries = []

    async def command(tx: Transaction) -> Wire:
        tries.append(tx.now)
        raise DeadlineDue(escrow.id)

    with pytest.raises(AssertionError, match="due step that stays"):
        await perform(house, shop.actor, command)
    assert len(tries) == DUE_ROUNDS + 1


# 2. One answer a key -----------------------------------------------------------------------------


async def test_the_same_key_and_request_get_the_same_bytes_and_one_effect(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    command = escrows.create(shop.developer_id, make_terms(shop, buyer.email))
    asked = key_of(shop.developer_id, "k")
    first = await perform(house, shop.actor, command, status=201, idempotency=asked)
    again = await perform(house, shop.actor, command, status=201, idempotency=asked)
    assert again == Answer(201, first.body, replayed=True)
    assert not first.replayed
    assert await house.pool.fetchval("SELECT count(*) FROM escrow") == 1


async def test_a_replay_is_the_old_answer_after_the_state_has_moved_on(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="paid")
    asked = key_of(shop.developer_id, "k")
    first = await perform(house, shop.actor, escrows.deliver(escrow.id), idempotency=asked)
    await act(house, buyer.actor, escrows.complete(escrow.id))
    again = await perform(house, shop.actor, escrows.deliver(escrow.id), idempotency=asked)
    assert (again.body, again.replayed) == (first.body, True)
    assert b'"delivered"' in again.body


async def test_the_same_key_for_another_request_is_refused(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    command = escrows.create(shop.developer_id, make_terms(shop, buyer.email))
    await perform(house, shop.actor, command, idempotency=key_of(shop.developer_id, "k", "one"))
    before = await count_rows(house)
    with pytest.raises(IdempotencyKeyReused):
        await perform(house, shop.actor, command, idempotency=key_of(shop.developer_id, "k", "two"))
    assert await count_rows(house) == before


async def test_a_key_belongs_to_its_developer(house: House):
    one, other = await make_shop(house), await make_shop(house)
    for shop in (one, other):
        answer = await perform(
            house,
            shop.actor,
            escrows.create(shop.developer_id, make_terms(shop, NEW)),
            idempotency=key_of(shop.developer_id, "k", shop.email),
        )
        assert not answer.replayed


async def test_a_refusal_leaves_the_key_free(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house, funds="0")
    escrow = await make_escrow(house, shop, buyer)
    asked = key_of(shop.developer_id, "k")
    for _ in range(2):
        with pytest.raises(InsufficientFunds):
            await perform(house, buyer.actor, escrows.pay(escrow.id), idempotency=asked)
    await top_up(house, buyer.email, "100")
    paid = await perform(house, buyer.actor, escrows.pay(escrow.id), idempotency=asked)
    assert not paid.replayed


async def test_the_same_key_twice_at_once_has_one_effect(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    for n in range(25):
        command = escrows.create(shop.developer_id, make_terms(shop, buyer.email))
        asked = key_of(shop.developer_id, f"k{n}")
        ended = await asyncio.gather(
            *(perform(house, shop.actor, command, idempotency=asked) for _ in range(4)),
            return_exceptions=True,
        )
        answers = [one for one in ended if isinstance(one, Answer)]
        assert len([one for one in answers if not one.replayed]) == 1
        assert len({one.body for one in answers}) == 1
        assert all(isinstance(one, Answer | IdempotencyInFlight) for one in ended), ended
        assert await house.pool.fetchval("SELECT count(*) FROM escrow") == n + 1


async def test_a_request_in_flight_is_told_at_once_and_not_kept_waiting(house: House):
    shop = await make_shop(house)
    asked = key_of(shop.developer_id, "k")
    started, finish = asyncio.Event(), asyncio.Event()

    async def slow(tx: Transaction) -> Wire:
        started.set()
        await finish.wait()
        return Done()

    first = asyncio.create_task(perform(house, shop.actor, slow, idempotency=asked))
    await started.wait()
    with pytest.raises(IdempotencyInFlight):
        await perform(house, shop.actor, slow, idempotency=asked)
    finish.set()
    assert not (await first).replayed
    assert (await perform(house, shop.actor, slow, idempotency=asked)).replayed


async def test_an_answer_that_shows_a_secret_is_stored_sealed_and_for_a_day(house: House):
    shop = await make_shop(house)
    asked = key_of(shop.developer_id, "k")

    class Shown(Wire):
        secret: str

    async def command(tx: Transaction) -> Wire:
        return Shown(secret="hunter2hunter2")

    first = await perform(house, shop.actor, command, idempotency=asked, shows_secret=True)
    stored = await house.pool.fetchrow(
        "SELECT body, is_sealed, expires_at - clock_timestamp() AS kept FROM idempotency"
    )
    assert stored["is_sealed"]
    assert b"hunter2" not in stored["body"]
    assert timedelta(hours=23) < stored["kept"] <= timedelta(hours=24)
    again = await perform(house, shop.actor, command, idempotency=asked, shows_secret=True)
    assert again == Answer(200, first.body, replayed=True)


async def test_an_answer_is_kept_for_thirty_days_of_real_time(house: House, owner):
    shop = await make_shop(house)
    asked = key_of(shop.developer_id, "k")
    count = []

    async def command(tx: Transaction) -> Wire:
        count.append(1)
        return Done()

    await perform(house, shop.actor, command, idempotency=asked)
    await jump(house, timedelta(days=60))
    assert (await perform(house, shop.actor, command, idempotency=asked)).replayed
    await owner.execute("UPDATE idempotency SET expires_at = expires_at - interval '30 days 1s'")
    other = key_of(shop.developer_id, "k", "another request")
    assert not (await perform(house, shop.actor, command, idempotency=other)).replayed
    assert len(count) == 2


# 3. Clashes --------------------------------------------------------------------------------------

CLASH = "DO $$ BEGIN RAISE EXCEPTION 'in the way' USING ERRCODE = '40001'; END $$"


def clashing(command: Command, times: int, tries: list[int]) -> Command:
    """The command, ended by the database with a serialization failure so many times."""

    async def clash(tx: Transaction) -> Wire:
        tries.append(1)
        done = await command(tx)
        if len(tries) <= times:
            await tx.execute(CLASH)
        return done

    return clash


async def test_a_clash_is_tried_again_and_has_one_effect(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid")
    tries: list[int] = []
    command = clashing(escrows.deliver(escrow.id), TRIES - 1, tries)
    assert (await act(house, shop.actor, command))["escrow"]["status"] == "completed"
    assert len(tries) == TRIES


async def test_a_clash_that_stays_leaves_nothing_and_may_be_tried_again(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid")
    before = await count_rows(house)
    tries: list[int] = []
    with pytest.raises(Unavailable):
        await act(house, shop.actor, clashing(escrows.deliver(escrow.id), 99, tries))
    assert len(tries) == TRIES
    assert await count_rows(house) == before
    assert (await reread(house, escrow.id)).status == "paid"


AWAITED_THEN_ESCROW = """
DO $$ BEGIN
    FOR n IN 1..500 LOOP
        PERFORM pg_stat_clear_snapshot();
        EXIT WHEN EXISTS (SELECT FROM pg_stat_activity
                          WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid)));
        PERFORM pg_sleep(0.01);
    END LOOP;
    PERFORM FROM escrow WHERE id = '{}' FOR UPDATE;
END $$
"""
"""Until somebody waits for what this transaction holds, and then, at once, for what they hold."""


async def test_a_clash_of_the_clocks_step_is_tried_again(house: House, owner):
    """Wallet first, escrow second: against the order, so the database must end one of the two."""
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid", estimated_delivery_days=1)
    await jump(house, timedelta(days=30))
    wallet = "SELECT FROM account WHERE kind = 'available' AND owner = $1 FOR UPDATE"
    async with owner.transaction():
        # Whoever looks for a deadlock first is ended: that is to be who has waited for longer.
        await owner.execute("SET LOCAL deadlock_timeout = '10s'")
        await owner.execute(wallet, buyer.user_id)
        late = asyncio.create_task(act(house, shop.actor, escrows.deliver(escrow.id)))
        await owner.execute(AWAITED_THEN_ESCROW.format(escrow.id))
    with pytest.raises(WrongStatus, match="cancelled"):
        await late
    assert (await reread(house, escrow.id)).cancel_reason == "undelivered"


async def waits(house: House, owner) -> None:
    """Until somebody waits for what the owner's transaction holds."""
    asks = (
        "SELECT EXISTS (SELECT FROM pg_stat_activity"
        " WHERE pg_backend_pid() = ANY (pg_blocking_pids(pid)))"
    )
    for _ in range(500):
        if await owner.fetchval(asks):
            return
        await asyncio.sleep(0.01)
    raise AssertionError("nobody came")


async def test_upkeep_is_tried_again_too(house: House):
    tries = []

    async def upkeep(tx: Transaction) -> int:
        tries.append(1)
        if len(tries) < TRIES:
            await tx.execute(CLASH)
        return len(tries)

    assert await tend(house, upkeep) == TRIES


# 4. Bells ----------------------------------------------------------------------------------------


@dataclass
class Watching:
    """A bell that looks at the database the moment it is rung."""

    house: House
    rung: list[str] = field(default_factory=list)
    seen: list[asyncio.Task[int]] = field(default_factory=list)

    def ring(self, names: Iterable[str]) -> None:
        found = sorted(names)
        self.rung += found
        if found:
            count = self.house.pool.fetchval("SELECT count(*) FROM event WHERE type IS NOT NULL")
            self.seen.append(asyncio.get_running_loop().create_task(count))


async def test_the_bells_ring_after_commit_and_name_what_waits(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    bell = Watching(house)
    await make_escrow(replace(house, bell=bell), shop, buyer)
    assert set(bell.rung) == {"webhooks", "mails"}
    assert [await seen for seen in bell.seen] == [1]


async def test_a_refused_command_rings_nothing_but_the_clocks_step_before_it_does(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house, funds="0")
    escrow = await make_escrow(house, shop, buyer)
    bell = Watching(house)
    loud = replace(house, bell=bell)
    with pytest.raises(InsufficientFunds):
        await act(loud, buyer.actor, escrows.pay(escrow.id))
    assert bell.rung == []
    await jump(house, timedelta(days=40))
    with pytest.raises(EscrowCancelled):
        await act(loud, buyer.actor, escrows.pay(escrow.id))
    assert "webhooks" in bell.rung
    assert [await seen for seen in bell.seen] == [2]


async def test_a_command_that_fails_at_commit_rings_nothing(house: House):
    """The transfer's event is missing, which only COMMIT finds out."""
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer)
    bell = Watching(house)

    async def command(tx: Transaction) -> Wire:
        tx.ring("webhooks")
        await tx.execute(
            "INSERT INTO transfer (from_account, to_account, currency, amount_minor, reason,"
            " subject_id, seq, at) SELECT a.id, b.id, 'TND', 1, 'theft', $1, 99, now()"
            " FROM account a, account b WHERE a.kind = 'outside' AND b.kind = 'clearing'",
            escrow.id,
        )
        return Done()

    with pytest.raises(Exception, match="transfer_subject_id_seq_fkey"):
        await act(replace(house, bell=bell), SYSTEM, command)
    assert bell.rung == []


async def test_a_replay_rings_nothing(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    bell = Watching(house)
    loud = replace(house, bell=bell)
    command = escrows.create(shop.developer_id, make_terms(shop, buyer.email))
    asked = key_of(shop.developer_id, "k")
    await perform(loud, shop.actor, command, idempotency=asked)
    rung = list(bell.rung)
    await perform(loud, shop.actor, command, idempotency=asked)
    assert bell.rung == rung
    assert [await seen for seen in bell.seen]


# 5. Time and locks -------------------------------------------------------------------------------


async def test_business_time_is_the_databases_plus_the_sandboxs_shift(house: House):
    await jump(house, timedelta(days=10))

    async def clocks(tx: Transaction) -> tuple[timedelta, timedelta]:
        real = await tx.fetchval("SELECT clock_timestamp()")
        return tx.now - tx.real_now, real - tx.real_now

    shift, late = await arrange(house, clocks)
    assert abs(shift - timedelta(days=10)) < timedelta(seconds=5)
    assert late < timedelta(seconds=5)


async def test_a_step_happens_when_the_lock_is_had_not_when_it_was_asked_for(house: House, owner):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid")
    async with owner.transaction():
        await owner.execute("SELECT FROM escrow WHERE id = $1 FOR UPDATE", escrow.id)
        task = asyncio.create_task(act(house, shop.actor, escrows.deliver(escrow.id)))
        await waits(house, owner)
        released = (await read_clock(house.pool)).now
    await task
    completed = (await reread(house, escrow.id)).completed_at
    assert completed is not None
    assert completed > released


async def test_whoever_waited_sees_what_the_holder_has_done(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house, funds="100")
    escrow = await make_escrow(house, shop, buyer)
    holding, go = asyncio.Event(), asyncio.Event()

    async def slow_pay(tx: Transaction) -> Wire:
        answer = await escrows.pay(escrow.id)(tx)
        holding.set()
        await go.wait()
        return answer

    first = asyncio.create_task(act(house, buyer.actor, slow_pay))
    await holding.wait()
    second = asyncio.create_task(act(house, buyer.actor, escrows.pay(escrow.id)))
    await asyncio.sleep(0.05)
    assert not second.done()
    go.set()
    await first
    with pytest.raises(PaymentAlreadyDone):
        await second


async def test_a_command_may_take_one_step_an_escrow_only(house: House):
    """Twice in one transaction: the second sees the first, as it does from outside."""
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid")

    async def twice(tx: Transaction) -> Wire:
        await step(tx, escrow.id, "deliver")
        await step(tx, escrow.id, "deliver")
        return Done()

    with pytest.raises(WrongStatus):
        await act(house, shop.actor, twice)
    assert (await reread(house, escrow.id)).status == "paid"


async def test_a_house_without_redis_has_a_bell_that_says_nothing(house: House):
    assert isinstance(house.bell, SilentBell)
    house.bell.ring(["webhooks"])


# 6. Asked before the body is looked at -----------------------------------------------------------


async def test_a_stored_answer_is_known_before_anything_else_is_looked_at(house: House):
    shop = await make_shop(house)
    asked = key_of(shop.developer_id, "k")
    assert await replay(house, asked) is None
    command = escrows.create(shop.developer_id, make_terms(shop, NEW))
    first = await perform(house, shop.actor, command, status=201, idempotency=asked)
    assert await replay(house, asked) == Answer(201, first.body, replayed=True)
    with pytest.raises(IdempotencyKeyReused):
        await replay(house, key_of(shop.developer_id, "k", "another"))
    assert await replay(house, key_of(shop.developer_id, "other")) is None
