"""Claim: from COMMIT to the first attempt p95 < 150 ms and p99 < 500 ms, at 200 events a second.

Escrows are created at that pace through the real ingress, the real worker delivers and mails.
An event's `recorded_at` is taken just before its COMMIT and the attempt at its arrival, so that
what is measured is a little more than what is claimed.
"""

import asyncio
from statistics import quantiles

from bench.ground import Ground
from bench.knock import pace
from bench.report import Finding, below, told
from bench.shop import open_shop
from bench.sink import sink

EVENTS_PER_SECOND = 200
SECONDS = 12.0
SETTLE_SECONDS = 3.0
MOST_MS = 150
MOST_OF_99_MS = 500

RECORDED = """
SELECT id::text, extract(epoch FROM recorded_at)::float8 AS at FROM event
WHERE subject_kind = 'escrow' AND actor_id = $1
"""


async def measure(ground: Ground) -> list[Finding]:
    """Steady traffic for a while; each event's way to the sink."""
    owner = await ground.owner()
    async with sink() as receiver:
        shop = await open_shop(ground, "latency", (receiver.url("latency"),))
        with ground.running("serve") as ingress, ground.running("work"):
            await pace(ingress.port, lambda: shop.request(ingress.port), 50, 2.0)
            sent = await pace(
                ingress.port, lambda: shop.request(ingress.port), EVENTS_PER_SECOND, SECONDS
            )
            await asyncio.sleep(SETTLE_SECONDS)
            arrived = dict(reversed(await receiver.arrivals()))
    recorded = {row["id"]: row["at"] for row in await owner.fetch(RECORDED, shop.developer_id)}
    await owner.close()
    waits_ms = [1000 * (arrived[event] - at) for event, at in recorded.items() if event in arrived]
    if len(waits_ms) < len(recorded):
        raise RuntimeError(f"{len(waits_ms)} of {len(recorded)} events arrived")
    cuts = quantiles(waits_ms, n=100)
    at_pace = f"{sent.per_second:.0f} events/s"
    return [
        below("COMMIT to first attempt, p95", at_pace, cuts[94], MOST_MS, "ms"),
        below("… p99", at_pace, cuts[98], MOST_OF_99_MS, "ms"),
        told("… p50", at_pace, "", f"{cuts[49]:.0f} ms"),
    ]
