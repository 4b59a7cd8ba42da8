"""Paying, delivering, completing, cancelling: what each does, answers and refuses."""

from datetime import timedelta
from decimal import Decimal

import pytest

from service.commands import developers, escrows, rates, users
from service.commands.perform import House
from service.rules.errors import (
    ContractNotSigned,
    EscrowAlreadyCompleted,
    EscrowCancelled,
    EscrowFrozen,
    EscrowNotDelivered,
    EscrowNotFound,
    InsufficientFunds,
    PaymentAlreadyDone,
    PhoneNotVerified,
    Refused,
    SellerNotReady,
    WrongParty,
    WrongStatus,
)
from service.rules.machine import SYSTEM, Actor, ActorKind
from service.rules.money import LEDGER_CURRENCY
from service.store.clock import read_clock
from service.store.deadlines import read_open
from service.store.ledger import read_balance
from service.wire.base import instant
from tests.books import count_rows, read_log
from tests.makers import (
    act,
    advance,
    arrange,
    make_buyer,
    make_escrow,
    make_shop,
    reread,
    top_up,
)

pytestmark = pytest.mark.usefixtures("sound")
UNKNOWN = "0" * 24
DAY = timedelta(days=1)
SU = "escrow.status.updated"


async def available(house: House, user_id: str) -> int:
    return (await read_balance(house.pool, user_id, LEDGER_CURRENCY)).available


async def refuses(house: House, kind: type[Refused], actor: Actor, command) -> Refused:
    """The refusal; nothing may have been written."""
    before = await count_rows(house)
    with pytest.raises(Refused) as refusal:
        await act(house, actor, command)
    assert type(refusal.value) is kind
    assert await count_rows(house) == before
    return refusal.value


async def kinds(house: House, escrow_id: str) -> set[str]:
    return {deadline.kind for deadline in await read_open(house.pool, escrow_id)}


# 1. Paying ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "clocks"),
    [("quick", {"delivery_overdue"}), ("instant", {"delivery_overdue", "overdue_refund"})],
)
async def test_paying_holds_exactly_the_amount_and_turns_the_clocks(house: House, mode, clocks):
    shop, buyer = await make_shop(house), await make_buyer(house, funds="250")
    escrow = await make_escrow(house, shop, buyer, mode=mode)
    answer = await act(house, buyer.actor, escrows.pay(escrow.id))
    after = await reread(house, escrow.id)
    assert (after.status, after.held_minor, after.funded_minor) == ("paid", 100_000, 100_000)
    assert after.paid_at == after.updated_at > escrow.created_at
    assert await available(house, buyer.user_id) == 150_000
    assert (await read_balance(house.pool, buyer.user_id, "TND")).escrow == 100_000
    assert await kinds(house, escrow.id) == clocks
    assert (answer["escrow"]["status"], answer["escrow"]["paidAt"]) == (
        "paid",
        instant(after.paid_at),
    )
    assert (await read_log(house, escrow.id))[1:] == [("accept_pay", SU, "user")]


async def test_the_last_millime_pays_and_one_less_does_not(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house, funds="99.999")
    escrow = await make_escrow(house, shop, buyer)
    refusal = await refuses(house, InsufficientFunds, buyer.actor, escrows.pay(escrow.id))
    assert refusal.code == "INSUFFICIENT_FUNDS"
    assert refusal.facts == {"available": 99_999, "needed": 100_000}
    await top_up(house, buyer.email, "0.001")
    await act(house, buyer.actor, escrows.pay(escrow.id))
    assert await available(house, buyer.user_id) == 0


async def test_money_of_another_currency_does_not_pay(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house, funds="0")
    escrow = await make_escrow(house, shop, buyer)
    await top_up(house, buyer.email, "1000", "EUR")
    await refuses(house, InsufficientFunds, buyer.actor, escrows.pay(escrow.id))


async def test_a_contract_is_signed_before_it_is_paid(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="standard")
    refusal = await refuses(house, ContractNotSigned, buyer.actor, escrows.pay(escrow.id))
    assert refusal.code == "CONTRACT_NOT_SIGNED"


async def test_a_seller_who_is_not_registered_cannot_be_paid(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", seller_email="sells@example.org")
    refusal = await refuses(house, SellerNotReady, buyer.actor, escrows.pay(escrow.id))
    assert refusal.code == "SELLER_NOT_READY"
    await arrange(house, lambda tx: users.register(tx, "sells@example.org", "S", "X"))
    await act(house, buyer.actor, escrows.pay(escrow.id))


@pytest.mark.parametrize("status", ["paid", "delivered", "completed"])
async def test_what_is_paid_is_not_paid_again(house: House, status: str):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status=status)
    refusal = await refuses(house, PaymentAlreadyDone, buyer.actor, escrows.pay(escrow.id))
    assert refusal.code == "PAYMENT_ALREADY_DONE"
    assert status in str(refusal)


async def test_what_is_cancelled_is_not_paid(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="cancelled")
    refusal = await refuses(house, EscrowCancelled, buyer.actor, escrows.pay(escrow.id))
    assert refusal.code == "ESCROW_CANCELLED"


async def test_only_the_buyer_pays_whatever_the_state(house: House):
    shop, buyer, stranger = (
        await make_shop(house),
        await make_buyer(house),
        await make_buyer(house),
    )
    for status in ("pending", "paid", "cancelled"):
        escrow = await make_escrow(house, shop, buyer, status=status)
        for actor in (shop.actor, stranger.actor, SYSTEM):
            await refuses(house, WrongParty, actor, escrows.pay(escrow.id))


async def test_an_invited_buyer_who_has_not_registered_cannot_pay(house: House):
    shop, stranger = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer_email="new@example.org")
    await refuses(house, WrongParty, stranger.actor, escrows.pay(escrow.id))


async def test_a_phone_that_is_not_verified_does_not_pay(house: House):
    shop = await make_shop(house)
    person = await arrange(
        house,
        lambda tx: users.register(tx, "dumb@example.org", "D", "P", is_phone_verified=False),
    )
    await top_up(house, "dumb@example.org", "1000")
    escrow = await make_escrow(house, shop, buyer_email="dumb@example.org")
    actor = Actor(ActorKind.USER, user_id=person.person.id)
    refusal = await refuses(house, PhoneNotVerified, actor, escrows.pay(escrow.id))
    assert refusal.code == "PHONE_NOT_VERIFIED"


async def test_an_amount_in_dollars_is_paid_in_dinars(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    await arrange(house, lambda tx: rates.set_rate(tx, "USD", Decimal("3.12"), "test"))
    escrow = await make_escrow(
        house, shop, buyer, currency="USD", amount=Decimal(10), status="paid"
    )
    assert escrow.held_minor == 31_200
    assert await available(house, buyer.user_id) == 968_800


# 2. Delivering and completing --------------------------------------------------------------------


async def test_an_instant_delivery_releases_in_one_transaction(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid", amount=Decimal(1000))
    answer = await act(house, shop.actor, escrows.deliver(escrow.id))
    after = await reread(house, escrow.id)
    assert answer["escrow"] == {
        "id": escrow.id,
        "title": "A camera",
        "amount": 1000,
        "status": "completed",
        "deliveredAt": instant(after.delivered_at),
        "completedAt": instant(after.completed_at),
        "createdAt": instant(after.created_at),
        "updatedAt": instant(after.updated_at),
    }
    assert after.delivered_at == after.completed_at
    assert await available(house, shop.user_id) == 1_000_000
    assert await kinds(house, escrow.id) == set()
    assert (await read_log(house, escrow.id))[-1] == ("deliver", SU, "developer")


async def test_a_quick_delivery_arms_the_completion(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="paid")
    answer = await act(house, shop.actor, escrows.deliver(escrow.id))
    after = await reread(house, escrow.id)
    assert answer["escrow"] == {
        "id": escrow.id,
        "title": "A camera",
        "amount": 100,
        "status": "delivered",
        "deliveredAt": instant(after.delivered_at),
        "completionDeadline": instant(after.delivered_at + 7 * DAY),
        "createdAt": instant(after.created_at),
        "updatedAt": instant(after.updated_at),
    }
    assert await kinds(house, escrow.id) == {"completion"}
    assert await available(house, shop.user_id) == 0


async def test_the_buyer_completes_and_the_fees_go_where_they_belong(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    seller = await make_buyer(house, "sells@example.org", funds="0")
    escrow = await make_escrow(
        house, shop, buyer, mode="quick", seller_email=seller.email, developer_fee_bps=1_000,
        amount=Decimal(1000),
    )  # fmt: skip
    await act(house, buyer.actor, escrows.pay(escrow.id))
    await act(house, seller.actor, escrows.deliver(escrow.id))
    # Whoever is associated at creation gets the fee, whoever is associated by now.
    await arrange(house, lambda tx: developers.dissociate(tx, shop.developer_id))
    answer = await act(house, buyer.actor, escrows.complete(escrow.id))
    assert answer["escrow"]["status"] == "completed"
    assert "completionDeadline" not in answer["escrow"]
    after = await reread(house, escrow.id)
    assert (after.released_minor, after.fees_minor) == (850_000, 150_000)
    assert await available(house, seller.user_id) == 850_000
    assert await available(house, shop.user_id) == 100_000
    assert await available(house, buyer.user_id) == 0


@pytest.mark.parametrize("status", ["pending", "delivered", "completed", "cancelled"])
async def test_only_what_is_paid_is_delivered(house: House, status: str):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status=status)
    refusal = await refuses(house, WrongStatus, shop.actor, escrows.deliver(escrow.id))
    assert str(refusal) == f"The escrow is {status}; it must be paid to deliver."


async def test_only_the_seller_delivers(house: House):
    shop, other, buyer = (
        await make_shop(house),
        await make_shop(house),
        await make_buyer(house),
    )
    escrow = await make_escrow(house, shop, buyer, status="paid")
    creator_alone = Actor(ActorKind.DEVELOPER, developer_id=shop.developer_id)
    for actor in (buyer.actor, other.actor, creator_alone, SYSTEM):
        refusal = await refuses(house, WrongParty, actor, escrows.deliver(escrow.id))
        assert "seller" in str(refusal)


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("pending", EscrowNotDelivered),
        ("paid", EscrowNotDelivered),
        ("completed", EscrowAlreadyCompleted),
        ("cancelled", EscrowCancelled),
    ],
)
async def test_only_what_is_delivered_is_completed_and_by_the_buyer(house: House, status, kind):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status=status)
    await refuses(house, kind, buyer.actor, escrows.complete(escrow.id))
    await refuses(house, WrongParty, shop.actor, escrows.complete(escrow.id))


# 3. Cancelling -----------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["standard", "quick", "quick_proof", "instant"])
@pytest.mark.parametrize("who", ["seller", "buyer", "creator"])
async def test_before_payment_a_party_or_the_creator_cancels(house: House, mode: str, who: str):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode=mode)
    actor = {
        "seller": Actor(ActorKind.USER, user_id=shop.user_id),
        "buyer": buyer.actor,
        "creator": Actor(ActorKind.DEVELOPER, developer_id=shop.developer_id),
    }[who]
    answer = await act(house, actor, escrows.cancel(escrow.id))
    after = await reread(house, escrow.id)
    assert answer["escrow"] == {
        "id": escrow.id,
        "title": "A camera",
        "amount": 100,
        "status": "cancelled",
        "cancelledAt": instant(after.cancelled_at),
        "createdAt": instant(after.created_at),
        "updatedAt": instant(after.updated_at),
    }
    assert after.cancel_reason == who
    assert await kinds(house, escrow.id) == set()
    assert [step for step, *_ in await read_log(house, escrow.id)] == ["create", "cancel"]


@pytest.mark.parametrize("status", ["paid", "delivered", "completed", "cancelled"])
async def test_after_payment_cancel_points_to_the_sessions(house: House, status: str):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status=status)
    refusal = await refuses(house, WrongStatus, shop.actor, escrows.cancel(escrow.id))
    assert "request_cancellation" in str(refusal)
    assert "cancel_escrow" in str(refusal)


async def test_a_stranger_cancels_nothing(house: House):
    shop, other = await make_shop(house), await make_shop(house)
    escrow = await make_escrow(house, shop)
    await refuses(house, WrongParty, other.actor, escrows.cancel(escrow.id))


async def test_an_invitation_that_waits_ends_with_its_escrow(house: House):
    shop = await make_shop(house)
    escrow = await make_escrow(house, shop, buyer_email="new@example.org")
    assert await kinds(house, escrow.id) == {"expiry", "invitation_reminder"}
    await act(house, shop.actor, escrows.cancel(escrow.id))
    assert await kinds(house, escrow.id) == set()


# 4. The clock ------------------------------------------------------------------------------------


async def test_the_clock_completes_a_delivery_at_its_deadline(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="delivered")
    due = escrow.completion_deadline
    assert due == escrow.delivered_at + 7 * DAY
    assert await advance(house, due - timedelta(seconds=1)) == []
    [fired] = await advance(house, due + DAY)
    after = await reread(house, escrow.id)
    assert (fired.kind, after.status, after.completed_at) == ("completion", "completed", due)
    assert after.completion_deadline is None
    assert await available(house, shop.user_id) == 95_000
    assert (await read_log(house, escrow.id))[-1] == ("complete", SU, "clock")


async def test_an_offer_expires_a_calendar_month_after_its_creation(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="standard")
    await advance(house, escrow.expires_at)
    after = await reread(house, escrow.id)
    assert (after.status, after.cancel_reason) == ("cancelled", "expired")
    assert after.cancelled_at == escrow.expires_at


async def test_an_undelivered_instant_escrow_is_noted_then_refunded(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid", estimated_delivery_days=2)
    assert escrow.paid_at is not None
    [noted] = await advance(house, escrow.paid_at + 2 * DAY)
    assert noted.kind == "delivery_overdue"
    assert (await reread(house, escrow.id)).status == "paid"
    [refunded] = await advance(house, escrow.paid_at + 5 * DAY)
    after = await reread(house, escrow.id)
    assert (refunded.kind, after.status, after.cancel_reason) == (
        "overdue_refund",
        "cancelled",
        "undelivered",
    )
    assert (after.refunded_minor, after.fees_minor) == (100_000, 0)
    assert await available(house, buyer.user_id) == 1_000_000
    assert [step for step, *_ in await read_log(house, escrow.id)][-2:] == [
        "note_overdue",
        "refund_overdue",
    ]


async def test_an_overdue_quick_escrow_is_noted_and_goes_on_waiting(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="paid")
    fired = await advance(house, (await read_clock(house.pool)).now + 300 * DAY)
    assert [deadline.kind for deadline in fired] == ["delivery_overdue"]
    after = await act(house, shop.actor, escrows.deliver(escrow.id))
    assert after["escrow"]["status"] == "delivered"


# 5. Linking --------------------------------------------------------------------------------------


async def test_a_linked_party_is_told_of_once(house: House):
    shop = await make_shop(house)
    escrow = await make_escrow(house, shop, buyer_email="new@example.org")
    person = await arrange(house, lambda tx: users.register(tx, "new@example.org", "N", "W"))
    after = await reread(house, escrow.id)
    assert after.buyer == person.person
    assert (await read_log(house, escrow.id))[-1] == ("link_party", "invitation.accepted", "system")
    again = await arrange(house, lambda tx: escrows.link_party(tx, escrow.id, person.person))
    assert again is None


async def test_both_missing_parties_are_linked_each_to_their_side(house: House):
    shop = await make_shop(house)
    escrow = await make_escrow(
        house, shop, mode="quick", seller_email="s@example.org", buyer_email="b@example.org"
    )
    for email in ("b@example.org", "s@example.org"):
        await arrange(house, lambda tx, e=email: users.register(tx, e, "N", "W"))
    after = await reread(house, escrow.id)
    assert (after.seller.email, after.buyer.email) == ("s@example.org", "b@example.org")


async def test_a_stranger_is_linked_to_nothing(house: House):
    shop, stranger = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer_email="new@example.org")
    person = (await users.registered(house.pool, stranger.email)).person
    assert await arrange(house, lambda tx: escrows.link_party(tx, escrow.id, person)) is None
    assert (await reread(house, escrow.id)).buyer is None


async def test_a_final_escrow_links_nobody(house: House):
    shop = await make_shop(house)
    escrow = await make_escrow(house, shop, buyer_email="new@example.org", status="cancelled")
    await arrange(house, lambda tx: users.register(tx, "new@example.org", "N", "W"))
    assert (await reread(house, escrow.id)).buyer is None


# 6. What concerns all of them --------------------------------------------------------------------


@pytest.mark.parametrize("name", ["pay", "deliver", "complete", "cancel"])
async def test_an_unknown_escrow_is_not_found(house: House, name: str):
    shop = await make_shop(house)
    await refuses(house, EscrowNotFound, shop.actor, getattr(escrows, name)(UNKNOWN))


@pytest.mark.parametrize(
    ("name", "status"),
    [("pay", "pending"), ("deliver", "paid"), ("complete", "delivered"), ("cancel", "pending")],
)
async def test_a_frozen_escrow_takes_no_step(house: House, owner, name: str, status: str):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status=status)
    await owner.execute("UPDATE escrow SET frozen = true WHERE id = $1", escrow.id)
    actor = buyer.actor if name in ("pay", "complete") else shop.actor
    refusal = await refuses(house, EscrowFrozen, actor, getattr(escrows, name)(escrow.id))
    assert refusal.code == "ESCROW_FROZEN"


async def test_a_wallet_has_room_for_no_more_than_the_ledger_keeps(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid")
    await top_up(house, shop.email, "899999999999.999")
    with pytest.raises(Refused) as refusal:
        await act(house, shop.actor, escrows.deliver(escrow.id))
    assert refusal.value.code == "AMOUNT_TOO_LARGE"
    assert (await reread(house, escrow.id)).status == "paid"


async def test_every_event_names_who_acted_from_where(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid")
    actor = Actor(
        ActorKind.DEVELOPER, shop.developer_id, shop.user_id, "ab" * 12, "203.0.113.9", "req-7"
    )
    await act(house, actor, escrows.deliver(escrow.id))
    row = await house.pool.fetchrow(
        "SELECT actor_kind, actor_id, key_id, ip, request_id, family, mode, from_state, to_state"
        " FROM event WHERE subject_id = $1 ORDER BY seq DESC LIMIT 1",
        escrow.id,
    )
    assert tuple(row) == (
        "developer", shop.developer_id, "ab" * 12, "203.0.113.9", "req-7",
        "escrow", "instant", "paid", "completed",
    )  # fmt: skip
