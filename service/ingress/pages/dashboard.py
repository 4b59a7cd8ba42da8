"""`GET /dashboard`: a person's escrows, what waits for them first, then the rest, newest first.

Two lists, one after the other, each with its own cursor: `turn` walks on among what waits for the
person, `before` among the rest, which begins where the first one ends. Escrows with milestones are
a list of their own beside them, which `part` walks on.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import timedelta
from urllib.parse import urlencode

from aiohttp import web
from markupsafe import Markup

from service.commands.perform import House
from service.ingress.call import Call
from service.ingress.pages.arrival import arrive, to_register, to_sign_in
from service.ingress.pages.milestone_look import sum_of
from service.ingress.pages.milestone_standing import MEANINGS, awaits, mine
from service.ingress.pages.page import Speech, show, spoken, voice_of
from service.ingress.pages.standing import facts, party
from service.rules.aggregate import Escrow
from service.rules.engagement import MilestoneEscrow
from service.rules.machine import Role
from service.rules.money import LEDGER_CURRENCY, to_decimal
from service.store.clock import Clock, read_clock
from service.store.dashboard import (
    list_awaiting,
    list_milestones,
    list_namings,
    list_others,
)
from service.store.ledger import read_balance
from service.wire.base import instant
from service.words.pages import Voice

ENTRIES = 20
NAMINGS = 3
NEW_FOR = timedelta(days=7)
TEXT_CHARACTERS = 200
CURSOR = re.compile(r"[0-9a-f]{24}")


@dataclass(frozen=True, slots=True)
class Entry:
    """A row of a list."""

    link: str
    title: Markup
    amount: str
    line: Markup
    opened: Markup
    meaning: str
    status: Markup


@dataclass(frozen=True, slots=True)
class Listed:
    """What one page shows; the cursors of the next one, None where there is nothing more."""

    awaiting: Sequence[Escrow]
    others: Sequence[Escrow]
    onward: Mapping[str, str]


async def read_list(call: Call[None, None]) -> web.Response:
    """The person's escrows; whoever is not signed in is led to where they can be."""
    visitor = await arrive(call)
    if visitor.session is None:
        return to_sign_in(call)
    user_id = visitor.session.user_id
    if user_id is None:
        return to_register(call)
    query = call.request.query
    text = query.get("q", "").replace("\0", "").strip()[:TEXT_CHARACTERS] or None
    turn, before, part = (_cursor(query.get(name)) for name in ("turn", "before", "part"))
    house, clock = call.house, await read_clock(call.house.pool)
    speech = spoken(call.request, visitor.session.language)
    voice = voice_of(call.request, speech, visitor.session.timezone, instant(clock.now))
    listed = await _listed(house, user_id, turn, before, text)
    balance = await read_balance(house.pool, user_id, LEDGER_CURRENCY)
    is_first = turn is None and before is None and part is None
    engaged = await _engaged(house, user_id, part, text, is_shown=is_first or part is not None)
    if part is not None:
        listed = Listed((), (), {})
    shown = show(
        call.request,
        "dashboard",
        voice,
        person=visitor.session.email,
        tab=voice.say("dashboard.title"),
        speech=speech,
        text=text,
        balance=voice.amount(
            format(to_decimal(balance.available, LEDGER_CURRENCY), "f"), LEDGER_CURRENCY
        ),
        namings=await _namings(house, user_id, clock, voice, speech)
        if is_first and not text
        else [],
        awaiting=[_entry(one, user_id, voice, speech, house, clock) for one in listed.awaiting],
        others=[_entry(one, user_id, voice, speech, house, clock) for one in listed.others],
        engaged=[_engagement(one, user_id, voice, speech, clock) for one in engaged[:ENTRIES]],
        engaged_older=_page(speech, text, {"part": engaged[ENTRIES - 1].id})
        if len(engaged) > ENTRIES
        else None,
        older=_page(speech, text, listed.onward) if listed.onward else None,
        newest=None if is_first else _page(speech, text, {}),
    )
    return visitor.keep(shown)


def _cursor(given: str | None) -> str | None:
    """An id of ours, or nothing: a cursor that was tampered with begins anew."""
    return given if given is not None and CURSOR.fullmatch(given) else None


async def _listed(
    house: House, user_id: str, turn: str | None, before: str | None, text: str | None
) -> Listed:
    awaiting: Sequence[Escrow] = ()
    if before is None:
        awaiting = await list_awaiting(
            house.pool, user_id, before=turn, text=text, limit=ENTRIES + 1
        )
        if len(awaiting) > ENTRIES:
            awaiting = awaiting[:ENTRIES]
            return Listed(awaiting, (), {"turn": awaiting[-1].id})
    room = ENTRIES - len(awaiting)
    others = await list_others(house.pool, user_id, before=before, text=text, limit=room + 1)
    if len(others) <= room:
        return Listed(awaiting, others, {})
    shown = others[:room]
    # With a full page of what waits, the rest begins on the next one: after no id at all.
    return Listed(awaiting, shown, {"before": shown[-1].id if shown else "f" * 24})


async def _engaged(
    house: House, user_id: str, part: str | None, text: str | None, *, is_shown: bool
) -> Sequence[MilestoneEscrow]:
    """The escrows with milestones, one more than a page has; on the lists' first page, or alone."""
    if not is_shown:
        return ()
    return await list_milestones(house.pool, user_id, before=part, text=text, limit=ENTRIES + 1)


def _page(speech: Speech, text: str | None, cursor: Mapping[str, str]) -> str:
    query = {**({"q": text} if text else {}), **cursor}
    return speech.carry(f"/dashboard?{urlencode(query)}" if query else "/dashboard")


def _entry(
    escrow: Escrow, user_id: str, voice: Voice, speech: Speech, house: House, clock: Clock
) -> Entry:
    role = party(escrow, user_id) or Role.BUYER
    values = voice.values(facts(escrow, role, clock.now, house.policy))
    meaning, status = voice.status(escrow.status)
    line = "dashboard.sells" if role is Role.SELLER else "dashboard.buys"
    return Entry(
        link=speech.carry(f"/dashboard/escrow/{escrow.id}"),
        title=voice.typed(escrow.title),
        amount=values["amount"],
        line=voice.say(line, **values),
        opened=voice.say("dashboard.opened", at=voice.moment(instant(escrow.created_at))),
        meaning=meaning,
        status=status,
    )


def _engagement(
    escrow: MilestoneEscrow, user_id: str, voice: Voice, speech: Speech, clock: Clock
) -> Entry:
    is_turn = awaits(escrow, user_id, clock.now)
    status = voice.say(f"milestone_page.status.{escrow.status}")
    return Entry(
        link=speech.carry(f"/dashboard/escrow/{escrow.id}"),
        title=voice.typed(escrow.title),
        amount=sum_of(voice, escrow.amount_minor, escrow.currency),
        line=voice.say("dashboard.as_roles", roles=mine(escrow, user_id, voice)),
        opened=voice.say("dashboard.opened", at=voice.moment(instant(escrow.created_at))),
        meaning=MEANINGS[escrow.status],
        status=Markup("{} · {}").format(voice.say("dashboard.turn"), status) if is_turn else status,
    )


async def _namings(
    house: House, user_id: str, clock: Clock, voice: Voice, speech: Speech
) -> list[tuple[Markup, str]]:
    """What is new: a sentence and where it leads."""
    since = clock.now - NEW_FOR
    new = await list_namings(house.pool, user_id, since=since, limit=NAMINGS)
    told = []
    for escrow in new:
        role = party(escrow, user_id) or Role.BUYER
        values = voice.values(facts(escrow, role, clock.now, house.policy))
        sentence = voice.say(f"dashboard.named_{role}", company=escrow.creator_company, **values)
        told.append((sentence, speech.carry(f"/dashboard/escrow/{escrow.id}")))
    return told
