"""Whole lives of escrows, through the commands: who is told what, and where every millime is.

Each story ends with the product's own invariants and with the books.
"""

from collections.abc import AsyncIterator
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest
import pytest_asyncio

from service.commands import cancellations, disputes, endpoints, escrows, rates, users
from service.commands.checks import check_all
from service.commands.deadlines import sweep
from service.commands.perform import House, tend
from service.commands.registration import follow_link
from service.rules.clocks import months_later
from service.rules.escrow import MODES
from service.rules.machine import Actor, ActorKind
from service.store.clock import read_clock
from service.store.db import Transaction
from service.store.deadlines import Arming, arm_deadlines, read_open
from service.store.ledger import read_balance, read_trial_balance
from service.wire.webhooks import WebhookCreate
from tests.books import assert_sound
from tests.makers import (
    Buyer,
    act,
    advance,
    arrange,
    make_buyer,
    make_escrow,
    make_shop,
    reread,
    top_up,
)
from tests.outbox import mails_of, tokens_of

pytestmark = pytest.mark.usefixtures("sound")
DAY = timedelta(days=1)
FUNDS = 1_000_000


@pytest_asyncio.fixture(loop_scope="session")
async def sound(house: House) -> AsyncIterator[None]:
    yield
    await assert_sound(house)
    # G and H are the workers': nobody fans out or pays out here.
    broken = [one for one in await check_all(house) if not one.ok and one.id not in "GH"]
    assert broken == []


async def hooks(house: House, escrow_id: str) -> list[dict[str, Any]]:
    """The webhooks of this escrow's life, as they would be sent, in order."""
    rows = await house.pool.fetch(
        "SELECT b.body FROM event v JOIN webhook_body b ON b.event_id = v.id"
        " WHERE v.subject_id = $1 ORDER BY v.seq",
        escrow_id,
    )
    return [orjson.loads(row["body"]) for row in rows]


async def told(house: House, escrow_id: str) -> list[tuple[str, str | None, str]]:
    """Type, status before and status after of each webhook."""
    return [
        (hook["type"], hook["data"]["escrow"].get("oldStatus"), hook["data"]["escrow"]["status"])
        for hook in await hooks(house, escrow_id)
    ]


async def wallet(house: House, user_id: str) -> int:
    return (await read_balance(house.pool, user_id, "TND")).available


async def lines(house: House) -> dict[str, int]:
    return {line.kind: line.balance_minor for line in await read_trial_balance(house.pool)}


async def clock(house: House) -> datetime:
    return (await read_clock(house.pool)).now


SU = "escrow.status.updated"


async def test_an_instant_escrow_is_opened_paid_and_delivered(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, amount=Decimal("123.456"), title="Café ☕")
    await act(house, buyer.actor, escrows.pay(escrow.id))
    assert await lines(house) == {
        "available": FUNDS - 123_456,
        "held": 123_456,
        "pending": 0,
        "clearing": 0,
        "outside": -FUNDS,
    }
    await act(house, shop.actor, escrows.deliver(escrow.id))
    assert await told(house, escrow.id) == [
        ("escrow.created", None, "pending"),
        (SU, "pending", "paid"),
        (SU, "paid", "completed"),
    ]
    last = (await hooks(house, escrow.id))[-1]
    after = await reread(house, escrow.id)
    assert last["data"]["escrow"]["title"] == "Café ☕"
    assert last["data"]["escrow"]["amount"] == 123.456
    assert last["timestamp"][:19] == after.updated_at.isoformat()[:19]
    assert await wallet(house, shop.user_id) == 123_456
    assert await wallet(house, buyer.user_id) == FUNDS - 123_456


async def test_a_marketplace_sells_for_somebody_else_in_dollars_and_time_completes_it(
    house: House,
):
    shop, buyer = await make_shop(house), await make_buyer(house)
    seller = await make_buyer(house, "sells@example.org", funds="0")
    await arrange(house, lambda tx: rates.set_rate(tx, "USD", Decimal("3.1"), "bank"))
    escrow = await make_escrow(
        house, shop, buyer, mode="quick", seller_email=seller.email, currency="USD",
        amount=Decimal("99.99"), developer_fee_bps=250,
    )  # fmt: skip
    # 99.99 x 3.1 = 309.969 -> 309.97; 5 % = 15.4985 -> 15.499; 2.5 % = 7.74925 -> 7.749
    await act(house, buyer.actor, escrows.pay(escrow.id))
    await act(house, seller.actor, escrows.deliver(escrow.id))
    assert await wallet(house, seller.user_id) == 0
    await advance(house, await clock(house) + 8 * DAY)
    assert (await reread(house, escrow.id)).status == "completed"
    assert await wallet(house, seller.user_id) == 309_970 - 15_499 - 7_749
    assert await wallet(house, shop.user_id) == 7_749
    assert (await lines(house))["platform_fees"] == 15_499
    assert await told(house, escrow.id) == [
        ("escrow.created", None, "pending"),
        (SU, "pending", "paid"),
        (SU, "paid", "delivered"),
        (SU, "delivered", "completed"),
    ]


async def test_a_partner_acknowledges_and_nobody_calls_deliver(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    asked = WebhookCreate.model_validate({"url": "https://partner.test/hook"})
    await act(house, shop.actor, endpoints.create(shop.developer_id, asked))
    escrow = await make_escrow(house, shop, buyer, auto_complete="on_ack", status="paid")

    async def acknowledged(tx: Transaction) -> None:
        await arm_deadlines(tx, [Arming(escrow.id, "acknowledged", tx.now, escrow.seq)])

    await tend(house, acknowledged)
    await sweep(house)
    assert await told(house, escrow.id) == [
        ("escrow.created", None, "pending"),
        (SU, "pending", "paid"),
        (SU, "paid", "completed"),
    ]
    assert await wallet(house, shop.user_id) == 100_000


async def test_an_instant_escrow_that_nobody_delivers_gives_the_money_back(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid", estimated_delivery_days=2)
    assert escrow.paid_at is not None
    await advance(house, escrow.paid_at + 5 * DAY)
    assert await told(house, escrow.id) == [
        ("escrow.created", None, "pending"),
        (SU, "pending", "paid"),
        ("escrow.delivery.overdue", None, "paid"),
        (SU, "paid", "cancelled"),
    ]
    overdue = (await hooks(house, escrow.id))[2]
    assert overdue["data"]["overdueSince"][:19] == (escrow.paid_at + 2 * DAY).isoformat()[:19]
    assert await wallet(house, buyer.user_id) == FUNDS
    mails = [template for template, _ in await mails_of(house, escrow)]
    assert mails.count("delivery_overdue") == 2


async def test_a_proof_that_never_comes_gives_the_money_back(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick_proof", status="paid")
    assert escrow.paid_at is not None
    await advance(house, escrow.paid_at + DAY)
    after = await reread(house, escrow.id)
    assert (after.status, after.cancel_reason) == ("cancelled", "proof_expired")
    assert [kind for kind, *_ in await told(house, escrow.id)] == [
        "escrow.created",
        SU,
        "escrow.proof.required",
        "escrow.proof.expired",
        SU,
    ]
    required, expired = (await hooks(house, escrow.id))[2:4]
    deadline = (escrow.paid_at + DAY).isoformat(timespec="milliseconds")[:-6] + "Z"
    assert required["data"] == {
        "escrow": {"id": escrow.id, "title": "A camera", "status": "paid", "mode": "quick"},
        "proof": {
            "phase": "waiting_seller_proof",
            "correctionRounds": 0,
            "uploadDeadline": deadline,
            "reviewDeadline": None,
            "latestSubmission": None,
            "checkoutActions": [
                {
                    "action": "submit_proof",
                    "targetUserEmail": escrow.seller_email,
                    "description": "Upload the purchase proof.",
                }
            ],
        },
    }
    assert expired["data"]["escrow"]["status"] == "cancelled"
    assert expired["data"]["proof"]["phase"] == "expired_no_proof"
    assert expired["data"]["proof"]["checkoutActions"] == []
    assert await wallet(house, buyer.user_id) == FUNDS


async def open_clocks(house: House, escrow_id: str) -> dict[str, tuple[datetime, bool]]:
    """Kind -> when it is due, and whether it stands still."""
    return {
        one.kind: (one.due_at, one.remaining is not None)
        for one in await read_open(house.pool, escrow_id)
    }


async def test_a_request_holds_the_completion_up_for_as_long_as_nobody_answers(house: House):
    """Delivered, asked on the second day, unanswered for five: rejected, and five days remain."""
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="delivered")
    assert escrow.completion_deadline is not None
    await advance(house, await clock(house) + 2 * DAY)
    await act(house, buyer.actor, cancellations.request(escrow.id, "It came too late."))
    asked = await reread(house, escrow.id)
    assert asked.completion_deadline is None
    clocks = await open_clocks(house, escrow.id)
    assert {kind: paused for kind, (_, paused) in clocks.items()} == {
        "completion": True,
        "cancellation_answer": False,
    }
    assert clocks["cancellation_answer"][0] == asked.updated_at + 5 * DAY
    await advance(house, asked.updated_at + 5 * DAY)
    after = await reread(house, escrow.id)
    assert after.cancellation is not None
    assert (after.status, after.cancellation.status) == ("delivered", "rejected")
    assert after.cancellation.answered_by is None
    assert after.completion_deadline is not None
    waited = after.updated_at - asked.updated_at
    assert after.completion_deadline == escrow.completion_deadline + waited
    await advance(house, after.completion_deadline)
    assert await told(house, escrow.id) == [
        ("escrow.created", None, "pending"),
        (SU, "pending", "paid"),
        (SU, "paid", "delivered"),
        ("escrow.cancellation.requested", None, "delivered"),
        ("escrow.cancellation.rejected", None, "delivered"),
        (SU, "delivered", "completed"),
    ]
    assert await wallet(house, shop.user_id) == 95_000


async def test_a_request_that_a_delivery_and_its_rejection_overtake_is_granted_in_its_own_time(
    house: House,
):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(
        house, shop, buyer, mode="quick", status="paid", estimated_delivery_days=9
    )
    await act(house, buyer.actor, cancellations.request(escrow.id, None))
    due, _ = (await open_clocks(house, escrow.id))["cancellation_answer"]
    await advance(house, await clock(house) + DAY)
    await act(house, shop.actor, escrows.deliver(escrow.id))
    clocks = await open_clocks(house, escrow.id)
    assert clocks["completion"][1]
    assert clocks["cancellation_answer"] == (due, False)
    await act(house, buyer.actor, escrows.reject_delivery(escrow.id, None))
    clocks = await open_clocks(house, escrow.id)
    assert clocks.keys() == {"delivery_overdue", "cancellation_answer"}
    assert clocks["cancellation_answer"] == (due, False)
    await advance(house, due)
    assert await told(house, escrow.id) == [
        ("escrow.created", None, "pending"),
        (SU, "pending", "paid"),
        ("escrow.cancellation.requested", None, "paid"),
        (SU, "paid", "delivered"),
        ("escrow.delivery.rejected", "delivered", "paid"),
        (SU, "delivered", "paid"),
        ("escrow.cancellation.accepted", None, "cancelled"),
        (SU, "paid", "cancelled"),
    ]
    after = await reread(house, escrow.id)
    assert (after.cancel_reason, after.cancelled_at) == ("request_accepted", due)
    assert await wallet(house, buyer.user_id) == FUNDS


@pytest.mark.parametrize(
    ("opener", "status", "buyers", "sellers"),
    [("buyer", "cancelled", FUNDS, 0), ("seller", "completed", FUNDS - 100_000, 95_000)],
)
async def test_a_dispute_that_the_other_party_leaves_unanswered_ends_as_its_opener_claims(
    house: House, opener: str, status: str, buyers: int, sellers: int
):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="delivered")
    actor = buyer.actor if opener == "buyer" else shop.actor
    await act(house, actor, disputes.open_dispute(escrow.id, "It is not what was agreed."))
    opened = await reread(house, escrow.id)
    clocks = await open_clocks(house, escrow.id)
    assert {kind: paused for kind, (_, paused) in clocks.items()} == {
        "completion": True,
        "dispute_answer": False,
        "dispute_reminder": False,
    }
    assert clocks["dispute_answer"][0] == opened.updated_at + 5 * DAY
    await advance(house, opened.updated_at + 5 * DAY)
    after = await reread(house, escrow.id)
    assert after.dispute is not None
    assert after.dispute.settlement is not None
    assert (after.status, after.dispute.outcome) == (status, opener)
    assert after.dispute.settlement.resolved_by == "clock"
    assert await wallet(house, buyer.user_id) == buyers
    assert await wallet(house, shop.user_id) == sellers
    assert (await told(house, escrow.id))[-4:] == [
        (SU, "delivered", "disputed"),
        ("escrow.dispute.opened", None, "disputed"),
        (SU, "disputed", status),
        ("escrow.dispute.resolved", None, status),
    ]


async def test_a_dispute_that_is_taken_back_gives_every_clock_the_time_that_it_had(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick_proof", status="paid")
    before = await open_clocks(house, escrow.id)
    assert before.keys() == {"proof_upload", "delivery_overdue"}
    await advance(house, await clock(house) + DAY / 2)
    await act(house, shop.actor, disputes.open_dispute(escrow.id, "The buyer does not answer."))
    opened = await reread(house, escrow.id)
    await advance(house, await clock(house) + 4 * DAY)
    await act(house, shop.actor, disputes.withdraw(escrow.id))
    after = await reread(house, escrow.id)
    held_up = after.updated_at - opened.updated_at
    assert await open_clocks(house, escrow.id) == {
        kind: (due + held_up, False) for kind, (due, _) in before.items()
    }
    assert after.proof is not None
    assert after.proof.upload_deadline == before["proof_upload"][0] + held_up
    await advance(house, after.proof.upload_deadline)
    assert (await reread(house, escrow.id)).cancel_reason == "proof_expired"
    assert await wallet(house, buyer.user_id) == FUNDS


async def test_the_operator_shares_what_is_disputed_and_fees_are_the_sellers_parts(house: House):
    """1000 with fees 50 and 100, 333.333 to the seller: 16.667, 33.333 and 283.333."""
    shop, buyer = await make_shop(house), await make_buyer(house)
    seller = await make_buyer(house, "sells@example.org", funds="0")
    escrow = await make_escrow(
        house, shop, buyer, mode="quick", status="pending", seller_email=seller.email,
        amount=Decimal(1000), developer_fee_bps=1_000,
    )  # fmt: skip
    await act(house, buyer.actor, escrows.pay(escrow.id))
    await act(house, buyer.actor, disputes.open_dispute(escrow.id, "It never came."))
    operator = Actor(ActorKind.OPERATOR)
    split = disputes.Split(333_333, 666_667)
    await act(house, operator, disputes.resolve(escrow.id, split=split))
    assert await wallet(house, seller.user_id) == 283_333
    assert await wallet(house, shop.user_id) == 33_333
    assert (await lines(house))["platform_fees"] == 16_667
    assert await wallet(house, buyer.user_id) == FUNDS - 333_333
    resolved = (await hooks(house, escrow.id))[-1]["data"]["dispute"]
    assert resolved["outcome"] == "split"
    assert resolved["settlement"] == {
        "sellerAmount": 333.333, "buyerAmount": 666.667, "escrowFee": 16.667,
        "developerFee": 33.333, "sellerNet": 283.333, "resolvedBy": "operator",
    }  # fmt: skip


async def test_an_invited_buyer_registers_by_the_link_after_two_reminders_and_pays(house: House):
    shop = await make_shop(house)
    email = "new@example.org"
    escrow = await make_escrow(house, shop, buyer_email=email)
    fired = await advance(house, escrow.created_at + 10 * DAY)
    assert [one.kind for one in fired] == ["invitation_reminder"] * 2
    assert [template for template, _ in await mails_of(house, escrow)] == [
        "invitation",
        "invitation_reminder",
        "invitation_reminder",
    ]
    token = (await tokens_of(house, email))[-1]
    person, linked = await arrange(house, lambda tx: follow_link(tx, token, "Nour", "Zed"))
    assert linked == [escrow.id]
    buyer = await make_buyer_of(house, person.email)
    await act(house, buyer, escrows.pay(escrow.id))
    await act(house, shop.actor, escrows.deliver(escrow.id))
    assert [kind for kind, *_ in await told(house, escrow.id)] == [
        "escrow.created",
        "invitation.accepted",
        SU,
        SU,
    ]
    accepted = (await hooks(house, escrow.id))[1]["data"]
    assert (accepted["invitation"]["email"], accepted["invitation"]["role"]) == (email, "buyer")
    assert accepted["escrow"]["buyer"]["_id"] == person.id


async def make_buyer_of(house: House, email: str):
    """The registered person as an actor with money."""
    await top_up(house, email, "500")
    user = await users.registered(house.pool, email)
    return Buyer(user.person.id, email).actor


@pytest.mark.parametrize("mode", MODES)
async def test_an_offer_that_nobody_pays_expires_after_a_calendar_month(house: House, mode: str):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode=mode)
    await advance(house, escrow.created_at + 32 * DAY)
    after = await reread(house, escrow.id)
    assert (after.status, after.cancel_reason) == ("cancelled", "expired")
    assert after.cancelled_at == months_later(escrow.created_at, 1)
    assert (await told(house, escrow.id))[-1] == (SU, "pending", "cancelled")
    assert await wallet(house, buyer.user_id) == FUNDS


async def test_a_cancelled_offer_is_told_to_the_other_party(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="standard")
    await act(house, buyer.actor, escrows.cancel(escrow.id))
    assert await told(house, escrow.id) == [
        ("escrow.created", None, "pending"),
        (SU, "pending", "cancelled"),
    ]
    mails = await mails_of(house, escrow)
    assert ("escrow_cancelled", shop.email) in mails
    assert ("escrow_cancelled", buyer.email) not in mails


async def test_one_persons_money_goes_round_through_several_escrows(house: House):
    """What one earns, one spends: from shop to shop until the fees have eaten their part."""
    first, second = await make_shop(house), await make_shop(house)
    buyer = await make_buyer(house, funds="100")
    for payer, seller, amount in (
        (buyer.actor, first, Decimal(100)),
        (first.actor, second, Decimal(95)),
        (second.actor, first, Decimal("90.25")),
    ):
        to = {v.user_id: v.email for v in (first, second, buyer)}[payer.user_id]
        escrow = await make_escrow(house, seller, buyer_email=to, mode="quick", amount=amount)
        await act(house, payer, escrows.pay(escrow.id))
        await act(house, seller.actor, escrows.deliver(escrow.id))
        await act(house, payer, escrows.complete(escrow.id))
    assert await wallet(house, first.user_id) == 85_737
    assert await wallet(house, second.user_id) == 0
    assert (await lines(house))["platform_fees"] == 100_000 - 85_737
