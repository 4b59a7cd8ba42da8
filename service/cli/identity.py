"""`amana identity`: the operator's word on who somebody is."""

import click
import orjson

from service.cli.checked import ENTITY_ID
from service.cli.house import open_house
from service.cli.verb import Answer, verb
from service.commands.identity import decide as decided
from service.commands.perform import perform
from service.rules.machine import Actor, ActorKind
from service.settings import Settings
from service.store.identity import read_undecided
from service.wire.base import instant

SHOWN = 200


@click.group("identity")
def identity() -> None:
    """Identity verifications that developers have asked for."""


@identity.command("list")
@verb
async def show(settings: Settings) -> Answer:
    """List those that wait for a decision, oldest first."""
    async with open_house(settings) as house:
        waiting = await read_undecided(house.pool, SHOWN)
    facts = [
        {
            "id": one.id,
            "email": one.email,
            "company": one.company,
            "needsAdminReview": one.needs_admin_review,
            "createdAt": instant(one.created_at),
            "expiresAt": instant(one.expires_at),
        }
        for one in waiting
    ]
    lines = [
        f"{one.id}  {one.email}  for {one.company}  until {one.expires_at:%Y-%m-%d}"
        for one in waiting
    ]
    return Answer("\n".join(lines) or "none waits for a decision", facts)


@identity.command("decide")
@click.argument("verification_id", metavar="ID", type=ENTITY_ID)
@click.option("--approve", "approves", is_flag=True, help="It is this person.")
@click.option("--reject", "rejects", is_flag=True, help="It is not, or it cannot be seen.")
@verb
async def decide(
    settings: Settings,
    verification_id: str,
    approves: bool,  # noqa: FBT001 - click passes it by name
    rejects: bool,  # noqa: FBT001 - click passes it by name
) -> Answer:
    """Approve or reject verification ID; the developer that asked is told."""
    if approves == rejects:
        raise click.UsageError("give one of --approve and --reject")
    async with open_house(settings) as house:
        answer = await perform(
            house, Actor(ActorKind.OPERATOR), decided(verification_id, approves=approves)
        )
    facts = orjson.loads(answer.body)
    return Answer(f"the verification {verification_id} is {facts['kyc_status']}", facts)
