"""Somebody in front of a milestone escrow, and how they are spoken to.

Law: an escrow in which somebody holds no role is told from none at all by nothing; only who was
sent a link to one step of it sees it too (`milestone_checkout.py`).
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from aiohttp import web
from markupsafe import Markup

from service.ingress.call import Call
from service.ingress.pages.arrival import arrive, to_register, to_sign_in
from service.ingress.pages.page import Speech, spoken, voice_of
from service.ingress.pages.visitor import Visitor
from service.ingress.route import is_entity_id
from service.rules.engagement import MilestoneEscrow
from service.rules.errors import EscrowNotFound
from service.rules.milestone_ground import roles_of
from service.rules.money import to_decimal
from service.store.clock import Clock, read_clock
from service.store.deadlines import Deadline, read_open
from service.store.milestones import read_milestone_escrow
from service.wire.base import instant
from service.words.pages import Voice


@dataclass(frozen=True, slots=True)
class MilestoneLook:
    """A person in front of the escrow."""

    visitor: Visitor
    email: str
    user_id: str
    escrow: MilestoneEscrow
    clock: Clock
    speech: Speech
    voice: Voice
    opened: Sequence[Deadline]

    @property
    def path(self) -> str:
        """The escrow's own page."""
        return f"/dashboard/escrow/{self.escrow.id}"

    @property
    def has_role(self) -> bool:
        """Whether they hold one, and so may see the escrow's own page."""
        return bool(roles_of(self.escrow, self.user_id))

    @property
    def values(self) -> Mapping[str, Markup]:
        """What a sentence about this escrow may name: title, amount and held."""
        escrow, voice = self.escrow, self.voice
        return {
            "title": voice.typed(escrow.title),
            "amount": sum_of(voice, escrow.amount_minor, escrow.currency),
            "held": sum_of(voice, escrow.held_minor, escrow.currency),
            "currency": voice.figure(escrow.currency),
        }


def sum_of(voice: Voice, minor: int, currency: str) -> Markup:
    """An amount with every decimal of its currency."""
    return voice.amount(format(to_decimal(minor, currency), "f"), currency)


async def approach(call: Call[None, None]) -> MilestoneLook | web.Response:
    """The person and the escrow of the path; or the answer that leads to signing in.

    Raises:
        EscrowNotFound: there is none of this id, or they hold no role in it.
    """
    visitor = await arrive(call)
    if visitor.session is None:
        return to_sign_in(call)
    if visitor.session.user_id is None:
        return to_register(call)
    pool, escrow_id = call.house.pool, call.path["id"]
    escrow = await read_milestone_escrow(pool, escrow_id) if is_entity_id(escrow_id) else None
    if escrow is None or not roles_of(escrow, visitor.session.user_id):
        raise EscrowNotFound
    return await look_of(call, visitor, visitor.session.user_id, escrow)


async def look_of(
    call: Call[None, None], visitor: Visitor, user_id: str, escrow: MilestoneEscrow
) -> MilestoneLook:
    """This visitor, who is signed in and registered, before this escrow."""
    session = visitor.session
    if session is None:
        raise AssertionError("nobody is signed in")
    clock = await read_clock(call.house.pool)
    speech = spoken(call.request, session.language)
    voice = voice_of(call.request, speech, session.timezone, instant(clock.now))
    opened = await read_open(call.house.pool, escrow.id)
    return MilestoneLook(visitor, session.email, user_id, escrow, clock, speech, voice, opened)
