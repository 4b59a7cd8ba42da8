"""What aiohttp would answer by itself, in our words: it stands outside of every middleware.

Law: bytes that are no request are answered, and logged, without a word of them: as likely as not
there is an API key among them.
"""

import secrets
from functools import partial
from typing import Any

import structlog
from aiohttp import web
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.typedefs import Handler

from service.ingress.errors import Unreadable
from service.ingress.middlewares import door, refuse

log = structlog.get_logger()


class Connection(web.RequestHandler):
    """One connection: what no middleware has answered is answered here."""

    __slots__ = ()

    def handle_error(
        self,
        request: web.BaseRequest,
        status: int = 500,  # noqa: ARG002 - aiohttp's signature
        exc: BaseException | None = None,
        message: str | None = None,  # noqa: ARG002 - aiohttp's, and it quotes what was sent
    ) -> web.StreamResponse:
        """The answer to what is no request, or to a failure around the door.

        Raises:
            ConnectionError: the caller has hung up, or has a part of another answer already.
        """
        if isinstance(exc, ConnectionError):
            raise exc
        request_id = secrets.token_hex(12)
        error: Exception
        if isinstance(exc, HttpProcessingError):
            error = Unreadable()
            log.info("request_unreadable", reason=type(exc).__name__, request_id=request_id)
        else:
            error = RuntimeError("the door failed")
            log.error("request_failed", exc_info=exc, request_id=request_id)
        if request.writer.output_size > 0:
            raise ConnectionResetError("the answer has begun; another one cannot be sent")
        return refuse(error, request_id)


class Reception(web.Server):
    """Takes connections in."""

    def __call__(self) -> Connection:
        """A new connection. What is packed is undone by `bodies.read_body`, within its bounds."""
        return Connection(self, loop=self._loop, auto_decompress=False, **self._kwargs)


class Runner(web.AppRunner):
    """aiohttp's runner, with our connections."""

    async def _make_server(self) -> web.Server:
        theirs = await super()._make_server()
        handler: Any = partial(_answer, theirs.request_handler)
        return Reception(handler, request_factory=theirs.request_factory, **self._kwargs)


async def _answer(handler: Handler, request: web.Request) -> web.StreamResponse:
    """The handler's answer; an Expect that is no other's than aiohttp's is passed over."""
    try:
        return await handler(request)
    except web.HTTPExpectationFailed:
        return await door(request, request.match_info.handler)
