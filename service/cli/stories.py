"""The demo's stories: what people and their shop do, and what must come of it.

Each is one life of an escrow; `STORIES` is the order in which they are lived.
"""

from collections.abc import Awaitable, Callable, Sequence

from service.cli.stories_instant import (
    by_acknowledgement,
    by_cancellation,
    by_deliver,
    by_expiry,
    by_guest,
    by_invitation,
)
from service.cli.stories_milestones import MILESTONE_STORIES
from service.cli.stories_quick import (
    by_completion,
    by_offer,
    by_proof,
    by_rejection,
    by_request,
)
from service.cli.stories_standard import by_signing
from service.cli.tale import World

STORIES: Sequence[Callable[[World], Awaitable[None]]] = (
    by_deliver,
    by_acknowledgement,
    by_invitation,
    by_signing,
    by_guest,
    by_proof,
    by_offer,
    by_request,
    by_cancellation,
    by_completion,
    by_rejection,
    *MILESTONE_STORIES,
    by_expiry,
)
