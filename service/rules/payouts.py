"""The fee arithmetic of the milestone family: whole minor units, nothing is ever lost.

Source: milestones.md 5. Both fees are deducted, never on top, each by its floor; products stay in
Python's integers.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from service.rules.money import split

BPS = 10_000


@dataclass(frozen=True, slots=True)
class Payout:
    """An amount A and its three parts: both fees and the rest, which keeps the dust."""

    gross: int
    protocol: int
    platform: int
    net: int


@dataclass(frozen=True, slots=True)
class Distribution:
    """A total T and its parts: both fees, and what each recipient gets, in the list's order."""

    total: int
    protocol: int
    platform: int
    nets: tuple[int, ...]


def fees(amount: int, protocol_bps: int, platform_bps: int) -> tuple[int, int]:
    """Protocol and platform fee of this amount (minor units), each by its floor."""
    return amount * protocol_bps // BPS, amount * platform_bps // BPS


def payout(amount: int, protocol_bps: int, platform_bps: int) -> Payout:
    """A release of this amount. The rates sum to at most 10000."""
    protocol, platform = fees(amount, protocol_bps, platform_bps)
    return Payout(amount, protocol, platform, amount - protocol - platform)


def distribution(amounts: Sequence[int], protocol_bps: int, platform_bps: int) -> Distribution:
    """A resolution: each net by its floor, what the floors leave goes to the last of the list.

    Raises:
        ValueError: there is nothing to distribute, or an amount is not more than 0.
    """
    total = sum(amounts)
    if not amounts or min(amounts) <= 0:
        raise ValueError(f"cannot distribute {list(amounts)}")
    protocol, platform = fees(total, protocol_bps, platform_bps)
    rest = total - protocol - platform
    nets = [amount * rest // total for amount in amounts]
    nets[-1] += rest - sum(nets)
    return Distribution(total, protocol, platform, tuple(nets))


def back_to_payers(amount: int, funded: Sequence[int]) -> tuple[int, ...]:
    """What each payer gets of `amount`, by largest remainder over what they have funded.

    Ties go to the earlier; without a fee.
    """
    return split(amount, funded) if amount else tuple(0 for _ in funded)
