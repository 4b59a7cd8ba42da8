"""What a developer's other endpoints hear of one that fares badly, or well again.

Law: whoever calls holds the endpoints' locks; `seq` relies on them. `endpoint.disabled` and what
the developer does is told in commands/endpoints.py.
"""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from service.rules.lane import Notices
from service.store.db import Transaction
from service.store.deliveries import Attempt
from service.store.events import Entry, append_events
from service.store.ids import event_id
from service.store.lanes import Numbered, number_events
from service.wire.endpoint_events import ExhaustedData, ToldDelivery
from service.wire.events import envelope
from service.wire.webhooks import EndpointData, ToldWebhook


async def tell_exhausted(tx: Transaction, attempts: Sequence[Attempt]) -> None:
    """`delivery.exhausted`, one for each of these last attempts."""

    def told(attempt: Attempt, endpoint: Numbered) -> ExhaustedData:
        claimed, reply = attempt.claimed, attempt.reply
        return ExhaustedData(
            webhook=_webhook(endpoint),
            delivery=ToldDelivery(
                id=str(claimed.id),
                event_id=str(claimed.event_id),
                type=claimed.type,
                attempt=claimed.attempt,
                last_status=reply.status,
                last_error_class=reply.fault,
            ),
        )

    numbers = await _numbers(tx, [one.claimed.endpoint_id for one in attempts])
    entries = [
        _entry(tx, endpoint, seq, "exhaust", "delivery.exhausted", told(one, endpoint))
        for one in attempts
        for endpoint, seq in _next(numbers, one.claimed.endpoint_id)
    ]
    await append_events(tx, entries)


async def tell_runs(tx: Transaction, news: Mapping[str, Notices]) -> None:
    """`endpoint.failing` and `endpoint.recovered` (endpoint's id → what is to be told of it)."""
    names = {
        id_: "endpoint.failing" if said.fails else "endpoint.recovered"
        for id_, said in news.items()
        if said.fails or said.recovers
    }
    numbers = await _numbers(tx, list(names))
    entries = [
        _entry(tx, one, seq, name.split(".")[1], name, EndpointData(webhook=_webhook(one)))
        for id_, name in names.items()
        for one, seq in _next(numbers, id_)
    ]
    await append_events(tx, entries)


async def note_skipped(tx: Transaction, endpoint_id: str) -> None:
    """The operator has skipped the head of this lane: for the audit trail, told to nobody."""
    numbers = await _numbers(tx, [endpoint_id])
    await append_events(
        tx, [_entry(tx, one, seq, "skip") for one, seq in _next(numbers, endpoint_id)]
    )


Numbers = Mapping[str, tuple[Numbered, Iterator[int]]]


async def _numbers(tx: Transaction, endpoint_ids: Sequence[str]) -> Numbers:
    """The endpoints that are still there, each with as many numbers as it is named."""
    counts = Counter(endpoint_ids)
    return {
        one.id: (one, iter(range(one.seq - counts[one.id] + 1, one.seq + 1)))
        for one in await number_events(tx, counts)
    }


def _next(numbers: Numbers, endpoint_id: str) -> Iterator[tuple[Numbered, int]]:
    """The endpoint with its next number; nothing for one that is deleted."""
    if endpoint_id in numbers:
        endpoint, left = numbers[endpoint_id]
        yield endpoint, next(left)


def _webhook(endpoint: Numbered) -> ToldWebhook:
    return ToldWebhook(
        id=endpoint.id,
        url=endpoint.url,
        is_active=endpoint.is_active,
        failure_count=endpoint.failure_count,
        disabled_reason=endpoint.disabled_reason,
    )


def _entry(
    tx: Transaction,
    endpoint: Numbered,
    seq: int,
    step: str,
    event_type: str | None = None,
    told: EndpointData | None = None,
) -> Entry:
    uid = event_id(tx.now)
    return Entry(
        id=uid,
        subject_id=endpoint.id,
        subject_kind="endpoint",
        seq=seq,
        step=step,
        type=event_type,
        body=None
        if event_type is None or told is None
        else envelope(uid, event_type, told, tx.now),
    )
