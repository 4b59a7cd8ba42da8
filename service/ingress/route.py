"""The shape of a route: a row says all that the door must know; a handler is five lines.

Authentication, the subject in the path, validation and the OpenAPI document come from the row.
"""

import re
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Any

from aiohttp import web

from service.commands.perform import Answer
from service.ingress.bodies import BODY_BYTES_MAX
from service.ingress.call import Call, Caller
from service.ingress.errors import Family
from service.rules.errors import Invalid, Refused
from service.rules.escrow import TABLE
from service.rules.machine import Actor, Table
from service.store.db import Reader
from service.wire.base import Body, Query, Wire

ENTITY_ID = re.compile(r"[0-9a-f]{24}")


class Auth(Enum):
    """Who may come in: anybody, any key of this environment, a key with an associated user."""

    NONE = "none"
    KEY = "key"
    ASSOCIATED = "associated"


@dataclass(frozen=True, slots=True)
class Subject:
    """What an id in the path names: how it is written, how it is read, who may come near it.

    `read` gives None where there is nothing; a handler finds what it gave in `call.subject`.
    `screen` raises what else stands against this actor here, before the body is looked at.
    `within` is what it lies in, where the path names that as well: it is asked first, and
    `lies_in` says of both rows whether it does; a handler finds the outer one in `call.outer`.
    """

    parameter: str
    is_written: Callable[[str], bool]
    malformed: type[Refused]
    read: Callable[[Reader, str], Awaitable[Any | None]]
    missing: type[Refused]
    may: Callable[[Caller, Any], bool]
    denied: type[Refused]
    screen: Callable[[Actor, Any], object] | None = None
    within: "Subject | None" = None
    lies_in: Callable[[Any, Any], bool] | None = None

    def chain(self) -> "tuple[Subject, ...]":
        """This one and what it lies in, outermost first."""
        return (*(self.within.chain() if self.within else ()), self)


Handler = Callable[[Call[Any, Any]], Awaitable[Wire | Answer | web.StreamResponse]]
Screen = Callable[[Caller, Mapping[str, Any]], None]


@dataclass(frozen=True, slots=True)
class Route:
    """One row.

    `takes` is the JSON body's model, `asks` the query string's, `gives` the answer's, `status`
    its status; `also` are answers of other statuses that are no refusals. `screen` raises the
    refusals that come once the body is an object and before its fields are looked at. `clashes`
    is E3 for checkout sessions only.

    What the row refuses by its key, its subject and its body follows from the above; `steps` are
    the steps of `table` (the buyer-seller family's by default) that the handler takes, whose
    refusals follow from the table where it is that one;
    `refuses` is whatever else it may say no with, and `unfit` what a bad field is told as.

    `is_page`: a person looks at it. Its refusals are pages, and its handler takes the form that it
    is sent by itself (`pages.visitor.receive`), at most `body_bytes_max` of it. `is_raw`: the
    handler reads the body's bytes by itself, as they were signed.
    """

    method: str
    path: str
    handler: Handler
    auth: Auth = Auth.KEY
    subject: Subject | None = None
    takes: type[Body] | None = None
    asks: type[Query] | None = None
    gives: type[Wire] | None = None
    status: int = 200
    screen: Screen | None = None
    clashes: Family = Family.E1
    body_bytes_max: int = BODY_BYTES_MAX
    also: tuple[tuple[int, type[Wire]], ...] = ()
    steps: tuple[str, ...] = ()
    refuses: tuple[type[Refused], ...] = ()
    unfit: type[Refused] = Invalid
    is_page: bool = False
    is_raw: bool = False
    says: str = ""
    table: Table = TABLE

    @property
    def unfit_fields(self) -> type[Invalid]:
        """What the door itself tells a bad field as."""
        return self.unfit if issubclass(self.unfit, Invalid) else Invalid


def is_entity_id(text: str) -> bool:
    """Whether this is written like an id of ours: 24 lower-case hex characters."""
    return ENTITY_ID.fullmatch(text) is not None
