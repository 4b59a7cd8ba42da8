"""The laws of SQL: only in `store/`, each constant fits the schema, one place begins."""

import ast
import importlib
import pkgutil
import re
from collections.abc import Iterator
from pathlib import Path

import asyncpg
import pytest

import service.store
from service.commands.perform import House

ROOT = Path(__file__).resolve().parents[2]
VERBS = ("SELECT", "INSERT", "UPDATE", "DELETE", "WITH")
SQL = re.compile(r"\b(SELECT\s.+\sFROM|INSERT INTO|UPDATE\s\w+\sSET|DELETE FROM)\b", re.S)
# The migration's own statements name objects that it has yet to make, or are not prepared.
UNPREPARED = {"schema.GRANTS", "schema.LOCK"}


def constants() -> Iterator[tuple[str, str]]:
    for module in pkgutil.iter_modules(service.store.__path__):
        loaded = importlib.import_module(f"service.store.{module.name}")
        for name, value in vars(loaded).items():
            label = f"{module.name}.{name}"
            if not name.isupper() or not isinstance(value, str) or label in UNPREPARED:
                continue
            if value.lstrip().startswith(VERBS):
                yield label, value


@pytest.mark.parametrize(("label", "statement"), list(constants()), ids=lambda text: text[:40])
async def test_every_statement_fits_the_schema(
    house: House, owner: asyncpg.Connection, label: str, statement: str
) -> None:
    prepared = await owner.prepare(statement)
    assert prepared.get_query() == statement, label


def sources(*folders: str) -> Iterator[tuple[Path, ast.Module]]:
    for folder in folders:
        for path in sorted((ROOT / folder).rglob("*.py")):
            yield path, ast.parse(path.read_text())


def test_sql_stands_in_the_store_only() -> None:
    found = [
        f"{path.relative_to(ROOT)}:{node.lineno}"
        for path, tree in sources("service", "workers")
        if path.parent.name != "store"
        for node in ast.walk(tree)
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and SQL.search(node.value)
    ]
    assert found == []


COMMANDS = {"payments.begin"}
"""Called the same and no transaction: the command that a payment begins with."""


def test_transactions_begin_in_perform_only() -> None:
    found = {
        str(path.relative_to(ROOT))
        for path, tree in sources("service", "workers")
        for node in ast.walk(tree)
        if isinstance(node, ast.Call)
        and isinstance(node.func, ast.Attribute)
        and node.func.attr in ("begin", "transaction")
        and ast.unparse(node.func) not in COMMANDS
    }
    assert found == {
        "service/commands/perform.py",
        "service/store/db.py",
        "service/store/schema.py",
    }
