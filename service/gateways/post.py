"""The guarded HTTP sender: one POST to an address that a stranger chose.

Source: webhooks.md 5 and 6. Law: the guard stands in the connector's `socket_factory`, where the
concrete address is known; no proxy, no redirect, no cookie, no decompression; nothing is raised
for what the outside does: every end is a `Reply`.

aiohttp's connector dials, keeps connections and parses answers. Its session, which makes of each
request what we never want (cookies, redirects, proxies, compression), is left out: it takes most of
the time that a delivery takes.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any, Protocol

import aiohttp
import yarl
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.client_proto import ResponseHandler
from aiohttp.connector import AddrInfoType, Connection
from aiohttp.http import HttpProcessingError, RawResponseMessage
from aiohttp.streams import StreamReader

from service.rules.address import is_dialable
from service.rules.delivery import Fault, Reply

CONNECT_SECONDS = 3.0
READ_MAX_BYTES = 64 * 1024
KEEP_MAX_BYTES = 8 * 1024
INTERIM_MAX = 4
"""Answers of 1xx that are read over; who sends them without end is read no further."""
HEAD_LINE_MAX_BYTES = 8190
IDLE_CONNECTION_SECONDS = 15.0
NAME_CACHE_SECONDS = 30
# getaddrinfo blocks a thread for many seconds when a name server is dead; with the loop's default
# pool of a few threads one such tenant would stop all others.
RESOLVER_THREADS = 32
TARGETS_KEPT = 2048
LIMITS = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS)


@dataclass(frozen=True, slots=True)
class Request:
    """What is to be sent; `timeout_seconds` bounds the whole exchange."""

    url: str
    headers: Mapping[str, str]
    body: bytes
    timeout_seconds: float


# The first row that fits; aiohttp's classes are each other's children, so the order matters.
FAULTS: tuple[tuple[type[Exception] | tuple[type[Exception], ...], Fault], ...] = (
    (aiohttp.ClientConnectorDNSError, Fault.DNS),
    ((aiohttp.ClientSSLError, ssl.SSLError, aiohttp.ServerFingerprintMismatch), Fault.TLS),
    (TimeoutError, Fault.TIMEOUT),
    (aiohttp.ClientConnectorError, Fault.REFUSED),
    ((aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError, ValueError), Fault.BAD_URL),
    ((HttpProcessingError, aiohttp.ClientPayloadError), Fault.PROTOCOL),
    (Exception, Fault.RESET),
)


class Post(Protocol):
    """Sends requests. Only cancellation leaves `send` as an exception."""

    async def send(self, request: Request) -> Reply: ...

    async def close(self) -> None: ...


class Blocked(OSError):
    """The guard refused to dial the address."""


@dataclass(slots=True)
class _Dial:
    """What the connector did for one exchange; nothing when it reused a connection.

    `is_blocked`: the guard has refused every address so far, of however many.
    """

    address: str | None = None
    is_blocked: bool = False
    began_at: float = 0.0
    connected_at: float = 0.0
    dns_ms: int | None = None
    connect_ms: int | None = None
    tls_ms: int | None = None


@dataclass(frozen=True, slots=True)
class _Target:
    """A URL as it is dialled and asked: what the connector knows it by, and the request's head."""

    request: aiohttp.ClientRequest
    head: str


_DIAL: ContextVar[_Dial] = ContextVar("dial")


class HttpPost:
    """The real post, on one aiohttp connector. Made inside a running loop; closed by its owner."""

    def __init__(self, *, allow_private: bool = False, tls: ssl.SSLContext | None = None) -> None:
        self._allow_private = allow_private
        if tls is None:
            tls = ssl.create_default_context()
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._resolver = _Resolver()
        self._connector = _Connector(
            limit=0,  # the caller's slots bound it
            ssl=tls,
            resolver=self._resolver,
            ttl_dns_cache=NAME_CACHE_SECONDS,
            keepalive_timeout=IDLE_CONNECTION_SECONDS,
            socket_factory=self._dial,
        )
        self._aim = lru_cache(maxsize=TARGETS_KEPT)(_aim)

    async def send(self, request: Request) -> Reply:
        """POST the request and report what came of it."""
        started = time.monotonic()
        dial = _Dial()
        token = _DIAL.set(dial)
        try:
            async with asyncio.timeout(request.timeout_seconds):
                return await self._exchange(request, dial, started)
        except (
            TimeoutError,
            aiohttp.ClientError,
            HttpProcessingError,
            OSError,
            ValueError,
        ) as failure:
            return Reply(
                fault=Fault.BLOCKED if dial.is_blocked else _fault(failure),
                address=dial.address,
                dns_ms=dial.dns_ms,
                connect_ms=dial.connect_ms,
                tls_ms=dial.tls_ms,
                total_ms=_ms_since(started),
            )
        finally:
            _DIAL.reset(token)

    async def close(self) -> None:
        """Close every connection."""
        await self._connector.close()
        await self._resolver.close()

    async def _exchange(self, request: Request, dial: _Dial, started: float) -> Reply:
        target = self._aim(request.url)
        wire = _head(target, request) + request.body
        try:
            return await self._post(target, wire, dial, started)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as lost:
            # The receiver closed an idle connection just when it was taken up again: not a failed
            # attempt. Once, and only where nothing was dialled.
            if dial.address is not None or isinstance(lost, aiohttp.ClientConnectorError):
                raise
        return await self._post(target, wire, dial, started)

    async def _post(self, target: _Target, wire: bytes, dial: _Dial, started: float) -> Reply:
        connection = await self._connector.connect(target.request, [], LIMITS)
        answer: StreamReader | None = None
        try:
            transport = connection.transport
            if transport is None:
                raise aiohttp.ServerDisconnectedError
            address = dial.address or _peer(transport)
            message, answer = await _ask(connection, transport, wire)
            first_byte_ms = _ms_since(started)
            kept = await _read_some(answer)
        finally:
            if answer is not None and answer.is_eof():
                connection.release()  # closes it where it cannot be kept
            else:
                connection.close()
        return Reply(
            status=message.code,
            retry_after=message.headers.get("Retry-After"),
            asks_disable=message.headers.get("webhook-delivery", "").lower() == "disable",
            answer=kept,
            address=address,
            dns_ms=dial.dns_ms,
            connect_ms=dial.connect_ms,
            tls_ms=dial.tls_ms,
            first_byte_ms=first_byte_ms,
            total_ms=_ms_since(started),
        )

    def _dial(self, target: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = target
        host, port = str(address[0]), int(address[1])
        dial = _DIAL.get(None)
        is_first = dial is None or dial.address is None
        if dial is not None:
            dial.address, dial.began_at = host, time.monotonic()
        if not is_dialable(host, port, allow_private=self._allow_private):
            if dial is not None and is_first:
                dial.is_blocked = True
            raise Blocked(f"the guard refuses to dial {host} port {port}")
        if dial is not None:
            dial.is_blocked = False
        return socket.socket(family, kind, protocol)


def _aim(url: str) -> _Target:
    """What is asked of this URL, and where.

    Raises:
        ValueError: it is none that can be posted to.
    """
    parsed = yarl.URL(url)
    if parsed.scheme not in ("http", "https") or not parsed.raw_host or parsed.user is not None:
        raise ValueError("a webhook goes to a host by http or https, without a user name")
    head = (
        f"POST {parsed.raw_path_qs} HTTP/1.1\r\nHost: {parsed.host_port_subcomponent}\r\n"
        "Accept: */*\r\nAccept-Encoding: identity\r\nUser-Agent: Amana-Webhooks/1\r\n"
    )
    return _Target(aiohttp.ClientRequest("POST", parsed), head)


def _head(target: _Target, request: Request) -> bytes:
    lines = [f"{name}: {value}\r\n" for name, value in request.headers.items()]
    head = f"{target.head}{''.join(lines)}Content-Length: {len(request.body)}\r\n\r\n"
    # One for the request, Host and the three of ours, the length, the end; each header its own.
    if head.count("\n") != len(lines) + 7 or head.count("\r") != len(lines) + 7 or "\0" in head:
        raise ValueError("a header contains a line's end")
    return head.encode()


async def _ask(
    connection: Connection, transport: asyncio.Transport, wire: bytes
) -> tuple[RawResponseMessage, StreamReader]:
    """Write the request; the head of the answer, and its body as it comes."""
    protocol = connection.protocol
    if protocol is None:
        raise aiohttp.ServerDisconnectedError
    protocol.set_response_params(
        read_until_eof=True,
        auto_decompress=False,
        max_line_size=HEAD_LINE_MAX_BYTES,
        max_field_size=HEAD_LINE_MAX_BYTES,
    )
    transport.write(wire)
    for _ in range(INTERIM_MAX + 1):
        message, answer = await protocol.read()
        if not 100 <= message.code <= 199 or message.code == 101:
            return message, answer
    raise aiohttp.ClientPayloadError("interim answers without end")


def _peer(transport: asyncio.Transport) -> str | None:
    peer = transport.get_extra_info("peername")
    return str(peer[0]) if peer else None


class _Connector(aiohttp.TCPConnector):
    """Notes how long a dialled address took, and TLS; aiohttp's traces cost every request."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self._factory = partial(_connected, self._loop)

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> Connection:
        try:
            return await super().connect(req, traces, timeout)
        finally:
            dial = _DIAL.get(None)
            if dial is not None and dial.connected_at:
                dial.connect_ms = _ms(dial.connected_at - dial.began_at)
                dial.tls_ms = _ms_since(dial.connected_at) if req.is_ssl() else None


def _connected(loop: asyncio.AbstractEventLoop) -> ResponseHandler:
    """The connector asks for its protocol when TCP stands, before TLS."""
    dial = _DIAL.get(None)
    if dial is not None:
        dial.connected_at = time.monotonic()
    return ResponseHandler(loop)


class _Resolver(AbstractResolver):
    """The system's resolver on threads of its own; the guard judges what it finds."""

    def __init__(self) -> None:
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolver")

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_UNSPEC
    ) -> list[ResolveResult]:
        started = time.monotonic()
        found = await asyncio.get_running_loop().run_in_executor(
            self._threads, _look_up, host, port, family
        )
        dial = _DIAL.get(None)
        if dial is not None:
            dial.dns_ms = _ms_since(started)
        return found

    async def close(self) -> None:
        self._threads.shutdown(wait=False, cancel_futures=True)


def _look_up(host: str, port: int, family: socket.AddressFamily) -> list[ResolveResult]:
    found = socket.getaddrinfo(host, port, family, socket.SOCK_STREAM, 0, socket.AI_ADDRCONFIG)
    return [
        ResolveResult(
            hostname=host,
            host=str(address[0]),
            port=int(address[1]),
            family=found_family,
            proto=protocol,
            flags=socket.AI_NUMERICHOST | socket.AI_NUMERICSERV,
        )
        for found_family, _, protocol, _, address in found
    ]


async def _read_some(answer: StreamReader) -> bytes:
    """The first 8 KiB; up to 64 KiB are read, so that an ordinary connection can be kept."""
    kept = bytearray()
    read = 0
    try:
        while read <= READ_MAX_BYTES and (chunk := await answer.readany()):
            read += len(chunk)
            kept += chunk[: KEEP_MAX_BYTES - len(kept)]
    except (aiohttp.ClientError, OSError):
        # The status stands although the connection broke behind it: the receiver has answered.
        pass
    return bytes(kept)


def _fault(failure: Exception) -> Fault:
    if isinstance(failure, aiohttp.ClientConnectorError):
        if isinstance(failure.os_error, Blocked):
            return Fault.BLOCKED
        if isinstance(failure.os_error, ssl.SSLError):
            return Fault.TLS
    return next(fault for classes, fault in FAULTS if isinstance(failure, classes))


def _ms_since(started: float) -> int:
    return _ms(time.monotonic() - started)


def _ms(seconds: float) -> int:
    return round(seconds * 1000)
