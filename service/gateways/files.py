"""Where files lie: a local folder, or a bucket of a store that speaks S3's language.

Law: a file is found by its key alone, 64 hex characters; nothing that a person typed is ever part
of a path. Files pass through in chunks and are never held whole.
"""

import asyncio
import re
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Protocol
from urllib.parse import unquote, urlsplit

import obstore
from obstore.exceptions import BaseError
from obstore.store import LocalStore, S3Store

from service.rules.errors import GatewayFailure

if TYPE_CHECKING:  # a name of the library's stubs only
    from obstore.store import ObjectStore

KEY = re.compile(r"[0-9a-f]{64}")
CHUNK_BYTES = 64 * 1024
PART_BYTES = 5 * 1024 * 1024
"""The smallest part that S3 takes; smaller files go in one piece."""
PARTS_AT_ONCE = 2
PAGE_KEYS = 1000
TRIES_MORE = 2
TRYING_SECONDS = 10
CONNECT_SECONDS, SILENT_SECONDS = 3, 30
WHOLE_SECONDS = 300
"""A file is sent on as fast as whoever looks at it can read it."""
PROBE = "0" * 64
UNFINISHED = "??/??/*#*"


class FileNotThere(GatewayFailure):
    """The store has no file of this key."""


@dataclass(frozen=True, slots=True)
class Kept:
    """A file that the store has; `since` is the store's own time."""

    key: str
    bytes: int
    since: datetime


@dataclass(frozen=True, slots=True)
class Access:
    """How an S3-compatible store is reached; without keys by the machine's own role."""

    endpoint: str | None = None
    region: str | None = None
    key_id: str | None = field(default=None, repr=False)
    secret: str | None = field(default=None, repr=False)


class Storage(Protocol):
    """Files by their keys. Whatever goes wrong outside is a GatewayFailure."""

    async def put(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """Keep these bytes; where `chunks` raises, nothing is kept and its error is raised."""

    def get(self, key: str) -> AsyncGenerator[bytes, None]:
        """The file's bytes in chunks. FileNotThere before the first of them."""

    async def delete(self, keys: Sequence[str]) -> None:
        """Keep them no longer; those that are not there are passed by."""

    def list(self) -> AsyncGenerator[Sequence[Kept], None]:
        """All files, in pages of at most PAGE_KEYS."""

    async def sweep(self, before: datetime) -> int:
        """Remove what puts that never ended have left before then; how much that was."""

    async def ping(self) -> None:
        """Ask whether the store answers."""


class ObjectStorage:
    """A folder or a bucket, through obstore."""

    def __init__(self, store: "ObjectStore", folder: Path | None = None) -> None:
        self._store, self._folder = store, folder

    async def put(self, key: str, chunks: AsyncIterator[bytes]) -> None:
        """See Storage."""
        try:
            await obstore.put_async(
                self._store,
                _path(key),
                chunks,
                chunk_size=PART_BYTES,
                max_concurrency=PARTS_AT_ONCE,
            )
        except (BaseError, OSError) as failure:
            raise _failure(failure) from failure

    async def get(self, key: str) -> AsyncGenerator[bytes, None]:
        """See Storage."""
        try:
            found = await obstore.get_async(self._store, _path(key))
            async for chunk in found.stream(min_chunk_size=CHUNK_BYTES):
                yield bytes(chunk)
        except (BaseError, OSError) as failure:
            raise _failure(failure) from failure

    async def delete(self, keys: Sequence[str]) -> None:
        """See Storage."""
        for key in keys:
            try:
                await obstore.delete_async(self._store, _path(key))
            except FileNotFoundError:
                continue
            except (BaseError, OSError) as failure:
                raise _failure(failure) from failure

    async def list(self) -> AsyncGenerator[Sequence[Kept], None]:
        """See Storage."""
        try:
            async for page in obstore.list(self._store, chunk_size=PAGE_KEYS):
                found = [(one["path"].rpartition("/")[2], one) for one in page]
                yield [
                    Kept(key, one["size"], one["last_modified"])
                    for key, one in found
                    if KEY.fullmatch(key) and one["path"] == _path(key)
                ]
        except (BaseError, OSError) as failure:
            raise _failure(failure) from failure

    async def sweep(self, before: datetime) -> int:
        """See Storage. A bucket forgets unfinished uploads by a rule of its own (operations.md)."""
        if self._folder is None:
            return 0
        try:
            return await asyncio.to_thread(_sweep, self._folder, before.timestamp())
        except OSError as failure:
            raise _failure(failure) from failure

    async def ping(self) -> None:
        """See Storage."""
        try:
            await obstore.head_async(self._store, _path(PROBE))
        except FileNotFoundError:
            return
        except (BaseError, OSError) as failure:
            raise _failure(failure) from failure


def open_storage(url: str, access: Access | None = None) -> ObjectStorage:
    """The store of this STORAGE_URL: `file:///folder`, made where it is not, or `s3://bucket/path`.

    Raises:
        OSError: the folder cannot be made.
    """
    parts = urlsplit(url)
    if parts.scheme == "file":
        folder = Path(unquote(parts.path))
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
        return ObjectStorage(LocalStore(folder), folder)
    return ObjectStorage(_bucket(parts.netloc, parts.path.strip("/"), access or Access()))


def _bucket(bucket: str, prefix: str, access: Access) -> S3Store:
    given = {
        "endpoint": access.endpoint,
        "region": access.region,
        "access_key_id": access.key_id,
        "secret_access_key": access.secret,
    }
    return S3Store(
        bucket,
        prefix=prefix or None,
        config={name: text for name, text in given.items() if text is not None},  # type: ignore[arg-type] # each is a name of S3Config
        client_options={
            "allow_http": (access.endpoint or "").startswith("http://"),
            "connect_timeout": timedelta(seconds=CONNECT_SECONDS),
            "read_timeout": timedelta(seconds=SILENT_SECONDS),
            "timeout": timedelta(seconds=WHOLE_SECONDS),
        },
        retry_config={
            "max_retries": TRIES_MORE,
            "retry_timeout": timedelta(seconds=TRYING_SECONDS),
        },
    )


def _sweep(folder: Path, before_seconds: float) -> int:
    """obstore writes a file beside its place, as `<key>#<n>`, and moves it when it is whole."""
    left = [path for path in folder.glob(UNFINISHED) if path.stat().st_mtime < before_seconds]
    for path in left:
        path.unlink(missing_ok=True)
    return len(left)


def _path(key: str) -> str:
    if KEY.fullmatch(key) is None:
        raise ValueError("this is not the key of a file")
    return f"{key[:2]}/{key[2:4]}/{key}"


def _failure(failure: Exception) -> GatewayFailure:
    """Told by its kind: the library's texts hold addresses and what the store has answered."""
    if isinstance(failure, FileNotFoundError):
        return FileNotThere("the file store has no such file", permanent=True)
    return GatewayFailure(f"file store: {type(failure).__name__}", permanent=False)
