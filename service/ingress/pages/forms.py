"""What a form says: urlencoded or multipart, read within bounds of size, count and time.

Law: every field stands once, is UTF-8 without NUL, and its line ends are `\\n`. Files are never
gathered here: each is handed on in chunks as it comes.
"""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import TypeVar
from urllib.parse import parse_qsl

from aiohttp import BodyPartReader, MultipartReader, web
from aiohttp.http_exceptions import HttpProcessingError

from service.ingress.bodies import BODY_TIMEOUT_SECONDS, ClientGone, read_body
from service.ingress.errors import BodyBroken, BodyTooLarge, BodyTooSlow, EncodingUnknown
from service.rules.errors import Malformed

FORM_BYTES_MAX = 64 * 1024
PARTS_MAX = 64
"""An escrow has at most 50 milestones, each of which may be ticked."""
CHUNK_BYTES = 64 * 1024
UPLOAD_SECONDS = 300.0
"""Files from a phone take their time; a form without any has as long as every other body."""
URLENCODED, MULTIPART = "application/x-www-form-urlencoded", "multipart/form-data"

NOT_A_FORM = "The body must be a form."
NOT_TEXT = "A form's fields must be UTF-8 text without NUL."
TOO_MANY_FIELDS = f"A form has at most {PARTS_MAX} fields."
NO_FILES = "This form takes no files."

BROKEN = (HttpProcessingError, web.RequestPayloadError, ValueError, AssertionError, RuntimeError)
"""What aiohttp's reader raises over a body that is no multipart body."""

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of a form by their names."""

    fields: Mapping[str, str]

    def text(self, name: str) -> str:
        """What was typed, without blanks around it; nothing where there is no such field."""
        return self.fields.get(name, "").strip()

    def is_ticked(self, name: str) -> bool:
        """Whether this box was ticked."""
        return bool(self.fields.get(name))


@dataclass(frozen=True, slots=True)
class Upload:
    """A file on its way: `filename` is what the browser says, and never to be trusted.

    `chunks` gives its bytes once, as they come; they must be read to their end.
    """

    name: str
    filename: str
    chunks: AsyncIterator[bytes] = field(repr=False)


Keep = Callable[[Upload], Awaitable[None]]
First = Callable[[str, str], None]


async def read_form(
    request: web.Request, bytes_max: int, *, first: First | None = None, keep: Keep | None = None
) -> Form:
    """The form in this request's body, at most `bytes_max` bytes, files and all.

    `first` is shown the name and the text of the first field before anything else is read, and
    raises what stands against the form; it is shown an empty one where there is none. `keep` takes
    the files, one after the other.

    Raises:
        Malformed: it is no form, a field stands twice or is no text, a file where none is taken.
        BodyTooLarge, BodyTooSlow, BodyBroken, EncodingUnknown, ClientGone.
    """
    if request.content_type == URLENCODED:
        return _urlencoded(await read_body(request, bytes_max), first)
    if request.content_type == MULTIPART:
        return await _Multipart(request, bytes_max, first, keep).read()
    raise Malformed(reason=NOT_A_FORM)


def _urlencoded(raw: bytes, first: First | None) -> Form:
    try:
        pairs = parse_qsl(
            raw.decode("ascii"), keep_blank_values=True, errors="strict", max_num_fields=PARTS_MAX
        )
    except UnicodeError:
        raise Malformed(reason=NOT_TEXT) from None
    except ValueError:
        raise Malformed(reason=TOO_MANY_FIELDS) from None
    if first is not None:
        first(*(pairs[0] if pairs else ("", "")))
    fields: dict[str, str] = {}
    for name, text in pairs:
        _add(fields, name, text)
    return Form(fields)


def _add(fields: dict[str, str], name: str, text: str) -> None:
    if name in fields:
        raise Malformed(reason="A field stands twice in this form.")
    if "\0" in name or "\0" in text:
        raise Malformed(reason=NOT_TEXT)
    fields[name] = text.replace("\r\n", "\n").replace("\r", "\n")


class _Multipart:
    """One body on its way in."""

    def __init__(
        self, request: web.Request, bytes_max: int, first: First | None, keep: Keep | None
    ) -> None:
        self._request, self._bytes_max = request, bytes_max
        self._first, self._keep = first, keep
        seconds = BODY_TIMEOUT_SECONDS if keep is None else UPLOAD_SECONDS
        self._seconds = int(seconds)
        self._until = asyncio.get_running_loop().time() + seconds
        self._fields: dict[str, str] = {}

    async def read(self) -> Form:
        if self._request.headers.get("Content-Encoding", "identity").lower() != "identity":
            raise EncodingUnknown
        if (self._request.content_length or 0) > self._bytes_max:
            raise BodyTooLarge(limit=self._bytes_max)
        reader = await self._opened()
        for _ in range(PARTS_MAX + 1):
            part = await self._next(reader)
            if part is None:
                self._show_first("", "")
                return Form(self._fields)
            await self._take(part)
        raise Malformed(reason=TOO_MANY_FIELDS)

    async def _opened(self) -> MultipartReader:
        try:
            return await self._request.multipart()
        except BROKEN:
            raise BodyBroken from None

    async def _next(self, reader: MultipartReader) -> BodyPartReader | None:
        part = await self._within(reader.next())
        if isinstance(part, MultipartReader):
            raise Malformed(reason=NOT_A_FORM)
        return part

    async def _take(self, part: BodyPartReader) -> None:
        name, filename = part.name, part.filename
        if not name:
            raise Malformed(reason=NOT_A_FORM)
        if filename is None:
            text = await self._text(part)
            self._show_first(name, text)
            _add(self._fields, name, text)
        elif filename == "":  # a browser's way of saying that no file was chosen
            await self._text(part)
        elif self._keep is None:
            raise Malformed(reason=NO_FILES)
        else:
            self._show_first("", "")
            await self._keep(Upload(name, filename, self._chunks(part)))

    def _show_first(self, name: str, text: str) -> None:
        first, self._first = self._first, None
        if first is not None:
            first(name, text)

    async def _text(self, part: BodyPartReader) -> str:
        raw = bytearray()
        async for chunk in self._chunks(part):
            raw += chunk
            if len(raw) > FORM_BYTES_MAX:
                raise BodyTooLarge(limit=FORM_BYTES_MAX)
        try:
            return raw.decode()
        except UnicodeError:
            raise Malformed(reason=NOT_TEXT) from None

    async def _chunks(self, part: BodyPartReader) -> AsyncIterator[bytes]:
        while not part.at_eof():
            chunk = await self._within(part.read_chunk(CHUNK_BYTES))
            if chunk:
                yield chunk

    async def _within(self, step: Awaitable[T]) -> T:
        """What this step of aiohttp's reader gives; its many ways to fail as ours."""
        try:
            async with asyncio.timeout_at(self._until):
                got = await step
        except TimeoutError:
            raise BodyTooSlow(seconds=self._seconds) from None
        except ConnectionError as gone:
            raise ClientGone from gone
        except BROKEN:
            raise BodyBroken from None
        if self._request.content.total_bytes > self._bytes_max:
            raise BodyTooLarge(limit=self._bytes_max)
        return got
