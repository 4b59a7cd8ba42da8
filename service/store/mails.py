"""Mails: each a row that is the job; claimed with a lease, settled behind a fence.

Times are real times, the database's own: neither a sandbox clock that is moved forward nor a
worker's clock that is wrong sends or retries anything early. Facts never hold a token.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any
from uuid import UUID

import orjson

from service.store.db import Reader, Row, Transaction

ERROR_CHARACTERS = 500


@dataclass(frozen=True, slots=True)
class NewMail:
    """A mail to be sent once per `dedupe_key`, whoever asks for it and however often."""

    id: str
    recipient: str
    template: str
    language: str
    facts: Mapping[str, object]
    dedupe_key: str
    message_id: str
    escrow_id: str | None = None
    invitation_id: str | None = None
    identity_id: str | None = None


@dataclass(frozen=True, slots=True)
class Link:
    """From which a link's token is derived (`invitation` or `identity`, and its row); its hash."""

    purpose: str
    row_id: str
    counter: int
    token_hash: bytes = field(repr=False)


@dataclass(frozen=True, slots=True)
class Mail:
    """A mail as its row stands. `is_moot`: it asks for what is accepted, decided or final."""

    id: str
    recipient: str
    template: str
    language: str
    facts: Mapping[str, Any]
    escrow_id: str | None
    message_id: str
    attempt: int
    created_at: datetime
    sent_at: datetime | None
    is_moot: bool
    link: Link | None


# One row per dedupe key: a second writer waits for the first one's commit, then inserts nothing.
INSERT_MAILS = """
INSERT INTO mail (id, recipient, template, language, facts, dedupe_key, message_id, escrow_id,
                  invitation_id, identity_id, visible_at, created_at)
SELECT id, recipient, template, language, facts::jsonb, dedupe_key, message_id, escrow_id,
       invitation_id, identity_id, statement_timestamp(), statement_timestamp()
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::text[], $7::text[],
            $8::text[], $9::text[], $10::text[])
     AS given (id, recipient, template, language, facts, dedupe_key, message_id, escrow_id,
               invitation_id, identity_id)
ORDER BY dedupe_key
ON CONFLICT (dedupe_key) DO NOTHING
RETURNING id
"""


async def insert_mails(tx: Transaction, mails: Sequence[NewMail]) -> set[str]:
    """The ids of those that are new; they are due at once, and the mails' bell rings."""
    if not mails:
        return set()
    rows = await tx.fetch(
        INSERT_MAILS,
        [mail.id for mail in mails],
        [mail.recipient for mail in mails],
        [mail.template for mail in mails],
        [mail.language for mail in mails],
        [orjson.dumps(mail.facts).decode() for mail in mails],
        [mail.dedupe_key for mail in mails],
        [mail.message_id for mail in mails],
        [mail.escrow_id for mail in mails],
        [mail.invitation_id for mail in mails],
        [mail.identity_id for mail in mails],
    )
    if rows:
        tx.ring("mails")
    return {row["id"] for row in rows}


# Locks due rows, passing over those that another worker is claiming; a lease that ran out makes
# its row due again. The attempt counts from here.
CLAIM_MAILS = """
WITH due AS (
    SELECT id FROM mail WHERE state = 'pending' AND visible_at <= statement_timestamp()
    ORDER BY visible_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED
), claimed AS (
    UPDATE mail SET visible_at = statement_timestamp() + $2, claim_token = $3, attempt = attempt + 1
    FROM due WHERE mail.id = due.id
    RETURNING mail.*
)
SELECT m.id, m.recipient, m.template, m.language, m.facts::text, m.escrow_id, m.message_id,
       m.attempt, m.created_at, m.sent_at, i.id AS invitation_id, v.id AS identity_id,
       coalesce(i.counter, v.counter) AS counter,
       coalesce(i.token_hash, v.token_hash) AS token_hash,
       coalesce(i.accepted_at IS NOT NULL OR i.closed_at IS NOT NULL
                OR e.status IN ('completed', 'cancelled'), false)
           OR coalesce(m.template = 'identity_verification'
               AND (v.kyc_status <> 'pending' OR v.superseded OR v.needs_admin_review), false)
           AS is_moot
FROM claimed m
LEFT JOIN invitation i ON i.id = m.invitation_id
LEFT JOIN escrow e ON e.id = i.escrow_id
LEFT JOIN identity_verification v ON v.id = m.identity_id
ORDER BY m.created_at, m.id
"""


async def claim_mails(tx: Transaction, limit: int, lease: timedelta, token: UUID) -> list[Mail]:
    """At most `limit` mails that are due, oldest first; they are `token`'s for the lease."""
    rows = await tx.fetch(CLAIM_MAILS, limit, lease, token)
    return [_mail(row) for row in rows]


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an attempt ended: sent, failed, cancelled, or pending again after `wait`."""

    mail_id: str
    state: str
    wait: timedelta | None = None
    error: str | None = None


# The fence: a worker whose lease ran out and whose row was claimed anew settles nothing.
SETTLE_MAILS = """
UPDATE mail SET state = s.state, claim_token = NULL, last_error = s.error,
    visible_at = coalesce(statement_timestamp() + s.wait, mail.visible_at),
    sent_at = CASE WHEN s.state = 'sent' THEN statement_timestamp() END
FROM unnest($2::text[], $3::text[], $4::interval[], $5::text[]) AS s (id, state, wait, error)
WHERE mail.id = s.id AND mail.claim_token = $1 AND mail.state = 'pending'
RETURNING mail.id
"""


async def settle_mails(tx: Transaction, token: UUID, settlements: Sequence[Settlement]) -> set[str]:
    """The ids of the mails that were still this token's and are settled now."""
    rows = await tx.fetch(
        SETTLE_MAILS,
        token,
        [settlement.mail_id for settlement in settlements],
        [settlement.state for settlement in settlements],
        [settlement.wait for settlement in settlements],
        [_stored(settlement.error) for settlement in settlements],
    )
    return {row["id"] for row in rows}


# Only what a mail server has taken; newest first by the partial index on sent_at.
READ_SENT_MAILS = """
SELECT m.id, m.recipient, m.template, m.language, m.facts::text, m.escrow_id, m.message_id,
       m.attempt, m.created_at, m.sent_at, i.id AS invitation_id, v.id AS identity_id,
       coalesce(i.counter, v.counter) AS counter,
       coalesce(i.token_hash, v.token_hash) AS token_hash,
       false AS is_moot
FROM mail m LEFT JOIN invitation i ON i.id = m.invitation_id
LEFT JOIN identity_verification v ON v.id = m.identity_id
WHERE m.state = 'sent' AND ($1::text IS NULL OR m.recipient = $1)
ORDER BY m.sent_at DESC, m.id DESC LIMIT $2
"""


async def read_sent_mails(reader: Reader, recipient: str | None, limit: int) -> list[Mail]:
    """The newest sent mails, of one recipient (lower case) or of all."""
    return [_mail(row) for row in await reader.fetch(READ_SENT_MAILS, recipient, limit)]


@dataclass(frozen=True, slots=True)
class Trouble:
    """A mail of an escrow that bounced (`failed`) or is being tried again (`pending`)."""

    recipient: str
    template: str
    state: str
    attempts: int
    last_error: str
    next_attempt_at: datetime | None


READ_MAIL_TROUBLES = """
SELECT recipient, template, state, attempt, coalesce(last_error, ''),
       CASE WHEN state = 'pending' THEN visible_at END
FROM mail
WHERE escrow_id = $1 AND (state = 'failed' OR state = 'pending' AND last_error IS NOT NULL)
ORDER BY created_at, id
"""


async def read_mail_troubles(reader: Reader, escrow_id: str) -> list[Trouble]:
    """What of this escrow's mail has not arrived after at least one try, oldest first."""
    return [Trouble(*row) for row in await reader.fetch(READ_MAIL_TROUBLES, escrow_id)]


@dataclass(frozen=True, slots=True)
class Backlog:
    """How many mails are due, how long the oldest of them (0 when there is none), and failed."""

    due: int
    oldest_seconds: float
    failed: int


READ_MAIL_BACKLOG = """
SELECT count(*) FILTER (WHERE state = 'pending'),
       coalesce(extract(epoch FROM statement_timestamp() - min(visible_at)
                FILTER (WHERE state = 'pending')), 0)::float8,
       count(*) FILTER (WHERE state = 'failed')
FROM mail
WHERE state = 'pending' AND visible_at <= statement_timestamp()
   OR state = 'failed' AND created_at > statement_timestamp() - interval '1 day'
"""


async def read_mail_backlog(reader: Reader) -> Backlog:
    """For the metrics; `failed` counts the last day's."""
    row = await reader.fetchrow(READ_MAIL_BACKLOG)
    return Backlog(*row) if row else Backlog(0, 0.0, 0)


def _mail(row: Row) -> Mail:
    link = None
    for purpose in ("invitation", "identity"):
        if row[f"{purpose}_id"] is not None:
            link = Link(purpose, row[f"{purpose}_id"], row["counter"], row["token_hash"])
    return Mail(
        id=row["id"],
        recipient=row["recipient"],
        template=row["template"],
        language=row["language"],
        facts=orjson.loads(row["facts"]),
        escrow_id=row["escrow_id"],
        message_id=row["message_id"],
        attempt=row["attempt"],
        created_at=row["created_at"],
        sent_at=row["sent_at"],
        is_moot=row["is_moot"],
        link=link,
    )


def _stored(error: str | None) -> str | None:
    """What PostgreSQL takes of a mail server's words: no NUL, no lone surrogates, not too long."""
    if error is None:
        return None
    return error.replace("\x00", "").encode("utf-8", "replace").decode()[:ERROR_CHARACTERS]
