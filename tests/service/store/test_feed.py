"""The feed: every event of a developer once, in the order of commits, whatever is under way."""

import asyncio
from uuid import uuid4

import asyncpg
import orjson
import pytest

from service.commands import attempts, endpoints, identity
from service.commands.deliveries import fan_out
from service.commands.perform import House, tend
from service.settings import Settings
from service.store import feed
from service.store.feed import START, Position, read_end, read_feed
from service.wire.identity import NewVerification
from tests.makers import Shop, act, make_escrow, make_shop
from tests.receiver import make_endpoint

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


async def test_the_feed_tells_what_fan_out_delivers_of_every_kind_of_subject(house: House):
    shop, stranger = await make_shop(house), await make_shop(house)
    hook = await make_endpoint(house, shop, "http://127.0.0.1:9/a", events=["*"])
    other = await make_endpoint(house, shop, "http://127.0.0.1:9/b")
    for one, theirs in ((shop, other), (stranger, None)):
        await make_escrow(house, one, status="completed")
        wanted = NewVerification.model_validate({"email": f"{one.developer_id}@new.example"})
        await act(house, one.actor, identity.request(one.developer_id, wanted))
        if theirs is not None:
            rotate = endpoints.regenerate_secret(one.developer_id, theirs["id"], 1)
            await act(house, one.actor, rotate)
    await tend(house, fan_out)
    delivered = await house.pool.fetch(
        "SELECT b.body FROM delivery d JOIN webhook_body b USING (event_id) JOIN event v"
        " ON v.id = d.event_id WHERE d.endpoint_id = $1 ORDER BY v.position",
        hook["id"],
    )
    told = await pulled(house, shop)
    assert told == [row["body"] for row in delivered]
    kinds = {orjson.loads(body)["type"].split(".")[0] for body in told}
    assert kinds == {"escrow", "identity", "secret"}
