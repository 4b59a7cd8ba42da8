"""What may come next is what the table says: a prospect is what `choose` would answer."""

from dataclasses import replace

import pytest

from service.rules import errors, proof
from service.rules.aggregate import Escrow
from service.rules.escrow import FINAL, MODES, STATUSES, STEPS, TABLE, choose
from service.rules.machine import NOWHERE, Role
from service.rules.outlook import NOBODY_YET, PARTIES, awaits, prospects, waits_for
from tests.service.rules.samples import (
    ACTORS,
    NOW,
    make_dispute,
    make_proof,
    make_request,
    make_sample,
    ripe,
    unsigned,
)

STANDINGS = [
    (mode, status)
    for mode in MODES
    for status in STATUSES
    if (mode, status) != ("instant", "delivered")
]
NEVER_ALONE = ("resolve_dispute", "escalate_proof")
"""These follow from another step: an offer accepted, a correction asked for once too often."""
EVERY = pytest.mark.parametrize(("mode", "status"), STANDINGS)


def legal(escrow: Escrow, role: Role) -> set[str]:
    return {one.step for one in prospects(escrow, role) if one.obstacle is None}


def by_choose(name: str, escrow: Escrow, role: Role) -> type[errors.Refused] | None:
    """What `choose` says of this step to each state that it might lead to; the best of it."""
    said: list[type[errors.Refused] | None] = []
    rows = [row for row in STEPS if row.name == name and escrow.mode in row.modes]
    for target in {row.target for row in rows if row.source == escrow.status} or {None}:
        try:
            choose(name, escrow, ACTORS[role], target)
        except errors.Refused as refusal:
            said.append(type(refusal))
        else:
            said.append(None)
    return None if None in said else said[0]


@EVERY
@pytest.mark.parametrize("role", PARTIES)
def test_the_prospects_are_every_step_of_the_party_with_what_choose_answers(mode, status, role):
    rows = [row for row in STEPS if role in row.who and mode in row.modes]
    names = [row.name for row in rows if row.name not in NEVER_ALONE]
    for name in dict.fromkeys(names):
        for escrow in (make_sample(mode, status), ripe(name, make_sample(mode, status), role)):
            found = {one.step: one.obstacle for one in prospects(escrow, role)}
            assert list(found) == list(dict.fromkeys(names))
            want = by_choose(name, escrow, role)
            obstacle = found[name]
            assert (type(obstacle) if obstacle else None) == want, (name, status)


@EVERY
@pytest.mark.parametrize("role", PARTIES)
def test_whatever_the_table_makes_legal_is_a_prospect_once_nothing_else_is_in_the_way(
    mode, status, role
):
    for row in TABLE.legal(status, mode):
        if role in row.who and row.name not in NEVER_ALONE:
            escrow = ripe(row.name, make_sample(mode, status), role, row.target)
            assert row.name in legal(escrow, role)


def test_the_seller_of_a_paid_quick_escrow_may_deliver():
    assert "deliver" in legal(make_sample("quick", "paid"), Role.SELLER)
    assert "deliver" in legal(make_sample("instant", "paid"), Role.SELLER)


@EVERY
def test_nothing_lies_before_a_frozen_escrow(mode, status):
    escrow = make_sample(mode, status, frozen=True)
    for role in PARTIES:
        assert {type(one.obstacle) for one in prospects(escrow, role)} == {errors.EscrowFrozen}


def test_a_party_who_has_not_registered_is_told_what_they_may_do_once_they_have():
    escrow = make_sample("quick", "pending", buyer=None)
    assert legal(escrow, Role.BUYER) == legal(make_sample("quick", "pending"), Role.BUYER)
    assert len(NOBODY_YET) == 24
    unknown = make_sample("quick", "pending", seller=None)
    [paying] = [one for one in prospects(unknown, Role.BUYER) if one.step == "accept_pay"]
    assert type(paying.obstacle) is errors.SellerNotReady


# escrows.md 4: the states and their exits, "else waits for".
@pytest.mark.parametrize(
    ("escrow", "role"),
    [
        (make_sample("quick", "pending"), Role.BUYER),
        (make_sample("quick", "paid"), Role.SELLER),
        (make_sample("instant", "paid"), Role.SELLER),
        (make_sample("quick", "paid", cancellation=make_request()), Role.SELLER),
        (make_sample("quick", "delivered"), Role.BUYER),
        (make_sample("quick", "delivered", cancellation=make_request()), Role.SELLER),
        (make_sample("quick", "delivered", cancellation=make_request(status="rejected")),
         Role.BUYER),
        (make_sample("quick", "disputed", dispute=make_dispute("buyer")), Role.SELLER),
        (make_sample("quick", "disputed", dispute=make_dispute("seller")), Role.BUYER),
        (make_sample("quick", "disputed", dispute=make_dispute("seller", answered_at=NOW)),
         Role.OPERATOR),
        (make_sample("quick_proof", "paid", proof=make_proof(proof.WAITING)), Role.SELLER),
        (make_sample("quick_proof", "paid", proof=make_proof(proof.REVIEW)), Role.BUYER),
        (make_sample("quick_proof", "paid", proof=make_proof(proof.CORRECTION)), Role.SELLER),
        (make_sample("quick_proof", "paid", proof=make_proof(proof.OPERATOR)), Role.OPERATOR),
        (make_sample("quick_proof", "paid", proof=make_proof(proof.ACCEPTED)), Role.SELLER),
        (make_sample("quick_proof", "paid", proof=make_proof(proof.TIMED_OUT)), Role.SELLER),
        (make_sample("quick_proof", "paid", proof=make_proof(proof.REVIEW),
                     cancellation=make_request()), Role.SELLER),
        (make_sample("quick", "completed"), None),
        (make_sample("quick", "cancelled"), None),
    ],
)  # fmt: skip
def test_somebody_holds_the_matter_until_it_is_over(escrow, role):
    assert waits_for(escrow) is role
    frozen = replace(escrow, frozen=True)
    assert waits_for(frozen) is (None if escrow.status in FINAL else Role.OPERATOR)


@pytest.mark.parametrize("side", [None, "seller", "buyer"])
def test_a_pending_standard_escrow_waits_for_whoever_has_not_signed(side):
    pending = unsigned(make_sample("standard", "pending"))
    assert pending.contract is not None
    if side is not None:
        moment = {f"{side}_signed_at": NOW}
        pending = replace(pending, contract=replace(pending.contract, **moment))
    assert "accept_pay" not in legal(pending, Role.BUYER)
    for role in PARTIES:
        assert ("sign_contract" in legal(pending, role)) == (side != role)
    assert {r.source for r in STEPS if r.name == "sign_contract"} == {"pending"} != {NOWHERE}


@EVERY
def test_who_holds_the_matter_can_do_something_or_is_the_operator(mode, status):
    escrow = make_sample(mode, status)
    role = waits_for(escrow)
    if role in PARTIES:
        assert legal(escrow, role)


def test_no_party_resolves_a_dispute_alone():
    for role in PARTIES:
        found = {one.step for one in prospects(make_sample("quick", "disputed"), role)}
        assert "resolve_dispute" not in found
        assert {"answer_dispute", "withdraw_dispute"} <= found


@EVERY
@pytest.mark.parametrize("role", PARTIES)
def test_it_is_a_partys_turn_where_the_matter_waits_for_them_once_it_is_paid(mode, status, role):
    escrow = make_sample(mode, status)
    if status != "pending":
        assert awaits(escrow, role) is (waits_for(escrow) is role)
    assert not awaits(replace(escrow, frozen=True), role)


def test_while_it_is_pending_each_signs_for_itself_and_then_the_buyer_pays():
    seller, buyer = PARTIES
    pending = unsigned(make_sample("standard", "pending"))
    assert pending.contract is not None
    by_seller = replace(pending, contract=replace(pending.contract, seller_signed_at=NOW))
    by_buyer = replace(pending, contract=replace(pending.contract, buyer_signed_at=NOW))
    signed = make_sample("standard", "pending")
    turns = [
        (awaits(one, seller), awaits(one, buyer)) for one in (pending, by_seller, by_buyer, signed)
    ]
    assert turns == [(True, True), (False, True), (True, False), (False, True)]
    for role in PARTIES:
        assert not awaits(make_sample("quick", "pending", seller=None), role)
