"""`amana serve`: the ingress alone, as a platform runs it; in several processes on one port.

`--processes N` makes this process the parent: it starts N children that share the port and a folder
where they count, starts again who dies, and drains all of them on SIGTERM.
"""

import contextlib
import os
import tempfile
from functools import partial
from pathlib import Path

import click

from service.cli.home import read_environ, settings_at
from service.cli.ports import check_free
from service.cli.supervisor import Kept, end_all, parent_pipe, start_amana, supervise
from service.cli.up import interruptible, wait_for
from service.cli.verb import data_dir_option, one_line
from service.cli.watch import end_with_parent
from service.ingress import main as ingress
from service.settings import Settings

# prometheus-client reads this name when it is imported; whoever finds it set shares the port too.
COUNTS = "PROMETHEUS_MULTIPROC_DIR"


@click.command("serve")
@click.option(
    "--processes",
    type=click.IntRange(1, 64),
    default=1,
    show_default=True,
    help="So many processes share the port.",
)
@data_dir_option
def serve(processes: int, data_dir: Path) -> None:
    """Answer the API on PORT until SIGTERM."""
    end_with_parent()
    with one_line(), settings_at(data_dir, "amana serve") as settings:
        counts = os.environ.get(COUNTS)
        if processes == 1:
            ingress.serve(settings, Path(counts) if counts else None)
        else:
            serve_together(settings, data_dir, processes)


def serve_together(settings: Settings, data_dir: Path, processes: int) -> None:
    """Keep so many processes answering on the port until SIGTERM; the first must come up alone."""
    settings.require("DATABASE_URL", "REDIS_URL", "AMANA_SECRET_KEY")
    check_free(settings.port, "the API")
    children: list[Kept] = []
    with interruptible(children), contextlib.ExitStack() as stack:
        counts = stack.enter_context(tempfile.TemporaryDirectory(prefix="amana-counts-"))
        pipe = stack.enter_context(parent_pipe())
        stack.callback(end_all, children)
        environ = {**read_environ(), COUNTS: counts}
        start = partial(start_amana, "serve", environ, pipe, "--data-dir", str(data_dir))
        for number in range(1, processes + 1):
            child = Kept(f"amana serve ({number})", start, start(), port=settings.port)
            children.append(child)
            if number == 1:
                wait_for(child, settings.amana_host, "/healthz")
        supervise(children, record=lambda: None)
