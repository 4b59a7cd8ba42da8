"""The receiver that proves our signatures: it believes nothing that it has not verified itself."""

import asyncio
import json
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import aiohttp
import pytest

from service.cli.partner import Partner, Reply
from service.wire.webhooks import delivery_headers

SECRET, OLD_SECRET = "ab" * 32, "cd" * 32
HOOK = "/hook"


def signed(secrets=(SECRET,), event_type="escrow.created", **changed):
    """The headers and the body of a delivery as the courier makes them."""
    event_id, now = uuid4(), changed.pop("now", datetime.now(UTC))
    body = json.dumps({"id": str(event_id), "type": event_type, "data": {"title": "Café"}}).encode()
    headers = delivery_headers(
        secrets=list(secrets),
        delivery_id=uuid4(),
        event_id=event_id,
        event_type=event_type,
        body=body,
        now=now,
        custom={},
    )
    return {**headers, **changed}, body


@pytest.fixture
async def partner():
    async with Partner().listening() as partner:
        partner.trust(HOOK, SECRET)
        yield partner


@pytest.fixture
def post(partner):
    async def send(headers, body, path=HOOK):
        async with (
            aiohttp.ClientSession() as session,
            session.post(f"{partner.url}{path}", data=body, headers=headers) as response,
        ):
            return response.status

    return send


async def test_what_is_signed_right_is_accepted(partner, post):
    assert await post(*signed()) == 200
    [received] = partner.accepted
    assert received.event["data"] == {"title": "Café"}
    assert received.is_verified


async def test_each_way_to_be_wrong_is_refused_and_named(partner, post):
    headers, body = signed()
    other, _ = signed()
    late, late_body = signed(now=datetime.now(UTC) - timedelta(minutes=6))
    standard, plain = "webhook-signature", "X-Webhook-Signature"
    for sent, complaint in (
        ((headers, body + b" "), "webhook-signature does not verify"),
        ((headers | {standard: other[standard]}, body), "webhook-signature does not verify"),
        ((headers | {plain: other[plain]}, body), "X-Webhook-Signature does not verify"),
        ((headers | {plain: "é"}, body), "X-Webhook-Signature does not verify"),
        ((headers | {standard: "v1"}, body), "webhook-signature does not verify"),
        ((headers | {"X-Webhook-Event": "x"}, body), "X-Webhook-Event is not the body's type"),
        ((headers | {"X-Webhook-Id": "x"}, body), "is malformed"),
        ((late, late_body), "webhook-signature does not verify"),
        (signed([OLD_SECRET]), "X-Webhook-Signature does not verify"),
        (({}, b"{}"), "the body is no envelope"),
    ):
        assert await post(*sent) == 401
        assert complaint in " ".join(partner.received[-1].complaints)
    assert partner.accepted == []


async def test_a_path_without_a_secret_believes_nobody(partner, post):
    assert await post(*signed(), path="/other") == 401
    assert partner.received[0].complaints == ("no secret is known for this path",)


async def test_during_an_overlap_both_secrets_are_believed(partner, post):
    partner.trust(HOOK, OLD_SECRET)
    assert await post(*signed([SECRET, OLD_SECRET])) == 200
    assert await post(*signed([SECRET])) == 200


async def test_it_answers_as_it_was_told_then_200(partner, post):
    partner.answer(HOOK, Reply(500), Reply(429, {"Retry-After": "7"}))
    headers, body = signed()
    assert [await post(headers, body) for _ in range(4)] == [500, 429, 200, 200]
    assert [one.status for one in partner.received] == [500, 429, 200, 200]
    assert len(partner.accepted) == 1


async def test_what_is_waited_for_is_found_when_it_comes(partner, post):
    def is_paid(received):
        return received.event["type"] == "escrow.status.updated"

    waiting = asyncio.create_task(partner.wait_for(is_paid))
    await post(*signed())
    await post(*signed(event_type="escrow.status.updated"))
    assert (await waiting).event["type"] == "escrow.status.updated"
    with pytest.raises(TimeoutError):
        await partner.wait_for(lambda _: False, patience_seconds=0.05)
