"""How every page is sent: as HTML that loads nothing but our stylesheet and runs nothing."""

from collections.abc import Mapping

from aiohttp import web

# No inline style or script, no frame around it, no other site told where a link was followed from.
HEADERS: Mapping[str, str] = {
    "Content-Security-Policy": (
        "default-src 'none'; style-src 'self'; form-action 'self'; base-uri 'none';"
        " frame-ancestors 'none'"
    ),
    "Referrer-Policy": "no-referrer",
    "X-Content-Type-Options": "nosniff",
}


def html(text: str, status: int = 200) -> web.Response:
    """The answer that shows this page."""
    return web.Response(
        status=status, text=text, content_type="text/html", charset="utf-8", headers=HEADERS
    )
