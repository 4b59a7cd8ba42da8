"""`/dashboard/escrow/{id}/{step}` of a milestone escrow: one step on a page of its own.

The step is taken by the command that the API, sessions and the sandbox take it by
(`api.milestones.ACTS`); the rules decide when it is sent, not when it is shown.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from aiohttp import web
from markupsafe import Markup

from service.commands.milestones import as_seen
from service.commands.perform import Command
from service.ingress.api.milestones import acted
from service.ingress.call import Call
from service.ingress.errors import PathUnknown
from service.ingress.pages.blanks import Blank, Filled
from service.ingress.pages.milestone_blanks import (
    KNOWN_MAX,
    Recipient,
    blanks_of,
    fill,
    has_version,
    key_of,
    recipients,
    seen,
    still_meant,
)
from service.ingress.pages.milestone_look import MilestoneLook, approach, sum_of
from service.ingress.pages.milestone_standing import PAGES, Choice, choices, named, why_not
from service.ingress.pages.once import carry_out, sending
from service.ingress.pages.page import see_other, show
from service.ingress.pages.step import BRIEF, Said
from service.ingress.pages.visitor import receive
from service.rules.engagement import MilestoneEscrow
from service.rules.errors import InsufficientFunds, Invalid, Refused
from service.store.ledger import read_balance
from service.store.milestones import read_fundings
from service.words.pages import Voice

FUND = "fund"


async def read(call: Call[None, None]) -> web.StreamResponse:
    """The step's form; where it cannot be taken now, why."""
    look = await approach(call)
    if isinstance(look, web.Response):
        return look
    _check(call.path["step"])
    return await _shown(call, look, BRIEF, Said())


async def take(call: Call[None, None]) -> web.StreamResponse:
    """Take the step as the form says; what is refused is shown again with what was typed.

    Raises:
        EscrowNotFound, PathUnknown, FormNotOurs.
    """
    look = await approach(call)
    if isinstance(look, web.Response):
        return look
    step = call.path["step"]
    _check(step)
    form = await receive(call.request, look.visitor, purpose(look, step))
    filled = fill(step, form, look)
    said = Said(400)
    if not filled.errors:
        try:
            command = on_page(look.escrow, step, filled)
            sent = sending(call, look.user_id, form)
            await carry_out(call, call.actor.as_user(look.user_id), command, sent)
        except (Invalid, Refused) as no:
            filled, said = stands_against(no, step, filled, look)
        else:
            done = look.speech.carry(f"{look.path}?done=yes")
            return look.visitor.keep(see_other(done))
    again = await approach(call)  # as it stands after whatever was in the way
    if isinstance(again, web.Response):
        return again
    return await _shown(call, again, filled, said)


def purpose(look: MilestoneLook, step: str) -> str:
    """What the form's token is for."""
    return f"escrow/{look.escrow.id}/{step}"


def on_page(escrow: MilestoneEscrow, step: str, filled: Filled) -> Command:
    """The step as the form says, on the terms that were shown with it.

    Raises:
        InvalidPayload: with every bad field at once.
    """
    taking = acted(escrow.id, step, filled.brings)
    return as_seen(escrow.id, seen(filled), taking) if has_version(step, escrow) else taking


def stands_against(
    no: Refused, step: str, filled: Filled, look: MilestoneLook
) -> tuple[Filled, Said]:
    """What is said against the form: beside its first blank where the form is to blame."""
    if isinstance(no, Invalid):
        unclear = look.voice.say("page.error.unclear.text")
        wrong = {one.name: unclear for one in blanks_of(step, look.escrow)[:1]}
        return replace(filled, errors=wrong), Said(400)
    is_short = isinstance(no, InsufficientFunds)
    return filled, Said(409, why_not(no, look.voice), tops_up=is_short)


def _check(step: str) -> None:
    if step not in PAGES:
        raise PathUnknown


# ---- How it is shown ----------------------------------------------------------------------------


async def _shown(
    call: Call[None, None], look: MilestoneLook, filled: Filled, said: Said
) -> web.Response:
    voice, step = look.voice, call.path["step"]
    mine = {one.step: one for one in choices(look.escrow, look.user_id, voice, look.clock.now)}
    if step not in mine:
        raise PathUnknown
    choice = mine[step]
    shown = show(
        call.request,
        "step",
        voice,
        status=409 if choice.obstacle is not None else said.status,
        person=look.email,
        tab=choice.words,
        action=look.speech.carry(f"{look.path}/{step}"),
        token=look.visitor.form_token(purpose(look, step)),
        heading=choice.words,
        back=look.speech.carry(look.path),
        **await form_of(call, look, choice, filled, said),
    )
    return look.visitor.keep(shown)


async def form_of(
    call: Call[None, None],
    look: MilestoneLook,
    choice: Choice,
    filled: Filled,
    said: Said,
    *,
    is_given: bool = False,
) -> dict[str, Any]:
    """What `step_form.html` shows of a step; without blanks where its input `is_given`."""
    escrow, voice, step = look.escrow, look.voice, choice.step
    key = key_of(step, escrow)
    values: dict[str, Markup] = {**look.values}
    if step == FUND:
        balance = await read_balance(call.house.pool, look.user_id, escrow.currency)
        values["available"] = sum_of(voice, balance.available, escrow.currency)
    blanks = () if is_given else blanks_of(step, escrow)
    typed = still_meant(filled, escrow)
    offered: list[Recipient] = []
    if _has(blanks, "shares"):
        payers = await read_fundings(call.house.pool, escrow.id, KNOWN_MAX)
        offered = recipients(escrow, payers, voice, typed)
    return {
        "speech": look.speech,
        "amount": values["amount"],
        "title": values["title"],
        "obstacle": choice.obstacle,
        "notice": said.notice,
        "tops_up": said.tops_up,
        "currency_wanted": escrow.currency,
        "is_wrong": bool(filled.errors),
        "consequence": voice.say(f"milestone_step.{key}.consequence", **values),
        "button": voice.say(f"milestone_step.{key}.button", **values),
        "step": f"milestone/{step}",
        "blanks": blanks,
        "typed": typed,
        "errors": filled.errors,
        "hidden": {"version": str(escrow.version)},
        "hints": _hints(blanks, values, voice),
        "options": _options(look, choice),
        "recipients": offered,
        "currency": voice.figure(escrow.currency),
        "offer": None,
        "accepts": "",
    }


def _has(blanks: tuple[Blank, ...] | Any, kind: str) -> bool:
    return any(one.kind == kind for one in blanks)


def _options(look: MilestoneLook, choice: Choice) -> list[tuple[str, Markup]]:
    """The milestones on which the step can be taken, as (index, words) pairs."""
    indexes = choice.indexes
    if indexes is None:
        return []
    return [(str(index), named(look.escrow, index, look.voice)) for index in indexes]


def _hints(blanks: Any, values: Mapping[str, Markup], voice: Voice) -> Mapping[str, Markup]:
    """What is said below a blank's name, where there is something to say."""
    return {
        one.name: voice.say(f"step.{one.name}_hint", **values)
        for one in blanks
        if one.kind in ("sum", "shares")
    }
