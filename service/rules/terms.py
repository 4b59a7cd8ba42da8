"""What the terms of a new escrow must be to each other: the 400s of create. escrows.md 3.1.

Every function answers `{field: what is wrong with it}`, empty when all is well, so that all bad
fields are named at once.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal

from service.rules.escrow import INSTANT, PROOF, QUICK, STANDARD
from service.rules.fees import FLOORS_MINOR
from service.rules.money import EXPONENTS, LEDGER_CURRENCY, MAX_MINOR, to_decimal, to_minor


@dataclass(frozen=True, slots=True)
class Terms:
    """The agreed terms, before anything is looked up. `developer_fee_bps`: 250 is 2.5 %."""

    title: str
    amount: Decimal
    currency: str
    buyer_email: str
    seller_email: str | None
    mode: str
    estimated_delivery_days: int | None
    contract_terms: str | None
    auto_sign: bool
    developer_fee_bps: int
    fulfillment_policy: Mapping[str, object] | None
    language: str
    auto_complete: str

    @property
    def delivery_days(self) -> int:
        """The estimate; an instant escrow's default is one day."""
        return self.estimated_delivery_days or 1

    @property
    def own_mode(self) -> str:
        """The table's mode: a quick escrow with a policy is one of its own."""
        return PROOF if self.fulfillment_policy is not None else self.mode


# fmt: off
FAULTS: tuple[tuple[str, Callable[[Terms], bool], str], ...] = (
    # field, when it is at fault, what is said of it
    ("amount", lambda t: to_minor(t.amount, t.currency) is None,
     "must have at most {places} decimals in {currency}"),
    ("sellerEmail", lambda t: t.mode == INSTANT and t.seller_email is not None,
     "must be absent for instant escrows: your associated user sells"),
    ("sellerEmail", lambda t: t.mode == QUICK and t.seller_email is None,
     "is required for quick escrows"),
    ("buyerEmail", lambda t: t.seller_email == t.buyer_email,
     "must differ from the seller's e-mail"),
    ("estimatedDeliveryDays", lambda t: t.mode != INSTANT and t.estimated_delivery_days is None,
     "is required for {mode} escrows"),
    ("contractTerms", lambda t: t.mode == STANDARD and t.contract_terms is None,
     "is required for standard escrows"),
    ("contractTerms", lambda t: t.mode != STANDARD and t.contract_terms is not None,
     "must be absent for {mode} escrows: they have no contract"),
    ("fulfillmentPolicy", lambda t: t.mode != QUICK and t.fulfillment_policy is not None,
     "is for quick escrows only"),
    ("autoComplete", lambda t: t.mode != INSTANT and t.auto_complete == "on_ack",
     "is for instant escrows only"),
    ("autoSign", lambda t: t.auto_sign and t.mode != STANDARD,
     "is for standard escrows only"),
    ("autoSign", lambda t: t.auto_sign and t.seller_email is not None,
     "is only for escrows that your own user sells: leave sellerEmail out"),
)
# fmt: on


def faults(terms: Terms) -> dict[str, str]:
    """What the terms alone show to be wrong; a field's first fault is the one that is named."""
    found: dict[str, str] = {}
    for field, is_faulty, sentence in FAULTS:
        if field not in found and is_faulty(terms):
            found[field] = sentence.format(
                mode=terms.mode, currency=terms.currency, places=EXPONENTS[terms.currency]
            )
    return found


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the database says around the terms."""

    own_email: str | None
    seller_is_known: bool
    seller_is_verified: bool
    has_signature: bool
    can_acknowledge: bool
    amount_ledger_minor: int


def faults_in(terms: Terms, around: Circumstances) -> dict[str, str]:
    """What is wrong with the terms in these circumstances."""
    found: dict[str, str] = {}
    sells_self = terms.seller_email in (None, around.own_email)
    if terms.seller_email is None and terms.buyer_email == around.own_email:
        found["buyerEmail"] = "must differ from the seller's e-mail"
    if terms.developer_fee_bps > 0 and sells_self:
        found["developerFeePercentage"] = "must be 0 when your own user sells"
    if around.seller_is_known and not around.seller_is_verified:
        found["sellerEmail"] = "belongs to a user whose e-mail is not verified"
    if terms.auto_sign and not around.has_signature:
        found["autoSign"] = "needs a stored signature: PUT /api/developer/signature first"
    if terms.auto_complete == "on_ack" and not around.can_acknowledge:
        found["autoComplete"] = (
            "on_ack needs an active webhook endpoint subscribed to escrow.status.updated"
        )
    floor = FLOORS_MINOR[terms.own_mode]
    if around.amount_ledger_minor < floor:
        least = format(to_decimal(floor, LEDGER_CURRENCY).normalize(), "f")
        found["amount"] = f"must be worth at least {least} {LEDGER_CURRENCY}"
    if around.amount_ledger_minor > MAX_MINOR:
        most = format(to_decimal(MAX_MINOR, LEDGER_CURRENCY), "f")
        found["amount"] = f"must be worth at most {most} {LEDGER_CURRENCY}"
    return found
