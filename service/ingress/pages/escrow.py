"""`/dashboard/escrow/{id}`: an escrow for one of its parties, and each step that is theirs.

Law: somebody else's escrow is told from none at all by nothing. A step is taken through the same
command as everywhere; this page only shows what the table says may be taken.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from aiohttp import web

from service.commands.files import view_url
from service.ingress.call import Call
from service.ingress.pages.arrival import arrive, to_register, to_sign_in
from service.ingress.pages.page import Speech, show, spoken, voice_of
from service.ingress.pages.standing import (
    amounts,
    choices,
    deadlines,
    facts,
    party,
    people,
    signed,
    waiting,
)
from service.ingress.pages.tales import Hearing, tales
from service.ingress.pages.visitor import Visitor
from service.ingress.route import is_entity_id
from service.rules.aggregate import Escrow
from service.rules.errors import EscrowNotFound
from service.rules.escrow import FINAL
from service.rules.machine import Role
from service.rules.outlook import awaits
from service.store.clock import Clock, read_clock
from service.store.deadlines import Deadline, read_open
from service.store.disputes import read_offers, read_statements
from service.store.escrows import read_escrow
from service.wire.base import instant
from service.words.facts import EscrowFacts
from service.words.pages import Voice


@dataclass(frozen=True, slots=True)
class Look:
    """A party in front of their escrow, and how they are spoken to."""

    visitor: Visitor
    email: str
    user_id: str
    escrow: Escrow
    role: Role
    clock: Clock
    speech: Speech
    voice: Voice
    facts: EscrowFacts
    opened: Sequence[Deadline]

    @property
    def path(self) -> str:
        """The escrow's own page."""
        return f"/dashboard/escrow/{self.escrow.id}"


async def approach(call: Call[None, None]) -> Look | web.Response:
    """The party and the escrow of the path; or the answer that leads to signing in.

    Raises:
        EscrowNotFound: there is none of this id, or it is somebody else's.
    """
    visitor = await arrive(call)
    if visitor.session is None:
        return to_sign_in(call)
    user_id = visitor.session.user_id
    if user_id is None:
        return to_register(call)
    escrow_id = call.path["id"]
    speech = spoken(call.request, visitor.session.language)
    escrow = await read_escrow(call.house.pool, escrow_id) if is_entity_id(escrow_id) else None
    role = party(escrow, user_id) if escrow else None
    if escrow is None or role is None:
        raise EscrowNotFound
    clock = await read_clock(call.house.pool)
    voice = voice_of(call.request, speech, visitor.session.timezone, instant(clock.now))
    opened = await read_open(call.house.pool, escrow.id)
    told = facts(escrow, role, clock.now, call.house.policy, opened)
    email = visitor.session.email
    return Look(visitor, email, user_id, escrow, role, clock, speech, voice, told, opened)


async def read(call: Call[None, None]) -> web.Response:
    """The escrow: where it stands, what this person may do, and all that it is about."""
    look = await approach(call)
    if isinstance(look, web.Response):
        return look
    escrow, role, voice, speech = look.escrow, look.role, look.voice, look.speech
    meaning, says = voice.status(escrow.status)
    values = voice.values(look.facts)
    offered = [
        {
            "words": one.words,
            "obstacle": one.obstacle,
            "url": speech.carry(f"{look.path}/{one.step}"),
        }
        for one in choices(escrow, role, voice)
    ]
    is_over = escrow.status in FINAL
    shown = show(
        call.request,
        "escrow",
        voice,
        person=look.email,
        tab=voice.tab(escrow.title),
        speech=speech,
        amount=values["amount"],
        title=values["title"],
        is_done=call.request.query.get("done") == "yes",
        meaning=meaning,
        says=says,
        reason=voice.say(f"reason.{escrow.cancel_reason}") if escrow.cancel_reason else None,
        people=people(escrow, role, voice, look.facts),
        waiting=waiting(escrow, role, voice),
        can=[one for one in offered if one["obstacle"] is None],
        cannot=[one for one in offered if one["obstacle"] is not None and not is_over],
        leads=awaits(escrow, role),
        is_over=is_over,
        stops=voice.timeline(look.facts),
        deadlines=deadlines(escrow, look.opened, voice, look.clock.now),
        amounts=amounts(escrow, voice),
        tales=tales(
            escrow,
            await hearing(call, escrow),
            voice,
            call.house.policy.ticket_prefix,
            lambda key: view_url("", call.house.vault, key, look.clock.real_now),
        ),
        description=voice.lines(escrow.description) if escrow.description else None,
        signed=signed(escrow, voice),
        contract_url=speech.carry(f"{look.path}/contract"),
    )
    return look.visitor.keep(shown)


async def hearing(call: Call[None, None], escrow: Escrow) -> Hearing:
    """What was said in the last dispute; nothing is read where there was none."""
    if escrow.dispute is None:
        return Hearing()
    pool = call.house.pool
    return Hearing(
        await read_statements(pool, escrow.dispute.id), await read_offers(pool, escrow.dispute.id)
    )
