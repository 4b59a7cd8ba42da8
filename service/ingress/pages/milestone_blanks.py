"""The blanks of a milestone escrow's steps, and what was filled in, as the step takes it.

Law: as in `blanks.py`: what was typed is kept, and what is wrong is said beside its blank.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from decimal import Decimal
from typing import Any

from markupsafe import Markup

from service.ingress.pages.blanks import Blank, Filled
from service.ingress.pages.figures import amount_of
from service.ingress.pages.forms import Form
from service.ingress.pages.milestone_look import MilestoneLook, sum_of
from service.ingress.pages.milestone_standing import named, numbered
from service.rules.engagement import ROLES, Funding, MilestoneEscrow
from service.rules.machine import Role
from service.rules.milestone_terms import EVIDENCE_MAX, NOTE_MAX, REASON_MAX, STATUS_MAX
from service.rules.money import EXPONENTS, to_minor
from service.wire.text import read_email
from service.words.pages import Voice

KNOWN_MAX, FREE = 20, 3
"""How many people of the escrow are offered as recipients, and how many others may be named."""
ROWS_MAX = 28
"""So many rows of two fields are read; a form has at most 64 fields (`forms.PARTS_MAX`)."""
NUMBER_CHARACTERS = 9
_WHICH = Blank("milestone", "which")
_TICKS = Blank("milestones", "ticks")
_SHARES = Blank("shares", "shares")
_VERSION = Blank("version", "hidden", is_required=False)
BLANKS: Mapping[str, Sequence[Blank]] = {
    "fund": (Blank("sum", "sum"), _VERSION),
    "change_milestone_status": (
        _WHICH,
        Blank("status", "line", limit=STATUS_MAX),
        Blank("evidence", "area", is_required=False, limit=EVIDENCE_MAX),
        _VERSION,
    ),
    "approve_milestone": (_TICKS, _VERSION),
    "release": (_VERSION,),
    "release_multi": (_TICKS, _VERSION),
    "dispute": (Blank("reason", "area", limit=REASON_MAX), _VERSION),
    "dispute_multi": (_TICKS, Blank("reason", "area", limit=REASON_MAX), _VERSION),
    "note_dispute": (Blank("note", "area", limit=NOTE_MAX),),
    "resolve_dispute": (_SHARES, _VERSION),
    "resolve_dispute_multi": (_WHICH, _SHARES, _VERSION),
    "withdraw_remaining": (_SHARES,),
}
"""Step (and what it is in multi release, where that differs) -> its blanks, in their order."""


def key_of(step: str, escrow: MilestoneEscrow) -> str:
    """Under which name the step's blanks and words stand for this escrow."""
    multi = f"{step}_multi"
    return multi if not escrow.is_single and multi in BLANKS else step


def blanks_of(step: str, escrow: MilestoneEscrow) -> Sequence[Blank]:
    """The step's blanks for this escrow."""
    return BLANKS[key_of(step, escrow)]


@dataclass(frozen=True, slots=True)
class Recipient:
    """Somebody who may be given a part; `email` is empty where one is still to be named."""

    number: int
    email: str
    label: Markup

    @property
    def who(self) -> str:
        """The name of the field with their e-mail."""
        return f"who_{self.number}"

    @property
    def share(self) -> str:
        """The name of the field with their amount."""
        return f"share_{self.number}"


def recipients(
    escrow: MilestoneEscrow,
    payers: Sequence[Funding],
    voice: Voice,
    typed: Mapping[str, str] | None = None,
) -> list[Recipient]:
    """The rows that came back with what was `typed`, then people who are new, then room for others.

    A row that came back keeps its number, and so its e-mail and its amount stay together whoever
    has paid or registered meanwhile.
    """
    typed, known = typed or {}, _known(escrow, payers, voice)
    back = [n for n in range(ROWS_MAX) if typed.get(f"who_{n}") or typed.get(f"share_{n}")]
    unused = (n for n in range(ROWS_MAX) if n not in back)
    named: list[tuple[int, str, Markup | None]] = []
    for number in back:
        email = typed.get(f"who_{number}", "")
        label = known.pop(email, None)
        named.append((number, "" if label is None else email, label))
    new = list(known.items())[: max(0, KNOWN_MAX - len(named))]
    named += [(number, *one) for one, number in zip(new, unused, strict=False)]
    named += [(number, "", None) for _, number in zip(range(FREE), unused, strict=False)]
    rows, others = [], 0
    for number, email, label in named:
        others += label is None
        rows.append(Recipient(number, email, label or _somebody(others, voice)))
    return rows


def _known(escrow: MilestoneEscrow, payers: Sequence[Funding], voice: Voice) -> dict[str, Markup]:
    """E-mail -> who that is: receivers first, then the payers, then the other roles.

    The resolver is none of them; whoever is not registered cannot be paid and is left out.
    """
    known: dict[str, Markup] = {}
    receiver = escrow.roles[Role.RECEIVER]
    if receiver.user_id:
        known[receiver.email] = voice.say(f"role.{Role.RECEIVER}")
    for one in escrow.milestones:
        if one.receiver and one.receiver.user_id:
            known.setdefault(one.receiver.email, voice.say(f"role.{Role.MILESTONE_RECEIVER}"))
    for payer in payers:
        known.setdefault(payer.email, voice.say("milestone_page.payer"))
    for role in ROLES:
        holder = escrow.roles[role]
        if holder.user_id and role is not Role.DISPUTE_RESOLVER:
            known.setdefault(holder.email, voice.say(f"role.{role}"))
    return {
        email: Markup("{} ({})").format(voice.typed(email), who) for email, who in known.items()
    }


def _somebody(number: int, voice: Voice) -> Markup:
    return voice.say("milestone_page.somebody", number=voice.figure(str(number)))


def has_version(step: str, escrow: MilestoneEscrow) -> bool:
    """Whether the step's form says which terms its person has seen."""
    return _VERSION in blanks_of(step, escrow)


def seen(filled: Filled) -> int:
    """The version of the terms that the form was shown with; 0 where it says none."""
    text = filled.typed.get(_VERSION.name, "")
    is_one = text.isascii() and text.isdigit() and len(text) <= NUMBER_CHARACTERS
    return int(text) if is_one else 0


def still_meant(filled: Filled, escrow: MilestoneEscrow) -> Mapping[str, str]:
    """What was typed, without milestones that were chosen by number among other terms."""
    if seen(filled) == escrow.version:
        return filled.typed
    return {
        name: text for name, text in filled.typed.items() if name.partition("_")[0] != _WHICH.name
    }


def fill(step: str, form: Form, look: MilestoneLook) -> Filled:
    """What was filled in, for this step of this escrow."""
    typed: dict[str, str] = {}
    errors: dict[str, Markup] = {}
    brings: dict[str, Any] = {}
    for blank in blanks_of(step, look.escrow):
        match blank.kind:
            case "ticks":
                _ticked(step, form, look, (typed, errors, brings))
            case "shares":
                _shared(form, look, (typed, errors, brings))
            case "sum":
                _summed(form, look, (typed, errors, brings))
            case "hidden":
                typed[blank.name] = form.text(blank.name)
            case "which":
                _chosen(step, form, look, (typed, errors, brings))
            case _:
                _written(blank, form, look.voice, (typed, errors, brings))
    if step == "change_milestone_status":
        brings = {"updates": [brings]}
    return Filled(typed, errors, brings)


Sheet = tuple[dict[str, str], dict[str, Markup], dict[str, Any]]
"""What was typed, what is wrong with it, what the step is given."""
_NAMES = {"note": "text"}
"""A blank -> the field of the step's body, where that is called otherwise."""


def _written(blank: Blank, form: Form, voice: Voice, sheet: Sheet) -> None:
    typed, errors, brings = sheet
    text = form.text(blank.name)
    typed[blank.name] = text
    if blank.is_required and not text:
        errors[blank.name] = voice.say("field.required")
    elif len(text) > blank.characters_max:
        limit = voice.figure(str(blank.characters_max))
        errors[blank.name] = voice.say("field.too_long", limit=limit)
    elif text:
        brings[_NAMES.get(blank.name, blank.name)] = text


def _ticked(step: str, form: Form, look: MilestoneLook, sheet: Sheet) -> None:
    typed, errors, brings = sheet
    indexes = [
        index
        for index in range(len(look.escrow.milestones))
        if form.is_ticked(f"milestone_{index}")
    ]
    typed |= {f"milestone_{index}": "yes" for index in indexes}
    if not indexes:
        errors["milestones"] = look.voice.say("field.choice")
    brings["indexes" if step == "approve_milestone" else "milestoneIndexes"] = indexes


def _chosen(step: str, form: Form, look: MilestoneLook, sheet: Sheet) -> None:
    typed, errors, brings = sheet
    text = form.text("milestone")
    typed["milestone"] = text
    is_one = text.isascii() and text.isdigit() and len(text) <= NUMBER_CHARACTERS
    if not is_one or int(text) >= len(look.escrow.milestones):
        errors["milestone"] = look.voice.say("field.choice")
    else:
        name = "index" if step == "change_milestone_status" else "milestoneIndex"
        brings[name] = int(text)


def _summed(form: Form, look: MilestoneLook, sheet: Sheet) -> None:
    typed, errors, brings = sheet
    typed["sum"] = form.text("sum")
    amount = _amount(typed["sum"], look)
    if amount is None:
        errors["sum"] = _no_amount(look)
    else:
        brings["amount"] = amount


def _shared(form: Form, look: MilestoneLook, sheet: Sheet) -> None:
    """One distribution for each row with an amount; rows without are nobody's."""
    typed, errors, brings = sheet
    given = []
    for number in range(ROWS_MAX):
        who, share = f"who_{number}", f"share_{number}"
        email, text = form.text(who), form.text(share)
        typed |= {who: email, share: text}
        if not text:
            continue
        amount = _amount(text, look)
        if amount is None:
            errors[share] = _no_amount(look)
        if read_email(email) is None:
            errors[who] = look.voice.say("field.email")
        given.append({"email": email, "amount": amount})
    if not given:
        errors["shares"] = look.voice.say("milestone_page.no_share")
    brings["distributions"] = given


def _amount(text: str, look: MilestoneLook) -> Decimal | None:
    """A sum above nothing, as fine as the currency; None where it is none."""
    amount = amount_of(text, look.voice.language.code)
    if amount is None or amount <= 0 or to_minor(amount, look.escrow.currency) is None:
        return None
    return amount


def _no_amount(look: MilestoneLook) -> Markup:
    example = f"120.{'5'.ljust(EXPONENTS[look.escrow.currency], '0')}"
    return look.voice.say("field.amount", example=look.voice.figure(example))


# ---- What a session's developer has filled in already --------------------------------------------


def told(given: Mapping[str, Any], look: MilestoneLook) -> list[tuple[Markup, Markup]]:
    """An input that came with the session, as (what, words) pairs: it was checked when it came."""
    voice = look.voice
    rows: list[tuple[Markup, Markup]] = []
    if "amount" in given:
        rows.append((voice.say("step.sum"), _given_sum(given["amount"], look)))
    for change in given.get("updates", ()):
        says = voice.typed(str(change.get("status", "")))
        rows.append((_named(change.get("index"), look), says))
        if change.get("evidence"):
            rows.append((voice.say("step.evidence"), voice.typed(str(change["evidence"]))))
    indexes = [*given.get("indexes", ()), *(given.get("milestoneIndexes") or ())]
    if given.get("milestoneIndex") is not None:
        indexes.append(given["milestoneIndex"])
    for index in indexes:
        number = voice.figure(str(int(index) + 1))
        label = voice.say("milestone_page.number", number=number)
        rows.append((label, _named(index, look)))
    if given.get("reason"):
        rows.append((voice.say("step.reason"), voice.typed(str(given["reason"]))))
    rows.extend(
        (voice.typed(str(part["email"])), _given_sum(part["amount"], look))
        for part in given.get("distributions", ())
    )
    return rows


def _given_sum(amount: object, look: MilestoneLook) -> Markup:
    minor = to_minor(Decimal(str(amount)), look.escrow.currency)
    if minor is None:
        return look.voice.figure(str(amount))
    return sum_of(look.voice, minor, look.escrow.currency)


def _named(index: object, look: MilestoneLook) -> Markup:
    number = int(str(index))
    if 0 <= number < len(look.escrow.milestones):
        return named(look.escrow, number, look.voice)
    return numbered(look.voice, number)
