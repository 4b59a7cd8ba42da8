"""Lanes: one an endpoint; they say when something is due there. All times are real."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.rules.lane import Breaker, Lane, Run, Sample, Told
from service.store.db import Reader, Row, Transaction
from service.store.endpoints import Addressed


def lane_of(row: Row) -> Lane:
    """The rules' lane of a row of the table."""
    return Lane(
        cap=row["cap"],
        window=row["send_window"],
        halved_at=row["halved_at"],
        streak=row["streak"],
        failure_count=row["failure_count"],
        failing_since=row["failing_since"],
        exhausted_at=row["exhausted_at"],
        last_attempt_at=row["last_attempt_at"],
        last_status=row["last_status"],
        mean_ms=row["mean_ms"],
        breaker=Breaker(row["breaker"]),
        breaker_until=row["breaker_until"],
        trips=row["breaker_trips"],
        sample=Sample(row["sample_minute"], row["sample_attempts"], row["sample_failures"]),
    )


@dataclass(frozen=True, slots=True)
class Turned:
    """A lane as it is after attempts. `gives_back`: one of them is as good as never tried."""

    endpoint_id: str
    lane: Lane
    gives_back: bool


# Relies on the lanes' locks. Errs early: there is room now, and a claim looks whether for anything.
TURN_LANES = """
UPDATE lane l
SET send_window = least(t.send_window, l.cap), halved_at = t.halved_at, streak = t.streak,
    failure_count = t.failure_count, failing_since = t.failing_since,
    exhausted_at = t.exhausted_at, last_attempt_at = t.last_attempt_at,
    last_status = t.last_status, mean_ms = t.mean_ms, breaker = t.breaker,
    breaker_until = t.breaker_until, breaker_trips = t.trips, sample_minute = t.sample_minute,
    sample_attempts = t.sample_attempts::integer[], sample_failures = t.sample_failures::integer[],
    hold_until = greatest(l.hold_until, t.hold_until),
    first_due_at = CASE WHEN t.gives_back THEN '-infinity' ELSE l.first_due_at END,
    next_due_at = least(l.next_due_at, $19)
FROM unnest($1::text[], $2::int[], $3::timestamptz[], $4::int[], $5::int[], $6::timestamptz[],
            $7::timestamptz[], $8::timestamptz[], $9::int[], $10::int[], $11::text[],
            $12::timestamptz[], $13::int[], $14::int[], $15::text[], $16::text[],
            $17::timestamptz[], $18::boolean[])
     AS t (endpoint_id, send_window, halved_at, streak, failure_count, failing_since, exhausted_at,
           last_attempt_at, last_status, mean_ms, breaker, breaker_until, trips, sample_minute,
           sample_attempts, sample_failures, hold_until, gives_back)
WHERE l.endpoint_id = t.endpoint_id
"""


async def turn_lanes(tx: Transaction, turned: Sequence[Turned], moment: datetime) -> None:
    """Write these lanes as they are at `moment`; each is due: a claim says when it is again.

    Relies on the lanes' locks.
    """
    lanes = [one.lane for one in turned]
    await tx.execute(
        TURN_LANES,
        [one.endpoint_id for one in turned],
        [lane.window for lane in lanes],
        [lane.halved_at for lane in lanes],
        [lane.streak for lane in lanes],
        [lane.failure_count for lane in lanes],
        [lane.failing_since for lane in lanes],
        [lane.exhausted_at for lane in lanes],
        [lane.last_attempt_at for lane in lanes],
        [lane.last_status for lane in lanes],
        [lane.mean_ms for lane in lanes],
        [lane.breaker.value for lane in lanes],
        [lane.breaker_until for lane in lanes],
        [lane.trips for lane in lanes],
        [lane.sample.minute for lane in lanes],
        [_array(lane.sample.attempts) for lane in lanes],
        [_array(lane.sample.failures) for lane in lanes],
        [lane.hold_until for lane in lanes],
        [one.gives_back for one in turned],
        moment,
    )


def _array(numbers: Sequence[int]) -> str:
    """As PostgreSQL writes an array: an array of arrays would be one array to `unnest`."""
    return "{" + ",".join(map(str, numbers)) + "}"


# Locks only the lanes that are late, skipping busy ones: their holder sets the time itself. Errs
# early only; what it repairs is a hint that was lost.
RECONCILE_LANES = """
WITH late AS MATERIALIZED (
    SELECT l.endpoint_id FROM lane l
    WHERE EXISTS (SELECT FROM delivery d WHERE d.endpoint_id = l.endpoint_id
                    AND d.state = 'pending' AND d.attempt = 0
                    AND (d.visible_at < l.next_due_at OR d.recorded_at < l.first_due_at))
       OR EXISTS (SELECT FROM delivery d WHERE d.endpoint_id = l.endpoint_id
                    AND d.state = 'pending' AND d.attempt > 0 AND d.visible_at < l.next_due_at)
    ORDER BY l.endpoint_id
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE lane l
SET next_due_at = least(l.next_due_at, due.first, (
        SELECT min(d.visible_at) FROM delivery d
        WHERE d.endpoint_id = l.endpoint_id AND d.state = 'pending' AND d.attempt > 0)),
    first_due_at = least(l.first_due_at, due.recorded_at)
FROM late LEFT JOIN LATERAL (
    SELECT d.visible_at AS first, d.recorded_at FROM delivery d
    WHERE d.endpoint_id = late.endpoint_id AND d.state = 'pending' AND d.attempt = 0
    ORDER BY d.recorded_at, d.position LIMIT 1) AS due ON true
WHERE l.endpoint_id = late.endpoint_id
"""


async def reconcile_lanes(tx: Transaction) -> int:
    """How many lanes were due earlier than they said; they say so now."""
    status = await tx.execute(RECONCILE_LANES)
    return int(status.split()[-1])


# Relies on the endpoints' locks; comes after their deliveries. $2 is what is remembered of `told`.
WAKE_LANES = """
UPDATE lane SET next_due_at = clock_timestamp(), first_due_at = '-infinity',
    hold_until = '-infinity', send_window = cap, halved_at = NULL, streak = 0, failure_count = 0,
    failing_since = NULL, exhausted_at = NULL, told = told & $2, mean_ms = 0,
    breaker = 'closed', breaker_until = NULL, breaker_trips = 0, sample_minute = 0
WHERE endpoint_id = ANY ($1::text[])
"""
# Waits for whoever claims or settles there. What is held stays held.
HINT_LANES = """
UPDATE lane SET next_due_at = least(next_due_at, clock_timestamp()), first_due_at = '-infinity'
WHERE endpoint_id = ANY ($1::text[])
"""


async def wake_lanes(tx: Transaction, endpoint_ids: Sequence[str]) -> None:
    """These lanes are due and start afresh: no hold, whole window, nothing held against them.

    That somebody was told of a failure stays known: the recovery will be told as well.
    """
    await tx.execute(WAKE_LANES, list(endpoint_ids), int(Told.FAILING))


async def hint_lanes(tx: Transaction, endpoint_ids: Sequence[str]) -> None:
    """Something may be due in these lanes; holds, breakers and windows stay as they are."""
    await tx.execute(HINT_LANES, list(endpoint_ids))


@dataclass(frozen=True, slots=True)
class Troubled:
    """An endpoint in a run of failures, or just out of one."""

    endpoint: Addressed
    run: Run

    @property
    def id(self) -> str:
        """The endpoint's."""
        return self.endpoint.id


# All of them are few: endpoints that fail. The partial index lane_troubled is read whole.
READ_TROUBLED = """
SELECT e.id, e.url, d.email AS developer_email,
       coalesce((SELECT u.language FROM app_user u WHERE u.id = d.user_id), 'en') AS language,
       l.failing_since, l.exhausted_at, l.last_attempt_at, l.last_status, l.failure_count,
       l.breaker, l.told, l.told_since
FROM lane l
JOIN webhook_endpoint e ON e.id = l.endpoint_id
JOIN developer d ON d.id = e.developer_id
WHERE (l.failing_since IS NOT NULL OR l.told <> 0) AND e.is_active
  AND ($1::text[] IS NULL OR l.endpoint_id = ANY ($1))
ORDER BY e.id
"""
# Relies on the endpoints' locks. Lanes turn without them: `since` is of the run that was looked at.
NOTE_TOLD = """
UPDATE lane l SET told = given.told, told_since = given.since
FROM unnest($1::text[], $2::int[], $3::timestamptz[]) AS given (id, told, since)
WHERE l.endpoint_id = given.id
"""


async def read_troubled(reader: Reader, ids: Sequence[str] | None = None) -> list[Troubled]:
    """The active endpoints whose developers may have to be told something; of `ids` if given."""
    rows = await reader.fetch(READ_TROUBLED, None if ids is None else list(ids))
    return [
        Troubled(
            endpoint=Addressed(row["id"], row["url"], row["developer_email"], row["language"]),
            run=Run(
                failing_since=row["failing_since"],
                exhausted_at=row["exhausted_at"],
                last_attempt_at=row["last_attempt_at"],
                last_status=row["last_status"],
                failure_count=row["failure_count"],
                breaker=Breaker(row["breaker"]),
                told=Told(row["told"]),
                told_since=row["told_since"],
            ),
        )
        for row in rows
    ]


async def note_told(tx: Transaction, told: Sequence[tuple[Troubled, Told]]) -> None:
    """All that was told by now about each endpoint's run of failures."""
    await tx.execute(
        NOTE_TOLD,
        [one.id for one, _ in told],
        [int(all_of_it) for _, all_of_it in told],
        [one.run.failing_since for one, _ in told],
    )


# Relies on the endpoints' locks.
NUMBER_EVENTS = """
UPDATE webhook_endpoint e SET seq = e.seq + given.n
FROM unnest($1::text[], $2::int[]) AS given (id, n), lane l
WHERE e.id = given.id AND l.endpoint_id = e.id AND e.deleted_at IS NULL
RETURNING e.id, e.url, e.is_active, e.disabled_reason, l.failure_count, e.seq
"""


@dataclass(frozen=True, slots=True)
class Numbered:
    """An endpoint as its events tell of it; `seq` is the number of the last of them."""

    id: str
    url: str
    is_active: bool
    disabled_reason: str | None
    failure_count: int
    seq: int


async def number_events(tx: Transaction, counts: Mapping[str, int]) -> list[Numbered]:
    """Count so many more events of each endpoint (id → how many); deleted ones are left out."""
    if not counts:
        return []
    rows = await tx.fetch(NUMBER_EVENTS, list(counts), list(counts.values()))
    return [Numbered(**dict(row)) for row in rows]
