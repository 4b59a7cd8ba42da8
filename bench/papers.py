"""Claim: a contract's PDF of 10 000 characters in Arabic takes < 2 s and a worker of < 200 MiB.

Ours is `amana work` at a queue of such contracts, each signed by both with the largest picture that
the door takes; the time is that of one document by itself, the fonts read before.
"""

import asyncio
import base64
import struct
import tempfile
import time
import zlib
from dataclasses import replace
from pathlib import Path

from bench.ground import Ground
from bench.report import Finding, below, told
from bench.shop import Shop, body_of, open_shop
from service.cli.house import open_house
from service.commands import contracts, developers, escrows
from service.commands.contracts import DRAWN, Mark
from service.commands.papers import claim, drawn_up
from service.commands.perform import House, perform, tend
from service.ingress.api.escrows import terms_of
from service.rules.images import AREA_PIXELS_MAX
from service.rules.machine import Actor, ActorKind
from service.store.users import read_user
from service.wire.escrows import Creation
from service.wire.text import TERMS_CHARACTERS_MAX
from service.words.papers import Drawn, Papers

CONTRACTS, TIMED = 20, 5
LINE = "يلتزم البائع بتسليم الكاميرا Canon EOS R5 خلال 7 أيام. 📷\n"
WITHIN_SECONDS = 60.0
MOST_SECONDS, MOST_MIB = 2.0, 200.0
WIDE = 2000
UNMADE = "SELECT count(*) FROM paper WHERE file_key IS NULL"


async def measure(ground: Ground) -> list[Finding]:
    """The worker's memory over all of them, then the time of the slowest of a few."""
    shop = await open_shop(ground, "papers")
    async with open_house(ground.settings) as house:
        image = _picture()
        for _ in range(CONTRACTS):
            await _signed_contract(house, shop, image)
        slowest, size = await _slowest(house)
    peak = await _printed(ground)
    claimed = f"a contract of {TERMS_CHARACTERS_MAX:,} Arabic characters as PDF"
    return [
        below(claimed, "slowest", slowest * 1000, MOST_SECONDS * 1000, "ms"),
        below(f"… the worker's memory over {CONTRACTS} of them", "peak", peak, MOST_MIB, "MiB"),
        told("… its size", f"{size / 1024:.0f} KiB"),
    ]


async def _signed_contract(house: House, shop: Shop, image: str) -> None:
    terms = replace(
        terms_of(body_of(shop)),
        mode="standard",
        language="ar",
        contract_terms=(LINE * 200)[:TERMS_CHARACTERS_MAX],
        auto_sign=True,
    )
    await tend(house, lambda tx: developers.keep_signature(tx, shop.developer_id, image))
    seller = await read_user(house.pool, "papers@seller.example")
    buyer = await read_user(house.pool, shop.buyer_email)
    if seller is None or buyer is None:
        raise AssertionError("the shop has its people")
    creator = Actor(ActorKind.DEVELOPER, developer_id=shop.developer_id, user_id=seller.person.id)
    made = await perform(house, creator, escrows.create(shop.developer_id, terms), status=201)
    created = Creation.model_validate_json(made.body, strict=False)
    signer = Actor(ActorKind.USER, user_id=buyer.person.id)
    mark = Mark(DRAWN, image=image)
    await perform(house, signer, contracts.sign(created.tracking_id, mark))


async def _slowest(house: House) -> tuple[float, int]:
    """Seconds of the slowest of a few, and a document's bytes; all are due again at once."""
    due = (await claim(house))[:TIMED]
    seconds, size = 0.0, 0
    with tempfile.TemporaryDirectory() as folder:
        papers = Papers.read(Path(folder))
        for one in due:
            order = await drawn_up(house, one)
            drawn = [Drawn(given, order.images.get(given["role"])) for given in order.signatures]
            zone, began = house.policy.timezone, time.perf_counter()
            pdf = papers.contract(
                order.facts, order.terms, drawn, order.fingerprint, zone, is_sandbox=True
            )
            seconds, size = max(seconds, time.perf_counter() - began), len(pdf)
    return seconds, size


async def _printed(ground: Ground) -> float:
    """The worker's peak in MiB once it has made them all; bounded here, and not with the others."""
    owner = await ground.owner()
    await owner.execute("UPDATE paper SET due_at = clock_timestamp()")
    give_up_at = time.monotonic() + WITHIN_SECONDS
    with ground.running("work"):
        while await owner.fetchval(UNMADE):
            if time.monotonic() > give_up_at:
                raise RuntimeError("the contracts were not printed in time")
            await asyncio.sleep(0.2)
    await owner.close()
    return ground.peaks_mib.pop("work")


def _picture() -> str:
    """A blank PNG as large as a signature may be, 16 bits for each channel, as a data URI."""
    high = AREA_PIXELS_MAX // WIDE
    head = struct.pack(">IIBBBBB", WIDE, high, 16, 6, 0, 0, 0)
    rows = (b"\0" + bytes(8 * WIDE)) * high
    parts = [(b"IHDR", head), (b"IDAT", zlib.compress(rows, 9)), (b"IEND", b"")]
    png = b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )
    return f"data:image/png;base64,{base64.b64encode(png).decode()}"
