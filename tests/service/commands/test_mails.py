"""Which step tells whom, that a mail is written once, and what the mailbox shows."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from service.commands import escrows
from service.commands.mails import WAITS_SECONDS, announcements, missed, open_mailbox, write_notices
from service.commands.perform import House
from service.rules.aggregate import Escrow, Person
from service.rules.escrow import STEPS, Taken
from service.rules.machine import CLOCK, Actor, ActorKind, Role
from service.store.clock import read_clock
from service.store.mails import Mail, read_mail_troubles
from service.words.mails import SCRIPTS
from tests.makers import (
    act,
    advance,
    arrange,
    make_buyer,
    make_escrow,
    make_shop,
)
from tests.outbox import WORDS, mails_of, send_all

SELLER, BUYER = "seller", "buyer"


async def told(house: House, escrow: Escrow, template: str) -> list[str]:
    return sorted(to for name, to in await mails_of(house, escrow) if name == template)


async def by(house: House, **days: float) -> None:
    await advance(house, (await read_clock(house.pool)).now + timedelta(**days))


async def test_a_payment_is_receipted_to_both(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid")
    assert await told(house, escrow, "escrow_paid") == sorted([shop.email, buyer.email])


async def test_a_delivery_is_told_to_the_buyer_and_a_completion_to_both(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="completed")
    assert await told(house, escrow, "escrow_delivered") == [buyer.email]
    assert await told(house, escrow, "escrow_completed") == sorted([shop.email, buyer.email])


async def test_who_cancels_needs_no_mail_and_the_other_party_gets_one(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    mine = await make_escrow(house, shop, buyer, status="cancelled")
    assert await told(house, mine, "escrow_cancelled") == [buyer.email]
    theirs = await make_escrow(house, shop, buyer)
    await act(house, buyer.actor, escrows.cancel(theirs.id))
    assert await told(house, theirs, "escrow_cancelled") == [shop.email]


async def test_a_creator_who_is_no_party_cancels_and_both_are_told(house: House):
    shop, buyer, seller = await make_shop(house), await make_buyer(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", seller_email=seller.email)
    await act(house, shop.actor, escrows.cancel(escrow.id))
    assert await told(house, escrow, "escrow_cancelled") == sorted([seller.email, buyer.email])


async def test_an_expiry_is_told_to_both_also_to_who_never_registered(house: House):
    shop = await make_shop(house)
    escrow = await make_escrow(house, shop, buyer_email="new@example.org")
    await by(house, days=40)
    assert await told(house, escrow, "escrow_cancelled") == sorted([shop.email, "new@example.org"])


async def test_an_overdue_delivery_is_told_to_both_once_and_its_refund_to_both(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid", estimated_delivery_days=2)
    await by(house, days=3)
    assert await told(house, escrow, "delivery_overdue") == sorted([shop.email, buyer.email])
    await by(house, days=9)
    assert await told(house, escrow, "delivery_overdue") == sorted([shop.email, buyer.email])
    assert await told(house, escrow, "escrow_cancelled") == sorted([shop.email, buyer.email])


async def test_the_same_step_is_told_once_however_often_it_is_written(house: House):
    shop = await make_shop(house)
    escrow = await make_escrow(house, shop, status="paid")
    row = next(row for row in STEPS if row.name == "accept_pay")
    taken = Taken(row, replace(escrow, status="pending", funded_minor=0, seq=1), escrow)
    before = await mails_of(house, escrow)
    await arrange(house, lambda tx: write_notices(tx, [taken, taken]))
    assert await mails_of(house, escrow) == before


@pytest.mark.parametrize("row", STEPS, ids=lambda row: f"{row.name}-{row.source}-{row.target}")
def test_every_step_that_ends_an_escrow_or_moves_its_money_is_told(row: Any):
    people = {
        "seller": Person("1" * 24, "s@x.org", "S", "X"),
        "buyer": Person("2" * 24, "b@x.org", "B", "X"),
    }
    now: Any = None
    escrow = Escrow(
        id="0" * 24, mode="quick", status=row.source, creator_id="3" * 24, seller_email="s@x.org",
        buyer_email="b@x.org", title="T", currency="TND", ledger_currency="TND", amount_minor=1,
        fx_rate=now, amount_ledger_minor=1, escrow_fee_minor=0, estimated_delivery_days=1,
        created_at=now, updated_at=now, funded_minor=int(row.source != "pending"), **people,
    )  # fmt: skip
    taken = Taken(row, escrow, replace(escrow, status=row.target))
    mails = list(announcements(taken, CLOCK))
    ends_or_pays = row.target in ("completed", "cancelled") or row.moves != "none"
    changed = row.source != row.target
    if ends_or_pays and changed:
        assert {role for _, role in mails} == {Role.SELLER, Role.BUYER}
    assert {template for template, _ in mails} <= set(SCRIPTS)
    buyer = Actor(ActorKind.USER, user_id="2" * 24)
    if row.target == "cancelled" and row.source == "pending":
        assert [role for _, role in announcements(taken, buyer)] == [Role.SELLER]


async def test_the_mailbox_shows_what_was_sent_newest_first(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, status="paid", title="Une <b>caméra</b>")
    assert await open_mailbox(house.pool, WORDS, house.policy, house.vault) == []
    await send_all(house)
    everything = await open_mailbox(house.pool, WORDS, house.policy, house.vault)
    assert len(everything) == 3
    assert [m.sent_at for m in everything] == sorted((m.sent_at for m in everything), reverse=True)
    theirs = await open_mailbox(
        house.pool, WORDS, house.policy, house.vault, f"  {buyer.email.upper()} "
    )
    assert {mail.to for mail in theirs} == {buyer.email}
    assert [mail.subject for mail in theirs] == [
        "You paid 100.000 TND into escrow: Une <b>caméra</b>",
        f"New escrow: {_seller_name(escrow)} sells you Une <b>caméra</b> (100.000 TND)",
    ]
    assert theirs[0].links == [f"http://amana.test/dashboard/escrow/{escrow.id}"]
    assert "<b>" not in theirs[0].html


def _seller_name(escrow: Escrow) -> str:
    assert escrow.seller is not None
    return f"{escrow.seller.first_name} {escrow.seller.last_name}".strip()


async def test_mails_speak_the_language_of_the_escrow(house: House):
    shop = await make_shop(house)
    await make_escrow(house, shop, buyer_email="new@example.org", language="ar")
    await send_all(house)
    [mail] = await open_mailbox(house.pool, WORDS, house.policy, house.vault, "new@example.org")
    assert 'dir="rtl"' in mail.html
    assert "يبيعك" in mail.subject


async def test_what_never_arrived_is_no_trouble_before_it_was_tried(house: House):
    shop = await make_shop(house)
    escrow = await make_escrow(house, shop, buyer_email="new@example.org")
    assert await read_mail_troubles(house.pool, escrow.id) == []


def test_the_ladder_climbs_and_ends():
    now: Any = None
    mail = Mail(
        "0" * 24, "a@x.org", "t", "en", {}, None, "<m>", 1, now, None, is_moot=False, link=None
    )
    waits = []
    for attempt in range(1, len(WAITS_SECONDS) + 1):
        outcome = missed(replace(mail, attempt=attempt), "451", permanent=False, chance=0.5)
        assert outcome.state == "pending"
        assert outcome.wait is not None
        waits.append(outcome.wait.total_seconds())
    assert waits == [pytest.approx(seconds) for seconds in WAITS_SECONDS]
    assert sum(waits) > 48 * 3600
    last = missed(replace(mail, attempt=len(WAITS_SECONDS) + 1), "451", permanent=False, chance=0)
    assert (last.state, last.error) == ("failed", "451")
    first = missed(mail, "550", permanent=True, chance=0)
    assert (first.state, first.error) == ("failed", "550")
    spread = [missed(mail, "x", permanent=False, chance=chance).wait for chance in (0.0, 0.999)]
    assert spread[0] == timedelta(seconds=8)
    assert spread[1] is not None
    assert spread[1] < timedelta(seconds=12)
