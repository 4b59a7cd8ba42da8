"""Checkout sessions on the wire. Source: escrows.md 6. Nothing of where a person returns to."""

import base64
import binascii
from collections.abc import Mapping
from contextlib import suppress
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

import orjson
from pydantic import BeforeValidator, Field, WithJsonSchema

from service.rules.files import FILES_MAX
from service.wire.base import Body, Number, OwnBody, WholeNumber, Wire, absent
from service.wire.developer import Image
from service.wire.escrows import Changes, Detail
from service.wire.metadata import Metadata
from service.wire.milestone_shapes import MilestoneEscrowShape
from service.wire.sandbox import Amount
from service.wire.text import Email, Text

Action = Literal[
    "sign_contract",
    "accept_pay",
    "complete",
    "submit_proof",
    "review_proof",
    "dispute",
    "request_cancellation",
    "cancel_escrow",
    "accept_cancellation",
    "reject_cancellation",
    "withdraw_dispute",
    "answer_dispute",
]


BASE64 = {"type": "string", "contentEncoding": "base64"}


def _from_base64(value: object) -> object:
    if isinstance(value, str):
        with suppress(binascii.Error, ValueError):
            return base64.b64decode(value, validate=True)
    raise ValueError("must be base64")


class NewSession(Body):
    """The body of `POST /escrows/:id/sessions`."""

    action: Action
    target_user_email: Email
    redirect_url: Annotated[str, Field(min_length=1, max_length=2048)]
    metadata: Annotated[Metadata, Field(default_factory=dict)]


class NewMilestoneSession(OwnBody):
    """The body of `POST /milestone-escrows/:id/sessions`.

    `input` is the body of the step (the batch of approvals and statuses), given now or on the
    page.
    """

    action: Literal[
        "fund",
        "approve_milestone",
        "change_milestone_status",
        "release",
        "dispute",
        "resolve_dispute",
        "withdraw_remaining",
    ]
    target_user_email: Email
    redirect_url: Annotated[str, Field(min_length=1, max_length=2048)]
    metadata: Annotated[Metadata, Field(default_factory=dict)]
    input: dict[str, Any] | None = None


def kept(given: OwnBody) -> Mapping[str, Any]:
    """A step's body as a session keeps it: what was read of it, amounts as decimal strings.

    The same model reads it again.
    """
    read = given.model_dump(by_alias=True, exclude_none=True)
    plain: Mapping[str, Any] = orjson.loads(orjson.dumps(read, default=_in_full))
    return plain


def naming(action: str, index: int) -> Mapping[str, Any]:
    """What an input of this action, as a session keeps it, contains if it names the milestone."""
    match action:
        case "approve_milestone":
            return {"indexes": [index]}
        case "change_milestone_status":
            return {"updates": [{"index": index}]}
        case "resolve_dispute":
            return {"milestoneIndex": index}
    return {"milestoneIndexes": [index]}


def _in_full(value: object) -> str:
    if not isinstance(value, Decimal):
        raise TypeError(f"{type(value).__name__} is no part of an input")
    return format(value, "f")


class SessionCreated(Wire):
    """201: where the person is to be sent."""

    session_id: str
    url: str
    expires_at: datetime


class SessionShape(Wire):
    """A session as its developer sees it."""

    session_id: str
    escrow_id: str
    action: str
    target_user_email: str
    status: str
    metadata: Mapping[str, str]
    expires_at: datetime
    completed_at: datetime | None
    created_at: datetime


class SessionAnswer(Wire):
    """200 of `GET /sessions/:sessionId`."""

    session: SessionShape


class SessionEnd(OwnBody):
    """The sandbox's `complete`: what the person brings along, by action."""

    input: dict[str, Any] | None = None


class WalletPayment(OwnBody):
    """accept_pay from the wallet; `amount` is what the page showed."""

    method: Literal["wallet"] = "wallet"
    amount: Number | None = None


class OtherPayment(OwnBody):
    """accept_pay by card, or by a bank transfer with a proof that waits for the operator."""

    method: Literal["wallet", "card", "bank_transfer"]
    proof: bool = False
    amount: Number | None = None


class SignatureInput(OwnBody):
    """sign_contract: a typed name, or an image that is drawn; `version` is what was read."""

    signature: Annotated[Text, Field(min_length=1, max_length=200)] | None = None
    image: Image | None = None
    version: WholeNumber | None = None


class ReasonInput(OwnBody):
    """A step that needs a reason."""

    reason: Annotated[Text, Field(min_length=1, max_length=2000)]


class WhyInput(OwnBody):
    """A step that may say why."""

    reason: Annotated[Text, Field(min_length=1, max_length=2000)] | None = None


class ProofInput(OwnBody):
    """submit_proof: the files come beside it."""

    note: Annotated[Text, Field(min_length=1, max_length=2000)] | None = None


class ReviewInput(OwnBody):
    """review_proof: accept it, or say what is to be corrected."""

    accept: Literal[True] | None = None
    correction: Annotated[Text, Field(min_length=1, max_length=2000)] | None = None


class CorrectionInput(OwnBody):
    """request_correction: what is to be corrected."""

    correction: Annotated[Text, Field(min_length=1, max_length=2000)]


class OfferInput(OwnBody):
    """Who is to get how much of what is held, in the ledger's currency."""

    seller_amount: Annotated[Amount, Field(ge=0)]
    buyer_amount: Annotated[Amount, Field(ge=0)]


class AnswerInput(OwnBody):
    """answer_dispute: words, an offer, files beside it; or the acceptance of an offer alone."""

    text: Annotated[Text, Field(min_length=1, max_length=2000)] | None = None
    offer: OfferInput | None = None
    accept_offer: Annotated[str, Field(min_length=1, max_length=100)] | None = None


class InlineFile(OwnBody):
    """A file in the sandbox's `input`, as base64."""

    name: Annotated[str, Field(min_length=1, max_length=300)]
    content_base64: Annotated[bytes, BeforeValidator(_from_base64), WithJsonSchema(BASE64)]


class InlineFiles(OwnBody):
    """The files in the sandbox's `input`."""

    files: Annotated[list[InlineFile], Field(max_length=FILES_MAX)] = Field(default_factory=list)


class UpdateInput(OwnBody, Changes):
    """update: the terms that are to be others."""


class NothingInput(OwnBody):
    """A step that needs nothing."""


class SessionPayment(Wire):
    """The payment that a session was completed with, or that waits for the operator."""

    id: str
    status: str


class SessionEnded(Wire):
    """200 of the sandbox's `complete` and `cancel`."""

    session: SessionShape
    escrow: Detail | MilestoneEscrowShape | None = absent()
    payment: SessionPayment | None = absent()
