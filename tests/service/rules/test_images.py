"""A picture is what its headers say, all of them, within the bytes that are there."""

import time
from struct import pack
from zlib import crc32

import pytest
from hypothesis import given
from hypothesis import strategies as st

from service.rules.images import PARTS_MAX, Picture, read_picture
from tests.pictures import PICTURES

PNG, JPEG, GIF, WEBP = (PICTURES[kind] for kind in ("png", "jpeg", "gif", "webp"))
# Up to here all is needed; the pixels behind the head of a JPEG's scan are not looked at.
WHOLE = {"png": len(PNG), "jpeg": len(JPEG), "gif": len(GIF) - 1, "webp": len(WEBP)}


def chunk(name: bytes, body: bytes = b"") -> bytes:
    return pack(">I", len(body)) + name + body + pack(">I", crc32(name + body))


def png(width: int, height: int, *behind: bytes) -> bytes:
    head = chunk(b"IHDR", pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return PNG[:8] + head + b"".join(behind or (chunk(b"IDAT", b"x"), chunk(b"IEND")))


def segment(marker: int, body: bytes) -> bytes:
    return pack(">BBH", 0xFF, marker, len(body) + 2) + body


def frame(width: int, height: int, marker: int = 0xC0) -> bytes:
    return segment(marker, pack(">BHHB", 8, height, width, 1) + b"\1\x11\0")


SCAN = segment(0xDA, b"\1\1\0\0\x3f\0")


def jpeg(*segments: bytes) -> bytes:
    return b"\xff\xd8" + b"".join(segments)


def gif(width: int, height: int, *blocks: bytes) -> bytes:
    return b"GIF89a" + pack("<HHBBB", width, height, 0, 0, 0) + b"".join(blocks)


def shown(left: int, top: int, width: int, height: int) -> bytes:
    return b"," + pack("<HHHHB", left, top, width, height, 0) + b"\2\1D\0"


def webp(*chunks: bytes) -> bytes:
    body = b"WEBP" + b"".join(chunks)
    return b"RIFF" + pack("<I", len(body)) + body


def part(name: bytes, body: bytes) -> bytes:
    return name + pack("<I", len(body)) + body + bytes(len(body) % 2)


def lossy(width: int, height: int, tag: int = 0) -> bytes:
    return part(b"VP8 ", pack("<B2x3sHH", tag, b"\x9d\x01\x2a", width, height))


def canvas(width: int, height: int) -> bytes:
    sides = (width - 1).to_bytes(3, "little") + (height - 1).to_bytes(3, "little")
    return part(b"VP8X", bytes(4) + sides)


SOUND = {
    "PNG": (PNG, "png", 1, 1),
    "PNG of other sides": (png(4096, 7), "png", 4096, 7),
    "PNG with zeros behind": (PNG + bytes(999), "png", 1, 1),
    "JPEG": (JPEG, "jpeg", 1, 1),
    "JPEG of other sides": (jpeg(frame(300, 20), SCAN), "jpeg", 300, 20),
    "JPEG with filling": (jpeg(b"\xff\xff", frame(3, 2, 0xC2), SCAN), "jpeg", 3, 2),
    "GIF": (GIF, "gif", 1, 1),
    "GIF of 1987": (b"GIF87a" + GIF[6:], "gif", 1, 1),
    "GIF whose frame is larger": (gif(2, 2, shown(9, 8, 5000, 6000)), "gif", 5009, 6008),
    "WebP": (WEBP, "webp", 1, 1),
    "WebP, lossy": (webp(lossy(640, 480)), "webp", 640, 480),
    "WebP, lossy and scaled": (webp(lossy(640 | 0x4000, 480 | 0x8000)), "webp", 640, 480),
    "WebP, extended": (webp(canvas(70000, 2), part(b"ICCP", b"x"), lossy(1, 1)), "webp", 70000, 2),
}
NO_PICTURE = {
    "nothing": b"",
    "text": b"<svg xmlns='http://www.w3.org/2000/svg'/>" + bytes(60),
    "PDF": b"%PDF-1.7" + bytes(60),
    "a blank before it": b" " + PNG,
    "PNG: the mark alone": PNG[:8],
    "PNG: the mark and zeros": PNG[:8] + bytes(60),
    "PNG: no width": png(0, 1),
    "PNG: no height": png(1, 0),
    "PNG: another checksum": PNG[:29] + bytes(4) + PNG[33:],
    "PNG: another chunk first": PNG[:8] + chunk(b"tEXt", bytes(13)) + png(1, 1)[8:],
    "PNG: no pixels": png(1, 1, chunk(b"IEND")),
    "PNG: no end": png(1, 1, chunk(b"IDAT", b"x")),
    "PNG: a chunk longer than the file": png(1, 1, b"\xff\xff\xff\xffIDAT", chunk(b"IEND")),
    "PNG: no end of chunks": png(1, 1, *[chunk(b"IDAT")] * (PARTS_MAX + 1), chunk(b"IEND")),
    "JPEG: the mark and zeros": b"\xff\xd8\xff\xe0" + bytes(60),
    "JPEG: no frame": jpeg(SCAN),
    "JPEG: no scan": jpeg(frame(1, 1)),
    "JPEG: ended before its scan": jpeg(frame(1, 1), b"\xff\xd9", SCAN),
    "JPEG: two frames": jpeg(frame(1, 1), frame(9999, 9999), SCAN),
    "JPEG: a table of codes as frame": jpeg(frame(1, 1, 0xC4), SCAN),
    "JPEG: no width": jpeg(frame(0, 1), SCAN),
    "JPEG: no height": jpeg(frame(1, 0), SCAN),
    "JPEG: a segment of no length": jpeg(b"\xff\xe0\0\0", frame(1, 1), SCAN),
    "JPEG: another length than colours": jpeg(segment(0xC0, b"\x08\0\1\0\1\3\1\x11\0"), SCAN),
    "JPEG: no end of segments": jpeg(*[segment(0xFE, b"")] * PARTS_MAX, frame(1, 1), SCAN),
    "JPEG: filling only": jpeg(b"\xff" * 500_000, frame(1, 1), SCAN),
    "GIF: another year": b"GIF90a" + GIF[6:],
    "GIF: the mark and zeros": b"GIF89a" + bytes(60),
    "GIF: no frame": gif(1, 1, b";"),
    "GIF: no width": gif(0, 1, shown(0, 0, 1, 1)),
    "GIF: no height": gif(1, 0, shown(0, 0, 1, 1)),
    "GIF: a frame without area": gif(1, 1, shown(0, 0, 0, 1)),
    "GIF: no end of extensions": gif(1, 1, *[b"!\xfe\0"] * PARTS_MAX, shown(0, 0, 1, 1)),
    "GIF: no end of a comment": gif(1, 1, b"!\xfe" + b"\1x" * 200_000, shown(0, 0, 1, 1)),
    "WebP: the mark and zeros": b"RIFF\x10\0\0\0WEBPVP8 " + bytes(60),
    "WebP: another RIFF": WEBP.replace(b"WEBP", b"WAVE"),
    "WebP: no RIFF": b"XXXX" + WEBP[4:],
    "WebP: longer than the file": WEBP[:4] + pack("<I", 27) + WEBP[8:],
    "WebP: no width": webp(lossy(0, 1)),
    "WebP: no height": webp(lossy(1, 0)),
    "WebP: no key frame": webp(lossy(1, 1, tag=1)),
    "WebP: no start of a frame": webp(part(b"VP8 ", bytes(10))),
    "WebP: another lossless mark": webp(part(b"VP8L", bytes(5))),
    "WebP: a canvas alone": webp(canvas(1, 1)),
    "WebP: another chunk first": webp(part(b"ICCP", b""), lossy(1, 1)),
    "WebP: a chunk longer than the file": webp(b"VP8 \xff\xff\xff\xff" + bytes(10)),
}


@pytest.mark.parametrize(("content", "kind", "width", "height"), SOUND.values(), ids=SOUND)
def test_a_picture_is_known_by_its_headers_with_its_sides(content, kind, width, height):
    assert read_picture(content) == Picture(f"image/{kind}", width, height)


@pytest.mark.parametrize("content", NO_PICTURE.values(), ids=NO_PICTURE)
def test_what_breaks_its_promise_is_no_picture_and_that_is_known_soon(content):
    began = time.process_time()
    assert read_picture(content) is None
    assert time.process_time() - began < 0.1


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_that_is_cut_short_is_none_wherever_it_is_cut(kind):
    content = PICTURES[kind]
    for length in range(len(content)):
        assert (read_picture(content[:length]) is not None) is (length >= WHOLE[kind])


@given(st.sampled_from(sorted(PICTURES)), st.data())
def test_no_bytes_at_all_are_a_fault_of_ours(kind, drawn):
    content = bytearray(PICTURES[kind])
    for _ in range(drawn.draw(st.integers(1, 4))):
        content[drawn.draw(st.integers(0, len(content) - 1))] = drawn.draw(st.integers(0, 255))
    found = read_picture(bytes(content) + drawn.draw(st.binary(max_size=9)))
    assert found is None or (found.width > 0 and found.height > 0)
