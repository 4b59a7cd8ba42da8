"""The OpenAPI 3.1 document: the table of routes and the catalogue of events, told once more.

Law: no fact of its own. Paths, parameters and bodies come from the rows and their models,
refusals from `refusals.py`, webhooks from the catalogue and the bodies' own models, examples from
`examples.py`; a new row or a new event is in the document by being one.
"""

import inspect
import json
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from typing import Any
from uuid import UUID

import orjson
from aiohttp import web

from service.ingress.bodies import may_be_empty
from service.ingress.examples import EXAMPLES, VALUES, Example
from service.ingress.middlewares import DRY_RUN, WITH_BODY
from service.ingress.refused import ERRORS, HEADERS, JSON, TEXT, headers, refused, share
from service.ingress.route import ENTITY_ID, Auth, Route, is_entity_id
from service.ingress.samples import Sample, code_samples
from service.ingress.shown import Shown, filled_in
from service.ingress.told import TOLD
from service.rules.events import describe
from service.wire.base import Wire, dump_json
from service.wire.event_types import TYPES, data_model, envelope_schema
from service.wire.next import Rehearsal
from service.wire.schema import Schema, schemas
from service.wire.webhooks import delivery_headers

VERSION = "1"
ABOUT = """\
Escrow for buyers and sellers. A developer's key opens every path under `/api`; send it as
`Authorization: Bearer <key>` or as `X-API-Key: <key>`.

- **Money** is a JSON number, exact in the currency's decimals; instants are ISO 8601 in UTC.
- **Checks** come in this order, and the first that fails answers: rate limit, key, association,
  the id's syntax, existence, access, idempotency key, body (all bad fields at once in `details`),
  state.
- **Errors** are `{error, message}` with a `code` where there is one to act upon; some 404 and 400
  answers are `{error}` alone, as each operation shows.
- **Repeating**: a POST or PUT with an `Idempotency-Key` is carried out once; the same request with
  the same key is answered again as it was, with `Idempotency-Replayed: true`.
- **Webhooks** are listed below with the headers that every delivery carries."""


# ---- The whole ----------------------------------------------------------------------------------


class Document:
    """The document of these routes, as it is served; it is made when it is first asked for."""

    def __init__(self, table: Sequence[Route]) -> None:
        self._table = table

    @cached_property
    def served(self) -> bytes:
        """Compact JSON."""
        return dump_json(document(self._table))


DOCUMENT = web.AppKey("document", Document)


def document(table: Iterable[Route]) -> dict[str, Any]:
    """What OpenAPI 3.1 says of the rows that ask for a key; pages are for people."""
    rows = [route for route in table if route.auth is not Auth.NONE]
    told = {event: data_model(event) for event in TYPES}
    asked = [m for route in rows for m in (route.takes, route.asks, route.gives) if m]
    models = [*asked, Rehearsal, *(model for route in rows for _, model in route.also)]
    refs, definitions = schemas([*models, *(model for model in told.values() if model)])
    teller = _Teller(refs, definitions)
    paths: dict[str, dict[str, Any]] = {}
    for route in rows:
        paths.setdefault(route.path, {})[route.method.lower()] = teller.operation(route)
    shared = share([operation for path in paths.values() for operation in path.values()])
    return {
        "openapi": "3.1.0",
        "info": {"title": "Amana", "version": VERSION, "description": ABOUT},
        "servers": [{"url": "/"}],
        "security": [{"bearer": []}, {"apiKey": []}],
        "tags": _tags(rows),
        "paths": paths,
        "webhooks": {event: teller.webhook(event, model) for event, model in told.items()},
        "components": {
            "securitySchemes": {
                "bearer": {"type": "http", "scheme": "bearer"},
                "apiKey": {"type": "apiKey", "in": "header", "name": "X-API-Key"},
            },
            "headers": HEADERS,
            "parameters": PARAMETERS,
            "responses": shared,
            "schemas": {**ERRORS, **teller.used(paths)},
        },
    }


def pretty(table: Iterable[Route]) -> str:
    """The document for people's eyes, as docs/openapi.json holds it."""
    parsed = orjson.loads(dump_json(document(table)))
    return json.dumps(parsed, indent=1, ensure_ascii=False) + "\n"


def operation_id(route: Route) -> str:
    """A name that no other row has: `postEscrowsByIdDeliver`."""
    path = re.sub(r"{(\w+)}", r"by_\1", route.path.removeprefix("/api/v1"))
    return route.method.lower() + "".join(part.title() for part in re.findall(r"[a-zA-Z]+", path))


def _tags(rows: Iterable[Route]) -> list[dict[str, str]]:
    modules = dict.fromkeys(inspect.getmodule(route.handler) for route in rows)
    return [
        {"name": _tag(module.__name__), "description": _first_sentence(module.__doc__ or "")}
        for module in modules
        if module is not None
    ]


def _first_sentence(text: str) -> str:
    return text.partition(".")[0].strip() + "."


def _tag(module: str) -> str:
    return module.rpartition(".")[2].replace("_", " ").capitalize()


# ---- What every operation shares ----------------------------------------------------------------

PARAMETERS: Mapping[str, Schema] = {
    "RequestId": {
        "name": "X-Request-Id",
        "in": "header",
        "description": "An id of your own for this request; it comes back and stands in our log.",
        "schema": {"type": "string", "pattern": "^[A-Za-z0-9._:/+=-]{1,128}$"},
    },
    "IdempotencyKey": {
        "name": "Idempotency-Key",
        "in": "header",
        "description": "1 to 255 printable ASCII characters; makes repeating this request safe.",
        "schema": {"type": "string", "pattern": "^[ -~]{1,255}$"},
    },
    "DryRun": {
        "name": DRY_RUN,
        "in": "query",
        "description": "Only tell what would happen, by the same code, and change nothing.",
        "schema": {"type": "boolean", "default": False},
    },
}
ID_SCHEMA = {"type": "string", "pattern": f"^{ENTITY_ID.pattern}$"}
# ---- Operations and webhooks --------------------------------------------------------------------


class _Teller:
    """Tells rows and events with the references and definitions of all models."""

    def __init__(self, refs: Mapping[Any, Schema], definitions: Mapping[str, Schema]) -> None:
        self._refs = refs
        self._definitions = definitions
        self._shown = Shown(definitions)

    def used(self, paths: object) -> dict[str, Schema]:
        """The definitions, without those of the queries, which stand among the parameters."""
        asked = {
            ref["$ref"].rpartition("/")[2]
            for model, ref in self._refs.items()
            if not issubclass(model, Wire)
        }
        text = json.dumps([paths, self._definitions], default=str)
        return {
            name: schema
            for name, schema in self._definitions.items()
            if name not in asked or f'schemas/{name}"' in text
        }

    def operation(self, route: Route) -> dict[str, Any]:
        """What one row says."""
        example = EXAMPLES.get(route.handler, Example())
        told: dict[str, Any] = {
            "operationId": operation_id(route),
            "tags": [_tag(route.handler.__module__)],
            "summary": route.says,
            "parameters": [*self._named(route, example), *self._asked(route, example)],
            "responses": {**self._answers(route, example), **refused(route)},
            "x-codeSamples": code_samples(request_of(route, example)),
        }
        if route.takes is not None:
            content = {"schema": self._refs[route.takes], "example": filled_in(example.body or {})}
            required = not may_be_empty(route.takes)
            told["requestBody"] = {"required": required, "content": {JSON: content}}
        return told

    def webhook(self, event: str, model: type[Wire] | None) -> dict[str, Any]:
        """What is sent for one type of event."""
        data = self._refs[model] if model else {"type": "object"}
        envelope = envelope_schema(event, data)
        example = {**ENVELOPE, "type": event, "data": self._shown.of(data, TOLD.get(event, {}))}
        post = {
            "operationId": f"on_{event.replace('.', '_')}",
            "summary": event,
            "description": describe(event),
            "security": [],
            "parameters": _delivery_parameters(event),
            "requestBody": {
                "required": True,
                "content": {JSON: {"schema": envelope, "example": example}},
            },
            "responses": {
                "2XX": {"description": "You have it; it is not sent again."},
                "410": {"description": "You want no more: the endpoint is disabled."},
                "default": {"description": "It is sent again later, for about three days."},
            },
        }
        return {"post": post}

    def _named(self, route: Route, example: Example) -> Iterator[Schema]:
        chain = route.subject.chain() if route.subject else ()
        ids = {one.parameter for one in chain if one.is_written is is_entity_id}
        for name in re.findall(r"{(\w+)}", route.path):
            yield {
                "name": name,
                "in": "path",
                "required": True,
                "schema": ID_SCHEMA if name in ids else {"type": "string", "minLength": 1},
                "example": filled_in(example.path.get(name, name)),
            }

    def _asked(self, route: Route, example: Example) -> Iterator[Schema]:
        if route.asks is not None:
            model = self._definitions[self._refs[route.asks]["$ref"].rpartition("/")[2]]
            for name, field in model.get("properties", {}).items():
                schema = _never_null(field)
                told: Schema = {"name": name, "in": "query", "schema": schema}
                if "description" in schema:
                    told["description"] = schema.pop("description")
                if name in example.query:
                    shown = filled_in(example.query[name])
                    told["example"] = int(shown) if schema.get("type") == "integer" else shown
                yield {**told, "required": name in model.get("required", ())}
        if route.steps:
            yield {"$ref": "#/components/parameters/DryRun"}
        if route.method in WITH_BODY:
            yield {"$ref": "#/components/parameters/IdempotencyKey"}
        yield {"$ref": "#/components/parameters/RequestId"}

    def _answers(self, route: Route, example: Example) -> dict[str, Schema]:
        """Whatever is no refusal; of an escrow's step, what it would do as well."""
        models: dict[int, list[type[Wire]]] = {route.status: [route.gives] if route.gives else []}
        rehearsed = ((200, Rehearsal),) if route.steps else ()
        for status, model in (*route.also, *rehearsed):
            models.setdefault(status, []).append(model)
        return {str(s): self._answer(route, gives, example) for s, gives in models.items()}

    def _answer(self, route: Route, gives: Sequence[type[Wire]], example: Example) -> Schema:
        more = ("Idempotency-Replayed",) if route.method in WITH_BODY else ()
        answer: Schema = {"description": "OK", "headers": headers(route, *more)}
        if gives:
            shapes = [self._refs[model] for model in gives]
            shown = self._shown.of(shapes[0], example.answer)
            schema = shapes[0] if len(shapes) == 1 else {"anyOf": shapes}
            answer["description"] = inspect.getdoc(gives[0]) or "OK"
            answer["content"] = {JSON: {"schema": schema, "example": shown}}
        return answer


def request_of(route: Route, example: Example) -> Sample:
    """The example of this route as a request."""
    path = re.sub(r"{(\w+)}", lambda found: example.path.get(found[1], found[0]), route.path)
    return Sample(route.method, path, example.query, example.headers, example.body)


def _never_null(field: Mapping[str, Any]) -> dict[str, Any]:
    branches = [branch for branch in field.get("anyOf", ()) if branch != {"type": "null"}]
    outer = {name: part for name, part in field.items() if name != "anyOf"}
    if len(branches) == 1:
        return {**outer, **branches[0]}
    return {**outer, "anyOf": branches} if branches else outer


# ---- Webhooks -----------------------------------------------------------------------------------

ENVELOPE = {
    "id": "0190b5c8-9f3e-7d2a-8c41-5e6f7a8b9c0d",
    "type": "",
    "timestamp": "2026-01-31T09:30:00.000Z",
}
SAYS: Mapping[str, str] = {
    "X-Webhook-Signature": "Lower-case hex HMAC-SHA256 of the body's bytes, keyed with the secret"
    " as text.",
    "X-Webhook-Event": "The event's type.",
    "X-Webhook-Id": "The delivery's UUID, the same on each try.",
    "X-Webhook-Timestamp": "When this try was made.",
    "webhook-id": "Standard Webhooks: the event's UUID.",
    "webhook-timestamp": "Standard Webhooks: seconds since 1970.",
    "webhook-signature": "Standard Webhooks: `v1,` and base64, one for each live secret, newest"
    " first; then `v1a,` and base64, one for each live Ed25519 key, where the endpoint has any.",
}


def _delivery_parameters(event: str) -> list[Schema]:
    """The headers that a delivery carries, from the function that writes them."""
    carried = delivery_headers(
        secrets=[VALUES["secret"]],
        delivery_id=UUID("8f14e45f-ceea-4e7a-9b5d-1c2d3e4f5a6b"),
        event_id=UUID(ENVELOPE["id"]),
        event_type=event,
        body=b"{}",
        now=datetime(2026, 1, 31, 9, 30, tzinfo=UTC),
        custom={},
    )
    return [
        {
            "name": name,
            "in": "header",
            "required": True,
            "description": SAYS[name],
            "schema": TEXT,
            "example": text,
        }
        for name, text in carried.items()
        if name != "Content-Type"
    ]
