"""The guarded HTTP sender: one POST to an address that a stranger chose.

Source: webhooks.md 5 and 6. Law: the guard stands in the connector's `socket_factory`, where the
concrete address is known; no proxy, no redirect, no cookie, no decompression; nothing is raised
for what the outside does: every end is a `Reply`.
"""

import asyncio
import socket
import ssl
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Protocol

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from aiohttp.connector import AddrInfoType

from service.rules.address import is_dialable
from service.rules.delivery import Fault, Reply

CONNECT_SECONDS = 3.0
READ_MAX_BYTES = 64 * 1024
KEEP_MAX_BYTES = 8 * 1024
IDLE_CONNECTION_SECONDS = 15.0
NAME_CACHE_SECONDS = 30
# getaddrinfo blocks a thread for many seconds when a name server is dead; with the loop's default
# pool of a few threads one such tenant would stop all others.
RESOLVER_THREADS = 32


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
    ((aiohttp.ClientResponseError, aiohttp.ClientPayloadError), Fault.PROTOCOL),
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
    """What the connector did for one exchange; nothing when it reused a connection."""

    address: str | None = None
    began_at: float = 0.0
    dns_ms: int | None = None
    connect_ms: int | None = None


_DIAL: ContextVar[_Dial] = ContextVar("dial")


class HttpPost:
    """The real post, on one aiohttp session. Made inside a running loop; closed by its owner."""

    def __init__(self, *, allow_private: bool = False, tls: ssl.SSLContext | None = None) -> None:
        self._allow_private = allow_private
        if tls is None:
            tls = ssl.create_default_context()
        tls.minimum_version = ssl.TLSVersion.TLSv1_2
        self._resolver = _Resolver()
        connector = _Connector(
            limit=0,  # the caller's slots bound it
            ssl=tls,
            resolver=self._resolver,
            ttl_dns_cache=NAME_CACHE_SECONDS,
            keepalive_timeout=IDLE_CONNECTION_SECONDS,
            socket_factory=self._dial,
        )
        self._session = aiohttp.ClientSession(
            connector=connector,
            response_class=_Response,
            cookie_jar=aiohttp.DummyCookieJar(),
            timeout=aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS),
            auto_decompress=False,
            trust_env=False,
            headers={"Accept-Encoding": "identity", "User-Agent": "Amana-Webhooks/1"},
        )

    async def send(self, request: Request) -> Reply:
        """POST the request and report what came of it."""
        started = time.monotonic()
        dial = _Dial()
        token = _DIAL.set(dial)
        try:
            async with asyncio.timeout(request.timeout_seconds):
                return await self._exchange(request, dial, started)
        except (TimeoutError, aiohttp.ClientError, OSError, ValueError) as failure:
            return Reply(
                fault=_fault(failure),
                address=dial.address,
                dns_ms=dial.dns_ms,
                total_ms=_ms_since(started),
            )
        finally:
            _DIAL.reset(token)

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()
        await self._resolver.close()

    async def _exchange(self, request: Request, dial: _Dial, started: float) -> Reply:
        try:
            return await self._post(request, dial, started)
        except (aiohttp.ServerDisconnectedError, aiohttp.ClientOSError) as lost:
            # The receiver closed an idle connection just when it was taken up again: not a failed
            # attempt. Once, and only where nothing was dialled.
            if dial.address is not None or isinstance(lost, aiohttp.ClientConnectorError):
                raise
        return await self._post(request, dial, started)

    async def _post(self, request: Request, dial: _Dial, started: float) -> Reply:
        async with self._session.post(
            request.url, data=request.body, headers=request.headers, allow_redirects=False
        ) as response:
            first_byte_ms = _ms_since(started)
            answer = await _read_some(response)
            address = response.address if isinstance(response, _Response) else None
            return Reply(
                status=response.status,
                retry_after=response.headers.get("Retry-After"),
                asks_disable=response.headers.get("webhook-delivery", "").lower() == "disable",
                answer=answer,
                address=address or dial.address,
                dns_ms=dial.dns_ms,
                connect_ms=dial.connect_ms,
                first_byte_ms=first_byte_ms,
                total_ms=_ms_since(started),
            )

    def _dial(self, target: AddrInfoType) -> socket.socket:
        family, kind, protocol, _, address = target
        host, port = str(address[0]), int(address[1])
        dial = _DIAL.get(None)
        if dial is not None:
            dial.address, dial.began_at = host, time.monotonic()
        if not is_dialable(host, port, allow_private=self._allow_private):
            raise Blocked(f"the guard refuses to dial {host} port {port}")
        return socket.socket(family, kind, protocol)


class _Connector(aiohttp.TCPConnector):
    """Notes how long a dialled address took, TLS and all; aiohttp's traces cost every request."""

    async def connect(
        self,
        req: aiohttp.ClientRequest,
        traces: list[Any],
        timeout: aiohttp.ClientTimeout,  # noqa: ASYNC109 - aiohttp's signature
    ) -> aiohttp.connector.Connection:
        connection = await super().connect(req, traces, timeout)
        dial = _DIAL.get(None)
        if dial is not None and dial.began_at:
            dial.connect_ms = _ms_since(dial.began_at)
        return connection


class _Response(aiohttp.ClientResponse):
    """Remembers the address that answered, before the connection goes back to the pool."""

    address: str | None = None

    async def start(self, connection: aiohttp.connector.Connection) -> "_Response":
        transport = connection.transport
        peer = None if transport is None else transport.get_extra_info("peername")
        self.address = str(peer[0]) if peer else None
        await super().start(connection)
        return self


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


async def _read_some(response: aiohttp.ClientResponse) -> bytes:
    """The first 8 KiB; up to 64 KiB are read, so that an ordinary connection can be kept."""
    kept = bytearray()
    read = 0
    try:
        async for chunk in response.content.iter_any():
            read += len(chunk)
            kept += chunk[: KEEP_MAX_BYTES - len(kept)]
            if read > READ_MAX_BYTES:
                response.close()
                break
    except (aiohttp.ClientError, OSError):
        # The status stands although the connection broke behind it: the receiver has answered.
        response.close()
    return bytes(kept)


def _fault(failure: Exception) -> Fault:
    if isinstance(failure, aiohttp.ClientConnectorError):
        if isinstance(failure.os_error, Blocked):
            return Fault.BLOCKED
        if isinstance(failure.os_error, ssl.SSLError):
            return Fault.TLS
    return next(fault for classes, fault in FAULTS if isinstance(failure, classes))


def _ms_since(started: float) -> int:
    return round((time.monotonic() - started) * 1000)
