"""`GET /escrows/:id/dispute`: what both parties have said, shown and offered. Ours."""

from collections.abc import Sequence
from datetime import datetime
from decimal import Decimal

from service.rules.aggregate import Dispute, Escrow
from service.rules.dispute import Offer, Statement
from service.rules.money import to_decimal
from service.wire.base import Wire
from service.wire.parts import Disputed, disputed
from service.wire.proofs import Attachment, ViewUrl, attachment


class StatementShape(Wire):
    """What a party has said or shown at once; `by` is `seller` or `buyer`."""

    by: str
    stated_at: datetime
    text: str | None
    attachments: list[Attachment]


class OfferShape(Wire):
    """A split that a party has proposed; `status`: open, replaced, accepted or lapsed."""

    id: str
    by: str
    seller_amount: Decimal
    buyer_amount: Decimal
    currency: str
    status: str
    offered_at: datetime


class Case(Disputed):
    """A dispute in full. `opener` is `seller` or `buyer`; the clock decides at `answerBy`.

    That is null once the other party has answered (`answeredAt`), or the dispute is over.
    """

    opener: str
    opened_at: datetime
    answered_at: datetime | None
    answer_by: datetime | None
    resolved_at: datetime | None
    statements: list[StatementShape]
    offers: list[OfferShape]


class CaseAnswer(Wire):
    """200 of `GET /escrows/:id/dispute`."""

    dispute: Case


def case(
    escrow: Escrow,
    dispute: Dispute,
    statements: Sequence[Statement],
    offers: Sequence[Offer],
    answer_by: datetime | None,
    prefix: str,
    view_url: ViewUrl,
) -> CaseAnswer:
    """The escrow's last dispute."""
    told = disputed(escrow, prefix)
    return CaseAnswer.model_construct(
        dispute=Case.model_construct(
            ticket_number=told.ticket_number,
            opened_by=told.opened_by,
            reason=told.reason,
            status=told.status,
            outcome=told.outcome,
            settlement=told.settlement,
            opener=dispute.opener,
            opened_at=dispute.opened_at,
            answered_at=dispute.answered_at,
            answer_by=answer_by,
            resolved_at=dispute.resolved_at,
            statements=[_statement(one, view_url) for one in statements],
            offers=[_offer(one, escrow.ledger_currency) for one in offers],
        )
    )


def _statement(given: Statement, view_url: ViewUrl) -> StatementShape:
    return StatementShape.model_construct(
        by=given.role,
        stated_at=given.stated_at,
        text=given.text,
        attachments=[attachment(file, view_url) for file in given.files],
    )


def _offer(made: Offer, currency: str) -> OfferShape:
    return OfferShape.model_construct(
        id=made.id,
        by=made.role,
        seller_amount=to_decimal(made.split.seller_minor, currency),
        buyer_amount=to_decimal(made.split.buyer_minor, currency),
        currency=currency,
        status=made.outcome or "open",
        offered_at=made.offered_at,
    )
