"""A change of terms before payment: the rate is locked anew, fees follow, signatures are wiped."""

from dataclasses import dataclass, replace
from decimal import Decimal

from service.commands import papers
from service.commands.escrows import no_rate, young_rate
from service.commands.perform import Command
from service.commands.steps import lock, record
from service.rules.aggregate import Contract, Escrow
from service.rules.errors import DepositUnderReview, Invalid, Malformed
from service.rules.escrow import choose, take
from service.rules.fees import fees, locked_minor
from service.rules.money import to_minor
from service.rules.terms import UPDATABLE, faults_of_amount, faults_of_change
from service.store.db import Transaction
from service.store.rates import read_rate
from service.wire.escrows import UpdateAnswer, updated

_FIELDS = ", ".join(UPDATABLE)


@dataclass(frozen=True, slots=True)
class Changes:
    """What is to be another from now on; None stays as it is."""

    title: str | None = None
    amount: Decimal | None = None
    description: str | None = None
    estimated_delivery_days: int | None = None
    contract_terms: str | None = None


def update(escrow_id: str, changes: Changes) -> Command:
    """The seller or the creator changes the terms. Where nothing differs, nothing happens.

    Raises:
        Malformed: nothing was given.
        Invalid: what was given does not fit the mode or the currency.
        DepositUnderReview: a guest has paid the amount as it stands, which is being looked at.
        FxRateUnavailable: a new amount needs a rate, and none is young enough.
    """

    async def command(tx: Transaction) -> UpdateAnswer:
        given = _given(changes)
        if not given:
            raise Malformed(reason=f"Nothing to change: give at least one of {_FIELDS}.")
        escrow = await lock(tx, escrow_id)
        found = faults_of_change(escrow.mode, escrow.currency, given, changes.amount)
        if found:
            raise Invalid(found)
        row = choose("update", escrow, tx.actor)
        amended = await _amended(tx, escrow, changes)
        if amended == escrow:
            return updated(escrow)
        if escrow.deposit is not None and amended.amount_minor != escrow.amount_minor:
            raise DepositUnderReview
        taken = take(row, escrow, tx.actor, tx.now, changed=amended)
        await record(tx, [taken])
        await papers.ask_again(tx, escrow, taken.after)
        return updated(taken.after)

    return command


def _given(changes: Changes) -> set[str]:
    fields = {
        "title": changes.title,
        "amount": changes.amount,
        "description": changes.description,
        "estimatedDeliveryDays": changes.estimated_delivery_days,
        "contractTerms": changes.contract_terms,
    }
    return {field for field, value in fields.items() if value is not None}


async def _amended(tx: Transaction, escrow: Escrow, changes: Changes) -> Escrow:
    amended = replace(
        escrow,
        title=escrow.title if changes.title is None else changes.title,
        description=escrow.description if changes.description is None else changes.description,
        estimated_delivery_days=changes.estimated_delivery_days or escrow.estimated_delivery_days,
    )
    if changes.amount is not None:
        amended = await _repriced(tx, amended, changes.amount)
    is_repriced = amended.amount_minor != escrow.amount_minor
    return replace(amended, contract=_rewritten(escrow.contract, changes, is_repriced=is_repriced))


async def _repriced(tx: Transaction, escrow: Escrow, amount: Decimal) -> Escrow:
    """The same amount keeps its rate: only a new one is locked anew."""
    minor = to_minor(amount, escrow.currency)
    if minor is None or minor == escrow.amount_minor:
        return escrow
    rate = young_rate(tx, escrow.currency, *await read_rate(tx, escrow.currency))
    if rate is None:
        raise no_rate(tx, escrow.currency)
    ledger_minor = locked_minor(amount, escrow.currency, rate)
    found = faults_of_amount(escrow.mode, ledger_minor)
    if found:
        raise Invalid(found)
    due = fees(ledger_minor, escrow.mode, escrow.developer_fee_bps, tx.policy)
    return replace(
        escrow,
        amount_minor=minor,
        fx_rate=rate,
        amount_ledger_minor=ledger_minor,
        escrow_fee_minor=due.platform,
        developer_fee_minor=due.developer,
    )


def _rewritten(
    contract: Contract | None, changes: Changes, *, is_repriced: bool
) -> Contract | None:
    """Another amount or other terms are another contract: nobody has signed that one yet."""
    if contract is None:
        return None
    terms = changes.contract_terms or contract.terms
    if terms == contract.terms and not is_repriced:
        return contract
    return Contract(id=contract.id, terms=terms, version=contract.version + 1)
