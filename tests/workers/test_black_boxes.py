"""Receivers that are not ours: the official packages, and Node.js writing the body anew."""

import asyncio
import base64
import contextlib
import shutil
from collections.abc import AsyncIterator
from datetime import datetime
from decimal import Decimal
from pathlib import Path
from typing import Any
from uuid import UUID

import asyncpg
import orjson
import pytest
import standardwebhooks
import svix.webhooks
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from service.commands import attempts, endpoints
from service.commands.perform import House
from service.gateways.post import HttpPost
from service.wire.webhooks import delivery_headers
from tests.makers import Shop, act, make_buyer, make_escrow, make_shop, top_up
from tests.receiver import Parcel, Receiver, make_endpoint, receiving
from workers.webhooks import Courier

PACKAGES = {
    "standardwebhooks": (standardwebhooks.Webhook, standardwebhooks.WebhookVerificationError),
    "svix": (svix.webhooks.Webhook, svix.webhooks.WebhookVerificationError),
}
SCRIPT = Path(__file__).with_name("receiver.mjs")


@pytest.fixture
async def receiver() -> AsyncIterator[Receiver]:
    async with receiving() as opened:
        yield opened


@pytest.fixture
async def courier(house: House) -> AsyncIterator[Courier]:
    post = HttpPost(allow_private=True)
    hired = Courier(house, post, chance=lambda: 0.5)
    yield hired
    await hired.close(grace_seconds=0)
    await post.close()


async def sent(house: House, shop: Shop, courier: Courier, receiver: Receiver, hook: str) -> Parcel:
    """What the endpoint gets when it is tried out."""
    await act(house, shop.actor, attempts.send_test(shop.developer_id, hook))
    await courier.settle_all()
    return receiver.parcels[-1]


async def rotated(house: House, shop: Shop, hook: str, hours: int) -> dict[str, Any]:
    command = endpoints.regenerate_secret(shop.developer_id, hook, hours)
    told: dict[str, Any] = await act(house, shop.actor, command)
    return told


def is_believed(package: str, standard_secret: str, parcel: Parcel) -> bool:
    webhook, refusal = PACKAGES[package]
    try:
        told = webhook(standard_secret).verify(parcel.body, dict(parcel.headers))
    except refusal:
        return False
    assert told is None or told == orjson.loads(parcel.body)
    return True


def is_signed_by(public: str, parcel: Parcel) -> bool:
    """By a receiver that holds the public half only, and takes the first token that fits."""
    headers = parcel.headers
    signed = f"{headers['webhook-id']}.{headers['webhook-timestamp']}.".encode() + parcel.body
    key = Ed25519PublicKey.from_public_bytes(base64.b64decode(public.removeprefix("whpk_")))
    for token in headers["webhook-signature"].split(" "):
        version, _, signature = token.partition(",")
        if version == "v1a":
            with contextlib.suppress(InvalidSignature):
                key.verify(base64.b64decode(signature), signed)
                return True
    return False


@pytest.mark.parametrize("package", PACKAGES)
@pytest.mark.parametrize("ed25519", [False, True])
async def test_an_official_package_believes_before_during_and_after_an_overlap(
    house: House,
    owner: asyncpg.Connection,
    receiver: Receiver,
    courier: Courier,
    package: str,
    ed25519: bool,
) -> None:
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, receiver.url, ed25519=ed25519)
    old, hook = made["standardSecret"], made["id"]
    parcel = await sent(house, shop, courier, receiver, hook)
    assert is_believed(package, old, parcel)
    assert not is_believed(package, old, Parcel(parcel.headers, parcel.body + b" "))

    new = (await rotated(house, shop, hook, 24))["standardSecret"]
    parcel = await sent(house, shop, courier, receiver, hook)
    assert is_believed(package, old, parcel)
    assert is_believed(package, new, parcel)
    tokens = parcel.headers["webhook-signature"].split(" ")
    assert [t.partition(",")[0] for t in tokens] == ["v1", "v1", *(["v1a", "v1a"] * ed25519)]

    await owner.execute("UPDATE endpoint_secret SET expires_at = now() WHERE expires_at > now()")
    parcel = await sent(house, shop, courier, receiver, hook)
    assert not is_believed(package, old, parcel)
    assert is_believed(package, new, parcel)

    newest = (await rotated(house, shop, hook, 0))["standardSecret"]
    parcel = await sent(house, shop, courier, receiver, hook)
    assert [is_believed(package, one, parcel) for one in (old, new, newest)] == [0, 0, 1]


async def test_the_newest_signs_first_and_alone_in_the_bodys_header(
    house: House, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, receiver.url)
    told = [made, *[await rotated(house, shop, made["id"], 24) for _ in range(6)]]
    parcel = await sent(house, shop, courier, receiver, made["id"])
    secrets = [one["secret"] for one in reversed(told)][:5]  # at most five sign at once
    expected = delivery_headers(
        secrets=secrets,
        delivery_id=UUID(parcel.headers["X-Webhook-Id"]),
        event_id=UUID(parcel.headers["webhook-id"]),
        event_type=parcel.type,
        body=parcel.body,
        now=datetime.fromisoformat(parcel.headers["X-Webhook-Timestamp"]),
        custom={},
    )
    for name in ("webhook-signature", "X-Webhook-Signature"):
        assert parcel.headers[name] == expected[name]


async def test_a_receiver_with_the_public_key_alone_believes_and_follows_the_rotation(
    house: House, owner: asyncpg.Connection, receiver: Receiver, courier: Courier
) -> None:
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, receiver.url, ed25519=True)
    old = made["publicKey"]
    assert is_signed_by(old, await sent(house, shop, courier, receiver, made["id"]))
    new = (await rotated(house, shop, made["id"], 1))["publicKey"]
    parcel = await sent(house, shop, courier, receiver, made["id"])
    assert is_signed_by(old, parcel)
    assert is_signed_by(new, parcel)
    await owner.execute("UPDATE endpoint_secret SET expires_at = now() WHERE expires_at > now()")
    parcel = await sent(house, shop, courier, receiver, made["id"])
    assert not is_signed_by(old, parcel)
    assert is_signed_by(new, parcel)


@contextlib.asynccontextmanager
async def node(
    secret: str, standard: str, public: str
) -> AsyncIterator[asyncio.subprocess.Process]:
    """The receiver of receiver.mjs at work."""
    process = await asyncio.create_subprocess_exec(
        "node", str(SCRIPT), secret, standard, public, stdout=asyncio.subprocess.PIPE
    )
    try:
        yield process
    finally:
        process.kill()
        await process.wait()


@pytest.mark.skipif(shutil.which("node") is None, reason="there is no Node.js on this machine")
async def test_node_verifies_the_body_that_it_has_parsed_and_written_anew(
    house: House, owner: asyncpg.Connection, courier: Courier
) -> None:
    shop = await make_shop(house)
    hook = await make_endpoint(house, shop, "http://127.0.0.1:9/", events=["*"], ed25519=True)
    buyer = await make_buyer(house, funds="5000")
    await top_up(house, buyer.email, "5000")
    titles = [
        ("كاميرا مستعملة، بحالة جيدة 📷", Decimal(100)),
        ("Réfrigérateur d'été, façade «bleue»", Decimal("99.5")),
        ('a \\ "quoted" </script> \u2028 \x7f line', Decimal("1234.567")),
        ("Ω≈ç√ e\u0301", Decimal("0.1") + 5),
    ]
    async with node(hook["secret"], hook["standardSecret"], hook["publicKey"]) as process:
        assert process.stdout is not None
        port = int(await process.stdout.readline())
        url = f"http://127.0.0.1:{port}/"
        await owner.execute("UPDATE webhook_endpoint SET url = $1", url)
        for title, amount in titles:
            await make_escrow(house, shop, buyer, status="completed", title=title, amount=amount)
        await courier.settle_all()
        told = [orjson.loads(await process.stdout.readline()) for _ in range(3 * len(titles))]
    for one in told:
        held = {name: one[name] for name in ("same", "plain", "standard", "asymmetric")}
        assert held == dict.fromkeys(held, True), one
    assert {(one["title"], Decimal(str(one["amount"]))) for one in told} == set(titles)
