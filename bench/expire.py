"""Claim: expiring 20 000 overdue escrows >= 0.1 x the same rows changed by plain set-based SQL.

Ours is the worker's sweep, beside everything else that a worker does, from its first event to its
last. The floor is one statement a table in one transaction: as many escrows and deadlines changed,
as many events, webhook bodies and mails written, with the same indexes, of the same size.
"""

import asyncio
import time

import asyncpg

from bench.ground import Ground
from bench.report import Finding, at_least
from bench.shop import create_escrows, open_shop

ESCROWS = 20_000
WITHIN_SECONDS = 120.0
LEAST = 0.1

# Copies of the escrow that the shop has opened, each with its first event and its deadline. Ours
# ('a…') are overdue, the floor's ('f…') are not: the worker leaves them alone.
COPY = """
CREATE TEMP SEQUENCE number;
CREATE TEMP TABLE copied AS
SELECT e.* FROM escrow e CROSS JOIN generate_series(1, {escrows} * 2)
WHERE e.creator_id = '{developer_id}';
UPDATE copied SET id =
    to_hex(10 + nextval('number') % 2 * 5) || lpad(currval('number')::text, 23, '0');
INSERT INTO event (subject_id, seq, subject_kind, id, type, family, mode, step, from_state,
                   to_state, actor_kind, at, fanned_at)
SELECT c.id, 1, 'escrow', gen_random_uuid(), v.type, v.family, v.mode, v.step, v.from_state,
       v.to_state, v.actor_kind, v.at, clock_timestamp()
FROM copied c CROSS JOIN event v JOIN escrow e ON e.id = v.subject_id
WHERE e.creator_id = '{developer_id}' AND v.seq = 1;
INSERT INTO escrow SELECT * FROM copied;
INSERT INTO deadline (escrow_id, kind, due_at, armed_version)
SELECT id, 'expiry', now() + CASE WHEN id < 'b' THEN '-1 hour' ELSE '1 day' END::interval, 1
FROM copied;
"""
FRESH = ("VACUUM ANALYZE escrow", "VACUUM ANALYZE event", "VACUUM ANALYZE deadline")
SWEPT = """
SELECT count(*) AS count, extract(epoch FROM max(recorded_at) - min(recorded_at))::float8 AS seconds
FROM event WHERE step = 'cancel' AND subject_id < 'b' AND actor_kind = 'clock'
"""
# What one expiry of ours has written: the floor writes the same.
SAMPLE = """
CREATE TEMP TABLE sample AS
SELECT b.body, array_agg(m.facts) AS facts
FROM event v JOIN webhook_body b ON b.event_id = v.id JOIN mail m ON m.escrow_id = v.subject_id
WHERE v.step = 'cancel' AND v.subject_id = 'a' || lpad('2', 23, '0')
GROUP BY b.body
"""
FLOOR = """
CREATE TEMP TABLE chosen AS SELECT id, gen_random_uuid() AS event_id FROM copied WHERE id > 'b';
BEGIN;
UPDATE escrow SET status = 'cancelled', seq = 2, cancel_reason = 'expired', cancelled_at = now(),
    updated_at = now()
FROM chosen WHERE escrow.id = chosen.id;
UPDATE deadline SET fired_at = now() FROM chosen WHERE escrow_id = chosen.id;
INSERT INTO event (subject_id, seq, subject_kind, id, type, family, mode, step, from_state,
                   to_state, actor_kind, at)
SELECT id, 2, 'escrow', event_id, 'escrow.status.updated', 'escrow', 'instant', 'cancel',
       'pending', 'cancelled', 'clock', now()
FROM chosen;
INSERT INTO webhook_body (event_id, recorded_at, body)
SELECT event_id, clock_timestamp(), body FROM chosen CROSS JOIN sample;
INSERT INTO mail (id, recipient, template, language, facts, escrow_id, dedupe_key, message_id,
                  visible_at, created_at)
SELECT to_hex(n + 9) || substr(id, 2), 'somebody@buyer.example', 'escrow_cancelled', 'en', f.facts,
       id, 'escrow_cancelled:' || id || ':' || n, '<' || n || substr(id, 2) || '@localhost>',
       now(), now()
FROM chosen CROSS JOIN sample CROSS JOIN unnest(sample.facts) WITH ORDINALITY AS f (facts, n);
COMMIT;
"""


async def measure(ground: Ground) -> list[Finding]:
    """The worker's copies, then the floor's."""
    shop = await open_shop(ground, "expire")
    await create_escrows(ground, shop, 1)
    owner = await ground.owner()
    await owner.execute(COPY.format(escrows=ESCROWS, developer_id=shop.developer_id))
    for statement in FRESH:
        await owner.execute(statement)
    ours = ESCROWS / await _swept_seconds(ground, owner)
    await owner.execute(SAMPLE)
    began = time.perf_counter()
    await owner.execute(FLOOR)
    floor = ESCROWS / (time.perf_counter() - began)
    await owner.close()
    return [
        at_least(
            f"expire {ESCROWS:,} escrows / change as many rows by SQL",
            f"{ours:.0f}/s",
            f"{floor:.0f}/s",
            ours / floor,
            LEAST,
        )
    ]


async def _swept_seconds(ground: Ground, owner: "asyncpg.Connection[asyncpg.Record]") -> float:
    """How long the worker's sweep took over all of them."""
    give_up_at = time.monotonic() + WITHIN_SECONDS
    with ground.running("work"):
        while True:
            swept = await owner.fetchrow(SWEPT)
            if swept["count"] >= ESCROWS:
                return float(swept["seconds"])
            if time.monotonic() > give_up_at:
                raise RuntimeError(f"only {swept['count']} escrows expired in time")
            await asyncio.sleep(0.5)
