"""A shop that trades on the ground: its key, its seller, a known buyer, its endpoints."""

import asyncio
from dataclasses import dataclass
from functools import partial

import orjson

from bench.ground import Ground
from service.cli.house import open_house
from service.commands import developers, endpoints, escrows, users
from service.commands.gathering import TOGETHER_MAX
from service.commands.perform import perform, perform_grouped
from service.ingress.api.escrows import terms_of
from service.rules.machine import SYSTEM, Actor, ActorKind
from service.store.db import Transaction
from service.wire.escrows import NewEscrow
from service.wire.reading import read_object
from service.wire.sandbox import DeveloperAnswer
from service.wire.webhooks import WebhookCreate

TERMS = {
    "title": "Refurbished camera, 24-70 mm lens, one year",
    "amount": 149.5,
    "currency": "TND",
    "buyerEmail": "somebody@buyer.example",
    "mode": "instant",
    "estimatedDeliveryDays": 3,
}


@dataclass(frozen=True)
class Shop:
    """Who creates the escrows that are measured."""

    developer_id: str
    api_key: str
    buyer_email: str

    def request(self, port: int, buyer_email: str | None = None) -> bytes:
        """`POST /escrows` in bytes: an instant escrow, by default for the known buyer."""
        body = orjson.dumps({**TERMS, "buyerEmail": buyer_email or self.buyer_email})
        return request_bytes("/api/v1/escrows", port, body, f"X-API-Key: {self.api_key}\r\n")


def request_bytes(path: str, port: int, body: bytes, headers: str = "") -> bytes:
    """A POST of JSON as it goes over the wire."""
    head = (
        f"POST {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\n{headers}"
        f"Content-Type: application/json\r\nContent-Length: {len(body)}\r\n\r\n"
    )
    return head.encode() + body


async def open_shop(ground: Ground, name: str, urls: tuple[str, ...] = ()) -> Shop:
    """A developer with a user that sells, a registered buyer, an endpoint at each of the URLs."""
    async with open_house(ground.settings) as house:
        answer = await perform(house, SYSTEM, partial(_open, name))
        made = DeveloperAnswer.model_validate_json(answer.body)
        actor = Actor(ActorKind.DEVELOPER, developer_id=made.developer_id, user_id=made.user_id)
        for url in urls:
            wanted = WebhookCreate(url=url, events=["*"])
            await perform(house, actor, endpoints.create(made.developer_id, wanted))
    return Shop(made.developer_id, made.api_key, f"{name}@buyer.example")


async def _open(name: str, tx: Transaction) -> DeveloperAnswer:
    made = await developers.enrol(
        tx, f"{name}@shop.example", "Shop", user_email=f"{name}@seller.example"
    )
    await users.register(tx, f"{name}@buyer.example", "Bo", "Yer")
    return DeveloperAnswer(
        developer_id=made.developer_id, api_key=made.api_key, user_id=made.user_id
    )


async def create_escrows(ground: Ground, shop: Shop, count: int) -> None:
    """So many pending escrows of this shop, by the command itself."""
    actor = Actor(ActorKind.DEVELOPER, developer_id=shop.developer_id)
    order = escrows.Order(actor, shop.developer_id, terms_of(body_of(shop)))
    async with open_house(ground.settings) as house:
        for _ in range(count // TOGETHER_MAX + 1):
            now = min(TOGETHER_MAX, count)
            count -= now
            await asyncio.gather(
                *(perform_grouped(house, escrows.create_all, order, status=201) for _ in range(now))
            )


def body_of(shop: Shop) -> NewEscrow:
    """The body of a request for the known buyer, as the ingress reads it."""
    raw = orjson.dumps({**TERMS, "buyerEmail": shop.buyer_email})
    return NewEscrow.model_validate(read_object(raw))
