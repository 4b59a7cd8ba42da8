"""The feed of events: what a developer would be sent, to be pulled in an order that never changes.

Law: the order is (xid, position), below the horizon: whatever a transaction under way may still
write comes after all that was shown, so that no event is ever passed over. Nothing is locked.
"""

from collections.abc import Sequence
from dataclasses import dataclass, field

from service.rules.errors import CursorBeyondEnd
from service.store.db import Reader

SCANNED = 5_000
"""So many of the house's events are looked at in one statement, whosever they are."""


@dataclass(frozen=True, slots=True, order=True)
class Position:
    """A place in the order of commits; what is shown comes strictly after it."""

    xid: int
    position: int


START = Position(0, 0)


@dataclass(frozen=True, slots=True)
class Told:
    """An event of the feed: the exact bytes that its webhook has."""

    at: Position
    type: str
    body: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Stretch:
    """What was found, and up to where was looked; `has_more`: there may be more right now."""

    told: Sequence[Told]
    reached: Position
    has_more: bool


# Along event_commit_order; each subject is asked about once. Test events are of the endpoint that
# asked for them alone. The bodies' partitions are found by the event's own time.
READ_FEED = """
WITH scanned AS MATERIALIZED (
    SELECT v.xid, v.position, v.id, v.type, v.subject_kind, v.subject_id, v.step, v.recorded_at
    FROM event v
    WHERE (v.xid, v.position) > ($2::text::xid8, $3::bigint) AND v.xid < commit_horizon()
    ORDER BY v.xid, v.position
    LIMIT $5
), heard AS MATERIALIZED (
    SELECT s.subject_kind, s.subject_id
    FROM (SELECT DISTINCT subject_kind, subject_id FROM scanned WHERE type IS NOT NULL) AS s
    JOIN developer p ON p.id = $1
    WHERE EXISTS (SELECT FROM audience(s.subject_kind, s.subject_id) a
                  WHERE a.developer_id = p.id OR p.user_id = ANY (a.user_ids))
), told AS (
    SELECT s.xid, s.position, s.id, s.type, s.recorded_at
    FROM scanned s JOIN heard h USING (subject_kind, subject_id)
    WHERE s.type IS NOT NULL AND s.step <> 'test'
      AND ($4::text[] IS NULL
           OR $4 && ARRAY['*', s.type, split_part(s.type, '.', 1) || '.*'])
      AND EXISTS (SELECT FROM webhook_body b
                  WHERE b.event_id = s.id AND b.recorded_at = s.recorded_at)
    ORDER BY s.xid, s.position
    LIMIT $6
)
SELECT t.xid::text, t.position, t.type, b.body, false AS is_end
FROM told t JOIN webhook_body b ON b.event_id = t.id AND b.recorded_at = t.recorded_at
UNION ALL
(SELECT s.xid::text, s.position, NULL, NULL, (SELECT count(*) FROM scanned) < $5
 FROM scanned s ORDER BY s.xid DESC, s.position DESC LIMIT 1)
"""
# A cursor that was given out is below the horizon of then, or at the account's first event. What is
# further was given out by a later state of the database than this one.
IS_BEYOND_END = """
SELECT $1::text::xid8 >= commit_horizon()
   AND NOT EXISTS (SELECT FROM event v WHERE v.xid = $1::text::xid8)
"""
READ_END = "SELECT (commit_horizon()::text::bigint - 1)::text"
# The account's first event tells nobody anything, and nothing of the account's comes before it.
READ_BEGINNING = """
SELECT v.xid::text, v.position FROM event v
WHERE v.subject_id = $1 AND v.seq = 1 AND v.step = 'enrol'
"""


async def read_feed(
    reader: Reader, developer_id: str, after: Position, types: Sequence[str] | None, limit: int
) -> Stretch:
    """The developer's next events of these types (None: all), at most `limit`, after a position.

    Raises:
        CursorBeyondEnd: this database has never come so far; it was set back.
    """
    rows = await reader.fetch(
        READ_FEED,
        developer_id,
        str(after.xid),
        after.position,
        None if types is None else list(types),
        SCANNED,
        limit,
    )
    marks = [row for row in rows if row["body"] is None]
    told = sorted(
        (
            Told(Position(int(row["xid"]), row["position"]), row["type"], row["body"])
            for row in rows
            if row["body"] is not None
        ),
        key=lambda one: one.at,
    )
    if not marks:
        if await reader.fetchval(IS_BEYOND_END, str(after.xid)):
            raise CursorBeyondEnd
        return Stretch(told, after, has_more=False)
    if len(told) == limit:
        return Stretch(told, told[-1].at, has_more=True)
    end = Position(int(marks[0]["xid"]), marks[0]["position"])
    return Stretch(told, end, has_more=not marks[0]["is_end"])


async def read_end(reader: Reader) -> Position:
    """Where the feed ends now: what is committed from here on comes after it."""
    return Position(int(await reader.fetchval(READ_END)), (1 << 63) - 1)


async def read_beginning(reader: Reader, developer_id: str) -> Position:
    """Where the feed of this developer begins: what was before the account is not told."""
    row = await reader.fetchrow(READ_BEGINNING, developer_id)
    return Position(int(row["xid"]), row["position"]) if row else START
