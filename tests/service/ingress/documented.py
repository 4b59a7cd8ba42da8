"""Holds answers against the document: a client that notices what the document does not say.

A test that talks to the whole ingress through `documented()` shows, beside its own claim, that
each answer it got has a documented status, code and shape.
"""

import re
from types import SimpleNamespace

import aiohttp
import orjson
from jsonschema import Draft202012Validator, FormatChecker

from service.ingress.openapi import document
from service.ingress.route import Auth
from service.ingress.routes import routes
from service.rules.policy import Policy
from service.wire.base import dump_json

ALL = [r for r in routes(Policy(environment="sandbox")) if r.auth is not Auth.NONE]
DOCUMENT = orjson.loads(dump_json(document(ALL)))
PATHS = {re.compile(re.sub(r"{\w+}", "[^/]+", path)): path for path in DOCUMENT["paths"]}
JSON = "application/json"
NO_SUCH_PATH = b'{"error":"Not found"}'
"""What a deployment says of the paths that it does not serve."""


def faults(value, schema):
    """What of this value the schema forbids."""
    rooted = {**schema, "components": DOCUMENT["components"]}
    checker = Draft202012Validator(rooted, format_checker=FormatChecker())
    return [f"{error.json_path}: {error.message}" for error in checker.iter_errors(value)]


def operation(route):
    """What the document says of this row."""
    return DOCUMENT["paths"][route.path][route.method.lower()]


def responses(told):
    """An operation's status -> response, with what is shared in its place."""
    shared = DOCUMENT["components"]["responses"]
    return {
        int(status): shared[response["$ref"].rpartition("/")[2]] if "$ref" in response else response
        for status, response in told["responses"].items()
    }


def undocumented(method, path, status, body):
    """What the document does not say of this answer; nothing for what it does not cover."""
    paths = [told for pattern, told in PATHS.items() if pattern.fullmatch(path)]
    told = DOCUMENT["paths"][paths[0]].get(method.lower()) if paths else None
    if told is None or body == NO_SUCH_PATH:
        return []
    response = responses(told).get(status)
    if response is None:
        return [f"{status} is not documented"]
    return faults(orjson.loads(body), response["content"][JSON]["schema"])


async def _ended(_: object, __: SimpleNamespace, ended: aiohttp.TraceRequestEndParams) -> None:
    answer = ended.response
    if answer.content_type == JSON:
        body = await answer.read()
        found = undocumented(ended.method, answer.url.path, answer.status, body)
        assert found == [], f"{ended.method} {answer.url.path}: {found}, but it said {body!r}"


def documented():
    """For `ClientSession(trace_configs=[documented()])`."""
    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(_ended)
    return trace
