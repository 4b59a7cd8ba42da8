"""One escrow as its rows stand: facts only. Money in minor units, times in UTC.

`Escrow` is what a step is chosen for and what it changes; its parts (contract, rejections,
cancellation request, dispute, purchase proof) change with it, and `commands/steps.py` writes
down whatever is another one after the step.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from service.rules.files import StoredFile


@dataclass(frozen=True, slots=True)
class Person:
    """A registered user, as the other party and the partner servers may know them.

    `timezone` is the IANA name that they have chosen, None for the house's.
    """

    id: str
    email: str
    first_name: str
    last_name: str
    language: str = "en"
    is_phone_verified: bool = True
    timezone: str | None = None


@dataclass(frozen=True, slots=True)
class Contract:
    """A standard escrow's contract; a signature is the moment it was given to this version."""

    id: str
    terms: str
    version: int = 1
    seller_signed_at: datetime | None = None
    buyer_signed_at: datetime | None = None

    @property
    def is_fully_signed(self) -> bool:
        """Whether both parties have signed."""
        return self.seller_signed_at is not None and self.buyer_signed_at is not None

    @property
    def fully_signed_at(self) -> datetime | None:
        """When the second party signed."""
        if self.seller_signed_at is None or self.buyer_signed_at is None:
            return None
        return max(self.seller_signed_at, self.buyer_signed_at)


@dataclass(frozen=True, slots=True)
class Rejection:
    """A delivery that the buyer sent back."""

    rejected_at: datetime
    previous_delivered_at: datetime
    reason: str | None = None


PENDING, ACCEPTED, REJECTED, CLOSED = "pending", "accepted", "rejected", "closed"


@dataclass(frozen=True, slots=True)
class CancellationRequest:
    """What the buyer asked for last. `closed`: another step made it pointless.

    `answered_by` is None where the clock answered, or nobody.
    """

    id: str
    requested_by: Person
    requested_at: datetime
    reason: str | None = None
    status: str = PENDING
    answered_at: datetime | None = None
    answered_by: Person | None = None


@dataclass(frozen=True, slots=True)
class Settlement:
    """How the held money was shared: the first two sum to it, the last three to the seller's."""

    seller_minor: int
    buyer_minor: int
    escrow_fee_minor: int
    developer_fee_minor: int
    seller_net_minor: int
    resolved_by: str


@dataclass(frozen=True, slots=True)
class Dispute:
    """The last dispute. `opener` is `seller` or `buyer`, `back_to` the status that it left.

    `answered_at` is when the other party spoke; until then the clock decides for the opener.
    `outcome`: `seller`, `buyer`, `split` or `withdrawn`, once it is resolved.
    """

    id: str
    ticket_number: int
    opener: str
    opened_by: Person
    reason: str
    opened_at: datetime
    back_to: str
    answered_at: datetime | None = None
    resolved_at: datetime | None = None
    outcome: str | None = None
    settlement: Settlement | None = None

    @property
    def is_open(self) -> bool:
        """Whether it still waits for its end."""
        return self.resolved_at is None


@dataclass(frozen=True, slots=True)
class Submission:
    """What the seller has handed in at once; `correction` is what the buyer asked for then."""

    id: str
    submitted_at: datetime
    files: tuple[StoredFile, ...]
    note: str | None = None
    correction: str | None = None


@dataclass(frozen=True, slots=True)
class PurchaseProof:
    """Where a proof escrow's purchase proof stands; `rules/proof.py` has the phases.

    `submissions` has the oldest first.
    """

    phase: str
    upload_deadline: datetime
    review_deadline: datetime | None = None
    correction_rounds: int = 0
    submissions: tuple[Submission, ...] = ()


@dataclass(frozen=True, slots=True)
class Deposit:
    """A guest's payment with its proof, by its payment's id; `method` is the provider's name."""

    id: str
    buyer_email: str
    amount_minor: int
    currency: str
    method: str
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Escrow:
    """The whole.

    `seller` and `buyer` are None until that person has registered; the e-mails are always there.
    `seq` is its event counter, `completion_deadline` the deadline of that kind while it runs.
    `cancellation` and `dispute` are the last ones, whatever became of them. With
    `seller_awaits_identity` the creator has asked who the seller is, and that is not decided: known
    while it is pending only. `guest_provider` is by whom a guest paid, None where it was paid from
    a wallet; `rejected_deposit` the proof that the operator has just rejected.
    """

    id: str
    mode: str
    status: str
    creator_id: str
    seller_email: str
    buyer_email: str
    title: str
    currency: str
    ledger_currency: str
    amount_minor: int
    fx_rate: Decimal
    amount_ledger_minor: int
    escrow_fee_minor: int
    estimated_delivery_days: int
    created_at: datetime
    updated_at: datetime
    seller: Person | None = None
    buyer: Person | None = None
    seq: int = 0
    frozen: bool = False
    description: str | None = None
    language: str = "en"
    developer_fee_bps: int = 0
    developer_fee_minor: int = 0
    developer_fee_user_id: str | None = None
    auto_complete: str = "manual"
    fulfillment_policy: Mapping[str, object] | None = None
    funded_minor: int = 0
    held_minor: int = 0
    released_minor: int = 0
    refunded_minor: int = 0
    fees_minor: int = 0
    cancel_reason: str | None = None
    expires_at: datetime | None = None
    paid_at: datetime | None = None
    delivered_at: datetime | None = None
    completed_at: datetime | None = None
    cancelled_at: datetime | None = None
    completion_deadline: datetime | None = None
    creator_company: str = ""
    contract: Contract | None = None
    rejections: tuple[Rejection, ...] = ()
    cancellation: CancellationRequest | None = None
    dispute: Dispute | None = None
    proof: PurchaseProof | None = None
    seller_awaits_identity: bool = False
    guest_provider: str | None = None
    deposit: Deposit | None = None
    rejected_deposit: Deposit | None = None

    @property
    def seller_id(self) -> str | None:
        """The seller's user id, None while not registered."""
        return self.seller.id if self.seller else None

    @property
    def buyer_id(self) -> str | None:
        """The buyer's user id, None while not registered."""
        return self.buyer.id if self.buyer else None

    @property
    def seller_address(self) -> str:
        """Where the seller is written to: the user's e-mail, else the one that was invited."""
        return self.seller.email if self.seller else self.seller_email

    @property
    def buyer_address(self) -> str:
        """Where the buyer is written to: the user's e-mail, else the one that was invited."""
        return self.buyer.email if self.buyer else self.buyer_email

    @property
    def has_pending_cancellation(self) -> bool:
        """Whether the buyer's request waits for an answer."""
        return self.cancellation is not None and self.cancellation.status == PENDING
