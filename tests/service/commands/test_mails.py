"""Which step tells whom, that a mail is written once, and what the mailbox shows."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import orjson
import pytest

from service.commands import amendments, contracts, disputes, escrows, profiles
from service.commands.contracts import TYPED, Mark
from service.commands.expiries import WARNED_BEFORE, warn
from service.commands.mails import WAITS_SECONDS, announcements, missed, open_mailbox, write_notices
from service.commands.perform import House
from service.rules.aggregate import Escrow, Person
from service.rules.clocks import turn
from service.rules.dispute import Split
from service.rules.escrow import STEPS, Taken
from service.rules.machine import CLOCK, Actor, ActorKind, Role
from service.store.clock import read_clock
from service.store.mails import Mail, read_mail_troubles
from service.store.profiles import Profile
from service.wire.base import instant
from service.words.mails import SCRIPTS
from tests.makers import (
    act,
    advance,
    arrange,
    bring_on,
    make_buyer,
    make_escrow,
    make_shop,
)
from tests.outbox import WORDS, mails_of, send_all
from tests.service.commands.asking import bodies, clocks

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


async def times_of(house: House, escrow: Escrow, template: str) -> list[dict[str, Any]]:
    """What each mail of this template says of the escrow's times."""
    rows = await house.pool.fetch(
        "SELECT facts -> 'times' AS times FROM mail WHERE escrow_id = $1 AND template = $2",
        escrow.id,
        template,
    )
    return [orjson.loads(row["times"]) for row in rows]


async def test_after_a_dispute_mail_and_webhook_tell_the_time_that_was_left_and_not_the_first(
    house: House,
):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="instant", status="paid")
    await by(house, days=1)
    await bring_on(house, shop, escrow.id, "buyers_dispute")
    await by(house, days=4)
    await bring_on(house, shop, escrow.id, "buyers_withdrawal")
    standing = await clocks(house, escrow.id)
    late, back = standing["delivery_overdue"].due_at, standing["overdue_refund"].due_at
    assert escrow.paid_at is not None
    assert late > escrow.paid_at + timedelta(days=6)
    await advance(house, late + timedelta(hours=1))
    for times in await times_of(house, escrow, "delivery_overdue"):
        assert (times["delivery_due_at"], times["refund_due_at"]) == (instant(late), instant(back))
    assert len(await times_of(house, escrow, "delivery_overdue")) == 2
    [overdue] = [
        one for one in await bodies(house, escrow.id) if one["type"] == "escrow.delivery.overdue"
    ]
    assert overdue["data"]["overdueSince"] == instant(late)


async def test_a_delivery_under_a_request_to_cancel_is_told_without_a_date_and_says_why(
    house: House,
):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(
        house, shop, buyer, mode="quick", status="paid", then=("request_cancellation", "deliver")
    )
    [times] = await times_of(house, escrow, "escrow_delivered")
    assert times["completion_due_at"] is None
    await send_all(house)
    [mail] = [
        one
        for one in await open_mailbox(house.pool, WORDS, house.policy, house.vault, buyer.email)
        if "delivered" in one.subject
    ]
    assert "the clock stands still" in mail.text


async def test_a_delivery_tells_its_completion_as_the_clock_has_it(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="delivered")
    [times] = await times_of(house, escrow, "escrow_delivered")
    due = (await clocks(house, escrow.id))["completion"].due_at
    assert times["completion_due_at"] == instant(due)
    for paid in await times_of(house, escrow, "escrow_paid"):
        assert escrow.paid_at is not None
        assert paid["delivery_due_at"] == instant(escrow.paid_at + timedelta(days=3))


async def test_the_same_step_is_told_once_however_often_it_is_written(house: House):
    shop = await make_shop(house)
    escrow = await make_escrow(house, shop, status="paid")
    row = next(row for row in STEPS if row.name == "accept_pay")
    taken = Taken(row, replace(escrow, status="pending", funded_minor=0, seq=1), escrow)
    turned = turn(taken.before, taken.after, escrow.updated_at, house.policy)
    before = await mails_of(house, escrow)
    await arrange(house, lambda tx: write_notices(tx, [taken] * 2, [turned] * 2))
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


async def test_times_are_told_in_the_zone_that_each_reader_has_chosen(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    chosen = Profile("Bo", "Yer", "fr", "Asia/Tokyo")
    await act(house, buyer.actor, profiles.change(buyer.user_id, chosen))
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="paid")
    for role, zone in ((SELLER, house.policy.timezone), (BUYER, "Asia/Tokyo")):
        person = {SELLER: shop.email, BUYER: buyer.email}[role]
        for template in ("escrow_notice", "escrow_paid"):
            if (template, role) != ("escrow_notice", SELLER):
                [said] = await said_to(house, person, template)
                assert said["timezone"] == zone
                assert said["language"] == escrow.language == "en"
    await send_all(house)
    mails = await open_mailbox(house.pool, WORDS, house.policy, house.vault, buyer.email)
    assert all("Tokyo time, GMT+09:00" in mail.text for mail in mails)


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


# ---- Each step's mail, to the right side, in the language of the escrow -----------------------


async def said_to(house: House, email: str, template: str) -> list[dict[str, Any]]:
    """Facts and language of this person's mails of this template."""
    rows = await house.pool.fetch(
        "SELECT facts, language FROM mail WHERE recipient = $1 AND template = $2 ORDER BY id",
        email,
        template,
    )
    return [{**orjson.loads(row["facts"]), "language": row["language"]} for row in rows]


@pytest.mark.parametrize(
    ("mode", "status", "then", "template", "sides"),
    [
        ("quick", "delivered", ("reject_delivery",), "delivery_rejected", {SELLER}),
        ("quick", "paid", ("request_cancellation",), "cancellation_requested", {SELLER}),
        ("quick", "delivered", ("request_cancellation",), "cancellation_requested", {SELLER}),
        ("quick", "paid", ("request_cancellation", "reject_cancellation"),
         "cancellation_rejected", {BUYER}),
        ("quick", "paid", ("request_cancellation", "accept_cancellation"),
         "escrow_cancelled", {SELLER, BUYER}),
        ("quick", "paid", ("cancel_escrow",), "escrow_cancelled", {SELLER, BUYER}),
        ("quick", "paid", ("buyers_dispute",), "dispute_opened", {SELLER}),
        ("quick", "paid", ("buyers_dispute", "buyers_withdrawal"), "dispute_withdrawn", {SELLER}),
        ("quick_proof", "paid", (), "escrow_paid", {SELLER, BUYER}),
        ("quick_proof", "paid", ("submit_proof",), "proof_submitted", {BUYER}),
        ("quick_proof", "paid", ("submit_proof", "request_correction"),
         "proof_correction", {SELLER}),
        ("quick_proof", "paid", ("submit_proof", "accept_proof"), "proof_accepted", {SELLER}),
        ("quick_proof", "paid", ("submit_proof", "request_correction") * 4,
         "proof_needs_review", {SELLER, BUYER}),
    ],
)  # fmt: skip
async def test_a_step_is_told_to_the_side_that_must_know_in_the_escrows_language(
    house: House, mode: str, status: str, then: tuple[str, ...], template: str, sides: set[str]
):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(
        house, shop, buyer, mode=mode, status=status, then=then, language="ar"
    )
    people = {SELLER: shop.email, BUYER: buyer.email}
    assert set(await told(house, escrow, template)) == {people[side] for side in sides}
    for side in sides:
        assert (await said_to(house, people[side], template))[-1]["language"] == "ar"
    await send_all(house)
    for email in people.values():
        for mail in await open_mailbox(house.pool, WORDS, house.policy, house.vault, email):
            assert 'dir="rtl"' in mail.html


async def test_a_signature_is_told_to_the_other_side_and_the_last_one_to_both(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="standard", status="paid")
    first = await told(house, escrow, "contract_signed")
    assert len(first) == 1
    assert await told(house, escrow, "contract_complete") == sorted([shop.email, buyer.email])


@pytest.mark.parametrize(
    ("mode", "change", "wiped"),
    [
        ("standard", {"amount": Decimal(120)}, True),
        ("standard", {"contract_terms": "Otherwise."}, True),
        ("quick", {"amount": Decimal(120)}, False),
        ("instant", {"amount": Decimal(120)}, False),
    ],
)
@pytest.mark.parametrize("third_party", [False, True])
async def test_a_changed_deal_is_told_to_whoever_did_not_change_it(
    house: House, mode: str, change: dict[str, Any], wiped: bool, third_party: bool
):
    shop, buyer, seller = [await make_shop(house), *[await make_buyer(house) for _ in range(2)]]
    sold_by = {"seller_email": seller.email} if third_party and mode != "instant" else {}
    escrow = await make_escrow(house, shop, buyer, mode=mode, **sold_by)
    if mode == "standard":
        await act(house, buyer.actor, contracts.sign(escrow.id, Mark(TYPED, name="Bo")))
    for changes in (change, {"title": "Another title"}, change):  # the last one changes nothing
        await act(house, shop.actor, amendments.update(escrow.id, amendments.Changes(**changes)))
    people = [buyer.email, *sold_by.values()]
    assert await told(house, escrow, "terms_changed") == sorted(people)
    await send_all(house)
    for email in people:
        mails = await open_mailbox(house.pool, WORDS, house.policy, house.vault, email)
        [mail] = [one for one in mails if one.subject.startswith("Changed: ")]
        assert ("was 100.000 TND; it is 120.000 TND now" in mail.text) is ("amount" in change)
        assert ("terms of the contract have changed" in mail.text) is ("contract_terms" in change)
        assert ("Signatures given before do not count" in mail.text) is wiped
        assert "Nothing is paid yet" in mail.text


async def test_what_a_party_changes_itself_is_told_to_the_other_one_only(house: House):
    shop, buyer, seller = [await make_shop(house), *[await make_buyer(house) for _ in range(2)]]
    escrow = await make_escrow(house, shop, buyer, mode="quick", seller_email=seller.email)
    changes = amendments.Changes(amount=Decimal(7))
    await act(house, seller.actor, amendments.update(escrow.id, changes))
    assert await told(house, escrow, "terms_changed") == [buyer.email]


@pytest.mark.parametrize("language", ["en", "fr", "ar"])
async def test_the_longest_terms_stand_in_no_mail(house: House, language: str):
    shop, buyer = await make_shop(house), await make_buyer(house)
    terms = ("Zyx <b>wvu</b> {{ 7*7 }} {title} \u202e📷\n" * 400)[:10_000]
    escrow = await make_escrow(
        house, shop, buyer, mode="standard", contract_terms=terms, language=language
    )
    await act(house, buyer.actor, contracts.sign(escrow.id, Mark(TYPED, name="Bo")))
    changes = amendments.Changes(contract_terms=terms.replace("Zyx", "Xyz"))
    await act(house, shop.actor, amendments.update(escrow.id, changes))
    await send_all(house)
    mails = await open_mailbox(house.pool, WORDS, house.policy, house.vault)
    assert {mail.to for mail in mails} == {shop.email, buyer.email}
    for mail in mails:
        for part in (mail.subject, mail.text, mail.html):
            assert not [said for said in ("wvu", "Zyx", "Xyz", "7*7") if said in part]


async def test_what_the_other_side_wrote_stands_in_the_mail(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", status="delivered")
    await act(house, buyer.actor, escrows.reject_delivery(escrow.id, "The <b>lens</b> is broken."))
    await send_all(house)
    mails = await open_mailbox(house.pool, WORDS, house.policy, house.vault, shop.email)
    [mail] = [one for one in mails if "rejected the delivery" in one.subject]
    assert "In their words: The <b>lens</b> is broken." in mail.text
    assert "<b>lens" not in mail.html


async def test_a_request_to_cancel_tells_by_when_to_answer_and_what_silence_does(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    for status, words in (("paid", "is returned"), ("delivered", "counts as declined")):
        escrow = await make_escrow(
            house, shop, buyer, mode="quick", status=status, then=("request_cancellation",),
            title=f"A {status} camera",
        )  # fmt: skip
        due = (await clocks(house, escrow.id))["cancellation_answer"].due_at
        [times] = await times_of(house, escrow, "cancellation_requested")
        assert times["request_due_at"] == instant(due)
        await send_all(house)
        mails = await open_mailbox(house.pool, WORDS, house.policy, house.vault, shop.email)
        [mail] = [one for one in mails if f"asks to cancel A {status} camera" in one.subject]
        assert words in mail.text


async def test_a_settled_dispute_says_what_each_side_got(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    operator = Actor(ActorKind.OPERATOR)
    for split, sellers, buyers in (
        (Split(100_000, 0), "95.000 TND was paid into your wallet", "100.000 TND was paid to"),
        (Split(0, 100_000), "100.000 TND was returned to", "100.000 TND was returned to you"),
        (Split(60_000, 40_000), "40.000 TND was returned to", "40.000 TND was returned to you"),
    ):
        escrow = await make_escrow(house, shop, buyer, mode="quick", status="disputed")
        await act(house, operator, disputes.resolve(escrow.id, split=split))
        await send_all(house)
        for email, words in ((shop.email, sellers), (buyer.email, buyers)):
            box = await open_mailbox(house.pool, WORDS, house.policy, house.vault, email)
            mail = next(one for one in box if one.subject.startswith("Dispute settled"))
            assert words in mail.text
            assert "Amana has decided so" in mail.text
        assert await told(house, escrow, "escrow_completed") == []
        assert await told(house, escrow, "escrow_cancelled") == []


async def test_a_proof_escrow_asks_the_seller_for_the_proof_before_the_delivery(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick_proof", status="paid")
    assert escrow.proof is not None
    [facts] = await said_to(house, shop.email, "escrow_paid")
    assert facts["times"]["proof_due_at"] == instant(escrow.proof.upload_deadline)
    await send_all(house)
    mails = await open_mailbox(house.pool, WORDS, house.policy, house.vault, shop.email)
    assert "First show your proof of purchase by" in mails[0].text


async def test_an_unpaid_escrow_is_warned_of_once_and_only_while_it_is_unpaid(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick")
    paid = await make_escrow(house, shop, buyer, mode="quick", status="paid")
    assert escrow.expires_at is not None
    assert await warn(house) == 0
    await advance(house, escrow.expires_at - WARNED_BEFORE + timedelta(minutes=1))
    assert [await warn(house), await warn(house)] == [1, 0]
    assert await told(house, escrow, "expiry_near") == sorted([shop.email, buyer.email])
    assert await told(house, paid, "expiry_near") == []


async def test_an_escrow_that_lives_for_days_only_is_not_warned_of(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick")
    await arrange(
        house,
        lambda tx: tx.execute(
            "UPDATE deadline SET due_at = $2 WHERE escrow_id = $1 AND kind = 'expiry'",
            escrow.id,
            escrow.created_at + timedelta(days=2),
        ),
    )
    assert await warn(house) == 0
