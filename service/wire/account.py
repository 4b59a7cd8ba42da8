"""What a developer sees of itself: key, developer, wallet. Source: escrows.md 10."""

from datetime import datetime
from decimal import Decimal
from typing import Annotated, Any

from pydantic import AfterValidator, Field

from service.rules.money import EXPONENTS, LEDGER_CURRENCY, to_decimal
from service.wire.base import Query, Wire


class ApiKey(Wire):
    """The key that was used, without the key."""

    id: str
    name: str
    key_prefix: str
    environment: str
    is_active: bool
    last_used_at: datetime | None
    expires_at: datetime | None
    rate_limit: int | None
    metadata: dict[str, Any]
    created_at: datetime


class Developer(Wire):
    """The developer behind the key."""

    id: str
    email: str
    company_name: str


class Me(Wire):
    """200 of `GET /me`."""

    api_key: ApiKey
    developer: Developer


class Wallet(Wire):
    """Spendable, under way, and funded into escrows and still held."""

    available: Decimal
    pending: Decimal
    escrow: Decimal


class BalanceAnswer(Wire):
    """200 of `GET /balance`."""

    balance: Wallet


def _currency(code: str) -> str:
    if code not in EXPONENTS:
        raise ValueError(f"must be one of {', '.join(EXPONENTS)}")
    return code


Currency = Annotated[
    str, AfterValidator(_currency), Field(json_schema_extra={"enum": list(EXPONENTS)})
]


class BalanceQuery(Query):
    """Which of the wallets; the ledger's by default."""

    currency: Currency = LEDGER_CURRENCY


def balance(available: int, pending: int, escrow: int, currency: str) -> BalanceAnswer:
    """A wallet in minor units, as the answer."""
    return BalanceAnswer(
        balance=Wallet(
            available=to_decimal(available, currency),
            pending=to_decimal(pending, currency),
            escrow=to_decimal(escrow, currency),
        )
    )
