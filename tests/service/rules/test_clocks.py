"""What time does: each clock's moment, and how every step turns the clocks of every standing.

`standing` is escrows.md 4 written down once more, by hand; the rows and modes come from the table.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rules import proof
from service.rules.aggregate import Escrow
from service.rules.clocks import (
    ARMED_BY_OTHERS,
    CLOCKS,
    ENDED_BY_TIME,
    KINDS,
    Turn,
    due_step,
    is_paused,
    months_later,
    running,
    turn,
)
from service.rules.errors import Refused
from service.rules.escrow import FINAL, MODES, PROOF, STEPS, TABLE, Taken, choose, take
from service.rules.machine import CLOCK, NOWHERE, Movement, Role
from service.rules.policy import Policy
from tests.service.rules.samples import (
    ACTORS,
    NOW,
    brought,
    make_dispute,
    make_proof,
    make_request,
    make_sample,
    ripe,
)

POLICY = Policy()
DAY, HOUR = timedelta(days=1), timedelta(hours=1)


def taken(name: str, escrow: Escrow, role: Role, target: str | None = None) -> Taken:
    """The step, chosen and taken by this role with what it brings along."""
    row = choose(name, escrow, ACTORS[role], target)
    part = escrow.held_minor if row.moves is Movement.SPLIT else None
    changed = brought(row, escrow, role)
    return take(row, escrow, ACTORS[role], NOW, changed=changed, sellers_part=part)


def turned(name: str, escrow: Escrow, role: Role, target: str | None = None) -> Turn:
    one = taken(name, escrow, role, target)
    return turn(one.before, one.after, NOW, POLICY)


def armed(escrow: Escrow, policy: Policy = POLICY) -> dict[str, datetime]:
    """What a new escrow of this standing would arm."""
    return {kind: due for kind, due, _ in turn(None, escrow, NOW, policy).arms}


# 1. Moments --------------------------------------------------------------------------------------


def instant(text):
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("start", "months", "end"),
    [
        ("2026-01-15T10:00:00.123456", 1, "2026-02-15T10:00:00.123456"),
        ("2026-01-31T10:00:00", 1, "2026-02-28T10:00:00"),
        ("2024-01-31T10:00:00", 1, "2024-02-29T10:00:00"),
        ("2026-12-31T23:59:59", 1, "2027-01-31T23:59:59"),
        ("2026-03-31T00:00:00", 1, "2026-04-30T00:00:00"),
        ("2026-10-31T00:00:00", 4, "2027-02-28T00:00:00"),
        ("2024-02-29T00:00:00", 12, "2025-02-28T00:00:00"),
        ("2026-05-05T00:00:00", 120, "2036-05-05T00:00:00"),
    ],
)
def test_a_calendar_month_later_is_the_same_day_or_the_months_last(start, months, end):
    assert months_later(instant(start), months) == instant(end)


@given(st.integers(0, 6_000_000_000), st.integers(1, 120))
def test_months_later_never_leaves_its_month_and_never_goes_back(seconds, months):
    start = datetime.fromtimestamp(seconds, UTC)
    end = months_later(start, months)
    assert (end.year * 12 + end.month) - (start.year * 12 + start.month) == months
    assert end.day == start.day or (end.day < start.day and (end + DAY).day == 1)
    assert end.time() == start.time()


PAID = {"paid_at": NOW, "estimated_delivery_days": 3}


@pytest.mark.parametrize(
    ("escrow", "clocks"),
    [
        *((make_sample(mode, "pending"), {"expiry": months_later(NOW, 1)}) for mode in MODES),
        (make_sample("standard", "paid", **PAID), {"delivery_overdue": NOW + 3 * DAY}),
        (make_sample("quick", "paid", **PAID), {"delivery_overdue": NOW + 3 * DAY}),
        (make_sample("instant", "paid", **PAID),
         {"delivery_overdue": NOW + 3 * DAY, "overdue_refund": NOW + 6 * DAY}),
        *((make_sample(PROOF, "paid", proof=make_proof(phase), **PAID),
           {"delivery_overdue": NOW + 3 * DAY} | clock)
          for phase, clock in (
              (proof.WAITING, {"proof_upload": NOW + DAY}),
              (proof.REVIEW, {"proof_review": NOW + 36 * HOUR}),
              (proof.CORRECTION, {"proof_upload": NOW + DAY}),
              (proof.OPERATOR, {}),
              (proof.ACCEPTED, {}),
              (proof.TIMED_OUT, {}))),
        *((make_sample(mode, "delivered"), {"completion": NOW + 7 * DAY})
          for mode in ("standard", "quick", PROOF)),
        (make_sample("quick", "paid", cancellation=make_request(), **PAID),
         {"delivery_overdue": NOW + 3 * DAY, "cancellation_answer": NOW + 5 * DAY}),
        (make_sample("instant", "disputed", dispute=make_dispute(back_to="paid"), **PAID),
         {"delivery_overdue": NOW + 3 * DAY, "overdue_refund": NOW + 6 * DAY,
          "dispute_answer": NOW + 5 * DAY, "dispute_reminder": NOW + 4 * DAY}),
        (make_sample("instant", "completed"), {}),
        (make_sample("quick", "cancelled"), {}),
    ],
)  # fmt: skip
def test_each_clock_has_its_moment(escrow, clocks):
    assert armed(escrow) == clocks


def test_the_operators_figures_move_the_clocks():
    policy = Policy(
        expiry_months=2, completion_days=1, overdue_refund_days=9, cancellation_answer_days=2,
        dispute_answer_days=4,
    )  # fmt: skip
    paid = make_sample("instant", "paid", paid_at=NOW, estimated_delivery_days=1)
    asked = replace(paid, cancellation=make_request())
    assert armed(make_sample("instant", "pending"), policy) == {"expiry": months_later(NOW, 2)}
    assert armed(make_sample("quick", "delivered"), policy) == {"completion": NOW + DAY}
    assert armed(paid, policy)["overdue_refund"] == NOW + 10 * DAY
    assert armed(asked, policy)["cancellation_answer"] == NOW + 2 * DAY
    assert armed(make_sample("quick", "disputed"), policy)["dispute_answer"] == NOW + 4 * DAY


@pytest.mark.parametrize("paid_days_ago", [2, 4])
def test_the_notice_of_a_delivery_that_comes_back_goes_on_where_it_was_stopped(paid_days_ago):
    paid_at = NOW - paid_days_ago * DAY
    back = make_sample("quick", "delivered", paid_at=paid_at, estimated_delivery_days=3)
    turned_back = turned("reject_delivery", back, Role.BUYER)
    assert (turned_back.arms, turned_back.rearms) == ((), ("delivery_overdue",))


# 2. What runs ------------------------------------------------------------------------------------

BY_STATE = {
    "pending": {"expiry"},
    "paid": {"delivery_overdue"},
    "delivered": {"completion"},
    "completed": set(),
    "cancelled": set(),
}
BY_PHASE = {
    proof.WAITING: {"proof_upload"},
    proof.CORRECTION: {"proof_upload"},
    proof.REVIEW: {"proof_review"},
}


def standing(escrow: Escrow) -> dict[str, bool]:
    """Kind -> whether it stands still: what the specification says of this escrow."""
    is_disputed = escrow.status == "disputed"
    state = escrow.dispute.back_to if is_disputed and escrow.dispute else escrow.status
    kinds = set(BY_STATE[state])
    is_asked = escrow.cancellation is not None and escrow.cancellation.status == "pending"
    if state == "paid" and escrow.mode == "instant":
        kinds |= {"overdue_refund", "acknowledged"}
    if state == "paid" and escrow.proof is not None:
        kinds |= BY_PHASE.get(escrow.proof.phase, set())
    if state in ("paid", "delivered") and is_asked:
        kinds.add("cancellation_answer")
    frozen = kinds if is_disputed else {"completion", "acknowledged"} if is_asked else set()
    found = {kind: kind in frozen for kind in kinds}
    if is_disputed and escrow.dispute and escrow.dispute.answered_at is None:
        found |= {"dispute_answer": False, "dispute_reminder": False}
    return found


def before_each(row, mode) -> Iterator[tuple[Escrow, Role]]:
    """Every standing from which this row can be taken: request, phase, dispute; and by whom."""
    for role in sorted(row.who & set(ACTORS)):
        sample = ripe(row.name, make_sample(mode, row.source), role, row.target)
        for escrow in variants(sample):
            try:
                choose(row.name, escrow, ACTORS[role], row.target)
            except Refused:  # a guard bars it here
                continue
            yield escrow, role


def variants(escrow: Escrow) -> Iterator[Escrow]:
    requests = [escrow.cancellation]
    if escrow.status in ("paid", "delivered"):
        requests = [None, make_request(), make_request(status="rejected")]
    phases = [escrow.proof]
    if escrow.proof is not None and escrow.status == "paid":
        phases = [make_proof(phase) for phase in proof.PHASES if phase not in DEAD]
    disputes = [escrow.dispute]
    if escrow.dispute is not None:
        states = ("paid",) if escrow.mode == "instant" else ("paid", "delivered")
        disputes = [
            replace(escrow.dispute, back_to=state, answered_at=answered)
            for state in states
            for answered in (None, NOW)
        ]
    for request in requests:
        for phase in phases:
            for dispute in disputes:
                yield replace(escrow, cancellation=request, proof=phase, dispute=dispute)


DEAD = (proof.EXPIRED, proof.REJECTED)
"""The phases of a cancelled escrow."""
ROWS = [
    pytest.param(row, mode, id=f"{row.name}-{row.source}-{row.target}-{mode}")
    for row in STEPS
    if row.source != NOWHERE
    for mode in sorted(row.modes)
]


@pytest.mark.parametrize(("row", "mode"), ROWS)
def test_every_step_from_every_standing_turns_the_clocks_to_the_next_standing(row, mode):
    seen = 0
    for escrow, role in before_each(row, mode):
        one = taken(row.name, escrow, role, row.target)
        got, was = turn(one.before, one.after, NOW, POLICY), standing(escrow)
        assert (got.escrow_id, got.version) == (escrow.id, one.after.seq)
        seen += 1
        if one.after.status in FINAL:
            assert got == Turn(escrow.id, one.after.seq, stops_all=True)
            continue
        runs = standing(one.after)
        both = was.keys() & runs.keys()
        assert set(got.stops) == was.keys() - runs.keys()
        assert set(got.pauses) == {kind for kind in both if runs[kind] and not was[kind]}
        assert set(got.resumes) == {kind for kind in both if was[kind] and not runs[kind]}
        assert set(got.stays) == both
        again = {"delivery_overdue", "overdue_refund"} if escrow.paid_at else set()
        new = runs.keys() - was.keys() - ARMED_BY_OTHERS
        assert set(got.rearms) == new & again
        assert {kind: paused for kind, _, paused in got.arms} == {
            kind: runs[kind] for kind in new - again
        }
        assert not got.stops_all
    assert seen > 0


@pytest.mark.parametrize(("row", "mode"), ROWS)
def test_what_runs_and_what_stands_still_is_what_the_specification_says(row, mode):
    for escrow, _ in before_each(row, mode):
        assert {kind: is_paused(kind, escrow) for kind in running(escrow)} == standing(escrow)


# The same once more for the cases that matter most, each by its figures: step, from, who;
# what is stopped, paused, resumed, armed (* is armed standing still).
DELIVERED = make_sample("quick", "delivered")
ASKED = make_request()
CASES = [
    ("accept_pay", make_sample("quick"), "buyer", "expiry", "", "", "delivery_overdue"),
    ("accept_pay", make_sample("instant"), "buyer", "expiry", "", "",
     "delivery_overdue overdue_refund"),
    ("accept_pay", make_sample(PROOF), "buyer", "expiry", "", "", "proof_upload delivery_overdue"),
    ("deliver", make_sample("quick", "paid"), "seller", "delivery_overdue", "", "", "completion"),
    ("deliver", make_sample("quick", "paid", cancellation=ASKED), "seller", "delivery_overdue", "",
     "", "completion*"),
    ("reject_delivery", DELIVERED, "buyer", "completion", "", "", "delivery_overdue"),
    ("reject_delivery", replace(DELIVERED, cancellation=ASKED), "buyer", "completion", "", "",
     "delivery_overdue"),
    ("request_cancellation", DELIVERED, "buyer", "", "completion", "", "cancellation_answer"),
    ("request_cancellation", make_sample("instant", "paid"), "buyer", "", "acknowledged", "",
     "cancellation_answer"),
    ("request_cancellation", make_sample("quick", "paid"), "buyer", "", "", "",
     "cancellation_answer"),
    ("reject_cancellation", replace(DELIVERED, cancellation=ASKED), "seller",
     "cancellation_answer", "", "completion", ""),
    ("reject_cancellation", make_sample("instant", "paid", cancellation=ASKED), "seller",
     "cancellation_answer", "", "acknowledged", ""),
    ("dispute", DELIVERED, "buyer", "", "completion", "",
     "dispute_answer dispute_reminder"),
    ("dispute", replace(DELIVERED, cancellation=ASKED), "buyer", "cancellation_answer", "", "",
     "dispute_answer dispute_reminder"),
    ("dispute", make_sample("instant", "paid"), "seller", "",
     "delivery_overdue overdue_refund acknowledged", "", "dispute_answer dispute_reminder"),
    ("dispute", make_sample(PROOF, "paid"), "seller", "", "proof_upload delivery_overdue", "",
     "dispute_answer dispute_reminder"),
    ("answer_dispute", make_sample("quick", "disputed"), "seller",
     "dispute_answer dispute_reminder", "", "", ""),
    ("remind_dispute", make_sample("quick", "disputed"), "clock", "", "", "", ""),
    ("withdraw_dispute", make_sample("quick", "disputed"), "buyer",
     "dispute_answer dispute_reminder", "",
     "completion", ""),
    ("withdraw_dispute",
     make_sample("quick", "disputed", dispute=make_dispute(answered_at=NOW)), "buyer", "", "",
     "completion", ""),
    ("withdraw_dispute",
     make_sample("instant", "disputed"), "buyer",
     "dispute_answer dispute_reminder", "",
     "delivery_overdue overdue_refund acknowledged", ""),
    ("submit_proof", make_sample(PROOF, "paid"), "seller", "proof_upload", "", "", "proof_review"),
    ("request_correction", make_sample(PROOF, "paid", proof=make_proof(proof.REVIEW)), "buyer",
     "proof_review", "", "", "proof_upload"),
    ("accept_proof", make_sample(PROOF, "paid", proof=make_proof(proof.REVIEW)), "buyer",
     "proof_review", "", "", ""),
    ("pass_proof", make_sample(PROOF, "paid", proof=make_proof(proof.REVIEW)), "clock",
     "proof_review", "", "", ""),
    ("escalate_proof", make_sample(PROOF, "paid", proof=make_proof(proof.CORRECTION)), "clock",
     "proof_upload", "", "", ""),
    ("note_overdue", make_sample("instant", "paid"), "clock", "", "", "", ""),
    ("freeze", DELIVERED, "system", "", "", "", ""),
    ("link_party", DELIVERED, "system", "", "", "", ""),
    ("update", make_sample("quick"), "seller", "", "", "", ""),
]  # fmt: skip


@pytest.mark.parametrize(("name", "escrow", "who", "stops", "pauses", "resumes", "arms"), CASES)
def test_a_step_stops_pauses_resumes_and_arms(name, escrow, who, stops, pauses, resumes, arms):
    escrow = replace(escrow, paid_at=escrow.paid_at and NOW - HOUR)
    got = turned(name, escrow, Role(who))
    assert sorted(got.stops) == sorted(stops.split())
    assert sorted(got.pauses) == sorted(pauses.split())
    assert sorted(got.resumes) == sorted(resumes.split())
    told = [f"{kind}{'*' if paused else ''}" for kind, _, paused in got.arms] + [*got.rearms]
    assert sorted(told) == sorted(arms.split())


@pytest.mark.parametrize("mode", MODES)
def test_every_final_step_stops_everything(mode):
    for row in STEPS:
        if mode in row.modes and row.target in FINAL and row.name != "freeze":
            for escrow, role in before_each(row, mode):
                if row.source not in FINAL:
                    assert turned(row.name, escrow, role, row.target).stops_all


def test_a_delivery_that_is_rejected_leaves_the_request_its_time_and_turns_its_end():
    """Five days from the asking, whatever was delivered meanwhile: then by the state it is in."""
    escrow = make_sample("quick", "delivered", cancellation=make_request())
    got = turned("reject_delivery", escrow, Role.BUYER)
    every = {*got.stops, *got.pauses, *got.resumes, *(kind for kind, *_ in got.arms)}
    assert "cancellation_answer" not in every
    after = taken("reject_delivery", escrow, Role.BUYER).after
    assert due_step("cancellation_answer", escrow) == ("reject_cancellation", None)
    assert due_step("cancellation_answer", after) == ("accept_cancellation", None)


# 3. Which step the clock takes -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "escrow", "step"),
    [
        ("expiry", make_sample("quick"), ("cancel", None)),
        ("delivery_overdue", make_sample("quick", "paid"), ("note_overdue", None)),
        ("overdue_refund", make_sample("instant", "paid"), ("refund_overdue", None)),
        ("acknowledged", make_sample("instant", "paid"), ("deliver", None)),
        ("completion", DELIVERED, ("complete", None)),
        ("cancellation_answer", make_sample("quick", "paid", cancellation=ASKED),
         ("accept_cancellation", None)),
        ("cancellation_answer", make_sample("instant", "paid", cancellation=ASKED),
         ("accept_cancellation", None)),
        ("cancellation_answer", replace(DELIVERED, cancellation=ASKED),
         ("reject_cancellation", None)),
        ("dispute_answer", make_sample("quick", "disputed", dispute=make_dispute("buyer")),
         ("resolve_dispute", "cancelled")),
        ("dispute_answer", make_sample("quick", "disputed", dispute=make_dispute("seller")),
         ("resolve_dispute", "completed")),
        ("dispute_reminder", make_sample("quick", "disputed"), ("remind_dispute", None)),
        ("proof_upload", make_sample(PROOF, "paid"), ("expire_proof", None)),
        ("proof_upload", make_sample(PROOF, "paid", proof=make_proof(proof.CORRECTION)),
         ("escalate_proof", None)),
        ("proof_review", make_sample(PROOF, "paid", proof=make_proof(proof.REVIEW)),
         ("pass_proof", None)),
    ],
)  # fmt: skip
def test_the_clock_takes_the_step_of_the_standing(kind, escrow, step):
    assert due_step(kind, escrow) == step
    assert choose(step[0], escrow, CLOCK, step[1]).name == step[0]


def test_every_clock_that_runs_takes_a_step_that_the_table_gives_the_clock():
    for row in STEPS:
        for mode in row.modes if row.source != NOWHERE else ():
            for escrow, _ in before_each(row, mode):
                for kind in running(escrow):
                    if not is_paused(kind, escrow):
                        name, target = due_step(kind, escrow)
                        assert Role.CLOCK in choose(name, escrow, CLOCK, target).who


def test_a_clock_that_does_not_run_takes_no_step():
    with pytest.raises(KeyError):
        due_step("completion", make_sample("quick", "paid"))


def test_every_clock_takes_a_step_that_the_clock_may_take_in_its_state():
    for clock in CLOCKS:
        for mode in clock.modes:
            targets = {r.target for r in TABLE.legal(clock.state, mode) if r.name == clock.step}
            assert targets, (clock.kind, mode)
            for target in targets:
                row = TABLE.find(clock.step, clock.state, mode, target)
                assert row is not None
                assert Role.CLOCK in row.who, (clock.kind, mode)
    assert {clock.kind for clock in CLOCKS} == KINDS


def test_what_time_ends_in_a_state_whatever_its_standing():
    assert set(ENDED_BY_TIME) == {
        *((mode, "pending", "expiry") for mode in MODES),
        ("instant", "paid", "overdue_refund"),
        *((mode, "delivered", "completion") for mode in ("standard", "quick", PROOF)),
    }
