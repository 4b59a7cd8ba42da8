"""The invariants as questions: each statement answers its breaches, at most `LIMIT` of them.

Those in `OF_SUBJECTS` are asked of a page of subjects ($1: ids of escrows, users, developers and
endpoints): of what has changed, by the minute; of page after page, in full. Those in `OF_HOUSE`
are asked of everything at once; E is asked both ways. One statement is one snapshot, so a
question never sees half of a step. Every row of an answer: subject, escrow_id (which to freeze,
or NULL), says.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from service.rules.clocks import ENDED_BY_TIME
from service.rules.escrow import FLAGS
from service.store.db import Reader, Transaction

LIMIT = 100
HOUSE = "house"
"""The subject of a breach that is everybody's: an invariant that could not be asked."""
EVENTS_A_SEAL = 1000
SEALS_A_PAGE = 20


@dataclass(frozen=True, slots=True)
class Breach:
    """What is wrong, with whom; `escrow_id` where it is an escrow that can be frozen."""

    subject: str
    escrow_id: str | None
    says: str


@dataclass(frozen=True, slots=True)
class Result:
    """How an invariant stood when it was last asked; times are real."""

    id: str
    name: str
    ok: bool
    breaches: tuple[Breach, ...]
    checked_at: datetime
    last_ok_at: datetime | None
    seen_xid: str


# ---- The questions -------------------------------------------------------------------------------

# A. Stored balances where an account keeps one, else its transfers: reads every transfer of the
# operator's accounts, so it is asked in full runs only.
READ_UNBALANCED = """
SELECT total.currency AS subject, NULL AS escrow_id,
       format('the accounts in %s sum to %s', total.currency, total.minor) AS says
FROM (SELECT a.currency, sum(coalesce(a.balance_minor,
          (SELECT coalesce(sum(t.amount_minor), 0) FROM transfer t WHERE t.to_account = a.id)
          - (SELECT coalesce(sum(t.amount_minor), 0) FROM transfer t WHERE t.from_account = a.id)
      )) AS minor
      FROM account a GROUP BY a.currency) AS total
WHERE total.minor <> 0 ORDER BY 1 LIMIT 100
"""

# B. Follows each account's transfers by their indexes; what is pending is what is under way.
READ_WRONG_BALANCES = """
SELECT a.owner AS subject, CASE WHEN a.kind = 'held' THEN a.owner END AS escrow_id,
       format('the %s account in %s says %s, its transfers %s',
              a.kind, a.currency, a.balance_minor, moved.minor) AS says
FROM account a CROSS JOIN LATERAL (
    SELECT (SELECT coalesce(sum(t.amount_minor), 0) FROM transfer t WHERE t.to_account = a.id)
         - (SELECT coalesce(sum(t.amount_minor), 0) FROM transfer t WHERE t.from_account = a.id)
         AS minor) AS moved
WHERE a.kind IN ('available', 'pending', 'held') AND a.owner = ANY ($1::text[])
  AND a.balance_minor <> moved.minor
UNION ALL
SELECT coalesce(a.owner, p.user_id), NULL,
       format('the pending account in %s says %s, the payments under way %s',
              coalesce(a.currency, p.currency), coalesce(a.balance_minor, 0), coalesce(p.minor, 0))
FROM (SELECT owner, currency, balance_minor FROM account
      WHERE kind = 'pending' AND owner = ANY ($1::text[])) AS a
FULL JOIN (SELECT user_id, currency, sum(amount_minor)::bigint AS minor FROM payment
           WHERE user_id = ANY ($1::text[]) AND state IN ('created', 'pending')
             AND kind <> 'refund'
           GROUP BY user_id, currency) AS p ON p.user_id = a.owner AND p.currency = a.currency
WHERE coalesce(a.balance_minor, 0) <> coalesce(p.minor, 0)
ORDER BY 1 LIMIT 100
"""

# C. The row's parts against each other, its held account, and the transfers by their reason; of a
# milestone escrow also what its payers have funded, whether some of it is still there, and that its
# milestones' amounts make up its own where they have any.
READ_WRONG_PARTS = """
SELECT e.id AS subject, e.id AS escrow_id,
       format('funded %s, held %s, released %s, refunded %s, fees %s; '
              'by the ledger %s, %s, %s, %s, %s',
              e.funded_minor, e.held_minor, e.released_minor, e.refunded_minor, e.fees_minor,
              moved.funded, coalesce(a.balance_minor, 0), moved.released, moved.refunded, moved.fees
             ) AS says
FROM escrow e
LEFT JOIN account a ON a.kind = 'held' AND a.owner = e.id AND a.currency = e.ledger_currency
CROSS JOIN LATERAL (
    SELECT coalesce(sum(t.amount_minor) FILTER (WHERE t.to_account = a.id), 0) AS funded,
           coalesce(sum(t.amount_minor) FILTER (
               WHERE t.from_account = a.id
                 AND t.reason IN ('release', 'resolution', 'withdrawal')), 0) AS released,
           coalesce(sum(t.amount_minor) FILTER (
               WHERE t.from_account = a.id AND t.reason = 'refund'), 0) AS refunded,
           coalesce(sum(t.amount_minor) FILTER (
               WHERE t.from_account = a.id AND t.reason IN (
                   'escrow_fee', 'developer_fee', 'protocol_fee', 'platform_fee')), 0) AS fees
    FROM transfer t WHERE t.escrow_id = e.id) AS moved
WHERE e.id = ANY ($1::text[])
  AND (e.funded_minor <> e.held_minor + e.released_minor + e.refunded_minor + e.fees_minor
       OR e.funded_minor <> moved.funded OR e.held_minor <> coalesce(a.balance_minor, 0)
       OR e.released_minor <> moved.released OR e.refunded_minor <> moved.refunded
       OR e.fees_minor <> moved.fees OR e.mode = 'milestone' AND (e.funded_minor, true) <> (
           SELECT coalesce(sum(f.amount_minor), 0),
                  coalesce(bool_and(f.is_held = (e.held_minor > 0)), true)
           FROM milestone_funding f WHERE f.escrow_id = e.id))
UNION ALL
SELECT e.id, e.id, format('%s of its %s milestones have amounts, which sum to %s; its own is %s',
                          part.priced, part.whole, part.sum, e.amount_minor)
FROM escrow e JOIN milestone_escrow m ON m.escrow_id = e.id
CROSS JOIN LATERAL (
    SELECT count(*) AS whole, count(p.amount_minor) AS priced, sum(p.amount_minor) AS sum
    FROM milestone p WHERE p.escrow_id = e.id) AS part
WHERE e.id = ANY ($1::text[])
  AND CASE m.release_mode WHEN 'single' THEN part.priced <> 0 OR part.whole = 0
      ELSE part.priced <> part.whole OR part.sum IS DISTINCT FROM e.amount_minor END
ORDER BY 1 LIMIT 100
"""

# D. A milestone escrow's remainder may be withdrawn later, by a session too; nothing else of it
# waits once it is over. Its status is stored, and must be the one that follows from its milestones:
# THE COUPLING of rules/milestone.py once more (a test proves the two equal).
READ_UNFINISHED = """
SELECT e.id AS subject, e.id AS escrow_id,
       format('it is %s and holds %s, with %s open deadlines, %s disputes, %s requests, '
              '%s payments',
              e.status, greatest(e.held_minor, a.balance_minor), waiting.deadlines,
              waiting.disputes, waiting.requests, waiting.payments) AS says
FROM escrow e
LEFT JOIN account a ON a.kind = 'held' AND a.owner = e.id AND a.currency = e.ledger_currency
CROSS JOIN LATERAL (
    SELECT (SELECT count(*) FROM deadline d WHERE d.escrow_id = e.id
              AND d.fired_at IS NULL AND d.cancelled_at IS NULL) AS deadlines,
           (SELECT count(*) FROM dispute t
            WHERE t.escrow_id = e.id AND t.resolved_at IS NULL) AS disputes,
           (SELECT count(*) FROM cancellation_request q
            WHERE q.escrow_id = e.id AND q.status = 'pending') AS requests,
           (SELECT count(*) FROM payment p WHERE p.escrow_id = e.id AND p.kind = 'accept_pay'
              AND p.state IN ('created', 'pending')) AS payments) AS waiting
WHERE e.id = ANY ($1::text[]) AND e.mode <> 'milestone' AND e.status IN ('completed', 'cancelled')
  AND (e.held_minor <> 0 OR coalesce(a.balance_minor, 0) <> 0
       OR waiting.deadlines + waiting.disputes + waiting.requests + waiting.payments <> 0)
UNION ALL
SELECT e.id, e.id, format('it is %s, its milestones say %s, and %s deadlines are open',
                          e.status, part.status, waiting.deadlines)
FROM escrow e JOIN milestone_escrow m ON m.escrow_id = e.id
CROSS JOIN LATERAL (
    SELECT count(*) AS deadlines FROM deadline d
    WHERE d.escrow_id = e.id AND d.kind <> 'session'
      AND d.fired_at IS NULL AND d.cancelled_at IS NULL) AS waiting
CROSS JOIN LATERAL (
    SELECT CASE WHEN bool_or(s.disputed) THEN 'inDispute'
                WHEN bool_and(s.is_over) AND bool_or(s.released) THEN 'released'
                WHEN bool_and(s.is_over) THEN 'resolved'
                WHEN m.release_mode = 'single' AND bool_and(s.is_payable) THEN 'pendingRelease'
                WHEN m.release_mode = 'multi' AND bool_or(s.is_payable) THEN 'pendingRelease'
                ELSE 'working' END AS status
    FROM (SELECT p.disputed, p.released, p.released OR p.resolved AS is_over,
                 p.approved AND NOT (p.released OR p.resolved OR p.disputed) AS is_payable
          FROM milestone p WHERE p.escrow_id = e.id) AS s) AS part
WHERE e.id = ANY ($1::text[])
  AND (e.status <> part.status OR e.status IN ('released', 'resolved') AND waiting.deadlines <> 0)
ORDER BY 1 LIMIT 100
"""

# E. $2-$4: which deadline a state of a mode has (rules/clocks.py); every other waits for a person.
# The resolver of a milestone escrow has one for each milestone that is disputed, in single release
# one for the whole.
READ_FORGOTTEN = """
WITH funded AS (
    SELECT * FROM escrow WHERE id = ANY ($1::text[]) AND held_minor > 0
), needed AS (
    SELECT e.id, c.kind, '' AS subject FROM funded e
    JOIN unnest($2::text[], $3::text[], $4::text[]) AS c (mode, state, kind)
      ON c.mode = e.mode AND c.state = e.status
    UNION ALL
    SELECT e.id, CASE p.phase WHEN 'submitted_waiting_buyer_review' THEN 'proof_review'
                              ELSE 'proof_upload' END, ''
    FROM funded e JOIN purchase_proof p ON p.escrow_id = e.id
    WHERE e.status IN ('paid', 'disputed')
      AND p.phase IN ('waiting_seller_proof', 'submitted_waiting_buyer_review',
                      'correction_requested')
    UNION ALL
    SELECT e.id, 'cancellation_answer', '' FROM funded e
    JOIN cancellation_request q ON q.escrow_id = e.id AND q.status = 'pending'
    UNION ALL
    SELECT e.id, 'dispute_answer', '' FROM funded e
    JOIN dispute t ON t.escrow_id = e.id AND t.resolved_at IS NULL AND t.answered_at IS NULL
    UNION ALL
    SELECT DISTINCT e.id, 'resolver',
           CASE m.release_mode WHEN 'single' THEN '' ELSE p.position::text END
    FROM funded e
    JOIN milestone_escrow m ON m.escrow_id = e.id AND m.resolver_deadline_days IS NOT NULL
    JOIN milestone p ON p.escrow_id = e.id AND p.disputed
)
SELECT e.id AS subject, e.id AS escrow_id,
       format('it is %s, holds %s, and no %s deadline is open%s', e.status, e.held_minor, n.kind,
              CASE WHEN n.subject <> '' THEN ' for milestone ' || n.subject END) AS says
FROM needed n JOIN funded e ON e.id = n.id
WHERE NOT EXISTS (SELECT FROM deadline d
                  WHERE d.escrow_id = e.id AND d.kind = n.kind AND d.subject = n.subject
                    AND d.fired_at IS NULL AND d.cancelled_at IS NULL)
ORDER BY e.id LIMIT 100
"""

# E, of the house: a timer that does not fire writes no event, so nothing has changed where it
# stands still. By the partial index of open deadlines; business time.
READ_LATE = """
SELECT d.escrow_id AS subject, d.escrow_id AS escrow_id,
       format('its %s deadline is due since %s and has not fired', d.kind, d.due_at) AS says
FROM deadline d JOIN escrow e ON e.id = d.escrow_id AND NOT e.frozen
WHERE d.fired_at IS NULL AND d.cancelled_at IS NULL AND d.remaining IS NULL
  AND d.due_at < business_now() - interval '5 minutes'
ORDER BY d.due_at, d.id LIMIT 100
"""

# F. Counter and log of each subject. Of an escrow and a payment also: each step starts where the
# one before it ended (one step may write several events), the last one at its status. $2: the
# steps that set a flag, which may have been taken while the state itself was wrong.
READ_BROKEN_LOGS = """
WITH subject AS (
    SELECT id, seq, status, 'escrow' AS kind FROM escrow WHERE id = ANY ($1::text[])
    UNION ALL SELECT id, seq, NULL, 'user' FROM app_user WHERE id = ANY ($1::text[])
    UNION ALL SELECT id, seq, NULL, 'developer' FROM developer WHERE id = ANY ($1::text[])
    UNION ALL SELECT id, seq, NULL, 'endpoint' FROM webhook_endpoint WHERE id = ANY ($1::text[])
    UNION ALL SELECT id, seq, NULL, 'identity' FROM identity_verification
    WHERE id = ANY ($1::text[])
    UNION ALL SELECT id, seq, state, 'payment' FROM payment WHERE id = ANY ($1::text[])
), walk AS (
    SELECT v.subject_id AS id, v.seq, v.from_state, v.to_state,
           v.subject_kind IN ('escrow', 'payment') AND v.step <> ALL ($2::text[]) AS is_move,
           coalesce(lag(v.to_state) OVER w, '-') AS stood,
           (v.xid, v.step, v.from_state, v.to_state) IS NOT DISTINCT FROM
           (lag(v.xid) OVER w, lag(v.step) OVER w, lag(v.from_state) OVER w, lag(v.to_state) OVER w)
           AS is_same_step
    FROM event v WHERE v.subject_id = ANY ($1::text[])
    WINDOW w AS (PARTITION BY v.subject_id, v.step = ANY ($2::text[]) ORDER BY v.seq)
), log AS (
    SELECT id, count(*) AS events, max(seq) AS highest,
           (array_agg(to_state ORDER BY seq DESC) FILTER (WHERE is_move))[1] AS ended,
           (array_agg(format('event %s starts at %s where it was %s', seq, from_state, stood)
                      ORDER BY seq)
            FILTER (WHERE is_move AND from_state <> stood AND NOT is_same_step))[1] AS jump
    FROM walk GROUP BY id
)
SELECT coalesce(s.id, l.id) AS subject, CASE WHEN s.kind = 'escrow' THEN s.id END AS escrow_id,
       concat_ws('; ',
           CASE WHEN s.id IS NULL THEN 'it has events and is not there' END,
           CASE WHEN s.seq <> coalesce(l.highest, 0) OR l.events <> l.highest
                THEN format('its counter is %s, its log has %s events up to %s', s.seq,
                            coalesce(l.events, 0), coalesce(l.highest, 0)) END,
           CASE WHEN l.ended <> s.status
                THEN format('its log ends at %s, its status is %s', l.ended, s.status) END,
           l.jump) AS says
FROM subject s FULL JOIN log l ON l.id = s.id
WHERE s.id IS NULL OR s.seq <> coalesce(l.highest, 0) OR l.events <> l.highest
   OR l.ended <> s.status OR l.jump IS NOT NULL
ORDER BY 1 LIMIT 100
"""

# G. By the partial index of the outbox; real time.
READ_UNFANNED = """
SELECT v.subject_id AS subject,
       CASE WHEN v.subject_kind = 'escrow' THEN v.subject_id END AS escrow_id,
       format('event %s (%s) waits since %s', v.seq, v.type, v.recorded_at) AS says
FROM event v
WHERE v.fanned_at IS NULL AND v.type IS NOT NULL
  AND v.recorded_at < clock_timestamp() - interval '5 seconds'
ORDER BY v.recorded_at LIMIT 100
"""

# H. By the partial index of what is under way; real time. What a person decides is listed instead.
READ_UNASKED = """
SELECT p.id AS subject, NULL AS escrow_id,
       format('%s by %s is %s, and %s has not said how it stands since %s',
              p.kind, p.provider, p.state, p.provider, coalesce(p.asked_at, p.created_at)) AS says
FROM payment p
WHERE p.state IN ('created', 'pending') AND p.provider <> 'bank_transfer' AND p.kind <> 'payout'
  AND coalesce(p.asked_at, p.created_at) < clock_timestamp() - interval '15 minutes'
ORDER BY p.created_at LIMIT 100
"""

# J. What lies in clearing is what waits for the operator, to the unit. The age counts from the
# transfer after which the account was at zero no more. Full runs only.
READ_UNCLEARED = """
SELECT a.owner AS subject, NULL AS escrow_id,
       format('clearing of %s in %s stands at %s since %s',
              a.owner, a.currency, total.minor, since.at) AS says
FROM account a CROSS JOIN LATERAL (
    SELECT (SELECT coalesce(sum(t.amount_minor), 0) FROM transfer t WHERE t.to_account = a.id)
         - (SELECT coalesce(sum(t.amount_minor), 0) FROM transfer t WHERE t.from_account = a.id)
         AS minor) AS total
CROSS JOIN LATERAL (
    SELECT min(walk.recorded_at) AS at FROM (
        SELECT leg.recorded_at, leg.id, max(leg.id) FILTER (WHERE leg.minor = 0) OVER () AS zero
        FROM (SELECT t.id, t.recorded_at,
                     sum(CASE WHEN t.to_account = a.id THEN t.amount_minor ELSE -t.amount_minor END)
                     OVER (ORDER BY t.id) AS minor
              FROM transfer t WHERE total.minor <> 0 AND a.id IN (t.from_account, t.to_account)
             ) AS leg) AS walk
    WHERE walk.id > coalesce(walk.zero, 0)) AS since
CROSS JOIN LATERAL (
    SELECT (SELECT coalesce(sum(p.received_minor), 0) FROM payment p
            WHERE p.provider = a.owner AND p.received_currency = a.currency
              AND p.state = 'needs_operator' AND p.kind <> 'refund')
         + (SELECT coalesce(sum(p.amount_minor), 0) FROM payment p
            WHERE p.provider = a.owner AND p.currency = a.currency AND p.kind = 'refund'
              AND p.state NOT IN ('succeeded', 'failed', 'cancelled')) AS minor) AS listed
WHERE a.kind = 'clearing' AND total.minor <> listed.minor
ORDER BY a.id LIMIT 100
"""

# K. The foreign key would stop it; this finds what went past the foreign key.
READ_ILLEGAL_STEPS = """
SELECT v.subject_id AS subject, e.id AS escrow_id,
       format('event %s: %s %s from %s to %s is not in the table',
              v.seq, v.mode, v.step, v.from_state, v.to_state) AS says
FROM event v
LEFT JOIN escrow e ON e.id = v.subject_id AND e.id = ANY ($1::text[])
LEFT JOIN milestone_escrow m ON m.escrow_id = e.id
LEFT JOIN payment p ON p.id = v.subject_id AND p.id = ANY ($1::text[])
LEFT JOIN transition r ON r.family = v.family AND r.mode = v.mode AND r.step = v.step
                      AND r.from_state = v.from_state AND r.to_state = v.to_state
WHERE v.subject_id = ANY ($1::text[]) AND v.subject_kind IN ('escrow', 'payment')
  AND (r.step IS NULL OR v.mode IS DISTINCT FROM coalesce(m.release_mode, e.mode, p.mode))
ORDER BY v.subject_id, v.seq LIMIT 100
"""

_TIMED = tuple(list(column) for column in zip(*ENDED_BY_TIME, strict=True))
OF_SUBJECTS: Mapping[str, tuple[str, tuple[object, ...]]] = {
    "B": (READ_WRONG_BALANCES, ()),
    "C": (READ_WRONG_PARTS, ()),
    "D": (READ_UNFINISHED, ()),
    "E": (READ_FORGOTTEN, _TIMED),
    "F": (READ_BROKEN_LOGS, (list(FLAGS),)),
    "K": (READ_ILLEGAL_STEPS, ()),
}
"""Invariant -> its statement and what it is told beside the ids."""

OF_HOUSE: Mapping[str, str] = {
    "A": READ_UNBALANCED,
    "E": READ_LATE,
    "G": READ_UNFANNED,
    "H": READ_UNASKED,
    "J": READ_UNCLEARED,
}


async def read_breaches_among(
    reader: Reader, invariant_id: str, subjects: Sequence[str]
) -> list[Breach]:
    """How these subjects breach the invariant, at most `LIMIT` breaches."""
    statement, told = OF_SUBJECTS[invariant_id]
    rows = await reader.fetch(statement, list(subjects), *told)
    return [Breach(**dict(row)) for row in rows]


async def read_breaches(reader: Reader, invariant_id: str) -> list[Breach]:
    """How the house breaches the invariant, at most `LIMIT` breaches."""
    rows = await reader.fetch(OF_HOUSE[invariant_id])
    return [Breach(**dict(row)) for row in rows]


# ---- Whom to ask ---------------------------------------------------------------------------------

# In order of id: a page of each table by its primary key, then the first page of them all.
READ_SUBJECTS = """
SELECT id FROM (
    (SELECT id FROM escrow WHERE id > $1 ORDER BY id LIMIT $2)
    UNION (SELECT id FROM app_user WHERE id > $1 ORDER BY id LIMIT $2)
    UNION (SELECT id FROM developer WHERE id > $1 ORDER BY id LIMIT $2)
    UNION (SELECT id FROM webhook_endpoint WHERE id > $1 ORDER BY id LIMIT $2)
    UNION (SELECT id FROM identity_verification WHERE id > $1 ORDER BY id LIMIT $2)
    UNION (SELECT id FROM payment WHERE id > $1 ORDER BY id LIMIT $2)
    UNION (SELECT DISTINCT subject_id FROM event WHERE subject_id > $1 ORDER BY subject_id LIMIT $2)
) AS every ORDER BY id LIMIT $2
"""


async def read_subjects(reader: Reader, after: str, limit: int) -> list[str]:
    """The next `limit` ids of escrows, users, developers and endpoints after this one."""
    return [row["id"] for row in await reader.fetch(READ_SUBJECTS, after, limit)]


COUNT_SUBJECTS = """
SELECT (SELECT count(*) FROM escrow) + (SELECT count(*) FROM app_user)
     + (SELECT count(*) FROM developer) + (SELECT count(*) FROM webhook_endpoint)
     + (SELECT count(*) FROM identity_verification) + (SELECT count(*) FROM payment)
"""


async def count_subjects(reader: Reader) -> int:
    """How many subjects there are."""
    count: int = await reader.fetchval(COUNT_SUBJECTS)
    return count


@dataclass(frozen=True, slots=True)
class Changed:
    """Who has events since a transaction, with the owners of the wallets around; where to go on."""

    subjects: list[str]
    next_xid: str
    has_more: bool


# In the order of (xid, position): below the horizon nothing can appear any more. A transaction is
# taken whole.
READ_CHANGED = """
WITH fresh AS (
    SELECT v.subject_id, v.xid, v.family FROM event v
    WHERE v.xid >= $1::text::xid8 AND v.xid < commit_horizon()
    ORDER BY v.xid FETCH FIRST $2 ROWS WITH TIES
), around AS (
    SELECT f.subject_id AS id FROM fresh f
    UNION SELECT e.seller_id FROM fresh f JOIN escrow e ON e.id = f.subject_id
    UNION SELECT e.buyer_id FROM fresh f JOIN escrow e ON e.id = f.subject_id
    UNION SELECT e.developer_fee_user_id FROM fresh f JOIN escrow e ON e.id = f.subject_id
    UNION SELECT p.user_id FROM fresh f JOIN payment p ON p.id = f.subject_id
    UNION SELECT a.owner FROM fresh f
    JOIN transfer t ON t.escrow_id = f.subject_id AND f.family = 'milestone'
    JOIN account a ON a.id IN (t.from_account, t.to_account) AND a.kind = 'available'
)
SELECT (SELECT coalesce(array_agg(id::text), '{}') FROM around WHERE id IS NOT NULL) AS subjects,
       CASE WHEN count(*) >= $2 THEN (max(xid)::text::numeric + 1)::text
            ELSE commit_horizon()::text END AS next_xid,
       count(*) >= $2 AS has_more
FROM fresh
"""


async def read_changed(reader: Reader, since_xid: str, limit: int) -> Changed:
    """The subjects of the next `limit` events of transactions from `since_xid` on."""
    row = await reader.fetchrow(READ_CHANGED, since_xid, limit)
    if row is None:
        raise AssertionError("an aggregate without a row")
    return Changed(row["subjects"], row["next_xid"], row["has_more"])


READ_HORIZON = "SELECT commit_horizon()::text"


async def read_horizon(reader: Reader) -> str:
    """The oldest transaction that may still be at work: all before it are there to be seen."""
    horizon: str = await reader.fetchval(READ_HORIZON)
    return horizon


# ---- The hash chain ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Head:
    """The last seal: its number, and the digest that vouches for everything before it."""

    number: int
    digest: bytes
    sealed_at: datetime


# Two at once: the second waits for the first one's row and then does nothing.
SEAL_EVENTS = """
WITH head AS (
    SELECT s.number, s.last_xid, s.last_position, s.digest
    FROM event_seal s ORDER BY s.number DESC LIMIT 1
), start AS (
    SELECT h.number, h.last_xid, h.last_position, h.digest FROM head h
    UNION ALL SELECT 0, '0'::xid8, 0, ''::bytea WHERE NOT EXISTS (SELECT FROM head)
), taken AS (
    SELECT v.xid, v.position, event_text(v) AS line FROM event v
    WHERE (v.xid, v.position) > ((SELECT last_xid FROM start), (SELECT last_position FROM start))
      AND v.xid < commit_horizon()
    ORDER BY v.xid, v.position LIMIT $1
), whole AS (
    SELECT max(xid) AS last_xid,
           (array_agg(position ORDER BY xid DESC, position DESC))[1] AS last_position,
           convert_to(string_agg(line, E'\\n' ORDER BY xid, position), 'UTF8') AS lines
    FROM taken HAVING count(*) = $1
)
INSERT INTO event_seal (number, last_xid, last_position, digest)
SELECT start.number + 1, whole.last_xid, whole.last_position, sha256(start.digest || whole.lines)
FROM start, whole
ON CONFLICT (number) DO NOTHING
RETURNING number
"""


async def seal_events(tx: Transaction) -> int | None:
    """Seal the next `EVENTS_A_SEAL` events; the seal's number, None where there are not so many."""
    number: int | None = await tx.fetchval(SEAL_EVENTS, EVENTS_A_SEAL)
    return number


READ_HEAD = "SELECT number, digest, sealed_at FROM event_seal ORDER BY number DESC LIMIT 1"


async def read_head(reader: Reader) -> Head | None:
    """The last seal; None before the first `EVENTS_A_SEAL` events."""
    row = await reader.fetchrow(READ_HEAD)
    return Head(**dict(row)) if row else None


# Recomputes the seals in ($1, $2] from the events between each and the one before it.
READ_BROKEN_SEALS = """
SELECT s.number, CASE WHEN s.number > 1 AND p.number IS NULL THEN 'the seal before it is gone'
                      ELSE 'the events under it are not those that were sealed' END AS says
FROM event_seal s
LEFT JOIN event_seal p ON p.number = s.number - 1
CROSS JOIN LATERAL (
    SELECT string_agg(event_text(v), E'\\n' ORDER BY v.xid, v.position) AS lines FROM event v
    WHERE (v.xid, v.position) > (coalesce(p.last_xid, '0'), coalesce(p.last_position, 0))
      AND (v.xid, v.position) <= (s.last_xid, s.last_position)) AS sealed
WHERE s.number > $1 AND s.number <= $2
  AND ((s.number > 1 AND p.number IS NULL)
       OR s.digest <> sha256(coalesce(p.digest, '')
                             || convert_to(coalesce(sealed.lines, ''), 'UTF8')))
ORDER BY s.number
"""


async def read_broken_seals(reader: Reader, after: int, up_to: int) -> list[Breach]:
    """Those of the seals after one and up to another that no longer verify."""
    rows = await reader.fetch(READ_BROKEN_SEALS, after, up_to)
    return [Breach(f"seal {row['number']}", None, row["says"]) for row in rows]


# ---- The results ---------------------------------------------------------------------------------

READ_RESULTS = """
SELECT id, name, ok, breaches, checked_at, last_ok_at, seen_xid::text AS seen_xid
FROM invariant_result ORDER BY id
"""


async def read_results(reader: Reader) -> list[Result]:
    """How every invariant stood when it was last asked; none before the first run."""
    return [
        Result(**{**dict(row), "breaches": tuple(Breach(**b) for b in json.loads(row["breaches"]))})
        for row in await reader.fetch(READ_RESULTS)
    ]


# One row an invariant, in order of id; the last time that it held is kept through a breach.
WRITE_RESULTS = """
INSERT INTO invariant_result (id, name, ok, breaches, checked_at, last_ok_at, seen_xid)
SELECT g.id, g.name, g.breaches = '[]', g.breaches, $4,
       CASE WHEN g.breaches = '[]' THEN $4::timestamptz END, $5::text::xid8
FROM unnest($1::text[], $2::text[], $3::jsonb[]) AS g (id, name, breaches) ORDER BY g.id
ON CONFLICT (id) DO UPDATE SET
    name = excluded.name, ok = excluded.ok, breaches = excluded.breaches,
    checked_at = excluded.checked_at, seen_xid = excluded.seen_xid,
    last_ok_at = coalesce(excluded.last_ok_at, invariant_result.last_ok_at)
RETURNING id
"""


async def write_results(
    tx: Transaction, found: Mapping[str, Sequence[Breach]], names: Mapping[str, str], seen_xid: str
) -> None:
    """What each of these invariants was found to be, now (real time)."""
    await tx.fetch(
        WRITE_RESULTS,
        list(found),
        [names[invariant_id] for invariant_id in found],
        [_dumped(breaches) for breaches in found.values()],
        tx.real_now,
        seen_xid,
    )


def _dumped(breaches: Sequence[Breach]) -> str:
    return json.dumps(
        [{"subject": b.subject, "escrow_id": b.escrow_id, "says": b.says} for b in breaches[:LIMIT]]
    )


# For an escrow whose log is too broken to write the step; relies on the escrow's lock.
MARK_FROZEN = "UPDATE escrow SET frozen = true WHERE id = $1 AND NOT frozen"


async def mark_frozen(tx: Transaction, escrow_id: str) -> None:
    """Freeze the escrow without telling its log."""
    await tx.execute(MARK_FROZEN, escrow_id)


# ---- What a developer is told --------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Total:
    """In one currency, in minor units: held by the escrows, in the wallet, fees that were paid."""

    currency: str
    held: int
    available: int
    fees: int


READ_TOTALS = """
SELECT part.currency, sum(part.held)::bigint AS held, sum(part.available)::bigint AS available,
       sum(part.fees)::bigint AS fees
FROM (SELECT e.ledger_currency AS currency, e.held_minor AS held, 0 AS available,
             e.fees_minor AS fees
      FROM escrow e WHERE e.creator_id = $1
      UNION ALL
      SELECT a.currency, 0, a.balance_minor, 0
      FROM developer d JOIN account a ON a.kind = 'available' AND a.owner = d.user_id
      WHERE d.id = $1) AS part
GROUP BY part.currency ORDER BY part.currency
"""


async def read_totals(reader: Reader, developer_id: str) -> list[Total]:
    """What the developer's escrows hold and have paid in fees, and its user's wallets."""
    return [Total(**dict(row)) for row in await reader.fetch(READ_TOTALS, developer_id)]


READ_OWN = """
SELECT e.id FROM escrow e WHERE e.creator_id = $1 AND e.id = ANY ($2::text[])
UNION SELECT d.id FROM developer d WHERE d.id = $1
UNION SELECT d.user_id FROM developer d WHERE d.id = $1 AND d.user_id IS NOT NULL
UNION SELECT w.id FROM webhook_endpoint w WHERE w.developer_id = $1 AND w.id = ANY ($2::text[])
UNION SELECT v.id FROM identity_verification v
WHERE v.developer_id = $1 AND v.id = ANY ($2::text[])
"""


async def read_own(reader: Reader, developer_id: str, subjects: Sequence[str]) -> frozenset[str]:
    """Those of the subjects that are this developer's business."""
    rows = await reader.fetch(READ_OWN, developer_id, list(subjects))
    return frozenset(row["id"] for row in rows)
