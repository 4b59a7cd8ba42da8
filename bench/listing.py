"""Claim: a list by cursor takes < 1.2 x as long among 1 000 000 escrows as among 10 000.

Most of them are the asking developer's, as creator and by the user that sells: few lists are
longer. Two databases on the same server, one with the first 10 000 and one with all, each behind an
ingress of its own, are asked by turns for pages at every depth, so that both see the same machine.
They are filled by set-based SQL, with the rows that a list looks at (escrow, contract, deadline)
and no others.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import cycle
from statistics import median
from typing import Any

import asyncpg

from bench.ground import HOST, Ground
from bench.knock import Tally, knock
from bench.report import Finding, at_most, told
from bench.shop import Shop, create_escrows, open_shop
from service.cli.postgres import DATABASE
from service.store.escrows import Scope, list_escrows

FEW, MANY = 10_000, 1_000_000
DATABASE_OF_FEW = "amana_few"
LIMIT = 20
PENDING = "&status=pending"
DEPTHS = 499
CONNECTIONS = 2
WARM_UPS, ROUNDS = 1, 7
SECONDS = 1.0
MOST = 1.2

# The owner's session: a copy refers to nothing that is new, so that neither the checks of foreign
# keys nor a wait for the disk would change what is measured.
SESSION = ("SET session_replication_role = replica", "SET synchronous_commit = off")
# Copies of the escrows that the shop and its neighbour have opened, a minute apart and long ago;
# every second one is standard and has its contract, every twentieth still waits for its buyer. The
# neighbour has every fourth of the older half: a large customer who has gone quiet.
NUMBER = """
CREATE UNLOGGED TABLE filled AS
SELECT n, at, lpad(to_hex((extract(epoch FROM at) * 1000)::bigint), 12, '0')
              || lpad(to_hex(n), 12, '0') AS id,
       CASE n % 2 WHEN 0 THEN 'standard' ELSE 'instant' END AS mode,
       CASE n % 20 WHEN 0 THEN 'pending' ELSE 'cancelled' END AS status,
       CASE WHEN n % 20 > 0 THEN at + interval '1 month' END AS ended_at
FROM (SELECT n, timestamptz '2020-01-01' + n * interval '1 minute' AS at
      FROM generate_series({first}, {last}) AS n) AS numbered
"""
FILL_ESCROWS = """
INSERT INTO escrow (
    id, mode, status, seq, creator_id, seller_id, seller_email, buyer_id, buyer_email, title,
    currency, ledger_currency, amount_minor, fx_rate, amount_ledger_minor, escrow_fee_minor,
    estimated_delivery_days, cancel_reason, cancelled_at, expires_at, created_at, updated_at)
SELECT f.id, f.mode, f.status, 1, e.creator_id, e.seller_id, e.seller_email, e.buyer_id,
       e.buyer_email, e.title || ' no. ' || f.n, e.currency, e.ledger_currency, e.amount_minor,
       e.fx_rate, e.amount_ledger_minor, e.escrow_fee_minor, e.estimated_delivery_days,
       CASE WHEN f.ended_at IS NOT NULL THEN 'expired' END, f.ended_at,
       f.at + interval '1 month', f.at, coalesce(f.ended_at, f.at)
FROM filled f
JOIN escrow e
    ON e.id = CASE WHEN f.n % 4 = 3 AND f.n < {middle} THEN '{neighbours}' ELSE '{sample}' END
ORDER BY f.n
"""
FILL_CONTRACTS = """
INSERT INTO contract (id, escrow_id, terms, created_at, updated_at)
SELECT id, id, 'As described.', at, at FROM filled WHERE mode = 'standard' ORDER BY n
"""
FILL_DEADLINES = """
INSERT INTO deadline (escrow_id, kind, due_at, armed_version, fired_at)
SELECT id, 'expiry', at + interval '1 month', 1, ended_at FROM filled ORDER BY n
"""
FORGET = "DROP TABLE filled"
FRESH = ("VACUUM ANALYZE escrow", "VACUUM ANALYZE contract", "VACUUM ANALYZE deadline")
READ_IDS = "SELECT id FROM escrow WHERE creator_id = $1 ORDER BY id DESC"
READ_SELLER = "SELECT user_id FROM developer WHERE id = $1"
COPY_DATABASE = f"CREATE DATABASE {DATABASE_OF_FEW} TEMPLATE {DATABASE}"
PLAN_MODES = ("force_custom_plan", "force_generic_plan")
"""The server takes either, as it thinks fit."""
INDEXES = {"escrow_of_seller", "escrow_of_buyer", "escrow_of_creator"}

Asking = Callable[[str], Awaitable[Tally]]


async def measure(ground: Ground) -> list[Finding]:
    """The few and the many by turns, then what of the many is told and not bounded."""
    shop, neighbour = [await open_shop(ground, name) for name in ("listing", "neighbour")]
    for one in (shop, neighbour):
        await create_escrows(ground, one, 1)
    began = time.perf_counter()
    await _fill(ground, shop, neighbour)
    fill_seconds = time.perf_counter() - began
    few = {"DATABASE_URL": ground.urls.application(DATABASE_OF_FEW)}
    with ground.running("serve", **few) as small, ground.running("serve") as large:
        of_few = await _asking(ground, shop, small.port, DATABASE_OF_FEW)
        of_many = await _asking(ground, shop, large.port, DATABASE)
        plain = [(await of_few(""), await of_many("")) for _ in range(WARM_UPS + ROUNDS)]
        sifted = [(await of_few(PENDING), await of_many(PENDING)) for _ in range(WARM_UPS + ROUNDS)]
        nowhere = await of_many("&q=nowhere")
    looked_at = await _look_at_plans(ground, shop, neighbour)
    return [
        _compared("list by cursor", plain[WARM_UPS:], MOST),
        _compared("… of the status that every twentieth has", sifted[WARM_UPS:]),
        *looked_at,
        told("a page by a text that none has, which reads all after the cursor", _shown(nowhere)),
        told(f"filling {MANY:,} escrows", f"{fill_seconds:.0f} s"),
    ]


async def _fill(ground: Ground, shop: Shop, neighbour: Shop) -> None:
    """The few; a copy of the database as it is then; the rest of the many."""
    owner = await ground.owner()
    samples = [await owner.fetchval(READ_IDS, one.developer_id) for one in (shop, neighbour)]
    await owner.close()
    await _fill_from(ground, 1, FEW - len(samples), *samples)
    keeper = await asyncpg.connect(ground.urls.owner("postgres"))
    await keeper.execute(COPY_DATABASE)
    await keeper.close()
    await _fill_from(ground, FEW - len(samples) + 1, MANY - len(samples), *samples)


async def _fill_from(
    ground: Ground, first: int, last: int, sample: str, neighbours_sample: str
) -> None:
    """These numbers, on both of the machine's cores."""
    escrows = FILL_ESCROWS.format(sample=sample, neighbours=neighbours_sample, middle=MANY // 2)
    await _as_owner(ground, NUMBER.format(first=first, last=last))
    await asyncio.gather(
        _as_owner(ground, escrows),
        _as_owner(ground, FILL_CONTRACTS, FILL_DEADLINES),
    )
    await _as_owner(ground, FORGET, *FRESH)


async def _as_owner(ground: Ground, *statements: str) -> None:
    owner = await ground.owner()
    for statement in (*SESSION, *statements):
        await owner.execute(statement)
    await owner.close()


async def _asking(ground: Ground, shop: Shop, port: int, database: str) -> Asking:
    """Asks for a while for pages at every depth of this database, sifted by a query's end."""
    connection = await asyncpg.connect(ground.urls.owner(database))
    ids = [row["id"] for row in await connection.fetch(READ_IDS, shop.developer_id)]
    await connection.close()
    cursors = cycle(ids[:: len(ids) // DEPTHS])

    async def ask(sieve: str) -> Tally:
        def request() -> bytes:
            path = f"/api/v1/escrows?limit={LIMIT}&cursor={next(cursors)}{sieve}"
            return (
                f"GET {path} HTTP/1.1\r\nHost: {HOST}:{port}\r\nX-API-Key: {shop.api_key}\r\n\r\n"
            ).encode()

        return await knock(
            port, request, connections=CONNECTIONS, seconds=SECONDS, expect=b"HTTP/1.1 200"
        )

    return ask


class Plans:
    """A reader that has every statement explained as it runs, and gives no rows."""

    def __init__(self, connection: Any) -> None:
        self._connection = connection
        self.nodes: list[dict[str, Any]] = []

    async def fetch(self, query: str, *args: object) -> list[Any]:
        explained = await self._connection.fetchval(
            f"EXPLAIN (ANALYZE, FORMAT JSON) {query}", *args
        )
        self.nodes = list(_nodes(json.loads(explained)[0]["Plan"]))
        return []

    fetchrow = fetchval = fetch  # of a reader's, not used here


def _nodes(plan: dict[str, Any]) -> Iterator[dict[str, Any]]:
    yield plan
    for part in plan.get("Plans", ()):
        yield from _nodes(part)


async def _look_at_plans(ground: Ground, shop: Shop, neighbour: Shop) -> list[Finding]:
    """How many escrows a page looks at; raises when an arm does not walk its own index."""
    owner = await ground.owner()
    ids = await owner.fetch(READ_IDS, shop.developer_id)
    middle, plans = ids[len(ids) // 2]["id"], Plans(owner)
    asked = (
        ("rows of escrow looked at for a page from the middle", shop, None, middle),
        ("… of one status", shop, "pending", middle),
        ("… for the first page of who has gone quiet", neighbour, None, None),
    )
    found = []
    for claim, whose, status, before in asked:
        user_id = await owner.fetchval(READ_SELLER, whose.developer_id)
        scope = Scope(user_id, user_id, whose.developer_id, status)
        counts = []
        for mode in PLAN_MODES:
            await owner.execute(f"SET plan_cache_mode = {mode}")
            await list_escrows(plans, scope, before=before, limit=LIMIT + 1, offset=0)
            counts.append(_looked_at(plans.nodes))
        found.append(told(claim, f"{max(counts):,.0f}"))
    await owner.close()
    return found


def _looked_at(nodes: Sequence[dict[str, Any]]) -> float:
    """The rows that the arms have fetched, each along its own index."""
    scans = [node for node in nodes if node.get("Relation Name") == "escrow"]
    arms = [node for node in scans if node.get("Index Name") in INDEXES]
    rest = {node.get("Index Name") for node in scans if node not in arms}
    if {arm["Index Name"] for arm in arms} != INDEXES or rest != {"escrow_pkey"}:
        raise RuntimeError(f"an arm does not walk its own index: {scans}")
    return sum(arm["Actual Rows"] + arm.get("Rows Removed by Filter", 0) for arm in arms)


def _compared(
    claim: str, turns: Sequence[tuple[Tally, Tally]], most: float | None = None
) -> Finding:
    """The time of an answer among the many as a multiple of that among the few."""
    few, many = (median(median(turn[n].waits_seconds) for turn in turns) for n in range(2))
    ratio = median(median(b.waits_seconds) / median(a.waits_seconds) for a, b in turns)
    claim = f"{claim} among {MANY:,} / among {FEW:,}"
    ours, floor = f"{1000 * many:.2f} ms", f"{1000 * few:.2f} ms"
    if most is None:
        return told(claim, ours, floor, f"{ratio:.2f} x")
    return at_most(claim, ours, floor, ratio, most)


def _shown(tally: Tally) -> str:
    return f"{1000 * median(tally.waits_seconds):.0f} ms"
