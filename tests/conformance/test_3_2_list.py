"""escrows.md 3.2: `GET /escrows`, a test a sentence."""

from datetime import timedelta

import pytest

from service.wire.base import instant
from tests.conformance.raw import speak
from tests.conformance.shapes import INSTANT, Like, e1, invalid, listed, pages, saying
from tests.conformance.world import ESCROWS, KINDS, Life, Partner, World, new_email, order

CURSOR = Like("a cursor", lambda v: isinstance(v, str) and v != "")


async def make(partner: Partner, count: int) -> list[str]:
    """So many pending escrows of this partner; their ids, newest first."""
    made = []
    for n in range(count):
        answer = await partner.post(ESCROWS, order("instant", new_email(), title=f"Item {n}"))
        made.append(answer.escrow["id"])
    return made[::-1]


async def ids(partner: Partner, query: str = "") -> list[str]:
    """The ids of a list, in its order."""
    answer = await partner.get(f"{ESCROWS}?{query}")
    assert answer.status == 200, answer.raw
    return [item["id"] for item in answer.body["escrows"]]


async def test_association_is_required(world: World):
    lone = await world.partner(associated=False)
    assert (await lone.get(ESCROWS)).differs(403, e1(403, saying("associated"))) == []
    assert (await lone.get(f"{ESCROWS}?limit=0")).differs(403, e1(403)) == []


async def test_an_empty_list_has_no_pages(partner: Partner):
    answer = await partner.get(ESCROWS)
    assert answer.differs(200, {"escrows": [], "pagination": pages(0)}) == []


async def test_an_item_has_exactly_these_keys_in_every_mode(world: World, partner: Partner):
    lives = [await world.life(kind, partner=partner) for kind in KINDS]
    shown = [listed(life) for life in reversed(lives)]
    answer = await partner.get(ESCROWS)
    assert answer.differs(200, {"escrows": shown, "pagination": pages(4)}) == []


async def test_a_party_who_is_not_registered_is_null(partner: Partner):
    body = order("quick", new_email(), sellerEmail=new_email())
    made = (await partner.post(ESCROWS, body)).escrow
    life = Life(partner, "quick", None, None, id=made["id"])
    answer = await partner.get(ESCROWS)
    assert answer.differs(200, {"escrows": [listed(life)], "pagination": pages(1)}) == []


@pytest.mark.parametrize(
    ("kind", "status", "reached"),
    [
        ("quick", "paid", ["paidAt"]),
        ("quick", "delivered", ["paidAt", "deliveredAt"]),
        ("quick", "completed", ["paidAt", "deliveredAt", "completedAt"]),
        ("instant", "completed", ["paidAt", "deliveredAt", "completedAt"]),
        ("standard", "cancelled", ["cancelledAt"]),
        ("standard", "paid", ["paidAt"]),
        ("quick", "disputed", ["paidAt"]),
    ],
)
async def test_unreached_timestamps_are_explicit_nulls(world: World, kind, status, reached):
    life = await world.life(kind, status)
    shown = listed(life, status=status, **dict.fromkeys(reached, INSTANT))
    answer = await life.partner.get(ESCROWS)
    assert answer.differs(200, {"escrows": [shown], "pagination": pages(1)}) == []


async def test_newest_is_first(partner: Partner):
    made = await make(partner, 5)
    assert await ids(partner) == made


# ---- Pages --------------------------------------------------------------------------------------


async def test_page_is_1_and_limit_20_by_default(partner: Partner):
    made = await make(partner, 21)
    answer = await partner.get(ESCROWS)
    assert [item["id"] for item in answer.body["escrows"]] == made[:20]
    shown = {**answer.body, "pagination": pages(21, more=True)}
    assert answer.differs(200, shown) == []


async def test_pages_is_total_divided_by_limit_rounded_up(partner: Partner):
    made = await make(partner, 5)
    for limit, count in ((1, 5), (2, 3), (4, 2), (5, 1), (100, 1)):
        seen = []
        for page in range(1, count + 1):
            answer = await partner.get(f"{ESCROWS}?page={page}&limit={limit}")
            more = page < count
            place = pages(5, page=page, limit=limit, more=more)
            assert answer.differs(200, {**answer.body, "pagination": place}) == []
            assert place["pages"] == count
            seen += [item["id"] for item in answer.body["escrows"]]
        assert seen == made


@pytest.mark.parametrize("page", [2, 10_001, 999_999])
async def test_a_page_beyond_the_last_is_empty_and_says_the_total(partner: Partner, page):
    await make(partner, 2)
    answer = await partner.get(f"{ESCROWS}?page={page}")
    assert answer.differs(200, {"escrows": [], "pagination": pages(2, page=page)}) == []


async def test_next_cursor_is_in_every_answer_and_null_on_the_last_page(partner: Partner):
    made = await make(partner, 5)
    answer = await partner.get(f"{ESCROWS}?limit=2")
    seen, cursor = await ids(partner, "limit=2"), answer.body["pagination"]["nextCursor"]
    for is_last in (False, True):
        answer = await partner.get(f"{ESCROWS}?limit=2&cursor={cursor}")
        place = {"limit": 2, "nextCursor": None if is_last else CURSOR}
        assert answer.differs(200, {**answer.body, "pagination": place}) == []
        seen += [item["id"] for item in answer.body["escrows"]]
        cursor = answer.body["pagination"]["nextCursor"]
    assert seen == made


async def test_a_cursor_misses_nothing_when_newer_ones_come_meanwhile(partner: Partner):
    made = await make(partner, 4)
    answer = await partner.get(f"{ESCROWS}?limit=2")
    await make(partner, 3)
    cursor = answer.body["pagination"]["nextCursor"]
    assert await ids(partner, f"limit=2&cursor={cursor}") == made[2:]


async def test_a_cursor_keeps_to_the_filters(world: World, partner: Partner):
    await make(partner, 2)
    cancelled = [(await world.life(partner=partner, status="cancelled")).id for _ in range(3)]
    await make(partner, 2)
    answer = await partner.get(f"{ESCROWS}?status=cancelled&limit=2")
    cursor = answer.body["pagination"]["nextCursor"]
    rest = await ids(partner, f"status=cancelled&limit=2&cursor={cursor}")
    assert [item["id"] for item in answer.body["escrows"]] + rest == cancelled[::-1]


# ---- Bad queries --------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("field", "values"),
    [
        ("status", ["open", "Paid", "", "paid,delivered", "%00"]),
        ("role", ["creator", "SELLER", ""]),
        ("page", ["0", "-1", "1.5", "x", "", "1e2", "%2B1", "٣", "9" * 30]),
        ("limit", ["0", "101", "-1", "1.5", "x", "", "1e1", "9" * 30]),
        ("cursor", ["x", "", "0" * 23, "Z" * 24, "%00"]),
        ("mode", ["milestone", "quick_proof", "Quick", ""]),
        ("from", ["yesterday", "2026-13-01", "2026-02-30T00:00:00Z", "5", ""]),
        ("to", ["tomorrow", "2026-01-01T25:00:00Z", ""]),
        ("q", ["%00"]),
    ],
)
async def test_a_bad_value_of_the_query_is_400(partner: Partner, field, values):
    for value in values:
        answer = await partner.get(f"{ESCROWS}?{field}={value}")
        assert answer.differs(400, invalid(field)) == [], value


async def test_all_bad_values_of_the_query_are_named_at_once(partner: Partner):
    bad = {"status": "x", "role": "x", "page": "0", "limit": "0", "mode": "x", "from": "x"}
    query = "&".join(f"{name}={value}" for name, value in bad.items())
    assert (await partner.get(f"{ESCROWS}?{query}")).differs(400, invalid(*bad)) == []


async def test_a_query_of_bytes_that_are_no_text_or_with_a_name_twice_is_400(partner: Partner):
    for query, field in (("q=%ff", "q"), ("limit=1&limit=2", "limit"), ("x=1&x=1", "x")):
        answer = await speak(partner, "GET", f"{ESCROWS}?{query}", {})
        assert answer.differs(400, invalid(field)) == []


async def test_unknown_names_in_the_query_are_ignored(partner: Partner):
    made = await make(partner, 1)
    assert await ids(partner, "sort=title&Limit=0") == made


# ---- Scope and filters --------------------------------------------------------------------------


@pytest.fixture
async def three(world: World, partner: Partner):
    """What the partner's user sells, what it buys, and what the partner made for two others."""
    other = await world.partner()
    await world.top_up(partner.user.email, 500)
    return {
        "sold by them, made by me": await world.life(
            "quick", partner=partner, seller=await world.person()
        ),
        "sold": await world.life(partner=partner),
        "bought": await world.life(partner=other, buyer=partner.user),
        "another's": await world.life(partner=other),
    }


async def test_the_scope_is_what_your_user_sells_or_buys_and_what_you_created(three, partner):
    mine = ("bought", "sold", "sold by them, made by me")
    assert await ids(partner) == [three[name].id for name in mine]


async def test_role_narrows_to_what_your_user_sells_or_buys(three, partner: Partner):
    assert await ids(partner, "role=seller") == [three["sold"].id]
    assert await ids(partner, "role=buyer") == [three["bought"].id]
    answer = await partner.get(f"{ESCROWS}?role=buyer")
    assert answer.body["pagination"]["total"] == 1


async def test_status_narrows_to_each_of_the_six(world: World, partner: Partner):
    lives = {
        status: (await world.life("quick", status, partner=partner)).id
        for status in ("pending", "paid", "delivered", "completed", "cancelled", "disputed")
    }
    for status, escrow_id in lives.items():
        answer = await partner.get(f"{ESCROWS}?status={status}")
        assert [item["id"] for item in answer.body["escrows"]] == [escrow_id]
        assert answer.body["pagination"]["total"] == 1
        assert await ids(partner, f"status={status}&role=seller") == [escrow_id]
        assert await ids(partner, f"status={status}&role=buyer") == []


async def test_mode_narrows_and_a_proof_escrow_is_a_quick_one(world: World, partner: Partner):
    lives = {kind: (await world.life(kind, partner=partner)).id for kind in KINDS}
    assert await ids(partner, "mode=standard") == [lives["standard"]]
    assert await ids(partner, "mode=instant") == [lives["instant"]]
    assert await ids(partner, "mode=quick") == [lives["quick_proof"], lives["quick"]]


async def test_q_finds_by_title_or_by_e_mail(world: World, partner: Partner):
    bo = await world.person("bo.unusual@example.org")
    lens = (await world.life(partner=partner, title="Großes 100% Objektiv")).id
    bag = (await world.life("quick", partner=partner, buyer=bo, title="Bag")).id
    guest = (await partner.post(ESCROWS, order("instant", "guest.rare@example.org"))).escrow["id"]
    for q, found in (
        ("objektiv", [lens]),
        ("100%25", [lens]),
        ("bag", [bag]),
        ("unusual", [bag]),
        ("BO.UNUSUAL@EXAMPLE.ORG", [bag]),
        ("guest.rare", [guest]),
        (partner.user.email, [guest, bag, lens]),
        ("nothing-like-it", []),
        ("_ag", []),
        ("%25jek", []),
    ):
        assert await ids(partner, f"q={q}") == found, q
        answer = await partner.get(f"{ESCROWS}?q={q}&limit=1")
        assert answer.body["pagination"]["total"] == len(found)
    assert await ids(partner, "q=bag&mode=instant") == []


async def test_q_finds_nothing_of_anybody_elses(world: World, partner: Partner):
    await world.life(title="Secret telescope")
    assert await ids(partner, "q=telescope") == []


async def test_from_and_to_narrow_by_creation(world: World, partner: Partner):
    made, borders = [], []
    for _ in range(3):
        made += await make(partner, 1)
        await world.advance(hours=12)
        borders.append(instant(await world.now()))
        await world.advance(hours=12)
    first, second, third = made
    assert await ids(partner, f"from={borders[0]}") == [third, second]
    assert await ids(partner, f"to={borders[1]}") == [second, first]
    assert await ids(partner, f"from={borders[0]}&to={borders[1]}") == [second]
    backwards = await partner.get(f"{ESCROWS}?from={borders[1]}&to={borders[0]}")
    assert backwards.differs(400, invalid("to")) == []
    offset = (await world.now() + timedelta(hours=1)).strftime("%Y-%m-%dT%H:%M:%S%%2B01:00")
    assert await ids(partner, f"to={offset}") == [third, second, first]
    answer = await partner.get(f"{ESCROWS}?from={borders[0]}&limit=1")
    assert answer.body["pagination"]["total"] == 2
