"""How every step on a payment is carried out: choose, move, post, tell; whoever comes has locked.

Locks, everywhere: the escrow, then payments in id order, then accounts in id order. Every step is
one event of the payment. `follow` is what the escrow's own steps do to payments: those under way
are cancelled once it is not to be paid any more, and a guest's refund is opened for the operator.
What it moves is posted by the escrow's step, together with its own money: one lock of all accounts.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from service.rules import payment as rules
from service.rules.escrow import PENDING, Taken
from service.rules.machine import NOWHERE, Role, Step
from service.rules.payment import CREATED, FINAL, REFUND, Payment, Report, choose, legs
from service.store.db import Transaction
from service.store.events import Entry, append_events
from service.store.ids import entity_id, event_id
from service.store.ledger import Entry as Transfer
from service.store.ledger import post_transfers
from service.store.payments import insert_payments, lock_open_of_escrows, move_payment


async def start(
    tx: Transaction, draft: Payment, name: str, who: Role, report: Report | None = None
) -> Payment:
    """A new payment by the first step of this name; the payment after it."""
    row = choose(replace(draft, state=NOWHERE), name, who)
    made = _after(tx, replace(draft, seq=0), row)
    if report is not None:
        made = _received(made, report)
    await insert_payments(tx, [made])
    await _tell(tx, row, made)
    await post_transfers(tx, _transfers(row, replace(made, state=NOWHERE), made, report))
    return made


async def take(
    tx: Transaction,
    payment: Payment,
    name: str,
    who: Role,
    report: Report | None = None,
    **changes: Any,
) -> Payment:
    """The locked payment after this step; `report` where money came with it.

    Raises:
        PaymentNotOpen: the step is not to be had from here.
    """
    after, transfers = await _moved(tx, payment, name, who, report, **changes)
    await post_transfers(tx, transfers)
    return after


async def cancel(tx: Transaction, payment: Payment, who: Role) -> Payment:
    """The locked payment after nobody is to pay it any more; its page at the provider is closed.

    Raises:
        PaymentNotOpen: it is over.
    """
    after, transfers = await _cancelled(tx, payment, who)
    await post_transfers(tx, transfers)
    return after


async def follow(tx: Transaction, taken: Sequence[Taken]) -> list[Transfer]:
    """What these steps of escrows, which are locked, mean for their payments; what that moves."""
    transfers: list[Transfer] = []
    left = [t.after.id for t in taken if t.before.status == PENDING != t.after.status]
    if left:
        for payment in await lock_open_of_escrows(tx, left):
            _, moved = await _cancelled(tx, payment, Role.SYSTEM)
            transfers += moved
    for one in taken:
        refunded = one.after.refunded_minor - one.before.refunded_minor
        if refunded and one.after.guest_provider is not None:
            await _refund_guest(tx, one, one.after.guest_provider, refunded)
    return transfers


async def _cancelled(
    tx: Transaction, payment: Payment, who: Role
) -> tuple[Payment, list[Transfer]]:
    """What the provider has opened is the worker's to close, as long as `ask_at` stands."""
    is_placed = payment.provider_reference is not None and payment.ask_at is not None
    if is_placed:
        tx.ring("payments")
    return await _moved(tx, payment, "cancel", who, ask_at=tx.real_now if is_placed else None)


async def open_refund(tx: Transaction, origin: Payment) -> Payment:
    """What this payment received is to go back; the operator decides how."""
    if origin.received_currency is None:
        raise AssertionError(f"payment {origin.id} has received nothing to send back")
    refund = replace(
        blank(tx, REFUND, origin.provider, origin.received_minor, origin.received_currency),
        user_id=origin.user_id,
        escrow_id=origin.escrow_id,
        origin_id=origin.id,
        payer_email=origin.payer_email,
    )
    return await start(tx, refund, "open_refund", Role.SYSTEM)


async def open_refund_again(tx: Transaction, failed: Payment) -> Payment:
    """What this refund did not send back is to go back all the same, under an id of its own.

    A provider that is asked twice under one id gives the same refund, and so the same failure.
    """
    refund = replace(
        blank(tx, REFUND, failed.provider, failed.amount_minor, failed.currency),
        user_id=failed.user_id,
        escrow_id=failed.escrow_id,
        origin_id=failed.origin_id,
        payer_email=failed.payer_email,
    )
    return await start(tx, refund, "open_refund", Role.SYSTEM)


async def _refund_guest(tx: Transaction, taken: Taken, provider: str, refunded: int) -> None:
    """The escrow's own step has put it into clearing."""
    escrow = taken.after
    refund = replace(
        blank(tx, REFUND, provider, refunded, escrow.ledger_currency),
        escrow_id=escrow.id,
        payer_email=escrow.buyer_email,
    )
    await start(tx, refund, "open_refund", Role.SYSTEM)


def blank(tx: Transaction, kind: str, provider: str, amount_minor: int, currency: str) -> Payment:
    """A payment of nobody's yet, from now on for as long as a page is open."""
    return Payment(
        id=entity_id(tx.real_now),
        kind=kind,
        state=CREATED,
        provider=provider,
        amount_minor=amount_minor,
        currency=currency,
        created_at=tx.real_now,
        expires_at=tx.real_now + rules.PAGE_OPEN,
    )


def _after(tx: Transaction, payment: Payment, row: Step) -> Payment:
    is_final = row.target in FINAL
    return replace(
        payment,
        state=row.target,
        seq=payment.seq + 1,
        settled_at=tx.real_now if is_final else None,
        decided_by=tx.actor.kind.value if is_final else None,
        ask_at=None if is_final else payment.ask_at,
    )


def _received(payment: Payment, report: Report) -> Payment:
    return replace(
        payment,
        received_minor=report.amount_minor,
        received_currency=report.currency,
        charge_reference=report.charge_reference,
    )


async def _moved(
    tx: Transaction,
    payment: Payment,
    name: str,
    who: Role,
    report: Report | None = None,
    **changes: Any,
) -> tuple[Payment, list[Transfer]]:
    """The payment after the step, which is written and told; what is still to be posted."""
    row = choose(payment, name, who)
    after = replace(_after(tx, payment, row), **changes)
    if report is not None:
        after = _received(after, report)
    await move_payment(tx, payment, after)
    await _tell(tx, row, after)
    return after, _transfers(row, payment, after, report)


def _transfers(row: Step, before: Payment, after: Payment, report: Report | None) -> list[Transfer]:
    return [Transfer(leg, after.id, after.seq) for leg in legs(row, before, report)]


async def _tell(tx: Transaction, row: Step, after: Payment) -> None:
    entry = Entry(
        id=event_id(tx.now),
        subject_id=after.id,
        subject_kind="payment",
        seq=after.seq,
        step=row.name,
        family=rules.TABLE.family,
        mode=after.mode,
        from_state=row.source,
        to_state=row.target,
    )
    await append_events(tx, [entry])
