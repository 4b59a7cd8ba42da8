"""Every step of a buyer-seller escrow that somebody can take: five verbs each.

Lock, choose, move, post, tell stand in `steps.py`; here is what each step adds to them.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from decimal import Decimal

from service.commands import papers
from service.commands.contracts import STORED, Mark, signature, signed
from service.commands.invitations import welcome
from service.commands.perform import Command
from service.commands.steps import lock, record, reread, step, told
from service.rules.aggregate import Contract, Escrow, Person, Rejection
from service.rules.clocks import expiry_at, turn
from service.rules.errors import (
    AmountChanged,
    DailyCapReached,
    Forbidden,
    FxRateUnavailable,
    InsufficientFunds,
    Invalid,
    PhoneNotVerified,
    Refused,
    WrongParty,
)
from service.rules.escrow import (
    MODES,
    PENDING,
    STANDARD,
    TABLE,
    Taken,
    choose,
    take,
)
from service.rules.fees import fees, locked_minor
from service.rules.machine import NOWHERE, Actor, Role, Step
from service.rules.money import LEDGER_CURRENCY, to_decimal, to_minor
from service.rules.terms import Circumstances, Terms, faults, faults_in
from service.store.db import Transaction
from service.store.deadlines import arm_deadlines, armings
from service.store.developers import Opening, Question, count_today, read_openings
from service.store.escrows import insert_contracts, insert_escrows
from service.store.events import append_events
from service.store.ids import entity_id
from service.store.invitations import accept_invitation
from service.store.ledger import lock_wallet
from service.store.parts import Signature, insert_signatures
from service.store.users import await_registrations
from service.wire.escrows import (
    Creation,
    DeliverAnswer,
    EscrowAnswer,
    RejectAnswer,
    StepAnswer,
    creation,
    delivered,
    detail,
    moved,
    returned,
)

CREATE: dict[str, Step] = {
    mode: row for mode in MODES if (row := TABLE.find("create", NOWHERE, mode)) is not None
}


@dataclass(frozen=True, slots=True)
class Order:
    """Who asks for an escrow, as which developer, on which terms."""

    actor: Actor
    developer_id: str
    terms: Terms


@dataclass(frozen=True, slots=True)
class Opened:
    """A new escrow and its first steps: it is created, and signed at once where that was asked."""

    order: Order
    steps: tuple[Taken, ...]
    signature: Signature | None = None

    @property
    def escrow(self) -> Escrow:
        """As it stands after them."""
        return self.steps[-1].after


def create(developer_id: str, terms: Terms) -> Command:
    """Open an escrow; whoever is not registered yet is invited."""

    async def command(tx: Transaction) -> Creation:
        [made] = await create_all(tx, [Order(tx.actor, developer_id, terms)])
        if isinstance(made, Refused):
            raise made
        return made

    return command


async def create_all(tx: Transaction, orders: Sequence[Order]) -> list[Creation | Refused]:
    """Open the escrow of each order, or say why not; what is refused keeps no other back."""
    drafts = await _drafts(tx, orders)
    opened = [draft for draft in drafts if isinstance(draft, Opened)]
    tx.taken += [taken for one in opened for taken in one.steps]
    escrows = [one.escrow for one in opened]
    await insert_escrows(tx, escrows)
    await insert_contracts(tx, escrows)
    await append_events(
        tx, [entry for one in opened for entry in told(tx, one.steps, one.order.actor)]
    )
    await insert_signatures(tx, [one.signature for one in opened if one.signature is not None])
    await papers.ask(tx, escrows)
    reminders = await welcome(tx, [(one.escrow, one.order.actor) for one in opened])
    clocks = [
        arming for escrow in escrows for arming in armings(turn(None, escrow, tx.now, tx.policy))
    ]
    await arm_deadlines(tx, clocks + reminders)
    return [
        creation(draft.escrow, tx.policy.public_url) if isinstance(draft, Opened) else draft
        for draft in drafts
    ]


def check_association(
    user_id: str | None, *, has_seller_email: bool, has_developer_fee: bool
) -> None:
    """Create's 403s, which come once the body is an object, before any field is looked at."""
    if user_id is None and not has_seller_email:
        raise Forbidden(
            reason="Your developer account is not associated with a user, so it cannot sell:"
            " name a sellerEmail, or associate it first."
        )
    if user_id is None and has_developer_fee:
        raise Forbidden(
            reason="A developer fee is paid to your associated user, and there is none:"
            " associate your account first, or leave developerFeePercentage out."
        )


def deliver(escrow_id: str) -> Command:
    """The seller delivers; an instant escrow is released at once."""

    async def command(tx: Transaction) -> DeliverAnswer:
        await step(tx, escrow_id, "deliver")
        return delivered("Delivery recorded", await reread(tx, escrow_id))

    return command


def reject_delivery(escrow_id: str, reason: str | None) -> Command:
    """The buyer sends the delivery back: paid again, and nothing of the money moves."""

    async def command(tx: Transaction) -> RejectAnswer:
        escrow = await lock(tx, escrow_id)
        row = choose("reject_delivery", escrow, tx.actor)
        if escrow.delivered_at is None:
            raise AssertionError(f"escrow {escrow_id} is delivered at no time")
        rejection = Rejection(tx.now, escrow.delivered_at, reason)
        changed = replace(escrow, rejections=(*escrow.rejections, rejection))
        taken = take(row, escrow, tx.actor, tx.now, changed=changed)
        await record(tx, [taken])
        return returned(taken.after)

    return command


def complete(escrow_id: str) -> Command:
    """The buyer confirms a delivery; the money is released."""

    async def command(tx: Transaction) -> StepAnswer:
        return moved("Escrow completed", await step(tx, escrow_id, "complete"))

    return command


def cancel(escrow_id: str) -> Command:
    """A party or the creator cancels before payment."""

    async def command(tx: Transaction) -> StepAnswer:
        return moved("Escrow cancelled", await step(tx, escrow_id, "cancel"))

    return command


def pay(escrow_id: str, shown: Decimal | None = None) -> Command:
    """The buyer pays from the wallet: exactly `amountTnd` is held.

    Raises:
        AmountChanged: `shown` is the amount that the buyer saw, and it is another one by now.
    """

    async def command(tx: Transaction) -> EscrowAnswer:
        escrow = await lock(tx, escrow_id)
        row = choose("accept_pay", escrow, tx.actor)
        if shown is not None and shown != to_decimal(escrow.amount_minor, escrow.currency):
            raise AmountChanged(
                amount=to_decimal(escrow.amount_minor, escrow.currency), currency=escrow.currency
            )
        await _check_payable(tx, escrow)
        taken = take(row, escrow, tx.actor, tx.now)
        await record(tx, [taken])
        return detail(await reread(tx, escrow_id), tx.policy.ticket_prefix)

    return command


async def link_party(
    tx: Transaction, escrow_id: str, person: Person, invited_as: str | None = None
) -> Escrow | None:
    """Link a registered person to the escrow that waits for this e-mail; None if none does.

    A frozen escrow stays as it is; `unfreeze` links who has registered meanwhile.

    `invited_as` is the e-mail that was invited, where the person registered with another.
    """
    email = invited_as or person.email
    escrow = await lock(tx, escrow_id)
    if escrow.frozen:
        return None
    if escrow.seller is None and escrow.seller_email == email:
        linked = replace(escrow, seller=person)
    elif escrow.buyer is None and escrow.buyer_email == email:
        linked = replace(escrow, buyer=person)
    else:
        return None
    row = TABLE.find("link_party", escrow.status, escrow.mode)
    if row is None:
        return None
    taken = take(row, escrow, tx.actor, tx.now, changed=linked)
    await record(tx, [taken])
    await accept_invitation(tx, escrow_id, email, person.id)
    return taken.after


async def _check_payable(tx: Transaction, escrow: Escrow) -> None:
    """What paying needs beyond the table's row, in the spec's order."""
    if escrow.buyer is None:
        raise WrongParty(party="buyer", act="pay")
    if tx.policy.phone_is_required and not escrow.buyer.is_phone_verified:
        raise PhoneNotVerified
    available = await lock_wallet(tx, escrow.buyer.id, escrow.ledger_currency)
    if available < escrow.amount_ledger_minor:
        raise InsufficientFunds(available=available, needed=escrow.amount_ledger_minor)


async def _drafts(tx: Transaction, orders: Sequence[Order]) -> list[Opened | Refused]:
    """Each order's first steps, or what stands against it; nothing is written."""
    refusals = [await _refusal(tx, order) for order in orders]
    asked = [order for order, no in zip(orders, refusals, strict=True) if no is None]
    openings = await _openings(tx, asked)
    drafts = iter([_draft(tx, *around) for around in zip(asked, openings, strict=True)])
    return [next(drafts) if no is None else no for no in refusals]


async def _refusal(tx: Transaction, order: Order) -> Refused | None:
    """What the terms alone show to be wrong, then the operator's cap."""
    found = faults(order.terms)
    if found:
        return Invalid(found)
    cap = tx.policy.daily_escrow_cap
    if cap is not None and (count := await count_today(tx, order.developer_id)) >= cap:
        return DailyCapReached(limit=cap, count=count, remaining=0)
    return None


async def _openings(tx: Transaction, orders: Sequence[Order]) -> list[Opening]:
    """What the database says around each order's terms."""
    questions = [
        Question(
            order.developer_id,
            order.terms.seller_email,
            order.terms.buyer_email,
            order.terms.currency,
            order.terms.auto_complete == "on_ack",
        )
        for order in orders
    ]
    openings = await read_openings(tx, questions)
    unknown = {
        email
        for question, opening in zip(questions, openings, strict=True)
        for email, person in (
            (question.seller_email, opening.seller),
            (question.buyer_email, opening.buyer),
        )
        if email is not None and person is None
    }
    if unknown and await await_registrations(tx, sorted(unknown)):
        return await read_openings(tx, questions)
    return openings


def _draft(tx: Transaction, order: Order, opening: Opening) -> Opened | Refused:
    try:
        escrow = _drafted(tx, order.developer_id, order.terms, opening)
    except Refused as refusal:
        return refusal
    created = Taken(CREATE[escrow.mode], escrow, escrow)  # before it, there was nothing
    if not order.terms.auto_sign:
        return Opened(order, (created,))
    signing = choose("sign_contract", escrow, order.actor)
    changed = signed(escrow, Role.SELLER, tx.now)
    taken = take(signing, escrow, order.actor, tx.now, changed=changed)
    mark = Mark(STORED, image_id=opening.signature_id)
    given = signature(taken.after, Role.SELLER, mark, order.actor, tx.now)
    return Opened(order, (created, taken), given)


def _drafted(tx: Transaction, developer_id: str, terms: Terms, opening: Opening) -> Escrow:
    """The escrow as it will stand, with its rate locked and its fees fixed."""
    rate = young_rate(tx, terms.currency, opening.rate, opening.rate_at)
    ledger_minor = None if rate is None else locked_minor(terms.amount, terms.currency, rate)
    found = faults_in(
        terms,
        Circumstances(
            own_email=opening.own.email if opening.own else None,
            seller_is_known=opening.seller is not None,
            seller_is_verified=opening.is_seller_verified,
            has_signature=opening.signature_id is not None,
            can_acknowledge=opening.can_acknowledge,
            amount_ledger_minor=ledger_minor,
        ),
    )
    if found:
        raise Invalid(found)
    if rate is None or ledger_minor is None:  # no fault of the caller's, so it comes last
        raise no_rate(tx, terms.currency)
    minor = to_minor(terms.amount, terms.currency)
    seller_email = terms.seller_email or (opening.own.email if opening.own else None)
    if minor is None or seller_email is None:
        raise AssertionError("checked terms have an exact amount and a seller")
    due = fees(ledger_minor, terms.own_mode, terms.developer_fee_bps, tx.policy)
    return Escrow(
        id=entity_id(tx.now),
        mode=terms.own_mode,
        status=PENDING,
        seq=1,
        creator_id=developer_id,
        creator_company=opening.company,
        seller=opening.seller,
        seller_email=seller_email,
        buyer=opening.buyer,
        buyer_email=terms.buyer_email,
        title=terms.title,
        language=terms.language,
        currency=terms.currency,
        ledger_currency=LEDGER_CURRENCY,
        amount_minor=minor,
        fx_rate=rate,
        amount_ledger_minor=ledger_minor,
        escrow_fee_minor=due.platform,
        developer_fee_bps=terms.developer_fee_bps,
        developer_fee_minor=due.developer,
        developer_fee_user_id=opening.own.id if opening.own and due.developer else None,
        estimated_delivery_days=terms.delivery_days,
        auto_complete=terms.auto_complete,
        fulfillment_policy=terms.fulfillment_policy,
        contract=Contract(entity_id(tx.now), terms.contract_terms or "")
        if terms.mode == STANDARD
        else None,
        expires_at=expiry_at(tx.now, tx.policy),
        created_at=tx.now,
        updated_at=tx.now,
    )


def young_rate(
    tx: Transaction, currency: str, rate: Decimal | None, fetched_at: datetime | None
) -> Decimal | None:
    """The newest rate, where it is young enough (real time); the ledger's own currency is 1."""
    if currency == LEDGER_CURRENCY:
        return Decimal(1)
    oldest = tx.real_now - timedelta(hours=tx.policy.fx_max_age_hours)
    return None if fetched_at is None or fetched_at < oldest else rate


def no_rate(tx: Transaction, currency: str) -> FxRateUnavailable:
    """There is no rate, or it is too old."""
    return FxRateUnavailable(currency=currency, max_age_hours=tx.policy.fx_max_age_hours)
