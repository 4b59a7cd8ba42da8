"""Figures as people type them: digits of any script, blanks wherever they like."""

import re
from decimal import Decimal
from unicodedata import category, decimal

AMOUNT_CHARACTERS = 20
AMOUNT = re.compile(rf"(?=.{{1,{AMOUNT_CHARACTERS}}}\Z)[0-9]+(?:[.,\u066b][0-9]+)?")
"""U+066B is the mark that parts decimals among Arabic digits."""
GROUP_MARKS = {"en": ",", "ar": "\u066c"}
"""What parts thousands, where that is no blank."""
GROUPED = re.compile(r"[1-9][0-9]{0,2}(?:#[0-9]{3})+(?:[.,\u066b][0-9]+)?")
"""A figure whose groups are parted by #."""
BY_POINTS = re.compile(r"[1-9][0-9]{0,2}(?:(?:\.[0-9]{3})+,[0-9]+|(?:\.[0-9]{3}){2,})")
"""A figure as our Arabic pages write it, where its points can part nothing but thousands."""


def digits(given: str) -> str:
    """What was typed or copied: digits of any script as ASCII, without blanks between them.

    Nor the marks around a figure that come along when it is copied out of an Arabic mail.
    """
    kept = [one for one in given if not one.isspace() and category(one) != "Cf"]
    return "".join(str(decimal(one, one)) for one in kept)


def amount_of(given: str, language: str) -> Decimal | None:
    """What was typed as an amount by somebody who speaks this language; None where it is none.

    A comma or a point parts the decimals, blanks may part thousands. So does what the language
    writes for it, where it stands as it should: `1,000` is a thousand in English, one in French.
    In Arabic `1.234,500` is what our pages write; `1.500` alone is one and a half, as it is typed.
    """
    plain = digits(given)
    mark = GROUP_MARKS.get(language)
    if mark is not None and GROUPED.fullmatch(plain.replace(mark, "#")):
        plain = plain.replace(mark, "")
    if language == "ar" and BY_POINTS.fullmatch(plain):
        plain = plain.replace(".", "")
    if AMOUNT.fullmatch(plain) is None:
        return None
    return Decimal(plain.replace(",", ".").replace("\u066b", "."))


def shown_amount(written: str) -> Decimal | None:
    """The amount that a page of ours wrote into its form; None where it is none."""
    is_plain = written.isascii() and AMOUNT.fullmatch(written) is not None and "," not in written
    return Decimal(written) if is_plain else None
