"""The milestone endpoints at the door: what they answer, list, log, rehearse and repeat."""

import re
from datetime import timedelta

import asyncpg
import orjson
import pytest

from service.commands.deadlines import sweep
from service.rules.machine import Role
from service.store.ledger import read_balance
from tests.books import assert_sound, count_rows
from tests.house import SECRET_KEY
from tests.makers import jump, make_buyer, top_up
from tests.outbox import tokens_of
from tests.service.ingress.api.milestone_world import PATH, World, make_world, register


@pytest.fixture
async def client(house, ingress):
    async with ingress(None, RATE_LIMIT_PER_MINUTE="0", AMANA_SECRET_KEY=SECRET_KEY) as opened:
        yield opened


@pytest.fixture
async def world(house, client) -> World:
    return await make_world(house, client)


async def events(world: World, path: str, who: str = "developer") -> list:
    status, told = await world.ask(who, "GET", f"{path}/events?limit=100")
    assert status == 200
    return told["events"]


async def wallet(world: World, role: Role, currency: str = "USDC") -> int:
    user_id = world.crew.people[role].user_id
    return (await read_balance(world.house.pool, user_id, currency)).available


# ---- The object ---------------------------------------------------------------------------------


async def test_a_new_escrow_is_answered_in_full(world: World):
    body = world.body(receiverMemo="invoice 9", resolverDeadlineDays=5)
    status, told = await world.ask("developer", "POST", "", body)
    escrow = told["escrow"]
    assert status == 201
    assert escrow.pop("id")
    assert escrow.pop("createdAt") == escrow.pop("updatedAt")
    flags = {"approved": False, "disputed": False, "released": False, "resolved": False}
    assert escrow == {
        **body,
        "amount": "100.000000",
        "protocolFeeBps": 30,
        "milestones": [
            {"index": n, **one, "status": "pending", "evidence": "", **flags}
            for n, one in enumerate(body["milestones"])
        ],
        "balance": "0.000000",
        "flags": {"disputed": False, "released": False, "resolved": False},
        "status": "working",
        "frozen": False,
        "version": 1,
    }


async def test_what_get_returns_can_be_edited_and_put_back(world: World):
    for amounts in ((), ("60", "40.5")):
        path = await world.made(amounts=amounts)
        _, got = await world.ask("developer", "GET", path)
        before = await count_rows(world.house)
        same = await world.done("platform", "PUT", path, got["escrow"])
        assert same == got["escrow"]
        assert await count_rows(world.house) == before
        edited = {**got["escrow"], "title": "Another", "status": "released", "balance": "9"}
        edited["milestones"][0] |= {"approved": True, "status": "paid"}
        after = await world.done("platform", "PUT", path, edited)
        assert (after["title"], after["version"], after["status"]) == ("Another", 2, "working")
        assert after["milestones"][0]["approved"] is False
        assert after["milestones"][0]["status"] == "pending"
        assert (await events(world, path))[-1]["data"]["updatedFields"] == ["title"]


async def test_an_update_before_any_money_changes_roles_amounts_and_milestones(world: World):
    path = await world.made(amounts=("60", "40"))
    fresh = await make_buyer(world.house, funds="0")
    body = world.body(amounts=("10", "20", "30"), currency="TND", platformFeeBps=0)
    body["roles"]["approver"] = fresh.email
    body["milestones"][2]["receiver"] = "later@example.com"
    after = await world.done("platform", "PUT", path, body)
    assert (after["amount"], after["currency"], after["version"]) == ("60.000", "TND", 2)
    assert [one["amount"] for one in after["milestones"]] == ["10.000", "20.000", "30.000"]
    told = (await events(world, path))[-1]["data"]["updatedFields"]
    assert told == ["currency", "platformFeeBps", "roles", "milestones"]
    fewer = await world.done(
        "platform", "PUT", path, {**body, "milestones": body["milestones"][:1]}
    )
    assert (fewer["amount"], len(fewer["milestones"])) == ("10.000", 1)
    await assert_sound(world.house)


async def test_a_life_of_single_release_can_be_rebuilt_from_its_events(world: World):
    path = await world.made(funded="120")
    status = {"status": "in review", "evidence": "See the draft."}
    await world.done("serviceProvider", "POST", f"{path}/milestones/0/status", status)
    both = {"updates": [{"index": "1", "status": "done"}, {"index": 0, "status": "done"}]}
    after = await world.done("serviceProvider", "POST", f"{path}/milestones/status", both)
    assert [one["evidence"] for one in after["milestones"]] == ["See the draft.", ""]
    await world.released(path)
    payer = world.crew.payer.email
    body = {"distributions": [{"email": payer, "amount": 20}]}
    await world.done("disputeResolver", "POST", f"{path}/withdraw-remaining", body)
    told = await events(world, path)
    assert [one["type"] for one in told] == [
        "milestone_escrow.created",
        "milestone_escrow.funded",
        "milestone.status_changed",
        "milestone.status_changed",
        "milestone.status_changed",
        "milestone.approved",
        "milestone.approved",
        "escrow.status.updated",
        "milestone_escrow.released",
        "escrow.status.updated",
        "milestone_escrow.withdrawn",
    ]
    assert [one["seq"] for one in told] == list(range(1, 12))
    _, got = await world.ask("developer", "GET", path)
    assert told[-1]["data"]["escrow"] == got["escrow"]
    assert told[7]["data"]["escrow"]["oldStatus"] == "working"
    funded, released, withdrawn = told[1]["data"], told[8]["data"], told[10]["data"]
    for one in (funded, released, withdrawn):
        one.pop("escrow")
    assert funded == {"payer": payer, "amount": "120.000000", "balance": "120.000000"}
    assert released == {
        "receiver": world.crew.email(Role.RECEIVER),
        "gross": "100.000000",
        "fees": {"protocol": "0.300000", "platform": "5.000000"},
        "net": "94.700000",
    }
    assert withdrawn == {
        "by": "resolver",
        "total": "20.000000",
        "fees": {"protocol": "0.000000", "platform": "0.000000"},
        "distributions": [{"email": payer, "gross": "20.000000", "net": "20.000000"}],
    }
    await assert_sound(world.house)


async def test_what_happened_outlives_the_webhooks_bodies(world: World, owner: asyncpg.Connection):
    path = await world.made(amounts=("60", "40"), funded="100")
    status = {"status": "in review", "evidence": "See the draft."}
    await world.done("serviceProvider", "POST", f"{path}/milestones/0/status", status)
    await world.released(path, 0)
    await world.disputed(path, 1)
    note = {"text": "The third page is missing.", "milestoneIndex": 1}
    await world.done("approver", "POST", f"{path}/dispute-notes", note)
    body = {"milestoneIndex": 1, "distributions": world.shares(("receiver", "30"))}
    await world.done("disputeResolver", "POST", f"{path}/resolve-dispute", body)
    whole = await events(world, path)
    await owner.execute("DELETE FROM webhook_body")
    kept = await events(world, path)
    assert len(kept) == len(whole) == 12
    for now, was in zip(kept, whole, strict=True):
        left, all_of_it = now["data"].pop("escrow"), was["data"].pop("escrow")
        assert now == was
        moved = {"oldStatus"} if was["type"] == "escrow.status.updated" else set()
        assert set(left) == {"id", "currency", "status"} | moved
        assert left.items() <= all_of_it.items()
    said = {one["type"]: one["data"] for one in kept}
    assert said["milestone.status_changed"] == {"milestoneIndex": 0, **status}
    assert said["milestone_escrow.dispute_noted"]["note"]["text"] == note["text"]
    assert said["milestone.released"]["net"] == "56.820000"


async def test_a_page_of_the_log_is_bounded_by_its_bytes(world: World):
    long = {"description": "d" * 500, "amount": "1"}
    path = await world.made(amounts=("1",), milestones=[long] * 50)
    updates = [{"index": n, "status": "done", "evidence": "e" * 500} for n in range(50)]
    await world.done("serviceProvider", "POST", f"{path}/milestones/status", {"updates": updates})
    seen, cursor, pages = [], "0", 0
    while cursor is not None:
        query = f"limit=100&cursor={cursor}"
        headers = {"X-API-Key": world.keys["developer"]}
        async with world.client.get(f"{PATH}{path}/events?{query}", headers=headers) as response:
            raw = await response.read()
        assert len(raw) < 1_200_000
        told = orjson.loads(raw)
        seen += [one["seq"] for one in told["events"]]
        cursor, pages = told["nextCursor"], pages + 1
    assert seen == list(range(1, 52))
    assert pages == 3


async def test_a_resolution_tells_gross_and_net_of_each(world: World):
    path = await world.made(funded="100", platformFeeBps=300)
    await world.disputed(path)
    note = {"text": "The third page is missing."}
    await world.done("approver", "POST", f"{path}/dispute-notes", note)
    body = {"distributions": world.shares((world.crew.payer.email, "40"), ("receiver", "60"))}
    await world.done("disputeResolver", "POST", f"{path}/resolve-dispute", body)
    told = await events(world, path)
    noted = next(one for one in told if one["type"] == "milestone_escrow.dispute_noted")
    assert noted["data"]["note"] == {**note, "by": world.crew.email(Role.APPROVER)}
    resolved = next(one for one in told if one["type"] == "milestone_escrow.dispute_resolved")
    assert [one["net"] for one in resolved["data"]["distributions"]] == ["38.680000", "58.020000"]
    assert resolved["data"]["fees"] == {"protocol": "0.300000", "platform": "3.000000"}
    assert await wallet(world, Role.PLATFORM) == 3_000_000
    await assert_sound(world.house)


@pytest.mark.parametrize(
    ("currency", "net"), [("TND", "94.700"), ("EUR", "94.70"), ("USD", "94.70")]
)
async def test_each_currency_is_held_and_paid_as_itself(world: World, currency: str, net: str):
    await top_up(world.house, world.crew.payer.email, "100", currency)
    path = await world.made(funded="100", currency=currency)
    await world.released(path)
    released = (await events(world, path))[-2]["data"]
    nothing = "0.000" if currency == "TND" else "0.00"
    assert (released["net"], released["escrow"]["balance"]) == (net, nothing)
    assert await wallet(world, Role.RECEIVER) == 0
    minor = 94_700 if currency == "TND" else 9_470
    assert await wallet(world, Role.RECEIVER, currency) == minor
    headers = {"X-API-Key": world.keys["receiver"]}
    async with world.client.get(
        "/api/v1/balance", params={"currency": currency}, headers=headers
    ) as response:
        assert (await response.json())["balance"]["available"] == 94.7
    await assert_sound(world.house)


async def test_a_payers_balance_shows_their_share_of_what_is_held(world: World):
    path = await world.made(amounts=("60", "40"), funded="75")
    other = world.crew.people[Role.APPROVER]
    await top_up(world.house, other.email, "25", "USDC")
    await world.done("approver", "POST", f"{path}/fund", {"amount": "25", "from": other.email})
    await world.released(path, 0)
    shares = [
        (await read_balance(world.house.pool, user_id, "USDC")).escrow
        for user_id in (world.crew.payer.user_id, other.user_id)
    ]
    assert shares == [30_000_000, 10_000_000]


async def test_a_payers_share_goes_and_comes_back_with_the_pool(world: World):
    path = await world.made(amounts=("60", "40"), funded="60")
    other = world.crew.people[Role.APPROVER]
    await top_up(world.house, other.email, "40", "USDC")

    async def shares() -> list[int]:
        return [
            (await read_balance(world.house.pool, user_id, "USDC")).escrow
            for user_id in (world.crew.payer.user_id, other.user_id)
        ]

    await world.released(path, 0)
    assert await shares() == [0, 0]
    await world.done("approver", "POST", f"{path}/fund", {"amount": "20"})
    assert await shares() == [15_000_000, 5_000_000]
    await world.done("approver", "POST", f"{path}/fund", {"amount": "20"})
    assert await shares() == [24_000_000, 16_000_000]
    await world.released(path, 1)
    assert await shares() == [0, 0]
    await assert_sound(world.house)


async def test_a_payer_without_a_place_is_not_told_who_the_others_are(world: World):
    await top_up(world.house, world.crew.stranger.email, "10", "USDC")
    body = world.body(amounts=("60", "40"), receiverMemo="IBAN of somebody")
    body["milestones"][0]["receiver"] = "hidden@example.com"
    path = "/" + (await world.done("developer", "POST", "", body))["id"]
    for query in ("?dry_run=true", ""):
        status, told = await world.ask("stranger", "POST", f"{path}/fund{query}", {"amount": "0.5"})
        assert status == 200
        assert not [
            email
            for email in re.findall(r"[\w.+-]+@[\w.-]+", orjson.dumps(told).decode())
            if "stranger" not in email
        ]
        assert "IBAN" not in orjson.dumps(told).decode()
    assert told["escrow"]["balance"] == "0.500000"
    assert set(told["escrow"]["roles"].values()) == {""}


# ---- The resolver's deadline --------------------------------------------------------------------


async def test_a_late_resolver_sends_the_money_back_by_what_each_payer_has_funded(world: World):
    path = await world.made(funded="20", resolverDeadlineDays=3)
    for who, role, amount in (
        ("approver", Role.APPROVER, "10.000001"),
        ("platform", Role.PLATFORM, "3"),
    ):
        await top_up(world.house, world.crew.email(role), "50", "USDC")
        await world.done(who, "POST", f"{path}/fund", {"amount": amount})
    await world.disputed(path)
    _, told = await world.ask("developer", "GET", f"{path}/next")
    [deadline] = told["deadlines"]
    assert (deadline["kind"], deadline["step"]) == ("resolver", "resolve_dispute")
    assert "milestoneIndex" not in deadline
    await jump(world.house, timedelta(days=3))
    fired = await sweep(world.house)
    assert [one.kind for one in fired.fired] == ["resolver"]
    _, got = await world.ask("developer", "GET", path)
    assert (got["escrow"]["status"], got["escrow"]["balance"]) == ("resolved", "0.000000")
    resolved = (await events(world, path))[-2]
    assert (resolved["by"], resolved["data"]["by"]) == ("clock", "clock")
    assert [one["net"] for one in resolved["data"]["distributions"]] == [
        "20.000000",
        "10.000001",
        "3.000000",
    ]
    assert await wallet(world, Role.APPROVER) == 50_000_000
    await assert_sound(world.house)


async def test_each_milestones_dispute_has_its_own_deadline(world: World):
    path = await world.made(amounts=("60", "40", "10"), funded="70", resolverDeadlineDays=2)
    await world.disputed(path, 0)
    await jump(world.house, timedelta(days=1))
    await world.disputed(path, 1, 2)
    _, told = await world.ask("developer", "GET", f"{path}/next")
    assert [one["milestoneIndex"] for one in told["deadlines"]] == [0, 1, 2]
    await jump(world.house, timedelta(days=1))
    await sweep(world.house)
    _, got = await world.ask("developer", "GET", path)
    escrow = got["escrow"]
    assert [one["resolved"] for one in escrow["milestones"]] == [True, False, False]
    assert (escrow["balance"], escrow["milestones"][0]["status"]) == ("10.000000", "resolved")
    body = {"milestoneIndex": 2, "distributions": world.shares(("receiver", "3"))}
    await world.done("disputeResolver", "POST", f"{path}/resolve-dispute", body)
    await jump(world.house, timedelta(days=1))
    # Nobody has swept: whoever comes finds the clock's step done first.
    ask = ("disputeResolver", "POST", f"{path}/resolve-dispute")
    late = {"milestoneIndex": 1, "distributions": world.shares(("receiver", "1"))}
    status, told = await world.ask(*ask, late)
    assert (status, told["code"]) == (409, "MILESTONE_ALREADY_RESOLVED")
    _, got = await world.ask("developer", "GET", path)
    assert (got["escrow"]["status"], got["escrow"]["balance"]) == ("resolved", "0.000000")
    await assert_sound(world.house)


async def test_a_late_resolver_of_nothing_resolves_without_a_transfer(world: World):
    path = await world.made(resolverDeadlineDays=1)
    await world.disputed(path)
    await jump(world.house, timedelta(days=1))
    await sweep(world.house)
    resolved = (await events(world, path))[-2]["data"]
    assert (resolved["total"], resolved["distributions"]) == ("0.000000", [])
    await assert_sound(world.house)


# ---- Lists, balances, the log -------------------------------------------------------------------


async def listed(world: World, who: str = "developer", **query: str) -> list[str]:
    headers = {"X-API-Key": world.keys[who]}
    async with world.client.get(PATH, params=query, headers=headers) as response:
        told = await response.json()
        assert response.status == 200, told
        return [f"/{one['id']}" for one in told["escrows"]]


async def test_each_filter_keeps_what_it_says(world: World):
    email = world.crew.email(Role.APPROVER)
    a = await world.made(engagementId="A", title="A garden", amount="5", funded="5")
    b = await world.made(engagementId="B", title="100% house", amounts=("7", "8"))
    c = await world.made(engagementId="A", title="A house", amount="20", currency="TND")
    await world.released(a)
    await world.approved(b, 0)
    for query, found in (
        ({}, [c, b, a]),
        ({"engagementId": "A"}, [c, a]),
        ({"title": "HOUSE"}, [c, b]),
        ({"title": "0% h"}, [b]),
        ({"status": "released"}, [a]),
        ({"status": "pendingRelease"}, [b]),
        ({"status": "working"}, [c]),
        ({"status": "inDispute"}, []),
        ({"releaseMode": "multi"}, [b]),
        ({"role": "approver", "roleEmail": email.upper()}, [c, b, a]),
        ({"role": "receiver", "roleEmail": email}, []),
        ({"participant": email}, [c, b, a]),
        ({"participant": "nobody@example.com"}, []),
        ({"minAmount": "15"}, [c, b]),
        ({"minAmount": "5", "maxAmount": "15.000"}, [b, a]),
        ({"startDate": "2020-01-01", "endDate": "2021-01-01T00:00:00Z"}, []),
        ({"startDate": "2020-01-01"}, [c, b, a]),
        ({"orderBy": "amount"}, [c, b, a]),
        ({"orderBy": "amount", "orderDirection": "asc"}, [a, b, c]),
        ({"orderDirection": "asc"}, [a, b, c]),
        ({"orderBy": "updatedAt"}, [b, a, c]),
    ):
        assert await listed(world, **query) == found, query
    assert await listed(world, "approver") == [c, b, a]
    assert await listed(world, "stranger") == []


async def test_an_end_date_is_a_whole_day_and_an_instant_an_instant(world: World):
    path = await world.made()
    _, got = await world.ask("developer", "GET", path)
    made = got["escrow"]["createdAt"]
    today = made[:10]
    for query, found in (
        ({"startDate": today, "endDate": today}, [path]),
        ({"endDate": made}, []),
        ({"startDate": made}, [path]),
        ({"endDate": f"{today}T00:00:00Z"}, []),
        ({"startDate": "2030-01-01", "endDate": "2020-01-01"}, []),
        ({"endDate": "8999-12-31"}, [path]),
    ):
        assert await listed(world, **query) == found, query


@pytest.mark.parametrize(
    ("currency", "amount"),
    [
        ("TND", "1.001"),
        ("TND", "8.2"),
        ("EUR", "0.07"),
        ("EUR", "8.2"),
        ("USD", "1.13"),
        ("USDC", "1.000009"),
        ("USDC", "0.000007"),
        ("USDC", "900000000"),
    ],
)
async def test_an_amount_lies_within_its_own_bounds(world: World, currency: str, amount: str):
    path = await world.made(amount=amount, currency=currency)
    bounds = {"minAmount": amount, "maxAmount": amount}
    for order in ("createdAt", "updatedAt", "amount"):
        assert await listed(world, orderBy=order, **bounds) == [path], order
    finer = f"{amount}{'0' * 9 if '.' in amount else '.' + '0' * 9}1"
    assert await listed(world, minAmount=finer) == []


async def test_amounts_beyond_the_precision_of_a_float_are_told_apart(world: World):
    amounts = ["899999999.999997", "899999999.999999", "899999999.999998", "900000000"]
    made = [await world.made(amount=amount) for amount in amounts]
    query = {"orderBy": "amount", "limit": "1"}
    seen = []
    for _ in amounts:
        headers = {"X-API-Key": world.keys["developer"]}
        async with world.client.get(PATH, params=query, headers=headers) as response:
            told = await response.json()
        [one] = told["escrows"]
        seen.append(f"/{one['id']}")
        query["cursor"] = told["nextCursor"]
    assert seen == [made[n] for n in (3, 1, 2, 0)]
    assert query["cursor"] is None


@pytest.mark.parametrize("order_by", ["createdAt", "updatedAt", "amount"])
@pytest.mark.parametrize("direction", ["asc", "desc"])
async def test_a_cursor_walks_through_every_one_once(world: World, order_by: str, direction: str):
    amounts = ["5", "7", "5", "6", "5"]
    made = [await world.made(amount=amount) for amount in amounts]
    dates = {"startDate": "2020-01-01", "endDate": "2099-01-01"}
    query = {"orderBy": order_by, "orderDirection": direction, "limit": "2", **dates}
    seen: list[str] = []
    while True:
        headers = {"X-API-Key": world.keys["approver"]}
        async with world.client.get(PATH, params=query, headers=headers) as response:
            told = await response.json()
        seen += [f"/{one['id']}" for one in told["escrows"]]
        if told["nextCursor"] is None:
            break
        query["cursor"] = told["nextCursor"]
    assert sorted(seen) == sorted(made)
    if order_by != "amount":
        assert seen == (made if direction == "asc" else made[::-1])
    else:
        values = [amounts[made.index(one)] for one in seen]
        assert values == sorted(amounts, reverse=direction == "desc")


@pytest.mark.parametrize(
    ("query", "field"),
    [
        ({"status": "paid"}, "status"),
        ({"limit": "101"}, "limit"),
        ({"cursor": "!!"}, "cursor"),
        ({"cursor": "AAAA"}, "cursor"),
        ({"role": "approver"}, "role"),
        ({"minAmount": "much"}, "minAmount"),
        ({"startDate": "yesterday"}, "startDate"),
        ({"orderBy": "title"}, "orderBy"),
        ({"participant": "nobody"}, "participant"),
    ],
)
async def test_a_bad_query_is_an_invalid_payload(world: World, query: dict, field: str):
    headers = {"X-API-Key": world.keys["developer"]}
    async with world.client.get(PATH, params=query, headers=headers) as response:
        told = await response.json()
        assert (response.status, told["code"]) == (422, "INVALID_PAYLOAD"), told
        assert set(told["details"]) == {field}


async def test_balances_come_in_the_order_asked_with_duplicates(world: World):
    a, b = await world.made(funded="12.5"), await world.made(currency="TND")
    ids = ",".join(one[1:] for one in (b, a, b))
    status, told = await world.ask("stranger", "GET", f"/balances?ids={ids}")
    tnd = {"id": b[1:], "balance": "0.000", "currency": "TND", "decimals": 3}
    usdc = {"id": a[1:], "balance": "12.500000", "currency": "USDC", "decimals": 6}
    assert (status, told) == (200, {"balances": [tnd, usdc, tnd]})
    no = world.refused
    for bad in ("0" * 24, "x", ""):
        await no("ESCROW_NOT_FOUND", 404, "stranger", "GET", f"/balances?ids={a[1:]},{bad}")
    many = ",".join([a[1:]] * 21)
    await no("TOO_MANY_ESCROWS_REQUESTED", 422, "stranger", "GET", f"/balances?ids={many}")
    await no("INVALID_PAYLOAD", 422, "stranger", "GET", "/balances")


async def test_the_log_is_paged_by_seq(world: World):
    path = await world.made(funded="100")
    await world.released(path)
    whole, seen, cursor = await events(world, path), [], ""
    while True:
        _, told = await world.ask("developer", "GET", f"{path}/events?limit=2{cursor}")
        seen += told["events"]
        if told["nextCursor"] is None:
            break
        cursor = f"&cursor={told['nextCursor']}"
    assert seen == whole
    await world.refused("NO_ACCESS_TO_ESCROW", 403, "stranger", "GET", f"{path}/events")


# ---- Next, dry runs, keys -----------------------------------------------------------------------


async def test_next_says_who_may_do_what(world: World):
    path = await world.made(amounts=("60", "40"), funded="60")
    await world.approved(path, 1)
    _, told = await world.ask("approver", "GET", f"{path}/next")
    steps = {one["role"]: {s["step"]: s for s in one["steps"]} for one in told["roles"]}
    assert steps["approver"]["approve_milestone"]["milestoneIndexes"] == [0]
    assert steps["releaseSigner"]["release"]["milestoneIndexes"] == [1]
    assert steps["disputeResolver"]["resolve_dispute"]["code"] == "MILESTONE_NOT_IN_DISPUTE"
    withdraw = steps["disputeResolver"]["withdraw_remaining"]
    assert (withdraw["legal"], withdraw["code"]) == (False, "ESCROW_NOT_FULLY_PROCESSED")
    assert steps["platform"]["update"]["legal"]
    assert [(one["step"], one["legal"]) for one in told["anybody"]] == [("fund", True)]


async def test_next_has_the_milestones_own_receivers(world: World):
    body = world.body(amounts=("60", "40", "10", "5"))
    stranger, later = world.crew.stranger.email, "later@example.com"
    for index, email in ((0, later), (1, stranger), (3, stranger)):
        body["milestones"][index]["receiver"] = email
    path = f"/{(await world.done('developer', 'POST', '', body))['id']}"
    await world.disputed(path, 1)
    _, told = await world.ask("developer", "GET", f"{path}/next")
    assert len(told["roles"]) == 8
    first, second = told["roles"][6:]
    assert (first["role"], first["email"], first["registered"]) == (
        "milestoneReceiver", later, False,
    )  # fmt: skip
    assert (second["email"], second["registered"]) == (stranger, True)
    assert (first["milestoneIndexes"], second["milestoneIndexes"]) == ([0], [1, 3])
    legal = [
        {s["step"]: s.get("milestoneIndexes") for s in one["steps"]} for one in (first, second)
    ]
    assert [one["dispute"] for one in legal] == [[0], [3]]


async def test_a_dry_run_says_what_would_happen_and_changes_nothing(world: World):
    path = await world.made(funded="100")
    await world.approved(path, 0, 1)
    before = await count_rows(world.house)
    status, told = await world.ask("releaseSigner", "POST", f"{path}/release?dry_run=true")
    assert (status, told["dryRun"], told["status"]) == (200, True, 200)
    [step] = told["steps"]
    assert (step["fromStatus"], step["toStatus"]) == ("pendingRelease", "released")
    assert step["events"] == ["milestone_escrow.released", "escrow.status.updated"]
    assert [(one["reason"], one["amount"], one["currency"]) for one in step["postings"]] == [
        ("protocol_fee", "0.300000", "USDC"),
        ("platform_fee", "5.000000", "USDC"),
        ("release", "94.700000", "USDC"),
    ]
    assert told["fees"] == {"protocol": "0.300000", "platform": "5.000000", "currency": "USDC"}
    assert told["answer"]["escrow"]["status"] == "released"
    assert await count_rows(world.house) == before


async def test_a_dry_run_tells_fees_of_what_is_paid_out_only(world: World):
    path = await world.made(amounts=("60", "40"), funded="75.5", currency="USDC")
    _, funding = await world.ask("payer", "POST", f"{path}/fund?dry_run=true", {"amount": "1"})
    assert funding["fees"] is None
    [posting] = funding["steps"][0]["postings"]
    assert (posting["amount"], posting["currency"]) == ("1.000000", "USDC")
    await world.approved(path, 0)
    body = {"milestoneIndexes": [0]}
    _, paid = await world.ask("releaseSigner", "POST", f"{path}/release?dry_run=true", body)
    assert paid["fees"] == {"protocol": "0.180000", "platform": "3.000000", "currency": "USDC"}


async def test_an_idempotency_key_pays_once(world: World):
    path = await world.made()
    key = {"Idempotency-Key": "pay-1", "X-API-Key": world.keys["payer"]}
    answers = []
    for amount in ("30", "30", "31"):
        async with world.client.post(
            f"{PATH}{path}/fund", json={"amount": amount}, headers=key
        ) as response:
            replayed = response.headers.get("Idempotency-Replayed")
            answers.append((response.status, replayed, orjson.loads(await response.read())))
    assert answers[0][:2] == (200, None)
    assert answers[1] == (200, "true", answers[0][2])
    assert (answers[2][0], answers[2][2]["code"]) == (422, "IDEMPOTENCY_KEY_REUSED")
    assert (await world.ask("developer", "GET", path))[1]["escrow"]["balance"] == "30.000000"


# ---- Those who are not registered yet -----------------------------------------------------------


async def test_an_unknown_role_is_invited_and_takes_its_place_by_registering(world: World):
    body = world.body(amounts=("60", "40"))
    body["roles"]["approver"] = body["roles"]["releaseSigner"] = "new@example.com"
    body["milestones"][0]["receiver"] = "new@example.com"
    escrow = await world.done("developer", "POST", "", body)
    path = f"/{escrow['id']}"
    [token] = await tokens_of(world.house, "new@example.com")
    await register(world, token)
    [*_, linked] = await events(world, path)
    assert linked["type"] == "invitation.accepted"
    assert linked["data"]["invitation"]["role"] == "approver"
    _, told = await world.ask("developer", "GET", f"{path}/next")
    registered = {one["role"]: one["registered"] for one in told["roles"]}
    assert all(registered.values())
    await assert_sound(world.house)


async def test_whoever_registers_without_the_link_is_linked_too(world: World):
    body = world.body()
    body["roles"]["disputeResolver"] = "late@example.com"
    path = f"/{(await world.done('developer', 'POST', '', body))['id']}"
    await world.done("payer", "POST", f"{path}/fund", {"amount": "120"})
    await world.released(path)
    await make_buyer(world.house, "late@example.com", "0")
    last = (await events(world, path))[-1]
    assert (last["type"], last["data"]["invitation"]["role"]) == (
        "invitation.accepted",
        "disputeResolver",
    )
    await assert_sound(world.house)


async def test_whoever_resolves_takes_no_other_role_by_another_e_mail(world: World):
    body = world.body()
    body["roles"] |= {"approver": "one@example.com", "disputeResolver": "judge@example.com"}
    path = f"/{(await world.done('developer', 'POST', '', body))['id']}"
    [token] = await tokens_of(world.house, "one@example.com")
    await register(world, token, email="judge@example.com")
    _, told = await world.ask("developer", "GET", f"{path}/next")
    assert {one["role"] for one in told["roles"] if not one["registered"]} == {"approver"}
    await assert_sound(world.house)


async def test_whose_user_holds_a_role_hears_of_the_escrow(world: World):
    headers = {"X-API-Key": world.keys["approver"]}
    hook = {"url": "https://hooks.example/in", "events": ["milestone.*"]}
    async with world.client.post("/api/developer/webhooks", json=hook, headers=headers) as response:
        assert response.status == 201, await response.text()
    path = await world.made()
    await world.approved(path, 0)
    await world.house.pool.fetchval("SELECT fan_out(100)")
    rows = await world.house.pool.fetch("SELECT type FROM delivery")
    assert [row["type"] for row in rows] == ["milestone.approved"]
