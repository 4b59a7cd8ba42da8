"""escrows.md 5: what of the money shows through the direct endpoints, a test a sentence."""

from decimal import Decimal

import pytest

from tests.books import assert_sound
from tests.conformance.shapes import e1, number
from tests.conformance.world import ESCROWS, SANDBOX, World, new_email, order

BALANCE = "/api/v1/balance"


@pytest.fixture(autouse=True)
async def sound(world: World):
    """Every money path ends in a trial balance."""
    yield
    await assert_sound(world.house)


# ---- The locked amount --------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("currency", "rate", "amount", "locked", "fee"),
    [
        ("TND", "9", "1000", "1000", "50"),
        ("TND", "9", "1500", "1500", "75"),
        ("TND", "9", "33.333", "33.333", "1.667"),  # 1.66665
        ("TND", "9", "5.01", "5.01", "0.251"),  # 0.2505: half up
        ("TND", "9", "999999999.999", "999999999.999", "50000000"),  # 49999999.99995
        ("USD", "3.1234", "10.01", "31.27", "1.564"),  # 31.265234; 1.5635
        ("USD", "3.5", "2.01", "7.04", "0.352"),  # 7.035: half up
        ("EUR", "3.333333", "100", "333.33", "16.667"),
        ("EUR", "3.33335", "100", "333.34", "16.667"),  # 333.335: half up
        ("USD", "0.000001", "1000000000", "1000", "50"),
        ("USD", "3.1", "99.99", "309.97", "15.499"),  # 309.969; 15.4985
    ],
)
async def test_amount_tnd_is_half_up_to_2_decimals_exact_for_tnd_and_the_fee_half_up_to_0_001(
    world: World, currency, rate, amount, locked, fee
):
    if currency != "TND":
        await world.set_rate(currency, rate)
    life = await world.life("quick", amount=number(amount), currency=currency)
    shown = life.answer.escrow
    assert (shown["amount"], shown["currency"]) == (number(amount), currency)
    assert (shown["amountTnd"], shown["escrowFee"]) == (number(locked), number(fee))
    assert (await life.read())["fxRateUsed"] == (1 if currency == "TND" else number(rate))


async def test_rate_and_both_amounts_are_never_recomputed(world: World):
    await world.set_rate("USD", "3")
    life = await world.life("quick", currency="USD")
    before = await life.read()
    await world.set_rate("USD", "5")
    assert await life.read() == before
    await world.bring(life, "completed")
    after = await life.read()
    for name in ("amount", "amountTnd", "fxRateUsed", "escrowFee", "developerFee"):
        assert after[name] == before[name]
    assert await world.wallet(life.buyer) == 700
    assert await world.wallet(life.seller) == 285


async def test_the_newest_rate_counts(world: World, partner):
    for rate in ("3", "4", "2.5"):
        await world.set_rate("EUR", rate)
    answer = await partner.post(ESCROWS, order("instant", new_email(), currency="EUR"))
    assert answer.escrow["amountTnd"] == 250


@pytest.mark.parametrize(
    ("mode", "currency", "amount"),
    [
        ("standard", "TND", "5"),
        ("quick", "TND", "5"),
        ("instant", "TND", "0.01"),
        ("quick", "USD", "1.67"),  # 5.01 at 3
        ("instant", "USD", "0.01"),  # 0.03
    ],
)
async def test_an_amount_tnd_at_its_floor_is_accepted(world: World, mode, currency, amount):
    await world.set_rate("USD", "3")
    life = await world.life(mode, amount=number(amount), currency=currency)
    assert life.answer.escrow["amount"] == number(amount)


# ---- Fees ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(("kind", "fee"), [("standard", 50), ("quick", 50), ("quick_proof", 50),
                                           ("instant", 0)])  # fmt: skip
async def test_the_default_rate_is_5_percent_and_instant_0(world: World, kind, fee):
    life = await world.life(kind, amount=1000)
    assert life.answer.escrow["escrowFee"] == fee


async def test_the_rate_is_configurable_per_mode(world: World, partner, another_door):
    async with another_door(platform_fee_bps=250, instant_fee_bps=30) as session:
        for mode, fee in (("standard", "25"), ("quick", "25"), ("instant", "3")):
            third = {"sellerEmail": partner.user.email} if mode == "quick" else {}
            body = order(mode, new_email(), amount=1000, **third)
            answer = await partner.by(session).post(ESCROWS, body)
            assert answer.escrow["escrowFee"] == number(fee)


async def test_the_fee_is_taken_from_the_sellers_payout(world: World):
    life = await world.life("quick", "completed", amount=number("33.333"))
    assert await world.wallet(life.buyer) == number("966.667")
    assert await world.wallet(life.seller) == number("31.666")


async def test_the_developer_fee_is_credited_at_release_to_the_user_of_the_creation(world: World):
    seller = await world.person(funds=0)
    life = await world.life(
        "quick", "paid", seller=seller, amount=1000, developerFeePercentage=Decimal("2.55")
    )
    assert (life.answer.escrow["developerFee"], life.answer.escrow["developerFeePercentage"]) == (
        number("25.5"), number("2.55"),
    )  # fmt: skip
    other = await world.person(funds=0)
    association = await life.partner.put(f"{SANDBOX}/association", {"email": other.email})
    assert association.status == 200
    assert await world.wallet(life.partner.user) == 0
    await world.advance(days=1)
    await world.act(life, seller, "deliver")
    assert await world.wallet(life.partner.user) == 0
    await world.advance(days=8)
    assert (await life.read())["status"] == "completed"
    assert await world.wallet(life.partner.user) == number("25.5")
    assert await world.wallet(other) == 0
    assert await world.wallet(seller) == number("924.5")


@pytest.mark.parametrize(
    ("amount", "percent", "fee"),
    [("33.333", "25", "8.333"), ("5", "0.01", "0.001"), ("5.03", "0.05", "0.003")],
)
async def test_the_developer_fee_is_half_up_to_0_001(world: World, amount, percent, fee):
    life = await world.life(
        "quick",
        seller=await world.person(funds=0),
        amount=number(amount),
        developerFeePercentage=number(percent),
    )
    assert life.answer.escrow["developerFee"] == number(fee)


async def test_the_sellers_net_is_never_below_0(world: World, another_door):
    creator = await world.partner()
    async with another_door(platform_fee_bps=9_000) as session:
        life = await world.life(
            "quick",
            "paid",
            partner=creator.by(session),
            seller=await world.person(funds=0),
            developerFeePercentage=25,
        )
    shown = life.answer.escrow
    assert (shown["escrowFee"], shown["developerFee"]) == (90, 10)
    await world.act(life, life.seller, "deliver")
    await world.act(life, life.buyer, "complete")
    assert await world.wallet(life.seller) == 0
    assert await world.wallet(creator.user) == 10


# ---- Payment and refund -------------------------------------------------------------------------


async def test_accept_pay_moves_exactly_amount_tnd_whatever_the_face_currency(world: World):
    await world.set_rate("EUR", "3.4567")
    life = await world.life("instant", "paid", amount=number("12.34"), currency="EUR")
    # 12.34 x 3.4567 = 42.655678
    assert (await life.read())["amountTnd"] == number("42.66")
    assert await world.wallet(life.buyer) == number("957.34")


async def test_a_short_wallet_is_409_insufficient_funds_and_nothing_moves(world: World):
    buyer = await world.person(funds=number("99.999"))
    life = await world.life(buyer=buyer)
    async with world.unchanged(life):
        answer = await world.root.post(f"{SANDBOX}/escrows/{life.id}/pay", {"email": buyer.email})
        assert answer.differs(409, e1(409, code="INSUFFICIENT_FUNDS")) == []
    await world.top_up(buyer.email, number("0.001"))
    await world.bring(life, "paid")
    assert await world.wallet(buyer) == 0


@pytest.mark.parametrize("status", ["paid", "delivered"])
async def test_a_refund_returns_exactly_what_the_buyer_funded(world: World, status):
    await world.set_rate("USD", "3.1234")
    life = await world.life(
        "quick",
        status,
        seller=await world.person(funds=0),
        amount=number("10.01"),
        currency="USD",
        developerFeePercentage=25,
    )
    assert await world.wallet(life.buyer) == number("968.73")
    await world.act(life, life.seller, "cancel_escrow")
    assert await world.wallet(life.buyer) == 1000
    assert await world.wallet(life.seller) == await world.wallet(life.partner.user) == 0


# ---- Disputes ------------------------------------------------------------------------------------


@pytest.fixture
async def disputed(world: World):
    """1000 TND with fees of 50 and 100; all three wallets are empty."""
    seller, buyer = await world.person(funds=0), await world.person(funds=1000)
    return await world.life(
        "quick", "disputed", seller=seller, buyer=buyer, amount=1000, developerFeePercentage=10
    )


async def resolve(world: World, life, **how):
    return await world.root.post(f"{SANDBOX}/disputes/{life.id}/resolve", how)


@pytest.mark.parametrize(
    ("part", "platform", "developer", "net"),
    [
        ("333.333", "16.667", "33.333", "283.333"),
        ("1000", "50", "100", "850"),
        ("0.001", "0", "0", "0.001"),
        ("0.01", "0", "0.001", "0.009"),  # 0.5, 1 and 8.5 millimes: the tie goes to the net
        ("0.019", "0.001", "0.002", "0.016"),
        ("999.999", "50", "100", "849.999"),
    ],
)
async def test_a_split_charges_fees_on_the_sellers_part_only_and_the_three_sum_to_it(
    world: World, disputed, part, platform, developer, net
):
    rest = number(str(1000 - Decimal(part)))
    answer = await resolve(world, disputed, sellerAmount=number(part), buyerAmount=rest)
    assert answer.status == 200, answer.raw
    shown = await disputed.read()
    assert (shown["status"], shown["cancelReason"]) == ("completed", None)
    assert shown["settlement"] == {
        "sellerAmount": number(part),
        "buyerAmount": rest,
        "escrowFee": number(platform),
        "developerFee": number(developer),
        "sellerNet": number(net),
        "resolvedBy": "operator",
    }
    people = (disputed.buyer, disputed.seller, disputed.partner.user)
    wallets = [await world.wallet(person) for person in people]
    assert wallets == [rest, number(net), number(developer)]


async def test_a_dispute_resolved_to_the_buyer_refunds_everything_and_charges_no_fee(
    world: World, disputed
):
    assert (await resolve(world, disputed, to="buyer")).status == 200
    shown = await disputed.read()
    assert (shown["status"], shown["cancelReason"]) == ("cancelled", "dispute")
    assert shown["settlement"] == {
        "sellerAmount": 0,
        "buyerAmount": 1000,
        "escrowFee": 0,
        "developerFee": 0,
        "sellerNet": 0,
        "resolvedBy": "operator",
    }
    assert await world.wallet(disputed.buyer) == 1000


@pytest.mark.parametrize(("seller", "buyer"), [("500", "499.999"), ("1000.001", "0"), ("0", "0")])
async def test_parts_that_do_not_sum_to_the_held_are_400_split_must_equal_held(
    world: World, disputed, seller, buyer
):
    async with world.unchanged(disputed):
        answer = await resolve(
            world, disputed, sellerAmount=number(seller), buyerAmount=number(buyer)
        )
        assert answer.differs(400, e1(400, code="SPLIT_MUST_EQUAL_HELD")) == []


# ---- Balance ------------------------------------------------------------------------------------


def wallet(available=0, escrow=0) -> dict:
    return {"balance": {"available": available, "pending": 0, "escrow": escrow}}


async def test_balance_is_the_tnd_wallet_and_what_this_user_funded_and_is_still_held(
    world: World,
):
    sellers, buyers = await world.partner(), await world.partner()
    assert (await buyers.get(BALANCE)).differs(200, wallet()) == []
    await world.top_up(buyers.user.email, number("150.5"))
    life = await world.life("quick", partner=sellers, buyer=buyers.user)
    assert (await buyers.get(BALANCE)).differs(200, wallet(number("150.5"))) == []
    await world.bring(life, "paid")
    assert (await buyers.get(BALANCE)).differs(200, wallet(number("50.5"), 100)) == []
    assert (await sellers.get(BALANCE)).differs(200, wallet()) == []
    await world.bring_on(life, "deliver", "complete")
    assert (await buyers.get(BALANCE)).differs(200, wallet(number("50.5"))) == []
    assert (await sellers.get(BALANCE)).differs(200, wallet(95)) == []


async def test_balance_asks_for_another_currency(world: World, partner):
    for currency in ("TND", "USD", "EUR"):
        assert (await partner.get(f"{BALANCE}?currency={currency}")).differs(200, wallet()) == []
    await world.root.post(
        f"{SANDBOX}/users/{partner.user.email}/topup", {"amount": "7.25", "currency": "USD"}
    )
    answer = await partner.get(f"{BALANCE}?currency=USD")
    assert answer.differs(200, wallet(number("7.25"))) == []
    assert (await partner.get(BALANCE)).differs(200, wallet()) == []


async def test_association_is_needed_for_the_balance(world: World):
    lone = await world.partner(associated=False)
    assert (await lone.get(BALANCE)).differs(403, e1(403)) == []
