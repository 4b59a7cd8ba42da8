"""The buyer-seller family on the wire. Source: escrows.md 3 and 7.

The shape of each answer is the documented one, field for field and in its order.
"""

import contextlib
import re
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    ModelWrapValidatorHandler,
    ValidationError,
    ValidationInfo,
    WithJsonSchema,
    field_validator,
    model_validator,
)

from service.rules.aggregate import Contract, Escrow, Person
from service.rules.errors import Invalid
from service.rules.escrow import DELIVERED, PROOF, STANDARD
from service.rules.money import LEDGER_CURRENCY, to_decimal
from service.rules.terms import misplaced
from service.wire.base import Body, Number, Query, WholeNumber, Wire, absent
from service.wire.complaints import complaints
from service.wire.mailbox import MailTrouble
from service.wire.parts import (
    CancellationAsked,
    DeliveryRejection,
    ProofInfo,
    Settled,
    Ticket,
    cancellation,
    proof_info,
    rejections,
    settled,
    ticket,
)
from service.wire.text import ContractTerms, Email, Text

MAX_AMOUNT = 1_000_000_000


class Fulfillment(Body):
    """The purchase proof's policy; hours 6 to 72."""

    type: Literal["purchase_proof_required"]
    proof_upload_deadline_hours: Annotated[WholeNumber, Field(ge=6, le=72)] = 24
    buyer_review_deadline_hours: Annotated[WholeNumber, Field(ge=6, le=72)] = 24
    allowed_proof_types: (
        list[Literal["receipt", "order_confirmation", "product_photo", "tracking_proof", "other"]]
        | None
    ) = None


class NewEscrow(Body):
    """The body of `POST /escrows`; what depends on other fields is `rules/terms.py`'s."""

    title: Annotated[Text, Field(min_length=1, max_length=200)]
    amount: Annotated[Number, Field(gt=0, le=MAX_AMOUNT)]
    currency: Literal["TND", "USD", "EUR"] = "TND"
    buyer_email: Email
    seller_email: Email | None = None
    mode: Literal["standard", "quick", "instant"] = "standard"
    estimated_delivery_days: Annotated[WholeNumber, Field(ge=1, le=3650)] | None = None
    contract_terms: ContractTerms | None = None
    auto_sign: bool = False
    developer_fee_percentage: Annotated[Number, Field(ge=0, le=25, decimal_places=2)] = Decimal(0)
    fulfillment_policy: Fulfillment | None = None
    language: Literal["en", "fr", "ar"] = "en"
    auto_complete: Literal["manual", "on_ack"] = "manual"

    @model_validator(mode="wrap")
    @classmethod
    def _told_at_once(cls, given: Any, handler: ModelWrapValidatorHandler[Self]) -> Self:
        """A body with a bad field is told what its mode makes of the others as well."""
        try:
            return handler(given)
        except ValidationError as failure:
            mode = given.get("mode") or STANDARD
            silent = {"autoComplete": "manual", "autoSign": False}
            present = {name for name, said in given.items() if said not in (None, silent.get(name))}
            raise Invalid({**misplaced(str(mode), present), **complaints(failure)}) from None


class Party(Wire):
    """A registered party, as the other side may see it."""

    id: Annotated[str, Field(alias="_id")]
    email: str
    first_name: str
    last_name: str


class Signing(Wire):
    """A contract's state in the answer of create."""

    id: str
    pdf_url: str | None
    seller_signed: bool
    buyer_signed: bool
    is_fully_signed: bool


class Signatures(Wire):
    """Who has signed; the moments are there only when their flag is true."""

    seller_signed: bool
    seller_signed_at: datetime | None = absent()
    buyer_signed: bool
    buyer_signed_at: datetime | None = absent()
    is_fully_signed: bool
    signed_at: datetime | None = absent()


class Policy(Wire):
    """A proof escrow's policy with its defaults filled in."""

    type: str
    proof_upload_deadline_hours: int
    buyer_review_deadline_hours: int
    allowed_proof_types: list[str] | None = absent()


class Created(Wire):
    """An escrow in the answer of create: parties are ids or null."""

    id: str
    title: str
    amount: Decimal
    currency: str
    amount_tnd: Decimal
    escrow_fee: Decimal
    developer_fee: Decimal
    developer_fee_percentage: Decimal
    status: str
    mode: str
    seller: str | None
    seller_email: str | None
    buyer: str | None
    buyer_email: str
    estimated_delivery_days: int
    expires_at: datetime | None
    created_at: datetime
    fulfillment_policy: Policy | None = absent()


class Creation(Wire):
    """201 of `POST /escrows`."""

    message: str
    escrow: Created
    contract: Signing | None
    url: str
    tracking_id: str


class Listed(Wire):
    """An escrow in the list."""

    id: str
    title: str
    amount: Decimal
    currency: str
    escrow_fee: Decimal
    status: str
    mode: str
    seller: Party | None
    buyer: Party | None
    estimated_delivery_days: int
    paid_at: datetime | None
    delivered_at: datetime | None
    completed_at: datetime | None
    cancelled_at: datetime | None
    created_at: datetime
    updated_at: datetime


class Pagination(Wire):
    """Where a list stands; page, total and pages are absent when a cursor was used."""

    page: int | None = absent()
    limit: int
    total: int | None = absent()
    pages: int | None = absent()
    next_cursor: str | None


class EscrowPage(Wire):
    """200 of `GET /escrows`."""

    escrows: list[Listed]
    pagination: Pagination


class Detail(Wire):
    """An escrow in full."""

    id: str
    own_id: Annotated[str, Field(alias="_id")]
    title: str
    description: str | None = absent()
    amount: Decimal
    currency: str
    amount_tnd: Decimal
    fx_rate_used: Decimal
    escrow_fee: Decimal
    developer_fee: Decimal
    status: str
    mode: str
    seller: Party | None
    seller_email: str | None = absent()
    buyer: Party | None
    buyer_email: str
    estimated_delivery_days: int
    expires_at: datetime | None
    completion_deadline: datetime | None
    paid_at: datetime | None
    delivered_at: datetime | None
    completed_at: datetime | None
    cancelled_at: datetime | None
    created_at: datetime
    updated_at: datetime
    created_via_third_party: bool
    created_by_application_name: str | None
    dispute_ticket_id: str | None
    dispute_ticket: Ticket | None
    signatures: Signatures | None
    cancel_reason: str | None
    cancellation_request: CancellationAsked | None
    delivery_rejections: list[DeliveryRejection]
    settlement: Settled | None
    fulfillment_policy: Policy | None = absent()
    proof_info: ProofInfo | None = absent()
    mail_troubles: list[MailTrouble] | None = absent()


class EscrowAnswer(Wire):
    """200 of `GET /escrows/:id`, and of the sandbox's steps."""

    escrow: Detail


class Moved(Wire):
    """An escrow in the answer of a step; which moments are there depends on the step."""

    id: str
    title: str
    amount: Decimal
    status: str
    delivered_at: datetime | None = absent()
    completed_at: datetime | None = absent()
    cancelled_at: datetime | None = absent()
    created_at: datetime
    updated_at: datetime


class Changes(Body):
    """The body of `PUT /escrows/:id`; what is absent stays as it is."""

    title: Annotated[Text, Field(min_length=1, max_length=200)] | None = None
    amount: Annotated[Number, Field(gt=0, le=MAX_AMOUNT)] | None = None
    description: Annotated[Text, Field(max_length=2000)] | None = None
    estimated_delivery_days: Annotated[WholeNumber, Field(ge=1, le=3650)] | None = None
    contract_terms: ContractTerms | None = None


class Updated(Wire):
    """An escrow in the answer of an update."""

    id: str
    title: str
    amount: Decimal
    currency: str
    amount_tnd: Decimal
    fx_rate_used: Decimal
    escrow_fee: Decimal
    developer_fee: Decimal
    status: str
    description: str | None
    estimated_delivery_days: int
    created_at: datetime
    updated_at: datetime


class UpdateAnswer(Wire):
    """200 of `PUT /escrows/:id`."""

    message: str
    escrow: Updated


class Reasoned(Body):
    """A body that may say why."""

    reason: Annotated[Text, Field(min_length=1, max_length=2000)] | None = None


class Returned(Wire):
    """An escrow in the answer of a rejected delivery."""

    id: str
    title: str
    amount: Decimal
    status: str
    delivered_at: datetime | None
    completion_deadline: datetime | None
    delivery_rejections: list[DeliveryRejection]
    created_at: datetime
    updated_at: datetime


class RejectAnswer(Wire):
    """200 of `POST /escrows/:id/reject-delivery`."""

    message: str
    escrow: Returned


class Delivered(Wire):
    """A delivered escrow in the answer of a step; its deadline is null while it stands still."""

    id: str
    title: str
    amount: Decimal
    status: str
    delivered_at: datetime | None
    completion_deadline: datetime | None
    created_at: datetime
    updated_at: datetime


class StepAnswer(Wire):
    """200 of a step."""

    message: str
    escrow: Moved


class DeliverAnswer(Wire):
    """200 of `POST /escrows/:id/deliver`: an instant escrow is completed at once."""

    message: str
    escrow: Delivered | Moved


class Snapshot(Wire):
    """`E` of the webhooks; a few events add a key of their own."""

    id: str
    title: str
    amount: Decimal
    currency: str
    amount_tnd: Decimal
    escrow_fee: Decimal
    status: str
    mode: str
    seller: Party | None
    buyer: Party | None
    estimated_delivery_days: int
    created_at: datetime
    updated_at: datetime
    old_status: str | None = absent()


def wire_mode(mode: str) -> str:
    """The documented mode: a proof escrow is a quick one with a policy."""
    return "quick" if mode == PROOF else mode


def party(person: Person | None) -> Party | None:
    """The person as a party; None while not registered."""
    if person is None:
        return None
    return Party.model_construct(
        id=person.id,
        email=person.email,
        first_name=person.first_name,
        last_name=person.last_name,
    )


def ledger_amount(minor: int) -> Decimal:
    """Millimes as dinars."""
    return to_decimal(minor, LEDGER_CURRENCY)


def face_amount(escrow: Escrow) -> Decimal:
    """The agreed amount in its own currency."""
    return to_decimal(escrow.amount_minor, escrow.currency)


def snapshot(escrow: Escrow, old_status: str | None = None) -> Snapshot:
    """`E` as the escrow stands. Built without validation: every value comes from our rows."""
    return Snapshot.model_construct(
        id=escrow.id,
        title=escrow.title,
        amount=face_amount(escrow),
        currency=escrow.currency,
        amount_tnd=ledger_amount(escrow.amount_ledger_minor),
        escrow_fee=ledger_amount(escrow.escrow_fee_minor),
        status=escrow.status,
        mode=wire_mode(escrow.mode),
        seller=party(escrow.seller),
        buyer=party(escrow.buyer),
        estimated_delivery_days=escrow.estimated_delivery_days,
        created_at=escrow.created_at,
        updated_at=escrow.updated_at,
        old_status=old_status,
    )


def creation(escrow: Escrow, public_url: str) -> Creation:
    """The answer of create."""
    return Creation.model_construct(
        message="Escrow created",
        escrow=Created.model_construct(
            id=escrow.id,
            title=escrow.title,
            amount=face_amount(escrow),
            currency=escrow.currency,
            amount_tnd=ledger_amount(escrow.amount_ledger_minor),
            escrow_fee=ledger_amount(escrow.escrow_fee_minor),
            developer_fee=ledger_amount(escrow.developer_fee_minor),
            developer_fee_percentage=Decimal(escrow.developer_fee_bps) / 100,
            status=escrow.status,
            mode=wire_mode(escrow.mode),
            seller=escrow.seller_id,
            seller_email=None if escrow.seller_id else escrow.seller_email,
            buyer=escrow.buyer_id,
            buyer_email=escrow.buyer_email,
            estimated_delivery_days=escrow.estimated_delivery_days,
            expires_at=escrow.expires_at,
            created_at=escrow.created_at,
            fulfillment_policy=_policy(escrow),
        ),
        contract=_signing(escrow.contract),
        url=f"{public_url}/dashboard/escrow/{escrow.id}",
        tracking_id=escrow.id,
    )


def listed(escrow: Escrow) -> Listed:
    """One row of the list."""
    return Listed.model_construct(
        id=escrow.id,
        title=escrow.title,
        amount=face_amount(escrow),
        currency=escrow.currency,
        escrow_fee=ledger_amount(escrow.escrow_fee_minor),
        status=escrow.status,
        mode=wire_mode(escrow.mode),
        seller=party(escrow.seller),
        buyer=party(escrow.buyer),
        estimated_delivery_days=escrow.estimated_delivery_days,
        paid_at=escrow.paid_at,
        delivered_at=escrow.delivered_at,
        completed_at=escrow.completed_at,
        cancelled_at=escrow.cancelled_at,
        created_at=escrow.created_at,
        updated_at=escrow.updated_at,
    )


def detail(
    escrow: Escrow, ticket_prefix: str, troubles: Sequence[MailTrouble] = ()
) -> EscrowAnswer:
    """The answer of `GET /escrows/:id`; `troubles` is its mail that has not arrived, if any."""
    return EscrowAnswer.model_construct(
        escrow=Detail.model_construct(
            id=escrow.id,
            own_id=escrow.id,
            title=escrow.title,
            description=escrow.description,
            amount=face_amount(escrow),
            currency=escrow.currency,
            amount_tnd=ledger_amount(escrow.amount_ledger_minor),
            fx_rate_used=escrow.fx_rate,
            escrow_fee=ledger_amount(escrow.escrow_fee_minor),
            developer_fee=ledger_amount(escrow.developer_fee_minor),
            status=escrow.status,
            mode=wire_mode(escrow.mode),
            seller=party(escrow.seller),
            seller_email=None if escrow.seller else escrow.seller_email,
            buyer=party(escrow.buyer),
            buyer_email=escrow.buyer_email,
            estimated_delivery_days=escrow.estimated_delivery_days,
            expires_at=escrow.expires_at,
            completion_deadline=escrow.completion_deadline,
            paid_at=escrow.paid_at,
            delivered_at=escrow.delivered_at,
            completed_at=escrow.completed_at,
            cancelled_at=escrow.cancelled_at,
            created_at=escrow.created_at,
            updated_at=escrow.updated_at,
            created_via_third_party=True,
            created_by_application_name=escrow.creator_company,
            dispute_ticket_id=escrow.dispute.id if escrow.dispute else None,
            dispute_ticket=ticket(escrow, ticket_prefix),
            signatures=_signatures(escrow.contract),
            cancel_reason=escrow.cancel_reason,
            cancellation_request=cancellation(escrow.cancellation),
            delivery_rejections=rejections(escrow.rejections),
            settlement=settled(
                escrow.dispute.settlement if escrow.dispute else None, escrow.ledger_currency
            ),
            fulfillment_policy=_policy(escrow),
            proof_info=proof_info(escrow.proof) if escrow.mode == PROOF else None,
            mail_troubles=list(troubles) or None,
        )
    )


def delivered(message: str, escrow: Escrow) -> DeliverAnswer:
    """The answer of deliver."""
    if escrow.status != DELIVERED:
        return DeliverAnswer.model_construct(message=message, escrow=moved(message, escrow).escrow)
    return DeliverAnswer.model_construct(message=message, escrow=_delivered(escrow))


def moved(message: str, escrow: Escrow) -> StepAnswer:
    """The answer of complete and cancel: the moments that the status has."""
    return StepAnswer.model_construct(
        message=message,
        escrow=Moved.model_construct(
            id=escrow.id,
            title=escrow.title,
            amount=face_amount(escrow),
            status=escrow.status,
            delivered_at=escrow.delivered_at,
            completed_at=escrow.completed_at,
            cancelled_at=escrow.cancelled_at,
            created_at=escrow.created_at,
            updated_at=escrow.updated_at,
        ),
    )


def _delivered(escrow: Escrow) -> Delivered:
    return Delivered.model_construct(
        id=escrow.id,
        title=escrow.title,
        amount=face_amount(escrow),
        status=escrow.status,
        delivered_at=escrow.delivered_at,
        completion_deadline=escrow.completion_deadline,
        created_at=escrow.created_at,
        updated_at=escrow.updated_at,
    )


def updated(escrow: Escrow) -> UpdateAnswer:
    """The answer of an update."""
    return UpdateAnswer.model_construct(
        message="Escrow updated",
        escrow=Updated.model_construct(
            id=escrow.id,
            title=escrow.title,
            amount=face_amount(escrow),
            currency=escrow.currency,
            amount_tnd=ledger_amount(escrow.amount_ledger_minor),
            fx_rate_used=escrow.fx_rate,
            escrow_fee=ledger_amount(escrow.escrow_fee_minor),
            developer_fee=ledger_amount(escrow.developer_fee_minor),
            status=escrow.status,
            description=escrow.description,
            estimated_delivery_days=escrow.estimated_delivery_days,
            created_at=escrow.created_at,
            updated_at=escrow.updated_at,
        ),
    )


def returned(escrow: Escrow) -> RejectAnswer:
    """The answer of a rejected delivery."""
    return RejectAnswer.model_construct(
        message="Delivery rejected",
        escrow=Returned.model_construct(
            id=escrow.id,
            title=escrow.title,
            amount=face_amount(escrow),
            status=escrow.status,
            delivered_at=escrow.delivered_at,
            completion_deadline=escrow.completion_deadline,
            delivery_rejections=rejections(escrow.rejections),
            created_at=escrow.created_at,
            updated_at=escrow.updated_at,
        ),
    )


def _signing(contract: Contract | None) -> Signing | None:
    if contract is None:
        return None
    return Signing.model_construct(
        id=contract.id,
        pdf_url=None,
        seller_signed=contract.seller_signed_at is not None,
        buyer_signed=contract.buyer_signed_at is not None,
        is_fully_signed=contract.is_fully_signed,
    )


def _signatures(contract: Contract | None) -> Signatures | None:
    if contract is None:
        return None
    seller, buyer = contract.seller_signed_at, contract.buyer_signed_at
    return Signatures.model_construct(
        seller_signed=seller is not None,
        seller_signed_at=seller,
        buyer_signed=buyer is not None,
        buyer_signed_at=buyer,
        is_fully_signed=contract.is_fully_signed,
        signed_at=contract.fully_signed_at,
    )


def _policy(escrow: Escrow) -> Policy | None:
    if escrow.fulfillment_policy is None:
        return None
    return Policy.model_validate(escrow.fulfillment_policy)


def _page_text(text: object) -> object:
    if isinstance(text, str) and text.isascii() and text.isdigit() and len(text) <= 9:
        return int(text)
    raise ValueError("must be a whole number")


PageNumber = Annotated[int, BeforeValidator(_page_text)]

DATE = re.compile(r"\d{4}-\d\d-\d\d", re.ASCII)
INSTANT = re.compile(
    r"\d{4}-\d\d-\d\dT\d\d:\d\d(:\d\d([.,]\d+)?)?(Z|[+-]\d\d:\d\d)", re.ASCII | re.IGNORECASE
)


def _moment(text: object) -> object:
    """The instant that this text says; of a date, its beginning in UTC."""
    moment = None
    if isinstance(text, str) and (DATE.fullmatch(text) or INSTANT.fullmatch(text)):
        with contextlib.suppress(ValueError, OverflowError):
            told = datetime.fromisoformat(text.upper())
            moment = told.replace(tzinfo=UTC) if told.tzinfo is None else told.astimezone(UTC)
    if moment is None or not 1 < moment.year < 9999:
        raise ValueError("must be an ISO 8601 instant with its offset, or a date")
    return moment


def _end(text: object) -> object:
    """As `_moment`; of a date, the beginning of the day after it."""
    moment = _moment(text)
    is_date = isinstance(text, str) and DATE.fullmatch(text)
    return moment + timedelta(days=1) if is_date and isinstance(moment, datetime) else moment


MOMENT = {"type": "string", "anyOf": [{"format": "date-time"}, {"format": "date"}]}
From = Annotated[
    datetime,
    BeforeValidator(_moment),
    WithJsonSchema({**MOMENT, "description": "Created at this instant or on this day, or later."}),
]
To = Annotated[
    datetime,
    BeforeValidator(_end),
    WithJsonSchema({**MOMENT, "description": "Created before this instant, or by this day's end."}),
]


class EscrowQuery(Query):
    """The query of `GET /escrows`. Dates are days of UTC."""

    status: Literal["pending", "paid", "delivered", "completed", "cancelled", "disputed"] | None = (
        None
    )
    role: Literal["seller", "buyer"] | None = None
    mode: Literal["standard", "quick", "instant"] | None = None
    q: (
        Annotated[
            Text,
            Field(
                min_length=1,
                max_length=200,
                description="Stands anywhere in the title or a party's e-mail, in capitals or not.",
            ),
        ]
        | None
    ) = None
    created_from: Annotated[From | None, Field(alias="from")] = None
    created_before: Annotated[To | None, Field(alias="to")] = None
    page: Annotated[PageNumber, Field(ge=1)] = 1
    limit: Annotated[PageNumber, Field(ge=1, le=100)] = 20
    cursor: Annotated[str, Field(pattern=r"^[0-9a-f]{24}$")] | None = None

    @field_validator("created_before")
    @classmethod
    def _after_its_beginning(cls, end: datetime | None, info: ValidationInfo) -> datetime | None:
        start = info.data.get("created_from")
        if end is not None and start is not None and end <= start:
            raise ValueError("must be after from")
        return end
