"""Whatever the tables make of an escrow has its words, in every language, for both parties."""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from service.ingress.pages import standing
from service.ingress.pages.tales import Hearing, tales
from service.rules import errors, proof
from service.rules.aggregate import Rejection, Settlement, Submission
from service.rules.clocks import CLOCKS, running
from service.rules.dispute import Offer, Split, Statement
from service.rules.escrow import FINAL, MODES, STATUSES
from service.rules.files import StoredFile
from service.rules.machine import Role
from service.rules.outlook import PARTIES, prospects
from service.rules.policy import Policy
from service.store.deadlines import Deadline
from service.wire.base import instant
from service.words.pages import Pages
from tests.service.rules.samples import NOW, make_dispute, make_proof, make_request, make_sample

HOSTILE = "<script>x</script>\u202e</bdi>\n\u2066second line"
POLICY = Policy()
STANDINGS = [
    make_sample(mode, status)
    for mode in MODES
    for status in STATUSES
    if (mode, status) != ("instant", "delivered")
]
DISPUTES = [
    make_dispute(outcome=outcome, resolved_at=NOW, settlement=settlement)
    for outcome, settlement in (
        ("seller", Settlement(100_000, 0, 5_000, 0, 95_000, "operator")),
        ("buyer", Settlement(0, 100_000, 0, 0, 0, "clock")),
        ("split", Settlement(60_000, 40_000, 3_000, 0, 57_000, "offer")),
        ("withdrawn", None),
    )
]
STANDINGS += [
    *(replace(make_sample("quick", "completed"), dispute=one) for one in DISPUTES),
    make_sample("quick", "disputed", dispute=make_dispute("seller", reason=HOSTILE)),
    make_sample("quick", "paid", frozen=True),
    *(
        make_sample("quick", "paid", cancellation=make_request(status=status, reason=reason))
        for status in ("pending", "accepted", "rejected", "closed")
        for reason in (None, HOSTILE)
    ),
    make_sample("quick", "paid", rejections=(Rejection(NOW, NOW, HOSTILE), Rejection(NOW, NOW))),
    *(make_sample("quick_proof", "paid", proof=make_proof(phase)) for phase in proof.PHASES),
    make_sample("quick", "pending", seller=None, buyer=None),
]
EVERY = pytest.mark.parametrize("escrow", STANDINGS, ids=lambda one: f"{one.mode}-{one.status}")
PAGES = Pages.read()


def voice(code="en"):
    return PAGES.voice(code, "Africa/Tunis", instant(NOW))


@pytest.mark.parametrize("code", ["en", "fr", "ar"])
@EVERY
def test_everything_that_an_escrow_may_be_is_said(escrow, code):
    speaks = voice(code)
    for role in PARTIES:
        told = standing.facts(escrow, role, NOW, POLICY)
        assert len(standing.people(escrow, role, speaks, told)) >= 2
        assert standing.amounts(escrow, speaks)
        assert standing.waiting(escrow, role, speaks)
        assert [one.words for one in standing.choices(escrow, role, speaks)]
        assert all(tale.says for tale in told_of(escrow, speaks))
        assert speaks.timeline(told)
        shown = standing.deadlines(escrow, opened(escrow), speaks, NOW)
        assert len(shown) == len(opened(escrow))


def told_of(escrow, speaks, hearing=None):
    return tales(escrow, hearing or Hearing(), speaks, "DHM", lambda key: f"/files/{key}")


def opened(escrow, remaining=None):
    """A deadline of each kind that runs and asks something of somebody."""
    return [
        Deadline(n, escrow.id, kind, "", NOW + timedelta(days=n + 1), remaining)
        for n, kind in enumerate(sorted(running(escrow)))
        if kind not in standing.UNSHOWN and escrow.status not in FINAL
    ]


def test_every_clock_is_told_about():
    told = {kind for escrow in STANDINGS for kind in running(escrow)}
    assert told == {clock.kind for clock in CLOCKS}


@EVERY
def test_a_step_is_offered_exactly_where_the_table_allows_it(escrow):
    for role in PARTIES:
        can = {one.step for one in prospects(escrow, role) if one.obstacle is None}
        can = {standing.PAGE_OF.get(step, step) for step in can} - standing.WITHOUT_PAGE
        offered = standing.choices(escrow, role, voice())
        assert {one.step for one in offered if one.obstacle is None} == can
        assert [one.step for one in offered] == sorted(
            (one.step for one in offered), key=standing.PAGES.index
        )


def test_what_stands_still_says_how_long_it_will_take_and_names_no_date():
    escrow = make_sample("quick", "delivered", cancellation=make_request())
    paused = Deadline(1, escrow.id, "completion", "", NOW, timedelta(days=3))
    [line] = standing.deadlines(escrow, [paused], voice(), NOW)
    assert "stands still" in line
    assert "in 3 days" in line
    assert "<time" not in line


def test_a_reason_that_was_typed_is_inert_and_keeps_its_lines():
    escrow = make_sample("quick", "disputed", dispute=make_dispute(reason=HOSTILE))
    [tale] = told_of(escrow, voice())
    assert tale.quote == "&lt;script&gt;x&lt;/script&gt;&lt;/bdi&gt;\nsecond line"


def test_what_was_said_and_offered_in_a_dispute_is_told_in_order_with_its_files():
    escrow = make_sample("quick", "disputed", dispute=make_dispute())
    file = StoredFile("a" * 64, "image/png", 10, "b" * 64, "<b>proof</b>.png")
    first = Statement("1" * 24, "d", "seller", "u", NOW, HOSTILE, (file,))
    offer = Offer("2" * 24, "d", "buyer", Split(60_000, 40_000), NOW + timedelta(hours=1))
    last = Statement("3" * 24, "d", "buyer", "u", NOW + timedelta(hours=2), None, (file,))
    told = told_of(escrow, voice(), Hearing([last, first], [offer]))
    assert [str(tale.says[0]).split(" ")[1] for tale in told] == [
        "buyer",
        "seller",
        "buyer",
        "buyer",
    ]
    assert told[1].files == [("<bdi>&lt;b&gt;proof&lt;/b&gt;.png</bdi>", f"/files/{'a' * 64}")]
    assert "60.000 TND" in told[2].says[0]
    assert told[3].quote is None
    for outcome in (None, "replaced", "accepted", "lapsed"):
        for code in ("en", "fr", "ar"):
            hearing = Hearing([], [replace(offer, outcome=outcome)])
            assert len(told_of(escrow, voice(code), hearing)[-1].says) == 2


def test_every_submission_of_a_proof_is_told_newest_first_with_what_was_asked_then():
    file = StoredFile("a" * 64, "image/png", 10, "b" * 64, "proof.png")
    given = (
        Submission("1" * 24, NOW, (file,), "first", "A sharper one"),
        Submission("2" * 24, NOW, (file,), None),
    )
    escrow = make_sample(
        "quick_proof", "paid", proof=replace(make_proof(proof.REVIEW), submissions=given)
    )
    told = told_of(escrow, voice())
    assert [len(tale.files) for tale in told] == [0, 1, 1, 0]
    assert told[-1].quote == "A sharper one"


def test_the_seller_sees_the_fees_and_what_is_left():
    escrow = make_sample("quick", "paid", developer_fee=10_000, creator_company="Shop & Co")
    rows = [(str(what), str(amount)) for what, amount in standing.amounts(escrow, voice())]
    figures = [amount.split(">")[1].split("<")[0] for _, amount in rows]
    assert figures == ["100.000 TND", "5.000 TND", "10.000 TND", "85.000 TND"]
    assert "<bdi>Shop &amp; Co</bdi>" in rows[2][0]


def test_another_currency_is_shown_with_its_rate():
    escrow = make_sample(
        "quick", "pending", currency="USD", amount_minor=3_000, fx_rate=Decimal("3.1200")
    )
    what, amount = standing.amounts(escrow, voice())[1]
    assert "3.12<" in what
    assert "100.000 TND" in amount


def test_a_split_shows_what_each_has_got():
    escrow = replace(make_sample("quick", "completed"), dispute=DISPUTES[2], refunded_minor=40_000)
    amounts = [str(amount) for _, amount in standing.amounts(escrow, voice())]
    assert [one.split(">")[1].split(" ")[0] for one in amounts] == [
        "100.000",
        "3.000",
        "57.000",
        "40.000",
    ]


@pytest.mark.parametrize(
    ("escrow", "role", "says"),
    [
        (make_sample("quick", "pending"), Role.BUYER, "It is your turn."),
        (make_sample("quick", "pending"), Role.SELLER, "The buyer is next."),
        (make_sample("quick", "pending", seller=None), Role.BUYER, "The seller is next."),
        (make_sample("quick", "paid"), Role.BUYER, "The seller is next."),
        (make_sample("quick", "disputed", dispute=make_dispute("buyer")), Role.SELLER,
         "It is your turn."),
        (make_sample("quick", "disputed", dispute=make_dispute("buyer", answered_at=NOW)),
         Role.SELLER, "Amana is looking into it; you do not need to do anything."),
        (make_sample("quick", "completed"), Role.BUYER,
         "This escrow is over; there is nothing more to do."),
    ],
)  # fmt: skip
def test_it_is_said_whose_turn_it_is(escrow, role, says):
    assert standing.waiting(escrow, role, voice()) == says


def test_a_refusal_is_told_in_a_sentence_for_people():
    escrow = make_sample("quick", "paid")
    assert "PAID" not in standing.why_not(
        errors.WrongStatus(status="paid", needed="x", act="y", hint=""), escrow, voice()
    )
    assert standing.why_not(errors.SellerNotReady(), escrow, voice()).startswith("The seller has")
