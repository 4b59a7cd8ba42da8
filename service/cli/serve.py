"""`amana serve`: the ingress alone, as a platform runs it."""

from pathlib import Path

import click

from service.cli.home import settings_at
from service.cli.verb import data_dir_option, one_line
from service.cli.watch import end_with_parent
from service.ingress import main as ingress


@click.command("serve")
@data_dir_option
def serve(data_dir: Path) -> None:
    """Answer the API on PORT until SIGTERM."""
    end_with_parent()
    with one_line(), settings_at(data_dir, "amana serve") as settings:
        ingress.serve(settings)
