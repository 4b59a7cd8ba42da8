"""A log is one line an event, in JSON or for the eye, whoever writes it."""

import json
import subprocess
import sys

import pytest

PROGRAM = """
import logging
import structlog
from service.logs import configure_logs

configure_logs({form!r}, {level!r})
log = structlog.get_logger()
structlog.contextvars.bind_contextvars(request_id="req-1")
log.debug("thing_considered")
log.info("thing_done", amount_minor=5)
logging.getLogger("some.library").warning("odd %s", "thing")
logging.getLogger("some.library").info("chatter")
logging.getLogger("aiohttp.access").error("GET /register/token")
try:
    1 / 0
except ZeroDivisionError:
    log.exception("thing_failed")
"""


def lines(form, level="info"):
    program = PROGRAM.format(form=form, level=level)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    assert not ran.stderr
    return ran.stdout.decode().splitlines()


def test_json_is_one_object_a_line_with_time_level_and_request():
    told = [json.loads(line) for line in lines("json")]
    assert [line["event"] for line in told] == [
        "thing_done",
        "odd thing",
        "chatter",
        "thing_failed",
    ]
    assert all(line["request_id"] == "req-1" for line in told)
    assert [line["level"] for line in told] == ["info", "warning", "info", "error"]
    assert all(line["timestamp"].endswith("Z") for line in told)
    assert told[0]["amount_minor"] == 5
    assert told[1]["logger"] == "some.library"
    assert "ZeroDivisionError" in told[3]["exception"]


@pytest.mark.parametrize(("level", "count"), [("debug", 5), ("warning", 2), ("error", 1)])
def test_the_level_holds_for_our_lines_and_the_libraries(level, count):
    assert len(lines("json", level)) == count


def test_the_console_is_for_the_eye():
    told = "\n".join(lines("console"))
    assert "thing_done" in told
    assert "{" not in told.splitlines()[0]


VIOLATIONS = """
import asyncio
import logging
import asyncpg
import structlog
from service.logs import configure_logs

configure_logs({form!r})
log = structlog.get_logger()
ADA = "ada@example.org"


async def main():
    connection = await asyncpg.connect({url!r})
    await connection.execute(
        "CREATE TEMP TABLE person (email text CONSTRAINT person_once UNIQUE, age integer NOT NULL)"
    )
    await connection.execute("INSERT INTO person VALUES ($1, 1)", ADA)
    for query, value in (
        ("INSERT INTO person VALUES ($1, 1)", ADA),
        ("INSERT INTO person VALUES ($1, NULL)", ADA),
        ("SELECT $1::text::uuid", ADA),
        ("SELECT $1::integer", ADA),
        ("SELECT nothing_of_this_name, $1::text FROM person", ADA),
    ):
        try:
            await connection.execute(query, value)
        except Exception as failure:
            say(failure)


def say(failure):
    try:
        try:
            raise RuntimeError(f"wrapped: {{failure}}") from failure
        except RuntimeError as outer:
            raise ExceptionGroup("several", [outer, failure])
    except ExceptionGroup:
        log.exception("thing_failed")
        logging.getLogger("some.library").exception("a library failed")
    log.warning("thing_postponed", reason=str(failure), failure=failure)
    logging.getLogger("some.library").warning("met %s", failure)


asyncio.run(main())
"""


@pytest.mark.parametrize("form", ["json", "console"])
def test_a_database_error_is_told_without_the_values_of_a_row(migrated, form):
    program = VIOLATIONS.format(form=form, url=migrated.admin_url)
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, check=True)
    told = ran.stdout.decode()
    assert not ran.stderr
    assert "ada@example" not in told
    for kept in (
        "UniqueViolationError",
        "23505",
        "constraint person_once",
        "table person",
        "NotNullViolationError",
        "column age",
        "nothing_of_this_name",
        "RuntimeError: wrapped",
        "Traceback",
    ):
        assert kept in told, kept
    if form == "json":
        assert len([json.loads(line) for line in told.splitlines()]) == 5 * 4
