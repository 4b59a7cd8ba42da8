"""Checkout sessions on the wire. Source: escrows.md 6. Nothing of where a person returns to."""

from collections.abc import Mapping
from datetime import datetime
from typing import Annotated, Any, Literal

from pydantic import Field

from service.wire.base import Body, Number, OwnBody, Wire, absent
from service.wire.escrows import Changes, Detail
from service.wire.metadata import Metadata
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


class NewSession(Body):
    """The body of `POST /escrows/:id/sessions`."""

    action: Action
    target_user_email: Email
    redirect_url: Annotated[str, Field(min_length=1, max_length=2048)]
    metadata: Annotated[Metadata, Field(default_factory=dict)]


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


class SignatureInput(OwnBody):
    """sign_contract with a typed name."""

    signature: Annotated[Text, Field(min_length=1, max_length=200)]


class ReasonInput(OwnBody):
    """A step that needs a reason."""

    reason: Annotated[Text, Field(min_length=1, max_length=2000)]


class WhyInput(OwnBody):
    """A step that may say why."""

    reason: Annotated[Text, Field(min_length=1, max_length=2000)] | None = None


class UpdateInput(OwnBody, Changes):
    """update: the terms that are to be others."""


class NothingInput(OwnBody):
    """A step that needs nothing."""


class SessionEnded(Wire):
    """200 of the sandbox's `complete` and `cancel`."""

    session: SessionShape
    escrow: Detail | None = absent()
