"""Amounts as people read them: grouping of the language, decimals of the currency, then its code.

The code (TND, USD) is the same in every language and as in the API.
"""

from decimal import Decimal

from babel.numbers import format_decimal

from service.words.languages import Language


def percent_text(bps: int, language: Language) -> str:
    """`2.5 %`: basis points as a percentage, no more decimals than it has."""
    figure = format_decimal(Decimal(bps) / 100, "#,##0.##", language.locale)
    return f"{figure} %"


def amount_text(amount: str | Decimal, currency: str, language: Language) -> str:
    """`1,000.000 TND`: every decimal that `amount` carries is shown, none is rounded away."""
    exact = Decimal(amount)
    decimals = len(format(exact, "f").partition(".")[2])
    pattern = "#,##0." + "0" * decimals if decimals else "#,##0"
    figure = format_decimal(exact, pattern, language.locale, decimal_quantization=False)
    return f"{figure} {currency}"
