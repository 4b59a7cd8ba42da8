"""The sink: a receiver in a process of its own that answers 200 and notes what came when.

As lean as can be, so that whoever posts to it is what is measured.
"""

import asyncio
import json
import multiprocessing
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import cast

import aiohttp
import uvloop

from bench.ground import HOST, wait_listening
from service.cli.ports import find_free_port

TAKEN = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
ARRIVALS = b"GET /arrivals "
EVENT_ID = b"\r\nwebhook-id:"
LENGTH = b"\r\ncontent-length:"


@dataclass(frozen=True)
class Sink:
    """Where the sink is, and what it was sent since it was last asked."""

    port: int

    def url(self, path: str) -> str:
        return f"http://{HOST}:{self.port}/{path}"

    async def arrivals(self) -> list[tuple[str, float]]:
        """(event id, seconds since the epoch) of each request; begins anew."""
        async with aiohttp.ClientSession() as client, client.get(self.url("arrivals")) as answer:
            return [(event_id, at) for event_id, at in await answer.json()]


@asynccontextmanager
async def sink() -> AsyncIterator[Sink]:
    """The sink's process, for as long as the block."""
    port = find_free_port()
    process = multiprocessing.get_context("spawn").Process(
        target=serve_sink, args=(port,), daemon=True
    )
    process.start()
    try:
        await wait_listening(port)
        yield Sink(port)
    finally:
        process.terminate()
        process.join(10)


def serve_sink(port: int) -> None:
    """The sink's process."""
    arrivals: list[tuple[str, float]] = []

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Taker(arrivals), HOST, port)
        await server.serve_forever()

    uvloop.run(serve())


class Taker(asyncio.Protocol):
    """One connection: whole requests, one after the other."""

    def __init__(self, arrivals: list[tuple[str, float]]) -> None:
        self.arrivals = arrivals
        self.transport: asyncio.Transport
        self.got = b""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self.got += data
        while (end := self.got.find(b"\r\n\r\n")) >= 0:
            head = self.got[:end].lower() + b"\r\n"
            length = int(value(head, LENGTH) or 0)
            if len(self.got) < end + 4 + length:
                return
            is_asked, self.got = self.got.startswith(ARRIVALS), self.got[end + 4 + length :]
            if is_asked:
                self.tell()
            else:
                self.arrivals.append((value(head, EVENT_ID).decode(), time.time()))
                self.transport.write(TAKEN)

    def tell(self) -> None:
        told = json.dumps(self.arrivals).encode()
        self.arrivals.clear()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(told)}"
        self.transport.write(head.encode() + b"\r\n\r\n" + told)


def value(head: bytes, name: bytes) -> bytes:
    """A header's value; empty when it is not there."""
    _, found, rest = head.partition(name)
    return rest[: rest.index(b"\r\n")].strip() if found else b""
