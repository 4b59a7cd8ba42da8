"""Mixed load: a shop's client that lives escrows over HTTP, and the sink that hears of them.

The client is as a sound partner should be: each request has an Idempotency-Key and is repeated
with it, on any ingress, until it is answered. What was answered is a promise; `Trade.kept` and
`Sink.heard_all` hold the house to every one of them.
"""

import asyncio
import contextlib
import random
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import aiohttp
import orjson
from aiohttp import web

from tests.chaos.outside import Line
from tests.chaos.world import PATIENCE_SECONDS, World
from tests.makers import Buyer, Shop, make_buyer, make_shop
from tests.receiver import make_endpoint

ASK_TIMEOUT_SECONDS = 30.0
RETRY_SECONDS = (0.05, 0.4)
LIVES: dict[str, tuple[str, ...]] = {
    "left": (),
    "cancelled": ("cancel",),
    "paid": ("pay",),
    "delivered": ("pay", "deliver"),
    "acknowledged": ("pay",),
}
"""How an escrow is lived, by what is asked for it; the last one is completed by the worker."""
ENDS = {
    "left": "pending",
    "cancelled": "cancelled",
    "paid": "paid",
    "delivered": "completed",
    "acknowledged": "completed",
}

# Raced steps, the state they start from, and every pair of answers and end that is sound:
# (status of the first, status of the second, state).
RACES = {
    ("pay", "cancel"): ("pending", {(200, 409, "paid"), (409, 200, "cancelled"),
                                    (200, 400, "paid"), (400, 200, "cancelled")}),
    ("deliver", "cancel"): ("paid", {(200, 400, "completed")}),
    ("deliver", "deliver"): ("paid", {(200, 400, "completed"), (400, 200, "completed")}),
    ("cancel", "cancel"): ("pending", {(200, 400, "cancelled"), (400, 200, "cancelled")}),
    ("pay", "pay"): ("pending", {(200, 409, "paid"), (409, 200, "paid")}),
}  # fmt: skip


class Door(Protocol):
    """An ingress, wherever it runs."""

    @property
    def url(self) -> str: ...


@dataclass(frozen=True)
class Answered:
    """A request and what was answered to it."""

    key: str
    path: str
    body: bytes
    status: int
    answer: bytes
    is_replayed: bool
    seconds: float


@dataclass
class Trade:
    """One shop's client. `ingresses` are asked in turn; whoever is away is asked again later."""

    world: World
    shop: Shop
    buyer: Buyer
    chance: random.Random
    ingresses: Callable[[], Sequence[Door]]
    client: aiohttp.ClientSession
    answered: list[Answered] = field(default_factory=list)
    escrows: dict[str, str] = field(default_factory=dict)
    misses: Counter[str] = field(default_factory=Counter)
    complaints: list[str] = field(default_factory=list)

    async def ask(self, path: str, body: object, key: str) -> Any:
        """POST until it is answered; the answer's body."""
        raw = orjson.dumps(body)
        began = time.monotonic()
        async with asyncio.timeout(PATIENCE_SECONDS):
            while True:
                came = await self.attempt(path, raw, key)
                if came is not None:
                    self.answered.append(
                        Answered(key, path, raw, *came, seconds=time.monotonic() - began)
                    )
                    assert came[0] in (200, 201), (path, came)
                    return orjson.loads(came[1])
                await asyncio.sleep(self.chance.uniform(*RETRY_SECONDS))

    async def attempt(
        self, path: str, raw: bytes, key: str, door: str | None = None
    ) -> tuple[int, bytes, bool] | None:
        """One try: status, body, whether it was replayed; None where it must be tried again."""
        door = door or self.chance.choice(self.ingresses()).url
        headers = {"Content-Type": "application/json", "Idempotency-Key": key, **self.shop.headers}
        try:
            async with self.client.post(door + path, data=raw, headers=headers) as answer:
                body = await answer.read()
        except (aiohttp.ClientError, OSError, TimeoutError) as lost:
            self.misses[type(lost).__name__] += 1
            return None
        if answer.status == 503:
            self.misses["503"] += 1
            if not answer.headers.get("Retry-After", "").isdigit():
                self.complaints.append(f"503 without Retry-After on {path}")
            return None
        if answer.status == 409 and b"idempotency" in body.lower():
            self.misses["in flight"] += 1  # the lost request is still being carried out
            return None
        return answer.status, body, "Idempotency-Replayed" in answer.headers

    async def open(self, name: str, life: str = "left") -> str:
        """A new escrow that is to be lived like this; its id."""
        terms = {
            "title": name,
            "amount": self.chance.randint(1, 50),
            "buyerEmail": self.buyer.email,
            "mode": "instant",
            "autoComplete": "on_ack" if life == "acknowledged" else "manual",
        }
        opened = await self.ask("/api/v1/escrows", terms, f"{name}-create")
        escrow_id: str = opened["escrow"]["id"]
        self.escrows[escrow_id] = life
        return escrow_id

    async def step(self, escrow_id: str, step: str, key: str | None = None) -> Any:
        """Pay, deliver or cancel; the answer."""
        path, body = self.request(escrow_id, step)
        return await self.ask(path, body, key or f"{escrow_id}-{step}")

    def request(self, escrow_id: str, step: str) -> tuple[str, dict[str, str]]:
        """Where a step is asked for, with which body."""
        if step == "pay":
            return f"/api/v1/sandbox/escrows/{escrow_id}/pay", {"email": self.buyer.email}
        return f"/api/v1/escrows/{escrow_id}/{step}", {}

    async def live(self, name: str, life: str) -> str:
        """One escrow: opened, and brought as far as its life goes; its id."""
        escrow_id = await self.open(name, life)
        for step in LIVES[life]:
            await self.step(escrow_id, step)
        return escrow_id

    async def trade(self, until: asyncio.Event, side_by_side: int) -> None:
        """Live escrows side by side until the event; those under way are lived to their end."""

        async def one_after_another(line: int) -> None:
            number = 0
            while not until.is_set():
                life = self.chance.choice(list(LIVES))
                await self.live(f"{self.shop.developer_id[-6:]}-{line}-{number}", life)
                number += 1

        async with asyncio.TaskGroup() as lines:
            for line in range(side_by_side):
                lines.create_task(one_after_another(line))

    async def kept(self, replays: int = 60) -> None:
        """Every promise: what was answered is so, once, and the same key gets the same bytes."""
        assert self.complaints == []
        shown = await self.world.rows(
            "SELECT id::text, status FROM escrow WHERE creator_id = $1", self.shop.developer_id
        )
        assert dict(shown) == {one: ENDS[life] for one, life in self.escrows.items()}
        twice = await self.world.rows(
            """SELECT subject_id, step FROM event v JOIN escrow e ON e.id = v.subject_id
               WHERE e.creator_id = $1 GROUP BY 1, 2 HAVING count(*) <> 1""",
            self.shop.developer_id,
        )
        assert twice == []
        for one in self.chance.sample(self.answered, min(replays, len(self.answered))):
            again = await self.attempt(one.path, one.body, one.key)
            assert again == (one.status, one.answer, True), one.path


@dataclass
class Sink:
    """Webhook receivers that take everything: who was sent what, when."""

    url: str = ""
    pause_seconds: float = 0.0
    heard: dict[tuple[str, str], list[float]] = field(default_factory=dict)
    """(event id, endpoint's path) -> when it came."""
    held: set[str] = field(default_factory=set)
    """Paths that are not answered for now."""
    off_seconds: list[float] = field(default_factory=list)
    """How old the signatures were when they came."""
    at_once: int = 0

    async def take(self, request: web.Request) -> web.Response:
        self.at_once += 1
        try:
            await request.read()
            heard = (request.headers["webhook-id"], request.path)
            self.heard.setdefault(heard, []).append(time.time())
            self.off_seconds.append(time.time() - int(request.headers["webhook-timestamp"]))
            while request.path in self.held:  # noqa: ASYNC110 - a test's set has no event
                await asyncio.sleep(0.02)
            await asyncio.sleep(self.pause_seconds)
            return web.Response()
        finally:
            self.at_once -= 1

    @property
    def duplicates(self) -> int:
        """How many came once too often."""
        return sum(len(times) - 1 for times in self.heard.values())

    async def heard_all(self, world: World) -> int:
        """Every (event, endpoint) pair was delivered, by the books and by our ears; how many."""
        owed = await world.rows(
            """SELECT v.id::text, e.url FROM event v
               JOIN escrow x ON x.id = v.subject_id
               JOIN webhook_endpoint e ON e.developer_id = x.creator_id
               WHERE v.type IS NOT NULL AND e.url LIKE $1 || '%'""",
            self.url,
        )
        pairs = {(event, url.removeprefix(self.url)) for event, url in owed}
        assert pairs <= set(self.heard), f"{len(pairs - set(self.heard))} never came"
        delivered = await world.rows(
            """SELECT d.event_id::text, e.url FROM delivery d
               JOIN webhook_endpoint e ON e.id = d.endpoint_id
               WHERE d.state = 'delivered' AND e.url LIKE $1 || '%'""",
            self.url,
        )
        assert sorted(delivered) == sorted(owed)
        return len(pairs)

    async def waits(self, world: World, since: float, until: float) -> list[float]:
        """Seconds from each event's commit to its first attempt, for events of this span."""
        told = await world.rows(
            """SELECT v.id::text, extract(epoch FROM v.recorded_at)::float8 FROM event v
               WHERE v.type IS NOT NULL AND v.recorded_at BETWEEN to_timestamp($1)
                 AND to_timestamp($2)""",
            since,
            until,
        )
        first = {event: min(t) for (event, _), t in self.heard.items()}
        return sorted(first[event] - at for event, at in told if event in first)


@contextlib.asynccontextmanager
async def sinking() -> AsyncIterator[Sink]:
    """A sink on a free port of the loopback."""
    sink = Sink()
    app = web.Application()
    app.router.add_post("/{tail:.*}", sink.take)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    try:
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        sink.url = f"http://127.0.0.1:{runner.addresses[0][1]}"
        yield sink
    finally:
        await runner.cleanup()


@contextlib.asynccontextmanager
async def trading(
    world: World,
    chance: random.Random,
    ingresses: Callable[[], Sequence[Door]],
    sink: Sink | None = None,
    endpoints: int = 2,
) -> AsyncIterator[Trade]:
    """A shop whose endpoints are the sink's, and its client."""
    shop = await make_shop(world.house)
    buyer = await make_buyer(world.house, funds="1000000")
    for number in range(endpoints if sink else 0):
        assert sink is not None
        url = f"{sink.url}/{shop.developer_id}/{number}"
        await make_endpoint(world.house, shop, url, events=["escrow.*"], timeoutSeconds=1)
    timeout = aiohttp.ClientTimeout(total=ASK_TIMEOUT_SECONDS)
    async with aiohttp.ClientSession(timeout=timeout) as client:
        yield Trade(world, shop, buyer, chance, ingresses, client)


@contextlib.asynccontextmanager
async def under_load(trade: Trade, side_by_side: int = 6) -> AsyncIterator[None]:
    """Trade goes on for as long as the block; what is under way at its end is lived to the end."""
    over = asyncio.Event()
    async with asyncio.TaskGroup() as group:
        group.create_task(trade.trade(over, side_by_side))
        try:
            yield
        finally:
            over.set()


async def unheard(trade: Trade, line: Line, path: str, body: object, key: str) -> Any:
    """Carried out over the line that loses the answer; then asked again at the door."""
    lost = line.lost
    assert await trade.attempt(path, orjson.dumps(body), key, line.url) is None
    assert line.lost == lost + 1
    return await trade.ask(path, body, key)


async def live_unheard(trade: Trade, line: Line, name: str) -> str:
    """An escrow opened, paid and delivered by somebody who never hears the first answer."""
    terms = {"title": name, "amount": 10, "buyerEmail": trade.buyer.email, "mode": "instant"}
    opened = await unheard(trade, line, "/api/v1/escrows", terms, name)
    escrow_id: str = opened["escrow"]["id"]
    trade.escrows[escrow_id] = "delivered"
    for step in ("pay", "deliver"):
        await unheard(trade, line, *trade.request(escrow_id, step), f"{escrow_id}-{step}")
    return escrow_id


async def asked(trade: Trade, at: int, escrow_id: str, step: str, after: float = 0.0) -> int:
    """The status of one step, asked once at this ingress after so many seconds."""
    path, body = trade.request(escrow_id, step)
    url = trade.ingresses()[at].url + path
    await asyncio.sleep(after)
    async with trade.client.post(url, json=body, headers=trade.shop.headers) as answer:
        return answer.status
