"""The sandbox's provider: every magic amount does what its page says it does."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import orjson
import pytest

from service.gateways.payments import sandbox as gateway
from service.gateways.payments.provider import Reversal
from service.gateways.payments.sandbox import Charge, Conduct, SandboxProvider
from service.rules import charges
from service.rules.errors import GatewayFailure, NotificationRefused, NotPayable
from service.rules.payment import Outcome
from service.words.catalogue import read_catalogues
from tests.orders import ORDERED, ordered
from tests.service.gateways.payments.conftest import SECRET_KEYS

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
S, F, P, C = Outcome.SUCCEEDED, Outcome.FAILED, Outcome.PENDING, Outcome.CANCELLED


def charge(hundredths=0, *, paid=True, currency="TND", step=10) -> Charge:
    return Charge(
        "sbx_1",
        ORDERED,
        20_000 + hundredths * step,
        currency,
        "A lamp",
        "http://localhost:8080/",
        NOW + timedelta(hours=1),
        paid,
        NOW if paid is not None else None,
    )


def test_every_conduct_has_its_sentence_and_its_amount():
    for catalogue in read_catalogues().values():
        for conduct in Conduct:
            assert catalogue.text(f"sandbox_pay.says.{conduct}")
    assert {Conduct.APPROVE, *charges.MAGIC.values()} == set(Conduct)


@pytest.mark.parametrize(
    ("amount_minor", "currency", "conduct"),
    [
        (1_000_000, "TND", Conduct.APPROVE),
        (20_990, "TND", Conduct.APPROVE),
        (20_010, "TND", Conduct.DECLINE),
        (20_019, "TND", Conduct.DECLINE),
        (20_009, "TND", Conduct.APPROVE),
        (2_002, "USD", Conduct.PENDING),
        (5_030_000, "USDC", Conduct.TWICE),
    ],
)
def test_the_hundredths_decide_whatever_the_currency(amount_minor, currency, conduct):
    assert charges.conduct(amount_minor, currency) is conduct


@pytest.mark.parametrize(
    ("hundredths", "sent"),
    [
        (0, [(0, S, 20_000, "TND")]),
        (1, [(0, F, 20_010, "TND")]),
        (2, [(0, P, 20_020, "TND"), (5, S, 20_020, "TND")]),
        (3, [(0, S, 20_030, "TND"), (0, S, 20_030, "TND")]),
        (4, [(0, C, 20_040, "TND"), (5, S, 20_040, "TND")]),
        (6, [(0, S, 20_050, "TND")]),
        (7, [(0, S, 20_070, "EUR")]),
    ],
)
def test_what_is_sent_after_the_button(sandbox, hundredths, sent):
    sendings = sandbox.notifications(charge(hundredths))
    told = [sandbox.read(sending.headers, sending.body) for sending in sendings]
    assert [
        ((sending.at - NOW).seconds, n.report.outcome, n.report.amount_minor, n.report.currency)
        for sending, n in zip(sendings, told, strict=True)
    ] == sent
    assert {n.payment_id for n in told} == {ORDERED}
    assert len({n.report.charge_reference for n in told}) == 1


def test_what_is_sent_twice_is_the_same_to_the_byte(sandbox):
    first, second = sandbox.notifications(charge(3))
    assert first == second


def test_a_forged_notification_is_refused_and_the_truth_is_had_by_asking(sandbox):
    [sending] = sandbox.notifications(charge(5))
    with pytest.raises(NotificationRefused, match="signature is wrong"):
        sandbox.read(sending.headers, sending.body)
    assert gateway.standing(charge(5), NOW).outcome is S


def test_whoever_turns_away_cancels_whatever_the_amount(sandbox):
    for hundredths in range(8):
        [sending] = sandbox.notifications(charge(hundredths, paid=False))
        assert sandbox.read(sending.headers, sending.body).report.outcome is C


def test_before_a_button_is_pressed_nothing_is_sent_and_time_ends_it(sandbox):
    waiting = charge(paid=None)
    assert sandbox.notifications(waiting) == []
    assert gateway.standing(waiting, NOW).outcome is P
    assert gateway.standing(waiting, waiting.expires_at).outcome is C


@pytest.mark.parametrize(("hundredths", "first", "then"), [(2, P, S), (4, C, S), (1, F, F)])
def test_whoever_asks_is_told_what_the_notifications_say(hundredths, first, then):
    pressed = charge(hundredths)
    assert gateway.standing(pressed, NOW).outcome is first
    assert gateway.standing(pressed, NOW + gateway.LATER).outcome is then


async def test_the_first_button_counts(sandbox, book):
    placed = await sandbox.place(ordered())
    await book.press(placed.provider_reference, NOW, paid=False)
    pressed = await book.press(placed.provider_reference, NOW, paid=True)
    assert pressed.paid is False
    assert (await sandbox.ask(placed.provider_reference)).outcome is C


async def test_the_page_is_ours_and_its_address_names_no_figure(sandbox):
    placed = await sandbox.place(ordered())
    assert placed.page_url == f"http://localhost:8080/sandbox/pay/sbx_{ORDERED}"


def test_a_key_that_was_replaced_is_still_known_and_no_other_is(book):
    def keyed(*keys):
        return SandboxProvider(book, keys, "http://localhost:8080", lambda: NOW)

    new, old = SECRET_KEYS
    [sending] = keyed(old).notifications(charge())
    assert keyed(new, old).read(sending.headers, sending.body)
    with pytest.raises(NotificationRefused):
        keyed(new).read(sending.headers, sending.body)


async def test_no_more_is_sent_back_than_came(sandbox, book):
    placed = await sandbox.place(ordered())
    await book.press(placed.provider_reference, datetime.now(UTC), paid=True)
    name = (await sandbox.ask(placed.provider_reference)).charge_reference
    outcomes = [
        (await sandbox.send_back(Reversal(refund, name, minor, "TND")))[1].outcome
        for refund, minor in [("a", 30_000), ("b", 30_000), ("c", 20_000)]
    ]
    assert outcomes == [S, F, S]


async def test_a_refund_is_in_the_currency_that_came(sandbox, book):
    placed = await sandbox.place(ordered(amount_minor=20_070))
    await book.press(placed.provider_reference, datetime.now(UTC), paid=True)
    name = (await sandbox.ask(placed.provider_reference)).charge_reference
    with pytest.raises(GatewayFailure, match="another currency"):
        await sandbox.send_back(Reversal("a", name, 20_070, "TND"))
    _, report = await sandbox.send_back(Reversal("a", name, 20_070, "EUR"))
    assert report.outcome is S


@pytest.mark.parametrize(("minor", "currency"), [(0, "TND"), (-5, "TND"), (100, "GBP")])
def test_what_the_ledger_cannot_keep_is_not_taken(sandbox, minor, currency):
    with pytest.raises(NotPayable):
        sandbox.check(minor, currency)


@pytest.mark.parametrize("body", [b"{}", b"[]", b'{"outcome": "won"}', b"{"])
def test_what_is_signed_and_says_nothing_is_refused(sandbox, body):
    headers = {gateway.SIGNATURE: gateway._signature(gateway._derived(SECRET_KEYS[0]), body)}
    with pytest.raises(NotificationRefused, match="cannot be read"):
        sandbox.read(headers, body)


@pytest.mark.parametrize(
    "wrong",
    [
        {"paymentId": 5},
        {"charge": 7},
        {"id": None},
        {"reference": ["a"]},
        {"amountMinor": True},
        {"amountMinor": 1.5},
        {"amountMinor": 50_000.0},
        {"currency": 3},
    ],
)
def test_a_value_of_the_wrong_kind_is_refused_and_never_coerced(sandbox, wrong):
    [sending] = sandbox.notifications(charge())
    body = orjson.dumps(orjson.loads(sending.body) | wrong)
    headers = {gateway.SIGNATURE: gateway._signature(gateway._derived(SECRET_KEYS[0]), body)}
    with pytest.raises(NotificationRefused, match="cannot be read"):
        sandbox.read(headers, body)


async def test_an_order_that_differs_from_the_one_that_stands_is_refused(sandbox):
    await sandbox.place(ordered())
    with pytest.raises(GatewayFailure) as failure:
        await sandbox.place(replace(ordered(), return_url="http://localhost:8080/elsewhere"))
    assert failure.value.permanent
