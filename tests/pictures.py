"""One picture of each kind, one pixel each, and the data URIs that hold them."""

import base64
from struct import pack
from zlib import compress, crc32

PICTURES = {
    "png": base64.b64decode(
        "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mP8/5+hHgAHggJ/PchI7wAAAABJRU5E"
        "rkJggg=="
    ),
    "jpeg": base64.b64decode(
        "/9j/4AAQSkZJRgABAQEASABIAAD/2wBDAP//////////////////////////////////////////////////////"
        "////////////////////////////////wgALCAABAAEBAREA/8QAFBABAAAAAAAAAAAAAAAAAAAAAP/aAAgBAQAB"
        "PxA="
    ),
    "gif": base64.b64decode("R0lGODlhAQABAIAAAAAAAP///yH5BAEAAAAALAAAAAABAAEAAAIBRAA7"),
    "webp": base64.b64decode("UklGRhoAAABXRUJQVlA4TA0AAAAvAAAAEAcQERGIiP4HAA=="),
}


def png(width: int, height: int) -> bytes:
    """A blank PNG of this size, 16 bits for each of four channels: the most a pixel can take."""
    rows = (b"\0" + bytes(8 * width)) * height
    head = pack(">IIBBBBB", width, height, 16, 6, 0, 0, 0)
    parts = [(b"IHDR", head), (b"IDAT", compress(rows, 9)), (b"IEND", b"")]
    chunks = [pack(">I", len(b)) + name + b + pack(">I", crc32(name + b)) for name, b in parts]
    return b"\x89PNG\r\n\x1a\n" + b"".join(chunks)


def data_uri(content: bytes, kind: str = "png") -> str:
    """These bytes as a data URI that calls them an image of this kind."""
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"
