"""Keeps children running: starts again what dies, takes all of them down with itself."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import click

from service.cli.processes import Child, end_leftover, read_command_line
from service.cli.var import Var, write_whole
from service.cli.watch import DRAINED_WITHIN_SECONDS, PARENT_PIPE

LOOK_EVERY_SECONDS = 0.1
FIRST_WAIT_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 10.0
SOUND_AFTER_SECONDS = 30.0  # who lived this long starts again without waiting


@dataclass
class Kept:
    """One child and how to start it; it waits longer after each early death."""

    name: str
    start: Callable[[], Child]
    child: Child
    port: int = 0
    started_at: float = field(default_factory=time.monotonic)
    wait_seconds: float = FIRST_WAIT_SECONDS
    due_at: float | None = None

    def look(self, now: float) -> None:
        """Start the child again when it is dead and its time has come."""
        if self.due_at is None and self.child.process.poll() is not None:
            self.child.release()
            if now - self.started_at > SOUND_AFTER_SECONDS:
                self.wait_seconds = FIRST_WAIT_SECONDS
            click.echo(
                f"amana: {self.name} {how_it_ended(self.child)}, starting it again", err=True
            )
            self.due_at = now + self.wait_seconds
            self.wait_seconds = min(self.wait_seconds * 2, LONGEST_WAIT_SECONDS)
        if self.due_at is not None and now >= self.due_at:
            self.restart()

    def restart(self) -> None:
        """Start the child; one that cannot start is tried again later."""
        self.started_at = time.monotonic()
        try:
            self.child = self.start()
            self.due_at = None
        except (click.ClickException, OSError) as failure:
            click.echo(f"amana: {self.name}: {failure}", err=True)
            self.due_at = time.monotonic() + self.wait_seconds
            self.wait_seconds = min(self.wait_seconds * 2, LONGEST_WAIT_SECONDS)


def how_it_ended(child: Child) -> str:
    """Return how a dead child ended, in words."""
    code = child.process.returncode
    return f"was killed by {signal.Signals(-code).name}" if code < 0 else f"ended with code {code}"


def supervise(kept: Sequence[Kept], record: Callable[[], None]) -> None:
    """Look after the children until an interrupt; `record` is told after each new start."""
    while True:
        before = [one.child.process.pid for one in kept]
        now = time.monotonic()
        for one in kept:
            one.look(now)
        if before != [one.child.process.pid for one in kept]:
            record()
        time.sleep(LOOK_EVERY_SECONDS)


@contextlib.contextmanager
def parent_pipe() -> Iterator[int]:
    """Give the end of a pipe that closes when this process is gone; children inherit it."""
    theirs, ours = os.pipe()
    try:
        yield theirs
    finally:
        os.close(ours)
        os.close(theirs)


def start_amana(verb: str, environ: Mapping[str, str], pipe: int, *arguments: str) -> Child:
    """Start `amana serve` or `amana work`, which share our output and watch our pipe."""
    process = subprocess.Popen(
        [find_amana(), verb, *arguments],
        stdin=subprocess.DEVNULL,
        env={**environ, PARENT_PIPE: str(pipe)},
        pass_fds=(pipe,),
        start_new_session=True,
    )
    return Child(process, None)


def find_amana() -> str:
    """Return the path of the installed command, beside the interpreter that runs us."""
    return str(Path(sys.executable).with_name("amana"))


def end_all(kept: Sequence[Kept]) -> None:
    """Ask all to drain at once, wait for all, kill who does not."""
    give_up_at = time.monotonic() + DRAINED_WITHIN_SECONDS
    for one in kept:
        one.child.ask(signal.SIGTERM)
    for one in kept:
        one.child.finish(max(0.0, give_up_at - time.monotonic()))


def record_processes(var: Var, kept: Sequence[Kept]) -> None:
    """Write down who runs, so that a later run can end what this one may leave."""
    found = [(one.child.process.pid, read_started(one.child)) for one in kept]
    write_whole(var.processes, json.dumps([[pid, line] for pid, line in found if line]))


def read_started(child: Child) -> str:
    """Return the command line of a child; empty when it is dead.

    A new program is under way a moment before the kernel shows its command line.
    """
    while not (line := read_command_line(child.process.pid)) and child.process.poll() is None:
        time.sleep(0.001)
    return line


def end_earlier(var: Var) -> None:
    """End the children that a killed run left, known by number and command line."""
    with contextlib.suppress(FileNotFoundError):
        left = json.loads(var.processes.read_text(encoding="utf-8"))
        alive = [pid for pid, line in left if read_command_line(pid) == line]
        for pid in alive:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGTERM)
        for pid in alive:
            end_leftover(pid, signal.SIGTERM, DRAINED_WITHIN_SECONDS)
        var.processes.unlink()
