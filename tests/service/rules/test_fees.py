"""Fees and shares are the specification's, to the millime. Source: escrows.md 5."""

from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.rules.escrow import MODES
from service.rules.fees import FLOORS_MINOR, Fees, Shares, fees, locked_minor, platform_bps, shares
from service.rules.money import MAX_MINOR
from service.rules.policy import Policy

POLICY = Policy()


@pytest.mark.parametrize(
    ("amount", "currency", "rate", "minor"),
    [
        ("1000", "TND", "1", 1_000_000),
        ("0.001", "TND", "1", 1),
        ("12.345", "TND", "1", 12_345),
        ("100", "USD", "3.12", 312_000),
        ("0.01", "USD", "3.12", 30),  # 0.0312 -> 0.03
        ("33.33", "EUR", "3.3335", 111_110),  # 111.105555 -> 111.11
        ("1", "USD", "3.125", 3_130),  # a half goes up
        ("1", "USD", "3.1249999", 3_120),
        ("0.01", "USD", "0.4", 0),  # 0.004 -> 0: below every floor
        # A product of 42 digits, whose half must not be rounded away before it is looked at.
        ("999999999.99", "USD", "0.5" + "0" * 28 + "1", 500_000_000_000),
        ("1", "USD", "3.124" + "9" * 30, 3_120),
    ],
)
def test_the_ledger_amount_is_exact_for_dinars_and_half_up_to_two_decimals_else(
    amount, currency, rate, minor
):
    assert locked_minor(Decimal(amount), currency, Decimal(rate)) == minor


def test_an_amount_finer_than_a_millime_is_a_bug_not_a_rounding():
    with pytest.raises(AssertionError, match="finer than a millime"):
        locked_minor(Decimal("0.0001"), "TND", Decimal(1))


@pytest.mark.parametrize(("amount", "fee"), [(1_000_000, 50_000), (1_500_000, 75_000)])
@pytest.mark.parametrize("mode", ["standard", "quick", "quick_proof"])
def test_the_platform_takes_five_percent(mode, amount, fee):
    assert fees(amount, mode, 0, POLICY) == Fees(fee, 0)


def test_an_instant_escrow_bears_no_platform_fee():
    assert fees(1_000_000, "instant", 0, POLICY) == Fees(0, 0)
    assert platform_bps("instant", Policy(instant_fee_bps=120)) == 120


@pytest.mark.parametrize(
    ("amount", "platform"),
    [(9, 0), (10, 1), (29, 1), (30, 2), (5_010, 251), (5_009, 250)],
)
def test_a_fee_is_half_up_to_a_millime(amount, platform):
    assert fees(amount, "quick", 0, POLICY).platform == platform


def test_a_developer_fee_is_of_the_whole_amount():
    assert fees(1_000_000, "quick", 1_000, POLICY) == Fees(50_000, 100_000)
    assert fees(1_000_000, "quick", 250, POLICY).developer == 25_000


@given(
    st.integers(1, MAX_MINOR),
    st.sampled_from(MODES),
    st.integers(0, 2_500),
    st.integers(0, 10_000),
)
def test_the_sellers_net_is_never_below_nothing(amount, mode, developer_bps, platform):
    policy = Policy(platform_fee_bps=platform, instant_fee_bps=platform)
    due = fees(amount, mode, developer_bps, policy)
    assert due.platform >= 0
    assert due.developer >= 0
    assert due.platform + due.developer <= amount


def test_the_spec_s_split_is_the_split():
    assert shares(333_333, 1_000_000, 50_000, 100_000) == Shares(16_667, 33_333, 283_333)


def test_ties_go_to_the_seller_then_the_developer_then_the_platform():
    assert shares(1, 3, 1, 1) == Shares(0, 0, 1)
    assert shares(2, 3, 1, 1) == Shares(0, 1, 1)


@st.composite
def settlements(draw):
    whole = draw(st.integers(1, MAX_MINOR))
    platform = draw(st.integers(0, whole))
    developer = draw(st.integers(0, whole - platform))
    return draw(st.integers(0, whole)), whole, platform, developer


@settings(deadline=None)
@given(settlements())
def test_a_shared_part_sums_to_itself_and_bears_fees_in_proportion(settlement):
    part, whole, platform, developer = settlement
    got = shares(part, whole, platform, developer)
    assert got.platform + got.developer + got.net == part
    assert abs(got.platform * whole - part * platform) < whole
    assert abs(got.developer * whole - part * developer) < whole


@settings(deadline=None)
@given(settlements())
def test_the_whole_is_shared_exactly_as_stored(settlement):
    _, whole, platform, developer = settlement
    assert shares(whole, whole, platform, developer) == Shares(
        platform, developer, whole - platform - developer
    )


def test_every_mode_has_its_floor():
    assert set(FLOORS_MINOR) == set(MODES)
    assert {mode: floor for mode, floor in FLOORS_MINOR.items() if floor != 5_000} == {
        "instant": 10
    }
