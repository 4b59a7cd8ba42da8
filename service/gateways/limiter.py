"""How often a caller may knock: a sliding window in Redis, shared by all ingress processes.

Two one-minute buckets, the older one weighted by how much of it the window still covers; one Lua
call a request, with Redis' own clock. When Redis is away the limiter fails open: it asks for at
most 100 ms, then does not ask for a second, and says so in the log and the metrics.

The client is a pipelined connection of our own on hiredis, because redis-py's costs more than all
the rest of the ingress does for a request.
"""

import asyncio
import hashlib
import ssl
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, cast

import hiredis
import structlog
from redis.asyncio.connection import SSLConnection, parse_url

WINDOW_SECONDS = 60
ANSWER_TIMEOUT_SECONDS = 0.1
QUIET_SECONDS = 1.0

# KEYS[1] holds "bucket:count:count of the bucket before". A refused request is not counted, so
# that who waits for as long as Retry-After says is let in. Returns: whether the request may pass,
# what remains, when (ms since the epoch) the bucket ends or the wait is over, the wait in ms.
TAKE = """
local time = redis.call('TIME')
local now = time[1] * 1000 + math.floor(time[2] / 1000)
local limit, minute = tonumber(ARGV[1]), 60000
local bucket = math.floor(now / minute)
local into = now - bucket * minute
local current, previous = 0, 0
local kept = redis.call('GET', KEYS[1])
if kept then
  local b, c, p = string.match(kept, '^(%d+):(%d+):(%d+)$')
  if tonumber(b) == bucket then
    current, previous = tonumber(c), tonumber(p)
  elseif tonumber(b) == bucket - 1 then
    previous = tonumber(c)
  end
end
local weighted = current + previous * (minute - into) / minute
if weighted + 1 > limit + 1e-9 then
  local wait
  if current + 1 <= limit then
    wait = minute - (limit - 1 - current) * minute / previous - into
  else
    wait = minute - into + math.max(0, minute - (limit - 1) * minute / current)
  end
  wait = math.ceil(wait)
  return {0, 0, now + wait, wait}
end
redis.call('SET', KEYS[1], bucket .. ':' .. current + 1 .. ':' .. previous, 'PX', 2 * minute - into)
return {1, math.floor(limit - weighted - 1 + 1e-9), (bucket + 1) * minute, 0}
"""
TAKE_SHA = hashlib.sha1(TAKE.encode(), usedforsecurity=False).hexdigest()

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the window says. `retry_after_seconds` is 0 where the request may pass."""

    limit: int
    remaining: int
    reset_at: datetime
    retry_after_seconds: int = 0

    @property
    def is_refused(self) -> bool:
        """Whether the request is one too many."""
        return self.retry_after_seconds > 0


class Limiter:
    """Asks Redis; `on_away` is called each time that it had to let a request pass unasked."""

    def __init__(self, url: str, on_away: Callable[[], None]) -> None:
        self._place = parse_url(url)
        self._on_away = on_away
        self._link: _Link | None = None
        self._opening: asyncio.Task[None] | None = None
        self._quiet_until = 0.0

    async def take(self, window: str, limit: int) -> Verdict:
        """Count one request in this window of `limit` a minute, if it still fits."""
        if asyncio.get_running_loop().time() < self._quiet_until:
            return self._pass_unasked(limit)
        try:
            may, remaining, reset_ms, wait_ms = await self._ask(window, limit)
        except (TimeoutError, OSError) as away:
            self._be_quiet(away)
            return self._pass_unasked(limit)
        reset_at = datetime.fromtimestamp(reset_ms / 1000, UTC)
        return Verdict(limit, remaining, reset_at, 0 if may else max(1, -(-wait_ms // 1000)))

    async def ping(self) -> None:
        """Raises OSError or TimeoutError when Redis does not answer."""
        await (await self._connected()).ask("PING")

    async def close(self) -> None:
        """Let go of the connection."""
        if self._opening is not None:
            self._opening.cancel()
            await asyncio.wait([self._opening])
        if self._link is not None:
            self._link.close()
            await self._link.closed

    async def _ask(self, window: str, limit: int) -> Any:
        link = self._link
        if link is None or link.is_closed:
            link = await self._connected()
        key = f"limit:{window}"
        reply = await link.send("EVALSHA", TAKE_SHA, "1", key, str(limit))
        if isinstance(reply, hiredis.ReplyError) and str(reply).startswith("NOSCRIPT"):
            reply = await link.send("EVAL", TAKE, "1", key, str(limit))
        return _sound(reply)

    async def _connected(self) -> "_Link":
        """The connection; whoever comes while it is opened waits for the same one."""
        if self._link is not None and not self._link.is_closed:
            return self._link
        if self._opening is None or self._opening.done():
            self._opening = asyncio.create_task(self._open())
            self._opening.add_done_callback(_note_failure)
        async with asyncio.timeout(ANSWER_TIMEOUT_SECONDS):
            await asyncio.shield(self._opening)
        if self._link is None:
            raise ConnectionResetError("the connection was lost while it was opened")
        return self._link

    async def _open(self) -> None:
        async with asyncio.timeout(QUIET_SECONDS):
            self._link = await _open_link(self._place)

    def _be_quiet(self, away: Exception) -> None:
        now = asyncio.get_running_loop().time()
        if now >= self._quiet_until:
            log.warning("limiter_away", reason=f"{type(away).__name__}: {away}")
        self._quiet_until = now + QUIET_SECONDS
        if self._link is not None:
            self._link.close()
        self._link = None

    def _pass_unasked(self, limit: int) -> Verdict:
        self._on_away()
        return Verdict(limit, limit, datetime.now(UTC) + timedelta(seconds=WINDOW_SECONDS))


class _Link(asyncio.Protocol):
    """One connection on which questions are pipelined: answers come back in their order."""

    def __init__(self) -> None:
        loop = asyncio.get_running_loop()
        self._loop = loop
        self._parser = hiredis.Reader()
        self._waiting: deque[tuple[asyncio.Future[Any], asyncio.TimerHandle]] = deque()
        self._unsent: list[bytes] = []
        self._transport: asyncio.Transport
        self.closed: asyncio.Future[None] = loop.create_future()

    @property
    def is_closed(self) -> bool:
        return self._transport.is_closing()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        # uvloop's transports are no subclass of asyncio's, so that this cannot be an isinstance.
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, data: bytes) -> None:
        self._parser.feed(data)
        while (reply := self._parser.gets()) is not False:
            future, timer = self._waiting.popleft()
            timer.cancel()
            if not future.done():
                future.set_result(reply)

    def connection_lost(self, _: Exception | None) -> None:
        for future, timer in self._waiting:
            timer.cancel()
            if not future.done():
                future.set_exception(ConnectionResetError("Redis closed the connection"))
        self._waiting.clear()
        if not self.closed.done():
            self.closed.set_result(None)

    def send(self, *words: str) -> asyncio.Future[Any]:
        """The raw reply, an error reply as a value.

        Raises OSError when the connection breaks, TimeoutError after 100 ms: a timer each, which
        costs a tenth of `asyncio.timeout`.
        """
        future: asyncio.Future[Any] = self._loop.create_future()
        timer = self._loop.call_later(ANSWER_TIMEOUT_SECONDS, _expire, future)
        self._waiting.append((future, timer))
        if not self._unsent:
            self._loop.call_soon(self._flush)
        self._unsent.append(hiredis.pack_command(cast(Any, words)))  # typed as a 1-tuple
        return future

    def _flush(self) -> None:
        """What was asked for in one turn of the loop goes out in one piece."""
        self._transport.write(b"".join(self._unsent))
        self._unsent.clear()

    async def ask(self, *words: str) -> Any:
        """The reply; an error reply is raised as OSError."""
        return _sound(await self.send(*words))

    def close(self) -> None:
        self._transport.abort()


def _expire(future: asyncio.Future[Any]) -> None:
    if not future.done():
        future.set_exception(TimeoutError(f"no answer in {ANSWER_TIMEOUT_SECONDS} s"))


def _note_failure(opening: asyncio.Task[None]) -> None:
    """Whoever waited for it was told already; this keeps asyncio from complaining."""
    if not opening.cancelled():
        opening.exception()


async def _open_link(place: Any) -> _Link:
    loop = asyncio.get_running_loop()
    if "path" in place:
        _, link = await loop.create_unix_connection(_Link, place["path"])
    else:
        secure = place.get("connection_class") is SSLConnection
        _, link = await loop.create_connection(
            _Link,
            place.get("host", "localhost"),
            place.get("port", 6379),
            ssl=ssl.create_default_context() if secure else None,
        )
    try:
        if "password" in place:
            await link.ask("AUTH", place.get("username") or "default", place["password"])
        if place.get("db"):
            await link.ask("SELECT", str(place["db"]))
    except BaseException:
        link.close()
        raise
    return link


def _sound(reply: Any) -> Any:
    if isinstance(reply, hiredis.ReplyError):
        raise OSError(f"Redis refused: {str(reply).split(maxsplit=1)[0]}")
    return reply
