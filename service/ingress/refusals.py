"""Which refusals each route can give, and what one looks like: from its row and from the tables.

Law: nothing is listed here that a row or a table says. What a refusal looks like is what
`reply_to` makes of a real one, filled with the facts below.
"""

from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from itertools import product
from string import Formatter
from typing import Any

from service.ingress.auth import NO_KEY
from service.ingress.bodies import BODY_TIMEOUT_SECONDS
from service.ingress.errors import (
    BodyBroken,
    BodyTooLarge,
    BodyTooSlow,
    EncodingUnknown,
    RateLimited,
    Reply,
    Unauthorized,
    reply_to,
)
from service.ingress.middlewares import WITH_BODY, is_limited
from service.ingress.route import Auth, Route
from service.rules import errors as no
from service.rules import proof
from service.rules.address import BAD_URL
from service.rules.aggregate import (
    CancellationRequest,
    Contract,
    Dispute,
    Escrow,
    Person,
    PurchaseProof,
)
from service.rules.errors import Refused, Unavailable
from service.rules.escrow import MODES, PROOF, STANDARD, STATUSES, STEPS, TABLE, choose, roles
from service.rules.machine import NOWHERE, Actor, ActorKind
from service.rules.milestone_refusals import REFUSALS as OF_MILESTONES

REQUEST_ID = "5f0c1e8a9b7d4c3e2f1a0b6d"
FACTS: Mapping[str, object] = {
    "retry_after": 17,
    "limit": 100,
    "version": 2,
    "count": 100,
    "remaining": 0,
    "seconds": int(BODY_TIMEOUT_SECONDS),
    "status": "completed",
    "needed": "pending",
    "act": "deliver",
    "hint": "",
    "party": "seller",
    "currency": "USD",
    "amount": 1000,
    "held": 1000,
    "max_age_hours": 48,
    "phase": "waiting_seller_proof",
    "provider": "sandbox",
    "payment": REQUEST_ID,
    "state": "succeeded",
    "kyc_status": "approved",
    "user_exists": True,
    "reason": "This is not allowed here.",
    "index": 0,
    "last": 2,
    "balance": "100.000",
    "times": 1000,
    "email": "receiver@example.com",
    "most": "900000000000.000",
    "field": "title",
}
"""A fact's name -> what stands for it in an example."""
REASONS: Mapping[type[Refused], str] = {
    Unauthorized: NO_KEY,
    no.Malformed: "The body is not valid JSON: line 1, column 2.",
    no.WebhookRefused: BAD_URL,
}
"""What `{reason}` says in the example of those that tell their own."""


def refusals(route: Route) -> tuple[type[Refused], ...]:
    """Everything that this route can be refused with, in the order of the checks, each once."""
    return tuple(dict.fromkeys(_in_order(route)))


def replies(route: Route) -> Iterator[tuple[str, Reply]]:
    """The name and the answer of each refusal of this route, then of the ways that we fail."""
    for refusal in refusals(route):
        yield refusal.__name__, _reply(sample(refusal), route)
    yield "Unavailable", _reply(Unavailable(), route)
    yield "Bug", _reply(RuntimeError(), route)


def sample(refusal: type[Refused]) -> Refused:
    """A refusal of this kind, with facts as they might be."""
    if issubclass(refusal, no.Invalid):
        return refusal({"title": "is required", "amount": "must be a number"})
    sentence = (refusal.__doc__ or "").strip().splitlines()[0]
    named = {name: "…" for _, name, _, _ in Formatter().parse(sentence) if name}
    reason = REASONS.get(refusal, FACTS["reason"])
    return refusal(**{**named, **FACTS, "reason": reason})


def _reply(error: Exception, route: Route) -> Reply:
    return reply_to(error, REQUEST_ID, route.clashes, route.path)


def _in_order(route: Route) -> Iterator[type[Refused]]:
    if is_limited(route.path):
        yield RateLimited
    yield no.Malformed  # an X-Request-Id that is not ASCII
    if route.auth is not Auth.NONE:
        yield Unauthorized
    if route.auth is Auth.ASSOCIATED:
        yield no.NotAssociated
    for subject in route.subject.chain() if route.subject else ():
        yield from (subject.malformed, subject.missing, subject.denied)
    if route.method in WITH_BODY:
        yield from (BodyTooLarge, BodyTooSlow, BodyBroken, EncodingUnknown)
        yield from (no.IdempotencyKeyReused, no.IdempotencyInFlight)
    if route.takes is not None:
        yield route.unfit
    yield route.unfit_fields  # a name in the query that stands twice, or is no UTF-8
    for step in route.steps:
        yield from of_step(step) if route.table is TABLE else OF_MILESTONES[step]
    yield from route.refuses


# ---- The table of steps, asked for all of its refusals ------------------------------------------

_AT = datetime(2026, 1, 31, 9, 30, tzinfo=UTC)
_SELLER = Person("65bb7f0e0000000000000001", "seller@example.com", "Sami", "Ben Ali")
_BUYER = Person("65bb7f0e0000000000000002", "buyer@example.com", "Bo", "Yahia")
_CREATOR = "65bb7f0e0000000000000003"
_ACTORS = (
    Actor(ActorKind.DEVELOPER, developer_id=_CREATOR),
    Actor(ActorKind.DEVELOPER, user_id=_SELLER.id),
    Actor(ActorKind.DEVELOPER, user_id=_BUYER.id),
    Actor(ActorKind.DEVELOPER, developer_id=_CREATOR, user_id=_SELLER.id),
)
"""Whoever may come near an escrow takes the step; what strangers are told, the subject says."""


def of_step(name: str) -> tuple[type[Refused], ...]:
    """What the table can say to this step: it is asked in every state, for every one near it."""
    rows = [row for row in STEPS if row.name == name and row.source != NOWHERE]
    if not rows:
        return ()
    targets = {row.target for row in rows}
    named = sorted(targets) if len(targets) > 1 else [None]
    said: dict[type[Refused], None] = {}
    for escrow, actor, target in product(_escrows(), _ACTORS, named):
        if not roles(actor, escrow):
            continue
        try:
            choose(name, escrow, actor, target)
        except Refused as refusal:
            said[type(refusal)] = None
    return tuple(said)


def _escrows() -> Iterator[Escrow]:
    """One of each mode in each status, with and without what may stand in a step's way."""
    signed = ((None, None), (_AT, None), (None, _AT), (_AT, _AT))
    contracts = [Contract("c", "", 1, *moments) for moments in signed]
    for mode, status, frozen, asked in product(MODES, STATUSES, (False, True), (False, True)):
        plain = _escrow(
            mode=mode,
            status=status,
            frozen=frozen,
            cancellation=CancellationRequest("r", _BUYER, _AT) if asked else None,
            dispute=_dispute() if status == "disputed" else None,
        )
        if mode == STANDARD:
            yield from (replace(plain, contract=contract) for contract in contracts)
        elif mode == PROOF:
            yield from (replace(plain, proof=PurchaseProof(phase, _AT)) for phase in proof.PHASES)
        else:
            yield plain
        if status == "pending":
            yield replace(plain, contract=contracts[-1] if mode == STANDARD else None, seller=None)


def _dispute() -> Dispute:
    return Dispute("d", 1, "buyer", _BUYER, "", _AT, "paid")


def _escrow(**facts: Any) -> Escrow:
    sound: dict[str, Any] = {
        "id": "65bb7f0e0000000000000004",
        "creator_id": _CREATOR,
        "seller_email": _SELLER.email,
        "buyer_email": _BUYER.email,
        "title": "A camera",
        "currency": "TND",
        "ledger_currency": "TND",
        "amount_minor": 1_000_000,
        "fx_rate": Decimal(1),
        "amount_ledger_minor": 1_000_000,
        "escrow_fee_minor": 50_000,
        "estimated_delivery_days": 3,
        "created_at": _AT,
        "updated_at": _AT,
        "seller": _SELLER,
        "buyer": _BUYER,
    }
    return Escrow(**{**sound, **facts})
