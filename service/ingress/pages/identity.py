"""`/identity/{token}`: where a person shows who they are, by the link that was mailed to them.

The link proves the mailbox, so that nobody signs in here. It is spent by the documents; after that
the same page says how the verification stands. What was uploaded is never shown again.
"""

from datetime import datetime

from aiohttp import web

from service.commands.identity import submit
from service.commands.perform import perform
from service.ingress.call import Call
from service.ingress.pages.arrival import arrive
from service.ingress.pages.page import Speech, see_other, show, spoken, voice_of
from service.ingress.pages.visitor import Visitor, receive
from service.ingress.uploads import take_files
from service.rules.errors import (
    VerificationDecided,
    VerificationExpired,
    VerificationNotFound,
    VerificationUnderReview,
)
from service.rules.files import FORM_BYTES_MAX
from service.rules.identity import APPROVED, DOCUMENTS_MAX, REJECTED, Verification
from service.store.clock import read_clock
from service.store.identity import read_verification_behind
from service.store.vault import hash_token
from service.wire.base import instant
from service.words.pages import Voice

ACCEPTED = "image/png,image/jpeg,image/webp,application/pdf"
OVER = (VerificationDecided, VerificationExpired, VerificationNotFound, VerificationUnderReview)

ASKING, RECEIVED = "asking", "received"
EXPIRED = "expired"
MEANING = {RECEIVED: "waiting", APPROVED: "done", REJECTED: "problem"}
FOLLOWED_BY = {RECEIVED: ("received_next",), APPROVED: (), REJECTED: ("rejected_next",)}


async def show_asked(call: Call[None, None]) -> web.Response:
    """Ask for the documents, or say how the verification stands."""
    return await _page(call, await arrive(call))


async def take_documents(call: Call[None, None]) -> web.Response:
    """Keep what was uploaded; from then on the operator decides."""
    visitor = await arrive(call)
    uploads = take_files(call.request, DOCUMENTS_MAX)
    await receive(call.request, visitor, purpose(call), bytes_max=FORM_BYTES_MAX, keep=uploads)
    speech = _speech(call, visitor)
    if uploads.refusal is not None:
        return await _page(call, visitor, f"refusal.{uploads.refusal.code}")
    if not uploads.files:
        return await _page(call, visitor, "field.required")
    person = call.actor.as_user(None)
    try:
        await perform(call.house, person, submit(call.path["token"], uploads.files, speech.code))
    except OVER:  # it was sent twice, or was decided meanwhile: the page says how it stands
        await uploads.discard()
    return visitor.keep(see_other(speech.carry(_path(call))))


def purpose(call: Call[None, None]) -> str:
    """What the form of this link is for."""
    return f"identity/{call.path['token']}"


def standing(verification: Verification, now: datetime) -> str:
    """What the page shows: asking, received, approved, rejected or expired."""
    if verification.kyc_status in (APPROVED, REJECTED):
        return verification.kyc_status
    if verification.is_expired(now) or verification.superseded:
        return EXPIRED
    return RECEIVED if verification.needs_admin_review else ASKING


async def _page(call: Call[None, None], visitor: Visitor, error: str = "") -> web.Response:
    """The page as the verification stands; `error` is the sentence that stands beside the files."""
    pool = call.house.pool
    speech = _speech(call, visitor)
    found = await read_verification_behind(pool, hash_token(call.path["token"]))
    if found is None:
        return visitor.keep(_over(call, speech))
    verification, company = found
    now = (await read_clock(pool)).now
    stands = standing(verification, now)
    if stands == EXPIRED:
        return visitor.keep(_over(call, speech))
    voice = _voice(call, visitor, speech)
    if stands != ASKING:
        return visitor.keep(_told(call, visitor, voice, verification, company, stands))
    page = show(
        call.request,
        "identity",
        voice,
        status=400 if error else 200,
        person=visitor.session.email if visitor.session else None,
        tab=voice.say("identity.title"),
        company=company,
        email=voice.figure(verification.email),
        until=voice.moment(instant(verification.expires_at)),
        accept=ACCEPTED,
        error=voice.say(error) if error else "",
        action=speech.carry(_path(call)),
        token=visitor.form_token(purpose(call)),
    )
    return visitor.keep(page)


def _told(
    call: Call[None, None],
    visitor: Visitor,
    voice: Voice,
    verification: Verification,
    company: str,
    stands: str,
) -> web.Response:
    """How it stands, and the way back to who asked, where they gave one: just as they gave it."""
    keys = (stands, *FOLLOWED_BY[stands])
    return show(
        call.request,
        "told",
        voice,
        person=visitor.session.email if visitor.session else None,
        tab=voice.say(f"identity.{stands}_title"),
        title=voice.say(f"identity.{stands}_title"),
        state=MEANING[stands],
        sentences=[voice.say(f"identity.{key}", company=company) for key in keys],
        link=verification.redirect_url,
        link_words=voice.say("identity.back", company=company),
    )


def _over(call: Call[None, None], speech: Speech) -> web.Response:
    """No verification has this link, or it waited too long: nobody is told which."""
    voice = voice_of(call.request, speech)
    return show(
        call.request,
        "expired",
        voice,
        status=404,
        tab=voice.say("page.expired.title"),
        back=None,
        back_words="",
    )


def _speech(call: Call[None, None], visitor: Visitor) -> Speech:
    return spoken(call.request, visitor.session.language if visitor.session else None)


def _voice(call: Call[None, None], visitor: Visitor, speech: Speech) -> Voice:
    return voice_of(call.request, speech, visitor.session.timezone if visitor.session else None)


def _path(call: Call[None, None]) -> str:
    return f"/identity/{call.path['token']}"
