"""Sending a mail: SMTP, and the sandbox's own when no server is named.

Every failure is a `GatewayFailure`: permanent when this mail can never be delivered (the address or
the content was refused), temporary when the same mail may go later (the server is away, slow,
busy, or will not talk to us as we are configured).
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AbstractAsyncContextManager, asynccontextmanager
from dataclasses import dataclass
from datetime import datetime
from email.errors import MessageError
from email.headerregistry import BaseHeader, HeaderRegistry
from email.message import EmailMessage
from email.policy import SMTP as SMTP_POLICY
from email.policy import SMTPUTF8 as SMTPUTF8_POLICY
from email.utils import format_datetime, parseaddr
from functools import lru_cache
from typing import Any, Protocol
from urllib.parse import parse_qsl, unquote, urlsplit

import aiosmtplib
import structlog

from service.rules.errors import GatewayFailure
from service.wire.text import ascii_domain

CONNECT_TIMEOUT_SECONDS = 5.0
OFFER_TIMEOUT_SECONDS = 15.0
# A server that is cut off while it takes the mail may have taken it, and the next try is a second
# copy: as long as a job of a worker (60 s) allows.
HAND_OVER_TIMEOUT_SECONDS = 30.0
GOODBYE_TIMEOUT_SECONDS = 1.0
IDLE_CONNECTIONS = 4
PORTS = {"smtp": 25, "smtps": 465}
START_TLS = {"required": True, "never": False}
REASON_CHARACTERS = 300
ADDRESS_CHARACTERS = 254
AWAY = (aiosmtplib.SMTPException, TimeoutError, OSError)

log = structlog.get_logger()

HandOver = Callable[[], Awaitable[None]]


@dataclass(frozen=True, slots=True)
class Letter:
    """One mail to one recipient; `message_id` (with its <>) is the same on every try."""

    recipient: str
    subject: str
    text: str
    html: str
    language: str
    message_id: str
    written_at: datetime


class Mailer(Protocol):
    """Whoever takes our letters, in two movements, so that the second can be done one at a time."""

    def offered(self, letter: Letter) -> AbstractAsyncContextManager[HandOver]:
        """Everything up to the content; entering raises GatewayFailure when it is refused.

        What it gives hands the letter over: once that returned the letter was taken, and until it
        is called it was not; it raises GatewayFailure.
        """

    async def close(self) -> None:
        """Say goodbye."""


class Headers(HeaderRegistry):
    """Makes a header once: most are the same in every letter, and making them is most of the work.

    A header is a string that nobody changes, so letters can share it.
    """

    def __init__(self) -> None:
        super().__init__()
        self._kind_of = lru_cache(maxsize=64)(super().__getitem__)
        self._made = lru_cache(maxsize=256)(super().__call__)

    def __getitem__(self, name: str) -> type[BaseHeader]:
        return self._kind_of(name)

    def __call__(self, name: str, value: Any) -> BaseHeader:
        return self._made(name, value)


COMPOSING = SMTP_POLICY.clone(header_factory=Headers())


class SandboxMailer:
    """Takes every letter and keeps none: the sandbox's mailbox renders mails from their rows."""

    @asynccontextmanager
    async def offered(self, letter: Letter) -> AsyncIterator[HandOver]:
        """Take it, if it could be written at all."""
        composed(letter, "Amana <amana@localhost>")

        async def hand_over() -> None:
            await asyncio.sleep(0)

        yield hand_over

    async def close(self) -> None:
        """Nothing is open."""


class SmtpMailer:
    """A mail server named by a URL: `smtp://[user:password@]host[:port]`, `smtps://` for TLS.

    With `smtp` the connection is upgraded when the server offers it; `?starttls=required` insists,
    `?starttls=never` does not ask. A few connections are kept open between letters.
    """

    def __init__(
        self,
        url: str,
        sender: str,
        *,
        offer_seconds: float = OFFER_TIMEOUT_SECONDS,
        hand_over_seconds: float = HAND_OVER_TIMEOUT_SECONDS,
    ) -> None:
        parts = urlsplit(url)
        if parts.scheme not in PORTS or not parts.hostname:
            raise ValueError("SMTP_URL must be smtp://host[:port] or smtps://host[:port]")
        options = dict(parse_qsl(parts.query))
        self._secure = parts.scheme == "smtps"
        self._start_tls = START_TLS.get(options.get("starttls", ""))
        self._host, self._port = parts.hostname, parts.port or PORTS[parts.scheme]
        self._user = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        self._sender = sender
        self._offer_seconds, self._hand_over_seconds = offer_seconds, hand_over_seconds
        self._idle: list[aiosmtplib.SMTP] = []

    @asynccontextmanager
    async def offered(self, letter: Letter) -> AsyncIterator[HandOver]:
        """A connection on which the server accepts sender and recipient.

        It is kept for the next letter only when this one went through.
        """
        message = composed(letter, self._sender)
        try:
            async with asyncio.timeout(self._offer_seconds):
                smtp = await self._reused() or await self._connected()
        except AWAY as failure:
            raise failure_of(failure) from failure
        try:
            with _translated():
                async with asyncio.timeout(self._offer_seconds):
                    content = await _addressed(smtp, message, parseaddr(self._sender)[1])

            async def hand_over() -> None:
                with _translated():
                    async with asyncio.timeout(self._hand_over_seconds):
                        await smtp.data(content, timeout=self._hand_over_seconds)

            yield hand_over
        except BaseException:
            smtp.close()
            raise
        self._keep(smtp)

    async def close(self) -> None:
        """Say goodbye on the connections that nobody uses."""
        while self._idle:
            smtp = self._idle.pop()
            with contextlib.suppress(*AWAY):
                await smtp.quit(timeout=GOODBYE_TIMEOUT_SECONDS)
            smtp.close()

    def _keep(self, smtp: aiosmtplib.SMTP) -> None:
        if len(self._idle) < IDLE_CONNECTIONS:
            self._idle.append(smtp)
        else:
            smtp.close()

    async def _reused(self) -> aiosmtplib.SMTP | None:
        # Asked before the letter, so that a connection which the server has dropped costs no
        # try, and a letter is never sent twice to find out.
        while self._idle:
            smtp = self._idle.pop()
            try:
                await smtp.rset(timeout=CONNECT_TIMEOUT_SECONDS)
            except AWAY:
                smtp.close()
            except BaseException:
                smtp.close()
                raise
            else:
                return smtp
        return None

    async def _connected(self) -> aiosmtplib.SMTP:
        smtp = aiosmtplib.SMTP(
            hostname=self._host,
            port=self._port,
            username=self._user,
            password=self._password,
            use_tls=self._secure,
            start_tls=False if self._secure else self._start_tls,
            timeout=CONNECT_TIMEOUT_SECONDS,
        )
        try:
            await smtp.connect()
        except BaseException:
            smtp.close()
            raise
        # From here on the two movements' own time-outs count.
        smtp.timeout = self._offer_seconds
        return smtp


async def _addressed(smtp: aiosmtplib.SMTP, message: EmailMessage, sender: str) -> bytes:
    """Name sender and recipient to the server; the content as this server wants it."""
    recipient = str(message["To"])
    foreign = not (sender.isascii() and recipient.isascii())
    if foreign and not smtp.supports_extension("smtputf8"):
        raise GatewayFailure("the mail server takes no such address (SMTPUTF8)", permanent=True)
    eight_bit = smtp.supports_extension("8bitmime")
    options = ["SMTPUTF8"] if foreign else []
    options += ["BODY=8BITMIME"] if eight_bit else []
    encoding = "utf-8" if foreign else "ascii"
    await smtp.mail(sender, options=options, encoding=encoding)
    await smtp.rcpt(recipient, encoding=encoding)
    policy = SMTPUTF8_POLICY if foreign else SMTP_POLICY
    return message.as_bytes(policy=policy.clone(cte_type="8bit" if eight_bit else "7bit"))


def composed(letter: Letter, sender: str) -> EmailMessage:
    """The letter as a message: text and HTML, marked as written by a machine.

    Raises GatewayFailure (permanent) for an address or subject that no header can hold.
    """
    message = EmailMessage(policy=COMPOSING)
    try:
        message["From"] = sender
        message["To"] = _mailable(letter.recipient)
        message["Subject"] = _inert(letter.subject)
        message["Date"] = format_datetime(letter.written_at)
        message["Message-ID"] = letter.message_id
        message["Auto-Submitted"] = "auto-generated"
    except (ValueError, UnicodeError, MessageError) as failure:
        raise GatewayFailure(f"cannot be written: {_line(failure)}", permanent=True) from failure
    message.set_content(letter.text)
    message.add_alternative(letter.html, subtype="html")
    # Last: set before, it would have become the header of the text alone.
    message["Content-Language"] = letter.language
    return message


def _inert(subject: str) -> str:
    """The subject as it is to be read: nothing in it is decoded, nothing ends the header.

    An encoded word (RFC 2047) that somebody typed would be decoded by the library, line ends and
    all; a word joiner in its opening keeps it text. Raises ValueError for a line end or NUL.
    """
    if any(character in subject for character in "\r\n\0"):
        raise ValueError("a line end in the subject")
    return subject.replace("=?", "=\u2060?")


def _mailable(address: str) -> str:
    """The address with its domain in ASCII, so that only a non-ASCII name needs SMTPUTF8."""
    name, _, domain = address.rpartition("@")
    if not name or len(address) > ADDRESS_CHARACTERS or address != "".join(address.split()):
        raise ValueError("not an address")
    return f"{name}@{ascii_domain(domain)}"


@contextlib.contextmanager
def _translated() -> Iterator[None]:
    """What goes wrong within, as a GatewayFailure."""
    try:
        yield
    except AWAY as failure:
        raise failure_of(failure) from failure
    except ValueError as failure:
        raise GatewayFailure(f"cannot be sent: {_line(failure)}", permanent=True) from failure


def failure_of(failure: Exception) -> GatewayFailure:
    """What an SMTP failure means for this letter; the reason is one line, bounded.

    It is shown to partners: what the server says of us, or of the way to it, is for the log.
    """
    if isinstance(failure, aiosmtplib.SMTPRecipientRefused | aiosmtplib.SMTPDataError):
        reason = f"{failure.code} {_line(failure.message)}"
        return GatewayFailure(reason, permanent=500 <= failure.code < 600)
    if isinstance(failure, aiosmtplib.SMTPResponseException):
        # Greeting, log-in or sender refused: our configuration, which somebody will mend.
        log.warning("mail_server_refused_us", reason=f"{failure.code} {_line(failure.message)}")
        return _temporary("the mail server takes nothing from us at the moment")
    if isinstance(failure, TimeoutError | aiosmtplib.SMTPTimeoutError):
        return _temporary("the mail server did not answer in time")
    log.warning("mail_server_away", reason=f"{type(failure).__name__}: {_line(failure)}")
    return _temporary("the mail server could not be reached")


def _temporary(reason: str) -> GatewayFailure:
    return GatewayFailure(reason, permanent=False)


def _line(words: object) -> str:
    """One bounded line; aiosmtplib keeps a server's odd bytes as lone surrogates."""
    clean = str(words).encode("utf-8", "replace").decode().replace("\x00", "")
    return " ".join(clean.split())[:REASON_CHARACTERS]
