"""`amana user`: people who buy and sell."""

import click
import orjson

from service.cli.checked import EMAIL, NAME
from service.cli.house import open_house
from service.cli.verb import Answer, verb
from service.commands.perform import perform
from service.commands.users import register
from service.rules.machine import Actor, ActorKind
from service.settings import Settings
from service.store.db import Transaction
from service.wire.sandbox import UserAnswer, user_shape


@click.group("user")
def user() -> None:
    """Users: people who buy and sell."""


@user.command("create")
@click.option("--email", type=EMAIL, required=True)
@click.option("--first-name", type=NAME, required=True)
@click.option("--last-name", type=NAME, required=True)
@verb
async def create(settings: Settings, email: str, first_name: str, last_name: str) -> Answer:
    """Make a user with verified e-mail and phone, linked to what waits for the e-mail."""

    async def command(tx: Transaction) -> UserAnswer:
        made = await register(tx, email, first_name, last_name)
        return UserAnswer(user=user_shape(made.person))

    async with open_house(settings) as house:
        answer = await perform(house, Actor(ActorKind.OPERATOR), command)
    facts = orjson.loads(answer.body)
    return Answer(f"user {facts['user']['id']}", facts)
