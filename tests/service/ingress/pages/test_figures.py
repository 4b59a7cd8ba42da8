"""Figures as people type them."""

from decimal import Decimal

import pytest

from service.ingress.pages.figures import amount_of, digits


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
    ],
)
def test_amounts_are_read_as_people_type_them(text: str, amount: str | None) -> None:
    assert amount_of(text) == (None if amount is None else Decimal(amount))


def test_digits_of_any_script_are_read_and_letters_stay() -> None:
    assert digits(" \u0661\u06f2\u200f 3x ") == "123x"
