"""The straight line of a request, each check in its place; the first that fails answers.

request id → rate limit → key (401) → association (403) → id's syntax (400) → existence (404) →
access (403) → idempotency key (400) → body (413, 408, 400, 422) → the handler.

`door` is the one middleware, around everything that is answered; `Line` is one route's checks.
"""

import ipaddress
import re
import secrets
import time
from dataclasses import dataclass, field
from typing import Any, Protocol

import structlog
from aiohttp import HttpVersion11, web
from aiohttp.typedefs import Handler as AiohttpHandler

from service.commands.perform import Answer, House, Idempotency, replay
from service.gateways.limiter import Limiter, Verdict
from service.ingress.auth import Found, KeyRing, KeyUse, let_in, own_limit
from service.ingress.bodies import (
    ClientGone,
    as_model,
    as_query,
    fingerprint,
    idempotency_key,
    may_be_empty,
    read_body,
)
from service.ingress.call import Call, Caller
from service.ingress.errors import (
    REASONS,
    Family,
    MethodNotAllowed,
    PathUnknown,
    RateLimited,
    Reply,
    Unauthorized,
    reply_to,
)
from service.ingress.metrics import DoorMetrics
from service.ingress.route import Auth, Route, Subject
from service.rules.errors import GatewayFailure, Malformed, NotAssociated, Refused, Unavailable
from service.rules.machine import Actor, ActorKind
from service.store.keys import KeyFacts
from service.wire.base import dump_json, instant
from service.wire.reading import read_object

SANE_REQUEST_ID = re.compile(r"[A-Za-z0-9._:/+=-]{1,128}")
# Entity ids are logged, and of UUIDs the beginning: a session's is a guest's credential. Whatever
# else names a subject (an e-mail) is not.
LOGGED_ID = re.compile(r"([0-9a-f]{24})|([0-9a-f]{8})-[0-9a-f-]{27}")
WITH_BODY = frozenset({"POST", "PUT", "PATCH"})
JSON = "application/json; charset=utf-8"
UNMATCHED = "unmatched"
DRY_RUN = "dry_run"
LIMITED_PATHS = ("/api/", "/developer/")
"""The second: another name of `/api/developer/signature`. What providers notify is not counted: all
of it comes from a few addresses, is signed, and is bounded by its bytes."""
QUIET_PATHS = frozenset({"/healthz", "/readyz", "/metrics"})

Network = ipaddress.IPv4Network | ipaddress.IPv6Network

log = structlog.get_logger()


@dataclass(frozen=True, slots=True)
class Gate:
    """What the door knows before the first request: from the settings, by way of `main`."""

    environment: str
    rate_limit_per_minute: int
    trusted_proxies: tuple[Network, ...] = ()


@dataclass(slots=True)
class Visit:
    """What the door has found out about the request so far."""

    request_id: str
    ip: str
    found: Found | None = None
    verdict: Verdict | None = None
    facts: dict[str, object] = field(default_factory=dict)


GATE = web.AppKey("gate", Gate)
HOUSE = web.AppKey("house", House)
LIMITER = web.AppKey("limiter", Limiter)
METRICS = web.AppKey("metrics", DoorMetrics)
KEY_RING = web.AppKey("key_ring", KeyRing)
KEY_USE = web.AppKey("key_use", KeyUse)
VISIT = web.RequestKey("visit", Visit)


class ErrorPage(Protocol):
    """A reply as a person is shown it; `code` is the refusal's.

    `main` brings it along: pages know the door, the door does not know pages.
    """

    def __call__(
        self, request: web.Request, reply: Reply, code: str | None, request_id: str
    ) -> web.Response: ...


ERROR_PAGE: web.AppKey[ErrorPage] = web.AppKey("error_page")


@web.middleware
async def door(request: web.Request, handler: AiohttpHandler) -> web.StreamResponse:
    """Around every answer: request id, rate limit, refusals as JSON, one line of log, figures."""
    began = time.perf_counter()
    visit = request[VISIT] = _visit(request)
    structlog.contextvars.bind_contextvars(request_id=visit.request_id)
    try:
        await _limit(request, visit)
        _refuse_odd_headers(request)
        response = await handler(request)
    except web.HTTPException as answer:
        response = _aiohttps(answer, request, visit)
    except ClientGone:
        log.info("request_abandoned", method=request.method, route=_route(request))
        raise
    except (Refused, Unavailable, GatewayFailure) as refusal:
        response = _refusal(refusal, request, visit)
    except Exception as bug:
        log.exception("request_failed", method=request.method, route=_route(request))
        response = _refusal(bug, request, visit)
    _finish(response, visit.request_id, visit.verdict)
    _note(request, response, visit, time.perf_counter() - began)
    return response


def _visit(request: web.Request) -> Visit:
    given = request.headers.get("X-Request-Id")
    if given is None or SANE_REQUEST_ID.fullmatch(given) is None:
        given = secrets.token_hex(12)
    trusted = request.app[GATE].trusted_proxies
    forwarded = request.headers.get("X-Forwarded-For") if trusted else None
    return Visit(given, client_ip(request.remote or "", forwarded, trusted))


def client_ip(remote: str, forwarded: str | None, trusted: tuple[Network, ...]) -> str:
    """The client's address: of X-Forwarded-For, the last that no trusted proxy wrote as its own."""
    client = remote.partition("%")[0].removeprefix("::ffff:")
    for hop in reversed(forwarded.split(",") if forwarded else []):
        if not _is_trusted(client, trusted):
            break
        address = _address(hop.strip())
        if address is None:
            break
        client = str(address)
    return client


def _is_trusted(client: str, trusted: tuple[Network, ...]) -> bool:
    address = _address(client)
    return address is not None and any(address in network for network in trusted)


def _address(text: str) -> ipaddress.IPv4Address | ipaddress.IPv6Address | None:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return None
    mapped = address.ipv4_mapped if address.version == 6 else None
    return mapped or address


# ---- The limiter: /api/… and its one alias, except the sandbox's helpers -------------------------


def is_limited(path: str) -> bool:
    """Whether the rate limit covers this path."""
    return path.startswith(LIMITED_PATHS) and not path.startswith("/api/v1/sandbox/")


async def _limit(request: web.Request, visit: Visit) -> None:
    gate = request.app[GATE]
    if gate.rate_limit_per_minute == 0 or not is_limited(request.path):
        return
    found = visit.found = await _find(request)
    window, limit = f"ip:{visit.ip}", gate.rate_limit_per_minute
    if isinstance(found, KeyFacts) and (own := own_limit(found)):
        window, limit = f"key:{found.key_id}", own
    verdict = visit.verdict = await request.app[LIMITER].take(window, limit)
    if verdict.is_refused:
        raise RateLimited(limit=limit, retry_after=verdict.retry_after_seconds)


async def _find(request: web.Request) -> Found:
    app = request.app
    return await app[KEY_RING].find(request.headers, app[GATE].environment)


def _refuse_odd_headers(request: web.Request) -> None:
    headers = request.headers
    if not headers.get("X-Request-Id", "").isascii():
        raise Malformed(reason="X-Request-Id must be ASCII.")
    if not (headers.get("Authorization", "") + headers.get("X-API-Key", "")).isascii():
        raise Unauthorized(reason="Authorization and X-API-Key must be ASCII.")


# ---- One route ----------------------------------------------------------------------------------


class Line:
    """The checks of one route, in order, and its handler."""

    def __init__(self, route: Route) -> None:
        if route.subject is not None and route.auth is Auth.NONE:
            raise ValueError(f"{route.path}: a subject needs a caller who may come near it")
        self.route = route
        self._has_body = route.method in WITH_BODY and not (route.is_page or route.is_raw)
        self._may_be_empty = may_be_empty(route.takes)
        self._names_freely = "{" in route.path

    async def expect(self, request: web.Request) -> None:
        """Ask for the body with 100 Continue, unless it is announced to be too long anyway."""
        asks = request.headers.get("Expect", "").lower() == "100-continue"
        length = request.content_length or 0
        if asks and request.version >= HttpVersion11 and length <= self.route.body_bytes_max:
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
            request.writer.output_size = 0  # the answer itself has not begun

    async def answer(self, request: web.Request) -> web.StreamResponse:
        """The answer of the handler, once nothing stands against it. Raises the first refusal."""
        visit, house, route = request[VISIT], request.app[HOUSE], self.route
        caller = None if route.auth is Auth.NONE else await _caller(request, visit, route.auth)
        subject = outer = None
        for named in route.subject.chain() if route.subject and caller else ():
            outer, subject = subject, await _subject(named, request, house, caller, visit, subject)
            if named.screen is not None:
                named.screen(_actor(caller, visit), subject)
        if self._names_freely and "\0" in request.path:
            raise PathUnknown
        idempotency = body = None
        is_rehearsal = self._is_rehearsal(request)
        if self._has_body:
            raw = await read_body(request, route.body_bytes_max)
            idempotency = _idempotency(request, caller, raw)
            if is_rehearsal:
                idempotency = None  # sound, as without the rehearsal, but not taken
            stored = None if idempotency is None else await replay(house, idempotency)
            if stored is not None:
                return _response(stored, route.status)
            body = self._read(caller, raw)
        query = as_query(route.asks, request, route.unfit_fields)
        outcome = await route.handler(
            Call(
                house=house,
                actor=_actor(caller, visit),
                caller=caller,
                subject=subject,
                outer=outer,
                body=body,
                query=query,
                path=request.match_info,
                idempotency=idempotency,
                status=route.status,
                request=request,
                is_rehearsal=is_rehearsal,
            )
        )
        return _response(outcome, route.status)

    def _is_rehearsal(self, request: web.Request) -> bool:
        """Whether the caller asks what would happen; refused where it would happen all the same."""
        meant = [name for name, _ in request.query.items() if _letters(name) == "dryrun"]
        if not meant or request.method == "GET":
            return False
        if not self.route.steps:
            raise Malformed(reason="dry_run is for the steps of an escrow; leave it out here.")
        asked = request.query[meant[0]]
        if meant != [DRY_RUN] or asked not in ("true", "false"):
            raise Malformed(reason="dry_run must be given once, in these letters: true or false.")
        return asked == "true"

    def _read(self, caller: Caller | None, raw: bytes) -> Any:
        route = self.route
        given = read_object(raw) if raw or not self._may_be_empty else {}
        if route.screen is not None and caller is not None:
            route.screen(caller, given)
        return None if route.takes is None else as_model(route.takes, given, route.unfit_fields)


def _letters(name: str) -> str:
    """What is left of a name that may be written as `dryRun`, `DRY-RUN` or `dry_run`."""
    return "".join(filter(str.isalpha, name)).lower()


def _idempotency(request: web.Request, caller: Caller | None, raw: bytes) -> Idempotency | None:
    key = idempotency_key(request.headers)
    if key is None or caller is None:
        return None
    return Idempotency(caller.developer_id, key, fingerprint(request, raw))


async def _caller(request: web.Request, visit: Visit, auth: Auth) -> Caller:
    if visit.found is None:
        visit.found = await _find(request)
    caller = let_in(visit.found)
    visit.facts["developer_id"] = caller.developer_id
    if isinstance(visit.found, KeyFacts):
        request.app[KEY_USE].note(visit.found)
    if auth is Auth.ASSOCIATED and caller.user_id is None:
        raise NotAssociated
    return caller


async def _subject(
    subject: Subject,
    request: web.Request,
    house: House,
    caller: Caller | None,
    visit: Visit,
    outer: Any = None,
) -> Any:
    name = request.match_info[subject.parameter]
    if "\0" in name or not subject.is_written(name):
        raise subject.malformed
    if (logged := logged_id(name)) is not None:
        visit.facts["subject_id"] = logged
    row = await subject.read(house.pool, name)
    if row is None or (subject.lies_in is not None and not subject.lies_in(row, outer)):
        raise subject.missing
    if caller is None or not subject.may(caller, row):
        raise subject.denied
    return row


def logged_id(name: str) -> str | None:
    """What the log tells of a subject's name in the path, if anything."""
    found = LOGGED_ID.fullmatch(name)
    return found and (found[1] or found[2])


def _actor(caller: Caller | None, visit: Visit) -> Actor:
    ip = visit.ip or None
    if caller is None:
        return Actor(ActorKind.SYSTEM, ip=ip, request_id=visit.request_id)
    return Actor(
        ActorKind.DEVELOPER,
        developer_id=caller.developer_id,
        user_id=caller.user_id,
        key_id=caller.key_id,
        ip=ip,
        request_id=visit.request_id,
    )


# ---- What is sent -------------------------------------------------------------------------------


def _response(outcome: Any, status: int) -> web.StreamResponse:
    if isinstance(outcome, Answer):
        headers = {"Content-Type": JSON}
        if outcome.replayed:
            headers["Idempotency-Replayed"] = "true"
        return web.Response(status=outcome.status, body=outcome.body, headers=headers)
    if isinstance(outcome, web.StreamResponse):
        return outcome
    return web.Response(status=status, body=dump_json(outcome), headers={"Content-Type": JSON})


def _refusal(error: Exception, request: web.Request, visit: Visit) -> web.Response:
    route = getattr(request.match_info.handler, "__self__", None)
    clashes = route.route.clashes if isinstance(route, Line) else Family.E1
    if isinstance(error, Unavailable | GatewayFailure):
        log.warning("request_unserved", reason=f"{type(error).__name__}: {error}")
    reply = reply_to(error, visit.request_id, clashes, request.path)
    if not _is_for_people(request):
        return _sent(reply)
    code = error.code if isinstance(error, Refused) else None
    page = request.app[ERROR_PAGE](request, reply, code, visit.request_id)
    page.headers.update(reply.headers)
    return _closing(page, reply)


def _is_for_people(request: web.Request) -> bool:
    """Whether a page was asked for; of what does not exist, whether a browser asked."""
    line = getattr(request.match_info.handler, "__self__", None)
    if isinstance(line, Line):
        return line.route.is_page
    is_ours = request.path.startswith("/api/") or _route(request) != UNMATCHED
    return not is_ours and "text/html" in request.headers.get("Accept", "")


def refuse(error: Exception, request_id: str) -> web.Response:
    """The whole answer to an error that is met before a request has come to the door."""
    response = _sent(reply_to(error, request_id))
    _finish(response, request_id)
    response.force_close()
    return response


def _sent(reply: Reply) -> web.Response:
    response = web.Response(
        status=reply.status,
        reason=REASONS[reply.status],
        body=reply.body,
        headers={"Content-Type": JSON, **reply.headers},
    )
    return _closing(response, reply)


def _closing(response: web.Response, reply: Reply) -> web.Response:
    if reply.closes:
        response.force_close()
    return response


def _aiohttps(answer: web.HTTPException, request: web.Request, visit: Visit) -> web.StreamResponse:
    """aiohttp's own answers as ours; a redirect that a page raised is an answer like any other."""
    if isinstance(answer, web.HTTPMethodNotAllowed):
        allowed = ", ".join(sorted(answer.allowed_methods))
        refusal: Refused = MethodNotAllowed(method=request.method, allowed=allowed)
    elif isinstance(answer, web.HTTPNotFound):
        refusal = PathUnknown()
    else:  # aiohttp sends an exception itself with a warning only
        return web.Response(
            status=answer.status, reason=answer.reason, body=answer.body, headers=answer.headers
        )
    return _refusal(refusal, request, visit)


def _finish(response: web.StreamResponse, request_id: str, verdict: Verdict | None = None) -> None:
    if response.prepared:
        return
    headers = response.headers
    headers["Server"] = "amana"
    headers["X-Request-Id"] = request_id
    headers["X-Content-Type-Options"] = "nosniff"
    headers.setdefault("Cache-Control", "no-store")
    if verdict is not None:
        headers["X-RateLimit-Limit"] = str(verdict.limit)
        headers["X-RateLimit-Remaining"] = str(verdict.remaining)
        headers["X-RateLimit-Reset"] = instant(verdict.reset_at)


def _route(request: web.Request) -> str:
    """The path's pattern: a raw path may hold a token or an e-mail, so that it is never told."""
    resource = request.match_info.route.resource
    return UNMATCHED if resource is None else resource.canonical


def _note(request: web.Request, response: web.StreamResponse, visit: Visit, seconds: float) -> None:
    route = _route(request)
    method = request.method if route != UNMATCHED else "any"  # a caller may make up methods
    request.app[METRICS].note(method, route, response.status, seconds)
    if route in QUIET_PATHS:
        return
    log.info(
        "request_answered",
        method=method,
        route=route,
        status=response.status,
        milliseconds=round(seconds * 1000, 2),
        ip=visit.ip,
        **visit.facts,
    )
