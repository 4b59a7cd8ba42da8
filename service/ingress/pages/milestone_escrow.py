"""`/dashboard/escrow/{id}` of a milestone escrow: for whoever holds a role in it.

Terms, roles, milestones, the way of the money, what has happened, and each step that is theirs.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from aiohttp import web
from markupsafe import Markup

from service.ingress.api.milestones import told_of
from service.ingress.call import Call
from service.ingress.pages.milestone_look import MilestoneLook, approach
from service.ingress.pages.milestone_standing import (
    MEANINGS,
    amounts,
    awaits,
    choices,
    deadlines,
    mine,
    numbered,
    parts,
    roles,
    terms,
)
from service.ingress.pages.page import show
from service.rules.engagement import FINAL
from service.rules.escrow import STATUS_UPDATED
from service.store.milestone_lists import LoggedEvent, read_events
from service.wire.base import instant
from service.wire.milestones import ROLE_NAMES
from service.words.pages import Voice

EVENTS = 30
SEQ_CHARACTERS = 15


async def read(call: Call[None, None]) -> web.Response:
    """The escrow: where it stands, what this person may do, and all that it is about."""
    look = await approach(call)
    if isinstance(look, web.Response):
        return look
    escrow, voice, speech = look.escrow, look.voice, look.speech
    offered = choices(escrow, look.user_id, voice, look.clock.now)
    is_over = escrow.status in FINAL
    is_turn = awaits(escrow, look.user_id, look.clock.now)
    newest = _newest(call.request.query.get("before", ""), escrow.seq)
    log = await _log(call, look, newest)
    shown = show(
        call.request,
        "milestone_escrow",
        voice,
        person=look.email,
        tab=voice.tab(escrow.title),
        speech=speech,
        amount=look.values["amount"],
        title=look.values["title"],
        is_done=call.request.query.get("done") == "yes",
        meaning=MEANINGS[escrow.status],
        says=voice.say(f"milestone_page.status.{escrow.status}"),
        is_frozen=escrow.frozen,
        you=voice.say("milestone_page.you_are", roles=mine(escrow, look.user_id, voice)),
        waiting=voice.say("escrow_page.waits_you") if is_turn else None,
        can=[
            {"words": one.words, "url": speech.carry(f"{look.path}/{one.step}")}
            for one in offered
            if one.obstacle is None
        ],
        cannot=[one for one in offered if one.obstacle is not None],
        leads=is_turn,
        is_over=is_over,
        people=roles(escrow, look.user_id, voice),
        deadlines=deadlines(escrow, look.opened, voice),
        amounts=amounts(escrow, voice),
        terms=terms(escrow, voice),
        parts_shown=parts(escrow, voice),
        description=voice.lines(escrow.description) if escrow.description else None,
        happened=log,
        older=speech.carry(f"{look.path}?before={newest - EVENTS}") if newest > EVENTS else None,
        newest=speech.carry(look.path) if newest < escrow.seq else None,
    )
    return look.visitor.keep(shown)


def _newest(asked: str, last: int) -> int:
    """The seq from which the log is shown, backwards; the last one where none was asked for."""
    is_one = asked.isascii() and asked.isdigit() and len(asked) <= SEQ_CHARACTERS
    return min(int(asked), last) if is_one and int(asked) > 0 else last


# ---- What has happened --------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Happened:
    """One event in words: what, when, what was written with it, who was given how much."""

    says: Markup
    at: Markup
    quote: Markup | None = None
    rows: Sequence[tuple[Markup, Markup]] = ()


async def _log(call: Call[None, None], look: MilestoneLook, newest: int) -> list[Happened]:
    found = await read_events(call.house.pool, look.escrow.id, max(0, newest - EVENTS), EVENTS)
    shown = [_happened(one, look.voice) for one in found if one.seq <= newest]
    return [one for one in reversed(shown) if one is not None]


def _happened(event: LoggedEvent, voice: Voice) -> Happened | None:
    at = voice.moment(instant(event.at))
    told = told_of(event)
    name = event.type.replace(".", "_")
    if event.type == STATUS_UPDATED:
        status = voice.say(f"milestone_page.status.{told['escrow']['status']}")
        return Happened(voice.say("milestone_page.event.status", status=status), at)
    key = f"milestone_page.event.{name}"
    if told.get("by") == "clock":
        key = f"{key}_by_clock"
    if not voice.knows(key):
        return None
    return Happened(
        voice.say(key, **_values(told, voice)), at, _quote(told, voice), _shares(told, voice)
    )


_SUMS = ("amount", "balance", "gross", "net", "total")
_PEOPLE = {"payer": "payer", "receiver": "receiver", "openedBy": "by"}


def _values(told: Mapping[str, Any], voice: Voice) -> dict[str, Markup]:
    """What a sentence about this event may name."""
    currency = told["escrow"]["currency"]
    values = {name: voice.amount(told[name], currency) for name in _SUMS if name in told}
    values |= {name: voice.typed(told[key]) for key, name in _PEOPLE.items() if key in told}
    if "fees" in told:
        both = sum(Decimal(told["fees"][name]) for name in ("protocol", "platform"))
        values["fees"] = voice.amount(format(Decimal(both), "f"), currency)
    if "note" in told:
        values["by"] = voice.typed(told["note"]["by"])
    if "invitation" in told:
        values["by"] = voice.typed(told["invitation"]["email"])
        role = ROLE_NAMES.get(told["invitation"]["role"], told["invitation"]["role"])
        values["role"] = voice.say(f"role.{role}")
    index = told.get("milestoneIndex")
    if index is not None:
        values["number"] = numbered(voice, index)
    if "status" in told:
        values["status"] = voice.typed(told["status"])
    return values


def _quote(told: Mapping[str, Any], voice: Voice) -> Markup | None:
    text = told.get("reason") or told.get("note", {}).get("text")
    return voice.lines(text) if text else None


def _shares(told: Mapping[str, Any], voice: Voice) -> Sequence[tuple[Markup, Markup]]:
    currency = told["escrow"]["currency"]
    return [
        (voice.typed(one["email"]), voice.amount(one["net"], currency))
        for one in told.get("distributions", ())
    ]
