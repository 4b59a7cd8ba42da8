"""Figures as people type them: digits of any script, blanks wherever they like."""

import re
from decimal import Decimal
from unicodedata import category, decimal

AMOUNT_CHARACTERS = 20
AMOUNT = re.compile(rf"(?=.{{1,{AMOUNT_CHARACTERS}}}\Z)[0-9]+(?:[.,\u066b][0-9]+)?")
"""U+066B is the mark that parts decimals among Arabic digits."""


def digits(given: str) -> str:
    """What was typed or copied: digits of any script as ASCII, without blanks between them.

    Nor the marks around a figure that come along when it is copied out of an Arabic mail.
    """
    kept = [one for one in given if not one.isspace() and category(one) != "Cf"]
    return "".join(str(decimal(one, one)) for one in kept)


def amount_of(given: str) -> Decimal | None:
    """What was typed as an amount; None where it is none.

    A comma or a point parts the decimals, blanks may part thousands.
    """
    plain = digits(given)
    if AMOUNT.fullmatch(plain) is None:
        return None
    return Decimal(plain.replace(",", ".").replace("\u066b", "."))
