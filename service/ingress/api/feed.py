"""Events to be pulled: the feed of what webhooks tell, and the catalogue of their types."""

from service.commands.perform import Answer
from service.ingress.call import Call
from service.store.feed import Position, Stretch, read_beginning, read_end, read_feed
from service.wire.deliveries import LATEST, FeedQuery, feed_bytes, read_cursor, write_cursor
from service.wire.event_types import EventTypes, event_types

STRETCHES = 2
"""So many stretches of the house's events are looked at before a page is sent short."""


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
            stretch = await read_feed(pool, call.developer_id, after, query.types, query.limit)
            if stretch.told or not stretch.has_more:
                break
            after = stretch.reached
    cursor = write_cursor(stretch.reached.xid, stretch.reached.position)
    bodies = [one.body for one in stretch.told]
    return Answer(call.status, feed_bytes(bodies, cursor, has_more=stretch.has_more))


async def read_types(call: Call[None, None]) -> EventTypes:  # noqa: ARG001 - a handler's shape
    """Every type with the JSON Schema of its body."""
    return event_types()
