"""`/sign-in`: an address, then the six digits that were mailed to it; and the way out.

For a checkout session the address is the session's, shown masked and never asked for. Nothing here
tells whether an address is registered, and no GET sends a mail or signs in: the mailed link leads
to a page with a button, since mailboxes look at links by themselves.
"""

from uuid import UUID

from aiohttp import web

from service.commands import visits
from service.commands.visits import SIGN_IN, HouseSessions, Proof, Tried
from service.ingress.call import Call
from service.ingress.errors import PathUnknown
from service.ingress.pages.arrival import (
    CHECKOUT,
    arrive,
    leading,
    masked,
    onward,
    speech_of,
    wanted,
)
from service.ingress.pages.figures import digits
from service.ingress.pages.page import see_other, show, voice_of
from service.ingress.pages.visitor import Visitor, receive, sign_in, sign_out
from service.rules.errors import TooManyCodes
from service.store.sessions import read_session
from service.store.vault import hash_token
from service.store.visits import Code, read_code
from service.wire.text import read_email
from service.words.pages import Voice

PURPOSE, CODE_PURPOSE, OUT_PURPOSE = "sign_in", "sign_in_code", "sign_out"
LINK_PURPOSE = "sign_in_link"


async def show_address(call: Call[None, None]) -> web.Response:
    """Ask for the address, or show to whose the code will go."""
    visitor = await arrive(call)
    bound = await _bound(call)
    if visitor.session is not None and bound in (None, visitor.session.email):
        return onward(call, visitor)
    return _address_page(call, visitor, bound)


async def take_address(call: Call[None, None]) -> web.Response:
    """Mail a code."""
    visitor = await arrive(call)
    form = await receive(call.request, visitor, PURPOSE)
    bound = await _bound(call)
    email = bound or read_email(form.text("email"))
    if email is None:
        return _address_page(
            call, visitor, None, given=form.text("email"), error="field.email", status=400
        )
    speech = speech_of(call, visitor)
    try:
        code_id = await visits.ask_code(
            call.house, email, call.actor.ip, speech.code, hash_token(visitor.token)
        )
    except TooManyCodes:
        given = "" if bound else form.text("email")
        return _address_page(
            call, visitor, bound, given=given, error="sign_in.too_many", status=429
        )
    return visitor.keep(see_other(leading(call, f"/sign-in/{code_id}", wanted(call))))


def _address_page(
    call: Call[None, None],
    visitor: Visitor,
    bound: str | None,
    *,
    given: str = "",
    error: str = "",
    status: int = 200,
) -> web.Response:
    voice = _voice(call, visitor)
    page = show(
        call.request,
        "sign_in",
        voice,
        status=status,
        tab=voice.say("sign_in.title"),
        bound=masked(bound) if bound else None,
        given=given,
        error=voice.say(error) if error else "",
        action=leading(call, "/sign-in", wanted(call)),
        token=visitor.form_token(PURPOSE),
    )
    return visitor.keep(page)


async def show_code(call: Call[None, None]) -> web.Response:
    """Ask for the digits."""
    visitor, code = await arrive(call), await _code(call)
    return onward(call, visitor) if _is_in(visitor, code) else _code_page(call, visitor, code)


async def take_code(call: Call[None, None]) -> web.Response:
    """The right digits sign in, under a session that nobody can have planted."""
    visitor, code = await arrive(call), await _code(call)
    if _is_in(visitor, code):  # the same form, sent twice: its token was the first one's
        return onward(call, visitor)
    form = await receive(call.request, visitor, CODE_PURPOSE)
    tried = await visits.try_code(
        call.house, SIGN_IN, code.id, digits(form.text("code")), hash_token(visitor.token)
    )
    if tried.proof is not Proof.RIGHT:
        return _code_page(call, visitor, code, tried)
    return await _entered(call, visitor, code)


async def _entered(call: Call[None, None], visitor: Visitor, code: Code) -> web.Response:
    entered = await sign_in(visitor, HouseSessions(call.house), code.email)
    return entered.keep(onward(call, entered))


def _is_in(visitor: Visitor, code: Code) -> bool:
    """Whether whom this code was for is signed in at this browser already."""
    return visitor.session is not None and visitor.session.email == code.email


def _code_page(
    call: Call[None, None], visitor: Visitor, code: Code, tried: Tried | None = None
) -> web.Response:
    voice = _voice(call, visitor)
    over = "over" if code.is_over or code.tries >= visits.TRIES_MAX else ""
    if tried is not None and tried.proof is Proof.OVER:
        over = "over"
    elif not over and not visits.is_askers(code, hash_token(visitor.token)):
        over = "elsewhere"
    error = ""
    if tried is not None and not over:
        error = voice.say("sign_in.wrong", left=str(left(tried, code)))
    page = show(
        call.request,
        "sign_in_code",
        voice,
        status=200 if tried is None else 400,
        tab=voice.say("sign_in.code_title"),
        said=voice.say("sign_in.sent", email=masked(code.email)),
        over=voice.say(f"sign_in.{over}") if over else None,
        error=error,
        action=leading(call, f"/sign-in/{code.id}", wanted(call)),
        again=leading(call, "/sign-in", wanted(call)),
        token=visitor.form_token(CODE_PURPOSE),
    )
    return visitor.keep(page)


async def show_link(call: Call[None, None]) -> web.Response:
    """The page that the mailed link leads to."""
    visitor, code = await arrive(call), await _linked(call)
    return onward(call, visitor) if _is_in(visitor, code) else _link_page(call, visitor, code)


async def take_link(call: Call[None, None]) -> web.Response:
    """The link signs in, in whatever browser."""
    visitor, code = await arrive(call), await _linked(call)
    if _is_in(visitor, code):
        return onward(call, visitor)
    await receive(call.request, visitor, LINK_PURPOSE)
    tried = await visits.follow_link(call.house, code.id, call.path["token"])
    if tried.proof is not Proof.RIGHT:
        return _link_page(call, visitor, code, is_over=True)
    return await _entered(call, visitor, code)


def _link_page(
    call: Call[None, None], visitor: Visitor, code: Code, *, is_over: bool = False
) -> web.Response:
    voice = _voice(call, visitor)
    page = show(
        call.request,
        "sign_in_link",
        voice,
        status=400 if is_over else 200,
        tab=voice.say("sign_in.title"),
        email=masked(code.email),
        is_over=is_over or code.is_link_over,
        action=leading(call, f"/sign-in/{code.id}/{call.path['token']}", wanted(call)),
        again=leading(call, "/sign-in", wanted(call)),
        token=visitor.form_token(LINK_PURPOSE),
    )
    return visitor.keep(page)


async def show_out(call: Call[None, None]) -> web.Response:
    """Ask whether to sign out."""
    visitor = await arrive(call)
    if visitor.session is None:
        return visitor.keep(see_other("/sign-in"))
    voice = _voice(call, visitor)
    page = show(
        call.request,
        "sign_out",
        voice,
        tab=voice.say("page.sign_out"),
        email=visitor.session.email,
        token=visitor.form_token(OUT_PURPOSE),
    )
    return visitor.keep(page)


async def take_out(call: Call[None, None]) -> web.Response:
    """The session is over."""
    visitor = await arrive(call)
    await receive(call.request, visitor, OUT_PURPOSE)
    gone = await sign_out(visitor, HouseSessions(call.house))
    return gone.keep(see_other("/sign-in"))


async def _bound(call: Call[None, None]) -> str | None:
    """The e-mail of the checkout session that this person comes for."""
    asked = CHECKOUT.fullmatch(wanted(call))
    if asked is None:
        return None
    try:
        session = await read_session(call.house.pool, UUID(asked[1]))
    except ValueError:
        return None
    return session.email if session else None


async def _code(call: Call[None, None]) -> Code:
    code = await read_code(call.house.pool, call.path["code"])
    if code is None or code.purpose != SIGN_IN:
        raise PathUnknown
    return code


async def _linked(call: Call[None, None]) -> Code:
    """The code whose link this is; any other is none."""
    code = await _code(call)
    if not visits.is_link(call.house.vault, code, call.path["token"]):
        raise PathUnknown
    return code


def _voice(call: Call[None, None], visitor: Visitor) -> Voice:
    return voice_of(call.request, speech_of(call, visitor))


def left(tried: Tried, code: Code) -> int:
    """How many tries are left after this one, as its row stood under its lock."""
    return visits.TRIES_MAX - (tried.code or code).tries - 1
