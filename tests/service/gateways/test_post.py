"""The guarded sender against receivers that behave, misbehave, and are not there."""

import asyncio
import contextlib
import socket
import ssl
import struct
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from service.gateways.line import KEEP_MAX_BYTES
from service.gateways.post import HttpPost, Request
from service.rules.delivery import Fault, Reply

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
OK = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"
CHUNKED = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@contextlib.asynccontextmanager
async def receiver(
    answer: Answer, *, tls: ssl.SSLContext | None = None
) -> AsyncIterator[tuple[int, list[bytes]]]:
    """A server that reads one request a connection and lets `answer` write; its port, the heads."""
    heads: list[bytes] = []
    open_writers: set[asyncio.StreamWriter] = set()

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        open_writers.add(writer)
        with contextlib.suppress(OSError, asyncio.IncompleteReadError):
            heads.append(await reader.readuntil(b"\r\n\r\n"))
            await answer(reader, writer)
        with contextlib.suppress(OSError):
            writer.close()

    server = await asyncio.start_server(serve, "127.0.0.1", 0, ssl=tls)
    try:
        yield server.sockets[0].getsockname()[1], heads
    finally:
        server.close()
        for writer in open_writers:
            writer.transport.abort()


def writing(*pieces: bytes, pause: float = 0) -> Answer:
    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for piece in pieces:
            writer.write(piece)
            await writer.drain()
            await asyncio.sleep(pause)

    return answer


async def never(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    await asyncio.sleep(30)


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.transport.abort()


async def endless(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    writer.write(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n")
    while True:
        writer.write(b"4000\r\n" + b"x" * 0x4000 + b"\r\n")
        await writer.drain()


def request_to(url: str, timeout_seconds: float = 2) -> Request:
    return Request(url, {"X-Webhook-Event": "escrow.created"}, b'{"a":1}', timeout_seconds)


async def sent(post: HttpPost, answer: Answer, timeout_seconds: float = 2) -> Reply:
    async with receiver(answer) as (port, _):
        return await post.send(request_to(f"http://127.0.0.1:{port}/hook", timeout_seconds))


async def test_an_answer_is_reported_with_its_headers_and_first_bytes(post: HttpPost) -> None:
    reply = await sent(
        post,
        writing(
            b"HTTP/1.1 503 Busy\r\nRetry-After: 7\r\nWebhook-Delivery: disable\r\n"
            b"Content-Length: 4\r\n\r\nbusy"
        ),
    )
    assert (reply.status, reply.fault, reply.retry_after) == (503, None, "7")
    assert (reply.asks_disable, reply.answer, reply.address) == (True, b"busy", "127.0.0.1")
    assert reply.first_byte_ms is not None
    assert reply.first_byte_ms <= reply.total_ms < 2000


async def test_the_time_to_connect_is_told_where_there_was_anything_to_connect(
    post: HttpPost,
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readexactly(7)
            writer.write(OK)
            await reader.readuntil(b"\r\n\r\n")

    async with receiver(answer) as (port, _):
        first, second = [await post.send(request_to(f"http://127.0.0.1:{port}/")) for _ in range(2)]
    assert first.connect_ms is not None
    assert first.first_byte_ms is not None
    assert 0 <= first.connect_ms <= first.first_byte_ms
    assert second.connect_ms is None


async def test_the_request_is_a_plain_post_of_the_exact_bytes(post: HttpPost) -> None:
    bodies = []

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        bodies.append(await reader.readexactly(7))
        writer.write(OK)

    async with receiver(answer) as (port, heads):
        await post.send(request_to(f"http://127.0.0.1:{port}/a/b?c=d"))
    head = heads[0].decode().lower()
    assert bodies == [b'{"a":1}']
    assert head.startswith("post /a/b?c=d http/1.1\r\n")
    assert "accept-encoding: identity\r\n" in head
    assert "x-webhook-event: escrow.created\r\n" in head


@pytest.mark.parametrize("status", [301, 302, 303, 307, 308])
async def test_a_redirect_is_an_answer_and_is_never_followed(post: HttpPost, status: int) -> None:
    async with receiver(writing(OK)) as (inner, heads):
        location = f"http://127.0.0.1:{inner}/secret".encode()
        moved = b"HTTP/1.1 %d Moved\r\nLocation: %s\r\nContent-Length: 0\r\n\r\n"
        reply = await sent(post, writing(moved % (status, location)))
        assert reply.status == status
        assert heads == []


async def test_an_endless_body_is_cut_and_the_status_counts(post: HttpPost) -> None:
    reply = await sent(post, endless)
    assert (reply.status, reply.fault) == (200, None)
    assert reply.answer == b"x" * KEEP_MAX_BYTES


async def test_a_compressed_body_is_kept_as_it_came(post: HttpPost) -> None:
    bomb = b"\x1f\x8b" + b"\x00" * 100
    head = b"HTTP/1.1 200 OK\r\nContent-Encoding: gzip\r\nContent-Length: 102\r\n\r\n"
    reply = await sent(post, writing(head + bomb))
    assert (reply.status, reply.fault, reply.answer) == (200, None, bomb)


async def test_a_connection_that_breaks_behind_the_status_still_answered(post: HttpPost) -> None:
    reply = await sent(post, writing(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\nhalf"))
    assert (reply.status, reply.fault, reply.is_success) == (200, None, True)


@pytest.mark.parametrize(
    "answer",
    [
        never,
        writing(*(bytes([byte]) for byte in OK), pause=0.1),
        writing(b"HTTP/1.1 200 OK\r\nContent-Length: 99\r\n\r\n", *[b"x"] * 99, pause=0.1),
    ],
    ids=["silent", "one byte a second", "a body that drips"],
)
async def test_the_deadline_is_for_the_whole_exchange(post: HttpPost, answer: Answer) -> None:
    started = time.monotonic()
    reply = await sent(post, answer, timeout_seconds=0.4)
    assert (reply.status, reply.fault) == (0, Fault.TIMEOUT)
    assert 0.35 < time.monotonic() - started < 1.5


async def test_a_reset_without_an_answer_is_a_reset(post: HttpPost) -> None:
    assert (await sent(post, reset)).fault is Fault.RESET
    assert (await sent(post, writing())).fault is Fault.RESET


async def test_what_is_no_http_is_a_protocol_fault(post: HttpPost) -> None:
    assert (await sent(post, writing(b"SSH-2.0-OpenSSH_9\r\n"))).fault is Fault.PROTOCOL
    huge = b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000 + b"\r\n\r\n"
    assert (await sent(post, writing(huge))).fault is Fault.PROTOCOL


async def test_nobody_listening_is_refused(post: HttpPost) -> None:
    async with receiver(never) as (port, _):
        pass
    assert (await post.send(request_to(f"http://127.0.0.1:{port}/"))).fault is Fault.REFUSED


async def test_an_unknown_host_is_a_name_fault(post: HttpPost) -> None:
    assert (await post.send(request_to("http://no-such-host.invalid/", 5))).fault is Fault.DNS


@pytest.mark.parametrize("url", ["http://", "ftp://example.com/", "not a url"])
async def test_an_unusable_url_is_said_to_be_one(post: HttpPost, url: str) -> None:
    assert (await post.send(request_to(url))).fault is Fault.BAD_URL


@pytest.mark.parametrize(
    "host",
    [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "2130706433",
        "0x7f.1",
        "１２７.0.0.1",  # noqa: RUF001 - full-width digits are the point
        "0.0.0.0",
    ],
)
async def test_the_guard_stops_every_way_to_write_an_inner_address(host: str) -> None:
    strict = HttpPost()
    async with receiver(writing(OK)) as (port, heads):
        reply = await strict.send(request_to(f"http://{host}:{port}/"))
        assert reply.fault in (Fault.BLOCKED, Fault.BAD_URL)  # some are no host at all to aiohttp
        assert heads == []
    await strict.close()


async def test_the_guard_lets_nobody_out_by_another_port() -> None:
    strict = HttpPost()
    assert (await strict.send(request_to("http://8.8.8.8:8080/"))).fault is Fault.BLOCKED
    await strict.close()


async def test_a_proxy_of_the_environment_is_not_used(
    post: HttpPost, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with receiver(writing(OK)) as (proxy, heads):
        monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{proxy}")
        monkeypatch.setenv("http_proxy", f"http://127.0.0.1:{proxy}")
        assert (await sent(post, writing(OK))).status == 200
        assert heads == []


async def test_an_idle_connection_closed_by_the_receiver_is_no_failed_attempt(
    post: HttpPost,
) -> None:
    """The second request meets the end of a connection that the first one left open."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(7)
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")  # hangs up on the next request, unanswered

    async with receiver(answer) as (port, heads):
        replies = [await post.send(request_to(f"http://127.0.0.1:{port}/")) for _ in range(2)]
    assert [reply.status for reply in replies] == [200, 200]
    assert len(heads) == 2


async def test_an_idle_connection_reset_by_the_receiver_is_no_failed_attempt_either(
    post: HttpPost,
) -> None:
    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(7)
        writer.write(OK)
        await reader.readuntil(b"\r\n\r\n")
        raw = writer.get_extra_info("socket")
        raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))

    async with receiver(answer) as (port, heads):
        replies = [await post.send(request_to(f"http://127.0.0.1:{port}/")) for _ in range(2)]
    assert [reply.status for reply in replies] == [200, 200]
    assert len(heads) == 2


def certificate(folder: Path, *, days: int = 1, name: str = "localhost") -> ssl.SSLContext:
    """A server's context with a self-signed certificate that ends in `days`."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, name)])
    end = datetime.now(UTC) + timedelta(days=days)
    signed = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(end - timedelta(days=10))
        .not_valid_after(end)
        .add_extension(x509.SubjectAlternativeName([x509.DNSName(name)]), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    (folder / "cert.pem").write_bytes(signed.public_bytes(serialization.Encoding.PEM))
    (folder / "key.pem").write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
    )
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / "cert.pem", folder / "key.pem")
    return context


@pytest.mark.parametrize(
    ("trusted", "days", "name", "expected"),
    [
        (True, 1, "localhost", (200, None)),
        (False, 1, "localhost", (0, Fault.TLS)),
        (True, -1, "localhost", (0, Fault.TLS)),
        (True, 1, "elsewhere.example", (0, Fault.TLS)),
    ],
    ids=["sound", "self-signed", "expired", "wrong host"],
)
async def test_tls_is_verified(
    tmp_path: Path, trusted: bool, days: int, name: str, expected: tuple[int, Fault | None]
) -> None:
    server = certificate(tmp_path, days=days, name=name)
    client = ssl.create_default_context(cafile=tmp_path / "cert.pem" if trusted else None)
    strict = HttpPost(allow_private=True, tls=client)
    async with receiver(writing(OK), tls=server) as (port, _):
        reply = await strict.send(request_to(f"https://localhost:{port}/"))
    await strict.close()
    assert (reply.status, reply.fault) == expected


async def test_the_phases_of_a_dialled_connection_are_told_apart(tmp_path: Path) -> None:
    server = certificate(tmp_path)
    trusting = HttpPost(
        allow_private=True, tls=ssl.create_default_context(cafile=tmp_path / "cert.pem")
    )

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        for _ in range(2):
            await reader.readexactly(7)
            await asyncio.sleep(0.05)
            writer.write(OK)
            await reader.readuntil(b"\r\n\r\n")

    async with receiver(answer, tls=server) as (port, _):
        url = f"https://localhost:{port}/"
        first, second = [await trusting.send(request_to(url)) for _ in range(2)]
    await trusting.close()
    phases = [first.dns_ms, first.connect_ms, first.tls_ms]
    assert all(phase is not None for phase in phases)
    assert sum(phase or 0 for phase in phases) <= (first.first_byte_ms or 0) - 45
    assert (second.dns_ms, second.connect_ms, second.tls_ms) == (None, None, None)
    assert (second.first_byte_ms or 0) >= 50


async def test_the_phases_that_a_failed_attempt_came_through_are_told(tmp_path: Path) -> None:
    async with receiver(never, tls=certificate(tmp_path)) as (port, _):
        strict = HttpPost(allow_private=True)
        reply = await strict.send(request_to(f"https://localhost:{port}/"))
        await strict.close()
    assert reply.fault is Fault.TLS
    assert None not in (reply.dns_ms, reply.connect_ms, reply.tls_ms)
    assert reply.first_byte_ms is None


@pytest.mark.parametrize("value", ["a\r\nX-Evil: yes", "a\nb", "a\rb", "a\0b"])
async def test_no_header_becomes_two(post: HttpPost, value: str) -> None:
    async with receiver(writing(OK)) as (port, heads):
        asked = Request(f"http://127.0.0.1:{port}/", {"X-Tenant": value}, b"{}", 2)
        assert (await post.send(asked)).fault is Fault.BAD_URL
        assert heads == []


async def test_a_user_name_in_the_url_is_not_sent(post: HttpPost) -> None:
    async with receiver(writing(OK)) as (port, heads):
        reply = await post.send(request_to(f"http://me:secret@127.0.0.1:{port}/"))
    assert (reply.fault, heads) == (Fault.BAD_URL, [])


@pytest.mark.parametrize(
    "answer",
    [
        b"HTTP/1.1 100 Continue\r\n\r\n" + OK,
        b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n" + OK,
    ],
)
async def test_what_comes_before_the_answer_is_not_the_answer(
    post: HttpPost, answer: bytes
) -> None:
    assert (await sent(post, writing(answer))).status == 200


async def test_interim_answers_without_end_are_read_no_further(post: HttpPost) -> None:
    early = b"HTTP/1.1 103 Early Hints\r\nRetry-After: 9\r\n\r\n"
    assert (await sent(post, writing(early * 5 + OK))).fault is Fault.PROTOCOL
    reply = await sent(post, writing(early * 4 + OK))
    assert (reply.status, reply.retry_after, reply.answer) == (200, None, b"ok")


@pytest.mark.parametrize(
    ("answer", "status", "body"),
    [
        (b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\nx", 101, b""),
        (b"HTTP/1.0 200 OK\r\n\r\nuntil the end", 200, b"until the end"),
        (CHUNKED + b"2\r\nok\r\n0\r\nA: b\r\n\r\n", 200, b"ok"),
        (CHUNKED + b"2\r\nok\r\nno\r\n", 200, b"ok"),
        (b"HTTP/1.1 204 No Content\r\n\r\n", 204, b""),
    ],
)  # fmt: skip
async def test_every_way_to_end_an_answer_is_read(
    post: HttpPost, answer: bytes, status: int, body: bytes
) -> None:
    for pieces in ((answer,), [answer[at : at + 1] for at in range(len(answer))]):
        reply = await sent(post, writing(*pieces))
        assert (reply.status, reply.fault, reply.answer) == (status, None, body)


async def test_what_is_left_on_a_connection_is_no_answer_to_the_next(post: HttpPost) -> None:
    """A receiver that answers twice to one request is not believed the second time."""

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readexactly(7)
        writer.write(OK + b"HTTP/1.1 500 No\r\nContent-Length: 0\r\n\r\n")
        await reader.readuntil(b"\r\n\r\n")

    async with receiver(answer) as (port, heads):
        first = await post.send(request_to(f"http://127.0.0.1:{port}/"))
        await asyncio.sleep(0.05)
        second = await post.send(request_to(f"http://127.0.0.1:{port}/"))
    assert (first.status, second.status) == (200, 200)
    assert len(heads) == 2


async def test_a_connection_is_kept_and_used_again(post: HttpPost) -> None:
    connections = 0

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        nonlocal connections
        connections += 1
        while True:
            await reader.readexactly(7)
            writer.write(OK)
            await reader.readuntil(b"\r\n\r\n")

    async with receiver(answer) as (port, _):
        for _ in range(5):
            assert (await post.send(request_to(f"http://127.0.0.1:{port}/"))).answer == b"ok"
    assert connections == 1
