"""Every mail: which sentences it says to whom, and how it becomes a subject, text and HTML.

Law: pure. The same template, language, facts and links give the same mail, so that a mail can be
rendered again from its row; nothing here knows a token, links are handed in.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from pathlib import Path
from typing import Any, Self

from jinja2 import Environment, FileSystemLoader, StrictUndefined, select_autoescape

from service.words.catalogue import Catalogue, read_catalogues
from service.words.facts import (
    CodeFacts,
    EndpointFacts,
    EscrowFacts,
    IdentityFacts,
    PaymentFacts,
    RoleFacts,
)
from service.words.languages import DEFAULT_LANGUAGE, language_of
from service.words.media import Html, Medium, Plain
from service.words.topics import CODE, ENDPOINT, ESCROW, IDENTITY, PAYMENT, ROLE, Topic

FOLDER = Path(__file__).parent / "templates"
SUBJECT_TITLE_CHARACTERS = 60
TITLE_CHARACTERS = 200

STANDARD, QUICK_PROOF = "standard", "quick_proof"
"""The mode with a contract, and the one in which a purchase proof comes before the delivery."""

REGISTER_LINK = "register"
ESCROW_LINK = "escrow"
ENDPOINT_LINK = "endpoint"
IDENTITY_LINK = "identity"
CODE_LINK = "code"
PAYMENT_LINK = "payment"

Facts = EscrowFacts | RoleFacts | EndpointFacts | IdentityFacts | PaymentFacts | CodeFacts


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

    Keys stand below the topic's prefix (`mail.<template>.<role>.`) unless they begin with a dot.
    """

    says: Callable[[Any], tuple[str, ...]]
    link: str = ESCROW_LINK
    way_out: bool = False
    about: Topic = ESCROW


def _always(*keys: str) -> Callable[[Any], tuple[str, ...]]:
    return lambda _: keys


def _cancelled(facts: EscrowFacts) -> tuple[str, ...]:
    money = "refunded" if facts["times"].get("paid_at") else "unpaid"
    reason = facts.get("reason")
    return ("opening", f".reason.{reason}", money) if reason else ("opening", money)


def _overdue(facts: EscrowFacts) -> tuple[str, ...]:
    return ("opening", "refund" if facts["times"].get("refund_due_at") else "next")


def _delivered(facts: EscrowFacts) -> tuple[str, ...]:
    if "completion_due_at" in facts.get("paused", ()):
        return "opening", "paused", "resumed"
    return "opening", "next", "consequence"


def _noted(*keys: str) -> Callable[[Any], tuple[str, ...]]:
    """These, and after the first of them what the other side wrote, if anything."""

    def says(facts: EscrowFacts) -> tuple[str, ...]:
        return (keys[0], ".mail.they_said", *keys[1:]) if facts.get("note") else keys

    return says


def _held(facts: EscrowFacts) -> tuple[str, ...]:
    if facts["mode"] == QUICK_PROOF:
        return "opening", "proof", "consequence"
    return "opening", "next", "consequence"


def _requested(facts: EscrowFacts) -> tuple[str, ...]:
    """Silence cancels what is paid, and keeps what is delivered."""
    return _noted("opening", "delivered" if facts["status"] == "delivered" else "paid")(facts)


def _resolved(facts: EscrowFacts) -> tuple[str, ...]:
    by = facts.get("settled_by")
    ended = "split" if Decimal(facts.get("refunded") or 0) else "to_seller"
    if facts["status"] == "cancelled":
        ended = "to_buyer"
    return ("opening", ended, f".settled.{by}") if by else ("opening", ended)


def _changed(facts: EscrowFacts) -> tuple[str, ...]:
    """Only a standard escrow has signatures that a change wipes."""
    sums = (".mail.sum_changed",) if facts.get("was") else ()
    terms = (".mail.terms_rewritten",) if facts.get("is_rewritten") else ()
    return ("opening", *sums, *terms, ".mail.sign_again" if facts["mode"] == STANDARD else "next")


def _disputed(facts: RoleFacts) -> tuple[str, ...]:
    is_resolver = facts["role"] == "dispute_resolver"
    which = ("which",) if facts.get("numbers") else ()
    due = ("due",) if facts.get("due_at") else ()
    return ("opening", *which, ".mail.they_said", "decide" if is_resolver else "next", *due)


def _released(facts: RoleFacts) -> tuple[str, ...]:
    return ("opening", "which", "next") if facts.get("numbers") else ("opening", "next")


def _distributed(facts: RoleFacts) -> tuple[str, ...]:
    which = ("which",) if facts.get("numbers") else ()
    if not Decimal(facts["moved"]):
        return "nothing", *which
    return "by_clock" if facts["how"] == "clock" else "opening", *which, "next"


def _got(facts: RoleFacts) -> tuple[str, ...]:
    return facts["how"], "next"


def _disabled(facts: EndpointFacts) -> tuple[str, ...]:
    return "opening", f".disabled.{facts['reason']}", "next", "consequence"


def _failing(facts: EndpointFacts) -> tuple[str, ...]:
    return "opening", f".failing.{facts['reason']}", "next", "consequence"


def _not_approved(facts: IdentityFacts) -> tuple[str, ...]:
    return (
        ("opening", ".mail.identity_reason", "next")
        if facts.get("reason")
        else (
            "opening",
            "next",
        )
    )


def _paid(*keys: str) -> Callable[[Any], tuple[str, ...]]:
    """These, and after the first of them why, if the operator has said it."""

    def says(facts: PaymentFacts) -> tuple[str, ...]:
        return (keys[0], ".mail.payment_reason", *keys[1:]) if facts["note"] else keys

    return says


def _payment(*keys: str) -> Script:
    return Script(_paid(*keys), PAYMENT_LINK, about=PAYMENT)


SCRIPTS: Mapping[str, Script] = {
    "invitation": Script(_always("opening", "next", "consequence"), REGISTER_LINK, way_out=True),
    "invitation_reminder": Script(
        _always("opening", "next", "consequence"), REGISTER_LINK, way_out=True
    ),
    "role_invitation": Script(
        _always("opening", "next", "consequence"), REGISTER_LINK, way_out=True, about=ROLE
    ),
    "role_reminder": Script(
        _always("opening", "next", "consequence"), REGISTER_LINK, way_out=True, about=ROLE
    ),
    "role_notice": Script(_always("opening", "next", "consequence"), way_out=True, about=ROLE),
    "role_disputed": Script(_disputed, about=ROLE),
    "role_released": Script(_released, about=ROLE),
    "role_resolved": Script(_distributed, about=ROLE),
    "role_paid": Script(_got, PAYMENT_LINK, about=ROLE),
    "escrow_notice": Script(_always("opening", "next", "consequence"), way_out=True),
    "contract_signed": Script(_always("opening", "next")),
    "contract_complete": Script(_always("opening", "next")),
    "terms_changed": Script(_changed),
    "expiry_near": Script(_always("opening", "next")),
    "escrow_paid": Script(_held),
    "escrow_delivered": Script(_delivered),
    "escrow_completed": Script(_always("opening", "next")),
    "escrow_cancelled": Script(_cancelled),
    "delivery_overdue": Script(_overdue),
    "delivery_rejected": Script(_noted("opening", "next")),
    "cancellation_requested": Script(_requested),
    "cancellation_rejected": Script(_always("opening", "next")),
    "proof_submitted": Script(_always("opening", "next", "consequence")),
    "proof_correction": Script(_noted("opening", "next")),
    "proof_accepted": Script(_always("opening", "next")),
    "proof_needs_review": Script(_always("opening", "next")),
    "dispute_opened": Script(_noted("opening", "next", "consequence")),
    "dispute_reminder": Script(_always("opening", "next", "consequence")),
    "dispute_answered": Script(_always("opening", "next", "consequence")),
    "dispute_withdrawn": Script(_always("opening", "next")),
    "dispute_resolved": Script(_resolved),
    "endpoint_failing": Script(_failing, ENDPOINT_LINK, about=ENDPOINT),
    "endpoint_disabled": Script(_disabled, ENDPOINT_LINK, about=ENDPOINT),
    "sign_in_code": Script(_always("opening", "next"), CODE_LINK, about=CODE),
    "phone_code": Script(_always("opening", "next"), CODE_LINK, about=CODE),
    "identity_verification": Script(
        _always("opening", "next", "consequence"), IDENTITY_LINK, way_out=True, about=IDENTITY
    ),
    "identity_approved": Script(_always("opening", "next"), IDENTITY_LINK, about=IDENTITY),
    "identity_rejected": Script(_not_approved, IDENTITY_LINK, about=IDENTITY),
    "payment_received": _payment("opening", "next"),
    "payment_kept": _payment("opening", "next"),
    "payment_failed": _payment("opening", "next"),
    "payment_looked_at": _payment("opening", "next"),
    "payment_unknown": _payment("opening", "next"),
    "payment_sent_back": _payment("opening", "next"),
    "deposit_rejected": _payment("opening", "next"),
    "payout_requested": _payment("opening", "next"),
    "payout_paid": _payment("opening", "next"),
    "payout_rejected": _payment("opening", "next"),
    "payout_returned": _payment("opening", "next"),
    "refund_made": _payment("opening", "next"),
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
        self, template: str, language: str, facts: Facts, links: Mapping[str, str]
    ) -> Rendered:
        """The mail of this template.

        `links` holds `escrow`, and `register` for an invitation; or `endpoint`; or `identity`.
        Raises KeyError for a template that does not exist or a fact that it needs and is not given.
        """
        speech = language_of(language)
        catalogue = self._catalogues.get(speech.code, self._catalogues[DEFAULT_LANGUAGE])
        script = SCRIPTS[template]
        prefix = script.about.prefix(template, facts)
        plain, html = Plain(speech), Html()
        subject = plain.sentence(
            catalogue.text(f"{prefix}subject"),
            script.about.values(facts, catalogue, plain, SUBJECT_TITLE_CHARACTERS),
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
    script: Script, prefix: str, facts: Facts, catalogue: Catalogue, medium: Medium
) -> dict[str, object]:
    values = script.about.values(facts, catalogue, medium, TITLE_CHARACTERS)

    def say(key: str) -> str:
        path = key[1:] if key.startswith(".") else prefix + key
        return medium.sentence(catalogue.text(path), values)

    return {
        **script.about.frame(facts, catalogue, values, say),
        "paragraphs": [say(key) for key in script.says(facts)],
        "action": say("action"),
        "way_out": say("way_out") if script.way_out else None,
        "greeting": say(".mail.greeting"),
        "link_hint": say(".mail.link_hint"),
    }
