"""Where a person may be sent back to after a hosted page: the URL, and the developer's allow-list.

Source: escrows.md 6. Scheme, host and port match exactly, the path as a prefix on a `/` boundary.
Law: what was judged is what is used. A URL that a browser, a proxy or a framework could read in
two ways is refused, never repaired; what is allowed comes back in the one form it was judged in.
"""

import re
import string
import unicodedata
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from urllib.parse import unquote_plus, urlencode

from service.rules.errors import (
    NoRedirectUrlsConfigured,
    RedirectUrlMustBeHttps,
    RedirectUrlNotAllowed,
)

URL_CHARACTERS_MAX = 2048
ALLOWED_URLS_MAX = 20
HOST_CHARACTERS_MAX = 253
PORT_MAX = 65535
DEFAULT_PORTS = {"https": 443, "http": 80}

MUST_BE_HTTPS = "must begin with https:// (http:// only for localhost)"
NOT_A_URL = "must be a URL with a host"
TOO_LONG = f"must be at most {URL_CHARACTERS_MAX} characters"
NOT_ASCII = "must be percent-encoded ASCII, and its host in punycode"
HAS_ODD = "must hold no blanks, control characters, quotes, backslashes or odd brackets"
HAS_USER = "must name no user or password"
HAS_FRAGMENT = "must have no fragment"
HAS_QUERY = "must have no query: everything below the path is allowed"
BAD_PORT = "must have a port from 1 to 65535, if with any"
BAD_ESCAPE = "must have two hex digits after each %"
TWOFOLD = "must have a path that can be read in one way only: no dots, no encoded slash"

UNRESERVED = frozenset(string.ascii_letters + string.digits + "-._~")
ODD = re.compile(r'[\x00-\x20\x7f\\"<>]')
ODD_IN_PATH = re.compile(r"[{}|^`]")
URL = re.compile(r"(https?)://([^/?]*)([^?]*)(?:\?(.*))?", re.IGNORECASE)
AUTHORITY = re.compile(r"(?:\[(?P<six>[0-9a-f:]+)\]|(?P<name>[^:\[\]]+))(?::(?P<port>.*))?")
PORT = re.compile(r"[1-9][0-9]{0,4}")
HIDDEN = re.compile(r"[\x00-\x1f\x7f\\]")
HOST = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)(\.(?!-)[a-z0-9_-]{1,63}(?<!-))*")
NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
"""A last label like this makes a browser read the whole host as an IPv4 address."""
PUNYCODE = "xn--"
ESCAPE = re.compile(r"%([0-9A-Fa-f]{2})")
BROKEN_ESCAPE = re.compile(r"%(?![0-9A-Fa-f]{2})")
DOTS = (".", "..")


class BadUrl(ValueError):
    """What is wrong with the URL: a sentence that goes on from the field's name."""


@dataclass(frozen=True, slots=True)
class Target:
    """A URL taken apart, in its one form: scheme and host in lower case, no default port.

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
    parts = URL.fullmatch(url)
    if parts is None:
        raise BadUrl(NOT_A_URL)
    scheme, netloc, path, query = parts.groups()
    if "@" in netloc:
        raise BadUrl(HAS_USER)
    authority = AUTHORITY.fullmatch(netloc.lower())
    if authority is None:
        raise BadUrl(NOT_A_URL)
    scheme = scheme.lower()
    return Target(
        scheme=scheme,
        host=_ipv6(authority["six"]) if authority["six"] else _host(authority["name"]),
        port=_port(authority["port"], scheme),
        path=_path(path or "/"),
        query=query,
    )


def _port(digits: str | None, scheme: str) -> int:
    """In digits without a nought before them; a colon with nothing behind it is refused."""
    if digits is None:
        return DEFAULT_PORTS[scheme]
    if PORT.fullmatch(digits) is None or int(digits) > PORT_MAX:
        raise BadUrl(BAD_PORT)
    return int(digits)


def _ipv6(literal: str) -> str:
    """In brackets, in its short form; one that wraps an IPv4 address has two, and is refused."""
    try:
        address = IPv6Address(literal)
    except ValueError:
        raise BadUrl(NOT_A_URL) from None
    if address.ipv4_mapped is not None:
        raise BadUrl(NOT_A_URL)
    return f"[{address.compressed}]"


def _host(name: str) -> str:
    if len(name) > HOST_CHARACTERS_MAX or HOST.fullmatch(name) is None:
        raise BadUrl(NOT_A_URL)
    labels = name.split(".")
    if NUMBER.fullmatch(labels[-1]):
        return _ipv4(name)
    if not all(_is_sound(label) for label in labels):
        raise BadUrl(NOT_A_URL)
    return name


def _ipv4(name: str) -> str:
    """Four decimal numbers: a browser would also read octal, hex and fewer of them."""
    try:
        return str(IPv4Address(name))
    except ValueError:
        raise BadUrl(NOT_A_URL) from None


def _is_sound(label: str) -> bool:
    """Whether a label in punycode stands for letters that are written so, and only so."""
    if not label.startswith(PUNYCODE):
        return True
    try:
        letters = label.removeprefix(PUNYCODE).encode().decode("punycode")
        back = letters.encode("punycode").decode()
    except UnicodeError:
        return False
    if letters.isascii() or not letters.isprintable():
        return False
    return PUNYCODE + back == label and unicodedata.normalize("NFC", letters.lower()) == letters


def _path(path: str) -> str:
    """The path in its one form. Some servers decode twice, or cut what follows a `;`.

    Dot segments are refused, plain or encoded: a browser walks them, others send them as they are.
    """
    if BROKEN_ESCAPE.search(path):
        raise BadUrl(BAD_ESCAPE)
    if ODD_IN_PATH.search(path):
        raise BadUrl(HAS_ODD)
    path = ESCAPE.sub(_unescaped, path)
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


def way_back(url: str, session_id: str, status: str) -> str:
    """Where a person returns to: its query as it was, with `session_id` and `status` merged in.

    `url` is what `choose_redirect` gave; what it says of these two by itself gives way.
    """
    path, _, query = url.partition("?")
    ours = {"session_id": session_id, "status": status}
    kept = [
        pair
        for pair in query.split("&")
        if pair and unquote_plus(pair.partition("=")[0]) not in ours
    ]
    return f"{path}?{'&'.join([*kept, urlencode(ours)])}"


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
