"""How every process of ours writes its log: one line a request and a job, cheap, without secrets.

An event is named in the past in snake case, facts are keys, the request id rides along by itself.
Law: no secret, no e-mail, no body, no raw path is ever a fact. The database's errors quote rows, so
they are told by their class, SQLSTATE and the names of what they met.
"""

import logging
import re
import sys
import traceback
from collections.abc import Iterator, MutableMapping
from typing import Any, Literal

import orjson
import structlog
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web import RequestPayloadError
from structlog.typing import ExcInfo, Processor

LEVELS = {"debug": 10, "info": 20, "warning": 30, "error": 40}
# Their lines say nothing that ours do not, or say it once a request or a try to reconnect.
QUIET = {"aiohttp.access": 50, "asyncio": 30, "arq": 30, "asyncpg.pool": 40}

# The classes of SQLSTATE whose messages name parts of the schema and never what a row holds.
NAMING = frozenset({"08", "23", "25", "28", "3D", "40", "42", "53", "54", "55", "57", "58"})
# Where the text of a database error begins to quote: to the end, or to the end of the line.
DETAIL = re.compile(r"\n(?:DETAIL|HINT):.*", re.DOTALL)
QUOTE = re.compile(r"(invalid input |malformed |field value out of range)([^\n:]*):[^\n]*")
CAUSED = "\nThe above exception was the direct cause of the following exception:\n\n"
DURING = "\nDuring handling of the above exception, another exception occurred:\n\n"


def configure_logs(form: Literal["json", "console"] = "json", level: str = "info") -> None:
    """Send structlog's lines and those of the standard library to stdout, one line each."""
    shared: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.processors.add_log_level,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
        structlog.processors.ExceptionRenderer(_traceback),
        _without_values,
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


def _traceback(exc_info: ExcInfo) -> str:
    """The traceback, with its causes; what the database's errors quote is cut."""
    return "".join(_lines(exc_info[1], set())).rstrip("\n")


def _lines(error: BaseException, told: set[int]) -> Iterator[str]:
    told.add(id(error))
    cause = error.__cause__
    before = cause or (None if error.__suppress_context__ else error.__context__)
    if before is not None and id(before) not in told:
        yield from _lines(before, told)
        yield DURING if cause is None else CAUSED
    yield "Traceback (most recent call last):\n"
    yield from traceback.format_tb(error.__traceback__)
    yield f"{_ended(error)}\n"
    if isinstance(error, BaseExceptionGroup):
        for member in error.exceptions:
            if id(member) not in told:
                yield "\n"
                yield from _lines(member, told)


def _ended(error: BaseException) -> str:
    """The last line of a traceback. Of the database's errors it is told by names alone."""
    kind = type(error)
    if not kind.__module__.startswith("asyncpg."):
        return _cut("".join(traceback.format_exception_only(error)).rstrip("\n"))
    state = getattr(error, "sqlstate", None)
    message = _cut(str(error)) if state is None or state[:2] in NAMING else "(not shown)"
    names = {"sqlstate": state} | {
        name: getattr(error, f"{name}_name", None) for name in ("constraint", "table", "column")
    }
    known = ", ".join(f"{name} {value}" for name, value in names.items() if value)
    return f"{kind.__module__}.{kind.__qualname__}: {message}" + (f" [{known}]" if known else "")


def _without_values(
    _: object, __: str, event: MutableMapping[str, Any]
) -> MutableMapping[str, Any]:
    """Cuts what an error of the database quotes out of texts: `reason=str(failure)`."""
    for key, fact in event.items():
        if isinstance(fact, str) and key != "exception":
            event[key] = _cut(fact)
        elif isinstance(fact, BaseException):
            event[key] = _ended(fact)
    return event


def _cut(words: str) -> str:
    if " " not in words and "\n" not in words:  # nearly every fact: ids, names, moments
        return words
    return QUOTE.sub(r"\1\2", DETAIL.sub("", words))


def _name(_: object, __: str, event: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    record = event.get("_record")
    if record is not None:
        event["logger"] = record.name
    return event


def _as_bytes(_: object, __: str, event: MutableMapping[str, Any]) -> bytes:
    return orjson.dumps(event, default=str)


def _as_text(_: object, __: str, event: MutableMapping[str, Any]) -> str:
    return orjson.dumps(event, default=str).decode()
