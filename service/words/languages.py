"""The languages people are written to in: their Babel locale and their direction."""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from operator import itemgetter


@dataclass(frozen=True, slots=True)
class Language:
    """`code` is what the API says; `locale` is Babel's; `direction` is ltr or rtl.

    `own_name` is what its speakers call it: the same on every page.
    """

    code: str
    locale: str
    direction: str
    own_name: str


# Arabic as in Tunisia: its names of months, Latin figures.
LANGUAGES: Mapping[str, Language] = {
    "en": Language("en", "en", "ltr", "English"),
    "fr": Language("fr", "fr", "ltr", "Français"),
    "ar": Language("ar", "ar_TN", "rtl", "العربية"),
}
DEFAULT_LANGUAGE = "en"


def language_of(code: str) -> Language:
    """The language with this code; English for one that we do not speak."""
    return LANGUAGES.get(code, LANGUAGES[DEFAULT_LANGUAGE])


QUALITY = r"0(?:\.\d{0,3})?|1(?:\.0{0,3})?"
ACCEPTED = re.compile(rf"([a-zA-Z]{{1,8}})(?:-[a-zA-Z0-9-]{{1,32}})?(?:\s*;\s*q=({QUALITY}))?")
ACCEPTED_MAX = 40
"""More than so many languages nobody speaks."""


def preferred(accepted: str) -> str | None:
    """The code of the language of ours that an Accept-Language header likes best, or None.

    The highest `q` wins, then what stands first (RFC 9110, 12.5.4); regions are passed over.
    """
    best = max(_liked(accepted), key=itemgetter(1), default=None)
    return None if best is None else best[0]


def _liked(accepted: str) -> Iterator[tuple[str, float]]:
    for part in accepted.split(",")[:ACCEPTED_MAX]:
        asked = ACCEPTED.fullmatch(part.strip())
        if asked is None or asked[1].lower() not in LANGUAGES:
            continue
        quality = float(asked[2] or 1)
        if quality > 0:
            yield asked[1].lower(), quality
