"""The parts of the pages and pages made of them, with sample facts: for tests and for looking at.

    async with ingress(ROUTES) as client: client.get("/preview/pay?lang=ar")

A preview is a template of tests/templates/pages or of the house's own; no product code knows it.
"""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from service.ingress.pages import static
from service.ingress.pages.page import html, spoken
from service.ingress.route import Auth, Route
from service.rules.errors import InsufficientFunds
from service.words.facts import EscrowFacts
from service.words.pages import Frame, Pages, Voice

TEMPLATES = Path(__file__).parent / "templates"
NOW = "2026-03-09T14:05:00.000Z"
ZONE = "Africa/Tunis"
HOSTILE = '"><script>alert(1)</script>\u202egnp.elif \U0001f4f7 <b onmouseover=alert(2)>{{ 7*7 }} '
HOSTILE += "W" * (200 - len(HOSTILE))

PAID: EscrowFacts = {
    "escrow_id": "65bb7f0e0000000000000004",
    "title": "A camera with two lenses",
    "amount": "1250.000",
    "currency": "TND",
    "held": "1250.000",
    "ledger_currency": "TND",
    "net": "1187.500",
    "mode": "standard",
    "status": "pending",
    "role": "buyer",
    "seller": "Sami Ben Ali",
    "buyer": "b.yahia@example.com",
    "times": {
        "created_at": "2026-03-06T09:00:00.000Z",
        "expires_at": "2026-04-06T09:00:00.000Z",
    },
    "at": NOW,
    "timezone": ZONE,
}
LARGE: EscrowFacts = {
    **PAID,
    "title": HOSTILE,
    "seller": HOSTILE,
    "amount": "1000000000.000",
    "held": "1000000000.000",
    "status": "disputed",
    "times": {"created_at": NOW, "paid_at": NOW, "disputed_at": NOW},
}


def pay(voice: Voice, facts: EscrowFacts = PAID) -> dict[str, Any]:
    values = voice.values(facts)
    return {
        "tab": voice.tab(facts["title"]),
        "amount": values["amount"],
        "title": values["title"],
        "lines": [voice.say("label.seller", **values), voice.say("label.buyer", **values)],
        "stops": voice.timeline(facts),
        "consequence": voice.say("mail.invitation.buyer.consequence", **values),
        "action": voice.say("mail.invitation.buyer.action", **values),
        "way_out": voice.say("mail.invitation.buyer.way_out", **values),
    }


def components(voice: Voice) -> dict[str, Any]:
    return pay(voice) | {
        "typed": HOSTILE,
        "rows": [
            (voice.say(f"status.{name}"), voice.amount(amount, "TND"))
            for name, amount in (
                ("paid", "1250.000"),
                ("pending", "62.500"),
                ("completed", "1187.500"),
            )
        ],
    }


def error(voice: Voice) -> dict[str, Any]:
    return {
        "tab": voice.say("page.error.not_now.title"),
        "kind": "not_now",
        "reason": voice.say(f"refusal.{InsufficientFunds.code}"),
        "again": "?",
        "request_id": "0123456789abcdef01234567",
    }


def told(voice: Voice) -> dict[str, Any]:
    return {
        "tab": voice.say("status.completed"),
        "state": "done",
        "title": voice.say("status.completed"),
        "sentences": [
            voice.say("mail.escrow_completed.buyer.opening", **voice.values(PAID)),
            voice.say("mail.escrow_completed.buyer.next"),
        ],
        "link": "/",
        "link_words": voice.say("mail.escrow_completed.buyer.action"),
    }


def expired(voice: Voice) -> dict[str, Any]:
    return {
        "tab": voice.say("page.expired.title"),
        "back": "/",
        "back_words": voice.say("page.back"),
    }


PREVIEWS: Mapping[str, tuple[str, Callable[[Voice], dict[str, Any]]]] = {
    "pay": ("pay", pay),
    "hostile": ("pay", lambda voice: pay(voice, LARGE)),
    "components": ("components", components),
    "error": ("error", error),
    "told": ("told", told),
    "expired": ("expired", expired),
}
"""Each by its name: the template and what it is given."""


def read_pages() -> Pages:
    return Pages.read(TEMPLATES)


def rendered(pages: Pages, name: str, code: str) -> str:
    template, values = PREVIEWS[name]
    voice = pages.voice(code, ZONE, NOW)
    frame = Frame({other: f"?lang={other}" for other in ("en", "fr", "ar")}, "b@x.example", True)
    return pages.render(template, voice, frame, **values(voice))


PAGES = read_pages()


async def preview(call):
    return html(rendered(PAGES, call.path["name"], spoken(call.request).code))


ROUTES = (
    Route("GET", "/preview/{name}", preview, Auth.NONE, is_page=True, says="A preview."),
    Route("GET", "/static/{name}", static.send, Auth.NONE, says="A file of the pages."),
)
