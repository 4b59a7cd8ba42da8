"""The store of files: a local folder, and a bucket of an S3 server that runs beside the test."""

import asyncio
import importlib.util
import os
import socket
import sys
from contextlib import aclosing
from datetime import UTC, datetime, timedelta

import aiohttp
import pytest
import pytest_asyncio

from service.gateways.files import PART_BYTES, Access, FileNotThere, open_storage
from service.rules.errors import GatewayFailure

KEY, OTHER, NONE = "ab" * 32, "cd" * 32, "ef" * 32
CHUNK = 64 * 1024
SECRET = "a-secret-that-no-log-may-hold"
HAS_MOTO = importlib.util.find_spec("moto") and importlib.util.find_spec("flask")


class Broken(Exception):
    """The sender has gone."""


async def chunks(*parts, ends_in=None):
    for part in parts:
        yield part
    if ends_in is not None:
        raise ends_in


async def content(storage, key):
    async with aclosing(storage.get(key)) as got:
        return b"".join([chunk async for chunk in got])


async def listed(storage):
    return [file async for page in storage.list() for file in page]


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def moto():
    """An S3 server on loopback; gives its address, None where it is not installed."""
    if not HAS_MOTO:
        yield None
        return
    with socket.socket() as found:
        found.bind(("127.0.0.1", 0))
        port = found.getsockname()[1]
    server = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
    )
    try:
        url = f"http://127.0.0.1:{port}"
        async with aiohttp.ClientSession() as session, asyncio.timeout(30):
            while True:
                try:
                    async with session.put(f"{url}/amana-files"):
                        break
                except aiohttp.ClientConnectionError:
                    await asyncio.sleep(0.1)
        yield url
    finally:
        server.terminate()
        await server.wait()


@pytest.fixture(params=["folder", "bucket"])
async def storage(request, tmp_path, moto):
    """An empty store of either kind."""
    if request.param == "folder":
        yield open_storage(f"file://{tmp_path}/made/by us")
        return
    if moto is None:
        pytest.skip("moto[server] is not installed")
    access = Access(moto, "eu-south-1", "AKIDEXAMPLE", SECRET)
    opened = open_storage("s3://amana-files/live/files", access)
    yield opened
    await opened.delete([file.key for file in await listed(opened)])


async def test_what_was_put_is_what_comes_back(storage):
    small, large = b"%PDF-1.4 small", os.urandom(PART_BYTES + CHUNK)
    await storage.put(KEY, chunks(small))
    pieces = [large[at : at + CHUNK] for at in range(0, len(large), CHUNK)]
    await storage.put(OTHER, chunks(*pieces))
    assert await content(storage, KEY) == small
    assert await content(storage, OTHER) == large
    async with aclosing(storage.get(OTHER)) as got:
        sizes = [len(chunk) async for chunk in got]
    assert len(sizes) > 1
    assert {(file.key, file.bytes) for file in await listed(storage)} == {
        (KEY, len(small)), (OTHER, len(large))
    }  # fmt: skip
    since = (await listed(storage))[0].since
    assert abs(datetime.now(UTC) - since) < timedelta(minutes=1)


@pytest.mark.parametrize("sent", [0, 3, 120])
async def test_a_sender_who_breaks_off_leaves_nothing(storage, sent):
    with pytest.raises(Broken):
        await storage.put(KEY, chunks(*[b"x" * CHUNK] * sent, ends_in=Broken()))
    assert await listed(storage) == []
    with pytest.raises(FileNotThere):
        await content(storage, KEY)


async def test_what_was_deleted_is_gone_and_what_never_was_is_passed_by(storage):
    await storage.put(KEY, chunks(b"one"))
    await storage.put(OTHER, chunks(b"two"))
    await storage.delete([NONE, KEY])
    await storage.delete([KEY])
    assert [file.key for file in await listed(storage)] == [OTHER]
    with pytest.raises(FileNotThere):
        await content(storage, KEY)


async def test_it_says_that_it_is_there(storage):
    await storage.ping()


@pytest.mark.parametrize("key", ["", "../../etc/passwd", "AB" * 32, "a/b", f"{KEY}#1", KEY + "\n"])
async def test_nothing_but_a_key_is_ever_a_path(storage, key):
    with pytest.raises(ValueError, match="not the key"):
        await storage.put(key, chunks(b"x"))
    with pytest.raises(ValueError, match="not the key"):
        await content(storage, key)
    assert await listed(storage) == []


async def test_a_put_that_is_given_up_leaves_nothing(tmp_path):
    storage = open_storage(f"file://{tmp_path}")
    begun = asyncio.Event()

    async def slow():
        yield b"x" * (PART_BYTES + 1)
        begun.set()
        await asyncio.sleep(60)

    put = asyncio.create_task(storage.put(KEY, slow()))
    await begun.wait()
    put.cancel()
    with pytest.raises(asyncio.CancelledError):
        await put
    for _ in range(100):
        if not any(path.is_file() for path in tmp_path.rglob("*")):
            break
        await asyncio.sleep(0.05)
    assert not any(path.is_file() for path in tmp_path.rglob("*"))


async def test_what_a_killed_process_left_in_the_folder_is_swept_once_it_is_old(tmp_path):
    storage = open_storage(f"file://{tmp_path}")
    await storage.put(KEY, chunks(b"whole"))
    left = tmp_path / "ab" / "ab" / f"{OTHER}#1"
    left.write_bytes(b"half")
    now = datetime.now(UTC)
    assert await storage.sweep(now - timedelta(hours=1)) == 0
    assert left.exists()
    assert await storage.sweep(now + timedelta(hours=1)) == 1
    assert not left.exists()
    assert await content(storage, KEY) == b"whole"


async def test_a_folder_that_is_made_is_ours_alone(tmp_path):
    open_storage(f"file://{tmp_path}/deep/files")
    assert (tmp_path / "deep" / "files").stat().st_mode & 0o777 == 0o700


async def test_a_store_that_is_away_is_a_failure_that_tells_no_secret():
    with socket.socket() as nobody:
        nobody.bind(("127.0.0.1", 0))
        access = Access(f"http://127.0.0.1:{nobody.getsockname()[1]}", "r", "AKIDEXAMPLE", SECRET)
        storage = open_storage("s3://amana-files", access)
        for asked in (storage.ping(), storage.put(KEY, chunks(b"x")), content(storage, KEY)):
            with pytest.raises(GatewayFailure) as failure:
                await asked
            assert not failure.value.permanent
            assert not isinstance(failure.value, FileNotThere)
            assert SECRET not in str(failure.value)
    assert SECRET not in repr(access)
    assert "AKIDEXAMPLE" not in repr(access)
