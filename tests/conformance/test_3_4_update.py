"""escrows.md 3.4: `PUT /escrows/:id`, a test a sentence."""

import asyncio
from decimal import Decimal

import pytest

from tests.conformance.shapes import (
    INSTANT,
    SENTENCE,
    AtLeast,
    detail,
    e1,
    e2,
    invalid,
    number,
    saying,
    signatures,
)
from tests.conformance.world import (
    ESCROWS,
    KINDS,
    NOTHING,
    UNPRINTABLE,
    Life,
    Partner,
    World,
)

UNKNOWN = "0" * 24


def updated(life: Life, **changes) -> dict:
    """The documented keys of an update's answer."""
    shape = {
        "id": life.id,
        "title": "A camera",
        "amount": 100,
        "escrowFee": 0 if life.mode == "instant" else 5,
        "status": "pending",
        "description": None,
        "estimatedDeliveryDays": 3,
        "createdAt": INSTANT,
        "updatedAt": INSTANT,
    }
    return {"message": SENTENCE, "escrow": AtLeast({**shape, **changes})}


CHANGES = [
    {"title": "A better camera"},
    {"amount": 50},
    {"amount": Decimal("50.125")},
    {"description": "Hardly used."},
    {"estimatedDeliveryDays": 3650},
    {"title": " b ", "amount": 7, "description": "c", "estimatedDeliveryDays": 1},
]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("change", CHANGES, ids=str)
async def test_at_least_one_field_is_changed_and_the_others_stay(world: World, kind, change):
    life = await world.life(kind)
    answer = await life.partner.put(life.path, change)
    told = {name: v.strip() if isinstance(v, str) else v for name, v in change.items()}
    if "amount" in told and life.mode != "instant":
        told["escrowFee"] = number(str((told["amount"] * Decimal("0.05") + Decimal("0.0005"))
                                       .quantize(Decimal("0.001"), "ROUND_DOWN")))  # fmt: skip
    assert answer.differs(200, updated(life, **told)) == []
    if "amount" in told:
        told["amountTnd"] = told["amount"]
    read = await life.partner.get(life.path)
    assert read.differs(200, {"escrow": detail(life, **told)}) == []


async def test_whatever_else_the_answer_shows_is_as_the_read_shows_it(world: World):
    life = await world.life("standard")
    shown = (await life.partner.put(life.path, {"description": "x", "amount": 7})).escrow
    read = await life.read()
    assert shown == {name: read[name] for name in shown}


async def test_updated_at_moves_and_created_at_stays(world: World):
    life = await world.life()
    before = await life.read()
    await world.advance(hours=1)
    shown = (await life.partner.put(life.path, {"title": "New"})).escrow
    assert shown["createdAt"] == before["createdAt"]
    assert shown["updatedAt"] > before["updatedAt"]


# ---- Fees and rates -----------------------------------------------------------------------------


@pytest.fixture
async def in_dollars(world: World) -> Life:
    """100 USD at 3, with 10 % for the developer; the rate is 4 by now."""
    await world.set_rate("USD", "3")
    seller = await world.person()
    life = await world.life("quick", seller=seller, currency="USD", developerFeePercentage=10)
    await world.set_rate("USD", "4")
    return life


async def test_a_new_amount_re_locks_the_rate_and_recomputes_the_fees(in_dollars: Life):
    before = await in_dollars.read()
    assert (before["amountTnd"], before["fxRateUsed"]) == (300, 3)
    assert (before["escrowFee"], before["developerFee"]) == (15, 30)
    answer = await in_dollars.partner.put(in_dollars.path, {"amount": Decimal("50.01")})
    assert answer.differs(
        200, updated(in_dollars, amount=number("50.01"), escrowFee=number("10.002"))
    ) == []  # fmt: skip
    read = await in_dollars.read()
    # 50.01 x 4 = 200.04; 5 % = 10.002, 10 % = 20.004
    assert (read["amount"], read["amountTnd"], read["fxRateUsed"]) == (
        number("50.01"), number("200.04"), 4,
    )  # fmt: skip
    assert (read["escrowFee"], read["developerFee"]) == (number("10.002"), number("20.004"))


@pytest.mark.parametrize("change", [{"title": "New"}, {"title": "New", "amount": 100}])
async def test_without_a_new_amount_the_rate_stays_locked(in_dollars: Life, change):
    assert (await in_dollars.partner.put(in_dollars.path, change)).status == 200
    read = await in_dollars.read()
    assert (read["amountTnd"], read["fxRateUsed"], read["escrowFee"]) == (300, 3, 15)


async def test_a_new_amount_without_a_young_rate_is_503(world: World, in_dollars: Life, owner):
    await owner.execute("UPDATE fx_rate SET fetched_at = now() - interval '49 hours'")
    missing = e1(503, saying("USD"), code="FX_RATE_UNAVAILABLE")
    async with world.unchanged(in_dollars):
        answer = await in_dollars.partner.put(in_dollars.path, {"amount": 50})
        assert answer.differs(503, missing) == []
    assert (await in_dollars.partner.put(in_dollars.path, {"title": "New"})).status == 200


# ---- The contract -------------------------------------------------------------------------------


@pytest.mark.parametrize("change", [{"amount": 99}, {"contractTerms": "Otherwise."}])
async def test_a_change_of_amount_or_terms_wipes_both_signatures(world: World, change):
    life = await world.life("standard")
    await world.sign(life)
    assert (await life.read())["signatures"]["isFullySigned"] is True
    assert (await life.partner.put(life.path, change)).status == 200
    assert (await life.read())["signatures"] == signatures()
    contract = (await life.partner.get(f"{life.path}/contract")).body["contract"]
    assert contract["sellerSignature"] is contract["buyerSignature"] is None
    assert contract["isFullySigned"] is False


@pytest.mark.parametrize(
    "change",
    [
        {"title": "New"},
        {"description": "New"},
        {"estimatedDeliveryDays": 9},
        {"title": "New", "amount": 100, "contractTerms": "As described."},
    ],
    ids=str,
)
async def test_any_other_change_keeps_the_signatures(world: World, change):
    life = await world.life("standard")
    await world.sign(life)
    before = (await life.read())["signatures"]
    assert (await life.partner.put(life.path, change)).status == 200
    assert before["isFullySigned"] is True
    assert (await life.read())["signatures"] == before


async def test_after_a_change_of_terms_both_sign_anew_before_the_payment(world: World):
    life = await world.life("standard")
    await world.sign(life)
    assert (await life.partner.put(life.path, {"contractTerms": "Otherwise."})).status == 200
    contract = (await life.partner.get(f"{life.path}/contract")).body["contract"]
    assert contract["terms"] == "Otherwise."
    pay = await world.root.post(
        f"/api/v1/sandbox/escrows/{life.id}/pay", {"email": life.buyer.email}
    )
    assert pay.differs(409, e1(409, code="CONTRACT_NOT_SIGNED")) == []
    await world.bring(life, "paid")
    assert (await life.read())["status"] == "paid"


@pytest.mark.parametrize("kind", ["quick", "quick_proof", "instant"])
async def test_contract_terms_outside_standard_are_400(world: World, kind):
    life = await world.life(kind)
    async with world.unchanged(life):
        answer = await life.partner.put(life.path, {"contractTerms": "x", "title": "New"})
        assert answer.differs(400, invalid("contractTerms")) == []


# ---- 400 ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["paid", "delivered", "completed", "cancelled", "disputed"])
async def test_an_escrow_that_is_not_pending_is_400(world: World, status):
    life = await world.life("quick", status)
    async with world.unchanged(life):
        answer = await life.partner.put(life.path, {"title": "New"})
        assert answer.differs(400, e1(400, saying(status, "pending"))) == []


NO_CHANGE = [
    {},
    {"colour": "red"},
    {"title": None, "amount": None},
    {"currency": "USD", "buyerEmail": "x@example.org", "mode": "quick"},
]


@pytest.mark.parametrize("body", NO_CHANGE, ids=str)
async def test_nothing_to_change_is_400_and_an_only_unknown_body_counts_as_empty(
    world: World, body
):
    life = await world.life()
    async with world.unchanged(life):
        assert (await life.partner.put(life.path, body)).differs(400, e1(400)) == []


async def test_unknown_fields_beside_a_known_one_are_ignored(world: World):
    life = await world.life()
    body = {"title": "New", "currency": "USD", "status": "paid", "buyerEmail": 5}
    assert (await life.partner.put(life.path, body)).status == 200
    read = await life.partner.get(life.path)
    assert read.differs(200, {"escrow": detail(life, title="New")}) == []


BAD = {
    "title": ["", "   ", "x" * 201, 5, True, ["x"]],
    "amount": [0, -1, Decimal("1.0001"), 1_000_000_001, "50", True, [50], {}],
    "description": ["x" * 2001, 5, True, ["x"]],
    "estimatedDeliveryDays": [0, -1, 3651, Decimal("1.5"), "3", True],
    "contractTerms": ["", "x" * 10_001, 5, *UNPRINTABLE],
}


@pytest.mark.parametrize("field", BAD)
async def test_a_field_out_of_its_bounds_is_400_and_nothing_is_stored(world: World, field):
    life = await world.life("standard")
    async with world.unchanged(life):
        for value in BAD[field]:
            answer = await life.partner.put(life.path, {field: value})
            assert answer.differs(400, invalid(field)) == [], value


async def test_all_bad_fields_are_named_at_once(world: World):
    life = await world.life("standard")
    async with world.unchanged(life):
        answer = await life.partner.put(life.path, {name: bad[0] for name, bad in BAD.items()})
        assert answer.differs(400, invalid(*BAD)) == []


async def test_the_description_is_at_most_2000_characters(world: World):
    life = await world.life()
    answer = await life.partner.put(life.path, {"description": "ü" * 2000})
    assert answer.differs(200, updated(life, description="ü" * 2000)) == []


@pytest.mark.parametrize(
    ("kind", "currency", "amount"),
    [
        ("standard", "TND", "4.999"),
        ("quick", "TND", "4.999"),
        ("quick", "USD", "1.66"),
        ("instant", "TND", "0.009"),
    ],
)
async def test_a_new_amount_below_the_floor_is_400(world: World, kind, currency, amount):
    await world.set_rate("USD", "3")
    life = await world.life(kind, currency=currency)
    async with world.unchanged(life):
        answer = await life.partner.put(life.path, {"amount": Decimal(amount), "title": "New"})
        assert answer.differs(400, invalid("amount")) == []


async def test_a_new_amount_has_at_most_the_currencys_decimals(world: World):
    await world.set_rate("USD", "3")
    life = await world.life("quick", currency="USD")
    async with world.unchanged(life):
        answer = await life.partner.put(life.path, {"amount": Decimal("50.001")})
        assert answer.differs(400, invalid("amount")) == []


# ---- Who may ------------------------------------------------------------------------------------


async def test_the_seller_or_the_developer_that_created_it_may_update(world: World):
    creator, sellers = await world.partner(associated=False), await world.partner()
    life = await world.life("quick", partner=creator, seller=sellers.user)
    for n, who in enumerate((creator, sellers)):
        assert (await who.put(life.path, {"title": f"New {n}"})).status == 200
        assert (await life.read())["title"] == f"New {n}"


async def test_the_buyer_and_a_stranger_are_403(world: World, partner: Partner):
    buyers = await world.partner()
    life = await world.life("quick", partner=partner, buyer=buyers.user)
    stranger = await world.partner()
    async with world.unchanged(life):
        for who in (buyers, stranger):
            assert (await who.put(life.path, {"title": "New"})).differs(403, e1(403)) == []


async def test_a_bad_id_is_400_and_an_unknown_one_404(partner: Partner):
    for odd, status, sentence in (
        ("X" * 24, 400, "Invalid escrow ID"),
        (UNKNOWN, 404, "Escrow not found"),
    ):
        answer = await partner.put(f"{ESCROWS}/{odd}", {"title": "New"})
        assert answer.differs(status, e2(sentence)) == []


# ---- At once ------------------------------------------------------------------------------------


async def test_two_updates_at_once_both_happen_one_after_the_other(world: World):
    life = await world.life("standard")
    answers = await asyncio.gather(
        life.partner.put(life.path, {"title": "New"}),
        life.partner.put(life.path, {"amount": 50}),
    )
    assert [answer.status for answer in answers] == [200, 200]
    read = await life.partner.get(life.path)
    shown = detail(life, title="New", amount=50, amountTnd=50, escrowFee=number("2.5"))
    assert read.differs(200, {"escrow": shown}) == []


async def test_an_update_raced_with_the_payment_wins_or_is_told_the_status_it_lost_to(
    world: World,
):
    for _ in range(5):
        life = await world.life("quick")
        update, _ = await asyncio.gather(
            life.partner.put(life.path, {"amount": 70}), world.pay(life)
        )
        shown = await life.read()
        if update.status == 200:
            assert (shown["status"], shown["amountTnd"]) == ("paid", 70)
        else:
            assert update.differs(400, e1(400, saying("paid", "pending"))) == []
            assert (shown["status"], shown["amountTnd"]) == ("paid", 100)
        assert await world.wallet(life.buyer) == 1000 - shown["amountTnd"]


async def test_the_new_amount_is_what_the_buyer_pays(world: World):
    life = await world.life("quick", contractTerms=NOTHING)
    assert (await life.partner.put(life.path, {"amount": Decimal("50.125")})).status == 200
    await world.bring(life, "paid")
    assert await world.wallet(life.buyer) == number("949.875")
