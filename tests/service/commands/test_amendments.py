"""A change of terms: the rate, the fees, the signatures, what is told, and who comes first."""

import asyncio
from decimal import Decimal

import asyncpg
import pytest

from service.commands import escrows, rates
from service.commands.amendments import Changes, update
from service.commands.perform import House
from service.rules.errors import (
    ContractNotSigned,
    EscrowFrozen,
    FxRateUnavailable,
    Invalid,
    Malformed,
    Refused,
    WrongParty,
    WrongStatus,
)
from service.rules.machine import SYSTEM, Actor, ActorKind
from service.wire.base import instant
from tests.books import count_rows, read_log
from tests.makers import (
    PATHS,
    act,
    arrange,
    bring_on,
    make_buyer,
    make_escrow,
    make_shop,
    reread,
    user_actor,
)
from tests.service.commands.asking import available, bodies, clocks, refused

pytestmark = pytest.mark.usefixtures("sound")
MODES = tuple(PATHS)


async def set_rate(house: House, rate: str, currency: str = "USD") -> None:
    await arrange(house, lambda tx: rates.set_rate(tx, currency, Decimal(rate), "test"))


async def changed(house: House, escrow_id: str) -> list[list[str]]:
    """The `updatedFields` of each update that was told."""
    return [
        one["data"]["updatedFields"]
        for one in await bodies(house, escrow_id)
        if one["type"] == "escrow.updated"
    ]


# 1. Rate and fees --------------------------------------------------------------------------------


async def test_a_new_amount_locks_todays_rate_and_recomputes_the_fees(house: House):
    shop, seller = await make_shop(house), await make_buyer(house)
    await set_rate(house, "3")
    escrow = await make_escrow(
        house, shop, mode="quick", currency="USD", seller_email=seller.email,
        developer_fee_bps=1_000,
    )  # fmt: skip
    assert (escrow.amount_ledger_minor, escrow.escrow_fee_minor) == (300_000, 15_000)
    await set_rate(house, "3.1255")
    answer = await act(house, shop.actor, update(escrow.id, Changes(amount=Decimal("50.01"))))
    after = await reread(house, escrow.id)
    # 50.01 x 3.1255 = 156.306255, half up to 156.31; 5 % of it 7.8155, 10 % 15.631
    assert (after.fx_rate, after.amount_minor, after.amount_ledger_minor) == (
        Decimal("3.1255"),
        5_001,
        156_310,
    )
    assert (after.escrow_fee_minor, after.developer_fee_minor) == (7_816, 15_631)
    assert answer == {
        "message": "Escrow updated",
        "escrow": {
            "id": escrow.id,
            "title": "A camera",
            "amount": 50.01,
            "currency": "USD",
            "amountTnd": 156.31,
            "fxRateUsed": 3.1255,
            "escrowFee": 7.816,
            "developerFee": 15.631,
            "status": "pending",
            "description": None,
            "estimatedDeliveryDays": 3,
            "createdAt": instant(after.created_at),
            "updatedAt": instant(after.updated_at),
        },
    }
    assert (await bodies(house, escrow.id))[-1]["data"] == {
        "updatedFields": ["amount"],
        "escrow": {
            "id": escrow.id,
            "title": "A camera",
            "amount": 50.01,
            "currency": "USD",
            "amountTnd": 156.31,
            "escrowFee": 7.816,
            "status": "pending",
            "mode": "quick",
            "seller": {"_id": seller.user_id, "email": seller.email, "firstName": "Bo",
                       "lastName": "Y"},
            "buyer": {"_id": after.buyer_id, "email": after.buyer_email, "firstName": "Bo",
                      "lastName": "Y"},
            "estimatedDeliveryDays": 3,
            "createdAt": instant(after.created_at),
            "updatedAt": instant(after.updated_at),
        },
    }  # fmt: skip


async def test_what_was_amended_is_what_is_held_and_paid_out(house: House):
    shop, buyer, seller = [await make_shop(house), await make_buyer(house), await make_buyer(house)]
    escrow = await make_escrow(
        house, shop, buyer, mode="quick", seller_email=seller.email, developer_fee_bps=1_000
    )
    await act(house, shop.actor, update(escrow.id, Changes(amount=Decimal("50.125"))))
    paid = await bring_on(house, shop, escrow.id, "pay")
    assert paid.held_minor == 50_125
    assert await available(house, buyer.user_id) == 949_875
    await bring_on(house, shop, escrow.id, "deliver", "complete")
    # 5 % = 2.50625 and 10 % = 5.0125, each half up; the rest is the seller's
    assert await available(house, shop.user_id) == 5_013
    assert await available(house, seller.user_id) == 1_000_000 + 50_125 - 2_506 - 5_013


@pytest.mark.parametrize(
    "changes", [Changes(title="New"), Changes(title="New", amount=Decimal(100))]
)
async def test_the_same_amount_keeps_its_rate_even_where_none_is_young_enough(
    house: House, owner: asyncpg.Connection, changes: Changes
):
    shop = await make_shop(house)
    await set_rate(house, "3")
    escrow = await make_escrow(house, shop, currency="USD")
    await set_rate(house, "4")
    await owner.execute("UPDATE fx_rate SET fetched_at = now() - interval '49 hours'")
    await act(house, shop.actor, update(escrow.id, changes))
    after = await reread(house, escrow.id)
    assert (after.title, after.fx_rate, after.amount_ledger_minor) == ("New", 3, 300_000)
    assert await changed(house, escrow.id) == [["title"]]
    unlocked = update(escrow.id, Changes(amount=Decimal(99)))
    refusal = await refused(house, FxRateUnavailable, shop.actor, unlocked, escrow.id)
    assert refusal.code == "FX_RATE_UNAVAILABLE"


@pytest.mark.parametrize(
    ("mode", "currency", "floor"),
    [
        ("standard", "TND", "5"),
        ("quick", "TND", "5"),
        ("quick_proof", "TND", "5"),
        ("instant", "TND", "0.01"),
        ("quick", "USD", "1.67"),  # 5.01 TND
        ("instant", "USD", "0.01"),
    ],
)
async def test_the_floor_holds_for_a_new_amount_as_well(house: House, mode, currency, floor):
    shop = await make_shop(house)
    await set_rate(house, "3")
    escrow = await make_escrow(house, shop, mode=mode, currency=currency)
    await act(house, shop.actor, update(escrow.id, Changes(amount=Decimal(floor))))
    if currency == "TND":
        less = update(escrow.id, Changes(amount=Decimal(floor) - Decimal("0.001")))
        refusal = await refused(house, Invalid, shop.actor, less, escrow.id)
        assert isinstance(refusal, Invalid)
        assert set(refusal.details) == {"amount"}
    if mode == "quick" and currency == "USD":
        less = update(escrow.id, Changes(amount=Decimal("1.66")))
        await refused(house, Invalid, shop.actor, less, escrow.id)


# 2. What is told ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "fields"),
    [
        (Changes(title="New"), ["title"]),
        (Changes(amount=Decimal(50)), ["amount"]),
        (Changes(description="Hardly used."), ["description"]),
        (Changes(estimated_delivery_days=9), ["estimatedDeliveryDays"]),
        (Changes(contract_terms="Otherwise."), ["contractTerms"]),
        (
            Changes("New", Decimal(50), "Hardly used.", 9, "Otherwise."),
            ["title", "amount", "description", "estimatedDeliveryDays", "contractTerms"],
        ),
        (
            Changes("A camera", Decimal("100.000"), "Hardly used.", 3, "As described."),
            ["description"],
        ),
    ],
)
async def test_the_updated_fields_are_those_of_the_request_that_changed(
    house: House, changes: Changes, fields: list[str]
):
    shop = await make_shop(house)
    escrow = await make_escrow(house, shop, mode="standard")
    await act(house, shop.actor, update(escrow.id, changes))
    assert await read_log(house, escrow.id) == [
        ("create", "escrow.created", "developer"),
        ("update", "escrow.updated", "developer"),
    ]
    assert await changed(house, escrow.id) == [fields]
    told = (await bodies(house, escrow.id))[-1]["data"]
    contract = (await reread(house, escrow.id)).contract
    assert contract is not None
    rewritten = {"id": contract.id, "terms": "Otherwise.", "language": "en"}
    assert told.get("contract") == (rewritten if "contractTerms" in fields else None)
    assert ("contract" in told) == ("contractTerms" in fields)


@pytest.mark.parametrize("mode", MODES)
async def test_identical_values_change_nothing_and_tell_nothing(house: House, mode: str):
    shop = await make_shop(house)
    escrow = await make_escrow(house, shop, mode=mode)
    await act(house, shop.actor, update(escrow.id, Changes(description="As new.")))
    before = await reread(house, escrow.id), await count_rows(house)
    terms = "As described." if mode == "standard" else None
    same = Changes("A camera", Decimal("100.0"), "As new.", 3, terms)
    answer = await act(house, shop.actor, update(escrow.id, same))
    assert (await reread(house, escrow.id), await count_rows(house)) == before
    assert answer["escrow"]["updatedAt"] == instant(before[0].updated_at)


@pytest.mark.parametrize(
    ("changes", "told"), [(Changes(amount=Decimal(50)), 1), (Changes("Another", None, "New"), 0)]
)
async def test_no_clock_is_turned_and_only_another_deal_is_told(
    house: House, changes: Changes, told: int
):
    shop = await make_shop(house)
    escrow = await make_escrow(house, shop, mode="standard")
    mails = await house.pool.fetchval("SELECT count(*) FROM mail")
    before = await clocks(house, escrow.id)
    await act(house, shop.actor, update(escrow.id, changes))
    assert await clocks(house, escrow.id) == before
    assert await house.pool.fetchval("SELECT count(*) FROM mail") == mails + told


# 3. The contract ---------------------------------------------------------------------------------


@pytest.mark.parametrize("changes", [Changes(amount=Decimal(99)), Changes(contract_terms="New.")])
async def test_another_amount_or_other_terms_are_a_new_version_that_nobody_has_signed(
    house: House, changes: Changes
):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(
        house, shop, buyer, mode="standard", then=("sellers_signature", "buyers_signature")
    )
    assert escrow.contract is not None
    assert escrow.contract.is_fully_signed
    await act(house, shop.actor, update(escrow.id, changes))
    after = (await reread(house, escrow.id)).contract
    assert after is not None
    assert (after.id, after.version, after.terms) == (
        escrow.contract.id,
        2,
        changes.contract_terms or "As described.",
    )
    assert (after.seller_signed_at, after.buyer_signed_at) == (None, None)
    await refused(house, ContractNotSigned, buyer.actor, escrows.pay(escrow.id), escrow.id)
    paid = await bring_on(house, shop, escrow.id, "sellers_signature", "buyers_signature", "pay")
    assert (paid.status, paid.held_minor) == ("paid", paid.amount_ledger_minor)
    kept = "SELECT version, role FROM contract_signature WHERE contract_id = $1 ORDER BY 1, 2"
    rows = [tuple(row) for row in await house.pool.fetch(kept, after.id)]
    assert rows == [(1, "buyer"), (1, "seller"), (2, "buyer"), (2, "seller")]


async def test_any_other_change_keeps_the_version_and_its_signatures(house: House):
    shop = await make_shop(house)
    escrow = await make_escrow(house, shop, mode="standard", then=("sellers_signature",))
    changes = Changes("New", Decimal(100), "As new.", 9, "As described.")
    await act(house, shop.actor, update(escrow.id, changes))
    after = await reread(house, escrow.id)
    assert (after.title, after.contract) == ("New", escrow.contract)


# 4. Refusals -------------------------------------------------------------------------------------


@pytest.mark.parametrize("status", ["paid", "delivered", "completed", "cancelled", "disputed"])
async def test_only_what_is_pending_is_updated(house: House, status: str):
    shop = await make_shop(house)
    escrow = await make_escrow(house, shop, mode="quick", status=status)
    late = update(escrow.id, Changes(title="New"))
    refusal = await refused(house, WrongStatus, shop.actor, late, escrow.id)
    assert str(refusal) == f"The escrow is {status}; it must be pending to update."


async def test_nothing_to_change_is_refused_whatever_the_state(house: House):
    shop = await make_shop(house)
    for status in ("pending", "paid"):
        escrow = await make_escrow(house, shop, mode="quick", status=status)
        await refused(house, Malformed, shop.actor, update(escrow.id, Changes()), escrow.id)


@pytest.mark.parametrize("mode", ["quick", "quick_proof", "instant"])
async def test_only_a_standard_escrow_has_terms_to_change(house: House, mode: str):
    shop = await make_shop(house)
    escrow = await make_escrow(house, shop, mode=mode)
    changes = update(escrow.id, Changes(contract_terms="x", amount=Decimal("1.0001")))
    refusal = await refused(house, Invalid, shop.actor, changes, escrow.id)
    assert isinstance(refusal, Invalid)
    assert set(refusal.details) == {"contractTerms", "amount"}


async def test_the_seller_and_the_creator_update_and_nobody_else(house: House):
    shop, other, buyer = await make_shop(house), await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer, mode="quick", seller_email=other.email)
    creator = Actor(ActorKind.DEVELOPER, developer_id=shop.developer_id)
    for n, actor in enumerate((creator, user_actor(other.user_id), other.actor)):
        await act(house, actor, update(escrow.id, Changes(title=f"New {n}")))
        assert (await reread(house, escrow.id)).title == f"New {n}"
    stranger = await make_shop(house)
    for actor in (buyer.actor, stranger.actor, SYSTEM):
        never = update(escrow.id, Changes(title="Never"))
        await refused(house, WrongParty, actor, never, escrow.id)


async def test_a_frozen_escrow_is_not_updated(house: House, owner: asyncpg.Connection):
    shop = await make_shop(house)
    escrow = await make_escrow(house, shop)
    await owner.execute("UPDATE escrow SET frozen = true WHERE id = $1", escrow.id)
    changes = update(escrow.id, Changes(title="New"))
    await refused(house, EscrowFrozen, shop.actor, changes, escrow.id)


# 5. At once --------------------------------------------------------------------------------------


async def test_two_updates_at_once_both_happen_one_after_the_other(house: House):
    shop = await make_shop(house)
    for _ in range(10):
        escrow = await make_escrow(house, shop, mode="standard")
        await asyncio.gather(
            act(house, shop.actor, update(escrow.id, Changes(title="New"))),
            act(house, shop.actor, update(escrow.id, Changes(amount=Decimal(50)))),
        )
        after = await reread(house, escrow.id)
        assert (after.title, after.amount_minor, after.escrow_fee_minor) == ("New", 50_000, 2_500)
        assert after.contract is not None
        assert (after.contract.version, after.seq) == (2, 3)
        assert sorted(await changed(house, escrow.id)) == [["amount"], ["title"]]


async def test_two_amounts_at_once_leave_one_of_them_whole(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house, funds="10000")
    await set_rate(house, "3")
    for _ in range(10):
        escrow = await make_escrow(house, shop, buyer, currency="USD", mode="quick")
        await asyncio.gather(
            *(
                act(house, shop.actor, update(escrow.id, Changes(amount=Decimal(amount))))
                for amount in (10, 20)
            ),
            set_rate(house, "3.5"),
        )
        after = await reread(house, escrow.id)
        assert after.amount_ledger_minor == after.amount_minor * 10 * after.fx_rate
        assert after.escrow_fee_minor * 20 == after.amount_ledger_minor
        assert after.amount_minor in (1_000, 2_000)
        await set_rate(house, "3")


async def test_an_update_raced_with_a_payment_wins_or_is_told_the_status_it_lost_to(house: House):
    shop = await make_shop(house)
    seen = set()
    for n in range(24):
        buyer = await make_buyer(house)
        escrow = await make_escrow(house, shop, buyer, mode="quick")
        work = [
            act(house, shop.actor, update(escrow.id, Changes(amount=Decimal(70)))),
            act(house, buyer.actor, escrows.pay(escrow.id)),
        ]
        ended = await asyncio.gather(*(work if n % 2 else work[::-1]), return_exceptions=True)
        told, paid = ended if n % 2 else ended[::-1]
        after = await reread(house, escrow.id)
        assert not isinstance(paid, BaseException)
        assert after.status == "paid"
        assert after.held_minor == after.amount_ledger_minor
        assert await available(house, buyer.user_id) == 1_000_000 - after.held_minor
        if isinstance(told, Refused):
            assert str(told) == "The escrow is paid; it must be pending to update."
            assert after.held_minor == 100_000
        else:
            assert (told["escrow"]["status"], after.held_minor) == ("pending", 70_000)
        seen.add(type(told))
    assert len(seen) == 2, "only one of the two orders was met"
