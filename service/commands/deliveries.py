"""Upkeep of webhook delivery, through `tend`: fan out, claim, settle, acknowledge, reconcile.

No transaction is open while anything is sent; each of these is short.
"""

from collections.abc import Awaitable, Callable, Mapping, Sequence
from uuid import UUID

from service.commands.endpoints import tell_disabled
from service.commands.mails import disabled_mail
from service.rules.delivery import DisableReason
from service.store import deliveries, endpoints, lanes
from service.store.db import Transaction
from service.store.deliveries import Attempt, Claimed
from service.store.mails import insert_mails

FAN_OUT_BATCH = 500
RECEIPT_BATCH = 500
PARTITION_WEEKS_AHEAD = 4


async def fan_out(tx: Transaction) -> int:
    """Turn events into deliveries; how many events, at most a batch of `FAN_OUT_BATCH`."""
    return await deliveries.fan_out(tx, FAN_OUT_BATCH)


def claim(slots: int) -> Callable[[Transaction], Awaitable[list[Claimed]]]:
    """Take at most `slots` due deliveries; each is ours until its lease ends."""

    async def upkeep(tx: Transaction) -> list[Claimed]:
        return await deliveries.claim_deliveries(tx, slots)

    return upkeep


def settle(
    attempts: Sequence[Attempt],
) -> Callable[[Transaction], Awaitable[Mapping[UUID, float | None]]]:
    """Write what came of these attempts; waits for no escrow's lock.

    Gives those whose claim was still ours, each with the seconds until something is due in its
    lane (0: now, None: never). Receipts are passed on by `acknowledge`.
    """

    async def upkeep(tx: Transaction) -> Mapping[UUID, float | None]:
        reasons = {
            one.claimed.endpoint_id: one.outcome.disable_reason
            for one in attempts
            if one.outcome.disable_reason is not None
        }
        flags = {
            one.claimed.endpoint_id: one.outcome.flag
            for one in attempts
            if one.outcome.flag is not None
        }
        if reasons or flags:  # locks everywhere: endpoints, then deliveries, then lanes
            await endpoints.lock_endpoints(tx, sorted({*reasons, *flags}))
        settled = await deliveries.settle_deliveries(tx, attempts)
        if flags:
            await endpoints.flag_endpoints(tx, flags)
        if reasons:
            await _disable(tx, reasons)
        return settled

    return upkeep


def is_receipt(attempt: Attempt) -> bool:
    """Whether it is a creator's 2xx to pending → paid, which lets an `on_ack` escrow complete."""
    return attempt.outcome.is_success and attempt.claimed.acknowledges


async def acknowledge(tx: Transaction) -> int:
    """Pass receipts on to their escrows, which complete by the clock; how many must wait.

    After the settling, in a transaction of its own: what it holds up is no lane. The delivery's
    row says what is still to be passed on, whoever settled it.
    """
    armed, waiting = await deliveries.acknowledge(tx, RECEIPT_BATCH)
    if armed:
        tx.ring("timers")
    return waiting


async def reconcile(tx: Transaction) -> int:
    """Put right what a lost hint or a race left behind; how many lanes it found late."""
    stranded = await deliveries.read_stranded(tx)
    if stranded:
        await endpoints.lock_endpoints(tx, stranded)
        await deliveries.clear_stranded(tx, stranded)
    return await lanes.reconcile_lanes(tx)


async def prepare_partitions(tx: Transaction) -> int:
    """Make the weeks ahead ready for bodies and attempts; how many partitions were made."""
    return await deliveries.make_partitions(tx, PARTITION_WEEKS_AHEAD)


async def _disable(tx: Transaction, reasons: Mapping[str, DisableReason]) -> None:
    """Switch these endpoints off, keep what waits for them, and tell their developers."""
    gone = await endpoints.disable_endpoints(tx, reasons)
    ids = [endpoint.id for endpoint in gone]
    if ids:
        await deliveries.park_deliveries(tx, ids)
    for endpoint in gone:
        await tell_disabled(tx, endpoint)
    await insert_mails(tx, [disabled_mail(tx, one, reasons[one.id]) for one in gone])
