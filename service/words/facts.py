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


class EscrowFacts(TypedDict):
    """One escrow as one of its parties is told about it.

    `role` is the reader's (seller or buyer); `at` is the business time at which the mail was
    written; `held` is the sum in the ledger's currency that is or was in escrow, `net` what the
    seller is paid of it; `reason` is why it was cancelled.
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


class EndpointFacts(TypedDict):
    """One webhook endpoint as its developer is told about it.

    `reason` is why it was disabled: the name of a `rules.delivery.DisableReason` in small letters.
    """

    endpoint_id: str
    url: str
    reason: str


class IdentityFacts(TypedDict):
    """One identity verification as the person is told about it; `company` asks, times are ISO."""

    verification_id: str
    company: str
    expires_at: str
    timezone: str
