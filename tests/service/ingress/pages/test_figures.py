"""Figures as people type them."""

from decimal import Decimal

import pytest

from service.ingress.pages.figures import amount_of, digits, shown_amount


@pytest.mark.parametrize(
    ("text", "amount"),
    [
        ("20", "20"),
        (" 20.5 ", "20.5"),
        ("20,05", "20.05"),
        ("1 000,250", "1000.250"),
        ("1\u202f000,250", "1000.250"),
        ("\u0662\u0660\u066b\u0665", "20.5"),
        ("\u200f\u0662\u0660\u200e", "20"),
        ("\u06f2\u06f0", "20"),
        ("0", "0"),
        ("1e3", None),
        ("-1", None),
        ("+1", None),
        ("1.", None),
        (".5", None),
        ("\u00b2", None),
        ("9" * 20, "9" * 20),
        ("9" * 21, None),
        ("", None),
        ("1.000.000", None),
        ("1,000.50", None),
        ("1,000", "1.000"),
    ],
)
def test_amounts_are_read_as_people_type_them(text: str, amount: str | None) -> None:
    assert amount_of(text, "fr") == (None if amount is None else Decimal(amount))


def test_digits_of_any_script_are_read_and_letters_stay() -> None:
    assert digits(" \u0661\u06f2\u200f 3x ") == "123x"


@pytest.mark.parametrize(
    ("language", "text", "amount"),
    [
        ("en", "1,000", "1000"),
        ("en", "1,234,567.5", "1234567.5"),
        ("en", "20,05", "20.05"),
        ("en", "0,500", "0.500"),
        ("en", "1.000", "1.000"),
        ("en", "1,0000", "1.0000"),
        ("en", "1,00,000", None),
        ("fr", "1,000", "1.000"),
        ("ar", "1,000", "1.000"),
        ("ar", "1.234,500", "1234.5"),
        ("ar", "12.345.678", "12345678"),
        ("ar", "1.500", "1.5"),
        ("ar", "1.23,500", None),
        ("en", "1.234,500", None),
        ("ar", "\u0661\u066c\u0660\u0660\u0660\u066b\u0665", "1000.5"),
        ("fr", "1\u066c000", None),
    ],
)
def test_thousands_are_parted_as_the_language_parts_them(
    language: str, text: str, amount: str | None
) -> None:
    assert amount_of(text, language) == (None if amount is None else Decimal(amount))


@pytest.mark.parametrize(
    ("text", "amount"), [("120.000", "120.000"), ("1,5", None), (" 1", None), ("\u0661", None)]
)
def test_what_our_own_form_wrote_is_read_to_the_letter(text: str, amount: str | None) -> None:
    assert shown_amount(text) == (None if amount is None else Decimal(amount))
