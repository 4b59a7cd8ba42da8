"""What a step does to the parts of an escrow: request to cancel, dispute, purchase proof."""

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.rules import proof
from service.rules.aggregate import Escrow, PurchaseProof, Settlement
from service.rules.clocks import turn
from service.rules.escrow import FINAL, PROOF, STEPS, Taken, choose, take
from service.rules.machine import NOWHERE, Movement, Role
from service.rules.money import MAX_MINOR
from service.rules.policy import Policy
from tests.service.rules.samples import (
    ACTORS,
    NOW,
    SELLER,
    brought,
    make_dispute,
    make_proof,
    make_request,
    make_sample,
    make_submission,
    ripe,
)

HOUR = timedelta(hours=1)
ROWS = pytest.mark.parametrize(
    "row",
    [row for row in STEPS if row.source != NOWHERE],
    ids=lambda row: f"{row.name}-{row.source}-{row.target}-{min(row.modes)}",
)


def step(
    name: str,
    escrow: Escrow,
    role: Role,
    target: str | None = None,
    *,
    now=NOW,
    part: int | None = None,
) -> Taken:
    """The step, chosen and taken by this role with what it brings along."""
    row = choose(name, escrow, ACTORS[role], target)
    if row.moves is Movement.SPLIT and part is None:
        part = escrow.held_minor
    changed = brought(row, escrow, role)
    return take(row, escrow, ACTORS[role], now, changed=changed, sellers_part=part)


def all_taken(row, **changes):
    for mode in sorted(row.modes):
        for role in sorted(row.who & set(ACTORS)):
            escrow = ripe(row.name, make_sample(mode, row.source), role, row.target)
            escrow = replace(escrow, **changes)
            part = 1 if row.moves is Movement.SPLIT else None
            changed = brought(row, escrow, role)
            yield take(row, escrow, ACTORS[role], NOW, changed=changed, sellers_part=part)


# 1. The request to cancel ------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["paid", "delivered"])
@pytest.mark.parametrize(("answer", "became"), [("accept", "accepted"), ("reject", "rejected")])
def test_the_sellers_answer_is_written_onto_the_request(status, answer, became):
    escrow = make_sample("quick", status, cancellation=make_request())
    after = step(f"{answer}_cancellation", escrow, Role.SELLER).after
    assert after.cancellation == make_request(status=became, answered_at=NOW, answered_by=SELLER)
    assert not after.has_pending_cancellation


@pytest.mark.parametrize(
    ("status", "name", "became"),
    [
        ("paid", "accept_cancellation", "accepted"),
        ("delivered", "reject_cancellation", "rejected"),
    ],
)
def test_where_time_answers_nobody_has(status, name, became):
    escrow = make_sample("quick", status, cancellation=make_request())
    after = step(name, escrow, Role.CLOCK).after
    assert after.cancellation == make_request(status=became, answered_at=NOW, answered_by=None)


@ROWS
def test_every_end_and_a_dispute_close_a_pending_request_and_nothing_else_touches_it(row):
    answered = ("accept_cancellation", "reject_cancellation")
    if row.source not in ("paid", "delivered") or row.name in (*answered, "request_cancellation"):
        return
    for taken in all_taken(row, cancellation=make_request()):
        closes = row.target in FINAL or row.name == "dispute"
        want = make_request(status="closed", answered_at=NOW) if closes else make_request()
        assert taken.after.cancellation == want, taken.after.mode


@ROWS
def test_a_request_that_is_answered_stays_as_it_is(row):
    old = make_request(status="rejected", answered_at=NOW - HOUR, answered_by=SELLER)
    asks = row.name in ("request_cancellation", "accept_cancellation", "reject_cancellation")
    for taken in () if asks else all_taken(row, cancellation=old):
        assert taken.after.cancellation == old


# 2. The dispute ----------------------------------------------------------------------------------


def disputed(amount=1_000_000, escrow_fee=50_000, developer_fee=100_000, **changes) -> Escrow:
    return make_sample(
        "quick",
        "disputed",
        amount=amount,
        escrow_fee=escrow_fee,
        developer_fee=developer_fee,
        **changes,
    )


def settled(taken: Taken) -> Settlement:
    assert taken.after.dispute is not None
    assert taken.after.dispute.settlement is not None
    return taken.after.dispute.settlement


def test_the_specifications_split():
    """1000 with fees 50 and 100, S = 333.333 -> 16.667 / 33.333 / 283.333."""
    taken = step("resolve_dispute", disputed(), Role.OPERATOR, "completed", part=333_333)
    assert settled(taken) == Settlement(333_333, 666_667, 16_667, 33_333, 283_333, "operator")
    assert taken.after.dispute == make_dispute(
        resolved_at=NOW, outcome="split", settlement=settled(taken)
    )
    after = taken.after
    assert (after.released_minor, after.refunded_minor, after.fees_minor) == (
        283_333,
        666_667,
        50_000,
    )
    assert (after.status, after.held_minor) == ("completed", 0)


@settings(deadline=None)
@given(st.data())
def test_a_settlements_parts_sum_to_what_was_held_and_to_the_sellers_part(data):
    amount = data.draw(st.integers(10, MAX_MINOR))
    platform = data.draw(st.integers(0, amount))
    developer = data.draw(st.integers(0, amount - platform))
    escrow = disputed(amount, platform, developer)
    part = data.draw(st.integers(0, amount))
    target = "completed" if part else "cancelled"
    taken = step("resolve_dispute", escrow, Role.OPERATOR, target, part=part or None)
    shared = settled(taken)
    assert (shared.seller_minor, shared.buyer_minor) == (part, amount - part)
    three = (shared.escrow_fee_minor, shared.developer_fee_minor, shared.seller_net_minor)
    assert sum(three) == part
    assert min(three) >= 0
    assert shared.seller_net_minor == taken.after.released_minor
    assert shared.escrow_fee_minor + shared.developer_fee_minor == taken.after.fees_minor
    assert shared.buyer_minor == taken.after.refunded_minor
    if part == amount:
        assert three == (platform, developer, amount - platform - developer)


@pytest.mark.parametrize(
    ("role", "target", "part", "outcome", "by"),
    [
        (Role.OPERATOR, "completed", None, "seller", "operator"),
        (Role.OPERATOR, "cancelled", None, "buyer", "operator"),
        (Role.OPERATOR, "completed", 1, "split", "operator"),
        (Role.CLOCK, "completed", None, "seller", "clock"),
        (Role.CLOCK, "cancelled", None, "buyer", "clock"),
        (Role.SELLER, "completed", 400_000, "split", "offer"),
        (Role.BUYER, "completed", None, "seller", "offer"),
        (Role.BUYER, "cancelled", None, "buyer", "offer"),
    ],
)
def test_a_dispute_ends_for_somebody_by_somebody(role, target, part, outcome, by):
    taken = step("resolve_dispute", disputed(), role, target, part=part)
    dispute = taken.after.dispute
    assert dispute is not None
    assert (dispute.outcome, dispute.resolved_at, dispute.is_open) == (outcome, NOW, False)
    assert settled(taken).resolved_by == by
    assert taken.after.cancel_reason == ("dispute" if target == "cancelled" else None)


@pytest.mark.parametrize("back_to", ["paid", "delivered"])
@pytest.mark.parametrize("opener", ["seller", "buyer"])
def test_a_dispute_that_is_taken_back_is_resolved_without_a_settlement(opener, back_to):
    dispute = make_dispute(opener, back_to)
    delivered_at = NOW - HOUR if back_to == "delivered" else None
    escrow = disputed(dispute=dispute, delivered_at=delivered_at)
    taken = step("withdraw_dispute", escrow, Role(opener))
    assert taken.after.dispute == replace(dispute, resolved_at=NOW, outcome="withdrawn")
    assert (taken.after.status, taken.after.delivered_at) == (back_to, delivered_at)
    assert taken.after.held_minor == escrow.held_minor
    assert taken.postings == ()


@ROWS
def test_only_its_own_steps_touch_a_dispute(row):
    ended = make_dispute(resolved_at=NOW - HOUR, outcome="withdrawn")
    if row.name == "dispute" or row.source == "disputed":
        return
    for taken in all_taken(row, dispute=ended):
        assert taken.after.dispute == ended


def test_a_resolution_without_a_dispute_is_a_bug():
    escrow = disputed(dispute=None)
    row = choose("resolve_dispute", escrow, ACTORS[Role.OPERATOR], "cancelled")
    with pytest.raises(AssertionError, match="no dispute to end"):
        take(row, escrow, ACTORS[Role.OPERATOR], NOW)


# 3. The purchase proof ---------------------------------------------------------------------------


def of(taken: Taken) -> PurchaseProof:
    assert taken.after.proof is not None
    return taken.after.proof


def test_paying_a_proof_escrow_asks_for_a_proof_within_its_own_hours():
    hours = {"proofUploadDeadlineHours": 6, "buyerReviewDeadlineHours": 72}
    escrow = make_sample(PROOF, fulfillment_policy=hours)
    assert of(step("accept_pay", escrow, Role.BUYER)) == PurchaseProof(
        proof.WAITING, NOW + 6 * HOUR
    )
    for mode in ("standard", "quick", "instant"):
        assert step("accept_pay", make_sample(mode), Role.BUYER).after.proof is None


def paid(phase: str, **changes) -> Escrow:
    """Funded an hour ago: the upload is due in 23 hours."""
    standing = replace(make_proof(phase, NOW - HOUR), **changes)
    return make_sample(PROOF, "paid", paid_at=NOW - HOUR, proof=standing)


@pytest.mark.parametrize(
    ("late", "due"), [(-23 * HOUR, 23 * HOUR), (timedelta(0), 23 * HOUR), (23 * HOUR, 23 * HOUR)]
)
def test_the_review_is_due_its_hours_after_the_submission_or_the_upload_deadline(late, due):
    """Which comes later: whoever uploads early gives the buyer no less time."""
    escrow = paid(proof.WAITING)
    assert escrow.proof is not None
    upload = escrow.proof.upload_deadline
    now = NOW + late
    taken = step("submit_proof", escrow, Role.SELLER, now=now)
    shown = (make_submission(),)
    assert of(taken) == PurchaseProof(proof.REVIEW, upload, NOW + due + 12 * HOUR, 0, shown)
    assert of(taken).review_deadline == max(now, upload) + 12 * HOUR


def test_a_proof_that_comes_after_its_deadline_is_reviewed_from_then_on():
    escrow = paid(proof.WAITING)
    late = NOW + 30 * HOUR
    assert of(step("submit_proof", escrow, Role.SELLER, now=late)).review_deadline == (
        late + 12 * HOUR
    )


def test_a_correction_gets_a_fresh_upload_deadline_and_is_counted():
    first = step("request_correction", paid(proof.REVIEW), Role.BUYER)
    assert of(first) == PurchaseProof(proof.CORRECTION, NOW + 24 * HOUR, None, 1)
    again = step("submit_proof", first.after, Role.SELLER, now=NOW + 2 * HOUR)
    shown = (make_submission(),)
    assert of(again) == PurchaseProof(
        proof.REVIEW, NOW + 24 * HOUR, NOW + 36 * HOUR, correction_rounds=1, submissions=shown
    )
    second = step("request_correction", again.after, Role.BUYER, now=NOW + 3 * HOUR)
    assert of(second) == PurchaseProof(proof.CORRECTION, NOW + 27 * HOUR, None, 2, shown)


@pytest.mark.parametrize("row", proof.STEPS, ids=lambda row: f"{row.name}-{row.source}")
def test_the_escrows_step_moves_the_proof_as_its_own_table_says(row):
    for role in row.who:
        escrow = make_sample(PROOF) if row.source == NOWHERE else paid(row.source)
        taken = step(row.name, escrow, role)
        assert of(taken).phase == row.target
        assert taken.after.status == (
            "cancelled" if row.target in (proof.EXPIRED, proof.REJECTED) else "paid"
        )


@pytest.mark.parametrize(
    ("phase", "name", "role"),
    [
        (proof.REVIEW, "accept_proof", Role.BUYER),
        (proof.REVIEW, "pass_proof", Role.CLOCK),
        (proof.REVIEW, "escalate_proof", Role.BUYER),
        (proof.CORRECTION, "escalate_proof", Role.CLOCK),
        (proof.OPERATOR, "accept_proof", Role.OPERATOR),
        (proof.OPERATOR, "reject_proof", Role.OPERATOR),
        (proof.WAITING, "expire_proof", Role.CLOCK),
    ],
)
def test_a_decision_keeps_the_deadlines_and_the_count(phase, name, role):
    escrow = paid(phase)
    assert escrow.proof is not None
    taken = step(name, escrow, role)
    assert of(taken) == replace(escrow.proof, phase=of(taken).phase)


@ROWS
def test_a_step_that_is_not_the_proofs_leaves_it_alone(row):
    if row.name in {one.name for one in proof.STEPS} or row.name == "withdraw_dispute":
        return
    for taken in all_taken(row):
        assert taken.after.proof == taken.before.proof


@pytest.mark.parametrize(
    ("phase", "moved"),
    [
        (proof.WAITING, {"upload_deadline"}),
        (proof.CORRECTION, {"upload_deadline"}),
        (proof.REVIEW, {"review_deadline"}),
        (proof.OPERATOR, set()),
        (proof.ACCEPTED, set()),
    ],
)
def test_when_the_clocks_thaw_the_proofs_deadline_is_as_much_later(phase, moved):
    """The deadline that is shown is the one that fires: six hours of dispute are added to it."""
    standing = make_proof(phase, NOW - 10 * HOUR)
    escrow = make_sample(
        PROOF, "disputed", proof=standing, delivered_at=None,
        dispute=make_dispute("buyer", "paid", opened_at=NOW - 6 * HOUR),
    )  # fmt: skip
    after = of(step("withdraw_dispute", escrow, Role.BUYER))
    for name in ("upload_deadline", "review_deadline"):
        was = getattr(standing, name)
        assert getattr(after, name) == (was + 6 * HOUR if name in moved else was), name
    assert (after.phase, after.correction_rounds) == (phase, standing.correction_rounds)


def test_a_submission_after_a_dispute_is_reviewed_from_the_deadline_that_thawed():
    paid_at = NOW - 10 * HOUR
    escrow = make_sample(PROOF, "paid", paid_at=paid_at, proof=make_proof(paid_at=paid_at))
    opened = step("dispute", escrow, Role.SELLER).after
    back = step("withdraw_dispute", opened, Role.SELLER, now=NOW + 30 * HOUR).after
    assert turn(opened, back, NOW + 30 * HOUR, Policy()).resumes
    shown = step("submit_proof", back, Role.SELLER, now=NOW + 31 * HOUR)
    assert of(shown).review_deadline == paid_at + (24 + 30 + 12) * HOUR
