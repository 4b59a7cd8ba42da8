"""docs/mails/: every mail in every language, rendered from facts as its rows would hold them.

Law: nothing here says a word of a mail's; a template without a specimen fails.
"""

from collections.abc import Iterator, Mapping
from typing import Any

from service.rules.delivery import DisableReason
from service.rules.lane import MAILS
from service.words.facts import (
    CodeFacts,
    EndpointFacts,
    EscrowFacts,
    IdentityFacts,
    PaymentFacts,
    RoleFacts,
    Times,
)
from service.words.languages import LANGUAGES
from service.words.mails import SCRIPTS, Facts, Words
from service.words.topics import CODE, ENDPOINT, ESCROW, IDENTITY, PAYMENT, ROLE

HOST = "https://amana.example"
ID = "0123456789abcdef01234567"
TOKEN = "t" * 43
ZONE = "Africa/Tunis"
SIDES = ("seller", "buyer")
TITLES = {"en": "A camera", "fr": "Un appareil photo", "ar": "آلة تصوير"}
WROTE = {
    "en": "The lens is broken.",
    "fr": "Il est arrivé cassé.",
    "ar": "العدسة مكسورة.",
}
LINKS = {
    "escrow": f"{HOST}/dashboard/escrow/{ID}",
    "register": f"{HOST}/register/{TOKEN}",
    "identity": f"{HOST}/identity/{TOKEN}",
    "endpoint": f"{HOST}/dashboard/webhooks/{ID}",
    "payment": f"{HOST}/dashboard/wallet",
    "code": f"{HOST}/sign-in/{ID}",
}

CREATED = "2026-01-05T09:00:00.000Z"
PAID, DELIVERED = "2026-01-07T09:00:00.000Z", "2026-01-10T09:00:00.000Z"
ENDED = "2026-01-14T09:00:00.000Z"
PENDING: Times = {"created_at": CREATED, "expires_at": "2026-02-05T09:00:00.000Z"}
HELD: Times = {
    **PENDING,
    "paid_at": PAID,
    "delivery_due_at": "2026-01-12T09:00:00.000Z",
    "proof_due_at": "2026-01-08T09:00:00.000Z",
    "review_due_at": "2026-01-09T09:00:00.000Z",
    "request_due_at": "2026-01-13T09:00:00.000Z",
}
HANDED: Times = {**HELD, "delivered_at": DELIVERED, "completion_due_at": "2026-01-17T09:00:00.000Z"}
AT_ISSUE: Times = {
    **HELD,
    "disputed_at": "2026-01-11T09:00:00.000Z",
    "answer_due_at": "2026-01-16T09:00:00.000Z",
}
DONE: Times = {**HANDED, "completed_at": ENDED}
CANCELLED: Times = {**HELD, "cancelled_at": ENDED}

Case = tuple[str, dict[str, Any]]
"""What a specimen shows, and how its facts differ from the others'."""

PAST: Case = ("", {"status": "paid", "times": HELD, "at": PAID})
OPEN: Case = ("", {"status": "disputed", "times": AT_ISSUE, "at": AT_ISSUE["disputed_at"]})
PROOF: Case = ("", {**PAST[1], "mode": "quick_proof"})
SETTLED = {"status": "completed", "times": DONE, "at": ENDED, "settled_by": "operator"}
CASES: Mapping[str, tuple[Case, ...]] = {
    "escrow_paid": (PAST, ("with a purchase proof", PROOF[1])),
    "escrow_delivered": (
        ("", {"status": "delivered", "times": HANDED, "at": DELIVERED}),
        (
            "while a request to cancel waits",
            {
                "status": "delivered",
                "times": {**HANDED, "completion_due_at": None},
                "paused": ["completion_due_at"],
                "at": DELIVERED,
            },
        ),
    ),
    "escrow_completed": (("", {"status": "completed", "times": DONE, "at": ENDED}),),
    "escrow_cancelled": (
        (
            "before it is paid",
            {
                "status": "cancelled",
                "times": {**PENDING, "cancelled_at": ENDED},
                "at": ENDED,
                "reason": "expired",
            },
        ),
        (
            "after it is paid",
            {"status": "cancelled", "times": CANCELLED, "at": ENDED, "reason": "request_accepted"},
        ),
    ),
    "delivery_overdue": (
        PAST,
        (
            "of an instant escrow",
            {
                **PAST[1],
                "mode": "instant",
                "times": {**HELD, "refund_due_at": "2026-01-15T09:00:00.000Z"},
            },
        ),
    ),
    "terms_changed": (
        ("of a contract", {"was": "1250.000", "is_rewritten": True}),
        ("of an escrow without one", {"mode": "quick", "was": "1250.000"}),
    ),
    "delivery_rejected": (PAST,),
    "cancellation_requested": (
        PAST,
        ("after the delivery", {"status": "delivered", "times": HANDED, "at": DELIVERED}),
    ),
    "cancellation_rejected": (PAST,),
    "proof_submitted": (PROOF,),
    "proof_correction": (PROOF,),
    "proof_accepted": (PROOF,),
    "proof_needs_review": (PROOF,),
    "dispute_opened": (OPEN,),
    "dispute_reminder": (OPEN,),
    "dispute_answered": (OPEN,),
    "dispute_withdrawn": (PAST,),
    "dispute_resolved": (
        ("for the seller", SETTLED),
        (
            "for the buyer",
            {
                "status": "cancelled",
                "times": CANCELLED,
                "at": ENDED,
                "refunded": "1000.000",
                "settled_by": "clock",
            },
        ),
        (
            "by an offer",
            {
                **SETTLED,
                "held": "600.000",
                "net": "570.000",
                "refunded": "400.000",
                "settled_by": "offer",
            },
        ),
    ),
}
ALL_OF_IT = {"moved": "1000.000000", "numbers": []}
GOT = {"moved": "947.000000", "role": None, "page": "/dashboard/wallet"}
OF_ROLES: Mapping[str, tuple[Case, ...]] = {
    "role_disputed": (
        ("To the dispute resolver", {"role": "dispute_resolver", "due_at": ENDED}),
        ("To another role, of milestones", {"numbers": [1, 3]}),
    ),
    "role_released": (
        ("All of it", ALL_OF_IT),
        ("Of milestones", {"moved": "600.000000", "numbers": [1, 3]}),
    ),
    "role_resolved": (
        ("By the resolver", {**ALL_OF_IT, "how": "resolve_dispute"}),
        ("By time, of a milestone", {"moved": "600.000000", "numbers": [3], "how": "clock"}),
        ("Of nothing", {"moved": "0.000000", "numbers": [], "how": "clock"}),
    ),
    "role_paid": tuple(
        (how, {**GOT, "how": how})
        for how in ("release", "resolve_dispute", "clock", "withdraw_remaining")
    ),
}
"""As CASES, of the mails about milestone escrows."""
NOTED = frozenset(
    {"delivery_rejected", "cancellation_requested", "dispute_opened", "proof_correction"}
)
"""The templates that quote what the other side wrote."""
UNPAID: Case = ("", {})


def page(code: str) -> str:
    """docs/mails/<code>.md: every mail in this language, as text."""
    words = Words.read()
    parts = [
        f"# Mails: {LANGUAGES[code].own_name}",
        "<!-- Written by `amana docs` from service/words/. Change that, not this page. -->",
    ]
    for template in SCRIPTS:
        parts.append(f"## {template}")
        for name, facts in _specimens(template, code):
            mail = words.render(template, code, facts, LINKS)
            if name:
                parts.append(f"### {name}")
            parts.append(f"```text\n{mail.subject}\n{'-' * 40}\n{mail.text.strip()}\n```")
    return "\n\n".join(parts) + "\n"


def _specimens(template: str, code: str) -> Iterator[tuple[str, Facts]]:
    """What each specimen of this template shows, and its facts."""
    about = SCRIPTS[template].about
    if about is ESCROW:
        for name, changed in CASES.get(template, (UNPAID,)):
            for side in SIDES:
                shows = f"To the {side}, {name}" if name else f"To the {side}"
                yield shows, _escrow(template, code, side, changed)
    elif about is ROLE:
        cases = OF_ROLES.get(template, (UNPAID,))
        yield from ((name, _role(template, code, changed)) for name, changed in cases)
    elif about is ENDPOINT:
        reasons = MAILS if template == "endpoint_failing" else DisableReason
        for told in ((reason.name or "").lower() for reason in reasons):
            yield told, EndpointFacts(endpoint_id=ID, url="https://shop.example/hook", reason=told)
    elif about is IDENTITY:
        why = WROTE[code] if template == "identity_rejected" else None
        yield (
            "",
            IdentityFacts(
                verification_id=ID, company="Shop", expires_at=ENDED, timezone=ZONE, reason=why
            ),
        )
    elif about is PAYMENT:
        yield "", _payment(template, code)
    elif about is CODE:
        yield "", CodeFacts(code_id=ID, minutes=10, code="123456")
    else:
        raise AssertionError(f"{template} has no specimen")


def _escrow(template: str, code: str, side: str, changed: Mapping[str, Any]) -> EscrowFacts:
    facts: dict[str, Any] = {
        "escrow_id": ID,
        "title": TITLES[code],
        "amount": "1000.000",
        "currency": "TND",
        "held": "1000.000",
        "ledger_currency": "TND",
        "net": "950.000",
        "mode": "standard",
        "status": "pending",
        "role": side,
        "seller": "Sami Ben Ali",
        "buyer": "Nour Trabelsi",
        "times": PENDING,
        "at": CREATED,
        "timezone": ZONE,
        "note": WROTE[code] if template in NOTED else None,
        "refunded": "0.000",
    }
    return {**facts, **changed}  # type: ignore[typeddict-item]  # as a row's JSON


def _role(template: str, code: str, changed: Mapping[str, Any]) -> RoleFacts:
    facts: dict[str, Any] = {
        "escrow_id": ID,
        "title": TITLES[code],
        "amount": "1000.000000",
        "currency": "USDC",
        "company": "Shop",
        "role": "approver",
        "timezone": ZONE,
    }
    if template == "role_disputed":
        facts |= {"by": "nour@shop.example", "note": WROTE[code]}
    return {**facts, **changed}  # type: ignore[typeddict-item]  # as a row's JSON


def _payment(template: str, code: str) -> PaymentFacts:
    is_payout = template.startswith("payout_")
    has_reason = template in ("deposit_rejected", "payout_rejected")
    return PaymentFacts(
        payment_id=ID,
        amount="1000.000",
        currency="TND",
        page="/dashboard/wallet",
        title=None if is_payout else TITLES[code],
        payee="Nour Trabelsi\nTN59 1000 6035 1835 9847 8831" if is_payout else None,
        note=WROTE[code] if has_reason else None,
    )
