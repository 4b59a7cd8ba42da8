"""One request that works for each route, and what its answer may look like.

Every example is run as it is shown, in three languages, by a test; its answer must have the keys
of the real one. What an answer's fields look like stands in `VALUES`, once a name; an example
adds what is its own. Text that begins with `$` is read from the environment of whoever runs it.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from decimal import Decimal
from typing import Any

from service.ingress.api import (
    account,
    assurance,
    deliveries,
    developer,
    escrows,
    feed,
    identity,
    mailbox,
    milestones,
    payments,
    sandbox,
    sessions,
    webhooks,
)
from service.wire.event_types import event_type

ESCROW = {"id": "$ESCROW_ID"}
WEBHOOK = {"id": "$WEBHOOK_ID"}
SESSION = {"id": "$SESSION_ID"}
DELIVERY = {**WEBHOOK, "delivery": "$DELIVERY_ID"}
BUYER = {"email": "buyer@example.com"}

NAMED: Mapping[str, str] = {
    "$ESCROW_ID": "65bb7f0ea1b2c3d4e5f60718",
    "$WEBHOOK_ID": "65bb7f0ea1b2c3d4e5f60729",
    "$DELIVERY_ID": "0190b5c8-a0c7-7f31-9d52-6a7b8c9d0e1f",
    "$VERIFICATION_ID": "65bb7f0ea1b2c3d4e5f6076d",
    "$SESSION_ID": "3f2a9c1e-7b64-4d0a-9e58-1c6d2b7f0a43",
    "$PAYMENT_ID": "65bb7f0ea1b2c3d4e5f6077e",
    "$MILESTONE_ESCROW_ID": "65bb7f0ea1b2c3d4e5f60790",
    "$INVITATION_TOKEN": "q3Jd0c4Vb0yTqv1m8H2wXk5sZr7uLn9aPf6eGi3oYtE",
}
"""What an example reads from the environment -> what the document shows for it."""


@dataclass(frozen=True, slots=True)
class Example:
    """A request that works: `path` fills the path's names; `answer` is what VALUES do not say."""

    body: Mapping[str, Any] | None = None
    path: Mapping[str, str] = field(default_factory=dict)
    query: Mapping[str, str] = field(default_factory=dict)
    headers: Mapping[str, str] = field(default_factory=dict)
    answer: Mapping[str, Any] = field(default_factory=dict)


_SELLER = {"_id": "65bb7f0ea1b2c3d4e5f6073a", "email": "shop@example.com"}
_BUYER = {"_id": "65bb7f0ea1b2c3d4e5f6074b", "email": "buyer@example.com"}
_FRESH = {
    "id": "0190b5c8-a0c7-7f31-9d52-6a7b8c9d0e1f",
    "eventId": "0190b5c8-9f3e-7d2a-8c41-5e6f7a8b9c0d",
    "type": "escrow.status.updated",
    "state": "pending",
    "attempt": 0,
    "nextAttemptAt": "2026-01-31T09:30:00.000Z",
    "lastStatus": None,
    "lastErrorClass": None,
    "createdAt": "2026-01-31T09:30:00.000Z",
    "settledAt": None,
}
_ARRIVED = {
    **_FRESH,
    "state": "delivered",
    "attempt": 1,
    "nextAttemptAt": None,
    "lastStatus": 200,
    "settledAt": "2026-01-31T09:30:00.060Z",
}
_ATTEMPT = {
    "n": 1,
    "startedAt": "2026-01-31T09:30:00.020Z",
    "status": 200,
    "errorClass": None,
    "address": "203.0.113.7",
    "dnsMs": 3,
    "connectMs": 9,
    "tlsMs": 14,
    "firstByteMs": 38,
    "totalMs": 40,
    "answer": "ok",
}
_SENT = {
    "url": "https://shop.example.com/amana",
    "headers": {},
    "body": '{"id":"0190b5c8-9f3e-7d2a-8c41-5e6f7a8b9c0d","type":"escrow.status.updated",'
    '"timestamp":"2026-01-31T09:30:00.000Z","data":{}}',
}
_SNAPSHOT = {
    "id": "65bb7f0ea1b2c3d4e5f60718",
    "title": "A camera",
    "amount": 250,
    "currency": "TND",
    "amountTnd": 250,
    "escrowFee": Decimal("12.5"),
    "status": "pending",
    "mode": "quick",
    "seller": {**_SELLER, "firstName": "Sami", "lastName": "Ben Ali"},
    "buyer": {**_BUYER, "firstName": "Bo", "lastName": "Yahia"},
    "estimatedDeliveryDays": 3,
    "createdAt": "2026-01-31T09:30:00.000Z",
    "updatedAt": "2026-01-31T09:30:00.000Z",
}
_RECOVERY = {
    "id": "0190b5c8-b1d8-7a42-8e63-7b8c9d0e1f20",
    "state": "pending",
    "count": 3,
    "recovered": 0,
    "since": "2026-01-30T00:00:00.000Z",
    "until": "2026-01-31T09:30:00.000Z",
    "createdAt": "2026-01-31T09:30:00.000Z",
    "finishedAt": None,
}
_CAMERA = {"title": "A camera", "amount": 250, "buyerEmail": "buyer@example.com"}
_DELIVERED = {"status": "delivered", "deliveredAt": "2026-02-02T10:00:00.000Z"}
_PAID = {"status": "paid", "paidAt": "2026-01-31T10:00:00.000Z"}

_RETURNED = {
    "rejectedAt": "2026-02-03T08:00:00.000Z",
    "reason": "The lens is scratched.",
    "previousDeliveredAt": "2026-02-02T10:00:00.000Z",
}
_NOW = {"step": "accept_pay", "legal": True}
_UPDATE = {"step": "update", "legal": True}
_NOT_YET = {
    "step": "deliver",
    "legal": False,
    "message": "The escrow is pending; it must be paid to deliver.",
}
_EXPIRY = {
    "kind": "expiry",
    "dueAt": "2026-02-28T09:30:00.000Z",
    "paused": False,
    "step": "cancel",
    "to": "cancelled",
    "outcome": "A party, the creator or the expiry cancels before payment.",
}
_SESSION = {
    "action": "accept_pay",
    "targetUserEmail": "buyer@example.com",
    "expiresAt": "2026-01-31T10:00:00.000Z",
}
_PIXEL = (
    "data:image/png;base64,iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGA"
    "WjR9awAAAABJRU5ErkJggg=="
)

_THIS_JOB = {"id": "$MILESTONE_ESCROW_ID"}
_ROLES = {
    "approver": "approver@example.com",
    "serviceProvider": "provider@example.com",
    "platform": "shop@example.com",
    "releaseSigner": "approver@example.com",
    "disputeResolver": "resolver@example.com",
    "receiver": "provider@example.com",
}
_WEBSITE = {
    "releaseMode": "single",
    "engagementId": "job-17",
    "title": "A website",
    "description": "Three pages.",
    "currency": "USDC",
    "amount": "100.00",
    "platformFeeBps": 500,
}
_DESIGN = {
    "index": 0,
    "description": "The design",
    "status": "pending",
    "evidence": "",
    "approved": False,
    "disputed": False,
    "released": False,
    "resolved": False,
}
_JOB = {
    "id": "65bb7f0ea1b2c3d4e5f60790",
    **_WEBSITE,
    "amount": "100.000000",
    "protocolFeeBps": 30,
    "roles": _ROLES,
    "milestones": [_DESIGN],
    "balance": "0.000000",
    "flags": {"disputed": False, "released": False, "resolved": False},
    "status": "working",
    "frozen": False,
    "version": 1,
    "createdAt": "2026-01-31T09:30:00.000Z",
    "updatedAt": "2026-01-31T09:30:00.000Z",
}
_DISPUTED_FLAGS = {"disputed": True, "released": False, "resolved": False}
_RESOLVED_FLAGS = {"disputed": False, "released": False, "resolved": True}
_APPROVED_JOB = {
    **_JOB,
    "milestones": [{**_DESIGN, "approved": True}],
    "balance": "120.000000",
    "status": "pendingRelease",
}
_RELEASED_JOB = {
    **_APPROVED_JOB,
    "milestones": [{**_DESIGN, "approved": True, "released": True}],
    "balance": "20.000000",
    "flags": {"disputed": False, "released": True, "resolved": False},
    "status": "released",
}

EXAMPLES: Mapping[Callable[..., Any], Example] = {
    account.me: Example(),
    account.read_wallet: Example(query={"currency": "TND"}),
    assurance.read: Example(),
    # Escrows
    escrows.create: Example(
        {**_CAMERA, "mode": "instant"},
        headers={"Idempotency-Key": "order-1042"},
        answer={
            "message": "Escrow created",
            "escrow": {"mode": "instant"},
            "contract": None,
            "url": "https://amana.example.com/dashboard/escrow/65bb7f0ea1b2c3d4e5f60718",
        },
    ),
    escrows.read_list: Example(
        query={"status": "pending", "limit": "10"},
        answer={"pagination": {"page": 1, "total": 1, "pages": 1}},
    ),
    escrows.read_one: Example(path=ESCROW),
    escrows.read_next: Example(
        path=ESCROW,
        answer={
            "waitsFor": "buyer",
            "parties": {"seller": {"steps": [_UPDATE, _NOT_YET]}, "buyer": {"steps": [_NOW]}},
            "deadlines": [_EXPIRY],
        },
    ),
    escrows.read_contract: Example(path=ESCROW),
    escrows.read_proof: Example(path=ESCROW),
    escrows.read_dispute: Example(
        path=ESCROW,
        answer={
            "dispute": {
                "status": "open",
                "statements": [],
                "offers": [
                    {
                        "id": "65bb7f0ea1b2c3d4e5f6078f",
                        "by": "seller",
                        "sellerAmount": 150,
                        "buyerAmount": 100,
                        "currency": "TND",
                        "status": "open",
                        "offeredAt": "2026-01-31T11:00:00.000Z",
                    }
                ],
            }
        },
    ),
    escrows.update: Example(
        {"title": "A camera with its lens", "amount": 300},
        path=ESCROW,
        answer={
            "message": "Escrow updated",
            "escrow": {
                "title": "A camera with its lens",
                "amount": 300,
                "amountTnd": 300,
                "escrowFee": 15,
            },
        },
    ),
    escrows.reject_delivery: Example(
        {"reason": "The lens is scratched."},
        path=ESCROW,
        answer={
            "message": "Delivery rejected",
            "escrow": {"status": "paid", "deliveryRejections": [_RETURNED]},
        },
    ),
    escrows.deliver: Example(
        path=ESCROW,
        answer={
            "message": "Delivery recorded",
            "escrow": {**_DELIVERED, "completionDeadline": "2026-02-09T10:00:00.000Z"},
        },
    ),
    escrows.cancel: Example(
        path=ESCROW,
        answer={
            "message": "Escrow cancelled",
            "escrow": {"status": "cancelled", "cancelledAt": "2026-01-31T10:00:00.000Z"},
        },
    ),
    # Checkout sessions
    sessions.create: Example(
        {
            "action": "accept_pay",
            "targetUserEmail": "buyer@example.com",
            "redirectUrl": "https://shop.example.com/back",
            "metadata": {"order": "1042"},
        },
        path=ESCROW,
        answer={
            "url": "https://amana.example.com/checkout/3f2a9c1e-7b64-4d0a-9e58-1c6d2b7f0a43",
            "expiresAt": "2026-01-31T10:00:00.000Z",
        },
    ),
    sessions.read_one: Example(path=SESSION, answer={"session": _SESSION}),
    # Milestone escrows
    milestones.create: Example(
        {**_WEBSITE, "roles": _ROLES, "milestones": [{"description": "The design"}]},
        headers={"Idempotency-Key": "job-17"},
        answer={"escrow": _JOB},
    ),
    milestones.read_list: Example(
        query={"status": "working", "orderBy": "amount"}, answer={"escrows": [_JOB]}
    ),
    milestones.read_many_balances: Example(
        query={"ids": "$MILESTONE_ESCROW_ID"},
        answer={
            "balances": [
                {
                    "id": "65bb7f0ea1b2c3d4e5f60790",
                    "balance": "100.000000",
                    "currency": "USDC",
                    "decimals": 6,
                }
            ]
        },
    ),
    milestones.read_one: Example(path=_THIS_JOB, answer={"escrow": _JOB}),
    milestones.read_next: Example(
        path=_THIS_JOB,
        answer={
            "escrow": {
                "id": "65bb7f0ea1b2c3d4e5f60790",
                "status": "working",
                "releaseMode": "single",
                "frozen": False,
                "version": 1,
            },
            "roles": [
                {
                    "role": "approver",
                    "email": "approver@example.com",
                    "registered": True,
                    "steps": [
                        {"step": "approve_milestone", "legal": True, "milestoneIndexes": [0]}
                    ],
                }
            ],
            "anybody": [{"step": "fund", "legal": True}],
            "deadlines": [],
        },
    ),
    milestones.read_log: Example(
        path=_THIS_JOB,
        query={"limit": "20"},
        answer={
            "events": [
                {
                    "id": "0194bc1d-4a56-7def-8a3b-5c6d7e8f9012",
                    "seq": 1,
                    "type": "milestone_escrow.created",
                    "timestamp": "2026-01-31T09:30:00.000Z",
                    "by": "developer",
                    "data": {"escrow": _JOB},
                }
            ]
        },
    ),
    milestones.update: Example(
        {
            **_WEBSITE,
            "title": "A better website",
            "roles": _ROLES,
            "milestones": [{"description": "The design"}],
        },
        path=_THIS_JOB,
        answer={"escrow": {**_JOB, "title": "A better website", "version": 2}},
    ),
    milestones.fund: Example(
        {"amount": "100.00", "expectedVersion": 1},
        path=_THIS_JOB,
        answer={"escrow": {**_JOB, "balance": "100.000000"}},
    ),
    milestones.change_statuses: Example(
        {"updates": [{"index": 0, "status": "in review", "evidence": "See the attached draft."}]},
        path=_THIS_JOB,
        answer={"escrow": {**_JOB, "milestones": [{**_DESIGN, "status": "in review"}]}},
    ),
    milestones.change_status: Example(
        {"status": "in review"},
        path={**_THIS_JOB, "index": "0"},
        answer={"escrow": {**_JOB, "milestones": [{**_DESIGN, "status": "in review"}]}},
    ),
    milestones.approve_many: Example(
        {"indexes": [0]}, path=_THIS_JOB, answer={"escrow": _APPROVED_JOB}
    ),
    milestones.approve: Example(path={**_THIS_JOB, "index": "0"}, answer={"escrow": _APPROVED_JOB}),
    milestones.release: Example(path=_THIS_JOB, answer={"escrow": _RELEASED_JOB}),
    milestones.dispute: Example(
        {"reason": "It is not what we agreed."},
        path=_THIS_JOB,
        answer={"escrow": {**_JOB, "status": "inDispute", "flags": _DISPUTED_FLAGS}},
    ),
    milestones.resolve: Example(
        {"distributions": [{"email": "provider@example.com", "amount": "100.00"}]},
        path=_THIS_JOB,
        answer={"escrow": {**_JOB, "status": "resolved", "flags": _RESOLVED_FLAGS}},
    ),
    milestones.withdraw: Example(
        {"distributions": [{"email": "buyer@example.com", "amount": "20.00"}]},
        path=_THIS_JOB,
        answer={"escrow": _RELEASED_JOB},
    ),
    milestones.note: Example(
        {"text": "The third page is missing."},
        path=_THIS_JOB,
        answer={"escrow": {**_JOB, "status": "inDispute", "flags": _DISPUTED_FLAGS}},
    ),
    milestones.make_session: Example(
        {
            "action": "approve_milestone",
            "targetUserEmail": "approver@example.com",
            "redirectUrl": "https://shop.example.com/back",
            "input": {"indexes": [0]},
        },
        path=_THIS_JOB,
        answer={
            "url": "https://amana.example.com/checkout/3f2a9c1e-7b64-4d0a-9e58-1c6d2b7f0a43",
            "expiresAt": "2026-01-31T10:00:00.000Z",
        },
    ),
    # Identity verifications
    identity.request: Example({"email": "buyer@example.com", "external_user_id": "u-1042"}),
    identity.read_list: Example(query={"email": "buyer@example.com"}),
    identity.read_one: Example(path={"id": "$VERIFICATION_ID"}),
    # What a developer keeps with us
    developer.store_signature: Example({"signatureImage": _PIXEL}),
    developer.read_signature: Example(),
    developer.store_redirect_urls: Example({"urls": ["https://shop.example.com/back"]}),
    developer.read_redirects: Example(),
    # Webhook endpoints
    webhooks.create: Example({"url": "https://shop.example.com/amana", "events": ["escrow.*"]}),
    webhooks.read_list: Example(),
    webhooks.read_one: Example(path=WEBHOOK),
    webhooks.update: Example({"events": ["escrow.status.updated"]}, path=WEBHOOK),
    webhooks.regenerate_secret: Example({"overlapHours": 24}, path=WEBHOOK),
    webhooks.delete: Example(path=WEBHOOK, answer={"message": "Webhook deleted"}),
    webhooks.enable: Example(path=WEBHOOK),
    deliveries.send_test: Example(
        {"type": "escrow.status.updated"}, path=WEBHOOK, answer={"delivery": _FRESH}
    ),
    deliveries.read_list: Example(
        path=WEBHOOK, query={"state": "delivered"}, answer={"deliveries": [_ARRIVED]}
    ),
    deliveries.read_one: Example(
        path=DELIVERY,
        answer={"delivery": {**_ARRIVED, "request": _SENT, "attempts": [_ATTEMPT]}},
    ),
    deliveries.resend: Example(path=DELIVERY, answer={"delivery": _FRESH}),
    deliveries.recover: Example(
        {"since": "2026-01-30"}, path=WEBHOOK, answer={"recovery": _RECOVERY}
    ),
    deliveries.read_recoveries: Example(path=WEBHOOK, answer={"recoveries": [_RECOVERY]}),
    # Events to be pulled
    feed.read_events: Example(
        query={"types": "escrow.*", "limit": "50"},
        answer={
            "events": [
                {
                    "id": "0190b5c8-9f3e-7d2a-8c41-5e6f7a8b9c0d",
                    "type": "escrow.created",
                    "timestamp": "2026-01-31T09:30:00.000Z",
                    "data": {"escrow": _SNAPSHOT},
                }
            ],
            "nextCursor": "MTIzNC41Ng",
            "hasMore": False,
        },
    ),
    feed.read_types: Example(answer={"eventTypes": [event_type("contract.signed").model_dump()]}),
    # The sandbox
    sandbox.make_developer: Example(
        {"email": "dev@example.com", "company": "Another shop", "userEmail": "else@example.com"}
    ),
    sandbox.make_user: Example(
        {"email": "new@example.com", "firstName": "Nour", "lastName": "Trabelsi"}
    ),
    sandbox.top_up: Example({"amount": 500}, path=BUYER),
    sandbox.read_wallet: Example(path=BUYER, query={"currency": "TND"}),
    sandbox.associate: Example({"email": "buyer@example.com"}),
    sandbox.dissociate: Example(answer={"userId": None}),
    sandbox.pay: Example({"email": "buyer@example.com"}, path=ESCROW, answer={"escrow": _PAID}),
    sandbox.act: Example(
        {"email": "buyer@example.com", "step": "dispute", "input": {"reason": "It never came."}},
        path=ESCROW,
        answer={"escrow": {**_PAID, "status": "disputed"}},
    ),
    sandbox.act_on_milestones: Example(
        {
            "email": "approver@example.com",
            "step": "approve_milestone",
            "input": {"indexes": [0]},
        },
        path=_THIS_JOB,
        answer={"escrow": _APPROVED_JOB},
    ),
    sessions.complete: Example(
        {"input": {"method": "wallet"}},
        path=SESSION,
        answer={
            "session": {
                **_SESSION,
                "status": "completed",
                "completedAt": "2026-01-31T09:40:00.000Z",
            },
            "escrow": _PAID,
        },
    ),
    sessions.turn_away: Example(
        path=SESSION, answer={"session": {**_SESSION, "status": "cancelled"}}
    ),
    payments.decide: Example(
        {"approve": True},
        path={"id": "$PAYMENT_ID"},
        answer={
            "payment": {
                "id": "65bb7f0ea1b2c3d4e5f6077e",
                "kind": "topup",
                "state": "succeeded",
                "provider": "bank_transfer",
                "amount": 250,
                "currency": "TND",
                "receivedAmount": 250,
                "receivedCurrency": "TND",
                "createdAt": "2026-01-31T09:30:00.000Z",
                "settledAt": "2026-01-31T10:00:00.000Z",
                "transferReference": "65BB-7F0E-A1B2-C3D4-E5F6-077E",
            }
        },
    ),
    sandbox.resolve_dispute: Example(
        {"to": "buyer"}, path=ESCROW, answer={"escrow": {**_PAID, "status": "cancelled"}}
    ),
    sandbox.decide_proof: Example(
        {"accept": True},
        path=ESCROW,
        answer={
            "escrow": {
                **_PAID,
                "mode": "quick",
                "fulfillmentPolicy": {
                    "type": "purchase_proof_required",
                    "proofUploadDeadlineHours": 24,
                    "buyerReviewDeadlineHours": 24,
                },
                "proofInfo": {
                    "phase": "accepted",
                    "correctionRounds": 0,
                    "uploadDeadline": "2026-02-01T10:00:00.000Z",
                    "reviewDeadline": "2026-02-02T10:00:00.000Z",
                },
            }
        },
    ),
    sandbox.register: Example(
        {"token": "$INVITATION_TOKEN", "firstName": "Nour", "lastName": "Trabelsi"}
    ),
    mailbox.read_mailbox: Example(query={"to": "buyer@example.com"}),
    sandbox.read_time: Example(),
    sandbox.advance_clock: Example({"seconds": 86400}),
    sandbox.set_rate: Example({"currency": "USD", "rate": "3.12"}),
}

VALUES: Mapping[str, Any] = {
    "id": "65bb7f0ea1b2c3d4e5f60718",
    "_id": "65bb7f0ea1b2c3d4e5f60718",
    "escrowId": "65bb7f0ea1b2c3d4e5f60718",
    "trackingId": "65bb7f0ea1b2c3d4e5f60718",
    "sessionId": "3f2a9c1e-7b64-4d0a-9e58-1c6d2b7f0a43",
    "developerId": "65bb7f0ea1b2c3d4e5f6075c",
    "userId": "65bb7f0ea1b2c3d4e5f6073a",
    "message": "Done",
    "url": "https://shop.example.com/amana",
    # Escrows
    "title": "A camera",
    "amount": 250,
    "currency": "TND",
    "amountTnd": 250,
    "fxRateUsed": 1,
    "escrowFee": Decimal("12.5"),
    "developerFee": 0,
    "developerFeePercentage": 0,
    "status": "pending",
    "mode": "quick",
    "seller": (_SELLER, _SELLER["_id"]),
    "buyer": (_BUYER, _BUYER["_id"]),
    "buyerEmail": "buyer@example.com",
    "estimatedDeliveryDays": 3,
    "expiresAt": "2026-02-28T09:30:00.000Z",
    "createdByApplicationName": "Example Shop",
    "deliveryRejections": [],
    "escrows": ["65bb7f0ea1b2c3d4e5f60718"],
    "terms": "As described.",
    "language": "en",
    "isFullySigned": False,
    "pdfVersions": [],
    "phase": "waiting_seller_proof",
    "correctionRounds": 0,
    "uploadDeadline": "2026-02-01T09:30:00.000Z",
    "submissionCount": 0,
    "submissions": [],
    "reason": "It is not what was agreed.",
    "ticketNumber": "DHM-00042",
    "opener": "buyer",
    "openedBy": {"_id": "65bb7f0ea1b2c3d4e5f6074b", "firstName": "Bo", "lastName": "Yahia"},
    "openedAt": "2026-02-03T08:00:00.000Z",
    "answerBy": "2026-02-08T08:00:00.000Z",
    "by": "buyer",
    "statedAt": "2026-02-03T09:00:00.000Z",
    "offeredAt": "2026-02-03T09:30:00.000Z",
    "sellerAmount": 150,
    "buyerAmount": 100,
    "action": "submit_proof",
    "targetUserEmail": "shop@example.com",
    "description": "Upload the purchase proof.",
    "page": 1,
    "limit": 10,
    "total": 1,
    "pages": 1,
    # People, keys and wallets
    "email": "shop@example.com",
    "firstName": "Sami",
    "lastName": "Ben Ali",
    "companyName": "Example Shop",
    "name": "default",
    "keyPrefix": "sk_sandbox_0a1b2c3d",
    "apiKey": "sk_sandbox_" + "0a1b2c3d" * 8,
    "environment": "sandbox",
    "metadata": {},
    "available": 750,
    "pending": 0,
    "escrow": (250, "65bb7f0ea1b2c3d4e5f60718"),
    "held": 250,
    "fees": 0,
    "breaches": [],
    "external_user_id": "u-1042",
    "kyc_status": "approved",
    "previous_kyc_status": "pending",
    "didit_session_status": "completed",
    "needs_admin_review": False,
    "linked_user_id": "65bb7f0ea1b2c3d4e5f6073a",
    "linked_at": "2026-01-31T09:30:00.000Z",
    "claim_status": "linked",
    "status_source": "sandbox",
    "verification_email_sent": False,
    # Webhook endpoints and events
    "events": ["escrow.status.updated"],
    "secret": "0a1b2c3d" * 8,
    "standardSecret": "whsec_CgobLD0KGyw9ChssPQobLD0KGyw9ChssPQobLD0=",
    "ladder": "standard",
    "timeoutSeconds": 15,
    "failureCount": 0,
    "publicKey": "whpk_A6EHv/POEL4dcN0Y50vAmWfk1jCbpQ1fHdyGZBJVMbg=",
    "eventId": "0190b5c8-9f3e-7d2a-8c41-5e6f7a8b9c0d",
    "urls": ["https://shop.example.com/back"],
    # Mails and the clock
    "to": "buyer@example.com",
    "subject": "An escrow waits for you",
    "text": "Example Shop has opened an escrow for you.",
    "html": "<p>Example Shop has opened an escrow for you.</p>",
    "links": ["https://amana.example.com/register/q3Jd0c4Vb0yTqv1m8H2wXk5sZr7uLn9aPf6eGi3oYtE"],
    "kind": "expiry",
    "rate": Decimal("3.12"),
}
"""A field's name -> what an example says there; where shapes differ, one for each."""
