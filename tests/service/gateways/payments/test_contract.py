"""What every provider keeps: one suite over the sandbox's own and over Stripe's library."""

import contextlib

import pytest

from service.gateways.payments.provider import Notification, Reversal
from service.rules.errors import GatewayFailure, NotificationRefused
from service.rules.payment import Outcome
from tests.orders import ordered

OTHER = "b" * 24


async def test_an_order_gives_a_page_and_is_pending_until_somebody_pays(outside):
    placed = await outside.provider.place(ordered())
    assert placed.page_url.startswith("http://")
    report = await outside.provider.ask(placed.provider_reference)
    assert (report.outcome, report.amount_minor, report.currency) == (
        Outcome.PENDING,
        50_000,
        "TND",
    )


async def test_an_order_that_is_repeated_is_the_same_payment(outside):
    order = ordered()
    first = await outside.provider.place(order)
    assert await outside.provider.place(order) == first


async def test_an_order_under_the_same_id_with_another_amount_is_refused_for_good(outside):
    order = ordered()
    await outside.provider.place(order)
    with pytest.raises(GatewayFailure) as failure:
        await outside.provider.place(ordered(amount_minor=60_000))
    assert failure.value.permanent


async def test_what_was_paid_is_notified_and_told_when_asked_under_one_charge(outside):
    order = ordered()
    placed = await outside.provider.place(order)
    await outside.pay(placed.provider_reference)
    notification = outside.provider.read(*await outside.door.next())
    assert isinstance(notification, Notification)
    assert notification.payment_id == order.payment_id
    report = notification.report
    assert (report.outcome, report.amount_minor, report.currency) == (
        Outcome.SUCCEEDED,
        50_000,
        "TND",
    )
    assert await outside.provider.ask(placed.provider_reference) == report


async def test_a_notification_that_is_read_twice_says_the_same(outside):
    placed = await outside.provider.place(ordered())
    await outside.pay(placed.provider_reference)
    parcel = await outside.door.next()
    assert outside.provider.read(*parcel) == outside.provider.read(*parcel)


async def test_a_payer_who_does_not_pay_has_not_paid(outside):
    placed = await outside.provider.place(ordered())
    await outside.decline(placed.provider_reference)
    notification = outside.provider.read(*await outside.door.next())
    assert notification.report.outcome is not Outcome.SUCCEEDED
    asked = await outside.provider.ask(placed.provider_reference)
    assert asked.outcome is not Outcome.SUCCEEDED


@pytest.mark.parametrize(
    "forge",
    [
        lambda headers, body: (headers, body.replace(b"50000", b"10000")),
        lambda headers, body: (headers, body + b" "),
        lambda headers, body: ({}, body),
        lambda headers, body: ({k: v[:-1] + "g" for k, v in headers.items()}, body),
        lambda headers, body: (dict.fromkeys(headers, "é"), body),
        lambda headers, body: (dict.fromkeys(headers, "\udcff"), body),  # no UTF-8, as it comes in
        lambda headers, body: (headers, b""),
        lambda headers, body: (headers, b"\xff"),
    ],
)
async def test_what_was_tampered_with_is_refused(outside, forge):
    placed = await outside.provider.place(ordered())
    await outside.pay(placed.provider_reference)
    with pytest.raises(NotificationRefused):
        outside.provider.read(*forge(*await outside.door.next()))


async def test_a_page_that_was_closed_is_paid_by_nobody(outside):
    placed = await outside.provider.place(ordered())
    await outside.provider.withdraw(placed.provider_reference)
    asked = await outside.provider.ask(placed.provider_reference)
    assert asked.outcome is Outcome.CANCELLED


async def test_what_was_paid_before_its_page_was_closed_stays_paid(outside):
    placed = await outside.provider.place(ordered())
    await outside.pay(placed.provider_reference)
    with contextlib.suppress(GatewayFailure):  # a provider may say that it is over already
        await outside.provider.withdraw(placed.provider_reference)
    asked = await outside.provider.ask(placed.provider_reference)
    assert asked.outcome is Outcome.SUCCEEDED


async def test_a_page_that_is_not_there_cannot_be_closed(outside):
    with pytest.raises(GatewayFailure) as failure:
        await outside.provider.withdraw("cs_unknown")
    assert failure.value.permanent


async def test_header_names_may_be_in_any_case(outside):
    placed = await outside.provider.place(ordered())
    await outside.pay(placed.provider_reference)
    headers, body = await outside.door.next()
    lowered = {name.lower(): value for name, value in headers.items()}
    assert outside.provider.read(lowered, body) == outside.provider.read(headers, body)


async def paid(outside):
    placed = await outside.provider.place(ordered())
    await outside.pay(placed.provider_reference)
    return outside.provider.read(*await outside.door.next()).report


async def test_a_refund_is_made_once_however_often_it_is_asked_for(outside):
    report = await paid(outside)
    reversal = Reversal(OTHER, report.charge_reference, 20_000, "TND")
    reference, refunded = await outside.provider.send_back(reversal)
    assert (refunded.outcome, refunded.amount_minor, refunded.currency) == (
        Outcome.SUCCEEDED,
        20_000,
        "TND",
    )
    assert await outside.provider.send_back(reversal) == (reference, refunded)
    assert await outside.provider.ask(reference) == refunded


async def test_what_was_not_paid_cannot_be_refunded(outside):
    placed = await outside.provider.place(ordered())
    asked = await outside.provider.ask(placed.provider_reference)
    with pytest.raises(GatewayFailure) as failure:
        await outside.provider.send_back(Reversal(OTHER, asked.charge_reference, 1_000, "TND"))
    assert failure.value.permanent


@pytest.mark.parametrize("reference", ["cs_nothing", "pi_nothing", "re_nothing", "sbx_nothing"])
async def test_what_was_never_ordered_is_a_failure_for_good(outside, reference):
    with pytest.raises(GatewayFailure) as failure:
        await outside.provider.ask(reference)
    assert failure.value.permanent
