"""The mail server down, slow, refusing for now and for good: one mail a person and escrow."""

import random
from collections import Counter
from functools import partial

import pytest

from service.cli.ports import find_free_port
from tests.chaos.conftest import Tell
from tests.chaos.load import trading
from tests.chaos.world import World, until
from tests.mail_server import MailServer, serving
from tests.makers import Buyer

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]
PEOPLE = 16
SLOW_SECONDS = 1.0


async def test_every_person_gets_one_mail_an_escrow_whatever_the_server_does(
    world: World, chance: random.Random, tell: Tell
) -> None:
    early = [f"early-{n}@people.example" for n in range(PEOPLE)]
    late = [f"late-{n}@people.example" for n in range(PEOPLE)]
    for_now, for_good = set(late[:4]), set(late[4:7])
    server, port = MailServer(), find_free_port()
    ingress = await world.serve()
    await world.work(SMTP_URL=f"smtp://127.0.0.1:{port}")
    async with trading(world, chance, lambda: [ingress]) as trade:

        async def invite(people: list[str], what: str) -> None:
            for person in people:
                trade.buyer = Buyer("", person)
                await trade.open(f"{what} for {person}")

        await invite(early, "A lamp")  # while there is no server
        await until(partial(some, world, "attempt > 0 AND last_error IS NOT NULL"))
        with serving(server, port):
            down_for = await until(lambda: len(server.taken) == PEOPLE)
            server.rcpt_seconds = SLOW_SECONDS
            server.refusals |= dict.fromkeys(for_now, "450 come again")
            server.refusals |= dict.fromkeys(for_good, "550 nobody of this name")
            server.replies += ["451 try later", "452 full"]  # the content is not taken either
            await invite([*late, *early], "A chair")  # a second escrow for those of before
            for person in for_now:
                await until(partial(some, world, "recipient = $1 AND last_error <> ''", person))
                del server.refusals[person]
            decided_after = await until(partial(none, world, "state = 'pending'"))
        got = Counter(address for address, _ in server.taken)
        twice, once = dict.fromkeys(early, 2), dict.fromkeys(set(late) - for_good, 1)
        assert got == Counter(twice | once)
        assert len({message["Message-ID"] for _, message in server.taken}) == got.total()
        assert trade.misses == {}
        assert {one.status for one in trade.answered} == {201}
    failed = await world.rows("SELECT recipient, attempt FROM mail WHERE state = 'failed'")
    assert sorted(failed) == [(person, 1) for person in sorted(for_good)]
    tell(
        mails=got.total(),
        failed=len(failed),
        first_taken_after_seconds=down_for,
        decided_after_seconds=decided_after,
        slowest_create_seconds=max(one.seconds for one in trade.answered),
    )
    await world.sound()


async def some(world: World, condition: str, *args: object) -> bool:
    return bool(await world.rows(f"SELECT FROM mail WHERE {condition} LIMIT 1", *args))


async def none(world: World, condition: str) -> bool:
    return not await some(world, condition)
