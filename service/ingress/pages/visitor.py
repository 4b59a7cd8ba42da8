"""Who is at a page: the browser's one cookie, the session behind it, and the forms it may send.

The cookie carries 256 random bits; of a session only their hash is stored. A visitor without a
session has such bits too, which nothing is stored for, so that the sign-in form is as safe as any
other; signing in replaces them, so that nobody can have planted them.

Law: a form is taken through `receive` only: the request comes from a page of ours, the body within
bounds, and it carries the token of this visitor for this purpose.
"""

import re
import secrets
from dataclasses import dataclass, field
from typing import Protocol
from urllib.parse import urlsplit

from aiohttp import web

from service.ingress.errors import FormNotOurs
from service.ingress.pages.forms import FORM_BYTES_MAX, Form, Keep, read_form
from service.rules.policy import Policy
from service.store.vault import Vault, hash_token
from service.store.visits import Visit as Session

TOKEN = re.compile(r"[A-Za-z0-9_-]{43}")
TOKEN_BYTES = 32
FORM_TOKEN = "form_token"  # noqa: S105 - the name of a field
COOKIE = "amana_session"
SAME_SITE = frozenset({"same-origin", "none"})


class SessionStore(Protocol):
    """Where sessions are kept, by the SHA-256 of their token."""

    async def create(self, token_hash: bytes, email: str) -> Session:
        """A session for whoever has just proven this e-mail to be theirs."""

    async def find(self, token_hash: bytes) -> Session | None:
        """The session, unless it has ended or expired."""

    async def end(self, token_hash: bytes) -> None:
        """The session is over; nothing happens where there is none."""


@dataclass(frozen=True, slots=True)
class Visitor:
    """A browser. `is_new`: its cookie has to be set by the answer (`keep`)."""

    token: str = field(repr=False)
    session: Session | None
    is_new: bool
    vault: Vault = field(repr=False)
    policy: Policy = field(repr=False)

    def form_token(self, purpose: str) -> str:
        """What the form for this purpose (`checkout/<id>/pay`) carries back: an HMAC over both."""
        return self.vault.link_token(f"form/{purpose}", self.token)

    def may_send(self, purpose: str, given: str) -> bool:
        """Whether a form carries what `form_token` gave, under any of our keys; constant time."""
        return (
            self.vault.link_token_for(hash_token(given), f"form/{purpose}", self.token) is not None
        )

    def keep(self, response: web.Response) -> web.Response:
        """The answer, with this visitor's cookie where the browser does not have it yet."""
        if self.is_new:
            is_secure = _is_https(self.policy)
            response.set_cookie(
                cookie_name(self.policy),
                self.token,
                path="/",
                secure=is_secure,
                httponly=True,
                samesite="Lax",
            )
        return response


def cookie_name(policy: Policy) -> str:
    """With the prefix that keeps other hosts from setting it, where browsers allow that: https."""
    return f"__Host-{COOKIE}" if _is_https(policy) else COOKIE


async def meet(request: web.Request, store: SessionStore, vault: Vault, policy: Policy) -> Visitor:
    """Who is there: with their session, or without one."""
    token = request.cookies.get(cookie_name(policy), "")
    if TOKEN.fullmatch(token) is None:
        return _stranger(vault, policy)
    session = await store.find(hash_token(token))
    return Visitor(token, session, is_new=False, vault=vault, policy=policy)


async def sign_in(visitor: Visitor, store: SessionStore, email: str) -> Visitor:
    """The visitor as this person, whose e-mail has just been proven, under a token never seen."""
    if visitor.session is not None:
        await store.end(hash_token(visitor.token))
    token = secrets.token_urlsafe(TOKEN_BYTES)
    session = await store.create(hash_token(token), email)
    return Visitor(token, session, is_new=True, vault=visitor.vault, policy=visitor.policy)


async def sign_out(visitor: Visitor, store: SessionStore) -> Visitor:
    """The visitor as a stranger; the session is over on every tab."""
    await store.end(hash_token(visitor.token))
    return _stranger(visitor.vault, visitor.policy)


async def receive(
    request: web.Request,
    visitor: Visitor,
    purpose: str,
    *,
    bytes_max: int = FORM_BYTES_MAX,
    keep: Keep | None = None,
) -> Form:
    """The form that this visitor has sent for this purpose; its files are given to `keep`.

    Where there may be files, the token comes before them in the form (`parts.form` puts it first)
    and is looked at before the first of them is kept.

    Raises:
        FormNotOurs: it comes from elsewhere, or the page was made for another visitor.
        Malformed, BodyTooLarge, BodyTooSlow, BodyBroken, ClientGone: as `read_form`.
    """
    if not _comes_from_us(request, visitor.policy):
        raise FormNotOurs

    def check(name: str, text: str) -> None:
        if name != FORM_TOKEN or not visitor.may_send(purpose, text):
            raise FormNotOurs

    return await read_form(request, bytes_max, first=check, keep=keep)


def _stranger(vault: Vault, policy: Policy) -> Visitor:
    return Visitor(
        secrets.token_urlsafe(TOKEN_BYTES), None, is_new=True, vault=vault, policy=policy
    )


def _is_https(policy: Policy) -> bool:
    return policy.public_url.startswith("https://")


def _comes_from_us(request: web.Request, policy: Policy) -> bool:
    """Whether no browser says otherwise: a second line behind the form's token.

    Our pages send no referrer, so that browsers give their forms' Origin as `null` (Fetch, 3.2):
    then Sec-Fetch-Site alone tells, where there is one.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if site is not None:
        return site in SAME_SITE
    origin = request.headers.get("Origin", "null")
    if origin == "null":
        return True
    try:
        host = urlsplit(origin).netloc
    except ValueError:
        return False
    return host in (request.host, urlsplit(policy.public_url).netloc)
