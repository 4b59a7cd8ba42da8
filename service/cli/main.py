"""The command `amana`: the list of its verbs, one file a noun."""

import click

from service.cli.migrate import migrate
from service.cli.serve import serve
from service.cli.up import up
from service.cli.work import work

COMMANDS: tuple[click.Command, ...] = (
    up,
    serve,
    work,
    migrate,
)


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
def main() -> None:
    """Amana: a self-hosted escrow service."""


for command in COMMANDS:
    main.add_command(command)
