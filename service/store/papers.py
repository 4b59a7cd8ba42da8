"""Contracts' documents: asked for by a step, made by a worker, named by the file that was made.

A row without a file is work to do; `due_at` is real time, and doubles as the lease of whoever is
at it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

import orjson

from service.rules.contract import ContractFacts
from service.store.db import Reader, Transaction

# Relies on the escrow's lock. Where the same state is asked for again, something that is printed
# has changed: what was made of it is made anew. Rows that are there are locked first, so that a
# printer that is just keeping one has kept it, and its file is known.
ASK_PAPERS = """
WITH asked AS (
    SELECT f.facts->>'contract' AS contract_id, (f.facts->>'version')::integer AS version,
           f.facts->>'signing' AS signing, f.facts
    FROM unnest($1::jsonb[]) AS f (facts)
), former AS MATERIALIZED (
    SELECT p.file_key
    FROM paper p JOIN asked a ON (p.contract_id, p.version, p.signing)
                               = (a.contract_id, a.version, a.signing)
    FOR NO KEY UPDATE OF p
), put AS (
    INSERT INTO paper (contract_id, version, signing, facts, created_at)
    SELECT a.contract_id, a.version, a.signing, a.facts, $2
    FROM asked a, (SELECT count(*) FROM former) AS locked
    ON CONFLICT (contract_id, version, signing) DO UPDATE SET
        facts = excluded.facts, fingerprint = NULL, file_key = NULL, tries = 0,
        due_at = clock_timestamp(), created_at = excluded.created_at
)
SELECT file_key FROM former WHERE file_key IS NOT NULL
"""
# What they were made into; the store's copies follow, as nothing names them any more.
DELETE_FORMER = "DELETE FROM file WHERE key = ANY ($1::text[])"


async def ask_papers(tx: Transaction, facts: Sequence[ContractFacts]) -> None:
    """These documents are to be made; in place of what was made of the same states before."""
    if not facts:
        return
    asked = [orjson.dumps(one).decode() for one in facts]
    former = await tx.fetch(ASK_PAPERS, asked, tx.now)
    if former:
        await tx.execute(DELETE_FORMER, [row["file_key"] for row in former])


@dataclass(frozen=True, slots=True)
class DuePaper:
    """A document to be made. `is_current`: its version of the contract has not been replaced."""

    facts: ContractFacts
    terms: str
    is_current: bool


# Passes over what another worker has just taken. After a failure it waits ever longer, an hour at
# the most.
CLAIM_PAPERS = """
WITH due AS (
    SELECT contract_id, version, signing FROM paper
    WHERE file_key IS NULL AND due_at <= clock_timestamp()
    ORDER BY due_at LIMIT $1
    FOR NO KEY UPDATE SKIP LOCKED
)
UPDATE paper p
SET tries = least(p.tries + 1, 1000),
    due_at = clock_timestamp() + interval '1 minute' * least(power(2, least(p.tries, 6)), 60)
FROM due JOIN contract c ON c.id = due.contract_id
WHERE (p.contract_id, p.version, p.signing) = (due.contract_id, due.version, due.signing)
RETURNING p.facts::text, c.terms, c.version = p.version AS is_current
"""


async def claim_papers(tx: Transaction, limit: int) -> list[DuePaper]:
    """Take up what is due; nobody else does for a minute."""
    rows = await tx.fetch(CLAIM_PAPERS, limit)
    return [DuePaper(orjson.loads(row[0]), row[1], row[2]) for row in rows]


# Holds the row, so that nobody asks for it again between this and SETTLE_PAPER.
LOCK_PAPER = """
SELECT true FROM paper
WHERE contract_id = $1 AND version = $2 AND signing = $3 AND file_key IS NULL AND facts = $4::jsonb
FOR NO KEY UPDATE
"""


async def lock_paper(tx: Transaction, facts: ContractFacts) -> bool:
    """Whether exactly this document is still to be made."""
    found = await tx.fetchval(
        LOCK_PAPER,
        facts["contract"],
        facts["version"],
        facts["signing"],
        orjson.dumps(facts).decode(),
    )
    return bool(found)


# Relies on the row's lock.
SETTLE_PAPER = """
UPDATE paper SET file_key = $4, fingerprint = $5
WHERE contract_id = $1 AND version = $2 AND signing = $3
"""


async def settle_paper(tx: Transaction, facts: ContractFacts, key: str, fingerprint: str) -> None:
    """The document is the file of this key."""
    await tx.execute(
        SETTLE_PAPER, facts["contract"], facts["version"], facts["signing"], key, fingerprint
    )


DROP_PAPER = """
DELETE FROM paper
WHERE contract_id = $1 AND version = $2 AND signing = $3 AND file_key IS NULL
"""


async def drop_paper(tx: Transaction, facts: ContractFacts) -> None:
    """Its version was replaced before it was made; there is nothing to print any more."""
    await tx.execute(DROP_PAPER, facts["contract"], facts["version"], facts["signing"])


@dataclass(frozen=True, slots=True)
class MadePaper:
    """A document that was made, with the SHA-256 that is printed on it."""

    signing: str
    file_key: str
    fingerprint: str
    created_at: datetime


READ_PAPERS = """
SELECT p.signing, p.file_key, p.fingerprint, p.created_at
FROM paper p JOIN contract c ON c.id = p.contract_id AND c.version = p.version
WHERE p.contract_id = $1 AND p.file_key IS NOT NULL
ORDER BY p.created_at, p.signing = 'fully-signed'
"""


async def read_papers(reader: Reader, contract_id: str) -> list[MadePaper]:
    """The documents of the contract's newest version, in the order of its signatures."""
    return [MadePaper(**dict(row)) for row in await reader.fetch(READ_PAPERS, contract_id)]
