"""Invitations: one per person and escrow; the link's token is never here, only its hash.

Times are business times. An invitation is open until it is accepted, its escrow is final, or its
person is no longer named there.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from service.store.db import Reader, Transaction


@dataclass(frozen=True, slots=True)
class Invitation:
    """One invitation. `counter` and `token_hash` belong to its link; `is_open` as above."""

    id: str
    escrow_id: str
    role: str
    email: str
    token_hash: bytes
    counter: int
    reminders: int
    created_at: datetime
    is_open: bool = True


# Whoever invites the same person to the same escrow at the same time waits here for the other's
# commit and then inserts nothing.
INSERT_INVITATIONS = """
INSERT INTO invitation (id, escrow_id, role, email, token_hash, counter, created_at)
SELECT id, escrow_id, role, email, token_hash, counter, $7
FROM unnest($1::text[], $2::text[], $3::text[], $4::text[], $5::bytea[], $6::smallint[])
     AS given (id, escrow_id, role, email, token_hash, counter)
ORDER BY escrow_id, email
ON CONFLICT (escrow_id, email) WHERE closed_at IS NULL DO NOTHING
RETURNING id
"""


async def insert_invitations(tx: Transaction, invitations: Sequence[Invitation]) -> set[str]:
    """The ids of those that are new; the others' persons were invited before."""
    if not invitations:
        return set()
    rows = await tx.fetch(
        INSERT_INVITATIONS,
        [invitation.id for invitation in invitations],
        [invitation.escrow_id for invitation in invitations],
        [invitation.role for invitation in invitations],
        [invitation.email for invitation in invitations],
        [invitation.token_hash for invitation in invitations],
        [invitation.counter for invitation in invitations],
        tx.now,
    )
    return {row["id"] for row in rows}


# Relies on the unique index on the hash.
READ_INVITATION_BEHIND = "SELECT * FROM invitation_reading WHERE token_hash = $1"


async def read_invitation_behind(reader: Reader, token_hash: bytes) -> Invitation | None:
    """The invitation whose link has this hash (32 bytes), open or not."""
    row = await reader.fetchrow(READ_INVITATION_BEHIND, token_hash)
    return Invitation(**dict(row)) if row else None


READ_INVITATION = "SELECT * FROM invitation_reading WHERE id = $1"


async def read_invitation(reader: Reader, invitation_id: str) -> Invitation | None:
    """The invitation with this id, open or not."""
    row = await reader.fetchrow(READ_INVITATION, invitation_id)
    return Invitation(**dict(row)) if row else None


# Deadlines before invitations, as when a reminder fires: the same order everywhere.
DISARM_REMINDERS = """
UPDATE deadline SET cancelled_at = $3
FROM invitation i
WHERE i.escrow_id = $1 AND i.email = ANY ($2::text[]) AND deadline.escrow_id = i.escrow_id
  AND deadline.kind = 'invitation_reminder' AND deadline.subject = i.id
  AND deadline.fired_at IS NULL AND deadline.cancelled_at IS NULL
"""

# Single use: whoever comes second updates nothing.
ACCEPT_INVITATION = """
UPDATE invitation SET user_id = $3, accepted_at = $4
WHERE escrow_id = $1 AND email = $2 AND accepted_at IS NULL AND closed_at IS NULL
"""


async def accept_invitation(tx: Transaction, escrow_id: str, email: str, user_id: str) -> None:
    """The user has taken the place that this e-mail was invited to: link spent, no more reminders.

    Relies on the escrow's lock; does nothing where nobody was invited.
    """
    await tx.execute(DISARM_REMINDERS, escrow_id, [email], tx.now)
    await tx.execute(ACCEPT_INVITATION, escrow_id, email, user_id, tx.now)


CLOSE_INVITATIONS = """
UPDATE invitation SET closed_at = $3
WHERE escrow_id = $1 AND email = ANY ($2::text[]) AND closed_at IS NULL
"""


async def disarm_reminders(tx: Transaction, escrow_id: str, emails: Sequence[str]) -> None:
    """These people are reminded no more; their links stand."""
    await tx.execute(DISARM_REMINDERS, escrow_id, list(emails), tx.now)


async def close_invitations(tx: Transaction, escrow_id: str, emails: Sequence[str]) -> None:
    """These people are no longer named: their links are void, and nobody is reminded.

    Relies on the escrow's lock; does nothing where nobody was invited.
    """
    await disarm_reminders(tx, escrow_id, emails)
    await tx.execute(CLOSE_INVITATIONS, escrow_id, list(emails), tx.now)


READ_ACCEPTED = "SELECT escrow_id FROM invitation WHERE user_id = $1 ORDER BY escrow_id"


async def read_accepted(reader: Reader, user_id: str) -> list[str]:
    """The ids of the escrows to which this user came by an invitation, oldest first."""
    return [row["escrow_id"] for row in await reader.fetch(READ_ACCEPTED, user_id)]


# The count is the fence: the same reminder is never noted twice.
NOTE_REMINDER = """
UPDATE invitation SET reminders = reminders + 1
WHERE id = $1 AND accepted_at IS NULL AND closed_at IS NULL AND reminders = $2
RETURNING true
"""


async def note_reminder(tx: Transaction, invitation: Invitation) -> bool:
    """Whether this is the next reminder of an invitation that still waits."""
    return bool(await tx.fetchval(NOTE_REMINDER, invitation.id, invitation.reminders))
