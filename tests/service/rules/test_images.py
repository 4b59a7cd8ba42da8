"""A picture is what its first bytes say."""

import pytest

from service.rules.images import picture_type

REST = bytes(40)


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (b"\x89PNG\r\n\x1a\n" + REST, "image/png"),
        (b"\xff\xd8\xff\xe0" + REST, "image/jpeg"),
        (b"GIF87a" + REST, "image/gif"),
        (b"GIF89a" + REST, "image/gif"),
        (b"RIFF\x10\x00\x00\x00WEBPVP8 " + REST, "image/webp"),
        (b"RIFF\x10\x00\x00\x00WAVEVP8 " + REST, None),
        (b"XXXX\x10\x00\x00\x00WEBPVP8 " + REST, None),
        (b"GIF90a" + REST, None),
        (b"<svg xmlns='http://www.w3.org/2000/svg'/>" + REST, None),
        (b"%PDF-1.7" + REST, None),
        (b" \x89PNG\r\n\x1a\n" + REST, None),
        (b"\x89PNG\r\n\x1a\n", None),
        (b"", None),
    ],
)
def test_a_picture_is_known_by_its_content(content, kind):
    assert picture_type(content) == kind
