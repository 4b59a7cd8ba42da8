"""What the terms of a new escrow must be to each other: the 400s of create. escrows.md 3.1.

Every function answers `{field: what is wrong with it}`, empty when all is well, so that all bad
fields are named at once.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from decimal import Decimal

from service.rules.escrow import INSTANT, PROOF, QUICK, STANDARD
from service.rules.fees import FLOORS_MINOR
from service.rules.money import EXPONENTS, LEDGER_CURRENCY, to_decimal, to_minor


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


def faults(terms: Terms) -> dict[str, str]:
    """What the terms alone show to be wrong."""
    found: dict[str, str] = {}
    places = EXPONENTS[terms.currency]
    if to_minor(terms.amount, terms.currency) is None:
        found["amount"] = f"must have at most {places} decimals in {terms.currency}"
    if terms.mode == INSTANT and terms.seller_email is not None:
        found["sellerEmail"] = "must be absent for instant escrows: your associated user sells"
    if terms.mode == QUICK and terms.seller_email is None:
        found["sellerEmail"] = "is required for quick escrows"
    if terms.seller_email is not None and terms.seller_email == terms.buyer_email:
        found["buyerEmail"] = "must differ from the seller's e-mail"
    if terms.mode != INSTANT and terms.estimated_delivery_days is None:
        found["estimatedDeliveryDays"] = f"is required for {terms.mode} escrows"
    if terms.mode == STANDARD and terms.contract_terms is None:
        found["contractTerms"] = "is required for standard escrows"
    if terms.mode != STANDARD and terms.contract_terms is not None:
        found["contractTerms"] = f"must be absent for {terms.mode} escrows: they have no contract"
    if terms.fulfillment_policy is not None and terms.mode != QUICK:
        found["fulfillmentPolicy"] = "is for quick escrows only"
    if terms.auto_complete == "on_ack" and terms.mode != INSTANT:
        found["autoComplete"] = "is for instant escrows only"
    if terms.auto_sign:
        found.update(_auto_sign_faults(terms))
    return found


def _auto_sign_faults(terms: Terms) -> dict[str, str]:
    if terms.mode != STANDARD:
        return {"autoSign": "is for standard escrows only"}
    if terms.seller_email is not None:
        return {"autoSign": "is only for escrows that your own user sells: leave sellerEmail out"}
    return {}


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
    return found
