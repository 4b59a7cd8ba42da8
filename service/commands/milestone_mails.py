"""Who is told what of a milestone escrow by mail; rows only, inside the step's transaction.

Everybody is written to in their own language, at their own address; who has not registered yet at
the e-mail that was named, in the language of the developer who opened the escrow.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from typing import Any

from service.commands.mails import message_id_of
from service.rules.aggregate import Person
from service.rules.engagement import ROLES, MilestoneEscrow
from service.rules.machine import Role
from service.rules.milestone import Done, Leg
from service.rules.milestone_said import BY_CLOCK, Opened, Paid, Shared
from service.rules.money import to_decimal
from service.store.db import Transaction
from service.store.developers import read_language
from service.store.ids import entity_id
from service.store.mails import NewMail, insert_mails
from service.store.users import read_people
from service.wire.base import instant
from service.words.facts import RoleFacts

DISPUTED, RELEASED, RESOLVED, PAID = (
    "role_disputed",
    "role_released",
    "role_resolved",
    "role_paid",
)
"""The templates of the steps' mails; the last one is a payee's, whatever the step."""
TOLD_BY = {"dispute": DISPUTED, "release": RELEASED, "resolve_dispute": RESOLVED}
"""Step -> what those are told who hold a role."""
WALLET_PAGE = "/dashboard/wallet"


@dataclass(frozen=True, slots=True)
class Told:
    """A mail to be written: to whom, `role` the reader's, `says` what its facts add."""

    template: str
    email: str
    user_id: str | None
    dedupe_key: str
    role: Role | None = None
    invitation_id: str | None = None
    says: Mapping[str, Any] = field(default_factory=dict)


def named(
    escrow: MilestoneEscrow, indexes: Iterable[int] | None = None
) -> dict[str, tuple[Role, str | None]]:
    """Each e-mail with its first role, and the user behind it.

    Of the milestones' own receivers only those of `indexes`, where these are given.
    """
    wanted = set(range(len(escrow.milestones)) if indexes is None else indexes)
    roles = [(escrow.roles[role], role) for role in ROLES]
    roles += [
        (one.receiver, Role.MILESTONE_RECEIVER)
        for index, one in enumerate(escrow.milestones)
        if one.receiver and index in wanted
    ]
    found: dict[str, tuple[Role, str | None]] = {}
    for holder, role in roles:
        found.setdefault(holder.email, (role, holder.user_id))
    return found


async def role_mails(
    tx: Transaction, escrow: MilestoneEscrow, told: Sequence[Told]
) -> list[NewMail]:
    """The rows of these mails, each in its reader's language."""
    people = await read_people(tx, sorted({one.user_id for one in told if one.user_id}))
    strangers = any(one.user_id not in people for one in told)
    language = await read_language(tx, escrow.creator_id) if strangers else ""
    return [_row(tx, escrow, one, people.get(one.user_id or ""), language) for one in told]


def _row(
    tx: Transaction, escrow: MilestoneEscrow, told: Told, person: Person | None, language: str
) -> NewMail:
    mail_id = entity_id(tx.now)
    facts = RoleFacts(
        escrow_id=escrow.id,
        title=escrow.title,
        amount=_plain(escrow.amount_minor, escrow.currency),
        currency=escrow.currency,
        company=escrow.creator_company,
        role=told.role.value if told.role else None,
        timezone=(person.timezone if person else None) or tx.policy.timezone,
    )
    return NewMail(
        id=mail_id,
        recipient=person.email if person else told.email,
        template=told.template,
        language=person.language if person else language,
        facts={**facts, **told.says},
        dedupe_key=told.dedupe_key,
        message_id=message_id_of(mail_id, tx.policy),
        escrow_id=escrow.id,
        invitation_id=told.invitation_id,
    )


async def write_role_notices(tx: Transaction, done: Done) -> None:
    """The mails that a step of the milestone family causes, if any.

    A dispute is told to everybody but whoever opened it, money that moved to everybody; payees are
    told what they got instead, in a role or in none. A step's mails carry the escrow's `seq` after
    it, so each is written once.
    """
    payees = _payees(done)
    told = [*_to_payees(done, payees), *_to_roles(tx, done, payees)]
    if told:
        await insert_mails(tx, await role_mails(tx, done.after, told))


def _to_roles(tx: Transaction, done: Done, payees: Mapping[str, int]) -> list[Told]:
    template = TOLD_BY.get(done.row.name)
    if template is None:
        return []
    escrow, says = done.after, _says(tx, done)
    indexes = [leg.index for leg in done.legs if leg.index is not None]
    aware = {tx.actor.user_id} if template == DISPUTED else set()
    return [
        Told(template, email, user_id, _key(template, done, user_id or email), role, says=says)
        for email, (role, user_id) in named(escrow, indexes).items()
        if user_id is None or user_id not in aware | set(payees)
    ]


def _to_payees(done: Done, payees: Mapping[str, int]) -> list[Told]:
    how = "clock" if _by_clock(done) else done.row.name
    return [
        Told(
            PAID,
            "",
            user_id,
            _key(PAID, done, user_id),
            says={
                "moved": _plain(minor, done.after.currency),
                "how": how,
                "page": WALLET_PAGE,
            },
        )
        for user_id, minor in payees.items()
    ]


def _says(tx: Transaction, done: Done) -> dict[str, Any]:
    """What a step's mail says beyond the escrow."""
    escrow = done.after
    says: dict[str, Any] = {
        "numbers": [leg.index + 1 for leg in done.legs if leg.index is not None],
        "moved": _plain(sum(_moved(leg) for leg in done.legs), escrow.currency),
        "how": "clock" if _by_clock(done) else done.row.name,
    }
    opened = done.legs[0].said
    if isinstance(opened, Opened):
        says |= {"by": opened.by, "note": opened.reason}
        if escrow.resolver_deadline_days is not None:
            says["due_at"] = instant(tx.now + timedelta(days=escrow.resolver_deadline_days))
    return says


def _moved(leg: Leg) -> int:
    return sum(posting.amount_minor for posting in leg.postings)


def _payees(done: Done) -> dict[str, int]:
    """User -> what of the step's money came to their wallet, fees of a platform not counted."""
    got: dict[str, int] = {}
    for leg in done.legs:
        for user_id, minor in _nets(done.after, leg):
            if user_id is not None and minor:
                got[user_id] = got.get(user_id, 0) + minor
    return got


def _nets(escrow: MilestoneEscrow, leg: Leg) -> list[tuple[str | None, int]]:
    match leg.said:
        case Paid(parts=parts):
            return [(escrow.receiver_of(leg.index).user_id, parts.net)]
        case Shared(shares=shares, parts=parts):
            return [(one.to.user_id, net) for one, net in zip(shares, parts.nets, strict=True)]
    return []


def _by_clock(done: Done) -> bool:
    return any(isinstance(leg.said, Shared) and leg.said.by == BY_CLOCK for leg in done.legs)


def _key(template: str, done: Done, whom: str) -> str:
    return f"{template}:{done.after.id}:{whom}:{done.after.seq}"


def _plain(minor: int, currency: str) -> str:
    return format(to_decimal(minor, currency), "f")
