"""The ways out after payment: the buyer asks, the seller or time answers; a delivery comes back."""

import asyncio
from datetime import timedelta

import asyncpg
import pytest

from service.commands import cancellations, deliveries, endpoints, escrows
from service.commands.deadlines import sweep
from service.commands.perform import House, tend
from service.rules.aggregate import Escrow
from service.rules.errors import (
    CancelEscrowInvalidStatus,
    CancellationAlreadyRequested,
    CancellationPending,
    CancellationRequestInvalidStatus,
    EscrowFrozen,
    NoPendingCancellation,
    WrongParty,
    WrongStatus,
)
from service.rules.machine import SYSTEM, Actor, ActorKind
from service.store import deliveries as delivery_rows
from service.store.clock import read_clock
from service.wire.base import instant
from service.wire.webhooks import WebhookCreate
from tests.books import read_log
from tests.makers import (
    PATHS,
    Buyer,
    Shop,
    act,
    advance,
    bring_on,
    jump,
    make_buyer,
    make_escrow,
    make_shop,
    reread,
)
from tests.service.commands.asking import available, bodies, clocks, refused

pytestmark = pytest.mark.usefixtures("sound")
DAY, HOUR = timedelta(days=1), timedelta(hours=1)
SU = "escrow.status.updated"
MODES = tuple(PATHS)
STANDINGS = [
    (mode, status) for mode in MODES for status in ("paid", "delivered") if status in PATHS[mode]
]
EVERY = pytest.mark.parametrize(("mode", "status"), STANDINGS)


@pytest.fixture
async def shop(house: House) -> Shop:
    return await make_shop(house)


@pytest.fixture
async def buyer(house: House) -> Buyer:
    return await make_buyer(house)


def named(user_id: str | None) -> dict[str, object]:
    return {"_id": user_id, "firstName": "Bo", "lastName": "Y"}


async def told_last(house: House, escrow: Escrow, count: int) -> list[tuple[str, str]]:
    """(type, status) of the escrow's last webhooks."""
    last = (await bodies(house, escrow.id))[-count:]
    return [(one["type"], one["data"]["escrow"]["status"]) for one in last]


# 1. Asking ---------------------------------------------------------------------------------------


@EVERY
async def test_the_buyer_asks_and_nothing_else_changes(
    house: House, shop: Shop, buyer: Buyer, mode: str, status: str
):
    escrow = await make_escrow(house, shop, buyer, mode=mode, status=status)
    answer = await act(house, buyer.actor, cancellations.request(escrow.id, "Too late."))
    after = await reread(house, escrow.id)
    assert (after.status, after.held_minor) == (status, 100_000)
    assert answer["escrow"]["cancellationRequest"] == {
        "requestedBy": named(buyer.user_id),
        "reason": "Too late.",
        "status": "pending",
        "requestedAt": instant(after.updated_at),
    }
    assert (await read_log(house, escrow.id))[-1] == (
        "request_cancellation",
        "escrow.cancellation.requested",
        "user",
    )
    [told] = (await bodies(house, escrow.id))[-1:]
    assert told["data"]["cancellationRequest"] == answer["escrow"]["cancellationRequest"]
    answering = (await clocks(house, escrow.id))["cancellation_answer"]
    assert (answering.due_at, answering.remaining) == (after.updated_at + 5 * DAY, None)


async def test_without_a_reason_the_request_says_null(house: House, shop: Shop, buyer: Buyer):
    escrow = await make_escrow(house, shop, buyer, status="paid")
    answer = await act(house, buyer.actor, cancellations.request(escrow.id, None))
    assert answer["escrow"]["cancellationRequest"]["reason"] is None


@EVERY
async def test_one_request_waits_at_a_time(
    house: House, shop: Shop, buyer: Buyer, mode: str, status: str
):
    escrow = await make_escrow(
        house, shop, buyer, mode=mode, status=status, then=("request_cancellation",)
    )
    again = cancellations.request(escrow.id, "Again.")
    refusal = await refused(house, CancellationAlreadyRequested, buyer.actor, again, escrow.id)
    assert refusal.code == "CANCELLATION_ALREADY_REQUESTED"


@pytest.mark.parametrize("status", ["pending", "completed", "cancelled", "disputed"])
async def test_off_paid_and_delivered_nothing_is_asked_and_nothing_cancelled(
    house: House, shop: Shop, buyer: Buyer, status: str
):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status=status)
    asking = cancellations.request(escrow.id, None)
    refusal = await refused(house, CancellationRequestInvalidStatus, buyer.actor, asking, escrow.id)
    assert refusal.code == "CANCELLATION_REQUEST_INVALID_STATUS"
    cancelling = cancellations.cancel_paid(escrow.id)
    refusal = await refused(house, CancelEscrowInvalidStatus, shop.actor, cancelling, escrow.id)
    assert refusal.code == "CANCEL_ESCROW_INVALID_STATUS"
    for answering in (cancellations.accept, cancellations.reject):
        answer = answering(escrow.id)
        refusal = await refused(house, NoPendingCancellation, shop.actor, answer, escrow.id)
        assert refusal.code == "NO_PENDING_CANCELLATION"


async def test_each_takes_their_own_step_only(house: House, shop: Shop, buyer: Buyer):
    escrow = await make_escrow(
        house, shop, buyer, mode="quick", status="paid", then=("request_cancellation",)
    )
    creator = Actor(ActorKind.DEVELOPER, developer_id=shop.developer_id)
    for actor in (shop.actor, creator, SYSTEM):
        asking = cancellations.request(escrow.id, None)
        await refused(house, WrongParty, actor, asking, escrow.id)
    for answering in (cancellations.accept, cancellations.reject, cancellations.cancel_paid):
        for actor in (buyer.actor, creator, SYSTEM):
            await refused(house, WrongParty, actor, answering(escrow.id), escrow.id)


# 2. Answering ------------------------------------------------------------------------------------


@EVERY
async def test_an_accepted_request_refunds_in_full(
    house: House, shop: Shop, buyer: Buyer, mode: str, status: str
):
    escrow = await make_escrow(
        house, shop, buyer, mode=mode, status=status, then=("request_cancellation",)
    )
    answer = await act(house, shop.actor, cancellations.accept(escrow.id))
    after = await reread(house, escrow.id)
    assert (after.status, after.cancel_reason) == ("cancelled", "request_accepted")
    assert (after.refunded_minor, after.fees_minor) == (100_000, 0)
    assert await available(house, buyer.user_id) == 1_000_000
    request = answer["escrow"]["cancellationRequest"]
    assert (request["status"], request["acceptedBy"]["_id"]) == ("accepted", shop.user_id)
    assert "rejectedBy" not in request
    assert await clocks(house, escrow.id) == {}
    assert await told_last(house, escrow, 2) == [
        ("escrow.cancellation.accepted", "cancelled"),
        (SU, "cancelled"),
    ]
    accepted = (await bodies(house, escrow.id))[-2]["data"]["cancellationRequest"]
    assert accepted == request


@EVERY
async def test_a_rejected_request_may_be_asked_again(
    house: House, shop: Shop, buyer: Buyer, mode: str, status: str
):
    escrow = await make_escrow(house, shop, buyer, mode=mode, status=status)
    before = await clocks(house, escrow.id)
    ids = set()
    for _ in range(3):
        await act(house, buyer.actor, cancellations.request(escrow.id, "Please."))
        answer = await act(house, shop.actor, cancellations.reject(escrow.id))
        after = await reread(house, escrow.id)
        assert after.cancellation is not None
        ids.add(after.cancellation.id)
        request = answer["escrow"]["cancellationRequest"]
        assert (after.status, request["status"]) == (status, "rejected")
        assert request["rejectedBy"]["_id"] == shop.user_id
        assert await told_last(house, escrow, 1) == [("escrow.cancellation.rejected", status)]
        assert set(await clocks(house, escrow.id)) == set(before)
    assert len(ids) == 3


@EVERY
async def test_the_seller_cancels_without_being_asked(
    house: House, shop: Shop, buyer: Buyer, mode: str, status: str
):
    escrow = await make_escrow(house, shop, buyer, mode=mode, status=status)
    await act(house, shop.actor, cancellations.cancel_paid(escrow.id))
    after = await reread(house, escrow.id)
    assert (after.status, after.cancel_reason) == ("cancelled", "seller")
    assert await available(house, buyer.user_id) == 1_000_000
    assert await told_last(house, escrow, 1) == [(SU, "cancelled")]
    assert (await read_log(house, escrow.id))[-1] == ("cancel_escrow", SU, "developer")


@pytest.mark.parametrize(
    ("status", "ending"),
    [("paid", "cancel_escrow"), ("delivered", "cancel_escrow"), ("delivered", "complete")],
)
async def test_every_end_closes_a_request_that_waits(
    house: House, shop: Shop, buyer: Buyer, status: str, ending: str
):
    escrow = await make_escrow(
        house, shop, buyer, mode="quick", status=status, then=("request_cancellation", ending)
    )
    assert escrow.cancellation is not None
    assert (escrow.cancellation.status, escrow.cancellation.answered_by) == ("closed", None)
    assert await clocks(house, escrow.id) == {}


async def test_a_dispute_closes_a_request_that_waits(house: House, shop: Shop, buyer: Buyer):
    steps = ("request_cancellation", "sellers_dispute")
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="paid", then=steps)
    assert escrow.cancellation is not None
    assert escrow.cancellation.status == "closed"
    assert "cancellation_answer" not in await clocks(house, escrow.id)
    back = await bring_on(house, shop, escrow.id, "sellers_withdrawal", "request_cancellation")
    assert back.cancellation is not None
    assert back.cancellation.id != escrow.cancellation.id


# 3. The answer by the clock ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
async def test_unanswered_while_paid_the_request_counts_as_accepted(
    house: House, shop: Shop, buyer: Buyer, mode: str, owner: asyncpg.Connection
):
    if mode == "quick_proof":
        mode = "quick"  # its proof would be due before
    escrow = await make_escrow(
        house, shop, buyer, mode=mode, status="paid", then=("request_cancellation",),
        estimated_delivery_days=9,
    )  # fmt: skip
    due = (await clocks(house, escrow.id))["cancellation_answer"].due_at
    assert await advance(house, due - timedelta(seconds=1)) == []
    [fired] = await advance(house, due)
    after = await reread(house, escrow.id)
    assert (fired.kind, after.status, after.cancel_reason) == (
        "cancellation_answer",
        "cancelled",
        "request_accepted",
    )
    assert after.cancelled_at == due
    assert await available(house, buyer.user_id) == 1_000_000
    assert (await read_log(house, escrow.id))[-2:] == [
        ("accept_cancellation", "escrow.cancellation.accepted", "clock"),
        ("accept_cancellation", SU, "clock"),
    ]
    request = (await bodies(house, escrow.id))[-2]["data"]["cancellationRequest"]
    assert request["status"] == "accepted"
    assert "acceptedBy" not in request


@pytest.mark.parametrize("mode", ["standard", "quick"])
async def test_unanswered_while_delivered_the_request_counts_as_rejected(
    house: House, shop: Shop, buyer: Buyer, mode: str
):
    escrow = await make_escrow(house, shop, buyer, mode=mode, status="delivered")
    assert escrow.completion_deadline is not None
    await jump(house, 2 * DAY)
    asked = await bring_on(house, shop, escrow.id, "request_cancellation")
    left = escrow.completion_deadline - asked.updated_at
    due = (await clocks(house, escrow.id))["cancellation_answer"].due_at
    [fired] = await advance(house, due)
    after = await reread(house, escrow.id)
    assert after.cancellation is not None
    assert (fired.kind, after.status, after.cancellation.status) == (
        "cancellation_answer",
        "delivered",
        "rejected",
    )
    assert after.cancellation.answered_by is None
    assert after.completion_deadline == due + left
    assert (await read_log(house, escrow.id))[-1] == (
        "reject_cancellation",
        "escrow.cancellation.rejected",
        "clock",
    )
    request = (await bodies(house, escrow.id))[-1]["data"]["cancellationRequest"]
    assert "rejectedBy" not in request
    await advance(house, due + left)
    assert (await reread(house, escrow.id)).status == "completed"


async def test_delivered_while_a_request_waits_the_same_deadline_rejects_it(
    house: House, shop: Shop, buyer: Buyer
):
    escrow = await make_escrow(
        house, shop, buyer, mode="quick", status="paid", then=("request_cancellation",)
    )
    due = (await clocks(house, escrow.id))["cancellation_answer"].due_at
    await jump(house, DAY)
    await bring_on(house, shop, escrow.id, "deliver")
    assert (await clocks(house, escrow.id))["cancellation_answer"].due_at == due
    await advance(house, due)
    after = await reread(house, escrow.id)
    assert (after.status, after.completion_deadline) == ("delivered", due + 7 * DAY)


async def test_rejected_and_paid_again_the_same_deadline_accepts_it(
    house: House, shop: Shop, buyer: Buyer
):
    steps = ("request_cancellation", "reject_delivery")
    escrow = await make_escrow(
        house, shop, buyer, mode="quick", status="delivered", then=steps, estimated_delivery_days=90
    )
    assert set(await clocks(house, escrow.id)) == {"cancellation_answer", "delivery_overdue"}
    await advance(house, (await clocks(house, escrow.id))["cancellation_answer"].due_at)
    assert (await reread(house, escrow.id)).cancel_reason == "request_accepted"


# 4. The completion deadline, frozen by a request -------------------------------------------------


@pytest.mark.parametrize("mode", ["standard", "quick"])
async def test_a_request_freezes_the_completion_with_exactly_what_remains(
    house: House, shop: Shop, buyer: Buyer, mode: str
):
    escrow = await make_escrow(house, shop, buyer, mode=mode, status="delivered")
    due = escrow.completion_deadline
    assert due is not None
    await jump(house, DAY + HOUR)
    answer = await act(house, buyer.actor, cancellations.request(escrow.id, None))
    asked = await reread(house, escrow.id)
    assert answer["escrow"]["completionDeadline"] is None
    assert asked.completion_deadline is None
    left = due - asked.updated_at
    assert (await clocks(house, escrow.id))["completion"].remaining == left
    await jump(house, 3 * DAY)
    answer = await act(house, shop.actor, cancellations.reject(escrow.id))
    after = await reread(house, escrow.id)
    assert after.completion_deadline == after.updated_at + left
    assert answer["escrow"]["completionDeadline"] == instant(after.completion_deadline)
    completion = (await clocks(house, escrow.id))["completion"]
    assert (completion.due_at, completion.remaining) == (after.updated_at + left, None)
    await advance(house, after.completion_deadline)
    assert (await reread(house, escrow.id)).completed_at == after.completion_deadline


async def test_delivered_while_a_request_waits_the_completion_is_armed_frozen(
    house: House, shop: Shop, buyer: Buyer
):
    escrow = await make_escrow(
        house, shop, buyer, mode="quick", status="paid", then=("request_cancellation",)
    )
    answer = await act(house, shop.actor, escrows.deliver(escrow.id))
    assert answer["escrow"]["status"] == "delivered"
    assert answer["escrow"]["completionDeadline"] is None
    assert (await clocks(house, escrow.id))["completion"].remaining == 7 * DAY
    await jump(house, 2 * DAY)
    after = await bring_on(house, shop, escrow.id, "reject_cancellation")
    assert after.completion_deadline == after.updated_at + 7 * DAY


async def test_the_buyer_may_complete_while_a_request_waits(house: House, shop: Shop, buyer: Buyer):
    steps = ("request_cancellation", "complete")
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="delivered", then=steps)
    assert (escrow.status, escrow.released_minor) == ("completed", 95_000)


# 5. Instant --------------------------------------------------------------------------------------


async def test_an_instant_delivery_waits_for_the_answer(house: House, shop: Shop, buyer: Buyer):
    escrow = await make_escrow(house, shop, buyer, status="paid", then=("request_cancellation",))
    delivery = escrows.deliver(escrow.id)
    refusal = await refused(house, CancellationPending, shop.actor, delivery, escrow.id)
    assert refusal.code == "CANCELLATION_PENDING"
    done = await bring_on(house, shop, escrow.id, "reject_cancellation", "deliver")
    assert done.status == "completed"


async def on_ack(house: House, shop: Shop, buyer: Buyer, *then: str) -> Escrow:
    """A paid escrow that completes by its creator's 2xx."""
    asked = WebhookCreate.model_validate({"url": "https://partner.test/hook"})
    await act(house, shop.actor, endpoints.create(shop.developer_id, asked))
    return await make_escrow(house, shop, buyer, status="paid", then=then, auto_complete="on_ack")


async def receive(house: House, owner: asyncpg.Connection, escrow: Escrow) -> None:
    """The creator's endpoint has answered 2xx to the payment: the receipt is passed on."""
    await tend(house, deliveries.fan_out)
    await owner.execute(
        "UPDATE delivery SET state = 'delivered', settled_at = now(), claim_token = NULL"
        " WHERE acknowledges AND event_id IN (SELECT id FROM event WHERE subject_id = $1)",
        escrow.id,
    )
    assert await tend(house, deliveries.acknowledge) == 0


@pytest.mark.parametrize(
    ("steps", "lifting"),
    [
        (("request_cancellation",), "reject_cancellation"),
        (("buyers_dispute",), "buyers_withdrawal"),
        (("sellers_dispute",), "sellers_withdrawal"),
        (("request_cancellation", "sellers_dispute"), "sellers_withdrawal"),
    ],
)
@pytest.mark.parametrize("first", ["receipt", "step"])
async def test_a_receipt_waits_for_a_request_or_a_dispute_and_completes_once_it_is_over(
    house: House, shop: Shop, buyer: Buyer, owner: asyncpg.Connection, steps, lifting, first
):
    """Whichever comes first: the receipt that lay there while nobody swept goes before."""
    escrow = await on_ack(house, shop, buyer, *(steps if first == "step" else ()))
    await receive(house, owner, escrow)
    if first == "receipt":
        [fired] = (await sweep(house)).fired
        assert fired.kind == "acknowledged"
        assert (await reread(house, escrow.id)).status == "completed"
        return
    assert (await clocks(house, escrow.id))["acknowledged"].remaining == timedelta(0)
    assert (await sweep(house)).fired == []
    await jump(house, HOUR)
    assert (await sweep(house)).fired == []
    after = await bring_on(house, shop, escrow.id, lifting)
    assert after.status == "paid"
    [fired] = (await sweep(house)).fired
    assert fired.kind == "acknowledged"
    done = await reread(house, escrow.id)
    assert (done.status, done.released_minor) == ("completed", 100_000)
    assert [step for step, *_ in await read_log(house, escrow.id)].count("deliver") == 1


async def test_a_receipt_that_waits_ends_with_the_escrow(
    house: House, shop: Shop, buyer: Buyer, owner: asyncpg.Connection
):
    escrow = await on_ack(house, shop, buyer, "request_cancellation")
    await receive(house, owner, escrow)
    after = await bring_on(house, shop, escrow.id, "accept_cancellation")
    assert after.status == "cancelled"
    assert (await sweep(house)).fired == []


async def test_a_request_that_comes_between_a_receipts_reading_and_its_lock_is_seen(
    house: House,
    shop: Shop,
    buyer: Buyer,
    owner: asyncpg.Connection,
    monkeypatch: pytest.MonkeyPatch,
):
    """The clock of the receipt stands still as the others do once the escrow is locked."""
    escrow = await on_ack(house, shop, buyer)
    slow = delivery_rows.LOCK_RECEIPTS.replace("LIMIT $1", "LIMIT $1 + length(pg_sleep(0.4)::text)")
    monkeypatch.setattr(delivery_rows, "LOCK_RECEIPTS", slow)

    async def asks() -> None:
        await asyncio.sleep(0.15)
        await act(house, buyer.actor, cancellations.request(escrow.id, None))

    await asyncio.gather(receive(house, owner, escrow), asks())
    assert (await clocks(house, escrow.id))["acknowledged"].remaining == timedelta(0)
    done = await sweep(house)
    assert (done.fired, done.failed) == ([], [])


# 6. Sending a delivery back ----------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["standard", "quick"])
async def test_a_delivery_is_sent_back_again_and_again(
    house: House, shop: Shop, buyer: Buyer, mode: str
):
    escrow = await make_escrow(house, shop, buyer, mode=mode, status="paid")
    shown = []
    for reason in ("It is broken.", None, "It is broken again."):
        delivered = await bring_on(house, shop, escrow.id, "deliver")
        await jump(house, HOUR)
        answer = await act(house, buyer.actor, escrows.reject_delivery(escrow.id, reason))
        after = await reread(house, escrow.id)
        shown.append(
            {
                "rejectedAt": instant(after.updated_at),
                "reason": reason,
                "previousDeliveredAt": instant(delivered.delivered_at),
            }
        )
        assert answer == {
            "message": "Delivery rejected",
            "escrow": {
                "id": escrow.id,
                "title": "A camera",
                "amount": 100,
                "status": "paid",
                "deliveredAt": None,
                "completionDeadline": None,
                "deliveryRejections": shown,
                "createdAt": instant(after.created_at),
                "updatedAt": instant(after.updated_at),
            },
        }
        assert (after.held_minor, after.paid_at) == (100_000, escrow.paid_at)
        assert "completion" not in await clocks(house, escrow.id)
        assert (await read_log(house, escrow.id))[-2:] == [
            ("reject_delivery", "escrow.delivery.rejected", "user"),
            ("reject_delivery", SU, "user"),
        ]
        rejected, updated = (await bodies(house, escrow.id))[-2:]
        told = {
            "rejectedAt": instant(after.updated_at),
            "previousDeliveredAt": instant(delivered.delivered_at),
            "rejectedBy": named(buyer.user_id),
        }
        if reason is not None:
            told["reason"] = reason
        assert rejected["data"]["deliveryRejection"] == told
        for one in (rejected, updated):
            assert one["data"]["escrow"]["status"] == "paid"
            assert one["data"]["escrow"]["oldStatus"] == "delivered"
    done = await bring_on(house, shop, escrow.id, "deliver", "complete")
    assert (done.status, len(done.rejections)) == ("completed", 3)


async def test_a_late_delivery_that_is_sent_back_is_not_told_late_twice(
    house: House, shop: Shop, buyer: Buyer
):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="paid")
    assert escrow.paid_at is not None
    await advance(house, escrow.paid_at + 4 * DAY)
    await bring_on(house, shop, escrow.id, "deliver", "reject_delivery")
    assert await clocks(house, escrow.id) == {}
    assert await advance(house, (await read_clock(house.pool)).now + 60 * DAY) == []
    steps = [step for step, *_ in await read_log(house, escrow.id)]
    assert steps.count("note_overdue") == 1


async def test_a_delivery_in_time_that_is_sent_back_may_still_become_late(
    house: House, shop: Shop, buyer: Buyer
):
    escrow = await make_escrow(
        house, shop, buyer, mode="quick", status="delivered", then=("reject_delivery",)
    )
    assert escrow.paid_at is not None
    [late] = (await clocks(house, escrow.id)).values()
    assert (late.kind, late.due_at) == ("delivery_overdue", escrow.paid_at + 3 * DAY)


async def test_a_delivery_in_time_that_is_sent_back_too_late_is_told_late_at_once_and_only_once(
    house: House, shop: Shop, buyer: Buyer
):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="delivered")
    assert escrow.paid_at is not None
    await advance(house, escrow.paid_at + 5 * DAY)
    back = await bring_on(house, shop, escrow.id, "reject_delivery")
    [late] = (await clocks(house, escrow.id)).values()
    assert (late.kind, late.due_at) == ("delivery_overdue", back.updated_at)
    await advance(house, back.updated_at + HOUR)
    [overdue] = [
        one for one in await bodies(house, escrow.id) if one["type"] == "escrow.delivery.overdue"
    ]
    assert overdue["data"]["overdueSince"] == instant(back.updated_at)
    await bring_on(house, shop, escrow.id, "deliver", "reject_delivery")
    assert await clocks(house, escrow.id) == {}


async def test_a_delivery_that_is_sent_back_keeps_the_time_that_a_dispute_gave_it(
    house: House, shop: Shop, buyer: Buyer
):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="paid")
    assert escrow.paid_at is not None
    await bring_on(house, shop, escrow.id, "buyers_dispute")
    await advance(house, escrow.paid_at + 4 * DAY)
    await bring_on(house, shop, escrow.id, "buyers_withdrawal")
    due = (await clocks(house, escrow.id))["delivery_overdue"].due_at
    await bring_on(house, shop, escrow.id, "deliver", "reject_delivery")
    assert (await clocks(house, escrow.id))["delivery_overdue"].due_at == due
    assert due > escrow.paid_at + 6 * DAY


@pytest.mark.parametrize("status", ["pending", "paid", "completed", "cancelled"])
async def test_only_what_is_delivered_is_sent_back_and_by_the_buyer(
    house: House, shop: Shop, buyer: Buyer, status: str
):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status=status)
    sending_back = escrows.reject_delivery(escrow.id, None)
    await refused(house, WrongStatus, buyer.actor, sending_back, escrow.id)
    await refused(house, WrongParty, shop.actor, sending_back, escrow.id)


@pytest.mark.parametrize("name", ["request", "accept", "reject", "cancel_paid"])
async def test_a_frozen_escrow_is_not_cancelled_either(
    house: House, shop: Shop, buyer: Buyer, owner: asyncpg.Connection, name: str
):
    asked = () if name == "request" else ("request_cancellation",)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="paid", then=asked)
    await owner.execute("UPDATE escrow SET frozen = true WHERE id = $1", escrow.id)
    commands = {
        "request": (buyer.actor, cancellations.request(escrow.id, None)),
        "accept": (shop.actor, cancellations.accept(escrow.id)),
        "reject": (shop.actor, cancellations.reject(escrow.id)),
        "cancel_paid": (shop.actor, cancellations.cancel_paid(escrow.id)),
    }
    await refused(house, EscrowFrozen, *commands[name], escrow.id)
