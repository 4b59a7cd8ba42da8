"""Pages: what people see in a browser, in their language and their zone.

Law: pure. Templates say every word through a `Voice`, so that none stands in a template and what
people typed is inert wherever it stands: a plain text in a sentence's place is isolated and
escaped; only what a Voice has made goes in as markup.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Self

from jinja2 import Environment, FileSystemLoader, StrictUndefined
from markupsafe import Markup, escape

from service.words.catalogue import Catalogue, read_catalogues
from service.words.dates import date_text, distance_text
from service.words.facts import EscrowFacts
from service.words.languages import LANGUAGES, Language, language_of
from service.words.media import Plain, Screen, plainly, shortened
from service.words.money import amount_text, percent_text
from service.words.timeline import timeline_of
from service.words.topics import ESCROW

FOLDER = Path(__file__).parent / "templates"
TITLE_CHARACTERS = 200
TAB_CHARACTERS = 60

MEANINGS: Mapping[str, str] = {
    "pending": "waiting",
    "paid": "waiting",
    "delivered": "waiting",
    "completed": "done",
    "cancelled": "done",
    "disputed": "problem",
}
"""What an escrow's status means to a person: one of the three that a page knows."""

_SCREEN = Screen()


@dataclass(frozen=True, slots=True)
class Stop:
    """A station of the timeline as it is shown; `state` is done, now or next."""

    what: str
    state: str
    state_words: str
    when: Markup


class Voice:
    """How one person is spoken to: in which language and zone, at which moment.

    `at` (ISO 8601, business time) is needed for distances only: "in 3 days" from then.
    """

    def __init__(self, catalogue: Catalogue, zone: str, at: str | None = None) -> None:
        self._catalogue = catalogue
        self._zone = zone
        self._at = at

    @property
    def language(self) -> Language:
        """The language that is spoken."""
        return self._catalogue.language

    def say(self, key: str, **values: object) -> Markup:
        """The catalogue's sentence; values that are no markup are taken for typed text."""
        inert = {name: _inert(value) for name, value in values.items()}
        return _SCREEN.sentence(self._catalogue.text(key), inert)

    def plain(self, key: str) -> str:
        """The catalogue's sentence as plain text, for what is no page: a file, a header."""
        return self._catalogue.text(key)

    def knows(self, key: str) -> bool:
        """Whether the catalogue has this sentence."""
        return key in self._catalogue.sentences

    def typed(self, words: str) -> Markup:
        """What somebody typed, inert, on one line."""
        return _SCREEN.typed(words)

    def lines(self, words: str) -> Markup:
        """What somebody typed in several lines, inert: for a block whose style parts the lines.

        Without markup of their own, so that thousands of short ones make no larger page.
        """
        return escape("\n".join(plainly(line) for line in words.split("\n")))

    def tab(self, words: str) -> str:
        """What somebody typed as the name of the browser's tab, which has no markup."""
        return Plain(self.language).typed(shortened(words, TAB_CHARACTERS))

    def figure(self, words: str) -> Markup:
        """A number, an id or an address: left-to-right in every language."""
        return _SCREEN.figure(words)

    def amount(self, amount: str | Decimal, currency: str) -> Markup:
        """`1,000.000 TND`, grouped as the language does, with every decimal that it carries."""
        return self.figure(amount_text(amount, currency, self.language))

    def percent(self, bps: int) -> Markup:
        """`2.5 %`, of basis points, as the language writes it."""
        return self.figure(percent_text(bps, self.language))

    def moment(self, instant: str) -> Markup:
        """An ISO 8601 instant in the person's zone, which is named."""
        shown = date_text(instant, self._zone, self._catalogue)
        return Markup('<time datetime="{}">{}</time>').format(instant, _SCREEN.typed(shown))

    def distance(self, instant: str) -> str:
        """`in 3 days`, from the moment of this voice, which must have one."""
        if self._at is None:
            raise LookupError("this voice was given no moment to look from")
        return distance_text(instant, self._at, self._catalogue)

    def deadline(self, instant: str) -> Markup:
        """By when, and how far away that is."""
        return self.say("label.due", instant=self.moment(instant), distance=self.distance(instant))

    def status(self, status: str) -> tuple[str, Markup]:
        """What an escrow's status means (done, waiting, problem), and its words: for a chip."""
        return MEANINGS[status], self.say(f"status.{status}")

    def timeline(self, facts: EscrowFacts) -> list[Stop]:
        """The life of this escrow, each station with its time; the same as in its mails."""
        return [
            Stop(
                what=self._catalogue.text(f"station.{station.name}"),
                state=station.state,
                state_words=self._catalogue.text(f"state.{station.state}"),
                when=self._when(station.instant, due=station.due),
            )
            for station in timeline_of(facts)
        ]

    def _when(self, instant: str | None, *, due: bool) -> Markup:
        if instant is None:
            return Markup("")
        return self.deadline(instant) if due else self.moment(instant)

    def values(self, facts: EscrowFacts) -> Mapping[str, str]:
        """What a sentence about this escrow may name: title, seller, amount, held, net, due …

        As in its mails (`topics.ESCROW`), as markup; a date only where the facts have it.
        """
        return ESCROW.values(facts, self._catalogue, _SCREEN, TITLE_CHARACTERS)


@dataclass(frozen=True, slots=True)
class Frame:
    """What stands around a page: the links to it in each language, and who is signed in.

    `is_sandbox`: the page says that no money is real. `nonce` tells this page's forms from those of
    every other one that is shown.
    """

    switches: Mapping[str, str]
    person: str | None = None
    is_sandbox: bool = False
    nonce: str = ""


class Pages:
    """The pages' templates and catalogues, read once."""

    def __init__(self, catalogues: Mapping[str, Catalogue], environment: Environment) -> None:
        self._catalogues = catalogues
        self._environment = environment

    @classmethod
    def read(cls, *more: Path) -> Self:
        """From the files of this package, then from these folders."""
        environment = Environment(
            loader=FileSystemLoader((FOLDER, *more)),
            autoescape=True,
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return cls(read_catalogues(), environment)

    def voice(self, language: str, zone: str, at: str | None = None) -> Voice:
        """Somebody's voice; English where we do not speak the language."""
        return Voice(self._catalogues[language_of(language).code], zone, at)

    def render(self, name: str, voice: Voice, frame: Frame, **values: object) -> str:
        """The page of this template with these values; every one that it names must be there."""
        page = self._environment.get_template(f"pages/{name}.html")
        return page.render(
            voice=voice,
            say=voice.say,
            language=voice.language,
            languages=_others(voice.language),
            frame=frame,
            **values,
        )


def _others(spoken: Language) -> Sequence[tuple[Language, bool]]:
    """Every language and whether it is the one that is spoken."""
    return [(language, language == spoken) for language in LANGUAGES.values()]


def _inert(value: object) -> str:
    return value if isinstance(value, Markup) else _SCREEN.typed(str(value))
