"""The event log: audit trail, outbox and source of replay; rows are written and never changed."""

from collections.abc import Sequence
from dataclasses import dataclass
from uuid import UUID

from service.rules.machine import Actor
from service.store.db import Transaction


@dataclass(frozen=True, slots=True)
class Entry:
    """One row of the log. `type` and `body` are None for what only the audit trail sees.

    `said` is a JSON object of what happened beyond the states: it is kept as long as the event,
    and the body is not. `actor` is the transaction's unless it is named here.
    """

    id: UUID
    subject_id: str
    subject_kind: str
    seq: int
    step: str
    type: str | None = None
    body: bytes | None = None
    family: str | None = None
    mode: str | None = None
    from_state: str | None = None
    to_state: str | None = None
    actor: Actor | None = None
    said: str | None = None


# The event and the exact bytes of its webhook, in one statement. Relies on the subject's lock
# for `seq`; the primary key would stop a second writer.
APPEND_EVENTS = """
WITH given AS (
    SELECT * FROM unnest(
        $1::uuid[], $2::text[], $3::text[], $4::bigint[], $5::text[], $6::text[], $7::bytea[],
        $8::text[], $9::text[], $10::text[], $11::text[], $12::text[], $13::text[], $14::text[],
        $15::text[], $16::text[], $18::jsonb[]
    ) AS g (id, subject_id, subject_kind, seq, step, type, body, family, mode, from_state, to_state,
            actor_kind, actor_id, key_id, ip, request_id, said)
), written AS (
    INSERT INTO event (id, subject_id, subject_kind, seq, step, type, family, mode, from_state,
                       to_state, actor_kind, actor_id, key_id, ip, request_id, at, said)
    SELECT id, subject_id, subject_kind, seq, step, type, family, mode, from_state, to_state,
           actor_kind, actor_id, key_id, ip, request_id, $17, said
    FROM given
    RETURNING id, recorded_at
)
INSERT INTO webhook_body (event_id, recorded_at, body)
SELECT written.id, written.recorded_at, given.body
FROM written JOIN given USING (id) WHERE given.body IS NOT NULL
"""


async def append_events(tx: Transaction, entries: Sequence[Entry]) -> None:
    """Every entry, at the transaction's time; rings the deliveries' bell."""
    if not entries:
        return
    actors = [entry.actor or tx.actor for entry in entries]
    await tx.execute(
        APPEND_EVENTS,
        [entry.id for entry in entries],
        [entry.subject_id for entry in entries],
        [entry.subject_kind for entry in entries],
        [entry.seq for entry in entries],
        [entry.step for entry in entries],
        [entry.type for entry in entries],
        [entry.body for entry in entries],
        [entry.family for entry in entries],
        [entry.mode for entry in entries],
        [entry.from_state for entry in entries],
        [entry.to_state for entry in entries],
        [actor.kind.value for actor in actors],
        [actor.id for actor in actors],
        [actor.key_id for actor in actors],
        [actor.ip for actor in actors],
        [actor.request_id for actor in actors],
        tx.now,
        [entry.said for entry in entries],
    )
    if any(entry.type for entry in entries):
        tx.ring("webhooks")
