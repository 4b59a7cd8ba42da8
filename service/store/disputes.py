"""What is said and offered in disputes. The dispute itself is a part of its escrow: `parts.py`.

Every statement that writes relies on the escrow's lock.
"""

from service.rules.dispute import Offer, Split, Statement
from service.rules.files import StoredFile
from service.store.db import Reader, Row, Transaction

INSERT_STATEMENT = """
INSERT INTO dispute_statement (id, dispute_id, role, user_id, body, stated_at)
VALUES ($1, $2, $3, $4, $5, $6)
"""
INSERT_EVIDENCE = """
INSERT INTO dispute_evidence (statement_id, position, file_key)
SELECT $1, f.position, f.key FROM unnest($2::text[]) WITH ORDINALITY AS f (key, position)
"""


async def insert_statement(tx: Transaction, given: Statement) -> None:
    """A party has said or shown this; its files have their rows already."""
    await tx.execute(
        INSERT_STATEMENT,
        given.id,
        given.dispute_id,
        given.role,
        given.user_id,
        given.text,
        given.stated_at,
    )
    if given.files:
        await tx.execute(INSERT_EVIDENCE, given.id, [file.key for file in given.files])


REPLACE_OFFER = """
UPDATE dispute_offer SET outcome = 'replaced'
WHERE dispute_id = $1 AND role = $2 AND outcome IS NULL
"""
INSERT_OFFER = """
INSERT INTO dispute_offer (id, dispute_id, role, seller_minor, buyer_minor, offered_at)
VALUES ($1, $2, $3, $4, $5, $6)
"""


async def insert_offer(tx: Transaction, made: Offer) -> None:
    """The party's offer from now on, in place of the one that it made before."""
    await tx.execute(REPLACE_OFFER, made.dispute_id, made.role)
    await tx.execute(
        INSERT_OFFER,
        made.id,
        made.dispute_id,
        made.role,
        made.split.seller_minor,
        made.split.buyer_minor,
        made.offered_at,
    )


NOTE_ACCEPTED = """
UPDATE dispute_offer SET outcome = 'accepted' WHERE id = $1 AND outcome IS NULL
"""


async def note_accepted(tx: Transaction, offer_id: str) -> None:
    """The other party has accepted this one."""
    status = await tx.execute(NOTE_ACCEPTED, offer_id)
    if status != "UPDATE 1":
        raise AssertionError(f"offer {offer_id} was open under the lock and is not: {status}")


COUNT_ADDITIONS = """
SELECT (SELECT count(*) FROM dispute_statement s WHERE s.dispute_id = $1 AND s.role = $2)
     + (SELECT count(*) FROM dispute_offer o WHERE o.dispute_id = $1 AND o.role = $2)
"""


async def count_additions(reader: Reader, dispute_id: str, role: str) -> int:
    """How many statements and offers this party has made in this dispute."""
    count: int = await reader.fetchval(COUNT_ADDITIONS, dispute_id, role)
    return count


# What nobody accepted lapses with its dispute, however that ends.
READ_OFFER = """
SELECT o.id, o.dispute_id, o.role, o.seller_minor, o.buyer_minor, o.offered_at,
       coalesce(o.outcome, CASE WHEN d.resolved_at IS NOT NULL THEN 'lapsed' END) AS outcome
FROM dispute_offer o JOIN dispute d ON d.id = o.dispute_id
WHERE o.id = $1
"""


async def read_offer(reader: Reader, offer_id: str) -> Offer | None:
    """The offer, or None when there is none of this id."""
    row = await reader.fetchrow(READ_OFFER, offer_id)
    return _offer(row) if row else None


READ_OFFERS = """
SELECT o.id, o.dispute_id, o.role, o.seller_minor, o.buyer_minor, o.offered_at,
       coalesce(o.outcome, CASE WHEN d.resolved_at IS NOT NULL THEN 'lapsed' END) AS outcome
FROM dispute_offer o JOIN dispute d ON d.id = o.dispute_id
WHERE o.dispute_id = $1 ORDER BY o.id
"""


async def read_offers(reader: Reader, dispute_id: str) -> list[Offer]:
    """Every offer of the dispute, oldest first."""
    return [_offer(row) for row in await reader.fetch(READ_OFFERS, dispute_id)]


READ_STATEMENTS = """
SELECT id, dispute_id, role, user_id, body, stated_at
FROM dispute_statement WHERE dispute_id = $1 ORDER BY stated_at, id
"""
READ_EVIDENCE = """
SELECT s.id, f.key, f.mime_type, f.bytes, f.sha256, f.filename
FROM dispute_statement s
JOIN dispute_evidence e ON e.statement_id = s.id JOIN file f ON f.key = e.file_key
WHERE s.dispute_id = $1 ORDER BY s.id, e.position
"""


async def read_statements(reader: Reader, dispute_id: str) -> list[Statement]:
    """Everything that was said and shown in the dispute, oldest first."""
    files: dict[str, list[StoredFile]] = {}
    for row in await reader.fetch(READ_EVIDENCE, dispute_id):
        file = StoredFile(
            row["key"], row["mime_type"], row["bytes"], row["sha256"], row["filename"]
        )
        files.setdefault(row["id"], []).append(file)
    return [
        Statement(
            id=row["id"],
            dispute_id=row["dispute_id"],
            role=row["role"],
            user_id=row["user_id"],
            stated_at=row["stated_at"],
            text=row["body"],
            files=tuple(files.get(row["id"], ())),
        )
        for row in await reader.fetch(READ_STATEMENTS, dispute_id)
    ]


READ_OPEN_DISPUTES = """
SELECT escrow_id FROM dispute WHERE resolved_at IS NULL ORDER BY answered_at NULLS LAST, id LIMIT $1
"""
READ_PROOFS_TO_DECIDE = """
SELECT p.escrow_id FROM purchase_proof p JOIN escrow e ON e.id = p.escrow_id
WHERE p.phase = 'needs_dhmad_review' AND e.status = 'paid' ORDER BY p.escrow_id LIMIT $1
"""


async def read_disputed(reader: Reader, limit: int) -> list[str]:
    """The ids of the escrows with an open dispute: answered ones first, then oldest first."""
    return [row["escrow_id"] for row in await reader.fetch(READ_OPEN_DISPUTES, limit)]


async def read_proofs_to_decide(reader: Reader, limit: int) -> list[str]:
    """The ids of the escrows whose purchase proof waits for the operator, oldest first."""
    return [row["escrow_id"] for row in await reader.fetch(READ_PROOFS_TO_DECIDE, limit)]


def _offer(row: Row) -> Offer:
    return Offer(
        id=row["id"],
        dispute_id=row["dispute_id"],
        role=row["role"],
        split=Split(row["seller_minor"], row["buyer_minor"]),
        offered_at=row["offered_at"],
        outcome=row["outcome"],
    )
