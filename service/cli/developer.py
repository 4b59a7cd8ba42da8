"""`amana developer`: who integrates, and as which user."""

import click
import orjson

from service.cli.checked import COMPANY, EMAIL
from service.cli.house import open_house
from service.cli.verb import Answer, verb
from service.commands.developers import enrol
from service.commands.perform import perform
from service.rules.machine import Actor, ActorKind
from service.settings import Settings
from service.store.db import Transaction
from service.store.developers import read_developers
from service.wire.sandbox import DeveloperAnswer


@click.group("developer")
def developer() -> None:
    """Developers: who integrates, and as which user."""


@developer.command("create")
@click.option("--email", type=EMAIL, required=True, help="The developer's.")
@click.option("--company", type=COMPANY, required=True, help="What buyers and sellers read.")
@click.option("--user-email", type=EMAIL, help="The user to act as; by default the same e-mail.")
@verb
async def create(settings: Settings, email: str, company: str, user_email: str | None) -> Answer:
    """Make a developer with a key, associated with a user, who is made where there is none."""

    async def command(tx: Transaction) -> DeveloperAnswer:
        made = await enrol(tx, email, company, user_email=user_email or email)
        return DeveloperAnswer(
            developer_id=made.developer_id, api_key=made.api_key, user_id=made.user_id
        )

    async with open_house(settings) as house:
        answer = await perform(house, Actor(ActorKind.OPERATOR), command)
    facts = orjson.loads(answer.body)
    text = (
        f"developer {facts['developerId']}\nuser      {facts['userId']}\n"
        f"key       {facts['apiKey']}\nKeep the key: it is not shown again."
    )
    return Answer(text, facts)


@developer.command("list")
@verb
async def show(settings: Settings) -> Answer:
    """List every developer."""
    async with open_house(settings) as house:
        rows = await read_developers(house.pool)
    facts = [
        {
            "developerId": row["id"],
            "email": row["email"],
            "company": row["company"],
            "userEmail": row["user_email"],
            "activeKeys": row["keys"],
            "createdAt": row["created_at"],
        }
        for row in rows
    ]
    lines = [
        f"{row['id']}  {row['email']}  {row['company']}  as {row['user_email'] or 'nobody'}"
        f"  {row['keys']} active keys"
        for row in rows
    ]
    return Answer("\n".join(lines) or "there are no developers yet", facts)
