"""What locking an escrow costs: an unpaid one does not look for what it cannot have."""

import asyncpg
import pytest

from service.commands.perform import House
from service.store.escrows import LOCK_ESCROWS
from tests.makers import make_buyer, make_escrow, make_shop

SCANS = """
SELECT relname, coalesce(seq_scan, 0) + coalesce(idx_scan, 0) AS scans
FROM pg_stat_xact_user_tables
"""
ONCE_PAID = {"cancellation_request", "dispute", "delivery_rejection"}


async def looks(owner: asyncpg.Connection, escrow_id: str, plan: str) -> dict[str, int]:
    """Each table -> how often locking this escrow has scanned it."""
    async with owner.transaction():
        await owner.execute(f"SET LOCAL plan_cache_mode = force_{plan}_plan")
        before = dict([tuple(row) for row in await owner.fetch(SCANS)])
        await owner.fetch(LOCK_ESCROWS, [escrow_id], False, None)
        return {
            table: scans - before.get(table, 0)
            for table, scans in [tuple(row) for row in await owner.fetch(SCANS)]
        }


@pytest.mark.parametrize("plan", ["custom", "generic"])
@pytest.mark.parametrize("mode", ["standard", "quick", "quick_proof", "instant"])
async def test_an_unpaid_escrow_is_locked_without_a_look_at_disputes_and_requests(
    house: House, owner: asyncpg.Connection, mode: str, plan: str
):
    shop, buyer = await make_shop(house), await make_buyer(house)
    for then in ((), ("buyers_dispute",)):
        await make_escrow(house, shop, buyer, mode=mode, status="paid", then=then)
    pending = await make_escrow(house, shop, buyer, mode=mode)
    found = await looks(owner, pending.id, plan)
    assert found["escrow"]
    assert {table for table in ONCE_PAID if found[table]} == set()


@pytest.mark.parametrize("plan", ["custom", "generic"])
async def test_a_paid_one_looks_at_each_of_them_once(
    house: House, owner: asyncpg.Connection, plan: str
):
    shop, buyer = await make_shop(house), await make_buyer(house)
    paid = await make_escrow(house, shop, buyer, mode="quick", status="paid")
    found = await looks(owner, paid.id, plan)
    assert {table: found[table] for table in ONCE_PAID} == dict.fromkeys(ONCE_PAID, 1)
