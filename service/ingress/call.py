"""What a handler is given: everything that the door has found out about the request."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Generic, TypeVar

from aiohttp import web

from service.commands.perform import Answer, Command, House, Idempotency, perform, rehearse
from service.rules.errors import NotAssociated
from service.rules.machine import Actor

BodyT = TypeVar("BodyT")
QueryT = TypeVar("QueryT")


@dataclass(frozen=True, slots=True)
class Caller:
    """Whose key is at the door: an active key of this environment, and its developer."""

    key_id: str
    developer_id: str
    user_id: str | None


@dataclass(frozen=True, slots=True)
class Call(Generic[BodyT, QueryT]):
    """One request that has passed every check of its route.

    `body` is what the route `takes`, `query` what it `asks`, `subject` what its subject's loader
    read, `outer` what that lies in; each is None where the route declares none. `status` is the
    route's, for `perform`.
    `caller` is None where the route lets anybody in. `request` is for pages and files.
    `is_rehearsal`: the caller wants to know what would happen (`?dry_run=true`).
    """

    house: House
    actor: Actor
    caller: Caller | None
    subject: Any
    body: BodyT
    query: QueryT
    path: Mapping[str, str]
    idempotency: Idempotency | None
    status: int
    request: web.Request
    is_rehearsal: bool = False
    outer: Any = None

    async def perform(self, command: Command, actor: Actor | None = None) -> Answer:
        """Carry the command out, or rehearse it; as `actor`, where that is not the caller."""
        actor = actor or self.actor
        if self.is_rehearsal:
            return await rehearse(self.house, actor, command, self.status)
        return await perform(
            self.house, actor, command, status=self.status, idempotency=self.idempotency
        )

    @property
    def developer_id(self) -> str:
        """The calling developer, on a route that needs a key."""
        if self.caller is None:
            raise LookupError("this route lets anybody in; it has no caller")
        return self.caller.developer_id

    @property
    def user_id(self) -> str:
        """The caller's associated user; `NotAssociated` where there is none."""
        if self.caller is None or self.caller.user_id is None:
            raise NotAssociated
        return self.caller.user_id
