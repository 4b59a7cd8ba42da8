"""The guarded HTTP sender: one POST to an address that a stranger chose.

Source: webhooks.md 5 and 6. Law: no redirect, no proxy, no cookie, no decompression; nothing is
raised for what the outside does: every end is a `Reply`.
"""

import asyncio
import ssl
import time
from collections import defaultdict
from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from typing import Protocol

import yarl

from service.gateways.dialler import Blocked, Dial, Dialler, NoName, Place, Unreached, ms
from service.gateways.line import Answer, Garbled, Line, Lost
from service.rules.delivery import Fault, Reply

IDLE_SECONDS = 15.0
"""How long a connection is kept that nothing is sent over."""
TARGETS_KEPT = 2048


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be sent; `timeout_seconds` bounds the whole exchange."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    timeout_seconds: float


# The first row that fits: some are children of those below them.
FAULTS: tuple[tuple[type[Exception], Fault], ...] = (
    (NoName, Fault.DNS),
    (Blocked, Fault.BLOCKED),
    (Unreached, Fault.REFUSED),
    (ssl.SSLError, Fault.TLS),
    (TimeoutError, Fault.TIMEOUT),
    (Garbled, Fault.PROTOCOL),
    (ValueError, Fault.BAD_URL),
    (Exception, Fault.RESET),
)


class Post(Protocol):
    """Sends requests. Only cancellation leaves `send` as an exception."""

    async def send(self, request: Request) -> Reply: ...

    async def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class _Target:
    """A URL as it is dialled and asked."""

    place: Place
    head: str


class HttpPost:
    """The real post. Made inside a running loop; closed by its owner."""

    def __init__(self, *, allow_private: bool = False, tls: ssl.SSLContext | None = None) -> None:
        if tls is None:
            tls = ssl.create_default_context()
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._dialler = Dialler(allow_private=allow_private, tls=tls)
        self._idle: defaultdict[Place, list[Line]] = defaultdict(list)
        self._sweeping: asyncio.TimerHandle | None = None
        self._aim = lru_cache(maxsize=TARGETS_KEPT)(_aim)

    async def send(self, request: Request) -> Reply:
        """POST the request and report what came of it."""
        started = time.monotonic()
        dial = Dial()
        try:
            answer = await self._exchange(request, dial)
        except Exception as failure:  # noqa: BLE001 - whatever the outside does is a reply
            return Reply(
                fault=next(fault for kind, fault in FAULTS if isinstance(failure, kind)),
                address=dial.address,
                dns_ms=dial.dns_ms,
                connect_ms=dial.connect_ms,
                tls_ms=dial.tls_ms,
                total_ms=ms(time.monotonic() - started),
            )
        return Reply(
            status=answer.status,
            retry_after=answer.retry_after,
            asks_disable=answer.asks_disable,
            answer=bytes(answer.body),
            address=answer.address,
            dns_ms=dial.dns_ms,
            connect_ms=dial.connect_ms,
            tls_ms=dial.tls_ms,
            first_byte_ms=ms(answer.first_byte_at - started),
            total_ms=ms(time.monotonic() - started),
        )

    async def close(self) -> None:
        """Close every connection."""
        if self._sweeping is not None:
            self._sweeping.cancel()
        for lines in self._idle.values():
            for line in lines:
                line.close()
        self._idle.clear()
        self._dialler.close()

    async def _exchange(self, request: Request, dial: Dial) -> Answer:
        target = self._aim(request.url)
        wire = _head(target, request) + request.body
        give_up_at = asyncio.get_running_loop().time() + request.timeout_seconds
        line = self._take(target.place)
        if line is not None:
            try:
                answer = await line.ask(wire, give_up_at)
            except Lost:
                # The receiver closed an idle connection just when it was taken up again: not a
                # failed attempt. Once: what comes now is dialled.
                pass
            else:
                self._give_back(target.place, line)
                return answer
        async with asyncio.timeout_at(give_up_at):
            line = await self._dialler.dial(target.place, dial)
        answer = await line.ask(wire, give_up_at)
        self._give_back(target.place, line)
        return answer

    def _give_back(self, place: Place, line: Line) -> None:
        if not line.is_free:
            return
        line.freed_at = time.monotonic()
        self._idle[place].append(line)
        if self._sweeping is None:
            self._sweeping = asyncio.get_running_loop().call_later(IDLE_SECONDS, self._sweep)

    def _take(self, place: Place) -> Line | None:
        """The connection that was used last: the others grow old and are closed."""
        lines = self._idle.get(place)
        while lines:
            line = lines.pop()
            if line.is_free:
                return line
        return None

    def _sweep(self) -> None:
        """Close what has stood idle for too long."""
        self._sweeping = None
        limit = time.monotonic() - IDLE_SECONDS
        for place, lines in list(self._idle.items()):
            for line in lines:
                if line.freed_at <= limit:
                    line.close()
            kept = [line for line in lines if line.is_free]
            if kept:
                self._idle[place] = kept
            else:
                del self._idle[place]
        if self._idle:
            loop = asyncio.get_running_loop()
            self._sweeping = loop.call_later(IDLE_SECONDS / 3, self._sweep)


def _aim(url: str) -> _Target:
    """What is asked of this URL, and where.

    Raises:
        ValueError: it is none that can be posted to.
    """
    parsed = yarl.URL(url)
    host, port = parsed.raw_host, parsed.port
    if parsed.scheme not in ("http", "https") or not host or not port or parsed.user is not None:
        raise ValueError("a webhook goes to a host by http or https, without a user name")
    head = (
        f"POST {parsed.raw_path_qs} HTTP/1.1\r\nHost: {parsed.host_port_subcomponent}\r\n"
        "Accept: */*\r\nAccept-Encoding: identity\r\nUser-Agent: Amana-Webhooks/1\r\n"
    )
    return _Target(Place(host, port, parsed.scheme == "https"), head)


def _head(target: _Target, request: Request) -> bytes:
    lines = [f"{name}: {value}\r\n" for name, value in request.headers.items()]
    head = f"{target.head}{''.join(lines)}Content-Length: {len(request.body)}\r\n\r\n"
    # One for the request, Host and the three of ours, the length, the end; each header its own.
    if head.count("\n") != len(lines) + 7 or head.count("\r") != len(lines) + 7 or "\0" in head:
        raise ValueError("a header contains a line's end")
    return head.encode()
