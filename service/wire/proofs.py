"""`GET /escrows/:id/proof`, and a purchase proof in its webhooks. Source: escrows.md 3.9, 7."""

from collections.abc import Callable
from datetime import datetime

from service.rules.aggregate import Escrow
from service.rules.aggregate import Submission as Given
from service.rules.files import StoredFile
from service.wire.base import Wire, absent
from service.wire.parts import CheckoutAction, ProofInfo, checkout_actions, proof_info

ViewUrl = Callable[[str], str]
"""A file's key -> where it can be looked at for a while."""


class Attachment(Wire):
    """A file of a proof; its address is signed and lives for 15 minutes."""

    mime_type: str
    view_url: str


class Submission(Wire):
    """What the seller has handed in at once. `correction` (ours): what the buyer then asked for."""

    submitted_at: datetime
    note: str | None = absent()
    attachments: list[Attachment]
    correction: str | None = absent()


class ProofShape(ProofInfo):
    """A purchase proof in full."""

    submission_count: int
    submissions: list[Submission]
    latest_submission: Submission | None
    checkout_actions: list[CheckoutAction]


class ProofAnswer(Wire):
    """200 of `GET /escrows/:id/proof`."""

    proof: ProofShape


def proof_answer(escrow: Escrow, view_url: ViewUrl) -> ProofAnswer:
    """Where the proof stands, with everything that was handed in; nothing is handed in here."""
    info = proof_info(escrow.proof)
    given = submissions(escrow, view_url)
    return ProofAnswer.model_construct(
        proof=ProofShape.model_construct(
            phase=info.phase,
            correction_rounds=info.correction_rounds,
            upload_deadline=info.upload_deadline,
            review_deadline=info.review_deadline,
            submission_count=len(given),
            submissions=given,
            latest_submission=given[-1] if given else None,
            checkout_actions=checkout_actions(escrow),
        )
    )


def submissions(escrow: Escrow, view_url: ViewUrl) -> list[Submission]:
    """Whatever was handed in, oldest first."""
    return [
        _submission(one, view_url) for one in (escrow.proof.submissions if escrow.proof else ())
    ]


def _submission(given: Given, view_url: ViewUrl) -> Submission:
    return Submission.model_construct(
        submitted_at=given.submitted_at,
        note=given.note,
        attachments=[attachment(file, view_url) for file in given.files],
        correction=given.correction,
    )


def attachment(file: StoredFile, view_url: ViewUrl) -> Attachment:
    """The file, and where to look at it."""
    return Attachment.model_construct(mime_type=file.mime_type, view_url=view_url(file.key))
