"""Checkout sessions: which action is to be had for whom, now. Source: escrows.md 6.

A session is a promise of one step to one e-mail. What stands against it is told in the order
redirect URL, mode, target, status; the status is asked of the escrow's own table.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass

from service.rules import errors
from service.rules.aggregate import Escrow
from service.rules.errors import Refused
from service.rules.escrow import DISPUTED, FINAL, INSTANT, PROOF, STANDARD, Taken, choose
from service.rules.machine import Role
from service.rules.outlook import as_registered, person

PENDING, COMPLETED, EXPIRED, CANCELLED = "pending", "completed", "expired", "cancelled"
STATUSES = (PENDING, COMPLETED, EXPIRED, CANCELLED)
MINUTES = 30
"""How long a session may be used."""
RETRY_HOURS = 24
"""How long a guest may try again from the same link once a payment proof was rejected."""

_SELLER = frozenset({Role.SELLER})
_BUYER = frozenset({Role.BUYER})
_EITHER = _SELLER | _BUYER


@dataclass(frozen=True, slots=True)
class Action:
    """What a session is for, whose it may be, and the step of the escrow's table behind it.

    `wrong_target` is said to the other party where the spec has a code of its own for that;
    `or_by` are other steps after which there is nothing left of this one to do.
    """

    name: str
    step: str
    targets: frozenset[Role]
    wrong_target: Callable[[], Refused] | None = None
    or_by: tuple[str, ...] = ()


# fmt: off
ACTIONS: Mapping[str, Action] = {
    action.name: action
    for action in (
        #      action                  step                    whose
        Action("sign_contract",        "sign_contract",        _EITHER),
        Action("accept_pay",           "accept_pay",           _BUYER,
               or_by=("approve_deposit",)),
        Action("complete",             "complete",             _BUYER),
        Action("submit_proof",         "submit_proof",         _SELLER),
        Action("review_proof",         "accept_proof",         _BUYER,
               or_by=("request_correction", "escalate_proof", "pass_proof")),
        Action("dispute",              "dispute",              _EITHER),
        Action("request_cancellation", "request_cancellation", _BUYER,
               errors.CancellationRequestBuyerOnly),
        Action("cancel_escrow",        "cancel_escrow",        _SELLER,
               errors.CancelEscrowSellerOnly),
        Action("accept_cancellation",  "accept_cancellation",  _SELLER),
        Action("reject_cancellation",  "reject_cancellation",  _SELLER),
        Action("withdraw_dispute",     "withdraw_dispute",     _EITHER),
        Action("answer_dispute",       "answer_dispute",       _EITHER),
    )
}
# fmt: on


def check(name: str, escrow: Escrow, email: str) -> Role:
    """As whom this e-mail would take the action now.

    Raises:
        Refused: mode, target or status stand against it, in this order.
    """
    action = ACTIONS[name]
    _check_mode(action, escrow)
    role = _target(action, escrow, email)
    seen = as_registered(escrow, role)
    choose(action.step, seen, person(seen, role))
    return role


def role_of(escrow: Escrow, email: str) -> Role | None:
    """Which party this e-mail is: of the registered person, or of whoever was invited."""
    if email in (escrow.seller_email, escrow.seller.email if escrow.seller else ""):
        return Role.SELLER
    if email in (escrow.buyer_email, escrow.buyer.email if escrow.buyer else ""):
        return Role.BUYER
    return None


def _check_mode(action: Action, escrow: Escrow) -> None:
    if action.name == "sign_contract" and escrow.mode != STANDARD:
        if escrow.mode == INSTANT:
            raise errors.InstantEscrowNoContract
        raise errors.QuickEscrowNoContract
    if action.name == "complete" and escrow.mode == INSTANT:
        raise errors.InstantEscrowNoCompleteStep
    if action.name in ("submit_proof", "review_proof") and escrow.mode != PROOF:
        raise errors.ProofNotEnabled


def _target(action: Action, escrow: Escrow, email: str) -> Role:
    role = role_of(escrow, email)
    targets = _targets_now(action, escrow)
    if role in targets:
        return role
    if role is not None and action.wrong_target is not None:
        raise action.wrong_target()
    if targets == _SELLER:
        raise errors.CheckoutTargetNotSeller
    raise errors.CheckoutTargetNotBuyer


def _targets_now(action: Action, escrow: Escrow) -> frozenset[Role]:
    """A dispute is withdrawn by its opener and answered by the other one."""
    if action.name not in ("withdraw_dispute", "answer_dispute"):
        return action.targets
    if escrow.status != DISPUTED or escrow.dispute is None:
        return _EITHER
    opener = frozenset({Role(escrow.dispute.opener)})
    return opener if action.name == "withdraw_dispute" else _EITHER - opener


EVERY = "*"


def moot(taken: Taken) -> list[tuple[str, str]]:
    """(action, e-mail) of the pending sessions that this step ends; EVERY stands for all of them.

    The same step was taken by another way, or nothing can be done any more. Where each party
    signs for itself, only the signer's are over. A dispute is answered by the other party's first
    word; what both add to it later ends nothing.
    """
    if taken.after.status in FINAL:
        return [(EVERY, EVERY)]
    if taken.row.name == "answer_dispute" and not _answers(taken):
        return []
    emails = _signers(taken) if taken.row.name == "sign_contract" else [EVERY]
    return [
        (action.name, email)
        for action in ACTIONS.values()
        if taken.row.name in (action.step, *action.or_by)
        for email in emails
    ]


def _answers(taken: Taken) -> bool:
    before, after = taken.before.dispute, taken.after.dispute
    return before is not None and after is not None and before.answered_at != after.answered_at


def _signers(taken: Taken) -> list[str]:
    before, after = taken.before.contract, taken.after.contract
    had = before.seller_signed_at if before else None
    is_seller = after is not None and after.seller_signed_at != had
    escrow = taken.after
    person, email = (
        (escrow.seller, escrow.seller_email) if is_seller else (escrow.buyer, escrow.buyer_email)
    )
    return sorted({email, person.email} if person else {email})


OF_STEPS: tuple[type[Refused], ...] = (
    errors.ContractAlreadySigned,
    errors.ContractNotSigned,
    errors.PaymentAlreadyDone,
    errors.EscrowAlreadyCompleted,
    errors.EscrowNotDelivered,
    errors.EscrowCancelled,
    errors.DisputeAlreadyOpened,
    errors.DisputeInvalidStatus,
    errors.CancellationRequestInvalidStatus,
    errors.CancelEscrowInvalidStatus,
    errors.CancellationAlreadyRequested,
    errors.NoPendingCancellation,
    errors.NoOpenDispute,
    errors.ProofWrongPhase,
    errors.SellerNotReady,
    errors.EscrowFrozen,
)
"""What the status may have against an action."""
OF_SESSIONS: tuple[type[Refused], ...] = (
    errors.NoRedirectUrlsConfigured,
    errors.RedirectUrlMustBeHttps,
    errors.RedirectUrlNotAllowed,
    errors.QuickEscrowNoContract,
    errors.InstantEscrowNoContract,
    errors.InstantEscrowNoCompleteStep,
    errors.ProofNotEnabled,
    errors.CancellationRequestBuyerOnly,
    errors.CancelEscrowSellerOnly,
    errors.CheckoutTargetNotBuyer,
    errors.CheckoutTargetNotSeller,
    *OF_STEPS,
)
"""Everything that may stand against a new session, in the order of the checks."""
