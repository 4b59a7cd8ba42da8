"""The sandbox's clock over HTTP: every advance that was answered has happened, once."""

import asyncio
from datetime import datetime

from tests.makers import make_shop

ADVANCE = "/api/v1/sandbox/clock/advance"
CLOCK = "/api/v1/sandbox/clock"


async def now_of(client, shop) -> datetime:
    async with client.get(CLOCK, headers=shop.headers) as response:
        return datetime.fromisoformat((await response.json())["now"])


async def push(client, shop, key: str | None = None, wait_seconds: float = 0.0) -> tuple[int, bool]:
    await asyncio.sleep(wait_seconds)
    headers = {**shop.headers, **({"Idempotency-Key": key} if key else {})}
    async with client.post(ADVANCE, json={"seconds": 600}, headers=headers) as response:
        return response.status, "Idempotency-Replayed" in response.headers


async def test_every_advance_that_was_answered_moved_the_clock(house, ingress):
    shop = await make_shop(house)
    async with ingress(None) as client:
        for _ in range(6):
            before = await now_of(client, shop)
            told = await asyncio.gather(
                *(push(client, shop, wait_seconds=n / 400) for n in range(8))
            )
            moved = ((await now_of(client, shop)) - before).total_seconds()
            answered = sum(status == 200 for status, _ in told)
            assert answered * 600 <= moved < answered * 600 + 30
            assert {status for status, _ in told} <= {200, 409}


async def test_one_key_moves_the_clock_once_and_holds_it_for_nobody(house, ingress):
    shop = await make_shop(house)
    async with ingress(None) as client:
        for n in range(6):
            before = await now_of(client, shop)
            told = await asyncio.gather(
                *(push(client, shop, f"key-{n}", k / 500) for k in range(10))
            )
            assert [replayed for status, replayed in told if status == 200].count(False) == 1
            moved = ((await now_of(client, shop)) - before).total_seconds()
            assert 600 <= moved < 630
            assert await push(client, shop) == (200, False)
