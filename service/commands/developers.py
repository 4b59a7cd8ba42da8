"""Developers and their keys. A key is shown once; only its SHA-256 is kept."""

import secrets
from dataclasses import dataclass
from datetime import timedelta

from service.commands.users import ensure_user
from service.rules.errors import KeyNotFound, UserNotFound
from service.store import developers, events
from service.store.db import Row, Transaction
from service.store.developers import NewKey
from service.store.ids import entity_id, event_id
from service.store.users import read_user
from service.store.vault import hash_token

SHOWN_CHARACTERS = 16


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A new developer with the key that nobody can read again."""

    developer_id: str
    api_key: str
    user_id: str | None


async def enrol(
    tx: Transaction,
    email: str,
    company: str,
    *,
    user_email: str | None = None,
    redirect_urls: list[str] | None = None,
) -> Enrolled:
    """A developer with a first key, associated with the user of `user_email` (made if unknown).

    Raises:
        EmailTaken: a developer has this e-mail already.
        UserTaken: the user is associated with another developer.
    """
    user = await ensure_user(tx, user_email) if user_email else None
    user_id = user.person.id if user else None
    developer_id = entity_id(tx.now)
    await developers.insert_developer(
        tx, developer_id, email, company, user_id, redirect_urls or []
    )
    api_key = await add_key(tx, developer_id, "First key")
    await _tell(tx, developer_id, await developers.next_developer_seq(tx, developer_id), "enrol")
    return Enrolled(developer_id, api_key, user_id)


async def add_key(tx: Transaction, developer_id: str, name: str) -> str:
    """A new key of this developer, in full: the only time that it is seen."""
    environment = tx.policy.environment
    api_key = f"sk_{environment}_{secrets.token_hex(32)}"
    key = NewKey(
        entity_id(tx.now), name, api_key[:SHOWN_CHARACTERS], hash_token(api_key), environment
    )
    await developers.insert_key(tx, developer_id, key)
    return api_key


async def rotate_key(tx: Transaction, key: str, keep: timedelta) -> Enrolled:
    """A new key of the same developer and name; the old one is good for `keep` (real time) more.

    `key` is the old one's id or its first characters.

    Raises:
        KeyNotFound: no active key, or more than one, is meant.
    """
    old = await _active_key(tx, key)
    api_key = await add_key(tx, old["developer_id"], old["name"])
    await developers.retire_key(tx, old["id"], tx.real_now + keep)
    seq = await developers.next_developer_seq(tx, old["developer_id"])
    await _tell(tx, old["developer_id"], seq, "rotate_key")
    return Enrolled(old["developer_id"], api_key, old["user_id"])


async def revoke_key(tx: Transaction, key: str) -> str:
    """The key is good no longer; its id. `key` is its id or its first characters.

    Raises:
        KeyNotFound: no active key, or more than one, is meant.
    """
    old = await _active_key(tx, key)
    await developers.retire_key(tx, old["id"], tx.real_now)
    seq = await developers.next_developer_seq(tx, old["developer_id"])
    await _tell(tx, old["developer_id"], seq, "revoke_key")
    key_id: str = old["id"]
    return key_id


async def associate(tx: Transaction, developer_id: str, email: str) -> str:
    """The developer acts as the user of this e-mail; the user's id.

    Raises:
        UserNotFound: nobody has this e-mail.
        UserTaken: the user is associated with another developer.
    """
    user = await read_user(tx, email)
    if user is None:
        raise UserNotFound
    seq = await developers.associate(tx, developer_id, user.person.id)
    await _tell(tx, developer_id, seq, "associate")
    return user.person.id


async def dissociate(tx: Transaction, developer_id: str) -> None:
    """The developer acts as nobody."""
    seq = await developers.associate(tx, developer_id, None)
    await _tell(tx, developer_id, seq, "dissociate")


async def keep_signature(tx: Transaction, developer_id: str, image: str) -> None:
    """This data URI is the developer's signature from now on; sealed before it is stored."""
    seq = await developers.store_signature(tx, developer_id, tx.vault.seal(image).decode())
    await _tell(tx, developer_id, seq, "store_signature")


async def allow_redirects(tx: Transaction, developer_id: str, urls: list[str]) -> None:
    """These are the URLs to which people may be sent back from hosted pages; no others."""
    seq = await developers.store_redirect_urls(tx, developer_id, urls)
    await _tell(tx, developer_id, seq, "store_redirect_urls")


async def _active_key(tx: Transaction, key: str) -> Row:
    found = await developers.lock_keys(tx, key)
    if len(found) != 1:
        raise KeyNotFound(key=key)
    return found[0]


async def _tell(tx: Transaction, developer_id: str, seq: int, step: str) -> None:
    await events.append_events(
        tx, [events.Entry(event_id(tx.now), developer_id, "developer", seq, step)]
    )
