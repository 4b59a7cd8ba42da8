"""`/dashboard/settings`: name, language and time zone of a person, and the way out everywhere."""

from collections.abc import Mapping

from aiohttp import web

from service.commands import profiles
from service.commands.visits import HouseSessions
from service.ingress.call import Call
from service.ingress.pages.arrival import arrive, to_register, to_sign_in
from service.ingress.pages.forms import Form
from service.ingress.pages.names import wrong_names
from service.ingress.pages.page import see_other, show, spoken, voice_of
from service.ingress.pages.visitor import Visitor, receive, sign_out
from service.store.profiles import Profile, read_profile
from service.store.users import read_user
from service.words.languages import LANGUAGES
from service.words.pages import Voice
from service.words.zones import ZONES

PATH, PURPOSE = "/dashboard/settings", "settings"
EVERYWHERE = "sign_out_everywhere"


async def read(call: Call[None, None]) -> web.Response:
    """The settings as they stand."""
    visitor = await arrive(call)
    if visitor.session is None:
        return to_sign_in(call)
    if visitor.session.user_id is None:
        return to_register(call)
    profile = await read_profile(call.house.pool, visitor.session.user_id)
    if profile is None:
        return to_register(call)
    return await _shown(call, visitor, profile, {})


async def change(call: Call[None, None]) -> web.Response:
    """Store what the form says, or end every session of this person."""
    visitor = await arrive(call)
    if visitor.session is None:
        return to_sign_in(call)
    user_id = visitor.session.user_id
    if user_id is None:
        return to_register(call)
    form = await receive(call.request, visitor, PURPOSE)
    if form.text("act") == EVERYWHERE:
        await profiles.sign_out_everywhere(call.house, visitor.session.email)
        gone = await sign_out(visitor, HouseSessions(call.house))
        return gone.keep(see_other("/sign-in"))
    profile = _profile(form)
    speech = spoken(call.request, visitor.session.language)
    voice = voice_of(call.request, speech, visitor.session.timezone)
    errors = _errors(profile, voice)
    if errors:
        return await _shown(call, visitor, profile, errors, status=400)
    await call.perform(profiles.change(user_id, profile), call.actor.as_user(user_id))
    # What was chosen is stored now, so that no language rides along any more.
    return visitor.keep(see_other(f"{PATH}?saved=yes"))


def _profile(form: Form) -> Profile:
    return Profile(
        form.text("first_name"),
        form.text("last_name"),
        form.text("language"),
        form.text("timezone") or None,
    )


def _errors(given: Profile, voice: Voice) -> Mapping[str, str]:
    """What is wrong with the form, by field, in words that say how to mend it."""
    found = wrong_names(voice, {"first_name": given.first_name, "last_name": given.last_name})
    if given.language not in LANGUAGES:
        found["language"] = voice.say("field.choice")
    if given.timezone is not None and given.timezone not in ZONES:
        found["timezone"] = voice.say("settings.timezone_unknown")
    return found


async def _shown(
    call: Call[None, None],
    visitor: Visitor,
    given: Profile,
    errors: Mapping[str, str],
    status: int = 200,
) -> web.Response:
    session = visitor.session
    if session is None:
        raise AssertionError("settings are shown to who is signed in")
    speech = spoken(call.request, session.language)
    voice = voice_of(call.request, speech, session.timezone)
    # An option of a list has no markup.
    own = voice.say("settings.timezone_house", zone=call.house.policy.timezone).striptags()
    user = await read_user(call.house.pool, session.email)
    shown = show(
        call.request,
        "settings",
        voice,
        status=status,
        person=session.email,
        tab=voice.say("settings.title"),
        speech=speech,
        token=visitor.form_token(PURPOSE),
        given=given,
        errors=errors,
        is_saved=not errors and call.request.query.get("saved") == "yes",
        choices=[(one.code, one.own_name) for one in LANGUAGES.values()],
        zones=[("", own), *((zone, zone.replace("_", " ")) for zone in ZONES)],
        is_phone_verified=user is not None and user.person.is_phone_verified,
    )
    return visitor.keep(shown)
