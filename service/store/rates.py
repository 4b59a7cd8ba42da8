"""Exchange rates to the ledger's currency; the newest of a currency counts. All times are real."""

from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from decimal import Decimal

from service.store.db import Reader, Transaction

INSERT_RATES = """
INSERT INTO fx_rate (currency, rate, source)
SELECT currency, rate, $3 FROM unnest($1::text[], $2::numeric[]) AS given (currency, rate)
"""


async def insert_rates(tx: Transaction, rates: Mapping[str, Decimal], source: str) -> None:
    """One unit of each currency is so many TND, as of now."""
    await tx.execute(INSERT_RATES, list(rates), list(rates.values()), source)


# Along fx_rate_newest, one currency after the other.
READ_AGES = """
SELECT c.currency, extract(epoch FROM clock_timestamp() - r.fetched_at)::float8 AS seconds
FROM unnest($1::text[]) AS c (currency)
LEFT JOIN LATERAL (SELECT fetched_at FROM fx_rate WHERE currency = c.currency
                   ORDER BY fetched_at DESC LIMIT 1) r ON true
"""


async def read_ages(reader: Reader, currencies: Sequence[str]) -> dict[str, float | None]:
    """How old the newest rate of each currency is, in seconds; None where there never was one."""
    rows = await reader.fetch(READ_AGES, list(currencies))
    return {row["currency"]: row["seconds"] for row in rows}


# One worker after the other: whoever comes second finds what the first has stored.
LOCK_SOURCE = "SELECT pg_advisory_xact_lock(hashtextextended('rates/' || $1, 0))"
READ_SOURCE_AGE = """
SELECT clock_timestamp() - max(r.fetched_at)
FROM unnest($1::text[]) AS c (currency)
CROSS JOIN LATERAL (SELECT fetched_at FROM fx_rate WHERE currency = c.currency AND source = $2
                    ORDER BY fetched_at DESC LIMIT 1) r
"""


async def lock_source(tx: Transaction, source: str) -> None:
    """Nobody else stores rates of this source until the transaction ends."""
    await tx.fetchval(LOCK_SOURCE, source)


async def read_source_age(
    reader: Reader, currencies: Sequence[str], source: str
) -> timedelta | None:
    """How long ago this source has last given a rate; None where it never has."""
    age: timedelta | None = await reader.fetchval(READ_SOURCE_AGE, list(currencies), source)
    return age


READ_RATE = """
SELECT rate, fetched_at FROM fx_rate WHERE currency = $1 ORDER BY fetched_at DESC, id DESC LIMIT 1
"""


async def read_rate(reader: Reader, currency: str) -> tuple[Decimal | None, datetime | None]:
    """The newest rate of the currency and when it came (real time); None where there is none."""
    row = await reader.fetchrow(READ_RATE, currency)
    return (row["rate"], row["fetched_at"]) if row else (None, None)
