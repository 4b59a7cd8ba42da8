"""`amana work`: one worker alone, as a platform runs it."""

from pathlib import Path

import click

from service.cli.home import settings_at
from service.cli.verb import data_dir_option, one_line
from service.cli.watch import end_with_parent
from workers import main as workers


@click.command("work")
@data_dir_option
def work(data_dir: Path) -> None:
    """Deliver webhooks and mails and fire deadlines until SIGTERM."""
    end_with_parent()
    with one_line(), settings_at(data_dir, "amana work") as settings:
        workers.work(settings)
