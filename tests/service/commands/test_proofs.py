"""The purchase proof, phase by phase: who moves it, what time does, what is told and refused."""

import asyncio
from datetime import timedelta
from typing import Any

import pytest

from service.commands import disputes, escrows, proofs
from service.commands.deadlines import sweep
from service.commands.perform import House
from service.rules import proof
from service.rules.aggregate import Escrow
from service.rules.errors import Invalid, ProofNotAccepted, ProofWrongPhase, Refused, WrongParty
from service.rules.machine import SYSTEM, Actor, ActorKind
from service.wire.base import instant
from tests.books import read_log
from tests.makers import (
    Buyer,
    Shop,
    act,
    advance,
    bring_on,
    jump,
    make_buyer,
    make_escrow,
    make_file,
    make_shop,
    reread,
)
from tests.service.commands.asking import available, bodies, clocks, refused

pytestmark = pytest.mark.usefixtures("sound")
HOUR = timedelta(hours=1)
OPERATOR = Actor(ActorKind.OPERATOR)
SHOWN = ("submit_proof",)
AGAIN = ("request_correction", "submit_proof")
WAYS: dict[str, tuple[str, ...]] = {
    proof.WAITING: (),
    proof.REVIEW: SHOWN,
    proof.CORRECTION: (*SHOWN, "request_correction"),
    proof.OPERATOR: (*SHOWN, *AGAIN * 3, "request_correction"),
    proof.ACCEPTED: (*SHOWN, "accept_proof"),
}
"""Phase -> the people's steps that lead there."""
ENDED = {
    proof.TIMED_OUT: SHOWN,
    proof.EXPIRED: (),
    proof.REJECTED: (*SHOWN, *AGAIN * 3, "request_correction", "proof_rejected"),
}
"""Phase -> the people's steps before the clock, or the operator, ends it."""


@pytest.fixture
async def shop(house: House) -> Shop:
    return await make_shop(house)


@pytest.fixture
async def buyer(house: House) -> Buyer:
    return await make_buyer(house)


async def in_phase(house: House, shop: Shop, buyer: Buyer, phase: str) -> Escrow:
    """100 TND, paid, with the purchase proof in this phase; a day each to upload and to review."""
    steps = WAYS.get(phase) or ENDED.get(phase, ())
    escrow = await make_escrow(
        house, shop, buyer, mode="quick_proof", status="paid", then=steps,
        estimated_delivery_days=90,
    )  # fmt: skip
    if phase in (proof.TIMED_OUT, proof.EXPIRED):
        await advance(house, escrow.paid_at + 49 * HOUR)
        escrow = await reread(house, escrow.id)
    assert escrow.proof is not None
    assert escrow.proof.phase == phase
    return escrow


def commands(escrow_id: str) -> dict[str, Any]:
    """Every step of a purchase proof, with who takes it."""
    return {
        "submit": proofs.submit(escrow_id, [make_file()], "Here."),
        "accept": proofs.accept(escrow_id),
        "correct": proofs.request_correction(escrow_id, "Which one?"),
        "approve": proofs.decide(escrow_id, accepts=True),
        "reject": proofs.decide(escrow_id, accepts=False),
    }


WHO = {"submit": "seller", "accept": "buyer", "correct": "buyer", "approve": "operator",
       "reject": "operator"}  # fmt: skip
# phase, step -> the phase after it; what is not here is refused.
LEADS = {
    (proof.WAITING, "submit"): proof.REVIEW,
    (proof.CORRECTION, "submit"): proof.REVIEW,
    (proof.REVIEW, "accept"): proof.ACCEPTED,
    (proof.REVIEW, "correct"): proof.CORRECTION,
    (proof.OPERATOR, "approve"): proof.ACCEPTED,
    (proof.OPERATOR, "reject"): proof.REJECTED,
}
EVENTS = {
    (proof.REVIEW, "submit"): ["escrow.proof.submitted"],
    (proof.ACCEPTED, "accept"): ["escrow.proof.accepted"],
    (proof.CORRECTION, "correct"): ["escrow.proof.correction_requested"],
    (proof.ACCEPTED, "approve"): ["escrow.proof.accepted"],
    (proof.REJECTED, "reject"): ["escrow.status.updated"],
}


@pytest.mark.parametrize("phase", proof.PHASES)
@pytest.mark.parametrize("step", WHO)
async def test_each_step_from_each_phase_is_taken_or_refused_and_changes_nothing(
    house: House, shop: Shop, buyer: Buyer, phase: str, step: str
):
    escrow = await in_phase(house, shop, buyer, phase)
    actors = {"seller": shop.actor, "buyer": buyer.actor, "operator": OPERATOR}
    also = {OPERATOR} if step == "accept" else set()  # it is the operator's step as well
    for other in {*actors.values(), SYSTEM} - {actors[WHO[step]]} - also:
        await refused(house, WrongParty, other, commands(escrow.id)[step], escrow.id)
    command, actor = commands(escrow.id)[step], actors[WHO[step]]
    if (phase, step) not in LEADS:
        refusal = await refused(house, ProofWrongPhase, actor, command, escrow.id)
        assert refusal.code == "PROOF_WRONG_PHASE"
        return
    told = len(await bodies(house, escrow.id))
    answer = await act(house, actor, command)
    after = await reread(house, escrow.id)
    assert after.proof is not None
    assert after.proof.phase == LEADS[phase, step] == answer["escrow"]["proofInfo"]["phase"]
    new = (await bodies(house, escrow.id))[told:]
    assert [one["type"] for one in new] == EVENTS[after.proof.phase, step]
    assert after.status == ("cancelled" if step == "reject" else "paid")


@pytest.mark.parametrize("phase", proof.PHASES)
async def test_the_gate_is_open_in_two_phases_only(
    house: House, shop: Shop, buyer: Buyer, phase: str
):
    escrow = await in_phase(house, shop, buyer, phase)
    if phase in proof.OPEN_GATE:
        await act(house, shop.actor, escrows.deliver(escrow.id))
        assert (await reread(house, escrow.id)).status == "delivered"
    elif escrow.status == "paid":
        delivering = escrows.deliver(escrow.id)
        refusal = await refused(house, ProofNotAccepted, shop.actor, delivering, escrow.id)
        assert refusal.code == "PROOF_NOT_ACCEPTED"


@pytest.mark.parametrize("status", ["pending", "delivered", "completed", "disputed", "cancelled"])
async def test_off_paid_every_step_is_in_the_wrong_phase(
    house: House, shop: Shop, buyer: Buyer, status: str
):
    escrow = await make_escrow(house, shop, buyer, mode="quick_proof", status=status)
    actors = {"seller": shop.actor, "buyer": buyer.actor, "operator": OPERATOR}
    for step, command in commands(escrow.id).items():
        await refused(house, ProofWrongPhase, actors[WHO[step]], command, escrow.id)


async def test_a_proof_without_a_file_is_none(house: House, shop: Shop, buyer: Buyer):
    escrow = await in_phase(house, shop, buyer, proof.WAITING)
    refusal = await refused(house, Invalid, shop.actor, proofs.submit(escrow.id, []), escrow.id)
    assert refusal.details == {"files": "must not be empty"}


# Time --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("phase", "kind", "after_paying", "end", "event", "status"),
    [
        (proof.WAITING, "proof_upload", 24, proof.EXPIRED, "escrow.proof.expired", "cancelled"),
        (proof.REVIEW, "proof_review", 48, proof.TIMED_OUT, "escrow.proof.accepted_by_timeout",
         "paid"),
        (proof.CORRECTION, "proof_upload", 24, proof.OPERATOR, "escrow.proof.needs_review", "paid"),
    ],
)  # fmt: skip
async def test_time_ends_what_nobody_does(
    house: House, shop: Shop, buyer: Buyer, phase, kind, after_paying, end, event, status
):
    escrow = await in_phase(house, shop, buyer, phase)
    due = (await clocks(house, escrow.id))[kind].due_at
    assert abs(due - (escrow.paid_at + after_paying * HOUR)) < timedelta(minutes=1)
    assert await advance(house, due - timedelta(seconds=1)) == []
    [fired] = await advance(house, due)
    after = await reread(house, escrow.id)
    assert (fired.kind, after.proof.phase, after.status) == (kind, end, status)
    types = [one["type"] for one in await bodies(house, escrow.id)]
    assert event in types[-2:]
    if status == "cancelled":
        assert (after.cancel_reason, after.refunded_minor) == ("proof_expired", 100_000)
        assert types[-2:] == ["escrow.proof.expired", "escrow.status.updated"]
        assert await available(house, buyer.user_id) == 1_000_000


@pytest.mark.parametrize("phase", [proof.OPERATOR, proof.ACCEPTED])
async def test_nothing_but_a_person_ends_the_rest(
    house: House, shop: Shop, buyer: Buyer, phase: str
):
    escrow = await in_phase(house, shop, buyer, phase)
    assert {*await clocks(house, escrow.id)} == {"delivery_overdue"}


@pytest.mark.parametrize(
    ("phase", "kind", "deadline"),
    [
        (proof.WAITING, "proof_upload", "upload_deadline"),
        (proof.REVIEW, "proof_review", "review_deadline"),
        (proof.CORRECTION, "proof_upload", "upload_deadline"),
    ],
)
async def test_a_dispute_stops_the_phases_clock_and_what_is_shown_afterwards_is_what_fires(
    house: House, shop: Shop, buyer: Buyer, phase: str, kind: str, deadline: str
):
    escrow = await in_phase(house, shop, buyer, phase)
    await jump(house, HOUR)
    stopped = await bring_on(house, shop, escrow.id, "buyers_dispute")
    left = (await clocks(house, escrow.id))[kind].remaining
    assert left is not None
    await jump(house, 72 * HOUR)
    thawed = await bring_on(house, shop, escrow.id, "buyers_withdrawal")
    running = (await clocks(house, escrow.id))[kind]
    assert running.remaining is None
    assert running.due_at == getattr(thawed.proof, deadline)
    assert running.due_at - thawed.updated_at == left
    assert thawed.proof.phase == stopped.proof.phase == phase
    assert [one.kind for one in await advance(house, running.due_at)] == [kind]


async def test_the_fourth_request_goes_to_the_operator_with_its_words(
    house: House, shop: Shop, buyer: Buyer
):
    escrow = await in_phase(house, shop, buyer, proof.OPERATOR)
    assert escrow.proof.correction_rounds == 3
    assert [one.correction for one in escrow.proof.submissions] == ["Unreadable."] * 4
    assert (await read_log(house, escrow.id))[-1] == (
        "escalate_proof", "escrow.proof.needs_review", "user",
    )  # fmt: skip


async def test_rejected_by_the_operator_the_buyer_has_everything_back(
    house: House, shop: Shop, buyer: Buyer
):
    escrow = await in_phase(house, shop, buyer, proof.REJECTED)
    assert (escrow.cancel_reason, escrow.refunded_minor) == ("proof_rejected", 100_000)
    assert await available(house, buyer.user_id) == 1_000_000
    assert [kind for _, _, kind in (await read_log(house, escrow.id))[-1:]] == ["operator"]


# What is told ------------------------------------------------------------------------------------


async def test_every_event_tells_the_whole_proof(house: House, shop: Shop, buyer: Buyer):
    escrow = await in_phase(house, shop, buyer, proof.CORRECTION)
    required, submitted, corrected = (
        one["data"] for one in await bodies(house, escrow.id) if "proof" in one["type"]
    )
    head = {"id": escrow.id, "title": "A camera", "status": "paid", "mode": "quick"}
    assert [one["escrow"] for one in (required, submitted, corrected)] == [head] * 3
    due = instant(escrow.paid_at + 24 * HOUR)
    asked = {"action": "submit_proof", "targetUserEmail": shop.email,
             "description": "Upload the purchase proof."}  # fmt: skip
    assert required["proof"] == {
        "phase": proof.WAITING, "correctionRounds": 0, "uploadDeadline": due,
        "reviewDeadline": None, "latestSubmission": None, "checkoutActions": [asked],
    }  # fmt: skip
    [given] = escrow.proof.submissions
    [file] = given.files
    shown = submitted["proof"]["latestSubmission"]
    url = shown["attachments"][0].pop("viewUrl")
    assert shown == {
        "submittedAt": instant(given.submitted_at),
        "attachments": [{"mimeType": "application/pdf"}],
    }
    assert url.startswith(f"{house.policy.public_url}/files/{file.key}?expires=")
    assert submitted["proof"]["submissions"][0]["submittedAt"] == shown["submittedAt"]
    assert submitted["proof"]["checkoutActions"] == [
        {"action": "review_proof", "targetUserEmail": buyer.email,
         "description": "Review the purchase proof."},
    ]  # fmt: skip
    assert corrected["proof"]["latestSubmission"]["correction"] == "Unreadable."
    assert (corrected["proof"]["phase"], corrected["proof"]["correctionRounds"]) == (
        proof.CORRECTION,
        1,
    )
    assert corrected["proof"]["checkoutActions"] == [asked]


async def test_the_files_and_words_are_kept_in_their_order(house: House, shop: Shop, buyer: Buyer):
    escrow = await in_phase(house, shop, buyer, proof.WAITING)
    files = [make_file(f"{n}.pdf") for n in range(10)]
    await act(house, shop.actor, proofs.submit(escrow.id, files, "Ten of them."))
    [given] = (await reread(house, escrow.id)).proof.submissions
    assert (list(given.files), given.note, given.correction) == (files, "Ten of them.", None)
    rows = await house.pool.fetch("SELECT DISTINCT escrow_id, uploaded_by FROM file")
    assert [tuple(row) for row in rows] == [(escrow.id, shop.user_id)]


# Races -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("step", ["accept", "correct"])
async def test_the_buyer_and_the_clock_at_once_one_of_them_wins(
    house: House, shop: Shop, buyer: Buyer, step: str
):
    for _ in range(4):
        escrow = await in_phase(house, shop, buyer, proof.REVIEW)
        await jump(house, 49 * HOUR)
        _, got = await asyncio.gather(
            sweep(house), act(house, buyer.actor, commands(escrow.id)[step]),
            return_exceptions=True,
        )  # fmt: skip
        after = await reread(house, escrow.id)
        assert isinstance(got, Refused), "the clock was due before"
        assert after.proof.phase == proof.TIMED_OUT


async def test_two_decisions_at_once_are_one(house: House, shop: Shop, buyer: Buyer):
    escrow = await in_phase(house, shop, buyer, proof.OPERATOR)
    got = await asyncio.gather(
        *(act(house, OPERATOR, proofs.decide(escrow.id, accepts=yes)) for yes in (True, False)),
        return_exceptions=True,
    )
    assert sorted(isinstance(one, ProofWrongPhase) for one in got) == [False, True]
    after = await reread(house, escrow.id)
    assert after.proof.phase in (proof.ACCEPTED, proof.REJECTED)
    assert (after.status == "cancelled") == (after.proof.phase == proof.REJECTED)


async def test_a_dispute_and_a_submission_at_once_leave_one_order_of_them(
    house: House, shop: Shop, buyer: Buyer
):
    for _ in range(4):
        escrow = await in_phase(house, shop, buyer, proof.WAITING)
        submitting, disputing = await asyncio.gather(
            act(house, shop.actor, commands(escrow.id)["submit"]),
            act(house, buyer.actor, disputes.open_dispute(escrow.id, "No.")),
            return_exceptions=True,
        )
        after = await reread(house, escrow.id)
        assert not isinstance(disputing, BaseException)
        assert after.status == "disputed"
        lost = isinstance(submitting, ProofWrongPhase)
        assert after.proof.phase == (proof.WAITING if lost else proof.REVIEW)
