"""`amana identity`: the operator's word on who somebody is."""

import click
import orjson

from service.cli.checked import ENTITY_ID
from service.cli.house import open_house
from service.cli.verb import Answer, verb
from service.commands.files import view_url
from service.commands.identity import decide as decided
from service.commands.perform import perform
from service.rules.errors import VerificationNotFound
from service.rules.machine import Actor, ActorKind
from service.settings import Settings
from service.store.clock import read_clock
from service.store.identity import (
    read_asker,
    read_documents,
    read_undecided,
    read_verification,
)
from service.wire.base import dump_json, instant
from service.wire.identity import record

SHOWN = 200
REASON_CHARACTERS_MAX = 500


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
        f"{'  documents are here' if one.needs_admin_review else ''}"
        for one in waiting
    ]
    return Answer("\n".join(lines) or "none waits for a decision", facts)


@identity.command("show")
@click.argument("verification_id", metavar="ID", type=ENTITY_ID)
@verb
async def show_one(settings: Settings, verification_id: str) -> Answer:
    """Show verification ID, with addresses of its documents that live for 15 minutes."""
    async with open_house(settings) as house:
        found = await read_verification(house.pool, verification_id)
        if found is None:
            raise VerificationNotFound
        asker = await read_asker(house.pool, found.developer_id)
        documents = await read_documents(house.pool, verification_id)
        real_now = (await read_clock(house.pool)).real_now
    files = [
        {
            "mimeType": file.mime_type,
            "bytes": file.bytes,
            "filename": file.filename,
            "viewUrl": view_url(house.policy.public_url, house.vault, file.key, real_now),
        }
        for file in (documents.files if documents else ())
    ]
    submitted = instant(documents.submitted_at) if documents else None
    facts = orjson.loads(dump_json(record(found)))
    facts |= {"company": asker.company, "submittedAt": submitted, "documents": files}
    lines = [
        f"{found.id}  {found.email}  for {asker.company}  {found.kyc_status}",
        f"  documents of {submitted}:" if submitted else "  no documents",
        *(f"    {file['mimeType']} {file['filename']} {file['viewUrl']}" for file in files),
    ]
    return Answer("\n".join(lines), facts)


@identity.command("decide")
@click.argument("verification_id", metavar="ID", type=ENTITY_ID)
@click.option("--approve", "approves", is_flag=True, help="It is this person.")
@click.option("--reject", "rejects", is_flag=True, help="It is not, or it cannot be seen.")
@click.option("--reason", default="", help="Why, for the person; needed to reject.")
@verb
async def decide(
    settings: Settings,
    verification_id: str,
    approves: bool,  # noqa: FBT001 - click passes it by name
    rejects: bool,  # noqa: FBT001 - click passes it by name
    reason: str,
) -> Answer:
    """Approve or reject verification ID; the developer that asked and the person are told."""
    if approves == rejects:
        raise click.UsageError("give one of --approve and --reject")
    reason = " ".join(reason.split())
    if rejects and not reason:
        raise click.UsageError("say why with --reason: the person is told")
    if len(reason) > REASON_CHARACTERS_MAX:
        raise click.UsageError(f"a reason has at most {REASON_CHARACTERS_MAX} characters")
    command = decided(verification_id, approves=approves, reason=reason or None)
    async with open_house(settings) as house:
        answer = await perform(house, Actor(ActorKind.OPERATOR), command)
    facts = orjson.loads(answer.body)
    return Answer(f"the verification {verification_id} is {facts['kyc_status']}", facts)
