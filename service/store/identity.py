"""Identity verifications. At most one of a developer and e-mail is pending and not superseded.

And the documents that people upload for them: kept for a while after the decision, then deleted.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

import orjson

from service.rules.files import StoredFile
from service.rules.identity import Verification
from service.store.db import Reader, Row, Transaction

LIST_LIMIT = 20


INSERT_VERIFICATION = """
INSERT INTO identity_verification (
    id, developer_id, email, external_user_id, redirect_url, metadata, kyc_status, token_hash,
    counter, mails, mailed_at, seq, expires_at, created_at, updated_at)
VALUES ($1, $2, $3, $4, $5, $6::text::jsonb, $7, $8, $9, $10, $11, $12, $13, $14, $15)
"""


async def insert_verification(tx: Transaction, new: Verification) -> None:
    """A new one. Relies on the e-mail's lock; the unique index would stop a second pending one."""
    await tx.execute(
        INSERT_VERIFICATION,
        new.id,
        new.developer_id,
        new.email,
        new.external_user_id,
        new.redirect_url,
        orjson.dumps(new.metadata).decode(),
        new.kyc_status,
        new.token_hash,
        new.counter,
        new.mails,
        new.mailed_at,
        new.seq,
        new.expires_at,
        new.created_at,
        new.updated_at,
    )


# Fenced by `seq`: relies on the row's lock, and would write nothing without it.
MOVE_VERIFICATION = """
UPDATE identity_verification SET
    kyc_status = $3, needs_admin_review = $4, superseded = $5, mails = $6, mailed_at = $7,
    linked_user_id = $8, linked_at = $9, seq = $10, updated_at = $11
WHERE id = $1 AND seq = $2
RETURNING true
"""


async def move_verification(tx: Transaction, before: Verification, after: Verification) -> None:
    """The verification as it stands after a step."""
    moved = await tx.fetchval(
        MOVE_VERIFICATION,
        before.id,
        before.seq,
        after.kyc_status,
        after.needs_admin_review,
        after.superseded,
        after.mails,
        after.mailed_at,
        after.linked_user_id,
        after.linked_at,
        after.seq,
        after.updated_at,
    )
    if not moved:
        raise AssertionError(f"verification {before.id} was moved without its lock")


READ_VERIFICATION = "SELECT * FROM identity_verification WHERE id = $1"


async def read_verification(reader: Reader, verification_id: str) -> Verification | None:
    """The verification with this id, expired or not."""
    row = await reader.fetchrow(READ_VERIFICATION, verification_id)
    return _verification(row) if row else None


READ_BEHIND = """
SELECT v.*, d.company FROM identity_verification v JOIN developer d ON d.id = v.developer_id
WHERE v.token_hash = $1
"""


async def read_verification_behind(
    reader: Reader, token_hash: bytes
) -> tuple[Verification, str] | None:
    """The verification that a mailed link belongs to, however it stands, and who asks."""
    row = await reader.fetchrow(READ_BEHIND, token_hash)
    if row is None:
        return None
    columns = dict(row)
    company = columns.pop("company")
    return _verification(columns), company


# Locks the row, waiting: of two uploads by one link the second one finds the first.
LOCK_BEHIND = "SELECT * FROM identity_verification WHERE token_hash = $1 FOR NO KEY UPDATE"


async def lock_verification_behind(tx: Transaction, token_hash: bytes) -> Verification | None:
    """The verification of a mailed link, ours until the transaction ends."""
    row = await tx.fetchrow(LOCK_BEHIND, token_hash)
    return _verification(row) if row else None


INSERT_DOCUMENTS = """
INSERT INTO identity_document (verification_id, position, file_key, language, submitted_at)
SELECT $1, f.position, f.key, $3, $4
FROM unnest($2::text[]) WITH ORDINALITY AS f (key, position)
"""


async def insert_documents(
    tx: Transaction, verification_id: str, files: Sequence[StoredFile], language: str
) -> None:
    """These files show who somebody is; `language` is the one of their page."""
    keys = [file.key for file in files]
    await tx.execute(INSERT_DOCUMENTS, verification_id, keys, language, tx.now)


@dataclass(frozen=True, slots=True)
class Documents:
    """What was uploaded for a verification, in its order; `language` is the person's."""

    files: Sequence[StoredFile]
    language: str
    submitted_at: datetime


READ_DOCUMENTS = """
SELECT f.key, f.mime_type, f.bytes, f.sha256, f.filename, d.language, d.submitted_at
FROM identity_document d JOIN file f ON f.key = d.file_key
WHERE d.verification_id = $1 ORDER BY d.position
"""


async def read_documents(reader: Reader, verification_id: str) -> Documents | None:
    """What was uploaded; None where nothing was, or nothing is kept any more."""
    rows = await reader.fetch(READ_DOCUMENTS, verification_id)
    if not rows:
        return None
    files = [
        StoredFile(row["key"], row["mime_type"], row["bytes"], row["sha256"], row["filename"])
        for row in rows
    ]
    return Documents(files, rows[0]["language"], rows[0]["submitted_at"])


# A decision is never taken back, so that its event is the only one of its kind; nobody adds a
# document to what was decided or has expired. The files' rows go with them: what they held lies
# in the store without a name then, and is swept.
DELETE_DOCUMENTS = """
WITH gone AS (
    DELETE FROM identity_document d USING identity_verification v
    WHERE v.id = d.verification_id AND CASE
        WHEN v.kyc_status = 'pending' THEN v.expires_at
        ELSE (SELECT max(e.at) FROM event e
              WHERE e.subject_id = v.id AND e.step IN ('approve', 'reject'))
        END <= $1::timestamptz - $2::interval
    RETURNING d.file_key
)
SELECT file_key FROM gone
"""
DELETE_FILES = "DELETE FROM file WHERE key = ANY ($1::text[])"


async def delete_old_documents(tx: Transaction, kept: timedelta) -> int:
    """How many documents went whose verification was decided, or expired, `kept` ago."""
    keys = [row["file_key"] for row in await tx.fetch(DELETE_DOCUMENTS, tx.now, kept)]
    if keys:
        await tx.execute(DELETE_FILES, keys)
    return len(keys)


# Locks the row, waiting.
LOCK_VERIFICATION = "SELECT * FROM identity_verification WHERE id = $1 FOR NO KEY UPDATE"


async def lock_verification(tx: Transaction, verification_id: str) -> Verification | None:
    """The verification with this id, ours until the transaction ends."""
    row = await tx.fetchrow(LOCK_VERIFICATION, verification_id)
    return _verification(row) if row else None


# Locks the row, waiting for an operator who decides it just now; then it is not pending any more.
LOCK_PENDING = """
SELECT * FROM identity_verification
WHERE developer_id = $1 AND email = $2 AND kyc_status = 'pending' AND NOT superseded
FOR NO KEY UPDATE
"""


async def lock_pending(tx: Transaction, developer_id: str, email: str) -> Verification | None:
    """The developer's pending one of this e-mail, expired or not. Relies on the e-mail's lock."""
    row = await tx.fetchrow(LOCK_PENDING, developer_id, email)
    return _verification(row) if row else None


# Locks the rows in id order, waiting. Relies on the e-mail's lock: none is made meanwhile.
LOCK_UNLINKED = """
SELECT * FROM identity_verification
WHERE email = $1 AND linked_user_id IS NULL AND (kyc_status <> 'pending' OR expires_at > $2)
ORDER BY id FOR NO KEY UPDATE
"""


async def lock_unlinked(tx: Transaction, email: str) -> list[Verification]:
    """Every developer's verifications of this e-mail that wait for its user, oldest first."""
    return [_verification(row) for row in await tx.fetch(LOCK_UNLINKED, email, tx.now)]


READ_OF_EMAIL = """
SELECT * FROM identity_verification
WHERE developer_id = $1 AND email = $2
  AND (kyc_status <> 'pending' OR expires_at > business_now())
ORDER BY created_at DESC, id DESC LIMIT $3
"""


async def read_of_email(reader: Reader, developer_id: str, email: str) -> list[Verification]:
    """The developer's newest of this e-mail; what expired while it was pending is not found."""
    rows = await reader.fetch(READ_OF_EMAIL, developer_id, email, LIST_LIMIT)
    return [_verification(row) for row in rows]


READ_IS_APPROVED = """
SELECT EXISTS (
    SELECT FROM app_user u JOIN identity_verification v ON v.linked_user_id = u.id
    WHERE u.email = $1 AND v.kyc_status = 'approved')
"""


async def read_is_approved(reader: Reader, email: str) -> bool:
    """Whether the user of this e-mail is registered and approved, whoever asked for it."""
    return bool(await reader.fetchval(READ_IS_APPROVED, email))


@dataclass(frozen=True, slots=True)
class Asker:
    """What must be known of the developer that asks for a verification."""

    company: str
    redirect_urls: Sequence[str]


READ_ASKER = "SELECT company, redirect_urls FROM developer WHERE id = $1"


async def read_asker(reader: Reader, developer_id: str) -> Asker:
    """The developer behind a key."""
    row = await reader.fetchrow(READ_ASKER, developer_id)
    if row is None:
        raise AssertionError("a key of a developer, and no such developer")
    return Asker(**dict(row))


@dataclass(frozen=True, slots=True)
class Undecided:
    """A verification that waits for the operator."""

    id: str
    email: str
    company: str
    needs_admin_review: bool
    created_at: datetime
    expires_at: datetime


# By the partial index of those that are pending.
READ_UNDECIDED = """
SELECT v.id, v.email, d.company, v.needs_admin_review, v.created_at, v.expires_at
FROM identity_verification v JOIN developer d ON d.id = v.developer_id
WHERE v.kyc_status = 'pending' AND NOT v.superseded AND v.expires_at > business_now()
ORDER BY v.id LIMIT $1
"""


async def read_undecided(reader: Reader, limit: int) -> list[Undecided]:
    """Those that can be decided, oldest first."""
    return [Undecided(**dict(row)) for row in await reader.fetch(READ_UNDECIDED, limit)]


def _verification(row: Row | Mapping[str, Any]) -> Verification:
    return Verification(**{**dict(row), "metadata": orjson.loads(row["metadata"])})
