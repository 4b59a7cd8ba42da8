"""Upkeep of webhook delivery, through `tend`: fan out, claim, settle, acknowledge, watch.

No transaction is open while anything is sent; each of these is short.
"""

from collections import defaultdict
from collections.abc import Awaitable, Callable, Mapping, Sequence, Set
from uuid import UUID

from service.commands.endpoint_events import note_skipped, tell_exhausted, tell_runs
from service.commands.endpoints import tell_disabled
from service.commands.mails import disabled_mail, failing_mail
from service.commands.perform import Command
from service.rules.delivery import DisableReason, State
from service.rules.errors import DeliveryNotFound, WebhookNotFound, WebhookRefused
from service.rules.events import OF_ENDPOINTS
from service.rules.lane import Ended, Notices, Told, notices, turn
from service.store import deliveries, endpoints, lanes
from service.store.db import Transaction
from service.store.deliveries import Attempt, Claimed, Settled
from service.store.lanes import Turned
from service.store.mails import insert_mails
from service.wire.webhooks import Gone

FAN_OUT_BATCH = 500
RECEIPT_BATCH = 500
PARKED_BATCH = 1000
WATCH_BATCH = 200
"""Endpoints whose developers are told something in one transaction: it holds all their locks."""
PARTITION_WEEKS_AHEAD = 4
NO_ORDER = "only an endpoint with fifo has a head to skip"


async def fan_out(tx: Transaction) -> int:
    """Turn events into deliveries; how many events, at most a batch of `FAN_OUT_BATCH`."""
    return await deliveries.fan_out(tx, FAN_OUT_BATCH)


def claim(
    slots: int, *, retries: int | None = None, slow: int | None = None
) -> Callable[[Transaction], Awaitable[list[Claimed]]]:
    """Take at most `slots` due deliveries; each is ours until its lease ends.

    Of them at most `retries` that were tried before, and `slow` of slow lanes (None: any number).
    """

    async def upkeep(tx: Transaction) -> list[Claimed]:
        return await deliveries.claim_deliveries(
            tx, slots, slots if retries is None else retries, slots if slow is None else slow
        )

    return upkeep


def settle(
    attempts: Sequence[Attempt],
) -> Callable[[Transaction], Awaitable[Set[UUID]]]:
    """Write what came of these attempts, turn their lanes; waits for no escrow's lock.

    Gives those whose claim was still ours. Receipts are passed on by `acknowledge`.
    """

    async def upkeep(tx: Transaction) -> Set[UUID]:
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
        exhausted = [one for one in attempts if _is_told_of(one)]
        if reasons or flags or exhausted:  # locks everywhere: endpoints, deliveries, then lanes
            given_up = {one.claimed.endpoint_id for one in exhausted}
            await endpoints.lock_endpoints(tx, sorted({*reasons, *flags, *given_up}))
        if flags:
            await endpoints.flag_endpoints(tx, flags)
        if reasons:  # all that waits is parked before a lane is locked
            await _disable(tx, reasons)
        settled = await deliveries.settle_deliveries(tx, attempts)
        ours = {delivery for one in settled for delivery in one.ids}
        turned = _turned(settled, [one for one in attempts if one.claimed.id in ours])
        if settled:
            await lanes.turn_lanes(tx, turned, settled[0].at)
        await tell_exhausted(tx, [one for one in exhausted if one.claimed.id in ours])
        await _mail_given_up(tx, [one.endpoint_id for one in turned if one.lane.gives_up])
        return ours

    return upkeep


def is_grave(attempt: Attempt) -> bool:
    """Whether settling it takes its endpoint's lock, for which it may have to wait."""
    outcome = attempt.outcome
    return outcome.disable_reason is not None or outcome.flag is not None or _is_told_of(attempt)


def _is_told_of(attempt: Attempt) -> bool:
    """Given up, and no news about endpoints itself: two that are dead would tell for ever."""
    return attempt.outcome.state is State.EXHAUSTED and attempt.claimed.type not in OF_ENDPOINTS


def _turned(settled: Sequence[Settled], attempts: Sequence[Attempt]) -> list[Turned]:
    """The lanes of what was settled after these attempts, in the order of the answers."""
    ended: dict[str, list[Attempt]] = defaultdict(list)
    for attempt in attempts:
        ended[attempt.claimed.endpoint_id].append(attempt)
    return [_turned_by(one, ended[one.endpoint_id]) for one in settled]


def _turned_by(settled: Settled, attempts: Sequence[Attempt]) -> Turned:
    ended = [Ended(one.outcome, one.reply, one.started_at) for one in attempts]
    return Turned(
        settled.endpoint_id,
        turn(settled.lane, ended, settled.at),
        gives_back=any(one.outcome.gives_back for one in attempts),
    )


async def _mail_given_up(tx: Transaction, endpoint_ids: Sequence[str]) -> None:
    """The mail of the first delivery that a run of failures gave up; not to who was disabled."""
    if endpoint_ids:
        whom = await endpoints.read_addressed(tx, endpoint_ids)
        await insert_mails(tx, [failing_mail(tx, one, Told.EXHAUSTED) for one in whom])


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


async def watch(tx: Transaction) -> int:
    """Tell developers how their endpoints fare, disable what has failed for days.

    Events to their other endpoints, mails to them. Looks again under the endpoints' locks, so that
    each is told once however many workers watch. Of how many endpoints; with `WATCH_BATCH` of them
    there may be more.
    """
    troubled = await lanes.read_troubled(tx)
    ids = [one.id for one in troubled if _is_news(one.run.told, notices(one.run, tx.real_now))]
    ids = ids[:WATCH_BATCH]
    if not ids:
        return 0
    await endpoints.lock_endpoints(tx, ids)
    news = [(one, notices(one.run, tx.real_now)) for one in await lanes.read_troubled(tx, ids)]
    news = [(one, said) for one, said in news if _is_news(one.run.told, said)]
    await lanes.note_told(tx, [(one, said.told) for one, said in news])
    await tell_runs(tx, {one.id: said for one, said in news})
    mails = [failing_mail(tx, one.endpoint, said.mail) for one, said in news if said.mail]
    await insert_mails(tx, mails)
    gone = {one.id: DisableReason.FAILING for one, said in news if said.disables}
    if gone:
        await _disable(tx, gone)
    return len(news)


def _is_news(told: Told, said: Notices) -> bool:
    return said.told != told or said.disables


def skip_head(endpoint_id: str) -> Command:
    """The operator gives up the delivery that holds a fifo lane; the next one falls due.

    Raises:
        WebhookNotFound: there is no such endpoint.
        WebhookRefused: its lane is no fifo lane: nothing holds it.
        DeliveryNotFound: nothing waits there, or the head is being sent just now.
    """

    async def command(tx: Transaction) -> Gone:
        endpoint = await endpoints.lock_endpoint(tx, endpoint_id)
        if endpoint is None:
            raise WebhookNotFound
        if not endpoint.fifo:
            raise WebhookRefused(reason=NO_ORDER)
        if await deliveries.skip_head(tx, endpoint_id) is None:
            raise DeliveryNotFound
        await lanes.hint_lanes(tx, [endpoint_id])
        await note_skipped(tx, endpoint_id)
        tx.ring("webhooks")
        return Gone(message="Delivery skipped")

    return command


async def exhaust_parked(tx: Transaction) -> int:
    """Give up what is parked for longer than its body is kept; how many, at most a batch."""
    return await deliveries.exhaust_parked(tx, tx.policy.body_retention_days, PARKED_BATCH)


async def drop_partitions(tx: Transaction) -> int:
    """Drop the weeks of bodies and attempts that are kept no longer; how many."""
    kept = tx.policy
    return await deliveries.drop_partitions(
        tx, kept.body_retention_days, kept.attempt_retention_days
    )


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
