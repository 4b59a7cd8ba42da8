"""Ids: time-ordered, so that inserts stay local. Entities: 24 hex characters; events: UUIDs."""

import secrets
from datetime import datetime
from uuid import UUID


def entity_id(now: datetime) -> str:
    """48 bits of milliseconds, then 48 random bits, as 24 lower-case hex characters."""
    return f"{int(now.timestamp() * 1000):012x}{secrets.token_hex(6)}"


def first_id(moment: datetime) -> str:
    """The least id that an entity made at `moment` or later can have."""
    return f"{int(moment.timestamp() * 1000):012x}{'0' * 12}"


def event_id(now: datetime) -> UUID:
    """A UUID of version 7 (RFC 9562): 48 bits of milliseconds, then random bits."""
    millis = int(now.timestamp() * 1000)
    rest = secrets.randbits(74)
    value = millis << 80 | 0x7 << 76 | (rest >> 62) << 64 | 0b10 << 62 | rest & (1 << 62) - 1
    return UUID(int=value)


def first_uuid(moment: datetime) -> UUID:
    """The least UUID of version 7 that can have been made at `moment` or later."""
    return UUID(int=max(int(moment.timestamp() * 1000), 0) << 80)


def last_uuid() -> UUID:
    """Beyond every UUID."""
    return UUID(int=(1 << 128) - 1)
