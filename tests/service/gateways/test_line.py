"""One connection: whatever a receiver writes behind a request, and however it ends."""

import asyncio
import ssl
from pathlib import Path

import pytest

from service.gateways.line import READ_MAX_BYTES
from service.gateways.post import HttpPost
from service.rules.delivery import Fault
from tests.service.gateways.test_post import OK, certificate, receiver, request_to, sent, writing

CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"
EMPTY = b"Content-Length: 0\r\n\r\n"
ANSWERS = {
    "101": (b"HTTP/1.1 101 S\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n\0junk", 101, None),
    "101 bare": (b"HTTP/1.1 101 S\r\n\r\n", 101, None),
    "1.0 until the end": (b"HTTP/1.0 200 OK\r\n\r\nbody", 200, None),
    "1.0 with a length": (b"HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok", 200, None),
    "no length": (b"HTTP/1.1 200 OK\r\n\r\nbody", 200, None),
    "304": (b"HTTP/1.1 304 No\r\nContent-Length: 5\r\n\r\n", 304, None),
    "trailer": (CHUNKED + b"2\r\nok\r\n0\r\nX: y\r\n\r\n", 200, None),
    "trailer that asks": (CHUNKED + b"0\r\nWebhook-Delivery: disable\r\n\r\n", 200, None),
    "chunk with blanks": (CHUNKED + b"2 \r\nok\r\n0\r\n\r\n", 200, None),
    "chunk that ends early": (CHUNKED + b"5\r\nok", 200, None),
    "chunk that is none": (CHUNKED + b"zz\r\nok", 200, None),
    "half a head": (b"HTTP/1.1 200 OK\r\nContent-", 0, Fault.RESET),
    "half a line": (b"HTT", 0, Fault.RESET),
    "interim alone": (b"HTTP/1.1 100 C\r\n\r\n", 0, Fault.RESET),
    "interims": (b"HTTP/1.1 100 C\r\n\r\n" * 9 + OK, 0, Fault.PROTOCOL),
    "no reason": (b"HTTP/1.1 200\r\n" + EMPTY, 200, None),
    "line feeds alone": (b"HTTP/1.1 200 OK\nContent-Length: 0\n\n", 200, None),
    "folded header": (b"HTTP/1.1 200 OK\r\nX: a\r\n b\r\n" + EMPTY, 200, None),
    "HTTP/2": (b"HTTP/2 200 OK\r\n\r\n", 0, Fault.PROTOCOL),
    "two lengths": (b"HTTP/1.1 200 OK\r\nContent-Length: 3\r\n" + EMPTY, 0, Fault.PROTOCOL),
    "length and chunks": (CHUNKED[:-2] + EMPTY + b"0\r\n\r\n", 0, Fault.PROTOCOL),
    "no status": (b"HTTP/1.1 000 No\r\n" + EMPTY, 0, Fault.PROTOCOL),
    "blank in a name": (b"HTTP/1.1 200 OK\r\nX Y: a\r\n" + EMPTY, 0, Fault.PROTOCOL),
    "empty lines first": (b"\r\n\r\n" + OK, 200, None),
    "latin-1": (b"HTTP/1.1 200 \xc9\r\nX: \xe9\r\n" + EMPTY, 200, None),
    "more behind": (OK + b"junk", 200, None),
}


@pytest.mark.parametrize("name", ANSWERS)
async def test_an_answer_is_read_or_told_from_what_is_none(post: HttpPost, name: str) -> None:
    whole, status, fault = ANSWERS[name]
    for pieces in ((whole,), [whole[at : at + 1] for at in range(len(whole))]):
        reply = await sent(post, writing(*pieces))
        assert (reply.status, reply.fault, reply.asks_disable) == (status, fault, False)


@pytest.mark.parametrize(
    "answer",
    [b"HTTP/1.1 200 OK\r\n\r\nbye", b"HTTP/1.1 200 OK\r\nConnection: close\r\n" + EMPTY],
)
async def test_the_address_is_told_of_a_connection_that_has_ended(
    post: HttpPost, answer: bytes
) -> None:
    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(7)
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")
        writer.write(answer)
        await writer.drain()

    async with receiver(answers) as (port, _):
        replies = [await post.send(request_to(f"http://127.0.0.1:{port}/")) for _ in range(2)]
    assert [(reply.status, reply.address) for reply in replies] == [(200, "127.0.0.1")] * 2


async def test_an_answer_that_is_cut_where_another_begins_ends_the_connection(
    post: HttpPost,
) -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n"
    size = READ_MAX_BYTES - len(head % READ_MAX_BYTES)
    whole = head % size + b"x" * size
    assert len(whole) == READ_MAX_BYTES
    connections = 0

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        await reader.readexactly(7)
        writer.write(whole + b"HTTP/1.1 500 No\r\n" + EMPTY)
        await reader.readuntil(b"\r\n\r\n")

    async with receiver(answers) as (port, _):
        replies = [await post.send(request_to(f"http://127.0.0.1:{port}/")) for _ in range(2)]
    assert [reply.status for reply in replies] == [200, 200]
    assert connections == 2


async def test_a_tls_connection_that_ends_without_a_goodbye_is_dialled_anew(
    tmp_path: Path,
) -> None:
    server = certificate(tmp_path)
    trusting = HttpPost(
        allow_private=True, tls=ssl.create_default_context(cafile=tmp_path / "cert.pem")
    )

    async def answers(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(7)
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")
        writer.transport.abort()

    async with receiver(answers, tls=server) as (port, _):
        url = f"https://localhost:{port}/"
        replies = [await trusting.send(request_to(url)) for _ in range(2)]
    await trusting.close()
    assert [(reply.status, reply.fault) for reply in replies] == [(200, None)] * 2


async def test_a_closed_post_replies_as_well(post: HttpPost) -> None:
    await post.close()
    assert (await post.send(request_to("http://name.invalid/"))).fault is not None
