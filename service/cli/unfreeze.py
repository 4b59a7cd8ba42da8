"""`amana unfreeze`: let an escrow go on that an invariant had frozen."""

import click
import orjson
import structlog

from service.cli.checked import ENTITY_ID
from service.cli.house import open_house
from service.cli.verb import Answer, verb
from service.commands.checks import lift
from service.rules.machine import Actor, ActorKind
from service.settings import Settings

log = structlog.get_logger()


@click.command("unfreeze")
@click.argument("escrow_id", metavar="ID", type=ENTITY_ID)
@click.option("--note", required=True, help="Why, for the log.")
@verb
async def unfreeze(settings: Settings, escrow_id: str, note: str) -> Answer:
    """Lift the freeze of escrow ID, once every check that freezes passes for it."""
    async with open_house(settings) as house:
        answer = await lift(house, Actor(ActorKind.OPERATOR), escrow_id)
    log.info("escrow_unfrozen", escrow_id=escrow_id, note=note)
    return Answer(f"the escrow {escrow_id} is not frozen", orjson.loads(answer.body))
