"""The embedded servers: they start, stop, survive being killed, and keep to their own folder."""

import contextlib
import os
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import aiosmtplib
import asyncpg
import pytest
import redis.asyncio as redis
from arq.connections import RedisSettings, create_pool

from service.cli.embedded import Urls, servers
from service.cli.postgres import CannotStart, Postgres, is_ready
from service.cli.processes import Child, read_command_line, read_pid
from service.cli.supervisor import Kept
from service.cli.var import InUse, Var, locked, make_secret_key

HOLD = """
import sys, time
from pathlib import Path
from service.cli.embedded import servers
with servers(Path(sys.argv[1])) as urls:
    print(urls.owner(), flush=True)
    time.sleep(600)
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "var"


@contextlib.contextmanager
def another_process_holds(folder: Path) -> Iterator[subprocess.Popen[str]]:
    holder = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE, text=True
    )
    assert holder.stdout is not None
    with holder.stdout:
        assert holder.stdout.readline().startswith("postgresql://")
        try:
            yield holder
        finally:
            holder.kill()
            holder.wait()


async def ask(urls: Urls, query: str) -> object:
    connection = await asyncpg.connect(urls.owner())
    try:
        return await connection.fetchval(query)
    finally:
        await connection.close()


def wait_until(happened: Callable[[], bool], patience_seconds: float = 10.0) -> bool:
    give_up_at = time.monotonic() + patience_seconds
    while not happened() and time.monotonic() < give_up_at:
        time.sleep(0.02)
    return happened()


def server_pids(folder: Path) -> list[int]:
    files = (folder / "postgres" / "postmaster.pid", folder / "redis" / "redis.pid")
    return [pid for pid in map(read_pid, files) if pid is not None]


async def test_a_new_folder_has_its_three_servers_within_seconds(folder: Path) -> None:
    began_at = time.monotonic()
    with servers(folder) as urls:
        assert time.monotonic() - began_at < 10  # 0.8 s on an idle machine
        assert await ask(urls, "SELECT current_database()") == "amana"
        assert await ask(urls, "SELECT current_user") == "amana_owner"
        assert await ask(urls, "SHOW server_version") >= "18"
        assert await ask(urls, "SHOW synchronous_commit") == "on"
        assert await ask(urls, "SHOW listen_addresses") == ""
        line = redis.from_url(urls.redis)
        assert await line.ping()
        await line.aclose()
        queue = await create_pool(RedisSettings.from_dsn(urls.redis))
        assert await queue.ping()
        await queue.aclose()


def test_nobody_else_may_enter_the_folder_of_the_sockets(folder: Path) -> None:
    with servers(folder) as urls:
        found = urls.sockets.stat()
        assert stat.S_IMODE(found.st_mode) == 0o700
        assert found.st_uid == os.geteuid()
        assert len(os.fsencode(urls.sockets / ".s.PGSQL.5432")) < 104
    assert not urls.sockets.exists()


def test_a_long_temporary_folder_still_gives_a_short_socket(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    long = tmp_path / ("long" * 30)
    long.mkdir()
    monkeypatch.setattr("tempfile.tempdir", str(long))
    with servers(folder) as urls:
        assert len(os.fsencode(urls.sockets / ".s.PGSQL.5432")) < 104


def modes(folder: Path) -> dict[str, int]:
    """What others than the owner may do with the folder and all in it; empty: nothing."""
    found = {path: stat.S_IMODE(path.stat().st_mode) for path in (folder, *folder.rglob("*"))}
    return {str(path.relative_to(folder)): mode for path, mode in found.items() if mode & 0o077}


async def test_nobody_else_may_read_what_is_in_the_data_folder(
    folder: Path, tmp_path: Path
) -> None:
    with servers(folder) as urls:
        make_secret_key(Var(folder))
        host, port = urls.smtp.removeprefix("smtp://").split(":")
        mail = "Subject: Your invitation\n\nhttps://amana.test/i/token"
        await aiosmtplib.send(
            mail, sender="a@x.example", recipients=["b@x.example"], hostname=host, port=int(port)
        )
        assert len(list((folder / "mail").iterdir())) == 1
        assert modes(folder) == {}
    (folder / "log").chmod(0o755)  # of a release that left it so
    with servers(folder):
        assert modes(folder) == {}


async def test_the_log_of_postgres_quotes_no_row(folder: Path) -> None:
    with servers(folder) as urls:
        await ask(urls, "CREATE TABLE person (email text PRIMARY KEY)")
        connection = await asyncpg.connect(urls.owner())
        for _ in range(2):
            with contextlib.suppress(asyncpg.UniqueViolationError):
                await connection.execute("INSERT INTO person VALUES ($1)", "amel@buyers.example")
        await connection.close()
    log = (folder / "log" / "postgres.log").read_text()
    assert "duplicate key value" in log
    assert "amel" not in log


async def test_what_was_stored_is_there_after_a_stop(folder: Path) -> None:
    with servers(folder) as urls:
        await ask(urls, "CREATE TABLE kept AS SELECT 7 AS number")
        pids = server_pids(folder)
    assert len(pids) == 2
    assert [read_command_line(pid) for pid in pids] == ["", ""]
    with servers(folder) as urls:
        assert await ask(urls, "SELECT number FROM kept") == 7


async def test_servers_end_with_whoever_started_them_even_by_kill_9(folder: Path) -> None:
    with another_process_holds(folder) as holder:
        pids = server_pids(folder)
        assert len(pids) == 2
        holder.send_signal(signal.SIGKILL)
        holder.wait()
        assert wait_until(lambda: not any(map(read_command_line, pids)))
    with servers(folder) as urls:
        assert await ask(urls, "SELECT 1") == 1


async def test_a_killed_postgres_recovers_what_was_committed(folder: Path) -> None:
    with servers(folder) as urls:
        await ask(urls, "CREATE TABLE kept AS SELECT 7 AS number")
        os.kill(server_pids(folder)[0], signal.SIGKILL)
    with servers(folder) as urls:
        assert await ask(urls, "SELECT number FROM kept") == 7


async def test_a_stale_number_of_some_other_process_does_not_stop_the_start(folder: Path) -> None:
    with servers(folder):
        lines = (folder / "postgres" / "postmaster.pid").read_text().split("\n")
        os.kill(server_pids(folder)[0], signal.SIGKILL)
    lines[0] = str(os.getpid())
    (folder / "postgres" / "postmaster.pid").write_text("\n".join(lines))
    assert not is_ready(folder / "postgres")
    with servers(folder) as urls:
        assert await ask(urls, "SELECT 1") == 1


def test_a_start_cut_short_is_begun_anew(folder: Path) -> None:
    (folder / "postgres.new").mkdir(parents=True)
    (folder / "postgres.new" / "PG_VERSION").write_text("18")
    with servers(folder):
        assert is_ready(folder / "postgres")


async def test_two_folders_live_side_by_side(tmp_path: Path) -> None:
    with servers(tmp_path / "one") as one, servers(tmp_path / "two") as two:
        await ask(one, "CREATE TABLE here AS SELECT 1")
        assert await ask(two, "SELECT to_regclass('here')") is None
        assert one.redis != two.redis


def test_a_folder_that_is_held_is_refused_in_one_line(folder: Path) -> None:
    with (
        another_process_holds(folder) as holder,
        pytest.raises(InUse) as refusal,
        servers(folder),
    ):
        pass
    assert refusal.value.message == f"{folder} is in use by servers (pid {holder.pid})"


def test_a_server_that_cannot_start_says_why(folder: Path) -> None:
    with (
        pytest.raises(CannotStart, match="max_connections"),
        servers(folder, {"max_connections": "x"}),
    ):
        pass
    with servers(folder):
        assert is_ready(folder / "postgres")


@pytest.mark.skipif(os.geteuid() != 0, reason="only root cannot run PostgreSQL as itself")
def test_as_root_the_files_stay_roots(folder: Path) -> None:
    with servers(folder):
        assert owners(folder) == {0}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs to become nobody")
async def test_without_user_namespaces_root_hands_the_cluster_to_nobody(
    reachable: Path, no_namespaces: None
) -> None:
    for _ in ("first", "again"):
        with servers(reachable) as urls:
            assert await ask(urls, "SELECT 1") == 1
        assert owners(reachable / "postgres") == {65534}
        # Nobody must pass, and that is all that anybody may.
        assert modes(reachable) == {".": 0o701}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs to become nobody")
def test_a_cluster_of_another_user_runs_as_that_user_again(reachable: Path) -> None:
    with servers(reachable):
        pass
    for found in (reachable / "postgres", *(reachable / "postgres").rglob("*")):
        os.chown(found, 65534, 65534)
    with servers(reachable):
        assert is_ready(reachable / "postgres")
    assert owners(reachable / "postgres") == {65534}


@pytest.fixture
def reachable() -> Iterator[Path]:
    """A data folder whose parents let everybody pass, unlike pytest's."""
    with tempfile.TemporaryDirectory() as parent:
        Path(parent).chmod(0o755)
        yield Path(parent, "var")


def owners(folder: Path) -> set[int]:
    return {path.stat().st_uid for path in (folder, *folder.rglob("*"))}


@pytest.mark.skipif(os.geteuid() != 0, reason="only root needs to become nobody")
def test_without_user_namespaces_a_folder_out_of_reach_is_refused_in_one_line(
    folder: Path, no_namespaces: None
) -> None:
    folder.mkdir(mode=0o700)
    with pytest.raises(CannotStart, match="user namespaces are forbidden"), servers(folder):
        pass


@pytest.fixture
def no_namespaces(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A machine on which `unshare` is refused."""
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "unshare").write_text("#!/bin/sh\nexit 1\n")
    (programs / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")


def test_who_dies_while_postgres_recovers_is_started_again_without_waiting_for_it(
    folder: Path,
) -> None:
    var = Var.at(folder)
    slowly = {"restore_command": "sleep 4; false", "max_connections": "20"}
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(var, "servers"))
        postgres = Postgres.of(var, slowly)
        server = Kept("PostgreSQL", postgres.start_again, postgres.start())
        stack.callback(lambda: postgres.stop(server.child))
        other = Kept("other", sleeper, sleeper())
        stack.callback(lambda: other.child.end(signal.SIGKILL, 5))

        (var.cluster / "recovery.signal").touch()  # it asks for more of its log before it answers
        for one in (server, other):
            one.child.process.kill()
            one.child.process.wait()
        began_at = time.monotonic()
        while other.child.process.poll() is not None or server.due_at is not None:
            for one in (server, other):
                one.look(time.monotonic())
            time.sleep(0.01)
        assert time.monotonic() - began_at < 3
        assert server.child.process.poll() is None
        assert not is_ready(var.cluster)
        assert wait_until(lambda: is_ready(var.cluster), 30)


def sleeper() -> Child:
    return Child(subprocess.Popen(["sleep", "600"]), None)
