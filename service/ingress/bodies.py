"""The bytes and the text of a request, within bounds of size and time, as models."""

import asyncio
import hashlib
import zlib
from collections.abc import Mapping
from typing import Any, TypeVar
from urllib.parse import unquote_to_bytes

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
"""What is undone here, and what needs no undoing."""
PLAIN = frozenset({"", "identity"})
GZIP_WINDOW, ZLIB_WINDOW, DEFLATE_WINDOW = 16 + zlib.MAX_WBITS, zlib.MAX_WBITS, -zlib.MAX_WBITS

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
    encoding = ", ".join(request.headers.getall("Content-Encoding", [])).lower()
    if encoding not in ENCODINGS:
        raise EncodingUnknown
    raw = await _as_sent(request, limit)
    return raw if not raw or encoding in PLAIN else _unpacked(raw, encoding, limit)


async def _as_sent(request: web.Request, limit: int) -> bytes:
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


def _unpacked(raw: bytes, encoding: str, limit: int) -> bytes:
    """What was packed: one member, whole, with its checksum, and nothing behind it.

    aiohttp takes a gzip body that ends just before its checksum, so that it undoes none here.
    """
    window = GZIP_WINDOW
    if encoding == "deflate":  # some send it without the head that it ought to have
        window = ZLIB_WINDOW if raw[0] & 15 == zlib.DEFLATED else DEFLATE_WINDOW
    unpacking = zlib.decompressobj(window)
    try:
        text = unpacking.decompress(raw, limit + 1)
    except zlib.error:
        raise BodyBroken from None
    if len(text) > limit:
        raise BodyTooLarge(limit=limit)
    if not unpacking.eof or unpacking.unused_data:
        raise BodyBroken
    return text


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


def as_model(model: type[T], given: Mapping[str, Any], unfit: type[Invalid] = Invalid) -> T:
    """The model of these values; `unfit` with every bad field at once."""
    try:
        return model.model_validate(given)
    except ValidationError as failure:
        raise unfit(complaints(failure)) from None


def may_be_empty(model: type[BaseModel] | None) -> bool:
    """Whether a body of this model may be left out."""
    return model is None or not any(f.is_required() for f in model.model_fields.values())


def as_query(
    model: type[T] | None, request: web.Request, unfit: type[Invalid] = Invalid
) -> T | None:
    """The query string as this model, if with any.

    Raises:
        Invalid: (as `unfit`) every bad value at once, and every name that stands twice or is no
            UTF-8.
    """
    query, bad = _read_query(request.rel_url.raw_query_string)
    try:
        asked = None if model is None else model.model_validate(query)
    except ValidationError as failure:
        raise unfit({**complaints(failure), **bad}) from None
    if bad:
        raise unfit(bad)
    return asked


def _read_query(raw_query: str) -> tuple[dict[str, str], dict[str, str]]:
    """Its values, and what is wrong with them, by their names."""
    query: dict[str, str] = {}
    bad: dict[str, str] = {}
    for pair in filter(None, raw_query.split("&")):
        given, _, value = pair.replace("+", " ").partition("=")
        raw = [unquote_to_bytes(part.encode(errors="surrogateescape")) for part in (given, value)]
        name, text = read = [part.decode(errors="replace") for part in raw]
        if [part.encode() for part in read] != raw:
            bad[name] = "must be UTF-8"
        elif "\0" in name + text:
            bad[name] = "must not hold NUL"
        elif name in query:
            bad[name] = "must be given once"
        query[name] = text
    return query, bad
