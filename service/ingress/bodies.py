"""The bytes and the text of a request, within bounds of size and time, as models."""

import asyncio
import hashlib
from collections.abc import Mapping
from typing import Any, TypeVar

from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from pydantic import BaseModel, ValidationError

from service.ingress.errors import BodyBroken, BodyTooLarge, BodyTooSlow, EncodingUnknown
from service.rules.errors import Invalid, Malformed
from service.wire.complaints import complaints

BODY_BYTES_MAX = 256 * 1024
BODY_TIMEOUT_SECONDS = 10.0
IDEMPOTENCY_KEY_CHARACTERS_MAX = 255
ENCODINGS = frozenset({"", "identity", "gzip", "deflate"})
"""What aiohttp undoes, and what needs no undoing; of any other it would give the bytes as sent."""

T = TypeVar("T", bound=BaseModel)


class ClientGone(ConnectionError):
    """The caller hung up before the body was here: nobody is left to be answered."""


async def read_body(request: web.Request, limit: int) -> bytes:
    """All of the body, decompressed, at most `limit` bytes, within 10 s.

    Raises:
        BodyTooLarge, BodyTooSlow, BodyBroken, EncodingUnknown, ClientGone.
    """
    if not request.body_exists:
        return b""
    if ", ".join(request.headers.getall("Content-Encoding", [])).lower() not in ENCODINGS:
        raise EncodingUnknown
    declared = request.content_length
    if declared is not None and declared > limit:
        raise BodyTooLarge(limit=limit)
    try:
        if request.content.is_eof():
            raw = request.content.read_nowait()
            if len(raw) > limit:
                raise BodyTooLarge(limit=limit)
            return raw
        async with asyncio.timeout(BODY_TIMEOUT_SECONDS):
            return await _gather(request, limit)
    except TimeoutError:
        raise BodyTooSlow(seconds=int(BODY_TIMEOUT_SECONDS)) from None
    except (HttpProcessingError, web.RequestPayloadError):
        raise BodyBroken from None
    except ConnectionError as gone:
        raise ClientGone from gone


async def _gather(request: web.Request, limit: int) -> bytes:
    raw = bytearray()
    async for chunk in request.content.iter_any():
        raw += chunk
        if len(raw) > limit:
            raise BodyTooLarge(limit=limit)
    return bytes(raw)


def idempotency_key(headers: Mapping[str, str]) -> str | None:
    """The caller's Idempotency-Key; `Malformed` unless it is 1 to 255 printable characters."""
    key = headers.get("Idempotency-Key")
    if key is None:
        return None
    if not (1 <= len(key) <= IDEMPOTENCY_KEY_CHARACTERS_MAX and key.isascii()):
        raise Malformed(reason="Idempotency-Key must be 1 to 255 printable ASCII characters.")
    if not key.isprintable():
        raise Malformed(reason="Idempotency-Key must be 1 to 255 printable ASCII characters.")
    return key


def fingerprint(request: web.Request, raw: bytes) -> bytes:
    """What makes two requests the same one: SHA-256 over method, path and body."""
    head = f"{request.method}\n{request.rel_url.raw_path}\n".encode()
    return hashlib.sha256(head + raw).digest()


def as_model(model: type[T], given: Mapping[str, Any]) -> T:
    """The model of these values; `Invalid` with every bad field at once."""
    try:
        return model.model_validate(given)
    except ValidationError as failure:
        raise Invalid(complaints(failure)) from None


def may_be_empty(model: type[BaseModel] | None) -> bool:
    """Whether a body of this model may be left out."""
    return model is None or not any(f.is_required() for f in model.model_fields.values())


def read_query(request: web.Request) -> dict[str, str]:
    """The query string's values; `Invalid` for what PostgreSQL could not store."""
    query = dict(request.query)
    bad = {name: "must not hold NUL" for name, text in query.items() if "\0" in text}
    if bad:
        raise Invalid(bad)
    return query
