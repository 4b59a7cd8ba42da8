"""`GET /escrows/:id/proof`. Source: escrows.md 3.9."""

from datetime import datetime

from service.rules.aggregate import Escrow
from service.wire.base import Wire, absent
from service.wire.parts import CheckoutAction, ProofInfo, checkout_actions, proof_info


class Attachment(Wire):
    """A file of a proof; its address is signed and lives for 15 minutes."""

    mime_type: str
    view_url: str


class Submission(Wire):
    """What the seller has handed in at once."""

    submitted_at: datetime
    note: str | None = absent()
    attachments: list[Attachment]


class ProofShape(ProofInfo):
    """A purchase proof in full."""

    submission_count: int
    submissions: list[Submission]
    latest_submission: Submission | None
    checkout_actions: list[CheckoutAction]


class ProofAnswer(Wire):
    """200 of `GET /escrows/:id/proof`."""

    proof: ProofShape


def proof_answer(escrow: Escrow) -> ProofAnswer:
    """Where the proof stands; nothing can be handed in through this API."""
    info = proof_info(escrow.proof)
    return ProofAnswer.model_construct(
        proof=ProofShape.model_construct(
            phase=info.phase,
            correction_rounds=info.correction_rounds,
            upload_deadline=info.upload_deadline,
            review_deadline=info.review_deadline,
            submission_count=0,
            submissions=[],
            latest_submission=None,
            checkout_actions=checkout_actions(escrow),
        )
    )
