"""`/checkout/{id}`: one step that was promised to one person, behind the link of a shop.

Whoever has the link sees title, sum and action; the rest is for the person whose e-mail the session
is bound to. The step is taken by its own command inside `commands.sessions.complete`, so that the
session is spent with it and with nothing else; then the browser goes back to the shop.

Law: a GET changes nothing. A session that is over is told before anything else is.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any
from uuid import UUID

from aiohttp import web
from markupsafe import Markup

from service.commands.files import view_url
from service.commands.payments import Wish
from service.commands.perform import perform
from service.commands.sessions import complete, turn_away
from service.commands.visits import HouseSessions
from service.ingress.api.sessions import ACTS, is_uuid
from service.ingress.bodies import as_model
from service.ingress.call import Call
from service.ingress.pages import paying, visitor
from service.ingress.pages.arrival import arrive, leading, masked, to_phone, to_register
from service.ingress.pages.blanks import BLANKS, Filled, bytes_max, fill
from service.ingress.pages.escrow import Look, hearing
from service.ingress.pages.figures import shown_amount
from service.ingress.pages.forms import FORM_BYTES_MAX, Form
from service.ingress.pages.page import (
    POLICY,
    Speech,
    leading_to,
    see_other,
    show,
    spoken,
    voice_of,
)
from service.ingress.pages.standing import amounts, choices, facts, people, why_not
from service.ingress.pages.step import BRIEF, WALLET, Said, form_of, policy, wish_of
from service.ingress.pages.tales import tales
from service.ingress.pages.visitor import Visitor, receive
from service.ingress.uploads import take_files
from service.rules.aggregate import Escrow
from service.rules.checkout import way_back
from service.rules.errors import (
    EscrowNotFound,
    InsufficientFunds,
    Invalid,
    PhoneNotVerified,
    Refused,
    SessionNotFound,
    SessionNotPending,
)
from service.rules.escrow import INSTANT
from service.rules.escrow import PENDING as UNPAID
from service.rules.files import StoredFile
from service.rules.machine import Role
from service.rules.money import to_decimal, to_minor
from service.rules.payment import ACCEPT_PAY, Payment, page_of
from service.rules.session import CANCELLED, COMPLETED, PENDING, role_of
from service.store.clock import Clock, read_clock
from service.store.deadlines import Deadline, read_open
from service.store.escrows import read_escrow
from service.store.payments import read_open_of_escrow
from service.store.sessions import Session, read_session
from service.wire.base import instant
from service.words.pages import Voice

TOLD_IN = frozenset(
    {
        "review_proof",
        "submit_proof",
        "answer_dispute",
        "withdraw_dispute",
        "accept_cancellation",
        "reject_cancellation",
    }
)
"""Actions that answer something, which therefore is shown."""


@dataclass(frozen=True, slots=True)
class Desk:
    """A session and its escrow as they stand, and who is there."""

    session: Session
    escrow: Escrow
    clock: Clock
    visitor: Visitor
    speech: Speech
    voice: Voice
    opened: Sequence[Deadline]

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
        return session is not None and session.email == self.session.email

    @property
    def may_go_back(self) -> bool:
        """Whether the shop's address is theirs to see: its person's, and a guest's.

        A guest is known by the link alone; of any other link whoever has found it learns nothing.
        """
        is_for_guests = self.session.action == ACCEPT_PAY and self.escrow.mode == INSTANT
        return self.is_its_person or is_for_guests

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
    step = desk.session.action
    uploads = take_files(call.request)
    has_files = ACTS[step].files_min is not None and desk.is_its_person
    form = await receive(
        call.request,
        desk.visitor,
        desk.purpose,
        bytes_max=bytes_max(step) if desk.is_its_person else FORM_BYTES_MAX,
        keep=uploads if has_files else None,
    )
    answer = await _answer(call, desk, form, uploads.refusal, uploads.files)
    if answer.status >= web.HTTPBadRequest.status_code:
        await uploads.discard()
    return answer


async def _approach(call: Call[None, None]) -> Desk:
    found = call.path["id"]
    session = await read_session(call.house.pool, UUID(found)) if is_uuid(found) else None
    escrow = await read_escrow(call.house.pool, session.escrow_id) if session else None
    if session is None or escrow is None:
        raise SessionNotFound
    clock, guest = await read_clock(call.house.pool), await arrive(call)
    stored = guest.session.language if guest.session else None
    speech = spoken(call.request, stored)
    zone = guest.session.timezone if guest.session else None
    voice = voice_of(call.request, speech, zone, instant(clock.now))
    opened = await read_open(call.house.pool, escrow.id)
    return Desk(session, escrow, clock, guest, speech, voice, opened)


async def _seen(
    call: Call[None, None], desk: Desk, filled: Filled = BRIEF, said: Said | None = None
) -> web.Response:
    """The page as it is for this visitor now."""
    if desk.session.status != PENDING:
        return _over(call, desk)
    if desk.visitor.session is None:
        return await _door(call, desk, said)
    if not desk.is_its_person:
        return _other(call, desk)
    look = _look(call, desk)
    if look is None:
        return to_register(call)
    if desk.session.action == ACCEPT_PAY:
        if _needs_phone(call, desk):
            return to_phone(call)
        payment = await _under_way(call, desk, look.user_id)
        if payment is not None and said is None:
            return _asking(call, desk, payment)
    return await _shown(call, desk, look, filled, said or Said())


# ---- A form that came ---------------------------------------------------------------------------


async def _answer(
    call: Call[None, None],
    desk: Desk,
    form: Form,
    refusal: Refused | None,
    files: Sequence[StoredFile],
) -> web.StreamResponse:
    if form.text("act") == "sign_out":
        stranger = await visitor.sign_out(desk.visitor, HouseSessions(call.house))
        return stranger.keep(see_other(desk.speech.carry(desk.path)))
    if desk.session.status != PENDING:
        return _gone(desk)
    if form.text("act") == "guest":
        return await _guest(call, desk, form)
    if desk.visitor.session is None or not desk.is_its_person:
        shown = await _seen(call, desk)
        shown.set_status(403)
        return desk.visitor.keep(shown)
    look = _look(call, desk)
    if look is None:
        return desk.visitor.keep(to_register(call))
    if form.text("act") == "leave":
        return await _left(call, desk, look)
    return await _taken(
        call, desk, look, fill(desk.session.action, form, look, refusal, files), files
    )


async def _left(call: Call[None, None], desk: Desk, look: Look) -> web.StreamResponse:
    try:
        await perform(call.house, call.actor.as_user(look.user_id), turn_away(desk.session.id))
    except SessionNotPending:
        return _gone(await _approach(call))
    except Refused as no:
        return await _again(call, BRIEF, Said(409, why_not(no, desk.escrow, desk.voice)))
    return see_other(desk.back(CANCELLED))


async def _taken(
    call: Call[None, None], desk: Desk, look: Look, filled: Filled, files: Sequence[StoredFile]
) -> web.StreamResponse:
    """The way back once the step is taken; else the page again, with what stands against it."""
    if filled.errors:
        return await _again(call, filled, Said(400))
    step, voice = desk.session.action, desk.voice
    act = ACTS[step]
    try:
        way = filled.typed.get("way", WALLET)
        if step == ACCEPT_PAY and way != WALLET:
            wish = replace(await wish_of(call, look, way, filled), session_id=desk.session.id)
            return await paying.start(call, desk.visitor, wish, desk.path)
        taking = act.taking(desk.escrow.id, as_model(act.brings, filled.brings), files)
        await perform(
            call.house, call.actor.as_user(look.user_id), complete(desk.session.id, taking)
        )
    except SessionNotPending:
        return _gone(await _approach(call))
    except PhoneNotVerified:
        return desk.visitor.keep(to_phone(call))
    except Invalid:
        wrong = {one.name: voice.say("page.error.unclear.text") for one in BLANKS[step][:1]}
        return await _again(call, replace(filled, errors=wrong), Said(400))
    except Refused as no:
        notice = why_not(no, desk.escrow, voice)
        said = Said(409, notice, tops_up=isinstance(no, InsufficientFunds))
        return await _again(call, filled, said)
    return see_other(desk.back(COMPLETED))


async def _again(call: Call[None, None], filled: Filled, said: Said) -> web.StreamResponse:
    """The page once more, as everything stands after what was in the way."""
    desk = await _approach(call)
    if desk.session.status != PENDING:
        return _gone(desk)
    return desk.visitor.keep(await _seen(call, desk, filled, said))


async def _guest(call: Call[None, None], desk: Desk, form: Form) -> web.StreamResponse:
    """Pay an instant escrow by bank transfer, without an account."""
    escrow = desk.escrow
    ways = paying.methods(call, is_guest=True)
    if desk.session.action != ACCEPT_PAY or escrow.mode != INSTANT or not ways:
        return await _again(call, BRIEF, Said(409, desk.voice.say("page.error.not_now.text")))
    shown = shown_amount(form.text("amount"))
    wish = Wish(
        ACCEPT_PAY,
        ways[0],
        escrow.amount_ledger_minor,
        escrow.ledger_currency,
        escrow_id=escrow.id,
        session_id=desk.session.id,
        payer_email=desk.session.email,
        shown_minor=to_minor(shown, escrow.currency) or 0 if shown is not None else 0,
    )
    try:
        return desk.visitor.keep(await paying.start(call, desk.visitor, wish, desk.path))
    except Refused as no:
        return await _again(call, BRIEF, Said(409, why_not(no, escrow, desk.voice)))


def _gone(desk: Desk) -> web.Response:
    """What a form is told whose session is over: its person goes back, others see the page.

    A browser shows the answer to the last of two clicks.
    """
    if desk.is_its_person:
        return see_other(desk.back(desk.session.status))
    return see_other(desk.speech.carry(desk.path))


# ---- Who is there -------------------------------------------------------------------------------


def _look(call: Call[None, None], desk: Desk) -> Look | None:
    """The person before the escrow; None where they have not registered yet.

    Raises:
        EscrowNotFound: they are no party of it any more.
    """
    session = desk.visitor.session
    role = role_of(desk.escrow, desk.session.email)
    if role is None:
        raise EscrowNotFound
    if session is None or session.user_id is None:
        return None
    told = facts(
        desk.escrow,
        role,
        desk.clock.now,
        call.house.policy,
        desk.opened,
    )
    return Look(
        desk.visitor,
        session.email,
        session.user_id,
        desk.escrow,
        role,
        desk.clock,
        desk.speech,
        desk.voice,
        told,
        desk.opened,
    )


def _needs_phone(call: Call[None, None], desk: Desk) -> bool:
    buyer = desk.escrow.buyer
    if desk.escrow.status != UNPAID or buyer is None:
        return False
    return call.house.policy.phone_is_required and not buyer.is_phone_verified


async def _under_way(call: Call[None, None], desk: Desk, user_id: str | None) -> Payment | None:
    """This person's payment for this session that has not ended yet."""
    for one in await read_open_of_escrow(call.house.pool, desk.escrow.id):
        if one.session_id == desk.session.id and one.user_id == user_id:
            return one
    return None


# ---- How it is shown ----------------------------------------------------------------------------


def _matter(desk: Desk) -> dict[str, Any]:
    """Title, sum and action: what everybody with the link may see."""
    escrow, voice = desk.escrow, desk.voice
    amount = format(to_decimal(escrow.amount_minor, escrow.currency), "f")
    heading = voice.say(f"escrow_page.step.{desk.session.action}")
    return {
        "tab": heading,
        "heading": heading,
        "amount": voice.amount(amount, escrow.currency),
        "title": voice.typed(escrow.title),
        "action": desk.speech.carry(desk.path),
        "token": desk.visitor.form_token(desk.purpose),
    }


async def _shown(
    call: Call[None, None], desk: Desk, look: Look, filled: Filled, said: Said
) -> web.Response:
    """The step's form, and what it is about."""
    escrow, voice, step = desk.escrow, desk.voice, desk.session.action
    mine = {one.step: one for one in choices(escrow, look.role, voice)}
    obstacle = mine[step].obstacle if step in mine else voice.say("page.error.not_now.text")
    told = []
    if step in TOLD_IN:
        prefix = call.house.policy.ticket_prefix
        vault, now = call.house.vault, desk.clock.real_now
        told = tales(
            escrow,
            await hearing(call, escrow),
            voice,
            prefix,
            lambda key: view_url("", vault, key, now),
        )
    form = await form_of(call, look, step, obstacle, filled, said)
    return show(
        call.request,
        "checkout",
        voice,
        status=409 if obstacle is not None and said.status != 200 else said.status,
        policy=leading_to(desk.session.redirect_url, policy(call, step)),
        person=look.email,
        people=people(escrow, look.role, voice, look.facts),
        amounts=amounts(escrow, voice),
        stops=voice.timeline(look.facts),
        tales=told,
        **{**form, **_matter(desk)},
    )


async def _door(call: Call[None, None], desk: Desk, said: Said | None) -> web.Response:
    """What for and how much, the way to sign in, and a guest's way where there is one."""
    escrow, voice = desk.escrow, desk.voice
    is_guest_welcome = (
        desk.session.action == ACCEPT_PAY
        and escrow.mode == INSTANT
        and escrow.status == UNPAID
        and bool(paying.methods(call, is_guest=True))
    )
    payment = await _under_way(call, desk, None) if is_guest_welcome else None
    told = facts(
        escrow,
        Role.BUYER,
        desk.clock.now,
        call.house.policy,
        desk.opened,
    )
    return show(
        call.request,
        "checkout_door",
        voice,
        status=said.status if said else 200,
        policy=paying.policy(call) if is_guest_welcome else POLICY,
        notice=said.notice if said else None,
        sign_in_url=leading(call, "/sign-in", desk.path),
        is_guest_welcome=is_guest_welcome,
        guest_consequence=voice.say("checkout.guest_consequence", **voice.values(told))
        if is_guest_welcome
        else Markup(""),
        payment_url=desk.speech.carry(page_of(payment)) if payment else None,
        shown_amount=format(to_decimal(escrow.amount_minor, escrow.currency), "f"),
        **_matter(desk),
    )


def _other(call: Call[None, None], desk: Desk) -> web.Response:
    session = desk.visitor.session
    return show(
        call.request,
        "checkout_other",
        desk.voice,
        person=session.email if session else None,
        email=desk.voice.figure(masked(desk.session.email)),
        **_matter(desk),
    )


def _asking(call: Call[None, None], desk: Desk, payment: Payment) -> web.Response:
    """The payment is under way; its own page asks the provider, this one looks again."""
    return show(
        call.request,
        "checkout_asking",
        desk.voice,
        person=desk.session.email,
        again=desk.speech.carry(desk.path),
        payment_url=desk.speech.carry(page_of(payment)),
        **_matter(desk),
    )


def _over(call: Call[None, None], desk: Desk) -> web.Response:
    return show(
        call.request,
        "checkout_over",
        desk.voice,
        tab=desk.voice.say(f"checkout.{desk.session.status}.title"),
        ending=desk.session.status,
        back=desk.back(desk.session.status) if desk.may_go_back else None,
    )
