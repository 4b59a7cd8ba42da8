"""A checkout session is claimed inside its step: once, in time, by one of all who come at once."""

import asyncio
from collections.abc import AsyncIterator, Callable, Coroutine
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import asyncpg
import pytest
import pytest_asyncio

from service.commands import amendments, cancellations, contracts, disputes, escrows, sessions
from service.commands.contracts import TYPED, Mark
from service.commands.deadlines import sweep
from service.commands.developers import allow_redirects
from service.commands.perform import Command, House, perform
from service.commands.steps import lock
from service.rules.aggregate import Escrow
from service.rules.errors import (
    AmountChanged,
    DisputeAlreadyOpened,
    EscrowCancelled,
    InsufficientFunds,
    PaymentAlreadyDone,
    Refused,
    SessionNotFound,
    SessionNotPending,
    StepClash,
    Unavailable,
    UserNotRegistered,
)
from service.rules.machine import Actor, ActorKind
from service.rules.session import MINUTES
from service.settings import Settings
from service.store.db import Transaction, open_pool
from service.store.deadlines import read_open
from service.store.sessions import Session, read_session
from service.wire.sessions import NewSession
from tests.books import assert_sound, count_rows
from tests.interrupting import cancelled_at, count_awaits, until
from tests.makers import (
    Buyer,
    Done,
    Shop,
    act,
    advance,
    arrange,
    jump,
    make_buyer,
    make_escrow,
    make_shop,
    reread,
)

BACK = "https://shop.example/back"
TOO_LATE = timedelta(minutes=MINUTES)

SIGN: Callable[[str], Command] = lambda escrow_id: contracts.sign(  # noqa: E731 - as the makers'
    escrow_id, Mark(TYPED, name="N. Ame")
)
TAKING: dict[str, Callable[[str], Command]] = {
    "sign_contract": SIGN,
    "accept_pay": escrows.pay,
    "complete": escrows.complete,
    "dispute": lambda escrow_id: disputes.open_dispute(escrow_id, "It never came."),
    "request_cancellation": lambda escrow_id: cancellations.request(escrow_id, None),
    "cancel_escrow": cancellations.cancel_paid,
    "accept_cancellation": cancellations.accept,
    "reject_cancellation": cancellations.reject,
    "withdraw_dispute": disputes.withdraw,
}
"""What can be finished today: a session's action, and the command of its step."""


@dataclass(frozen=True)
class Place:
    """A house with a shop whose people may be sent back, and a buyer with money."""

    house: House
    shop: Shop
    buyer: Buyer

    async def session(self, escrow: Escrow, action: str, email: str = "") -> UUID:
        """A new session for this e-mail, else for the buyer."""
        asked = {
            "action": action,
            "targetUserEmail": email or self.buyer.email,
            "redirectUrl": BACK,
        }
        wanted = NewSession.model_validate(asked)
        command = sessions.create(self.shop.developer_id, escrow.id, wanted)
        return UUID((await act(self.house, self.shop.actor, command))["sessionId"])

    async def to_pay(self, **changes: Any) -> tuple[Escrow, UUID]:
        """A pending escrow, and the session in which its buyer pays."""
        escrow = await make_escrow(self.house, self.shop, self.buyer, **changes)
        return escrow, await self.session(escrow, "accept_pay")

    async def stands(self, session_id: UUID) -> Session:
        """The session as it is now."""
        session = await read_session(self.house.pool, session_id)
        assert session is not None
        return session

    async def clocks(self, escrow: Escrow) -> set[str]:
        """The sessions of this escrow whose time runs."""
        due = await read_open(self.house.pool, escrow.id)
        return {one.subject for one in due if one.kind == sessions.SESSION}


@pytest.fixture
async def place(house: House) -> Place:
    shop, buyer = await make_shop(house), await make_buyer(house, funds="100000")
    await arrange(house, lambda tx: allow_redirects(tx, shop.developer_id, [BACK]))
    return Place(house, shop, buyer)


def paying(escrow: Escrow, session_id: UUID, shown: Decimal | None = None) -> Command:
    return sessions.complete(session_id, escrows.pay(escrow.id, shown))


async def ended(*work: Coroutine[Any, Any, Any]) -> list[str]:
    """How each ended when they ran at once: `done`, or the name of its refusal."""
    got = await asyncio.gather(*work, return_exceptions=True)
    assert all(isinstance(one, Refused) or not isinstance(one, BaseException) for one in got), got
    return [type(one).__name__ if isinstance(one, Refused) else "done" for one in got]


# 1. Claimed --------------------------------------------------------------------------------------


async def test_a_session_is_spent_with_its_step_and_its_clock_stops(place: Place):
    escrow, session_id = await place.to_pay()
    assert await place.clocks(escrow) == {str(session_id)}
    told = await act(place.house, place.buyer.actor, paying(escrow, session_id))
    assert (told["session"]["status"], told["escrow"]["status"]) == ("completed", "paid")
    session = await place.stands(session_id)
    paid_at = (await reread(place.house, escrow.id)).paid_at
    assert paid_at is not None
    assert session.status == "completed"
    assert session.completed_at is not None
    assert abs(session.completed_at - paid_at) < timedelta(seconds=1)
    assert await place.clocks(escrow) == set()
    with pytest.raises(SessionNotPending, match="completed"):
        await act(place.house, place.buyer.actor, paying(escrow, session_id))
    await assert_sound(place.house)


async def test_a_refused_step_leaves_the_session_as_it_was(place: Place):
    poor = await make_buyer(place.house, funds="1")
    escrow = await make_escrow(place.house, place.shop, poor)
    session_id = await place.session(escrow, "accept_pay", poor.email)
    before = await place.stands(session_id), await count_rows(place.house)
    with pytest.raises(InsufficientFunds):
        await act(place.house, poor.actor, paying(escrow, session_id))
    assert (await place.stands(session_id), await count_rows(place.house)) == before
    assert await place.clocks(escrow) == {str(session_id)}


async def test_another_amount_than_the_one_that_was_shown_is_refused(place: Place):
    escrow, session_id = await place.to_pay()
    change = amendments.update(escrow.id, amendments.Changes(amount=Decimal(120)))
    await act(place.house, place.shop.actor, change)
    with pytest.raises(AmountChanged, match=r"120\.000 TND"):
        await act(place.house, place.buyer.actor, paying(escrow, session_id, Decimal(100)))
    assert (await place.stands(session_id)).status == "pending"
    await act(place.house, place.buyer.actor, paying(escrow, session_id, Decimal("120.0")))
    assert (await reread(place.house, escrow.id)).held_minor == 120_000


async def test_a_session_that_is_not_there_is_not_found(place: Place):
    escrow, _ = await place.to_pay()
    nowhere = UUID(int=0)
    for command in (paying(escrow, nowhere), sessions.turn_away(nowhere)):
        with pytest.raises(SessionNotFound):
            await act(place.house, place.buyer.actor, command)


async def test_only_who_is_registered_with_the_sessions_e_mail_finishes_it(place: Place):
    escrow = await make_escrow(place.house, place.shop, buyer_email="new@example.org")
    session_id = await place.session(escrow, "accept_pay", "new@example.org")
    session = await place.stands(session_id)
    with pytest.raises(UserNotRegistered):
        await sessions.bound_person(place.house.pool, session, place.buyer.actor)
    own, mine = await place.to_pay()
    door = Actor(ActorKind.DEVELOPER, developer_id="d" * 24, key_id="k", ip="::1", request_id="r")
    person = await sessions.bound_person(place.house.pool, await place.stands(mine), door)
    assert person == Actor(
        ActorKind.USER, user_id=place.buyer.user_id, key_id="k", ip="::1", request_id="r"
    )
    assert own.buyer_id == person.user_id


async def test_who_turns_away_ends_the_session_and_nothing_else(place: Place):
    escrow, session_id = await place.to_pay()
    told = await act(place.house, place.buyer.actor, sessions.turn_away(session_id))
    assert (told["session"]["status"], "escrow" in told) == ("cancelled", False)
    assert await place.clocks(escrow) == set()
    assert await reread(place.house, escrow.id) == escrow
    for command in (paying(escrow, session_id), sessions.turn_away(session_id)):
        with pytest.raises(SessionNotPending, match="cancelled"):
            await act(place.house, place.buyer.actor, command)


# 2. Ended by what happens meanwhile --------------------------------------------------------------


async def test_a_step_that_is_taken_by_another_way_cancels_the_sessions_of_that_step(place: Place):
    escrow, first = await place.to_pay()
    second, other = await place.session(escrow, "accept_pay"), (await place.to_pay())[1]
    await act(place.house, place.buyer.actor, escrows.pay(escrow.id))
    assert [(await place.stands(one)).status for one in (first, second, other)] == [
        "cancelled",
        "cancelled",
        "pending",
    ]
    assert await place.clocks(escrow) == set()
    with pytest.raises(SessionNotPending, match="cancelled"):
        await act(place.house, place.buyer.actor, paying(escrow, first))


async def test_of_several_sessions_of_a_step_the_one_that_is_finished_cancels_the_others(
    place: Place,
):
    escrow, first = await place.to_pay()
    second = await place.session(escrow, "accept_pay")
    await act(place.house, place.buyer.actor, paying(escrow, second))
    assert [(await place.stands(one)).status for one in (first, second)] == [
        "cancelled",
        "completed",
    ]


async def test_each_party_signs_for_itself(place: Place):
    escrow = await make_escrow(place.house, place.shop, place.buyer, mode="standard")
    buyers = [await place.session(escrow, "sign_contract") for _ in range(2)]
    sellers = await place.session(escrow, "sign_contract", place.shop.email)
    await act(place.house, place.buyer.actor, sessions.complete(buyers[0], SIGN(escrow.id)))
    assert [(await place.stands(one)).status for one in (*buyers, sellers)] == [
        "completed",
        "cancelled",
        "pending",
    ]
    await act(place.house, place.shop.actor, SIGN(escrow.id))
    assert (await place.stands(sellers)).status == "cancelled"


async def test_a_final_status_cancels_every_session_and_another_status_none(place: Place):
    escrow = await make_escrow(place.house, place.shop, place.buyer, mode="quick", status="paid")
    asked = [
        await place.session(escrow, "dispute", email) for email in ("", place.shop.email)
    ] + [await place.session(escrow, "request_cancellation")]  # fmt: skip
    await act(place.house, place.shop.actor, escrows.deliver(escrow.id))
    assert {(await place.stands(one)).status for one in asked} == {"pending"}
    await act(place.house, place.buyer.actor, escrows.complete(escrow.id))
    assert {(await place.stands(one)).status for one in asked} == {"cancelled"}
    assert await place.clocks(escrow) == set()
    await assert_sound(place.house)


async def test_an_offer_that_expires_takes_its_sessions_along(place: Place):
    escrow, session_id = await place.to_pay()
    assert escrow.expires_at is not None
    await jump(place.house, escrow.expires_at - escrow.created_at)
    await sweep(place.house)
    assert (await reread(place.house, escrow.id)).cancel_reason == "expired"
    assert (await place.stands(session_id)).status in ("cancelled", "expired")
    assert await place.clocks(escrow) == set()


# 3. The clock ------------------------------------------------------------------------------------


async def test_a_session_expires_after_thirty_minutes_by_the_clock(place: Place):
    escrow, session_id = await place.to_pay()
    session = await place.stands(session_id)
    assert session.expires_at - session.created_at == timedelta(minutes=30)
    almost = session.expires_at - timedelta(seconds=5)  # time goes on meanwhile
    assert await advance(place.house, almost) == []
    assert (await place.stands(session_id)).status == "pending"
    [fired] = await advance(place.house, session.expires_at)
    assert (fired.escrow_id, fired.kind, fired.due_at) == (
        escrow.id,
        "session",
        session.expires_at,
    )
    assert await place.stands(session_id) == replace(session, status="expired")
    assert await reread(place.house, escrow.id) == escrow
    assert await advance(place.house, session.expires_at + timedelta(hours=1)) == []


async def test_a_session_whose_time_is_over_is_refused_before_anybody_has_swept(place: Place):
    escrow, session_id = await place.to_pay()
    await jump(place.house, TOO_LATE)
    before = await place.stands(session_id), await count_rows(place.house)
    for command in (paying(escrow, session_id), sessions.turn_away(session_id)):
        with pytest.raises(SessionNotPending, match="expired"):
            await act(place.house, place.buyer.actor, command)
        assert (await place.stands(session_id), await count_rows(place.house)) == before
    await sweep(place.house)
    assert (await place.stands(session_id)).status == "expired"


async def test_a_sweep_passes_over_the_sessions_of_an_escrow_that_somebody_holds(place: Place):
    escrow, held = await place.to_pay()
    _, free = await place.to_pay()
    await jump(place.house, TOO_LATE)
    holds, lets_go = asyncio.Event(), asyncio.Event()

    async def holding(tx: Transaction) -> Done:
        await lock(tx, escrow.id)
        holds.set()
        await lets_go.wait()
        return Done()

    holder = asyncio.create_task(act(place.house, place.shop.actor, holding))
    await holds.wait()
    async with asyncio.timeout(2):
        done = await sweep(place.house)
    try:
        assert [one.subject for one in done.fired] == [str(free)]
        assert await place.clocks(escrow) == {str(held)}
    finally:
        lets_go.set()
        await holder
    assert [one.subject for one in (await sweep(place.house)).fired] == [str(held)]


# 4. At once --------------------------------------------------------------------------------------


async def test_of_many_who_finish_a_session_at_once_one_wins(place: Place):
    for _ in range(8):
        escrow, session_id = await place.to_pay()
        got = await ended(
            *(act(place.house, place.buyer.actor, paying(escrow, session_id)) for _ in range(4))
        )
        assert sorted(got) == ["SessionNotPending"] * 3 + ["done"]
        assert (await place.stands(session_id)).status == "completed"
    await assert_sound(place.house)


async def test_a_session_is_either_finished_or_turned_away_from(place: Place):
    seen = set()
    for n in range(8):
        escrow, session_id = await place.to_pay()
        two = [paying(escrow, session_id), sessions.turn_away(session_id)]
        got = await ended(
            *(act(place.house, place.buyer.actor, one) for one in (two if n % 2 else two[::-1]))
        )
        assert sorted(got) == ["SessionNotPending", "done"]
        end = (await place.stands(session_id)).status, (await reread(place.house, escrow.id)).status
        assert end in (("completed", "paid"), ("cancelled", "pending"))
        seen.add(end)
    assert seen
    await assert_sound(place.house)


async def test_a_session_raced_with_the_same_step_by_another_way_is_spent_or_cancelled(
    place: Place,
):
    for n in range(8):
        escrow, session_id = await place.to_pay()
        work = [
            act(place.house, place.buyer.actor, paying(escrow, session_id)),
            act(place.house, place.buyer.actor, escrows.pay(escrow.id)),
        ]
        got = await ended(*(work if n % 2 else work[::-1]))
        finished, paid = got if n % 2 else got[::-1]
        status = (await place.stands(session_id)).status
        assert (finished, paid, status) in (
            ("done", "PaymentAlreadyDone", "completed"),
            ("SessionNotPending", "done", "cancelled"),
        )
        assert (await reread(place.house, escrow.id)).status == "paid"
    await assert_sound(place.house)


async def test_two_sessions_of_one_step_finished_at_once_pay_once(place: Place):
    for _ in range(8):
        escrow, first = await place.to_pay()
        second = await place.session(escrow, "accept_pay")
        got = await ended(
            *(act(place.house, place.buyer.actor, paying(escrow, one)) for one in (first, second))
        )
        assert sorted(got) == ["SessionNotPending", "done"]
        ends = {(await place.stands(one)).status for one in (first, second)}
        assert ends == {"completed", "cancelled"}
    await assert_sound(place.house)


async def test_a_payment_raced_with_a_new_amount_is_of_the_amount_that_was_shown(place: Place):
    for n in range(10):
        escrow, session_id = await place.to_pay(mode="quick")
        change = amendments.update(escrow.id, amendments.Changes(amount=Decimal(70)))
        work = [
            act(place.house, place.buyer.actor, paying(escrow, session_id, Decimal(100))),
            act(place.house, place.shop.actor, change),
        ]
        got = await ended(*(work if n % 2 else work[::-1]))
        paid, changed = got if n % 2 else got[::-1]
        left, status = await reread(place.house, escrow.id), (await place.stands(session_id)).status
        assert (paid, changed, status, left.held_minor, left.amount_minor) in (
            ("done", "WrongStatus", "completed", 100_000, 100_000),
            ("AmountChanged", "done", "pending", 0, 70_000),
        )
    await assert_sound(place.house)


async def test_a_payment_raced_with_the_expiry_of_its_session_is_before_or_after(place: Place):
    for n in range(12):
        escrow, session_id = await place.to_pay(estimated_delivery_days=100)
        session = await place.stands(session_id)

        async def pay(turns: int, escrow: Escrow = escrow, session_id: UUID = session_id) -> Any:
            for _ in range(turns):
                await asyncio.sleep(0)
            return await act(place.house, place.buyer.actor, paying(escrow, session_id))

        got = await ended(pay(n * 4), advance(place.house, session.expires_at))
        end = (await place.stands(session_id)).status, (await reread(place.house, escrow.id)).status
        assert (got, end) in (
            (["done", "done"], ("completed", "paid")),
            (["SessionNotPending", "done"], ("expired", "pending")),
        )
        assert await place.clocks(escrow) == set()
    await assert_sound(place.house, in_time=False)


async def test_sweeps_and_steps_on_the_same_escrows_do_not_lie_in_each_others_way(place: Place):
    """Sessions fall due while the steps that end them are taken: every one ends, once."""
    made = []
    for _ in range(6):
        escrow = await make_escrow(place.house, place.shop, place.buyer)
        made.append((escrow, [await place.session(escrow, "accept_pay") for _ in range(3)]))
    await jump(place.house, TOO_LATE)
    await asyncio.gather(
        *(act(place.house, place.buyer.actor, escrows.pay(escrow.id)) for escrow, _ in made),
        *(sweep(place.house) for _ in range(3)),
    )
    await sweep(place.house)
    for escrow, mine in made:
        ends = {(await place.stands(one)).status for one in mine}
        assert ends <= {"expired", "cancelled"}
        assert await place.clocks(escrow) == set()
    await assert_sound(place.house)


async def test_a_session_made_while_its_step_is_taken_does_not_outlive_it(place: Place):
    """Made before, it is cancelled; made after, it is refused."""
    for n in range(8):
        escrow = await make_escrow(place.house, place.shop, place.buyer)
        made: list[UUID] = []

        async def make(escrow: Escrow = escrow, made: list[UUID] = made) -> None:
            made.append(await place.session(escrow, "accept_pay"))

        work = [make(), act(place.house, place.buyer.actor, escrows.pay(escrow.id))]
        got = await ended(*(work if n % 2 else work[::-1]))
        assert set(got) <= {"done", PaymentAlreadyDone.__name__}
        for one in made:
            assert (await place.stands(one)).status == "cancelled"
        assert bool(made) == (got == ["done", "done"])


# 5. Cut off --------------------------------------------------------------------------------------


@pytest_asyncio.fixture(loop_scope="session")
async def narrow(house: House, migrated: Settings) -> AsyncIterator[House]:
    """The house with two connections of its own: a leaked one would soon be missed."""
    pool = await open_pool(migrated.database_url or "", size=2, application="narrow")
    yield replace(house, pool=pool)
    await pool.close()


READY: dict[str, tuple[str, str, str, tuple[str, ...]]] = {
    "sign_contract": ("buyer", "standard", "pending", ()),
    "accept_pay": ("buyer", "quick_proof", "pending", ()),
    "complete": ("buyer", "quick", "delivered", ("request_cancellation",)),
    "dispute": ("seller", "quick", "delivered", ("request_cancellation",)),
    "request_cancellation": ("buyer", "quick", "delivered", ()),
    "cancel_escrow": ("seller", "instant", "paid", ()),
    "accept_cancellation": ("seller", "quick", "paid", ("request_cancellation",)),
    "reject_cancellation": ("seller", "quick", "paid", ("request_cancellation",)),
    "withdraw_dispute": ("buyer", "quick", "delivered", ("buyers_dispute",)),
}
"""An action -> whose, and a standing in which it can be taken."""


@pytest.mark.parametrize("action", TAKING)
async def test_a_session_cut_off_at_any_await_of_its_step_is_spent_with_it_or_not_at_all(
    place: Place, narrow: House, action: str
):
    who, mode, status, then = READY[action]
    email = place.shop.email if who == "seller" else place.buyer.email
    actor = place.shop.actor if who == "seller" else place.buyer.actor

    async def arranged() -> tuple[Escrow, UUID]:
        escrow = await make_escrow(
            place.house, place.shop, place.buyer, mode=mode, status=status, then=then
        )
        return escrow, await place.session(escrow, action, email)

    def command(escrow: Escrow, session_id: UUID) -> Command:
        return sessions.complete(session_id, TAKING[action](escrow.id))

    awaits = await count_awaits(perform(narrow, actor, command(*await arranged())))
    done = 0
    for n in range(1, awaits + 1):
        escrow, session_id = await arranged()
        before = await count_rows(place.house), await place.stands(session_id)
        await cancelled_at(perform(narrow, actor, command(escrow, session_id)), n)
        await at_rest(narrow)
        after, session = await reread(place.house, escrow.id), await place.stands(session_id)
        if after.seq == escrow.seq:
            assert (await count_rows(place.house), session) == before
            assert await place.clocks(escrow) == {str(session_id)}
        else:
            assert session.status == "completed"
            assert await place.clocks(escrow) == set()
            done += 1
    assert awaits >= 8, "the command has gone somewhere else"
    assert done < awaits
    await assert_sound(place.house)


@pytest.mark.parametrize("name", ["create", "turn_away", "expire"])
async def test_what_makes_or_ends_a_session_is_cut_off_whole(
    place: Place, narrow: House, name: str
):
    asked = {"action": "accept_pay", "targetUserEmail": place.buyer.email, "redirectUrl": BACK}

    async def begun() -> tuple[Escrow, Coroutine[Any, Any, Any]]:
        escrow = await make_escrow(place.house, place.shop, place.buyer)
        if name == "create":
            wanted = NewSession.model_validate(asked)
            command = sessions.create(place.shop.developer_id, escrow.id, wanted)
            return escrow, perform(narrow, place.shop.actor, command)
        session_id = await place.session(escrow, "accept_pay")
        if name == "turn_away":
            return escrow, perform(narrow, place.buyer.actor, sessions.turn_away(session_id))
        await jump(place.house, TOO_LATE)
        return escrow, sweep(narrow)

    awaits = await count_awaits((await begun())[1])
    for n in range(1, awaits + 1):
        escrow, work = await begun()
        await cancelled_at(work, n)
        await at_rest(narrow)
        rows = await place.house.pool.fetch(
            "SELECT id::text, status FROM checkout_session WHERE escrow_id = $1", escrow.id
        )
        pending = {row["id"] for row in rows if row["status"] == "pending"}
        assert await place.clocks(escrow) == pending
    assert awaits >= 5


async def test_a_connection_that_drops_after_the_claim_leaves_the_session_pending(
    place: Place, owner: asyncpg.Connection
):
    escrow, session_id = await place.to_pay()

    async def dropping(tx: Transaction) -> Done:
        assert (await read_session(tx, session_id)).status == "completed"  # type: ignore[union-attr]
        await escrows.pay(escrow.id)(tx)
        pid = await tx.fetchval("SELECT pg_backend_pid()")
        await owner.execute("SELECT pg_terminate_backend($1)", pid)
        await tx.fetchval("SELECT 1")
        return Done()

    with pytest.raises(Unavailable):
        await act(place.house, place.buyer.actor, sessions.complete(session_id, dropping))
    assert (await place.stands(session_id)).status == "pending"
    assert (await reread(place.house, escrow.id)).status == "pending"
    await act(place.house, place.buyer.actor, paying(escrow, session_id))
    await assert_sound(place.house)


async def at_rest(narrow: House) -> None:
    """Every connection is back in the pool."""
    inner = narrow.pool._pool

    async def idle() -> bool:
        return inner.get_idle_size() == inner.get_size()

    await until(idle)


def test_whatever_stands_against_a_session_is_a_clash_of_steps() -> None:
    """Told as E3 where one is made, and as 409 where it is finished."""
    for refusal in (SessionNotPending, EscrowCancelled, DisputeAlreadyOpened):
        assert issubclass(refusal, StepClash)
