"""The ground of a run: embedded servers, `amana serve` and `amana work` as they are really run.

Everything stands in a throw-away data folder and ends with the run.
"""

import asyncio
import contextlib
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from service.cli.embedded import Urls, servers
from service.cli.home import fill, read_environ
from service.cli.migrate import migrate_at
from service.cli.ports import find_free_port
from service.cli.supervisor import find_amana, parent_pipe
from service.cli.up import is_healthy
from service.cli.var import Var, make_secret_key
from service.cli.watch import PARENT_PIPE
from service.settings import Settings, load_settings

HOST = "127.0.0.1"
READY_WITHIN_SECONDS = 30.0
DRAINED_WITHIN_SECONDS = 30.0


@dataclass
class Process:
    """One process of ours under measure."""

    process: "subprocess.Popen[bytes]"
    port: int

    def peak_mib(self) -> float:
        """The most memory that it ever held (resident, MiB)."""
        return peak_mib(self.process.pid)

    def end(self) -> None:
        """Let it drain, then see it gone."""
        self.process.terminate()
        try:
            self.process.wait(DRAINED_WITHIN_SECONDS)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()


@dataclass
class Ground:
    """The servers of a run, and the environment that our processes are started with."""

    folder: Path
    urls: Urls
    environ: Mapping[str, str]
    pipe: int
    peaks_mib: dict[str, float] = field(default_factory=dict)

    @property
    def settings(self) -> Settings:
        return load_settings(self.environ)

    @contextlib.contextmanager
    def running(self, verb: str, **changed: str) -> Iterator[Process]:
        """`amana serve` or `amana work` for as long as the block; notes how large it grew."""
        port = find_free_port()
        variable = "PORT" if verb == "serve" else "WORKER_PORT"
        started = Process(self._start(verb, {**changed, variable: str(port)}), port)
        try:
            wait_healthy(started)
            yield started
            grown = max(self.peaks_mib.get(verb, 0.0), started.peak_mib())
            self.peaks_mib[verb] = grown
        finally:
            started.end()

    def _start(self, verb: str, changed: Mapping[str, str]) -> "subprocess.Popen[bytes]":
        """As `amana up` starts it, but for its log, which goes to a file."""
        with (self.folder / f"{verb}.log").open("ab") as log:
            return subprocess.Popen(
                [find_amana(), verb],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                env={
                    "STORAGE_URL": f"file://{self.folder}/files",
                    **self.environ,
                    **changed,
                    PARENT_PIPE: str(self.pipe),
                },
                pass_fds=(self.pipe,),
                start_new_session=True,
            )

    async def owner(self) -> "asyncpg.Connection[asyncpg.Record]":
        """A connection as the database's owner: for floors, and to arrange what is measured."""
        return await asyncpg.connect(self.urls.owner())


@contextlib.contextmanager
def prepared() -> Iterator[Ground]:
    """Servers with a migrated database, in a folder that goes when the block ends."""
    with contextlib.ExitStack() as stack:
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="amana-bench-")))
        var = Var.at(folder / "var")
        urls = stack.enter_context(servers(var.folder))
        make_secret_key(var)
        inherited = {
            name: value
            for name, value in read_environ().items()
            if name.lower() not in Settings.model_fields
        }
        environ = fill(
            {
                **inherited,
                "DATABASE_URL": urls.application(),
                "DATABASE_ADMIN_URL": urls.owner(),
                "SMTP_URL": urls.smtp,
                "AMANA_HOST": HOST,
                "RATE_LIMIT_PER_MINUTE": "1000000",
                "MAX_WEBHOOKS_PER_DEVELOPER": "16",
                "WEBHOOK_ALLOW_PRIVATE": "1",
                "LOG_FORMAT": "json",
            },
            var,
        )
        asyncio.run(migrate_at(load_settings(environ)))
        yield Ground(folder, urls, environ, stack.enter_context(parent_pipe()))


def wait_healthy(started: Process) -> None:
    """Wait until the process answers."""
    give_up_at = time.monotonic() + READY_WITHIN_SECONDS
    while not is_healthy(HOST, started.port):
        if started.process.poll() is not None or time.monotonic() > give_up_at:
            raise RuntimeError(f"the process on port {started.port} does not answer")
        time.sleep(0.02)


async def wait_listening(port: int) -> None:
    """Wait until somebody takes connections on the port."""
    give_up_at = time.monotonic() + READY_WITHIN_SECONDS
    while True:
        try:
            _, line = await asyncio.open_connection(HOST, port)
        except OSError:
            if time.monotonic() > give_up_at:
                raise
            await asyncio.sleep(0.02)
        else:
            line.close()
            return


def peak_mib(pid: int) -> float:
    """The peak of a process' resident memory; its present size where the system keeps no peak."""
    with contextlib.suppress(FileNotFoundError):
        for line in Path(f"/proc/{pid}/status").read_text(encoding="ascii").splitlines():
            if line.startswith("VmHWM:"):
                return int(line.split()[1]) / 1024
    shown = subprocess.run(
        ["ps", "-o", "rss=", "-p", str(pid)], capture_output=True, text=True, check=True
    )
    return int(shown.stdout) / 1024
