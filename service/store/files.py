"""Files that a step has named. What they hold lies in the object store, under their keys."""

from collections.abc import Sequence

from service.rules.files import StoredFile
from service.store.db import Reader, Transaction

INSERT_FILES = """
INSERT INTO file (key, mime_type, bytes, sha256, filename, escrow_id, uploaded_by, created_at)
SELECT f.key, f.mime_type, f.bytes, f.sha256, f.filename, $6, $7, $8
FROM unnest($1::text[], $2::text[], $3::integer[], $4::text[], $5::text[])
    AS f (key, mime_type, bytes, sha256, filename)
"""


async def insert_files(
    tx: Transaction, files: Sequence[StoredFile], escrow_id: str | None, uploaded_by: str | None
) -> None:
    """Somebody wants these files from now on."""
    if files:
        await tx.execute(
            INSERT_FILES,
            [file.key for file in files],
            [file.mime_type for file in files],
            [file.bytes for file in files],
            [file.sha256 for file in files],
            [file.filename for file in files],
            escrow_id,
            uploaded_by,
            tx.now,
        )


# Links live in real time: the sandbox's clock does not end them.
READ_VIEWABLE = """
SELECT key, mime_type, bytes, sha256, filename FROM file
WHERE key = $1 AND clock_timestamp() < to_timestamp($2::bigint)
"""


async def read_viewable(reader: Reader, key: str, expires: int) -> StoredFile | None:
    """The file, if the clock does not yet show these seconds since 1970."""
    row = await reader.fetchrow(READ_VIEWABLE, key, expires)
    return StoredFile(**dict(row)) if row else None


READ_FILES = """
SELECT key, mime_type, bytes, sha256, filename FROM file WHERE key = ANY ($1::text[])
"""


async def read_files(reader: Reader, keys: Sequence[str]) -> dict[str, StoredFile]:
    """Those of the files that have a row, by key."""
    rows = await reader.fetch(READ_FILES, list(keys))
    return {row["key"]: StoredFile(**dict(row)) for row in rows}


READ_UNNAMED = """
SELECT k FROM unnest($1::text[]) AS k WHERE NOT EXISTS (SELECT FROM file f WHERE f.key = k)
"""


async def read_unnamed(reader: Reader, keys: Sequence[str]) -> list[str]:
    """Those of these keys that no row names."""
    return [row["k"] for row in await reader.fetch(READ_UNNAMED, list(keys))]
