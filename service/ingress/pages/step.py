"""`/dashboard/escrow/{id}/{step}`: one step of one party, on a page of its own.

What the button does is said before it. The step is taken through the command that checkout and the
sandbox take it by (`api.sessions.ACTS`); the rules decide when it is sent, not when it is shown.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from aiohttp import web

from service.commands.payments import Wish
from service.commands.perform import Idempotency
from service.ingress.api.sessions import ACTS
from service.ingress.bodies import as_model
from service.ingress.call import Call
from service.ingress.errors import PathUnknown
from service.ingress.pages import paying
from service.ingress.pages.arrival import to_phone
from service.ingress.pages.blanks import BLANKS, Filled, bytes_max, fill
from service.ingress.pages.escrow import Look, approach
from service.ingress.pages.once import carry_out, sending
from service.ingress.pages.page import POLICY, see_other, show, with_scripts
from service.ingress.pages.standing import PAGES, choices, ledger_money, why_not
from service.ingress.pages.visitor import receive
from service.ingress.uploads import Uploads, take_files
from service.rules.aggregate import Escrow
from service.rules.dispute import Offer
from service.rules.errors import InsufficientFunds, Invalid, PhoneNotVerified, Refused
from service.rules.escrow import INSTANT
from service.rules.money import to_decimal
from service.rules.payment import ACCEPT_PAY
from service.store.disputes import read_offers
from service.store.ledger import Balance, read_balance
from service.words.pages import Voice

WALLET = "wallet"
ONCE_AT_INSTANTS = frozenset({"accept_pay", "deliver"})
"""Steps that do something else where there is nothing between payment and delivery."""
BRIEF = Filled({}, {}, {})


@dataclass(frozen=True, slots=True)
class Said:
    """What stands against the form: a sentence, and the status that it is answered with."""

    status: int = 200
    notice: str | None = None
    tops_up: bool = False


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
    takes_files = ACTS[step].files_min is not None
    uploads = take_files(call.request)
    form = await receive(
        call.request,
        look.visitor,
        purpose(look, step),
        bytes_max=bytes_max(step),
        keep=uploads if takes_files else None,
    )
    filled = fill(step, form, look, uploads.refusal, uploads.files)
    answer: web.StreamResponse | None = None
    said = Said(400)
    if not filled.errors:
        sent = sending(call, look.user_id, form, uploads.files)
        answer, filled, said = await _taken(call, look, step, filled, uploads, sent)
    if answer is not None:
        return answer
    await uploads.discard()
    again = await approach(call)  # as it stands after whatever was in the way
    if isinstance(again, web.Response):
        return again
    return await _shown(call, again, filled, said)


def purpose(look: Look, step: str) -> str:
    """What the form's token is for."""
    return f"escrow/{look.escrow.id}/{step}"


def _check(step: str) -> None:
    if step not in PAGES:
        raise PathUnknown


Taken = tuple[web.StreamResponse | None, Filled, Said]


async def _taken(
    call: Call[None, None],
    look: Look,
    step: str,
    filled: Filled,
    uploads: Uploads,
    sent: Idempotency | None,
) -> Taken:
    """The answer once the step is taken, or what is said against it."""
    act, voice = ACTS[step], look.voice
    try:
        if step == ACCEPT_PAY and filled.typed.get("way", WALLET) != WALLET:
            return await _sent_to_pay(call, look, filled, sent), filled, Said()
        command = act.taking(look.escrow.id, as_model(act.brings, filled.brings), uploads.files)
        if (await carry_out(call, call.actor.as_user(look.user_id), command, sent)).replayed:
            await uploads.discard()
    except PhoneNotVerified:
        return look.visitor.keep(to_phone(call)), filled, Said()
    except Invalid:
        unclear = voice.say("page.error.unclear.text")
        errors: Mapping[str, Any] = {one.name: unclear for one in BLANKS[step][:1]}
        return None, replace(filled, errors=errors), Said(400)
    except Refused as no:
        notice = why_not(no, look.escrow, voice)
        return None, filled, Said(409, notice, tops_up=isinstance(no, InsufficientFunds))
    done = look.speech.carry(f"{look.path}?done=yes")
    return look.visitor.keep(see_other(done)), filled, Said()


async def _sent_to_pay(
    call: Call[None, None], look: Look, filled: Filled, sent: Idempotency | None
) -> web.StreamResponse:
    wish = await wish_of(call, look, filled.typed["way"], filled)
    return look.visitor.keep(await paying.start(call, look.visitor, wish, look.path, sent))


async def wish_of(call: Call[None, None], look: Look, way: str, filled: Filled) -> Wish:
    """To pay this escrow so: what the wallet lacks where there is something in it, else all."""
    escrow = look.escrow
    balance = await read_balance(call.house.pool, look.user_id, escrow.ledger_currency)
    return Wish(
        ACCEPT_PAY,
        way,
        _lacking(escrow, balance),
        escrow.ledger_currency,
        user_id=look.user_id,
        escrow_id=escrow.id,
        shown_minor=filled.shown_minor,
    )


def _lacking(escrow: Escrow, balance: Balance) -> int:
    """What comes from outside, in minor units of the ledger's currency."""
    whole = escrow.amount_ledger_minor
    return whole - balance.available if 0 < balance.available < whole else whole


# ---- How it is shown ----------------------------------------------------------------------------


async def _shown(call: Call[None, None], look: Look, filled: Filled, said: Said) -> web.Response:
    """The page: the form with what was typed, or why there is none."""
    escrow, voice, step = look.escrow, look.voice, call.path["step"]
    mine = {one.step: one for one in choices(escrow, look.role, voice)}
    if step not in mine:
        raise PathUnknown
    obstacle = mine[step].obstacle
    shown = show(
        call.request,
        "step",
        voice,
        status=409 if obstacle is not None else said.status,
        policy=policy(call, step),
        person=look.email,
        tab=mine[step].words,
        action=look.speech.carry(f"{look.path}/{step}"),
        token=look.visitor.form_token(purpose(look, step)),
        heading=mine[step].words,
        back=look.speech.carry(look.path),
        **await form_of(call, look, step, obstacle, filled, said),
    )
    return look.visitor.keep(shown)


def policy(call: Call[None, None], step: str) -> str:
    """Of a page with this step's form: a script to draw with, or the providers' pages."""
    if step == "sign_contract":
        return with_scripts()
    return paying.policy(call) if step == ACCEPT_PAY else POLICY


async def form_of(
    call: Call[None, None],
    look: Look,
    step: str,
    obstacle: object,
    filled: Filled,
    said: Said,
) -> dict[str, Any]:
    """What `step_form.html` shows of a step, and what stands around it on either door's page."""
    escrow, voice = look.escrow, look.voice
    values = voice.values(look.facts)
    act = f"{step}_instant" if escrow.mode == INSTANT and step in ONCE_AT_INSTANTS else step
    is_paying = step == ACCEPT_PAY and obstacle is None
    return {
        "speech": look.speech,
        "amount": values["amount"],
        "title": values["title"],
        "obstacle": obstacle,
        "notice": said.notice,
        "tops_up": said.tops_up,
        "is_wrong": bool(filled.errors),
        "consequence": voice.say(f"step.act.{act}.consequence", **values),
        "button": voice.say(f"step.act.{act}.button", **values),
        "step": step,
        "blanks": BLANKS[step],
        "typed": filled.typed,
        "errors": filled.errors,
        "currency": voice.figure(escrow.ledger_currency),
        "held": ledger_money(voice, escrow, escrow.held_minor),
        "shown_amount": format(to_decimal(escrow.amount_minor, escrow.currency), "f"),
        "ways": await _ways(call, look, voice) if is_paying else [],
        "offer": await _their_offer(call, look) if step == "answer_dispute" else None,
        "accepts": paying.PROOF_TYPES,
        "terms": voice.lines(escrow.contract.terms) if escrow.contract else None,
        "version": str(escrow.contract.version) if escrow.contract else "",
    }


async def _ways(call: Call[None, None], look: Look, voice: Voice) -> list[tuple[str, object]]:
    """The wallet and what is in it, then the configured ways to pay from outside."""
    escrow = look.escrow
    balance = await read_balance(call.house.pool, look.user_id, escrow.ledger_currency)
    available = ledger_money(voice, escrow, balance.available)
    lacking = _lacking(escrow, balance)
    key = "step.way_rest" if lacking < escrow.amount_ledger_minor else "step.way_whole"
    sum_ = ledger_money(voice, escrow, lacking)
    outside: list[tuple[str, object]] = [
        (way, voice.say(key, way=voice.say(f"pay.way.{way}"), sum=sum_))
        for way in paying.methods(call)
    ]
    if balance.available < escrow.amount_ledger_minor:
        return outside or [(WALLET, voice.say("step.wallet", available=available))]
    return [(WALLET, voice.say("step.wallet", available=available)), *outside]


async def _their_offer(call: Call[None, None], look: Look) -> Mapping[str, object] | None:
    """The other side's open offer, to be accepted as it is."""
    dispute = look.escrow.dispute
    if dispute is None:
        return None
    offers = await read_offers(call.house.pool, dispute.id)
    open_offers = [one for one in offers if one.outcome is None and one.role != look.role]
    return _offer_shown(open_offers[-1], look) if open_offers else None


def _offer_shown(offer: Offer, look: Look) -> Mapping[str, object]:
    money = {
        "for_seller": ledger_money(look.voice, look.escrow, offer.split.seller_minor),
        "for_buyer": ledger_money(look.voice, look.escrow, offer.split.buyer_minor),
    }
    return {"id": offer.id, "words": look.voice.say("step.accept_offer", **money)}
