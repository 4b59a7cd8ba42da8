"""What a picture is by its content, not by its name. Source: escrows.md 3.10."""

SIGNATURES = (
    ("image/png", 0, b"\x89PNG\r\n\x1a\n"),
    ("image/jpeg", 0, b"\xff\xd8\xff"),
    ("image/gif", 0, b"GIF87a"),
    ("image/gif", 0, b"GIF89a"),
    ("image/webp", 8, b"WEBPVP8"),
)
"""Type, where its mark stands, the mark."""
SHORTEST_BYTES = 26
"""The smallest whole GIF; whatever is shorter is a mark and nothing more."""


def picture_type(content: bytes) -> str | None:
    """`image/png`, `image/jpeg`, `image/gif` or `image/webp`; None for anything else."""
    if len(content) < SHORTEST_BYTES:
        return None
    for kind, offset, mark in SIGNATURES:
        if content.startswith(mark, offset) and (offset == 0 or content.startswith(b"RIFF")):
            return kind
    return None
