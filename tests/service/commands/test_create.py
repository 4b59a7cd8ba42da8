"""Opening an escrow: what each mode gives, and each refusal of escrows.md 3.1."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import asyncpg
import orjson
import pytest
from structlog.testing import capture_logs

from service.commands import developers, endpoints, escrows, rates, users
from service.commands.perform import Answer, House, perform, perform_grouped
from service.rules.clocks import months_later
from service.rules.errors import Busy, DailyCapReached, Forbidden, FxRateUnavailable, Invalid
from service.rules.fees import FLOORS_MINOR
from service.rules.machine import Actor, ActorKind
from service.store.deadlines import read_open
from service.wire.webhooks import WebhookCreate
from tests.books import count_rows, read_log
from tests.makers import (
    PROOF_POLICY,
    Shop,
    act,
    arrange,
    jump,
    make_buyer,
    make_escrow,
    make_shop,
    make_terms,
    reread,
)

pytestmark = pytest.mark.usefixtures("sound")
MODES = ("standard", "quick", "quick_proof", "instant")
NEW = "new@example.org"


async def create(house: House, shop: Shop, mode: str = "instant", **changes):
    terms = make_terms(shop, changes.pop("buyer_email", NEW), mode, **changes)
    return await act(house, shop.actor, escrows.create(shop.developer_id, terms))


async def refused(house: House, shop: Shop, mode: str = "instant", **changes) -> dict[str, str]:
    """The bad fields; nothing may have been written."""
    before = await count_rows(house)
    with pytest.raises(Invalid) as refusal:
        await create(house, shop, mode, **changes)
    assert await count_rows(house) == before
    assert all(name in str(refusal.value) for name in refusal.value.details)
    return refusal.value.details


# 1. What it gives --------------------------------------------------------------------------------


@pytest.mark.parametrize("mode", MODES)
async def test_every_mode_opens_pending_with_its_fees_clock_and_event(house: House, mode: str):
    shop, buyer = await make_shop(house), await make_buyer(house)
    made = await create(house, shop, mode, buyer_email=buyer.email, amount=Decimal(1000))
    escrow = await reread(house, made["escrow"]["id"])
    fee = 0 if mode == "instant" else 50
    assert made == {
        "message": "Escrow created",
        "escrow": {
            "id": escrow.id,
            "title": "A camera",
            "amount": 1000,
            "currency": "TND",
            "amountTnd": 1000,
            "escrowFee": fee,
            "developerFee": 0,
            "developerFeePercentage": 0,
            "status": "pending",
            "mode": "quick" if mode == "quick_proof" else mode,
            "seller": shop.user_id,
            "sellerEmail": None,
            "buyer": buyer.user_id,
            "buyerEmail": buyer.email,
            "estimatedDeliveryDays": 3,
            "expiresAt": made["escrow"]["expiresAt"],
            "createdAt": made["escrow"]["createdAt"],
            **({"fulfillmentPolicy": PROOF_POLICY} if mode == "quick_proof" else {}),
        },
        "contract": {
            "id": escrow.contract.id,
            "pdfUrl": None,
            "sellerSigned": False,
            "buyerSigned": False,
            "isFullySigned": False,
        }
        if mode == "standard" and escrow.contract
        else None,
        "url": f"http://amana.test/dashboard/escrow/{escrow.id}",
        "trackingId": escrow.id,
    }
    assert (escrow.contract is not None) == (mode == "standard")
    assert escrow.expires_at == months_later(escrow.created_at, 1)
    [expiry] = await read_open(house.pool, escrow.id)
    assert (expiry.kind, expiry.due_at) == ("expiry", escrow.expires_at)
    assert await read_log(house, escrow.id) == [("create", "escrow.created", "developer")]


async def test_unknown_parties_are_null_and_the_sellers_e_mail_is_shown(house: House):
    shop = await make_shop(house)
    made = await create(house, shop, "quick", seller_email="sells@example.org")
    shown = made["escrow"]
    assert (shown["seller"], shown["sellerEmail"]) == (None, "sells@example.org")
    assert (shown["buyer"], shown["buyerEmail"]) == (None, NEW)


async def test_an_instant_escrow_is_delivered_within_a_day_unless_said_otherwise(house: House):
    shop = await make_shop(house)
    made = await create(house, shop, estimated_delivery_days=None)
    assert made["escrow"]["estimatedDeliveryDays"] == 1


async def test_ones_own_e_mail_sells_in_a_quick_escrow(house: House):
    shop = await make_shop(house)
    made = await create(house, shop, "quick", seller_email=shop.email)
    assert made["escrow"]["seller"] == shop.user_id


async def test_a_developer_without_a_user_may_name_a_seller_who_is_not_registered(house: House):
    made = await arrange(house, lambda tx: developers.enrol(tx, "lone@example.org", "Lone"))
    actor = Actor(ActorKind.DEVELOPER, developer_id=made.developer_id)
    shop = Shop(made.developer_id, made.api_key, "", "sells@example.org")
    terms = make_terms(shop, NEW, "standard", seller_email="sells@example.org")
    created = await act(house, actor, escrows.create(made.developer_id, terms))
    assert created["escrow"]["seller"] is None


# 2. Fees and rates -------------------------------------------------------------------------------


async def test_a_developer_fee_is_fixed_with_its_receiver(house: House):
    shop = await make_shop(house)
    made = await create(
        house, shop, "quick", seller_email="sells@example.org", developer_fee_bps=1_000,
        amount=Decimal(1000),
    )  # fmt: skip
    escrow = await reread(house, made["escrow"]["id"])
    assert (made["escrow"]["developerFee"], made["escrow"]["developerFeePercentage"]) == (100, 10)
    assert (escrow.developer_fee_minor, escrow.developer_fee_user_id) == (100_000, shop.user_id)


async def test_a_developer_fee_that_comes_to_nothing_has_no_receiver(house: House):
    shop = await make_shop(house)
    made = await create(house, shop, "quick", seller_email="sells@example.org")
    assert (await reread(house, made["escrow"]["id"])).developer_fee_user_id is None


async def test_the_rate_is_locked_at_creation(house: House):
    shop = await make_shop(house)
    await arrange(house, lambda tx: rates.set_rate(tx, "USD", Decimal("3.1234"), "test"))
    made = await create(house, shop, "quick", currency="USD", amount=Decimal("10.01"))
    await arrange(house, lambda tx: rates.set_rate(tx, "USD", Decimal(9), "test"))
    escrow = await reread(house, made["escrow"]["id"])
    # 10.01 x 3.1234 = 31.265234 -> 31.27; 5 % of it = 1.5635 -> 1.564
    assert (escrow.amount_minor, escrow.amount_ledger_minor) == (1001, 31_270)
    assert escrow.fx_rate == Decimal("3.1234")
    assert (made["escrow"]["amountTnd"], made["escrow"]["escrowFee"]) == (31.27, 1.564)


async def test_the_newest_rate_counts(house: House):
    shop = await make_shop(house)
    for rate in ("3", "4"):
        await arrange(house, lambda tx, r=rate: rates.set_rate(tx, "EUR", Decimal(r), "test"))
    made = await create(house, shop, currency="EUR", amount=Decimal(1))
    assert made["escrow"]["amountTnd"] == 4


async def test_without_a_rate_there_is_no_escrow_in_that_currency(house: House):
    shop = await make_shop(house)
    before = await count_rows(house)
    with pytest.raises(FxRateUnavailable, match="USD") as refusal:
        await create(house, shop, currency="USD", amount=Decimal(100))
    assert refusal.value.code == "FX_RATE_UNAVAILABLE"
    assert await count_rows(house) == before


async def test_a_rate_goes_stale_in_real_time_and_not_by_the_sandboxs_clock(house: House, owner):
    shop = await make_shop(house)
    await arrange(house, lambda tx: rates.set_rate(tx, "USD", Decimal(3), "test"))
    await jump(house, timedelta(days=3))
    await create(house, shop, currency="USD", amount=Decimal(100))
    await owner.execute("UPDATE fx_rate SET fetched_at = fetched_at - interval '48h 1s'")
    with pytest.raises(FxRateUnavailable, match="48 hours"):
        await create(house, shop, currency="USD", amount=Decimal(100))


# 3. Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "changes", "field"),
    [
        ("instant", {"seller_email": "sells@example.org"}, "sellerEmail"),
        ("quick", {"seller_email": None}, "sellerEmail"),
        ("quick", {"contract_terms": "x"}, "contractTerms"),
        ("instant", {"contract_terms": "x"}, "contractTerms"),
        ("standard", {"contract_terms": None}, "contractTerms"),
        ("standard", {"estimated_delivery_days": None}, "estimatedDeliveryDays"),
        ("quick", {"estimated_delivery_days": None}, "estimatedDeliveryDays"),
        ("standard", {"developer_fee_bps": 100}, "developerFeePercentage"),
        ("instant", {"developer_fee_bps": 100}, "developerFeePercentage"),
        ("quick", {"auto_sign": True}, "autoSign"),
        ("standard", {"auto_sign": True, "seller_email": "sells@example.org"}, "autoSign"),
        ("standard", {"auto_sign": True}, "autoSign"),
        ("quick", {"seller_email": NEW}, "buyerEmail"),
        ("standard", {"fulfillment_policy": PROOF_POLICY}, "fulfillmentPolicy"),
        ("instant", {"fulfillment_policy": PROOF_POLICY}, "fulfillmentPolicy"),
        ("standard", {"auto_complete": "on_ack"}, "autoComplete"),
        ("instant", {"auto_complete": "on_ack"}, "autoComplete"),
        ("instant", {"amount": Decimal("1.0001")}, "amount"),
    ],
)
async def test_each_bad_combination_names_its_field(house: House, mode, changes, field):
    shop = await make_shop(house)
    assert set(await refused(house, shop, mode, **changes)) == {field}


async def test_an_instant_escrow_refuses_even_ones_own_e_mail_as_the_sellers(house: House):
    shop = await make_shop(house)
    assert set(await refused(house, shop, seller_email=shop.email)) == {"sellerEmail"}


async def test_a_developer_fee_is_refused_when_ones_own_user_is_named_as_the_seller(house: House):
    shop = await make_shop(house)
    found = await refused(house, shop, "quick", seller_email=shop.email, developer_fee_bps=100)
    assert set(found) == {"developerFeePercentage"}


@pytest.mark.parametrize("mode", ["standard", "instant"])
async def test_one_cannot_buy_from_oneself(house: House, mode: str):
    shop = await make_shop(house)
    assert set(await refused(house, shop, mode, buyer_email=shop.email)) == {"buyerEmail"}


async def test_a_seller_whose_e_mail_is_not_verified_is_refused(house: House):
    shop = await make_shop(house)
    await arrange(
        house,
        lambda tx: users.register(tx, "sells@example.org", "S", "X", is_email_verified=False),
    )
    found = await refused(house, shop, "quick", seller_email="sells@example.org")
    assert found == {"sellerEmail": "belongs to a user whose e-mail is not verified"}


@pytest.mark.parametrize("mode", MODES)
async def test_the_floor_of_each_mode_is_the_least_that_is_taken(house: House, mode: str):
    shop = await make_shop(house)
    floor = Decimal(FLOORS_MINOR[mode]) / 1000
    assert set(await refused(house, shop, mode, amount=floor - Decimal("0.001"))) == {"amount"}
    await create(house, shop, mode, amount=floor)


async def test_the_floor_is_on_what_the_amount_is_worth(house: House):
    shop = await make_shop(house)
    await arrange(house, lambda tx: rates.set_rate(tx, "USD", Decimal("0.3"), "test"))
    found = await refused(house, shop, "quick", currency="USD", amount=Decimal(16))
    assert found == {"amount": "must be worth at least 5 TND"}
    await create(house, shop, "quick", currency="USD", amount=Decimal(17))


async def test_what_is_worth_more_than_the_ledger_keeps_is_a_bad_amount(house: House):
    shop = await make_shop(house)
    await arrange(house, lambda tx: rates.set_rate(tx, "USD", Decimal(1000), "test"))
    found = await refused(house, shop, currency="USD", amount=Decimal(1_000_000_000))
    assert set(found) == {"amount"}


async def test_on_ack_needs_an_active_endpoint_that_hears_of_the_payment(house: House):
    shop = await make_shop(house)

    async def listening(events: list[str]) -> str:
        asked = WebhookCreate.model_validate({"url": "https://x.test/hook", "events": events})
        made = await act(house, shop.actor, endpoints.create(shop.developer_id, asked))
        return made["webhook"]["id"]

    deaf = await listening(["escrow.created"])
    assert set(await refused(house, shop, auto_complete="on_ack")) == {"autoComplete"}
    await act(house, shop.actor, endpoints.delete(shop.developer_id, deaf))
    for events in (["escrow.status.updated"], ["escrow.*"], ["*"]):
        one = await listening(events)
        made = await create(house, shop, auto_complete="on_ack")
        assert (await reread(house, made["escrow"]["id"])).auto_complete == "on_ack"
        await act(house, shop.actor, endpoints.delete(shop.developer_id, one))
    assert set(await refused(house, shop, auto_complete="on_ack")) == {"autoComplete"}


@pytest.mark.parametrize(
    ("user_id", "has_seller_email", "has_developer_fee", "allowed"),
    [
        (None, False, False, False),
        (None, False, True, False),
        (None, True, True, False),
        (None, True, False, True),
        ("u", False, False, True),
        ("u", True, True, True),
    ],
)
def test_without_a_user_one_neither_sells_nor_earns_a_fee(
    user_id, has_seller_email, has_developer_fee, allowed
):
    def check() -> None:
        escrows.check_association(
            user_id, has_seller_email=has_seller_email, has_developer_fee=has_developer_fee
        )

    if allowed:
        check()
    else:
        with pytest.raises(Forbidden, match="associate"):
            check()


# 4. The operator's cap ---------------------------------------------------------------------------


async def test_the_daily_cap_counts_the_days_creations_of_one_developer(house: House):
    capped = replace(house, policy=replace(house.policy, daily_escrow_cap=2))
    shop, other = await make_shop(house), await make_shop(house)
    for _ in range(2):
        await create(capped, shop)
    with pytest.raises(DailyCapReached) as refusal:
        await create(capped, shop)
    assert refusal.value.facts == {"limit": 2, "count": 2, "remaining": 0}
    await create(capped, other)
    await jump(house, timedelta(days=1))
    await create(capped, shop)


async def test_the_daily_cap_holds_for_creations_at_the_same_moment(house: House):
    capped = replace(house, policy=replace(house.policy, daily_escrow_cap=3))
    shop = await make_shop(house)
    ended = await asyncio.gather(
        *(create(capped, shop, buyer_email=f"b{n}@example.org") for n in range(8)),
        return_exceptions=True,
    )
    assert sum(isinstance(one, DailyCapReached) for one in ended) == 5
    assert await house.pool.fetchval("SELECT count(*) FROM escrow") == 3


# 5. Races with those who register ---------------------------------------------------------------


async def test_who_registers_while_the_escrow_is_opened_is_linked_to_it_all_the_same(house: House):
    shop = await make_shop(house)
    for n in range(20):
        email = f"new{n}@example.org"
        made, _ = await asyncio.gather(
            create(house, shop, buyer_email=email),
            arrange(house, lambda tx, e=email: users.register(tx, e, "N", "W")),
        )
        escrow = await reread(house, made["escrow"]["id"])
        assert escrow.buyer is not None, n


async def test_ids_follow_the_clock(house: House):
    shop = await make_shop(house)
    made = [(await make_escrow(house, shop)).id for _ in range(3)]
    assert made == sorted(made)
    answer = await perform(
        house,
        shop.actor,
        escrows.create(shop.developer_id, make_terms(shop, NEW)),
        status=201,
    )
    assert answer.status == 201


# 6. Gathered: creations that come at the same time share a transaction -------------------------


async def gathered(house: House, *orders: escrows.Order) -> list:
    return await asyncio.gather(
        *(perform_grouped(house, escrows.create_all, order, status=201) for order in orders),
        return_exceptions=True,
    )


async def test_gathered_creations_are_answered_each_for_itself(house: House):
    shops = [await make_shop(house) for _ in range(3)]
    known = await make_buyer(house)
    orders = []
    for n in range(30):
        shop = shops[n % 3]
        mode = MODES[n % 4]
        terms = make_terms(
            shop, known.email if n % 2 else f"b{n}@example.org", mode, title=f"Order {n}"
        )
        if n % 10 == 9:
            terms = replace(terms, amount=Decimal("0.001"))
        orders.append(escrows.Order(shop.actor, shop.developer_id, terms))
    answers = await gathered(house, *orders)
    for order, answer in zip(orders, answers, strict=True):
        if order.terms.amount < 1:
            assert isinstance(answer, Invalid)
            assert set(answer.details) == {"amount"}
            continue
        made = orjson.loads(answer.body)
        escrow = await reread(house, made["escrow"]["id"])
        assert (answer.status, escrow.title) == (201, order.terms.title)
        assert (escrow.creator_id, escrow.mode) == (order.developer_id, order.terms.own_mode)
        [actor_id] = [
            row["actor_id"]
            for row in await house.pool.fetch(
                "SELECT actor_id FROM event WHERE subject_id = $1", escrow.id
            )
        ]
        assert actor_id == order.developer_id
        assert (escrow.buyer is not None) == (order.terms.buyer_email == known.email)
    assert await house.pool.fetchval("SELECT count(*) FROM escrow") == 27


async def test_one_creation_that_the_database_refuses_keeps_no_other_back(house: House):
    shop = await make_shop(house)
    orders = [
        escrows.Order(shop.actor, shop.developer_id, make_terms(shop, NEW, title=title))
        for title in ("one", "two", "th\0ree", "four")
    ]
    with capture_logs():
        answers = await gathered(house, *orders)
    assert [isinstance(answer, Answer) for answer in answers] == [True, True, False, True]
    assert await house.pool.fetchval("SELECT count(*) FROM escrow") == 3


async def test_a_gathered_creation_whose_caller_has_gone_holds_nobody_up(house: House):
    shop = await make_shop(house)
    orders = [
        escrows.Order(shop.actor, shop.developer_id, make_terms(shop, NEW, title=str(n)))
        for n in range(6)
    ]
    asking = [
        asyncio.create_task(perform_grouped(house, escrows.create_all, order, status=201))
        for order in orders
    ]
    await asyncio.sleep(0)
    asking[2].cancel()
    ended = await asyncio.gather(*asking, return_exceptions=True)
    assert [isinstance(one, Answer) for one in ended] == [n != 2 for n in range(6)]


async def test_gathered_creations_and_registrations_of_the_same_people_all_meet(house: House):
    shop = await make_shop(house)
    for n in range(6):
        emails = [f"p{n}-{i}@example.org" for i in range(4)]
        orders = [
            escrows.Order(shop.actor, shop.developer_id, make_terms(shop, email))
            for email in emails
        ]
        await asyncio.gather(
            gathered(house, *orders),
            *(
                arrange(house, lambda tx, e=email: users.register(tx, e, "N", "W"))
                for email in emails
            ),
        )
    assert await house.pool.fetchval("SELECT count(*) FROM escrow WHERE buyer_id IS NULL") == 0


async def test_an_e_mail_that_somebody_holds_delays_nobody_elses_creation(
    house: House, owner: asyncpg.Connection
):
    """A registration that takes its time: its own create is told to come again, no other is."""
    shop = await make_shop(house)
    emails = ["held@shop.example", *(f"free-{n}@shop.example" for n in range(12))]
    orders = [
        escrows.Order(shop.actor, shop.developer_id, make_terms(shop, email)) for email in emails
    ]
    async with owner.transaction():
        await owner.execute(
            "SELECT pg_advisory_xact_lock(hashtextextended('register/held@shop.example', 0))"
        )
        held, *free = await gathered(house, *orders)
    assert isinstance(held, Busy)
    assert [answer.status for answer in free] == [201] * 12
    assert await house.pool.fetchval("SELECT count(*) FROM escrow") == 12
