"""What is kept no longer: secrets and answers past their time."""

import asyncpg

from service.commands import endpoints
from service.commands.perform import House
from tests.makers import act, make_shop
from tests.receiver import make_endpoint
from workers import retention


async def test_a_secret_is_deleted_once_its_overlap_is_over(
    house: House, owner: asyncpg.Connection
) -> None:
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, "http://127.0.0.1:1/")
    rotate = endpoints.regenerate_secret(shop.developer_id, made["id"], overlap_hours=1)
    await act(house, shop.actor, rotate)
    await retention.tidy(house)
    assert await house.pool.fetchval("SELECT count(*) FROM endpoint_secret") == 2
    await owner.execute("UPDATE endpoint_secret SET expires_at = expires_at - interval '1 h'")
    await retention.tidy(house)
    left = await house.pool.fetch("SELECT expires_at FROM endpoint_secret")
    assert [row["expires_at"] for row in left] == [None]
