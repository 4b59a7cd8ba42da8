"""Claim: a checkout page p95 < 50 ms at 50 requests a second, for the signed-in buyer who pays.

The page that does most: session, visit, escrow, wallet and payments are read, and all of it is
said. The door that anybody sees is measured beside it. The floor is the API's reading of the same
escrow by the same ingress in the same run, one request at a time and by turns.
"""

import secrets
from collections.abc import Callable
from statistics import median, quantiles
from uuid import uuid4

import asyncpg

from bench.ground import HOST, Ground
from bench.knock import Tally, knock, pace
from bench.report import Finding, at_most, below, told
from bench.shop import Shop, create_escrows, open_shop
from service.ingress.pages.visitor import COOKIE
from service.store.vault import hash_token

PER_SECOND, SECONDS, WARM_UP_SECONDS = 50, 8.0, 2.0
MOST_MS = 50
ROUNDS, TURN_SECONDS = 5, 1.0
MOST = 4.0
OK = b"HTTP/1.1 200"

READ_ID = "SELECT id FROM escrow WHERE creator_id = $1"
INSERT_VISIT = """
INSERT INTO visit (token_hash, email, expires_at) VALUES ($1, $2, now() + interval '1 hour')
"""
INSERT_SESSION = """
INSERT INTO checkout_session (id, escrow_id, developer_id, action, email, redirect_url, metadata,
                              expires_at, created_at)
VALUES ($1, $2, $3, 'accept_pay', $4, 'https://shop.example/back', '{}',
        now() + interval '1 hour', now())
"""
VERIFY_PHONE = "UPDATE app_user SET phone_verified_at = now() WHERE email = $1"

Request = Callable[[], bytes]


async def measure(ground: Ground) -> list[Finding]:
    """At a steady pace for the tail; then page and floor by turns for the ratio."""
    shop = await open_shop(ground, "checkout")
    await create_escrows(ground, shop, 1)
    owner = await ground.owner()
    escrow_id, session_id, cookie = await _arranged(owner, shop)
    await owner.close()
    with ground.running("serve") as ingress:
        port = ingress.port
        page = _get(port, f"/checkout/{session_id}", f"Cookie: {COOKIE}={cookie}\r\n")
        door = _get(port, f"/checkout/{session_id}")
        floor = _get(port, f"/api/v1/escrows/{escrow_id}", f"X-API-Key: {shop.api_key}\r\n")
        await pace(port, page, PER_SECOND, WARM_UP_SECONDS, OK)
        paced = await pace(port, page, PER_SECOND, SECONDS, OK)
        seen = await pace(port, door, PER_SECOND, SECONDS, OK)
        turns = [(await _alone(port, page), await _alone(port, floor)) for _ in range(ROUNDS)]
    ours, floors = (median(median(turn[n].waits_seconds) for turn in turns) for n in range(2))
    ratio = median(median(a.waits_seconds) / median(b.waits_seconds) for a, b in turns)
    return [
        below("checkout page, signed in, p95", _pace(paced), _p95_ms(paced), MOST_MS, "ms"),
        below("… before signing in, p95", _pace(seen), _p95_ms(seen), MOST_MS, "ms"),
        at_most(
            "checkout page / the API's reading of the escrow",
            f"{1000 * ours:.1f} ms",
            f"{1000 * floors:.1f} ms",
            ratio,
            MOST,
        ),
        told(
            "… p50 at that pace", _pace(paced), "", f"{1000 * median(paced.waits_seconds):.1f} ms"
        ),
    ]


async def _arranged(
    owner: "asyncpg.Connection[asyncpg.Record]", shop: Shop
) -> tuple[str, str, str]:
    """The escrow, a session of its buyer's, and the cookie of a visit of theirs."""
    escrow_id: str = await owner.fetchval(READ_ID, shop.developer_id)
    session_id, cookie = uuid4(), secrets.token_urlsafe(32)
    await owner.execute(VERIFY_PHONE, shop.buyer_email)
    await owner.execute(INSERT_VISIT, hash_token(cookie), shop.buyer_email)
    await owner.execute(INSERT_SESSION, session_id, escrow_id, shop.developer_id, shop.buyer_email)
    return escrow_id, str(session_id), cookie


def _get(port: int, path: str, headers: str = "") -> Request:
    asked = f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\n{headers}\r\n".encode()
    return lambda: asked


async def _alone(port: int, request: Request) -> Tally:
    return await knock(port, request, connections=1, seconds=TURN_SECONDS, expect=OK)


def _pace(tally: Tally) -> str:
    return f"{tally.per_second:.0f} pages/s"


def _p95_ms(tally: Tally) -> float:
    return 1000 * quantiles(tally.waits_seconds, n=100)[94]
