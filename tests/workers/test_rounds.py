"""A round outlives every failure, is woken, and says how each of its turns ended."""

import asyncio

from service.rules.errors import Unavailable
from workers.metrics import WorkMetrics
from workers.rounds import Round


class Work:
    """Fails as it is told, then does nothing."""

    def __init__(self, *failures: Exception) -> None:
        self.failures, self.turns = list(failures), 0

    async def __call__(self) -> None:
        self.turns += 1
        if self.failures:
            raise self.failures.pop(0)


def ends(metrics: WorkMetrics) -> dict[str, float]:
    return {
        sample.labels["end"]: sample.value
        for metric in metrics.rounds.collect()
        for sample in metric.samples
        if sample.name.endswith("_total")
    }


async def test_a_failure_ends_a_turn_and_not_the_round() -> None:
    work, metrics = Work(Unavailable("away"), ValueError("a bug")), WorkMetrics()
    turned = Round("it", 0.01, work, metrics)
    running = asyncio.create_task(turned.run())
    async with asyncio.timeout(5):
        while work.turns < 4:  # noqa: ASYNC110 - the round says nothing
            await asyncio.sleep(0.01)
        await turned.close()
        await running
    found = ends(metrics)
    assert (found["postponed"], found["failed"], found["done"]) == (1, 1, work.turns - 2)


async def test_it_works_at_once_then_when_woken_and_any_number_of_wakes_is_one() -> None:
    work = Work()
    turned = Round("it", 3600, work, WorkMetrics())
    running = asyncio.create_task(turned.run())
    await asyncio.sleep(0.05)
    assert work.turns == 1
    for _ in range(5):
        turned.wake()
    await asyncio.sleep(0.05)
    assert work.turns == 2
    await turned.close()
    await running
    assert work.turns == 2


async def test_a_closed_round_does_not_begin() -> None:
    work = Work()
    turned = Round("it", 3600, work, WorkMetrics())
    await turned.close()
    await turned.run()
    assert (work.turns, turned.is_closing) == (0, True)
