"""Who is at the door: the API key, its environment, its state, and the note that it is in use."""

import asyncio
import re
from collections.abc import Mapping
from functools import partial

import structlog

from service.commands.gathering import Gathering
from service.commands.perform import House, tend
from service.ingress.call import Caller
from service.ingress.errors import Unauthorized
from service.rules.errors import Refused, Unavailable
from service.store.db import Reader, Transaction
from service.store.keys import KeyFacts, note_key_use, read_keys
from service.store.vault import hash_token

KEY = re.compile(r"sk_(live|sandbox)_[0-9a-f]{64}")
NO_KEY = "Send your API key as `Authorization: Bearer <key>` or as `X-API-Key: <key>`."
NOT_A_KEY = "This is not an API key: a key is sk_live_ or sk_sandbox_ and 64 hex digits."
OTHER_ENVIRONMENT = (
    "This is a {given} key and this is the {here} environment; use your {here} key (sk_{here}_…)."
)
UNKNOWN = "This API key is unknown; check it, or make a new one."
DEACTIVATED = "This API key is deactivated; use another one."
EXPIRED = "This API key has expired; make a new one."
NOT_A_DEVELOPERS = "This key is an operator's; this path takes a developer's key."

# A key that was looked up, or why it cannot be: told only once the rate limit has been asked.
Found = KeyFacts | Refused | Unavailable

log = structlog.get_logger()


class KeyRing:
    """Finds keys, afresh for every request; requests that come at the same time share a look."""

    def __init__(self, reader: Reader) -> None:
        self._look: Gathering[bytes, KeyFacts | None] = Gathering(partial(read_keys, reader))

    async def find(self, headers: Mapping[str, str], environment: str) -> Found:
        """The key that these headers present, or the reason that there is none. Never raises."""
        try:
            key = await self._look.ask(hash_token(_presented(headers, environment)))
        except (Refused, Unavailable) as reason:
            return reason
        return Unauthorized(reason=UNKNOWN) if key is None else key


def let_in(found: Found) -> Caller:
    """The caller behind a key that may be used; Unauthorized (401) or Unavailable otherwise."""
    if not isinstance(found, KeyFacts):
        raise found
    if not found.is_active:
        raise Unauthorized(reason=DEACTIVATED)
    if found.is_expired:
        raise Unauthorized(reason=EXPIRED)
    if found.developer_id is None:
        raise Unauthorized(reason=NOT_A_DEVELOPERS)
    return Caller(found.key_id, found.developer_id, found.user_id)


def own_limit(key: KeyFacts) -> int | None:
    """The requests a minute that this key may make in a window of its own, if it may be used."""
    return key.rate_limit_per_minute if key.is_active and not key.is_expired else None


def _presented(headers: Mapping[str, str], environment: str) -> str:
    scheme, _, bearer = headers.get("Authorization", "").partition(" ")
    key = bearer.strip() if scheme.lower() == "bearer" else headers.get("X-API-Key", "").strip()
    if not key:
        raise Unauthorized(reason=NO_KEY)
    shape = KEY.fullmatch(key)
    if shape is None:
        raise Unauthorized(reason=NOT_A_KEY)
    if shape[1] != environment:
        raise Unauthorized(reason=OTHER_ENVIRONMENT.format(given=shape[1], here=environment))
    return key


class KeyUse:
    """Notes that a key is in use, beside the requests and never in their way."""

    def __init__(self, house: House) -> None:
        self._house = house
        self._noting: dict[str, asyncio.Task[None]] = {}

    def note(self, key: KeyFacts) -> None:
        """Write it down unless it was, within the last minute, or is being written."""
        if key.is_idle and key.key_id not in self._noting:
            self._noting[key.key_id] = asyncio.create_task(self._write(key.key_id))

    async def close(self) -> None:
        """Let the notes under way end."""
        if self._noting:
            await asyncio.wait(self._noting.values(), timeout=2)

    async def _write(self, key_id: str) -> None:
        try:
            await tend(self._house, partial(_note, key_id))
        except Unavailable as away:
            log.info("key_use_not_noted", key_id=key_id, reason=str(away))
        finally:
            del self._noting[key_id]


async def _note(key_id: str, tx: Transaction) -> None:
    await note_key_use(tx, key_id)
