"""The client: keep-alive connections that ask again as soon as they were answered.

As lean as can be, so that what is measured is the server: no task, no model, one parse a reply.
"""

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import cast

from bench.ground import HOST


@dataclass
class Tally:
    """What came of it: how many were answered as expected, in how many seconds, how fast each."""

    seconds: float = 0.0
    answered: int = 0
    unexpected: list[bytes] = field(default_factory=list)
    waits_seconds: list[float] = field(default_factory=list)

    @property
    def per_second(self) -> float:
        return self.answered / self.seconds


async def knock(
    port: int,
    request: Callable[[], bytes],
    *,
    connections: int,
    seconds: float,
    expect: bytes = b"HTTP/1.1 201",
) -> Tally:
    """Ask for `seconds` over `connections`; raises when any answer is not the expected one."""
    loop = asyncio.get_running_loop()
    tally = Tally()
    began = time.perf_counter()
    lines = [
        (await loop.create_connection(lambda: Line(tally, request, expect), HOST, port))[1]
        for _ in range(connections)
    ]
    for line in lines:
        line.ask()
    await asyncio.sleep(seconds)
    for line in lines:
        line.is_over = True
    await asyncio.gather(*(line.closed for line in lines))
    tally.seconds = time.perf_counter() - began
    if tally.unexpected:
        raise RuntimeError(f"{len(tally.unexpected)} answers like {tally.unexpected[0][:500]!r}")
    return tally


async def pace(
    port: int,
    request: Callable[[], bytes],
    per_second: float,
    seconds: float,
    expect: bytes = b"HTTP/1.1 201",
) -> Tally:
    """Ask so many times a second, whether answers come or not, over as many lines as it takes."""
    loop = asyncio.get_running_loop()
    tally = Tally()
    free: list[Line] = []
    lines: list[Line] = []
    began = loop.time()
    for n in range(int(per_second * seconds)):
        await asyncio.sleep(began + n / per_second - loop.time())
        if not free:
            line = Line(tally, request, expect, free)
            await loop.create_connection(lambda line=line: line, HOST, port)
            lines.append(line)
        else:
            line = free.pop()
        line.ask()
    while len(free) < len(lines) and not tally.unexpected:  # noqa: ASYNC110 - cheap to ask
        await asyncio.sleep(0.01)
    tally.seconds = loop.time() - began
    for line in lines:
        line.is_over = True
        line.transport.close()
    if tally.unexpected:
        raise RuntimeError(f"{len(tally.unexpected)} answers like {tally.unexpected[0][:500]!r}")
    return tally


class Line(asyncio.Protocol):
    """One connection: asks, waits for the whole answer, asks again or joins the `free` ones."""

    def __init__(
        self,
        tally: Tally,
        request: Callable[[], bytes],
        expect: bytes,
        free: "list[Line] | None" = None,
    ) -> None:
        self.free = free
        self.tally, self.request, self.expect = tally, request, expect
        self.is_over = False
        self.closed = asyncio.get_running_loop().create_future()
        self.transport: asyncio.Transport
        self.got = b""
        self.asked_at = 0.0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def ask(self) -> None:
        self.asked_at = time.perf_counter()
        self.transport.write(self.request())

    def data_received(self, data: bytes) -> None:
        self.got += data
        end = self.got.find(b"\r\n\r\n")
        if end < 0:
            return
        head = self.got[:end].lower()
        at = head.index(b"content-length:") + 15
        length = int(head[at : head.find(b"\r\n", at) if b"\r\n" in head[at:] else len(head)])
        if len(self.got) < end + 4 + length:
            return
        if self.got.startswith(self.expect):
            self.tally.answered += 1
            self.tally.waits_seconds.append(time.perf_counter() - self.asked_at)
        else:
            self.tally.unexpected.append(self.got)
        self.got = b""
        if self.is_over or self.tally.unexpected:
            self.transport.close()
        elif self.free is not None:
            self.free.append(self)
        else:
            self.ask()

    def connection_lost(self, _: Exception | None) -> None:
        if not self.is_over and not self.tally.unexpected:
            self.tally.unexpected.append(b"the connection was lost")
        if not self.closed.done():
            self.closed.set_result(None)
