"""`amana fx`: exchange rates to the ledger's currency."""

from decimal import Decimal
from typing import Annotated

import click
from pydantic import Field

from service.cli.checked import Checked
from service.cli.house import open_house
from service.cli.verb import Answer, verb
from service.commands.perform import tend
from service.commands.rates import set_rate
from service.rules.machine import Actor, ActorKind
from service.rules.money import LEDGER_CURRENCY
from service.settings import Settings
from service.wire.base import plain_number
from service.wire.sandbox import Amount

RATE = Checked("rate", Annotated[Amount, Field(gt=0, le=1_000_000)])


@click.group("fx")
def fx() -> None:
    """Exchange rates to the ledger's currency."""


@fx.command("set")
@click.argument("currency", type=click.Choice(["USD", "EUR"]))
@click.argument("rate", type=RATE)
@verb
async def set_(settings: Settings, currency: str, rate: Decimal) -> Answer:
    """Let one unit of CURRENCY be RATE dinars, for escrows created from now on."""
    async with open_house(settings) as house:
        await tend(
            house,
            lambda tx: set_rate(tx, currency, rate, "operator"),
            Actor(ActorKind.OPERATOR),
        )
    told = plain_number(rate)
    return Answer(f"1 {currency} = {told} {LEDGER_CURRENCY}", {"currency": currency, "rate": told})
