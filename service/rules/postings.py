"""The chart of accounts, and what each movement posts: from, to, amount.

available, pending   a user's wallet, per currency          floor 0, balance kept
held                 one per escrow: its live balance       floor 0, balance kept
platform_fees, protocol_fees                                no balance kept
clearing             money at a payment provider or bank    no balance kept
outside              the world beyond; minus what is inside no balance kept
"""

from dataclasses import dataclass

from service.rules.fees import Shares


@dataclass(frozen=True, slots=True)
class Account:
    """One account of the chart; `owner` is a user, an escrow, a provider, or nobody."""

    kind: str
    owner: str = ""


@dataclass(frozen=True, slots=True)
class Posting:
    """`amount_minor` > 0 goes from one account to another, for a reason."""

    source: Account
    target: Account
    amount_minor: int
    currency: str
    reason: str


def wallet(user_id: str) -> Account:
    """The user's spendable money."""
    return Account("available", user_id)


def held(escrow_id: str) -> Account:
    """What the escrow holds."""
    return Account("held", escrow_id)


PLATFORM_FEES = Account("platform_fees")


def hold(escrow_id: str, payer: Account, amount: int, currency: str) -> list[Posting]:
    """The payer funds the escrow with exactly `amount`."""
    return [Posting(payer, held(escrow_id), amount, currency, "hold")]


def release(
    escrow_id: str, seller_id: str, developer_user_id: str | None, parts: Shares, currency: str
) -> list[Posting]:
    """The seller's part leaves the escrow: net to the seller, both fees to theirs."""
    legs = [
        Posting(held(escrow_id), PLATFORM_FEES, parts.platform, currency, "escrow_fee"),
        Posting(held(escrow_id), wallet(seller_id), parts.net, currency, "release"),
    ]
    if parts.developer:
        if developer_user_id is None:
            raise AssertionError(f"escrow {escrow_id} has a developer fee and nobody to get it")
        target = wallet(developer_user_id)
        legs.append(Posting(held(escrow_id), target, parts.developer, currency, "developer_fee"))
    return [leg for leg in legs if leg.amount_minor]


def refund(escrow_id: str, payer: Account, amount: int, currency: str) -> list[Posting]:
    """`amount` goes back to whoever funded it."""
    return [Posting(held(escrow_id), payer, amount, currency, "refund")] if amount else []


def top_up(user_id: str, provider: str, amount: int, currency: str) -> list[Posting]:
    """Money that a provider took in and has settled: the outside, its clearing, the wallet."""
    clearing = Account("clearing", provider)
    return [
        Posting(Account("outside", provider), clearing, amount, currency, "settlement"),
        Posting(clearing, wallet(user_id), amount, currency, "top_up"),
    ]
