"""The payments' round: it finishes what was lost on the way, whatever a door has left undone."""

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from aiohttp import web

from service.commands import payments
from service.commands.charges import HouseBook
from service.commands.payments import Wish
from service.commands.perform import House, perform
from service.gateways.payments.provider import order_of
from service.gateways.payments.sandbox import SandboxProvider
from service.gateways.payments.stripe import StripeProvider
from service.rules.errors import GatewayFailure
from service.rules.machine import SYSTEM
from service.rules.payment import BANK_TRANSFER, REFUND, SANDBOX, STRIPE, TOPUP, Payment
from service.store.checks import read_breaches
from service.store.ledger import read_balance
from service.store.payments import list_payments, read_payment
from tests.books import assert_sound
from tests.house import SECRET_KEY
from tests.makers import Buyer, act, make_buyer
from tests.stripe_server import ABSENT, KEY, PYTHON, stripe_at_work
from workers import payments as keeping
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


class Away(SandboxProvider):
    """The sandbox's provider, out of order where pages are closed."""

    def __init__(self, provider: SandboxProvider, *, permanent: bool) -> None:
        self.__dict__.update(provider.__dict__)
        self.permanent, self.asked = permanent, 0

    async def withdraw(self, provider_reference: str) -> None:
        self.asked += 1
        raise GatewayFailure("out of order", permanent=self.permanent)


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


@pytest.mark.skipif(not PYTHON.exists(), reason=ABSENT)
async def test_what_never_reached_stripe_is_placed_by_the_worker_later(world: World) -> None:
    async def away(_: web.Request) -> web.Response:
        return web.Response(status=503)

    async with stripe_at_work("whsec_amana", "http://127.0.0.1:9/") as counter:
        provider = StripeProvider(KEY, ["whsec_amana"], api_base=counter.url)
        worker = Payments(world.house, {STRIPE: provider}, WorkMetrics(), world.now)
        payment_id = await world.begin(provider=STRIPE)
        counter.answer = away
        with pytest.raises(GatewayFailure):
            await provider.place(order_of(await world.stands(payment_id), "http://amana.test"))
        counter.answer = None
        await world.later(timedelta(minutes=29))
        await worker.turn()
        placed = await world.stands(payment_id)
        assert (placed.state, counter.made_of(payment_id)) == ("pending", 1)
        await provider.close()


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


async def test_notifications_that_are_still_to_come_hold_up_no_other(
    world: World, monkeypatch
) -> None:
    monkeypatch.setattr(keeping, "BATCH", 2)
    payment_id = await world.begin()
    await world.place(payment_id)
    shown = await world.book.read(f"sbx_{payment_id}")
    assert shown is not None
    for number in range(5):
        reference, other = f"sbx_0{number}", f"{number:024}"
        waiting = replace(shown, reference=reference, payment_id=other, amount_minor=LATE)
        await world.book.open(waiting)
        await world.book.press(waiting.reference, world.now(), paid=True)
    await world.press(payment_id)
    await world.worker.turn()
    assert (await world.stands(payment_id)).state == "succeeded"
    assert len(await world.book.untold(9)) == 5


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


async def test_the_page_of_what_was_cancelled_here_can_be_paid_no_more(world: World) -> None:
    payment_id = await world.begin()
    await world.place(payment_id)
    await act(world.house, world.buyer.actor, payments.cancel(payment_id))
    await world.worker.turn()
    charge = await world.book.read(f"sbx_{payment_id}")
    assert charge is not None
    assert charge.paid is False
    await world.press(payment_id)
    await world.worker.turn()
    assert (await world.available(), (await world.stands(payment_id)).ask_at) == (0, None)
    assert await list_payments(world.house.pool, (TOPUP,), None, 9) == []


async def test_money_that_was_faster_than_the_closing_of_its_page_strays(world: World) -> None:
    payment_id = await world.begin(FORGED)
    await world.place(payment_id)
    await world.press(payment_id)
    await act(world.house, world.buyer.actor, payments.cancel(payment_id))
    await world.worker.turn()
    [stray] = await list_payments(world.house.pool, (TOPUP,), None, 9)
    assert (stray.origin_id, stray.received_minor) == (payment_id, FORGED)


async def test_a_page_that_was_opened_after_the_cancellation_is_closed_too(world: World) -> None:
    payment_id = await world.begin()
    await act(world.house, world.buyer.actor, payments.cancel(payment_id))
    await world.worker.turn()
    await world.place(payment_id)
    await world.worker.turn()
    charge = await world.book.read(f"sbx_{payment_id}")
    assert charge is not None
    assert charge.paid is False


@pytest.mark.parametrize("permanent", [False, True])
async def test_a_page_is_closed_until_the_provider_has_answered(
    world: World, permanent: bool
) -> None:
    payment_id = await world.begin()
    await world.place(payment_id)
    away = Away(world.provider, permanent=permanent)
    worker = Payments(world.house, {SANDBOX: away}, WorkMetrics(), world.now)
    await act(world.house, world.buyer.actor, payments.cancel(payment_id))
    await worker.turn()
    await world.later(timedelta(seconds=61))
    await worker.turn()
    assert away.asked == (1 if permanent else 2)
    await world.later(timedelta(hours=2))
    await worker.turn()
    assert (await world.stands(payment_id)).ask_at is None


async def test_a_payment_whose_provider_was_taken_out_is_the_operators(world: World) -> None:
    payment_id = await world.begin()
    await world.place(payment_id)
    worker = Payments(world.house, {}, WorkMetrics(), world.now)
    await world.later(timedelta(minutes=40))
    await worker.turn()
    assert (await world.stands(payment_id)).state == "pending"
    await world.later(timedelta(hours=1))
    await worker.turn()
    assert (await world.stands(payment_id)).state == "needs_operator"


async def test_a_refund_that_the_provider_refuses_is_opened_anew(world: World) -> None:
    payment_id = await world.begin(WRONG)
    await world.place(payment_id)
    await world.press(payment_id)
    await world.worker.turn()
    await act(world.house, payments.OPERATOR, payments.decide(payment_id, approves=False))
    [refund] = await list_payments(world.house.pool, (REFUND,), None, 9)
    await act(world.house, payments.OPERATOR, payments.send_refund(refund.id))
    await world.owner.execute("UPDATE sandbox_charge SET paid = false")
    await world.worker.turn()
    [again] = await list_payments(world.house.pool, (REFUND,), None, 9)
    assert again.id != refund.id
    await world.owner.execute("UPDATE sandbox_charge SET paid = true")
    await act(world.house, payments.OPERATOR, payments.send_refund(again.id))
    await world.worker.turn()
    assert (await world.stands(again.id)).state == "succeeded"
    assert await read_breaches(world.house.pool, "J") == []


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
