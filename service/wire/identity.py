"""Identity verifications on the wire: flat, in snake_case. Source: escrows.md 10."""

from datetime import datetime
from typing import Annotated, Literal
from uuid import UUID

from pydantic import AfterValidator, ConfigDict, Field

from service.rules.checkout import MUST_BE_HTTPS, BadUrl, read_target
from service.rules.identity import LINKED, PENDING, SANDBOX, UPDATED, Verification
from service.wire.base import Body, Query, Wire
from service.wire.events import envelope
from service.wire.metadata import Metadata
from service.wire.text import Email, Text

EXTERNAL_ID_CHARACTERS_MAX = 255
SNAKE = ConfigDict(alias_generator=None)

KycStatus = Literal["pending", "approved", "rejected"]
ClaimStatus = Literal["pending", "linked"]
SessionStatus = Literal["in_progress", "completed"]


def _redirect(url: str) -> str:
    target = read_target(url.strip())
    if not target.is_secure:
        raise BadUrl(MUST_BE_HTTPS)
    return target.url


class NewVerification(Body):
    """The body of `POST /identity-verifications`."""

    model_config = SNAKE

    email: Email
    external_user_id: (
        Annotated[Text, Field(min_length=1, max_length=EXTERNAL_ID_CHARACTERS_MAX)] | None
    ) = None
    redirect_url: Annotated[str, AfterValidator(_redirect)] | None = None
    metadata: Metadata = Field(default_factory=dict)


class VerificationQuery(Query):
    """Whose verifications."""

    email: Email


class VerificationRecord(Wire):
    """A verification as its developer sees it. `verification_email_sent_at` is real time."""

    model_config = SNAKE

    id: str
    email: str
    external_user_id: str | None
    kyc_status: KycStatus
    didit_session_status: SessionStatus | None
    needs_admin_review: bool
    claim_status: ClaimStatus
    linked_user_id: str | None
    linked_at: datetime | None
    created_at: datetime
    updated_at: datetime
    expires_at: datetime
    verification_email_sent: bool
    verification_email_sent_at: datetime | None


class VerificationAnswer(VerificationRecord):
    """200 of the POST: the pending one that was there before."""

    message: str


class VerificationMade(VerificationAnswer):
    """201 of the POST."""


class VerificationList(Wire):
    """200 of the list, newest first."""

    verifications: list[VerificationRecord]


class UpdatedData(Wire):
    """The `data` of `identity.verification.updated`."""

    model_config = SNAKE

    id: str
    external_user_id: str | None
    email: str
    kyc_status: KycStatus
    previous_kyc_status: KycStatus
    needs_admin_review: bool
    linked_user_id: str | None
    status_source: Literal["sandbox", "admin_review"]
    claim_status: ClaimStatus
    updated_at: datetime


class LinkedData(Wire):
    """The `data` of `identity.verification.linked`."""

    model_config = SNAKE

    id: str
    external_user_id: str | None
    email: str
    kyc_status: KycStatus
    linked_user_id: str
    linked_at: datetime


def record(verification: Verification) -> VerificationRecord:
    """The verification as its developer sees it."""
    return VerificationRecord.model_validate(_shown(verification))


def made(verification: Verification, message: str) -> VerificationMade:
    """A new one, with a word about what happens next."""
    return VerificationMade.model_validate({**_shown(verification), "message": message})


def found(verification: Verification, message: str) -> VerificationAnswer:
    """One that was pending already, with a word about its mail."""
    return VerificationAnswer.model_validate({**_shown(verification), "message": message})


def _shown(verification: Verification) -> dict[str, object]:
    is_open = verification.kyc_status == PENDING and not verification.needs_admin_review
    return {
        "id": verification.id,
        "email": verification.email,
        "external_user_id": verification.external_user_id,
        "kyc_status": verification.kyc_status,
        "didit_session_status": "in_progress" if is_open else "completed",
        "needs_admin_review": verification.needs_admin_review,
        "claim_status": _claim(verification),
        "linked_user_id": verification.linked_user_id,
        "linked_at": verification.linked_at,
        "created_at": verification.created_at,
        "updated_at": verification.updated_at,
        "expires_at": verification.expires_at,
        "verification_email_sent": verification.mails > 0,
        "verification_email_sent_at": verification.mailed_at,
    }


def _claim(verification: Verification) -> str:
    return "pending" if verification.linked_user_id is None else "linked"


def identity_event(
    event_id: UUID,
    event_type: str,
    before: Verification,
    after: Verification,
    mode: str,
    at: datetime,
) -> bytes:
    """The exact bytes of a step's webhook; `mode` says who decided: the sandbox or the operator."""
    told = {UPDATED: _updated, LINKED: _linked}[event_type](before, after, mode)
    return envelope(event_id, event_type, told, at)


def _updated(before: Verification, after: Verification, mode: str) -> Wire:
    changed = {
        "previous_kyc_status": before.kyc_status,
        "status_source": "sandbox" if mode == SANDBOX else "admin_review",
    }
    return UpdatedData.model_validate({**_shown(after), **changed})


def _linked(_: Verification, after: Verification, __: str) -> Wire:
    return LinkedData.model_validate(_shown(after))
