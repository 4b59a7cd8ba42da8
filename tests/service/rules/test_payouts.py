"""The fee arithmetic of the milestone family: exhaustive for small sums, by property for large."""

from itertools import product

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rules.money import MAX_MINOR
from service.rules.payouts import back_to_payers, distribution, payout

RATES = (0, 1, 30, 100, 300, 500, 3333, 9899, 9900)
AMOUNTS = st.integers(min_value=1, max_value=MAX_MINOR)
BPS = st.integers(min_value=0, max_value=9900)
PROTOCOL_BPS = st.integers(min_value=0, max_value=100)


def test_a_release_is_the_specs_example():
    parts = payout(100_000_000, 30, 500)
    assert (parts.protocol, parts.platform, parts.net) == (300_000, 5_000_000, 94_700_000)


def test_a_resolution_is_the_specs_example():
    parts = distribution([40_000_000, 60_000_000], 30, 300)
    assert (parts.protocol, parts.platform) == (300_000, 3_000_000)
    assert parts.nets == (38_680_000, 58_020_000)


@pytest.mark.parametrize("rate", RATES)
def test_every_small_release_is_exact(rate: int):
    for amount, protocol in product(range(1, 700), (0, 30, 100)):
        parts = payout(amount, protocol, rate)
        assert parts.protocol == amount * protocol // 10_000
        assert parts.platform == amount * rate // 10_000
        assert parts.net == amount - parts.protocol - parts.platform
        assert min(parts.protocol, parts.platform, parts.net) >= 0


@pytest.mark.parametrize("rate", RATES)
def test_every_small_resolution_is_exact(rate: int):
    for first, second, third in product(range(1, 25), repeat=3):
        check([first, second, third], 30, rate)


@given(st.lists(AMOUNTS, min_size=1, max_size=50), PROTOCOL_BPS, BPS)
def test_every_large_resolution_is_exact(amounts: list[int], protocol: int, rate: int):
    check(amounts, protocol, rate)


def check(amounts: list[int], protocol: int, rate: int) -> None:
    """The sum and the fees are exact, each net is its floor, the last has what is left."""
    parts = distribution(amounts, protocol, rate)
    total = sum(amounts)
    fees = total * protocol // 10_000 + total * rate // 10_000
    assert parts.protocol + parts.platform == fees
    assert sum(parts.nets) + fees == total == parts.total
    floors = [amount * (total - fees) // total for amount in amounts]
    assert list(parts.nets[:-1]) == floors[:-1]
    assert 0 <= parts.nets[-1] - floors[-1] < len(amounts)


@given(AMOUNTS, PROTOCOL_BPS, BPS)
def test_every_large_release_is_exact(amount: int, protocol: int, rate: int):
    parts = payout(amount, protocol, rate)
    assert parts.protocol + parts.platform + parts.net == amount
    assert parts.net >= 0


@pytest.mark.parametrize("amounts", [[], [0], [5, -1], [5, 0]])
def test_nothing_and_less_cannot_be_distributed(amounts: list[int]):
    with pytest.raises(ValueError, match="cannot distribute"):
        distribution(amounts, 30, 500)


def test_the_payers_get_back_in_proportion_and_the_earlier_wins_a_tie():
    assert back_to_payers(100, [50, 50]) == (50, 50)
    assert back_to_payers(101, [50, 50]) == (51, 50)
    assert back_to_payers(10, [1, 1, 1]) == (4, 3, 3)
    assert back_to_payers(11, [1, 1, 1]) == (4, 4, 3)
    assert back_to_payers(1, [1, 98, 1]) == (0, 1, 0)
    assert back_to_payers(0, [7, 3]) == (0, 0)
    assert back_to_payers(0, []) == ()


def test_every_small_refund_sums_up_and_is_within_a_unit_of_its_share():
    for amount, *funded in product(range(25), range(1, 9), range(1, 9), range(1, 9)):
        refund(amount, funded)


@given(st.integers(min_value=1, max_value=MAX_MINOR), st.lists(AMOUNTS, min_size=1, max_size=60))
def test_every_large_refund_sums_up_and_is_within_a_unit_of_its_share(
    amount: int, funded: list[int]
):
    refund(amount, funded)


def refund(amount: int, funded: list[int]) -> None:
    parts = back_to_payers(amount, funded)
    assert sum(parts) == amount
    for part, weight in zip(parts, funded, strict=True):
        assert amount * weight // sum(funded) <= part <= amount * weight // sum(funded) + 1
