"""`/register`: a name for an e-mail that is proven, by an invitation's link or by a code."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from markupsafe import Markup

from service.commands.perform import perform
from service.commands.registration import follow_link, register_proven
from service.commands.visits import HouseSessions
from service.ingress.call import Call
from service.ingress.pages.arrival import arrive, leading, onward, speech_of, to_sign_in, wanted
from service.ingress.pages.forms import Form
from service.ingress.pages.names import wrong_names
from service.ingress.pages.page import see_other, show, voice_of
from service.ingress.pages.visitor import Visitor, receive, sign_in
from service.rules.aggregate import Escrow
from service.rules.engagement import ROLES, MilestoneEscrow
from service.rules.errors import InvitationNotFound
from service.rules.machine import Role
from service.rules.money import to_decimal
from service.store.db import Reader, Transaction
from service.store.escrows import read_escrow
from service.store.invitations import Invitation, read_invitation_behind
from service.store.milestones import read_milestone_escrow
from service.store.users import read_user
from service.store.vault import hash_token
from service.wire.base import Wire
from service.wire.sandbox import RegistrationAnswer, user_shape
from service.words.languages import LANGUAGES
from service.words.pages import Voice

PURPOSE, INVITED_PURPOSE = "register", "register_invited"


@dataclass(frozen=True, slots=True)
class Given:
    """What the form says."""

    first_name: str = ""
    last_name: str = ""
    language: str = ""


def _given(form: Form) -> Given:
    return Given(form.text("first_name"), form.text("last_name"), form.text("language"))


def _errors(given: Given, voice: Voice) -> Mapping[str, str]:
    """What is wrong, by field, in words that say how to mend it."""
    found = wrong_names(voice, {"first_name": given.first_name, "last_name": given.last_name})
    if given.language not in LANGUAGES:
        found["language"] = voice.say("field.choice")
    return found


# ---- Somebody who has proven an e-mail by a code ------------------------------------------------


async def show_own(call: Call[None, None]) -> web.Response:
    """Ask for the name of whoever is signed in without an account."""
    visitor = await arrive(call)
    if visitor.session is None:
        return to_sign_in(call)
    if visitor.session.user_id is not None:
        return onward(call, visitor)
    return _own_page(call, visitor, Given(language=speech_of(call, visitor).code), {})


async def take_own(call: Call[None, None]) -> web.Response:
    """Register, then on to what the person came for."""
    visitor = await arrive(call)
    if visitor.session is None:
        return to_sign_in(call)
    form = await receive(call.request, visitor, PURPOSE)
    given, email = _given(form), visitor.session.email
    errors = _errors(given, voice_of(call.request, speech_of(call, visitor)))
    if errors:
        return _own_page(call, visitor, given, errors)

    async def command(tx: Transaction) -> Wire:
        person = await register_proven(tx, email, given.first_name, given.last_name, given.language)
        return RegistrationAnswer(user=user_shape(person), escrows=[])

    await perform(call.house, call.actor, command)
    # What was chosen in the form is stored now, so that no language rides along any more.
    return see_other(wanted(call))


def _own_page(
    call: Call[None, None], visitor: Visitor, given: Given, errors: Mapping[str, str]
) -> web.Response:
    voice = voice_of(call.request, speech_of(call, visitor))
    page = show(
        call.request,
        "register",
        voice,
        status=400 if errors else 200,
        person=visitor.session.email if visitor.session else None,
        tab=voice.say("register.title"),
        lines=[],
        amount=None,
        title=None,
        is_known=False,
        **_asked(given, errors),
        action=leading(call, "/register", wanted(call)),
        token=visitor.form_token(PURPOSE),
    )
    return visitor.keep(page)


# ---- Somebody who follows an invitation's link --------------------------------------------------


async def show_invited(call: Call[None, None]) -> web.Response:
    """Say what the person is invited to, and ask for their name."""
    visitor = await arrive(call)
    invitation = await _open(call)
    if invitation is None:
        return visitor.keep(_over(call, visitor))
    speech = speech_of(call, visitor)
    return await _invited_page(call, visitor, invitation, Given(language=speech.code), {})


async def take_invited(call: Call[None, None]) -> web.Response:
    """Register, sign in, and lead to the escrow: the link proves that the e-mail is theirs."""
    visitor = await arrive(call)
    form = await receive(call.request, visitor, f"{INVITED_PURPOSE}/{call.path['token']}")
    invitation = await _open(call)
    if invitation is None:
        return visitor.keep(_over(call, visitor))
    is_known = await read_user(call.house.pool, invitation.email) is not None
    given = _given(form)
    errors = {} if is_known else _errors(given, voice_of(call.request, speech_of(call, visitor)))
    if errors:
        return await _invited_page(call, visitor, invitation, given, errors)

    async def command(tx: Transaction) -> Wire:
        person, linked = await follow_link(
            tx,
            call.path["token"],
            given.first_name,
            given.last_name,
            language=given.language,
            is_phone_verified=False,
        )
        return RegistrationAnswer(user=user_shape(person), escrows=linked)

    try:
        await perform(call.house, call.actor, command)
    except InvitationNotFound:  # another tab was first
        return visitor.keep(_over(call, visitor))
    entered = await sign_in(visitor, HouseSessions(call.house), invitation.email)
    return entered.keep(see_other(f"/dashboard/escrow/{invitation.escrow_id}"))


async def _open(call: Call[None, None]) -> Invitation | None:
    found = await read_invitation_behind(call.house.pool, hash_token(call.path["token"]))
    return found if found is not None and found.is_open else None


async def _invited_page(
    call: Call[None, None],
    visitor: Visitor,
    invitation: Invitation,
    given: Given,
    errors: Mapping[str, str],
) -> web.Response:
    voice = voice_of(call.request, speech_of(call, visitor))
    escrow = await _invited_to(call.house.pool, invitation)
    amount = format(to_decimal(escrow.amount_minor, escrow.currency), "f")
    page = show(
        call.request,
        "register",
        voice,
        status=400 if errors else 200,
        tab=voice.tab(escrow.title),
        amount=voice.amount(amount, escrow.currency),
        title=voice.typed(escrow.title),
        lines=_lines(voice, escrow, invitation),
        is_known=await read_user(call.house.pool, invitation.email) is not None,
        **_asked(given, errors),
        action=leading(call, f"/register/{call.path['token']}", wanted(call)),
        token=visitor.form_token(f"{INVITED_PURPOSE}/{call.path['token']}"),
    )
    return visitor.keep(page)


async def _invited_to(reader: Reader, invitation: Invitation) -> Escrow | MilestoneEscrow:
    escrow_id = invitation.escrow_id
    found = await read_escrow(reader, escrow_id) or await read_milestone_escrow(reader, escrow_id)
    if found is None:
        raise AssertionError(f"the invitation {invitation.id} is to nothing")
    return found


def _lines(voice: Voice, escrow: Escrow | MilestoneEscrow, invitation: Invitation) -> list[str]:
    """Who invites whom, as what."""
    address = voice.say("register.address", email=voice.figure(invitation.email))
    if isinstance(escrow, MilestoneEscrow):
        return [_naming(voice, escrow, invitation), address]
    return [_dealing(voice, escrow, invitation), address]


def _naming(voice: Voice, escrow: MilestoneEscrow, invitation: Invitation) -> str:
    """The roles that they have by now."""
    email = invitation.email
    held = [role for role in ROLES if escrow.roles[role].email == email]
    if any(one.receiver and one.receiver.email == email for one in escrow.milestones):
        held.append(Role.MILESTONE_RECEIVER)
    names = [voice.say(f"role.{role}") for role in held]
    company = voice.typed(escrow.creator_company)
    return voice.say("register.as_role", company=company, role=Markup(" · ").join(names))


def _dealing(voice: Voice, escrow: Escrow, invitation: Invitation) -> str:
    is_seller = invitation.role == "seller"
    other, address = (
        (escrow.buyer, escrow.buyer_email) if is_seller else (escrow.seller, escrow.seller_email)
    )
    name = f"{other.first_name} {other.last_name}" if other else address
    return voice.say("register.as_seller" if is_seller else "register.as_buyer", other=name)


def _asked(given: Given, errors: Mapping[str, str]) -> dict[str, Any]:
    return {
        "given": given,
        "errors": errors,
        "choices": [(code, speech.own_name) for code, speech in LANGUAGES.items()],
    }


def _over(call: Call[None, None], visitor: Visitor) -> web.Response:
    """The link was used, or its escrow is over; signing in leads to whatever there is."""
    voice = voice_of(call.request, speech_of(call, visitor))
    return show(
        call.request,
        "expired",
        voice,
        status=404,
        tab=voice.say("page.expired.title"),
        back=leading(call, "/sign-in", wanted(call)),
        back_words=voice.say("sign_in.title"),
    )
