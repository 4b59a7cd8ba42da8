"""Disputes: opened by a party, settled by the operator or the clock, or taken back."""

from dataclasses import dataclass, replace

from service.commands.perform import Command
from service.commands.steps import lock, record, reread, step
from service.rules.aggregate import Dispute, Escrow
from service.rules.errors import SplitMustEqualHeld, WrongParty
from service.rules.escrow import CANCELLED, COMPLETED, choose, roles, take
from service.rules.machine import Role
from service.rules.money import to_decimal
from service.store.db import Transaction
from service.store.ids import entity_id
from service.store.parts import next_ticket
from service.wire.base import plain_number
from service.wire.escrows import EscrowAnswer, detail


@dataclass(frozen=True, slots=True)
class Split:
    """Who gets how much of what is held, in the ledger's minor units."""

    seller_minor: int
    buyer_minor: int

    def shares_out(self, held_minor: int) -> bool:
        """Whether the parts are 0 or more and sum to this."""
        parts = (self.seller_minor, self.buyer_minor)
        return min(parts) >= 0 and sum(parts) == held_minor


def open_dispute(escrow_id: str, reason: str) -> Command:
    """A party disputes: every clock stands still, and the other one is asked to answer."""

    async def command(tx: Transaction) -> EscrowAnswer:
        escrow = await lock(tx, escrow_id)
        row = choose("dispute", escrow, tx.actor)
        opener = Role.SELLER if Role.SELLER in roles(tx.actor, escrow) else Role.BUYER
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


def _sellers_part(escrow: Escrow, to: str | None, split: Split | None) -> int:
    if split is not None:
        return split.seller_minor
    return escrow.held_minor if to == "seller" else 0


def _unequal(escrow: Escrow) -> SplitMustEqualHeld:
    held = plain_number(to_decimal(escrow.held_minor, escrow.ledger_currency))
    return SplitMustEqualHeld(held=held, currency=escrow.ledger_currency)
