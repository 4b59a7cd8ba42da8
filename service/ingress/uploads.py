"""Files on their way in: each streams to the store under a random key, looked at as it passes.

    uploads = take_files(call.request)
    form = await receive(call.request, visitor, purpose, bytes_max=FORM_BYTES_MAX, keep=uploads)
    uploads.files, uploads.refusal

Law: a file is what its content says; its name is only ever shown. A file that is refused leaves
nothing in the store, and neither do those beside it; files of a form that is refused otherwise are
removed by retention, since no row names them.
"""

import hashlib
import secrets
from collections.abc import AsyncIterator
from typing import Protocol

from aiohttp import web

from service.gateways.files import Storage
from service.rules.errors import FileEmpty, FileTooLarge, FileTypeUnknown, Refused, TooManyFiles
from service.rules.files import FILE_BYTES_MAX, FILES_MAX, Look, StoredFile, harmless_name

KEY_BYTES = 32

STORAGE: web.AppKey[Storage] = web.AppKey("storage")


class Incoming(Protocol):
    """A file of a form (`pages.forms.Upload`); its chunks come once."""

    @property
    def filename(self) -> str: ...
    @property
    def chunks(self) -> AsyncIterator[bytes]: ...


def take_files(request: web.Request, files_max: int = FILES_MAX) -> "Uploads":
    """What keeps the files of this request's form: the `keep` of `receive` and `read_form`."""
    return Uploads(request.app[STORAGE], files_max)


class Uploads:
    """The files of one form. `refusal` is what stands against the first that cannot be taken.

    The form is read on to its end then, so that what was typed is not lost; nothing is kept of it.
    """

    def __init__(self, storage: Storage, files_max: int = FILES_MAX) -> None:
        self._storage, self._files_max = storage, files_max
        self._kept: list[StoredFile] = []
        self.refusal: Refused | None = None

    @property
    def files(self) -> tuple[StoredFile, ...]:
        """The files, in their order; none where one of them is refused."""
        return tuple(self._kept)

    async def __call__(self, upload: Incoming) -> None:
        """Take this file, or let it pass where the form is refused already."""
        if self.refusal is None:
            try:
                if len(self._kept) >= self._files_max:
                    raise TooManyFiles(limit=self._files_max)
                file = await keep_file(self._storage, upload.filename, upload.chunks)
                self._kept.append(file)
            except (FileEmpty, FileTooLarge, FileTypeUnknown, TooManyFiles) as refusal:
                self.refusal = refusal
                await self.discard()
        async for _ in upload.chunks:
            pass

    def require(self) -> tuple[StoredFile, ...]:
        """The files, or the refusal raised."""
        if self.refusal is not None:
            raise self.refusal
        return self.files

    async def discard(self) -> None:
        """Keep none of them: the step that they were for does not happen."""
        await self._storage.delete([file.key for file in self._kept])
        self._kept.clear()


async def keep_file(storage: Storage, filename: str, chunks: AsyncIterator[bytes]) -> StoredFile:
    """The file, in the store now; its `chunks` may be left unread where it is refused.

    Raises:
        FileEmpty, FileTooLarge, FileTypeUnknown: nothing was kept.
        GatewayFailure: the store is away.
    """
    passing = _Passing(chunks)
    key = secrets.token_hex(KEY_BYTES)
    await storage.put(key, passing.chunks())
    return passing.stored(key, filename)


class _Passing:
    """One file, measured while it goes by."""

    def __init__(self, chunks: AsyncIterator[bytes]) -> None:
        self._chunks = chunks
        self._look = Look()
        self._bytes = 0
        self._digest = hashlib.sha256()

    async def chunks(self) -> AsyncIterator[bytes]:
        async for chunk in self._chunks:
            self._bytes += len(chunk)
            if self._bytes > FILE_BYTES_MAX:
                raise FileTooLarge(limit=FILE_BYTES_MAX)
            self._look.feed(chunk)
            if self._look.is_foreign:
                raise FileTypeUnknown
            self._digest.update(chunk)
            yield chunk
        if self._bytes == 0:
            raise FileEmpty
        if self._look.whole() is None:
            raise FileTypeUnknown

    def stored(self, key: str, filename: str) -> StoredFile:
        mime_type = self._look.whole()
        if mime_type is None:
            raise AssertionError("a file without a type was kept")
        name = harmless_name(filename, mime_type)
        return StoredFile(key, mime_type, self._bytes, self._digest.hexdigest(), name)
