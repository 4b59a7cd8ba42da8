"""Exchange rates, as the operator or a feed gives them."""

from decimal import Decimal

from service.store.db import Transaction
from service.store.rates import insert_rate


async def set_rate(tx: Transaction, currency: str, rate: Decimal, source: str) -> None:
    """One unit of `currency` is `rate` TND for escrows created from now on."""
    await insert_rate(tx, currency, rate, source)
