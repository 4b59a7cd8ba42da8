"""The files that pages load, each named here: what is not in the table is not there."""

from collections.abc import Mapping
from dataclasses import dataclass
from importlib.metadata import distribution
from pathlib import Path

from aiohttp import web

from service.ingress.call import Call
from service.ingress.errors import PathUnknown

FOLDER = Path(__file__).parent / "static"
CSS, JAVASCRIPT = "text/css; charset=utf-8", "text/javascript; charset=utf-8"
SVG = "image/svg+xml"


@dataclass(frozen=True, slots=True)
class File:
    """Where a file stands and what it is."""

    path: Path
    content_type: str


def _packaged(name: str) -> Path:
    """A file of offapi; found, not imported: its import would read all of its assets."""
    return Path(str(distribution("offapi").locate_file(f"offapi/{name}")))


FILES: Mapping[str, File] = {
    "pages.css": File(FOLDER / "pages.css", CSS),
    "icon.svg": File(FOLDER / "icon.svg", SVG),
    "mailbox.css": File(FOLDER / "mailbox.css", CSS),
    "explorer.css": File(FOLDER / "explorer.css", CSS),
    "signature.js": File(FOLDER / "signature.js", JAVASCRIPT),
    "explorer.js": File(FOLDER / "explorer.js", JAVASCRIPT),
    "swagger-ui.css": File(_packaged("swagger_style.css"), CSS),
    "swagger-ui.js": File(_packaged("swagger_bundle.js"), JAVASCRIPT),
}


async def send(call: Call[None, None]) -> web.StreamResponse:
    """One file; a browser that has it already is told so (304). `PathUnknown` for any other."""
    file = FILES.get(call.path["name"])
    if file is None:
        raise PathUnknown
    headers = {"Content-Type": file.content_type, "Cache-Control": "no-cache"}
    return web.FileResponse(file.path, headers=headers)
