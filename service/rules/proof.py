"""The small table of a purchase proof's phases; the escrow's status stays `paid`. escrows.md 4."""

from service.rules.escrow import PROOF
from service.rules.machine import NOWHERE, Movement, Role, Step, Table

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

_P = frozenset({PROOF})
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
