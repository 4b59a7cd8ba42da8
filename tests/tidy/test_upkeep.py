"""`tend` is for upkeep: nothing that it is given comes, whatever it calls, to money or state."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
MOVING = {
    "service.store.escrows.move_escrows",
    "service.store.escrows.insert_escrows",
    "service.store.escrows.insert_contracts",
    "service.store.parts.write_parts",
    "service.store.parts.insert_signatures",
    "service.store.deadlines.turn_deadlines",
    "service.store.checks.mark_frozen",
    "service.store.ledger.post_transfers",
    "service.store.payments.insert_payments",
    "service.store.payments.move_payment",
}
"""What changes the state of an escrow, or moves money."""
CALLED = re.compile(r"(.+\.)?tend")


def modules() -> dict[str, ast.Module]:
    return {
        ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text())
        for folder in ("service", "workers", "bench")
        for path in sorted((ROOT / folder).rglob("*.py"))
    }


MODULES = modules()


def imported(tree: ast.Module) -> dict[str, str]:
    """What a name stands for elsewhere: `record` -> `service.commands.steps.record`."""
    return {
        alias.asname or alias.name: f"{node.module}.{alias.name}"
        for node in tree.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def mentioned(node: ast.AST, module: str) -> Iterator[str]:
    """The functions that stand within, by their full names: called or handed on."""
    known = imported(MODULES[module])
    for part in ast.walk(node):
        if isinstance(part, ast.Name):
            yield known.get(part.id, f"{module}.{part.id}")
        if isinstance(part, ast.Attribute) and isinstance(part.value, ast.Name):
            owner = part.value.id
            yield f"{known.get(owner, module)}.{part.attr}"


def graph() -> dict[str, set[str]]:
    """What a function mentions; also one that a variable holds, by `partial`."""
    found: dict[str, set[str]] = {}
    for module, tree in MODULES.items():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                name = f"{module}.{node.name}"
                found.setdefault(name, set()).update(mentioned(node, module))
            if isinstance(node, ast.Assign) and ast.unparse(node.value).startswith("partial("):
                name = f"{module}.{ast.unparse(node.targets[0])}"
                found.setdefault(name, set()).update(mentioned(node.value, module))
    return found


def reached(names: set[str], calls: dict[str, set[str]]) -> set[str]:
    seen, waiting = set[str](), set(names)
    while waiting:
        name = waiting.pop()
        seen.add(name)
        waiting |= calls.get(name, set()) - seen
    return seen


def upkeep() -> Iterator[tuple[str, set[str]]]:
    """Where `tend` is called, and what it is given: the lambda, or the function around it."""
    for module, tree in MODULES.items():
        for outer in ast.walk(tree):
            if isinstance(outer, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                for node in ast.walk(outer):
                    if isinstance(node, ast.Call) and CALLED.fullmatch(ast.unparse(node.func)):
                        given = [*node.args[1:], *(word.value for word in node.keywords)]
                        names = {name for one in given for name in mentioned(one, module)}
                        yield f"{module}:{node.lineno}", names


def test_the_calls_are_followed() -> None:
    calls = graph()
    for name in ("deliver", "pay", "cancel", "link_party"):
        assert "service.store.escrows.move_escrows" in reached(
            {f"service.commands.escrows.{name}"}, calls
        )
    assert reached({"service.commands.wallets.top_up"}, calls) & MOVING
    # Whoever registers a user may link the escrows that wait for it.
    assert reached({"service.commands.developers.enrol"}, calls) & MOVING
    assert set(calls) >= MOVING


def test_upkeep_moves_no_money_and_no_escrows_state() -> None:
    calls = graph()
    places = list(upkeep())
    assert len(places) > 8
    assert all(names & set(calls) for _, names in places), "something is given that is not followed"
    found = {where for where, names in places if reached(names, calls) & MOVING}
    assert found == set()
