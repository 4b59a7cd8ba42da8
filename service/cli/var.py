"""The data folder (`--data-dir`, by default `var`): what stands where in it, and whose it is.

Law: whoever starts a server in the folder holds its lock until that server is gone. There are
secrets, links and e-mails in it: whatever is made in it is for its owner alone.
"""

import contextlib
import fcntl
import os
import secrets
import stat
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import click

SOCKET_FOLDER_BYTES = 80  # + "/.s.PGSQL.5432" stays under the 104 bytes macOS allows a socket


# Those who hold the folder for long: their servers may be used meanwhile.
STAYING = ("amana up", "amana serve", "amana work", "servers")


class InUse(click.ClickException):
    """Somebody else holds the data folder."""

    def __init__(self, var: "Var", holder: str) -> None:
        super().__init__(f"{var.folder} is in use by {holder or 'another process'}")
        self.stays = holder.startswith(STAYING)


@dataclass(frozen=True)
class Var:
    """The paths in one data folder; made on first use."""

    folder: Path

    @staticmethod
    def at(folder: Path) -> "Var":
        """Return the folder under its absolute path, made with its `log` if it is new."""
        var = Var(folder.absolute())
        try:
            var.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            make_private(var.log)
        except OSError as error:
            raise click.ClickException(f"cannot make {folder}: {error.strerror}") from error
        return var

    @property
    def cluster(self) -> Path:
        return self.folder / "postgres"

    @property
    def redis(self) -> Path:
        return self.folder / "redis"

    @property
    def mail(self) -> Path:
        return self.folder / "mail"

    @property
    def files(self) -> Path:
        return self.folder / "files"

    @property
    def log(self) -> Path:
        return self.folder / "log"

    @property
    def lock(self) -> Path:
        return self.folder / "lock"

    @property
    def secret_key(self) -> Path:
        return self.folder / "secret.key"

    @property
    def processes(self) -> Path:
        return self.folder / "processes.json"

    @property
    def sandbox_key(self) -> Path:
        return self.folder / "sandbox.key"

    @property
    def sockets(self) -> Path:
        """The folder of the sockets, as recorded by whoever ran servers here last."""
        try:
            return Path((self.folder / "sockets").read_text(encoding="utf-8").strip())
        except FileNotFoundError:
            raise click.ClickException(f"no servers were run in {self.folder}") from None

    def has_sockets(self) -> bool:
        """Return whether servers were run here."""
        return (self.folder / "sockets").exists()


def make_private(folder: Path) -> None:
    """Make a folder of ours that nobody else may enter; one that is there becomes so."""
    folder.mkdir(mode=0o700, exist_ok=True)
    folder.chmod(0o700)


def prepare_sockets(var: Var) -> None:
    """Have a folder for the sockets: ours alone (0700), its path short and recorded."""
    if not (var.has_sockets() and is_ours_alone(var.sockets)):
        write_whole(var.folder / "sockets", f"{make_short_folder()}\n")


def is_ours_alone(folder: Path) -> bool:
    """Return whether this is a real folder of this user that nobody else may enter."""
    try:
        found = folder.lstat()
    except OSError:
        return False
    return (
        stat.S_ISDIR(found.st_mode)
        and found.st_uid == os.geteuid()
        and stat.S_IMODE(found.st_mode) == 0o700
    )


def make_short_folder() -> Path:
    """Make a new 0700 folder: in the temporary folder, or in /tmp where that is long."""
    folder = Path(tempfile.mkdtemp(prefix="amana-"))
    if len(os.fsencode(folder)) <= SOCKET_FOLDER_BYTES:
        return folder
    folder.rmdir()
    return Path(tempfile.mkdtemp(prefix="amana-", dir="/tmp"))


def write_whole(path: Path, text: str, mode: int = 0o600) -> None:
    """Write a file so that a reader sees the old text or the new one, never a part."""
    beside = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(beside, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(text)
    beside.replace(path)


def make_secret_key(var: Var) -> None:
    """Make the deployment's secret key, once, readable by its owner only."""
    if not var.secret_key.exists():
        write_whole(var.secret_key, f"{secrets.token_urlsafe(32)}\n")


@contextlib.contextmanager
def locked(var: Var, holder: str, patience_seconds: float = 0.0) -> Iterator[None]:
    """Hold the data folder; `holder` is what others are told.

    Raises InUse after the patience, or at once where the holder is of those who stay.
    """
    give_up_at = time.monotonic() + patience_seconds
    var.lock.touch(0o600)
    with var.lock.open("a+", encoding="utf-8") as file:
        while not take(file.fileno()):
            refusal = InUse(var, read_holder(var))
            if refusal.stays or time.monotonic() >= give_up_at:
                raise refusal
            time.sleep(0.05)
        file.truncate(0)
        file.write(f"{holder} (pid {os.getpid()})")
        file.flush()
        prepare_sockets(var)
        try:
            yield
        finally:
            with contextlib.suppress(OSError):  # not empty: a server that would not stop
                var.sockets.rmdir()
            file.truncate(0)


def take(descriptor: int) -> bool:
    """Take the lock if it is free."""
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def read_holder(var: Var) -> str:
    """Return what the holder of the lock wrote into it; empty when it has not yet."""
    return var.lock.read_text(encoding="utf-8").strip()
