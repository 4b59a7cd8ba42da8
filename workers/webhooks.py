"""The courier: fan out, claim, send, settle. One a worker process.

Law: every wake-up is a hint; what is due stands in PostgreSQL and is found by polling within a
second. No transaction is open while anything is sent.
"""

import asyncio
import math
import random
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence, Set
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from uuid import UUID

import orjson
import structlog

from service.commands.deliveries import (
    FAN_OUT_BATCH,
    WATCH_BATCH,
    acknowledge,
    claim,
    fan_out,
    is_grave,
    is_receipt,
    reconcile,
    settle,
    watch,
)
from service.commands.perform import House, tend
from service.gateways.post import Post, Request
from service.rules.delivery import LADDERS, Fault, Reply, judge
from service.rules.errors import Unavailable
from service.rules.lane import retry_slots, slow_slots
from service.store.db import Clash, Transaction
from service.store.deliveries import Attempt, Claimed
from service.wire.webhooks import delivery_headers
from workers.metrics import WorkMetrics
from workers.rounds import Round

SLOTS = 256
SENT_AT_ONCE = 4
"""In one turn of the loop: what waits for its turn may be a COMMIT, and lanes wait for that."""
POLL_SECONDS = 1.0
RECONCILE_SECONDS = 30.0
GATHER_SECONDS = 0.005
"""How long an attempt that has ended waits for company, so that they are written together."""
SETTLE_ROWS = 200
BUSY_SECONDS = 0.2
"""When a receipt whose escrow somebody held is looked at again."""
WAKE_WITHIN_SECONDS = 10.0
"""Who waits for less is met when the wait ends; longer waits are found by polling."""
AWAY_SECONDS = 0.5
GRACE_SECONDS = 12.0
"""What is in flight at shutdown may end by itself for so long; then it is given back."""
SETTLE_GRACE_SECONDS = 5.0
SECRETS_KEPT = 2048

log = structlog.get_logger()


class Courier:
    """Delivers webhooks: `run` for as long as the process lives, `wake` or `drain` from a job.

    Three rounds. One turns events into deliveries. A beat of the second writes what has ended and
    claims for the slots that are free, in one transaction: neither waits for lanes that the other
    holds. The third writes what takes an endpoint's lock, for which no claim shall wait.
    """

    def __init__(
        self,
        house: House,
        post: Post,
        *,
        slots: int = SLOTS,
        chance: Callable[[], float] = random.random,
        metrics: WorkMetrics | None = None,
    ) -> None:
        self._house = house
        self._post = post
        self._slots = slots
        self._chance = chance
        self._opened = lru_cache(maxsize=SECRETS_KEPT)(house.vault.open)
        self._to_send: deque[Claimed] = deque()
        self._sending: dict[asyncio.Task[None], Claimed] = {}
        self._ended: list[Attempt] = []
        self._grave: list[Attempt] = []
        self._batch: Sequence[Attempt] = ()
        self._retries = self._slow = 0
        self._fanning, self._beating, self._ending = (asyncio.Lock() for _ in range(3))
        self._has_events = self._has_receipts = True
        self._is_gathering = self._is_closing = False
        self._reconciled_at = -math.inf  # at once: who was here before may have left something
        self._clock_read = datetime.min.replace(tzinfo=UTC), 0.0
        self._metrics = metrics or WorkMetrics()
        self._metrics.slots.set_function(lambda: len(self._sending))
        self._metrics.retry_slots.set_function(lambda: self._retries)
        self._metrics.slow_slots.set_function(lambda: self._slow)
        self._intake = Round("fan_out", POLL_SECONDS, self._take_in, self._metrics)
        self._beats = Round("webhooks", POLL_SECONDS, self._beat, self._metrics)
        self._ends = Round("webhook_ends", POLL_SECONDS, self._write_grave, self._metrics)

    def wake(self) -> None:
        """An event may wait; cheap, and any number of calls at once count as one."""
        self._has_events = True
        self._intake.wake()
        self._beats.wake()

    async def run(self) -> None:
        """Drain when woken and once a second anyway, until `close`; survives every failure."""
        polling = asyncio.create_task(self._poll())
        try:
            await asyncio.gather(self._intake.run(), self._beats.run(), self._ends.run())
        finally:
            polling.cancel()

    async def _poll(self) -> None:
        """Look for what nobody rang for; on time, however long the last round has taken."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self._has_receipts = True
            self.wake()

    async def drain(self) -> None:
        """Fan out, write what has ended, and claim until nothing is due or every slot is taken.

        Sending goes on behind it.
        """
        self._has_events = True
        await self._fan_out()
        await self._write_grave()
        await self._beat()

    async def settle_all(self) -> None:
        """Drain until nothing is due, nothing in flight and everything written."""
        while True:
            has_written = bool(self._ended or self._grave)  # which may have told of more
            await self.drain()
            if self._has_sent_all and not (self._ended or self._grave or has_written):
                return
            await self._land()

    async def close(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Claim nothing more; let what is in flight end, give the rest back, write it all."""
        self._is_closing = True
        await self._intake.close()
        async with self._beating:  # what is under way hands over all that it has claimed
            pass
        await self._land(grace_seconds)
        try:
            async with asyncio.timeout(SETTLE_GRACE_SECONDS):
                await self._write_all()
        except TimeoutError:  # their leases end, and they are sent again
            log.warning("attempts_dropped", count=len(self._ended) + len(self._grave))
        finally:
            await self._beats.close()
            await self._ends.close()

    @property
    def _has_sent_all(self) -> bool:
        return not self._to_send and not self._sending

    @property
    def _free(self) -> int:
        return self._slots - len(self._to_send) - len(self._sending)

    async def _take_in(self) -> None:
        clock = asyncio.get_running_loop().time
        await self._fan_out()
        if clock() - self._reconciled_at >= RECONCILE_SECONDS:
            self._reconciled_at = clock()
            await self._reconcile()

    async def _fan_out(self) -> None:
        """Pass receipts on, and turn all new events into deliveries."""
        async with self._fanning:
            if self._has_receipts:
                self._has_receipts = False
                if await tend(self._house, acknowledge):
                    asyncio.get_running_loop().call_later(BUSY_SECONDS, self._look_for_receipts)
            while self._has_events and not self._is_closing:
                self._has_events = False
                fanned = await tend(self._house, fan_out)
                self._has_events |= fanned >= FAN_OUT_BATCH
                if fanned:
                    self._beats.wake()

    async def _beat(self) -> None:
        """Write what has ended, claim for the slots that are free, and start sending."""
        async with self._beating:
            if not self._ended and not self._asked:
                return
            self._batch = self._ended[:0]
            try:
                settled, claimed = await tend(self._house, self._turn)
            except (Unavailable, Clash):  # the batch is kept, its leases run on
                raise
            except Exception:
                if not self._batch:
                    raise
                log.exception("beat_failed", count=len(self._batch))
                settled, claimed = await self._write(self._batch), []
            del self._ended[: len(self._batch)]
            self._hand_over(claimed)
            self._note(self._batch, settled)
        if self._ended:
            self._gather()

    async def _write_grave(self) -> None:
        """Write what gives deliveries or endpoints up."""
        async with self._ending:
            while batch := self._grave[:SETTLE_ROWS]:
                settled = await self._write(batch)
                del self._grave[: len(batch)]
                self._note(batch, settled)
                self._beats.wake()  # their lanes have room

    async def _write(self, batch: Sequence[Attempt]) -> Set[UUID]:
        """Write these by themselves; what cannot be written is dropped, and sent again."""
        try:
            return await tend(self._house, settle(batch))
        except (Unavailable, Clash):
            raise
        except Exception:
            log.exception("attempts_dropped", count=len(batch))
            return frozenset()

    async def _turn(self, tx: Transaction) -> tuple[Set[UUID], list[Claimed]]:
        """What has ended and what is free until the moment that each is asked for."""
        self._clock_read = tx.real_now, asyncio.get_running_loop().time()
        self._batch = self._ended[:SETTLE_ROWS]
        settled = await settle(self._batch)(tx) if self._batch else frozenset[UUID]()
        if not self._asked:
            return settled, []
        began = time.perf_counter()
        claimed = await claim(self._asked, retries=self._retry_room, slow=self._slow_room)(tx)
        self._metrics.claim_seconds.observe(time.perf_counter() - began)
        return settled, claimed

    @property
    def _asked(self) -> int:
        return 0 if self._is_closing else self._free

    @property
    def _retry_room(self) -> int:
        return max(0, retry_slots(self._slots) - self._retries)

    @property
    def _slow_room(self) -> int:
        return max(0, slow_slots(self._slots) - self._slow)

    def _now(self) -> datetime:
        """The database's time: the clock of this machine may be wrong, or jump."""
        read, at = self._clock_read
        return read + timedelta(seconds=asyncio.get_running_loop().time() - at)

    def _hand_over(self, claimed: Sequence[Claimed]) -> None:
        self._retries += sum(one.is_retry for one in claimed)
        self._slow += sum(one.is_slow for one in claimed)
        is_feeding = bool(self._to_send)
        self._to_send += claimed
        if not is_feeding:
            self._feed()
        self._wake_after(one.hold_seconds for one in claimed)

    def _feed(self) -> None:
        """Start a few of those that wait, and more in the loop's next turn."""
        self._start(min(SENT_AT_ONCE, len(self._to_send)))
        if self._to_send:
            asyncio.get_running_loop().call_soon(self._feed)

    def _start(self, count: int) -> None:
        now = self._now()
        for _ in range(count):
            claimed = self._to_send.popleft()
            task = asyncio.create_task(self._deliver(claimed, now))
            self._sending[task] = claimed
            task.add_done_callback(self._ended_sending)

    def _ended_sending(self, task: asyncio.Task[None]) -> None:
        claimed = self._sending.pop(task)
        self._retries -= claimed.is_retry
        self._slow -= claimed.is_slow
        if self._has_sent_all:
            self._beats.wake()
        else:
            self._gather()

    def _gather(self) -> None:
        if not self._is_gathering:
            self._is_gathering = True
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self._beat_now)

    def _beat_now(self) -> None:
        self._is_gathering = False
        self._beats.wake()

    async def _deliver(self, claimed: Claimed, started_at: datetime) -> None:
        try:
            reply = await self._send(claimed, started_at)
        except asyncio.CancelledError:  # only `close` cancels: the attempt is given back
            reply = Reply(fault=Fault.OURS)
        except Exception:
            log.exception("attempt_not_made", delivery=str(claimed.id))
            reply = Reply(fault=Fault.OURS)
        ended_at = started_at + timedelta(milliseconds=reply.total_ms)
        ladder = LADDERS[claimed.ladder]
        outcome = judge(reply, claimed.rung, ladder, ended_at, self._chance())
        attempt = Attempt(claimed, started_at, reply, outcome)
        if is_grave(attempt):
            self._grave.append(attempt)
            self._ends.wake()
        else:
            self._ended.append(attempt)

    async def _send(self, claimed: Claimed, now: datetime) -> Reply:
        if claimed.body is None:
            return Reply(fault=Fault.NO_BODY)
        headers = delivery_headers(
            secrets=[self._opened(sealed) for sealed in claimed.secrets],
            delivery_id=claimed.id,
            event_id=claimed.event_id,
            event_type=claimed.type,
            body=claimed.body,
            now=now,
            custom=orjson.loads(self._opened(claimed.headers)) if claimed.headers else {},
        )
        return await self._post.send(
            Request(claimed.url, headers, claimed.body, claimed.timeout_seconds)
        )

    def _note(self, batch: Sequence[Attempt], settled: Set[UUID]) -> None:
        """What follows from a batch that was to be written."""
        if not batch:
            return
        if any(one.claimed.id in settled and is_receipt(one) for one in batch):
            self._look_for_receipts()
        waits = ((one.outcome.retry_seconds, one.outcome.hold_seconds) for one in batch)
        self._wake_after(seconds for both in waits for seconds in both)
        self._metrics.note_settled(batch, len(settled))
        log.info(
            "attempts_settled",
            count=len(batch),
            delivered=sum(one.outcome.is_success for one in batch),
            fenced=len(batch) - len(settled),
        )

    def _look_for_receipts(self) -> None:
        self._has_receipts = True
        self._intake.wake()

    def _wake_after(self, waits_seconds: Iterable[float | None]) -> None:
        """Be there when a short wait ends; a moment late, since an early look finds nothing."""
        soon = {s for s in waits_seconds if s is not None and 0 < s < WAKE_WITHIN_SECONDS}
        for milliseconds in {math.ceil(seconds * 1000) + 1 for seconds in soon}:
            asyncio.get_running_loop().call_later(milliseconds / 1000, self._beats.wake)

    async def _reconcile(self) -> None:
        late = await tend(self._house, reconcile)
        if late:
            log.info("lanes_reconciled", late=late)
            self._beats.wake()
        told = WATCH_BATCH
        while told == WATCH_BATCH:
            told = await tend(self._house, watch)
            if told:
                log.info("endpoints_watched", told=told)

    async def _land(self, seconds: float | None = None) -> None:
        """Until all that is claimed was sent; what is late is given back."""
        self._start(len(self._to_send))
        if self._sending:
            _, late = await asyncio.wait(self._sending, timeout=seconds)
            for task in late:
                task.cancel()
            if late:
                await asyncio.wait(late)

    async def _write_all(self) -> None:
        """Write what has ended, however often the database is away."""
        while self._ended or self._grave:
            try:
                await self._write_grave()
                await self._beat()
            except (Unavailable, Clash) as away:
                count = len(self._ended) + len(self._grave)
                log.warning("attempts_not_settled", count=count, reason=str(away))
                await asyncio.sleep(AWAY_SECONDS)
