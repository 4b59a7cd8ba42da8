"""The sandbox's mailbox: the mails that a mail server took, rendered again from their rows."""

from aiohttp import web

from service.commands.mails import open_mailbox
from service.ingress.call import Call
from service.wire.mailbox import Mailbox
from service.wire.sandbox import MailboxQuery
from service.words.mails import Words

WORDS = web.AppKey("words", Words)


async def read_mailbox(call: Call[None, MailboxQuery]) -> Mailbox:
    """The newest mails, of one recipient or of all."""
    house = call.house
    words = call.request.app[WORDS]
    mails = await open_mailbox(house.pool, words, house.policy, house.vault, call.query.to)
    return Mailbox(mails=mails)
