"""Claim: create over HTTP >= 0.4 x a bare aiohttp handler that does one INSERT of that size.

Both behind the same client with the same number of connections, on uvloop, on the same server
with synchronous_commit on, with a pool of the same size; by turns, so that both see the same
machine. The floor reads JSON, writes a row as long as ours, answers. It is bare, as the libraries
come; beside it stands one whose pool spares the session's reset after each use, as ours does.
"""

import multiprocessing
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from itertools import count
from statistics import median, quantiles
from typing import Any

import asyncpg
import orjson
import uvloop
from aiohttp import web

from bench.ground import HOST, Ground, wait_listening
from bench.knock import Tally, knock
from bench.report import Finding, at_least, told
from bench.shop import TERMS, open_shop, request_bytes
from service.cli.ports import find_free_port

CONNECTIONS = 128
POOL_SIZE = 8  # as `amana serve` has it
ROUNDS = 5
SECONDS = 1.5
WARM_UP_SECONDS = 1.0
LEAST = 0.4

MAKE_FLOOR = """
CREATE TABLE bench_floor (id text PRIMARY KEY, row text NOT NULL);
GRANT INSERT ON bench_floor TO amana_app;
"""
INSERT_FLOOR = "INSERT INTO bench_floor (id, row) VALUES ($1, $2)"
OUR_ROW_BYTES = "SELECT avg(pg_column_size(e.*))::int FROM escrow e"


POOL = web.AppKey("pool", asyncpg.Pool)


def serve_floor(url: str, port: int, row_bytes: int, *, resets: bool) -> None:
    """A floor's process: one handler, one INSERT."""
    row = "x" * row_bytes
    reset = None if resets else _leave_as_is

    async def opened(app: web.Application) -> AsyncIterator[None]:
        async with asyncpg.create_pool(url, min_size=1, max_size=POOL_SIZE, reset=reset) as pool:
            app[POOL] = pool
            yield

    async def create(request: web.Request) -> web.Response:
        await request.json()
        row_id = secrets.token_hex(12)
        await request.app[POOL].execute(INSERT_FLOOR, row_id, row)
        return web.json_response({"id": row_id}, status=201)

    app = web.Application()
    app.cleanup_ctx.append(opened)
    app.router.add_post("/create", create)
    web.run_app(
        app, host=HOST, port=port, loop=uvloop.new_event_loop(), access_log=None, print=None
    )


async def _leave_as_is(_: Any) -> None:
    """As our pool has it: nobody has changed the session."""


async def measure(ground: Ground) -> list[Finding]:
    """Floor, known buyer, invited buyer, by turns."""
    shop = await open_shop(ground, "create")
    numbers = count()
    with ground.running("serve") as ingress:

        def known() -> bytes:
            return shop.request(ingress.port)

        def invited() -> bytes:
            return shop.request(ingress.port, f"new-{next(numbers)}@buyer.example")

        async def ours(request: Callable[[], bytes], seconds: float = SECONDS) -> Tally:
            return await knock(ingress.port, request, connections=CONNECTIONS, seconds=seconds)

        await ours(known, WARM_UP_SECONDS)
        await ours(invited, WARM_UP_SECONDS)
        async with _floors(ground) as (bare, lean):
            await bare(WARM_UP_SECONDS)
            await lean(WARM_UP_SECONDS)
            turns = [
                (await bare(SECONDS), await ours(known), await lean(SECONDS), await ours(invited))
                for _ in range(ROUNDS)
            ]
    return _found(turns)


Floor = Callable[[float], Awaitable[Tally]]


@asynccontextmanager
async def _floors(ground: Ground) -> AsyncIterator[tuple[Floor, Floor]]:
    """The bare one and the lean one, for as long as the block."""
    owner = await ground.owner()
    await owner.execute(MAKE_FLOOR)
    row_bytes = await owner.fetchval(OUR_ROW_BYTES)
    await owner.close()
    async with AsyncExitStack() as stack:
        bare, lean = [
            await stack.enter_async_context(_floor(ground, row_bytes, resets=resets))
            for resets in (True, False)
        ]
        yield bare, lean


@asynccontextmanager
async def _floor(ground: Ground, row_bytes: int, *, resets: bool) -> AsyncIterator[Floor]:
    port = find_free_port()
    process = multiprocessing.get_context("spawn").Process(
        target=serve_floor,
        args=(ground.urls.application(), port, row_bytes),
        kwargs={"resets": resets},
        daemon=True,
    )
    process.start()
    try:
        await wait_listening(port)
        request = request_bytes("/create", port, orjson.dumps(TERMS))
        yield lambda seconds: knock(port, lambda: request, connections=CONNECTIONS, seconds=seconds)
    finally:
        process.terminate()
        process.join(10)


def _found(turns: Sequence[tuple[Tally, Tally, Tally, Tally]]) -> list[Finding]:
    bare, known, lean, invited = (
        median(turn[side].per_second for turn in turns) for side in range(4)
    )

    def ratio(ours: int, floor: int) -> float:
        return median(turn[ours].per_second / turn[floor].per_second for turn in turns)

    slow_ms = 1000 * median(quantiles(turn[1].waits_seconds, n=100)[98] for turn in turns)
    return [
        at_least(
            "create over HTTP / a bare handler with one INSERT",
            f"{known:.0f}/s",
            f"{bare:.0f}/s",
            ratio(1, 0),
            LEAST,
        ),
        told(
            "… with a buyer who is invited",
            f"{invited:.0f}/s",
            f"{bare:.0f}/s",
            f"{ratio(3, 0):.2f} x",
        ),
        told(
            "… / the handler with a pool that resets nothing",
            f"{known:.0f}/s",
            f"{lean:.0f}/s",
            f"{ratio(1, 2):.2f} x",
        ),
        told(f"… its p99 over {CONNECTIONS} connections", f"{slow_ms:.0f} ms"),
    ]
