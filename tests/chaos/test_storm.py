"""Everything dies under `amana up`, one after another: it comes back by itself, nothing is lost."""

import asyncio
import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import asyncpg
import pytest

from service.cli.home import fill
from service.cli.ports import find_free_run
from service.cli.processes import read_command_line, read_pid
from service.cli.supervisor import find_amana
from service.cli.up import is_healthy
from service.cli.var import Var
from service.commands.perform import House
from service.gateways.bell import SilentBell
from service.settings import load_settings
from service.store.db import open_pool
from service.store.vault import Vault
from tests.chaos.conftest import Tell
from tests.chaos.load import sinking, trading, under_load
from tests.chaos.world import HOST, Program, World, make_environ, until

pytestmark = [pytest.mark.chaos, pytest.mark.timeout(500)]
KILLS = 10
WORKERS = 2
CAP = 16
ENDPOINTS = 2
FOUND_BY_UP = ("DATABASE_URL", "DATABASE_ADMIN_URL", "REDIS_URL", "AMANA_SECRET_KEY")


def start_up(var: Var, log: Path, environ: Mapping[str, str]) -> Program:
    """`amana up` on free ports; it answers a little later."""
    port = find_free_run(3 + WORKERS)
    wanted = ["--data-dir", str(var.folder), "--port", str(port), "--workers", str(WORKERS)]
    with log.open("wb") as out:
        process = subprocess.Popen(
            [find_amana(), "up", *wanted],
            stdin=subprocess.DEVNULL,
            stdout=out,
            stderr=subprocess.STDOUT,
            env=environ,
            start_new_session=True,
        )
    return Program("up", process, port, log)


@contextlib.asynccontextmanager
async def upheld(folder: Path, var: Var) -> AsyncIterator[World]:
    """A world that `amana up` looks after."""
    given = make_environ("", "", "")
    given = {name: value for name, value in given.items() if name not in FOUND_BY_UP}
    up = start_up(var, folder / "up.log", given)
    try:
        await until(lambda: "curl" in up.log.read_text() or not up.is_up)
        assert up.is_up, up.log.read_text()
        environ = fill(given, var)
        settings = load_settings(environ)
        pool = await open_pool(environ["DATABASE_URL"], size=4, application="chaos")
        house = House(pool, settings.policy(), Vault(settings.secret_keys), SilentBell())
        owner = await asyncpg.connect(environ["DATABASE_ADMIN_URL"])
        world = World(folder, environ, -1, house, owner, programs=[up])
        try:
            yield world
        finally:
            await world.owner.close()
            await pool.close()
    finally:
        up.process.send_signal(signal.SIGINT)
        with contextlib.suppress(subprocess.TimeoutExpired):
            await asyncio.to_thread(up.process.wait, 60)
        up.kill()


def victims(var: Var) -> dict[str, list[int]]:
    """Who of this `amana up` is alive, by what they are; each known by number and command line."""
    found: dict[str, list[int]] = {}
    for pid, line in json.loads(var.processes.read_text(encoding="utf-8")):
        if read_command_line(pid) == line:
            found.setdefault(line.rsplit(" ", 1)[1], []).append(pid)
    for name, file, sign in (
        ("postgres", var.cluster / "postmaster.pid", str(var.cluster)),
        ("redis", var.redis / "redis.pid", str(var.sockets)),
    ):
        pid = read_pid(file)
        if pid is not None and sign in read_command_line(pid):
            found[name] = [pid]
    return found


async def test_whatever_is_killed_comes_back_and_every_promise_is_kept(
    tmp_path: Path, chance: random.Random, tell: Tell
) -> None:
    var = Var(tmp_path / "var")
    killed: Counter[str] = Counter()
    async with upheld(tmp_path, var) as world:
        (up,) = world.programs
        async with sinking() as sink, trading(world, chance, lambda: [up], sink) as trade:
            async with under_load(trade, side_by_side=4):
                for _ in range(KILLS):
                    await asyncio.sleep(chance.uniform(1.0, 3.0))
                    alive = victims(var)
                    name = chance.choice(sorted(alive))
                    os.kill(chance.choice(alive[name]), signal.SIGKILL)
                    killed[name] += 1
                over_at = time.monotonic()
                await until(lambda: asyncio.to_thread(is_healthy, HOST, up.port))
                healthy_after = time.monotonic() - over_at
            await until(world.is_quiet, every=0.2)
            quiet_after = time.monotonic() - over_at
            await trade.kept()
            pairs = await sink.heard_all(world)
            tell(
                killed=dict(killed),
                answered=len(trade.answered),
                misses=dict(trade.misses),
                pairs=pairs,
                duplicates=sink.duplicates,
                healthy_after_seconds=healthy_after,
                quiet_after_seconds=quiet_after,
            )
            assert sink.duplicates <= killed["work"] * CAP * ENDPOINTS
        await world.owner.close()  # it may have lost its server
        world.owner = await asyncpg.connect(world.environ["DATABASE_ADMIN_URL"])
        await world.sound()
        await world.checked()
