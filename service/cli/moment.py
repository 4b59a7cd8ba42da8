"""What a story of the demo is told in: moments, expected mails and webhooks, and patience."""

import asyncio
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, TypeVar

PATIENCE_SECONDS = 15.0  # a webhook that failed once comes again after 4 to 6 s
LOOK_EVERY_SECONDS = 0.1

CREATED, ACCEPTED, SIGNED = "escrow.created", "invitation.accepted", "contract.signed"

FoundT = TypeVar("FoundT")


class Unexpected(Exception):
    """The world did not do what the story says."""


@dataclass(frozen=True, slots=True)
class Moment:
    """One line of a timeline: a step, the clock, a webhook or a mail, and the state it reached."""

    at: datetime
    kind: str
    says: str
    state: str = ""


@dataclass(frozen=True, slots=True)
class Sent:
    """A mail: to which side of the escrow, and a part of its subject that tells it from others."""

    to: str
    subject: str

    def is_it(self, side: str, mail: Mapping[str, Any]) -> bool:
        """Whether this is the mail, sent to that side."""
        return side == self.to and self.subject in mail["subject"]


NAMED = Sent("buyer", "New escrow")
INVITED = Sent("buyer", "sells you")
CONFIRM = Sent("buyer", "please confirm")
PAID = (Sent("buyer", "You paid"), Sent("seller", "is in escrow"))
SOLD = (*PAID, Sent("buyer", "Completed"), Sent("seller", "You were paid"))
OVER = (Sent("buyer", "Cancelled"), Sent("seller", "Cancelled"))


def changed(old: str, new: str) -> str:
    """The webhook of a change of status, as a story names it."""
    return f"escrow.status.updated {old} → {new}"


async def until(look: Callable[[], Awaitable[FoundT | None]], missing: str) -> FoundT:
    """What `look` finds, as soon as there is something. Raises Unexpected, saying what is missing.

    It is looked again every LOOK_EVERY_SECONDS, for PATIENCE_SECONDS.
    """
    clock = asyncio.get_running_loop().time
    give_up_at = clock() + PATIENCE_SECONDS
    while clock() < give_up_at:
        found = await look()
        if found is not None:
            return found
        await asyncio.sleep(LOOK_EVERY_SECONDS)
    raise Unexpected(missing)
