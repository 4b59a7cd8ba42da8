"""Every 400 of create, by the field that it names. Source: escrows.md 3.1."""

from dataclasses import replace
from decimal import Decimal

import pytest

from service.rules.money import MAX_MINOR
from service.rules.terms import (
    UPDATABLE,
    Circumstances,
    Terms,
    faults,
    faults_in,
    faults_of_amount,
    faults_of_change,
)

SOUND = Terms(
    title="A camera",
    amount=Decimal(100),
    currency="TND",
    buyer_email="buyer@example.com",
    seller_email=None,
    mode="standard",
    estimated_delivery_days=3,
    contract_terms="As described.",
    auto_sign=False,
    developer_fee_bps=0,
    fulfillment_policy=None,
    language="en",
    auto_complete="manual",
)
QUICK = replace(SOUND, mode="quick", seller_email="seller@example.com", contract_terms=None)
INSTANT = replace(SOUND, mode="instant", contract_terms=None, estimated_delivery_days=None)
POLICY = {"type": "purchase_proof_required"}
AROUND = Circumstances(
    own_email="own@example.com",
    seller_is_known=True,
    seller_is_verified=True,
    has_signature=True,
    can_acknowledge=True,
    amount_ledger_minor=100_000,
)


@pytest.mark.parametrize(
    "terms",
    [
        SOUND,
        QUICK,
        INSTANT,
        replace(SOUND, seller_email="seller@example.com"),
        replace(SOUND, auto_sign=True),
        replace(QUICK, fulfillment_policy=POLICY),
        replace(INSTANT, auto_complete="on_ack", estimated_delivery_days=2),
        replace(QUICK, developer_fee_bps=2_500),
        replace(SOUND, amount=Decimal("0.001")),
        replace(QUICK, currency="USD", amount=Decimal("10.25")),
    ],
)
def test_sound_terms_have_no_fault(terms):
    assert faults(terms) == {}


@pytest.mark.parametrize(
    ("terms", "fields"),
    [
        (replace(SOUND, amount=Decimal("0.0001")), {"amount"}),
        (replace(SOUND, currency="USD", amount=Decimal("1.001")), {"amount"}),
        (replace(INSTANT, seller_email="seller@example.com"), {"sellerEmail"}),
        (replace(QUICK, seller_email=None), {"sellerEmail"}),
        (replace(QUICK, buyer_email="seller@example.com"), {"buyerEmail"}),
        (replace(SOUND, estimated_delivery_days=None), {"estimatedDeliveryDays"}),
        (replace(QUICK, estimated_delivery_days=None), {"estimatedDeliveryDays"}),
        (replace(SOUND, contract_terms=None), {"contractTerms"}),
        (replace(QUICK, contract_terms="x"), {"contractTerms"}),
        (replace(INSTANT, contract_terms="x"), {"contractTerms"}),
        (replace(SOUND, fulfillment_policy=POLICY), {"fulfillmentPolicy"}),
        (replace(INSTANT, fulfillment_policy=POLICY), {"fulfillmentPolicy"}),
        (replace(SOUND, auto_complete="on_ack"), {"autoComplete"}),
        (replace(QUICK, auto_complete="on_ack"), {"autoComplete"}),
        (replace(QUICK, auto_sign=True), {"autoSign"}),
        (replace(INSTANT, auto_sign=True), {"autoSign"}),
        (replace(SOUND, auto_sign=True, seller_email="s@example.com"), {"autoSign"}),
        (
            replace(QUICK, seller_email=None, contract_terms="x", auto_sign=True,
                    estimated_delivery_days=None, amount=Decimal("0.0001")),
            {"sellerEmail", "contractTerms", "autoSign", "estimatedDeliveryDays", "amount"},
        ),
    ],
)  # fmt: skip
def test_every_bad_field_is_named(terms, fields):
    found = faults(terms)
    assert set(found) == fields
    assert all(found.values())


@pytest.mark.parametrize("mode", ["quick", "instant"])
def test_contract_terms_outside_standard_name_the_mode(mode):
    terms = replace(QUICK if mode == "quick" else INSTANT, contract_terms="x")
    assert mode in faults(terms)["contractTerms"]


@pytest.mark.parametrize(
    ("terms", "around", "fields"),
    [
        (SOUND, AROUND, set()),
        (replace(SOUND, buyer_email="own@example.com"), AROUND, {"buyerEmail"}),
        (replace(SOUND, developer_fee_bps=1), AROUND, {"developerFeePercentage"}),
        (
            replace(QUICK, seller_email="own@example.com", developer_fee_bps=1),
            AROUND,
            {"developerFeePercentage"},
        ),
        (replace(QUICK, seller_email="own@example.com"), AROUND, set()),
        (replace(QUICK, developer_fee_bps=1), AROUND, set()),
        (QUICK, replace(AROUND, seller_is_verified=False), {"sellerEmail"}),
        (QUICK, replace(AROUND, seller_is_known=False, seller_is_verified=False), set()),
        (replace(SOUND, auto_sign=True), replace(AROUND, has_signature=False), {"autoSign"}),
        (
            replace(INSTANT, auto_complete="on_ack"),
            replace(AROUND, can_acknowledge=False),
            {"autoComplete"},
        ),
        (INSTANT, replace(AROUND, can_acknowledge=False), set()),
    ],
)
def test_what_the_circumstances_show_to_be_wrong_is_named(terms, around, fields):
    assert set(faults_in(terms, around)) == fields


@pytest.mark.parametrize(
    ("terms", "floor", "told"),
    [
        (SOUND, 5_000, "5 TND"),
        (QUICK, 5_000, "5 TND"),
        (replace(QUICK, fulfillment_policy=POLICY), 5_000, "5 TND"),
        (INSTANT, 10, "0.01 TND"),
    ],
)
def test_an_amount_below_the_floor_names_the_floor(terms, floor, told):
    assert faults_in(terms, replace(AROUND, amount_ledger_minor=floor)) == {}
    found = faults_in(terms, replace(AROUND, amount_ledger_minor=floor - 1))
    assert found == {"amount": f"must be worth at least {told}"}


def test_an_amount_above_the_ledgers_bound_is_a_bad_field():
    assert faults_in(SOUND, replace(AROUND, amount_ledger_minor=MAX_MINOR)) == {}
    assert set(faults_in(SOUND, replace(AROUND, amount_ledger_minor=MAX_MINOR + 1))) == {"amount"}


def test_a_quick_escrow_with_a_policy_has_a_mode_of_its_own():
    assert replace(QUICK, fulfillment_policy=POLICY).own_mode == "quick_proof"
    assert [t.own_mode for t in (SOUND, QUICK, INSTANT)] == ["standard", "quick", "instant"]


def test_an_instant_escrow_is_delivered_within_a_day_unless_said_otherwise():
    assert INSTANT.delivery_days == 1
    assert replace(INSTANT, estimated_delivery_days=9).delivery_days == 9


# The 400s of an update. escrows.md 3.4 ----------------------------------------------------------

MODES = ("standard", "quick", "quick_proof", "instant")


def test_the_fields_of_an_update_are_the_specifications():
    assert tuple(UPDATABLE) == (
        "title", "amount", "description", "estimatedDeliveryDays", "contractTerms",
    )  # fmt: skip


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("field", [field for field in UPDATABLE if field != "contractTerms"])
def test_every_mode_may_change_one_field_alone(mode, field):
    amount = Decimal("12.34") if field == "amount" else None
    assert faults_of_change(mode, "USD", {field}, amount) == {}


@pytest.mark.parametrize(
    ("mode", "named"), [("quick", "quick"), ("quick_proof", "quick"), ("instant", "instant")]
)
def test_new_contract_terms_outside_standard_are_a_fault_that_names_the_documented_mode(
    mode, named
):
    found = faults_of_change(mode, "TND", {"contractTerms", "title"}, None)
    assert found == {"contractTerms": f"must be absent for {named} escrows: they have no contract"}
    assert faults_of_change("standard", "TND", {"contractTerms"}, None) == {}


@pytest.mark.parametrize(
    ("currency", "exact", "too_fine"),
    [("TND", "1.234", "1.2345"), ("USD", "1.23", "1.234"), ("EUR", "1.23", "1.231")],
)
def test_a_new_amount_has_at_most_its_currencys_decimals(currency, exact, too_fine):
    assert faults_of_change("quick", currency, {"amount"}, Decimal(exact)) == {}
    places = len(exact) - 2
    assert faults_of_change("quick", currency, {"amount"}, Decimal(too_fine)) == {
        "amount": f"must have at most {places} decimals in {currency}"
    }


def test_every_bad_field_of_a_change_is_named_at_once():
    found = faults_of_change("instant", "USD", {"amount", "contractTerms"}, Decimal("1.001"))
    assert set(found) == {"amount", "contractTerms"}


@pytest.mark.parametrize(
    ("mode", "floor", "told"),
    [("standard", 5_000, "5 TND"), ("quick", 5_000, "5 TND"), ("quick_proof", 5_000, "5 TND"),
     ("instant", 10, "0.01 TND")],
)  # fmt: skip
def test_a_new_amount_keeps_within_the_bounds_of_a_new_escrow(mode, floor, told):
    for sound in (floor, MAX_MINOR):
        assert faults_of_amount(mode, sound) == {}
    assert faults_of_amount(mode, floor - 1) == {"amount": f"must be worth at least {told}"}
    assert "at most" in faults_of_amount(mode, MAX_MINOR + 1)["amount"]
