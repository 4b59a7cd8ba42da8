"""The sandbox's helpers on the wire. Source: operations.md 6. Amounts: numbers or strings."""

import re
from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, Field, WithJsonSchema

from service.rules.aggregate import Person
from service.rules.checkout import ALLOWED_URLS_MAX
from service.wire.account import Currency
from service.wire.base import Number, OwnBody, Query, WholeNumber, Wire
from service.wire.developer import RedirectUrl
from service.wire.text import Email, Text

MAX_AMOUNT = 900_000_000_000
MAX_ADVANCE_SECONDS = 100 * 366 * 24 * 3600
DECIMAL_STRING = re.compile(r"-?[0-9]{1,18}(\.[0-9]{1,18})?", re.ASCII)
NAME = Field(min_length=1, max_length=100)


def _amount(value: object) -> object:
    if not isinstance(value, str):
        return value
    if DECIMAL_STRING.fullmatch(value) is None:
        raise ValueError("must be a number or a decimal string")
    return Decimal(value)


NUMBER_OR_TEXT = {
    "anyOf": [{"type": "number"}, {"type": "string", "pattern": f"^{DECIMAL_STRING.pattern}$"}]
}
Amount = Annotated[Number, BeforeValidator(_amount), WithJsonSchema(NUMBER_OR_TEXT)]


class NewDeveloper(OwnBody):
    """Another developer with a key."""

    email: Email
    company: Annotated[Text, Field(min_length=1, max_length=200)]
    user_email: Email | None = None
    redirect_urls: Annotated[list[RedirectUrl], Field(max_length=ALLOWED_URLS_MAX)] = Field(
        default_factory=list
    )


class DeveloperAnswer(Wire):
    """201: the key is shown this once."""

    developer_id: str
    api_key: str
    user_id: str | None


class NewUser(OwnBody):
    """A user, verified unless said otherwise."""

    email: Email
    first_name: Annotated[Text, NAME]
    last_name: Annotated[Text, NAME]
    email_verified: bool = True
    phone_verified: bool = True
    language: Literal["en", "fr", "ar"] = "en"


class UserShape(Wire):
    """A user as the sandbox shows it."""

    id: str
    email: str
    first_name: str
    last_name: str


class UserAnswer(Wire):
    """201."""

    user: UserShape


class TopUp(OwnBody):
    """Money from the sandbox's provider."""

    amount: Annotated[Amount, Field(gt=0, le=MAX_AMOUNT)]
    currency: Currency = "TND"


class ByEmail(OwnBody):
    """Whom it is about."""

    email: Email


class AssociationAnswer(Wire):
    """As whom the developer acts from now on; null for nobody."""

    user_id: str | None


class Act(OwnBody):
    """Who takes which step of the table, with what they bring along."""

    email: Email
    step: Annotated[str, Field(min_length=1, max_length=50)]
    input: dict[str, Any] | None = None


class Resolution(OwnBody):
    """The operator's word: all to one party, or an amount to each."""

    to: Literal["seller", "buyer"] | None = None
    seller_amount: Amount | None = None
    buyer_amount: Amount | None = None


class ProofDecision(OwnBody):
    """The operator's word on a purchase proof."""

    accept: bool


class Registration(OwnBody):
    """What an invited person fills in."""

    token: Annotated[str, Field(min_length=1, max_length=100)]
    email: Email | None = None
    first_name: Annotated[Text, NAME]
    last_name: Annotated[Text, NAME]


class RegistrationAnswer(Wire):
    """201: the user and the escrows that were linked."""

    user: UserShape
    escrows: list[str]


class MailboxQuery(Query):
    """Whose mails."""

    to: str | None = None


class Advance(OwnBody):
    """By how much, or to when, the clock moves forward; one of both."""

    seconds: Annotated[WholeNumber, Field(ge=0, le=MAX_ADVANCE_SECONDS)] | None = None
    to: str | None = None


class ClockAnswer(Wire):
    """The deployment's business time."""

    now: datetime


class FiredDeadline(Wire):
    """A deadline that fired on the way."""

    escrow_id: str
    kind: str
    due_at: datetime


class AdvanceAnswer(Wire):
    """Business time now, and what fired on the way, in due order."""

    now: datetime
    fired: list[FiredDeadline]


class NewRate(OwnBody):
    """One unit of the currency in TND."""

    currency: Literal["USD", "EUR"]
    rate: Annotated[Amount, Field(ge=Decimal("0.000001"), le=1_000_000, decimal_places=12)]


class RateAnswer(Wire):
    """The rate that new escrows lock from now on."""

    currency: str
    rate: Decimal


def user_shape(person: Person) -> UserShape:
    """The person as the sandbox shows it."""
    return UserShape(
        id=person.id,
        email=person.email,
        first_name=person.first_name,
        last_name=person.last_name,
    )
