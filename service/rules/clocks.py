"""What time does to a buyer-seller escrow: the second table. Source: escrows.md 4.

A clock runs while its row fits the escrow, so that a step turns the clocks by what the escrow is
before and after it. A dispute pauses them with the time that remains, as does the buyer's pending
request to cancel for those that would pay the seller.
"""

import calendar
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timedelta

from service.rules import proof
from service.rules.aggregate import Escrow
from service.rules.escrow import (
    CANCELLED,
    COMPLETED,
    DELIVERED,
    DISPUTED,
    FINAL,
    INSTANT,
    MODES,
    PAID,
    PENDING,
    PROOF,
    QUICK,
    STANDARD,
    TABLE,
)
from service.rules.machine import Role
from service.rules.policy import Policy

_A = frozenset(MODES)
_P = frozenset({PROOF})
_I = frozenset({INSTANT})
_Q = frozenset({STANDARD, QUICK, PROOF})


@dataclass(frozen=True, slots=True)
class Clock:
    """While an escrow of these modes is in `state`, and `only` says so, the clock runs.

    At `due` it takes `step`. A disputed escrow's clocks are those of the state that it left,
    stopped with what remains; those of OF_DISPUTES alone run then. A clock `of_payment` counts from
    the payment and strikes once: when the escrow is paid again it goes on where it was stopped.
    """

    kind: str
    state: str
    modes: frozenset[str]
    due: Callable[[Escrow, datetime, Policy], datetime]
    step: str
    says: str
    only: Callable[[Escrow], bool] | None = None
    of_payment: bool = False


def expiry_at(now: datetime, policy: Policy) -> datetime:
    """When an escrow that is opened now expires unpaid."""
    return months_later(now, policy.expiry_months)


def _expiry(_: Escrow, now: datetime, policy: Policy) -> datetime:
    return expiry_at(now, policy)


def _overdue(escrow: Escrow, now: datetime, _: Policy) -> datetime:
    return (escrow.paid_at or now) + timedelta(days=escrow.estimated_delivery_days)


def _too_late(escrow: Escrow, now: datetime, policy: Policy) -> datetime:
    return _overdue(escrow, now, policy) + timedelta(days=policy.overdue_refund_days)


def _confirm(_: Escrow, now: datetime, policy: Policy) -> datetime:
    return now + timedelta(days=policy.completion_days)


def _answer(_: Escrow, now: datetime, policy: Policy) -> datetime:
    return now + timedelta(days=policy.cancellation_answer_days)


def _defence(_: Escrow, now: datetime, policy: Policy) -> datetime:
    return now + timedelta(days=policy.dispute_answer_days)


def _warning(escrow: Escrow, now: datetime, policy: Policy) -> datetime:
    return _defence(escrow, now, policy) - REMINDED_BEFORE


def _at_once(_: Escrow, now: datetime, __: Policy) -> datetime:
    return now


def _upload(escrow: Escrow, now: datetime, _: Policy) -> datetime:
    return escrow.proof.upload_deadline if escrow.proof else now


def _review(escrow: Escrow, now: datetime, _: Policy) -> datetime:
    return (escrow.proof.review_deadline if escrow.proof else None) or now


def _asked(escrow: Escrow) -> bool:
    return escrow.has_pending_cancellation


def _unanswered(escrow: Escrow) -> bool:
    return escrow.dispute is not None and escrow.dispute.answered_at is None


def _in_phase(phase: str) -> Callable[[Escrow], bool]:
    return lambda escrow: escrow.proof is not None and escrow.proof.phase == phase


_WAITING, _SHOWN = _in_phase(proof.WAITING), _in_phase(proof.REVIEW)
_CORRECTING = _in_phase(proof.CORRECTION)

ACKNOWLEDGED = "acknowledged"
DISPUTE_ANSWER, DISPUTE_REMINDER = "dispute_answer", "dispute_reminder"
OF_DISPUTES = frozenset({DISPUTE_ANSWER, DISPUTE_REMINDER})
"""What runs while all else stands still."""
REMINDED_BEFORE = timedelta(days=1)

# fmt: off
CLOCKS = (
    #     kind                   state      modes due        step when
    Clock("expiry",              PENDING,   _A,   _expiry,   "cancel",              "in 1 month"),
    Clock("proof_upload",        PAID,      _P,   _upload,   "expire_proof",        "by its policy",
          _WAITING),
    Clock("proof_review",        PAID,      _P,   _review,   "pass_proof",          "by its policy",
          _SHOWN),
    Clock("proof_upload",        PAID,      _P,   _upload,   "escalate_proof",      "by its policy",
          _CORRECTING),
    Clock("delivery_overdue",    PAID,      _A,   _overdue,  "note_overdue",        "as estimated",
          of_payment=True),
    Clock("overdue_refund",      PAID,      _I,   _too_late, "refund_overdue",      "3 days later",
          of_payment=True),
    Clock(ACKNOWLEDGED,          PAID,      _I,   _at_once,  "deliver",             "by a 2xx"),
    Clock("completion",          DELIVERED, _Q,   _confirm,  "complete",            "in 7 days"),
    Clock("cancellation_answer", PAID,      _A,   _answer,   "accept_cancellation", "in 5 days",
          _asked),
    Clock("cancellation_answer", DELIVERED, _Q,   _answer,   "reject_cancellation", "in 5 days",
          _asked),
    Clock(DISPUTE_REMINDER,      DISPUTED,  _A,   _warning,  "remind_dispute",      "in 4 days",
          _unanswered),
    Clock(DISPUTE_ANSWER,        DISPUTED,  _A,   _defence,  "resolve_dispute",     "in 5 days",
          _unanswered),
)
# fmt: on
ARMED_BY_OTHERS = frozenset({ACKNOWLEDGED})
"""Armed by a partner's 2xx, not by a step; once there they are stopped and paused like all."""
KINDS = frozenset(clock.kind for clock in CLOCKS)
ENDED_BY_TIME = tuple(
    (mode, clock.state, clock.kind)
    for clock in CLOCKS
    if clock.only is None and clock.kind not in ARMED_BY_OTHERS
    for mode in sorted(clock.modes)
    for row in (TABLE.find(clock.step, clock.state, mode),)
    if row is not None and row.target != clock.state
)
"""(mode, state, kind): while in this state, this deadline is open. The others wait for a person."""


def running(escrow: Escrow) -> dict[str, Clock]:
    """The clocks that an escrow has in its state, by kind; some of them may be paused."""
    states = {escrow.status}
    if escrow.status == DISPUTED and escrow.dispute is not None:
        states.add(escrow.dispute.back_to)
    return {
        clock.kind: clock
        for clock in CLOCKS
        if clock.state in states
        and escrow.mode in clock.modes
        and (clock.only is None or clock.only(escrow))
    }


def is_paused(kind: str, escrow: Escrow) -> bool:
    """Whether a clock of this kind stands still: in a dispute, or while somebody is awaited.

    An escrow does not expire while a guest's payment proof is under review.
    """
    if escrow.status == DISPUTED:
        return kind not in OF_DISPUTES
    if kind == "expiry":
        return escrow.deposit is not None
    return kind in ("completion", ACKNOWLEDGED) and escrow.has_pending_cancellation


def due_step(kind: str, escrow: Escrow) -> tuple[str, str | None]:
    """The step that the clock of this kind takes now, and its target where two are possible."""
    name = running(escrow)[kind].step
    if name != "resolve_dispute" or escrow.dispute is None:
        return name, None
    return name, COMPLETED if escrow.dispute.opener == Role.SELLER else CANCELLED


def months_later(start: datetime, months: int) -> datetime:
    """The same day `months` calendar months on, or that month's last day."""
    index = start.year * 12 + start.month - 1 + months
    year, month = divmod(index, 12)
    day = min(start.day, calendar.monthrange(year, month + 1)[1])
    return start.replace(year=year, month=month + 1, day=day)


@dataclass(frozen=True, slots=True)
class Turn:
    """What a step does to an escrow's clocks, by kind. `stops_all`: those of invitations too.

    `arms` has (kind, due, whether it stands still at once). `rearms` are armed with the time at
    which they were stopped, now where that is past, and only if they have not struck yet. `stays`
    ran before and still run or stand still.
    """

    escrow_id: str
    version: int
    stops_all: bool = False
    stops: tuple[str, ...] = ()
    pauses: tuple[str, ...] = ()
    resumes: tuple[str, ...] = ()
    arms: tuple[tuple[str, datetime, bool], ...] = ()
    rearms: tuple[str, ...] = ()
    stays: tuple[str, ...] = ()


def turn(before: Escrow | None, after: Escrow, now: datetime, policy: Policy) -> Turn:
    """The clocks from one standing to the next; `before` is None where the escrow is new."""
    if after.status in FINAL:
        return Turn(after.id, after.seq, stops_all=True)
    was = running(before) if before else {}
    runs = running(after)
    stay = [kind for kind in runs if kind in was]
    starts = {k: c for k, c in runs.items() if k not in was and k not in ARMED_BY_OTHERS}
    is_back = before is not None and before.paid_at is not None
    rearms = tuple(kind for kind, clock in starts.items() if clock.of_payment and is_back)
    return Turn(
        after.id,
        after.seq,
        stops=tuple(kind for kind in was if kind not in runs),
        pauses=tuple(k for k in stay if before and is_paused(k, after) > is_paused(k, before)),
        resumes=tuple(k for k in stay if before and is_paused(k, after) < is_paused(k, before)),
        arms=tuple(
            (kind, clock.due(after, now, policy), is_paused(kind, after))
            for kind, clock in starts.items()
            if kind not in rearms
        ),
        rearms=rearms,
        stays=tuple(stay),
    )
