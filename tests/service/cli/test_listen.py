"""`amana listen`: what happens reaches a server on this machine, signed, without a tunnel."""

import asyncio
import contextlib
import json
import os
import sys
from collections.abc import AsyncIterator

import aiohttp
import pytest

from service.cli.listen import Listener, Refused, hand_on, read_page
from service.cli.partner import find_faults
from service.commands.perform import House
from service.gateways.post import HttpPost
from service.ingress.main import make_app
from service.settings import Settings
from tests.makers import make_escrow, make_shop
from tests.receiver import receiving
from tests.service.ingress.conftest import listening

pytestmark = pytest.mark.timeout(60)


@pytest.fixture
async def url(migrated: Settings) -> AsyncIterator[str]:
    """An ingress of this house."""
    async with listening(make_app(migrated)) as opened:
        yield opened


@contextlib.asynccontextmanager
async def listen(*arguments: str, **environ: str) -> AsyncIterator[asyncio.subprocess.Process]:
    """`amana listen` as a developer starts it."""
    process = await asyncio.create_subprocess_exec(
        sys.executable,
        "-c",
        "from service.cli.main import main; main()",
        "listen",
        *arguments,
        env={**os.environ, **environ},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()


async def until_listening(process: asyncio.subprocess.Process) -> str:
    """The secret that it has made."""
    assert process.stderr is not None
    while True:
        line = (await process.stderr.readline()).decode()
        assert line, "it has ended"
        if line.startswith("secret: "):
            return line.split()[1]


async def test_an_event_is_printed_and_forwarded_signed(house: House, url: str) -> None:
    shop = await make_shop(house)
    async with receiving() as receiver:
        arguments = ("--url", url, "--forward", receiver.url, "--json", "--types", "escrow.*")
        async with listen(*arguments, AMANA_KEY=shop.api_key) as process:
            assert process.stdout is not None
            secret = await until_listening(process)
            lines: list[bytes] = []
            while not lines:  # it listens from its first answer on, whenever that is
                await make_escrow(house, shop, title="Un café ☕")
                with contextlib.suppress(TimeoutError):
                    async with asyncio.timeout(2):
                        lines.append(await process.stdout.readline())
        told = json.loads(lines[0])
        assert told["event"]["type"] == "escrow.created"
        assert told["event"]["data"]["escrow"]["title"] == "Un café ☕"
        assert told["forwarded"]["status"] == 200
        parcel = receiver.parcels[0]
        headers = {name.lower(): value for name, value in parcel.headers.items()}
        assert list(find_faults([secret], headers, parcel.body)) == []
        stored = "SELECT body FROM webhook_body ORDER BY recorded_at"
        assert parcel.body in [row["body"] for row in await house.pool.fetch(stored)]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (("--key", "sk_sandbox_" + "0" * 64), "401"),
        (("--types", "escrow.exploded"), "escrow.exploded"),
        (("--after", "nonsense"), "nextCursor"),
        (("--forward", "localhost:3000"), "--forward must be a URL"),
    ],
)
async def test_what_will_not_do_ends_it_with_one_line(
    house: House, url: str, arguments: tuple[str, ...], said: str
) -> None:
    shop = await make_shop(house)
    async with listen("--url", url, *arguments, AMANA_KEY=shop.api_key) as process:
        _, error = await process.communicate()
        assert process.returncode == 1
    lines = [line for line in error.decode().splitlines() if line.startswith("Error: ")]
    assert len(lines) == 1
    assert said in lines[0]
    assert "Traceback" not in error.decode()


async def test_every_event_is_heard_once_by_its_exact_bytes(house: House, url: str) -> None:
    shop = await make_shop(house)
    async with aiohttp.ClientSession() as client:
        listener = Listener(client, url, shop.api_key)
        assert await listener.hear() == []
        for title in ('"],"', "قلم", "\u2028]}"):
            await make_escrow(house, shop, title=title)
        heard = []
        async with asyncio.timeout(10):
            while len(heard) < 3:
                heard += await listener.hear()
    stored = "SELECT body FROM webhook_body ORDER BY recorded_at"
    assert [one.body for one in heard] == [row["body"] for row in await house.pool.fetch(stored)]


async def test_a_local_server_that_is_down_is_told_and_not_tried_again(
    house: House, url: str
) -> None:
    shop = await make_shop(house)
    post = HttpPost(allow_private=True)
    async with aiohttp.ClientSession() as client:
        listener = Listener(client, url, shop.api_key, after="")
        await make_escrow(house, shop)
        async with asyncio.timeout(10):
            heard = await listener.hear()
            while not heard:
                heard = await listener.hear()
        handed = await hand_on(post, "http://127.0.0.1:1/hook", "s" * 64, heard[0])
    await post.close()
    assert (handed.status, handed.fault) == (0, "refused")
    assert handed.line().split("->")[1].startswith(" refused (")


async def test_a_revoked_key_is_refused_for_good(house: House, url: str) -> None:
    async with aiohttp.ClientSession() as client:
        with pytest.raises(Refused, match="401"):
            await Listener(client, url, "sk_sandbox_x").hear()


def test_a_page_is_read_to_its_cursor() -> None:
    page = (
        '{"events":[{"id":"1","type":"a"},{"id":"2","type":"b"}],"nextCursor":"c","hasMore":true}'
    )
    heard, cursor, has_more = read_page(page)
    assert [(one.id, one.body) for one in heard] == [
        ("1", b'{"id":"1","type":"a"}'),
        ("2", b'{"id":"2","type":"b"}'),
    ]
    assert (cursor, has_more) == ("c", True)
    assert read_page('{"events":[],"nextCursor":"d","hasMore":false}') == ([], "d", False)
