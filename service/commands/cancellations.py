"""The way out before delivery is accepted: the buyer asks, the seller agrees, or just cancels."""

from dataclasses import replace

from service.commands.perform import Command
from service.commands.steps import lock, record, reread, step
from service.rules.aggregate import CancellationRequest
from service.rules.escrow import choose, take
from service.store.db import Transaction
from service.store.ids import entity_id
from service.wire.escrows import EscrowAnswer, detail


def request(escrow_id: str, reason: str | None) -> Command:
    """The buyer asks to cancel; the clock answers in the seller's place after some days."""

    async def command(tx: Transaction) -> EscrowAnswer:
        escrow = await lock(tx, escrow_id)
        row = choose("request_cancellation", escrow, tx.actor)
        if escrow.buyer is None:
            raise AssertionError(f"escrow {escrow_id} was paid by nobody")
        asked = CancellationRequest(entity_id(tx.now), escrow.buyer, tx.now, reason)
        changed = replace(escrow, cancellation=asked)
        taken = take(row, escrow, tx.actor, tx.now, changed=changed)
        await record(tx, [taken])
        return detail(await reread(tx, escrow_id), tx.policy.ticket_prefix)

    return command


def accept(escrow_id: str) -> Command:
    """The seller agrees: the buyer is refunded in full."""
    return _answer(escrow_id, "accept_cancellation")


def reject(escrow_id: str) -> Command:
    """The seller declines; the buyer may ask again."""
    return _answer(escrow_id, "reject_cancellation")


def cancel_paid(escrow_id: str) -> Command:
    """The seller cancels a paid escrow without being asked: the buyer is refunded in full."""
    return _answer(escrow_id, "cancel_escrow")


def _answer(escrow_id: str, name: str) -> Command:
    async def command(tx: Transaction) -> EscrowAnswer:
        await step(tx, escrow_id, name)
        return detail(await reread(tx, escrow_id), tx.policy.ticket_prefix)

    return command
