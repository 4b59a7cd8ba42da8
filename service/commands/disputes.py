"""Disputes: opened by a party, answered by the other, settled by both, the operator or the clock.

Or taken back. Both parties may add evidence and offers as long as it is open; only the other
party's first word stops the clock that would decide for the opener.
"""

from collections.abc import Sequence
from dataclasses import replace
from functools import partial

from service.commands.files import record as record_files
from service.commands.files import view_url
from service.commands.perform import Command, House
from service.commands.steps import lock, record, reread, step
from service.rules.aggregate import Dispute, Escrow
from service.rules.clocks import DISPUTE_ANSWER
from service.rules.dispute import ADDITIONS_MAX, Offer, Split, Statement, check_acceptance
from service.rules.errors import (
    DisputeNotFound,
    Invalid,
    SplitMustEqualHeld,
    TooManyStatements,
    WrongParty,
)
from service.rules.escrow import CANCELLED, COMPLETED, choose, roles, take
from service.rules.files import StoredFile
from service.rules.machine import Role
from service.rules.money import to_decimal
from service.store.clock import read_clock
from service.store.db import Transaction
from service.store.deadlines import read_open
from service.store.disputes import (
    count_additions,
    insert_offer,
    insert_statement,
    note_accepted,
    read_offer,
    read_offers,
    read_statements,
)
from service.store.ids import entity_id
from service.store.parts import next_ticket
from service.wire.base import plain_number
from service.wire.disputes import CaseAnswer, case
from service.wire.escrows import EscrowAnswer, detail


def open_dispute(escrow_id: str, reason: str, files: Sequence[StoredFile] = ()) -> Command:
    """A party disputes: every clock stands still, and the other one is asked to answer.

    The files are in the store already, and are recorded here as the opener's evidence.
    """

    async def command(tx: Transaction) -> EscrowAnswer:
        escrow = await lock(tx, escrow_id)
        row = choose("dispute", escrow, tx.actor)
        opener = _side(tx, escrow)
        person = escrow.seller if opener is Role.SELLER else escrow.buyer
        if person is None:
            raise AssertionError(f"escrow {escrow_id} has no {opener}")
        dispute = Dispute(
            id=entity_id(tx.now),
            ticket_number=await next_ticket(tx),
            opener=opener.value,
            opened_by=person,
            reason=reason,
            opened_at=tx.now,
            back_to=escrow.status,
        )
        changed = replace(escrow, dispute=dispute)
        taken = take(row, escrow, tx.actor, tx.now, changed=changed)
        await record(tx, [taken])
        if files:
            await _state(tx, taken.after, opener, None, files)
        return detail(taken.after, tx.policy.ticket_prefix)

    return command


def answer(
    escrow_id: str,
    text: str | None = None,
    files: Sequence[StoredFile] = (),
    offer: Split | None = None,
) -> Command:
    """A party says something, shows evidence, offers a split, or all of it at once.

    The other party's first word stops the clock that would decide for the opener. The files are in
    the store already, and are recorded here. A newer offer replaces one's own.

    Raises:
        Invalid: there is neither text nor file nor offer.
        NoOpenDispute: there is none to answer.
        SplitMustEqualHeld: the offer's parts are below 0 or do not sum to what is held.
        TooManyStatements: this party has said enough.
    """

    async def command(tx: Transaction) -> EscrowAnswer:
        if text is None and not files and offer is None:
            raise Invalid({"text": "give a text, files or an offer"})
        escrow = await lock(tx, escrow_id)
        row = choose("answer_dispute", escrow, tx.actor)
        side, dispute = _side(tx, escrow), _open(escrow)
        if offer is not None and not offer.shares_out(escrow.held_minor):
            raise _unequal(escrow)
        if await count_additions(tx, dispute.id, side.value) >= ADDITIONS_MAX:
            raise TooManyStatements(limit=ADDITIONS_MAX)
        if side.value != dispute.opener and dispute.answered_at is None:
            dispute = replace(dispute, answered_at=tx.now)
        changed = replace(escrow, dispute=dispute)
        taken = take(row, escrow, tx.actor, tx.now, changed=changed)
        await record(tx, [taken])
        if text is not None or files:
            await _state(tx, taken.after, side, text, files)
        if offer is not None:
            made = Offer(entity_id(tx.now), dispute.id, side.value, offer, tx.now)
            await insert_offer(tx, made)
        return detail(taken.after, tx.policy.ticket_prefix)

    return command


def accept_offer(escrow_id: str, offer_id: str) -> Command:
    """A party accepts what the other one has offered: settled as both want it, at once.

    Raises:
        NoOpenDispute: there is none to settle.
        OfferClosed: it was replaced, is over, or is none of this dispute's.
        OfferOwn: the party made it.
    """

    async def command(tx: Transaction) -> EscrowAnswer:
        escrow = await lock(tx, escrow_id)
        choose("answer_dispute", escrow, tx.actor)
        held, dispute = roles(tx.actor, escrow), _open(escrow)
        offer = check_acceptance(await read_offer(tx, offer_id), dispute, held)
        part = offer.split.seller_minor
        row = choose("resolve_dispute", escrow, tx.actor, COMPLETED if part else CANCELLED)
        if not offer.split.shares_out(escrow.held_minor):
            raise AssertionError(f"offer {offer_id} is not what escrow {escrow_id} holds")
        taken = take(row, escrow, tx.actor, tx.now, sellers_part=part or None)
        await record(tx, [taken])
        await note_accepted(tx, offer_id)
        return detail(taken.after, tx.policy.ticket_prefix)

    return command


def withdraw(escrow_id: str) -> Command:
    """Whoever opened the dispute takes it back: the escrow goes on where it stood."""

    async def command(tx: Transaction) -> EscrowAnswer:
        await step(tx, escrow_id, "withdraw_dispute")
        return detail(await reread(tx, escrow_id), tx.policy.ticket_prefix)

    return command


def resolve(escrow_id: str, to: str | None = None, split: Split | None = None) -> Command:
    """The operator decides: all to the `seller` or the `buyer`, or these amounts to each.

    Raises:
        SplitMustEqualHeld: the amounts are below 0 or do not sum to what is held.
    """

    async def command(tx: Transaction) -> EscrowAnswer:
        escrow = await lock(tx, escrow_id)
        if Role.OPERATOR not in roles(tx.actor, escrow):  # the parties have to agree on an offer
            raise WrongParty(party=Role.OPERATOR, act="resolve the dispute of")
        part = _sellers_part(escrow, to, split)
        row = choose("resolve_dispute", escrow, tx.actor, COMPLETED if part else CANCELLED)
        if split is not None and not split.shares_out(escrow.held_minor):
            raise _unequal(escrow)
        taken = take(row, escrow, tx.actor, tx.now, sellers_part=part or None)
        await record(tx, [taken])
        return detail(taken.after, tx.policy.ticket_prefix)

    return command


async def read_case(house: House, escrow: Escrow) -> CaseAnswer:
    """The last dispute in full, with addresses of its files that live for 15 minutes.

    Raises:
        DisputeNotFound: there never was one.
    """
    dispute = escrow.dispute
    if dispute is None:
        raise DisputeNotFound
    reader = house.pool
    real_now = (await read_clock(reader)).real_now
    clocks = await read_open(reader, escrow.id)
    return case(
        escrow,
        dispute,
        await read_statements(reader, dispute.id),
        await read_offers(reader, dispute.id),
        next((one.due_at for one in clocks if one.kind == DISPUTE_ANSWER), None),
        house.policy.ticket_prefix,
        partial(view_url, house.policy.public_url, house.vault, real_now=real_now),
    )


def _side(tx: Transaction, escrow: Escrow) -> Role:
    return Role.SELLER if Role.SELLER in roles(tx.actor, escrow) else Role.BUYER


def _open(escrow: Escrow) -> Dispute:
    if escrow.dispute is None:
        raise AssertionError(f"escrow {escrow.id} is disputed without a dispute")
    return escrow.dispute


async def _state(
    tx: Transaction,
    escrow: Escrow,
    side: Role,
    text: str | None,
    files: Sequence[StoredFile],
) -> None:
    user_id = escrow.seller_id if side is Role.SELLER else escrow.buyer_id
    if user_id is None:
        raise AssertionError(f"escrow {escrow.id} has no {side}")
    await record_files(tx, files, escrow_id=escrow.id, uploaded_by=user_id)
    dispute_id = _open(escrow).id
    given = Statement(
        entity_id(tx.now), dispute_id, side.value, user_id, tx.now, text, tuple(files)
    )
    await insert_statement(tx, given)


def _sellers_part(escrow: Escrow, to: str | None, split: Split | None) -> int:
    if split is not None:
        return split.seller_minor
    return escrow.held_minor if to == "seller" else 0


def _unequal(escrow: Escrow) -> SplitMustEqualHeld:
    held = plain_number(to_decimal(escrow.held_minor, escrow.ledger_currency))
    return SplitMustEqualHeld(held=held, currency=escrow.ledger_currency)
