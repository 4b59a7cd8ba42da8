"""The languages people are written to in: their Babel locale and their direction."""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Language:
    """`code` is what the API says; `locale` is Babel's; `direction` is ltr or rtl."""

    code: str
    locale: str
    direction: str


# Arabic as in Tunisia: its names of months, Latin figures.
LANGUAGES: Mapping[str, Language] = {
    "en": Language("en", "en", "ltr"),
    "fr": Language("fr", "fr", "ltr"),
    "ar": Language("ar", "ar_TN", "rtl"),
}
DEFAULT_LANGUAGE = "en"


def language_of(code: str) -> Language:
    """The language with this code; English for one that we do not speak."""
    return LANGUAGES.get(code, LANGUAGES[DEFAULT_LANGUAGE])
