"""THE TABLE, cell by cell: what is legal gives its row, the rest its documented refusal.

`SPECIFIED` is escrows.md 4 written down once more, by hand; everything else here is generated
from the table, so that a new row is covered by being a row.
"""

from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.rules import errors, proof
from service.rules.escrow import (
    FINAL,
    FLAGS,
    GUARDS,
    MODES,
    PROOF,
    STATUSES,
    STEPS,
    TABLE,
    cancel_reason,
    choose,
    roles,
    take,
    wrong_state,
)
from service.rules.fees import shares
from service.rules.machine import CLOCK, NOWHERE, SYSTEM, Actor, ActorKind, Movement, Role
from service.rules.money import MAX_MINOR
from tests.service.rules.samples import (
    ACTORS,
    BUYER,
    CREATOR_ID,
    NOW,
    SELLER,
    STRANGER,
    STRANGER_ID,
    make_dispute,
    make_proof,
    make_request,
    make_sample,
    ripe,
    unsigned,
)

DAY = timedelta(days=1)
NAMES = sorted({row.name for row in STEPS} - {"create"})

# step, from, to, who, modes (standard quick proof instant), money, events (some are SHORT).
SPECIFIED = """
create               -         pending   developer          sqpi none    created
accept_pay           pending   paid      buyer              sqi  hold    status
accept_pay           pending   paid      buyer              p    hold    status proof.required
approve_deposit      pending   paid      operator           i    hold    status
reject_deposit       pending   pending   operator           i    none    deposit_proof.rejected
deliver              paid      delivered seller             sqp  none    status
complete             delivered completed buyer|clock        sqp  release status
deliver              paid      completed seller|clock       i    release status
reject_delivery      delivered paid      buyer              sqp  none    delivery.rejected status
cancel               pending   cancelled seller|buyer|creator|clock sqpi none status
cancel_escrow        paid      cancelled seller             sqpi refund  status
cancel_escrow        delivered cancelled seller             sqp  refund  status
request_cancellation paid      paid      buyer              sqpi none    cancel.requested
request_cancellation delivered delivered buyer              sqp  none    cancel.requested
accept_cancellation  paid      cancelled seller|clock       sqpi refund  cancel.accepted status
accept_cancellation  delivered cancelled seller             sqp  refund  cancel.accepted status
reject_cancellation  paid      paid      seller             sqpi none    cancel.rejected
reject_cancellation  delivered delivered seller|clock       sqp  none    cancel.rejected
expire_proof         paid      cancelled clock              p    refund  proof.expired status
reject_proof         paid      cancelled operator           p    refund  status
note_overdue         paid      paid      clock              sqpi none    delivery.overdue
refund_overdue       paid      cancelled clock              i    refund  status
dispute              paid      disputed  seller|buyer       sqpi none    status dispute.opened
dispute              delivered disputed  seller|buyer       sqp  none    status dispute.opened
answer_dispute       disputed  disputed  seller|buyer       sqpi none
remind_dispute       disputed  disputed  clock              sqpi none
resolve_dispute      disputed  completed operator|seller|buyer|clock sqpi split status resolved
resolve_dispute      disputed  cancelled operator|seller|buyer|clock sqpi refund status resolved
withdraw_dispute     disputed  paid      seller|buyer       sqpi none    status resolved
withdraw_dispute     disputed  delivered seller|buyer       sqp  none    status resolved
update               pending   pending   seller|creator     sqpi none    updated
sign_contract        pending   pending   seller|buyer       s    none    contract.signed
submit_proof         paid      paid      seller             p    none    proof.submitted
request_correction   paid      paid      buyer              p    none    proof.correction_requested
accept_proof         paid      paid      buyer|operator     p    none    proof.accepted
pass_proof           paid      paid      clock              p    none    proof.accepted_by_timeout
escalate_proof       paid      paid      buyer|clock        p    none    proof.needs_review
link_party           pending   pending   system             sqpi none    invitation.accepted
link_party           paid      paid      system             sqpi none    invitation.accepted
link_party           delivered delivered system             sqp  none    invitation.accepted
link_party           disputed  disputed  system             sqpi none    invitation.accepted
"""
LETTERS = {"s": "standard", "q": "quick", "p": "quick_proof", "i": "instant"}
SHORT = {event: event for event in ("contract.signed", "invitation.accepted")} | {
    "status": "escrow.status.updated",
    "resolved": "escrow.dispute.resolved",
    "cancel.requested": "escrow.cancellation.requested",
    "cancel.accepted": "escrow.cancellation.accepted",
    "cancel.rejected": "escrow.cancellation.rejected",
}


def specified():
    for line in SPECIFIED.strip().splitlines():
        name, source, target, who, modes, money, *events = line.split()
        yield (
            name,
            source,
            target,
            frozenset(who.split("|")),
            frozenset(LETTERS[letter] for letter in modes),
            money,
            tuple(SHORT.get(event, f"escrow.{event}") for event in events),
        )


def test_the_table_is_the_specifications():
    table = {
        (r.name, r.source, r.target, frozenset(map(str, r.who)), r.modes, str(r.moves), r.events)
        for r in STEPS
        if r.name not in FLAGS
    }
    assert table == set(specified())


def test_freezing_is_for_the_system_and_lifting_for_the_operator_in_every_state_that_a_mode_has():
    for name, who in (("freeze", Role.SYSTEM), ("unfreeze", Role.OPERATOR)):
        for mode in MODES:
            states = {s for s in STATUSES if mode != "instant" or s != "delivered"}
            assert TABLE.sources(name, mode) == states
        for row in (row for row in STEPS if row.name == name):
            assert (row.target, row.who, row.moves) == (row.source, {who}, Movement.NONE)
            assert row.events == ()


def test_nothing_leads_out_of_a_final_state_and_everything_else_has_a_way_out():
    for row in STEPS:
        assert row.source not in FINAL or row.name in FLAGS
    for mode in MODES:
        reached = {row.target for row in STEPS if mode in row.modes}
        for status in reached - FINAL:
            assert any(r.target != status for r in TABLE.legal(status, mode)), (mode, status)
        assert reached == set(STATUSES) - ({"delivered"} if mode == "instant" else set())


def test_a_step_out_of_a_state_is_one_row_a_mode_unless_a_target_tells_them_apart():
    seen = [(row.name, row.source, mode, row.target) for row in STEPS for mode in row.modes]
    assert len(seen) == len(set(seen))
    forks = {(n, s) for n, s, m, _ in seen if len([x for x in seen if x[:3] == (n, s, m)]) > 1}
    assert forks == {("resolve_dispute", "disputed"), ("withdraw_dispute", "disputed")}


def test_every_row_has_a_sentence():
    for row in STEPS:
        assert row.says.endswith("."), row
        assert row.says[0].isupper(), row


# 1. Who may do what, when: every cell ------------------------------------------------------------

# escrows.md 6, "Status codes elsewhere in the table", with 3.5 to 3.7 and the codes before it:
# step -> status -> what is said. `ELSEWHERE` is said in every status that is not named.
OFF_PAYMENT = {
    "paid": errors.PaymentAlreadyDone,
    "delivered": errors.PaymentAlreadyDone,
    "completed": errors.PaymentAlreadyDone,
    "disputed": errors.PaymentAlreadyDone,
    "cancelled": errors.EscrowCancelled,
}
OFF_COMPLETION = {
    "pending": errors.EscrowNotDelivered,
    "paid": errors.EscrowNotDelivered,
    "disputed": errors.EscrowNotDelivered,
    "completed": errors.EscrowAlreadyCompleted,
    "cancelled": errors.EscrowCancelled,
}
DOCUMENTED = {
    "accept_pay": OFF_PAYMENT,
    "approve_deposit": OFF_PAYMENT,
    "sign_contract": OFF_PAYMENT,
    "complete": OFF_COMPLETION,
    "reject_delivery": {"disputed": errors.DisputeOpen},
    "dispute": {"disputed": errors.DisputeAlreadyOpened},
}
ELSEWHERE = {
    "dispute": errors.DisputeInvalidStatus,
    "request_cancellation": errors.CancellationRequestInvalidStatus,
    "cancel_escrow": errors.CancelEscrowInvalidStatus,
    "accept_cancellation": errors.NoPendingCancellation,
    "reject_cancellation": errors.NoPendingCancellation,
    "answer_dispute": errors.NoOpenDispute,
    "remind_dispute": errors.NoOpenDispute,
    "resolve_dispute": errors.NoOpenDispute,
    "withdraw_dispute": errors.NoOpenDispute,
    "submit_proof": errors.ProofWrongPhase,
    "request_correction": errors.ProofWrongPhase,
    "accept_proof": errors.ProofWrongPhase,
    "pass_proof": errors.ProofWrongPhase,
    "escalate_proof": errors.ProofWrongPhase,
    "expire_proof": errors.ProofWrongPhase,
    "reject_proof": errors.ProofWrongPhase,
}


def rows_of(name, mode, status=None):
    return [
        row
        for row in STEPS
        if row.name == name and mode in row.modes and status in (None, row.source)
    ]


def expected(mode, status, name, role, target):
    """The row, or the class of the refusal; nothing else stands in the step's way."""
    of_step, here = rows_of(name, mode), rows_of(name, mode, status)
    if of_step and not any(role in row.who for row in of_step):
        return errors.WrongParty
    if not of_step:
        is_open = name == "reject_delivery" and status == "disputed"
        return errors.DisputeOpen if is_open else errors.WrongStatus
    if not here:
        elsewhere = ELSEWHERE.get(name, errors.WrongStatus)
        return DOCUMENTED.get(name, {}).get(status, elsewhere)
    row = next(row for row in here if row.target == target)
    if role not in row.who:
        return errors.WrongParty
    of_phase = [row for row in proof.STEPS if row.name == name and role in row.who]
    if mode == PROOF and name in ELSEWHERE and rows_of_proof(name) and not of_phase:
        return errors.ProofWrongPhase
    return row


def rows_of_proof(name):
    return [row for row in proof.STEPS if row.name == name]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", MODES)
def test_every_cell_gives_its_row_or_its_documented_refusal(mode, name):
    for status in STATUSES:
        for role, actor in ACTORS.items():
            for target in {row.target for row in rows_of(name, mode, status)} or {None}:
                escrow = ripe(name, make_sample(mode, status), role, target)
                want = expected(mode, status, name, role, target)
                if name == "withdraw_dispute" and role not in ("seller", "buyer"):
                    want = errors.WrongParty
                cell = (mode, status, name, role, target)
                if isinstance(want, type):
                    with pytest.raises(errors.Refused) as refused:
                        choose(name, escrow, actor, target)
                    assert type(refused.value) is want, cell
                else:
                    assert choose(name, escrow, actor, target) is want, cell


@pytest.mark.parametrize(
    ("name", "status", "code"),
    [
        ("sign_contract", "paid", "PAYMENT_ALREADY_DONE"),
        ("sign_contract", "delivered", "PAYMENT_ALREADY_DONE"),
        ("sign_contract", "completed", "PAYMENT_ALREADY_DONE"),
        ("sign_contract", "disputed", "PAYMENT_ALREADY_DONE"),
        ("sign_contract", "cancelled", "ESCROW_CANCELLED"),
        ("accept_pay", "paid", "PAYMENT_ALREADY_DONE"),
        ("accept_pay", "delivered", "PAYMENT_ALREADY_DONE"),
        ("accept_pay", "completed", "PAYMENT_ALREADY_DONE"),
        ("accept_pay", "disputed", "PAYMENT_ALREADY_DONE"),
        ("accept_pay", "cancelled", "ESCROW_CANCELLED"),
        ("complete", "pending", "ESCROW_NOT_DELIVERED"),
        ("complete", "paid", "ESCROW_NOT_DELIVERED"),
        ("complete", "disputed", "ESCROW_NOT_DELIVERED"),
        ("complete", "completed", "ESCROW_ALREADY_COMPLETED"),
        ("complete", "cancelled", "ESCROW_CANCELLED"),
        ("dispute", "disputed", "DISPUTE_ALREADY_OPENED"),
        ("dispute", "pending", "DISPUTE_INVALID_STATUS"),
        ("dispute", "completed", "DISPUTE_INVALID_STATUS"),
        ("dispute", "cancelled", "DISPUTE_INVALID_STATUS"),
        ("request_cancellation", "pending", "CANCELLATION_REQUEST_INVALID_STATUS"),
        ("request_cancellation", "completed", "CANCELLATION_REQUEST_INVALID_STATUS"),
        ("request_cancellation", "cancelled", "CANCELLATION_REQUEST_INVALID_STATUS"),
        ("request_cancellation", "disputed", "CANCELLATION_REQUEST_INVALID_STATUS"),
        ("cancel_escrow", "pending", "CANCEL_ESCROW_INVALID_STATUS"),
        ("cancel_escrow", "completed", "CANCEL_ESCROW_INVALID_STATUS"),
        ("cancel_escrow", "cancelled", "CANCEL_ESCROW_INVALID_STATUS"),
        ("cancel_escrow", "disputed", "CANCEL_ESCROW_INVALID_STATUS"),
        ("accept_cancellation", "pending", "NO_PENDING_CANCELLATION"),
        ("reject_cancellation", "disputed", "NO_PENDING_CANCELLATION"),
        ("answer_dispute", "paid", "NO_OPEN_DISPUTE"),
        ("withdraw_dispute", "delivered", "NO_OPEN_DISPUTE"),
        ("withdraw_dispute", "completed", "NO_OPEN_DISPUTE"),
    ],
)
def test_a_step_in_another_status_has_the_code_of_the_specification(name, status, code):
    mode = "standard" if name == "sign_contract" else "quick"
    assert wrong_state(name, make_sample(mode, status)).code == code


@pytest.mark.parametrize("name", sorted({row.name for row in proof.STEPS} - {"accept_pay"}))
def test_a_step_of_the_proof_off_paid_has_the_wrong_phase(name):
    for status in set(STATUSES) - {"paid"}:
        assert wrong_state(name, make_sample(PROOF, status)).code == "PROOF_WRONG_PHASE"


@pytest.mark.parametrize("name", sorted(set(NAMES) - set(FLAGS)))
@pytest.mark.parametrize("mode", MODES)
def test_a_frozen_escrow_takes_no_step_from_whoever_could_take_it(mode, name):
    who = {role for row in rows_of(name, mode) for role in row.who}
    for status in STATUSES:
        escrow = make_sample(mode, status, frozen=True)
        for role, actor in ACTORS.items():
            want = errors.WrongParty if who and role not in who else errors.EscrowFrozen
            with pytest.raises(want):
                choose(name, escrow, actor)


@pytest.mark.parametrize("status", STATUSES)
@pytest.mark.parametrize("mode", MODES)
def test_a_stranger_takes_no_step_that_the_mode_has(mode, status):
    escrow = make_sample(mode, status)
    for name in NAMES:
        if any(row.name == name and mode in row.modes for row in STEPS):
            with pytest.raises(errors.WrongParty):
                choose(name, escrow, STRANGER)


def test_the_target_picks_among_the_ways_out_of_a_dispute():
    escrow = make_sample("quick", "disputed")
    for target in ("completed", "cancelled"):
        row = choose("resolve_dispute", escrow, ACTORS[Role.OPERATOR], target)
        assert row.target == target


@pytest.mark.parametrize("back_to", ["paid", "delivered"])
def test_a_dispute_that_is_taken_back_leads_where_it_came_from_whatever_is_asked(back_to):
    escrow = make_sample("quick", "disputed", dispute=make_dispute(back_to=back_to))
    for asked in (None, "paid", "delivered"):
        assert choose("withdraw_dispute", escrow, ACTORS[Role.BUYER], asked).target == back_to


# What stands against a step beyond the table, in a state where its row is legal.
UNSIGNED = unsigned(make_sample("standard", "pending"))
GUARDED = [
    ("accept_pay", UNSIGNED, Role.BUYER, "CONTRACT_NOT_SIGNED"),
    ("accept_pay", make_sample("quick", "pending", seller=None), Role.BUYER, "SELLER_NOT_READY"),
    ("sign_contract", make_sample("standard"), Role.SELLER, "CONTRACT_ALREADY_SIGNED"),
    ("sign_contract", make_sample("standard"), Role.BUYER, "CONTRACT_ALREADY_SIGNED"),
    ("deliver", make_sample("instant", "paid", cancellation=make_request()), Role.SELLER,
     "CANCELLATION_PENDING"),
    ("deliver", make_sample("instant", "paid", cancellation=make_request()), Role.CLOCK,
     "CANCELLATION_PENDING"),
    *(
        ("deliver", make_sample(PROOF, "paid", proof=make_proof(phase)), Role.SELLER,
         "PROOF_NOT_ACCEPTED")
        for phase in proof.PHASES
        if phase not in proof.OPEN_GATE
    ),
    *(
        ("request_cancellation",
         make_sample("quick", status, cancellation=make_request()), Role.BUYER,
         "CANCELLATION_ALREADY_REQUESTED")
        for status in ("paid", "delivered")
    ),
    *(
        (f"{answer}_cancellation", make_sample("quick", status, cancellation=request), Role.SELLER,
         "NO_PENDING_CANCELLATION")
        for answer in ("accept", "reject")
        for status in ("paid", "delivered")
        for request in (None, *(make_request(status=one) for one in ("rejected", "closed")))
    ),
    ("withdraw_dispute", make_sample("quick", "disputed", dispute=make_dispute("buyer")),
     Role.SELLER, None),
    ("withdraw_dispute", make_sample("quick", "disputed", dispute=make_dispute("seller")),
     Role.BUYER, None),
    *(
        (name, make_sample(PROOF, "paid", proof=make_proof(phase)), role, "PROOF_WRONG_PHASE")
        for name in sorted({row.name for row in proof.STEPS} - {"accept_pay"})
        for phase in proof.PHASES
        for role in (Role.SELLER, Role.BUYER, Role.OPERATOR, Role.CLOCK)
        if any(role in row.who for row in rows_of(name, PROOF, "paid"))
        and not any(
            (row.name, row.source) == (name, phase) and role in row.who for row in proof.STEPS
        )
    ),
]  # fmt: skip


@pytest.mark.parametrize(("name", "escrow", "role", "code"), GUARDED)
def test_what_stands_against_a_step_beyond_the_table_is_said_by_its_code(name, escrow, role, code):
    assert TABLE.sources(name, escrow.mode) >= {escrow.status}
    with pytest.raises(errors.Refused) as refused:
        choose(name, escrow, ACTORS[role])
    assert refused.value.code == code
    assert code is not None or type(refused.value) is errors.WrongParty


def test_every_guard_has_refused_something():
    assert {name for name, *_ in GUARDED} == set(GUARDS)


@pytest.mark.parametrize("phase", sorted(proof.OPEN_GATE))
def test_an_accepted_proof_opens_the_gate(phase):
    escrow = make_sample(PROOF, "paid", proof=make_proof(phase))
    assert choose("deliver", escrow, ACTORS[Role.SELLER]).target == "delivered"


@pytest.mark.parametrize("mode", ["standard", "quick"])
def test_standard_and_quick_escrows_may_be_delivered_while_a_request_is_pending(mode):
    escrow = make_sample(mode, "paid", cancellation=make_request())
    assert choose("deliver", escrow, ACTORS[Role.SELLER]).target == "delivered"


def test_a_buyer_who_was_declined_may_ask_again():
    escrow = make_sample("quick", "paid", cancellation=make_request(status="rejected"))
    assert choose("request_cancellation", escrow, ACTORS[Role.BUYER]).name == "request_cancellation"


@pytest.mark.parametrize("side", ["seller", "buyer"])
def test_one_signature_bars_its_own_party_only(side):
    contract = UNSIGNED.contract
    assert contract is not None
    escrow = make_sample("standard", contract=replace(contract, **{f"{side}_signed_at": NOW}))
    other = Role.BUYER if side == "seller" else Role.SELLER
    assert choose("sign_contract", escrow, ACTORS[other]).name == "sign_contract"
    with pytest.raises(errors.ContractAlreadySigned):
        choose("sign_contract", escrow, ACTORS[Role(side)])
    with pytest.raises(errors.ContractNotSigned):
        choose("accept_pay", escrow, ACTORS[Role.BUYER])


def test_the_refusal_of_a_stranger_names_those_who_may():
    with pytest.raises(errors.WrongParty) as refused:
        choose("cancel", make_sample(), STRANGER)
    assert str(refused.value) == "Only the seller or buyer or creator can cancel this escrow."


def test_cancel_after_payment_points_to_the_checkout_sessions():
    refusal = wrong_state("cancel", make_sample("instant", "paid"))
    assert type(refusal) is errors.WrongStatus
    assert "request_cancellation" in str(refusal)
    assert "cancel_escrow" in str(refusal)


def test_a_wrong_status_names_the_one_that_is_needed():
    told = str(wrong_state("deliver", make_sample("quick", "pending")))
    assert told == "The escrow is pending; it must be paid to deliver."
    told = str(wrong_state("cancel_escrow", make_sample("quick", "pending")))
    assert "paid or delivered" in told


def test_an_actor_stands_to_an_escrow_in_every_capacity_that_it_has():
    own = Actor(ActorKind.DEVELOPER, developer_id=CREATOR_ID, user_id=SELLER.id)
    assert roles(own, make_sample()) == {Role.SELLER, Role.CREATOR}
    assert roles(STRANGER, make_sample()) == frozenset()
    assert roles(CLOCK, make_sample()) == {Role.CLOCK}
    assert roles(SYSTEM, make_sample()) == {Role.SYSTEM}
    assert roles(ACTORS[Role.OPERATOR], make_sample()) == {Role.OPERATOR}


def test_nobody_is_a_party_of_an_escrow_that_has_none_yet():
    nobody = Actor(ActorKind.USER)
    assert roles(nobody, make_sample(seller=None, buyer=None)) == frozenset()


# 2. What a step does -----------------------------------------------------------------------------

MOMENTS = ("paid_at", "delivered_at", "completed_at", "cancelled_at")
ROWS = pytest.mark.parametrize(
    "row",
    [row for row in STEPS if row.source != NOWHERE],
    ids=lambda row: f"{row.name}-{row.source}-{row.target}-{min(row.modes)}",
)


def all_taken(row):
    """The step, taken in each of its modes by each who may."""
    part = 33_333 if row.moves is Movement.SPLIT else None
    for mode in sorted(row.modes):
        for role in sorted(row.who):
            before = make_sample(mode, row.source, escrow_fee=5_000, developer_fee=2_500)
            before = ripe(row.name, before, role, row.target)
            yield take(row, before, ACTORS[role], NOW, sellers_part=part)


@ROWS
def test_a_step_leads_to_its_target_counts_its_events_and_keeps_the_terms(row):
    moved = {
        "status", "updated_at", "seq", "frozen", "cancel_reason", "completion_deadline", *MOMENTS,
        "funded_minor", "held_minor", "released_minor", "refunded_minor", "fees_minor",
        "cancellation", "dispute", "proof",
    }  # fmt: skip
    for taken in all_taken(row):
        before, after = taken.before, taken.after
        assert after.status == row.target
        assert after.updated_at == NOW
        assert after.seq - before.seq == len(taken.events) == max(1, len(row.events))
        assert taken.leaves_state == (row.source != row.target)
        assert after.frozen == FLAGS.get(row.name, False)
        for name in before.__dataclass_fields__:
            assert name in moved or getattr(after, name) == getattr(before, name), name


@ROWS
def test_a_step_conserves_the_money_and_final_escrows_hold_none(row):
    for taken in all_taken(row):
        assert_conserved(taken)
        if row.moves is Movement.NONE:
            assert taken.postings == ()


@ROWS
def test_each_state_has_its_moment(row):
    for taken in all_taken(row):
        before, after = taken.before, taken.after
        changed = {name for name in MOMENTS if getattr(after, name) != getattr(before, name)}
        if not taken.leaves_state:
            assert changed == set()
            continue
        assert (after.cancelled_at is not None) == (row.target == "cancelled")
        assert (after.completed_at is not None) == (row.target == "completed")
        if row.target == "paid":
            assert after.paid_at == before.paid_at or before.paid_at is None
            assert after.delivered_at is None
        if row.target == "completed":
            assert after.completed_at == NOW
            assert after.delivered_at == (NOW if row.name == "deliver" else before.delivered_at)
        if before.paid_at is not None:
            assert after.paid_at == before.paid_at


@ROWS
def test_only_a_cancelled_escrow_has_a_reason_and_a_step_that_stays_keeps_it(row):
    for taken in all_taken(row):
        if row.source == row.target:
            assert taken.after.cancel_reason == taken.before.cancel_reason
        else:
            assert (taken.after.cancel_reason is not None) == (row.target == "cancelled")


@pytest.mark.parametrize(
    ("name", "source", "role", "reason"),
    [
        ("cancel", "pending", Role.CLOCK, "expired"),
        ("cancel", "pending", Role.SELLER, "seller"),
        ("cancel", "pending", Role.BUYER, "buyer"),
        ("cancel", "pending", Role.CREATOR, "creator"),
        ("cancel_escrow", "delivered", Role.SELLER, "seller"),
        ("accept_cancellation", "paid", Role.SELLER, "request_accepted"),
        ("accept_cancellation", "paid", Role.CLOCK, "request_accepted"),
        ("expire_proof", "paid", Role.CLOCK, "proof_expired"),
        ("reject_proof", "paid", Role.OPERATOR, "proof_rejected"),
        ("resolve_dispute", "disputed", Role.OPERATOR, "dispute"),
    ],
)
def test_why_it_was_cancelled(name, source, role, reason):
    escrow = make_sample("quick_proof", source)
    row = TABLE.find(name, source, "quick_proof", "cancelled")
    assert row is not None
    assert cancel_reason(row, ACTORS[role], escrow) == reason


def test_an_undelivered_instant_escrow_says_so():
    row = TABLE.find("refund_overdue", "paid", "instant")
    assert row is not None
    assert cancel_reason(row, CLOCK, make_sample("instant", "paid")) == "undelivered"


def test_who_sells_and_created_cancels_as_the_seller():
    own = Actor(ActorKind.DEVELOPER, developer_id=CREATOR_ID, user_id=SELLER.id)
    escrow = make_sample()
    assert cancel_reason(choose("cancel", escrow, own), own, escrow) == "seller"


def test_paid_again_after_a_rejected_delivery_keeps_the_payment_and_forgets_the_delivery():
    escrow = make_sample("quick", "delivered", completion_deadline=NOW + DAY)
    after = take(choose("reject_delivery", escrow, ACTORS[Role.BUYER]), escrow, CLOCK, NOW).after
    assert (after.paid_at, after.delivered_at) == (escrow.paid_at, None)
    assert after.completion_deadline is None
    again = take(choose("deliver", after, ACTORS[Role.SELLER]), after, CLOCK, NOW + DAY).after
    assert again.delivered_at == NOW + DAY


# 3. Money ----------------------------------------------------------------------------------------


def assert_conserved(taken):
    """What is posted is what the columns say, and nothing appears or vanishes."""
    before, after = taken.before, taken.after
    held = sum(p.amount_minor for p in taken.postings if p.target.kind == "held") - sum(
        p.amount_minor for p in taken.postings if p.source.kind == "held"
    )
    to = {
        reason: sum(p.amount_minor for p in taken.postings if p.reason == reason)
        for reason in ("release", "refund", "escrow_fee", "developer_fee", "hold")
    }
    assert after.held_minor == before.held_minor + held
    assert after.funded_minor == before.funded_minor + to["hold"]
    assert after.released_minor == before.released_minor + to["release"]
    assert after.refunded_minor == before.refunded_minor + to["refund"]
    assert after.fees_minor == before.fees_minor + to["escrow_fee"] + to["developer_fee"]
    assert after.funded_minor == (
        after.held_minor + after.released_minor + after.refunded_minor + after.fees_minor
    )
    assert all(posting.amount_minor > 0 for posting in taken.postings)
    assert {p.source.owner for p in taken.postings if p.source.kind == "held"} <= {after.id}
    if after.status in FINAL:
        assert after.held_minor == 0


@st.composite
def priced(draw, status):
    amount = draw(st.integers(10, MAX_MINOR))
    platform = draw(st.integers(0, amount))
    developer = draw(st.integers(0, amount - platform))
    mode = "instant" if status == "paid" else "quick"
    return make_sample(mode, status, amount=amount, escrow_fee=platform, developer_fee=developer)


@settings(deadline=None)
@given(priced("pending"))
def test_paying_holds_exactly_the_amount(escrow):
    row = choose("accept_pay", escrow, ACTORS[Role.BUYER])
    taken = take(row, escrow, ACTORS[Role.BUYER], NOW)
    assert_conserved(taken)
    assert taken.after.held_minor == escrow.amount_ledger_minor
    [posting] = taken.postings
    assert (posting.source.kind, posting.source.owner) == ("available", BUYER.id)


@settings(deadline=None)
@given(priced("paid"))
def test_a_release_pays_out_all_that_is_held_with_the_stored_fees(escrow):
    actor = ACTORS[Role.SELLER]
    taken = take(choose("deliver", escrow, actor), escrow, actor, NOW)
    assert_conserved(taken)
    paid = {p.target.owner or p.target.kind: p.amount_minor for p in taken.postings}
    net = escrow.amount_ledger_minor - escrow.escrow_fee_minor - escrow.developer_fee_minor
    assert paid.get(SELLER.id, 0) == net
    assert paid.get("platform_fees", 0) == escrow.escrow_fee_minor
    assert paid.get(STRANGER_ID, 0) == escrow.developer_fee_minor


@settings(deadline=None)
@given(priced("delivered"))
def test_a_refund_gives_back_all_that_was_funded_and_takes_no_fee(escrow):
    actor = ACTORS[Role.SELLER]
    taken = take(choose("cancel_escrow", escrow, actor), escrow, actor, NOW)
    assert_conserved(taken)
    assert taken.after.refunded_minor == escrow.funded_minor
    assert taken.after.fees_minor == 0


@settings(deadline=None)
@given(priced("disputed"), st.data())
def test_a_split_charges_fees_on_the_sellers_part_and_refunds_the_rest(escrow, data):
    part = data.draw(st.integers(1, escrow.held_minor))
    actor = ACTORS[Role.OPERATOR]
    row = choose("resolve_dispute", escrow, actor, "completed")
    taken = take(row, escrow, actor, NOW, sellers_part=part)
    assert_conserved(taken)
    due = shares(
        part, escrow.amount_ledger_minor, escrow.escrow_fee_minor, escrow.developer_fee_minor
    )
    assert taken.after.refunded_minor == escrow.held_minor - part
    assert taken.after.released_minor == due.net
    assert taken.after.fees_minor == due.platform + due.developer


@pytest.mark.parametrize("part", [None, 0, -1, 100_001])
def test_a_split_without_a_sound_part_is_a_bug(part):
    escrow = make_sample("quick", "disputed")
    actor = ACTORS[Role.OPERATOR]
    row = choose("resolve_dispute", escrow, actor, "completed")
    with pytest.raises(AssertionError):
        take(row, escrow, actor, NOW, sellers_part=part)


@pytest.mark.parametrize("side", ["seller", "buyer"])
def test_money_never_moves_while_a_party_is_missing(side):
    paid = make_sample("instant", "paid", **{side: None})
    row = TABLE.find("refund_overdue", "paid", "instant")
    assert row is not None
    with pytest.raises(AssertionError, match="lacks a party"):
        take(row, paid, CLOCK, NOW)
    pending = make_sample("instant", "pending", buyer=None)
    row = TABLE.find("accept_pay", "pending", "instant")
    assert row is not None
    with pytest.raises(AssertionError, match="paid by nobody"):
        take(row, pending, ACTORS[Role.BUYER], NOW)


@pytest.mark.parametrize("rate", [Decimal(1), Decimal("3.12")])
def test_the_parties_are_known_by_their_ids(rate):
    escrow = make_sample(fx_rate=rate)
    assert (escrow.seller_id, escrow.buyer_id) == (SELLER.id, BUYER.id)
    assert make_sample(seller=None).seller_id is None
    assert make_sample(buyer=None).buyer_id is None
