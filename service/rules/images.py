"""What a picture is by its content, not by its name. Source: escrows.md 3.10.

Law: nothing is decoded. Only the headers are read, so many of them and no more, and each must lie
whole within the bytes; whatever stands behind the picture's end is nobody's.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import islice
from struct import unpack_from
from zlib import crc32

PARTS_MAX = 4096
"""How many chunks, segments or blocks are walked; a picture of 512 KiB has a few dozen, in a GIF
2000. What has more is no picture to us."""

SIDE_PIXELS_MAX, AREA_PIXELS_MAX = 4096, 1_000_000
"""What a paper has room for. Decoded, a pixel takes up to 8 bytes, and both parties' pictures are
decoded at once: a few dozen MiB, however little they are as files."""

PNG_MARK = b"\x89PNG\r\n\x1a\n"
JPEG_MARK = b"\xff\xd8"
GIF_MARKS = (b"GIF87a", b"GIF89a")

_SEGMENT = 0xFF
_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
_BARE = frozenset({0x01, *range(0xD0, 0xD8)})
_SCAN, _IMAGE_ENDS = 0xDA, frozenset({0xD8, 0xD9})
_EXTENSION, _FRAME, _COLOURS = 0x21, 0x2C, 0x80
_IMAGES = frozenset({b"VP8 ", b"VP8L", b"ANMF"})

Size = tuple[int, int]


@dataclass(frozen=True, slots=True)
class Picture:
    """`kind` is `image/png`, `image/jpeg`, `image/gif` or `image/webp`; the sides in pixels."""

    kind: str
    width: int
    height: int

    @property
    def fits_on_paper(self) -> bool:
        """Whether printing it takes no more memory than a document may."""
        is_wide = max(self.width, self.height) > SIDE_PIXELS_MAX
        return not is_wide and self.width * self.height <= AREA_PIXELS_MAX


class _Broken(ValueError):
    """It is not what its first bytes promise."""


def read_picture(content: bytes) -> Picture | None:
    """The picture; None for anything else, one that is cut short or has no area."""
    found = next(((kind, size) for kind, begins, size in _KINDS if begins(content)), None)
    if found is None:
        return None
    kind, size = found
    try:
        width, height = size(content)
    except _Broken:
        return None
    return Picture(kind, width, height) if width > 0 and height > 0 else None


def _bytes(content: bytes, at: int, count: int) -> bytes:
    piece = content[at : at + count]
    if len(piece) < count:
        raise _Broken
    return piece


# ---- PNG: IHDR first, then chunks up to IEND, one of them with pixels --------------------------


def _is_png(content: bytes) -> bool:
    return content.startswith(PNG_MARK)


def _png(content: bytes) -> Size:
    head = _bytes(content, 8, 25)
    size, name, width, height = unpack_from(">I4sII", head)
    if (size, name) != (13, b"IHDR") or crc32(head[4:21]) != unpack_from(">I", head, 21)[0]:
        raise _Broken
    has_pixels = False
    for chunk in islice(_png_chunks(content), PARTS_MAX):
        if chunk == b"IEND" and has_pixels:
            return width, height
        has_pixels = has_pixels or chunk == b"IDAT"
    raise _Broken


def _png_chunks(content: bytes) -> Iterator[bytes]:
    at = len(PNG_MARK)
    while True:
        size, name = unpack_from(">I4s", _bytes(content, at, 8))
        at += 12 + size
        if at > len(content):
            raise _Broken
        yield name


# ---- JPEG: segments, of which one frame, up to the head of the first scan ----------------------


def _is_jpeg(content: bytes) -> bool:
    return content.startswith(JPEG_MARK)


def _jpeg(content: bytes) -> Size:
    frame: Size | None = None
    for marker, body in islice(_jpeg_segments(content), PARTS_MAX):
        if marker in _FRAMES:
            if frame is not None or len(body) < 9 or len(body) != 6 + 3 * body[5]:
                raise _Broken
            height, width = unpack_from(">HH", body, 1)
            frame = width, height
        if marker == _SCAN:
            if frame is None or len(body) < 6 or len(body) != 4 + 2 * body[0]:
                break
            return frame
    raise _Broken


def _jpeg_segments(content: bytes) -> Iterator[tuple[int, bytes]]:
    at = len(JPEG_MARK)
    while True:
        mark, marker = _bytes(content, at, 2)
        if mark != _SEGMENT or marker == 0 or marker in _IMAGE_ENDS:
            raise _Broken
        if marker == _SEGMENT or marker in _BARE:
            at += 1 if marker == _SEGMENT else 2
            body = b""
        else:
            (size,) = unpack_from(">H", _bytes(content, at + 2, 2))
            if size < 2:
                raise _Broken
            body = _bytes(content, at + 4, size - 2)
            at += 2 + size
        yield marker, body


# ---- GIF: the screen, then blocks up to the end of the first frame ------------------------------


def _is_gif(content: bytes) -> bool:
    return content.startswith(GIF_MARKS)


def _gif(content: bytes) -> Size:
    width, height, flags = unpack_from("<HHB", _bytes(content, 6, 7))
    at = 13 + _colours(flags)
    for _ in range(PARTS_MAX):
        (block,) = _bytes(content, at, 1)
        if block == _EXTENSION:
            at = _behind_blocks(content, at + 2)
            continue
        if block != _FRAME:
            break
        left, top, across, down, flags = unpack_from("<HHHHB", _bytes(content, at + 1, 9))
        _behind_blocks(content, at + 11 + _colours(flags))
        if 0 in (width, height, across, down):
            break
        # A viewer may make the frame's own room, whatever the screen says.
        return max(width, left + across), max(height, top + down)
    raise _Broken


def _colours(flags: int) -> int:
    """How many bytes the table of colours takes."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & _COLOURS else 0


def _behind_blocks(content: bytes, at: int) -> int:
    for _ in range(PARTS_MAX):
        (size,) = _bytes(content, at, 1)
        at += 1 + size
        if size == 0:
            return at
    raise _Broken


# ---- WebP: a RIFF of chunks, one of them with an image ------------------------------------------


def _is_webp(content: bytes) -> bool:
    return content.startswith(b"RIFF") and content.startswith(b"WEBP", 8)


def _webp(content: bytes) -> Size:
    (size,) = unpack_from("<I", content, 4)
    whole = _bytes(content, 0, 8 + size)
    canvas: Size | None = None
    for number, (name, body) in enumerate(islice(_webp_chunks(whole), PARTS_MAX)):
        if name == b"VP8X" and number == 0:
            canvas = _webp_canvas(body)
        elif name in _IMAGES and canvas is not None:
            return canvas
        elif number == 0 and name == b"VP8 ":
            return _webp_lossy(body)
        elif number == 0 and name == b"VP8L":
            return _webp_lossless(body)
        elif canvas is None:
            break
    raise _Broken


def _webp_chunks(whole: bytes) -> Iterator[tuple[bytes, bytes]]:
    at = 12
    while True:
        name, size = unpack_from("<4sI", _bytes(whole, at, 8))
        yield name, _bytes(whole, at + 8, size)
        at += 8 + size + size % 2


def _webp_canvas(body: bytes) -> Size:
    sides = _bytes(body, 4, 6)
    return int.from_bytes(sides[:3], "little") + 1, int.from_bytes(sides[3:], "little") + 1


def _webp_lossy(body: bytes) -> Size:
    tag, mark, width, height = unpack_from("<B2x3sHH", _bytes(body, 0, 10))
    if tag & 1 or mark != b"\x9d\x01\x2a":
        raise _Broken
    return width & 0x3FFF, height & 0x3FFF


def _webp_lossless(body: bytes) -> Size:
    mark, bits = unpack_from("<BI", _bytes(body, 0, 5))
    if mark != 0x2F:
        raise _Broken
    return (bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1


_KINDS: tuple[tuple[str, Callable[[bytes], bool], Callable[[bytes], Size]], ...] = (
    ("image/png", _is_png, _png),
    ("image/jpeg", _is_jpeg, _jpeg),
    ("image/gif", _is_gif, _gif),
    ("image/webp", _is_webp, _webp),
)
"""Type, how it begins, its sides."""
