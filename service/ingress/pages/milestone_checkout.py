"""`/checkout/{id}` of a milestone escrow: one step that was promised to one person.

As `checkout.py`: whoever has the link sees title, sum and action; the rest is for the person whose
e-mail the session is bound to. An input that came with the session is shown and stands; else the
page asks for it.

Law: a GET changes nothing. A session that is over is told before anything else is; where it came
from only its person learns.
"""

from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from aiohttp import web

from service.commands.perform import perform
from service.commands.sessions import complete, turn_away
from service.commands.visits import HouseSessions
from service.ingress.api.milestones import acted
from service.ingress.call import Call
from service.ingress.pages import visitor
from service.ingress.pages.arrival import arrive, leading, masked, to_register
from service.ingress.pages.blanks import Filled
from service.ingress.pages.milestone_blanks import fill, told
from service.ingress.pages.milestone_look import MilestoneLook, look_of, sum_of
from service.ingress.pages.milestone_standing import Choice, amounts, choices, parts, roles, why_not
from service.ingress.pages.milestone_step import form_of, on_page, stands_against
from service.ingress.pages.page import Speech, leading_to, see_other, show, spoken, voice_of
from service.ingress.pages.step import BRIEF, Said
from service.ingress.pages.visitor import Visitor, receive
from service.rules.checkout import way_back
from service.rules.engagement import MilestoneEscrow
from service.rules.errors import Invalid, Refused, SessionNotFound, SessionNotPending
from service.rules.session import CANCELLED, COMPLETED, PENDING
from service.store.clock import read_clock
from service.store.milestones import read_milestone_escrow
from service.store.sessions import Session, read_session
from service.store.users import read_bound
from service.wire.base import instant
from service.words.pages import Voice


@dataclass(frozen=True, slots=True)
class MilestoneDesk:
    """A session and its escrow as they stand, and who is there.

    `email` is what the bound person signs in with: who was invited by the session's e-mail may
    have registered with another.
    """

    session: Session
    email: str
    escrow: MilestoneEscrow
    visitor: Visitor
    speech: Speech
    voice: Voice

    @property
    def status(self) -> str:
        """The session's, which minds the clock as it is read."""
        return self.session.status

    @property
    def path(self) -> str:
        """The page's own path."""
        return f"/checkout/{self.session.id}"

    @property
    def purpose(self) -> str:
        """What the page's forms are for."""
        return f"checkout/{self.session.id}"

    @property
    def is_its_person(self) -> bool:
        """Whether the one is signed in to whom the session is bound."""
        session = self.visitor.session
        return session is not None and session.email == self.email

    @property
    def user_id(self) -> str | None:
        """Who is signed in; None for a stranger, and for whoever has not registered yet."""
        return self.visitor.session.user_id if self.visitor.session else None

    def back(self, status: str) -> str:
        """Where the browser goes when it is over so."""
        return way_back(self.session.redirect_url, str(self.session.id), status)


async def read(call: Call[None, None]) -> web.StreamResponse:
    """The page for whoever is there: the way in, the step's form, or how it ended.

    Raises:
        SessionNotFound: there is none of this id.
    """
    desk = await _approach(call)
    return desk.visitor.keep(await _seen(call, desk))


async def take(call: Call[None, None]) -> web.StreamResponse:
    """Take the step, or turn away; then back to where the person came from.

    Raises:
        SessionNotFound, FormNotOurs.
    """
    desk = await _approach(call)
    form = await receive(call.request, desk.visitor, desk.purpose)
    if form.text("act") == "sign_out":
        stranger = await visitor.sign_out(desk.visitor, HouseSessions(call.house))
        return stranger.keep(see_other(desk.speech.carry(desk.path)))
    if desk.status != PENDING:
        return _gone(desk)
    if not desk.is_its_person:
        shown = await _seen(call, desk)
        shown.set_status(403)
        return desk.visitor.keep(shown)
    if desk.user_id is None:
        return desk.visitor.keep(to_register(call))
    look = await look_of(call, desk.visitor, desk.user_id, desk.escrow)
    if form.text("act") == "leave":
        return await _left(call, desk, look)
    given = desk.session.input
    filled = fill(desk.session.action, form, look) if given is None else BRIEF
    return await _taken(call, desk, look, filled)


async def _approach(call: Call[None, None]) -> MilestoneDesk:
    session = await read_session(call.house.pool, UUID(call.path["id"]))
    escrow = await read_milestone_escrow(call.house.pool, session.escrow_id) if session else None
    if session is None or escrow is None:
        raise SessionNotFound
    person = await read_bound(call.house.pool, escrow.id, session.email)
    email = person.person.email if person else session.email
    clock, guest = await read_clock(call.house.pool), await arrive(call)
    speech = spoken(call.request, guest.session.language if guest.session else None)
    zone = guest.session.timezone if guest.session else None
    voice = voice_of(call.request, speech, zone, instant(clock.now))
    return MilestoneDesk(session, email, escrow, guest, speech, voice)


async def _left(
    call: Call[None, None], desk: MilestoneDesk, look: MilestoneLook
) -> web.StreamResponse:
    try:
        await perform(call.house, call.actor.as_user(look.user_id), turn_away(desk.session.id))
    except SessionNotPending:
        return _gone(await _approach(call))
    except Refused as no:
        return await _again(call, BRIEF, Said(409, why_not(no, desk.voice)))
    return see_other(desk.back(CANCELLED))


async def _taken(
    call: Call[None, None],
    desk: MilestoneDesk,
    look: MilestoneLook,
    filled: Filled,
) -> web.StreamResponse:
    """The way back once the step is taken; else the page again, with what stands against it."""
    if filled.errors:
        return await _again(call, filled, Said(400))
    step, given = desk.session.action, desk.session.input
    try:
        taking = (
            on_page(desk.escrow, step, filled)
            if given is None
            else acted(desk.escrow.id, step, given)
        )
        await perform(
            call.house, call.actor.as_user(look.user_id), complete(desk.session.id, taking)
        )
    except SessionNotPending:
        return _gone(await _approach(call))
    except (Invalid, Refused) as no:
        return await _again(call, *stands_against(no, step, filled, look))
    return see_other(desk.back(COMPLETED))


async def _again(call: Call[None, None], filled: Filled, said: Said) -> web.StreamResponse:
    """The page once more, as everything stands after what was in the way."""
    desk = await _approach(call)
    if desk.status != PENDING:
        return _gone(desk)
    return desk.visitor.keep(await _seen(call, desk, filled, said))


def _gone(desk: MilestoneDesk) -> web.Response:
    """What a form is told whose session is over: its person goes back, others see the page.

    A browser shows the answer to the last of two clicks.
    """
    if desk.is_its_person:
        return see_other(desk.back(desk.status))
    return see_other(desk.speech.carry(desk.path))


# ---- How it is shown ----------------------------------------------------------------------------


async def _seen(
    call: Call[None, None],
    desk: MilestoneDesk,
    filled: Filled = BRIEF,
    said: Said | None = None,
) -> web.Response:
    """The page as it is for this visitor now."""
    if desk.status != PENDING:
        return _over(call, desk)
    if desk.visitor.session is None:
        return _door(call, desk, said)
    if not desk.is_its_person:
        return _other(call, desk)
    if desk.user_id is None:
        return to_register(call)
    look = await look_of(call, desk.visitor, desk.user_id, desk.escrow)
    return await _shown(call, desk, look, filled, said or Said())


def _matter(desk: MilestoneDesk) -> dict[str, Any]:
    """Title, sum and action: what everybody with the link may see."""
    escrow, voice = desk.escrow, desk.voice
    heading = voice.say(f"milestone_step.{desk.session.action}.heading")
    return {
        "tab": heading,
        "heading": heading,
        "amount": sum_of(voice, escrow.amount_minor, escrow.currency),
        "title": voice.typed(escrow.title),
        "action": desk.speech.carry(desk.path),
        "token": desk.visitor.form_token(desk.purpose),
    }


async def _shown(
    call: Call[None, None],
    desk: MilestoneDesk,
    look: MilestoneLook,
    filled: Filled,
    said: Said,
) -> web.Response:
    """The step's form, and what it is about."""
    escrow, voice, step = desk.escrow, desk.voice, desk.session.action
    given = desk.session.input
    choice = _choice(look, step)
    if desk.session.terms_version not in (None, escrow.version):
        choice = replace(choice, obstacle=voice.say("milestone_page.other_terms"))
    if given is not None and filled.errors:
        filled = replace(filled, errors={})
        said = replace(said, notice=voice.say("page.error.not_now.text"))
    form = await form_of(call, look, choice, filled, said, is_given=given is not None)
    return show(
        call.request,
        "milestone_checkout",
        voice,
        status=409 if choice.obstacle is not None and said.status != 200 else said.status,
        policy=leading_to(desk.session.redirect_url),
        person=look.email,
        people=roles(escrow, look.user_id, voice),
        amounts=amounts(escrow, voice),
        parts_shown=parts(escrow, voice),
        given=told(given, look) if given is not None else [],
        **{**form, **_matter(desk)},
    )


def _choice(look: MilestoneLook, step: str) -> Choice:
    """The session's step as it stands for this person; with an obstacle where it is not theirs."""
    voice = look.voice
    for one in choices(look.escrow, look.user_id, voice, look.clock.now):
        if one.step == step:
            return one
    words = voice.say(f"milestone_step.{step}.heading")
    return Choice(step, words, voice.say("page.error.not_now.text"), None)


def _door(call: Call[None, None], desk: MilestoneDesk, said: Said | None) -> web.Response:
    return show(
        call.request,
        "checkout_door",
        desk.voice,
        status=said.status if said else 200,
        notice=said.notice if said else None,
        sign_in_url=leading(call, "/sign-in", desk.path),
        email=desk.voice.figure(masked(desk.email)),
        is_guest_welcome=False,
        payment_url=None,
        **_matter(desk),
    )


def _other(call: Call[None, None], desk: MilestoneDesk) -> web.Response:
    session = desk.visitor.session
    return show(
        call.request,
        "checkout_other",
        desk.voice,
        person=session.email if session else None,
        email=desk.voice.figure(masked(desk.email)),
        **_matter(desk),
    )


def _over(call: Call[None, None], desk: MilestoneDesk) -> web.Response:
    return show(
        call.request,
        "checkout_over",
        desk.voice,
        tab=desk.voice.say(f"checkout.{desk.status}.title"),
        ending=desk.status,
        back=desk.back(desk.status) if desk.is_its_person else None,
    )
