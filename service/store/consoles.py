"""What a developer looks at when signed in by e-mail: which account is theirs, and its keys."""

from dataclasses import dataclass
from datetime import datetime

from service.store.db import Reader


@dataclass(frozen=True, slots=True)
class Account:
    """A developer's account."""

    id: str
    company: str
    user_id: str | None


# The account's own e-mail alone: whom a developer acts as is no reason to see the developer's.
READ_ACCOUNT = "SELECT id, company, user_id FROM developer WHERE email = $1"


async def read_account(reader: Reader, email: str) -> Account | None:
    """The developer whose account has this e-mail, which must have been proven."""
    row = await reader.fetchrow(READ_ACCOUNT, email)
    return Account(*row) if row else None


@dataclass(frozen=True, slots=True)
class OwnKey:
    """A key by its first characters; real time. `is_good`: active and not expired."""

    prefix: str
    name: str
    is_good: bool
    last_used_at: datetime | None
    expires_at: datetime | None
    created_at: datetime


LIST_KEYS = """
SELECT prefix, name, is_active AND coalesce(expires_at > now(), true) AS is_good, last_used_at,
       expires_at, created_at
FROM api_key WHERE developer_id = $1 ORDER BY id DESC LIMIT 50
"""


async def list_keys(reader: Reader, developer_id: str) -> list[OwnKey]:
    """The developer's newest keys, newest first."""
    return [OwnKey(*row) for row in await reader.fetch(LIST_KEYS, developer_id)]
