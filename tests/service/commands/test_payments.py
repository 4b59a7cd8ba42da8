"""Payments: every way that money may come, or not, leaves the books balanced."""

import asyncio
from collections.abc import Callable, Coroutine
from datetime import timedelta
from decimal import Decimal
from typing import Any

import pytest

from service.commands import (
    amendments,
    cancellations,
    deadlines,
    escrows,
    payments,
)
from service.commands.payments import Heard
from service.commands.perform import House, perform
from service.rules import errors as no
from service.rules.machine import CLOCK, SYSTEM
from service.rules.money import MAX_MINOR
from service.rules.payment import (
    BANK_TRANSFER,
    OPEN_MAX,
    PAYOUT,
    REFUND,
    SANDBOX,
    TOPUP,
    Outcome,
    Payment,
    Report,
)
from service.store.checks import read_breaches
from service.store.ledger import read_balance
from service.store.payments import list_payments, read_open_of_escrow
from tests.books import read_log
from tests.interrupting import until
from tests.makers import Buyer, Shop, act, jump, make_buyer, make_escrow, make_shop, reread, top_up
from tests.service.commands.paying import (
    AMOUNT,
    GUEST,
    OPERATOR,
    begin,
    begin_for,
    begin_guest,
    decide,
    hear,
    mails,
    money,
    proven_by_guest,
    stands,
    state,
    unregistered,
    waiting,
)

pytestmark = pytest.mark.usefixtures("sound")


@pytest.fixture
async def shop(house: House) -> Shop:
    return await make_shop(house)


@pytest.fixture
async def buyer(house: House) -> Buyer:
    return await make_buyer(house, funds="0")


# ---- A card into a wallet ------------------------------------------------------------------------


async def test_a_top_up_is_promised_then_settled(house: House, buyer: Buyer) -> None:
    payment_id = await begin(house, buyer)
    assert await money(house, buyer) == (0, AMOUNT)
    await perform(house, SYSTEM, payments.hand_over(payment_id, "ref_1", "http://page"))
    assert await money(house, buyer) == (0, AMOUNT)
    await hear(house, payment_id)
    assert await money(house, buyer) == (AMOUNT, 0)
    log = [step for step, *_ in await read_log(house, payment_id)]
    assert log == ["begin", "hand_over", "settle"]


@pytest.mark.parametrize(
    ("outcome", "ended"), [(Outcome.FAILED, "failed"), (Outcome.CANCELLED, "cancelled")]
)
async def test_what_is_not_paid_is_promised_no_more(
    house: House, buyer: Buyer, outcome: Outcome, ended: str
) -> None:
    payment_id = await begin(house, buyer)
    await hear(house, payment_id, outcome)
    assert (await state(house, payment_id), await money(house, buyer)) == (ended, (0, 0))


async def test_the_same_charge_counts_once_however_often_it_is_told(
    house: House, buyer: Buyer
) -> None:
    payment_id = await begin(house, buyer)
    for _n in range(3):
        await hear(house, payment_id)
    assert (await money(house, buyer), await waiting(house)) == ((AMOUNT, 0), [])


async def test_a_worker_and_notifications_at_once_book_one_charge(
    house: House, buyer: Buyer
) -> None:
    payment_id = await begin(house, buyer)
    await asyncio.gather(*(hear(house, payment_id, is_answer=n % 2 == 0) for n in range(8)))
    assert (await money(house, buyer), await waiting(house)) == ((AMOUNT, 0), [])


async def test_one_charge_told_of_two_payments_at_once_is_booked_once(
    house: House, buyer: Buyer
) -> None:
    both = [await begin(house, buyer), await begin(house, buyer)]
    await asyncio.gather(*(hear(house, one) for one in both))
    assert await money(house, buyer) == (AMOUNT, AMOUNT)
    assert sorted([await state(house, one) for one in both]) == ["created", "succeeded"]


async def test_a_second_charge_strays_and_waits_for_the_operator(
    house: House, buyer: Buyer
) -> None:
    payment_id = await begin(house, buyer)
    await hear(house, payment_id)
    await hear(house, payment_id, charge="ch_2")
    [stray] = await waiting(house)
    assert (stray.origin_id, stray.received_minor, stray.state) == (
        payment_id,
        AMOUNT,
        "needs_operator",
    )
    await hear(house, payment_id, charge="ch_2")
    assert len(await waiting(house)) == 1
    assert await decide(house, stray.id, approves=True) == "succeeded"
    assert await money(house, buyer) == (2 * AMOUNT, 0)


@pytest.mark.parametrize(("amount", "currency"), [(AMOUNT - 10, "TND"), (AMOUNT, "EUR")])
async def test_another_amount_or_currency_waits_for_the_operator(
    house: House, buyer: Buyer, amount: int, currency: str
) -> None:
    payment_id = await begin(house, buyer)
    await hear(house, payment_id, amount=amount, currency=currency)
    assert (await state(house, payment_id), await money(house, buyer)) == (
        "needs_operator",
        (0, 0),
    )
    assert await decide(house, payment_id, approves=True) == "succeeded"
    assert (await read_balance(house.pool, buyer.user_id, currency)).available == amount


async def test_what_strayed_may_be_sent_back_by_the_provider(house: House, buyer: Buyer) -> None:
    payment_id = await begin(house, buyer)
    await hear(house, payment_id, amount=7)
    assert await decide(house, payment_id, approves=False) == "cancelled"
    [refund] = await waiting(house, REFUND)
    assert (refund.amount_minor, refund.origin_id) == (7, payment_id)
    await act(house, OPERATOR, payments.send_refund(refund.id))
    assert await state(house, refund.id) == "created"
    await hear(house, refund.id, Outcome.PENDING, amount=7, charge="re_1")
    assert await state(house, refund.id) == "pending"
    await hear(house, refund.id, amount=7, charge="re_1")
    assert await state(house, refund.id) == "succeeded"
    await hear(house, refund.id, amount=7, charge="re_1")
    assert await waiting(house) == []


async def sent_refund(house: House, buyer: Buyer) -> Payment:
    """A refund that the provider was asked for."""
    payment_id = await begin(house, buyer)
    await hear(house, payment_id, amount=7, charge="ch_of_refund")
    await decide(house, payment_id, approves=False)
    [refund] = await waiting(house, REFUND)
    await act(house, OPERATOR, payments.send_refund(refund.id))
    return await stands(house, refund.id)


async def test_a_refund_that_failed_is_opened_anew_and_may_be_sent_again(
    house: House, buyer: Buyer
) -> None:
    failed = await sent_refund(house, buyer)
    await hear(house, failed.id, Outcome.FAILED, amount=7, charge="re_1")
    [refund] = await waiting(house, REFUND)
    assert (await state(house, failed.id), refund.id != failed.id) == ("failed", True)
    assert (refund.amount_minor, refund.origin_id, refund.provider_reference) == (
        7,
        failed.origin_id,
        None,
    )
    await act(house, OPERATOR, payments.send_refund(refund.id))
    await hear(house, refund.id, amount=7, charge="re_2")
    assert (await state(house, refund.id), await waiting(house)) == ("succeeded", [])


async def test_what_was_not_sent_is_not_rejected_and_is_sent_by_hand(
    house: House, buyer: Buyer
) -> None:
    failed = await sent_refund(house, buyer)
    await hear(house, failed.id, Outcome.FAILED, amount=7, charge="re_1")
    [refund] = await waiting(house, REFUND)
    with pytest.raises(no.PaymentNotOpen):
        await decide(house, refund.id, approves=False)
    assert await decide(house, refund.id, approves=True) == "succeeded"


async def test_nobody_sends_by_hand_what_a_provider_may_be_sending(
    house: House, buyer: Buyer
) -> None:
    refund = await sent_refund(house, buyer)
    with pytest.raises(no.PaymentNotOpen):
        await decide(house, refund.id, approves=True)
    await perform(house, SYSTEM, payments.end_without_report(refund.id, "escalate"))
    with pytest.raises(no.PaymentNotOpen):
        await act(house, OPERATOR, payments.send_refund(refund.id))
    assert await decide(house, refund.id, approves=False) == "failed"
    [again] = await waiting(house, REFUND)
    assert again.id != refund.id


async def test_a_refund_that_came_back_is_sent_once_more(house: House, buyer: Buyer) -> None:
    refund = await sent_refund(house, buyer)
    await hear(house, refund.id, amount=7, charge="re_1")
    for _n in range(2):
        await hear(house, refund.id, Outcome.FAILED, amount=7, charge="re_1")
    [again] = await waiting(house, REFUND)
    assert (again.amount_minor, again.origin_id) == (7, refund.origin_id)
    await act(house, OPERATOR, payments.send_refund(again.id))
    await hear(house, again.id, amount=7, charge="re_2")
    assert await waiting(house) == []


@pytest.mark.parametrize("outcome", [Outcome.FAILED, Outcome.CANCELLED])
async def test_money_that_comes_late_strays(house: House, buyer: Buyer, outcome: Outcome) -> None:
    payment_id = await begin(house, buyer)
    await hear(house, payment_id, outcome)
    await hear(house, payment_id)
    [stray] = await waiting(house)
    assert (stray.origin_id, await state(house, payment_id)) == (payment_id, outcome)
    assert await money(house, buyer) == (0, 0)


async def test_a_failure_after_the_money_changes_nothing(house: House, buyer: Buyer) -> None:
    payment_id = await begin(house, buyer)
    await hear(house, payment_id)
    await hear(house, payment_id, Outcome.FAILED)
    assert (await state(house, payment_id), await money(house, buyer)) == (
        "succeeded",
        (AMOUNT, 0),
    )


async def test_a_notification_may_come_before_the_hand_over(house: House, buyer: Buyer) -> None:
    payment_id = await begin(house, buyer)
    await hear(house, payment_id, Outcome.PENDING)
    await perform(house, SYSTEM, payments.hand_over(payment_id, f"ref_{payment_id}", "http://p"))
    assert (await stands(house, payment_id)).page_url == "http://p"
    await hear(house, payment_id)
    await perform(house, SYSTEM, payments.hand_over(payment_id, f"ref_{payment_id}", "http://p"))
    assert (await state(house, payment_id), await money(house, buyer)) == (
        "succeeded",
        (AMOUNT, 0),
    )


async def test_what_the_outside_lost_is_the_operators_and_late_money_joins_it(
    house: House, buyer: Buyer
) -> None:
    payment_id = await begin(house, buyer)
    await perform(house, SYSTEM, payments.end_without_report(payment_id, "escalate"))
    assert (await state(house, payment_id), await money(house, buyer)) == (
        "needs_operator",
        (0, 0),
    )
    await hear(house, payment_id)
    assert (await stands(house, payment_id)).received_minor == AMOUNT
    assert await decide(house, payment_id, approves=True) == "succeeded"
    assert await money(house, buyer) == (AMOUNT, 0)


async def test_what_never_came_is_written_off(house: House, buyer: Buyer) -> None:
    payment_id = await begin(house, buyer)
    await perform(house, SYSTEM, payments.end_without_report(payment_id, "escalate"))
    with pytest.raises(no.PaymentNotOpen):
        await decide(house, payment_id, approves=True)
    assert await decide(house, payment_id, approves=False) == "failed"


async def test_what_a_full_wallet_cannot_hold_waits_in_clearing(house: House, buyer: Buyer) -> None:
    payment_id = await begin(house, buyer)
    for _n in range(2):
        await top_up(house, buyer.email, str(MAX_MINOR // 2000))
    await hear(house, payment_id)
    assert await state(house, payment_id) == "needs_operator"
    with pytest.raises(no.BalanceTooLarge):
        await decide(house, payment_id, approves=True)


async def test_only_the_payer_turns_away_and_only_while_it_is_open(
    house: House, buyer: Buyer
) -> None:
    payment_id = await begin(house, buyer)
    other = await make_buyer(house)
    with pytest.raises(no.PaymentNotFound):
        await act(house, other.actor, payments.cancel(payment_id))
    await act(house, buyer.actor, payments.cancel(payment_id))
    assert (await state(house, payment_id), await money(house, buyer)) == ("cancelled", (0, 0))
    with pytest.raises(no.PaymentNotOpen):
        await act(house, buyer.actor, payments.cancel(payment_id))


async def test_a_report_of_what_is_not_this_providers_is_refused(
    house: House, buyer: Buyer
) -> None:
    payment_id = await begin(house, buyer)
    with pytest.raises(no.PaymentNotFound):
        await hear(house, "0" * 24)
    with pytest.raises(no.PaymentNotFound):
        await hear(house, payment_id, provider="stripe")
    assert await state(house, payment_id) == "created"


async def test_a_card_is_not_the_operators_to_approve(house: House, buyer: Buyer) -> None:
    payment_id = await begin(house, buyer)
    for approves in (True, False):
        with pytest.raises(no.PaymentNotOpen):
            await decide(house, payment_id, approves=approves)


# ---- Inline, for an escrow -----------------------------------------------------------------------


async def test_a_payment_for_an_escrow_pays_it_in_the_same_moment(
    house: House, shop: Shop, buyer: Buyer
) -> None:
    escrow = await make_escrow(house, shop, buyer)
    payment_id = await begin_for(house, buyer, escrow.id)
    await hear(house, payment_id)
    paid = await reread(house, escrow.id)
    assert (paid.status, paid.held_minor, await money(house, buyer)) == ("paid", AMOUNT, (0, 0))
    assert (await read_log(house, escrow.id))[-1][0::2] == ("accept_pay", "user")


async def test_the_wallet_and_what_was_missing_pay_together(
    house: House, shop: Shop, buyer: Buyer
) -> None:
    escrow = await make_escrow(house, shop, buyer)
    await top_up(house, buyer.email, "60")
    payment_id = await begin_for(house, buyer, escrow.id, amount_minor=40_000)
    await hear(house, payment_id, amount=40_000)
    assert (await reread(house, escrow.id)).status == "paid"


async def test_too_little_stays_in_the_wallet(house: House, shop: Shop, buyer: Buyer) -> None:
    escrow = await make_escrow(house, shop, buyer)
    payment_id = await begin_for(house, buyer, escrow.id, amount_minor=40_000)
    await hear(house, payment_id, amount=40_000)
    assert (await reread(house, escrow.id)).status == "pending"
    assert await money(house, buyer) == (40_000, 0)


async def test_an_amount_that_was_changed_meanwhile_is_not_paid(
    house: House, shop: Shop, buyer: Buyer
) -> None:
    escrow = await make_escrow(house, shop, buyer)
    payment_id = await begin_for(house, buyer, escrow.id)
    changes = amendments.Changes(amount=Decimal(90))
    await act(house, shop.actor, amendments.update(escrow.id, changes))
    await hear(house, payment_id)
    assert (await reread(house, escrow.id)).status == "pending"
    assert await money(house, buyer) == (AMOUNT, 0)


async def test_a_cancelled_escrow_cancels_its_payments_and_late_money_strays(
    house: House, shop: Shop, buyer: Buyer
) -> None:
    escrow = await make_escrow(house, shop, buyer)
    payment_id = await begin_for(house, buyer, escrow.id)
    await act(house, shop.actor, escrows.cancel(escrow.id))
    assert (await state(house, payment_id), await money(house, buyer)) == ("cancelled", (0, 0))
    await hear(house, payment_id)
    [stray] = await waiting(house)
    assert stray.escrow_id == escrow.id


async def test_paying_from_the_wallet_cancels_what_is_under_way(
    house: House, shop: Shop, buyer: Buyer
) -> None:
    escrow = await make_escrow(house, shop, buyer)
    payment_id = await begin_for(house, buyer, escrow.id)
    await top_up(house, buyer.email, "100")
    await act(house, buyer.actor, escrows.pay(escrow.id))
    assert await state(house, payment_id) == "cancelled"
    assert await read_open_of_escrow(house.pool, escrow.id) == []


async def test_a_cancellation_and_the_money_at_once_leave_one_of_two_ends(
    house: House, shop: Shop, buyer: Buyer
) -> None:
    escrow = await make_escrow(house, shop, buyer)
    payment_id = await begin_for(house, buyer, escrow.id)
    await asyncio.gather(
        hear(house, payment_id),
        act(house, shop.actor, escrows.cancel(escrow.id)),
        return_exceptions=True,
    )
    ends = (await reread(house, escrow.id)).status, await state(house, payment_id)
    assert ends in (("paid", "succeeded"), ("cancelled", "cancelled"))


async def test_only_the_buyer_begins_to_pay_what_can_be_paid(
    house: House, shop: Shop, buyer: Buyer
) -> None:
    escrow = await make_escrow(house, shop, buyer)
    with pytest.raises(no.WrongParty):
        await begin_for(house, await make_buyer(house), escrow.id)
    await act(house, shop.actor, escrows.cancel(escrow.id))
    with pytest.raises(no.EscrowCancelled):
        await begin_for(house, buyer, escrow.id)


# ---- By hand -------------------------------------------------------------------------------------


async def test_a_transfer_is_the_operators_to_approve(house: House, buyer: Buyer) -> None:
    payment_id = await begin(house, buyer, provider=BANK_TRANSFER)
    await act(house, buyer.actor, payments.prove(payment_id, None))
    assert [one.id for one in await waiting(house)] == [payment_id]
    assert await decide(house, payment_id, approves=True) == "succeeded"
    assert await money(house, buyer) == (AMOUNT, 0)
    with pytest.raises(no.PaymentNotOpen):
        await decide(house, payment_id, approves=True)


async def test_a_transfer_that_is_not_found_is_rejected(house: House, buyer: Buyer) -> None:
    payment_id = await begin(house, buyer, provider=BANK_TRANSFER)
    assert await decide(house, payment_id, approves=False) == "failed"
    assert await money(house, buyer) == (0, 0)


async def test_a_statement_of_another_sum_is_credited_by_a_second_word(
    house: House, buyer: Buyer
) -> None:
    payment_id = await begin(house, buyer, provider=BANK_TRANSFER)
    state = await decide(house, payment_id, approves=True, received=(AMOUNT - 1, "TND"))
    assert state == "needs_operator"
    assert await decide(house, payment_id, approves=True) == "succeeded"
    assert await money(house, buyer) == (AMOUNT - 1, 0)


async def test_an_unknown_payment_is_not_decided(house: House) -> None:
    with pytest.raises(no.PaymentNotFound):
        await decide(house, "0" * 24, approves=True)


# ---- Guests --------------------------------------------------------------------------------------


async def test_a_guests_transfer_is_held_once_it_is_approved(house: House, shop: Shop) -> None:
    escrow_id = await unregistered(house, shop)
    payment_id = await begin_guest(house, escrow_id)
    await act(house, GUEST, payments.prove(payment_id, None))
    assert await decide(house, payment_id, approves=True) == "succeeded"
    paid = await reread(house, escrow_id)
    assert (paid.status, paid.held_minor, paid.guest_provider, paid.buyer) == (
        "paid",
        AMOUNT,
        BANK_TRANSFER,
        None,
    )
    await act(house, shop.actor, escrows.deliver(escrow_id))
    assert (await reread(house, escrow_id)).status == "completed"


async def test_a_guests_refund_goes_to_clearing_and_is_listed(house: House, shop: Shop) -> None:
    escrow_id = await unregistered(house, shop)
    payment_id = await begin_guest(house, escrow_id)
    await decide(house, payment_id, approves=True)
    await act(house, shop.actor, cancellations.cancel_paid(escrow_id))
    [refund] = await waiting(house, REFUND)
    assert (refund.escrow_id, refund.amount_minor, refund.user_id) == (escrow_id, AMOUNT, None)
    with pytest.raises(no.NotPayable):
        await act(house, OPERATOR, payments.send_refund(refund.id))
    assert await decide(house, refund.id, approves=True) == "succeeded"


async def test_a_guest_whose_proof_is_rejected_may_try_again(house: House, shop: Shop) -> None:
    escrow_id = await unregistered(house, shop)
    first = await begin_guest(house, escrow_id)
    with pytest.raises(no.PaymentUnderWay):
        await begin_guest(house, escrow_id)
    assert await decide(house, first, approves=False) == "failed"
    assert (await read_log(house, escrow_id))[-1][:2] == (
        "reject_deposit",
        "escrow.deposit_proof.rejected",
    )
    again = await begin_guest(house, escrow_id)
    assert await decide(house, again, approves=True) == "succeeded"


async def test_a_guests_transfer_of_another_sum_is_not_credited(house: House, shop: Shop) -> None:
    escrow_id = await unregistered(house, shop)
    payment_id = await begin_guest(house, escrow_id)
    state = await decide(house, payment_id, approves=True, received=(AMOUNT + 1, "TND"))
    assert state == "needs_operator"
    with pytest.raises(no.PaymentNotOpen):
        await decide(house, payment_id, approves=True)
    assert await decide(house, payment_id, approves=False) == "cancelled"
    [refund] = await waiting(house, REFUND)
    assert await decide(house, refund.id, approves=True) == "succeeded"


async def test_a_guest_pays_exactly_and_by_transfer(house: House, shop: Shop) -> None:
    escrow_id = await unregistered(house, shop)
    with pytest.raises(no.NotPayable):
        await begin_guest(house, escrow_id, provider=SANDBOX)
    with pytest.raises(no.NotPayable):
        await begin_guest(house, escrow_id, amount_minor=1)


async def test_a_guests_escrow_that_is_cancelled_cancels_the_payment(
    house: House, shop: Shop
) -> None:
    escrow_id = await unregistered(house, shop)
    payment_id = await begin_guest(house, escrow_id)
    await act(house, shop.actor, escrows.cancel(escrow_id))
    assert await state(house, payment_id) == "cancelled"


async def test_an_approval_and_a_cancellation_at_once_leave_one_of_two_ends(
    house: House, shop: Shop
) -> None:
    escrow_id = await unregistered(house, shop)
    payment_id = await begin_guest(house, escrow_id)
    for approves in (False, True):
        if approves:
            payment_id = await begin_guest(house, escrow_id)
            other = act(house, shop.actor, escrows.cancel(escrow_id))
        else:
            other = act(house, GUEST, payments.cancel(payment_id))
        await asyncio.gather(
            decide(house, payment_id, approves=approves), other, return_exceptions=True
        )
    ends = (await reread(house, escrow_id)).status, await state(house, payment_id)
    assert ends in (("paid", "succeeded"), ("cancelled", "cancelled"))


async def test_an_escrow_does_not_expire_while_a_proof_is_under_review(
    house: House, shop: Shop
) -> None:
    escrow_id, payment_id = await proven_by_guest(house, shop)
    await jump(house, timedelta(days=60))
    await deadlines.sweep(house)
    assert (await reread(house, escrow_id)).status == "pending"
    assert await decide(house, payment_id, approves=True) == "succeeded"
    assert (await reread(house, escrow_id)).status == "paid"


@pytest.mark.parametrize("ended", ["rejected", "cancelled", "of another sum"])
async def test_the_expiry_goes_on_once_no_proof_is_under_review(
    house: House, shop: Shop, ended: str
) -> None:
    escrow_id, payment_id = await proven_by_guest(house, shop)
    await jump(house, timedelta(days=60))
    if ended == "cancelled":
        await act(house, GUEST, payments.cancel(payment_id))
    elif ended == "rejected":
        await decide(house, payment_id, approves=False)
    else:
        await decide(house, payment_id, approves=True, received=(1, "TND"))
    assert (await reread(house, escrow_id)).status == "pending"
    await jump(house, timedelta(days=32))
    await deadlines.sweep(house)
    assert (await reread(house, escrow_id)).cancel_reason == "expired"


async def test_what_cancels_the_escrow_closes_a_proof_and_says_so(house: House, shop: Shop) -> None:
    escrow_id, payment_id = await proven_by_guest(house, shop)
    await act(house, shop.actor, escrows.cancel(escrow_id))
    log = [(step, event) for step, event, *_ in await read_log(house, escrow_id)]
    assert log[-2:] == [
        ("cancel", "escrow.status.updated"),
        ("cancel", "escrow.deposit_proof.rejected"),
    ]
    assert await state(house, payment_id) == "cancelled"


async def test_without_a_proof_a_cancellation_rejects_none(house: House, shop: Shop) -> None:
    escrow_id = await unregistered(house, shop)
    await begin_guest(house, escrow_id)
    await act(house, shop.actor, escrows.cancel(escrow_id))
    assert [one[1] for one in await read_log(house, escrow_id)][-1] == "escrow.status.updated"


async def test_the_amount_stands_while_a_proof_is_under_review(house: House, shop: Shop) -> None:
    escrow_id, payment_id = await proven_by_guest(house, shop)
    other = amendments.update(escrow_id, amendments.Changes(amount=Decimal(90)))
    with pytest.raises(no.DepositUnderReview):
        await act(house, shop.actor, other)
    title = amendments.update(escrow_id, amendments.Changes(title="Another", amount=Decimal(100)))
    await act(house, shop.actor, title)
    await decide(house, payment_id, approves=False)
    await act(house, shop.actor, other)
    assert (await reread(house, escrow_id)).amount_minor == 90_000


async def test_a_payer_is_held_to_the_amount_that_was_shown(
    house: House, shop: Shop, buyer: Buyer
) -> None:
    escrow = await make_escrow(house, shop, buyer)
    with pytest.raises(no.AmountChanged):
        await begin_for(house, buyer, escrow.id, shown_minor=AMOUNT - 1)


# ---- Mails ---------------------------------------------------------------------------------------


async def test_a_payer_is_told_how_it_ended(house: House, buyer: Buyer) -> None:
    await hear(house, await begin(house, buyer))
    await hear(house, await begin(house, buyer), Outcome.FAILED, charge="ch_2")
    payment_id = await begin(house, buyer, provider=BANK_TRANSFER)
    await decide(house, payment_id, approves=False, note="No such transfer.")
    assert await mails(house) == [
        ("payment_received", buyer.email),
        ("payment_failed", buyer.email),
        ("payment_failed", buyer.email),
    ]
    facts = await house.pool.fetchval("SELECT facts FROM mail ORDER BY id DESC LIMIT 1")
    assert "No such transfer." in str(facts)


async def test_a_payout_is_told_when_it_is_asked_for_and_decided(house: House) -> None:
    seller = await make_buyer(house, funds="100")
    for approves in (True, False):
        command = payments.request_payout(seller.user_id, BANK_TRANSFER, 1000, "TND", "Bo\nTN59")
        payout = (await act(house, seller.actor, command))["payment"]["id"]
        await act(house, OPERATOR, payments.take_up(payout))
        await decide(house, payout, approves=approves)
    assert [template for template, _ in await mails(house)] == [
        "payout_requested",
        "payout_paid",
        "payout_requested",
        "payout_rejected",
    ]


async def test_a_guest_is_told_of_a_rejection_and_of_a_refund(house: House, shop: Shop) -> None:
    escrow_id, payment_id = await proven_by_guest(house, shop)
    await decide(house, payment_id, approves=False)
    again = await begin_guest(house, escrow_id)
    await decide(house, again, approves=True)
    await act(house, shop.actor, cancellations.cancel_paid(escrow_id))
    [refund] = await waiting(house, REFUND)
    await decide(house, refund.id, approves=True)
    assert await mails(house) == [
        ("deposit_rejected", "guest@example.com"),
        ("refund_made", "guest@example.com"),
    ]


async def test_money_that_stays_in_the_wallet_is_told(
    house: House, shop: Shop, buyer: Buyer
) -> None:
    escrow = await make_escrow(house, shop, buyer)
    payment_id = await begin_for(house, buyer, escrow.id, amount_minor=40_000)
    await hear(house, payment_id, amount=40_000)
    assert await mails(house) == [("payment_kept", buyer.email)]


# ---- Payouts -------------------------------------------------------------------------------------


async def ask_payout(house: House, seller: Buyer, amount: int = 60_000) -> str:
    command = payments.request_payout(seller.user_id, BANK_TRANSFER, amount, "TND", "Bo\nTN59")
    return (await act(house, seller.actor, command))["payment"]["id"]


async def test_a_payout_is_reserved_taken_up_and_paid_out(house: House) -> None:
    seller = await make_buyer(house, funds="100")
    payout = await ask_payout(house, seller)
    assert await money(house, seller) == (40_000, 60_000)
    with pytest.raises(no.PaymentNotOpen):
        await decide(house, payout, approves=True)
    await act(house, OPERATOR, payments.take_up(payout))
    assert await money(house, seller) == (40_000, 60_000)
    assert await decide(house, payout, approves=True) == "succeeded"
    assert await money(house, seller) == (40_000, 0)


async def test_nobody_takes_back_what_the_operator_is_paying_out(house: House) -> None:
    seller = await make_buyer(house, funds="100")
    payout = await ask_payout(house, seller)
    await act(house, OPERATOR, payments.take_up(payout))
    with pytest.raises(no.PaymentNotOpen):
        await act(house, seller.actor, payments.cancel(payout))
    with pytest.raises(no.PaymentNotOpen):
        await act(house, OPERATOR, payments.take_up(payout))
    assert [one.id for one in await waiting(house, PAYOUT)] == [payout]
    assert await decide(house, payout, approves=True) == "succeeded"
    with pytest.raises(no.PaymentNotFound):
        await act(house, OPERATOR, payments.take_up(await begin(house, seller)))


async def test_a_payout_taken_back_and_taken_up_at_once_has_one_end(house: House) -> None:
    seller = await make_buyer(house, funds="100")
    for n in range(10):
        payout = await ask_payout(house, seller, 1_000)
        both = [
            act(house, seller.actor, payments.cancel(payout)),
            act(house, OPERATOR, payments.take_up(payout)),
        ]
        ends = await asyncio.gather(*(both if n % 2 else both[::-1]), return_exceptions=True)
        assert [isinstance(end, no.PaymentNotOpen) for end in ends].count(True) == 1
        if await state(house, payout) == "pending":
            await decide(house, payout, approves=False)
    assert await money(house, seller) == (100_000, 0)


@pytest.mark.parametrize("by", ["operator", "the operator who took it", "seller"])
async def test_a_payout_that_is_not_made_can_be_spent_again(house: House, by: str) -> None:
    seller = await make_buyer(house, funds="100")
    payout = await ask_payout(house, seller)
    if by == "seller":
        await act(house, seller.actor, payments.cancel(payout))
    else:
        if by != "operator":
            await act(house, OPERATOR, payments.take_up(payout))
        assert await decide(house, payout, approves=False) == "failed"
    assert await money(house, seller) == (100_000, 0)


async def test_a_payout_that_the_bank_returns_can_be_spent_again(house: House) -> None:
    seller = await make_buyer(house, funds="100")
    payout = await ask_payout(house, seller)
    with pytest.raises(no.PaymentNotOpen):
        await act(house, OPERATOR, payments.returned(payout))
    await act(house, OPERATOR, payments.take_up(payout))
    await decide(house, payout, approves=True)
    # The bank has kept 5 TND of it.
    told = await act(house, OPERATOR, payments.returned(payout, (55_000, "TND")))
    with pytest.raises(no.ChargeBooked):
        await act(house, OPERATOR, payments.returned(payout))
    [stray] = await waiting(house, PAYOUT)
    assert (stray.id, stray.origin_id) == (told["payment"]["id"], payout)
    assert (stray.received_minor, stray.payee) == (55_000, "Bo\nTN59")
    assert await read_breaches(house.pool, "J") == []
    with pytest.raises(no.PaymentNotOpen):
        await decide(house, stray.id, approves=False)
    assert await money(house, seller) == (40_000, 0)
    assert await decide(house, stray.id, approves=True) == "cancelled"
    assert await money(house, seller) == (95_000, 0)
    assert (await mails(house))[-1] == ("payout_returned", seller.email)


async def test_a_refund_by_hand_that_the_bank_returns_is_sent_once_more(
    house: House, buyer: Buyer
) -> None:
    payment_id = await begin(house, buyer, provider=BANK_TRANSFER)
    await decide(house, payment_id, approves=True, received=(7, "TND"))
    await decide(house, payment_id, approves=False)
    [refund] = await waiting(house, REFUND)
    await decide(house, refund.id, approves=True)
    await act(house, OPERATOR, payments.returned(refund.id))
    [again] = await waiting(house, REFUND)
    assert await read_breaches(house.pool, "J") == []
    assert await decide(house, again.id, approves=True) == "succeeded"


async def test_what_came_in_was_not_sent_and_does_not_return(house: House, buyer: Buyer) -> None:
    payment_id = await begin(house, buyer)
    await hear(house, payment_id)
    with pytest.raises(no.PaymentNotOpen):
        await act(house, OPERATOR, payments.returned(payment_id))


async def test_nobody_is_paid_out_what_is_not_there(house: House, buyer: Buyer) -> None:
    with pytest.raises(no.InsufficientFunds):
        await ask_payout(house, buyer, 1)


async def test_the_clock_may_cancel_what_nobody_proved(house: House, buyer: Buyer) -> None:
    payment_id = await begin(house, buyer, provider=BANK_TRANSFER)
    assert (await stands(house, payment_id)).expires_at is not None
    await perform(house, CLOCK, payments.cancel(payment_id))
    assert await state(house, payment_id) == "cancelled"


# ---- Money from the bank for what is over --------------------------------------------------------


async def cancelled_with_its_escrow(house: House, shop: Shop, buyer: Buyer) -> str:
    escrow = await make_escrow(house, shop, buyer)
    payment_id = await begin_for(house, buyer, escrow.id, provider=BANK_TRANSFER)
    await act(house, buyer.actor, payments.prove(payment_id, None))
    await act(house, shop.actor, escrows.cancel(escrow.id))
    return payment_id


async def paid_from_the_wallet_meanwhile(house: House, shop: Shop, buyer: Buyer) -> str:
    escrow = await make_escrow(house, shop, buyer)
    payment_id = await begin_for(house, buyer, escrow.id, provider=BANK_TRANSFER)
    await act(house, buyer.actor, payments.prove(payment_id, None))
    await top_up(house, buyer.email, "100")
    await act(house, buyer.actor, escrows.pay(escrow.id))
    return payment_id


async def lapsed(house: House, shop: Shop, buyer: Buyer) -> str:
    payment_id = await begin_guest(house, await unregistered(house, shop))
    await perform(house, CLOCK, payments.cancel(payment_id))
    return payment_id


async def rejected(house: House, shop: Shop, buyer: Buyer) -> str:
    payment_id = await begin(house, buyer, provider=BANK_TRANSFER)
    await act(house, buyer.actor, payments.prove(payment_id, None))
    await decide(house, payment_id, approves=False)
    return payment_id


Over = Callable[[House, Shop, Buyer], Coroutine[Any, Any, str]]


@pytest.mark.parametrize(
    "over", [cancelled_with_its_escrow, paid_from_the_wallet_meanwhile, lapsed, rejected]
)
@pytest.mark.parametrize("goes", ["to the wallet", "back"])
async def test_a_transfer_that_comes_for_what_is_over_is_booked_and_waits(
    house: House, shop: Shop, buyer: Buyer, over: Over, goes: str
) -> None:
    payment_id = await over(house, shop, buyer)
    before = await stands(house, payment_id)
    assert await decide(house, payment_id, approves=True, received=(250_000, "TND")) == (
        "needs_operator"
    )
    [stray] = await waiting(house)
    assert (stray.origin_id, stray.received_minor) == (payment_id, 250_000)
    assert await stands(house, payment_id) == before
    assert await read_breaches(house.pool, "J") == []
    whom = buyer.email if stray.user_id else "guest@example.com"
    assert (await mails(house))[-1] == ("payment_looked_at", whom)
    if goes == "back" or stray.user_id is None:
        assert await decide(house, stray.id, approves=False) == "cancelled"
        [refund] = await waiting(house, REFUND)
        assert await decide(house, refund.id, approves=True) == "succeeded"
    else:
        had, _ = await money(house, buyer)
        assert await decide(house, stray.id, approves=True) == "succeeded"
        assert await money(house, buyer) == (had + 250_000, 0)
    assert (await waiting(house), await read_breaches(house.pool, "J")) == ([], [])


async def test_a_line_of_the_statement_is_booked_once_whatever_it_is_for(
    house: House, buyer: Buyer
) -> None:
    first = await begin(house, buyer, provider=BANK_TRANSFER)
    other = await begin(house, buyer, provider=BANK_TRANSFER)
    await decide(house, first, approves=True, received=(AMOUNT, "TND", "2026-11-21/7"))
    for payment_id in (first, other):
        with pytest.raises(no.ChargeBooked):
            await decide(house, payment_id, approves=True, received=(AMOUNT, "TND", "2026-11-21/7"))
    assert await decide(house, other, approves=True) == "succeeded"
    with pytest.raises(no.ChargeBooked):
        await decide(house, other, approves=True, received=(AMOUNT, "TND"))
    await decide(house, other, approves=True, received=(AMOUNT, "TND", "2026-11-21/8"))
    assert len(await waiting(house)) == 1
    assert await money(house, buyer) == (2 * AMOUNT, 0)


async def test_two_words_at_once_about_one_line_book_it_once(house: House, buyer: Buyer) -> None:
    both = [await begin(house, buyer, provider=BANK_TRANSFER) for _n in range(2)]
    said = await asyncio.gather(
        *(decide(house, one, approves=True, received=(AMOUNT, "TND", "7")) for one in both),
        return_exceptions=True,
    )
    assert sorted(type(one).__name__ for one in said) == ["ChargeBooked", "str"]
    assert await money(house, buyer) == (AMOUNT, AMOUNT)


async def test_a_second_transfer_for_what_waits_already_is_another_payment(
    house: House, buyer: Buyer
) -> None:
    payment_id = await begin(house, buyer, provider=BANK_TRANSFER)
    await decide(house, payment_id, approves=True, received=(7, "TND"))
    with pytest.raises(no.ChargeBooked):
        await decide(house, payment_id, approves=True, received=(9, "TND"))
    await decide(house, payment_id, approves=True, received=(9, "TND", "second"))
    assert sorted(one.received_minor for one in await waiting(house)) == [7, 9]


async def test_no_statement_tells_of_a_card(house: House, buyer: Buyer) -> None:
    payment_id = await begin(house, buyer)
    await hear(house, payment_id)
    with pytest.raises(no.PaymentNotOpen):
        await decide(house, payment_id, approves=True, received=(AMOUNT, "TND"))


async def test_a_guests_late_transfer_pays_only_what_can_still_be_paid_with_it(
    house: House, shop: Shop
) -> None:
    escrow_id = await unregistered(house, shop)
    payment_id = await begin_guest(house, escrow_id)
    await perform(house, CLOCK, payments.cancel(payment_id))
    await decide(house, payment_id, approves=True, received=(AMOUNT, "EUR"))
    await decide(house, payment_id, approves=True, received=(AMOUNT, "TND", "2"))
    euros, dinars = await waiting(house)
    with pytest.raises(no.NotPayable):
        await decide(house, euros.id, approves=True)
    assert await decide(house, dinars.id, approves=True) == "succeeded"
    paid = await reread(house, escrow_id)
    assert (paid.status, paid.guest_provider) == ("paid", BANK_TRANSFER)


# ---- How many, and in which order ----------------------------------------------------------------


async def test_one_person_has_at_most_ten_payments_under_way(house: House, buyer: Buyer) -> None:
    for _n in range(OPEN_MAX):
        last = await begin(house, buyer, provider=BANK_TRANSFER)
    with pytest.raises(no.TooManyPayments):
        await begin(house, buyer, provider=BANK_TRANSFER)
    await begin(house, await make_buyer(house), provider=BANK_TRANSFER)
    await act(house, buyer.actor, payments.cancel(last))
    await begin(house, buyer, provider=BANK_TRANSFER)


async def test_what_waits_for_the_operator_is_listed_in_parts(house: House, buyer: Buyer) -> None:
    ids = [await begin(house, buyer, provider=BANK_TRANSFER) for _n in range(5)]
    for one in ids:
        await act(house, buyer.actor, payments.prove(one, None))
    seen: list[str] = []
    while page := await list_payments(house.pool, (TOPUP,), None, 2, seen[-1] if seen else None):
        seen += [one.id for one in page]
    assert seen == ids


async def test_a_step_of_an_escrow_locks_all_accounts_in_one_order(
    house: House, shop: Shop, buyer: Buyer, owner: Any
) -> None:
    """Its own money and that of the payments which it cancels: who waits for one holds none."""
    escrow = await make_escrow(house, shop, buyer)
    await begin_for(house, buyer, escrow.id)
    await top_up(house, buyer.email, "100")
    accounts = await owner.fetch(
        "SELECT id, kind FROM account WHERE owner = $1 ORDER BY id", buyer.user_id
    )
    assert {one["kind"] for one in accounts} == {"available", "pending"}
    first, second = (one["id"] for one in accounts)
    async with owner.transaction():
        await owner.execute("SELECT FROM account WHERE id = $1 FOR UPDATE", first)
        paying = asyncio.create_task(act(house, buyer.actor, escrows.pay(escrow.id)))
        await until(lambda: owner.fetchval(WAITS))
        await owner.execute("SELECT FROM account WHERE id = $1 FOR UPDATE NOWAIT", second)
    await paying
    assert (await reread(house, escrow.id)).status == "paid"


WAITS = """
SELECT count(*) > 0 FROM pg_stat_activity
WHERE datname = current_database() AND wait_event_type = 'Lock'
"""


async def test_what_a_provider_sends_back_never_counts_as_what_came_in(
    house: House, buyer: Buyer
) -> None:
    payment_id = await begin(house, buyer)
    await hear(house, payment_id)
    of_refund = Report(Outcome.SUCCEEDED, AMOUNT, "TND", "re_1", is_of_refund=True)
    with pytest.raises(no.PaymentNotFound):
        await payments.hear(house, SYSTEM, Heard(SANDBOX, payment_id, "re_1", of_refund))
    refund = await sent_refund(house, buyer)
    of_charge = Report(Outcome.SUCCEEDED, 7, "TND", "ch_9")
    with pytest.raises(no.PaymentNotFound):
        await payments.hear(house, SYSTEM, Heard(SANDBOX, refund.id, "ch_9", of_charge))
    assert await money(house, buyer) == (AMOUNT, 0)
