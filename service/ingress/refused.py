"""How the document tells refusals: one response a status, with its shapes, codes and headers.

Law: what a refusal looks like is read off the real answer; nothing is described by hand but the
families of bodies.
"""

import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import orjson

from service.ingress.errors import REASONS
from service.ingress.middlewares import is_limited
from service.ingress.refusals import replies
from service.ingress.route import Route
from service.wire.schema import Schema

JSON = "application/json"
TEXT = {"type": "string"}
HEADERS: Mapping[str, Schema] = {
    "X-Request-Id": {
        "description": "The request's id: yours, if you sent a sane one.",
        "required": True,
        "schema": TEXT,
    },
    "X-RateLimit-Limit": {
        "description": "How many requests a minute are allowed.",
        "schema": {"type": "integer"},
    },
    "X-RateLimit-Remaining": {
        "description": "How many are left of them.",
        "schema": {"type": "integer"},
    },
    "X-RateLimit-Reset": {
        "description": "When the window begins anew.",
        "schema": {"type": "string", "format": "date-time"},
    },
    "Idempotency-Replayed": {
        "description": "This is the stored answer of the first request with this Idempotency-Key.",
        "schema": {"const": "true"},
    },
    "Retry-After": {"description": "Seconds to wait.", "schema": {"type": "integer"}},
    "WWW-Authenticate": {"description": "How to authenticate.", "schema": TEXT},
}
LIMIT_HEADERS = ("X-RateLimit-Limit", "X-RateLimit-Remaining", "X-RateLimit-Reset")


def headers(route: Route, *more: str) -> dict[str, Schema]:
    """The headers of an answer of this route, by name."""
    limited = LIMIT_HEADERS if is_limited(route.path) else ()
    names = ("X-Request-Id", *limited, *more)
    return {name: {"$ref": f"#/components/headers/{name}"} for name in names}


ERRORS: Mapping[str, Schema] = {
    "Error": {
        "description": "`code` is there where there is something to act upon.",
        "type": "object",
        "properties": {"error": TEXT, "message": TEXT, "code": TEXT},
        "required": ["error", "message"],
    },
    "PlainError": {
        "type": "object",
        "properties": {"error": TEXT},
        "required": ["error"],
        "additionalProperties": False,
    },
    "BusinessRuleError": {
        "type": "object",
        "properties": {
            "error": {
                "type": "object",
                "properties": {
                    "code": TEXT,
                    "type": {"const": "business_rule_violation"},
                    "message": TEXT,
                    "user_message": TEXT,
                },
                "required": ["code", "type", "message", "user_message"],
            }
        },
        "required": ["error"],
    },
}
"""The families of error bodies; E4 is `Error` with its extras beside it."""
JSON_TYPES: Mapping[type, str] = {bool: "boolean", int: "integer", str: "string", dict: "object"}


def refused(route: Route) -> dict[str, Schema]:
    """One response a status: the shapes and the codes that it may have, an example of each."""
    by_status: dict[int, dict[str, dict[str, Any]]] = {}
    more: dict[int, dict[str, None]] = {}
    for name, reply in replies(route):
        by_status.setdefault(reply.status, {})[name] = orjson.loads(reply.body)
        more.setdefault(reply.status, {}).update(dict.fromkeys(reply.headers))
    return {
        str(status): {
            "description": REASONS[status],
            "headers": headers(route, *more[status]),
            "content": {
                JSON: {
                    "schema": _any_of(bodies.values()),
                    "examples": {name: {"value": body} for name, body in bodies.items()},
                }
            },
        }
        for status, bodies in sorted(by_status.items())
    }


def _any_of(bodies: Iterable[Mapping[str, Any]]) -> Schema:
    shapes: dict[str, tuple[Schema, list[str | None]]] = {}
    for body in bodies:
        shape, code = _shape(body)
        shapes.setdefault(json.dumps(shape), (shape, []))[1].append(code)
    told = [_with_codes(shape, codes) for shape, codes in shapes.values()]
    return told[0] if len(told) == 1 else {"anyOf": told}


def _shape(body: Mapping[str, Any]) -> tuple[Schema, str | None]:
    """Which family's this body is, what it says beyond it, and its code."""
    error = body["error"]
    if isinstance(error, Mapping):
        return {"$ref": "#/components/schemas/BusinessRuleError"}, error["code"]
    if "message" not in body:
        return {"$ref": "#/components/schemas/PlainError"}, None
    extras = {name: v for name, v in body.items() if name not in ("error", "message", "code")}
    said: Schema = {"properties": {"error": {"const": error}}}
    if extras:
        said["properties"] |= {name: {"type": JSON_TYPES[type(v)]} for name, v in extras.items()}
        said["required"] = list(extras)
    return {"allOf": [{"$ref": "#/components/schemas/Error"}, said]}, body.get("code")


def _with_codes(shape: Schema, codes: Sequence[str | None]) -> Schema:
    named = [code for code in dict.fromkeys(codes) if code is not None]
    if not named:
        return shape
    code: Schema = {"properties": {"code": {"enum": named}}}
    if None not in codes:
        code["required"] = ["code"]
    if shape.get("$ref", "").endswith("BusinessRuleError"):
        return {"allOf": [shape, {"properties": {"error": code}}]}
    return {"allOf": [*shape["allOf"], code]} if "allOf" in shape else {"allOf": [shape, code]}


def share(operations: Sequence[dict[str, Any]]) -> dict[str, Schema]:
    """One or two refusals that several operations have alike stand once, named after themselves."""
    told: dict[str, list[tuple[dict[str, Any], str]]] = {}
    for operation in operations:
        for status, response in operation["responses"].items():
            if "examples" in response.get("content", {}).get(JSON, {}):
                text = json.dumps(response, sort_keys=True)
                told.setdefault(text, []).append((operation["responses"], status))
    shared: dict[str, Schema] = {}
    for places in told.values():
        responses, status = places[0]
        name = _shared_name(responses[status])
        if len(places) > 1 and name is not None and name not in shared:
            shared[name] = responses[status]
            for responses, status in places:
                responses[status] = {"$ref": f"#/components/responses/{name}"}
    return shared


def _shared_name(response: Schema) -> str | None:
    held = list(response["content"][JSON]["examples"])
    if len(held) > 2:
        return None
    return "Or".join(held) + ("" if LIMIT_HEADERS[0] in response["headers"] else "Unlimited")
