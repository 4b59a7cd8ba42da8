"""`amana up`: one command runs everything, keeps it running, and leaves nothing behind."""

import contextlib
import json
import os
import re
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path

import click
import pytest

from service.cli.ports import find_free_port, is_taken
from service.cli.processes import Child, read_command_line, read_pid
from service.cli.supervisor import Kept, find_amana
from service.cli.up import ask, wait_for

pytestmark = pytest.mark.timeout(120)
ROOT = Path(__file__).resolve().parents[3]
UNSET = ("DATABASE_URL", "DATABASE_ADMIN_URL", "REDIS_URL", "SMTP_URL", "AMANA_SECRET_KEY", "PORT")
ENVIRON = {name: value for name, value in os.environ.items() if name not in UNSET}


class Up:
    """A running `amana up` on ports of its own."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self.log = folder.with_name("up.log")
        with self.log.open("w") as log:
            self.process = subprocess.Popen(
                [find_amana(), "up", "--data-dir", str(folder), "--port", str(port)],
                stdout=log,
                stderr=subprocess.STDOUT,
                env=ENVIRON,
                start_new_session=True,
            )
        ready = wait_until(lambda: "curl" in self.said or self.process.poll() is not None, 60)
        assert ready, self.said
        assert self.process.poll() is None, self.said

    @property
    def said(self) -> str:
        return self.log.read_text()

    def programs(self) -> dict[str, int]:
        """The children by name."""
        recorded = json.loads((self.folder / "processes.json").read_text())
        found = {str(line).rsplit("/", 1)[1]: int(pid) for pid, line in recorded}
        for name, file in (("postgres", "postgres/postmaster.pid"), ("redis", "redis/redis.pid")):
            pid = read_pid(self.folder / file)
            if pid is not None:
                found[name] = pid
        return found

    def end(self, by: signal.Signals) -> int:
        self.process.send_signal(by)
        return self.process.wait(40)


@pytest.fixture
def port() -> int:
    """A port that is free, as the next two are."""
    while True:
        first = find_free_port()
        if first < 65_000 and not any(is_taken(first + behind) for behind in range(3)):
            return first


@contextlib.contextmanager
def running(folder: Path, port: int) -> Iterator[Up]:
    up = Up(folder, port)
    try:
        yield up
    finally:
        up.process.kill()
        up.process.wait()


def fails(*arguments: str, **environ: str) -> str:
    """What a command that must fail says."""
    done = subprocess.run(
        [find_amana(), *arguments], capture_output=True, text=True, env={**ENVIRON, **environ},
        check=False, timeout=60,
    )  # fmt: skip
    assert done.returncode != 0
    return done.stderr.strip()


def get(url: str, **headers: str) -> int:
    with urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=5) as answer:
        return int(answer.status)


def answers(url: str) -> bool:
    with contextlib.suppress(OSError):
        return get(url) == 200
    return False


def wait_until(happened: Callable[[], bool], patience_seconds: float = 20.0) -> bool:
    give_up_at = time.monotonic() + patience_seconds
    while not happened() and time.monotonic() < give_up_at:
        time.sleep(0.05)
    return happened()


def all_gone(pids: list[int]) -> bool:
    return not any(map(read_command_line, pids))


def test_what_it_prints_works_what_dies_comes_back_and_ctrl_c_ends_it_all(
    tmp_path: Path, port: int
) -> None:
    with running(tmp_path / "var", port) as up:
        found = re.search(r"curl -H '(X-API-Key): (sk_sandbox_[0-9a-f]{64})' (\S+)", up.said)
        assert found is not None
        assert get(found[3], **{found[1]: found[2]}) == 200
        before = up.programs()
        assert set(before) == {"amana serve", "amana work", "postgres", "redis"}

        assert "in use by amana up" in fails(
            "up", "--data-dir", str(up.folder), "--port", str(port)
        )
        assert f"port {port} (the API) is taken" in fails(
            "up", "--data-dir", str(tmp_path / "other"), "--port", str(port)
        )

        for name in ("redis", "amana serve", "amana work"):
            os.kill(before[name], signal.SIGKILL)
        assert wait_until(
            lambda: all(up.programs().get(name) != pid for name, pid in before.items()
                        if name != "postgres") and answers(f"http://127.0.0.1:{port}/healthz")
        ), up.said  # fmt: skip
        os.kill(before["postgres"], signal.SIGKILL)
        assert wait_until(lambda: up.programs().get("postgres") not in {None, before["postgres"]})
        assert wait_until(
            lambda: all(answers(f"http://127.0.0.1:{at}/readyz") for at in (port, port + 1))
        ), up.said

        left = list(up.programs().values())
        assert up.end(signal.SIGINT) == 0
        assert all_gone(left)


# Makes its standard input the terminal of its session, then becomes the program.
IN_FRONT = """
import fcntl, os, sys, termios
fcntl.ioctl(0, termios.TIOCSCTTY, 0)
os.execvp(sys.argv[1], sys.argv[1:])
"""


class Terminal:
    """A terminal with a program in front; what it shows is read behind our back."""

    def __init__(self, folder: Path, program: list[str], environ: dict[str, str]) -> None:
        self.line, theirs = os.openpty()
        self.process = subprocess.Popen(
            [sys.executable, "-c", IN_FRONT, *program],
            stdin=theirs, stdout=theirs, stderr=theirs,
            cwd=folder, env=environ, start_new_session=True,
        )  # fmt: skip
        os.close(theirs)
        self.shown = ""
        threading.Thread(target=self.read, daemon=True).start()

    def read(self) -> None:
        with contextlib.suppress(OSError):  # everybody has left the terminal
            while said := os.read(self.line, 4096):
                self.shown += said.decode(errors="replace")

    def press(self, keys: bytes) -> None:
        os.write(self.line, keys)


@pytest.mark.skipif(shutil.which("make") is None, reason="this machine has no make")
def test_make_run_ends_well_after_ctrl_c_at_the_terminal(tmp_path: Path, port: int) -> None:
    (tmp_path / ".venv").symlink_to(sys.prefix)
    terminal = Terminal(
        tmp_path,
        ["make", "--file", str(ROOT / "Makefile"), "--old-file", ".venv/installed", "run"],
        {**ENVIRON, "PORT": str(port)},
    )
    try:
        assert wait_until(
            lambda: "curl" in terminal.shown or terminal.process.poll() is not None, 60
        )
        assert terminal.process.poll() is None, terminal.shown
        recorded = json.loads((tmp_path / "var" / "processes.json").read_text())
        terminal.press(b"\x1a\x03")  # Ctrl-Z, then Ctrl-C
        assert terminal.process.wait(40) == 0
        assert all_gone([pid for pid, _ in recorded])
        assert "make:" not in terminal.shown
    finally:
        terminal.process.kill()  # where it still runs, what it runs notices, and ends
        terminal.process.wait()
        os.close(terminal.line)


def test_nothing_is_greeted_before_it_is_ready() -> None:
    verdicts = [503, 503, 200]

    class Door(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self.send_response(verdicts.pop(0) if self.path == "/readyz" else 200)
            self.end_headers()
            self.wfile.write(b"not yet")

        def log_message(self, *_: object) -> None:
            """Say nothing."""

    with HTTPServer(("127.0.0.1", 0), Door) as door:
        threading.Thread(target=door.serve_forever, daemon=True).start()
        port = door.server_port
        assert ask("127.0.0.1", port, "/healthz") is None
        child = Child(subprocess.Popen(["sleep", "60"]), None)
        wait_for(Kept("it", lambda: child, child, port=port), "127.0.0.1", "/readyz")
        assert verdicts == []
        verdicts.append(503)
        assert ask("0.0.0.0", port, "/readyz") == "not yet"
        child.end(signal.SIGKILL, 5)
        verdicts.append(503)
        with pytest.raises(click.ClickException, match=r"^it was killed by SIGKILL$"):
            wait_for(Kept("it", lambda: child, child, port=port), "127.0.0.1", "/readyz")
        door.shutdown()
    assert "refused" in (ask("127.0.0.1", port, "/healthz") or "")


def test_killed_it_takes_its_children_along_and_the_next_run_goes_on(
    tmp_path: Path, port: int
) -> None:
    with running(tmp_path / "var", port) as up:
        left, key = list(up.programs().values()), (up.folder / "sandbox.key").read_text().strip()
        up.end(signal.SIGKILL)
    with running(tmp_path / "var", port) as up:
        assert all_gone(left)
        assert key in up.said
        left = list(up.programs().values())
        assert up.end(signal.SIGTERM) == 0
        assert all_gone(left)


def test_children_go_by_themselves_when_it_is_killed(tmp_path: Path, port: int) -> None:
    with running(tmp_path / "var", port) as up:
        left = list(up.programs().values())
        up.end(signal.SIGKILL)
        assert wait_until(lambda: all_gone(left), 30)


@pytest.mark.parametrize("behind", [0, 1, 2])
def test_a_taken_port_is_named(behind: int, tmp_path: Path, port: int) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", port + behind))
        taken.listen()
        said = fails("up", "--data-dir", str(tmp_path / "var"), "--port", str(port))
    use = ("the API", "a worker", "mail")[behind]
    assert said == f"Error: port {port + behind} ({use}) is taken; free it or choose another"


def test_a_wrong_setting_stops_the_start_with_one_line(tmp_path: Path, port: int) -> None:
    said = fails(
        "up", "--data-dir", str(tmp_path / "var"), "--port", str(port), PLATFORM_FEE_BPS="ten"
    )
    assert said.startswith("Error: PLATFORM_FEE_BPS")
    assert "\n" not in said


def test_serve_without_a_secret_key_refuses_in_one_line(tmp_path: Path) -> None:
    said = fails(
        "serve", "--data-dir", str(tmp_path / "var"),
        DATABASE_URL="postgresql://amana_app@/amana?host=/nowhere", REDIS_URL="redis://127.0.0.1",
    )  # fmt: skip
    assert said == "Error: AMANA_SECRET_KEY is not set; this command needs it"


def test_every_command_has_help() -> None:
    listed = subprocess.run([find_amana(), "--help"], capture_output=True, text=True, check=True)
    assert "  up " in listed.stdout
    assert sys.executable.rsplit("/", 1)[0] in find_amana()
