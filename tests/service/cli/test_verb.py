"""What every command has in common: two options, JSON on demand, failures in one line."""

import json

import click
import pytest
from click.testing import CliRunner, Result

from service.cli.verb import Answer, inert, verb
from service.rules.errors import GatewayFailure, Unavailable, UserNotFound
from service.settings import Settings

FAILURES = {
    "refused": UserNotFound(email="a@example.com"),
    "away": Unavailable("no route"),
    "outside": GatewayFailure("the bank is closed", permanent=False),
}


@click.command("greet")
@click.option("--name", required=True)
@verb
async def greet(settings: Settings, name: str) -> Answer:
    """Say hello."""
    if name in FAILURES:
        raise FAILURES[name]
    return Answer(f"hello {name}", {"name": name}, exit_code=1 if name == "breach" else 0)


def run(*arguments: str, **environ: str) -> Result:
    environ.setdefault("DATABASE_URL", "postgresql://amana_app@/amana?host=/nowhere")
    return CliRunner().invoke(greet, arguments, env=environ)


def test_an_answer_is_text_or_json() -> None:
    assert run("--name", "Amel").output == "hello Amel\n"
    assert json.loads(run("--name", "Amel", "--json").output) == {"name": "Amel"}


def test_an_answer_may_fail_and_still_be_said() -> None:
    failed = run("--name", "breach")
    assert (failed.output, failed.exit_code) == ("hello breach\n", 1)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("refused", UserNotFound(email="a@example.com").sentence()),
        ("away", "the database is away: no route"),
        ("outside", "the bank is closed"),
    ],
)
def test_what_an_operator_can_mend_is_one_line(name: str, said: str) -> None:
    failed = run("--name", name)
    assert (failed.stderr, failed.exit_code) == (f"Error: {said}\n", 1)


def test_a_wrong_setting_is_one_line() -> None:
    failed = run("--name", "Amel", PLATFORM_FEE_BPS="ten")
    assert failed.exit_code == 1
    assert failed.stderr == "Error: PLATFORM_FEE_BPS must be a whole number\n"


def test_the_help_is_the_docstring_with_the_common_options() -> None:
    shown = run("--help").output
    assert "Say hello." in shown
    assert "--data-dir" in shown
    assert "--json" in shown


def test_what_steers_a_terminal_is_spelt_out() -> None:
    result = run("--name", "a\x1b[1A\u202eb\rc \u0633\u0627\u0644\u0645")
    assert result.stdout == "hello a\\x1b[1A\\u202eb\\rc \u0633\u0627\u0644\u0645\n"


def test_what_was_typed_over_several_lines_stays_on_its_own() -> None:
    assert inert("one\nbuyer: two\t") == "one\\nbuyer: two\\t"
