"""Claim: one dead endpoint with 200 000 due deliveries moves the healthy ones' p95 by < 10 %.

Escrows are created at a steady pace through the real ingress; the real worker delivers them to a
healthy endpoint. In between a second endpoint, which takes every connection and never answers, is
given its backlog. Without it before, without it after; what counts is the median of each.
And: four workers beside one, with the same deliveries: nothing is sent twice, and no endpoint ever
has more in flight than its cap.
"""

import asyncio
import os
import socket
import time
from collections import Counter
from contextlib import ExitStack
from statistics import median, quantiles

from bench.deliver import PUT_MAILS_ASIDE, SETTLED
from bench.ground import HOST, Ground
from bench.knock import pace
from bench.latency import RECORDED
from bench.report import Finding, at_least, at_most, below, told
from bench.shop import Shop, create_escrows, open_shop
from bench.sink import Sink, sink

BACKLOG = 200_000
EVENTS_PER_SECOND = 100
SECONDS = 8.0
SETTLE_SECONDS = 2.0
MOST = 1.1

ENDPOINTS = 16
EVENTS = 800
WORKERS = 4
WITHIN_SECONDS = 60.0
LEAST = 1.5
CAP = 16
THINK_SECONDS = 0.01
"""So long an endpoint takes to answer, so that what is in flight there can be counted."""
CORES = 6
"""Four workers, PostgreSQL and the sink: on fewer, the processes take them from each other."""

# Due deliveries with bodies and no events: nothing reads those once a delivery is made.
FILL = """
WITH made AS (
    INSERT INTO delivery (id, endpoint_id, event_id, recorded_at, position, type, visible_at,
                          created_at)
    SELECT gen_random_uuid(), $1, gen_random_uuid(), now() - interval '1 min', n, 'backlog',
           now() - interval '1 min', now()
    FROM generate_series(1, $2::int) AS n
    RETURNING event_id, recorded_at
)
INSERT INTO webhook_body SELECT event_id, recorded_at, '{"type":"backlog"}' FROM made
"""
HINT = "UPDATE lane SET next_due_at = now(), first_due_at = '-infinity' WHERE endpoint_id = $1"
ENDPOINT = "SELECT id FROM webhook_endpoint WHERE url = $1"
DROP = "DELETE FROM delivery WHERE type = 'backlog'"
LEFT = """
SELECT count(*) FILTER (WHERE state = 'pending') AS due, coalesce(sum(attempt), 0) AS attempts
FROM delivery WHERE type = 'backlog'
"""
TWICE = "SELECT count(*) FROM delivery WHERE attempt > 1 AND type <> 'backlog'"


async def measure(ground: Ground) -> list[Finding]:
    """The healthy ones' waits without, with, with and without a backlog."""
    async with sink() as receiver:
        return await _lane_fair(ground, receiver)


async def measure_workers(ground: Ground) -> list[Finding]:
    """The same deliveries by one worker, then by several."""
    async with sink(THINK_SECONDS) as receiver:
        return await _workers(ground, receiver)


async def _lane_fair(ground: Ground, receiver: Sink) -> list[Finding]:
    owner = await ground.owner()
    with socket.create_server((HOST, 0), backlog=1024) as silent:
        url = f"http://{HOST}:{silent.getsockname()[1]}/dead"
        await open_shop(ground, "dead", (url,))
        dead = await owner.fetchval(ENDPOINT, url)
        healthy = await open_shop(ground, "healthy", (receiver.url("healthy"),))
        without = [await _waits_ms(ground, healthy, receiver)]
        await owner.execute("SET session_replication_role = replica")
        await owner.execute(FILL, dead, BACKLOG)
        await owner.execute("ANALYZE delivery, webhook_body")
        await owner.execute(HINT, dead)
        beside = [await _waits_ms(ground, healthy, receiver) for _ in range(2)]
        left = await owner.fetchrow(LEFT)
        await owner.execute(DROP)
        await owner.execute("VACUUM ANALYZE delivery")
        without.append(await _waits_ms(ground, healthy, receiver))
    await owner.close()
    p95s = [median(quantiles(waits, n=100)[94] for waits in side) for side in (beside, without)]
    p50s = [median(median(waits) for waits in side) for side in (beside, without)]
    return [
        at_most(
            f"healthy p95 beside a dead endpoint with {BACKLOG:,} due / without it",
            f"{p95s[0]:.0f} ms",
            f"{p95s[1]:.0f} ms",
            p95s[0] / p95s[1],
            MOST,
        ),
        told("… their p50", f"{p50s[0]:.0f} ms", f"{p50s[1]:.0f} ms"),
        told("… attempts that the dead one has burned meanwhile", f"{left['attempts']}"),
    ]


async def _waits_ms(ground: Ground, shop: Shop, receiver: Sink) -> list[float]:
    """From commit to arrival, of each event of a while of steady traffic."""
    with ground.running("serve") as ingress, ground.running("work"):
        await pace(ingress.port, lambda: shop.request(ingress.port), 50, 2.0)
        await asyncio.sleep(SETTLE_SECONDS)
        await receiver.arrivals()
        began = time.time()
        await pace(ingress.port, lambda: shop.request(ingress.port), EVENTS_PER_SECOND, SECONDS)
        await asyncio.sleep(SETTLE_SECONDS)
        arrived = dict(reversed(await receiver.arrivals()))
    owner = await ground.owner()
    recorded = {
        row["id"]: row["at"]
        for row in await owner.fetch(RECORDED, shop.developer_id)
        if row["at"] >= began
    }
    await owner.close()
    if missing := set(recorded) - set(arrived):
        raise RuntimeError(f"{len(missing)} of {len(recorded)} events did not arrive")
    return [1000 * (arrived[event] - at) for event, at in recorded.items()]


async def _workers(ground: Ground, receiver: Sink) -> list[Finding]:
    urls = tuple(receiver.url(f"many/{n}") for n in range(ENDPOINTS))
    shop = await open_shop(ground, "workers", urls)
    rates = {1: 0.0, WORKERS: 0.0}
    for count in rates:
        rates[count] = await _rate(ground, shop, receiver, count)
    most = await receiver.most_at_once()
    owner = await ground.owner()
    twice = await owner.fetchval(TWICE)
    await owner.close()
    claim = f"{WORKERS} workers / one, with {os.cpu_count()} cores"
    ours, floor = f"{rates[WORKERS]:.0f}/s", f"{rates[1]:.0f}/s"
    ratio = rates[WORKERS] / rates[1]
    return [
        at_least(claim, ours, floor, ratio, LEAST)
        if (os.cpu_count() or 1) >= CORES
        else told(claim, ours, floor, f"{ratio:.2f} x"),
        below("… deliveries that were claimed twice", "", twice, 1, ""),
        below(
            f"… most in flight at one of {len(most)} endpoints, whose cap is {CAP}",
            "",
            max(most.values()),
            CAP + 1,
            "",
        ),
    ]


async def _rate(ground: Ground, shop: Shop, receiver: Sink, workers: int) -> float:
    """Deliveries a second until the last is settled, by so many workers."""
    owner = await ground.owner()
    await create_escrows(ground, shop, EVENTS)
    await owner.execute(PUT_MAILS_ASIDE)
    await receiver.arrivals()
    before, _ = await owner.fetchrow(SETTLED)
    give_up_at = time.monotonic() + WITHIN_SECONDS
    with ExitStack() as stack:
        for _ in range(workers):
            stack.enter_context(ground.running("work"))
        while True:
            count, last = await owner.fetchrow(SETTLED)
            if count - before >= EVENTS * ENDPOINTS:
                break
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"{count - before} were delivered")
            await asyncio.sleep(0.1)
    arrivals = await receiver.arrivals()
    await owner.close()
    per_event = Counter(event for event, _ in arrivals)
    if set(per_event.values()) != {ENDPOINTS}:
        raise RuntimeError("an event did not arrive once at each endpoint")
    return EVENTS * ENDPOINTS / (float(last) - min(at for _, at in arrivals))
