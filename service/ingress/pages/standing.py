"""How an escrow stands, in the words of one of its parties: what its page shows of it.

Law: pure; everything is made of the escrow as it was read and of a Voice. What people typed goes
through the Voice, so that it is inert.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from decimal import Decimal

from markupsafe import Markup

from service.commands.mails import facts_of
from service.rules.aggregate import Escrow
from service.rules.clocks import ACKNOWLEDGED, DISPUTE_REMINDER, due_step, running
from service.rules.errors import DisputeOpen, Refused, WrongParty, WrongStatus
from service.rules.escrow import CANCELLED, COMPLETED, FINAL
from service.rules.machine import Role
from service.rules.money import to_decimal
from service.rules.outlook import awaits, prospects, waits_for
from service.rules.policy import Policy
from service.store.deadlines import Deadline
from service.wire.base import instant
from service.words.facts import EscrowFacts
from service.words.pages import Voice

Row = tuple[Markup, Markup]

PAGE_OF: dict[str, str] = {
    "accept_proof": "review_proof",
    "request_correction": "review_proof",
    "escalate_proof": "review_proof",
}
"""Steps of the table that share a page; every other one's page has its own name."""
WITHOUT_PAGE = frozenset({"update", "resolve_dispute"})
"""What a party does elsewhere: by the API, or as the answer to an offer."""
PAGES = (
    "sign_contract",
    "accept_pay",
    "deliver",
    "complete",
    "submit_proof",
    "review_proof",
    "accept_cancellation",
    "reject_cancellation",
    "answer_dispute",
    "withdraw_dispute",
    "reject_delivery",
    "request_cancellation",
    "dispute",
    "cancel",
    "cancel_escrow",
)
"""The steps that have a page, in the order in which they are offered: what goes on comes first."""

UNSHOWN = frozenset({ACKNOWLEDGED, DISPUTE_REMINDER})
"""Clocks that ask nothing of anybody."""


def party(escrow: Escrow, user_id: str) -> Role | None:
    """Which side of the escrow this user is; None for whoever is neither."""
    if user_id == escrow.seller_id:
        return Role.SELLER
    return Role.BUYER if user_id == escrow.buyer_id else None


def facts(
    escrow: Escrow, role: Role, now: datetime, policy: Policy, opened: Sequence[Deadline] = ()
) -> EscrowFacts:
    """What sentences about the escrow may name, as in its mails; dates as its open clocks tell."""
    clocks = {one.kind: None if one.remaining is not None else one.due_at for one in opened}
    told = facts_of(escrow, role, now, policy, clocks)
    if escrow.dispute is not None and escrow.dispute.is_open:
        told["times"]["disputed_at"] = instant(escrow.dispute.opened_at)
    return told


# ---- Who, and how much --------------------------------------------------------------------------


def people(escrow: Escrow, role: Role, voice: Voice, told: EscrowFacts) -> list[Markup]:
    """Both sides, a line each, and through whom the escrow was opened."""
    values = voice.values(told)
    lines = []
    for side, person in ((Role.SELLER, escrow.seller), (Role.BUYER, escrow.buyer)):
        key = f"escrow_page.{side}_is_you" if side is role else f"label.{side}"
        lines.append(voice.say(key, **values))
        if person is None and escrow.status not in FINAL:
            lines.append(voice.say(f"escrow_page.no_{side}"))
    if escrow.creator_company:
        lines.append(voice.say("escrow_page.opened_by", company=escrow.creator_company))
    return lines


def amounts(escrow: Escrow, voice: Voice) -> list[Row]:
    """The sum and what becomes of it: fees and the seller's net, or what was returned."""
    rows = [(voice.say("escrow_page.sum"), _money(voice, escrow.amount_minor, escrow.currency))]
    if escrow.currency != escrow.ledger_currency:
        says = voice.say(
            "escrow_page.converted",
            currency=voice.figure(escrow.ledger_currency),
            rate=voice.figure(format(escrow.fx_rate.normalize(), "f")),
        )
        rows.append((says, ledger_money(voice, escrow, escrow.amount_ledger_minor)))
    rows += _fees(escrow, voice)
    if escrow.refunded_minor:
        rows.append(
            (voice.say("escrow_page.refunded"), ledger_money(voice, escrow, escrow.refunded_minor))
        )
    return rows


def _fees(escrow: Escrow, voice: Voice) -> Iterator[Row]:
    if escrow.status == CANCELLED:
        return
    fee, developer_fee = escrow.escrow_fee_minor, escrow.developer_fee_minor
    net = escrow.amount_ledger_minor - fee - developer_fee
    shared = escrow.dispute.settlement if escrow.dispute else None
    if shared is not None:
        fee, developer_fee = shared.escrow_fee_minor, shared.developer_fee_minor
        net = shared.seller_net_minor
    yield voice.say("escrow_page.fee"), ledger_money(voice, escrow, fee)
    if developer_fee:
        says = voice.say("escrow_page.developer_fee", company=escrow.creator_company)
        yield says, ledger_money(voice, escrow, developer_fee)
    yield voice.say("escrow_page.net"), ledger_money(voice, escrow, net)


def ledger_money(voice: Voice, escrow: Escrow, minor: int) -> Markup:
    """An amount of the ledger's currency."""
    return _money(voice, minor, escrow.ledger_currency)


def _money(voice: Voice, minor: int, currency: str) -> Markup:
    amount: Decimal = to_decimal(minor, currency)
    return voice.amount(format(amount, "f"), currency)


# ---- Until when ---------------------------------------------------------------------------------


def deadlines(
    escrow: Escrow, opened: Sequence[Deadline], voice: Voice, now: datetime
) -> list[Markup]:
    """What time does to the escrow, a sentence a deadline, nearest first."""
    runs = running(escrow)
    lines = []
    for deadline in opened:
        if deadline.kind in UNSHOWN or deadline.kind not in runs:
            continue
        key = _deadline_key(deadline.kind, escrow)
        if deadline.remaining is None:
            lines.append(voice.say(key, due=voice.deadline(instant(deadline.due_at))))
        else:
            ends = voice.distance(instant(now + deadline.remaining))
            undated = voice.say(key, due=voice.say("deadline.in_time"))
            lines.append(
                Markup("{} {}").format(undated, voice.say("deadline.paused", distance=ends))
            )
    return lines


def _deadline_key(kind: str, escrow: Escrow) -> str:
    step, target = due_step(kind, escrow)
    if step == "resolve_dispute":
        return f"deadline.resolve_for_{'seller' if target == COMPLETED else 'buyer'}"
    return f"deadline.{step}"


# ---- What may be done ---------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Choice:
    """A step that has a page; `obstacle` is why it cannot be taken now, nothing where it can."""

    step: str
    words: Markup
    obstacle: Markup | None


def choices(escrow: Escrow, role: Role, voice: Voice) -> list[Choice]:
    """Every step of this party, what goes on first; of those with one page the possible one."""
    found: dict[str, Refused | None] = {}
    for one in prospects(escrow, role):
        page = PAGE_OF.get(one.step, one.step)
        if page in WITHOUT_PAGE:
            continue
        if page not in found or found[page] is not None:
            found[page] = one.obstacle
    return [
        Choice(
            step,
            voice.say(f"escrow_page.step.{step}"),
            None if no is None else why_not(no, escrow, voice),
        )
        for step, no in sorted(found.items(), key=lambda item: PAGES.index(item[0]))
    ]


def why_not(no: Refused, escrow: Escrow, voice: Voice) -> Markup:
    """A refusal of the rules in a sentence for a person."""
    if no.code is not None and voice.knows(f"refusal.{no.code}"):
        return voice.say(f"refusal.{no.code}")
    if isinstance(no, WrongParty):
        return voice.say("escrow_page.not_while.opener")
    if isinstance(no, DisputeOpen):
        return voice.say("escrow_page.not_while.disputed")
    if isinstance(no, WrongStatus):
        return voice.say(f"escrow_page.not_while.{escrow.status}")
    return voice.say("page.error.not_now.text")


def waiting(escrow: Escrow, role: Role, voice: Voice) -> Markup:
    """Whose turn it is."""
    if escrow.frozen:
        return voice.say("refusal.ESCROW_FROZEN")
    if escrow.status in FINAL:
        return voice.say("escrow_page.over")
    if awaits(escrow, role):
        return voice.say("escrow_page.waits_you")
    other = Role.BUYER if role is Role.SELLER else Role.SELLER
    holder = other if awaits(escrow, other) else waits_for(escrow)
    if holder is role or holder is None:
        holder = other
    return voice.say(f"escrow_page.waits_{holder}")


def signed(escrow: Escrow, voice: Voice) -> Markup | None:
    """Who has signed the contract; None where there is none."""
    contract = escrow.contract
    if contract is None:
        return None
    seller, buyer = contract.seller_signed_at, contract.buyer_signed_at
    who = "seller" if seller else "buyer" if buyer else "nobody"
    return voice.say(f"escrow_page.signed.{'both' if seller and buyer else who}")
