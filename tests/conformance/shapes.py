"""What an answer must look like: exact keys, types and values, and the documented shapes.

    assert answer.differs(200, {"escrow": detail(life, status="paid", paidAt=INSTANT)}) == []

A plain value stands for itself, of the same JSON type (`1000` is not `1000.0`, and not `true`).
A `Like` stands for every value that it holds of; every key that is not named must be absent.
"""

import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal
from typing import Any

INSTANT_TEXT = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}Z")
REASONS = {
    400: "Bad Request",
    401: "Unauthorized",
    403: "Forbidden",
    404: "Not Found",
    405: "Method Not Allowed",
    408: "Request Timeout",
    409: "Conflict",
    413: "Payload Too Large",
    422: "Unprocessable Entity",
    429: "Too Many Requests",
    503: "Service Unavailable",
}


@dataclass(frozen=True)
class Like:
    """Any value that `holds` is true of."""

    says: str
    holds: Callable[[Any], bool]


@dataclass(frozen=True)
class AtLeast:
    """An object with these keys and perhaps others: where the documentation says `…`."""

    keys: Mapping[str, Any]


def _is_instant(value: object) -> bool:
    if not isinstance(value, str) or INSTANT_TEXT.fullmatch(value) is None:
        return False
    return datetime.fromisoformat(value).year > 2000


def written(pattern: str) -> Like:
    """A string of this pattern."""
    return Like(pattern, lambda v: isinstance(v, str) and re.fullmatch(pattern, v) is not None)


def saying(*words: str) -> Like:
    """A sentence in which each of these words stands, in capitals or not."""
    return Like(
        f"a sentence with {words}",
        lambda v: isinstance(v, str) and all(word.lower() in v.lower() for word in words),
    )


INSTANT = Like("an ISO 8601 instant in UTC with Z", _is_instant)
ID = written("[0-9a-f]{24}")
UUID = written("[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")
SENTENCE = Like("a sentence", lambda v: isinstance(v, str) and len(v.strip()) > 3)
LEFT_OUT = Like("no such key", lambda v: False)
"""As a change of a shape: the key is not there."""


def number(text: str | int) -> int | Decimal:
    """The number as an answer gives it: whole ones without a fraction."""
    exact = Decimal(text)
    return int(exact) if exact == exact.to_integral_value() else exact


def differences(actual: Any, expected: Any, place: str = "answer") -> list[str]:
    """Where `actual` is not what is expected; empty when it is."""
    match expected:
        case Like():
            return [] if expected.holds(actual) else [f"{place}: {actual!r} is not {expected.says}"]
        case AtLeast():
            kept = {k: v for k, v in actual.items() if k in expected.keys}
            return differences(kept, dict(expected.keys), place)
        case dict():
            return _of_objects(actual, expected, place)
        case list():
            return _of_lists(actual, expected, place)
    if type(actual) is type(expected) and actual == expected:
        return []
    return [f"{place}: {actual!r} is not {expected!r}"]


def _of_objects(actual: Any, expected: Mapping[str, Any], place: str) -> list[str]:
    if not isinstance(actual, dict):
        return [f"{place}: {actual!r} is no object"]
    found = [f"{place}.{key}: is missing" for key in expected if key not in actual]
    found += [
        f"{place}.{key}: {v!r} is one too many" for key, v in actual.items() if key not in expected
    ]
    for key in expected.keys() & actual.keys():
        found += differences(actual[key], expected[key], f"{place}.{key}")
    return sorted(found)


def _of_lists(actual: Any, expected: list[Any], place: str) -> list[str]:
    if not isinstance(actual, list) or len(actual) != len(expected):
        return [f"{place}: {actual!r} is not a list of {len(expected)}"]
    return [
        line
        for n, (one, other) in enumerate(zip(actual, expected, strict=True))
        for line in differences(one, other, f"{place}[{n}]")
    ]


def changed(shape: Mapping[str, Any], changes: Mapping[str, Any]) -> dict[str, Any]:
    """The shape with these keys; `LEFT_OUT` takes one away."""
    whole = {**shape, **changes}
    return {key: value for key, value in whole.items() if value is not LEFT_OUT}


# ---- Refusals -----------------------------------------------------------------------------------


def e1(status: int, message: Any = SENTENCE, **extras: Any) -> dict[str, Any]:
    """`{error, message}`, and `code` or other extras (E4)."""
    return {"error": REASONS[status], "message": message, **extras}


def e2(sentence: str) -> dict[str, Any]:
    """`{error}` only."""
    return {"error": sentence}


def invalid(*fields: str) -> dict[str, Any]:
    """400 E4: exactly these bad fields, each with its text."""
    return e1(400, saying(*fields), details=dict.fromkeys(fields, SENTENCE))


# ---- Escrows ------------------------------------------------------------------------------------


def party(person: Any) -> dict[str, Any] | None:
    """A registered party, as everybody may see it."""
    if person is None:
        return None
    return {
        "_id": person.id,
        "email": person.email,
        "firstName": person.first_name,
        "lastName": person.last_name,
    }


def _fee(mode: str) -> int:
    return 0 if mode == "instant" else 5


def policy(**changes: Any) -> dict[str, Any]:
    """A proof escrow's policy with its defaults."""
    filled = {
        "type": "purchase_proof_required",
        "proofUploadDeadlineHours": 24,
        "buyerReviewDeadlineHours": 24,
    }
    return changed(filled, changes)


def signing(*, seller: bool = False, buyer: bool = False, **changes: Any) -> dict[str, Any]:
    """The contract in the answer of create."""
    shape = {
        "id": ID,
        "pdfUrl": None,
        "sellerSigned": seller,
        "buyerSigned": buyer,
        "isFullySigned": seller and buyer,
    }
    return changed(shape, changes)


def created(life: Any, **changes: Any) -> dict[str, Any]:
    """`escrow` in the answer of create: 100 TND, due in 3 days."""
    shape = {
        "id": ID,
        "title": "A camera",
        "amount": 100,
        "currency": "TND",
        "amountTnd": 100,
        "escrowFee": _fee(life.mode),
        "developerFee": 0,
        "developerFeePercentage": 0,
        "status": "pending",
        "mode": life.mode,
        "seller": life.seller.id if life.seller else None,
        "sellerEmail": None if life.seller else life.seller_email,
        "buyer": life.buyer.id if life.buyer else None,
        "buyerEmail": life.buyer.email if life.buyer else life.buyer_email,
        "estimatedDeliveryDays": 3,
        "expiresAt": INSTANT,
        "createdAt": INSTANT,
    }
    if life.has_proof:
        shape["fulfillmentPolicy"] = policy()
    return changed(shape, changes)


def listed(life: Any, **changes: Any) -> dict[str, Any]:
    """One item of the list."""
    shape = {
        "id": life.id,
        "title": "A camera",
        "amount": 100,
        "currency": "TND",
        "escrowFee": _fee(life.mode),
        "status": "pending",
        "mode": life.mode,
        "seller": party(life.seller),
        "buyer": party(life.buyer),
        "estimatedDeliveryDays": 3,
        "paidAt": None,
        "deliveredAt": None,
        "completedAt": None,
        "cancelledAt": None,
        "createdAt": INSTANT,
        "updatedAt": INSTANT,
    }
    return changed(shape, changes)


def detail(life: Any, **changes: Any) -> dict[str, Any]:
    """`escrow` in the answer of the read."""
    shape = {
        "id": life.id,
        "_id": life.id,
        "title": "A camera",
        "amount": 100,
        "currency": "TND",
        "amountTnd": 100,
        "fxRateUsed": 1,
        "escrowFee": _fee(life.mode),
        "developerFee": 0,
        "status": "pending",
        "mode": life.mode,
        "seller": party(life.seller),
        "buyer": party(life.buyer),
        "buyerEmail": life.buyer.email if life.buyer else life.buyer_email,
        "estimatedDeliveryDays": 3,
        "expiresAt": INSTANT,
        "completionDeadline": None,
        "paidAt": None,
        "deliveredAt": None,
        "completedAt": None,
        "cancelledAt": None,
        "createdAt": INSTANT,
        "updatedAt": INSTANT,
        "createdViaThirdParty": True,
        "createdByApplicationName": life.partner.company,
        "disputeTicketId": None,
        "disputeTicket": None,
        "signatures": signatures() if life.mode == "standard" else None,
        "cancelReason": None,
        "cancellationRequest": None,
        "deliveryRejections": [],
        "settlement": None,
    }
    if life.seller is None:
        shape["sellerEmail"] = life.seller_email
    if life.has_proof:
        shape["fulfillmentPolicy"] = policy()
        is_paid = changes.get("status", "pending") != "pending"
        shape["proofInfo"] = {
            "phase": "waiting_seller_proof" if is_paid else None,
            "correctionRounds": 0,
            "uploadDeadline": INSTANT if is_paid else None,
            "reviewDeadline": None,
        }
    return changed(shape, changes)


def signatures(*, seller: bool = False, buyer: bool = False) -> dict[str, Any]:
    """Who has signed; the `*At` keys exist only when their boolean is true."""
    shape: dict[str, Any] = {
        "sellerSigned": seller,
        "buyerSigned": buyer,
        "isFullySigned": seller and buyer,
    }
    if seller:
        shape["sellerSignedAt"] = INSTANT
    if buyer:
        shape["buyerSignedAt"] = INSTANT
    if seller and buyer:
        shape["signedAt"] = INSTANT
    return shape


def moved(life: Any, status: str, **changes: Any) -> dict[str, Any]:
    """`escrow` in the answer of a step: what every step shows."""
    shape = {
        "id": life.id,
        "title": "A camera",
        "amount": 100,
        "status": status,
        "createdAt": INSTANT,
        "updatedAt": INSTANT,
    }
    return changed(shape, changes)


def snapshot(life: Any, **changes: Any) -> dict[str, Any]:
    """E of the webhooks."""
    shape = {
        "id": life.id,
        "title": "A camera",
        "amount": 100,
        "currency": "TND",
        "amountTnd": 100,
        "escrowFee": _fee(life.mode),
        "status": "pending",
        "mode": life.mode,
        "seller": party(life.seller),
        "buyer": party(life.buyer),
        "estimatedDeliveryDays": 3,
        "createdAt": INSTANT,
        "updatedAt": INSTANT,
    }
    return changed(shape, changes)


def pages(total: int, *, page: int = 1, limit: int = 20, more: bool = False) -> dict[str, Any]:
    """`pagination` of a list by page."""
    cursor: Any = Like("a cursor", lambda v: isinstance(v, str) and bool(v)) if more else None
    return {
        "page": page,
        "limit": limit,
        "total": total,
        "pages": -(-total // limit),
        "nextCursor": cursor,
    }


def instants(value: Any) -> Iterable[datetime]:
    """Every instant in an answer."""
    if isinstance(value, dict):
        for part in value.values():
            yield from instants(part)
    elif isinstance(value, list):
        for part in value:
            yield from instants(part)
    elif isinstance(value, str) and INSTANT_TEXT.fullmatch(value):
        yield datetime.fromisoformat(value)
