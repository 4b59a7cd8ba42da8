"""`/phone`: a number, then the six digits that were sent to it; needed before paying.

Where no gateway for text messages is configured (live without SMS_URL) there is nothing to verify.
"""

import re

from aiohttp import web

from service.commands import visits
from service.commands.visits import PHONE, Proof, Tried
from service.gateways.sms import Texter
from service.ingress.call import Call
from service.ingress.errors import PathUnknown
from service.ingress.pages.arrival import (
    arrive,
    leading,
    onward,
    speech_of,
    to_register,
    to_sign_in,
    wanted,
)
from service.ingress.pages.figures import digits
from service.ingress.pages.page import see_other, show, voice_of
from service.ingress.pages.sign_in import left
from service.ingress.pages.visitor import Visitor, receive
from service.rules.errors import GatewayFailure, TooManyCodes
from service.store.visits import Code, read_code

PURPOSE, CODE_PURPOSE = "phone", "phone_code"
NUMBER = re.compile(r"\+[1-9][0-9]{6,14}")
SEPARATORS = str.maketrans("", "", "-().\u2010\u2011\u2013")
ABROAD = "00"
"""What is dialled for the `+` in most of the world."""

TEXTER: web.AppKey[Texter] = web.AppKey("texter")


async def show_number(call: Call[None, None]) -> web.Response:
    """Ask for the number."""
    visitor = await arrive(call)
    return _unready(call, visitor) or _number_page(call, visitor)


async def take_number(call: Call[None, None]) -> web.Response:
    """Send a code to it."""
    visitor = await arrive(call)
    unready = _unready(call, visitor)
    if unready is not None or visitor.session is None:
        return unready or to_sign_in(call)
    form = await receive(call.request, visitor, PURPOSE)
    given = form.text("phone")
    phone = number_of(given)
    if NUMBER.fullmatch(phone) is None:
        return _number_page(call, visitor, given, "phone.wrong", 400)
    email, speech = visitor.session.email, speech_of(call, visitor)
    try:
        code_id = await visits.ask_phone_code(call.house, email, phone, call.actor.ip, speech.code)
        await _send(call, visitor, phone, code_id)
    except TooManyCodes:
        return _number_page(call, visitor, given, "refusal.TOO_MANY_CODES", 429)
    except GatewayFailure:
        return _number_page(call, visitor, given, "phone.not_sent", 502)
    return see_other(leading(call, f"/phone/{code_id}", wanted(call)))


def number_of(given: str) -> str:
    """The number as E.164 writes it; what is none stays none."""
    plain = digits(given).translate(SEPARATORS)
    return f"+{plain.removeprefix(ABROAD)}" if plain.startswith(ABROAD) else plain


async def _send(call: Call[None, None], visitor: Visitor, phone: str, code_id: str) -> None:
    texter = call.request.app.get(TEXTER)
    if call.house.policy.is_sandbox or texter is None:
        return
    voice = voice_of(call.request, speech_of(call, visitor))
    code = call.house.vault.code(PHONE, code_id)
    await texter.send(phone, voice.plain("phone.message").format(code=code))


def _number_page(
    call: Call[None, None], visitor: Visitor, given: str = "", error: str = "", status: int = 200
) -> web.Response:
    voice = voice_of(call.request, speech_of(call, visitor))
    page = show(
        call.request,
        "phone",
        voice,
        status=status,
        person=visitor.session.email if visitor.session else None,
        tab=voice.say("phone.title"),
        given=given,
        error=voice.say(error) if error else "",
        action=leading(call, "/phone", wanted(call)),
        back=wanted(call),
        token=visitor.form_token(PURPOSE),
    )
    return visitor.keep(page)


async def show_code(call: Call[None, None]) -> web.Response:
    """Ask for the digits."""
    visitor = await arrive(call)
    unready = _unready(call, visitor)
    if unready is not None:
        return unready
    code = await _code(call, visitor)
    return onward(call, visitor) if code.is_used else _code_page(call, visitor, code)


async def take_code(call: Call[None, None]) -> web.Response:
    """The right digits verify the phone."""
    visitor = await arrive(call)
    unready = _unready(call, visitor)
    if unready is not None:
        return unready
    form = await receive(call.request, visitor, CODE_PURPOSE)
    code = await _code(call, visitor)
    tried = await visits.try_code(call.house, PHONE, code.id, digits(form.text("code")), None)
    is_done = tried.code is not None and tried.code.is_used  # the same form, sent twice
    if tried.proof is not Proof.RIGHT and not is_done:
        return _code_page(call, visitor, code, tried)
    return onward(call, visitor)


def _code_page(
    call: Call[None, None], visitor: Visitor, code: Code, tried: Tried | None = None
) -> web.Response:
    voice = voice_of(call.request, speech_of(call, visitor))
    is_over = code.is_over or code.tries >= visits.TRIES_MAX
    is_over = is_over or (tried is not None and tried.proof is Proof.OVER)
    error = ""
    if tried is not None and not is_over:
        error = voice.say("sign_in.wrong", left=str(left(tried, code)))
    page = show(
        call.request,
        "sign_in_code",
        voice,
        status=200 if tried is None else 400,
        person=visitor.session.email if visitor.session else None,
        tab=voice.say("sign_in.code_title"),
        said=voice.say("phone.sent", phone=voice.figure(code.phone or "")),
        over=voice.say("sign_in.over") if is_over else None,
        error=error,
        action=leading(call, f"/phone/{code.id}", wanted(call)),
        again=leading(call, "/phone", wanted(call)),
        token=visitor.form_token(CODE_PURPOSE),
    )
    return visitor.keep(page)


def _unready(call: Call[None, None], visitor: Visitor) -> web.Response | None:
    if visitor.session is None:
        return to_sign_in(call)
    if visitor.session.user_id is None:
        return to_register(call)
    return None if call.house.policy.phone_is_required else onward(call, visitor)


async def _code(call: Call[None, None], visitor: Visitor) -> Code:
    """Their own code only."""
    code = await read_code(call.house.pool, call.path["code"])
    email = visitor.session.email if visitor.session else None
    if code is None or code.purpose != PHONE or code.email != email:
        raise PathUnknown
    return code
