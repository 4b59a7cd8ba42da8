"""The pool, the vault and the bell, opened for one command."""

import contextlib
from collections.abc import AsyncIterator

from service.commands.perform import House
from service.gateways.bell import ArqBell
from service.health import NotReady, require_schema
from service.settings import Settings, SettingsError
from service.store.db import open_pool
from service.store.vault import Vault


@contextlib.asynccontextmanager
async def open_house(settings: Settings) -> AsyncIterator[House]:
    """Open what `perform` and `tend` need.

    Raises SettingsError, also where the schema is too old, and Unavailable.
    """
    settings.require("DATABASE_URL", "REDIS_URL", "AMANA_SECRET_KEY")
    async with contextlib.AsyncExitStack() as stack:
        pool = await open_pool(
            settings.database_url or "",
            size=2,
            application="amana",
            pgbouncer=settings.pgbouncer,
        )
        stack.push_async_callback(pool.close)
        try:
            await require_schema(pool)
        except NotReady as reason:
            raise SettingsError(str(reason)) from reason
        bell = ArqBell(settings.redis_url or "", lambda _: None)
        stack.push_async_callback(bell.close)
        yield House(pool, settings.policy(), Vault(settings.secret_keys), bell)
