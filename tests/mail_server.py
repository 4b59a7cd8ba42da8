"""A mail server of the outside: takes mails, or answers what it is told to, slowly if asked."""

import asyncio
import email
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from email.message import EmailMessage
from email.policy import default

from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session

from service.cli.mailcatcher import find_free_port


@dataclass
class MailServer:
    """`refusals` answer RCPT by recipient; `replies` answer DATA, in order, before it takes any."""

    refusals: dict[str, str] = field(default_factory=dict)
    replies: list[str] = field(default_factory=list)
    rcpt_seconds: float = 0.0
    data_seconds: float = 0.0
    taken: list[tuple[str, EmailMessage]] = field(default_factory=list)
    sessions: int = 0
    taking_now: int = 0
    most_at_once: int = 0

    async def handle_EHLO(  # noqa: N802 - the name aiosmtpd looks for
        self, _server: SMTP, session: Session, _: Envelope, host: str, responses: list[str]
    ) -> list[str]:
        self.sessions += 1
        session.host_name = host
        return responses

    async def handle_RCPT(  # noqa: N802 - the name aiosmtpd looks for
        self, _server: SMTP, _session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        await asyncio.sleep(self.rcpt_seconds)
        if address in self.refusals:
            return self.refusals[address]
        envelope.rcpt_tos.append(address)
        return "250 ok"

    async def handle_DATA(  # noqa: N802 - the name aiosmtpd looks for
        self, _server: SMTP, _session: Session, envelope: Envelope
    ) -> str:
        self.taking_now += 1
        self.most_at_once = max(self.most_at_once, self.taking_now)
        try:
            await asyncio.sleep(self.data_seconds)
        finally:
            self.taking_now -= 1
        if self.replies:
            return self.replies.pop(0)
        message = email.message_from_bytes(envelope.original_content or b"", policy=default)
        self.taken += [(recipient, message) for recipient in envelope.rcpt_tos]
        return "250 taken"

    def to(self, recipient: str) -> list[EmailMessage]:
        return [message for address, message in self.taken if address == recipient]


@contextmanager
def serving(server: MailServer, port: int = 0) -> Iterator[str]:
    """The server on the loopback; gives its SMTP_URL."""
    controller = Controller(
        server,
        hostname="127.0.0.1",
        port=port or find_free_port(),
        enable_SMTPUTF8=True,
        ready_timeout=10.0,
    )
    controller.start()
    try:
        yield f"smtp://127.0.0.1:{controller.port}"
    finally:
        controller.stop()


async def until(happened: Callable[[], bool], seconds: float) -> None:
    """Wait until it has happened in the server's thread; TimeoutError when it does not."""
    async with asyncio.timeout(seconds):
        while True:
            if happened():
                return
            await asyncio.sleep(0.01)
