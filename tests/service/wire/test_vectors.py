"""The vectors that integrators are given (docs/webhooks.md) are what is sent."""

import json
import re
from datetime import UTC, datetime
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest

from service.rules.signing import standard_secret
from service.wire.ed25519 import public_key
from service.wire.webhooks import delivery_headers

PAGE = Path(__file__).parents[3] / "docs" / "webhooks.md"


@pytest.fixture
def vectors() -> Any:
    [block] = re.findall(r"```json\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.S)
    return json.loads(block)


def test_the_published_headers_are_those_of_the_published_body(vectors: Any) -> None:
    headers = delivery_headers(
        secrets=[vectors["secret"], vectors["privateKey"], vectors["oldSecret"]],
        delivery_id=UUID(int=1),
        event_id=UUID(vectors["webhook-id"]),
        event_type="escrow.status.updated",
        body=vectors["body"].encode(),
        now=datetime.fromtimestamp(vectors["webhook-timestamp"], UTC),
        custom={},
    )
    for name in ("webhook-id", "webhook-signature", "X-Webhook-Signature"):
        assert headers[name] == vectors[name]
    assert headers["webhook-timestamp"] == str(vectors["webhook-timestamp"])


def test_the_published_keys_belong_together(vectors: Any) -> None:
    assert standard_secret(vectors["secret"]) == vectors["standardSecret"]
    assert standard_secret(vectors["oldSecret"]) == vectors["oldStandardSecret"]
    assert public_key(vectors["privateKey"]) == vectors["publicKey"]
