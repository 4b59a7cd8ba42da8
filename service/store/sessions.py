"""Checkout sessions: created, read, claimed inside their step, ended by what happens meanwhile."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import orjson

from service.store.db import Reader, Row, Transaction


@dataclass(frozen=True, slots=True)
class Session:
    """A session as its row stands; `expires_at` is business time.

    `of_milestones` says which family its escrow is of. `input` is the body of that family's step,
    where it was given with the session: plain JSON, amounts as decimal strings. `terms_version` is
    the version of the terms for which it was given, where it means something else under others.
    """

    id: UUID
    escrow_id: str
    developer_id: str
    action: str
    email: str
    redirect_url: str
    metadata: Mapping[str, str]
    status: str
    expires_at: datetime
    completed_at: datetime | None
    created_at: datetime
    of_milestones: bool
    input: Mapping[str, Any] | None = None
    terms_version: int | None = None


INSERT_SESSION = """
INSERT INTO checkout_session (id, escrow_id, developer_id, action, email, redirect_url, metadata,
                              expires_at, created_at, input, terms_version)
VALUES ($1, $2, $3, $4, $5, $6, $7::jsonb, $8, $9, $10::jsonb, $11)
"""


async def insert_session(tx: Transaction, session: Session) -> None:
    """A new session, pending."""
    await tx.execute(
        INSERT_SESSION,
        session.id,
        session.escrow_id,
        session.developer_id,
        session.action,
        session.email,
        session.redirect_url,
        orjson.dumps(session.metadata).decode(),
        session.expires_at,
        session.created_at,
        None if session.input is None else orjson.dumps(session.input).decode(),
        session.terms_version,
    )


# Its time is over when the clock says so, whether or not the sweep has come by: it never comes to a
# frozen escrow's.
READ_SESSION = """
SELECT id, escrow_id, developer_id, action, email, redirect_url, metadata::text,
       CASE WHEN status = 'pending' AND expires_at <= business_now() THEN 'expired'
            ELSE status END AS status,
       expires_at, completed_at, created_at, input::text, terms_version,
       (SELECT e.mode = 'milestone' FROM escrow e WHERE e.id = escrow_id) AS of_milestones
FROM checkout_session WHERE id = $1
"""


async def read_session(reader: Reader, session_id: UUID) -> Session | None:
    """The session, or None where there is none of this id."""
    row = await reader.fetchrow(READ_SESSION, session_id)
    return _session(row) if row else None


# Relies on the escrow's lock: whoever finishes, cancels or expires it takes that first. Its clock
# stops with it.
END_SESSION = """
WITH over AS (
    UPDATE checkout_session
    SET status = $2, completed_at = CASE WHEN $2 = 'completed' THEN $3::timestamptz END
    WHERE id = $1 AND status = 'pending' AND ($2 = 'expired' OR expires_at > $3)
    RETURNING id, escrow_id, developer_id, action, email, redirect_url, metadata::text, status,
              expires_at, completed_at, created_at, input::text, terms_version,
              (SELECT e.mode = 'milestone' FROM escrow e WHERE e.id = escrow_id) AS of_milestones
), stopped AS (
    UPDATE deadline d SET cancelled_at = $3 FROM over
    WHERE d.escrow_id = over.escrow_id AND d.kind = 'session' AND d.subject = over.id::text
      AND d.fired_at IS NULL AND d.cancelled_at IS NULL
)
SELECT * FROM over
"""


async def end_session(tx: Transaction, session_id: UUID, status: str) -> Session | None:
    """The session after it was ended so; None where it was not pending, or is past its time."""
    row = await tx.fetchrow(END_SESSION, session_id, status, tx.now)
    return _session(row) if row else None


# Relies on the escrow's lock. Its clock moves along; what has expired stays so.
MOVE_EXPIRY = """
WITH moved AS (
    UPDATE checkout_session SET expires_at = $2
    WHERE id = $1 AND status = 'pending' AND expires_at > $3
    RETURNING id, escrow_id
)
UPDATE deadline d SET due_at = $2
FROM moved m WHERE d.escrow_id = m.escrow_id AND d.kind = 'session' AND d.subject = m.id::text
  AND d.fired_at IS NULL AND d.cancelled_at IS NULL
"""


async def move_expiry(tx: Transaction, session_id: UUID, until: datetime) -> None:
    """A session that may be used may be used until then, be that later or sooner."""
    await tx.execute(MOVE_EXPIRY, session_id, until, tx.now)


# Relies on the escrows' locks; along the index of what is pending, so that it costs nothing where
# there is none. Their clocks are stopped with them.
CANCEL_SESSIONS = """
WITH over AS (
    UPDATE checkout_session s SET status = 'cancelled'
    FROM unnest($1::text[], $2::text[], $3::text[], $5::text[])
         AS ended (escrow_id, action, email, naming)
    WHERE s.escrow_id = ended.escrow_id AND s.status = 'pending'
      AND ended.action IN (s.action, '*') AND ended.email IN (s.email, '*')
      AND (ended.naming IS NULL OR s.input @> ended.naming::jsonb)
    RETURNING s.id, s.escrow_id
)
UPDATE deadline d SET cancelled_at = $4
FROM over WHERE d.escrow_id = over.escrow_id AND d.kind = 'session' AND d.subject = over.id::text
  AND d.fired_at IS NULL AND d.cancelled_at IS NULL
"""


class Ended(NamedTuple):
    """Whose promise is kept, or void: `*` stands for every action, and for every e-mail.

    `naming`: only those whose input contains this.
    """

    escrow_id: str
    action: str
    email: str
    naming: Mapping[str, Any] | None = None


async def cancel_sessions(tx: Transaction, ended: Sequence[Ended]) -> None:
    """The pending sessions of these: what they promise is done, or void."""
    if ended:
        escrow_ids, actions, emails, naming = map(list, zip(*ended, strict=True))
        names = [None if one is None else orjson.dumps(one).decode() for one in naming]
        await tx.execute(CANCEL_SESSIONS, escrow_ids, actions, emails, tx.now, names)


def _session(row: Row) -> Session:
    facts: dict[str, Any] = dict(row)
    given = None if facts["input"] is None else orjson.loads(facts["input"])
    return Session(**{**facts, "metadata": orjson.loads(facts["metadata"]), "input": given})
