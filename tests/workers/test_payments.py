"""The payments' round: it finishes what was lost on the way, whatever a door has left undone."""

import asyncio
from datetime import UTC, datetime, timedelta

import pytest

from service.commands import payments
from service.commands.charges import HouseBook
from service.commands.payments import Wish
from service.commands.perform import House, perform
from service.gateways.payments.provider import order_of
from service.gateways.payments.sandbox import SandboxProvider
from service.rules.machine import SYSTEM
from service.rules.payment import BANK_TRANSFER, REFUND, SANDBOX, TOPUP, Payment
from service.store.checks import read_breaches
from service.store.ledger import read_balance
from service.store.payments import list_payments, read_payment
from tests.books import assert_sound
from tests.house import SECRET_KEY
from tests.makers import Buyer, act, make_buyer
from workers.metrics import WorkMetrics
from workers.payments import Payments

AMOUNT = 100_000
PENDING, TWICE, LATE, FORGED, WRONG = 100_020, 100_030, 100_040, 100_050, 100_060
BACKDATE = """
UPDATE payment SET created_at = created_at - $1::interval, ask_at = ask_at - $1::interval,
    asked_at = asked_at - $1::interval, expires_at = expires_at - $1::interval
"""


class World:
    """A buyer, the sandbox's provider, a worker; time passes where it is written down."""

    def __init__(self, house: House, owner, buyer: Buyer) -> None:
        self.house, self.owner, self.buyer = house, owner, buyer
        self.ahead = timedelta()
        self.book = HouseBook(house)
        self.provider = SandboxProvider(self.book, [SECRET_KEY], house.policy.public_url, self.now)
        self.worker = Payments(house, {SANDBOX: self.provider}, WorkMetrics(), self.now)

    def now(self) -> datetime:
        return datetime.now(UTC) + self.ahead

    async def begin(self, amount: int = AMOUNT, provider: str = SANDBOX) -> str:
        wish = Wish(TOPUP, provider, amount, "TND", self.buyer.user_id)
        made = await act(self.house, self.buyer.actor, payments.begin(wish))
        return made["payment"]["id"]

    async def place(self, payment_id: str) -> None:
        """As a door does."""
        placed = await self.provider.place(order_of(await self.stands(payment_id), "http://a.test"))
        handed = payments.hand_over(payment_id, placed.provider_reference, placed.page_url)
        await perform(self.house, SYSTEM, handed)

    async def press(self, payment_id: str, *, paid: bool = True) -> None:
        await self.book.press(f"sbx_{payment_id}", self.now(), paid=paid)

    async def later(self, ago: timedelta) -> None:
        """The rows are so much older."""
        await self.owner.execute(BACKDATE, ago)

    async def stands(self, payment_id: str) -> Payment:
        found = await read_payment(self.house.pool, payment_id)
        assert found is not None
        return found

    async def available(self) -> int:
        return (await read_balance(self.house.pool, self.buyer.user_id, "TND")).available


@pytest.fixture
async def world(house: House, owner):
    made = World(house, owner, await make_buyer(house, funds="0"))
    yield made
    await assert_sound(house)


async def test_what_a_crash_left_between_begin_and_hand_over_is_placed_again(world: World) -> None:
    payment_id = await world.begin()
    await world.provider.place(order_of(await world.stands(payment_id), "http://amana.test"))
    await world.worker.turn()
    assert (await world.stands(payment_id)).state == "created"
    await world.later(timedelta(seconds=31))
    await world.owner.execute(  # the order is the same whenever it is asked again
        "UPDATE sandbox_charge c SET expires_at = p.expires_at FROM payment p"
        " WHERE p.id = c.payment_id"
    )
    await world.worker.turn()
    placed = await world.stands(payment_id)
    assert (placed.state, placed.provider_reference) == ("pending", f"sbx_{payment_id}")
    assert placed.page_url == f"http://amana.test/sandbox/pay/sbx_{payment_id}"


async def test_a_forged_notification_is_nothing_and_the_worker_finds_the_money(
    world: World,
) -> None:
    payment_id = await world.begin(FORGED)
    await world.place(payment_id)
    await world.press(payment_id)
    await world.worker.turn()
    assert (await world.stands(payment_id)).state == "pending"
    await world.later(timedelta(seconds=31))
    await world.worker.turn()
    assert (await world.stands(payment_id)).state == "succeeded"
    assert await world.available() == FORGED


async def test_two_notifications_book_one_charge(world: World) -> None:
    payment_id = await world.begin(TWICE)
    await world.place(payment_id)
    await world.press(payment_id)
    await asyncio.gather(world.worker.turn(), world.worker.turn())
    assert await world.available() == TWICE
    assert await world.book.untold(9) == []


async def test_what_comes_late_is_told_late_and_waits_for_the_operator(world: World) -> None:
    payment_id = await world.begin(LATE)
    await world.place(payment_id)
    await world.press(payment_id)
    await world.worker.turn()
    assert (await world.stands(payment_id)).state == "cancelled"
    world.ahead = timedelta(seconds=6)
    await world.worker.turn()
    [stray] = await list_payments(world.house.pool, (TOPUP,), None, 9)
    assert (stray.origin_id, stray.received_minor) == (payment_id, LATE)
    assert await read_breaches(world.house.pool, "J") == []


async def test_a_refund_goes_back_through_the_provider(world: World) -> None:
    payment_id = await world.begin(WRONG)
    await world.place(payment_id)
    await world.press(payment_id)
    await world.worker.turn()
    operator = payments.OPERATOR
    await act(world.house, operator, payments.decide(payment_id, approves=False))
    [refund] = await list_payments(world.house.pool, (REFUND,), None, 9)
    await act(world.house, operator, payments.send_refund(refund.id))
    await world.worker.turn()
    assert (await world.stands(refund.id)).state == "succeeded"
    assert await read_breaches(world.house.pool, "J") == []


async def test_what_the_provider_does_not_know_any_more_is_the_operators(world: World) -> None:
    payment_id = await world.begin()
    await world.place(payment_id)
    await world.owner.execute("DELETE FROM sandbox_charge")
    await world.later(timedelta(minutes=40))
    await world.worker.turn()
    assert (await world.stands(payment_id)).state == "pending"
    assert [one.subject for one in await read_breaches(world.house.pool, "H")] == [payment_id]
    await world.later(timedelta(hours=2))
    await world.worker.turn()
    assert (await world.stands(payment_id)).state == "needs_operator"
    assert await read_breaches(world.house.pool, "H") == []


async def test_each_answer_keeps_a_page_that_nobody_has_left_from_breaching(world: World) -> None:
    payment_id = await world.begin()
    await world.place(payment_id)
    await world.later(timedelta(minutes=16))
    assert len(await read_breaches(world.house.pool, "H")) == 1
    await world.worker.turn()
    assert await read_breaches(world.house.pool, "H") == []
    asked = await world.stands(payment_id)
    assert asked.ask_at is not None
    assert asked.asked_at is not None
    assert asked.ask_at - asked.asked_at == timedelta(minutes=5)


async def test_a_page_that_nobody_used_is_cancelled(world: World) -> None:
    payment_id = await world.begin()
    await world.place(payment_id)
    await world.owner.execute("UPDATE sandbox_charge SET expires_at = expires_at - interval '1 h'")
    await world.later(timedelta(minutes=31))
    await world.worker.turn()
    assert (await world.stands(payment_id)).state == "cancelled"


async def test_a_transfer_of_which_no_proof_came_lapses(world: World) -> None:
    payment_id = await world.begin(provider=BANK_TRANSFER)
    await world.later(timedelta(days=13))
    await world.worker.turn()
    assert (await world.stands(payment_id)).state == "created"
    await world.later(timedelta(days=2))
    await world.worker.turn()
    assert (await world.stands(payment_id)).state == "cancelled"
