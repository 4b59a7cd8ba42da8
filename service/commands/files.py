"""Files of a step: recorded in its transaction, and the links by which they are looked at.

A file is in the store before the step begins. Only its row says that somebody wants it: what no
row names a day later, retention removes.
"""

from collections.abc import Sequence
from datetime import datetime

from service.rules.files import VIEW_SECONDS, StoredFile
from service.store.db import Reader, Transaction
from service.store.files import insert_files, read_viewable
from service.store.vault import Vault, hash_token

PURPOSE = "file"


async def record(
    tx: Transaction,
    files: Sequence[StoredFile],
    *,
    escrow_id: str | None = None,
    uploaded_by: str | None = None,
) -> None:
    """These files are part of what happens in this transaction. `uploaded_by` is a user's id.

    Rows that refer to a file do so by its key, and are written after this.
    """
    await insert_files(tx, files, escrow_id, uploaded_by)


def view_url(public_url: str, vault: Vault, key: str, real_now: datetime) -> str:
    """Where anybody who has this address may look at the file, for 15 minutes of real time."""
    expires = int(real_now.timestamp()) + VIEW_SECONDS
    return (
        f"{public_url}/files/{key}?expires={expires}"
        f"&signature={vault.link_token(PURPOSE, key, expires)}"
    )


async def find_viewable(
    reader: Reader, vault: Vault, key: str, expires: int, signature: str
) -> StoredFile | None:
    """The file of such a link; None where the link is not ours, is over, or has no file."""
    if vault.link_token_for(hash_token(signature), PURPOSE, key, expires) is None:
        return None
    return await read_viewable(reader, key, expires)
