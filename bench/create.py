"""Claim: create over HTTP >= 0.4 x a bare aiohttp handler that does one INSERT of that size.

Both behind the same client with the same number of connections, many and then few, on uvloop, on
the same server with synchronous_commit on, with a pool of the same size; by turns, so that both see
the same machine. The floor reads JSON, writes a row as long as ours, answers. It is bare, as the
libraries come; beside it stands one whose pool spares the session's reset after each use, as ours
does. Few connections are harder for us: what comes at once is less, and a group costs as much.
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
FEW_CONNECTIONS = 32
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
    """Floor, known buyer, invited buyer, by turns; then floors and known buyer over few lines."""
    shop = await open_shop(ground, "create")
    numbers = count()
    with ground.running("serve") as ingress:

        def known() -> bytes:
            return shop.request(ingress.port)

        def invited() -> bytes:
            return shop.request(ingress.port, f"new-{next(numbers)}@buyer.example")

        async def ours(
            request: Callable[[], bytes], seconds: float = SECONDS, connections: int = CONNECTIONS
        ) -> Tally:
            return await knock(ingress.port, request, connections=connections, seconds=seconds)

        await ours(known, WARM_UP_SECONDS)
        await ours(invited, WARM_UP_SECONDS)
        async with _floors(ground) as (bare, lean):
            await bare(WARM_UP_SECONDS, CONNECTIONS)
            await lean(WARM_UP_SECONDS, CONNECTIONS)
            turns = [
                (
                    await bare(SECONDS, CONNECTIONS),
                    await ours(known),
                    await lean(SECONDS, CONNECTIONS),
                    await ours(invited),
                )
                for _ in range(ROUNDS)
            ]
            few = [
                (
                    await bare(SECONDS, FEW_CONNECTIONS),
                    await ours(known, SECONDS, FEW_CONNECTIONS),
                    await lean(SECONDS, FEW_CONNECTIONS),
                )
                for _ in range(ROUNDS)
            ]
    return _found(turns) + _found_few(few)


Floor = Callable[[float, int], Awaitable[Tally]]


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
        yield lambda seconds, connections: knock(
            port, lambda: request, connections=connections, seconds=seconds
        )
    finally:
        process.terminate()
        process.join(10)


Turns = Sequence[tuple[Tally, ...]]


def _rate(turns: Turns, side: int) -> float:
    return median(turn[side].per_second for turn in turns)


def _ratio(turns: Turns, ours: int, floor: int) -> float:
    return median(turn[ours].per_second / turn[floor].per_second for turn in turns)


def _found(turns: Turns) -> list[Finding]:
    bare, known, lean, invited = (_rate(turns, side) for side in range(4))
    slow_ms = 1000 * median(quantiles(turn[1].waits_seconds, n=100)[98] for turn in turns)
    return [
        at_least(
            "create over HTTP / a bare handler with one INSERT",
            f"{known:.0f}/s",
            f"{bare:.0f}/s",
            _ratio(turns, 1, 0),
            LEAST,
        ),
        told(
            "… with a buyer who is invited",
            f"{invited:.0f}/s",
            f"{bare:.0f}/s",
            f"{_ratio(turns, 3, 0):.2f} x",
        ),
        told(
            "… / the handler with a pool that resets nothing",
            f"{known:.0f}/s",
            f"{lean:.0f}/s",
            f"{_ratio(turns, 1, 2):.2f} x",
        ),
        told(f"… its p99 over {CONNECTIONS} connections", f"{slow_ms:.0f} ms"),
    ]


def _found_few(turns: Turns) -> list[Finding]:
    bare, known, lean = (_rate(turns, side) for side in range(3))
    return [
        at_least(
            f"create over HTTP / a bare handler, over {FEW_CONNECTIONS} connections",
            f"{known:.0f}/s",
            f"{bare:.0f}/s",
            _ratio(turns, 1, 0),
            LEAST,
        ),
        told(
            "… / the handler with a pool that resets nothing",
            f"{known:.0f}/s",
            f"{lean:.0f}/s",
            f"{_ratio(turns, 1, 2):.2f} x",
        ),
    ]
