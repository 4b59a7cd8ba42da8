"""`amana webhook`: the operator's hand in deliveries, for whichever developer asks for it."""

from datetime import datetime
from uuid import UUID

import click
import orjson

from service.cli.checked import ENTITY_ID, Checked
from service.cli.house import open_house
from service.cli.verb import Answer, verb
from service.commands import attempts, deliveries, recoveries
from service.commands.perform import House, perform
from service.rules.errors import DeliveryNotFound, WebhookNotFound
from service.rules.machine import Actor, ActorKind
from service.settings import Settings
from service.store.attempts import read_delivery
from service.store.endpoints import read_endpoint
from service.wire.escrows import From, To

MOMENT, END = Checked("instant", From), Checked("instant", To)
OPERATOR = Actor(ActorKind.OPERATOR)


@click.group("webhook")
def webhook() -> None:
    """Webhook endpoints and deliveries."""


@webhook.command("resend")
@click.argument("delivery_id", metavar="ID", type=click.UUID)
@verb
async def resend(settings: Settings, delivery_id: UUID) -> Answer:
    """Send delivery ID once more, now."""
    async with open_house(settings) as house:
        found = await read_delivery(house.pool, delivery_id)
        if found is None:
            raise DeliveryNotFound
        command = attempts.resend(found.developer_id, found.endpoint_id, delivery_id)
        answer = await perform(house, OPERATOR, command)
    return Answer(f"delivery {delivery_id} is on its way", orjson.loads(answer.body))


@webhook.command("recover")
@click.argument("endpoint_id", metavar="ID", type=ENTITY_ID)
@click.option("--since", type=MOMENT, required=True, help="A day, or an instant with its offset.")
@click.option("--until", type=END, help="The same; now, if it is left out.")
@verb
async def recover(
    settings: Settings, endpoint_id: str, since: datetime, until: datetime | None
) -> Answer:
    """Send in the background what endpoint ID has missed."""
    async with open_house(settings) as house:
        developer_id = await _whose(house, endpoint_id)
        command = recoveries.recover(developer_id, endpoint_id, since, until)
        answer = await perform(house, OPERATOR, command)
    facts = orjson.loads(answer.body)
    count = facts["recovery"]["count"]
    return Answer(f"a worker sends {count} deliveries again, and what was never sent", facts)


@webhook.command("skip-head")
@click.argument("endpoint_id", metavar="ENDPOINT", type=ENTITY_ID)
@verb
async def skip_head(settings: Settings, endpoint_id: str) -> Answer:
    """Cancel the delivery that holds ENDPOINT's fifo lane; the next one falls due."""
    async with open_house(settings) as house:
        answer = await perform(house, OPERATOR, deliveries.skip_head(endpoint_id))
    return Answer(f"endpoint {endpoint_id} goes on with the next", orjson.loads(answer.body))


async def _whose(house: House, endpoint_id: str) -> str:
    endpoint = await read_endpoint(house.pool, endpoint_id)
    if endpoint is None:
        raise WebhookNotFound
    return endpoint.developer_id
