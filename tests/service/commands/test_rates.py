"""Rates: every one is kept, and the newest counts (see test_create.py for what uses them)."""

from decimal import Decimal

import asyncpg
import pytest

from service.commands import rates
from service.commands.perform import House
from tests.makers import arrange


async def test_every_rate_is_kept_with_its_source(house: House):
    for rate in ("3.12", "3.13"):
        await arrange(house, lambda tx, r=rate: rates.set_rate(tx, "USD", Decimal(r), "bank"))
    rows = await house.pool.fetch("SELECT currency, rate, source FROM fx_rate ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("USD", Decimal("3.12"), "bank"),
        ("USD", Decimal("3.13"), "bank"),
    ]


@pytest.mark.parametrize(("currency", "rate"), [("USD", 0), ("USD", -1), ("XXX", 1)])
async def test_a_rate_that_makes_no_sense_is_refused_by_the_database(
    house: House, currency: str, rate: int
):
    with pytest.raises(asyncpg.IntegrityConstraintViolationError):
        await arrange(house, lambda tx: rates.set_rate(tx, currency, Decimal(rate), "bank"))
