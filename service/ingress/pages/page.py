"""How every page is sent, in which language, and what a refusal looks like to a person.

A page loads nothing but our own files and runs nothing; no frame may hold it, no other site learns
where a link was followed from, and no cache keeps it.

The language is `?lang=`, which links and forms carry on (`Speech.carry`); else the one stored with
who is signed in; else what Accept-Language likes best; else English.
"""

import secrets
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlencode, urlsplit

from aiohttp import web

from service.ingress.errors import PAGES_OF_STATUSES, Reply
from service.ingress.middlewares import HOUSE
from service.words.languages import DEFAULT_LANGUAGE, LANGUAGES, preferred
from service.words.pages import Frame, Pages, Voice

LANGUAGE = "lang"
POLICY = (
    "default-src 'none'; style-src 'self'; img-src 'self'; form-action 'self'; base-uri 'none';"
    " frame-ancestors 'none'"
)
"""What a page may load and where its forms may go: to us."""
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": POLICY,
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
    "Cache-Control": "no-store",
}
NONCE_BYTES = 12
WORTH_AGAIN = frozenset({"failed", "away", "too_many"})

PAGES = web.AppKey("pages", Pages)


def html(text: str, status: int = 200, policy: str = POLICY) -> web.Response:
    """The answer that shows this page, under this Content-Security-Policy."""
    return web.Response(
        status=status,
        text=text,
        content_type="text/html",
        charset="utf-8",
        headers={**HEADERS, "Content-Security-Policy": policy},
    )


def see_other(url: str) -> web.Response:
    """The answer to a form that was taken: look there now (303), with a GET.

    `url` is a path of ours, or one that has been allowed (`rules.checkout`).
    """
    return web.Response(status=303, headers={**HEADERS, "Location": url})


def with_scripts(policy: str = POLICY) -> str:
    """For a page that adds a script of ours, from a file."""
    return f"{policy}; script-src 'self'"


def leading_to(url: str, policy: str = POLICY) -> str:
    """For a page whose form ends in a redirect to this http(s) URL.

    Chromium holds `form-action` against every redirect that follows a form, so that sending people
    back to a shop or on to a payment page needs its origin named here.
    """
    parts = urlsplit(url)
    return policy.replace(
        "form-action 'self'", f"form-action 'self' {parts.scheme}://{parts.netloc}"
    )


# ---- The language -------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Speech:
    """A person's language by its code. `is_carried`: it was chosen by `?lang=` and rides along."""

    code: str
    is_carried: bool = False

    def carry(self, path: str) -> str:
        """A path of ours, for a link or a form: with the choice that only the query holds."""
        if not self.is_carried:
            return path
        return f"{path}{'&' if '?' in path else '?'}{LANGUAGE}={self.code}"


SPEECH = web.RequestKey("speech", Speech)


def spoken(request: web.Request, stored: str | None = None) -> Speech:
    """In which language to answer; `stored` is the signed-in person's. The request keeps it."""
    chosen = request.query.get(LANGUAGE, "")
    if chosen in LANGUAGES:
        speech = Speech(chosen, is_carried=chosen != stored)
    else:
        accepted = request.headers.get("Accept-Language", "")
        speech = Speech(stored or preferred(accepted) or DEFAULT_LANGUAGE)
    request[SPEECH] = speech
    return speech


def voice_of(
    request: web.Request, speech: Speech, zone: str | None = None, at: str | None = None
) -> Voice:
    """The voice for this person: their zone, else the deployment's; `at` is business time."""
    zone = zone or request.app[HOUSE].policy.timezone
    return request.app[PAGES].voice(speech.code, zone, at)


# ---- A whole page -------------------------------------------------------------------------------


def show(
    request: web.Request,
    name: str,
    voice: Voice,
    *,
    status: int = 200,
    policy: str = POLICY,
    person: str | None = None,
    **values: object,
) -> web.Response:
    """The page of this template with these values; `person` is the e-mail that is signed in."""
    is_sandbox, nonce = request.app[HOUSE].policy.is_sandbox, secrets.token_urlsafe(NONCE_BYTES)
    frame = Frame(_switches(request), person, is_sandbox, nonce)
    return html(request.app[PAGES].render(name, voice, frame, **values), status, policy)


def _switches(request: web.Request) -> Mapping[str, str]:
    """The link to this page in each language; a query alone, so that it leads nowhere else."""
    kept = [(name, value) for name, value in request.query.items() if name != LANGUAGE]
    return {code: "?" + urlencode([*kept, (LANGUAGE, code)]) for code in LANGUAGES}


def error_page(
    request: web.Request, reply: Reply, code: str | None, request_id: str
) -> web.Response:
    """What a person is told where an API's caller would get this reply.

    A refusal with a sentence for its code says that; any other what its status says.
    """
    speech = request.get(SPEECH) or spoken(request)
    voice = voice_of(request, speech)
    kind = PAGES_OF_STATUSES[reply.status]
    refusal = f"refusal.{code}"
    may_try_again = request.method == "GET" and kind in WORTH_AGAIN
    return show(
        request,
        "error",
        voice,
        status=reply.status,
        tab=voice.say(f"page.error.{kind}.title"),
        kind=kind,
        reason=voice.say(refusal) if voice.knows(refusal) else None,
        again=_switches(request)[speech.code] if may_try_again else None,
        request_id=request_id,
    )
