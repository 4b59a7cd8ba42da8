"""The courier: fan out, claim, send, settle. One a worker process.

Law: every wake-up is a hint; what is due stands in PostgreSQL and is found by polling within a
second. No transaction is open while anything is sent.
"""

import asyncio
import math
import random
import time
from collections.abc import Callable, Iterable, Sequence
from datetime import UTC, datetime, timedelta
from functools import lru_cache, partial

import orjson
import structlog

from service.commands.deliveries import (
    FAN_OUT_BATCH,
    WATCH_BATCH,
    acknowledge,
    claim,
    fan_out,
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

SLOTS = 192
SENT_AT_ONCE = 8
"""In one turn of the loop: what waits for its turn may be a COMMIT, and lanes wait for that."""
CLAIM_ROWS = SLOTS // 3
"""The most that one claim takes: one third is claimed while one is sent and one is settled."""
POLL_SECONDS = 1.0
RECONCILE_SECONDS = 30.0
SETTLE_AFTER_SECONDS = 0.005
REFILL_AFTER_SECONDS = 0.005
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
    """Delivers webhooks: `run` for as long as the process lives, `wake` or `drain` from a job."""

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
        self._sending: dict[asyncio.Task[None], Claimed] = {}
        self._taken = self._retries = self._slow = 0
        self._ended: list[Attempt] = []
        self._settler: asyncio.Task[None] | None = None
        self._turn = asyncio.Lock()
        self._has_events = self._has_receipts = True
        self._goes_again = self._is_starved = False
        self._reconciled_at = 0.0
        self._clock_read = datetime.min.replace(tzinfo=UTC), 0.0
        self._metrics = metrics or WorkMetrics()
        self._metrics.slots.set_function(lambda: len(self._sending))
        self._metrics.retry_slots.set_function(lambda: self._retries)
        self._metrics.slow_slots.set_function(lambda: self._slow)
        self._round = Round("webhooks", POLL_SECONDS, self._work, self._metrics)

    def wake(self) -> None:
        """An event may wait; cheap, and any number of calls at once count as one."""
        self._has_events = True
        self._round.wake()

    async def run(self) -> None:
        """Drain when woken and once a second anyway, until `close`; survives every failure."""
        self._reconciled_at = asyncio.get_running_loop().time()
        polling = asyncio.create_task(self._poll())
        try:
            await self._round.run()
        finally:
            polling.cancel()

    async def _poll(self) -> None:
        """Look for what nobody rang for; on time, however long the last round has taken."""
        while True:
            await asyncio.sleep(POLL_SECONDS)
            self._has_receipts = True
            self.wake()

    async def drain(self) -> None:
        """Fan out and claim until nothing more is due or every slot is taken.

        Sending goes on behind it. One at a time: a call during another makes that one go again.
        """
        self._has_events = True
        await self._drain()

    async def _work(self) -> None:
        clock = asyncio.get_running_loop().time
        await self._drain()
        if clock() - self._reconciled_at >= RECONCILE_SECONDS:
            self._reconciled_at = clock()
            await self._reconcile()

    async def _drain(self) -> None:
        if self._turn.locked():
            self._goes_again = True
            return
        async with self._turn:
            while await self._take() or self._goes_again:
                self._goes_again = False

    async def settle_all(self) -> None:
        """Drain until nothing is due, nothing in flight and everything written."""
        while True:
            await self._land()  # a claim passes over lanes that are being settled
            before = self._taken
            await self.drain()
            if self._taken == before and self._is_quiet():
                return

    async def close(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Claim nothing more; let what is in flight end, give the rest back, write it all."""
        await self._round.close()
        async with self._turn:  # what is under way starts all that it claims
            pass
        if self._sending:
            _, late = await asyncio.wait(self._sending, timeout=grace_seconds)
            for task in late:
                task.cancel()
        try:
            async with asyncio.timeout(SETTLE_GRACE_SECONDS):
                await self._land()
        except TimeoutError:  # their leases end, and they are sent again
            log.warning("attempts_dropped", count=len(self._ended))

    def _is_quiet(self) -> bool:
        return not self._sending and self._settler is None

    async def _take(self) -> bool:
        """Acknowledge, fan out, claim, start sending; whether there may be more to do at once."""
        if self._round.is_closing:
            return False
        if self._has_receipts:
            self._has_receipts = False
            if await tend(self._house, acknowledge):
                asyncio.get_running_loop().call_later(BUSY_SECONDS, self._look_for_receipts)
        if self._has_events:
            self._has_events = False
            fanned = await tend(self._house, fan_out)
            self._has_events |= fanned >= FAN_OUT_BATCH
        free = self._slots - len(self._sending)
        asked = min(free, CLAIM_ROWS)
        claimed = await tend(self._house, partial(self._claim, asked)) if asked > 0 else []
        self._taken += len(claimed)
        for number, one in enumerate(claimed, start=1):
            self._start(one)
            if number % SENT_AT_ONCE == 0:
                await asyncio.sleep(0)
        self._wake_after(one.hold_seconds for one in claimed)
        # Whoever frees a slot wakes us, so a full house, or a full share, needs no look until then.
        self._is_starved = len(claimed) >= free or not (self._retry_room and self._slow_room)
        has_more = self._has_events or len(claimed) >= asked
        return has_more and len(claimed) < free

    @property
    def _retry_room(self) -> int:
        return max(0, retry_slots(self._slots) - self._retries)

    @property
    def _slow_room(self) -> int:
        return max(0, slow_slots(self._slots) - self._slow)

    async def _claim(self, asked: int, tx: Transaction) -> list[Claimed]:
        self._clock_read = tx.real_now, asyncio.get_running_loop().time()
        began = time.perf_counter()
        claimed = await claim(asked, retries=self._retry_room, slow=self._slow_room)(tx)
        self._metrics.claim_seconds.observe(time.perf_counter() - began)
        return claimed

    def _now(self) -> datetime:
        """The database's time: the clock of this machine may be wrong, or jump."""
        read, at = self._clock_read
        return read + timedelta(seconds=asyncio.get_running_loop().time() - at)

    def _start(self, claimed: Claimed) -> None:
        task = asyncio.create_task(self._deliver(claimed))
        self._sending[task] = claimed
        self._retries += claimed.is_retry
        self._slow += claimed.is_slow
        task.add_done_callback(self._ended_sending)

    def _ended_sending(self, task: asyncio.Task[None]) -> None:
        claimed = self._sending.pop(task)
        self._retries -= claimed.is_retry
        self._slow -= claimed.is_slow
        if self._is_starved:  # wait for company: one claim for many slots
            self._is_starved = False
            asyncio.get_running_loop().call_later(REFILL_AFTER_SECONDS, self._round.wake)

    async def _deliver(self, claimed: Claimed) -> None:
        started_at = self._now()
        try:
            reply = await self._send(claimed, started_at)
        except asyncio.CancelledError:  # only `close` cancels: the attempt is given back
            reply = Reply(fault=Fault.OURS)
        except Exception:
            log.exception("attempt_not_made", delivery=str(claimed.id))
            reply = Reply(fault=Fault.OURS)
        ladder = LADDERS[claimed.ladder]
        outcome = judge(reply, claimed.rung, ladder, self._now(), self._chance())
        self._ended.append(Attempt(claimed, started_at, reply, outcome))
        if self._settler is None:
            self._settler = asyncio.create_task(self._settle())

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

    async def _settle(self) -> None:
        """Write what has ended, in batches, until nothing is left."""
        try:
            while self._ended:
                if self._sending and len(self._ended) < SETTLE_ROWS:
                    await asyncio.wait(self._sending, timeout=SETTLE_AFTER_SECONDS)
                batch = self._ended[:SETTLE_ROWS]
                if await self._settle_batch(batch):
                    del self._ended[: len(batch)]
                else:
                    await asyncio.sleep(AWAY_SECONDS)
        finally:
            self._settler = None

    async def _settle_batch(self, batch: Sequence[Attempt]) -> bool:
        """False when the database is away: the batch is kept, its leases run on."""
        try:
            settled = await tend(self._house, settle(batch))
        except (Unavailable, Clash) as away:
            log.warning("attempts_not_settled", count=len(batch), reason=str(away))
            return False
        except Exception:  # their leases end, and they are sent again
            log.exception("attempts_dropped", count=len(batch))
            return True
        if any(one.claimed.id in settled and is_receipt(one) for one in batch):
            self._look_for_receipts()
        self._wake_after(settled.values())
        self._wake_after(one.outcome.hold_seconds or None for one in batch)
        self._metrics.note_settled(batch, len(settled))
        log.info(
            "attempts_settled",
            count=len(batch),
            delivered=sum(one.outcome.is_success for one in batch),
            fenced=len(batch) - len(settled),
        )
        return True

    def _look_for_receipts(self) -> None:
        self._has_receipts = True
        self._round.wake()

    def _wake_after(self, waits_seconds: Iterable[float | None]) -> None:
        """Be there when a short wait ends; a moment late, since an early look finds nothing."""
        soon = {s for s in waits_seconds if s is not None and s < WAKE_WITHIN_SECONDS}
        if 0 in soon:
            self._round.wake()
        for milliseconds in {math.ceil(seconds * 1000) + 1 for seconds in soon if seconds > 0}:
            asyncio.get_running_loop().call_later(milliseconds / 1000, self._round.wake)

    async def _reconcile(self) -> None:
        late = await tend(self._house, reconcile)
        if late:
            log.info("lanes_reconciled", late=late)
            self._round.wake()
        told = WATCH_BATCH
        while told == WATCH_BATCH:
            told = await tend(self._house, watch)
            if told:
                log.info("endpoints_watched", told=told)

    async def _land(self) -> None:
        """Until what is in flight has ended and is written."""
        while not self._is_quiet():
            waiting = {*self._sending, *([self._settler] if self._settler else [])}
            await asyncio.wait(waiting)
