"""Every refusal has its status, its family and its words."""

import inspect
import json

import pytest

from service.ingress import errors as door
from service.ingress.errors import REFUSALS, Family, reply_to
from service.rules import errors as no


def told(error, **how):
    reply = reply_to(error, "req-1", **how)
    return reply.status, json.loads(reply.body), dict(reply.headers)


def refusals():
    return [
        kind
        for module in (no, door)
        for _, kind in inspect.getmembers(module, inspect.isclass)
        if issubclass(kind, no.Refused)
    ]


@pytest.mark.parametrize("refusal", refusals(), ids=lambda kind: kind.__name__)
def test_every_refusal_has_its_own_shape(refusal):
    shape = REFUSALS[refusal]
    assert shape.status in door.REASONS
    if shape.family is Family.E2:
        assert refusal.code is None


def test_no_shape_is_left_over():
    assert set(REFUSALS) == set(refusals())


def test_e1_says_the_reason_phrase_and_the_sentence():
    assert told(no.NotAssociated()) == (
        403,
        {"error": "Forbidden", "message": str(no.NotAssociated())},
        {},
    )


def test_a_code_rides_beside_the_message():
    status, body, _ = told(no.ContractNotSigned())
    assert (status, body["error"], body["code"]) == (409, "Conflict", "CONTRACT_NOT_SIGNED")


@pytest.mark.parametrize(
    ("path", "status", "error"),
    [
        ("/api/v1/escrows/0/deliver", 400, "Bad Request"),
        ("/api/v1/sandbox/users/a/topup", 422, "Unprocessable Entity"),
        ("/api/v1/milestone-escrows/0/release", 422, "Unprocessable Entity"),
        ("/api/developer/webhooks", 422, "Unprocessable Entity"),
    ],
)
def test_an_amount_too_large_is_422_and_400_where_others_came_first(path, status, error):
    got, body, _ = told(no.BalanceTooLarge(), path=path)
    assert (got, body["error"], body["code"]) == (status, error, "AMOUNT_TOO_LARGE")
    assert told(no.ContractNotSigned(), path=path)[0] == 409


@pytest.mark.parametrize(
    ("refusal", "status", "text"),
    [
        (no.EscrowNotFound(), 404, "Escrow not found"),
        (no.InvalidEscrowId(), 400, "Invalid escrow ID"),
        (no.WebhookNotFound(), 404, "Webhook not found"),
        (no.DeveloperNotFound(), 404, "Developer not found"),
        (door.PathUnknown(), 404, "Not found"),
        (no.WebhookRefused(reason="Invalid URL format"), 400, "Invalid URL format"),
    ],
)
def test_e2_is_the_error_alone(refusal, status, text):
    assert told(refusal) == (status, {"error": text}, {})


def test_e3_is_a_clash_on_the_session_path_only():
    refusal = no.InsufficientFunds(available=1, needed=2, currency="TND")
    status, body, _ = told(refusal, clashes=Family.E3)
    assert (status, body) == (
        400,
        {
            "error": {
                "code": "INSUFFICIENT_FUNDS",
                "type": "business_rule_violation",
                "message": str(refusal),
                "user_message": str(refusal),
            }
        },
    )
    assert told(refusal)[0] == 409
    assert told(no.EscrowNotFound(), clashes=Family.E3)[1] == {"error": "Escrow not found"}


def test_e4_lists_every_bad_field():
    assert told(no.Invalid({"title": "is required", "amount": "must be a number"}))[:2] == (
        400,
        {
            "error": "Bad Request",
            "message": "Validation failed: title: is required; amount: must be a number",
            "details": {"title": "is required", "amount": "must be a number"},
        },
    )


def test_one_request_too_many_is_told_when_to_come_back():
    status, body, headers = told(door.RateLimited(limit=100, retry_after=7))
    assert (status, body["error"], body["retryAfter"]) == (429, "Too Many Requests", 7)
    assert headers == {"Retry-After": "7"}


def test_the_daily_cap_has_its_own_words():
    status, body, _ = told(no.DailyCapReached(limit=5, count=5, remaining=0))
    message = body.pop("message")
    assert "5" in message
    assert (status, body) == (
        429,
        {"error": "Rate Limit Exceeded", "limit": 5, "count": 5, "remaining": 0},
    )


def test_a_database_that_is_away_is_503_with_a_time():
    status, body, headers = told(no.Unavailable("PoolTimeout: secret"))
    assert (status, body["error"]) == (503, "Service Unavailable")
    assert headers == {"Retry-After": "2"}
    assert "secret" not in body["message"]


def test_the_outside_failing_is_502_without_its_words():
    status, body, _ = told(no.GatewayFailure("smtp said secret", permanent=True))
    assert status == 502
    assert "secret" not in json.dumps(body)


def test_a_bug_is_500_with_the_request_id_and_nothing_else():
    status, body, _ = told(ZeroDivisionError("secret"))
    assert (status, body["error"]) == (500, "Internal Server Error")
    assert "req-1" in body["message"]
    assert "secret" not in body["message"]


def test_a_wrong_method_names_the_right_ones():
    status, _, headers = told(door.MethodNotAllowed(method="PUT", allowed="GET, POST"))
    assert (status, headers) == (405, {"Allow": "GET, POST"})
