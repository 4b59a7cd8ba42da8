"""What the terms of a new escrow must be to each other: the 400s of create. escrows.md 3.1.

Every function answers `{field: what is wrong with it}`, empty when all is well, so that all bad
fields are named at once.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from decimal import Decimal

from service.rules.aggregate import Escrow
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


@dataclass(frozen=True, slots=True)
class Place:
    """Which modes need a field, which will not have it, and what is said of that."""

    field: str
    needed_in: frozenset[str] = frozenset()
    barred_in: frozenset[str] = frozenset()
    barred: str = ""


_BARRED_TERMS = "must be absent for {mode} escrows: they have no contract"
_ALL_BUT_STANDARD = frozenset({QUICK, INSTANT})
_ALL_BUT_QUICK = frozenset({STANDARD, INSTANT})
_ALL_BUT_INSTANT = frozenset({STANDARD, QUICK})
# fmt: off
PLACES = (
    Place("sellerEmail", frozenset({QUICK}), frozenset({INSTANT}),
          "must be absent for {mode} escrows: your associated user sells"),
    Place("estimatedDeliveryDays", _ALL_BUT_INSTANT),
    Place("contractTerms", frozenset({STANDARD}), _ALL_BUT_STANDARD,
          _BARRED_TERMS),
    Place("fulfillmentPolicy", frozenset(), _ALL_BUT_QUICK, "is for quick escrows only"),
    Place("autoSign", frozenset(), _ALL_BUT_STANDARD, "is for standard escrows only"),
    Place("autoComplete", frozenset(), _ALL_BUT_INSTANT, "is for instant escrows only"),
)
# fmt: on
"""The fields whose place depends on the mode."""


def misplaced(mode: str, present: Collection[str]) -> dict[str, str]:
    """What is missing in this mode, or does not belong to it."""
    found = {}
    for place in PLACES:
        if place.field in present and mode in place.barred_in:
            found[place.field] = place.barred.format(mode=mode)
        elif place.field not in present and mode in place.needed_in:
            found[place.field] = f"is required for {mode} escrows"
    return found


def faults(terms: Terms) -> dict[str, str]:
    """What the terms alone show to be wrong."""
    found = misplaced(terms.mode, _present(terms))
    if to_minor(terms.amount, terms.currency) is None:
        places = EXPONENTS[terms.currency]
        found["amount"] = f"must have at most {places} decimals in {terms.currency}"
    if terms.seller_email == terms.buyer_email:
        found["buyerEmail"] = "must differ from the seller's e-mail"
    if terms.auto_sign and terms.mode == STANDARD and terms.seller_email is not None:
        found["autoSign"] = "is only for escrows that your own user sells: leave sellerEmail out"
    return found


def _present(terms: Terms) -> set[str]:
    """The placed fields that say something; a default says nothing."""
    says = {
        "sellerEmail": terms.seller_email is not None,
        "estimatedDeliveryDays": terms.estimated_delivery_days is not None,
        "contractTerms": terms.contract_terms is not None,
        "fulfillmentPolicy": terms.fulfillment_policy is not None,
        "autoSign": terms.auto_sign,
        "autoComplete": terms.auto_complete == "on_ack",
    }
    return {field for field, is_said in says.items() if is_said}


@dataclass(frozen=True, slots=True)
class Circumstances:
    """What the database says around the terms; no amount while no rate is young enough."""

    own_email: str | None
    seller_is_known: bool
    seller_is_verified: bool
    has_signature: bool
    can_acknowledge: bool
    amount_ledger_minor: int | None


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
    if around.amount_ledger_minor is None:
        return found
    return found | faults_of_amount(terms.own_mode, around.amount_ledger_minor)


def faults_of_amount(mode: str, ledger_minor: int) -> dict[str, str]:
    """What is wrong with an amount once its worth in the ledger's currency is known."""
    floor = FLOORS_MINOR[mode]
    if ledger_minor < floor:
        least = format(to_decimal(floor, LEDGER_CURRENCY).normalize(), "f")
        return {"amount": f"must be worth at least {least} {LEDGER_CURRENCY}"}
    if ledger_minor > MAX_MINOR:
        most = format(to_decimal(MAX_MINOR, LEDGER_CURRENCY), "f")
        return {"amount": f"must be worth at most {most} {LEDGER_CURRENCY}"}
    return {}


UPDATABLE: Mapping[str, Callable[[Escrow], object]] = {
    "title": lambda escrow: escrow.title,
    "amount": lambda escrow: escrow.amount_minor,
    "description": lambda escrow: escrow.description,
    "estimatedDeliveryDays": lambda escrow: escrow.estimated_delivery_days,
    "contractTerms": lambda escrow: escrow.contract.terms if escrow.contract else None,
}
"""The fields that an update may change and what of the escrow each is, in the order of 3.4."""


def faults_of_change(
    mode: str, currency: str, given: Collection[str], amount: Decimal | None
) -> dict[str, str]:
    """What is wrong with a change of terms of an escrow of this mode and currency."""
    found = {}
    if "contractTerms" in given and mode != STANDARD:
        found["contractTerms"] = _BARRED_TERMS.format(mode="quick" if mode == PROOF else mode)
    if amount is not None and to_minor(amount, currency) is None:
        found["amount"] = f"must have at most {EXPONENTS[currency]} decimals in {currency}"
    return found
