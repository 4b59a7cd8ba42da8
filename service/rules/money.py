"""Money in integer minor units, and splits that sum to their whole. No float anywhere.

Source: ISO 4217 for the exponents (the dinar has three decimals); USDC by its token's decimals.
"""

from collections.abc import Sequence
from decimal import ROUND_HALF_UP, Context, Decimal

EXPONENTS = {"TND": 3, "USD": 2, "EUR": 2, "USDC": 6}
LEDGER_CURRENCY = "TND"
RATED_CURRENCIES = ("USD", "EUR")
"""The other face currencies of escrows: those that need a rate to the ledger's."""
EXACT = Context(prec=80, rounding=ROUND_HALF_UP)
"""Two factors of 40 digits, the most that the reader lets in, multiply without rounding here."""

MAX_MINOR = 900_000_000_000_000
"""The largest amount or balance: a product with basis points still fits 64 bits."""


MAX_SHIFT = 60
"""No amount that the reader lets in has more zeros; a power of ten beyond is not worth its time."""


def to_minor(amount: Decimal | int, currency: str) -> int | None:
    """The amount in minor units, or None when it has more decimals than the currency.

    Decided on the digits themselves: the default context would round what is longer than 28.
    """
    sign, digits, exponent = Decimal(amount).as_tuple()
    if not isinstance(exponent, int):
        raise TypeError(f"{amount} is no amount")
    shift = exponent + EXPONENTS[currency]
    kept = digits if shift >= 0 else digits[:shift]
    if any(digits[len(kept) :]) or shift > MAX_SHIFT:
        return None
    minor = int("".join(map(str, kept)) or "0") * int(10 ** max(shift, 0))
    return -minor if sign else minor


def to_decimal(minor: int, currency: str) -> Decimal:
    """Minor units as a decimal of major units."""
    return Decimal(minor).scaleb(-EXPONENTS[currency])


def half_up(amount: Decimal, places: int) -> Decimal:
    """Rounded to `places` decimals, halves away from zero. `amount` has at most 80 digits."""
    return EXACT.quantize(amount, Decimal(1).scaleb(-places))


def share_half_up(minor: int, bps: int) -> int:
    """`bps` basis points of `minor`, half up to a minor unit."""
    return (minor * bps * 2 + 10_000) // 20_000


def split(whole: int, weights: Sequence[int], ties: Sequence[int] | None = None) -> tuple[int, ...]:
    """`whole` minor units over `weights` by largest remainder; the parts sum to the whole.

    Equal remainders go to the earlier index of `ties`, by default the order of the list.
    """
    if whole < 0 or any(weight < 0 for weight in weights):
        raise ValueError(f"cannot split {whole} over {list(weights)}: all must be 0 or more")
    total = sum(weights)
    if total == 0:
        raise ValueError(f"cannot split {whole}: the weights sum to 0")
    parts = [whole * weight // total for weight in weights]
    order = ties if ties is not None else range(len(weights))
    by_remainder = sorted(order, key=lambda i: -(whole * weights[i] % total))
    for i in by_remainder[: whole - sum(parts)]:
        parts[i] += 1
    if sum(parts) != whole:
        raise AssertionError(f"the parts {parts} do not sum to {whole}")
    return tuple(parts)
