"""The pool, the transaction, and what the database's complaints mean.

Law: reads take a `Reader` (the pool or a transaction); writes take a `Transaction`, which only
`commands/perform.py` begins. Time is a parameter: `Transaction.now` is read once, from the
database, with the sandbox's offset in it.
"""

import asyncio
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from datetime import datetime
from typing import Any, Protocol

import asyncpg

from service.rules.errors import (
    BalanceTooLarge,
    Busy,
    EmailTaken,
    InsufficientFunds,
    PaymentUnderWay,
    Refused,
    Unavailable,
    UserTaken,
)
from service.rules.escrow import Taken
from service.rules.machine import Actor
from service.rules.milestone import Done
from service.rules.policy import Policy
from service.store.vault import Vault

ACQUIRE_TIMEOUT_SECONDS = 2.0

# "The database is away" comes as unrelated classes, as does "it is too busy to answer in time";
# each of them means: nothing was changed, the same request may be sent again.
AWAY = (
    asyncpg.InternalClientError,
    asyncpg.InterfaceError,
    asyncpg.PostgresConnectionError,
    asyncpg.OperatorInterventionError,  # shut down, starting up, statement_timeout
    asyncpg.InsufficientResourcesError,  # connections, memory, disk
    asyncpg.IdleInTransactionSessionTimeoutError,
    asyncpg.ReadOnlySQLTransactionError,  # failing over
    TimeoutError,
    OSError,
)
# The server is there and does not let us in: the URL names a database or a role that is not.
SHUT = (asyncpg.InvalidCatalogNameError, asyncpg.InvalidAuthorizationSpecificationError)
CLASHES = (asyncpg.SerializationError, asyncpg.DeadlockDetectedError)

# Constraint -> what it means, where two requests race past the rules.
REFUSALS: Mapping[str, type[Refused]] = {
    "account_floor": InsufficientFunds,
    "account_bound": BalanceTooLarge,
    "app_user_email_key": EmailTaken,
    "developer_email_key": EmailTaken,
    "developer_user_id_key": UserTaken,
    "payment_of_guest": PaymentUnderWay,
}

RACES = frozenset({"payment_charge"})
"""Constraints that two who do the same at once run into: tried again, the second finds it done."""

Row = asyncpg.Record


class Clash(Exception):
    """Serialization failure or deadlock: try the whole command again."""


class Reader(Protocol):
    """What a read needs: the pool outside of a command, the transaction inside of one."""

    async def fetch(self, query: str, *args: object) -> list[Row]: ...
    async def fetchrow(self, query: str, *args: object) -> Row | None: ...
    async def fetchval(self, query: str, *args: object) -> Any: ...


class Transaction:
    """One open transaction, made by `perform` or `tend` and by nothing else.

    `now` is the business time (UTC) of everything that happens in it; `real_now` is the
    database's clock without the sandbox's offset. `ring` notes which bells are rung after COMMIT,
    `taken` which steps were taken so far.
    """

    __slots__ = (
        "_connection",
        "actor",
        "held_clock",
        "now",
        "policy",
        "real_now",
        "rings",
        "taken",
        "vault",
    )

    def __init__(self, connection: Any, actor: Actor, policy: Policy, vault: Vault) -> None:
        self._connection = connection
        self.actor = actor
        self.policy = policy
        self.vault = vault
        self.rings: set[str] = set()
        self.taken: list[Taken | Done] = []
        self.held_clock: datetime | None = None
        self.now: datetime
        self.real_now: datetime

    def hold_clock(self, at: datetime) -> None:
        """Let everything here happen at `at`: the sandbox's clock fires deadlines at their time."""
        self.held_clock = self.now = at

    async def fetch(self, query: str, *args: object) -> list[Row]:
        rows: list[Row] = await self._connection.fetch(query, *args)
        return rows

    async def fetchrow(self, query: str, *args: object) -> Row | None:
        row: Row | None = await self._connection.fetchrow(query, *args)
        return row

    async def fetchval(self, query: str, *args: object) -> Any:
        return await self._connection.fetchval(query, *args)

    async def execute(self, query: str, *args: object) -> str:
        status: str = await self._connection.execute(query, *args)
        return status

    def ring(self, bell: str) -> None:
        """Ring this bell once the transaction is committed; a hint, never a promise."""
        self.rings.add(bell)


class Pool:
    """A bounded pool of connections; reads straight through it, writes through `begin`."""

    def __init__(self, pool: Any) -> None:
        self._pool = pool

    async def fetch(self, query: str, *args: object) -> list[Row]:
        async with self._connection() as connection:
            rows: list[Row] = await connection.fetch(query, *args)
            return rows

    async def fetchrow(self, query: str, *args: object) -> Row | None:
        async with self._connection() as connection:
            row: Row | None = await connection.fetchrow(query, *args)
            return row

    async def fetchval(self, query: str, *args: object) -> Any:
        async with self._connection() as connection:
            return await connection.fetchval(query, *args)

    @asynccontextmanager
    async def begin(self, actor: Actor, policy: Policy, vault: Vault) -> AsyncIterator[Transaction]:
        """A READ COMMITTED transaction. Called by `commands/perform.py` only (a test holds it).

        Raises:
            Unavailable: the database is away; nothing was changed.
            Clash: another transaction was in the way; the same command may be tried again.
            Refused: a constraint said no where the rules had not.
        """
        try:
            async with self._connection() as connection, connection.transaction():
                yield Transaction(connection, actor, policy, vault)
        except CLASHES as clash:
            raise Clash(str(clash)) from clash
        except asyncpg.LockNotAvailableError as held:
            raise Busy("a lock was held for too long") from held
        except asyncpg.IntegrityConstraintViolationError as violation:
            if violation.constraint_name in RACES:
                raise Clash(str(violation)) from violation
            refusal = REFUSALS.get(violation.constraint_name or "")
            if refusal is None:
                raise
            raise refusal() from violation

    @asynccontextmanager
    async def _connection(self) -> AsyncIterator[Any]:
        try:
            async with self._pool.acquire(timeout=ACQUIRE_TIMEOUT_SECONDS) as connection:
                yield connection
        except asyncpg.DataError:
            raise  # an argument of a wrong type: ours, though it comes as an InterfaceError
        except AWAY as away:
            raise Unavailable(f"{type(away).__name__}: {away}") from away

    async def close(self) -> None:
        """Wait for what is in flight, then close every connection; cut them after 5 s."""
        try:
            await asyncio.wait_for(self._pool.close(), timeout=5)
        except TimeoutError:
            self._pool.terminate()


async def _leave_as_is(_: Any) -> None:
    """Nothing of ours changes a session; asyncpg's own reset costs a round trip after each use."""


async def open_pool(
    url: str, *, size: int = 8, application: str = "amana", pgbouncer: bool = False
) -> Pool:
    """Connect to `url`. `pgbouncer` keeps off what its transaction pooling does not know.

    That is prepared statements that outlive a transaction, and `jit` as a start parameter.
    """
    session = {"application_name": application, "timezone": "UTC"}
    try:
        pool = await asyncpg.create_pool(
            url,
            min_size=1,
            max_size=size,
            command_timeout=30,
            reset=_leave_as_is,
            statement_cache_size=0 if pgbouncer else 200,
            server_settings=session if pgbouncer else {**session, "jit": "off"},
        )
    except (*AWAY, *SHUT) as away:
        raise Unavailable(f"{type(away).__name__}: {away}") from away
    return Pool(pool)
