"""The sliding window against a real Redis, and what becomes of it when Redis is away."""

import asyncio
import contextlib
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import pytest
from redis.asyncio import Redis as Client

from service.cli.redis_server import Redis
from service.gateways.limiter import ANSWER_TIMEOUT_SECONDS, QUIET_SECONDS, Limiter


@pytest.fixture
async def redis(redis_url):
    client = Client.from_url(redis_url)
    await client.flushdb()
    yield client
    await client.aclose()


@pytest.fixture
def short_folder():
    """A folder whose path is short enough for a socket."""
    with tempfile.TemporaryDirectory(prefix="amana-") as folder:
        yield Path(folder)


class Away:
    """Counts the requests that passed unasked."""

    def __init__(self):
        self.times = 0

    def __call__(self):
        self.times += 1


@contextlib.asynccontextmanager
async def limiting(url):
    away = Away()
    limiter = Limiter(url, away)
    try:
        yield limiter, away
    finally:
        await limiter.close()


async def place(redis):
    """The bucket that Redis' clock is in, and how many seconds of it have passed."""
    seconds, micros = await redis.time()
    return int(seconds // 60), seconds % 60 + micros / 1e6


async def settle(redis):
    """Away from the end of a minute, so that one test sees one bucket."""
    _, into = await place(redis)
    if into > 55:
        await asyncio.sleep(60 - into + 0.05)


async def test_the_limit_is_let_in_and_one_more_is_not(redis, redis_url):
    await settle(redis)
    async with limiting(redis_url) as (limiter, away):
        verdicts = [await limiter.take("ip:a", 3) for _ in range(4)]
    assert [v.is_refused for v in verdicts] == [False, False, False, True]
    assert [v.remaining for v in verdicts] == [2, 1, 0, 0]
    assert {v.limit for v in verdicts} == {3}
    assert 1 <= verdicts[-1].retry_after_seconds <= 120
    assert all(v.reset_at > datetime.now(UTC) for v in verdicts)
    assert away.times == 0


async def test_windows_do_not_know_of_one_another(redis, redis_url):
    await settle(redis)
    async with limiting(redis_url) as (limiter, _):
        await limiter.take("ip:a", 1)
        assert (await limiter.take("ip:a", 1)).is_refused
        assert not (await limiter.take("ip:b", 1)).is_refused
        assert not (await limiter.take("key:a", 1)).is_refused


async def test_processes_share_their_windows_and_a_burst_is_counted_exactly(redis, redis_url):
    await settle(redis)
    async with limiting(redis_url) as (one, _), limiting(redis_url) as (other, _):
        await one.ping()
        await other.ping()
        takes = [limiter.take("ip:a", 100) for _ in range(100) for limiter in (one, other)]
        verdicts = await asyncio.gather(*takes)
    assert sum(not v.is_refused for v in verdicts) == 100


async def test_the_minute_before_weighs_by_what_the_window_still_covers(redis, redis_url):
    await settle(redis)
    bucket, into = await place(redis)
    await redis.set("limit:ip:a", f"{bucket - 1}:100:0")
    async with limiting(redis_url) as (limiter, _):
        verdict = await limiter.take("ip:a", 100)
        expected = 100 - 100 * (60 - into) / 60 - 1
        if expected >= 1:
            assert verdict.remaining == pytest.approx(expected, abs=1.5)
        await redis.set("limit:ip:b", f"{bucket - 2}:100:100")
        assert (await limiter.take("ip:b", 100)).remaining == 99


@pytest.mark.parametrize("kept", ["{b}:3:0", "{b}:0:300", "{b}:2:2", "{a}:300:0"])
async def test_who_waits_as_long_as_told_is_let_in(redis, redis_url, kept):
    """Refused by what Redis keeps; after the wait, the window by hand has room for one."""
    await settle(redis)
    bucket, into = await place(redis)
    await redis.set("limit:ip:a", kept.format(b=bucket, a=bucket - 1))
    async with limiting(redis_url) as (limiter, _):
        verdict = await limiter.take("ip:a", 3)
    if not verdict.is_refused:
        pytest.skip("so late in the minute, the one before hardly weighs")
    state = (await redis.get("limit:ip:a")).decode()
    at, current, previous = (int(part) for part in state.split(":"))
    then = into + verdict.retry_after_seconds
    buckets_on = bucket + int(then // 60) - at
    counts = {0: (current, previous), 1: (0, current)}.get(buckets_on, (0, 0))
    weighted = counts[0] + counts[1] * (60 - then % 60) / 60
    assert weighted + 1 <= 3.2  # the clock went on between the two readings


async def test_a_refused_request_is_not_counted(redis, redis_url):
    await settle(redis)
    async with limiting(redis_url) as (limiter, _):
        await limiter.take("ip:a", 1)
        kept = await redis.get("limit:ip:a")
        assert (await limiter.take("ip:a", 1)).is_refused
        assert await redis.get("limit:ip:a") == kept


async def test_a_window_is_forgotten_once_it_cannot_matter(redis, redis_url):
    async with limiting(redis_url) as (limiter, _):
        await limiter.take("ip:a", 5)
    assert 60_000 <= await redis.pttl("limit:ip:a") <= 120_000


async def test_a_script_that_redis_forgot_is_sent_again(redis, redis_url):
    async with limiting(redis_url) as (limiter, away):
        await limiter.take("ip:a", 5)
        await redis.script_flush()
        await limiter.take("ip:a", 5)
    assert away.times == 0


async def test_nothing_listens_and_everybody_passes_at_once(unused_tcp_port):
    async with limiting(f"redis://127.0.0.1:{unused_tcp_port}") as (limiter, away):
        began = time.perf_counter()
        verdicts = [await limiter.take("ip:a", 5) for _ in range(20)]
        assert time.perf_counter() - began < QUIET_SECONDS
    assert not any(v.is_refused for v in verdicts)
    assert {v.remaining for v in verdicts} == {5}
    assert away.times == 20


async def test_a_redis_that_does_not_answer_costs_one_tenth_of_a_second_once():
    async def swallow(reader, writer):
        with contextlib.suppress(ConnectionError):
            await reader.read()
        writer.close()

    server = await asyncio.start_server(swallow, "127.0.0.1", 0)
    port = server.sockets[0].getsockname()[1]
    async with limiting(f"redis://127.0.0.1:{port}") as (limiter, away):
        began = time.perf_counter()
        verdicts = await asyncio.gather(*(limiter.take("ip:a", 1) for _ in range(50)))
        verdicts += [await limiter.take("ip:a", 1) for _ in range(50)]
        took = time.perf_counter() - began
    server.close()
    await server.wait_closed()
    assert not any(v.is_refused for v in verdicts)
    assert away.times == 100
    assert took < ANSWER_TIMEOUT_SECONDS + 0.4


async def test_the_limiter_finds_redis_again_after_a_restart(tmp_path: Path, short_folder: Path):
    server = Redis(tmp_path / "redis", short_folder, tmp_path / "redis.log")
    child = server.start()
    async with limiting(server.url) as (limiter, away):
        await limiter.take("ip:a", 2)
        server.stop(child)
        assert not (await limiter.take("ip:a", 2)).is_refused
        assert away.times == 1
        child = server.start()
        await asyncio.sleep(QUIET_SECONDS + 0.1)
        verdict = await limiter.take("ip:b", 2)
        assert (verdict.remaining, away.times) == (1, 1)
        await limiter.ping()
    server.stop(child)


async def test_ping_raises_when_redis_is_away(unused_tcp_port):
    async with limiting(f"redis://127.0.0.1:{unused_tcp_port}") as (limiter, _):
        with pytest.raises(OSError, match="Connect"):
            await limiter.ping()
