"""What every command has in common: --data-dir, --json, and failures that are one clear line."""

import asyncio
import contextlib
import functools
import json
import sys
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Concatenate, ParamSpec

import click
import structlog

from service.cli.home import settings_at
from service.rules.errors import GatewayFailure, Refused, Unavailable
from service.settings import Settings, SettingsError

P = ParamSpec("P")

data_dir_option = click.option(
    "--data-dir",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("var"),
    show_default=True,
    help="The data folder of `amana up`.",
)


@dataclass(frozen=True)
class Answer:
    """What a command has to say: to people, and to programs under --json."""

    text: str
    facts: object
    exit_code: int = 0


def verb(work: Callable[Concatenate[Settings, P], Awaitable[Answer]]) -> Callable[..., None]:
    """Make a command's body of an async function of the settings and the command's own options.

    It stands under `@click.command()` and the options:

        @click.command("create")
        @click.option("--email", required=True)
        @verb
        async def create(settings: Settings, email: str) -> Answer: ...
    """

    @data_dir_option
    @click.option("--json", "as_json", is_flag=True, help="Answer in JSON.")
    @functools.wraps(work)
    def run(data_dir: Path, as_json: bool, *args: P.args, **options: P.kwargs) -> None:  # noqa: FBT001 - click passes it by name
        # The answer alone goes to stdout. Looked up late: whoever calls may have replaced it.
        structlog.configure(logger_factory=lambda *_: structlog.PrintLogger(sys.stderr))
        with one_line(), settings_at(data_dir) as settings:
            answer = asyncio.run(as_coroutine(work(settings, *args, **options)))
        click.echo(json.dumps(answer.facts, default=str) if as_json else shown(answer.text))
        if answer.exit_code:
            raise click.exceptions.Exit(answer.exit_code)

    return run


def shown(text: str) -> str:
    """The text as a terminal may have it: what steers one, or turns its writing round, spelt out.

    Much of it was typed by people; it must not paint over the line above.
    """
    return "\n".join(inert(line) for line in text.split("\n"))


def inert(typed: str) -> str:
    """What somebody typed, on one line: what cannot be seen is spelt out, as in a Python string."""
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in typed)


async def as_coroutine(answer: Awaitable[Answer]) -> Answer:
    """Return what is awaited: `asyncio.run` takes nothing but a coroutine."""
    return await answer


@contextlib.contextmanager
def one_line() -> Iterator[None]:
    """Turn what can go wrong for an operator into one line and exit code 1."""
    try:
        yield
    except SettingsError as error:
        raise click.ClickException(str(error)) from error
    except Refused as refusal:
        raise click.ClickException(refusal.sentence()) from refusal
    except Unavailable as away:
        raise click.ClickException(f"the database is away: {away}") from away
    except GatewayFailure as failure:
        raise click.ClickException(str(failure)) from failure
    except OSError as error:  # a port that is taken, a folder that is not ours
        raise click.ClickException(str(error)) from error
