"""The ingress as a process: health, readiness, figures, start and drain."""

import asyncio
import json
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
                {"status": "ready", "database": "ok", "redis": "ok", "storage": "ok"},
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


@pytest.fixture
async def process(environ, unused_tcp_port):
    """An ingress of its own, ready; its port is `process.port`."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        PROGRAM,
        env=os.environ | environ | {"PORT": str(unused_tcp_port), "AMANA_HOST": "127.0.0.1"},
        stdout=asyncio.subprocess.PIPE,
    )
    process.port = unused_tcp_port
    async with aiohttp.ClientSession(f"http://127.0.0.1:{unused_tcp_port}") as client:
        async with asyncio.timeout(30):
            while not await answers(client):  # noqa: ASYNC110 - another process has no event
                await asyncio.sleep(0.05)
    yield process
    if process.returncode is None:
        process.kill()
        await process.wait()


async def test_a_request_in_flight_is_answered_after_sigterm_and_no_other(process, enrolled, owner):
    dev = await enrolled()
    body = b'{"title":"A site","amount":20,"buyerEmail":"b@example.com","mode":"instant"}'
    reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
    async with owner.transaction():
        await owner.execute("LOCK TABLE escrow IN ACCESS EXCLUSIVE MODE")
        writer.write(
            f"POST /api/v1/escrows HTTP/1.1\r\nHost: x\r\nX-API-Key: {dev.key}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n".encode()
            + body
        )
        await asyncio.sleep(0.3)
        began = time.monotonic()
        process.send_signal(signal.SIGTERM)
        await asyncio.sleep(0.3)
        with pytest.raises(ConnectionRefusedError):
            await asyncio.open_connection("127.0.0.1", process.port)
    answer = await reader.read()
    writer.close()
    out, _ = await process.communicate()
    assert answer.startswith(b"HTTP/1.1 201 Created")
    assert process.returncode == 0
    assert time.monotonic() - began < 10
    lines = [json.loads(line) for line in out.splitlines()]
    assert (lines[0]["event"], lines[-1]["event"]) == ("ingress_started", "ingress_stopped")
    assert dev.key not in out.decode()


async def test_bytes_that_are_no_http_leave_no_trace_of_their_secrets(process):
    reader, writer = await asyncio.open_connection("127.0.0.1", process.port)
    writer.write(b"GET / HTTP/1.1\r\nHost: x\r\nX-API-Key\x00: sk_live_secret\r\n\r\n")
    assert (await reader.read()).startswith(b"HTTP/1.0 400")
    writer.close()
    process.send_signal(signal.SIGTERM)
    out, _ = await process.communicate()
    assert b"sk_live_secret" not in out


async def answers(client):
    try:
        async with client.get("/readyz") as response:
            return response.status == 200
    except aiohttp.ClientConnectionError:
        return False
