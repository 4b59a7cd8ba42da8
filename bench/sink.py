"""The sink: a receiver in a process of its own that answers 200 and notes what came when.

As lean as can be, so that whoever posts to it is what is measured. Given a time to think, it can
say how many requests a path had in flight at once.
"""

import asyncio
import json
import multiprocessing
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import cast

import aiohttp
import uvloop

from bench.ground import HOST, wait_listening
from service.cli.ports import find_free_port

TAKEN = b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"
ARRIVALS = b"GET /arrivals "
AT_ONCE = b"GET /at-once "
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

    async def most_at_once(self) -> dict[str, int]:
        """Of each path, how many requests were unanswered at once, at most."""
        async with aiohttp.ClientSession() as client, client.get(self.url("at-once")) as answer:
            return dict(await answer.json())


@asynccontextmanager
async def sink(think_seconds: float = 0.0) -> AsyncIterator[Sink]:
    """The sink's process, for as long as the block; it answers each request after so long."""
    port = find_free_port()
    process = multiprocessing.get_context("spawn").Process(
        target=serve_sink, args=(port, think_seconds), daemon=True
    )
    process.start()
    try:
        await wait_listening(port)
        yield Sink(port)
    finally:
        process.terminate()
        process.join(10)


@dataclass
class Heard:
    """What all connections of the sink have heard."""

    think_seconds: float
    arrivals: list[tuple[str, float]] = field(default_factory=list)
    in_flight: Counter[str] = field(default_factory=Counter)
    most: dict[str, int] = field(default_factory=dict)


def serve_sink(port: int, think_seconds: float) -> None:
    """The sink's process."""
    heard = Heard(think_seconds)

    async def serve() -> None:
        loop = asyncio.get_running_loop()
        server = await loop.create_server(lambda: Taker(heard), HOST, port)
        await server.serve_forever()

    uvloop.run(serve())


class Taker(asyncio.Protocol):
    """One connection: whole requests, one after the other."""

    def __init__(self, heard: Heard) -> None:
        self.heard = heard
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
            begun, self.got = self.got[:end], self.got[end + 4 + length :]
            if begun.startswith(ARRIVALS):
                self.tell(self.heard.arrivals)
                self.heard.arrivals.clear()
            elif begun.startswith(AT_ONCE):
                self.tell(self.heard.most)
            else:
                self.heard.arrivals.append((value(head, EVENT_ID).decode(), time.time()))
                self.take(begun)

    def take(self, begun: bytes) -> None:
        if not self.heard.think_seconds:
            self.transport.write(TAKEN)
            return
        path = begun.split(b" ", 2)[1].decode()
        self.heard.in_flight[path] += 1
        self.heard.most[path] = max(self.heard.most.get(path, 0), self.heard.in_flight[path])
        asyncio.get_running_loop().call_later(self.heard.think_seconds, self.answer, path)

    def answer(self, path: str) -> None:
        self.heard.in_flight[path] -= 1
        self.transport.write(TAKEN)

    def tell(self, facts: object) -> None:
        told = json.dumps(facts).encode()
        head = f"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {len(told)}"
        self.transport.write(head.encode() + b"\r\n\r\n" + told)


def value(head: bytes, name: bytes) -> bytes:
    """A header's value; empty when it is not there."""
    _, found, rest = head.partition(name)
    return rest[: rest.index(b"\r\n")].strip() if found else b""
