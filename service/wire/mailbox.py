"""The sandbox's mailbox, and what of an escrow's mail has not arrived."""

from datetime import datetime

from service.wire.base import Wire


class MailboxMail(Wire):
    """A mail that was sent; `links` are ours, the first is what its button opens."""

    to: str
    subject: str
    text: str
    html: str
    links: list[str]
    sent_at: datetime


class Mailbox(Wire):
    """Mails that were sent, newest first."""

    mails: list[MailboxMail]


class MailTrouble(Wire):
    """A mail that bounced (`failed`) or is tried again at `next_attempt_at` (`pending`)."""

    to: str
    template: str
    state: str
    attempts: int
    last_error: str
    next_attempt_at: datetime | None
