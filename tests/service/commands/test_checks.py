"""Each invariant, broken for real behind the product's back, is seen, and nothing beside it."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import replace
from secrets import token_hex

import asyncpg
import pytest
from structlog.testing import capture_logs

from service.commands import escrows, users, wallets
from service.commands.checks import check_all, check_changed, freeze, lift, seal, unfreeze
from service.commands.deadlines import sweep
from service.commands.deliveries import fan_out
from service.commands.perform import House, perform, tend
from service.rules.aggregate import Escrow
from service.rules.errors import EscrowFrozen, EscrowNotFound, StillBreached
from service.rules.invariants import FREEZING, NAMES
from service.rules.machine import SYSTEM, Actor, ActorKind
from service.settings import Settings
from service.store import checks
from service.store.checks import EVENTS_A_SEAL, LIMIT, Result, read_head, read_results
from service.store.db import open_pool
from tests.makers import (
    PATHS,
    Buyer,
    Shop,
    act,
    arrange,
    make_buyer,
    make_escrow,
    make_shop,
    reread,
)

OPERATOR = Actor(ActorKind.OPERATOR)
Break = Callable[..., Awaitable[None]]


async def check_settled(house: House) -> list[Result]:
    """The minute's look, once nothing in the whole cluster is older than what was just written.

    The tests of the other workers share the cluster, and its horizon with it.
    """
    mine = await house.pool.fetchval("SELECT pg_current_xact_id()::text::bigint")
    for _ in range(2000):
        horizon = await house.pool.fetchval(
            "SELECT pg_snapshot_xmin(pg_current_snapshot())::text::bigint"
        )
        if horizon > mine:
            return await check_changed(house)
        await asyncio.sleep(0.005)
    raise AssertionError("somebody holds a transaction for ten seconds")


UNDONE = (
    "UPDATE escrow SET status = 'cancelled', completed_at = NULL, cancelled_at = updated_at,"
    " cancel_reason = 'seller' WHERE id = $1"
)
REDONE = (
    "UPDATE escrow SET status = 'completed', completed_at = updated_at, cancelled_at = NULL,"
    " cancel_reason = NULL WHERE id = $1"
)


@pytest.fixture
def broken(owner: asyncpg.Connection) -> Break:
    """Change something that nothing in the product can: past triggers and foreign keys."""

    async def change(statement: str, *args: object) -> None:
        async with owner.transaction():
            await owner.execute("SET LOCAL session_replication_role = replica")
            await owner.execute(statement, *args)

    return change


@pytest.fixture
async def shop(house: House) -> Shop:
    return await make_shop(house)


@pytest.fixture
async def buyer(house: House) -> Buyer:
    return await make_buyer(house, funds="5000")


async def fan_all_out(house: House) -> None:
    """As a worker does within seconds: G is breached by what waits, also behind a slow test."""
    while await tend(house, fan_out):
        pass


@pytest.fixture
async def street(house: House, shop: Shop, buyer: Buyer) -> dict[tuple[str, str], Escrow]:
    """An escrow of every mode in every state, by (mode, state)."""
    made = {
        (mode, status): await make_escrow(house, shop, buyer, mode=mode, status=status)
        for mode, paths in PATHS.items()
        for status in paths
    }
    await fan_all_out(house)
    return made


def breaches(results: list[Result]) -> dict[str, list[str]]:
    """Who breaches what; the invariants that hold are left out."""
    assert [result.id for result in results] == list(NAMES)
    assert all(result.ok == (not result.breaches) for result in results)
    return {one.id: [breach.subject for breach in one.breaches] for one in results if not one.ok}


async def test_everything_holds_in_every_state_of_every_mode(house: House, street: object) -> None:
    assert breaches(await check_settled(house)) == {}
    assert breaches(await check_all(house)) == {}


async def test_nothing_breaches_in_an_empty_house(house: House) -> None:
    assert breaches(await check_settled(house)) == {}
    assert breaches(await check_all(house)) == {}


async def test_a_sees_an_account_that_changed_its_currency(
    house: House, street: object, broken: Break
) -> None:
    await broken("UPDATE account SET currency = 'USD' WHERE kind = 'platform_fees'")
    assert breaches(await check_all(house)) == {"A": ["TND", "USD"]}


async def test_b_sees_money_that_moved_without_a_transfer(
    house: House, street: object, shop: Shop, buyer: Buyer, broken: Break
) -> None:
    await broken(
        "UPDATE account SET balance_minor = balance_minor + CASE owner WHEN $1 THEN -1 ELSE 1 END"
        " WHERE kind = 'available'",
        buyer.user_id,
    )
    found = breaches(await check_all(house))
    assert {key: set(who) for key, who in found.items()} == {"B": {buyer.user_id, shop.user_id}}


async def test_c_sees_parts_that_no_transfer_made(
    house: House, street: dict[tuple[str, str], Escrow], broken: Break
) -> None:
    sold = street["quick", "completed"]
    await broken(
        "UPDATE escrow SET released_minor = released_minor + 1, fees_minor = fees_minor - 1"
        " WHERE id = $1",
        sold.id,
    )
    assert breaches(await check_all(house)) == {"C": [sold.id]}


async def test_d_sees_a_final_escrow_that_waits_for_something(
    house: House, street: dict[tuple[str, str], Escrow], broken: Break
) -> None:
    gone = street["instant", "cancelled"]
    await broken("UPDATE deadline SET cancelled_at = NULL WHERE escrow_id = $1", gone.id)
    assert breaches(await check_all(house)) == {"D": [gone.id]}


@pytest.mark.parametrize("ending", ["to_seller", "to_buyer", "buyers_withdrawal"])
async def test_d_sees_an_open_dispute_of_a_final_escrow(
    house: House, shop: Shop, buyer: Buyer, broken: Break, ending: str
) -> None:
    then = ("buyers_dispute", ending, *(("complete",) if "withdrawal" in ending else ()))
    over = await make_escrow(house, shop, buyer, mode="quick", status="delivered", then=then)
    assert breaches(await check_all(house)) == {}
    await broken(
        "UPDATE dispute SET resolved_at = NULL, outcome = NULL, resolved_by = NULL,"
        " seller_minor = NULL, buyer_minor = NULL, escrow_fee_minor = NULL,"
        " developer_fee_minor = NULL, seller_net_minor = NULL WHERE escrow_id = $1",
        over.id,
    )
    results = await check_all(house)
    assert breaches(results) == {"D": [over.id]}
    says = next(one for one in results if one.id == "D").breaches[0].says
    assert "1 disputes, 0 requests" in says
    assert (await reread(house, over.id)).frozen


@pytest.mark.parametrize("ending", ["accept_cancellation", "cancel_escrow", "complete"])
async def test_d_sees_an_open_request_of_a_final_escrow(
    house: House, shop: Shop, buyer: Buyer, broken: Break, ending: str
) -> None:
    over = await make_escrow(
        house, shop, buyer, mode="quick", status="delivered", then=("request_cancellation", ending)
    )
    assert breaches(await check_all(house)) == {}
    await broken(
        "UPDATE cancellation_request SET status = 'pending', answered_at = NULL,"
        " answered_by = NULL WHERE escrow_id = $1",
        over.id,
    )
    results = await check_all(house)
    assert breaches(results) == {"D": [over.id]}
    says = next(one for one in results if one.id == "D").breaches[0].says
    assert "0 disputes, 1 requests" in says


@pytest.mark.parametrize(
    ("kind", "mode", "status", "then"),
    [
        ("cancellation_answer", "quick", "paid", ("request_cancellation",)),
        ("cancellation_answer", "standard", "delivered", ("request_cancellation",)),
        ("cancellation_answer", "instant", "paid", ("request_cancellation",)),
        ("dispute_answer", "quick", "delivered", ("sellers_dispute",)),
        ("dispute_answer", "instant", "paid", ("buyers_dispute",)),
        ("proof_upload", "quick_proof", "paid", ()),
        ("proof_upload", "quick_proof", "paid", ("request_cancellation",)),
        ("proof_upload", "quick_proof", "paid", ("buyers_dispute",)),
        ("completion", "quick", "delivered", ("request_cancellation",)),
        ("overdue_refund", "instant", "paid", ("request_cancellation",)),
    ],
)
async def test_e_sees_each_clock_that_is_missing(
    house: House, shop: Shop, buyer: Buyer, broken: Break, kind: str, mode: str, status: str, then
) -> None:
    stuck = await make_escrow(house, shop, buyer, mode=mode, status=status, then=then)
    assert breaches(await check_all(house)) == {}
    await broken(
        "UPDATE deadline SET cancelled_at = now(), remaining = NULL"
        " WHERE escrow_id = $1 AND kind = $2",
        stuck.id,
        kind,
    )
    results = await check_all(house)
    assert breaches(results) == {"E": [stuck.id]}
    says = next(one for one in results if one.id == "E").breaches[0].says
    assert f"no {kind} deadline is open" in says
    assert not (await reread(house, stuck.id)).frozen


SITUATIONS = {
    "paid": [("request_cancellation",), ("request_cancellation", "reject_cancellation"),
             ("request_cancellation", "accept_cancellation"), ("cancel_escrow",),
             ("sellers_dispute",), ("buyers_dispute", "buyers_withdrawal"),
             ("request_cancellation", "buyers_dispute", "to_seller"),
             ("sellers_dispute", "to_buyer")],
    "delivered": [("request_cancellation",), ("request_cancellation", "complete"),
                  ("request_cancellation", "reject_delivery"), ("reject_delivery", "deliver"),
                  ("sellers_dispute", "sellers_withdrawal", "complete"),
                  ("request_cancellation", "sellers_dispute", "sellers_withdrawal")],
}  # fmt: skip
"""State -> ways on from there."""


async def test_everything_holds_in_every_situation_of_every_mode(
    house: House, shop: Shop, buyer: Buyer
) -> None:
    for mode, paths in PATHS.items():
        for status in sorted(set(paths) & set(SITUATIONS)):
            for then in SITUATIONS[status]:
                await make_escrow(house, shop, buyer, mode=mode, status=status, then=then)
    await fan_all_out(house)
    assert breaches(await check_settled(house)) == {}
    assert breaches(await check_all(house)) == {}


@pytest.mark.parametrize(("mode", "status"), [("instant", "paid"), ("quick", "delivered")])
async def test_e_sees_money_that_nothing_waits_for(
    house: House, street: dict[tuple[str, str], Escrow], broken: Break, mode: str, status: str
) -> None:
    stuck = street[mode, status]
    await broken("UPDATE deadline SET cancelled_at = now() WHERE escrow_id = $1", stuck.id)
    assert breaches(await check_all(house)) == {"E": [stuck.id]}
    assert not (await reread(house, stuck.id)).frozen


@pytest.mark.parametrize("is_late", [True, False])
async def test_e_sees_a_timer_that_does_not_fire(
    house: House, street: dict[tuple[str, str], Escrow], broken: Break, is_late: bool
) -> None:
    waiting = street["standard", "pending"]
    assert breaches(await check_settled(house)) == {}
    due = "now() - interval '301 s'" if is_late else "now() - interval '290 s'"
    expiry = "escrow_id = $1 AND kind = 'expiry'"
    await broken(f"UPDATE deadline SET due_at = {due} WHERE {expiry}", waiting.id)
    # Nothing happens to an escrow whose timer does not fire: the minute sees it without an event.
    expected = {"E": [waiting.id]} if is_late else {}
    results = await check_settled(house)
    assert breaches(results) == expected == breaches(await check_all(house))
    if is_late:
        says = next(one for one in results if one.id == "E").breaches[0].says
        assert says.startswith("its expiry deadline is due since ")
    assert not (await reread(house, waiting.id)).frozen


async def test_a_timer_that_stands_still_is_not_late(
    house: House, shop: Shop, buyer: Buyer, broken: Break
) -> None:
    frozen = await make_escrow(house, shop, buyer, mode="quick", status="delivered")
    held = await make_escrow(house, shop, buyer, mode="quick", status="delivered")
    await broken("UPDATE deadline SET due_at = now() - interval '1 h'")
    await broken("UPDATE escrow SET frozen = true WHERE id = $1", frozen.id)
    await broken("UPDATE deadline SET remaining = '1 h' WHERE escrow_id = $1", held.id)
    assert breaches(await check_all(house)) == {}


@pytest.mark.parametrize(
    "damage",
    [
        UNDONE,
        "UPDATE escrow SET seq = seq + 1 WHERE id = $1",
        "DELETE FROM event WHERE subject_id = $1 AND seq = 2",
        "DELETE FROM event WHERE subject_id = $1",
    ],
)
async def test_f_sees_a_log_that_does_not_lead_to_the_state(
    house: House, street: dict[tuple[str, str], Escrow], broken: Break, damage: str
) -> None:
    sold = street["quick", "completed"]
    await broken(damage, sold.id)
    assert breaches(await check_all(house)) == {"F": [sold.id]}
    assert (await reread(house, sold.id)).frozen


async def test_more_escrows_in_breach_than_are_listed_are_all_frozen(
    house: House, shop: Shop, buyer: Buyer, broken: Break
) -> None:
    made = [await make_escrow(house, shop, buyer) for _ in range(LIMIT + 1)]
    await broken("UPDATE escrow SET seq = seq + 1")
    assert len(breaches(await check_all(house))["F"]) == LIMIT
    assert [one.id for one in made if not (await reread(house, one.id)).frozen] == []


async def test_f_sees_a_step_that_starts_where_the_escrow_was_not(
    house: House, street: dict[tuple[str, str], Escrow], broken: Break
) -> None:
    sold = street["instant", "completed"]
    await broken(
        "UPDATE event SET step = 'link_party', to_state = 'pending' WHERE subject_id = $1"
        " AND seq = 2",
        sold.id,
    )
    found = await check_all(house)
    assert breaches(found)["F"] == [sold.id]


@pytest.mark.parametrize("table", ["app_user", "developer"])
async def test_f_sees_the_logs_of_people_too(house: House, broken: Break, table: str) -> None:
    shop = await make_shop(house)
    who = shop.user_id if table == "app_user" else shop.developer_id
    await broken("DELETE FROM event WHERE subject_id = $1", who)
    assert breaches(await check_all(house)) == {"F": [who]}


async def test_g_sees_an_event_that_nobody_fanned_out(
    house: House, street: dict[tuple[str, str], Escrow], broken: Break
) -> None:
    escrow = street["standard", "pending"]
    await broken(
        "UPDATE event SET recorded_at = clock_timestamp() - interval '6 s', fanned_at = NULL"
        " WHERE subject_id = $1",
        escrow.id,
    )
    assert breaches(await check_settled(house)) == {"G": [escrow.id]}
    await broken("UPDATE event SET fanned_at = now() WHERE subject_id = $1", escrow.id)
    assert breaches(await check_settled(house)) == {}


async def test_j_lists_a_clearing_account_with_its_age(
    house: House, buyer: Buyer, broken: Break
) -> None:
    await broken("UPDATE transfer SET amount_minor = amount_minor + 1 WHERE reason = 'settlement'")
    results = await check_all(house)
    assert breaches(results) == {"J": ["sandbox"]}
    settled = await house.pool.fetchval(
        "SELECT recorded_at::text FROM transfer WHERE reason = 'settlement'"
    )
    says = next(one for one in results if one.id == "J").breaches[0].says
    assert says == f"clearing of sandbox in TND stands at 1 since {settled}"


async def test_k_sees_a_step_outside_the_table(
    house: House, street: dict[tuple[str, str], Escrow], broken: Break
) -> None:
    paid = street["instant", "paid"]
    await broken("UPDATE event SET step = 'complete' WHERE subject_id = $1 AND seq = 2", paid.id)
    assert breaches(await check_all(house)) == {"K": [paid.id]}


# ---- What cannot be asked ----


@pytest.fixture
async def hurried(house: House, migrated: Settings) -> AsyncIterator[House]:
    """The house, with a database that gives a statement half a second."""
    pool = await open_pool(f"{migrated.database_url}&statement_timeout=500")
    yield replace(house, pool=pool)
    await pool.close()


def slow_down(invariant_id: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let this invariant's statement take longer than any statement may."""
    if invariant_id == "I":
        monkeypatch.setattr(checks, "READ_HEAD", "SELECT pg_sleep(9)")
    elif invariant_id in checks.OF_SUBJECTS:
        slow = "SELECT pg_sleep(9) FROM unnest($1::text[])"
        monkeypatch.setitem(checks.OF_SUBJECTS, invariant_id, (slow, ()))  # type: ignore[arg-type]
    else:
        monkeypatch.setitem(checks.OF_HOUSE, invariant_id, "SELECT pg_sleep(9)")  # type: ignore[arg-type]


@pytest.mark.parametrize("ask", [check_all, check_settled])
@pytest.mark.parametrize("invariant_id", ["A", "B", "E", "G", "I", "K"])
async def test_a_question_that_gets_no_answer_does_not_stop_the_others(
    house: House,
    hurried: House,
    shop: Shop,
    buyer: Buyer,
    broken: Break,
    monkeypatch: pytest.MonkeyPatch,
    invariant_id: str,
    ask: Callable[[House], Awaitable[list[Result]]],
) -> None:
    before = await check_all(house)
    sold = await make_escrow(house, shop, buyer, status="completed")
    await broken(
        "UPDATE escrow SET funded_minor = funded_minor + 1, refunded_minor = 1 WHERE id = $1",
        sold.id,
    )
    await fan_all_out(house)
    with monkeypatch.context() as slow:
        slow_down(invariant_id, slow)
        results = await ask(hurried)
    expected = {"C": [sold.id], invariant_id: ["house"]}
    if ask is check_settled and invariant_id == "A":  # asked in full only
        del expected["A"]
    assert breaches(results) == dict(sorted(expected.items()))
    for one, was in zip(results, before, strict=True):
        if one.id == invariant_id in expected:
            assert [breach.says for breach in one.breaches] == [
                "it could not be asked: QueryCanceledError"
            ]
            assert one.last_ok_at == was.checked_at
    assert (await reread(house, sold.id)).frozen
    # What could not be asked is asked in full until it can.
    assert breaches(await check_settled(house)) == {"C": [sold.id]}


# ---- By the minute ----


async def test_the_minute_sees_what_changed_and_night_what_did_not(
    house: House, shop: Shop, buyer: Buyer, broken: Break
) -> None:
    old = await make_escrow(house, shop, buyer, status="completed")
    assert breaches(await check_settled(house)) == {}
    new = await make_escrow(house, shop, buyer, status="completed")
    await broken(
        "UPDATE escrow SET released_minor = released_minor - 1, refunded_minor = 1"
        " WHERE status = 'completed'"
    )
    assert breaches(await check_settled(house)) == {"C": [new.id]}
    # What does not hold is asked in full until it does.
    assert breaches(await check_settled(house)) == {"C": sorted([old.id, new.id])}
    await broken(
        "UPDATE escrow SET released_minor = released_minor + 1, refunded_minor = 0"
        " WHERE status = 'completed'"
    )
    assert breaches(await check_settled(house)) == {}


async def test_the_minute_looks_at_the_wallets_that_a_step_touched(
    house: House, shop: Shop, buyer: Buyer, broken: Break
) -> None:
    assert breaches(await check_settled(house)) == {}
    await make_escrow(house, shop, buyer, status="completed")
    await broken(
        "UPDATE account SET balance_minor = balance_minor + 1 WHERE owner = $1", shop.user_id
    )
    assert breaches(await check_settled(house)) == {"B": [shop.user_id]}


async def test_a_transaction_still_at_work_is_seen_once_it_is_done(
    house: House, shop: Shop, buyer: Buyer, broken: Break
) -> None:
    assert breaches(await check_settled(house)) == {}
    began, may_end = asyncio.Event(), asyncio.Event()

    async def slow(tx: object) -> None:
        await wallets.top_up(tx, buyer.email, 1, "TND")  # type: ignore[arg-type]
        began.set()
        await may_end.wait()

    work = asyncio.create_task(arrange(house, slow))
    await began.wait()
    await make_escrow(house, shop, await make_buyer(house))
    assert breaches(await check_changed(house)) == {}
    may_end.set()
    await work
    await broken(
        "UPDATE account SET balance_minor = balance_minor + 1"
        " WHERE owner = $1 AND kind = 'available'",
        buyer.user_id,
    )
    assert breaches(await check_settled(house)) == {"B": [buyer.user_id]}


async def test_no_question_sees_half_of_a_step(house: House, shop: Shop, buyer: Buyer) -> None:
    async def live(mode: str) -> None:
        for _ in range(3):
            await make_escrow(house, shop, buyer, mode=mode, status="completed")

    lives = [asyncio.create_task(live(mode)) for mode in ("instant", "quick") * 3]
    found = []
    while not all(life.done() for life in lives):
        found += [breaches(await check_changed(house)), breaches(await check_all(house))]
    await asyncio.gather(*lives)
    assert len(found) > 2
    assert set(map(str, found)) == {"{}"}


async def test_the_last_time_that_it_held_is_kept(
    house: House, street: dict[tuple[str, str], Escrow], broken: Break
) -> None:
    before = {one.id: one for one in await check_all(house)}
    assert all(one.last_ok_at == one.checked_at for one in before.values())
    await broken("UPDATE escrow SET seq = seq + 1 WHERE id = $1", street["quick", "paid"].id)
    after = {one.id: one for one in await check_all(house)}
    assert after["F"].last_ok_at == before["F"].checked_at < after["F"].checked_at
    assert after["C"].last_ok_at == after["C"].checked_at


# ---- Frozen ----


async def test_a_frozen_escrow_stands_still_until_it_is_repaired(
    house: House, shop: Shop, buyer: Buyer, broken: Break
) -> None:
    paid = await make_escrow(house, shop, buyer, status="paid")
    # Paid and refunded at once: no transfer says so.
    damage = "UPDATE escrow SET funded_minor = funded_minor + $2, refunded_minor = $3 WHERE id = $1"
    await broken(damage, paid.id, 7, 7)
    assert breaches(await check_settled(house)) == {"C": [paid.id]}
    frozen = await reread(house, paid.id)
    assert (frozen.frozen, frozen.status, frozen.seq) == (True, "paid", paid.seq + 1)

    with pytest.raises(EscrowFrozen):
        await perform(house, shop.actor, escrows.deliver(paid.id))
    await check_all(house)
    assert (await reread(house, paid.id)).seq == frozen.seq  # frozen once
    with pytest.raises(StillBreached, match=r"The escrow stays frozen: C: funded 100007, held"):
        await perform(house, OPERATOR, unfreeze(paid.id))

    await broken(damage, paid.id, -7, 0)
    assert (await act(house, OPERATOR, unfreeze(paid.id))) == {"id": paid.id, "frozen": False}
    assert (await act(house, OPERATOR, unfreeze(paid.id))) == {"id": paid.id, "frozen": False}
    await perform(house, shop.actor, escrows.deliver(paid.id))
    assert breaches(await check_all(house)) == {}


async def test_a_wrong_status_stays_a_breach_after_the_freeze(
    house: House, shop: Shop, buyer: Buyer, broken: Break
) -> None:
    sold = await make_escrow(house, shop, buyer, status="completed")
    await broken(UNDONE, sold.id)
    assert breaches(await check_all(house)) == {"F": [sold.id]}
    assert breaches(await check_all(house)) == {"F": [sold.id]}
    await broken(REDONE, sold.id)
    await perform(house, OPERATOR, unfreeze(sold.id))
    assert breaches(await check_all(house)) == {}
    assert not (await reread(house, sold.id)).frozen


async def test_an_escrow_whose_log_cannot_be_written_is_frozen_all_the_same(
    house: House, shop: Shop, buyer: Buyer, broken: Break
) -> None:
    paid = await make_escrow(house, shop, buyer, status="paid")
    await broken("UPDATE escrow SET seq = 1 WHERE id = $1", paid.id)
    assert breaches(await check_all(house)) == {"F": [paid.id]}
    frozen = await reread(house, paid.id)
    assert (frozen.frozen, frozen.seq) == (True, 1)


async def test_the_deadline_of_a_breached_escrow_does_not_come_before_its_freeze(
    house: House, shop: Shop, buyer: Buyer, broken: Break
) -> None:
    late = await make_escrow(house, shop, buyer, mode="quick", status="delivered")
    await broken("UPDATE deadline SET due_at = now() - interval '1 s'")
    await broken(
        "UPDATE escrow SET funded_minor = funded_minor + 1, refunded_minor = 1 WHERE id = $1",
        late.id,
    )
    assert breaches(await check_settled(house)) == {"C": [late.id]}
    assert (await sweep(house)).fired == []
    after = await reread(house, late.id)
    assert (after.status, after.frozen) == ("delivered", True)


async def test_who_registered_meanwhile_is_linked_when_the_freeze_is_lifted(
    house: House, shop: Shop, broken: Break
) -> None:
    waiting = await make_escrow(house, shop, buyer_email="amel@buyers.example")
    damage = "UPDATE event SET step = $2 WHERE subject_id = $1 AND seq = 1"
    await broken(damage, waiting.id, "dispute")
    assert breaches(await check_settled(house)) == {"K": [waiting.id]}
    amel = await make_buyer(house, "amel@buyers.example")
    assert (await reread(house, waiting.id)).buyer_id is None

    await broken(damage, waiting.id, "create")
    await lift(house, OPERATOR, waiting.id)
    assert (await reread(house, waiting.id)).buyer_id == amel.user_id
    await lift(house, OPERATOR, waiting.id)
    assert breaches(await check_all(house)) == {}


async def test_what_fell_due_meanwhile_comes_first_when_the_freeze_is_lifted(
    house: House, shop: Shop, broken: Break
) -> None:
    waiting = await make_escrow(house, shop, buyer_email="amel@buyers.example")
    damage = "UPDATE event SET step = $2 WHERE subject_id = $1 AND seq = 1"
    await broken(damage, waiting.id, "dispute")
    await check_changed(house)
    await make_buyer(house, "amel@buyers.example")
    await broken("UPDATE deadline SET due_at = now() - interval '1 s'")
    await broken(damage, waiting.id, "create")
    await lift(house, OPERATOR, waiting.id)
    after = await reread(house, waiting.id)
    assert (after.status, after.cancel_reason, after.buyer_id) == ("cancelled", "expired", None)


async def test_a_sound_escrow_is_not_frozen(house: House, shop: Shop, buyer: Buyer) -> None:
    sound = await make_escrow(house, shop, buyer, status="paid")
    assert await act(house, SYSTEM, freeze(sound.id)) == {"id": sound.id, "frozen": False}
    assert await reread(house, sound.id) == sound


@pytest.mark.parametrize("command", [freeze, unfreeze])
async def test_what_does_not_exist_cannot_be_frozen(house: House, command: object) -> None:
    with pytest.raises(EscrowNotFound):
        await perform(house, OPERATOR, command("0" * 24))  # type: ignore[operator]


def test_what_freezes_is_what_the_ledger_says() -> None:
    assert "".join(sorted(FREEZING)) == "ABCDFK"


# ---- Who cannot be frozen now ----


PAID_AND_REFUNDED = (
    "UPDATE escrow SET funded_minor = funded_minor + 1, refunded_minor = 1 WHERE id = ANY ($1)"
)
IN_THE_WAY = """
CREATE FUNCTION in_the_way() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN {does}; END $$;
CREATE TRIGGER in_the_way BEFORE UPDATE ON escrow FOR EACH ROW WHEN (OLD.id = '{id}')
EXECUTE FUNCTION in_the_way();
"""
CLASH = "RAISE EXCEPTION 'in the way' USING ERRCODE = 'serialization_failure'"
CUT = "PERFORM pg_terminate_backend(pg_backend_pid()); RETURN NEW"


@pytest.fixture
async def two_broken(house: House, shop: Shop, buyer: Buyer, broken: Break) -> tuple[str, str]:
    """The ids of two escrows in breach of C, the first to be frozen first."""
    first, second = sorted(
        [(await make_escrow(house, shop, buyer, status="paid")).id for _ in range(2)]
    )
    await broken(PAID_AND_REFUNDED, [first, second])
    return first, second


@pytest.fixture
async def impatient(house: House, migrated: Settings) -> AsyncIterator[House]:
    """The house, with a database that waits for a lock for a quarter of a second."""
    pool = await open_pool(f"{migrated.database_url}&lock_timeout=250")
    yield replace(house, pool=pool)
    await pool.close()


async def test_an_escrow_that_somebody_holds_keeps_no_other_from_being_frozen(
    house: House,
    impatient: House,
    owner: asyncpg.Connection,
    two_broken: tuple[str, str],
) -> None:
    held, other = two_broken
    with capture_logs() as logs:
        async with owner.transaction():
            await owner.execute("SELECT FROM escrow WHERE id = $1 FOR UPDATE", held)
            assert breaches(await check_all(impatient)) == {"C": [held, other]}
            assert breaches(await read_results(house.pool)) == {"C": [held, other]}
    [alarm] = [one for one in logs if one["event"] == "invariant_breached"]
    assert (alarm["invariant"], alarm["count"], alarm["first"]) == ("C", 2, held)
    assert [one["escrow_id"] for one in logs if one["event"] == "freeze_put_off"] == [held]
    assert not (await reread(house, held)).frozen
    assert (await reread(house, other)).frozen
    assert breaches(await check_settled(house)) == {"C": [held, other]}
    assert (await reread(house, held)).frozen


@pytest.mark.parametrize("does", [CLASH, CUT])
async def test_an_escrow_whose_freeze_is_cut_short_keeps_no_other_from_being_frozen(
    house: House, owner: asyncpg.Connection, two_broken: tuple[str, str], does: str
) -> None:
    clashing, other = two_broken
    await owner.execute(IN_THE_WAY.format(does=does, id=clashing))
    try:
        assert breaches(await check_all(house)) == {"C": [clashing, other]}
    finally:
        await owner.execute("DROP FUNCTION in_the_way CASCADE")
    assert breaches(await read_results(house.pool)) == {"C": [clashing, other]}
    assert not (await reread(house, clashing)).frozen
    assert (await reread(house, other)).frozen
    await check_settled(house)
    assert (await reread(house, clashing)).frozen


@pytest.mark.parametrize("fails", ["1 / 0", "length(pg_sleep(9)::text)"])
async def test_nobody_is_frozen_by_a_question_that_gets_no_second_answer(
    house: House,
    hurried: House,
    two_broken: tuple[str, str],
    monkeypatch: pytest.MonkeyPatch,
    fails: str,
) -> None:
    once = (
        "SELECT id AS subject, id AS escrow_id, 'it is wrong' AS says FROM escrow"
        " WHERE id = ANY ($1::text[])"
        f" AND CASE WHEN cardinality($1::text[]) = 1 THEN {fails} ELSE 0 END = 0 ORDER BY id"
    )
    with monkeypatch.context() as at_first_only:
        at_first_only.setitem(checks.OF_SUBJECTS, "C", (once, ()))  # type: ignore[arg-type]
        assert breaches(await check_all(hurried)) == {"C": list(two_broken)}
    assert breaches(await read_results(house.pool)) == {"C": list(two_broken)}
    for escrow_id in two_broken:
        assert not (await reread(house, escrow_id)).frozen


async def test_an_escrow_that_is_gone_keeps_no_other_from_being_frozen(
    house: House, broken: Break, two_broken: tuple[str, str]
) -> None:
    gone, other = two_broken
    await broken("DELETE FROM escrow WHERE id = $1", gone)
    found = breaches(await check_all(house))
    assert set(found["K"]) == {gone}
    assert (await reread(house, other)).frozen


# ---- The hash chain ----


NTH = "id = (SELECT id FROM event ORDER BY xid, position OFFSET $1::int LIMIT 1)"


async def make_events(house: House, buyer: Buyer, count: int) -> None:
    async def many(tx: object) -> None:
        for _ in range(count // 2):  # begun and settled
            await wallets.top_up(tx, buyer.email, 1, "TND")  # type: ignore[arg-type]
        if count % 2:
            await users.register(tx, f"{token_hex(8)}@example.com", "No", "Body")  # type: ignore[arg-type]

    await arrange(house, many)


async def test_the_seal_detects_a_changed_past(
    house: House, owner: asyncpg.Connection, broken: Break
) -> None:
    buyer = await make_buyer(house, funds="1")
    assert await read_head(house.pool) is None
    events = await house.pool.fetchval("SELECT count(*) FROM event")
    await make_events(house, buyer, EVENTS_A_SEAL - 1 - events)
    assert await seal(house) == 0
    await make_events(house, buyer, EVENTS_A_SEAL + 10)
    made = await asyncio.gather(seal(house), seal(house))
    assert sum(made) == 2
    head = await read_head(house.pool)
    assert head is not None
    assert head.number == 2
    assert breaches(await check_all(house)) == {}

    # The outbox's mark may come later; the seal is not about it.
    await owner.execute("UPDATE event SET fanned_at = now()")
    assert breaches(await check_all(house)) == {}

    await broken(f"UPDATE event SET ip = '::1' WHERE {NTH}", 4)
    assert breaches(await check_settled(house)) == {}  # the minute verifies the last seal
    assert breaches(await check_all(house)) == {"I": ["seal 1"]}
    await broken(f"UPDATE event SET ip = NULL WHERE {NTH}", 4)
    assert breaches(await check_settled(house)) == {}

    await broken(f"""UPDATE event SET said = '{{"text": "No."}}' WHERE {NTH}""", 1499)
    assert breaches(await check_settled(house)) == {"I": ["seal 2"]}
    await broken(f"UPDATE event SET said = NULL WHERE {NTH}", 1499)
    await broken(f"UPDATE event SET at = at + interval '1 us' WHERE {NTH}", 1499)
    assert breaches(await check_settled(house)) == {"I": ["seal 2"]}
    await broken(f"UPDATE event SET at = at - interval '1 us' WHERE {NTH}", 1499)
    # A seal that was made anew over a changed past breaks the next one.
    await broken("UPDATE event_seal SET digest = sha256('forged') WHERE number = 1")
    assert breaches(await check_all(house)) == {"I": ["seal 1", "seal 2"]}
    await broken("DELETE FROM event_seal WHERE number = 1")
    assert breaches(await check_all(house)) == {"I": ["seal 2"]}


async def test_two_houses_with_the_same_past_would_have_the_same_head(
    house: House, owner: asyncpg.Connection
) -> None:
    """The sealed text does not depend on the session that computes it."""
    await make_buyer(house)
    texts = []
    for zone, style in (("UTC", "ISO"), ("Africa/Tunis", "German")):
        async with owner.transaction():
            await owner.execute(f"SET LOCAL timezone = '{zone}'; SET LOCAL datestyle = '{style}'")
            texts.append(await owner.fetchval("SELECT string_agg(event_text(v), ',') FROM event v"))
    assert texts[0] == texts[1]
