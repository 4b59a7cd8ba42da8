"""Gathering: who goes at once, who waits for company and for how long, what is held up."""

import asyncio
from collections.abc import Sequence

import pytest

from service.commands.gathering import ENOUGH, HELD_UP_SECONDS, LANES_MAX, Gathering


class Desk:
    """Serves numbers with their doubles; `gate` holds up whoever is served while it is shut."""

    def __init__(self) -> None:
        self.groups: list[Sequence[int]] = []
        self.came = asyncio.Event()
        self.gate = asyncio.Event()
        self.gate.set()

    async def serve(self, numbers: Sequence[int]) -> list[int | Exception]:
        self.groups.append(numbers)
        self.came.set()
        await asyncio.sleep(0.002)  # a round trip
        await self.gate.wait()
        return [ValueError(str(n)) if n < 0 else 2 * n for n in numbers]


@pytest.fixture
def desk() -> Desk:
    return Desk()


@pytest.fixture
def gathering(desk: Desk) -> Gathering[int, int]:
    return Gathering(desk.serve)


async def until(count: int, desk: Desk) -> None:
    async with asyncio.timeout(5):
        while len(desk.groups) < count:
            desk.came.clear()
            await desk.came.wait()


async def test_whoever_comes_alone_goes_at_once(desk: Desk, gathering: Gathering[int, int]):
    for n in range(3):
        asked = asyncio.create_task(gathering.ask(n))
        for _ in range(3):  # turns of the loop, no time
            await asyncio.sleep(0)
        assert desk.groups[-1] == [n]
        assert await asked == 2 * n


@pytest.mark.parametrize(
    ("count", "sizes"), [(ENOUGH, [16]), (32, [16, 16]), (70, [35, 35]), (150, [64, 64, 22])]
)
async def test_who_comes_at_once_is_served_together_in_two_lanes(
    count: int, sizes: list[int], desk: Desk, gathering: Gathering[int, int]
):
    answers = await asyncio.gather(*(gathering.ask(n) for n in range(count)))
    assert answers == [2 * n for n in range(count)]
    assert [len(group) for group in desk.groups] == sizes


async def test_few_who_come_meanwhile_wait_for_the_lane_and_share(
    desk: Desk, gathering: Gathering[int, int]
):
    desk.gate.clear()
    asked = [asyncio.create_task(gathering.ask(0))]
    await until(1, desk)
    asked += [asyncio.create_task(gathering.ask(n)) for n in range(1, ENOUGH)]
    await asyncio.sleep(HELD_UP_SECONDS / 5)
    assert desk.groups == [[0]]
    desk.gate.set()
    await asyncio.gather(*asked)
    assert desk.groups == [[0], list(range(1, ENOUGH))]


async def test_a_second_lane_opens_for_enough(desk: Desk, gathering: Gathering[int, int]):
    desk.gate.clear()
    asked = [asyncio.create_task(gathering.ask(0))]
    await until(1, desk)
    asked += [asyncio.create_task(gathering.ask(n)) for n in range(1, ENOUGH + 1)]
    began = asyncio.get_running_loop().time()
    await until(2, desk)
    assert asyncio.get_running_loop().time() - began < HELD_UP_SECONDS
    assert desk.groups[1] == list(range(1, ENOUGH + 1))
    desk.gate.set()
    await asyncio.gather(*asked)


async def test_after_a_group_the_first_waits_for_company(
    desk: Desk, gathering: Gathering[int, int]
):
    await asyncio.gather(gathering.ask(1), gathering.ask(2))
    first = asyncio.create_task(gathering.ask(3))
    for _ in range(3):
        await asyncio.sleep(0)
    assert len(desk.groups) == 1
    assert await asyncio.gather(first, gathering.ask(4)) == [6, 8]
    assert desk.groups == [[1, 2], [3, 4]]


async def test_who_finds_no_company_is_served_all_the_same(
    desk: Desk, gathering: Gathering[int, int]
):
    await asyncio.gather(gathering.ask(1), gathering.ask(2))
    assert await asyncio.wait_for(gathering.ask(3), 5) == 6
    assert desk.groups == [[1, 2], [3]]


async def test_the_next_are_served_beside_those_who_are_held_up(
    desk: Desk, gathering: Gathering[int, int]
):
    desk.gate.clear()
    loop = asyncio.get_running_loop()
    asked = [asyncio.create_task(gathering.ask(0))]
    await until(1, desk)
    began = loop.time()
    for n in range(1, LANES_MAX):
        asked.append(asyncio.create_task(gathering.ask(n)))
        await until(n + 1, desk)
        assert loop.time() - began >= 0.9 * n * HELD_UP_SECONDS
    asked.append(asyncio.create_task(gathering.ask(LANES_MAX)))
    await asyncio.sleep(2 * HELD_UP_SECONDS)
    assert len(desk.groups) == LANES_MAX
    desk.gate.set()
    assert await asyncio.gather(*asked) == [2 * n for n in range(LANES_MAX + 1)]


async def test_those_left_over_by_a_group_are_not_held_up_with_it(
    desk: Desk, gathering: Gathering[int, int]
):
    desk.gate.clear()
    asked = [asyncio.create_task(gathering.ask(n)) for n in range(ENOUGH + 1)]
    await until(2, desk)
    assert desk.groups[1] == [ENOUGH]
    desk.gate.set()
    await asyncio.gather(*asked)


async def test_each_is_answered_or_refused_by_itself(gathering: Gathering[int, int]):
    answers = await asyncio.gather(*map(gathering.ask, (1, -1, 2)), return_exceptions=True)
    assert answers[0::2] == [2, 4]
    assert isinstance(answers[1], ValueError)
