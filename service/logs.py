"""How every process of ours writes its log: one line a request and a job, cheap, without secrets.

An event is named in the past in snake case, facts are keys, the request id rides along by itself.
Law: no secret, no e-mail, no body, no raw path is ever a fact.
"""

import logging
import sys
from collections.abc import MutableMapping
from typing import Any, Literal

import orjson
import structlog
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError
from structlog.typing import Processor

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# Their lines say nothing that ours do not, or say it once a request or a try to reconnect.
QUIET = {"aiohttp.access": 50, "asyncio": 30, "arq": 30, "asyncpg.pool": 40}


def configure_logs(form: Literal["json", "console"] = "json", level: str = "info") -> None:
    """Send structlog's lines and those of the standard library to stdout, one line each."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.format_exc_info,
    ]
    plain = structlog.dev.ConsoleRenderer(colors=sys.stdout.isatty())
    structlog.configure(
        processors=[*shared, _as_bytes if form == "json" else plain],
        wrapper_class=structlog.make_filtering_bound_logger(LEVELS[level]),
        logger_factory=(
            structlog.BytesLoggerFactory(file=sys.stdout.buffer)
            if form == "json"
            else structlog.WriteLoggerFactory(file=sys.stdout)
        ),
        cache_logger_on_first_use=True,
    )
    _adopt_standard_logging(shared, _as_text if form == "json" else plain, LEVELS[level])


def _adopt_standard_logging(shared: list[Processor], last: Processor, level: int) -> None:
    handler = logging.StreamHandler(sys.stdout)
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=[*shared, _name],
            processors=[structlog.stdlib.ProcessorFormatter.remove_processors_meta, last],
        )
    )
    handler.addFilter(is_ours_to_tell)
    logging.root.handlers[:] = [handler]
    logging.root.setLevel(level)
    for name, quiet in QUIET.items():
        logging.getLogger(name).setLevel(max(level, quiet))


def is_ours_to_tell(record: logging.LogRecord) -> bool:
    """False for what aiohttp says about bytes that are no HTTP: it quotes them, keys and all."""
    error = record.exc_info[1] if record.exc_info else None
    return not isinstance(error, HttpProcessingError | RequestPayloadError)


def _name(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    record = event.get("_record")
    if record is not None:
        event["logger"] = record.name
    return event


def _as_bytes(_: object, __: str, event: MutableMapping[str, Any]) -> bytes:
    return orjson.dumps(event, default=str)


def _as_text(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    return orjson.dumps(event, default=str).decode()
