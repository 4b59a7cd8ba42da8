"""Two at once on one milestone escrow: one way or the other, whole, and never both."""

import asyncio
from collections.abc import Awaitable
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from typing import Any

import asyncpg
import pytest

from service.commands import milestones
from service.commands.deadlines import sweep
from service.commands.perform import Command, House, perform
from service.rules.errors import Refused
from service.rules.machine import Actor, Role
from service.store.ledger import read_balance
from tests.books import assert_sound
from tests.makers import jump, make_buyer
from tests.milestones import (
    Crew,
    approve,
    dispute,
    look,
    make_crew,
    make_milestone_terms,
    make_milestones,
    release,
    shares,
)

TIMES = 12


@pytest.fixture
async def crew(house: House) -> Crew:
    return await make_crew(house)


async def attempt(house: House, actor: Actor, command: Command) -> str:
    """ "done", or the code of the refusal."""
    try:
        await perform(house, actor, command)
    except Refused as refusal:
        return refusal.code or type(refusal).__name__
    return "done"


async def both(*work: Awaitable[Any]) -> list[Any]:
    return list(await asyncio.gather(*work))


async def spent(house: House, crew: Crew) -> int:
    return (await read_balance(house.pool, crew.payer.user_id, "USDC")).available


@pytest.mark.parametrize("amounts", [(), ("60", "40")], ids=["single", "multi"])
async def test_a_release_and_a_dispute_do_not_both_win(
    house: House, crew: Crew, amounts: tuple[str, ...]
):
    seen = set()
    asked: dict[str, Any] = {"amounts": amounts} if amounts else {"amount": "100", "count": 2}
    some = [0] if amounts else None
    for _ in range(TIMES):
        escrow = await make_milestones(house, crew, funded="100", **asked)
        await approve(house, crew, escrow.id, 0, 1)
        outcome = await both(
            attempt(house, crew.actor(Role.RELEASE_SIGNER), milestones.release(escrow.id, some)),
            attempt(
                house,
                crew.actor(Role.RECEIVER),
                milestones.dispute(escrow.id, "It is late.", some),
            ),
        )
        seen.add(tuple(outcome))
        after = await look(house, escrow.id)
        won = after.milestones[0].released, after.milestones[0].disputed
        assert won == (outcome[0] == "done", outcome[1] == "done")
        assert outcome.count("done") == 1
    codes = {code for pair in seen for code in pair} - {"done"}
    assert codes <= {
        "ESCROW_IN_DISPUTE",
        "ESCROW_ALREADY_RELEASED",
        "MILESTONE_IN_DISPUTE",
        "MILESTONE_ALREADY_RELEASED",
    }
    await assert_sound(house)


async def test_ten_releases_pay_once(house: House, crew: Crew):
    escrow = await make_milestones(house, crew, amount="100", funded="1000")
    await approve(house, crew, escrow.id, 0)
    signer = crew.actor(Role.RELEASE_SIGNER)
    outcome = await both(
        *(attempt(house, signer, milestones.release(escrow.id)) for _ in range(10))
    )
    assert sorted(outcome) == ["ESCROW_ALREADY_RELEASED"] * 9 + ["done"]
    receiver = crew.people[Role.RECEIVER].user_id
    assert (await read_balance(house.pool, receiver, "USDC")).available == 94_700_000
    await assert_sound(house)


async def test_two_releases_of_a_pool_that_is_enough_for_one(house: House, crew: Crew):
    for _ in range(TIMES):
        escrow = await make_milestones(house, crew, amounts=("60", "60"), funded="100")
        await approve(house, crew, escrow.id, 0, 1)
        signer = crew.actor(Role.RELEASE_SIGNER)
        outcome = await both(
            attempt(house, signer, milestones.release(escrow.id, [0])),
            attempt(house, signer, milestones.release(escrow.id, [1])),
        )
        assert sorted(outcome) == ["ESCROW_BALANCE_NOT_ENOUGH", "done"]
        assert (await look(house, escrow.id)).held_minor == 40_000_000
    await assert_sound(house)


async def test_a_resolution_and_a_withdrawal_take_what_there_is_once(house: House, crew: Crew):
    """The last milestone is resolved while somebody tries to withdraw the rest."""
    resolver = crew.actor(Role.DISPUTE_RESOLVER)
    for _ in range(TIMES):
        escrow = await make_milestones(house, crew, amounts=("60", "40"), funded="100")
        await approve(house, crew, escrow.id, 0)
        await release(house, crew, escrow.id, 0)
        await dispute(house, crew, escrow.id, 1)
        outcome = await both(
            attempt(
                house,
                resolver,
                milestones.resolve(escrow.id, shares((crew.payer.email, "25")), 1),
            ),
            attempt(
                house,
                resolver,
                milestones.withdraw_remaining(escrow.id, shares((crew.payer.email, "40"))),
            ),
            attempt(
                house,
                resolver,
                milestones.withdraw_remaining(escrow.id, shares((crew.payer.email, "15"))),
            ),
        )
        assert outcome[0] == "done"
        assert outcome[1] in ("ESCROW_NOT_FULLY_PROCESSED", "INSUFFICIENT_FUNDS_FOR_RESOLUTION")
        assert outcome[2] in ("ESCROW_NOT_FULLY_PROCESSED", "done")
        left = 0 if outcome[2] == "done" else 15_000_000
        assert (await look(house, escrow.id)).held_minor == left
    await assert_sound(house)


async def test_an_approval_and_an_update_see_one_another(
    house: House, owner: asyncpg.Connection, crew: Crew
):
    """Whoever comes second sees the first: both orders, whoever waits for the escrow's lock."""
    seen = set()
    for turn in range(TIMES):
        escrow = await make_milestones(house, crew, amounts=("60", "40"))
        terms = make_milestone_terms(crew, amounts=("60", "50"))
        approval = attempt(house, crew.actor(Role.APPROVER), milestones.approve(escrow.id, [1]))
        update = attempt(house, crew.actor(Role.PLATFORM), milestones.update(escrow.id, terms))
        [approved, updated] = await _in_turns(owner, escrow.id, turn, approval, update)
        assert approved == "done"
        after = await look(house, escrow.id)
        assert [one.approved for one in after.milestones] == [False, True]
        steps = [one["step"] for one in await owner.fetch(STEPS, escrow.id)]
        if updated == "done":
            assert after.amount_minor == 110_000_000
            assert steps == ["update", "approve_milestone"]
        else:
            assert updated == "MILESTONE_APPROVED_CANNOT_CHANGE"
            assert after.amount_minor == 100_000_000
            assert steps == ["approve_milestone"]
        seen.add(updated)
    assert seen == {"done", "MILESTONE_APPROVED_CANNOT_CHANGE"}
    await assert_sound(house)


STEPS = """
SELECT step FROM event WHERE subject_id = $1 AND type IN
    ('milestone_escrow.updated', 'milestone.approved') ORDER BY seq
"""
# Not of pg_stat_activity: a transaction reads that once.
WAITING = """
SELECT count(DISTINCT pid) FROM pg_locks WHERE NOT granted AND pid IN (
    SELECT l.pid FROM pg_locks l JOIN pg_database d ON d.oid = l.database
    WHERE d.datname = current_database())
"""


async def _in_turns(
    owner: asyncpg.Connection, escrow_id: str, turn: int, *work: Awaitable[str]
) -> list[str]:
    """Both wait for the escrow's lock, first whose turn it is; each third time they race."""
    if turn % 3 == 2:
        return await both(*work)
    order = [0, 1] if turn % 3 == 0 else [1, 0]
    waiting: dict[int, asyncio.Future[str]] = {}
    async with owner.transaction():
        await owner.execute("SELECT 1 FROM escrow WHERE id = $1 FOR UPDATE", escrow_id)
        for count, index in enumerate(order, start=1):
            waiting[index] = asyncio.ensure_future(work[index])
            async with asyncio.timeout(5):
                while await owner.fetchval(WAITING) < count:  # noqa: ASYNC110 - the server
                    await asyncio.sleep(0.01)
    return [await waiting[0], await waiting[1]]


async def test_a_funding_and_an_update_see_one_another(house: House, crew: Crew):
    for _ in range(TIMES):
        escrow = await make_milestones(house, crew, amount="100")
        terms = replace(make_milestone_terms(crew, amount="100"), currency="TND")
        terms = replace(terms, amount_minor=100_000)
        outcome = await both(
            attempt(
                house, crew.payer.actor, milestones.fund(escrow.id, Decimal(7), expected_version=1)
            ),
            attempt(house, crew.actor(Role.PLATFORM), milestones.update(escrow.id, terms)),
        )
        assert sorted(outcome) == ["ESCROW_PROPERTIES_MISMATCH", "done"]
        after = await look(house, escrow.id)
        assert (after.currency, after.held_minor) == (
            ("USDC", 7_000_000) if outcome[0] == "done" else ("TND", 0)
        )
    await assert_sound(house)


async def test_twenty_fundings_of_one_wallet_never_overdraw_it(house: House):
    crew = await make_crew(house, funds="100")
    escrows = [await make_milestones(house, crew, amount="100") for _ in range(4)]
    outcome = await both(
        *(
            attempt(house, crew.payer.actor, milestones.fund(one.id, Decimal(30)))
            for one in escrows
            for _ in range(5)
        )
    )
    assert sorted(outcome) == ["INSUFFICIENT_FUNDS"] * 17 + ["done"] * 3
    assert await spent(house, crew) == 10_000_000
    await assert_sound(house)


async def test_the_resolver_and_the_clock_do_not_both_decide(house: House, crew: Crew):
    for _ in range(6):
        escrow = await make_milestones(
            house, crew, amount="100", funded="100", resolver_deadline_days=1
        )
        await dispute(house, crew, escrow.id)
        await jump(house, timedelta(days=1))
        command = milestones.resolve(escrow.id, shares((crew.email(Role.RECEIVER), "100")))
        [outcome, _] = await both(
            attempt(house, crew.actor(Role.DISPUTE_RESOLVER), command), sweep(house)
        )
        # What was due comes first, whoever notices it.
        assert outcome == "ESCROW_NOT_IN_DISPUTE"
        after = await look(house, escrow.id)
        assert (after.status, after.refunded_minor) == ("resolved", 100_000_000)
    await assert_sound(house)


# ---- Who waits for whom -------------------------------------------------------------------------

NEWCOMER = "a-newcomer@example.com"
LOCK = "SELECT pg_advisory_xact_lock(hashtextextended('register/' || $1, 0))"


@pytest.mark.parametrize(
    ("who", "count", "code"),
    [
        ("stranger", 2, "ONLY_PLATFORM_CAN_UPDATE"),
        ("stranger", 300, "TOO_MANY_MILESTONES"),
        ("platform", 300, "TOO_MANY_MILESTONES"),
    ],
)
async def test_an_update_that_is_refused_by_its_terms_or_its_role_waits_for_nobody(
    house: House, owner: asyncpg.Connection, crew: Crew, who: str, count: int, code: str
):
    """And so takes no lock for an e-mail: the cluster's table of locks has room for few."""
    escrow = await make_milestones(house, crew, amounts=("60", "40"))
    terms = make_milestone_terms(crew, amounts=["1"] * count, receivers=[NEWCOMER])
    actor = crew.stranger.actor if who == "stranger" else crew.actor(Role.PLATFORM)
    async with owner.transaction():
        await owner.fetchval(LOCK, NEWCOMER)  # somebody is registering
        async with asyncio.timeout(2):
            assert await attempt(house, actor, milestones.update(escrow.id, terms)) == code


async def test_a_creation_that_is_refused_waits_for_nobody(
    house: House, owner: asyncpg.Connection, crew: Crew
):
    terms = make_milestone_terms(crew, amounts=["1"] * 300, receivers=[NEWCOMER])
    async with owner.transaction():
        await owner.fetchval(LOCK, NEWCOMER)
        async with asyncio.timeout(2):
            command = milestones.create(crew.shop.developer_id, terms)
            assert await attempt(house, crew.shop.actor, command) == "TOO_MANY_MILESTONES"


async def test_an_update_waits_for_whoever_registers_and_links_them(
    house: House, owner: asyncpg.Connection, crew: Crew
):
    escrow = await make_milestones(house, crew, amounts=("60", "40"))
    terms = make_milestone_terms(crew, amounts=("60", "40"), receivers=[NEWCOMER])
    command = milestones.update(escrow.id, terms)
    async with owner.transaction():
        await owner.fetchval(LOCK, NEWCOMER)
        waiting = asyncio.create_task(attempt(house, crew.actor(Role.PLATFORM), command))
        done, _ = await asyncio.wait([waiting], timeout=0.3)
        assert not done
    assert await waiting == "done"
    await make_buyer(house, NEWCOMER, "0")
    receiver = (await look(house, escrow.id)).milestones[0].receiver
    assert receiver is not None
    assert receiver.user_id is not None
    await assert_sound(house)
