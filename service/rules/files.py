"""What a file is by its content, never by its name; what it is called, and how long it is kept.

Law: a stored file's key is random; what a person called it is shown and never used.
"""

import unicodedata
from dataclasses import dataclass
from datetime import timedelta

FILES_MAX = 10
FILE_BYTES_MAX = 10 * 1024 * 1024
FORM_BYTES_MAX = 110 * 1024 * 1024
"""Of a form with files, all of it. Source: escrows.md 1."""
NAME_CHARACTERS_MAX = 120
VIEW_SECONDS = 15 * 60
ORPHAN_AFTER = timedelta(hours=24)
"""A file that no row names was given to a form that was refused; nobody comes back to it."""

PNG, JPEG, WEBP, PDF = "image/png", "image/jpeg", "image/webp", "application/pdf"
HEAD_BYTES = 16
"""So many tell what a file is."""
ENDS = {PNG: b"\0\0\0\0IEND\xaeB`\x82", JPEG: b"\xff\xd9", PDF: b"%%EOF"}
"""What stands at a file's end. Phones and PDF writers append things of their own behind it."""
EXTENSIONS = {PNG: ".png", JPEG: ".jpg", WEBP: ".webp", PDF: ".pdf"}
RIFF_HEADER_BYTES = 8
PATH_MARKS = str.maketrans(dict.fromkeys('<>:"|?*;%', "_"))


@dataclass(frozen=True, slots=True)
class StoredFile:
    """A file in the object store: `sha256` is of its `bytes` bytes, in hex.

    `mime_type` is what its content says, `filename` what a person called it, made harmless.
    """

    key: str
    mime_type: str
    bytes: int
    sha256: str
    filename: str


def type_by_head(head: bytes) -> str | None:
    """What a file that begins with these `HEAD_BYTES` is; None where it is none of ours."""
    if head.startswith(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR"):
        return PNG
    if head.startswith(b"\xff\xd8\xff") and len(head) > 3 and 0xC0 <= head[3] < 0xFF:
        return JPEG
    if head.startswith(b"RIFF") and head[8:].startswith(b"WEBPVP8"):
        return WEBP
    return PDF if head.startswith((b"%PDF-1.", b"%PDF-2.")) else None


class Look:
    """What a file is, found while it passes by: its beginning, then its end."""

    def __init__(self) -> None:
        self._head = b""
        self._tail = b""
        self._bytes = 0
        self._has_end = False

    def feed(self, chunk: bytes) -> None:
        """The next bytes of the file."""
        self._bytes += len(chunk)
        if len(self._head) < HEAD_BYTES:
            self._head += chunk[: HEAD_BYTES - len(self._head)]
        mark = ENDS.get(self.kind or "")
        if mark is not None and not self._has_end:
            self._has_end = mark in self._tail + chunk
            self._tail = (self._tail + chunk)[-len(mark) + 1 :]

    @property
    def is_foreign(self) -> bool:
        """Whether what has come is enough to say that this is no file of ours."""
        return self._bytes >= HEAD_BYTES and self.kind is None

    @property
    def kind(self) -> str | None:
        """The type that the beginning says; None as long as it says none."""
        return type_by_head(self._head)

    def whole(self) -> str | None:
        """The type, now that all of the file has come; None where its end is missing."""
        if self.kind == WEBP:
            said = int.from_bytes(self._head[4:8], "little") + RIFF_HEADER_BYTES
            return WEBP if HEAD_BYTES < said <= self._bytes else None
        return self.kind if self._has_end else None


def harmless_name(given: str, mime_type: str) -> str:
    """What to show as a file's name: its last part, visible characters only, of bounded length.

    Never empty, never hidden, and its ending says what the content is.
    """
    last = given.replace("\\", "/").rpartition("/")[2]
    visible = "".join(c for c in unicodedata.normalize("NFC", last) if _is_visible(c))
    name = " ".join(visible.translate(PATH_MARKS).split()).strip(". ")
    ending = EXTENSIONS[mime_type]
    stem = name.rpartition(".")[0] if "." in name else name
    stem = stem[: NAME_CHARACTERS_MAX - len(ending)].strip(". ")
    return (stem or "file") + ending


def _is_visible(character: str) -> bool:
    """Whether it is no control, format (right-to-left override), surrogate or private one."""
    return not unicodedata.category(character).startswith("C")
