"""What every shape on the wire shares, and how a shape becomes bytes.

`Wire` is what we send; `Body` and `Query` are what we are sent. Names are snake_case here and
camelCase outside. Money leaves as a plain JSON number (`1000`, `4.5`, never `1E+3`), an instant
as ISO 8601 UTC with milliseconds and `Z`; an unreached timestamp is an explicit null, and a key
that may be missing altogether is declared with `absent()`.
"""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from functools import lru_cache
from typing import Annotated, Any, ClassVar, Self

import orjson
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator
from pydantic.alias_generators import to_camel


class Wire(BaseModel):
    """An answer, or a part of one: the API's and the webhooks' alike."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=True, serialize_by_alias=True, strict=True
    )
    _shape: ClassVar[Mapping[str, Any]] = {}

    @classmethod
    def __pydantic_init_subclass__(cls, **_: Any) -> None:
        cls._shape = {name: field.default for name, field in cls.model_fields.items()}

    @classmethod
    def model_construct(  # type: ignore[override]  # mypy's plugin writes one of its own over it
        cls, _fields_set: set[str] | None = None, **values: Any
    ) -> Self:
        """As pydantic's, for values of ours by their own names: a tenth of its price."""
        made = cls.__new__(cls)
        object.__setattr__(made, "__dict__", {**cls._shape, **values})
        object.__setattr__(made, "__pydantic_fields_set__", _fields_set or set(values))
        object.__setattr__(made, "__pydantic_extra__", None)
        object.__setattr__(made, "__pydantic_private__", None)
        return made


class Body(BaseModel):
    """A request's JSON object on a compatible path: unknown fields are ignored.

    `null` for a field means that the field is absent. No type is guessed from another.
    """

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=False, strict=True, extra="ignore", frozen=True
    )

    @model_validator(mode="before")
    @classmethod
    def _without_nulls(cls, given: Any) -> Any:
        if isinstance(given, dict) and None in given.values():
            return {name: value for name, value in given.items() if value is not None}
        return given


class OwnBody(Body):
    """A request's JSON object on a path of our own: unknown fields are refused."""

    model_config = ConfigDict(extra="forbid")


class Query(BaseModel):
    """A request's query string: every value comes as text; unknown names are ignored."""

    model_config = ConfigDict(
        alias_generator=to_camel, populate_by_name=False, extra="ignore", frozen=True
    )


def absent() -> Any:
    """The default of an optional key that is left out, not null, while its value is None."""
    return Field(default=None, exclude_if=_is_none)


def _is_none(value: object) -> bool:
    return value is None


def _to_decimal(value: object) -> object:
    if type(value) is int:
        return Decimal(value)
    if isinstance(value, Decimal):
        return value
    raise ValueError("must be a number")


def _to_int(value: object) -> object:
    if isinstance(value, Decimal) and value == value.to_integral_value():
        return int(value)
    return value


Number = Annotated[Decimal, BeforeValidator(_to_decimal)]
"""A JSON number, exactly; a string is refused."""

WholeNumber = Annotated[int, BeforeValidator(_to_int)]
"""A JSON number without a fraction; `10`, `1e1` and `10.0` are the same one."""


def plain_number(amount: Decimal) -> str:
    """The shortest JSON number that says exactly this: no exponent, no trailing zeros."""
    if not amount.is_finite():
        raise ValueError(f"{amount} is not a JSON number")
    text = format(amount, "f")
    if "." in text:
        text = text.rstrip("0").rstrip(".")
    return "0" if text == "-0" else text


@lru_cache(maxsize=256)  # one moment of a transaction is written many times
def instant(moment: datetime) -> str:
    """ISO 8601 in UTC with milliseconds: `2026-01-31T09:30:00.000Z`. Needs an aware datetime."""
    if moment.tzinfo is not UTC:
        if moment.tzinfo is None:
            raise ValueError("an instant needs its offset")
        moment = moment.astimezone(UTC)
    return moment.isoformat(timespec="milliseconds")[:-6] + "Z"


def dump_json(shape: Wire | Mapping[str, Any] | Sequence[Any]) -> bytes:
    """A model, or plain objects with models in them, as compact UTF-8 JSON."""
    return orjson.dumps(shape, default=_plain, option=orjson.OPT_PASSTHROUGH_DATETIME)


def _plain(value: object) -> object:
    if isinstance(value, Decimal):
        return orjson.Fragment(plain_number(value))
    if isinstance(value, datetime):
        return instant(value)
    if isinstance(value, BaseModel):
        return value.model_dump()
    if isinstance(value, Mapping):
        return dict(value)
    if isinstance(value, frozenset | set | Sequence):
        return list(value)
    raise TypeError(f"{type(value).__name__} has no JSON form")
