"""`amana key`: replace a developer's key, or put an end to it."""

from datetime import timedelta

import click

from service.cli.house import open_house
from service.cli.verb import Answer, verb
from service.commands.developers import revoke_key, rotate_key
from service.commands.perform import tend
from service.rules.machine import Actor, ActorKind
from service.settings import Settings
from service.store.db import Row
from service.store.developers import read_keys

OPERATOR = Actor(ActorKind.OPERATOR)


@click.group("key")
def key() -> None:
    """API keys. KEY is a key's id or its first characters, as `amana key list` shows them."""


@key.command("list")
@verb
async def show(settings: Settings) -> Answer:
    """List every key, without the key."""
    async with open_house(settings) as house:
        rows = await read_keys(house.pool)
    facts = [
        {
            "keyId": row["id"],
            "prefix": row["prefix"],
            "name": row["name"],
            "email": row["email"],
            "isActive": row["is_active"],
            "expiresAt": row["expires_at"],
            "lastUsedAt": row["last_used_at"],
        }
        for row in rows
    ]
    lines = [
        f"{row['id']}  {row['prefix']}…  {row['email']}  {row['name']}  {_state(row)}"
        for row in rows
    ]
    return Answer("\n".join(lines) or "there are no keys yet", facts)


def _state(row: Row) -> str:
    if not row["is_active"]:
        return "revoked"
    return f"until {row['expires_at']:%Y-%m-%d %H:%M} UTC" if row["expires_at"] else "active"


@key.command("rotate")
@click.argument("key", metavar="KEY")
@click.option(
    "--keep-hours",
    type=click.IntRange(0, 24 * 90),
    default=0,
    show_default=True,
    help="How long the old key stays good beside the new one.",
)
@verb
async def rotate(settings: Settings, key: str, keep_hours: int) -> Answer:
    """Make a new key in place of this one; it is shown once."""
    async with open_house(settings) as house:
        made = await tend(
            house, lambda tx: rotate_key(tx, key, timedelta(hours=keep_hours)), OPERATOR
        )
    old = f"stays good for {keep_hours} h" if keep_hours else "is revoked"
    text = f"key {made.api_key}\nKeep it: it is not shown again. The old one {old}."
    return Answer(text, {"developerId": made.developer_id, "apiKey": made.api_key})


@key.command("revoke")
@click.argument("key", metavar="KEY")
@verb
async def revoke(settings: Settings, key: str) -> Answer:
    """Put an end to this key, at once."""
    async with open_house(settings) as house:
        key_id = await tend(house, lambda tx: revoke_key(tx, key), OPERATOR)
    return Answer(f"the key {key_id} is revoked", {"keyId": key_id, "isActive": False})
