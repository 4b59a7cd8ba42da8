"""`amana proof`: purchase proofs on which the parties could not agree."""

import click
import orjson

from service.cli.checked import ENTITY_ID
from service.cli.house import open_house
from service.cli.verb import Answer, inert, verb
from service.commands.perform import perform
from service.commands.proofs import decide as decided
from service.commands.proofs import read_proof
from service.rules.machine import Actor, ActorKind
from service.settings import Settings
from service.store.disputes import read_proofs_to_decide
from service.store.escrows import read_escrow
from service.wire.base import dump_json

SHOWN = 200
_id = click.argument("escrow_id", metavar="ESCROW", type=ENTITY_ID)


@click.group("proof")
def proof() -> None:
    """Purchase proofs that wait for your decision."""


@proof.command("list")
@verb
async def show(settings: Settings) -> Answer:
    """List the proofs that wait for you, with addresses of their files that live for 15 minutes."""
    async with open_house(settings) as house:
        ids = await read_proofs_to_decide(house.pool, SHOWN)
        found = [await read_escrow(house.pool, one) for one in ids]
        proofs = [(one, (await read_proof(house, one)).proof) for one in found if one is not None]
    facts = [{"escrowId": one.id, **orjson.loads(dump_json(shown))} for one, shown in proofs]
    lines = []
    for one, shown in proofs:
        lines.append(f"{one.id}  {one.title}  corrected {shown.correction_rounds} times")
        for given in shown.submissions:
            asked = f"  then asked: {inert(given.correction)}" if given.correction else ""
            lines.append(f"  {given.submitted_at:%Y-%m-%d %H:%M}  {inert(given.note or '')}{asked}")
            lines += [f"    {file.mime_type} {file.view_url}" for file in given.attachments]
    return Answer("\n".join(lines) or "none waits for a decision", facts)


@proof.command("accept")
@_id
@verb
async def accept(settings: Settings, escrow_id: str) -> Answer:
    """The purchase is proven: the seller of ESCROW may deliver."""
    return await _decided(settings, escrow_id, accepts=True)


@proof.command("reject")
@_id
@verb
async def reject(settings: Settings, escrow_id: str) -> Answer:
    """The purchase is not proven: ESCROW is cancelled and the buyer refunded."""
    return await _decided(settings, escrow_id, accepts=False)


@proof.command("decide")
@_id
@click.option("--accept", "accepts", is_flag=True, help="As `accept`.")
@click.option("--reject", "rejects", is_flag=True, help="As `reject`.")
@verb
async def decide(
    settings: Settings,
    escrow_id: str,
    accepts: bool,  # noqa: FBT001 - click passes it by name
    rejects: bool,  # noqa: FBT001 - click passes it by name
) -> Answer:
    """Accept or reject the purchase proof of ESCROW."""
    if accepts == rejects:
        raise click.UsageError("give one of --accept and --reject")
    return await _decided(settings, escrow_id, accepts=accepts)


async def _decided(settings: Settings, escrow_id: str, *, accepts: bool) -> Answer:
    async with open_house(settings) as house:
        command = decided(escrow_id, accepts=accepts)
        answer = await perform(house, Actor(ActorKind.OPERATOR), command)
    facts = orjson.loads(answer.body)["escrow"]
    phase, status = facts["proofInfo"]["phase"], facts["status"]
    return Answer(f"the proof of {escrow_id} is {phase}, the escrow {status}", facts)
