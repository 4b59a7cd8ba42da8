"""Events to be pulled: the feed of what webhooks tell, and the catalogue of their types."""

import structlog

from service.commands.perform import Answer
from service.ingress.call import Call
from service.rules.errors import CursorBeyondEnd
from service.store.feed import Position, Stretch, read_beginning, read_end, read_feed
from service.wire.deliveries import LATEST, FeedQuery, feed_bytes, read_cursor, write_cursor
from service.wire.event_types import EventTypes, event_types

STRETCHES = 2
"""So many stretches of the house's events are looked at before a page is sent short."""

log = structlog.get_logger()


async def read_events(call: Call[None, FeedQuery]) -> Answer:
    """The next events, by a cursor that passes nothing over; the bodies are the webhooks' bytes."""
    query, pool = call.query, call.house.pool
    if query.after == LATEST:
        stretch = Stretch((), await read_end(pool), has_more=False)
    else:
        if query.after:
            after = Position(*read_cursor(query.after))
        else:
            after = await read_beginning(pool, call.developer_id)
        for _ in range(STRETCHES):
            try:
                stretch = await read_feed(pool, call.developer_id, after, query.types, query.limit)
            except CursorBeyondEnd:
                log.warning("feed_was_set_back", cursor=after.xid, run="amana migrate --restored")
                raise
            if stretch.told or not stretch.has_more:
                break
            after = stretch.reached
    cursor = write_cursor(stretch.reached.xid, stretch.reached.position)
    bodies = [one.body for one in stretch.told]
    return Answer(call.status, feed_bytes(bodies, cursor, has_more=stretch.has_more))


async def read_types(call: Call[None, None]) -> EventTypes:  # noqa: ARG001 - a handler's shape
    """Every type with the JSON Schema of its body."""
    return event_types()
