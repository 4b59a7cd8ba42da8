"""The mail server down, slow, refusing for now and for good: one mail a person and escrow."""

import random
from collections import Counter
from contextlib import ExitStack

import pytest

from service.cli.ports import find_free_port
from tests.chaos.conftest import Tell
from tests.chaos.load import trading
from tests.chaos.world import World, until
from tests.mail_server import MailServer, serving

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(300)]
PEOPLE = 24
SLOW_SECONDS = 1.5


def person(number: int) -> str:
    return f"person-{number}@people.example"


async def test_every_person_gets_one_mail_an_escrow_whatever_the_server_does(
    world: World, chance: random.Random, tell: Tell
) -> None:
    later, never = (
        {person(n) for n in range(0, PEOPLE, 4)},
        {person(n) for n in range(1, PEOPLE, 6)},
    )
    server = MailServer(rcpt_seconds=SLOW_SECONDS)
    server.refusals |= dict.fromkeys(later, "450 come again")
    server.refusals |= dict.fromkeys(never - later, "550 nobody of this name")
    server.replies += ["451 try later", "452 full"]  # the first two contents are not taken either
    port = find_free_port()
    ingress = await world.serve()
    await world.work(SMTP_URL=f"smtp://127.0.0.1:{port}")
    async with trading(world, chance, lambda: [ingress]) as trade:
        for number in range(PEOPLE):
            trade.buyer = type(trade.buyer)("", person(number))
            await trade.open(f"For {number}")
        assert trade.misses == {}
        down = "SELECT count(*) FROM mail WHERE state = 'pending' AND last_error IS NOT NULL"
        await until(lambda: some(world, down))
        slowest = max(one.seconds for one in trade.answered)
        with ExitStack() as stack:
            stack.enter_context(serving(server, port))
            await until(lambda: refused(world, later), every=0.2)
            for address in later:
                server.refusals.pop(address, None)
            took = await until(lambda: decided(world), every=0.2)
            got = Counter(address for address, _ in server.taken)
            wanted = {person(n) for n in range(PEOPLE)} - (never - later)
            assert got == Counter(wanted)
            assert len({message["Message-ID"] for _, message in server.taken}) == len(wanted)
        failed = await world.rows("SELECT recipient, attempt FROM mail WHERE state = 'failed'")
        assert {recipient for recipient, _ in failed} == never - later
        tries = await world.rows("SELECT max(attempt) FROM mail WHERE state = 'sent'")
        tell(
            people=PEOPLE,
            sent=len(server.taken),
            failed=len(failed),
            most_tries=tries[0][0],
            until_decided_seconds=took,
            slowest_create_seconds=slowest,
        )
    await world.sound()


async def some(world: World, query: str) -> bool:
    return (await world.rows(query))[0][0] > 0


async def refused(world: World, people: set[str]) -> bool:
    """Whether each of them was refused at least once by the server itself."""
    rows = await world.rows("SELECT recipient FROM mail WHERE last_error LIKE '450%'")
    return {recipient for (recipient,) in rows} >= people


async def decided(world: World) -> bool:
    return not await some(world, "SELECT count(*) FROM mail WHERE state = 'pending'")
