"""What a developer keeps with us: a signature for `autoSign`, and where people may be sent back."""

from service.commands import developers
from service.commands.perform import Answer, perform
from service.ingress.call import Call
from service.store.db import Transaction
from service.store.developers import read_has_signature, read_redirect_urls
from service.wire.base import Wire
from service.wire.developer import (
    NewSignature,
    RedirectUrls,
    RedirectUrlsAnswer,
    RedirectUrlsStored,
    SignatureAnswer,
    SignatureStored,
)


async def store_signature(call: Call[NewSignature, None]) -> Answer:
    """Keep this image as the developer's signature, in place of any before it."""

    async def command(tx: Transaction) -> Wire:
        await developers.keep_signature(tx, call.developer_id, call.body.signature_image)
        return SignatureStored(message="Signature stored", has_signature=True)

    return await perform(call.house, call.actor, command, idempotency=call.idempotency)


async def read_signature(call: Call[None, None]) -> SignatureAnswer:
    """Whether there is one; it is never shown."""
    found = await read_has_signature(call.house.pool, call.developer_id)
    return SignatureAnswer(has_signature=found)


async def store_redirect_urls(call: Call[RedirectUrls, None]) -> Answer:
    """The list as given, in place of the one before; an empty list allows nothing."""
    urls = list(dict.fromkeys(call.body.urls))

    async def command(tx: Transaction) -> Wire:
        await developers.allow_redirects(tx, call.developer_id, urls)
        return RedirectUrlsStored(message="Redirect URLs stored", urls=urls)

    return await perform(call.house, call.actor, command, idempotency=call.idempotency)


async def read_redirects(call: Call[None, None]) -> RedirectUrlsAnswer:
    """The list as it was given."""
    return RedirectUrlsAnswer(urls=await read_redirect_urls(call.house.pool, call.developer_id))
