"""Where a webhook may go: the URL as it is written, and the address as it is dialled.

Source: webhooks.md 6. Law: the address that is about to be dialled decides; the check of the URL
only tells the developer early. Nothing is resolved here.
"""

import re
import unicodedata
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from urllib.parse import SplitResult, urlsplit

from service.rules.errors import WebhookRefused

URL_LENGTH_MAX = 2048
OPEN_PORTS = frozenset({80, 443})

BAD_URL = "Invalid URL format"
ONLY_HTTPS = "Only HTTPS URLs are allowed in production"

# What `is_global` of Python 3.11 calls global although nobody's server lives there, with the forms
# that wrap an IPv4 address; for IPv6 only 2000::/3 is global unicast, which leaves out the rest.
REFUSED_V4 = tuple(
    ip_network(text)
    for text in (
        "0.0.0.0/8",
        "100.64.0.0/10",
        "169.254.0.0/16",
        "192.0.0.0/24",
        "192.88.99.0/24",
        "198.18.0.0/15",
        "224.0.0.0/4",
        "240.0.0.0/4",
    )
)
GLOBAL_V6 = ip_network("2000::/3")
REFUSED_V6 = tuple(
    ip_network(text)
    for text in (
        "64:ff9b::/96",
        "64:ff9b:1::/48",
        "2001::/23",
        "2001:db8::/32",
        "2002::/16",
        "3fff::/20",
        "5f00::/16",
        "fec0::/10",
        "ff00::/8",
    )
)
PRIVATE = tuple(
    ip_network(text)
    for text in (
        "127.0.0.0/8",
        "10.0.0.0/8",
        "172.16.0.0/12",
        "192.168.0.0/16",
        "::1/128",
        "fc00::/7",
    )
)
NAT64 = ip_network("64:ff9b::/96")

# A last label made of digits or hex is an IPv4 number to the system's resolver ("2130706433").
NUMBER_LIKE = re.compile(r"(?:0x[0-9a-f]*|[0-9]+)\Z")
HOST_LABEL = re.compile(r"(?!-)[a-z0-9_-]{1,63}(?<!-)\Z")


def is_dialable(address: str, port: int, *, allow_private: bool = False) -> bool:
    """Whether a connection to this numeric address and port may be made.

    `allow_private` opens loopback and private networks on any port, and any port elsewhere.
    """
    try:
        given = ip_address(address.partition("%")[0])
    except ValueError:
        return False
    concrete = _unwrapped(given)
    if allow_private and any(concrete in network for network in PRIVATE):
        return not _is_refused(given)
    if port not in OPEN_PORTS and not allow_private:
        return False
    return concrete.is_global and not _is_refused(given) and not _is_refused(concrete)


def check_url(
    url: str, *, live: bool, allow_private: bool, ascii_name: Callable[[str], str]
) -> None:
    """Refuse a URL that could never be delivered to, with the sentence of escrows.md 7.

    `ascii_name` writes a host in ASCII as it will be dialled (IDNA 2008; a ValueError: it is none);
    the standard library knows only the form of 2003, which sends some names elsewhere.

    Raises WebhookRefused; its fact `why` says more than the fixed sentence.
    """
    parts = _split(url)
    if live and parts.scheme != "https":
        raise WebhookRefused(reason=ONLY_HTTPS, why="live deployments deliver over TLS only")
    host = unicodedata.normalize("NFKC", parts.hostname or "").lower().rstrip(".")
    port = parts.port or (443 if parts.scheme == "https" else 80)
    literal = _literal(host)
    if literal is not None:
        if not is_dialable(literal, port, allow_private=allow_private):
            raise _bad(f"the address {literal} with port {port} is not open to webhooks")
        return
    _check_name(host if host.isascii() else _in_ascii(host, ascii_name))
    if allow_private:
        return
    if host == "localhost" or host.endswith(".localhost"):
        raise _bad("a loopback name is not open to webhooks")
    if port not in OPEN_PORTS:
        raise _bad(f"the port must be one of {', '.join(map(str, sorted(OPEN_PORTS)))}")


def _split(url: str) -> SplitResult:
    if not 0 < len(url) <= URL_LENGTH_MAX:
        raise _bad(f"a URL has 1 to {URL_LENGTH_MAX} characters")
    if any(character <= " " or character in '\x7f\\"<>' for character in url):
        raise _bad("a URL contains no blanks, control characters or backslashes")
    try:
        parts = urlsplit(url)
        port = parts.port
    except ValueError as bad:
        raise _bad(str(bad)) from bad
    if parts.scheme not in ("http", "https") or not parts.hostname or port == 0:
        raise _bad("a URL starts with http:// or https:// and names a host")
    if "@" in parts.netloc:
        raise _bad("a URL carries no user name or password")
    return parts


def _literal(host: str) -> str | None:
    try:
        return str(ip_address(host))
    except ValueError:
        return None


def _in_ascii(host: str, ascii_name: Callable[[str], str]) -> str:
    try:
        return ascii_name(host)
    except ValueError as bad:
        raise _bad("the host's name is not valid") from bad


def _check_name(host: str) -> None:
    labels = host.split(".")
    if len(".".join(labels)) > 253 or not all(HOST_LABEL.match(label) for label in labels):
        raise _bad("the host's name is not valid")
    if NUMBER_LIKE.match(labels[-1]):
        raise _bad("an IPv4 address is written as four decimal numbers")


def _unwrapped(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if isinstance(address, IPv4Address):
        return address
    if address in NAT64:
        return IPv4Address(int(address) & 0xFFFFFFFF)
    return address.ipv4_mapped or address.sixtofour or address


def _is_refused(address: IPv4Address | IPv6Address) -> bool:
    if isinstance(address, IPv4Address):
        return any(address in network for network in REFUSED_V4)
    if address.ipv4_mapped or any(address in network for network in PRIVATE):
        return False  # judged by what it wraps, and by `is_global`
    return address not in GLOBAL_V6 or any(address in network for network in REFUSED_V6)


def _bad(why: str) -> WebhookRefused:
    return WebhookRefused(reason=BAD_URL, why=why)
