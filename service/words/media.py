"""How one sentence becomes HTML or plain text without what people typed being able to act.

In HTML user text is escaped and isolated by `<bdi>`; in plain text, which has no markup, it loses
its direction controls and is isolated by FSI and PDI where its direction could differ. Figures
stay left-to-right in every language.
"""

import re
import unicodedata
from collections.abc import Mapping
from typing import Protocol

from markupsafe import Markup, escape

from service.words.languages import Language

# Line breaks and other controls have no place in a name or a title.
BREAKS = re.compile("[\\s\x00-\x1f\x7f-\x9f\u2028\u2029]+")
# An isolate of their own would end or outlive ours, in markup as well.
ISOLATES = re.compile("[\u2066-\u2069]")
OVERRIDES = re.compile("[\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069]")
RIGHT_TO_LEFT = frozenset({"R", "AL", "AN"})
FSI, LRI, PDI = "\u2068", "\u2066", "\u2069"


class Medium(Protocol):
    """What a page or a mail is written on."""

    def typed(self, words: str) -> str: ...
    def figure(self, words: str) -> str: ...
    def sentence(self, pattern: str, values: Mapping[str, str]) -> str: ...


class Html:
    """Markup of a mail: user text escaped within `<bdi>`, figures unbroken and left-to-right."""

    def typed(self, words: str) -> str:
        """What somebody typed, inert."""
        return _isolated(words)

    def figure(self, words: str) -> str:
        """An amount or an address, left-to-right."""
        return Markup('<bdi dir="ltr" style="white-space:nowrap">{}</bdi>').format(words)

    def sentence(self, pattern: str, values: Mapping[str, str]) -> str:
        """The catalogue's sentence with these values in it; plain values are escaped."""
        return _filled(pattern, values)


class Screen:
    """Markup of a page: as a mail's, dressed by the page's stylesheet instead of on the spot."""

    def typed(self, words: str) -> Markup:
        """What somebody typed, inert."""
        return _isolated(words)

    def figure(self, words: str) -> Markup:
        """An amount or an address, left-to-right."""
        return Markup('<bdi dir="ltr" class="figure">{}</bdi>').format(words)

    def sentence(self, pattern: str, values: Mapping[str, str]) -> Markup:
        """The catalogue's sentence with these values in it; plain values are escaped."""
        return _filled(pattern, values)


class Plain:
    """Plain text, also of subjects: one line a sentence, isolated where directions could mix."""

    def __init__(self, language: Language) -> None:
        self._rtl = language.direction == "rtl"

    def typed(self, words: str) -> str:
        """What somebody typed, inert."""
        words = plainly(words)
        mixed = self._rtl or any(unicodedata.bidirectional(c) in RIGHT_TO_LEFT for c in words)
        return f"{FSI}{words}{PDI}" if mixed else words

    def figure(self, words: str) -> str:
        """An amount or an address, left-to-right."""
        return f"{LRI}{words}{PDI}" if self._rtl else words

    def sentence(self, pattern: str, values: Mapping[str, str]) -> str:
        """The catalogue's sentence with these values in it."""
        return pattern.format(**values)


def plainly(words: str) -> str:
    """One line of what somebody typed, without the controls that turn the text around it."""
    return _one_line(OVERRIDES.sub("", words))


def direction_of(words: str) -> str:
    """`rtl` or `ltr`: as the first letter that has a direction (UAX 9, P2 and P3)."""
    for character in words:
        kind = unicodedata.bidirectional(character)
        if kind in ("R", "AL"):
            return "rtl"
        if kind == "L":
            return "ltr"
    return "ltr"


def shortened(words: str, characters: int) -> str:
    """`words`, cut to so many characters with an ellipsis; for subjects, never for amounts."""
    return words if len(words) <= characters else words[: characters - 1].rstrip() + "…"


def _isolated(words: str) -> Markup:
    return Markup("<bdi>{}</bdi>").format(_one_line(ISOLATES.sub("", words)))


def _filled(pattern: str, values: Mapping[str, str]) -> Markup:
    return escape(pattern).format(**values)


def _one_line(words: str) -> str:
    return BREAKS.sub(" ", words).strip()
