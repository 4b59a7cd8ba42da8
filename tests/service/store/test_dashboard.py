"""What waits for whom is told by the database as by the rules; the lists walk on without a gap."""

from datetime import timedelta

import pytest

from service.rules.machine import Role
from service.rules.outlook import awaits
from service.store.clock import read_clock
from service.store.dashboard import list_awaiting, list_namings, list_others
from service.store.db import Pool
from tests.makers import PATHS, make_buyer, make_escrow, make_shop

# (mode, status, further steps): every standing that the product reaches with `makers`.
STANDINGS = [
    *((mode, status, ()) for mode, paths in PATHS.items() for status in paths),
    ("standard", "pending", ("sellers_signature",)),
    ("standard", "pending", ("buyers_signature",)),
    ("standard", "pending", ("sellers_signature", "buyers_signature")),
    *(
        (mode, "paid", steps)
        for mode in ("standard", "quick", "quick_proof", "instant")
        for steps in (
            ("request_cancellation",),
            ("request_cancellation", "reject_cancellation"),
            ("sellers_dispute",),
            ("buyers_dispute", "buyers_withdrawal"),
        )
    ),
    ("quick", "delivered", ("request_cancellation",)),
    ("quick", "delivered", ("reject_delivery",)),
    ("quick", "delivered", ("sellers_dispute",)),
]


@pytest.mark.parametrize(("mode", "status", "then"), STANDINGS)
async def test_the_database_says_as_the_rules_whose_turn_it_is(house, mode, status, then):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode=mode, status=status, then=then)
    for role, user_id in ((Role.SELLER, escrow.seller_id), (Role.BUYER, escrow.buyer_id)):
        found = await awaiting(house.pool, user_id)
        others = await rest(house.pool, user_id)
        assert (found == [escrow.id]) == awaits(escrow, role), role
        assert sorted(found + others) == [escrow.id]


async def test_nobody_pays_a_seller_who_has_not_registered(house):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", seller_email="new@example.com")
    assert not awaits(escrow, Role.BUYER)
    assert await awaiting(house.pool, buyer.user_id) == []
    assert await rest(house.pool, buyer.user_id) == [escrow.id]


async def test_the_lists_walk_on_newest_first(house):
    shop, buyer = await make_shop(house), await make_buyer(house)
    made = [(await make_escrow(house, shop, buyer, mode="quick")).id for _ in range(5)]
    seen, before = [], None
    while page := await list_awaiting(house.pool, buyer.user_id, before=before, text=None, limit=2):
        seen += [one.id for one in page]
        before = seen[-1]
    assert seen == sorted(made, reverse=True)
    assert await rest(house.pool, shop.user_id) == seen


async def test_a_search_finds_by_title_and_address_and_takes_wildcards_for_themselves(house):
    shop = await make_shop(house)
    buyer = await make_buyer(house, "bo@example.com")
    escrow = await make_escrow(house, shop, buyer, mode="quick", title="100 % wool_coat")
    for text in ("WOOL", "100 %", "wool_c", shop.email[:12].upper()):
        assert await awaiting(house.pool, buyer.user_id, text) == [escrow.id], text
    for text in ("100_%", "wool%coat", "leather"):
        assert await awaiting(house.pool, buyer.user_id, text) == []


async def test_who_was_named_is_told_until_they_act_or_it_is_old(house):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="standard")
    now = (await read_clock(house.pool)).now
    week = now - timedelta(days=7)
    assert [e.id for e in await list_namings(house.pool, buyer.user_id, since=week, limit=3)] == [
        escrow.id
    ]
    # The seller's own app has made it.
    assert await list_namings(house.pool, shop.user_id, since=week, limit=3) == []
    later = now + timedelta(seconds=1)
    assert await list_namings(house.pool, buyer.user_id, since=later, limit=3) == []
    signed = await make_escrow(house, shop, buyer, mode="standard", then=("buyers_signature",))
    named = await list_namings(house.pool, buyer.user_id, since=week, limit=3)
    assert signed.id not in [one.id for one in named]


async def awaiting(pool: Pool, user_id, text=None):
    return [one.id for one in await list_awaiting(pool, user_id, before=None, text=text, limit=50)]


async def rest(pool: Pool, user_id):
    return [one.id for one in await list_others(pool, user_id, before=None, text=None, limit=50)]
