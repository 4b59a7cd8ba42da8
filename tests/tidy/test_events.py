"""What the tables declare can be told: no step that somebody can take ends in a missing body."""

import ast
from collections.abc import Iterator
from pathlib import Path

from service.rules.clocks import CLOCKS
from service.rules.escrow import MODES, STEPS, TABLE
from service.rules.events import CATALOGUE
from service.wire.events import DATA
from tests.makers import PATHS
from tests.service.commands.test_races import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
NAMES = {row.name for row in STEPS}
ASKING = {"step", "choose", "TABLE.find"}
OF_THE_FAMILY = {"service.rules.escrow", "service.commands.steps"}


def modules() -> Iterator[ast.Module]:
    """Those of the commands that ask this family's table, by whichever of the three."""
    for path in (ROOT / "service/commands").glob("*.py"):
        tree = ast.parse(path.read_text())
        imports = {
            alias.name
            for node in tree.body
            if isinstance(node, ast.ImportFrom) and node.module in OF_THE_FAMILY
            for alias in node.names
        }
        if imports & {"step", "choose", "TABLE"}:
            yield tree


def calls(tree: ast.AST, asking: set[str]) -> Iterator[ast.Call]:
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and ast.unparse(node.func) in asking:
            yield node


def handing_on(tree: ast.Module) -> set[str]:
    """Who asks the table: by name, or by a function that hands its own parameter on to it."""
    asking = set[str](), set(ASKING)
    while asking[0] != asking[1]:
        found = {
            node.name
            for node in ast.walk(tree)
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
            for call in calls(node, asking[1])
            for argument in call.args
            if isinstance(argument, ast.Name)
            and argument.id in {parameter.arg for parameter in node.args.args if is_text(parameter)}
        }
        asking = asking[1], asking[1] | found
    return asking[1]


def is_text(parameter: ast.arg) -> bool:
    return parameter.annotation is not None and ast.unparse(parameter.annotation) == "str"


def commanded() -> set[str]:
    """The steps that a command asks the table for."""
    return {
        argument.value
        for tree in modules()
        for call in calls(tree, handing_on(tree))
        for argument in call.args
        if isinstance(argument, ast.Constant) and argument.value in NAMES
    }


def open_steps() -> set[str]:
    """The steps that are taken today: by a command, or by a clock."""
    return commanded() | {clock.step for clock in CLOCKS}


def test_the_open_steps_are_found_in_the_commands() -> None:
    """Each in its own way: by `step`, by `choose`, by the table, by a function in between."""
    found = commanded()
    assert found > {"create", "accept_pay", "deliver", "cancel", "complete", "link_party"}
    assert found > {"accept_cancellation", "reject_cancellation", "cancel_escrow"}
    assert found > {"update", "sign_contract", "dispute", "withdraw_dispute", "resolve_dispute"}
    assert found > {"freeze", "unfreeze", "reject_delivery", "request_cancellation"}
    assert found > {"approve_deposit", "reject_deposit"}


def test_every_event_of_an_open_step_has_a_builder() -> None:
    taken = open_steps()
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
    told_elsewhere |= {"approve_deposit", "reject_deposit"}  # tests/service/commands/test_payments
    told_elsewhere |= {"escalate_proof"}  # what a correction too many becomes: test_proofs
    assert commanded() - told_elsewhere == set(COMMANDS)


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
        assert set(PATHS[mode]) >= reached - {"-"}, mode
