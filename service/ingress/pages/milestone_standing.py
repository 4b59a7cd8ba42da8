"""How a milestone escrow stands, in the words of whoever looks at it.

Law: pure; everything is made of the escrow as it was read and of a Voice. What people typed goes
through the Voice, so that it is inert.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from markupsafe import Markup

from service.ingress.pages.milestone_look import sum_of
from service.rules.engagement import RESOLVER, ROLES, Milestone, MilestoneEscrow
from service.rules.errors import Refused
from service.rules.machine import Role
from service.rules.milestone import APPROVED, DISPUTED, OPEN, state_of
from service.rules.milestone_ground import roles_of
from service.rules.milestone_outlook import outlook_of
from service.store.deadlines import Deadline
from service.wire.base import instant
from service.words.pages import Voice

Row = tuple[Markup, Markup]

PAGES = (
    "release",
    "resolve_dispute",
    "approve_milestone",
    "change_milestone_status",
    "fund",
    "withdraw_remaining",
    "note_dispute",
    "dispute",
)
"""The steps that have a page, in the order in which they are offered: what goes on comes first."""
MEANINGS: Mapping[str, str] = {
    "working": "waiting",
    "pendingRelease": "waiting",
    "inDispute": "problem",
    "released": "done",
    "resolved": "done",
}
STATE_MEANINGS: Mapping[str, str] = {
    OPEN: "waiting",
    APPROVED: "waiting",
    DISPUTED: "problem",
    "released": "done",
    "resolved": "done",
}
"""What a status, and a milestone's state, means to a person: one of the three of a page."""
UNTOUCHED = "pending"
"""A milestone's status before anybody has said anything."""


@dataclass(frozen=True, slots=True)
class Choice:
    """A step that has a page; `obstacle` is why it cannot be taken now, nothing where it can.

    `indexes` are the milestones on which it can be taken; None where it is about the whole.
    """

    step: str
    words: Markup
    obstacle: Markup | None
    indexes: tuple[int, ...] | None


def choices(escrow: MilestoneEscrow, user_id: str, voice: Voice, now: datetime) -> list[Choice]:
    """Every step of this person that has a page, what goes on first."""
    mine = [one for one in outlook_of(escrow, user_id, now) if one.step in PAGES]
    found = sorted(mine, key=lambda one: PAGES.index(one.step))
    return [
        Choice(
            one.step,
            voice.say(f"milestone_step.{one.step}.heading"),
            None if one.obstacle is None else why_not(one.obstacle, voice),
            one.indexes,
        )
        for one in found
    ]


def why_not(no: Refused, voice: Voice) -> Markup:
    """A refusal of the rules in a sentence for a person."""
    key = f"refusal.{no.code}"
    return voice.say(key) if voice.knows(key) else voice.say("page.error.not_now.text")


def awaits(escrow: MilestoneEscrow, user_id: str, now: datetime) -> bool:
    """Whether it is this person's turn: to release, to resolve, or to approve reported work."""
    legal = {one.step: one.indexes for one in outlook_of(escrow, user_id, now) if not one.obstacle}
    if "release" in legal or "resolve_dispute" in legal:
        return True
    reported = legal.get("approve_milestone") or ()
    return any(escrow.milestones[index].status != UNTOUCHED for index in reported)


# ---- Who, how much, and until when --------------------------------------------------------------


def roles(escrow: MilestoneEscrow, user_id: str, voice: Voice) -> list[Markup]:
    """Each role and who holds it, a line each, and through whom the escrow was opened."""
    lines = []
    for role in ROLES:
        holder = escrow.roles[role]
        key = "held"
        if holder.user_id is None:
            key = "unregistered"
        elif holder.user_id == user_id:
            key = "you"
        name = voice.say(f"role.{role}")
        lines.append(voice.say(f"milestone_page.{key}", role=name, email=voice.typed(holder.email)))
    if escrow.creator_company:
        lines.append(voice.say("escrow_page.opened_by", company=escrow.creator_company))
    return lines


def mine(escrow: MilestoneEscrow, user_id: str, voice: Voice) -> Markup:
    """The roles of this person in one line."""
    held = roles_of(escrow, user_id)
    order = (*ROLES, Role.MILESTONE_RECEIVER)
    names = [voice.say(f"role.{role}") for role in order if role in held]
    return Markup(" · ").join(names)


def amounts(escrow: MilestoneEscrow, voice: Voice) -> list[Row]:
    """The agreed sum, then the way of the money: what came in, what went where, what is here."""
    rows = [
        ("sum", escrow.amount_minor, True),
        ("funded", escrow.funded_minor, True),
        ("paid_out", escrow.released_minor, escrow.released_minor > 0),
        ("fees", escrow.fees_minor, escrow.fees_minor > 0),
        ("refunded", escrow.refunded_minor, escrow.refunded_minor > 0),
        ("balance", escrow.held_minor, True),
    ]
    return [
        (voice.say(f"milestone_page.{name}"), sum_of(voice, minor, escrow.currency))
        for name, minor, is_shown in rows
        if is_shown
    ]


def terms(escrow: MilestoneEscrow, voice: Voice) -> list[Row]:
    """What was agreed beyond the sum, as (what, words) pairs."""
    rows = [
        (
            voice.say("milestone_page.release_mode"),
            voice.say(f"milestone_page.mode.{escrow.release_mode}"),
        ),
        (
            voice.say("milestone_page.platform_fee"),
            voice.percent(escrow.platform_fee_bps),
        ),
        (
            voice.say("milestone_page.protocol_fee"),
            voice.percent(escrow.protocol_fee_bps),
        ),
        (voice.say("milestone_page.engagement"), voice.typed(escrow.engagement_id)),
    ]
    if escrow.receiver_memo:
        rows.append((voice.say("milestone_page.memo"), voice.typed(escrow.receiver_memo)))
    if escrow.resolver_deadline_days:
        days = voice.figure(str(escrow.resolver_deadline_days))
        rows.append((voice.say("milestone_page.resolver_days"), days))
    return rows


def deadlines(escrow: MilestoneEscrow, opened: Sequence[Deadline], voice: Voice) -> list[Markup]:
    """What time does to open disputes, a sentence each, nearest first."""
    lines = []
    for one in opened:
        if one.kind != RESOLVER or one.remaining is not None:
            continue
        due = voice.deadline(instant(one.due_at))
        is_whole = escrow.is_single or not one.subject.isdigit()
        if is_whole:
            lines.append(voice.say("milestone_page.due", due=due))
        else:
            number = numbered(voice, int(one.subject))
            lines.append(voice.say("milestone_page.due_of", due=due, number=number))
    return lines


# ---- The milestones -----------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Part:
    """A milestone as it is shown. `reason` is what was disputed, line by line."""

    number: Markup
    description: Markup
    amount: Markup | None
    receiver: Markup | None
    status: Markup
    evidence: Markup | None
    meaning: str
    state: Markup
    reason: Markup | None


def parts(escrow: MilestoneEscrow, voice: Voice) -> list[Part]:
    """Every milestone, in their order."""
    return [_part(escrow, index, one, voice) for index, one in enumerate(escrow.milestones)]


def _part(escrow: MilestoneEscrow, index: int, one: Milestone, voice: Voice) -> Part:
    state = state_of(one)
    amount, status = one.amount_minor, voice.typed(one.status)
    if one.status == UNTOUCHED:
        status = voice.say("milestone_page.untouched")
    is_told = one.dispute_reason is not None and (index == 0 or not escrow.is_single)
    return Part(
        number=voice.say("milestone_page.number", number=numbered(voice, index)),
        description=voice.lines(one.description),
        amount=None if amount is None else sum_of(voice, amount, escrow.currency),
        receiver=voice.typed(one.receiver.email) if one.receiver else None,
        status=status,
        evidence=voice.lines(one.evidence) if one.evidence else None,
        meaning=STATE_MEANINGS[state],
        state=voice.say(f"milestone_page.state.{state}"),
        reason=voice.lines(one.dispute_reason or "") if is_told else None,
    )


def numbered(voice: Voice, index: int) -> Markup:
    """The number of a milestone as people count."""
    return voice.figure(str(index + 1))


def named(escrow: MilestoneEscrow, index: int, voice: Voice) -> Markup:
    """A milestone in one line, for a list to choose from."""
    one = escrow.milestones[index]
    line = Markup("{}. {}").format(numbered(voice, index), voice.typed(one.description))
    if one.amount_minor is None:
        return line
    return Markup("{} ({})").format(line, sum_of(voice, one.amount_minor, escrow.currency))
