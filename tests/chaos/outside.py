"""Outsiders that misbehave: receivers on raw sockets, and a line that loses answers."""

import asyncio
import contextlib
import socket
import ssl
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

Answer = Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]
ENDLESS_BYTES_MAX = 64 * 1024 * 1024  # bounded, should somebody read on


@dataclass
class Server:
    """One receiver, and when it was asked."""

    answer: Answer
    url: str = ""
    asked_at: list[float] = field(default_factory=list)
    tasks: set["asyncio.Task[None]"] = field(default_factory=set)

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        self.tasks.add(task)
        try:
            head = await reader.readuntil(b"\r\n\r\n")
            length = next(
                int(line.split(b":")[1])
                for line in head.lower().split(b"\r\n")
                if line.startswith(b"content-length:")
            )
            await reader.readexactly(length)
            self.asked_at.append(time.monotonic())
            await self.answer(reader, writer)
        except (OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            pass  # the sender has had enough, or the test has
        finally:
            self.tasks.discard(task)
            writer.close()


@contextlib.asynccontextmanager
async def served(answer: Answer, tls: ssl.SSLContext | None = None) -> AsyncIterator[Server]:
    """A receiver that answers like this on a free port of the loopback."""
    server = Server(answer)
    listener = await asyncio.start_server(server.take, "127.0.0.1", 0, ssl=tls)
    port = listener.sockets[0].getsockname()[1]
    server.url = f"{'https' if tls else 'http'}://127.0.0.1:{port}/hook"
    try:
        yield server
    finally:
        listener.close()
        for task in server.tasks:
            task.cancel()
        await asyncio.gather(*server.tasks, return_exceptions=True)


@contextlib.asynccontextmanager
async def never_accepting() -> AsyncIterator[str]:
    """A port whose queue of connections is full: nobody is let in, nobody is refused."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=0)
    callers = []
    try:
        for _ in range(4):
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(0.2):
                    _, writer = await asyncio.open_connection(*listener.getsockname())
                    callers.append(writer)
        yield "http://{}:{}/hook".format(*listener.getsockname())
    finally:
        for writer in callers:
            writer.close()
        listener.close()


def says(status: str, *headers: str, body: bytes = b"") -> Answer:
    """This status, these headers, this body, and the connection stays usable."""
    head = "\r\n".join([f"HTTP/1.1 {status}", f"Content-Length: {len(body)}", *headers])

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(f"{head}\r\nConnection: close\r\n\r\n".encode() + body)
        await writer.drain()

    return answer


def in_turn(*answers: Answer) -> Answer:
    """The first request gets the first answer …, later ones the last."""
    left = list(answers)

    async def answer(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await (left.pop(0) if len(left) > 1 else left[0])(reader, writer)

    return answer


def after(seconds: float, answer: Answer) -> Answer:
    """The answer, slowly."""

    async def slow(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await asyncio.sleep(seconds)
        await answer(reader, writer)

    return slow


async def reset_after_2xx(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """A status, the promise of a body, and a reset."""
    writer.write(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf")
    await writer.drain()
    await asyncio.sleep(0.1)
    writer.transport.abort()


async def reset(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """Gone without a word."""
    writer.transport.abort()


async def byte_a_second(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    """An answer that would be whole after a minute."""
    for byte in b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n" + b"X-Slow: yes\r\n" * 2 + b"\r\n":
        writer.write(bytes([byte]))
        await writer.drain()
        await asyncio.sleep(1)


def endless(head: bytes, block: bytes) -> Answer:
    """An answer without an end."""

    async def answer(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        for _ in range(ENDLESS_BYTES_MAX // len(block)):
            writer.write(block)
            await writer.drain()

    return answer


endless_body = endless(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n",
                       b"10000\r\n" + b"x" * 65536 + b"\r\n")  # fmt: skip
endless_interim = endless(b"", b"HTTP/1.1 100 Continue\r\n\r\n" * 40)
endless_head = endless(b"HTTP/1.1 200 OK\r\n", b"X-More: " + b"y" * 1000 + b"\r\n")


def self_signed(
    folder: Path, name: str = "self-signed", *, host: str = "127.0.0.1", days: int = 1
) -> ssl.SSLContext:
    """TLS by a certificate that nobody vouches for but who trusts `folder/name.pem` itself.

    It is for `host` (an address) and ends in so many days.
    """
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, f"{name} {host}")])
    end = datetime.now(UTC) + timedelta(days=days)
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(end - timedelta(days=10))
        .not_valid_after(end)
        .add_extension(
            x509.SubjectAlternativeName([x509.IPAddress(ip_address(host))]), critical=False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = folder / f"{name}.pem"
    shown = certificate.public_bytes(serialization.Encoding.PEM)
    (folder / f"{name}.crt").write_bytes(shown)
    pem.write_bytes(
        key.private_bytes(
            serialization.Encoding.PEM,
            serialization.PrivateFormat.PKCS8,
            serialization.NoEncryption(),
        )
        + shown
    )
    tls = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    tls.load_cert_chain(pem)
    return tls


@dataclass
class Line:
    """A line to an ingress, and how many answers it has lost."""

    url: str
    lost: int = 0


@contextlib.asynccontextmanager
async def lossy_line(target: int) -> AsyncIterator[Line]:
    """Every request arrives; the connection breaks where its answer would begin."""
    tasks: set[asyncio.Task[None]] = set()

    async def carry(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        far_reader, far_writer = await asyncio.open_connection("127.0.0.1", target)
        there = asyncio.create_task(_pump(reader, far_writer))
        try:
            if await far_reader.read(1):
                line.lost += 1
        finally:
            writer.transport.abort()
            there.cancel()
            await asyncio.gather(there, return_exceptions=True)
            far_writer.close()
            tasks.discard(task)

    listener = await asyncio.start_server(carry, "127.0.0.1", 0)
    line = Line("http://{}:{}".format(*listener.sockets[0].getsockname()))
    try:
        yield line
    finally:
        listener.close()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    with contextlib.suppress(OSError):
        while sent := await reader.read(65536):
            writer.write(sent)
            await writer.drain()
