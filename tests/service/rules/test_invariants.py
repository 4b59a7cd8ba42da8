"""The invariants' names, and the two sides of E: time ends a state, or somebody can."""

import pytest

from service.rules.clocks import CLOCKS, ENDED_BY_TIME
from service.rules.escrow import FINAL, MODES, STATUSES, TABLE
from service.rules.invariants import FREEZING, NAMES, OF_EVERYBODY
from service.rules.machine import Role

PEOPLE = {Role.SELLER, Role.BUYER, Role.CREATOR, Role.OPERATOR}


def test_the_invariants_are_a_to_k() -> None:
    assert "".join(NAMES) == "ABCDEFGHIJK"
    assert set(NAMES) >= FREEZING | OF_EVERYBODY


def test_what_ends_by_time_is_what_the_clocks_end_whatever_the_standing() -> None:
    always = {clock.kind for clock in CLOCKS if clock.only is None}
    assert {kind for _, _, kind in ENDED_BY_TIME} == always - {"delivery_overdue", "acknowledged"}
    assert ("instant", "paid", "overdue_refund") in ENDED_BY_TIME
    assert ("quick", "paid", "delivery_overdue") not in ENDED_BY_TIME


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("state", [status for status in STATUSES if status not in FINAL])
def test_every_open_state_ends_by_time_or_by_a_person(mode: str, state: str) -> None:
    leaving = [row for row in TABLE.legal(state, mode) if row.target != state]
    if any((mode, state) == ended[:2] for ended in ENDED_BY_TIME):
        assert any(Role.CLOCK in row.who for row in leaving)
    else:
        reached = any(row.target == state for row in TABLE.rows if mode in row.modes)
        assert not reached or any(row.who & PEOPLE for row in leaving)
