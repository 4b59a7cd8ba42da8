"""Dialling: from a host's name to a connection, past the guard.

Source: webhooks.md 6. Law: the guard stands in `socket_factory`, where the concrete address is
known, however it was written or looked up; there is no proxy and no way around it.
"""

import asyncio
import contextlib
import socket
import ssl
import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial

from aiohappyeyeballs import AddrInfoType, start_connection

from service.gateways.line import Line
from service.rules.address import is_dialable

CONNECT_SECONDS = 3.0
NEXT_ADDRESS_SECONDS = 0.25
"""After so long the next address is tried beside the one before (RFC 8305)."""
NAME_CACHE_SECONDS = 30.0
NAMES_KEPT = 4096
# getaddrinfo blocks a thread for many seconds when a name server is dead; with the loop's default
# pool of a few threads one such tenant would stop all others.
RESOLVER_THREADS = 32


class NoName(OSError):
    """The host's name has no address."""


class Blocked(OSError):
    """The guard refused to dial the address."""


class Unreached(OSError):
    """No address of the host took the connection."""


@dataclass(frozen=True, slots=True)
class Place:
    """Where a URL leads: `host` in ASCII; what two URLs that share a connection have in common."""

    host: str
    port: int
    is_tls: bool


@dataclass(slots=True)
class Dial:
    """What came of dialling, as far as it went, in whole milliseconds; `address` is the last tried.

    `is_blocked`: the guard has refused every address so far, of however many.
    """

    address: str | None = None
    is_blocked: bool = False
    dns_ms: int | None = None
    connect_ms: int | None = None
    tls_ms: int | None = None


class Dialler:
    """Connects to where strangers want it, if the guard lets it. Closed by its owner."""

    def __init__(self, *, allow_private: bool, tls: ssl.SSLContext) -> None:
        self._allow_private = allow_private
        self._tls = tls
        self._threads = ThreadPoolExecutor(RESOLVER_THREADS, thread_name_prefix="resolver")
        self._names: dict[tuple[str, int], tuple[float, asyncio.Future[list[AddrInfoType]]]] = {}

    async def dial(self, place: Place, dial: Dial) -> Line:
        """A new connection, within CONNECT_SECONDS after the look-up; `dial` is filled in.

        Raises:
            NoName, Blocked, Unreached, TimeoutError.
            ssl.SSLError: TLS >= 1.2 could not be agreed on, or the certificate is not the host's.
        """
        addresses = await self._find(place, dial)
        try:
            async with asyncio.timeout(CONNECT_SECONDS):
                return await self._connect(place, addresses, dial)
        except (TimeoutError, ssl.SSLError):
            raise
        except (OSError, RuntimeError) as failure:  # uvloop's, where a descriptor is still in use
            if dial.is_blocked:
                raise Blocked(str(failure)) from failure
            raise Unreached(str(failure)) from failure

    def close(self) -> None:
        """Look nothing up any more."""
        self._threads.shutdown(wait=False, cancel_futures=True)

    async def _connect(self, place: Place, addresses: list[AddrInfoType], dial: Dial) -> Line:
        loop = asyncio.get_running_loop()
        started = time.monotonic()
        connection = await start_connection(
            addresses,
            happy_eyeballs_delay=NEXT_ADDRESS_SECONDS,
            interleave=1,
            loop=loop,
            socket_factory=partial(self._open, dial),
        )
        began = time.monotonic()
        dial.connect_ms = ms(began - started)
        try:
            dial.address = str(connection.getpeername()[0])
            _, line = await loop.create_connection(
                Line,
                sock=connection,
                ssl=self._tls if place.is_tls else None,
                server_hostname=place.host.rstrip(".") if place.is_tls else None,
            )
        except BaseException:  # before the loop has taken the socket over nobody else closes it
            with contextlib.suppress(OSError):
                connection.close()
            raise
        finally:
            if place.is_tls:
                dial.tls_ms = ms(time.monotonic() - began)
        return line

    def _open(self, dial: Dial, target: AddrInfoType) -> socket.socket:
        """A socket for this address, judged: what is refused here is never dialled."""
        family, kind, protocol, _, address = target
        host, port = str(address[0]), int(address[1])
        is_first = dial.address is None
        dial.address = host
        if not is_dialable(host, port, allow_private=self._allow_private):
            dial.is_blocked |= is_first
            raise Blocked(f"the guard refuses to dial {host} port {port}")
        dial.is_blocked = False
        opened = socket.socket(family, kind, protocol)
        with contextlib.suppress(OSError):
            opened.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        return opened

    async def _find(self, place: Place, dial: Dial) -> list[AddrInfoType]:
        """The host's addresses; many who ask for one name at once ask the resolver once."""
        with contextlib.suppress(OSError):
            return _look_up(place.host, place.port, socket.AI_NUMERICHOST)  # asks nobody
        name = place.host, place.port
        until, found = self._names.get(name, (0.0, None))
        now = time.monotonic()
        if found is None or until <= now:
            loop = asyncio.get_running_loop()
            found = loop.run_in_executor(self._threads, _look_up, *name)
            found.add_done_callback(partial(self._forget_failure, name))
            if len(self._names) >= NAMES_KEPT:
                self._names.clear()
            self._names[name] = now + NAME_CACHE_SECONDS, found
        if found.done() and not found.cancelled() and found.exception() is None:
            return found.result()
        try:
            return await asyncio.shield(found)
        except OSError as failure:
            raise NoName(str(failure)) from failure
        finally:
            dial.dns_ms = ms(time.monotonic() - now)

    def _forget_failure(
        self, name: tuple[str, int], found: asyncio.Future[list[AddrInfoType]]
    ) -> None:
        if found.cancelled() or found.exception() is not None:
            self._names.pop(name, None)


def _look_up(
    host: str, port: int, flags: socket.AddressInfo | int = socket.AI_ADDRCONFIG
) -> list[AddrInfoType]:
    return [
        (family, kind, protocol, "", address)
        for family, kind, protocol, _, address in socket.getaddrinfo(
            host, port, socket.AF_UNSPEC, socket.SOCK_STREAM, 0, flags
        )
    ]


def ms(seconds: float) -> int:
    """Whole milliseconds."""
    return round(seconds * 1000)
