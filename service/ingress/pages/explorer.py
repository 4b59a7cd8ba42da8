"""The API's document and the page on which people try it out; both ask for no key.

The page is ours; Swagger UI, which draws the document on it, comes from the package `offapi`.
Nothing is loaded from elsewhere, and the page may talk to this server only.
"""

from aiohttp import web

from service.ingress.api.mailbox import WORDS
from service.ingress.call import Call
from service.ingress.openapi import DOCUMENT
from service.ingress.pages.page import html

POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:;"
    " connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'"
)
"""As for any page, and scripts of ours; Swagger UI's icons stand in its stylesheet as `data:`."""


async def show(call: Call[None, None]) -> web.Response:
    """The explorer."""
    page = html(call.request.app[WORDS].page("explorer"))
    page.headers["Content-Security-Policy"] = POLICY
    return page


async def read_document(call: Call[None, None]) -> web.Response:
    """The OpenAPI document of what this deployment serves."""
    return web.Response(body=call.request.app[DOCUMENT].served, content_type="application/json")
