"""What is kept no longer: secrets and answers past their time, and nobody's files."""

import os
import socket
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import structlog

from service.commands import endpoints, files
from service.commands.perform import House
from service.gateways.files import Access, open_storage
from service.ingress.uploads import keep_file
from tests.attachments import PNG
from tests.makers import act, arrange, make_shop
from tests.receiver import make_endpoint
from workers import retention


async def test_a_secret_is_deleted_once_its_overlap_is_over(
    house: House, owner: asyncpg.Connection
) -> None:
    shop = await make_shop(house)
    made = await make_endpoint(house, shop, "http://127.0.0.1:1/")
    rotate = endpoints.regenerate_secret(shop.developer_id, made["id"], overlap_hours=1)
    await act(house, shop.actor, rotate)
    await retention.tidy(house)
    assert await house.pool.fetchval("SELECT count(*) FROM endpoint_secret") == 2
    await owner.execute("UPDATE endpoint_secret SET expires_at = expires_at - interval '1 h'")
    await retention.tidy(house)
    left = await house.pool.fetch("SELECT expires_at FROM endpoint_secret")
    assert [row["expires_at"] for row in left] == [None]


async def test_only_files_that_nobody_named_and_that_lay_for_a_day_are_removed(
    house: House, tmp_path: Path
) -> None:
    storage = open_storage(f"file://{tmp_path}")

    async def once() -> AsyncIterator[bytes]:
        yield PNG

    named, fresh, orphan = [await keep_file(storage, "a.png", once()) for _ in range(3)]
    await arrange(house, lambda tx: files.record(tx, [named]))
    yesterday = datetime.now(UTC) - timedelta(hours=24, minutes=1)
    almost = datetime.now(UTC) - timedelta(hours=23, minutes=59)
    for file, at in ((named, yesterday), (orphan, yesterday), (fresh, almost)):
        path = tmp_path / file.key[:2] / file.key[2:4] / file.key
        os.utime(path, (at.timestamp(), at.timestamp()))
    for _ in range(2):
        await retention.remove_orphans(house, storage)
        left = {file.key async for page in storage.list() for file in page}
        assert left == {named.key, fresh.key}


async def test_a_store_that_is_away_is_left_for_the_next_round(house: House) -> None:
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        endpoint = f"http://127.0.0.1:{nobody.getsockname()[1]}"
        storage = open_storage("s3://bucket", Access(endpoint, "r", "key", "secret"))
        with structlog.testing.capture_logs() as lines:
            await retention.remove_orphans(house, storage)
    assert [line["event"] for line in lines] == ["orphans_not_removed"]
