"""The chart of accounts, and what each movement posts: from, to, amount.

available            a user's wallet: what can be spent     floor 0, balance kept
pending              a user's wallet: promised top-ups and
                     payouts that have not left yet         floor 0, balance kept
held                 one per escrow: its live balance       floor 0, balance kept
platform_fees, protocol_fees                                no balance kept
clearing             money at a payment provider or bank,
                     one per provider; 0 but for what the
                     operator has still to decide           no balance kept
outside              the world beyond, one per provider;
                     minus what is inside                   no balance kept
"""

from collections.abc import Sequence
from dataclasses import dataclass

from service.rules.fees import Shares
from service.rules.payouts import Distribution, Payout


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
PROTOCOL_FEES = Account("protocol_fees")
FUNDING = "hold"
"""The reason of what comes into an escrow; the posting's source is the payer."""
PROTOCOL_FEE, PLATFORM_FEE = "protocol_fee", "platform_fee"
"""The reasons of the milestone family's fees."""


def hold(escrow_id: str, payer: Account, amount: int, currency: str) -> list[Posting]:
    """The payer funds the escrow with exactly `amount`."""
    return [Posting(payer, held(escrow_id), amount, currency, FUNDING)]


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


def pending(user_id: str) -> Account:
    """The user's money on its way in (promised, not there yet) or out (taken from the wallet)."""
    return Account("pending", user_id)


def clearing(provider: str) -> Account:
    """Money that a provider or bank has for us, and of which we do not know yet whose it is."""
    return Account("clearing", provider)


def outside(provider: str) -> Account:
    """The world beyond this provider."""
    return Account("outside", provider)


def promise(user_id: str, provider: str, amount: int, currency: str) -> list[Posting]:
    """A top-up is under way: shown as pending, and nothing that could be spent."""
    return [Posting(outside(provider), pending(user_id), amount, currency, "promise")]


def forgo(user_id: str, provider: str, amount: int, currency: str) -> list[Posting]:
    """What was promised is no more, because it came, or because it will not."""
    return [Posting(pending(user_id), outside(provider), amount, currency, "promise_ended")]


def receive(provider: str, amount: int, currency: str) -> list[Posting]:
    """Money has come to a provider or bank; whose it is is posted next, or for the operator."""
    return [Posting(outside(provider), clearing(provider), amount, currency, "settlement")]


def credit(user_id: str, provider: str, amount: int, currency: str) -> list[Posting]:
    """What lay in clearing is the user's."""
    return [Posting(clearing(provider), wallet(user_id), amount, currency, "top_up")]


def reserve(user_id: str, amount: int, currency: str) -> list[Posting]:
    """A payout is asked for: it cannot be spent any more, and has not left yet."""
    return [Posting(wallet(user_id), pending(user_id), amount, currency, "payout_reserved")]


def unreserve(user_id: str, amount: int, currency: str) -> list[Posting]:
    """The payout does not take place: the money can be spent again."""
    return [Posting(pending(user_id), wallet(user_id), amount, currency, "payout_returned")]


def pay_out(user_id: str, provider: str, amount: int, currency: str) -> list[Posting]:
    """The payout has left through the bank's clearing."""
    return [
        Posting(pending(user_id), clearing(provider), amount, currency, "payout"),
        *pay_back(provider, amount, currency),
    ]


def pay_back(provider: str, amount: int, currency: str) -> list[Posting]:
    """What lay in clearing has left."""
    return [Posting(clearing(provider), outside(provider), amount, currency, "settlement")]


def top_up(user_id: str, provider: str, amount: int, currency: str) -> list[Posting]:
    """Money that a provider took in and has settled: the outside, its clearing, the wallet."""
    return [
        *receive(provider, amount, currency),
        *credit(user_id, provider, amount, currency),
    ]


def pay(
    escrow_id: str, receiver_id: str, platform_id: str | None, parts: Payout, currency: str
) -> list[Posting]:
    """A milestone family's release: both fees to theirs, the rest to the receiver."""
    legs = _fees(escrow_id, platform_id, parts.protocol, parts.platform, currency)
    legs.append(Posting(held(escrow_id), wallet(receiver_id), parts.net, currency, "release"))
    return [leg for leg in legs if leg.amount_minor]


def distribute(
    escrow_id: str,
    recipient_ids: Sequence[str],
    platform_id: str | None,
    parts: Distribution,
    currency: str,
) -> list[Posting]:
    """A milestone family's resolution: both fees to theirs, each net to its recipient."""
    legs = _fees(escrow_id, platform_id, parts.protocol, parts.platform, currency)
    legs += [
        Posting(held(escrow_id), wallet(recipient_id), net, currency, "resolution")
        for recipient_id, net in zip(recipient_ids, parts.nets, strict=True)
    ]
    return [leg for leg in legs if leg.amount_minor]


def withdraw(
    escrow_id: str, recipient_ids: Sequence[str], amounts: Sequence[int], currency: str
) -> list[Posting]:
    """What was left over goes to its recipients, without a fee."""
    return [
        Posting(held(escrow_id), wallet(recipient_id), amount, currency, "withdrawal")
        for recipient_id, amount in zip(recipient_ids, amounts, strict=True)
    ]


def _fees(
    escrow_id: str, platform_id: str | None, protocol: int, platform: int, currency: str
) -> list[Posting]:
    legs = [Posting(held(escrow_id), PROTOCOL_FEES, protocol, currency, PROTOCOL_FEE)]
    if platform:
        if platform_id is None:
            raise AssertionError(f"escrow {escrow_id} has a platform fee and nobody to get it")
        target = wallet(platform_id)
        legs.append(Posting(held(escrow_id), target, platform, currency, PLATFORM_FEE))
    return legs
