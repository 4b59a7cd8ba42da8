"""The files that pages load, each named here: what is not in the table is not there."""

from collections.abc import Mapping
from pathlib import Path

from aiohttp import web

from service.ingress.call import Call
from service.ingress.errors import PathUnknown

FOLDER = Path(__file__).parent / "static"
TYPES: Mapping[str, str] = {"mailbox.css": "text/css; charset=utf-8"}


async def send(call: Call[None, None]) -> web.StreamResponse:
    """One file; a browser that has it already is told so (304). `PathUnknown` for any other."""
    name = call.path["name"]
    if name not in TYPES:
        raise PathUnknown
    headers = {"Content-Type": TYPES[name], "Cache-Control": "no-cache"}
    return web.FileResponse(FOLDER / name, headers=headers)
