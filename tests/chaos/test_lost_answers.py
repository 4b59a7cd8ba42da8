"""The answer is lost after COMMIT: the same key gets the stored answer, and there is one effect."""

import random

import pytest

from tests.chaos.conftest import Tell
from tests.chaos.load import live_unheard, sinking, trading
from tests.chaos.outside import lossy_line
from tests.chaos.world import World, until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]
ESCROWS = 25


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
