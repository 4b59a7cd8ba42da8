"""What is answered around the door, where no middleware stands."""

import aiohttp
from aiohttp import web
from structlog.testing import capture_logs

from service.ingress.connection import Runner


async def fail(request):
    raise ZeroDivisionError("secret")


async def begin_and_fail(request):
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"begun")
    raise ZeroDivisionError("secret")


async def test_a_failure_around_the_door_is_500_in_json_and_told_in_the_log_only(caplog):
    app = web.Application()
    app.router.add_get("/", fail)
    app.router.add_get("/begun", begin_and_fail)
    runner = Runner(app, access_log=None, shutdown_timeout=1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    url = f"http://127.0.0.1:{runner.addresses[0][1]}"
    try:
        with capture_logs() as lines:
            async with aiohttp.ClientSession(url) as client, client.get("/") as response:
                body = await response.json()
            async with aiohttp.ClientSession(url) as client, client.get("/begun") as begun:
                assert begun.status == 200
    finally:
        await runner.cleanup()
    assert (response.status, body["error"]) == (500, "Internal Server Error")
    assert response.headers["X-Request-Id"] in body["message"]
    assert [line["event"] for line in lines] == ["request_failed"] * 2
    assert isinstance(lines[0]["exc_info"], ZeroDivisionError)
    assert caplog.records == []
