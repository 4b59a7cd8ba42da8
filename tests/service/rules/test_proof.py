"""The proof's phases, cell by cell, and how they fit the escrow's own table. escrows.md 4."""

import pytest

from service.rules import escrow, proof
from service.rules.machine import NOWHERE, Movement, Role

# from, step, who, to: escrows.md 4, "Proof phases".
SPECIFIED = {
    (NOWHERE, "accept_pay", Role.BUYER, proof.WAITING),
    (proof.WAITING, "submit_proof", Role.SELLER, proof.REVIEW),
    (proof.WAITING, "expire_proof", Role.CLOCK, proof.EXPIRED),
    (proof.REVIEW, "accept_proof", Role.BUYER, proof.ACCEPTED),
    (proof.REVIEW, "pass_proof", Role.CLOCK, proof.TIMED_OUT),
    (proof.REVIEW, "request_correction", Role.BUYER, proof.CORRECTION),
    (proof.REVIEW, "escalate_proof", Role.BUYER, proof.OPERATOR),
    (proof.CORRECTION, "submit_proof", Role.SELLER, proof.REVIEW),
    (proof.CORRECTION, "escalate_proof", Role.CLOCK, proof.OPERATOR),
    (proof.OPERATOR, "accept_proof", Role.OPERATOR, proof.ACCEPTED),
    (proof.OPERATOR, "reject_proof", Role.OPERATOR, proof.REJECTED),
}


def test_the_phases_are_the_specifications():
    rows = {(row.source, row.name, role, row.target) for row in proof.STEPS for role in row.who}
    assert rows == SPECIFIED


def test_every_phase_is_reached_and_left_unless_it_is_final():
    assert {row.target for row in proof.STEPS} == set(proof.PHASES)
    for phase in proof.PHASES:
        ways = list(proof.TABLE.legal(phase, escrow.PROOF))
        assert bool(ways) == (phase not in proof.TABLE.final)


def test_the_gate_is_open_only_where_the_seller_may_deliver():
    assert set(proof.OPEN_GATE) == {proof.ACCEPTED, proof.TIMED_OUT}
    assert set(proof.TABLE.final) - set(proof.OPEN_GATE) == {proof.EXPIRED, proof.REJECTED}


@pytest.mark.parametrize("row", proof.STEPS, ids=lambda row: f"{row.name}-{row.source}")
def test_whoever_moves_a_phase_may_take_the_escrows_step_and_the_ends_agree(row):
    source = "pending" if row.source == NOWHERE else "paid"
    of_escrow = escrow.TABLE.find(row.name, source, escrow.PROOF)
    assert of_escrow is not None
    assert row.who <= of_escrow.who
    cancels = row.target in (proof.EXPIRED, proof.REJECTED)
    assert of_escrow.target == ("cancelled" if cancels else "paid")
    assert (row.moves, row.events) == (Movement.NONE, ())
