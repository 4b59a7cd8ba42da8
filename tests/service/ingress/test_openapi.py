"""The served document: valid, whole, derived; its examples fit their schemas."""

import re
from datetime import UTC, datetime
from uuid import uuid4

import orjson
import pytest
from openapi_spec_validator import OpenAPIV31SpecValidator

from service.ingress.errors import REFUSALS, reply_to
from service.ingress.openapi import operation_id
from service.ingress.refusals import of_step, refusals, sample
from service.ingress.route import Auth
from service.ingress.routes import ROUTES
from service.ingress.samples import LANGUAGES
from service.rules import errors as no
from service.rules.escrow import STEPS
from service.rules.events import CATALOGUE, TEST
from service.wire.webhooks import delivery_headers
from tests.service.ingress.documented import (
    ALL,
    DOCUMENT,
    faults,
    operation,
    responses,
    undocumented,
)

EVERY = pytest.mark.parametrize("route", ALL, ids=lambda r: f"{r.method} {r.path}")


def test_it_is_valid_openapi_3_1():
    assert DOCUMENT["openapi"].startswith("3.1")
    assert [str(error) for error in OpenAPIV31SpecValidator(DOCUMENT).iter_errors()] == []


async def test_it_is_served_to_anybody_without_a_limit(ingress):
    async with ingress(None, RATE_LIMIT_PER_MINUTE="1") as client:
        for _ in range(3):
            async with client.get("/openapi.json") as response:
                assert response.status == 200
                assert response.content_type == "application/json"
                assert "X-RateLimit-Limit" not in response.headers
                assert orjson.loads(await response.read()) == DOCUMENT


async def test_a_live_deployment_tells_nothing_of_the_sandbox(ingress):
    async with ingress(None, AMANA_ENV="live") as client, client.get("/openapi.json") as response:
        told = orjson.loads(await response.read())
    assert set(told["paths"]) == {r.path for r in ROUTES if r.auth is not Auth.NONE}


def test_every_row_that_asks_for_a_key_is_one_operation():
    told = {(m.upper(), path) for path, ops in DOCUMENT["paths"].items() for m in ops}
    assert told == {(route.method, route.path) for route in ALL}
    assert len({operation_id(route) for route in ALL}) == len(ALL)


@EVERY
def test_an_operation_says_what_its_row_says(route):
    told = operation(route)
    assert told["summary"] == route.says
    named = {p["name"] for p in told["parameters"] if p.get("in") == "path"}
    assert named == set(re.findall(r"{(\w+)}", route.path))
    assert ("requestBody" in told) == (route.takes is not None)
    references = {p.get("$ref", "").rpartition("/")[2] for p in told["parameters"]}
    assert "RequestId" in references
    assert ("IdempotencyKey" in references) == (route.method in ("POST", "PUT"))


@EVERY
def test_an_operation_tells_every_refusal_with_its_status_and_code(route):
    told = responses(operation(route))
    for refusal in refusals(route):
        reply = reply_to(sample(refusal), "x", route.clashes, route.path)
        examples = told[reply.status]["content"]["application/json"]["examples"]
        assert refusal.__name__ in examples
        assert (
            faults(
                orjson.loads(reply.body),
                told[reply.status]["content"]["application/json"]["schema"],
            )
            == []
        )
        assert set(reply.headers) <= set(told[reply.status]["headers"])
    assert {500, 503} <= set(told)


@EVERY
def test_a_code_that_a_route_cannot_give_does_not_fit_its_schema(route):
    for response in responses(operation(route)).values():
        schema = response["content"]["application/json"]["schema"]
        for example in response["content"]["application/json"].get("examples", {}).values():
            if "code" in example["value"]:
                assert faults({**example["value"], "code": "SOMETHING_ELSE"}, schema)


@EVERY
def test_the_examples_fit_their_schemas(route):
    told = operation(route)
    if route.takes is not None:
        [content] = told["requestBody"]["content"].values()
        assert faults(content["example"], content["schema"]) == []
    for response in responses(operation(route)).values():
        for content in response.get("content", {}).values():
            shown = [one["value"] for one in content.get("examples", {}).values()]
            for example in [*shown, *([content["example"]] if "example" in content else [])]:
                assert faults(example, content["schema"]) == []
    for parameter in told["parameters"]:
        if "example" in parameter:
            assert faults(parameter["example"], parameter["schema"]) == []


@EVERY
def test_an_answers_example_says_something_everywhere(route):
    content = responses(operation(route))[route.status].get("content", {})
    assert "…" not in str([one["example"] for one in content.values()]), "add it to VALUES"


@EVERY
def test_an_operation_is_shown_in_three_languages(route):
    samples = operation(route)["x-codeSamples"]
    assert [(one["lang"], one["label"]) for one in samples] == [
        (lang, label) for lang, (label, _) in LANGUAGES.items()
    ]


@EVERY
def test_limits_are_told_where_they_hold(route):
    for response in responses(operation(route)).values():
        has = "X-RateLimit-Remaining" in response["headers"]
        named = route.path.startswith("/api/") or route.path == "/developer/signature"
        assert has == (named and "/sandbox/" not in route.path)
        assert "X-Request-Id" in response["headers"]


def test_what_holds_answers_against_the_document_notices_what_it_does_not_say():
    refused = b'{"error":"Conflict","message":"No.","code":"MADE_UP"}'
    assert undocumented("GET", "/api/v1/me", 418, refused) == ["418 is not documented"]
    assert undocumented("POST", "/api/v1/escrows", 409, refused)
    assert undocumented("GET", "/api/v1/me", 200, b'{"developer":{}}')
    known = refused.replace(b"MADE_UP", b"IDEMPOTENCY_IN_FLIGHT")
    assert undocumented("POST", "/api/v1/escrows", 409, known) == []


def test_every_refusal_can_be_shown():
    for refusal in REFUSALS:
        reply = reply_to(sample(refusal), "x")
        assert b"\xe2\x80\xa6" not in reply.body or refusal.__name__ in {
            "MethodNotAllowed",
            "KeyNotFound",
            "StillBreached",
        }, f"{refusal.__name__}: add its facts to refusals.FACTS"


def test_the_table_answers_for_its_steps():
    assert set(of_step("deliver")) == {
        no.WrongParty,
        no.WrongStatus,
        no.EscrowFrozen,
        no.ProofNotAccepted,
        no.CancellationPending,
    }
    assert set(of_step("cancel")) == {no.EscrowFrozen, no.WrongStatus}
    for name in {row.name for row in STEPS}:
        assert set(of_step(name)) <= set(REFUSALS)


# Webhooks -----------------------------------------------------------------------------------------


def test_every_type_of_the_catalogue_is_a_webhook():
    assert set(DOCUMENT["webhooks"]) == CATALOGUE | {TEST}


@pytest.mark.parametrize("event", sorted(CATALOGUE))
def test_a_webhook_has_its_envelope_its_headers_and_an_example_that_fits(event, uuids):
    post = DOCUMENT["webhooks"][event]["post"]
    content = post["requestBody"]["content"]["application/json"]
    assert faults(content["example"], content["schema"]) == []
    assert content["schema"]["properties"]["type"] == {"const": event}
    carried = delivery_headers(**uuids, event_type=event)
    assert {p["name"] for p in post["parameters"]} == set(carried) - {"Content-Type"}


@pytest.fixture
def uuids():
    return {
        "secrets": ["ab" * 32],
        "delivery_id": uuid4(),
        "event_id": uuid4(),
        "body": b"{}",
        "now": datetime.now(UTC),
        "custom": {},
    }


def test_the_schemas_are_strict_about_what_the_wire_promises():
    schemas = DOCUMENT["components"]["schemas"]
    detail = schemas["Detail"]
    assert detail["properties"]["amount"] == {"type": "number"}
    assert "completedAt" in detail["required"]
    assert {"type": "null"} in detail["properties"]["completedAt"]["anyOf"]
    assert "mailTroubles" not in detail["required"]
    assert {"type": "null"} not in detail["properties"]["mailTroubles"].get("anyOf", [])
    amount = schemas["NewEscrow"]["properties"]["amount"]
    assert amount == {"type": "number", "exclusiveMinimum": 0, "maximum": 1_000_000_000}
    assert schemas["NewUser"]["additionalProperties"] is False
