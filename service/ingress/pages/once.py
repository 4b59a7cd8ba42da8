"""A form that is sent twice is carried out once: the second is answered as the first was.

Every page that is shown mints a nonce, which each of its forms carries along (`parts.form`). With
the page's path, what was typed and the files it makes the key under which `perform` keeps the
answer. The same page sent once more with other words is another wish.
"""

import asyncio
from collections.abc import Sequence
from hashlib import sha256

import orjson

from service.commands.perform import Answer, Command, Idempotency, perform
from service.ingress.call import Call
from service.ingress.pages.forms import Form
from service.ingress.pages.visitor import FORM_TOKEN
from service.rules.errors import IdempotencyInFlight
from service.rules.files import StoredFile
from service.rules.machine import Actor

NONCE = "once"
"""The name of the field."""
WAITS, WAIT_SECONDS = 50, 0.1
"""How often, and how long each time, the second of two waits for the first."""


def sending(
    call: Call[None, None], user_id: str | None, form: Form, files: Sequence[StoredFile] = ()
) -> Idempotency | None:
    """What tells this sending of the form from every other; None without a person or a nonce."""
    if user_id is None or not form.text(NONCE):
        return None
    fields = {name: text for name, text in form.fields.items() if name != FORM_TOKEN}
    brought = [[file.filename, file.sha256] for file in files]
    told = orjson.dumps([call.request.path, fields, brought], option=orjson.OPT_SORT_KEYS)
    digest = sha256(told)
    return Idempotency(user_id, f"form:{digest.hexdigest()}", digest.digest())


async def carry_out(
    call: Call[None, None], actor: Actor, command: Command, sent: Idempotency | None
) -> Answer:
    """As `perform`; a second sending waits for the first, and is answered as it was.

    Raises:
        IdempotencyInFlight: the first takes longer than anybody waits.
    """
    for _ in range(WAITS):
        try:
            return await perform(call.house, actor, command, idempotency=sent)
        except IdempotencyInFlight:
            await asyncio.sleep(WAIT_SECONDS)
    return await perform(call.house, actor, command, idempotency=sent)
