"""A developer's stored signature and list of redirect URLs. Source: escrows.md 3.10 and 6."""

import base64
import binascii
import re
from typing import Annotated

from pydantic import AfterValidator, BeforeValidator, Field

from service.rules.checkout import ALLOWED_URLS_MAX, allowed_url
from service.rules.images import AREA_PIXELS_MAX, SIDE_PIXELS_MAX, read_picture
from service.wire.base import Body, OwnBody, Wire

IMAGE_BYTES_MAX = 512 * 1024
SIGNATURE_BODY_BYTES_MAX = 1024 * 1024
DATA_URI = re.compile(r"data:(image/(?:png|jpe?g|gif|webp));base64,", re.IGNORECASE)
NOT_BASE64 = "must be valid base64 after the comma"
TYPES = {"image/jpg": "image/jpeg"}


def _an_image(given: str) -> str:
    """The same picture as a data URI in its one form; its content is what it says it is."""
    head = DATA_URI.match(given)
    if head is None:
        raise ValueError("must be a base64 data URI of a PNG, JPEG, GIF or WEBP image")
    written = given[head.end() :]
    try:
        content = base64.b64decode(written, validate=True)
    except (binascii.Error, ValueError):
        raise ValueError(NOT_BASE64) from None
    if base64.b64encode(content).decode() != written:
        raise ValueError(NOT_BASE64)
    if len(content) > IMAGE_BYTES_MAX:
        raise ValueError(f"must be an image of at most {IMAGE_BYTES_MAX // 1024} KiB")
    declared = head[1].lower()
    picture = read_picture(content)
    if picture is None or picture.kind != TYPES.get(declared, declared):
        raise ValueError("must hold an image of the type that it declares")
    if not picture.fits_on_paper:
        raise ValueError(
            f"must be at most {SIDE_PIXELS_MAX} pixels wide and high,"
            f" and have at most {AREA_PIXELS_MAX:,} pixels"
        )
    return f"data:{picture.kind};base64,{written}"


Image = Annotated[str, AfterValidator(_an_image)]
"""A picture as a data URI."""


def _trimmed(url: object) -> object:
    return url.strip() if isinstance(url, str) else url


RedirectUrl = Annotated[str, BeforeValidator(_trimmed), AfterValidator(allowed_url)]
"""An entry of the list of redirect URLs."""


class NewSignature(Body):
    """The body of `PUT /api/developer/signature`."""

    signature_image: Image = Field(repr=False)


class SignatureStored(Wire):
    """200 of the PUT; the image itself is never sent."""

    message: str
    has_signature: bool


class SignatureAnswer(Wire):
    """200 of the GET."""

    has_signature: bool


class RedirectUrls(OwnBody):
    """The body of `PUT /api/developer/redirect-urls`: the whole list, in place of the old one."""

    urls: Annotated[list[RedirectUrl], Field(max_length=ALLOWED_URLS_MAX)]


class RedirectUrlsStored(Wire):
    """200 of the PUT."""

    message: str
    urls: list[str]


class RedirectUrlsAnswer(Wire):
    """200 of the GET."""

    urls: list[str]
