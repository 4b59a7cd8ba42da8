"""Every movement says from where to where; what moves is never nothing."""

import pytest

from service.rules.fees import Shares
from service.rules.postings import (
    PLATFORM_FEES,
    Account,
    Posting,
    held,
    hold,
    refund,
    release,
    top_up,
    wallet,
)

ESCROW, SELLER, BUYER, DEVELOPER = "e", "s", "b", "d"


def test_a_payment_is_held_by_its_escrow():
    assert hold(ESCROW, wallet(BUYER), 100, "TND") == [
        Posting(Account("available", BUYER), Account("held", ESCROW), 100, "TND", "hold")
    ]


def test_a_release_pays_the_platform_the_seller_and_the_developer():
    legs = release(ESCROW, SELLER, DEVELOPER, Shares(5, 10, 85), "TND")
    assert {(leg.target, leg.amount_minor, leg.reason) for leg in legs} == {
        (PLATFORM_FEES, 5, "escrow_fee"),
        (wallet(SELLER), 85, "release"),
        (wallet(DEVELOPER), 10, "developer_fee"),
    }
    assert {leg.source for leg in legs} == {held(ESCROW)}


@pytest.mark.parametrize(
    ("parts", "reasons"),
    [
        (Shares(0, 0, 100), {"release"}),
        (Shares(5, 0, 95), {"escrow_fee", "release"}),
        (Shares(100, 0, 0), {"escrow_fee"}),
        (Shares(0, 0, 0), set()),
    ],
)
def test_a_part_of_nothing_is_not_posted(parts, reasons):
    assert {leg.reason for leg in release(ESCROW, SELLER, None, parts, "TND")} == reasons


def test_a_developer_fee_without_a_receiver_is_a_bug():
    with pytest.raises(AssertionError, match="nobody to get it"):
        release(ESCROW, SELLER, None, Shares(0, 1, 99), "TND")


def test_a_refund_goes_back_to_the_payer_and_nothing_is_not_refunded():
    assert refund(ESCROW, wallet(BUYER), 100, "TND") == [
        Posting(held(ESCROW), wallet(BUYER), 100, "TND", "refund")
    ]
    assert refund(ESCROW, wallet(BUYER), 0, "TND") == []


def test_a_top_up_leaves_the_providers_clearing_at_nothing():
    legs = top_up(BUYER, "sandbox", 100, "EUR")
    clearing = Account("clearing", "sandbox")
    assert sum(leg.amount_minor for leg in legs if leg.target == clearing) == sum(
        leg.amount_minor for leg in legs if leg.source == clearing
    )
    assert legs[-1].target == wallet(BUYER)
    assert {leg.currency for leg in legs} == {"EUR"}
