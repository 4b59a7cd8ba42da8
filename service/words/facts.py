"""What a mail is told of what it is about: plain JSON, kept with its row, never a token.

Amounts are decimal strings that carry exactly their currency's decimals (`"1000.000"`), instants
are ISO 8601 in UTC, names are what people typed: hostile until `media.py` has made them inert.
"""

from typing import NotRequired, TypedDict


class Times(TypedDict, total=False):
    """When something happened, or by when it must; ISO 8601, absent or null when neither."""

    created_at: str | None
    paid_at: str | None
    delivered_at: str | None
    completed_at: str | None
    cancelled_at: str | None
    disputed_at: str | None
    expires_at: str | None
    delivery_due_at: str | None
    completion_due_at: str | None
    refund_due_at: str | None
    answer_due_at: str | None
    request_due_at: str | None
    proof_due_at: str | None
    review_due_at: str | None


class EscrowFacts(TypedDict):
    """One escrow as one of its parties is told about it.

    `role` is the reader's (seller or buyer), `timezone` theirs; `at` is the business time at which
    the mail was written; `held` is the sum in the ledger's currency that is or was in escrow,
    `net` what the seller is paid of it; `reason` is why it was cancelled; `paused` names the times
    of `times` whose clock stands still, so that nobody knows them yet; `note` is what the other
    side wrote with the step; `was` is the amount before it was changed, `is_rewritten` whether the
    contract's terms were; `refunded` is the sum that went back to the buyer, in the ledger's
    currency, and `settled_by` who ended a dispute (operator, offer or clock).
    """

    escrow_id: str
    title: str
    amount: str
    currency: str
    held: str
    ledger_currency: str
    net: str
    mode: str
    status: str
    role: str
    seller: str
    buyer: str
    times: Times
    at: str
    timezone: str
    reason: NotRequired[str | None]
    paused: NotRequired[list[str]]
    note: NotRequired[str | None]
    was: NotRequired[str]
    is_rewritten: NotRequired[bool]
    refunded: NotRequired[str]
    settled_by: NotRequired[str | None]


class RoleFacts(TypedDict):
    """A milestone escrow as somebody who has to do with it is told about it.

    `role` is the Role in which they read it, null for a payee without one; `timezone` theirs. Of a
    step: `how` is its name, or `clock`; `moved` the sum, or what a payee got; `numbers` are the
    milestones', counted from 1; a dispute was opened `by` an e-mail, `note` is its reason, `due_at`
    when it must be resolved, in ISO 8601. `page` is the path of ours that the mail leads to.
    """

    escrow_id: str
    title: str
    amount: str
    currency: str
    company: str
    role: str | None
    timezone: NotRequired[str]
    how: NotRequired[str]
    moved: NotRequired[str]
    numbers: NotRequired[list[int]]
    by: NotRequired[str]
    note: NotRequired[str]
    due_at: NotRequired[str]
    page: NotRequired[str]


class EndpointFacts(TypedDict):
    """One webhook endpoint as its developer is told about it.

    `reason` is why it was disabled, or what has failed by now: the name of a
    `rules.delivery.DisableReason` or of a `rules.lane.Told` in small letters.
    """

    endpoint_id: str
    url: str
    reason: str


class PaymentFacts(TypedDict):
    """One payment as its payer or payee is told about it.

    `page` is the path of ours that the mail leads to; `title` is the escrow's where there is one,
    `payee` to whom a payout goes, `note` what the operator wrote.
    """

    payment_id: str
    amount: str
    currency: str
    page: str
    title: str | None
    payee: str | None
    note: str | None


class CodeFacts(TypedDict):
    """A code that somebody asked for; `code` is derived when the mail is written, never kept."""

    code_id: str
    minutes: int
    code: NotRequired[str]


class IdentityFacts(TypedDict):
    """One identity verification as the person is told about it; `company` asks, times are ISO.

    `reason` is what the operator wrote with the decision.
    """

    verification_id: str
    company: str
    expires_at: str
    timezone: str
    reason: NotRequired[str | None]
