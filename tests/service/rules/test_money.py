"""Money is exact: parsing, rounding halves up, and splits that sum to their whole."""

from decimal import ROUND_HALF_UP, Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from service.rules.money import (
    MAX_MINOR,
    half_up,
    share_half_up,
    split,
    to_minor,
)

minors = st.integers(0, MAX_MINOR)
weights = st.lists(st.integers(0, MAX_MINOR), min_size=1, max_size=6).filter(any)


@pytest.mark.parametrize(
    ("amount", "currency", "minor"),
    [
        (Decimal("1.5"), "TND", 1500),
        (Decimal("0.001"), "TND", 1),
        (Decimal("1.500"), "USD", 150),
        (Decimal("1E+3"), "EUR", 100_000),
        (1000, "TND", 1_000_000),
        (Decimal("0.000001"), "USDC", 1),
        (Decimal("-0.0"), "TND", 0),
    ],
)
def test_an_amount_becomes_minor_units(amount, currency, minor):
    assert to_minor(amount, currency) == minor


@pytest.mark.parametrize(
    ("amount", "currency"),
    [
        (Decimal("0.0001"), "TND"),
        (Decimal("0.001"), "USD"),
        (Decimal("0.005"), "EUR"),
        (Decimal("1.0000001"), "USDC"),
    ],
)
def test_more_decimals_than_the_currency_has_are_refused(amount, currency):
    assert to_minor(amount, currency) is None


@pytest.mark.parametrize(
    ("amount", "places", "rounded"),
    [
        ("2.345", 2, "2.35"),
        ("2.344999", 2, "2.34"),
        ("0.005", 2, "0.01"),
        ("0.0005", 3, "0.001"),
        ("2.5", 0, "3"),
        ("3.5", 0, "4"),
    ],
)
def test_halves_go_up(amount, places, rounded):
    assert half_up(Decimal(amount), places) == Decimal(rounded)


@given(minors, st.integers(0, 10_000))
def test_a_share_in_basis_points_is_half_up_to_a_minor_unit(minor, bps):
    exact = Decimal(minor) * bps / 10_000
    assert share_half_up(minor, bps) == int(exact.quantize(Decimal(1), rounding=ROUND_HALF_UP))
    assert 0 <= share_half_up(minor, bps) <= minor


@settings(deadline=None)
@given(minors, weights)
def test_the_parts_of_a_split_sum_to_the_whole_and_each_is_within_one_unit(whole, weights):
    parts = split(whole, weights)
    total = sum(weights)
    assert sum(parts) == whole
    assert len(parts) == len(weights)
    for part, weight in zip(parts, weights, strict=True):
        assert abs(part * total - whole * weight) < total
        assert weight or part == 0


@settings(deadline=None)
@given(minors, weights)
def test_a_split_gives_the_odd_units_to_the_largest_remainders(whole, weights):
    parts = split(whole, weights)
    total = sum(weights)
    remainders = [whole * weight % total for weight in weights]
    lifted = [
        r for p, w, r in zip(parts, weights, remainders, strict=True) if p > whole * w // total
    ]
    lowered = [
        r for p, w, r in zip(parts, weights, remainders, strict=True) if p == whole * w // total
    ]
    assert not lifted or not lowered or min(lifted) >= max(lowered)


def test_ties_go_to_the_earlier_in_the_list_or_to_whom_the_caller_names_first():
    assert split(1, [1, 1, 1]) == (1, 0, 0)
    assert split(2, [1, 1, 1]) == (1, 1, 0)
    assert split(1, [1, 1, 1], ties=(2, 1, 0)) == (0, 0, 1)
    assert split(2, [1, 1, 1], ties=(2, 1, 0)) == (0, 1, 1)


def test_a_split_of_nothing_is_nothing():
    assert split(0, [3, 0, 4]) == (0, 0, 0)


@pytest.mark.parametrize(
    ("whole", "weights"), [(-1, [1]), (1, [-1, 2]), (1, [0, 0]), (0, []), (1, [])]
)
def test_a_split_that_makes_no_sense_is_an_error(whole, weights):
    with pytest.raises(ValueError, match="cannot split"):
        split(whole, weights)


@pytest.mark.parametrize(
    "amount",
    [
        "1.000000000000000000000000000000000001",
        "5.0009999999999999999999999999999999999",
        "1e-999999999999",
        "123456789012345678901234567890.0001",
    ],
)
def test_no_digit_beyond_the_currency_is_rounded_away(amount: str):
    assert to_minor(Decimal(amount), "TND") is None


def test_long_amounts_are_exact():
    assert to_minor(Decimal("123456789012345678901234567890.001"), "TND") == (
        123456789012345678901234567890001
    )
    assert to_minor(Decimal("1000000.0000000000000000000000000000"), "TND") == 1_000_000_000
