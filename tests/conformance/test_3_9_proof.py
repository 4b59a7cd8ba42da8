"""escrows.md 3.9: `GET /escrows/:id/proof`, a test a sentence."""

from datetime import datetime, timedelta

import pytest

from tests.conformance.shapes import INSTANT, SENTENCE, changed, e1, e2, written
from tests.conformance.world import ESCROWS, POLICY, World


def proof(**changes) -> dict:
    """The whole answer while the first proof is awaited."""
    shape = {
        "phase": "waiting_seller_proof",
        "correctionRounds": 0,
        "uploadDeadline": INSTANT,
        "reviewDeadline": None,
        "submissionCount": 0,
        "submissions": [],
        "latestSubmission": None,
        "checkoutActions": [],
    }
    return {"proof": changed(shape, changes)}


def action(name: str, person) -> dict:
    return {"action": name, "targetUserEmail": person.email, "description": SENTENCE}


async def test_once_paid_it_waits_for_the_sellers_proof_with_exactly_this_body(world: World):
    given = {**POLICY, "proofUploadDeadlineHours": 72}
    life = await world.life("quick_proof", "paid", fulfillmentPolicy=given)
    answer = await life.partner.get(f"{life.path}/proof")
    shown = proof(checkoutActions=[action("submit_proof", life.seller)])
    assert answer.differs(200, shown) == []
    due = datetime.fromisoformat(answer.body["proof"]["uploadDeadline"])
    paid = datetime.fromisoformat((await life.read())["paidAt"])
    assert due == paid + timedelta(hours=72)


async def test_before_the_payment_nothing_runs_and_nothing_is_to_be_done(world: World):
    life = await world.life("quick_proof")
    answer = await life.partner.get(f"{life.path}/proof")
    assert answer.differs(200, proof(phase=None, uploadDeadline=None)) == []


async def test_without_a_proof_by_its_deadline_the_phase_is_expired_no_proof(world: World):
    life = await world.life("quick_proof", "paid")
    await world.advance(hours=25)
    answer = await life.partner.get(f"{life.path}/proof")
    assert answer.differs(200, proof(phase="expired_no_proof")) == []


SUBMISSION = {
    "submittedAt": INSTANT,
    "note": "As agreed.",
    "attachments": [{"mimeType": "image/png", "viewUrl": written("https?://.+/files/.+")}],
}


async def test_each_submission_is_shown_with_its_files_and_the_next_step(world: World):
    life = await world.life("quick_proof", "paid")
    await world.bring_on(life, "submit_proof")
    answer = await life.partner.get(f"{life.path}/proof")
    shown = proof(
        phase="submitted_waiting_buyer_review", reviewDeadline=INSTANT, submissionCount=1,
        submissions=[SUBMISSION], latestSubmission=SUBMISSION,
        checkoutActions=[action("review_proof", life.buyer)],
    )  # fmt: skip
    assert answer.differs(200, shown) == []
    await world.bring_on(life, "request_correction", "submit_proof")
    corrected = {**SUBMISSION, "correction": "Unreadable."}
    answer = await life.partner.get(f"{life.path}/proof")
    again = changed(shown["proof"], {
        "correctionRounds": 1, "submissionCount": 2, "submissions": [corrected, SUBMISSION],
    })  # fmt: skip
    assert answer.differs(200, {"proof": again}) == []
    await world.bring_on(life, "accept_proof")
    answer = await life.partner.get(f"{life.path}/proof")
    done = changed(again, {"phase": "accepted", "checkoutActions": []})
    assert answer.differs(200, {"proof": done}) == []


async def test_it_shows_what_the_read_shows_of_it(world: World):
    life = await world.life("quick_proof", "paid")
    shown = (await life.partner.get(f"{life.path}/proof")).body["proof"]
    told = (await life.read())["proofInfo"]
    assert told == {name: shown[name] for name in told}


async def test_the_creator_and_the_parties_may_read_it(world: World):
    creator = await world.partner(associated=False)
    sellers, buyers = await world.partner(), await world.partner()
    life = await world.life("quick_proof", partner=creator, seller=sellers.user, buyer=buyers.user)
    for who in (creator, sellers, buyers):
        answer = await who.get(f"{life.path}/proof")
        assert answer.differs(200, proof(phase=None, uploadDeadline=None)) == []


async def test_a_stranger_is_403_a_bad_id_400_and_an_unknown_one_404(world: World):
    life, stranger = await world.life("quick_proof"), await world.partner()
    assert (await stranger.get(f"{life.path}/proof")).differs(403, e1(403)) == []
    for odd, status, sentence in (
        ("x", 400, "Invalid escrow ID"),
        ("0" * 24, 404, "Escrow not found"),
    ):
        answer = await stranger.get(f"{ESCROWS}/{odd}/proof")
        assert answer.differs(status, e2(sentence)) == []


@pytest.mark.parametrize("kind", ["standard", "quick", "instant"])
async def test_an_escrow_without_a_proof_policy_is_400(world: World, kind):
    life = await world.life(kind)
    assert (await life.partner.get(f"{life.path}/proof")).differs(400, e1(400)) == []
