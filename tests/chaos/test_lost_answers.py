"""The answer is lost after COMMIT: the same key gets the stored answer, and there is one effect."""

import random
from typing import Any

import orjson
import pytest

from tests.chaos.conftest import Tell
from tests.chaos.load import Trade, sinking, trading
from tests.chaos.outside import Line, lossy_line
from tests.chaos.world import World, until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]
ESCROWS = 25


async def unheard(trade: Trade, line: Line, path: str, body: object, key: str) -> Any:
    """Carried out over the line that loses the answer; then asked again at the door."""
    lost = line.lost
    assert await trade.attempt(path, orjson.dumps(body), key, line.url) is None
    assert line.lost == lost + 1
    return await trade.ask(path, body, key)


async def live_unheard(trade: Trade, line: Line, name: str) -> str:
    """An escrow opened, paid and delivered by somebody who never hears the first answer."""
    terms = {"title": name, "amount": 10, "buyerEmail": trade.buyer.email, "mode": "instant"}
    opened = await unheard(trade, line, "/api/v1/escrows", terms, name)
    escrow_id: str = opened["escrow"]["id"]
    trade.escrows[escrow_id] = "delivered"
    for step in ("pay", "deliver"):
        await unheard(trade, line, *trade.request(escrow_id, step), f"{escrow_id}-{step}")
    return escrow_id


async def test_what_was_carried_out_and_not_heard_is_answered_from_the_store(
    world: World, chance: random.Random, tell: Tell
) -> None:
    ingress, _ = await world.serve(), await world.work()
    async with (
        lossy_line(ingress.port) as line,
        sinking() as sink,
        trading(world, chance, lambda: [ingress], sink) as trade,
    ):
        for number in range(ESCROWS):
            await live_unheard(trade, line, f"Unheard {number}")
        await until(world.is_quiet)
        assert [one.is_replayed for one in trade.answered] == [True] * 3 * ESCROWS
        await trade.kept(replays=3 * ESCROWS)
        pairs = await sink.heard_all(world)
        assert sink.duplicates == 0
        tell(lost=line.lost, answered_from_store=len(trade.answered), pairs=pairs)
    await world.sound()
