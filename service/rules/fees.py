"""Which fee an escrow bears, and how a settled part is shared. Source: escrows.md 5."""

from dataclasses import dataclass
from decimal import Decimal

from service.rules.money import EXACT, LEDGER_CURRENCY, half_up, share_half_up, split, to_minor
from service.rules.policy import Policy

FLOORS_MINOR = {"standard": 5_000, "quick": 5_000, "quick_proof": 5_000, "instant": 10}
"""The least `amountTnd` of a mode, in millimes: 5 TND, instant 0.01 TND."""


@dataclass(frozen=True, slots=True)
class Fees:
    """Both fees, in ledger minor units; taken from the seller's payout."""

    platform: int
    developer: int


@dataclass(frozen=True, slots=True)
class Shares:
    """A seller's part S, shared out: the three sum to S."""

    platform: int
    developer: int
    net: int


def locked_minor(amount: Decimal, currency: str, rate: Decimal) -> int:
    """`amountTnd` in millimes: exact for TND, else amount x rate half up to 2 decimals."""
    in_tnd = amount if currency == LEDGER_CURRENCY else half_up(EXACT.multiply(amount, rate), 2)
    minor = to_minor(in_tnd, LEDGER_CURRENCY)
    if minor is None:
        raise AssertionError(f"{in_tnd} {LEDGER_CURRENCY} is finer than a millime")
    return minor


def platform_bps(mode: str, policy: Policy) -> int:
    """The platform's rate for this mode, in basis points."""
    return policy.instant_fee_bps if mode == "instant" else policy.platform_fee_bps


def fees(ledger_minor: int, mode: str, developer_bps: int, policy: Policy) -> Fees:
    """Both fees of an escrow over `ledger_minor`, each half up to a millime."""
    platform = share_half_up(ledger_minor, platform_bps(mode, policy))
    developer = share_half_up(ledger_minor, developer_bps)
    return Fees(platform, min(developer, ledger_minor - platform))


def shares(part: int, whole: int, escrow_fee: int, developer_fee: int) -> Shares:
    """The seller's part of `whole`, by largest remainder over the stored fees and the net.

    The whole itself is shared exactly as stored; ties go to net, then developer, then platform.
    """
    weights = (escrow_fee, developer_fee, whole - escrow_fee - developer_fee)
    platform, developer, net = split(part, weights, ties=(2, 1, 0))
    return Shares(platform, developer, net)
