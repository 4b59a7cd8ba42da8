"""The small table of a purchase proof's phases; the escrow's status stays `paid`. escrows.md 4."""

from service.rules.aggregate import Escrow
from service.rules.machine import NOWHERE, Movement, Role, Step, Table

MODE = "quick_proof"

WAITING = "waiting_seller_proof"
REVIEW = "submitted_waiting_buyer_review"
CORRECTION = "correction_requested"
OPERATOR = "needs_dhmad_review"
ACCEPTED = "accepted"
TIMED_OUT = "accepted_by_timeout"
EXPIRED = "expired_no_proof"
REJECTED = "rejected"
PHASES = (WAITING, REVIEW, CORRECTION, OPERATOR, ACCEPTED, TIMED_OUT, EXPIRED, REJECTED)
OPEN_GATE = frozenset({ACCEPTED, TIMED_OUT})
"""The phases in which the seller may deliver."""

_P = frozenset({MODE})
_NO = Movement.NONE


def _row(name: str, who: Role, source: str, target: str, says: str) -> Step:
    return Step(name, frozenset({who}), source, target, _P, _NO, (), says)


# fmt: off
STEPS = (
    #    step                  who             from        to          sentence
    _row("accept_pay",         Role.BUYER,    NOWHERE,    WAITING,    "Funded: a proof is due."),
    _row("submit_proof",       Role.SELLER,   WAITING,    REVIEW,     "The proof is uploaded."),
    _row("expire_proof",       Role.CLOCK,    WAITING,    EXPIRED,    "No proof in time."),
    _row("accept_proof",       Role.BUYER,    REVIEW,     ACCEPTED,   "The buyer accepts."),
    _row("pass_proof",         Role.CLOCK,    REVIEW,     TIMED_OUT,  "Not looked at in time."),
    _row("request_correction", Role.BUYER,    REVIEW,     CORRECTION, "A correction is asked for."),
    _row("escalate_proof",     Role.BUYER,    REVIEW,     OPERATOR,   "One correction too many."),
    _row("submit_proof",       Role.SELLER,   CORRECTION, REVIEW,     "A new proof is uploaded."),
    _row("escalate_proof",     Role.CLOCK,    CORRECTION, OPERATOR,   "No correction in time."),
    _row("accept_proof",       Role.OPERATOR, OPERATOR,   ACCEPTED,   "The operator accepts."),
    _row("reject_proof",       Role.OPERATOR, OPERATOR,   REJECTED,   "The operator rejects."),
)
# fmt: on
TABLE = Table("proof", STEPS, {ACCEPTED, TIMED_OUT, EXPIRED, REJECTED})


def upload_hours(escrow: Escrow) -> int:
    """How long the seller has to upload a purchase proof, by the escrow's own policy."""
    return _policy_hours(escrow, "proofUploadDeadlineHours")


def review_hours(escrow: Escrow) -> int:
    """How long the buyer has to review a purchase proof, by the escrow's own policy."""
    return _policy_hours(escrow, "buyerReviewDeadlineHours")


def _policy_hours(escrow: Escrow, name: str) -> int:
    hours = (escrow.fulfillment_policy or {}).get(name)
    if type(hours) is not int:
        raise AssertionError(f"escrow {escrow.id} has no policy with {name}")
    return hours
