"""Where a person may be sent back to after a hosted page: the URL, and the developer's allow-list.

Source: escrows.md 6. Scheme, host and port match exactly, the path as a prefix on a `/` boundary.
Law: what was judged is what is used. A URL that a browser, a proxy or a framework could read in
two ways is refused, never repaired; what is allowed comes back in the one form it was judged in.
"""

import re
import string
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv6Address
from urllib.parse import urlsplit

from service.rules.errors import (
    NoRedirectUrlsConfigured,
    RedirectUrlMustBeHttps,
    RedirectUrlNotAllowed,
)

URL_CHARACTERS_MAX = 2048
ALLOWED_URLS_MAX = 20
DEFAULT_PORTS = {"https": 443, "http": 80}

MUST_BE_HTTPS = "must begin with https:// (http:// only for localhost)"
NOT_A_URL = "must be a URL with a host"
TOO_LONG = f"must be at most {URL_CHARACTERS_MAX} characters"
NOT_ASCII = "must be percent-encoded ASCII, and its host in punycode"
HAS_ODD = "must hold no blanks, control characters, quotes, angle brackets or backslashes"
HAS_USER = "must name no user or password"
HAS_FRAGMENT = "must have no fragment"
HAS_QUERY = "must have no query: everything below the path is allowed"
BAD_PORT = "must have a port from 1 to 65535, if with any"
BAD_ESCAPE = "must have two hex digits after each %"
TWOFOLD = "must have a path that can be read in one way only: no encoded slash, backslash or dots"

UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")
ODD = re.compile(r'[\x00-\x20\x7f\\"<>]')
HIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")
HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
DOTS = (".", "..")


class BadUrl(ValueError):
    """What is wrong with the URL: a sentence that goes on from the field's name."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart, in its one form: lower case, no default port, no dot segments.

    `segments` are the path's parts without the empty one at its end; `query` is None where there
    is no question mark.
    """

    scheme: str
    host: str
    port: int
    path: str
    query: str | None

    @property
    def origin(self) -> tuple[str, str, int]:
        """Scheme, host and port: what must match exactly."""
        return self.scheme, self.host, self.port

    @property
    def segments(self) -> tuple[str, ...]:
        """The path's parts, in order."""
        parts = tuple(self.path.split("/")[1:])
        return parts[:-1] if parts[-1] == "" else parts

    @property
    def is_secure(self) -> bool:
        """https, or http to this machine by its name."""
        return self.scheme == "https" or (self.scheme == "http" and self.host == "localhost")

    @property
    def url(self) -> str:
        """The URL in its one form."""
        port = "" if self.port == DEFAULT_PORTS[self.scheme] else f":{self.port}"
        query = "" if self.query is None else f"?{self.query}"
        return f"{self.scheme}://{self.host}{port}{self.path}{query}"


def read_target(url: str) -> Target:
    """The URL taken apart.

    Raises:
        BadUrl: it is no http or https URL, or it could be read in more than one way.
    """
    if len(url) > URL_CHARACTERS_MAX:
        raise BadUrl(TOO_LONG)
    if ODD.search(url):
        raise BadUrl(HAS_ODD)
    if not url.isascii():
        raise BadUrl(NOT_ASCII)
    if re.match(r"https?://", url, re.IGNORECASE) is None:
        raise BadUrl(NOT_A_URL if url.partition(":")[0].lower() == "https" else MUST_BE_HTTPS)
    if "#" in url:
        raise BadUrl(HAS_FRAGMENT)
    return _taken_apart(url)


def _taken_apart(url: str) -> Target:
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as bad:
        raise BadUrl(BAD_PORT if "ort" in str(bad) else NOT_A_URL) from None
    if "@" in parts.netloc:
        raise BadUrl(HAS_USER)
    if port == 0:
        raise BadUrl(BAD_PORT)
    return Target(
        scheme=parts.scheme,
        host=_host(parts.hostname or "", is_bracketed="[" in parts.netloc),
        port=port or DEFAULT_PORTS[parts.scheme],
        path=_path(parts.path or "/"),
        query=parts.query if "?" in url else None,
    )


def _host(name: str, *, is_bracketed: bool) -> str:
    if is_bracketed:
        try:
            return f"[{IPv6Address(name).compressed}]"
        except ValueError:
            raise BadUrl(NOT_A_URL) from None
    if len(name) > 253 or HOST.fullmatch(name) is None:
        raise BadUrl(NOT_A_URL)
    return name


def _path(path: str) -> str:
    """The path in its one form. Some servers decode twice, or cut what follows a `;`."""
    if BROKEN_ESCAPE.search(path):
        raise BadUrl(BAD_ESCAPE)
    path = _without_dots(ESCAPE.sub(_unescaped, path))
    slashes, deeper = path.count("/"), path
    while True:
        if (
            deeper.count("/") != slashes
            or HIDDEN.search(deeper)
            or any(part.partition(";")[0] in DOTS for part in deeper.split("/"))
        ):
            raise BadUrl(TWOFOLD)
        decoded = ESCAPE.sub(lambda escape: chr(int(escape[1], 16)), deeper)
        if decoded == deeper:
            return path
        deeper = decoded


def _unescaped(escape: re.Match[str]) -> str:
    """What needs no escape, plainly; all else with capital digits (RFC 3986, 6.2.2)."""
    character = chr(int(escape[1], 16))
    return character if character in UNRESERVED else f"%{escape[1].upper()}"


def _without_dots(path: str) -> str:
    """The path as a browser walks it (RFC 3986, 5.2.4)."""
    walked: list[str] = []
    parts = path.split("/")[1:]
    for part in parts:
        if part == "..":
            walked = walked[:-1]
        elif part != ".":
            walked.append(part)
    if parts[-1] in DOTS:
        walked.append("")
    return "/" + "/".join(walked)


def allowed_url(url: str) -> str:
    """An entry of an allow-list, as it was given.

    Raises:
        BadUrl: it cannot stand in one.
    """
    target = read_target(url)
    if not target.is_secure:
        raise BadUrl(MUST_BE_HTTPS)
    if target.query is not None:
        raise BadUrl(HAS_QUERY)
    return url


def is_on(allow_list: Iterable[str], target: Target) -> bool:
    """Whether one of these entries allows it. An entry that is no longer sound allows nothing."""
    return any(_allows(entry, target) for entry in allow_list)


def _allows(entry: str, target: Target) -> bool:
    try:
        base = read_target(entry)
    except BadUrl:
        return False
    if not base.is_secure or base.query is not None or base.origin != target.origin:
        return False
    return target.segments[: len(base.segments)] == base.segments


def choose_redirect(url: str, allow_list: Sequence[str]) -> str:
    """The URL that a person is sent back to, in the form in which it was judged.

    Raises:
        NoRedirectUrlsConfigured: the allow-list is empty.
        RedirectUrlMustBeHttps: neither https nor http to localhost.
        RedirectUrlNotAllowed: no entry allows it, or it can be read in more than one way.
    """
    if not allow_list:
        raise NoRedirectUrlsConfigured
    try:
        target = read_target(url)
    except BadUrl as bad:
        if str(bad) == MUST_BE_HTTPS:
            raise RedirectUrlMustBeHttps from None
        raise RedirectUrlNotAllowed from None
    if not target.is_secure:
        raise RedirectUrlMustBeHttps
    if not is_on(allow_list, target):
        raise RedirectUrlNotAllowed
    return target.url
