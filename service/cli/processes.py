"""Child processes that cannot outlive us, and processes of earlier runs, known by their number."""

import contextlib
import os
import shutil
import signal
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

LOG_BYTES = 10_000_000  # a log longer than this is begun anew at the next start


@dataclass(frozen=True)
class Child:
    """A process that we started; `guard` ends it where the kernel would not, when we are gone."""

    process: "subprocess.Popen[bytes]"
    guard: "subprocess.Popen[bytes] | None"

    def end(self, by: signal.Signals, patience_seconds: float) -> None:
        """Ask the process to end; kill it when it has not after the patience."""
        self.ask(by)
        self.finish(patience_seconds)

    def ask(self, by: signal.Signals) -> None:
        """Send the process a signal, if it is still there."""
        with contextlib.suppress(ProcessLookupError):
            self.process.send_signal(by)

    def finish(self, patience_seconds: float) -> None:
        """Wait for the process to end; kill it when it has not after the patience."""
        try:
            self.process.wait(patience_seconds)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self.release()

    def release(self) -> None:
        """Let the guard of an ended process go."""
        if self.guard is not None:
            self.guard.kill()
            self.guard.communicate()


def spawn(
    argv: Sequence[str],
    *,
    log: Path,
    dies_by: signal.Signals,
    prefix: Sequence[str] = (),
    environ: Mapping[str, str] | None = None,
) -> Child:
    """Start a program that gets the signal `dies_by` when we die, even by `kill -9`.

    It stands in a session of its own, so that Ctrl-C reaches us alone and we end things in order.
    `prefix` is a command that runs the rest as somebody else. Call it from the main thread: the
    kernel watches the thread that started the program.
    """
    setpriv = shutil.which("setpriv")
    watched = [setpriv, "--pdeathsig", dies_by.name.removeprefix("SIG")] if setpriv else []
    with open_log(log) as descriptor:
        process = subprocess.Popen(
            [*prefix, *watched, *argv],
            stdin=subprocess.DEVNULL,
            stdout=descriptor,
            stderr=subprocess.STDOUT,
            env=environ,
            umask=0o077,
            start_new_session=True,
        )
    return Child(process, None if setpriv else guard(process.pid, dies_by))


def guard(pid: int, dies_by: signal.Signals) -> "subprocess.Popen[bytes]":
    """Start a shell that waits for our end of a pipe to close, and then ends the process."""
    script = f"read -r _; kill -{dies_by.name.removeprefix('SIG')} {pid}"
    return subprocess.Popen(
        ["sh", "-c", script],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def open_log(log: Path) -> BinaryIO:
    """Open a log of the owner's alone for appending; a long one becomes `.old` first."""
    with contextlib.suppress(FileNotFoundError):
        if log.stat().st_size > LOG_BYTES:
            log.replace(log.with_suffix(".old"))
    log.touch(0o600)
    return log.open("ab")


def read_command_line(pid: int) -> str:
    """Return the command line of a process; empty when it is gone, or a zombie."""
    proc = Path("/proc")
    if (proc / "self").exists():
        try:
            return (proc / str(pid) / "cmdline").read_bytes().replace(b"\0", b" ").decode().strip()
        except OSError:
            return ""
    shown = subprocess.run(
        ["ps", "-ww", "-o", "command=", "-p", str(pid)], capture_output=True, text=True, check=False
    )
    return "" if "<defunct>" in shown.stdout else shown.stdout.strip()


def read_pid(path: Path) -> int | None:
    """Return the process number in the first line of a pid file; None when there is none."""
    try:
        return int(path.read_text(encoding="utf-8").split("\n", 1)[0])
    except (OSError, ValueError):
        return None


def end_leftover(pid: int, by: signal.Signals, patience_seconds: float) -> None:
    """End a process that is not our child: ask, wait, then kill. The caller knows whose it is."""
    started_as = read_command_line(pid)
    if not started_as:  # gone already
        return
    for step in (by, signal.SIGKILL):
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, step)
        give_up_at = time.monotonic() + patience_seconds
        while read_command_line(pid) == started_as and time.monotonic() < give_up_at:
            time.sleep(0.02)
        if read_command_line(pid) != started_as:
            return
