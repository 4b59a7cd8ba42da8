"""Every mail: which sentences it says to whom, and how it becomes a subject, text and HTML.

Law: pure. The same template, language, facts and links give the same mail, so that a mail can be
rendered again from its row; nothing here knows a token, links are handed in.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Self

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from service.words.catalogue import Catalogue, read_catalogues
from service.words.dates import date_text, distance_text
from service.words.facts import EscrowFacts, Times
from service.words.languages import DEFAULT_LANGUAGE, language_of
from service.words.media import Html, Medium, Plain, shortened
from service.words.money import amount_text
from service.words.timeline import timeline_of

FOLDER = Path(__file__).parent / "templates"
SUBJECT_TITLE_CHARACTERS = 60

REGISTER_LINK = "register"
ESCROW_LINK = "escrow"


@dataclass(frozen=True, slots=True)
class Rendered:
    """A mail as its reader gets it; `links` are ours, in order of appearance."""

    subject: str
    text: str
    html: str
    links: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Script:
    """What a mail says: the catalogue's keys in order, the button's link, whether it has a way out.

    Keys stand below `mail.<template>.<role>.` unless they begin with a dot.
    """

    says: Callable[[EscrowFacts], tuple[str, ...]]
    link: str = ESCROW_LINK
    way_out: bool = False


def _always(*keys: str) -> Callable[[EscrowFacts], tuple[str, ...]]:
    return lambda _: keys


def _cancelled(facts: EscrowFacts) -> tuple[str, ...]:
    money = "refunded" if facts["times"].get("paid_at") else "unpaid"
    reason = facts.get("reason")
    return ("opening", f".reason.{reason}", money) if reason else ("opening", money)


def _overdue(facts: EscrowFacts) -> tuple[str, ...]:
    return ("opening", "refund" if facts["times"].get("refund_due_at") else "next")


SCRIPTS: Mapping[str, Script] = {
    "invitation": Script(_always("opening", "next", "consequence"), REGISTER_LINK, way_out=True),
    "invitation_reminder": Script(
        _always("opening", "next", "consequence"), REGISTER_LINK, way_out=True
    ),
    "escrow_notice": Script(_always("opening", "next", "consequence"), way_out=True),
    "escrow_paid": Script(_always("opening", "next", "consequence")),
    "escrow_delivered": Script(_always("opening", "next", "consequence")),
    "escrow_completed": Script(_always("opening", "next")),
    "escrow_cancelled": Script(_cancelled),
    "delivery_overdue": Script(_overdue),
}
"""Every template there is, by the name that a mail's row carries."""


class Words:
    """What people are written: catalogues and templates, read once."""

    def __init__(self, catalogues: Mapping[str, Catalogue], environment: Environment) -> None:
        self._catalogues = catalogues
        self._environment = environment

    @classmethod
    def read(cls) -> Self:
        """From the files of this package."""
        environment = Environment(
            loader=FileSystemLoader(FOLDER),
            autoescape=select_autoescape(("html",), default=False),
            undefined=StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )
        return cls(read_catalogues(), environment)

    def render(
        self, template: str, language: str, facts: EscrowFacts, links: Mapping[str, str]
    ) -> Rendered:
        """The mail of this template.

        `links` holds `escrow`, and `register` for an invitation. Raises KeyError for a template
        that does not exist or a fact that it needs and does not get.
        """
        speech = language_of(language)
        catalogue = self._catalogues.get(speech.code, self._catalogues[DEFAULT_LANGUAGE])
        script, prefix = SCRIPTS[template], f"mail.{template}.{facts['role']}."
        plain, html = Plain(speech), Html()
        subject = plain.sentence(
            catalogue.text(f"{prefix}subject"),
            _values(facts, catalogue, plain, SUBJECT_TITLE_CHARACTERS),
        )
        url = links[script.link]

        def written(file: str, medium: Medium) -> str:
            page = _page(script, prefix, facts, catalogue, medium)
            return self._environment.get_template(f"mails/{file}").render(
                subject=subject, language=speech, url=url, **page
            )

        return Rendered(subject, written("mail.txt", plain), written("mail.html", html), (url,))

    def page(self, name: str, **values: object) -> str:
        """The page of this template with these values in it, escaped; every one that it names."""
        return self._environment.get_template(f"pages/{name}.html").render(values)


def _page(
    script: Script, prefix: str, facts: EscrowFacts, catalogue: Catalogue, medium: Medium
) -> dict[str, object]:
    values = _values(facts, catalogue, medium)

    def say(key: str) -> str:
        path = key[1:] if key.startswith(".") else prefix + key
        return medium.sentence(catalogue.text(path), values)

    return {
        "headline": values["amount"],
        "title": values["title"],
        "paragraphs": [say(key) for key in script.says(facts)],
        "parties": [say(".label.seller"), say(".label.buyer")],
        "timeline_label": say(".label.timeline"),
        "timeline": list(_stations(facts, catalogue)),
        "action": say("action"),
        "way_out": say("way_out") if script.way_out else None,
        "greeting": say(".mail.greeting"),
        "link_hint": say(".mail.link_hint"),
        "footer": say(".mail.footer"),
    }


def _stations(facts: EscrowFacts, catalogue: Catalogue) -> Iterator[tuple[str, str, str, str]]:
    """(what, done | now | next, that in words, when in words or nothing)."""
    for station in timeline_of(facts):
        when = ""
        if station.instant:
            when = date_text(station.instant, facts["timezone"], catalogue)
        if station.instant and station.due:
            distance = distance_text(station.instant, facts["at"], catalogue)
            when = catalogue.text("label.due").format(instant=when, distance=distance)
        what = catalogue.text(f"station.{station.name}")
        yield what, station.state, catalogue.text(f"state.{station.state}"), when


def _values(
    facts: EscrowFacts, catalogue: Catalogue, medium: Medium, title_characters: int = 200
) -> Mapping[str, str]:
    """What may stand in a sentence's places, inert; a date only where the facts have it."""
    speech, ledger = catalogue.language, facts["ledger_currency"]
    seller, buyer = medium.typed(facts["seller"]), medium.typed(facts["buyer"])
    return {
        "title": medium.typed(shortened(facts["title"], title_characters)),
        "seller": seller,
        "buyer": buyer,
        "other": buyer if facts["role"] == "seller" else seller,
        "amount": medium.figure(amount_text(facts["amount"], facts["currency"], speech)),
        "held": medium.figure(amount_text(facts["held"], ledger, speech)),
        "net": medium.figure(amount_text(facts["net"], ledger, speech)),
        "escrow_id": medium.figure(facts["escrow_id"]),
        **_dates(facts, catalogue),
    }


def _dates(facts: EscrowFacts, catalogue: Catalogue) -> Mapping[str, str]:
    times: Times = facts["times"]
    known = {
        "expires": times.get("expires_at"),
        "due": times.get("delivery_due_at"),
        "completion": times.get("completion_due_at"),
        "refund_due": times.get("refund_due_at"),
    }
    zone = facts["timezone"]
    return {name: date_text(at, zone, catalogue) for name, at in known.items() if at}
