"""What the tables declare can be told: no step that somebody can take ends in a missing body."""

import ast
from pathlib import Path

from service.rules.escrow import CLOCKS, MODES, STEP_OF_KIND, STEPS, TABLE
from service.rules.events import CATALOGUE
from service.wire.events import DATA
from tests.makers import PATHS
from tests.service.commands.test_races import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
NAMES = {row.name for row in STEPS}
GATED = {"standard": {"paid", "delivered", "completed"}, "quick_proof": {"delivered", "completed"}}
"""What is behind a gate that nobody can open yet: the signatures, the accepted proof."""
ASKING = ("step", "choose", "TABLE.find")


def open_steps() -> set[str]:
    """The steps that a command or a clock takes today: those that a command asks the table for."""
    said = {
        argument.value
        for path in (ROOT / "service/commands").glob("*.py")
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.Call) and ast.unparse(node.func) in ASKING
        for argument in node.args
        if isinstance(argument, ast.Constant) and argument.value in NAMES
    }
    return said | set(STEP_OF_KIND.values())


def test_every_event_of_an_open_step_has_a_builder() -> None:
    taken = open_steps()
    assert taken > {"create", "accept_pay", "deliver", "cancel", "complete", "link_party"}
    missing = {
        (row.name, event)
        for row in STEPS
        if row.name in taken
        for event in row.events
        if event not in DATA
    }
    assert missing == set()


def test_every_builder_is_of_an_event_that_a_row_declares() -> None:
    assert set(DATA) <= CATALOGUE


def test_every_open_step_of_a_person_is_raced() -> None:
    told_elsewhere = {"create", "link_party", "freeze", "unfreeze"}
    of_the_clock = {clock.step for clock in CLOCKS} - set(COMMANDS)
    assert open_steps() - told_elsewhere - of_the_clock == set(COMMANDS)


def test_the_makers_reach_every_state_that_the_open_steps_lead_to() -> None:
    taken = open_steps() - {"freeze", "unfreeze"}
    for mode in MODES:
        reached, before = {"-"}, set[str]()
        while reached != before:
            before = set(reached)
            reached |= {
                row.target
                for state in before
                for row in TABLE.legal(state, mode)
                if row.name in taken
            }
        assert set(PATHS[mode]) >= reached - {"-"} - GATED.get(mode, set()), mode
