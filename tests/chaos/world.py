"""A world to break: servers of its own, `amana serve` and `amana work` as they are really run.

Only what was started here is ended here, by its number. `World.sound` is asked at each end.
"""

import asyncio
import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import time
import urllib.request
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import asyncpg

from service.cli import mailcatcher
from service.cli.home import read_environ
from service.cli.migrate import migrate_at
from service.cli.ports import find_free_port
from service.cli.postgres import APPLICATION, OWNER, Postgres, make_url
from service.cli.postgres import is_ready as is_postgres_ready
from service.cli.processes import Child
from service.cli.redis_server import Redis
from service.cli.redis_server import answers as does_redis_answer
from service.cli.supervisor import find_amana, parent_pipe
from service.cli.up import is_healthy
from service.cli.var import Var, locked, make_short_folder
from service.cli.watch import PARENT_PIPE
from service.commands.checks import check_all
from service.commands.perform import House
from service.gateways.bell import SilentBell
from service.settings import Settings, load_settings
from service.store.db import open_pool
from service.store.vault import Vault
from tests.books import assert_sound

HOST = "127.0.0.1"
SECRET_KEY = "a-secret-key-that-only-chaos-knows-0123456789"
PATIENCE_SECONDS = 120.0  # for what must happen: a busy machine is no failure
# What an idle transaction may hold (`World.holding`), and what lets time pass (as the owner).
ONE_ESCROW = "SELECT FROM escrow WHERE id = $1 FOR UPDATE"
ESCROWS = "SELECT FROM escrow WHERE id = ANY ($1) FOR UPDATE"
WALLET = "SELECT FROM account WHERE kind = 'available' AND owner = $1 FOR UPDATE"
LANE = """
SELECT FROM lane l JOIN webhook_endpoint e ON e.id = l.endpoint_id WHERE e.url = $1 FOR UPDATE OF l
"""
EXPIRE = "UPDATE deadline SET due_at = business_now() WHERE escrow_id = $1 AND kind = 'expiry'"
# What these tests kill is processes, never the machine: nothing has to wait for the disk.
FASTER = {"fsync": "off", "full_page_writes": "off"}


async def until(
    fact: Callable[[], object] | Callable[[], Awaitable[object]],
    seconds: float = PATIENCE_SECONDS,
    every: float = 0.02,
) -> float:
    """Wait until it is so; how many seconds that took. TimeoutError when it does not come."""
    began = time.monotonic()
    async with asyncio.timeout(seconds):
        while True:
            found = fact()
            if await found if isinstance(found, Awaitable) else found:
                return time.monotonic() - began
            await asyncio.sleep(every)


@dataclass
class Program:
    """One process of ours: `serve` or `work`."""

    verb: str
    process: "subprocess.Popen[bytes]"
    port: int
    log: Path

    @property
    def url(self) -> str:
        return f"http://{HOST}:{self.port}"

    @property
    def is_up(self) -> bool:
        return self.process.poll() is None

    def kill(self) -> None:
        """`kill -9`, by its number."""
        self.process.kill()
        self.process.wait()

    def end(self) -> None:
        """Let it drain, then see it gone."""
        self.process.terminate()
        try:
            self.process.wait(30)
        except subprocess.TimeoutExpired:
            self.kill()

    def said(self, event: str) -> list[dict[str, Any]]:
        """The lines of its log with this event."""
        lines = self.log.read_text(encoding="utf-8").splitlines()
        found = (json.loads(line) for line in lines if line.startswith("{"))
        return [line for line in found if line.get("event") == event]

    def bugs(self) -> list[str]:
        """Every line that tells of a bug: whatever a fault does must end as refusal or warning.

        That events wait (invariant G) is no bug while workers are dead.
        """
        signs = ("Traceback", "never retrieved", "never awaited", '"level":"error"')
        return [
            line[:3000]
            for line in self.log.read_text(encoding="utf-8").splitlines()
            if any(sign in line for sign in signs) and '"invariant":"G"' not in line
        ]

    async def figure(self, name: str) -> float:
        """The sum of a figure of its /metrics over its labels."""
        text = await asyncio.to_thread(self._metrics)
        return sum(
            float(line.rsplit(" ", 1)[1])
            for line in text.splitlines()
            if line.split("{")[0].split(" ")[0] == name
        )

    def _metrics(self) -> str:
        with urllib.request.urlopen(f"{self.url}/metrics", timeout=10) as answer:
            told: str = answer.read().decode()
        return told

    def memory_mib(self, figure: str = "VmHWM") -> float:
        """Resident memory, by default the most that it ever held."""
        for line in Path(f"/proc/{self.process.pid}/status").read_text("ascii").splitlines():
            if line.startswith(f"{figure}:"):
                return int(line.split()[1]) / 1024
        raise AssertionError(f"no {figure} of {self.process.pid}")


@dataclass
class World:
    """The servers of one test, its programs, and a house to arrange and to look with."""

    folder: Path
    environ: dict[str, str]
    pipe: int
    house: House
    owner: "asyncpg.Connection[asyncpg.Record]"
    redis: Redis | None = None
    redis_child: Child | None = None
    postgres: Postgres | None = None
    postgres_child: Child | None = None
    programs: list[Program] = field(default_factory=list)

    # ---- Programs ----

    async def serve(self, port: int = 0, **changed: str) -> Program:
        """A healthy ingress."""
        return await self.healthy(self.start("serve", port, **changed))

    async def work(self, **changed: str) -> Program:
        """A healthy worker."""
        return await self.healthy(self.start("work", **changed))

    def start(self, verb: str, port: int = 0, **changed: str) -> Program:
        """A program that answers a little later."""
        port = port or find_free_port()
        variable = "PORT" if verb == "serve" else "WORKER_PORT"
        log = self.folder / f"{len(self.programs)}-{verb}.log"
        with log.open("ab") as out:
            process = subprocess.Popen(
                [find_amana(), verb],
                stdin=subprocess.DEVNULL,
                stdout=out,
                stderr=subprocess.STDOUT,
                env={**self.environ, **changed, variable: str(port), PARENT_PIPE: str(self.pipe)},
                pass_fds=(self.pipe,),
                start_new_session=True,
            )
        program = Program(verb, process, port, log)
        self.programs.append(program)
        return program

    async def healthy(self, program: Program) -> Program:
        async def answers() -> bool:
            assert program.is_up, program.log.read_text(encoding="utf-8")
            return await asyncio.to_thread(is_healthy, HOST, program.port)

        await until(answers)
        return program

    def end_programs(self) -> None:
        for program in self.programs:
            if program.is_up:
                program.process.terminate()
        for program in self.programs:
            program.end()

    # ---- Redis ----

    def kill_redis(self) -> None:
        """Gone at once, with all that it held."""
        self.redis_child.process.kill()
        self.redis_child.process.wait()
        self.redis_child.release()

    async def start_redis(self) -> None:
        """A new one on the same socket, empty."""
        self.redis.socket.unlink(missing_ok=True)
        self.redis_child = self.redis.launch()
        await until(lambda: does_redis_answer(self.redis.socket))

    def say_to_redis(self, *words: str) -> bytes:
        """What Redis answers to one command."""
        with socket.socket(socket.AF_UNIX) as line:
            line.settimeout(5)
            line.connect(str(self.redis.socket))
            line.sendall(" ".join(words).encode() + b"\r\n")
            return line.recv(4096)

    # ---- PostgreSQL ----

    async def stop_postgres(self, by: signal.Signals) -> None:
        """SIGINT: a fast shutdown. SIGKILL: a crash of the whole server."""
        assert self.postgres_child is not None
        if by is signal.SIGINT:
            self.postgres_child.process.send_signal(by)
        else:
            os.kill(self.postgres_child.process.pid, by)
        await asyncio.to_thread(self.postgres_child.process.wait)
        self.postgres_child.release()

    async def start_postgres(self) -> float:
        """Start it again; after how many seconds it took connections."""
        assert self.postgres is not None
        postgres = self.postgres
        began = time.monotonic()
        while True:
            child = postgres.launch()  # from the main thread, which must outlive it

            def settled(child: Child = child) -> bool:
                return is_postgres_ready(postgres.cluster) or child.process.poll() is not None

            await until(settled)
            if child.process.poll() is None:
                self.postgres_child = child
                break
            child.release()  # a killed server's own children need a moment to notice
            assert time.monotonic() - began < PATIENCE_SECONDS, "PostgreSQL does not come back"
            await asyncio.sleep(0.1)
        took = time.monotonic() - began
        await self.owner.close()
        self.owner = await asyncpg.connect(self.environ["DATABASE_ADMIN_URL"])
        return took

    async def terminate_backends(self) -> int:
        """Cut every connection of our programs; how many there were."""
        return await self.owner.fetchval(
            """SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity
               WHERE datname = current_database() AND application_name LIKE 'amana %'"""
        )

    @contextlib.asynccontextmanager
    async def holding(self, query: str, *args: object) -> AsyncIterator[None]:
        """An idle transaction that holds the locks of this query for as long as the block."""
        connection = await asyncpg.connect(self.environ["DATABASE_ADMIN_URL"])
        try:
            async with connection.transaction():
                await connection.execute(query, *args)
                yield
        finally:
            await connection.close()

    async def is_waiting(self, program: str) -> bool:
        """Whether a statement of `amana serve` or `amana work` waits for somebody's lock."""
        return await self.owner.fetchval(
            """SELECT EXISTS (SELECT FROM pg_stat_activity WHERE wait_event_type = 'Lock'
                              AND datname = current_database() AND application_name = $1)""",
            f"amana {program}",
        )

    # ---- What must hold ----

    async def rows(self, query: str, *args: object) -> list[tuple[Any, ...]]:
        return [tuple(row) for row in await self.house.pool.fetch(query, *args)]

    async def is_quiet(self) -> bool:
        """Whether every event is fanned out and no delivery, receipt or due deadline waits."""
        return not await self.house.pool.fetchval(
            """SELECT EXISTS (SELECT FROM event WHERE fanned_at IS NULL AND type IS NOT NULL)
                   OR EXISTS (SELECT FROM delivery WHERE state = 'pending')
                   OR EXISTS (SELECT FROM delivery WHERE state = 'delivered' AND acknowledges
                              AND acknowledged_at IS NULL)
                   OR EXISTS (SELECT FROM deadline WHERE fired_at IS NULL AND cancelled_at IS NULL
                              AND due_at <= business_now())"""
        )

    async def sound(self) -> None:
        """The books balance, every invariant holds, nobody has met a bug or left a lock behind."""
        await assert_sound(self.house)
        results = await check_all(self.house)
        breached = [(one.id, one.breaches) for one in results if not one.ok]
        assert breached == [], breached
        for program in self.programs:
            assert program.bugs() == [], (program.log, program.bugs())
        await until(self.holds_nothing)

    async def holds_nothing(self) -> bool:
        """Whether no transaction stands open between two statements."""
        return not await self.owner.fetchval(
            """SELECT EXISTS (SELECT FROM pg_stat_activity WHERE datname = current_database()
                              AND state LIKE 'idle in transaction%')"""
        )

    async def checked(self) -> None:
        """What an operator would ask: `amana check` and `amana balance` find nothing."""
        for verb in ("check", "balance"):
            code, said = await self.amana(verb, "--json")
            assert code == 0, said

    async def amana(self, *words: str) -> tuple[int, str]:
        """A command as an operator types it: its exit code and what it said."""
        process = await asyncio.create_subprocess_exec(
            find_amana(), *words, env=self.environ,
            stdout=asyncio.subprocess.PIPE, stderr=asyncio.subprocess.STDOUT,
        )  # fmt: skip
        said, _ = await process.communicate()
        return process.returncode or 0, said.decode()


def make_environ(database: str, admin: str, redis: str, **more: str) -> dict[str, str]:
    """The variables of our programs: what a sandbox has, with room for load."""
    inherited = {
        name: value
        for name, value in read_environ().items()
        if name.lower() not in Settings.model_fields
    }
    return {
        **inherited,
        "DATABASE_URL": database,
        "DATABASE_ADMIN_URL": admin,
        "REDIS_URL": redis,
        "AMANA_SECRET_KEY": SECRET_KEY,
        "AMANA_HOST": HOST,
        "AMANA_PUBLIC_URL": "http://amana.test",
        "RATE_LIMIT_PER_MINUTE": "1000000",
        "MAX_WEBHOOKS_PER_DEVELOPER": "30",
        "WEBHOOK_ALLOW_PRIVATE": "1",
        "LOG_FORMAT": "json",
        **more,
    }


@contextlib.asynccontextmanager
async def over(
    folder: Path,
    environ: Mapping[str, str],
    redis: Redis,
    postgres: Postgres | None = None,
    postgres_child: Child | None = None,
) -> AsyncIterator[World]:
    """A world over a migrated database; its programs and its Redis end with the block."""
    settings = load_settings(environ)
    async with contextlib.AsyncExitStack() as stack:
        pool = await open_pool(environ["DATABASE_URL"], size=4, application="chaos")
        stack.push_async_callback(pool.close)
        house = House(pool, settings.policy(), Vault(settings.secret_keys), SilentBell())
        world = World(
            folder,
            {"STORAGE_URL": f"file://{folder}/files", **environ},
            stack.enter_context(parent_pipe()),
            house,
            await asyncpg.connect(environ["DATABASE_ADMIN_URL"]),
            redis,
            redis.start(),
            postgres,
            postgres_child,
        )
        # Looked up at the end: a restart of PostgreSQL changes it.
        stack.push_async_callback(lambda: world.owner.close())  # noqa: PLW0108 - see above
        stack.callback(lambda: world.redis.stop(world.redis_child))
        stack.callback(world.end_programs)
        yield world


@contextlib.asynccontextmanager
async def alone(folder: Path) -> AsyncIterator[World]:
    """A world with a PostgreSQL of its own, that may be restarted and killed too."""
    var = Var.at(folder / "var")
    with locked(var, "servers"):
        postgres, redis = Postgres.of(var, FASTER), Redis.of(var)
        child = postgres.start()
        worlds: list[World] = []
        try:
            with mailcatcher.catching(var.mail) as smtp:
                environ = make_environ(
                    make_url(var.sockets, APPLICATION),
                    make_url(var.sockets, OWNER),
                    redis.url,
                    SMTP_URL=smtp,
                )
                await migrate_at(load_settings(environ))
                async with over(folder, environ, redis, postgres, child) as world:
                    worlds.append(world)
                    yield world
        finally:
            postgres.stop((worlds[0].postgres_child if worlds else None) or child)


@contextlib.asynccontextmanager
async def borrowed(settings: Settings) -> AsyncIterator[World]:
    """A world over the test run's PostgreSQL; its Redis is its own and may be killed."""
    folder = make_short_folder()
    redis = Redis(folder / "redis", folder, folder / "redis.log")
    environ = make_environ(settings.database_url or "", settings.admin_url or "", redis.url)
    try:
        async with over(folder, environ, redis) as world:
            yield world
    finally:
        shutil.rmtree(folder, ignore_errors=True)
