"""`amana migrate`: brings the database to this version, and gives the application its role."""

from urllib.parse import urlsplit

import click

from service.cli.verb import Answer, verb
from service.rules import escrow, identity, milestone, payment, proof
from service.settings import Settings
from service.store.schema import Migrated
from service.store.schema import migrate as migrate_schema

WARNING = (
    "warning: DATABASE_URL and DATABASE_ADMIN_URL are one role; give the application a role of"
    " its own, so that it cannot change the past"
)


async def migrate_at(settings: Settings, *, is_restored: bool = False) -> Migrated:
    """Migrate the database of these settings; `is_restored`: an older state of it was put back."""
    settings.require("DATABASE_URL")
    role = urlsplit(settings.database_url or "").username or ""
    tables = [
        *escrow.TABLE.transitions(),
        *proof.TABLE.transitions(),
        *identity.TABLE.transitions(),
        *payment.TABLE.transitions(),
        *milestone.TABLE.transitions(),
    ]
    return await migrate_schema(settings.admin_url or "", role, tables, is_restored=is_restored)


@click.command("migrate")
@click.option(
    "--restored",
    "is_restored",
    is_flag=True,
    help="A copy of the server's files, a snapshot or a backup was put back: once after each.",
)
@verb
async def migrate(settings: Settings, is_restored: bool) -> Answer:  # noqa: FBT001 - an option
    """Apply the schema to an empty database, or the missing steps to an older one."""
    done = await migrate_at(settings, is_restored=is_restored)
    if done.same_role:
        click.echo(WARNING, err=True)
    text = (
        f"the database is at version {done.after}"
        if done.before == done.after
        else f"migrated from version {done.before} to {done.after}"
    )
    return Answer(text, {"from": done.before, "to": done.after})
