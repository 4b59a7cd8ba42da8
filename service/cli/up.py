"""`amana up`: everything on one machine, on embedded servers unless URLs are given."""

import asyncio
import contextlib
import http.client
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from types import FrameType

import click

from service.cli import mailcatcher
from service.cli.home import fill, read_environ
from service.cli.house import open_house
from service.cli.migrate import migrate_at
from service.cli.ports import check_free
from service.cli.postgres import Postgres
from service.cli.redis_server import Redis
from service.cli.seed import seed
from service.cli.supervisor import (
    Kept,
    end_all,
    end_earlier,
    how_it_ended,
    parent_pipe,
    record_processes,
    start_amana,
    supervise,
)
from service.cli.terminal import alone_in_front
from service.cli.var import Var, locked, make_secret_key
from service.cli.verb import data_dir_option, one_line
from service.settings import Settings, load_settings

READY_WITHIN_SECONDS = 30.0
SELF = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104 - who listens everywhere is asked here
PATIENCE_SECONDS = 30.0  # for a command that has the folder's database started for itself


@click.command("up")
@click.option(
    "--port",
    type=click.IntRange(1, 65_000),
    default=8080,
    show_default=True,
    envvar="PORT",
    help="The API's port; the worker's and the mail's are the next two.",
)
@data_dir_option
@click.option("--workers", type=click.IntRange(1, 32), default=1, help="Worker processes.")
def up(port: int, data_dir: Path, workers: int) -> None:
    """Run everything here until Ctrl-C; the data stays in the data folder."""
    programs: list[Kept] = []
    with one_line(), alone_in_front(), interruptible(programs):
        environ = decide(read_environ(), port)
        with everything(environ, data_dir, port, workers, programs) as running:
            greet(running.environ, data_dir, running.key)
            supervise(running.everyone, running.record)


@dataclass(frozen=True)
class Running:
    """What was started: its environment, the sandbox's key, and whom to look after."""

    environ: Mapping[str, str]
    key: str | None
    everyone: Sequence[Kept]
    record: Callable[[], None]


@contextlib.contextmanager
def everything(
    environ: dict[str, str], data_dir: Path, port: int, workers: int, programs: list[Kept]
) -> Iterator[Running]:
    """Run the servers, the ingress and the workers for as long as the block, healthy at its start.

    `programs` is filled as they start. Raises SettingsError and click's failures.
    """
    load_settings(environ)
    var = Var.at(data_dir)
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(var, "amana up", PATIENCE_SECONDS))
        end_earlier(var)
        check_ports(environ, port, workers)
        make_secret_key(var)
        servers = start_servers(stack, var, environ, port)
        environ = fill(environ, var)
        with progress("schema"):
            key = asyncio.run(prepare(load_settings(environ), var))
        stack.callback(var.processes.unlink, missing_ok=True)
        stack.callback(end_all, programs)
        start_programs(programs, environ, stack.enter_context(parent_pipe()), port, workers)
        record = partial(record_processes, var, programs)
        record()
        for program in programs:
            wait_for(program, environ["AMANA_HOST"], "/readyz")
        yield Running(environ, key, [*servers, *programs], record)


def decide(environ: Mapping[str, str], port: int) -> dict[str, str]:
    """Return the environment with what `up` prefers where it says nothing."""
    decided = {
        "AMANA_HOST": "127.0.0.1",
        "AMANA_PUBLIC_URL": f"http://localhost:{port}",
        "LOG_FORMAT": "console",
        **environ,
        "PORT": str(port),
    }
    if decided.get("AMANA_ENV", "sandbox") == "sandbox":
        decided.setdefault("WEBHOOK_ALLOW_PRIVATE", "1")
    return decided


def worker_ports(port: int, workers: int) -> list[int]:
    """Return the workers' ports: the one after the API's; further ones after the mail's."""
    return [port + 1, *range(port + 3, port + 2 + workers)]


def check_ports(environ: Mapping[str, str], port: int, workers: int) -> None:
    """Refuse to start on a port that somebody listens on, and say which."""
    wanted = {port: "the API", **dict.fromkeys(worker_ports(port, workers), "a worker")}
    if "SMTP_URL" not in environ:
        wanted[port + 2] = "mail"
    for number, use in sorted(wanted.items()):
        check_free(number, use)


def start_servers(
    stack: contextlib.ExitStack, var: Var, environ: dict[str, str], port: int
) -> list[Kept]:
    """Start the embedded servers for which no URL is given; the stack stops them."""
    kept = []
    if "DATABASE_URL" not in environ:
        kept.append(keep(stack, "PostgreSQL", Postgres.of(var)))
    if "REDIS_URL" not in environ:
        kept.append(keep(stack, "Redis", Redis.of(var)))
    if "SMTP_URL" not in environ:
        environ["SMTP_URL"] = stack.enter_context(mailcatcher.catching(var.mail, port + 2))
    return kept


def keep(stack: contextlib.ExitStack, name: str, server: Postgres | Redis) -> Kept:
    """Start a server that is to be started again when it dies."""
    with progress(name):
        kept = Kept(name, server.start_again, server.start())
    stack.callback(lambda: server.stop(kept.child))
    return kept


async def prepare(settings: Settings, var: Var) -> str | None:
    """Bring the schema up to date; return the demo developer's key in a sandbox."""
    await migrate_at(settings)
    if not settings.is_sandbox:
        return None
    async with open_house(settings) as house:
        return await seed(house, var)


def start_programs(
    programs: list[Kept], environ: Mapping[str, str], pipe: int, port: int, workers: int
) -> None:
    """Start the ingress and the workers, each with its port."""
    numbered = [("serve", port), *(("work", number) for number in worker_ports(port, workers))]
    for verb, number in numbered:
        variable = "PORT" if verb == "serve" else "WORKER_PORT"
        start = partial(start_amana, verb, {**environ, variable: str(number)}, pipe)
        programs.append(Kept(f"amana {verb}", start, start(), port=number))


def wait_for(program: Kept, host: str, path: str) -> None:
    """Wait until a program says yes at `path`. One that ends instead has said why."""
    give_up_at = time.monotonic() + READY_WITHIN_SECONDS
    with progress(program.name):
        while (refusal := ask(host, program.port, path)) is not None:
            if program.child.process.poll() is not None:
                raise click.ClickException(f"{program.name} {how_it_ended(program.child)}")
            if time.monotonic() > give_up_at:
                raise click.ClickException(f"{program.name} on port {program.port}: {refusal}")
            time.sleep(0.05)


def is_healthy(host: str, port: int) -> bool:
    """Return whether a process answers its health path."""
    return ask(host, port, "/healthz") is None


def ask(host: str, port: int, path: str) -> str | None:
    """Return why a process does not say yes (200) at one of its health paths; None if it does."""
    line = http.client.HTTPConnection(SELF.get(host, host), port, timeout=5)
    try:
        line.request("GET", path)
        answer = line.getresponse()
        said = answer.read().decode(errors="replace")
    except (OSError, http.client.HTTPException) as failure:
        return str(failure)
    finally:
        line.close()
    return None if answer.status == http.client.OK else said


def greet(environ: Mapping[str, str], data_dir: Path, key: str | None) -> None:
    """Print where everything answers, and a line that works."""
    url = environ["AMANA_PUBLIC_URL"]
    click.echo(f"\nAmana runs; Ctrl-C stops it, the data stays in {data_dir}.\n")
    click.echo(f"  API       {url}/api/v1")
    if key is not None:
        click.echo(f"  Mailbox   {url}/mailbox")
        click.echo(f"  Key       {key}")
        click.echo(f"\n  curl -H 'X-API-Key: {key}' {url}/api/v1/me\n")


@contextlib.contextmanager
def progress(name: str) -> Iterator[None]:
    """Say on a terminal what is ready by now, and how long it took."""
    began_at = time.monotonic()
    yield
    if sys.stderr.isatty():
        click.echo(f"  {name} ready ({time.monotonic() - began_at:.1f} s)", err=True)


@contextlib.contextmanager
def interruptible(programs: list[Kept]) -> Iterator[None]:
    """End the block on the first signal; at a further Ctrl-C kill who still drains."""
    stopping = False

    def stop(number: int, _frame: FrameType | None) -> None:
        nonlocal stopping
        if not stopping:
            stopping = True
            raise KeyboardInterrupt
        if number == signal.SIGINT:  # a platform may well say SIGTERM twice
            for program in programs:
                program.child.process.kill()

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    if signal.getsignal(signal.SIGHUP) != signal.SIG_IGN:  # not under nohup
        signal.signal(signal.SIGHUP, stop)
    with contextlib.suppress(KeyboardInterrupt):
        yield
