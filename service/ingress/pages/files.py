"""A file, for whoever has its link: signed, and over after a quarter of an hour.

It is sent as what its content is and as nothing else: no browser guesses, and nothing in it runs.
"""

import re
from collections.abc import AsyncGenerator
from contextlib import aclosing
from urllib.parse import quote

import structlog
from aiohttp import web

from service.commands.files import find_viewable
from service.ingress.bodies import ClientGone
from service.ingress.call import Call
from service.ingress.errors import PathUnknown
from service.ingress.middlewares import VISIT
from service.ingress.uploads import STORAGE
from service.rules.errors import GatewayFailure
from service.rules.files import PDF, StoredFile

POLICY = "default-src 'none'; sandbox; frame-ancestors 'none'"
KEY = re.compile(r"[0-9a-f]{64}")
EXPIRES = re.compile(r"[1-9][0-9]{9}")
SIGNATURE = re.compile(r"[A-Za-z0-9_-]{43}")

log = structlog.get_logger()


async def show(call: Call[None, None]) -> web.StreamResponse:
    """The file of this link, as it comes from the store; `PathUnknown` for any other link."""
    file = await _file(call)
    async with aclosing(call.request.app[STORAGE].get(file.key)) as chunks:
        first = await anext(chunks, b"")  # a file that cannot be had is told as any failure
        response = web.StreamResponse(headers=_headers(file))
        response.headers["X-Request-Id"] = call.request[VISIT].request_id
        response.content_length = file.bytes
        await _stream(call.request, response, first, chunks)
    return response


async def _file(call: Call[None, None]) -> StoredFile:
    query = call.request.query
    key, expires, signature = call.path["key"], query.get("expires", ""), query.get("signature", "")
    if not (KEY.fullmatch(key) and EXPIRES.fullmatch(expires) and SIGNATURE.fullmatch(signature)):
        raise PathUnknown
    house = call.house
    file = await find_viewable(house.pool, house.vault, key, int(expires), signature)
    if file is None:
        raise PathUnknown
    return file


def _headers(file: StoredFile) -> dict[str, str]:
    shown_as = "attachment" if file.mime_type == PDF else "inline"
    return {
        "Content-Type": file.mime_type,
        "Content-Disposition": f"{shown_as}; filename*=UTF-8''{quote(file.filename, safe='')}",
        "Content-Security-Policy": POLICY,
        "Referrer-Policy": "no-referrer",
        "X-Content-Type-Options": "nosniff",
        "Cache-Control": "private, no-store",
        "Server": "amana",
    }


async def _stream(
    request: web.Request,
    response: web.StreamResponse,
    first: bytes,
    chunks: AsyncGenerator[bytes, None],
) -> None:
    """Send it; once it has begun, a failure can be told only by ending too early."""
    left = response.content_length or 0
    try:
        await response.prepare(request)
        await response.write(first)
        left -= len(first)
        async for chunk in chunks:
            await response.write(chunk)
            left -= len(chunk)
    except ConnectionError as gone:
        raise ClientGone from gone
    except GatewayFailure as failure:
        log.warning("file_cut_short", reason=str(failure))
    if left != 0 and request.transport is not None:
        log.warning("file_not_as_recorded", bytes_left=left)
        request.transport.abort()
