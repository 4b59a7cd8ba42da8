"""The postman: claim, render, send, settle. One a worker process.

Law: every wake-up is a hint; what is due stands in PostgreSQL and is found by polling within a
second. No transaction is open while a mail server is talked to. Letters are prepared side by
side, but only one at a time is handed over and settled: a crash repeats one mail at most.
"""

import asyncio
import random
from collections.abc import Callable
from datetime import timedelta
from functools import partial
from uuid import UUID, uuid4

import structlog

from service.commands.mails import missed, moot, rendered, sent
from service.commands.perform import House, tend
from service.gateways.mail import (
    HAND_OVER_TIMEOUT_SECONDS,
    OFFER_TIMEOUT_SECONDS,
    Letter,
    Mailer,
)
from service.rules.errors import GatewayFailure, Unavailable
from service.store.db import Clash
from service.store.mails import Mail, Settlement, claim_mails, settle_mails
from service.words.mails import Words
from workers.metrics import WorkMetrics
from workers.rounds import Round

LETTERS_AT_ONCE = 4
BREATH_SECONDS = 0.025
"""A rest after each letter, which takes some 3 ms of the one core that webhooks need as well: they
are in a hurry and letters are not."""
POLL_SECONDS = 1.0
AWAY_SECONDS = 0.5
GRACE_SECONDS = 12.0
"""What is in flight at shutdown may end by itself for so long; then it is cut off."""

TURN_TIMEOUT_SECONDS = 20.0
"""How long a letter that the server waits for may wait for the one before it."""
SETTLE_TIMEOUT_SECONDS = 20.0
LEASE = timedelta(
    seconds=2 * OFFER_TIMEOUT_SECONDS
    + TURN_TIMEOUT_SECONDS
    + HAND_OVER_TIMEOUT_SECONDS
    + SETTLE_TIMEOUT_SECONDS
    + 15
)
OUR_FAULT = "this mail could not be written; that is our fault, and it is tried again"
"""What partners read of a bug; the log has the rest."""

log = structlog.get_logger()


class Postman:
    """Sends mails: `run` for as long as the process lives, `wake` or `drain` from a job."""

    def __init__(
        self,
        house: House,
        mailer: Mailer,
        words: Words,
        *,
        chance: Callable[[], float] = random.random,
        metrics: WorkMetrics | None = None,
    ) -> None:
        self._house = house
        self._mailer = mailer
        self._words = words
        self._chance = chance
        self._turn = asyncio.Lock()
        self._draining = asyncio.Lock()
        self._sending: set[asyncio.Task[None]] = set()
        self._metrics = metrics or WorkMetrics()
        self._round = Round("mails", POLL_SECONDS, self.drain, self._metrics)

    def wake(self) -> None:
        """Something may be due; cheap, and any number of calls at once count as one."""
        self._round.wake()

    async def run(self) -> None:
        """Drain when woken and once a second anyway, until `close`; survives every failure."""
        await self._round.run()

    async def drain(self) -> None:
        """Send what is due until nothing is, or `close`; one at a time, a second call waits."""
        async with self._draining:
            while not self._round.is_closing:
                for mail, token in await self._claim(LETTERS_AT_ONCE - len(self._sending)):
                    task = asyncio.create_task(self._deliver(mail, token))
                    self._sending.add(task)
                    task.add_done_callback(self._sending.discard)
                if not self._sending:
                    return
                await asyncio.wait(
                    self._sending, timeout=POLL_SECONDS, return_when=asyncio.FIRST_COMPLETED
                )
                await asyncio.sleep(BREATH_SECONDS)

    async def close(self, grace_seconds: float = GRACE_SECONDS) -> None:
        """Claim nothing more and let what is in flight end; then say goodbye to the server."""
        await self._round.close()
        if self._sending:
            _, late = await asyncio.wait(self._sending, timeout=grace_seconds)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
        await self._mailer.close()

    async def _claim(self, free: int) -> list[tuple[Mail, UUID]]:
        token = uuid4()
        claim = partial(claim_mails, limit=free, lease=LEASE, token=token)
        return [(mail, token) for mail in await tend(self._house, claim)] if free > 0 else []

    async def _deliver(self, mail: Mail, token: UUID) -> None:
        """One mail, to its end."""
        if mail.is_moot:
            await self._settle(token, moot(mail))
            return
        try:
            await self._send(mail, token)
        except GatewayFailure as failure:
            reason, permanent = str(failure), failure.permanent
        except Exception:  # it stops no other mail, and goes out once it is mended
            log.exception("mail_not_written", mail=mail.id, template=mail.template)
            reason, permanent = OUR_FAULT, False
        else:
            return
        await self._settle(token, missed(mail, reason, permanent=permanent, chance=self._chance()))

    async def _send(self, mail: Mail, token: UUID) -> None:
        async with self._mailer.offered(self._letter(mail)) as hand_over:
            try:
                async with asyncio.timeout(TURN_TIMEOUT_SECONDS):
                    await self._turn.acquire()
            except TimeoutError:
                raise GatewayFailure("waited too long for its turn", permanent=False) from None
            try:
                await hand_over()
                await self._settle(token, sent(mail))
            finally:
                self._turn.release()

    def _letter(self, mail: Mail) -> Letter:
        written = rendered(mail, self._words, self._house.policy, self._house.vault)
        return Letter(
            recipient=mail.recipient,
            subject=written.subject,
            text=written.text,
            html=written.html,
            language=mail.language,
            message_id=mail.message_id,
            written_at=mail.created_at,
        )

    async def _settle(self, token: UUID, settlement: Settlement) -> None:
        """Write how it ended; kept at while the database is away, so that nothing is sent twice.

        Never raises: else its lease ends, it is sent again, and its Message-ID tells the copies.
        """
        clock = asyncio.get_running_loop().time
        until = clock() + SETTLE_TIMEOUT_SECONDS
        settle = partial(settle_mails, token=token, settlements=[settlement])
        facts = {"mail": settlement.mail_id, "state": settlement.state}
        while True:
            try:
                settled = await tend(self._house, settle)
            except (Unavailable, Clash) as away:
                if clock() < until:
                    await asyncio.sleep(AWAY_SECONDS)
                    continue
                log.warning("mail_not_settled", reason=str(away), **facts)
            except Exception:
                log.exception("mail_not_settled", **facts)
            else:
                log.info("mail_settled" if settled else "mail_fenced", **facts)
                self._metrics.mails.labels(settlement.state if settled else "fenced").inc()
            return
