"""`amana` as an operator types it, on this worker's migrated database."""

import asyncio
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Any

import pytest
from click.testing import CliRunner

from service.cli.main import main
from service.settings import Settings


@dataclass(frozen=True)
class Said:
    """What a command has said, on either stream, and how it ended."""

    stdout: str
    stderr: str
    exit_code: int

    @property
    def facts(self) -> Any:
        return json.loads(self.stdout)


Amana = Callable[..., Awaitable[Said]]


@pytest.fixture
def amana(migrated: Settings) -> Amana:
    """`await amana("developer", "list")`; a command that crashes raises what crashed it."""
    environ = {
        "DATABASE_URL": migrated.database_url,
        "DATABASE_ADMIN_URL": migrated.database_admin_url,
        "REDIS_URL": migrated.redis_url,
        "AMANA_SECRET_KEY": migrated.amana_secret_key,
    }

    def run(*arguments: str) -> Said:
        done = CliRunner().invoke(main, arguments, env=environ)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Said(done.stdout, done.stderr, done.exit_code)

    async def typed(*arguments: str) -> Said:
        return await asyncio.to_thread(run, *arguments)

    return typed
