"""Shapes become bytes and bodies become models, exactly as the contract says."""

from datetime import UTC, datetime, timedelta, timezone
from decimal import Decimal
from typing import Literal
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import Field, ValidationError

from service.wire.base import (
    Body,
    Number,
    OwnBody,
    Query,
    WholeNumber,
    Wire,
    absent,
    dump_json,
    instant,
    plain_number,
)
from service.wire.complaints import complaints


class Party(Wire):
    first_name: str


class Shown(Wire):
    id: str
    amount: Decimal
    paid_at: datetime | None
    seller: Party | None
    description: str | None = absent()


class Policy(Body):
    type: Literal["a", "b"]
    hours: WholeNumber = Field(default=24, ge=6, le=72)


class Asked(Body):
    title: str = Field(min_length=1, max_length=5)
    amount: Number = Field(gt=0)
    estimated_days: WholeNumber | None = None
    auto_sign: bool = False
    currency: Literal["TND", "USD"] = "TND"
    policy: Policy | None = None


class Ours(OwnBody):
    reason: str | None = None


class Page(Query):
    page: int = Field(default=1, ge=1)


def faults(model, given):
    with pytest.raises(ValidationError) as failure:
        model.model_validate(given)
    return complaints(failure.value)


def test_an_answer_is_camel_case_with_plain_numbers_and_explicit_nulls():
    shown = Shown(id="a", amount=Decimal("1000.00"), paid_at=None, seller=Party(first_name="Mina"))
    assert dump_json({"escrow": shown}) == (
        b'{"escrow":{"id":"a","amount":1000,"paidAt":null,"seller":{"firstName":"Mina"}}}'
    )


def test_an_absent_key_appears_once_it_has_a_value():
    shown = Shown(id="a", amount=Decimal(1), paid_at=None, seller=None, description="é")
    assert dump_json(shown).decode().endswith('"seller":null,"description":"é"}')


def test_an_instant_is_utc_with_milliseconds_and_z():
    moment = datetime(2026, 1, 31, 10, 30, 0, 123999, timezone(timedelta(hours=1)))
    assert instant(moment) == "2026-01-31T09:30:00.123Z"
    assert dump_json([moment, UUID(int=1)]) == (
        b'["2026-01-31T09:30:00.123Z","00000000-0000-0000-0000-000000000001"]'
    )
    with pytest.raises(ValueError, match="offset"):
        instant(datetime(2026, 1, 1))  # noqa: DTZ001 - the naive datetime is the point


@given(st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**15), max_value=10**15))
def test_a_number_has_no_exponent_and_says_exactly_the_same(amount):
    text = plain_number(amount)
    assert "E" not in text.upper()
    assert Decimal(text) == amount
    assert text != "-0"
    assert "." not in text or not text.endswith("0")


def test_a_number_that_is_none_is_refused():
    with pytest.raises(ValueError, match="not a JSON number"):
        plain_number(Decimal("NaN"))


def test_every_bad_field_is_told_at_once_in_plain_words():
    given = {
        "title": "",
        "amount": "12",
        "estimatedDays": True,
        "autoSign": "yes",
        "currency": "GBP",
        "policy": {"type": "c", "hours": 5},
    }
    assert faults(Asked, given) == {
        "title": "must not be empty",
        "amount": "must be a number",
        "estimatedDays": "must be a whole number",
        "autoSign": "must be true or false",
        "currency": "must be one of 'TND' or 'USD'",
        "policy.type": "must be one of 'a' or 'b'",
        "policy.hours": "must be at least 6",
    }
    assert faults(Asked, {"title": "too long", "amount": 0, "policy": []}) == {
        "title": "must be at most 5 characters",
        "amount": "must be greater than 0",
        "policy": "must be an object",
    }
    assert faults(Asked, {}) == {"title": "is required", "amount": "is required"}


def test_null_for_an_optional_field_means_absent_at_every_depth():
    given = {
        "title": "a",
        "amount": 1,
        "currency": None,
        "autoSign": None,
        "policy": {"type": "a", "hours": None},
    }
    asked = Asked.model_validate(given)
    assert (asked.currency, asked.auto_sign, asked.estimated_days) == ("TND", False, None)
    assert asked.policy == Policy(type="a", hours=24)
    assert faults(Asked, {"title": None, "amount": 1}) == {"title": "is required"}


def test_unknown_fields_are_ignored_on_compatible_paths_and_refused_on_ours():
    assert Asked.model_validate({"title": "a", "amount": 1, "x": 1}).title == "a"
    assert faults(Ours, {"x": 1}) == {"x": "is not a known field"}
    assert faults(
        Asked,
        {"title": "a", "amount": 1, "estimated_days": 3, "amounts": 1} | {"estimatedDays": 1.5},
    ) == {"estimatedDays": "must be a whole number"}


@pytest.mark.parametrize("days", [10, Decimal("1e1"), Decimal("10.0")])
def test_a_whole_number_may_be_written_in_any_way(days):
    assert Asked.model_validate({"title": "a", "amount": 1, "estimatedDays": days}) == (
        Asked(title="a", amount=Decimal(1), estimatedDays=10)
    )


def test_a_number_is_kept_exactly():
    amount = Asked.model_validate({"title": "a", "amount": Decimal("0.10")}).amount
    assert str(amount) == "0.10"


def test_a_query_is_read_from_text():
    assert Page.model_validate({"page": "3", "other": "x"}).page == 3
    assert faults(Page, {"page": "x"}) == {"page": "must be a whole number"}
    assert faults(Page, {"page": "9" * 5000}) == {"page": "must be a smaller number"}


def test_the_present_is_utc():
    assert instant(datetime.now(UTC)).endswith("Z")
