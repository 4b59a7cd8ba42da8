"""Children are started again when they die, and go when their parent is gone."""

import signal
import subprocess
import sys
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path

import pytest

from service.cli.processes import Child, end_leftover, read_command_line
from service.cli.supervisor import (
    LONGEST_WAIT_SECONDS,
    SOUND_AFTER_SECONDS,
    Kept,
    end_all,
    end_earlier,
    record_processes,
)
from service.cli.var import Var

PARENT = """
import os, subprocess, sys, time
theirs, ours = os.pipe()
child = subprocess.Popen(
    [sys.executable, "-c", sys.argv[1]], pass_fds=(theirs,), start_new_session=True,
    env={**os.environ, "AMANA_PARENT_PIPE": str(theirs)}, stdout=subprocess.PIPE, text=True,
)
child.stdout.readline()
print(child.pid, flush=True)
time.sleep(600)
"""
CHILD = """
import pathlib, signal, sys, time
from service.cli.watch import end_with_parent
def drain(number, frame):
    pathlib.Path({said!r}).write_text("drained")
    sys.exit()
signal.signal(signal.SIGTERM, drain)
end_with_parent()
print("ready", flush=True)
time.sleep(600)
"""

DEAF = """
import signal, time
signal.signal(signal.SIGTERM, lambda *_: print("heard", flush=True))
print("ready", flush=True)
time.sleep(600)
"""


def sleeper(argument: str = "600") -> Child:
    return Child(subprocess.Popen(["sleep", argument]), None)


def wait_until(happened: Callable[[], bool], patience_seconds: float = 10.0) -> bool:
    give_up_at = time.monotonic() + patience_seconds
    while not happened() and time.monotonic() < give_up_at:
        time.sleep(0.02)
    return happened()


def test_a_child_drains_when_its_parent_is_killed(tmp_path: Path) -> None:
    said = tmp_path / "said"
    with subprocess.Popen(
        [sys.executable, "-c", PARENT, CHILD.format(said=str(said))],
        stdout=subprocess.PIPE,
        text=True,
    ) as parent:
        assert parent.stdout is not None
        child = int(parent.stdout.readline())
        parent.kill()
    assert wait_until(lambda: not read_command_line(child))
    assert said.read_text() == "drained"


def test_a_dead_child_is_started_again_after_a_wait(capsys: pytest.CaptureFixture[str]) -> None:
    kept = Kept("sleep", sleeper, sleeper())
    first = kept.child.process
    first.kill()
    first.wait()
    now = time.monotonic()
    kept.look(now)
    assert kept.child.process is first
    kept.look(now + 0.3)
    assert kept.child.process.poll() is None
    assert "sleep was killed by SIGKILL, starting it again" in capsys.readouterr().err
    end_all([kept])
    assert kept.child.process.returncode == -signal.SIGTERM


def test_all_that_drain_share_one_patience(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("service.cli.supervisor.DRAINED_WITHIN_SECONDS", 1.0)
    deaf = [sys.executable, "-c", DEAF]
    kept = []
    for _ in range(3):
        process = subprocess.Popen(deaf, stdout=subprocess.PIPE)
        assert process.stdout is not None
        process.stdout.readline()
        kept.append(Kept("deaf", sleeper, Child(process, None)))
    began_at = time.monotonic()
    end_all(kept)
    assert 1 <= time.monotonic() - began_at < 2.5
    for one in kept:
        out, _ = one.child.process.communicate()
        assert (one.child.process.returncode, out) == (-signal.SIGKILL, b"heard\n")


def test_the_wait_grows_with_each_early_death_up_to_its_bound() -> None:
    kept, now, waits = Kept("sleep", partial(sleeper, "0"), sleeper("0")), time.monotonic(), []
    for _ in range(9):
        kept.child.process.wait()
        kept.look(now)
        assert kept.due_at is not None
        waits.append(kept.due_at - now)
        now = kept.due_at
        kept.look(now)
        kept.started_at = now
    assert waits[:3] == pytest.approx([0.2, 0.4, 0.8])
    assert waits[-1] == pytest.approx(LONGEST_WAIT_SECONDS)
    kept.child.process.wait()
    kept.look(now + SOUND_AFTER_SECONDS + 1)
    assert kept.due_at == pytest.approx(now + SOUND_AFTER_SECONDS + 1.2)


def test_a_child_that_cannot_start_is_tried_again(capsys: pytest.CaptureFixture[str]) -> None:
    def fail() -> Child:
        raise OSError("no such program")

    kept = Kept("it", fail, sleeper("0"))
    kept.child.process.wait()
    now = time.monotonic()
    kept.look(now)
    kept.look(now + 0.3)
    assert kept.due_at is not None
    assert "it: no such program" in capsys.readouterr().err


def test_what_a_killed_run_left_is_ended_and_strangers_are_spared(tmp_path: Path) -> None:
    var = Var.at(tmp_path)
    left, stranger = Kept("left", sleeper, sleeper()), Kept("stranger", sleeper, sleeper("601"))
    record_processes(var, [left, stranger])
    recorded = var.processes.read_text()
    var.processes.write_text(recorded.replace("sleep 601", "amana serve"))
    end_earlier(var)
    assert left.child.process.wait(5) == -signal.SIGTERM
    assert stranger.child.process.poll() is None
    assert not var.processes.exists()
    end_all([stranger])


def test_who_is_gone_already_is_not_waited_for() -> None:
    gone = sleeper("0")
    gone.process.wait()
    began_at = time.monotonic()
    end_leftover(gone.process.pid, signal.SIGTERM, 5)
    assert time.monotonic() - began_at < 1
