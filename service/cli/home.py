"""What the data folder decides where the environment does not, for `up` and every other command."""

import contextlib
import os
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import click

from service.cli.embedded import running
from service.cli.postgres import APPLICATION, OWNER, Postgres, is_ready, make_url
from service.cli.redis_server import Redis
from service.cli.var import InUse, Var, locked
from service.settings import Settings, load_settings

ATTACH_WITHIN_SECONDS = 30.0


def read_environ() -> dict[str, str]:
    """Return the process's environment without its empty variables, which count as unset."""
    return {name: value for name, value in os.environ.items() if value.strip()}


def fill(environ: Mapping[str, str], var: Var) -> dict[str, str]:
    """Return the environment with what the folder knows in place of what is unset."""
    found = {"STORAGE_URL": f"file://{var.files}"}
    if "DATABASE_URL" not in environ:
        sockets = var.sockets
        found["DATABASE_URL"] = make_url(sockets, APPLICATION)
        found["DATABASE_ADMIN_URL"] = make_url(sockets, OWNER)
    if var.has_sockets():
        found["REDIS_URL"] = Redis.of(var).url
    if var.secret_key.exists():
        found["AMANA_SECRET_KEY"] = var.secret_key.read_text(encoding="utf-8").strip()
    return {**found, **environ}


@contextlib.contextmanager
def settings_at(folder: Path, holder: str = "a command") -> Iterator[Settings]:
    """Give the settings of a deployment: DATABASE_URL's, else the one in the data folder.

    The embedded servers of a running `amana up` are used; stopped ones are started for as long as
    the block. Raises InUse, SettingsError and click's failures.
    """
    environ, var = read_environ(), Var(folder.absolute())
    with contextlib.ExitStack() as stack:
        if "DATABASE_URL" not in environ:
            if not var.cluster.exists():
                raise click.ClickException(
                    f"there is no database in {folder}: run `amana up` first, or set DATABASE_URL"
                )
            stack.enter_context(servers_at(var, holder))
        yield load_settings(fill(environ, var))


@contextlib.contextmanager
def servers_at(var: Var, holder: str) -> Iterator[None]:
    """Have the embedded servers of a folder run for as long as the block."""
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(locked(var, holder, patience_seconds=ATTACH_WITHIN_SECONDS))
        except InUse as held:
            if not held.stays:
                raise
            wait_ready(var)
        else:
            stack.enter_context(running(Postgres.of(var)))
            stack.enter_context(running(Redis.of(var)))
        yield


def wait_ready(var: Var) -> None:
    """Wait until the database that somebody else runs takes connections."""
    give_up_at = time.monotonic() + ATTACH_WITHIN_SECONDS
    while not is_ready(var.cluster):
        if time.monotonic() > give_up_at:
            raise click.ClickException(f"the database in {var.folder} does not get ready")
        time.sleep(0.05)
