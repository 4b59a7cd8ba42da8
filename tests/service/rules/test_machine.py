"""A table answers what is legal where, from its rows and from nothing else."""

import pytest

from service.rules.machine import (
    CLOCK,
    SYSTEM,
    Actor,
    ActorKind,
    Movement,
    Role,
    Step,
    Table,
)

M, N = frozenset({"m"}), frozenset({"n"})
BUYER = frozenset({Role.BUYER})


def row(name: str, source: str, target: str, modes: frozenset[str] = M | N) -> Step:
    return Step(name, BUYER, source, target, modes, Movement.NONE, (), "Something happens.")


TABLE = Table(
    "toy",
    [
        row("open", "-", "on"),
        row("end", "on", "left"),
        row("end", "on", "right"),
        row("leap", "on", "right", M),
    ],
    {"left", "right"},
)


def test_a_row_is_found_by_step_state_and_mode():
    assert TABLE.find("leap", "on", "m") is TABLE.rows[3]
    assert TABLE.find("leap", "on", "n") is None
    assert TABLE.find("leap", "left", "m") is None
    assert TABLE.find("fly", "on", "m") is None


def test_where_two_rows_lead_out_the_target_must_say_which():
    assert TABLE.find("end", "on", "m", "left") is TABLE.rows[1]
    assert TABLE.find("end", "on", "m", "right") is TABLE.rows[2]
    assert TABLE.find("end", "on", "m", "nowhere") is None
    with pytest.raises(ValueError, match="name the target"):
        TABLE.find("end", "on", "m")


def test_what_is_legal_stands_in_the_tables_order():
    assert [r.name for r in TABLE.legal("on", "m")] == ["end", "end", "leap"]
    assert [r.name for r in TABLE.legal("on", "n")] == ["end", "end"]
    assert list(TABLE.legal("left", "m")) == []


def test_a_step_knows_its_sources():
    assert TABLE.sources("end", "m") == {"on"}
    assert TABLE.sources("leap", "n") == frozenset()


def test_every_row_and_mode_is_a_transition():
    assert list(TABLE.transitions()) == [
        ("toy", "m", "open", "-", "on"),
        ("toy", "n", "open", "-", "on"),
        ("toy", "m", "end", "on", "left"),
        ("toy", "n", "end", "on", "left"),
        ("toy", "m", "end", "on", "right"),
        ("toy", "n", "end", "on", "right"),
        ("toy", "m", "leap", "on", "right"),
    ]


def test_the_log_names_the_developer_of_a_key_else_the_person_and_nobody_for_the_house():
    assert Actor(ActorKind.DEVELOPER, developer_id="d", user_id="u").id == "d"
    assert Actor(ActorKind.USER, user_id="u").id == "u"
    assert CLOCK.id is None
    assert SYSTEM.id is None
