"""The worker as a process: it answers for its health, counts, and drains."""

import asyncio
import json
import os
import re
import signal
import time
from collections.abc import AsyncIterator
from pathlib import Path

import aiohttp
import asyncpg
import pytest

from service.cli.ports import find_free_port
from service.cli.supervisor import find_amana
from service.commands.perform import House
from service.gateways.bell import ArqBell
from service.settings import Settings
from service.store.schema import CURRENT_VERSION
from tests.makers import make_escrow, make_shop
from tests.receiver import make_endpoint, receiving

pytestmark = pytest.mark.timeout(90)


class Working:
    """A running `amana work`."""

    def __init__(self, process: asyncio.subprocess.Process, port: int, log: Path) -> None:
        self.process, self.url, self.log = process, f"http://127.0.0.1:{port}", log

    async def get(self, path: str, **headers: str) -> tuple[int, str]:
        async with (
            aiohttp.ClientSession() as client,
            client.get(self.url + path, headers=headers) as answer,
        ):
            return answer.status, await answer.text()

    async def is_ready(self) -> bool:
        try:
            return (await self.get("/readyz"))[0] == 200
        except aiohttp.ClientConnectionError:
            assert self.process.returncode is None, self.log.read_text()
            return False

    async def figures(self) -> dict[str, float]:
        _, text = await self.get("/metrics")
        return {
            name: float(figure)
            for name, figure in re.findall(r"^(amana_[^#\s]+) (\S+)$", text, re.MULTILINE)
        }


@pytest.fixture
async def working(house: House, migrated: Settings, tmp_path: Path) -> AsyncIterator[Working]:
    port, log = find_free_port(), tmp_path / "work.log"
    with log.open("wb") as said:
        process = await asyncio.create_subprocess_exec(
            find_amana(), "work", stdout=said, stderr=said,
            env={
                **os.environ,
                "DATABASE_URL": migrated.database_url or "",
                "REDIS_URL": migrated.redis_url or "",
                "AMANA_SECRET_KEY": migrated.amana_secret_key or "",
                "STORAGE_URL": migrated.storage_url or "",
                "AMANA_HOST": "127.0.0.1",
                "WORKER_PORT": str(port),
                "WEBHOOK_ALLOW_PRIVATE": "1",
            },
        )  # fmt: skip
    worker = Working(process, port, log)
    async with asyncio.timeout(30):
        while not await worker.is_ready():  # noqa: ASYNC110 - another process has no event
            await asyncio.sleep(0.05)
    yield worker
    if process.returncode is None:
        process.kill()
        await process.wait()


async def test_it_answers_for_itself_and_drains_on_sigterm(
    working: Working, owner: asyncpg.Connection
) -> None:
    assert await working.get("/healthz") == (200, '{"status":"alive"}')
    status, said = await working.get("/readyz")
    assert (status, json.loads(said)) == (
        200,
        {"status": "ready", "database": "ok", "redis": "ok"},
    )
    assert (await working.get("/metrics", **{"X-Forwarded-For": "203.0.113.1"}))[0] == 403

    await owner.execute("UPDATE schema_version SET version = 0")
    try:
        status, said = await working.get("/readyz")
    finally:
        await owner.execute("UPDATE schema_version SET version = $1", CURRENT_VERSION)
    assert status == 503
    assert json.loads(said)["database"] == (
        f"the schema is at version 0 and {CURRENT_VERSION} is needed; run `amana migrate`"
    )

    began_at = time.monotonic()
    for _ in range(2):
        working.process.send_signal(signal.SIGTERM)
    assert await working.process.wait() == 0
    assert time.monotonic() - began_at < 25


async def test_it_counts_what_it_does(house: House, migrated: Settings, working: Working) -> None:
    shop = await make_shop(house)
    async with receiving() as receiver:
        await make_endpoint(house, shop, receiver.url)
        await make_escrow(house, shop, status="paid")
        receiver.says(500)
        await make_escrow(house, shop, status="completed")
        bell = ArqBell(migrated.redis_url or "", lambda _: None)
        bell.ring(["mails"])
        async with asyncio.timeout(20):
            while True:
                found = await working.figures()
                attempts = sum(found[n] for n in found if n.startswith("amana_delivery_attempts_t"))
                if attempts >= 3 and 'amana_bells_total{bell="mails"}' in found:
                    break
                await asyncio.sleep(0.1)
        await bell.close()
    assert len(receiver.parcels) >= attempts
    assert found['amana_mails_total{state="sent"}'] >= 1
    for name in ("webhooks", "mails", "timers", "checks", "retention"):
        assert found[f'amana_rounds_total{{end="done",round="{name}"}}'] >= 1
    assert not any('end="failed"' in name for name in found)
    assert found["amana_unfanned_seconds"] < 2
    for name in ("fenced_settles_total", "expired_leases", "lanes_held", "delivery_slots"):
        assert found[f"amana_{name}"] == 0
