"""What a contract's document says, and its fingerprint. Source: escrows.md 9.

Law: pure. The fingerprint covers everything that is printed: the facts as they stood when the
document was asked for, the terms, and each signature with the SHA-256 of its image.
"""

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Literal, TypedDict

from service.rules.aggregate import Contract, Escrow, Person
from service.rules.money import to_decimal

Signing = Literal["unsigned", "buyer-signed", "seller-signed", "fully-signed"]


class Party(TypedDict):
    """Who a party is; `name` is null while nobody has registered."""

    name: str | None
    email: str


class Signed(TypedDict):
    """One signature as it is printed: a typed name, or an image by its SHA-256 in hex."""

    role: str
    method: str
    name: str | None
    image_sha256: str | None
    email: str
    signed_at: str


class ContractFacts(TypedDict):
    """An escrow as its contract states it; amounts are decimal strings, instants ISO 8601 UTC."""

    escrow: str
    contract: str
    version: int
    signing: Signing
    language: str
    title: str
    amount: str
    currency: str
    fx_rate: str
    held: str
    ledger_currency: str
    escrow_fee: str
    developer_fee: str
    net: str
    delivery_days: int
    seller: Party
    buyer: Party
    created_at: str
    issued_at: str


def signing_of(contract: Contract) -> Signing:
    """Who has signed this version."""
    if contract.is_fully_signed:
        return "fully-signed"
    if contract.seller_signed_at is not None:
        return "seller-signed"
    return "unsigned" if contract.buyer_signed_at is None else "buyer-signed"


def facts_of(escrow: Escrow, contract: Contract, issued_at: str, created_at: str) -> ContractFacts:
    """What the document of this escrow states now; its terms are kept with the contract."""
    net = escrow.amount_ledger_minor - escrow.escrow_fee_minor - escrow.developer_fee_minor
    return ContractFacts(
        escrow=escrow.id,
        contract=contract.id,
        version=contract.version,
        signing=signing_of(contract),
        language=escrow.language,
        title=escrow.title,
        amount=_written(escrow.amount_minor, escrow.currency),
        currency=escrow.currency,
        fx_rate=format(escrow.fx_rate, "f"),
        held=_written(escrow.amount_ledger_minor, escrow.ledger_currency),
        ledger_currency=escrow.ledger_currency,
        escrow_fee=_written(escrow.escrow_fee_minor, escrow.ledger_currency),
        developer_fee=_written(escrow.developer_fee_minor, escrow.ledger_currency),
        net=_written(net, escrow.ledger_currency),
        delivery_days=escrow.estimated_delivery_days,
        seller=_party(escrow.seller, escrow.seller_email),
        buyer=_party(escrow.buyer, escrow.buyer_email),
        created_at=created_at,
        issued_at=issued_at,
    )


def fingerprint(facts: ContractFacts, terms: str, signatures: Sequence[Signed]) -> str:
    """SHA-256 in hex over the canonical JSON of all of it: keys sorted, no blanks, UTF-8."""
    whole: Mapping[str, object] = {**facts, "terms": terms, "signatures": list(signatures)}
    canonical = json.dumps(whole, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _written(minor: int, currency: str) -> str:
    return format(to_decimal(minor, currency), "f")


def _party(person: Person | None, email: str) -> Party:
    if person is None:
        return Party(name=None, email=email)
    return Party(name=f"{person.first_name} {person.last_name}", email=person.email)
