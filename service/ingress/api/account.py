"""Who am I, and what is in my wallet."""

import json

from service.ingress.call import Call
from service.rules.errors import DeveloperNotFound
from service.store.developers import read_own_key
from service.store.ledger import read_balance
from service.wire.account import (
    ApiKey,
    BalanceAnswer,
    BalanceQuery,
    Developer,
    Me,
    balance,
)


async def me(call: Call[None, None]) -> Me:
    """The key that asks, and its developer."""
    row = await read_own_key(call.house.pool, call.actor.key_id or "")
    if row is None:
        raise DeveloperNotFound
    return Me(
        api_key=ApiKey(
            id=row["key_id"],
            name=row["name"],
            key_prefix=row["prefix"],
            environment=row["environment"],
            is_active=row["is_active"],
            last_used_at=row["last_used_at"],
            expires_at=row["expires_at"],
            rate_limit=row["rate_limit_per_minute"],
            metadata=json.loads(row["metadata"]),
            created_at=row["created_at"],
        ),
        developer=Developer(
            id=row["developer_id"], email=row["email"], company_name=row["company"]
        ),
    )


async def read_wallet(call: Call[None, BalanceQuery]) -> BalanceAnswer:
    """The wallet of the caller's user."""
    currency = call.query.currency
    found = await read_balance(call.house.pool, call.user_id, currency)
    return balance(found.available, found.pending, found.escrow, currency)
