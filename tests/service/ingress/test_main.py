"""The ingress as a process: health, readiness, figures, start and drain."""

import asyncio
import os
import signal
import sys
import time

import aiohttp
import pytest

from service.ingress.main import make_app, serve
from service.settings import SettingsError, load_settings

PROGRAM = "from service.ingress.main import serve; from service.settings import load_settings; "
PROGRAM += "serve(load_settings())"
TOKEN = "t" * 20


async def test_alive_and_ready(ingress):
    async with ingress(()) as client:
        async with client.get("/healthz") as response:
            assert (response.status, await response.json()) == (200, {"status": "alive"})
        async with client.get("/readyz") as response:
            assert (response.status, await response.json()) == (
                200,
                {"status": "ready", "database": "ok", "redis": "ok"},
            )


async def test_figures_are_for_loopback_and_for_who_knows_the_token(ingress):
    async with ingress((), METRICS_TOKEN=TOKEN) as client:
        for headers, status in (
            ({}, 200),
            ({"X-Forwarded-For": "203.0.113.1"}, 403),
            ({"X-Forwarded-For": "203.0.113.1", "Authorization": f"Bearer {TOKEN}"}, 200),
            ({"X-Forwarded-For": "203.0.113.1", "Authorization": f"Bearer {TOKEN}x"}, 403),
        ):
            async with client.get("/metrics", headers=headers) as response:
                assert response.status == status
                text = await response.text()
        assert TOKEN not in text


def test_every_row_of_the_table_is_served(environ):
    make_app(load_settings(environ))


@pytest.mark.parametrize("variable", ["DATABASE_URL", "REDIS_URL", "AMANA_SECRET_KEY"])
def test_a_missing_setting_stops_the_start_with_its_name(environ, variable):
    with pytest.raises(SettingsError, match=f"^{variable} is not set"):
        serve(load_settings({**environ, variable: ""}))


async def test_a_process_answers_and_drains_on_sigterm(environ, unused_tcp_port):
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        env=os.environ | environ | {"PORT": str(unused_tcp_port), "AMANA_HOST": "127.0.0.1"},
        stdout=asyncio.subprocess.PIPE,
    )
    async with aiohttp.ClientSession(f"http://127.0.0.1:{unused_tcp_port}") as client:
        async with asyncio.timeout(20):
            while not await answers(client):
                await asyncio.sleep(0.05)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        out, _ = await process.communicate()
    assert process.returncode == 0
    assert time.monotonic() - began < 10
    lines = out.decode().splitlines()
    assert '"event":"ingress_started"' in lines[0]
    assert '"event":"ingress_stopped"' in lines[-1]


async def answers(client):
    try:
        async with client.get("/readyz") as response:
            return response.status == 200
    except aiohttp.ClientConnectionError:
        return False
