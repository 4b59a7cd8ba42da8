"""The sandbox's mailbox as a page, for whoever sits at the machine that it runs on.

It shows invitation links and asks for no key, so it answers loopback callers only. A browser is
such a caller for any site that it has open, so the name that it calls us by must be a loopback's.
"""

from urllib.parse import urlsplit

from aiohttp import web

from service.commands.mails import MAILBOX_LIMIT, open_mailbox
from service.health import is_loopback
from service.ingress.api.mailbox import WORDS
from service.ingress.call import Call
from service.ingress.pages.page import html
from service.wire.sandbox import MailboxQuery

LOOPBACK_NAMES = frozenset({"localhost", "127.0.0.1", "::1"})


async def show(call: Call[None, MailboxQuery]) -> web.Response:
    """The mails that were sent, newest first; elsewhere than on this machine, how to get there."""
    house, words = call.house, call.request.app[WORDS]
    if not is_loopback(call.request) or _called(call.request) not in LOOPBACK_NAMES:
        return html(words.page("not_here"), 403)
    to = call.query.to
    mails = await open_mailbox(house.pool, words, house.policy, house.vault, to)
    return html(words.page("mailbox", mails=mails, to=to or "", limit=MAILBOX_LIMIT))


def _called(request: web.Request) -> str | None:
    try:
        return urlsplit(f"//{request.host}").hostname
    except ValueError:
        return None
