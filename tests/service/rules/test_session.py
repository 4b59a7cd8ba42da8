"""Checkout sessions by the table of escrows.md 6: which action, for whom, in which mode and status.

Law: the tables below are written by hand from the specification and ask nothing of the rules.
"""

from collections.abc import Iterator
from dataclasses import replace
from itertools import product
from typing import get_args

import pytest

from service.rules import errors, proof
from service.rules.aggregate import Escrow
from service.rules.errors import Refused
from service.rules.escrow import FINAL, INSTANT, MODES, PROOF, STANDARD, STATUSES, STEPS, take
from service.rules.machine import ActorKind, Role
from service.rules.outlook import NOBODY_YET, as_registered, person
from service.rules.session import (
    ACTIONS,
    CANCELLED,
    COMPLETED,
    EVERY,
    EXPIRED,
    MINUTES,
    OF_SESSIONS,
    PENDING,
    check,
    moot,
    role_of,
)
from service.wire.sessions import Action
from tests.service.rules.samples import (
    ACTORS,
    BUYER,
    NOW,
    SELLER,
    brought,
    make_dispute,
    make_proof,
    make_request,
    make_sample,
    ripe,
    unsigned,
)

OK = "ok"
STRANGER = "stranger@example.com"
EMAILS = {"seller": SELLER.email, "buyer": BUYER.email, "stranger": STRANGER}

# ---- The specification, by hand -----------------------------------------------------------------

NOT_BUYER, NOT_SELLER = "CHECKOUT_TARGET_NOT_BUYER", "CHECKOUT_TARGET_NOT_SELLER"
DONE, OFF, ALREADY = "PAYMENT_ALREADY_DONE", "ESCROW_CANCELLED", "ESCROW_ALREADY_COMPLETED"
NOT_YET, PHASE, NONE_OPEN = "ESCROW_NOT_DELIVERED", "PROOF_WRONG_PHASE", "NO_OPEN_DISPUTE"
NO_DISPUTE, OPENED = "DISPUTE_INVALID_STATUS", "DISPUTE_ALREADY_OPENED"
NO_ASKING, NO_CANCEL = "CANCELLATION_REQUEST_INVALID_STATUS", "CANCEL_ESCROW_INVALID_STATUS"
UNASKED = "NO_PENDING_CANCELLATION"

IN_MODE: dict[str, dict[str, str]] = {
    "sign_contract": {
        "quick": "QUICK_ESCROW_NO_CONTRACT",
        "quick_proof": "QUICK_ESCROW_NO_CONTRACT",
        "instant": "INSTANT_ESCROW_NO_CONTRACT",
    },
    "complete": {"instant": "INSTANT_ESCROW_NO_COMPLETE_STEP"},
    **dict.fromkeys(
        ("submit_proof", "review_proof"),
        dict.fromkeys(("standard", "quick", "instant"), "PROOF_NOT_ENABLED"),
    ),
}
# fmt: off
FOR_WHOM: dict[str, tuple[str, str, str]] = {
    #                        seller                             buyer       stranger
    "sign_contract":        (OK,                                OK,         NOT_BUYER),
    "accept_pay":           (NOT_BUYER,                         OK,         NOT_BUYER),
    "complete":             (NOT_BUYER,                         OK,         NOT_BUYER),
    "submit_proof":         (OK,                                NOT_SELLER, NOT_SELLER),
    "review_proof":         (NOT_BUYER,                         OK,         NOT_BUYER),
    "dispute":              (OK,                                OK,         NOT_BUYER),
    "request_cancellation": ("CANCELLATION_REQUEST_BUYER_ONLY", OK,         NOT_BUYER),
    "cancel_escrow":        (OK, "CANCEL_ESCROW_SELLER_ONLY",               NOT_SELLER),
    "accept_cancellation":  (OK,                                NOT_SELLER, NOT_SELLER),
    "reject_cancellation":  (OK,                                NOT_SELLER, NOT_SELLER),
    "withdraw_dispute":     (OK,                                OK,         NOT_BUYER),
    "answer_dispute":       (OK,                                OK,         NOT_BUYER),
}
WHILE_DISPUTED: dict[tuple[str, str], tuple[str, str, str]] = {
    # action, opener              seller      buyer       stranger
    ("withdraw_dispute", "buyer"):  (NOT_BUYER,  OK,         NOT_BUYER),
    ("withdraw_dispute", "seller"): (OK,         NOT_SELLER, NOT_SELLER),
    ("answer_dispute", "buyer"):    (OK,         NOT_SELLER, NOT_SELLER),
    ("answer_dispute", "seller"):   (NOT_BUYER,  OK,         NOT_BUYER),
}
IN_STATUS: dict[str, tuple[str, ...]] = {
    #                        pending     paid       delivered   completed   cancelled   disputed
    "sign_contract":        (OK,         DONE,       DONE,       DONE,       OFF,        DONE),
    "accept_pay":           (OK,         DONE,       DONE,       DONE,       OFF,        DONE),
    "complete":             (NOT_YET,    NOT_YET,    OK,         ALREADY,    OFF,        NOT_YET),
    "submit_proof":         (PHASE,      OK,         PHASE,      PHASE,      PHASE,      PHASE),
    "review_proof":         (PHASE,      OK,         PHASE,      PHASE,      PHASE,      PHASE),
    "dispute":              (NO_DISPUTE, OK,         OK,         NO_DISPUTE, NO_DISPUTE, OPENED),
    "request_cancellation": (NO_ASKING,  OK,         OK,         NO_ASKING,  NO_ASKING,  NO_ASKING),
    "cancel_escrow":        (NO_CANCEL,  OK,         OK,         NO_CANCEL,  NO_CANCEL,  NO_CANCEL),
    "accept_cancellation":  (UNASKED,    OK,         OK,         UNASKED,    UNASKED,    UNASKED),
    "reject_cancellation":  (UNASKED,    OK,         OK,         UNASKED,    UNASKED,    UNASKED),
    "withdraw_dispute":     (NONE_OPEN,  NONE_OPEN,  NONE_OPEN,  NONE_OPEN,  NONE_OPEN,  OK),
    "answer_dispute":       (NONE_OPEN,  NONE_OPEN,  NONE_OPEN,  NONE_OPEN,  NONE_OPEN,  OK),
}
# fmt: on
LISTED = frozenset(
    """
NO_REDIRECT_URLS_CONFIGURED REDIRECT_URL_NOT_ALLOWED REDIRECT_URL_MUST_BE_HTTPS
QUICK_ESCROW_NO_CONTRACT INSTANT_ESCROW_NO_CONTRACT INSTANT_ESCROW_NO_COMPLETE_STEP
CONTRACT_ALREADY_SIGNED CONTRACT_NOT_SIGNED PAYMENT_ALREADY_DONE ESCROW_ALREADY_COMPLETED
ESCROW_NOT_DELIVERED ESCROW_CANCELLED DISPUTE_ALREADY_OPENED DISPUTE_INVALID_STATUS
CANCELLATION_REQUEST_INVALID_STATUS CANCEL_ESCROW_INVALID_STATUS CANCELLATION_REQUEST_BUYER_ONLY
CANCEL_ESCROW_SELLER_ONLY CHECKOUT_TARGET_NOT_BUYER CHECKOUT_TARGET_NOT_SELLER
CANCELLATION_ALREADY_REQUESTED NO_PENDING_CANCELLATION PROOF_NOT_ENABLED PROOF_WRONG_PHASE
NO_OPEN_DISPUTE SELLER_NOT_READY
""".split()  # noqa: SIM905 - reads as the specification does
)
"""The E3 codes of escrows.md 6, in its order."""


def expected(action: str, mode: str, status: str, who: str, opener: str = "buyer") -> str:
    """What the specification says: mode, then target, then status."""
    if mode in IN_MODE.get(action, {}):
        return IN_MODE[action][mode]
    whom = FOR_WHOM[action]
    if status == "disputed":
        whom = WHILE_DISPUTED.get((action, opener), whom)
    target = whom[("seller", "buyer", "stranger").index(who)]
    if target != OK:
        return target
    order = ("pending", "paid", "delivered", "completed", "cancelled", "disputed")
    return IN_STATUS[action][order.index(status)]


# ---- What the rules say -------------------------------------------------------------------------


def standing(action: str, mode: str, status: str) -> Escrow:
    """An escrow so, with nothing but mode, target and status in the action's way."""
    escrow = make_sample(mode, status)
    if action == "sign_contract" and mode == STANDARD:
        escrow = unsigned(escrow)
    if action in ("accept_cancellation", "reject_cancellation") and status in ("paid", "delivered"):
        escrow = replace(escrow, cancellation=make_request())
    if action == "review_proof" and mode == PROOF and status == "paid":
        escrow = replace(escrow, proof=make_proof(proof.REVIEW))
    return escrow


def code(action: str, escrow: Escrow, email: str) -> str:
    """`ok`, or the code of the refusal."""
    try:
        check(action, escrow, email)
    except Refused as refusal:
        return refusal.code or type(refusal).__name__
    return OK


def reachable() -> Iterator[tuple[str, str]]:
    return ((m, s) for m, s in product(MODES, STATUSES) if (m, s) != (INSTANT, "delivered"))


@pytest.mark.parametrize("action", ACTIONS)
def test_an_action_is_had_in_each_mode_and_status_by_whom_the_table_says(action: str):
    told, wanted = {}, {}
    for (mode, status), (who, email) in product(reachable(), EMAILS.items()):
        told[mode, status, who] = code(action, standing(action, mode, status), email)
        wanted[mode, status, who] = expected(action, mode, status, who)
    assert told == wanted
    assert OK in told.values()


@pytest.mark.parametrize("action", ["withdraw_dispute", "answer_dispute"])
@pytest.mark.parametrize("opener", ["seller", "buyer"])
def test_a_dispute_is_withdrawn_by_its_opener_and_answered_by_the_other(action: str, opener: str):
    for mode, (who, email) in product(MODES, EMAILS.items()):
        back_to = "paid" if mode == INSTANT else "delivered"
        escrow = make_sample(mode, "disputed", dispute=make_dispute(opener, back_to))
        assert code(action, escrow, email) == expected(action, mode, "disputed", who, opener)


@pytest.mark.parametrize("action", ACTIONS)
def test_who_is_let_in_is_told_as_whom(action: str):
    let_in = {
        check(action, standing(action, mode, status), email)
        for (mode, status), (who, email) in product(reachable(), EMAILS.items())
        if expected(action, mode, status, who) == OK
    }
    meant = {Role(who) for who, says in zip(EMAILS, FOR_WHOM[action], strict=True) if says == OK}
    if action == "answer_dispute":
        meant = {Role.SELLER}  # the sample's dispute is the buyer's
    if action == "withdraw_dispute":
        meant = {Role.BUYER}
    assert let_in == meant


def test_the_tables_of_this_file_are_whole():
    assert set(ACTIONS) == set(FOR_WHOM) == set(IN_STATUS) == set(get_args(Action))
    assert {PENDING, COMPLETED, EXPIRED, CANCELLED} == {
        "pending",
        "completed",
        "expired",
        "cancelled",
    }
    assert MINUTES == 30


def test_the_codes_are_the_specifications_and_ours_for_a_frozen_escrow():
    assert {refusal.code for refusal in OF_SESSIONS} == {*LISTED, "ESCROW_FROZEN"}
    assert len(OF_SESSIONS) == len(set(OF_SESSIONS))


# ---- What else may stand against an action ------------------------------------------------------


def test_who_has_signed_signs_no_more_and_the_other_still_may():
    both = unsigned(make_sample(STANDARD, "pending"))
    assert both.contract is not None
    for side, signed, other in (("seller", SELLER, BUYER), ("buyer", BUYER, SELLER)):
        contract = replace(both.contract, **{f"{side}_signed_at": NOW})
        escrow = replace(both, contract=contract)
        assert code("sign_contract", escrow, signed.email) == "CONTRACT_ALREADY_SIGNED"
        assert code("sign_contract", escrow, other.email) == OK
        assert code("accept_pay", escrow, BUYER.email) == "CONTRACT_NOT_SIGNED"
    assert code("accept_pay", both, BUYER.email) == "CONTRACT_NOT_SIGNED"


@pytest.mark.parametrize("mode", MODES)
def test_nobody_pays_before_the_seller_has_registered(mode: str):
    escrow = make_sample(mode, "pending", seller=None)
    assert code("accept_pay", escrow, BUYER.email) == "SELLER_NOT_READY"


def test_a_contract_that_is_not_signed_is_told_before_a_seller_who_is_not_there():
    escrow = unsigned(make_sample(STANDARD, "pending", seller=None))
    assert code("accept_pay", escrow, BUYER.email) == "CONTRACT_NOT_SIGNED"


@pytest.mark.parametrize(("mode", "status"), [("quick", "delivered"), ("instant", "paid")])
def test_a_second_request_to_cancel_waits_for_the_answer_to_the_first(mode: str, status: str):
    escrow = make_sample(mode, status)
    asked = replace(escrow, cancellation=make_request())
    assert code("request_cancellation", asked, BUYER.email) == "CANCELLATION_ALREADY_REQUESTED"
    answered = replace(escrow, cancellation=make_request(status="rejected"))
    assert code("request_cancellation", answered, BUYER.email) == OK
    for action in ("accept_cancellation", "reject_cancellation"):
        assert code(action, answered, SELLER.email) == "NO_PENDING_CANCELLATION"
        assert code(action, escrow, SELLER.email) == "NO_PENDING_CANCELLATION"


@pytest.mark.parametrize("phase", proof.PHASES)
def test_a_proof_is_submitted_and_reviewed_in_the_phases_that_need_it(phase: str):
    escrow = make_sample(PROOF, "paid", proof=make_proof(phase))
    submits = OK if phase in ("waiting_seller_proof", "correction_requested") else PHASE
    reviews = OK if phase == "submitted_waiting_buyer_review" else PHASE
    assert code("submit_proof", escrow, SELLER.email) == submits
    assert code("review_proof", escrow, BUYER.email) == reviews


@pytest.mark.parametrize("action", ACTIONS)
def test_nothing_is_to_be_had_of_a_frozen_escrow(action: str):
    for (mode, status), (who, email) in product(reachable(), EMAILS.items()):
        escrow = replace(standing(action, mode, status), frozen=True)
        wanted = expected(action, mode, status, who)
        first = {*IN_MODE.get(action, {}).values(), *FOR_WHOM[action], NOT_BUYER, NOT_SELLER}
        is_status = wanted == OK or wanted not in first
        assert code(action, escrow, email) == ("ESCROW_FROZEN" if is_status else wanted)


# ---- Precedence, by pairs -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "mode", "status", "email", "first"),
    [
        ("sign_contract", "quick", "cancelled", STRANGER, "QUICK_ESCROW_NO_CONTRACT"),
        ("sign_contract", "instant", "paid", SELLER.email, "INSTANT_ESCROW_NO_CONTRACT"),
        ("complete", "instant", "pending", SELLER.email, "INSTANT_ESCROW_NO_COMPLETE_STEP"),
        ("submit_proof", "quick", "pending", BUYER.email, "PROOF_NOT_ENABLED"),
        ("review_proof", "standard", "completed", STRANGER, "PROOF_NOT_ENABLED"),
        ("accept_pay", "quick", "cancelled", SELLER.email, NOT_BUYER),
        ("complete", "standard", "pending", STRANGER, NOT_BUYER),
        ("submit_proof", "quick_proof", "pending", BUYER.email, NOT_SELLER),
        ("cancel_escrow", "instant", "pending", BUYER.email, "CANCEL_ESCROW_SELLER_ONLY"),
        (
            "request_cancellation",
            "quick",
            "disputed",
            SELLER.email,
            "CANCELLATION_REQUEST_BUYER_ONLY",
        ),
        ("dispute", "quick", "disputed", STRANGER, NOT_BUYER),
        ("accept_cancellation", "quick", "pending", BUYER.email, NOT_SELLER),
    ],
)
def test_the_mode_is_told_before_the_target_and_the_target_before_the_status(
    action: str, mode: str, status: str, email: str, first: str
):
    assert code(action, make_sample(mode, status), email) == first


# ---- To whom an e-mail belongs ------------------------------------------------------------------


def test_an_invited_e_mail_is_a_party_before_and_after_its_person_registers():
    escrow = make_sample("quick", "pending", buyer=None, buyer_email="invited@example.com")
    assert role_of(escrow, "invited@example.com") is Role.BUYER
    assert role_of(escrow, BUYER.email) is None
    assert check("accept_pay", escrow, "invited@example.com") is Role.BUYER
    linked = replace(escrow, buyer=BUYER)  # registered through the link, with another e-mail
    for email in ("invited@example.com", BUYER.email):
        assert check("accept_pay", linked, email) is Role.BUYER
    assert role_of(linked, STRANGER) is None


def test_an_unregistered_party_may_sign_as_if_it_had_registered():
    escrow = unsigned(make_sample(STANDARD, "pending", seller=None, buyer=None))
    assert check("sign_contract", escrow, SELLER.email) is Role.SELLER
    assert check("sign_contract", escrow, BUYER.email) is Role.BUYER
    as_one = as_registered(escrow, Role.SELLER)
    assert (as_one.seller_id, as_one.buyer) == (NOBODY_YET, None)
    assert as_one.seller is not None
    assert as_one.seller.email == SELLER.email
    assert person(as_one, Role.SELLER).user_id == NOBODY_YET


def test_a_party_acts_as_its_own_user():
    escrow = make_sample("quick", "paid")
    for role, one in ((Role.SELLER, SELLER), (Role.BUYER, BUYER)):
        actor = person(as_registered(escrow, role), role)
        assert (actor.kind, actor.user_id, actor.developer_id) == (ActorKind.USER, one.id, None)


# ---- What ends a session ------------------------------------------------------------------------

ENDED_BY: dict[str, frozenset[str]] = {
    "sign_contract": frozenset({"sign_contract"}),
    "accept_pay": frozenset({"accept_pay", "approve_deposit"}),
    "complete": frozenset({"complete"}),
    "submit_proof": frozenset({"submit_proof"}),
    "review_proof": frozenset(
        {"accept_proof", "request_correction", "escalate_proof", "pass_proof"}
    ),
    "dispute": frozenset({"dispute"}),
    "request_cancellation": frozenset({"request_cancellation"}),
    "cancel_escrow": frozenset({"cancel_escrow"}),
    "accept_cancellation": frozenset({"accept_cancellation"}),
    "reject_cancellation": frozenset({"reject_cancellation"}),
    "withdraw_dispute": frozenset({"withdraw_dispute"}),
    "answer_dispute": frozenset({"answer_dispute"}),
}
"""An action -> the steps of the escrow's table by which it may have been done."""
ROWS = [
    (row, mode, role)
    for row in STEPS
    if row.source in STATUSES
    for mode in sorted(row.modes)
    for role in sorted(row.who & ACTORS.keys())
]


@pytest.mark.parametrize(
    ("row", "mode", "role"),
    ROWS,
    ids=[f"{row.name}-{row.source}-{row.target}-{mode}-{role}" for row, mode, role in ROWS],
)
def test_a_step_ends_the_sessions_of_its_own_action_and_a_final_one_all(row, mode, role):
    escrow = ripe(row.name, make_sample(mode, row.source), role, row.target)
    changed = brought(row, escrow, role)
    part = escrow.held_minor // 2 or None
    taken = take(row, escrow, ACTORS[role], NOW, changed=changed, sellers_part=part)
    over = moot(taken)
    if row.target in FINAL:
        assert over == [(EVERY, EVERY)]
        return
    if row.name == "answer_dispute" and role == make_dispute().opener:  # it answers nothing
        assert over == []
        return
    assert {action for action, _ in over} == {a for a, by in ENDED_BY.items() if row.name in by}
    emails = {email for _, email in over}
    if row.name == "sign_contract":
        assert emails == {SELLER.email if role is Role.SELLER else BUYER.email}
    else:
        assert emails <= {EVERY}


def test_the_signer_is_known_by_both_e_mails():
    escrow = unsigned(make_sample(STANDARD, "pending", buyer_email="invited@example.com"))
    row = next(row for row in STEPS if row.name == "sign_contract")
    taken = take(row, escrow, ACTORS[Role.BUYER], NOW, changed=brought(row, escrow, Role.BUYER))
    assert sorted(moot(taken)) == [
        ("sign_contract", BUYER.email),
        ("sign_contract", "invited@example.com"),
    ]


def test_every_refusal_of_a_session_has_its_code_and_a_sentence():
    for refusal in OF_SESSIONS:
        assert issubclass(refusal, errors.StepClash)
        assert refusal.code
        assert (refusal.__doc__ or "").strip().endswith(".")
