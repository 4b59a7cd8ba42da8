"""One connection to a receiver: a request at a time, and its answer as far as it matters.

Law: what a stranger sends is bounded before it is kept: so many bytes read, fewer of them kept, so
many interim answers. What comes unasked, or behind an answer's end, ends the connection.
"""

import asyncio
import ssl
import time
from dataclasses import dataclass, field
from typing import cast

from httptools import HttpParserError, HttpParserUpgrade, HttpResponseParser

READ_MAX_BYTES = 64 * 1024
KEEP_MAX_BYTES = 8 * 1024
INTERIM_MAX = 4
"""Answers of 1xx that are read over; who sends them without end is read no further."""
SWITCHING = 101  # is final: nothing that was asked for follows it


class Lost(ConnectionError):
    """The connection ended before a byte of the answer had come."""


class Garbled(Exception):
    """What came is no answer by HTTP/1.1."""


@dataclass(slots=True)
class Answer:
    """A receiver's answer; `status` is 0 until its head is whole.

    `address`: who gave it. `body`: its first bytes, as they came. `first_byte_at`: by the monotonic
    clock, 0 before it.
    """

    address: str | None = None
    status: int = 0
    retry_after: str | None = None
    asks_disable: bool = False
    body: bytearray = field(default_factory=bytearray)
    first_byte_at: float = 0.0


class Line(asyncio.Protocol):
    """A connection, from when it stands; `ask` for as long as it `is_free`.

    `freed_at` is its owner's.
    """

    def __init__(self) -> None:
        self.freed_at = 0.0
        self._peer: str | None = None
        self._transport: asyncio.Transport | None = None
        self._parser = HttpResponseParser(self)
        # What receivers are forgiven everywhere: a folded header, a line's end without CR, blanks
        # behind a chunk's size.
        self._parser.set_dangerous_leniencies(
            lenient_headers=True,
            lenient_optional_cr_before_lf=True,
            lenient_spaces_after_chunk_size=True,
        )
        self._asked: asyncio.Future[Answer] | None = None
        self._answer = Answer()
        self._read = self._interims = 0
        self._is_whole = self._is_kept = self._is_spoilt = False

    @property
    def is_free(self) -> bool:
        """Whether it may be asked: it stands, and nothing is left of what came before."""
        transport = self._transport
        return transport is not None and self._asked is None and not transport.is_closing()

    async def ask(self, request: bytes, give_up_at: float) -> Answer:
        """Write the request and wait for its answer, until `give_up_at` by the loop's clock.

        A connection that breaks, or goes on, behind the answer's head leaves the answer standing.

        Raises:
            Lost: it ended without a byte; the receiver may never have seen the request.
            ConnectionError: it ended within the answer's head.
            Garbled: what came is no answer, or a head without end.
            TimeoutError: the time is over.
            ssl.SSLError: the receiver has taken back what TLS had agreed on.
        """
        transport = self._transport
        if transport is None or transport.is_closing():
            raise Lost("the connection has ended")
        loop = asyncio.get_running_loop()
        self._answer = Answer(self._peer)
        self._read = self._interims = 0
        self._is_whole = self._is_kept = False
        asked: asyncio.Future[Answer] = loop.create_future()
        self._asked = asked
        ending = loop.call_at(give_up_at, _expire, asked)
        try:
            transport.write(request)
            answer = await asked
        except BaseException:
            self.close()
            raise
        finally:
            ending.cancel()
            self._asked = None
        if not self._is_kept or self._is_spoilt:
            self.close()
        return answer

    def close(self) -> None:
        """End the connection at once; what is still to be written is dropped."""
        if self._transport is not None:
            self._transport.abort()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)
        peer = transport.get_extra_info("peername")
        self._peer = str(peer[0]) if peer else None

    def connection_lost(self, exc: Exception | None) -> None:
        self._transport = None
        if self._answer.status:  # its head is whole: the receiver has answered
            self._end(None)
        elif self._read:
            self._end(ConnectionResetError("the connection ended within the answer's head"))
        elif isinstance(exc, ssl.SSLError):
            self._end(exc)
        else:
            self._end(Lost(f"the connection ended without an answer: {exc or 'closed'}"))

    def data_received(self, data: bytes) -> None:
        if self._asked is None or self._asked.done():
            self.close()
            return
        if not self._read:
            self._answer.first_byte_at = time.monotonic()
        room = READ_MAX_BYTES - self._read
        self._is_spoilt = len(data) > room
        data = data[:room]
        self._read += len(data)
        try:
            self._parser.feed_data(data)
        except (HttpParserError, HttpParserUpgrade) as fault:
            self._is_spoilt = True
            self._end(None if self._answer.status else Garbled(str(fault)))
            return
        if self._is_whole:
            self._end(None)
        elif self._read >= READ_MAX_BYTES or self._interims > INTERIM_MAX:
            self._is_spoilt = True
            self._end(None if self._answer.status else Garbled("an answer's head without end"))

    def _end(self, failure: Exception | None) -> None:
        if self._asked is None or self._asked.done():
            return
        if failure is None:
            self._asked.set_result(self._answer)
        else:
            self._asked.set_exception(failure)

    # What the parser has found; it goes on with what comes behind an answer's end.

    def on_message_begin(self) -> None:
        if self._is_whole:
            self._is_spoilt = True

    def on_header(self, name: bytes, value: bytes) -> None:
        if self._answer.status:  # a trailer, or another answer
            return
        match name.lower():
            case b"retry-after" if self._answer.retry_after is None:
                self._answer.retry_after = value.decode("latin-1")
            case b"webhook-delivery":
                self._answer.asks_disable |= value.strip().lower() == b"disable"

    def on_headers_complete(self) -> None:
        if self._is_whole:
            return
        status = self._parser.get_status_code()
        if status < 100:
            raise Garbled(f"there is no status {status}")
        if 100 <= status <= 199 and status != SWITCHING:
            self._interims += 1
            self._answer.retry_after, self._answer.asks_disable = None, False
        elif self._interims <= INTERIM_MAX:
            self._answer.status = status

    def on_body(self, data: bytes) -> None:
        if not self._is_whole and len(self._answer.body) < KEEP_MAX_BYTES:
            self._answer.body += data[: KEEP_MAX_BYTES - len(self._answer.body)]

    def on_message_complete(self) -> None:
        if self._answer.status and not self._is_whole:
            self._is_whole, self._is_kept = True, self._parser.should_keep_alive()


def _expire(asked: "asyncio.Future[Answer]") -> None:
    if not asked.done():
        asked.set_exception(TimeoutError())
