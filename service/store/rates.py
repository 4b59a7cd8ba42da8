"""Exchange rates to the ledger's currency; the newest of a currency counts."""

from decimal import Decimal

from service.store.db import Transaction

INSERT_RATE = "INSERT INTO fx_rate (currency, rate, source) VALUES ($1, $2, $3)"


async def insert_rate(tx: Transaction, currency: str, rate: Decimal, source: str) -> None:
    """One unit of `currency` is `rate` TND, as of now (real time)."""
    await tx.execute(INSERT_RATE, currency, rate, source)
