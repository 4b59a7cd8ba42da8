"""Disputes: time stands still, then somebody decides, or takes it back."""

import asyncio
from datetime import timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from service.commands import disputes, escrows
from service.commands.perform import House
from service.rules.aggregate import Escrow
from service.rules.dispute import Split
from service.rules.errors import (
    DisputeAlreadyOpened,
    DisputeInvalidStatus,
    DisputeOpen,
    EscrowFrozen,
    NoOpenDispute,
    SplitMustEqualHeld,
    WrongParty,
)
from service.rules.machine import SYSTEM, Actor, ActorKind
from service.store.clock import read_clock
from service.wire.base import instant
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
OPERATOR = Actor(ActorKind.OPERATOR)
OPENERS = ("seller", "buyer")
STANDINGS = [
    (mode, status) for mode in PATHS for status in ("paid", "delivered") if status in PATHS[mode]
]
EVERY = pytest.mark.parametrize(("mode", "status"), STANDINGS)


@pytest.fixture
async def shop(house: House) -> Shop:
    return await make_shop(house)


@pytest.fixture
async def buyer(house: House) -> Buyer:
    return await make_buyer(house)


@pytest.fixture
async def seller(house: House) -> Buyer:
    return await make_buyer(house, funds="0")


async def disputed_sale(
    house: House, shop: Shop, buyer: Buyer, seller: Buyer, *then: str, opener: str = "buyer"
) -> Escrow:
    """1000 TND with fees of 50 and 100, delivered by a third party, and disputed."""
    return await make_escrow(
        house, shop, buyer, mode="quick", status="delivered", then=(f"{opener}s_dispute", *then),
        seller_email=seller.email, developer_fee_bps=1_000, amount=Decimal(1000),
    )  # fmt: skip


def remaining(standing: dict[str, Any], now: Any) -> dict[str, timedelta]:
    """What of each clock is left, whether it runs or stands still."""
    return {
        kind: one.due_at - now if one.remaining is None else one.remaining
        for kind, one in standing.items()
    }


# 1. Opening --------------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("opener", OPENERS)
async def test_a_dispute_stops_every_clock_and_asks_the_other_party(
    house: House, shop: Shop, buyer: Buyer, mode: str, status: str, opener: str
):
    escrow = await make_escrow(house, shop, buyer, mode=mode, status=status)
    ran = await clocks(house, escrow.id)
    assert ran
    await jump(house, HOUR)
    actor, user_id = (shop.actor, shop.user_id) if opener == "seller" else (
        buyer.actor, buyer.user_id,
    )  # fmt: skip
    reason = "It is not a camera. " * 10
    answer = await act(house, actor, disputes.open_dispute(escrow.id, reason))
    after = await reread(house, escrow.id)
    assert (after.status, after.held_minor, after.delivered_at) == (
        "disputed",
        100_000,
        escrow.delivered_at,
    )
    assert after.dispute is not None
    number = f"DHM-{after.dispute.ticket_number:05d}"
    assert answer["escrow"]["disputeTicketId"] == after.dispute.id
    assert answer["escrow"]["disputeTicket"] == {
        "ticketNumber": number,
        "type": "dispute",
        "subject": "Dispute: A camera",
        "status": "open",
        "createdAt": instant(after.updated_at),
        "previewReason": reason[:140],
    }
    assert answer["escrow"]["completionDeadline"] is None
    assert await read_log(house, escrow.id) == [
        *(await read_log(house, escrow.id))[:-2],
        ("dispute", SU, "developer" if opener == "seller" else "user"),
        ("dispute", "escrow.dispute.opened", "developer" if opener == "seller" else "user"),
    ]
    updated, opened = (await bodies(house, escrow.id))[-2:]
    assert updated["data"]["escrow"]["oldStatus"] == status
    told = opened["data"]["dispute"]
    assert {key: told[key] for key in ("ticketNumber", "reason", "status")} == {
        "ticketNumber": number,
        "reason": reason,
        "status": "open",
    }
    assert told["openedBy"]["_id"] == user_id
    assert set(told) == {"ticketNumber", "openedBy", "reason", "status"}
    stand = await clocks(house, escrow.id)
    answering, warning = stand.pop("dispute_answer"), stand.pop("dispute_reminder")
    assert (warning.due_at, warning.remaining) == (after.updated_at + 4 * DAY, None)
    assert (answering.due_at, answering.remaining) == (after.updated_at + 5 * DAY, None)
    left = {kind: one.due_at - after.updated_at for kind, one in ran.items()}
    assert {kind: one.remaining for kind, one in stand.items()} == left


async def test_tickets_count_up(house: House, shop: Shop, buyer: Buyer):
    escrow = await make_escrow(house, shop, buyer, status="paid")
    numbers, ids = [], []
    for _ in range(3):
        escrow = await bring_on(house, shop, escrow.id, "buyers_dispute", "buyers_withdrawal")
        assert escrow.dispute is not None
        numbers.append(escrow.dispute.ticket_number)
        ids.append(escrow.dispute.id)
    other = await make_escrow(house, shop, buyer, status="disputed")
    assert other.dispute is not None
    numbers.append(other.dispute.ticket_number)
    assert numbers == list(range(numbers[0], numbers[0] + 4))
    assert len(set(ids)) == 3


async def test_tickets_at_once_are_different(house: House, shop: Shop, buyer: Buyer):
    made = [await make_escrow(house, shop, buyer, status="paid") for _ in range(8)]
    await asyncio.gather(
        *(act(house, buyer.actor, disputes.open_dispute(one.id, "?")) for one in made)
    )
    numbers = {(await reread(house, one.id)).dispute.ticket_number for one in made}
    assert len(numbers) == 8


@pytest.mark.parametrize(
    ("status", "kind"),
    [
        ("pending", DisputeInvalidStatus),
        ("completed", DisputeInvalidStatus),
        ("cancelled", DisputeInvalidStatus),
        ("disputed", DisputeAlreadyOpened),
    ],
)
async def test_what_cannot_be_disputed(house: House, shop: Shop, buyer: Buyer, status, kind):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status=status)
    for actor in (shop.actor, buyer.actor):
        opening = disputes.open_dispute(escrow.id, "?")
        refusal = await refused(house, kind, actor, opening, escrow.id)
        assert refusal.code in ("DISPUTE_INVALID_STATUS", "DISPUTE_ALREADY_OPENED")


async def test_only_a_party_disputes(house: House, shop: Shop, buyer: Buyer):
    escrow = await make_escrow(house, shop, buyer, status="paid")
    creator = Actor(ActorKind.DEVELOPER, developer_id=shop.developer_id)
    stranger = await make_shop(house)
    for actor in (creator, stranger.actor, OPERATOR, SYSTEM):
        opening = disputes.open_dispute(escrow.id, "?")
        await refused(house, WrongParty, actor, opening, escrow.id)


async def test_a_delivery_is_not_sent_back_while_a_dispute_is_open(
    house: House, shop: Shop, buyer: Buyer
):
    escrow = await make_escrow(
        house, shop, buyer, mode="quick", status="delivered", then=("sellers_dispute",)
    )
    sending_back = escrows.reject_delivery(escrow.id, None)
    await refused(house, DisputeOpen, buyer.actor, sending_back, escrow.id)


# 2. Taken back -----------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("opener", OPENERS)
async def test_withdrawn_everything_goes_on_with_exactly_what_remained(
    house: House, shop: Shop, buyer: Buyer, mode: str, status: str, opener: str
):
    escrow = await make_escrow(house, shop, buyer, mode=mode, status=status)
    await jump(house, HOUR)
    stopped = await bring_on(house, shop, escrow.id, f"{opener}s_dispute")
    assert stopped.dispute is not None
    left = remaining(await clocks(house, escrow.id), stopped.updated_at)
    del left["dispute_answer"], left["dispute_reminder"]
    await jump(house, 2 * DAY)
    actor = shop.actor if opener == "seller" else buyer.actor
    answer = await act(house, actor, disputes.withdraw(escrow.id))
    after = await reread(house, escrow.id)
    assert (after.status, after.delivered_at, after.paid_at) == (
        status,
        escrow.delivered_at,
        escrow.paid_at,
    )
    running = await clocks(house, escrow.id)
    assert all(one.remaining is None for one in running.values())
    assert remaining(running, after.updated_at) == left
    if status == "delivered":
        assert after.completion_deadline == after.updated_at + left["completion"]
        assert answer["escrow"]["completionDeadline"] == instant(after.completion_deadline)
    assert answer["escrow"]["disputeTicketId"] == stopped.dispute.id
    assert answer["escrow"]["disputeTicket"]["status"] == "resolved"
    assert answer["escrow"]["settlement"] is None
    updated, resolved = (await bodies(house, escrow.id))[-2:]
    assert (updated["type"], updated["data"]["escrow"]["oldStatus"]) == (SU, "disputed")
    assert resolved["type"] == "escrow.dispute.resolved"
    told = resolved["data"]["dispute"]
    assert (told["status"], told["outcome"]) == ("resolved", "withdrawn")
    assert "settlement" not in told


async def test_only_who_opened_it_takes_it_back(house: House, shop: Shop, buyer: Buyer):
    for opener, other in (("sellers_dispute", buyer.actor), ("buyers_dispute", shop.actor)):
        escrow = await make_escrow(house, shop, buyer, status="paid", then=(opener,))
        creator = Actor(ActorKind.DEVELOPER, developer_id=shop.developer_id)
        for actor in (other, creator, OPERATOR, SYSTEM):
            taking_back = disputes.withdraw(escrow.id)
            await refused(house, WrongParty, actor, taking_back, escrow.id)


@pytest.mark.parametrize("status", ["pending", "paid", "delivered", "completed", "cancelled"])
async def test_without_an_open_dispute_none_is_ended(
    house: House, shop: Shop, buyer: Buyer, status: str
):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status=status)
    for actor, ending in (
        (buyer.actor, disputes.withdraw(escrow.id)),
        (OPERATOR, disputes.resolve(escrow.id, "seller")),
        (OPERATOR, disputes.resolve(escrow.id, "buyer")),
        (OPERATOR, disputes.resolve(escrow.id, split=Split(1, 1))),
    ):
        refusal = await refused(house, NoOpenDispute, actor, ending, escrow.id)
        assert refusal.code == "NO_OPEN_DISPUTE"


async def test_a_withdrawn_dispute_is_not_ended_again(house: House, shop: Shop, buyer: Buyer):
    steps = ("buyers_dispute", "buyers_withdrawal")
    escrow = await make_escrow(house, shop, buyer, status="paid", then=steps)
    await refused(house, NoOpenDispute, buyer.actor, disputes.withdraw(escrow.id), escrow.id)


# 3. Decided --------------------------------------------------------------------------------------

# escrows.md 5: fees on the seller's part only, by largest remainder over 50 : 100 : 850.
SPLITS = [
    # seller     buyer      fee      developer net
    (1_000_000, 0, 50_000, 100_000, 850_000),
    (333_333, 666_667, 16_667, 33_333, 283_333),
    (500_000, 500_000, 25_000, 50_000, 425_000),
    (1, 999_999, 0, 0, 1),
    (10, 999_990, 0, 1, 9),
    (999_999, 1, 50_000, 100_000, 849_999),
    (0, 1_000_000, 0, 0, 0),
]


@pytest.mark.parametrize(("sellers", "buyers", "fee", "developers", "net"), SPLITS)
async def test_a_split_charges_fees_on_the_sellers_part_only(
    house: House, shop: Shop, buyer: Buyer, seller: Buyer, sellers, buyers, fee, developers, net
):
    escrow = await disputed_sale(house, shop, buyer, seller)
    answer = await act(house, OPERATOR, disputes.resolve(escrow.id, split=Split(sellers, buyers)))
    after = await reread(house, escrow.id)
    assert after.status == ("completed" if sellers else "cancelled")
    assert (after.held_minor, after.released_minor, after.refunded_minor, after.fees_minor) == (
        0,
        net,
        buyers,
        fee + developers,
    )
    assert await available(house, seller.user_id) == net
    assert await available(house, shop.user_id) == developers
    assert await available(house, buyer.user_id) == buyers
    fees = "SELECT coalesce(sum(amount_minor), 0) FROM transfer WHERE reason = 'escrow_fee'"
    assert await house.pool.fetchval(fees) == fee
    settlement = {
        "sellerAmount": sellers / 1000,
        "buyerAmount": buyers / 1000,
        "escrowFee": fee / 1000,
        "developerFee": developers / 1000,
        "sellerNet": net / 1000,
        "resolvedBy": "operator",
    }
    assert answer["escrow"]["settlement"] == settlement
    assert answer["escrow"]["cancelReason"] == (None if sellers else "dispute")
    assert answer["escrow"]["disputeTicket"]["status"] == "resolved"
    outcome = "split" if sellers and buyers else "seller" if sellers else "buyer"
    updated, resolved = (await bodies(house, escrow.id))[-2:]
    assert updated["data"]["escrow"]["oldStatus"] == "disputed"
    told = resolved["data"]["dispute"]
    assert (told["status"], told["outcome"], told["settlement"]) == (
        "resolved",
        outcome,
        settlement,
    )
    assert await clocks(house, escrow.id) == {}


@EVERY
@pytest.mark.parametrize("to", OPENERS)
async def test_all_goes_to_one_party(
    house: House, shop: Shop, buyer: Buyer, mode: str, status: str, to: str
):
    escrow = await make_escrow(
        house, shop, buyer, mode=mode, status=status, then=("sellers_dispute", f"to_{to}")
    )
    fee = 0 if mode == "instant" else 5_000
    assert escrow.status == ("completed" if to == "seller" else "cancelled")
    assert escrow.completed_at == (escrow.updated_at if to == "seller" else None)
    assert escrow.delivered_at is None or status == "delivered"
    kept = 900_000 + (100_000 if to == "buyer" else 0)
    assert await available(house, buyer.user_id) == kept
    assert await available(house, shop.user_id) == (100_000 - fee if to == "seller" else 0)
    assert escrow.dispute is not None
    assert (escrow.dispute.outcome, escrow.dispute.is_open) == (to, False)
    assert [kind for _, _, kind in (await read_log(house, escrow.id))[-2:]] == ["operator"] * 2


@pytest.mark.parametrize(
    "split",
    [
        Split(500_000, 499_999),
        Split(500_000, 500_001),
        Split(0, 0),
        Split(-1, 1_000_001),
        Split(1_000_001, -1),
        Split(1_000_000, 1_000_000),
    ],
)
async def test_the_parts_are_what_is_held(
    house: House, shop: Shop, buyer: Buyer, seller: Buyer, split: Split
):
    escrow = await disputed_sale(house, shop, buyer, seller)
    deciding = disputes.resolve(escrow.id, split=split)
    refusal = await refused(house, SplitMustEqualHeld, OPERATOR, deciding, escrow.id)
    assert refusal.code == "SPLIT_MUST_EQUAL_HELD"
    assert "1000.000 TND" in str(refusal) or "1000 TND" in str(refusal)


async def test_nobody_decides_but_the_operator(
    house: House, shop: Shop, buyer: Buyer, seller: Buyer
):
    """The table lets parties settle, by an offer that both agree on: not one of them alone."""
    escrow = await disputed_sale(house, shop, buyer, seller)
    creator = Actor(ActorKind.DEVELOPER, developer_id=shop.developer_id)
    stranger = await make_shop(house)
    for actor in (creator, stranger.actor, seller.actor, buyer.actor, SYSTEM):
        for to in OPENERS:
            deciding = disputes.resolve(escrow.id, to)
            await refused(house, WrongParty, actor, deciding, escrow.id)


# 4. Decided by time ------------------------------------------------------------------------------


@EVERY
@pytest.mark.parametrize("opener", OPENERS)
async def test_unanswered_the_opener_gets_what_they_claim(
    house: House, shop: Shop, buyer: Buyer, mode: str, status: str, opener: str
):
    escrow = await make_escrow(
        house, shop, buyer, mode=mode, status=status, then=(f"{opener}s_dispute",)
    )
    due = (await clocks(house, escrow.id))["dispute_answer"].due_at
    [warned] = await advance(house, due - timedelta(seconds=1))
    assert (warned.kind, warned.due_at) == ("dispute_reminder", due - DAY)
    [fired] = await advance(house, due)
    after = await reread(house, escrow.id)
    assert fired.kind == "dispute_answer"
    fee = 0 if mode == "instant" else 5_000
    if opener == "seller":
        assert (after.status, after.completed_at, after.cancel_reason) == ("completed", due, None)
        assert (after.released_minor, after.fees_minor) == (100_000 - fee, fee)
    else:
        assert (after.status, after.cancelled_at) == ("cancelled", due)
        assert (after.cancel_reason, after.refunded_minor) == ("dispute", 100_000)
    assert after.dispute is not None
    assert after.dispute.settlement is not None
    assert (after.dispute.outcome, after.dispute.settlement.resolved_by) == (opener, "clock")
    assert await read_log(house, escrow.id) == [
        *(await read_log(house, escrow.id))[:-2],
        ("resolve_dispute", SU, "clock"),
        ("resolve_dispute", "escrow.dispute.resolved", "clock"),
    ]
    settlement = (await bodies(house, escrow.id))[-1]["data"]["dispute"]["settlement"]
    assert settlement["resolvedBy"] == "clock"


async def test_who_comes_after_the_clock_is_told_that_it_is_over(
    house: House, shop: Shop, buyer: Buyer
):
    """The due step is committed first, and the person's refusal does not undo it."""
    escrow = await make_escrow(house, shop, buyer, status="disputed")
    await jump(house, 6 * DAY)
    for actor, command in (
        (buyer.actor, disputes.withdraw(escrow.id)),
        (OPERATOR, disputes.resolve(escrow.id, "seller")),
    ):
        with pytest.raises(NoOpenDispute):
            await act(house, actor, command)
    after = await reread(house, escrow.id)
    assert (after.status, after.cancel_reason) == ("cancelled", "dispute")


async def test_what_stood_still_fires_no_sooner_than_its_rest_says(
    house: House, shop: Shop, buyer: Buyer
):
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="delivered")
    assert escrow.completion_deadline is not None
    await jump(house, 7 * DAY - HOUR)
    stopped = await bring_on(house, shop, escrow.id, "sellers_dispute")
    left = escrow.completion_deadline - stopped.updated_at
    await jump(house, 4 * DAY)
    after = await bring_on(house, shop, escrow.id, "sellers_withdrawal")
    assert after.completion_deadline == after.updated_at + left
    assert await advance(house, after.completion_deadline - timedelta(seconds=1)) == []
    [fired] = await advance(house, after.completion_deadline)
    assert (fired.kind, (await reread(house, escrow.id)).status) == ("completion", "completed")


async def test_a_request_and_a_dispute_one_after_the_other_take_nothing_of_the_rest(
    house: House, shop: Shop, buyer: Buyer
):
    """Frozen by the request, then by the dispute that closes it: still the same remaining time."""
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="delivered")
    assert escrow.completion_deadline is not None
    await jump(house, DAY)
    asked = await bring_on(house, shop, escrow.id, "request_cancellation")
    left = escrow.completion_deadline - asked.updated_at
    for step in ("sellers_dispute", "sellers_withdrawal"):
        assert (await clocks(house, escrow.id))["completion"].remaining == left
        await jump(house, DAY)
        asked = await bring_on(house, shop, escrow.id, step)
    assert asked.completion_deadline == asked.updated_at + left


async def test_a_frozen_dispute_waits_for_the_operators_look(
    house: House, shop: Shop, buyer: Buyer, owner: asyncpg.Connection
):
    escrow = await make_escrow(house, shop, buyer, status="disputed")
    await owner.execute("UPDATE escrow SET frozen = true WHERE id = $1", escrow.id)
    for actor, command in (
        (buyer.actor, disputes.withdraw(escrow.id)),
        (OPERATOR, disputes.resolve(escrow.id, "seller")),
    ):
        await refused(house, EscrowFrozen, actor, command, escrow.id)
    assert await advance(house, (await read_clock(house.pool)).now + 30 * DAY) == []
