"""The signatures, against the spec's known answer and the official receiver as a black box."""

import base64
import hashlib
import hmac
from datetime import UTC, datetime

import pytest
from standardwebhooks import Webhook, WebhookVerificationError

from service.rules.signing import (
    body_signature,
    standard_secret,
    standard_signature,
    standard_signatures,
)

SECRET = "5f" * 32
OTHER = "a0" * 32
BODY = '{"id":"1","type":"escrow.created","data":{"title":"قلم"}}'.encode()


def test_the_published_vector_is_met() -> None:
    key = base64.b64decode("MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
    signed = standard_signature(
        key, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, b'{"test": 2432232314}'
    )
    assert signed == "v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE="


def test_the_body_is_signed_with_the_secret_as_text_not_as_hex() -> None:
    expected = hmac.new(SECRET.encode(), BODY, hashlib.sha256).hexdigest()
    assert body_signature(SECRET, BODY) == expected
    assert body_signature(SECRET, BODY) == body_signature(SECRET, BODY).lower()


def headers(*secrets: str) -> dict[str, str]:
    seconds = int(datetime.now(UTC).timestamp())
    return {
        "webhook-id": "0198c3f1-0000-7000-8000-000000000000",
        "webhook-timestamp": str(seconds),
        "webhook-signature": standard_signatures(
            secrets, "0198c3f1-0000-7000-8000-000000000000", seconds, BODY
        ),
    }


@pytest.mark.parametrize("receiver", [SECRET, OTHER])
def test_every_live_secret_verifies_with_the_official_package(receiver: str) -> None:
    told = Webhook(standard_secret(receiver)).verify(BODY, headers(OTHER, SECRET))
    assert told["type"] == "escrow.created"


def test_the_newest_secret_signs_first() -> None:
    tokens = headers(OTHER, SECRET)["webhook-signature"].split(" ")
    assert [tokens[0]] == headers(OTHER)["webhook-signature"].split(" ")
    assert len(tokens) == 2


def test_another_secret_or_another_body_does_not_verify() -> None:
    with pytest.raises(WebhookVerificationError):
        Webhook(standard_secret(OTHER)).verify(BODY, headers(SECRET))
    with pytest.raises(WebhookVerificationError):
        Webhook(standard_secret(SECRET)).verify(BODY + b" ", headers(SECRET))
