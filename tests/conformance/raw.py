"""Requests that no HTTP client would send, byte by byte."""

import asyncio
from collections.abc import Mapping

from multidict import CIMultiDict

from tests.conformance.world import Answer, Partner

SILENCE_SECONDS = 3.0


async def speak(
    partner: Partner, method: str, path: str, headers: Mapping[str, str], body: bytes = b""
) -> Answer:
    """One request with exactly these headers (latin-1) and its answer; then the line is cut."""
    url = partner.session._base_url
    named = {"Host": "x", "Authorization": f"Bearer {partner.key}", **headers}
    if "X-API-Key" in headers:
        del named["Authorization"]
    lines = [f"{method} {path} HTTP/1.1", *(f"{name}: {value}" for name, value in named.items())]
    reader, writer = await asyncio.open_connection(url.host, url.port)
    try:
        writer.write(("\r\n".join(lines) + "\r\n\r\n").encode("latin-1") + body)
        async with asyncio.timeout(SILENCE_SECONDS):
            head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1").split("\r\n")
            told = CIMultiDict(line.split(": ", 1) for line in head[1:] if line)
            raw = await reader.readexactly(int(told["Content-Length"]))
    finally:
        writer.close()
    return Answer(int(head[0].split()[1]), told, raw)
