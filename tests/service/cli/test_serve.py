"""`amana serve --processes N`: one port, one count, one parent; over real processes."""

import asyncio
import contextlib
import os
import re
import signal
import socket
import time
from collections.abc import AsyncIterator, Callable
from pathlib import Path

import aiohttp
import asyncpg
import pytest
from click.testing import CliRunner

from service.cli.main import main
from service.cli.ports import find_free_port
from service.cli.processes import read_command_line
from service.cli.supervisor import find_amana
from service.commands.perform import House
from service.settings import Settings
from tests.makers import make_shop

pytestmark = pytest.mark.timeout(120)
PROCESSES = 3
ME = "/api/v1/me"
CREATE = b'{"title":"A site","amount":20,"buyerEmail":"b@example.com","mode":"instant"}'


@pytest.fixture
def environ(migrated: Settings, tmp_path: Path) -> dict[str, str]:
    chosen = {
        "DATABASE_URL": migrated.database_url,
        "REDIS_URL": migrated.redis_url,
        "AMANA_SECRET_KEY": migrated.amana_secret_key,
        "STORAGE_URL": migrated.storage_url,
        "AMANA_HOST": "127.0.0.1",
        "RATE_LIMIT_PER_MINUTE": "0",
        "PORT": str(find_free_port()),
        "TMPDIR": str(tmp_path),  # where a killed parent leaves its folder of counts
    }
    return {**os.environ, **{name: value or "" for name, value in chosen.items()}}


class Serving:
    """A running `amana serve --processes 3`."""

    def __init__(self, parent: asyncio.subprocess.Process, port: int) -> None:
        self.parent, self.port = parent, port
        self.url = f"http://127.0.0.1:{port}"

    def children(self) -> list[int]:
        path = Path(f"/proc/{self.parent.pid}/task/{self.parent.pid}/children")
        found = [int(pid) for pid in path.read_text().split()]
        return [pid for pid in found if "amana serve" in read_command_line(pid)]

    def listening(self) -> int:
        """How many sockets listen on the port."""
        rows = Path("/proc/net/tcp").read_text().splitlines()[1:]
        return sum(row.split()[1].endswith(f":{self.port:04X}") and row.split()[3] == "0A"
                   for row in rows)  # fmt: skip

    async def get(self, path: str) -> tuple[int, str]:
        """An answer over a connection of its own: whichever process the kernel picks."""
        async with (
            aiohttp.ClientSession(headers={"Connection": "close"}) as client,
            client.get(self.url + path) as answer,
        ):
            return answer.status, await answer.text()

    async def counted(self) -> float:
        """How many requests without a key were answered, says whoever is asked."""
        _, figures = await self.get("/metrics")
        labels = f'amana_requests_total{{method="GET",route="{ME}",status="401"}}'
        found = re.search(re.escape(labels) + r" (\S+)", figures)
        return float(found[1]) if found else 0.0


@pytest.fixture
async def serving(environ: dict[str, str], tmp_path: Path) -> AsyncIterator[Serving]:
    log = (tmp_path / "serve.log").open("wb")
    parent = await asyncio.create_subprocess_exec(
        find_amana(), "serve", "--processes", str(PROCESSES), env=environ,
        stdout=log, stderr=log,
    )  # fmt: skip
    started = Serving(parent, int(environ["PORT"]))
    try:
        await until(lambda: started.listening() == PROCESSES or parent.returncode is not None)
        assert parent.returncode is None, (tmp_path / "serve.log").read_text()
        yield started
    finally:
        if parent.returncode is None:
            parent.kill()
            await parent.wait()
        log.close()


async def until(happened: Callable[[], object], seconds: float = 30) -> None:
    async with asyncio.timeout(seconds):
        while not happened():  # noqa: ASYNC110 - other processes have no event
            await asyncio.sleep(0.05)


async def refused(verb: str, *arguments: str, **environ: str) -> str:
    """What a command says that must fail with one line."""
    process = await asyncio.create_subprocess_exec(
        find_amana(), verb, *arguments, env=environ,
        stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    async with asyncio.timeout(30):
        out, err = await process.communicate()
    assert process.returncode == 1
    assert out == b""
    line = err.decode().rstrip("\n")
    assert "\n" not in line
    return line


async def test_processes_share_a_port_and_each_tells_the_figures_of_all(serving: Serving) -> None:
    children = serving.children()
    assert len(children) == PROCESSES
    for _ in range(30):
        assert (await serving.get(ME))[0] == 401
    assert [await serving.counted() for _ in range(12)] == [30.0] * 12

    os.kill(children[0], signal.SIGKILL)
    await until(lambda: serving.listening() == PROCESSES - 1)
    await until(lambda: serving.listening() == PROCESSES)
    assert len(set(serving.children()) - set(children)) == 1
    assert {(await serving.get("/readyz"))[0] for _ in range(12)} == {200}
    assert (await serving.get(ME))[0] == 401
    assert [await serving.counted() for _ in range(6)] == [31.0] * 6


async def test_sigterm_drains_them_all_however_often_it_is_said(
    serving: Serving, house: House, owner: asyncpg.Connection
) -> None:
    key, children = (await make_shop(house)).api_key, serving.children()
    lines = [await asyncio.open_connection("127.0.0.1", serving.port) for _ in range(6)]
    async with owner.transaction():
        await owner.execute("LOCK TABLE escrow IN ACCESS EXCLUSIVE MODE")
        for _, writer in lines:
            writer.write(
                f"POST /api/v1/escrows HTTP/1.1\r\nHost: x\r\nX-API-Key: {key}\r\n"
                f"Content-Length: {len(CREATE)}\r\n\r\n".encode()
                + CREATE
            )
        await asyncio.sleep(0.5)
        began_at = time.monotonic()
        for pid in (serving.parent.pid, *children, serving.parent.pid):
            os.kill(pid, signal.SIGTERM)
        await until(lambda: serving.listening() == 0)
    for reader, writer in lines:
        assert (await reader.read()).startswith(b"HTTP/1.1 201 Created")
        writer.close()
    assert await serving.parent.wait() == 0
    assert time.monotonic() - began_at < 25
    assert not any(map(read_command_line, children))


async def test_children_go_when_their_parent_is_killed(serving: Serving) -> None:
    children = serving.children()
    serving.parent.kill()
    await until(lambda: not any(map(read_command_line, children)))


async def test_a_port_that_is_taken_is_one_line(environ: dict[str, str]) -> None:
    with contextlib.closing(socket.socket()) as taken:
        taken.bind(("127.0.0.1", int(environ["PORT"])))
        taken.listen()
        said = await refused("serve", "--processes", "2", **environ)
        assert (
            said == f"Error: port {environ['PORT']} (the API) is taken; free it or choose another"
        )
        assert "address already in use" in await refused("serve", **environ)
        port = {"WORKER_PORT": environ["PORT"]}
        assert "address already in use" in await refused("work", **environ, **port)


def complaint_of(arguments: tuple[str, ...], environ: dict[str, str]) -> str:
    """What is said, in one line, before anything is started."""
    done = CliRunner().invoke(main, arguments, env=environ)
    assert (done.exit_code, done.stdout) == (1, "")
    assert done.stderr.count("\n") == 1
    return done.stderr.rstrip("\n")


STARTS = [("serve",), ("serve", "--processes", "2"), ("work",), ("migrate",)]


@pytest.mark.parametrize("start", STARTS, ids=" ".join)
@pytest.mark.parametrize(
    ("wrong", "line"),
    [
        ({"DATABASE_URL": ""}, "Error: there is no database in "),
        ({"DATABASE_URL": "mysql://x"}, "Error: DATABASE_URL must be a URL that begins with"),
        ({"SMTP_URL": "smtp://"}, "Error: SMTP_URL must name a host, such as smtp://example.com"),
        ({"AMANA_ENV": "prod"}, "Error: AMANA_ENV must be one of 'sandbox' or 'live'"),
    ],
    ids=["unset", "scheme", "host", "word"],
)
def test_a_wrong_setting_is_one_line(
    start: tuple[str, ...],
    wrong: dict[str, str],
    line: str,
    environ: dict[str, str],
    tmp_path: Path,
) -> None:
    said = complaint_of((*start, "--data-dir", str(tmp_path / "none")), {**environ, **wrong})
    assert said.startswith(line)


@pytest.mark.parametrize("start", STARTS[:3], ids=" ".join)
@pytest.mark.parametrize("variable", ["REDIS_URL", "AMANA_SECRET_KEY"])
def test_what_is_not_set_is_named_in_one_line(
    start: tuple[str, ...], variable: str, environ: dict[str, str], tmp_path: Path
) -> None:
    said = complaint_of((*start, "--data-dir", str(tmp_path / "none")), {**environ, variable: ""})
    assert said == f"Error: {variable} is not set; this command needs it"


@pytest.mark.parametrize("verb", ["serve", "work", "migrate"])
async def test_a_database_that_is_away_is_one_line(verb: str, environ: dict[str, str]) -> None:
    away = {"DATABASE_URL": "postgresql://a@/b?host=/nowhere", "DATABASE_ADMIN_URL": ""}
    said = await refused(verb, **{**environ, **away})
    assert said.startswith("Error: the database is away: FileNotFoundError")


async def test_the_first_of_several_that_cannot_start_ends_the_start(
    environ: dict[str, str],
) -> None:
    process = await asyncio.create_subprocess_exec(
        find_amana(), "serve", "--processes", "2",
        env={**environ, "DATABASE_URL": "postgresql://a@/b?host=/nowhere"},
        stderr=asyncio.subprocess.PIPE,
    )  # fmt: skip
    _, err = await process.communicate()
    assert process.returncode == 1
    assert err.decode().splitlines()[-1] == "Error: amana serve (1) ended with code 1"
    assert "Error: the database is away: " in err.decode()
