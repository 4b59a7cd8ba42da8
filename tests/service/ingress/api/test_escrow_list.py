"""`GET /escrows`: what each filter keeps, what is refused, and that pages and cursors agree."""

import asyncio
from datetime import datetime, timedelta

import pytest

from service.wire.base import instant
from tests.makers import jump, make_buyer, make_escrow, make_shop

LIST = "/api/v1/escrows"
DAY = timedelta(days=1)


@pytest.fixture
async def client(house, ingress):
    async with ingress(None, RATE_LIMIT_PER_MINUTE="0") as opened:
        yield opened


@pytest.fixture
async def shop(house):
    return await make_shop(house)


async def asked(client, shop, **query):
    async with client.get(LIST, params=query, headers=shop.headers) as response:
        assert response.status == 200, await response.text()
        return await response.json()


async def titles(client, shop, **query):
    return [one["title"] for one in (await asked(client, shop, **query))["escrows"]]


async def refused(client, shop, query):
    async with client.get(LIST, params=query, headers=shop.headers) as response:
        told = await response.json()
        assert (response.status, told["error"]) == (400, "Bad Request"), told
        return told["details"]


async def walked(client, shop, **query):
    """Every id by cursor, and how many answers that took."""
    ids, answers, cursor = [], 0, {}
    while True:
        page = await asked(client, shop, **query, **cursor)
        answers += 1
        assert set(page["pagination"]) == (
            {"limit", "nextCursor"} if cursor else {"page", "limit", "total", "pages", "nextCursor"}
        )
        ids += [one["id"] for one in page["escrows"]]
        if page["pagination"]["nextCursor"] is None:
            return ids, answers
        cursor = {"cursor": page["pagination"]["nextCursor"]}


async def paged(client, shop, **query):
    """Every id by page, and the total that each of them told."""
    ids, page, totals = [], 1, set()
    while True:
        told = await asked(client, shop, **query, page=page)
        totals.add(told["pagination"]["total"])
        ids += [one["id"] for one in told["escrows"]]
        if page >= told["pagination"]["pages"]:
            return ids, totals
        page += 1


# ---- q ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("camera", ["CAMERA strap", "A camera"]),
        ("  CaMeRa ", ["CAMERA strap", "A camera"]),
        ("é", ["Étagère"]),
        ("ÉTAGÈRE", ["Étagère"]),
        ("ساعة", ["ساعة يد"]),
        ("%", ["100% silk"]),
        ("_", ["a_b"]),
        ("0_ s", []),
        ("\\", ["back\\slash"]),
        ("\\%", []),
        ("k\\s", ["back\\slash"]),
        ("'; DROP TABLE escrow; --", []),
        ("x" * 200, []),
    ],
)
async def test_q_finds_what_stands_in_a_title_in_capitals_or_not_and_literally(
    client, house, shop, text, found
):
    buyer = await make_buyer(house, "rim@buyers.example")
    for title in ("A camera", "CAMERA strap", "Étagère", "ساعة يد", "100% silk", "a_b",
                  "back\\slash"):  # fmt: skip
        await make_escrow(house, shop, buyer, title=title)
    assert await titles(client, shop, q=text) == found


async def test_q_finds_a_partys_email_invited_or_registered(client, house, ingress, shop):
    known = await make_buyer(house, "rim@buyers.example")
    await make_escrow(house, shop, known, title="known")
    await make_escrow(house, shop, known, title="invited", buyer_email="new@elsewhere.example")
    assert await titles(client, shop, q="RIM@buyers") == ["known"]
    assert await titles(client, shop, q="elsewhere.EXAMPLE") == ["invited"]
    assert await titles(client, shop, q=shop.email) == ["invited", "known"]


async def test_q_finds_who_came_by_a_link_by_either_email(client, house, owner, shop):
    buyer = await make_buyer(house, "first@mail.example")
    await make_escrow(house, shop, buyer, title="theirs")
    await owner.execute("UPDATE app_user SET email = 'second@mail.example' WHERE id = $1",
                        buyer.user_id)  # fmt: skip
    assert await titles(client, shop, q="first@") == ["theirs"]
    assert await titles(client, shop, q="second@") == ["theirs"]


async def test_q_finds_nothing_of_other_peoples(client, house, shop):
    other = await make_shop(house)
    await make_escrow(house, other, title="A camera")
    assert await titles(client, shop, q="camera") == []


# ---- mode, from, to -----------------------------------------------------------------------------


async def test_mode_keeps_one_mode_and_quick_has_the_proof_escrows(client, house, shop):
    for mode in ("standard", "quick", "quick_proof", "instant"):
        await make_escrow(house, shop, mode=mode, title=mode)
    assert await titles(client, shop, mode="standard") == ["standard"]
    assert await titles(client, shop, mode="quick") == ["quick_proof", "quick"]
    assert await titles(client, shop, mode="instant") == ["instant"]
    assert len(await titles(client, shop)) == 4


async def test_from_includes_its_instant_and_to_does_not(client, house, shop):
    made = []
    for title in ("first", "second", "third"):
        made.append(await make_escrow(house, shop, title=title))
        await jump(house, timedelta(hours=1))
    listed = (await asked(client, shop))["escrows"]
    shown = {one["title"]: one["createdAt"] for one in listed}
    assert await titles(client, shop, **{"from": shown["second"]}) == ["third", "second"]
    assert await titles(client, shop, to=shown["second"]) == ["first"]
    both = {"from": shown["first"], "to": shown["third"]}
    assert await titles(client, shop, **both) == ["second", "first"]
    exact = made[1].created_at
    later = (exact + timedelta(microseconds=1)).isoformat()
    assert await titles(client, shop, **{"from": exact.isoformat()}) == ["third", "second"]
    assert await titles(client, shop, **{"from": later}) == ["third"]
    assert await titles(client, shop, to=exact.isoformat()) == ["first"]
    assert await titles(client, shop, to=later) == ["second", "first"]


async def test_an_instant_may_have_any_offset_and_short_or_long_seconds(client, house, shop):
    escrow = await make_escrow(house, shop, title="it")
    at = escrow.created_at
    away = at.astimezone(datetime.fromisoformat("2026-01-01T00:00+05:30").tzinfo)
    assert await titles(client, shop, **{"from": away.isoformat()}) == ["it"]
    assert await titles(client, shop, to=away.isoformat()) == []
    for said in (f"{at - DAY:%Y-%m-%dT%H:%M}Z", f"{at - DAY:%Y-%m-%dt%H:%M:%S}.123456789z"):
        assert await titles(client, shop, **{"from": said}) == ["it"]


async def test_a_date_is_a_whole_day_of_utc(client, house, shop):
    now = (await make_escrow(house, shop, title="today")).created_at
    midnight = now.replace(hour=0, minute=0, second=0, microsecond=0) + DAY
    await jump(house, midnight - now + timedelta(seconds=1))
    await make_escrow(house, shop, title="tomorrow")
    today, tomorrow = f"{midnight - DAY:%Y-%m-%d}", f"{midnight:%Y-%m-%d}"
    assert await titles(client, shop, **{"from": today}) == ["tomorrow", "today"]
    assert await titles(client, shop, **{"from": tomorrow}) == ["tomorrow"]
    assert await titles(client, shop, to=today) == ["today"]
    assert await titles(client, shop, to=tomorrow) == ["tomorrow", "today"]
    assert await titles(client, shop, **{"from": today, "to": today}) == ["today"]
    assert await titles(client, shop, **{"from": tomorrow, "to": instant(midnight + DAY)}) == [
        "tomorrow"
    ]
    assert await titles(client, shop, to=instant(midnight)) == ["today"]


async def test_the_far_ends_of_time_are_ranges_too(client, house, shop):
    await make_escrow(house, shop, title="it")
    assert await titles(client, shop, **{"from": "1969-12-31", "to": "9998-12-31"}) == ["it"]
    assert await titles(client, shop, to="0002-01-01") == []
    assert await titles(client, shop, **{"from": "9998-12-31T23:59:59.999Z"}) == []


# ---- Together, by page and by cursor ------------------------------------------------------------


async def test_filters_hold_together(client, house, shop):
    buyer = await make_buyer(house)
    own = await make_buyer(house)
    for title in ("A camera", "A lamp"):
        await make_escrow(house, shop, buyer, mode="quick", status="paid", title=title)
        await make_escrow(house, shop, buyer, mode="instant", title=title)
    early = (await asked(client, shop))["escrows"][0]["createdAt"]
    await jump(house, timedelta(hours=1))
    await make_escrow(house, shop, own, mode="quick", status="paid", title="A camera")
    wanted = {"q": "camera", "mode": "quick", "status": "paid", "role": "seller"}
    assert len(await titles(client, shop, **wanted)) == 2
    assert len(await titles(client, shop, **wanted, to=early)) == 1
    assert await titles(client, shop, **{**wanted, "role": "buyer"}) == []
    assert await titles(client, shop, **{**wanted, "status": "delivered"}) == []
    told = await asked(client, shop, **wanted, limit=1)
    assert (told["pagination"]["total"], told["pagination"]["pages"]) == (2, 2)


FILTERS = (
    {},
    {"q": "camera"},
    {"q": "buyer-", "mode": "quick"},
    {"mode": "instant"},
    {"status": "cancelled"},
    {"role": "seller"},
    {"from": "second"},
    {"to": "third"},
    {"from": "second", "to": "third", "q": "a", "mode": "instant", "status": "pending"},
)


async def test_pages_and_cursors_tell_the_same_escrows_once_each_newest_first(client, house, shop):
    buyer = await make_buyer(house)
    days = {}
    for day in ("first", "second", "third"):
        for mode in ("instant", "quick", "instant", "quick_proof", "standard"):
            status = "cancelled" if mode == "standard" else "pending"
            title = "A camera" if mode == "quick" else "A lamp"
            made = await make_escrow(house, shop, buyer, mode=mode, status=status, title=title)
            days.setdefault(day, instant(made.created_at))
        await jump(house, DAY)
    everything = {}
    for query in FILTERS:
        given = {name: days.get(value, value) for name, value in query.items()}
        whole = [one["id"] for one in (await asked(client, shop, **given, limit=100))["escrows"]]
        everything[str(query)] = len(whole)
        assert whole == sorted(whole, reverse=True)
        for limit in (1, 4, 15):
            by_cursor, answers = await walked(client, shop, **given, limit=limit)
            by_page, totals = await paged(client, shop, **given, limit=limit)
            assert by_cursor == by_page == whole, (query, limit)
            assert (totals, answers) == ({len(whole)}, max(1, -(-len(whole) // limit)))
    assert list(everything.values()) == [15, 3, 6, 6, 3, 15, 10, 10, 2]


async def test_what_is_created_meanwhile_does_not_move_what_a_cursor_shows(client, house, shop):
    for title in ("first", "second", "third"):
        await make_escrow(house, shop, title=title)
    page = await asked(client, shop, limit=2)
    await make_escrow(house, shop, title="newer")
    cursor = page["pagination"]["nextCursor"]
    assert await titles(client, shop, limit=2, cursor=cursor) == ["first"]


# ---- What is refused ----------------------------------------------------------------------------

MOMENT = "must be an ISO 8601 instant with its offset, or a date"
BAD = {
    "q": [
        ("", "must not be empty"),
        ("   ", "must not be empty"),
        ("x" * 201, "must be at most 200 characters"),
        ("a\0b", "must not hold NUL"),
    ],
    "mode": [
        (text, "must be one of 'standard', 'quick' or 'instant'")
        for text in ("", "quick_proof", "milestone", "Quick")
    ],
    "from": [
        (text, MOMENT)
        for text in ("", "yesterday", "2026-02-30", "2026-1-1", "20260101", "2026-W01-1",
                     "2026-01-01T00:00:00", "2026-01-01 00:00:00Z", "2026-01-01T25:00:00Z",
                     "2026-01-01T00:00:00+0100", "2026-01-01T00:00:00+25:00", "0001-01-01",
                     "9999-12-31", "1767225600", "\u0662026-01-01", " 2026-01-01")
    ],
    "to": [
        (text, MOMENT)
        for text in ("", "now", "2026-13-01", "9999-12-31", "9999-12-31T23:59:59-12:00",
                     "0001-01-01T00:00:00+12:00")
    ],
    "status": [("open", "must be one of 'pending', 'paid', 'delivered', 'completed', 'cancelled'"
                        " or 'disputed'")],
    "role": [("creator", "must be one of 'seller' or 'buyer'")],
    "page": [("0", "must be at least 1"), ("1.5", "must be a whole number")],
    "limit": [("101", "must be at most 100"), ("-1", "must be a whole number")],
    "cursor": [("x", "has the wrong format")],
}  # fmt: skip


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [(name, *case) for name, cases in BAD.items() for case in cases],
)
async def test_a_bad_value_is_named_with_its_reason(client, shop, name, value, sentence):
    assert await refused(client, shop, {name: value}) == {name: sentence}


async def test_every_bad_value_is_named_at_once(client, shop):
    bad = {name: cases[0] for name, cases in BAD.items()}
    query = {name: value for name, (value, _) in bad.items()}
    assert await refused(client, shop, query) == {name: reason for name, (_, reason) in bad.items()}


@pytest.mark.parametrize(
    ("start", "end"),
    [
        ("2026-01-02", "2026-01-01"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:00:00Z"),
        ("2026-01-01T00:00:00Z", "2026-01-01T00:30:00+01:00"),
    ],
)
async def test_a_range_that_ends_before_it_begins_is_refused_beside_all_else(
    client, shop, start, end
):
    query = {"from": start, "to": end, "page": "0"}
    assert await refused(client, shop, query) == {
        "to": "must be after from",
        "page": "must be at least 1",
    }


async def test_bytes_that_are_no_text_are_refused(client, shop, ingress):
    for raw in (b"%ED%A0%80", b"%FF", b"\xff", b"%00"):
        request = b"GET /api/v1/escrows?q=" + raw + b" HTTP/1.1\r\nHost: x\r\nX-API-Key: "
        status = await _raw(client, request + shop.api_key.encode() + b"\r\n\r\n")
        assert status == 400, raw


async def _raw(client, request):
    url = client._base_url
    reader, writer = await asyncio.open_connection(url.host, url.port)
    writer.write(request)
    status = int((await reader.readline()).split()[1])
    writer.close()
    return status
