"""`amana payment` and `amana payout`: what a person must decide about money from and to outside."""

from collections.abc import Sequence
from datetime import UTC, datetime
from decimal import Decimal
from typing import Annotated

import click
import orjson
from pydantic import Field

from service.cli.checked import ENTITY_ID, Checked
from service.cli.house import open_house
from service.cli.verb import Answer, verb
from service.commands.files import view_url
from service.commands.payments import Statement, decide, returned, send_refund, take_up
from service.commands.perform import Command, House, perform
from service.rules.errors import Malformed
from service.rules.machine import Actor, ActorKind
from service.rules.money import EXPONENTS, MAX_MINOR, to_decimal, to_minor
from service.rules.payment import (
    ACCEPT_PAY,
    BY_HAND,
    PAYOUT,
    REFUND,
    STATES,
    TOPUP,
    Payment,
    transfer_reference,
)
from service.settings import Settings
from service.store.payments import list_payments
from service.wire.base import dump_json
from service.wire.payments import shape
from service.wire.text import Text

SHOWN = 200
INCOMING = (TOPUP, ACCEPT_PAY, REFUND)
OPERATOR = Actor(ActorKind.OPERATOR)
REASON = Checked("reason", Annotated[Text, Field(min_length=1, max_length=500)])

LINE = Checked("line", Annotated[Text, Field(min_length=1, max_length=200)])

_state = click.option("--state", type=click.Choice(STATES), help="Those in this state.")
_after = click.option(
    "--after", type=ENTITY_ID, default=None, help="From this id on, which was the last one shown."
)
_received = click.option("--received", default=None, help="The sum that the bank statement shows.")
_currency = click.option(
    "--currency", type=click.Choice(tuple(EXPONENTS)), default="TND", show_default=True
)
_reason = click.option(
    "--reason", type=REASON, default=None, help="Kept with it, and told to whoever pays."
)
_id = click.argument("payment_id", metavar="ID", type=ENTITY_ID)


@click.group("payment")
def payment() -> None:
    """Payments: bank transfers with a proof, money of which nobody knows whose, refunds."""


@click.group("payout")
def payout() -> None:
    """Payouts that people have asked for; you make the bank transfer."""


@payment.command("list")
@_state
@_after
@verb
async def show_payments(settings: Settings, state: str | None, after: str | None) -> Answer:
    """List what waits for you, oldest first."""
    return await _shown(settings, INCOMING, state, after)


@payout.command("list")
@_state
@_after
@verb
async def show_payouts(settings: Settings, state: str | None, after: str | None) -> Answer:
    """List the payouts that are to be made, or came back, oldest first."""
    return await _shown(settings, (PAYOUT,), state, after)


@payment.command("approve")
@_id
@_received
@_currency
@click.option(
    "--line",
    type=LINE,
    default=None,
    help="The bank's own name for the statement's line: it is booked once, whatever it is for.",
)
@click.option("--through-provider", is_flag=True, help="A refund: let the provider send it back.")
@verb
async def approve(
    settings: Settings,
    payment_id: str,
    received: str | None,
    currency: str,
    line: str | None,
    through_provider: bool,  # noqa: FBT001 - click passes it by name
) -> Answer:
    """The money is there, or was sent back: approve, credit or close payment ID.

    Money that comes for a payment which is over is told with --received: it waits as a payment of
    its own, which is then approved (credited) or rejected (sent back).
    """
    if through_provider:
        return await _decided(settings, send_refund(payment_id))
    if line is not None and received is None:
        raise Malformed(reason="--line names what --received says.")
    came = None if received is None else Statement(_minor(received, currency), currency, line)
    return await _decided(settings, decide(payment_id, approves=True, received=came), payment_id)


@payment.command("reject")
@_id
@_reason
@verb
async def reject(settings: Settings, payment_id: str, reason: str | None) -> Answer:
    """There is no such money, or it is to go back: reject, send back or write off payment ID.

    A refund that the provider did not send is opened anew.
    """
    return await _decided(settings, decide(payment_id, approves=False, note=reason))


@payout.command("take")
@_id
@verb
async def take_payout(settings: Settings, payment_id: str) -> Answer:
    """You make the bank transfer of payout ID now: its owner cannot take it back any more."""
    return await _decided(settings, take_up(payment_id))


@payout.command("approve")
@_id
@verb
async def approve_payout(settings: Settings, payment_id: str) -> Answer:
    """You have made the bank transfer of payout ID, which you took; or put back what returned."""
    return await _decided(settings, decide(payment_id, approves=True))


@payout.command("returned")
@_id
@_received
@_currency
@verb
async def return_payout(
    settings: Settings, payment_id: str, received: str | None, currency: str
) -> Answer:
    """The bank has sent payout ID back, or a refund: it waits for you as a payment of its own."""
    came = None if received is None else (_minor(received, currency), currency)
    return await _decided(settings, returned(payment_id, came), payment_id)


@payout.command("reject")
@_id
@_reason
@verb
async def reject_payout(settings: Settings, payment_id: str, reason: str | None) -> Answer:
    """You make no transfer: the money can be spent again."""
    return await _decided(settings, decide(payment_id, approves=False, note=reason))


async def _shown(
    settings: Settings, kinds: Sequence[str], state: str | None, after: str | None
) -> Answer:
    async with open_house(settings) as house:
        found = await list_payments(house.pool, kinds, state, SHOWN, after)
        proofs = [_proof_url(house, one) for one in found]
    facts = [
        orjson.loads(dump_json(shape(one))) | {"payee": one.payee, "proofUrl": proof}
        for one, proof in zip(found, proofs, strict=True)
    ]
    lines = [
        f"{_line(one)}\n  {proof}" if proof else _line(one)
        for one, proof in zip(found, proofs, strict=True)
    ]
    if len(found) == SHOWN:
        lines.append(f"there may be more: --after {found[-1].id}")
    return Answer("\n".join(lines) or "nothing waits for you", facts)


def _proof_url(house: House, one: Payment) -> str | None:
    """Where the proof can be looked at, for 15 minutes."""
    if one.proof_file is None:
        return None
    return view_url(house.policy.public_url, house.vault, one.proof_file, datetime.now(UTC))


def _line(one: Payment) -> str:
    asked = f"{to_decimal(one.amount_minor, one.currency):f} {one.currency}"
    came = ""
    if one.received_currency is not None:
        minor = to_decimal(one.received_minor, one.received_currency)
        came = f"  received {minor:f} {one.received_currency}"
    named = f"  {transfer_reference(one.id)}" if one.provider in BY_HAND else ""
    days = (datetime.now(UTC) - (one.created_at or datetime.now(UTC))).days
    payee = f"  to {', '.join(one.payee.splitlines())}" if one.payee else ""
    return (
        f"{one.id}  {one.kind}  {one.state}  {one.provider}  {asked}{came}  {days} d{named}{payee}"
    )


async def _decided(settings: Settings, command: Command, asked: str | None = None) -> Answer:
    """What was decided; where another payment than the one `asked` about waits now, that one."""
    async with open_house(settings) as house:
        answer = await perform(house, OPERATOR, command)
    facts = orjson.loads(answer.body)["payment"]
    told = f"the {facts['kind']} {facts['id']} is {facts['state']}"
    if asked not in (None, facts["id"]):
        told = f"{asked} is over; what came waits for you: {told}"
    return Answer(told, facts)


def _minor(amount: str, currency: str) -> int:
    try:
        minor = to_minor(Decimal(amount), currency)
    except ArithmeticError:
        minor = None
    if minor is None or not 0 < minor <= MAX_MINOR:
        raise Malformed(reason=f"--received is no amount in {currency}.")
    return minor
