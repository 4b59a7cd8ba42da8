"""The feed: every event of a developer once, in the order of commits, whatever is under way."""

import asyncio
import re
from dataclasses import replace
from datetime import UTC, datetime
from uuid import uuid4

import asyncpg
import orjson
import pytest

from service.commands import attempts, endpoints, identity, recoveries
from service.commands.deliveries import fan_out
from service.commands.perform import House, tend
from service.rules.engagement import ROLES
from service.rules.machine import Role
from service.settings import Settings
from service.store import canary, feed
from service.store.db import Transaction
from service.store.developers import next_developer_seq
from service.store.events import Entry, append_events
from service.store.feed import START, Position, read_beginning, read_end, read_feed
from service.store.ids import event_id
from service.wire.identity import NewVerification
from tests.makers import Shop, act, make_escrow, make_shop
from tests.milestones import make_crew, make_milestones
from tests.receiver import make_endpoint

LONG_AGO = datetime(2026, 1, 1, tzinfo=UTC)
INSERT = """
WITH told AS (
    INSERT INTO event (subject_id, seq, subject_kind, id, type, step, actor_kind, at)
    VALUES ($1, $2, 'developer', $3, 'escrow.created', 'x', 'system', now())
    RETURNING id, recorded_at
)
INSERT INTO webhook_body (event_id, recorded_at, body) SELECT id, recorded_at, $4 FROM told
"""


async def quiet(house: House) -> None:
    """Whoever else writes in this cluster has ended what began before: the feed shows all."""
    newest = await house.pool.fetchval(
        "SELECT xid::text::bigint FROM event ORDER BY xid DESC LIMIT 1"
    )
    async with asyncio.timeout(10):
        while (await read_end(house.pool)).xid < (newest or 0):  # noqa: ASYNC110 - the server
            await asyncio.sleep(0.01)


async def pulled(house: House, shop: Shop, after: Position = START, limit: int = 100) -> list:
    await quiet(house)
    stretch = await read_feed(house.pool, shop.developer_id, after, None, limit)
    return [one.body for one in stretch.told]


async def test_the_bodies_are_those_of_the_webhooks_in_the_order_of_the_facts(house: House):
    shop, stranger = await make_shop(house), await make_shop(house)
    await make_escrow(house, shop, status="completed")
    await make_escrow(house, stranger, status="paid")
    rows = await house.pool.fetch(
        "SELECT b.body FROM event v JOIN webhook_body b ON b.event_id = v.id"
        " JOIN escrow x ON x.id = v.subject_id WHERE x.creator_id = $1 ORDER BY v.position",
        shop.developer_id,
    )
    assert await pulled(house, shop) == [row["body"] for row in rows]
    assert len(rows) == 3


async def test_a_transaction_that_began_first_and_commits_last_is_not_passed_over(
    house: House, migrated: Settings
):
    shop = await make_shop(house)
    early = await asyncpg.connect(migrated.admin_url)
    late = await asyncpg.connect(migrated.admin_url)
    try:
        async with early.transaction():
            await early.execute(INSERT, shop.developer_id, 100, uuid4(), b"1")
            await late.execute(INSERT, shop.developer_id, 101, uuid4(), b"2")
            first = await read_feed(house.pool, shop.developer_id, START, None, 10)
            assert list(first.told) == []
        await quiet(house)
        second = await read_feed(house.pool, shop.developer_id, first.reached, None, 10)
        assert [one.body for one in second.told] == [b"1", b"2"]
    finally:
        await early.close()
        await late.close()


async def test_a_new_account_may_pull_beside_a_transaction_that_is_older_than_it(
    house: House, migrated: Settings
):
    other = await asyncpg.connect(migrated.admin_url)
    try:
        async with other.transaction():
            await other.fetchval("SELECT pg_current_xact_id()")
            shop = await make_shop(house)
            beginning = await read_beginning(house.pool, shop.developer_id)
            assert beginning > await read_end(house.pool)
            for _ in range(2):
                stretch = await read_feed(house.pool, shop.developer_id, beginning, None, 10)
                assert (list(stretch.told), stretch.reached) == ([], beginning)
    finally:
        await other.close()


async def test_under_many_writers_every_event_is_pulled_once(house: House):
    shop = await make_shop(house)
    seen: list[bytes] = []
    after = START
    stop = asyncio.Event()

    async def pull() -> None:
        nonlocal after
        while True:
            last_look = stop.is_set()
            if last_look:
                await quiet(house)
            stretch = await read_feed(house.pool, shop.developer_id, after, None, 3)
            seen.extend(one.body for one in stretch.told)
            after = stretch.reached
            if last_look and not stretch.has_more:
                return
            await asyncio.sleep(0.001)

    pulling = asyncio.create_task(pull())
    await asyncio.gather(*(make_escrow(house, shop, status="paid") for _ in range(15)))
    stop.set()
    await pulling
    assert len(seen) == len(set(seen)) == 30


async def test_a_page_is_at_most_its_limit_and_the_cursor_goes_on(house: House):
    shop = await make_shop(house)
    await make_escrow(house, shop, status="completed")
    whole = await pulled(house, shop)
    walked: list[bytes] = []
    after, has_more = START, True
    while has_more:
        stretch = await read_feed(house.pool, shop.developer_id, after, None, 1)
        assert len(stretch.told) <= 1
        walked += [one.body for one in stretch.told]
        after, has_more = stretch.reached, stretch.has_more
    assert walked == whole


async def test_what_is_of_others_moves_the_cursor_on(house: House, monkeypatch: pytest.MonkeyPatch):
    shop, stranger = await make_shop(house), await make_shop(house)
    await make_escrow(house, stranger, status="completed")
    await quiet(house)
    monkeypatch.setattr(feed, "SCANNED", 2)
    first = await read_feed(house.pool, shop.developer_id, START, None, 10)
    assert (list(first.told), first.has_more) == ([], True)
    assert first.reached > START


@pytest.mark.parametrize(
    ("types", "count"),
    [(["escrow.created"], 1), (["escrow.*"], 3), (["*"], 3), (["contract.signed"], 0)],
)
async def test_types_and_wildcards_narrow(house: House, types: list[str], count: int):
    shop = await make_shop(house)
    await make_escrow(house, shop, status="completed")
    await quiet(house)
    stretch = await read_feed(house.pool, shop.developer_id, START, types, 100)
    assert len(stretch.told) == count


async def test_from_the_end_on_only_what_comes_is_told(house: House):
    shop = await make_shop(house)
    await make_escrow(house, shop)
    await quiet(house)
    end = await read_end(house.pool)
    assert await pulled(house, shop, end) == []
    await make_escrow(house, shop)
    assert len(await pulled(house, shop, end)) == 1


async def test_a_party_is_told_what_fan_out_would_tell_them(house: House):
    creator, party = await make_shop(house), await make_shop(house)
    await make_escrow(house, creator, buyer_email=party.email)
    assert await pulled(house, party) == await pulled(house, creator)


async def test_tests_are_of_their_endpoint_alone(house: House):
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, "http://127.0.0.1:9/hook")
    await act(house, shop.actor, attempts.send_test(shop.developer_id, made["id"]))
    assert await pulled(house, shop) == []


TOLD_OF = {"escrow", "developer", "endpoint", "identity"}
SILENT = {"user", "payment"}
"""Kinds of subjects whose events no webhook tells: they are the operator's and the audit's."""


async def test_every_kind_of_subject_has_its_audience_or_none(house: House):
    """A new kind belongs into `audience` in schema.sql, and into the test below."""
    said = await house.pool.fetchval(
        "SELECT pg_get_constraintdef(oid) FROM pg_constraint"
        " WHERE conname = 'event_subject_kind_check'"
    )
    assert set(re.findall(r"'(\w+)'", said)) == TOLD_OF | SILENT
    await make_escrow(house, await make_shop(house), status="completed")
    typed = await house.pool.fetch("SELECT DISTINCT subject_kind FROM event WHERE type IS NOT NULL")
    assert {row["subject_kind"] for row in typed} <= TOLD_OF


async def delivered(house: House, endpoint_id: str) -> list[bytes]:
    rows = await house.pool.fetch(
        "SELECT b.body FROM delivery d JOIN webhook_body b USING (event_id) JOIN event v"
        " ON v.id = d.event_id WHERE d.endpoint_id = $1 ORDER BY v.position",
        endpoint_id,
    )
    return [row["body"] for row in rows]


async def recovered(house: House, shop: Shop) -> list[bytes]:
    """What an endpoint that is new is sent of all that ever was."""
    hook = await make_endpoint(house, shop, "http://127.0.0.1:9/late", events=["*"])
    wish = recoveries.recover(shop.developer_id, hook["id"], LONG_AGO, None)
    await act(house, shop.actor, wish)
    while await tend(house, recoveries.run_chunk):
        pass
    return await delivered(house, hook["id"])


async def a_life(house: House, shop: Shop, party: Shop) -> None:
    """Something that is told of every kind of subject."""
    other = await make_endpoint(house, shop, "http://127.0.0.1:9/b")
    await make_escrow(house, shop, buyer_email=party.email)
    crew = replace(await make_crew(house), shop=shop)
    roles = {role: crew.email(role) for role in ROLES} | {Role.APPROVER: party.email}
    await make_milestones(house, crew, amount="100", roles=roles)
    wanted = NewVerification.model_validate({"email": f"{shop.developer_id}@new.example"})
    await act(house, shop.actor, identity.request(shop.developer_id, wanted))
    await act(house, shop.actor, endpoints.regenerate_secret(shop.developer_id, other["id"], 1))
    await act(house, shop.actor, endpoints.delete(shop.developer_id, other["id"]))

    async def of_the_account(tx: Transaction) -> None:
        seq = await next_developer_seq(tx, shop.developer_id)
        entry = Entry(
            event_id(tx.now),
            shop.developer_id,
            "developer",
            seq,
            "canary",
            canary.TYPE,
            b'{"type":"canary"}',
        )
        await append_events(tx, [entry])

    await tend(house, of_the_account)


async def test_feed_fan_out_and_recovery_tell_the_same_of_every_kind_of_subject(house: House):
    shop, party, *strangers = [await make_shop(house) for _ in range(4)]
    hook = await make_endpoint(house, shop, "http://127.0.0.1:9/a", events=["*"])
    theirs = await make_endpoint(house, party, "http://127.0.0.1:9/a", events=["*"])
    await a_life(house, shop, party)
    await a_life(house, *strangers)
    await tend(house, fan_out)
    told = await pulled(house, shop)
    assert told == await delivered(house, hook["id"]) == await recovered(house, shop)
    kinds = await house.pool.fetch(
        "SELECT DISTINCT v.subject_kind FROM event v JOIN webhook_body b ON b.event_id = v.id"
        " WHERE b.body = ANY ($1)",
        told,
    )
    assert {row["subject_kind"] for row in kinds} == TOLD_OF
    of_party = await pulled(house, party)
    assert of_party == await delivered(house, theirs["id"]) == await recovered(house, party)
    assert {orjson.loads(body)["type"] for body in of_party} == {
        "escrow.created",
        "milestone_escrow.created",
    }


async def test_who_hears_is_part_of_the_plan_and_each_subject_is_asked_about_once(
    house: House, owner: asyncpg.Connection
):
    shop, stranger = await make_shop(house), await make_shop(house)
    for _ in range(3):
        await make_escrow(house, stranger, status="completed")
    await quiet(house)
    given = (shop.developer_id, "0", 0, None, 1000, 10)
    plan = await owner.fetch(f"EXPLAIN (ANALYZE, VERBOSE) {feed.READ_FEED}", *given)
    text = "\n".join(row[0] for row in plan)
    assert "audience(" not in text
    [asked] = re.findall(r"Scan.* on public\.escrow x .*loops=(\d+)\)", text)
    assert int(asked) == 3


async def test_the_feed_begins_with_the_account(house: House):
    seller = await make_shop(house)
    await make_escrow(house, seller, status="completed")
    shop = await make_shop(house)
    await make_escrow(house, shop)
    await quiet(house)
    beginning = await read_beginning(house.pool, shop.developer_id)
    stretch = await read_feed(house.pool, seller.developer_id, beginning, None, 10)
    assert list(stretch.told) == []
    assert await pulled(house, shop, beginning) == await pulled(house, shop)
    assert await read_beginning(house.pool, "0" * 24) == START
