"""The embedded servers together: PostgreSQL, Redis and the SMTP catcher of one data folder."""

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from service.cli import mailcatcher
from service.cli.postgres import APPLICATION, DATABASE, OWNER, Postgres, make_url
from service.cli.redis_server import Redis
from service.cli.var import Var, locked


@dataclass(frozen=True)
class Urls:
    """Where the servers of a data folder answer."""

    sockets: Path
    redis: str
    smtp: str

    def owner(self, database: str = DATABASE) -> str:
        """Return the owner's DSN (DATABASE_ADMIN_URL)."""
        return make_url(self.sockets, OWNER, database)

    def application(self, database: str = DATABASE) -> str:
        """Return the application's DSN (DATABASE_URL); `amana migrate` makes its role."""
        return make_url(self.sockets, APPLICATION, database)


@contextlib.contextmanager
def running(server: Postgres | Redis) -> Iterator[None]:
    """Run one embedded server for as long as the block."""
    child = server.start()
    try:
        yield
    finally:
        server.stop(child)


@contextlib.contextmanager
def servers(folder: Path, settings: Mapping[str, str] | None = None) -> Iterator[Urls]:
    """Hold a data folder and run its three servers for as long as the block.

    `settings` are PostgreSQL's, beside ours. Raises InUse and the servers' CannotStart.
    """
    var = Var.at(folder)
    with contextlib.ExitStack() as stack:
        stack.enter_context(locked(var, "servers"))
        postgres, redis = Postgres.of(var, settings), Redis.of(var)
        stack.enter_context(running(postgres))
        stack.enter_context(running(redis))
        smtp = stack.enter_context(mailcatcher.catching(var.mail))
        yield Urls(var.sockets, redis.url, smtp)
