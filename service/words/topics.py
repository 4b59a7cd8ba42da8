"""What a mail is about, an escrow, a webhook endpoint or a person: its values and its frame.

Law: pure; what people typed is made inert by the medium before it stands anywhere.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from service.words.catalogue import Catalogue
from service.words.dates import date_text, distance_text
from service.words.facts import (
    CodeFacts,
    EndpointFacts,
    EscrowFacts,
    IdentityFacts,
    PaymentFacts,
    RoleFacts,
    Times,
)
from service.words.media import Medium, shortened
from service.words.money import amount_text
from service.words.timeline import timeline_of

Say = Callable[[str], str]
NOTE_CHARACTERS = 500
"""Of what the other side wrote; the page has all of it."""


@dataclass(frozen=True, slots=True)
class Topic:
    """How the facts of one kind become words.

    `prefix` (of template and facts) is where the sentences stand in the catalogue. `values` (of
    facts, catalogue, medium and the length of a title) may stand in a sentence's places. `frame`
    (of facts, catalogue, values and what says a sentence) is what stands around the sentences.
    """

    prefix: Callable[[str, Any], str]
    values: Callable[[Any, Catalogue, Medium, int], Mapping[str, str]]
    frame: Callable[[Any, Catalogue, Mapping[str, str], Say], Mapping[str, object]]


def _escrow_prefix(template: str, facts: EscrowFacts) -> str:
    return f"mail.{template}.{facts['role']}."


def _escrow_values(
    facts: EscrowFacts, catalogue: Catalogue, medium: Medium, title_characters: int
) -> Mapping[str, str]:
    """A date only where the facts have it."""
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
        "was": medium.figure(amount_text(facts.get("was") or "0", facts["currency"], speech)),
        "refunded": medium.figure(amount_text(facts.get("refunded") or "0", ledger, speech)),
        "note": medium.typed(shortened(facts.get("note") or "", NOTE_CHARACTERS)),
        **_dates(facts, catalogue),
    }


def _dates(facts: EscrowFacts, catalogue: Catalogue) -> Mapping[str, str]:
    times: Times = facts["times"]
    known = {
        "expires": times.get("expires_at"),
        "due": times.get("delivery_due_at"),
        "completion": times.get("completion_due_at"),
        "refund_due": times.get("refund_due_at"),
        "answer_due": times.get("answer_due_at"),
        "request_due": times.get("request_due_at"),
        "proof_due": times.get("proof_due_at"),
        "review_due": times.get("review_due_at"),
    }
    zone = facts["timezone"]
    return {name: date_text(at, zone, catalogue) for name, at in known.items() if at}


def _escrow_frame(
    facts: EscrowFacts, catalogue: Catalogue, values: Mapping[str, str], say: Say
) -> Mapping[str, object]:
    return {
        "headline": values["amount"],
        "title": values["title"],
        "parties": [say(".label.seller"), say(".label.buyer")],
        "timeline_label": say(".label.timeline"),
        "timeline": list(_stations(facts, catalogue)),
        "footer": say(".mail.footer"),
    }


def _stations(facts: EscrowFacts, catalogue: Catalogue) -> Iterator[tuple[str, str, str, str]]:
    """(what, done | now | next, that in words, when in words or nothing)."""
    for station in timeline_of(facts):
        when = catalogue.text("label.paused") if station.paused else ""
        if station.instant:
            when = date_text(station.instant, facts["timezone"], catalogue)
        if station.instant and station.due:
            distance = distance_text(station.instant, facts["at"], catalogue)
            when = catalogue.text("label.due").format(instant=when, distance=distance)
        what = catalogue.text(f"station.{station.name}")
        yield what, station.state, catalogue.text(f"state.{station.state}"), when


def _role_prefix(template: str, _: RoleFacts) -> str:
    return f"mail.{template}."


def _role_values(
    facts: RoleFacts, catalogue: Catalogue, medium: Medium, title_characters: int
) -> Mapping[str, str]:
    amount, moved = facts["amount"], facts.get("moved", "0")
    speech, due = catalogue.language, facts.get("due_at")
    return {
        "title": medium.typed(shortened(facts["title"], title_characters)),
        "amount": medium.figure(amount_text(amount, facts["currency"], speech)),
        "company": medium.typed(shortened(facts["company"], title_characters)),
        "role": catalogue.text(f"role.{facts['role']}") if facts["role"] else "",
        "escrow_id": medium.figure(facts["escrow_id"]),
        "moved": medium.figure(amount_text(moved, facts["currency"], speech)),
        "numbers": medium.figure(", ".join(str(one) for one in facts.get("numbers", ()))),
        "by": medium.typed(facts.get("by", "")),
        "note": medium.typed(shortened(facts.get("note", ""), NOTE_CHARACTERS)),
        "due": date_text(due, facts["timezone"], catalogue) if due else "",
    }


def _role_frame(
    facts: RoleFacts, _: Catalogue, values: Mapping[str, str], say: Say
) -> Mapping[str, object]:
    is_named = facts["role"] is not None
    return {
        "headline": values["amount"] if is_named else values["moved"],
        "title": values["title"],
        "parties": [],
        "timeline": [],
        "footer": say(".mail.footer" if is_named else ".mail.paid_footer"),
    }


def _endpoint_prefix(template: str, _: EndpointFacts) -> str:
    return f"mail.{template}."


def _endpoint_values(
    facts: EndpointFacts, _: Catalogue, medium: Medium, title_characters: int
) -> Mapping[str, str]:
    return {
        "url": medium.typed(shortened(facts["url"], title_characters)),
        "endpoint_id": medium.figure(facts["endpoint_id"]),
        "call": medium.typed(f"PUT /api/developer/webhooks/{facts['endpoint_id']}"),
    }


def _endpoint_frame(
    _: EndpointFacts, __: Catalogue, values: Mapping[str, str], say: Say
) -> Mapping[str, object]:
    return {
        "headline": say("headline"),
        "title": values["url"],
        "parties": [],
        "timeline": [],
        "footer": say(".mail.endpoint_footer"),
    }


def _identity_prefix(template: str, _: IdentityFacts) -> str:
    return f"mail.{template}."


def _identity_values(
    facts: IdentityFacts, catalogue: Catalogue, medium: Medium, title_characters: int
) -> Mapping[str, str]:
    return {
        "company": medium.typed(shortened(facts["company"], title_characters)),
        "expires": date_text(facts["expires_at"], facts["timezone"], catalogue),
        "verification_id": medium.figure(facts["verification_id"]),
        "reason": medium.typed(facts.get("reason") or ""),
    }


def _identity_frame(
    _: IdentityFacts, __: Catalogue, values: Mapping[str, str], say: Say
) -> Mapping[str, object]:
    return {
        "headline": say("headline"),
        "title": values["company"],
        "parties": [],
        "timeline": [],
        "footer": say(".mail.identity_footer"),
    }


def _payment_prefix(template: str, _: PaymentFacts) -> str:
    return f"mail.{template}."


def _payment_values(
    facts: PaymentFacts, catalogue: Catalogue, medium: Medium, title_characters: int
) -> Mapping[str, str]:
    amount = amount_text(facts["amount"], facts["currency"], catalogue.language)
    return {
        "amount": medium.figure(amount),
        "title": medium.typed(shortened(facts["title"] or "", title_characters)),
        "payee": medium.typed(", ".join((facts["payee"] or "").splitlines())),
        "reason": medium.typed(facts["note"] or ""),
        "payment_id": medium.figure(facts["payment_id"]),
    }


def _payment_frame(
    facts: PaymentFacts, _: Catalogue, values: Mapping[str, str], say: Say
) -> Mapping[str, object]:
    return {
        "headline": values["amount"],
        "title": values["title"] if facts["title"] else say("headline"),
        "parties": [],
        "timeline": [],
        "footer": say(".mail.payment_footer"),
    }


def _code_values(
    facts: CodeFacts, _: Catalogue, medium: Medium, title_characters: int
) -> Mapping[str, str]:
    del title_characters  # a code has no title
    return {"code": medium.figure(facts["code"]), "minutes": str(facts["minutes"])}


def _code_frame(
    _: CodeFacts, __: Catalogue, values: Mapping[str, str], say: Say
) -> Mapping[str, object]:
    return {
        "headline": values["code"],
        "title": say("headline"),
        "parties": [],
        "timeline": [],
        "footer": say(".mail.code_footer"),
    }


ESCROW = Topic(_escrow_prefix, _escrow_values, _escrow_frame)
ROLE = Topic(_role_prefix, _role_values, _role_frame)
ENDPOINT = Topic(_endpoint_prefix, _endpoint_values, _endpoint_frame)
IDENTITY = Topic(_identity_prefix, _identity_values, _identity_frame)
PAYMENT = Topic(_payment_prefix, _payment_values, _payment_frame)
CODE = Topic(_identity_prefix, _code_values, _code_frame)
