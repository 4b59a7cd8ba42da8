"""The payments' round: whatever is under way is asked about until the outside has said how it ends.

Law: every outside call is outside of transactions. A payment is leased before it is asked about, so
that of several workers one asks; a lease that is lost ends by itself after a minute.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from datetime import UTC, datetime

import structlog

from service.commands import payments
from service.commands.charges import HouseBook
from service.commands.payments import Heard
from service.commands.perform import House, perform, tend
from service.gateways.payments.provider import PaymentProvider, Reversal, order_of
from service.gateways.payments.sandbox import SandboxProvider
from service.rules.errors import (
    GatewayFailure,
    NotificationRefused,
    PaymentNotFound,
    PaymentNotOpen,
    Unavailable,
)
from service.rules.machine import CLOCK, SYSTEM
from service.rules.payment import CREATED, ESCALATE_AFTER, REFUND, SANDBOX, Outcome, Payment
from service.store.payments import (
    lease_askable,
    lease_closable,
    note_closed,
    read_lapsed,
    read_payment,
)
from workers.metrics import WorkMetrics

AT_ONCE = 8
BATCH = 64
EVERY_SECONDS = 5.0

log = structlog.get_logger()


class Payments:
    """Asks about what is under way, closes what was cancelled; `turn` comes every few seconds."""

    def __init__(
        self,
        house: House,
        providers: Mapping[str, PaymentProvider],
        metrics: WorkMetrics,
        clock: Callable[[], datetime] = lambda: datetime.now(UTC),
    ) -> None:
        self._house, self._providers, self._metrics = house, providers, metrics
        self._clock = clock
        self._few = asyncio.Semaphore(AT_ONCE)

    async def turn(self) -> None:
        """One look at everything that may be due."""
        await self._tell()
        due = await tend(self._house, lambda tx: lease_askable(tx, BATCH))
        await self._each(due, self._ask)
        closing = await tend(self._house, lambda tx: lease_closable(tx, BATCH))
        await self._each(closing, self._withdraw)
        await self._each(await read_lapsed(self._house.pool, BATCH), self._lapse)

    async def _each(
        self, payments: list[Payment], work: Callable[[Payment], Awaitable[None]]
    ) -> None:
        async def one(payment: Payment) -> None:
            async with self._few:
                try:
                    await work(payment)
                except Unavailable:
                    raise
                except Exception:  # it keeps no other payment waiting
                    log.exception("payment_not_asked", payment=payment.id)

        for failure in await asyncio.gather(*map(one, payments), return_exceptions=True):
            if failure is not None:
                raise failure

    async def _ask(self, payment: Payment) -> None:
        provider = self._providers.get(payment.provider)
        if provider is None:
            log.warning("payment_provider_gone", payment=payment.id, provider=payment.provider)
            if self._is_overdue(payment):
                await self._end(payment, "escalate")
            return
        try:
            if payment.kind == REFUND:
                await self._ask_refund(provider, payment)
            else:
                await self._ask_payment(provider, payment)
        except GatewayFailure as failure:
            self._failed(provider, failure)
            if failure.permanent:
                await self._give_up(payment)

    def _failed(self, provider: PaymentProvider, failure: GatewayFailure) -> None:
        self._metrics.payment_failures.labels(provider.name).inc()
        log.warning("provider_failed", provider=provider.name, reason=str(failure))

    async def _ask_payment(self, provider: PaymentProvider, payment: Payment) -> None:
        if payment.provider_reference is None:
            placed = await provider.place(order_of(payment, self._house.policy.public_url))
            handed = payments.hand_over(payment.id, placed.provider_reference, placed.page_url)
            await perform(self._house, SYSTEM, handed)
            return
        report = await provider.ask(payment.provider_reference)
        if report.outcome is Outcome.PENDING and self._is_overdue(payment):
            await self._end(payment, "escalate")
            return
        heard = Heard(
            payment.provider, payment.id, payment.provider_reference, report, is_answer=True
        )
        await payments.hear(self._house, SYSTEM, heard)

    async def _ask_refund(self, provider: PaymentProvider, refund: Payment) -> None:
        if refund.provider_reference is not None:
            reference, report = (
                refund.provider_reference,
                await provider.ask(refund.provider_reference),
            )
        else:
            origin = await read_payment(self._house.pool, refund.origin_id or "")
            if origin is None or origin.charge_reference is None:
                raise AssertionError(f"refund {refund.id} has no charge")
            reversal = Reversal(
                refund.id, origin.charge_reference, refund.amount_minor, refund.currency
            )
            reference, report = await provider.send_back(reversal)
        heard = Heard(refund.provider, refund.id, reference, report, is_answer=True)
        await payments.hear(self._house, SYSTEM, heard)

    async def _withdraw(self, payment: Payment) -> None:
        """Close the page of what was cancelled here; money that was faster is heard of, and strays.

        Where the provider is away it is tried again, for as long as the page could be used.
        """
        provider, reference = self._providers.get(payment.provider), payment.provider_reference
        if provider is not None and reference is not None and not self._is_overdue(payment):
            try:
                await self._close(provider, payment.id, reference)
            except GatewayFailure as failure:
                self._failed(provider, failure)
                if not failure.permanent:
                    return
        await tend(self._house, lambda tx: note_closed(tx, payment.id))

    async def _close(self, provider: PaymentProvider, payment_id: str, reference: str) -> None:
        try:
            await provider.withdraw(reference)
        except GatewayFailure as failure:
            if not failure.permanent:
                raise
            self._failed(provider, failure)  # it is over there already
        heard = Heard(
            provider.name, payment_id, reference, await provider.ask(reference), is_answer=True
        )
        await payments.hear(self._house, SYSTEM, heard)

    async def _give_up(self, payment: Payment) -> None:
        """What was refused for good was never opened or sent; what was lost is the operator's."""
        if payment.state == CREATED and payment.provider_reference is None:
            await self._end(payment, "decline")
        elif payment.kind == REFUND or self._is_overdue(payment):
            await self._end(payment, "escalate")

    async def _end(self, payment: Payment, name: str) -> None:
        await perform(self._house, SYSTEM, payments.end_without_report(payment.id, name))

    async def _lapse(self, payment: Payment) -> None:
        try:
            await perform(self._house, CLOCK, payments.cancel(payment.id))
        except PaymentNotOpen:
            log.info("payment_ended_meanwhile", payment=payment.id)

    def _is_overdue(self, payment: Payment) -> bool:
        ended = (payment.expires_at or self._clock()) + ESCALATE_AFTER
        return self._clock() >= ended

    async def _tell(self) -> None:
        """What the sandbox's provider still has to say of charges that were pressed."""
        provider, book = self._providers.get(SANDBOX), HouseBook(self._house)
        if not isinstance(provider, SandboxProvider):
            return
        after = ""
        while page := await book.untold(BATCH, after):
            for reference, already in page:
                await self._tell_of(provider, book, reference, already)
            after = page[-1][0]

    async def _tell_of(
        self, provider: SandboxProvider, book: HouseBook, reference: str, already: int
    ) -> None:
        told = already
        charge = await book.read(reference)
        sendings = provider.notifications(charge) if charge else []
        for sending in sendings[already:]:
            if sending.at > self._clock():
                break
            await self._hear(provider, sending.headers, sending.body)
            told += 1
        await book.note_told(reference, told, is_all=told >= len(sendings))

    async def _hear(
        self, provider: SandboxProvider, headers: Mapping[str, str], body: bytes
    ) -> None:
        try:
            said = provider.read(headers, body)
            if said is not None:
                heard = Heard(provider.name, said.payment_id, said.provider_reference, said.report)
                await payments.hear(self._house, SYSTEM, heard)
        except (NotificationRefused, PaymentNotFound) as refusal:
            log.info("notification_refused", provider=provider.name, reason=str(refusal))
