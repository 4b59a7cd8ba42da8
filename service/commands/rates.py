"""Exchange rates, as the operator or a feed gives them. The newest of a currency counts."""

from collections.abc import Mapping
from datetime import timedelta
from decimal import Decimal

from service.rules.money import RATED_CURRENCIES
from service.store.db import Reader, Transaction
from service.store.rates import insert_rates, lock_source, read_source_age

FETCHED = "fetched"
"""The source of what a feed gave; `operator` and `sandbox` are the other ones."""


async def set_rate(tx: Transaction, currency: str, rate: Decimal, source: str) -> None:
    """One unit of `currency` is `rate` TND for escrows created from now on."""
    await insert_rates(tx, {currency: rate}, source)


async def fetched_ago(reader: Reader) -> timedelta | None:
    """How long ago (real time) any worker has stored a feed's rates; None where none has."""
    return await read_source_age(reader, RATED_CURRENCIES, FETCHED)


async def record_fetched(tx: Transaction, rates: Mapping[str, Decimal], kept: timedelta) -> bool:
    """Store what a feed gave; False where another worker has stored its answer within `kept`."""
    await lock_source(tx, FETCHED)
    ago = await fetched_ago(tx)
    if ago is not None and ago < kept:
        return False
    await insert_rates(tx, rates, FETCHED)
    return True
