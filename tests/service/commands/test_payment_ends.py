"""What the end of a payment means: to the session it was begun in, to a guest, to the operator."""

from collections.abc import Callable, Coroutine
from datetime import timedelta
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from service.commands import amendments, escrows, payments, sessions
from service.commands.perform import House, perform
from service.rules import errors as no
from service.rules import payment as rules
from service.rules.machine import NOWHERE, SYSTEM
from service.rules.payment import BANK_TRANSFER, REFUND, SANDBOX, STEPS, TOPUP, Outcome
from service.rules.session import MINUTES, RETRY_HOURS
from service.store.sessions import Session, read_session
from tests.books import read_log
from tests.makers import Buyer, Shop, act, jump, make_buyer, make_escrow, make_shop, reread, top_up
from tests.service.commands.paying import (
    AMOUNT,
    GUEST,
    GUEST_EMAIL,
    OPERATOR,
    begin,
    begin_for,
    begin_guest,
    decide,
    hear,
    mails,
    open_session,
    proven_by_guest,
    state,
    unregistered,
    waiting,
)

pytestmark = pytest.mark.usefixtures("sound")

USABLE, RETRY = timedelta(minutes=MINUTES), timedelta(hours=RETRY_HOURS)
A_YEAR = timedelta(days=365)
SOON = timedelta(minutes=10)
LATER = timedelta(hours=2)


@pytest.fixture
async def shop(house: House) -> Shop:
    return await make_shop(house)


@pytest.fixture
async def buyer(house: House) -> Buyer:
    return await make_buyer(house, funds="0")


# ---- A session under review ----------------------------------------------------------------------


class Desk:
    """An instant escrow, a session for paying it, a bank transfer whose proof is looked at."""

    def __init__(self, house: House, shop: Shop, buyer: Buyer | None) -> None:
        self.house, self.shop, self.buyer = house, shop, buyer
        self.escrow_id = self.payment_id = ""
        self.session_id = UUID(int=0)

    async def open(self) -> "Desk":
        email = self.buyer.email if self.buyer else GUEST_EMAIL
        self.escrow_id = (await make_escrow(self.house, self.shop, buyer_email=email)).id
        self.session_id = await open_session(self.house, self.escrow_id, email)
        await self.begin()
        return self

    async def begin(self) -> None:
        wish = {"provider": BANK_TRANSFER, "session_id": self.session_id}
        if self.buyer:
            self.payment_id = await begin_for(self.house, self.buyer, self.escrow_id, **wish)
        else:
            self.payment_id = await begin_guest(self.house, self.escrow_id, **wish)

    async def prove(self) -> None:
        actor = self.buyer.actor if self.buyer else GUEST
        await act(self.house, actor, payments.prove(self.payment_id, None))

    async def cancel(self) -> None:
        actor = self.buyer.actor if self.buyer else GUEST
        await act(self.house, actor, payments.cancel(self.payment_id))

    async def reject(self) -> None:
        await decide(self.house, self.payment_id, approves=False)

    async def find_another_sum(self) -> None:
        await decide(self.house, self.payment_id, approves=True, received=(7, "TND"))

    async def approve(self) -> None:
        await decide(self.house, self.payment_id, approves=True)

    async def keep(self) -> None:
        """The escrow's amount is another one by now."""
        changes = amendments.Changes(amount=Decimal(90))
        await act(self.house, self.shop.actor, amendments.update(self.escrow_id, changes))
        await self.approve()

    async def cancel_escrow(self) -> None:
        await act(self.house, self.shop.actor, escrows.cancel(self.escrow_id))

    async def session(self) -> Session:
        found = await read_session(self.house.pool, self.session_id)
        assert found is not None
        return found


@pytest.fixture(params=["guest", "registered"])
async def desk(request: pytest.FixtureRequest, house: House, shop: Shop, buyer: Buyer) -> Desk:
    """In both modes of paying for an escrow."""
    return await Desk(house, shop, buyer if request.param == "registered" else None).open()


Ending = Callable[[Desk], Coroutine[Any, Any, None]]


@pytest.mark.parametrize(
    ("ending", "after", "left"),
    [
        (Desk.reject, LATER, LATER + RETRY),
        (Desk.find_another_sum, LATER, LATER + RETRY),
        (Desk.cancel, SOON, USABLE),
        (Desk.cancel, LATER, LATER),
    ],
)
async def test_a_session_is_open_for_a_day_once_its_proof_is_looked_at_no_more(
    desk: Desk, ending: Ending, after: timedelta, left: timedelta
) -> None:
    await desk.prove()
    made = await desk.session()
    assert made.expires_at - made.created_at > A_YEAR - SOON
    await jump(desk.house, after)
    await ending(desk)
    session = await desk.session()
    assert session.status == ("pending" if after < left else "expired")
    assert abs(session.expires_at - session.created_at - left) < timedelta(minutes=1)


async def test_a_session_whose_payment_stays_in_the_wallet_is_open_for_a_day(
    house: House, shop: Shop, buyer: Buyer
) -> None:
    desk = await Desk(house, shop, buyer).open()
    await desk.prove()
    await desk.keep()
    session = await desk.session()
    assert session.status == "pending"
    assert abs(session.expires_at - session.created_at - RETRY) < timedelta(minutes=1)


@pytest.mark.parametrize(
    ("ending", "status"), [(Desk.approve, "completed"), (Desk.cancel_escrow, "cancelled")]
)
async def test_a_proof_that_pays_completes_the_session_and_a_cancelled_escrow_ends_it(
    desk: Desk, ending: Ending, status: str
) -> None:
    await desk.prove()
    await jump(desk.house, timedelta(days=3))
    await ending(desk)
    assert (await desk.session()).status == status


async def test_a_session_without_a_proof_is_as_long_as_it_was(desk: Desk) -> None:
    before = (await desk.session()).expires_at
    await desk.cancel()
    assert (await desk.session()).expires_at == before


async def test_a_second_rejection_gives_a_day_more(desk: Desk) -> None:
    for _n in range(2):
        await desk.prove()
        await jump(desk.house, timedelta(hours=23))
        await desk.reject()
        await jump(desk.house, timedelta(hours=23))
        await desk.begin()
    session = await desk.session()
    assert session.expires_at - session.created_at > timedelta(hours=23 * 3)


async def test_nothing_is_begun_in_a_session_that_has_expired(desk: Desk) -> None:
    await desk.prove()
    await desk.reject()
    await jump(desk.house, RETRY + SOON)
    with pytest.raises(no.SessionNotPending):
        await desk.begin()


async def test_nothing_is_begun_in_a_session_that_was_turned_away(desk: Desk) -> None:
    await desk.cancel()
    await act(desk.house, GUEST, sessions.turn_away(desk.session_id))
    with pytest.raises(no.SessionNotPending):
        await desk.begin()


async def test_a_guest_proves_nothing_once_the_session_is_over(house: House, shop: Shop) -> None:
    desk = await Desk(house, shop, None).open()
    await jump(house, USABLE)
    with pytest.raises(no.SessionNotPending):
        await desk.prove()
    assert await state(house, desk.payment_id) == "created"


async def test_a_proof_brings_no_expired_session_back(
    house: House, shop: Shop, buyer: Buyer
) -> None:
    desk = await Desk(house, shop, buyer).open()
    before = (await desk.session()).expires_at
    await jump(house, USABLE)
    await desk.prove()
    assert (await desk.session()).expires_at == before


async def test_a_session_is_for_its_own_escrow_and_for_paying_only(
    house: House, shop: Shop, buyer: Buyer
) -> None:
    one, other = await unregistered(house, shop), await unregistered(house, shop)
    with pytest.raises(no.SessionNotFound):
        await begin_guest(house, one, session_id=await open_session(house, other))
    with pytest.raises(no.SessionNotFound):
        await begin_guest(house, one, session_id=UUID(int=1))
    mine = await make_escrow(house, shop, buyer)
    await top_up(house, buyer.email, "100")
    await act(house, buyer.actor, escrows.pay(mine.id))
    dispute = await open_session(house, mine.id, buyer.email, "dispute")
    with pytest.raises(no.SessionNotFound):
        await begin_for(house, buyer, mine.id, session_id=dispute)


async def test_whoever_was_turned_away_while_another_held_the_lock_pays_nothing(
    house: House, shop: Shop, buyer: Buyer
) -> None:
    escrow = await make_escrow(house, shop, buyer)
    session_id = await open_session(house, escrow.id, buyer.email)
    await act(house, GUEST, sessions.turn_away(session_id))
    for provider in (SANDBOX, BANK_TRANSFER):
        with pytest.raises(no.SessionNotPending):
            await act(house, buyer.actor, sessions.pay_otherwise(session_id, provider))
    assert (await reread(house, escrow.id)).status == "pending"


# ---- Told ----------------------------------------------------------------------------------------


async def test_a_guests_wrong_sum_is_told_to_the_guest_and_to_the_shop(
    house: House, shop: Shop
) -> None:
    escrow_id, payment_id = await proven_by_guest(house, shop)
    await decide(house, payment_id, approves=True, received=(7, "TND"))
    assert (await read_log(house, escrow_id))[-1][:2] == (
        "reject_deposit",
        "escrow.deposit_proof.rejected",
    )
    await decide(house, payment_id, approves=False)
    [refund] = await waiting(house, REFUND)
    await decide(house, refund.id, approves=True)
    assert await mails(house) == [
        ("payment_looked_at", GUEST_EMAIL),
        ("payment_sent_back", GUEST_EMAIL),
        ("refund_made", GUEST_EMAIL),
    ]
    events = [event for _, event, *_ in await read_log(house, escrow_id)]
    assert events.count("escrow.deposit_proof.rejected") == 1


async def test_what_nobody_knows_of_is_told_and_what_came_of_it(house: House, buyer: Buyer) -> None:
    lost, found = await begin(house, buyer), await begin(house, buyer)
    for one in (lost, found):
        await perform(house, SYSTEM, payments.end_without_report(one, "escalate"))
    await decide(house, lost, approves=False)
    await hear(house, found)
    await decide(house, found, approves=True)
    assert [template for template, _ in await mails(house)] == [
        "payment_unknown",
        "payment_unknown",
        "payment_failed",
        "payment_received",
    ]


# ---- Every row -----------------------------------------------------------------------------------


class Life:
    """One payment of a mode, brought to a state and through a step by commands alone."""

    def __init__(self, house: House, shop: Shop, buyer: Buyer) -> None:
        self.house, self.shop, self.buyer = house, shop, buyer
        self.id = ""

    async def reach(self, mode: str, source: str, step: str) -> None:
        """Into this state; by hand where only the operator's word leads on."""
        by_hand = step in ("prove", "approve", "reject") or mode == rules.GUEST
        provider = BANK_TRANSFER if by_hand and mode != REFUND else SANDBOX
        if mode == REFUND:
            await self._reach_refund(source)
        elif mode == rules.PAYOUT:
            await self._reach_payout(source)
        elif source != NOWHERE:
            await self._begin(mode, provider)
            await self._reach_incoming(mode, source, provider, step)

    async def _begin(self, mode: str, provider: str) -> None:
        if mode == TOPUP:
            self.id = await begin(self.house, self.buyer, provider=provider)
        elif mode == rules.GUEST:
            self.id = await begin_guest(self.house, await unregistered(self.house, self.shop))
        else:
            escrow = await make_escrow(self.house, self.shop, self.buyer)
            self.id = await begin_for(self.house, self.buyer, escrow.id, provider=provider)

    async def _reach_incoming(self, mode: str, source: str, provider: str, step: str) -> None:
        if source == rules.PENDING and provider == BANK_TRANSFER:
            actor = GUEST if mode == rules.GUEST else self.buyer.actor
            await act(self.house, actor, payments.prove(self.id, None))
        elif source == rules.PENDING:
            await hear(self.house, self.id, Outcome.PENDING)
        elif source == rules.NEEDS_OPERATOR:
            if mode == rules.GUEST and step == "credit":
                await payments_wrong_way(self.house, self.id)
            elif mode == rules.GUEST:
                await decide(self.house, self.id, approves=True, received=(7, "TND"))
            elif step in ("receive_late", "write_off"):
                lost = payments.end_without_report(self.id, "escalate")
                await perform(self.house, SYSTEM, lost)
            else:
                await hear(self.house, self.id, amount=7)

    async def _reach_payout(self, source: str) -> None:
        await top_up(self.house, self.buyer.email, "100")
        if source == NOWHERE:
            return
        command = payments.request_payout(self.buyer.user_id, BANK_TRANSFER, AMOUNT, "TND")
        self.id = (await act(self.house, self.buyer.actor, command))["payment"]["id"]
        if source != rules.CREATED:
            await act(self.house, OPERATOR, payments.take_up(self.id))
        if source == rules.NEEDS_OPERATOR:
            await decide(self.house, self.id, approves=True)
            back = await act(self.house, OPERATOR, payments.returned(self.id))
            self.id = back["payment"]["id"]

    async def _reach_refund(self, source: str) -> None:
        origin = await begin(self.house, self.buyer)
        await hear(self.house, origin, amount=7)
        self.id = origin
        if source == NOWHERE:
            return
        await decide(self.house, origin, approves=False)
        [refund] = await waiting(self.house, REFUND)
        self.id = refund.id
        if source in (rules.CREATED, rules.PENDING):
            await act(self.house, OPERATOR, payments.send_refund(self.id))
        if source == rules.PENDING:
            await hear(self.house, self.id, Outcome.PENDING, amount=7, charge="re_1")

    async def sent_and_lost(self) -> None:
        """The refund is the operator's again, after the provider was asked."""
        await act(self.house, OPERATOR, payments.send_refund(self.id))
        lost = payments.end_without_report(self.id, "escalate")
        await perform(self.house, SYSTEM, lost)


async def payments_wrong_way(house: House, payment_id: str) -> None:
    """A guest's exact sum that comes once the payment is over waits for the operator."""
    await act(house, GUEST, payments.cancel(payment_id))
    await decide(house, payment_id, approves=True, received=(AMOUNT, "TND"))


async def take_it(life: Life, mode: str, row: rules.Step) -> None:  # noqa: C901, PLR0912, PLR0915 - one case a step
    house, source, one = life.house, row.source, life.id
    match row.name:
        case "begin" if mode == rules.PAYOUT:
            command = payments.request_payout(life.buyer.user_id, BANK_TRANSFER, AMOUNT, "TND")
            await act(house, life.buyer.actor, command)
        case "begin":
            await life._begin(mode, SANDBOX)
        case "hand_over" | "decline" | "escalate" | "settle" | "cancel" | "receive_wrong" if (
            mode == REFUND
        ):
            await _refund_step(life, row)
        case "hand_over":
            await perform(house, SYSTEM, payments.hand_over(one, "ref", "http://page"))
        case "prove":
            actor = GUEST if mode == rules.GUEST else life.buyer.actor
            await act(house, actor, payments.prove(one, None))
        case "settle":
            await hear(house, one)
        case "decline":
            await hear(house, one, Outcome.FAILED)
        case "escalate":
            await perform(house, SYSTEM, payments.end_without_report(one, "escalate"))
        case "cancel":
            actor = GUEST if mode == rules.GUEST else life.buyer.actor
            await act(house, actor, payments.cancel(one))
        case "receive_wrong" if mode == rules.GUEST:
            await decide(house, one, approves=True, received=(7, "TND"))
        case "receive_wrong":
            await hear(house, one, amount=7)
        case "receive_late":
            await hear(house, one)
        case "receive_stray" if mode == rules.PAYOUT:
            await life.reach(mode, rules.NEEDS_OPERATOR, row.name)
        case "receive_stray" if mode == REFUND:
            await decide(house, one, approves=False)
            [refund] = await waiting(house, REFUND)
            await decide(house, refund.id, approves=True)
            await act(house, OPERATOR, payments.returned(refund.id))
        case "receive_stray":
            await life._begin(mode, BANK_TRANSFER)
            actor = GUEST if mode == rules.GUEST else life.buyer.actor
            await act(house, actor, payments.cancel(life.id))
            await decide(house, life.id, approves=True, received=(7, "TND"))
        case "take_up":
            await act(house, OPERATOR, payments.take_up(one))
        case "open_refund":
            await decide(house, one, approves=False)
        case "send":
            await act(house, OPERATOR, payments.send_refund(one))
        case "approve" | "credit":
            waits = await waiting(house, rules.TOPUP, rules.ACCEPT_PAY)
            is_stray = mode == rules.GUEST and row.name == "credit"
            await decide(house, waits[0].id if is_stray else one, approves=True)
        case "reject" if mode == REFUND:
            await life.sent_and_lost()
            await decide(house, one, approves=False)
        case "reject" | "send_back" | "write_off":
            await decide(house, one, approves=False)
        case name:
            raise AssertionError(f"nobody takes {name} from {source}")


async def _refund_step(life: Life, row: rules.Step) -> None:
    house, one = life.house, life.id
    if row.source == rules.NEEDS_OPERATOR:
        await life.sent_and_lost()
    if row.name == "escalate":
        await perform(house, SYSTEM, payments.end_without_report(one, "escalate"))
        return
    outcome = {"hand_over": Outcome.PENDING, "settle": Outcome.SUCCEEDED}.get(
        row.name, Outcome.FAILED
    )
    await hear(house, one, outcome, amount=7, charge="re_1")


@pytest.mark.parametrize(
    ("mode", "row"),
    [
        pytest.param(mode, row, id=f"{mode}:{row.name}:{row.source}")
        for row in STEPS
        for mode in sorted(row.modes)
    ],
)
async def test_every_row_of_the_table_is_taken_by_some_command(
    house: House, shop: Shop, buyer: Buyer, owner: Any, mode: str, row: rules.Step
) -> None:
    life = Life(house, shop, buyer)
    await life.reach(mode, row.source, row.name)
    await take_it(life, mode, row)
    taken = await owner.fetchval(TAKEN, mode, row.name, row.source, row.target)
    assert taken > 0


TAKEN = """
SELECT count(*) FROM event
WHERE subject_kind = 'payment' AND mode = $1 AND step = $2 AND from_state = $3 AND to_state = $4
"""
