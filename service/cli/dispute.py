"""`amana dispute`: what waits for the operator's word, what was said, and the word itself."""

from decimal import Decimal

import click
import orjson

from service.cli.checked import ENTITY_ID
from service.cli.house import open_house
from service.cli.verb import Answer, inert, verb
from service.commands.disputes import read_case, resolve
from service.commands.perform import House, perform
from service.rules.aggregate import Escrow
from service.rules.dispute import Split
from service.rules.errors import EscrowNotFound, Malformed
from service.rules.machine import Actor, ActorKind
from service.rules.money import LEDGER_CURRENCY, to_decimal, to_minor
from service.settings import Settings
from service.store.disputes import read_disputed
from service.store.escrows import read_escrow
from service.wire.base import dump_json, plain_number
from service.wire.disputes import CaseAnswer, OfferShape, StatementShape

SHOWN = 200
_id = click.argument("escrow_id", metavar="ESCROW", type=ENTITY_ID)


@click.group("dispute")
def dispute() -> None:
    """Disputes: read what both parties say, and decide."""


@dispute.command("list")
@verb
async def show_all(settings: Settings) -> Answer:
    """List the open disputes, those that wait for your decision first."""
    async with open_house(settings) as house:
        found = [
            await read_escrow(house.pool, one) for one in await read_disputed(house.pool, SHOWN)
        ]
        cases = [(one, (await read_case(house, one)).dispute) for one in found if one is not None]
    facts = [{"escrowId": one.id, **orjson.loads(dump_json(case))} for one, case in cases]
    lines = [
        f"{one.id}  {case.ticket_number}  by the {case.opener}  {_held(one)}  "
        + ("waits for you" if case.answered_at else "waits for the other party")
        for one, case in cases
    ]
    return Answer("\n".join(lines) or "no dispute is open", facts)


@dispute.command("show")
@_id
@verb
async def show_one(settings: Settings, escrow_id: str) -> Answer:
    """Show what was said, shown and offered in the last dispute of ESCROW."""
    async with open_house(settings) as house:
        escrow = await _escrow(house, escrow_id)
        told = await read_case(house, escrow)
    return Answer("\n".join(_lines(escrow, told)), orjson.loads(dump_json(told)))


@dispute.command("resolve")
@_id
@click.option("--to", type=click.Choice(("seller", "buyer")), help="All of it to this party.")
@click.option("--seller", "sellers", default=None, metavar="AMOUNT", help="The seller's part.")
@click.option("--buyer", "buyers", default=None, metavar="AMOUNT", help="The buyer's part.")
@verb
async def decide(
    settings: Settings,
    escrow_id: str,
    to: str | None,
    sellers: str | None,
    buyers: str | None,
) -> Answer:
    """Decide the dispute of ESCROW: --to, or --seller and --buyer that sum to what is held."""
    if (to is None) == (sellers is None) or (sellers is None) != (buyers is None):
        raise click.UsageError("give either --to, or --seller and --buyer")
    split = None
    if sellers is not None and buyers is not None:
        split = Split(_minor(sellers, "--seller"), _minor(buyers, "--buyer"))
    async with open_house(settings) as house:
        answer = await perform(house, Actor(ActorKind.OPERATOR), resolve(escrow_id, to, split))
    facts = orjson.loads(answer.body)["escrow"]
    shared = facts["settlement"]
    return Answer(
        f"the escrow {escrow_id} is {facts['status']}: {shared['sellerAmount']} {LEDGER_CURRENCY}"
        f" to the seller, {shared['buyerAmount']} to the buyer",
        facts,
    )


async def _escrow(house: House, escrow_id: str) -> Escrow:
    escrow = await read_escrow(house.pool, escrow_id)
    if escrow is None:
        raise EscrowNotFound
    return escrow


def _lines(escrow: Escrow, told: CaseAnswer) -> list[str]:
    case = told.dispute
    head = [
        f"{case.ticket_number}  {case.status}  {escrow.title}  {_held(escrow)}",
        f"{case.opened_at:%Y-%m-%d %H:%M}  {case.opener}: {inert(case.reason)}",
    ]
    said = [(one.stated_at, _statement(one)) for one in case.statements]
    said += [(one.offered_at, _offer(one)) for one in case.offers]
    return [*head, *(f"{at:%Y-%m-%d %H:%M}  {line}" for at, line in sorted(said))]


def _statement(one: StatementShape) -> str:
    files = "".join(f"\n    {file.mime_type} {file.view_url}" for file in one.attachments)
    return f"{one.by}: {inert(one.text or '')}{files}"


def _offer(one: OfferShape) -> str:
    return (
        f"{one.by} offers {plain_number(one.seller_amount)} {one.currency} to the seller,"
        f" {plain_number(one.buyer_amount)} to the buyer ({one.status})"
    )


def _held(escrow: Escrow) -> str:
    return f"{to_decimal(escrow.held_minor, escrow.ledger_currency):f} {escrow.ledger_currency}"


def _minor(amount: str, option: str) -> int:
    try:
        minor = to_minor(Decimal(amount), LEDGER_CURRENCY)
    except (ArithmeticError, TypeError):
        minor = None
    if minor is None:
        raise Malformed(reason=f"{option} is no amount in {LEDGER_CURRENCY}.")
    return minor
