"""Who comes to a page, and where they go first: to sign in, to register, to verify a phone.

`next` says where they wanted to go: always a path of ours, from a list of beginnings, so that no
link can send anybody elsewhere through our pages.
"""

import re
from urllib.parse import urlencode

from aiohttp import web

from service.commands.visits import HouseSessions
from service.ingress.call import Call
from service.ingress.pages.page import LANGUAGE, Speech, see_other, spoken
from service.ingress.pages.visitor import Visitor, meet
from service.words.languages import LANGUAGES

NEXT = "next"
HOME = "/dashboard"
# No `//`, no backslash, no dot segment, nothing encoded: what a browser could read as a host.
LEADS_TO = re.compile(
    r"/(?:dashboard|pay|checkout|developers)(?:/[A-Za-z0-9_-]{1,64}){0,5}(?:\?[a-z_]{1,20}=[A-Za-z0-9_-]{0,64})?"
)
CHECKOUT = re.compile(r"/checkout/([0-9A-Fa-f-]{36})(?:\?.*)?")


async def arrive(call: Call[None, None]) -> Visitor:
    """Who is there, with their session or without one."""
    house = call.house
    return await meet(call.request, HouseSessions(house), house.vault, house.policy)


def speech_of(call: Call[None, None], visitor: Visitor) -> Speech:
    """The language of whoever is there: the one stored with them, where none was chosen here."""
    return spoken(call.request, visitor.session.language if visitor.session else None)


def wanted(call: Call[None, None]) -> str:
    """Where this person wanted to go; their dashboard where that is not said, or not ours."""
    asked = call.request.query.get(NEXT, "")
    return asked if LEADS_TO.fullmatch(asked) else HOME


def onward(call: Call[None, None], visitor: Visitor) -> web.Response:
    """On to where this person wanted to go; a language that only the query holds rides along."""
    return see_other(speech_of(call, visitor).carry(wanted(call)))


def to_sign_in(call: Call[None, None]) -> web.Response:
    """Sign in first, then back here."""
    return _first(call, "/sign-in")


def to_register(call: Call[None, None]) -> web.Response:
    """Register first, then back here."""
    return _first(call, "/register")


def to_phone(call: Call[None, None]) -> web.Response:
    """Verify a phone first, then back here."""
    return _first(call, "/phone")


def _first(call: Call[None, None], page: str) -> web.Response:
    """To this page, then back here; a page on the way hands on where it was to lead itself."""
    target = wanted(call) if NEXT in call.request.query else call.request.path
    return see_other(leading(call, page, target))


def leading(call: Call[None, None], page: str, target: str) -> str:
    """This page, from which a person goes on to `target`; the chosen language rides along."""
    query = {NEXT: target}
    language = call.request.query.get(LANGUAGE, "")
    if language in LANGUAGES:
        query[LANGUAGE] = language
    return f"{page}?{urlencode(query, safe='/')}"


def masked(email: str) -> str:
    """`b•••@example.com`: enough for who knows the address, too little for who does not."""
    name, _, domain = email.partition("@")
    return f"{name[:1]}•••@{domain}"
