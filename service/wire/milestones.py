"""What we are sent of the milestone family, and how the rules get it. Source: milestones.md 1, 3.

Amounts come as decimal strings or as numbers. Lengths and signs are the rules' to judge, in their
order: here only what a field is.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import AfterValidator, BeforeValidator, Field, WithJsonSchema

from service.rules.engagement import MULTI, ROLES, SINGLE, MilestoneEscrow
from service.rules.errors import InvalidPayload
from service.rules.machine import Role
from service.rules.milestone_said import StatusChange
from service.rules.milestone_terms import MilestoneTerms, Terms
from service.rules.money import EXPONENTS, to_minor
from service.wire.account import Currency
from service.wire.base import OwnBody, Query, WholeNumber
from service.wire.text import Email, Text

AMOUNT = re.compile(r"-?[0-9]{1,30}(\.[0-9]{1,30})?")
INDEX = re.compile(r"[0-9]{1,9}|-[1-9][0-9]{0,8}")


def _amount(given: object) -> object:
    if type(given) is int:
        return Decimal(given)
    if isinstance(given, Decimal):
        return given
    if isinstance(given, str) and AMOUNT.fullmatch(given):
        return Decimal(given)
    raise ValueError("must be a decimal amount: a string like 12.50, or a number")


def _index(given: object) -> object:
    if isinstance(given, str) and INDEX.fullmatch(given):
        return int(given)
    if isinstance(given, Decimal) and given == given.to_integral_value():
        return int(given)
    return given


AmountGiven = Annotated[
    Decimal,
    BeforeValidator(_amount),
    WithJsonSchema({"anyOf": [{"type": "string", "examples": ["94.70"]}, {"type": "number"}]}),
]
"""A decimal string, or a number; exponent forms of a number are the number that they say."""

IndexGiven = Annotated[
    int,
    BeforeValidator(_index),
    WithJsonSchema({"anyOf": [{"type": "integer"}, {"type": "string", "pattern": "^[0-9]{1,9}$"}]}),
]
"""A milestone's index, from 0; a numeric string is accepted."""

Sentence = Annotated[Text, Field(min_length=1)]
"""A text that must not be empty; how long it may be is the rules' to say."""

Version = Annotated[WholeNumber, Field(ge=1)]


# ---- What we are sent ---------------------------------------------------------------------------


class RolesGiven(OwnBody):
    """Who holds which role, by e-mail; the resolver holds no other."""

    approver: Email
    service_provider: Email
    platform: Email
    release_signer: Email
    dispute_resolver: Email
    receiver: Email


class MilestoneGiven(OwnBody):
    """A milestone to be created; amount and receiver in multi release only."""

    description: Sentence
    amount: AmountGiven | None = None
    receiver: Email | None = None
    approved: bool = False
    disputed: bool = False
    released: bool = False
    resolved: bool = False


class NewMilestoneEscrow(OwnBody):
    """The body of `POST /milestone-escrows`; `amount` in single release only."""

    release_mode: Literal["single", "multi"]
    engagement_id: Sentence
    title: Sentence
    description: Text = ""
    currency: Currency
    amount: AmountGiven | None = None
    platform_fee_bps: Annotated[WholeNumber, Field(ge=0)] = 0
    receiver_memo: Sentence | None = None
    resolver_deadline_days: Annotated[WholeNumber, Field(ge=1, le=3650)] | None = None
    roles: RolesGiven
    milestones: list[MilestoneGiven]


class MilestoneChanged(MilestoneGiven):
    """A milestone in an update: what we have added to it is accepted and ignored."""

    index: Any = None
    status: Any = None
    evidence: Any = None


class MilestoneTermsGiven(NewMilestoneEscrow):
    """The body of `PUT /milestone-escrows/:id`: the whole terms; what GET adds is ignored."""

    expected_version: Version | None = None
    milestones: list[MilestoneChanged]  # type: ignore[assignment]  # a list of a kind of them
    id: Any = None
    protocol_fee_bps: Any = None
    balance: Any = None
    flags: Any = None
    status: Any = None
    frozen: Any = None
    version: Any = None
    created_at: Any = None
    updated_at: Any = None


class Fund(OwnBody):
    """The body of `POST …/fund`; `from` is the acting user's e-mail, or nobody's."""

    amount: AmountGiven
    expected_version: Version | None = None
    payer: Annotated[Email | None, Field(alias="from")] = None


class StatusGiven(OwnBody):
    """The body of one milestone's status; evidence that is absent stays as it was."""

    status: Text
    evidence: Text | None = None


class StatusUpdate(StatusGiven):
    """One of a batch."""

    index: IndexGiven


class StatusBatch(OwnBody):
    """The body of `POST …/milestones/status`."""

    updates: list[StatusUpdate]


class ApproveBatch(OwnBody):
    """The body of `POST …/milestones/approve`."""

    indexes: list[IndexGiven]


class Release(OwnBody):
    """The body of `POST …/release`; multi: which milestones."""

    milestone_indexes: list[IndexGiven] | None = None


class DisputeGiven(OwnBody):
    """The body of `POST …/dispute`; multi: which milestones."""

    reason: Sentence
    milestone_indexes: list[IndexGiven] | None = None


class DistributionGiven(OwnBody):
    """One recipient and their gross amount."""

    email: Email
    amount: AmountGiven


class Resolve(OwnBody):
    """The body of `POST …/resolve-dispute`; multi: which milestone."""

    distributions: list[DistributionGiven]
    milestone_index: IndexGiven | None = None


class Withdraw(OwnBody):
    """The body of `POST …/withdraw-remaining`."""

    distributions: list[DistributionGiven]


class NoteGiven(OwnBody):
    """The body of `POST …/dispute-notes`."""

    text: Sentence
    milestone_index: IndexGiven | None = None


def _ids(text: str) -> str:
    if not text.strip():
        raise ValueError("must name at least one escrow")
    return text


class BalancesQuery(Query):
    """`?ids=a,b,…`: at most 20."""

    ids: Annotated[str, AfterValidator(_ids)]

    @property
    def given(self) -> list[str]:
        """The ids in the order asked, duplicates kept."""
        return [one.strip() for one in self.ids.split(",")]


DAY = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}")


def _moment(text: object) -> object:
    if not isinstance(text, str):
        return text
    if DAY.fullmatch(text):
        text += "T00:00:00Z"
    try:
        moment = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError("must be a date or an ISO 8601 instant") from None
    if moment.tzinfo is None or not 1900 < moment.year < 9000:
        raise ValueError("must be an ISO 8601 instant with its offset")
    return moment


def _end(text: object) -> object:
    """A day ends when the next one begins."""
    moment = _moment(text)
    if isinstance(moment, datetime) and isinstance(text, str) and DAY.fullmatch(text):
        return moment + timedelta(days=1)
    return moment


Moment = Annotated[datetime, BeforeValidator(_moment)]
EndMoment = Annotated[datetime, BeforeValidator(_end)]
"""The first instant that is left out; a date stands for the whole of its day (UTC)."""
ROLE_NAMES = {
    "approver": Role.APPROVER,
    "serviceProvider": Role.SERVICE_PROVIDER,
    "platform": Role.PLATFORM,
    "releaseSigner": Role.RELEASE_SIGNER,
    "disputeResolver": Role.DISPUTE_RESOLVER,
    "receiver": Role.RECEIVER,
}
"""A role's name on the wire -> the role."""
NAME_OF = {role: name for name, role in ROLE_NAMES.items()}


class MilestoneQuery(Query):
    """The query of `GET /milestone-escrows`. A start after the end finds nothing."""

    engagement_id: str | None = None
    title: str | None = None
    status: Literal["working", "pendingRelease", "inDispute", "released", "resolved"] | None = None
    release_mode: Literal["single", "multi"] | None = None
    role: (
        Literal[
            "approver",
            "serviceProvider",
            "platform",
            "releaseSigner",
            "disputeResolver",
            "receiver",
        ]
        | None
    ) = None
    role_email: Email | None = None
    participant: Email | None = None
    start_date: Annotated[
        Moment | None, Field(description="Created then or later: a day (UTC), or an instant.")
    ] = None
    end_date: Annotated[
        EndMoment | None,
        Field(description="Created on that day or sooner; of an instant: before it."),
    ] = None
    min_amount: AmountGiven | None = None
    max_amount: AmountGiven | None = None
    order_by: Literal["createdAt", "updatedAt", "amount"] = "createdAt"
    order_direction: Literal["asc", "desc"] = "desc"
    limit: Annotated[int, Field(ge=1, le=100)] = 20
    cursor: str | None = None


class EventsQuery(Query):
    """The query of `GET …/events`."""

    limit: Annotated[int, Field(ge=1, le=100)] = 50
    cursor: Annotated[str, Field(pattern=r"^[0-9]{1,15}$")] | None = None


# ---- From the body to the rules -----------------------------------------------------------------


def minor_of(amount: Decimal, currency: str, field: str) -> int:
    """The amount in minor units.

    Raises:
        InvalidPayload: it has more decimals than the currency.
    """
    minor = to_minor(amount, currency)
    if minor is None:
        raise InvalidPayload({field: _too_fine(currency)})
    return minor


def _too_fine(currency: str) -> str:
    return f"must have at most {EXPONENTS[currency]} decimals in {currency}"


def terms_of(body: NewMilestoneEscrow, *, is_update: bool = False) -> Terms:
    """The body as the rules want it. An update may carry the sum that GET shows in multi.

    Raises:
        InvalidPayload: amounts that are too fine, missing, or of the other release mode.
    """
    is_single = body.release_mode == SINGLE
    bad = _misplaced(body, is_update=is_update)
    amounts = {"amount": body.amount if is_single else None}
    amounts |= {f"milestones.{n}.amount": one.amount for n, one in enumerate(body.milestones)}
    minors: dict[str, int | None] = {}
    for field, amount in amounts.items():
        minors[field] = None if amount is None else to_minor(amount, body.currency)
        if amount is not None and minors[field] is None:
            bad.setdefault(field, _too_fine(body.currency))
    if bad:
        raise InvalidPayload(bad)
    return Terms(
        release_mode=body.release_mode,
        engagement_id=body.engagement_id,
        title=body.title,
        description=body.description,
        currency=body.currency,
        amount_minor=minors["amount"],
        platform_fee_bps=body.platform_fee_bps,
        roles={role: getattr(body.roles, role.value) for role in ROLES},
        milestones=tuple(
            MilestoneTerms(
                description=one.description,
                amount_minor=minors[f"milestones.{index}.amount"],
                receiver=one.receiver,
                is_flagged=one.approved or one.disputed or one.released or one.resolved,
            )
            for index, one in enumerate(body.milestones)
        ),
        receiver_memo=body.receiver_memo,
        resolver_deadline_days=body.resolver_deadline_days,
    )


def _misplaced(body: NewMilestoneEscrow, *, is_update: bool) -> dict[str, str]:
    """Amounts and receivers that are missing, or of the other release mode."""
    is_single = body.release_mode == SINGLE
    bad: dict[str, str] = {}
    if is_single and body.amount is None:
        bad["amount"] = "is required"
    if not is_single and body.amount is not None and not is_update:
        bad["amount"] = "must be absent: the milestones' amounts make it up"
    for index, one in enumerate(body.milestones):
        for name, value in (("amount", one.amount), ("receiver", one.receiver)):
            if is_single and value is not None:
                bad[f"milestones.{index}.{name}"] = "must be absent in single release"
        if not is_single and one.amount is None:
            bad[f"milestones.{index}.amount"] = "is required"
    return bad


def changes_of(updates: list[StatusUpdate]) -> list[StatusChange]:
    """A batch of statuses as the rules want it."""
    return [StatusChange(one.index, one.status, one.evidence) for one in updates]


def parts_of(given: Sequence[DistributionGiven], currency: str) -> list[tuple[str, int]]:
    """Distributions as e-mail and gross amount in minor units, in the list's order.

    Raises:
        InvalidPayload: an amount has more decimals than the currency.
    """
    bad = {
        f"distributions.{n}.amount": _too_fine(currency)
        for n, one in enumerate(given)
        if to_minor(one.amount, currency) is None
    }
    if bad:
        raise InvalidPayload(bad)
    return [(one.email, minor_of(one.amount, currency, "amount")) for one in given]


def check_mode(escrow: MilestoneEscrow, field: str, value: object) -> None:
    """A field that multi release needs, and single release does not know.

    Raises:
        InvalidPayload: it is missing, or there is one too many.
    """
    if escrow.release_mode == MULTI and value is None:
        raise InvalidPayload({field: "is required in multi release"})
    if escrow.release_mode == SINGLE and value is not None:
        raise InvalidPayload({field: "must be absent in single release"})
