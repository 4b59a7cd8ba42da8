"""`/developers`: what a developer has here, for the person whose e-mail the account has.

Endpoints and their health, deliveries and their attempts, and what can be done about them: send
again, recover, rotate the secret, try out. A secret is shown in the answer to its making only; the
values of custom headers never.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any
from urllib.parse import urlencode
from uuid import UUID

import orjson
from aiohttp import web
from markupsafe import Markup
from pydantic import ValidationError

from service.commands import attempts, endpoints, recoveries
from service.ingress.api.deliveries import SAMPLES, is_uuid
from service.ingress.call import Call
from service.ingress.errors import PathUnknown
from service.ingress.pages.arrival import arrive, to_sign_in
from service.ingress.pages.forms import Form
from service.ingress.pages.page import Speech, see_other, show, spoken, voice_of
from service.ingress.pages.visitor import Visitor, receive
from service.ingress.route import is_entity_id
from service.rules.errors import WebhookRefused
from service.rules.machine import Actor, ActorKind
from service.store.attempts import (
    Delivery,
    count_recent,
    list_deliveries,
    read_delivery,
)
from service.store.clock import read_clock
from service.store.consoles import Account, OwnKey, list_keys, read_account
from service.store.endpoints import Endpoint, read_endpoint, read_endpoints
from service.store.recoveries import Recovery, list_recoveries
from service.wire.base import instant
from service.wire.deliveries import Attempt, Recover, Viewer
from service.wire.event_types import TYPES
from service.words.pages import Voice

HOME = "/developers"
ENTRIES = 20
RECOVERIES = 3
ANSWER_CHARACTERS = 1000
DAY = timedelta(days=1)
OVERLAPS = (24, 1, 168, 0)
"""For how many hours the old secret may sign beside the new one; the first is proposed."""
STATES = ("pending", "parked", "delivered", "exhausted", "cancelled")
MEANINGS: Mapping[str, str] = {
    "pending": "waiting",
    "parked": "waiting",
    "delivered": "done",
    "exhausted": "problem",
    "cancelled": "problem",
    "running": "waiting",
    "done": "done",
}


@dataclass(frozen=True, slots=True)
class _Desk:
    """Who is here, in which language, and whose account it is."""

    call: Call[None, None]
    visitor: Visitor
    speech: Speech
    voice: Voice
    email: str
    account: Account | None

    @property
    def actor(self) -> Actor:
        """The developer, by their own hand."""
        if self.account is None:
            raise PathUnknown
        came = self.call.actor
        return Actor(
            ActorKind.DEVELOPER,
            developer_id=self.account.id,
            user_id=self.account.user_id,
            ip=came.ip,
            request_id=came.request_id,
        )

    def show(self, template: str, *, status: int = 200, **values: Any) -> web.Response:
        """The page, with what every one of these has."""
        shown = show(
            self.call.request,
            template,
            self.voice,
            status=status,
            person=self.email,
            speech=self.speech,
            home=self.speech.carry(HOME),
            **values,
        )
        return self.visitor.keep(shown)


@dataclass(frozen=True, slots=True)
class Line:
    """A row of a list: where it leads, what it is, a remark, and how it stands."""

    link: str
    what: Markup
    remark: Markup
    meaning: str
    words: Markup


@dataclass(frozen=True, slots=True)
class Tried:
    """An attempt as it is shown."""

    title: Markup
    meaning: str
    words: Markup
    phases: list[tuple[Markup, Markup]]
    answer: Markup | None


async def read_home(call: Call[None, None]) -> web.Response:
    """The developer's endpoints and keys."""
    desk = await _desk(call)
    if desk is None:
        return to_sign_in(call)
    pool, account = call.house.pool, desk.account
    found = await read_endpoints(pool, account.id) if account else []
    keys = await list_keys(pool, account.id) if account else []
    return desk.show(
        "developers",
        tab=desk.voice.say("developers.title"),
        company=desk.voice.typed(account.company) if account else None,
        endpoints=[_endpoint_line(desk, one) for one in found],
        keys=[_key_line(desk, key) for key in keys],
    )


async def read_endpoint_page(call: Call[None, None]) -> web.Response:
    """One endpoint: how it is, what can be done, what was to be delivered there."""
    desk = await _desk(call)
    if desk is None:
        return to_sign_in(call)
    return await _endpoint_page(desk, await _endpoint(desk))


async def take_endpoint(call: Call[None, None]) -> web.Response:
    """Enable it, try it out, give it a new secret, recover what it missed."""
    desk = await _desk(call)
    if desk is None:
        return to_sign_in(call)
    endpoint = await _endpoint(desk)
    form = await receive(call.request, desk.visitor, _purpose(endpoint))
    acts = {"enable": _enable, "test": _test, "rotate": _rotate, "recover": _recover}
    if form.text("act") not in acts:
        raise PathUnknown
    return await acts[form.text("act")](desk, endpoint, form)


async def read_delivery_page(call: Call[None, None]) -> web.Response:
    """One delivery with its attempts."""
    desk = await _desk(call)
    if desk is None:
        return to_sign_in(call)
    endpoint = await _endpoint(desk)
    delivery = await _delivery(desk, endpoint)
    told = await attempts.in_full(call.house, endpoint, delivery, Viewer.PERSON)
    voice = desk.voice
    return desk.show(
        "developer_delivery",
        tab=voice.say("developers.delivery"),
        kind=voice.figure(delivery.type),
        back=desk.speech.carry(_path(endpoint)),
        url=voice.typed(endpoint.url),
        meaning=MEANINGS[delivery.state],
        state=voice.say(f"developers.state.{delivery.state}"),
        facts=_delivery_facts(voice, delivery),
        body=voice.lines(told.request.body[: 4 * ANSWER_CHARACTERS]) if told.request.body else None,
        headers=[voice.figure(name) for name in told.request.headers],
        attempts=[_tried(voice, one) for one in told.attempts],
        may_resend=endpoint.is_active and told.request.body is not None,
        is_done=call.request.query.get("done") == "yes",
        action=desk.speech.carry(f"{_path(endpoint)}/deliveries/{delivery.id}"),
        token=desk.visitor.form_token(_purpose(endpoint)),
    )


async def take_delivery(call: Call[None, None]) -> web.Response:
    """Send it once more."""
    desk = await _desk(call)
    if desk is None:
        return to_sign_in(call)
    endpoint = await _endpoint(desk)
    delivery = await _delivery(desk, endpoint)
    await receive(call.request, desk.visitor, _purpose(endpoint))
    await call.perform(attempts.resend(endpoint.developer_id, endpoint.id, delivery.id), desk.actor)
    return _on(desk, f"{_path(endpoint)}/deliveries/{delivery.id}?done=yes")


# ---- What is done -------------------------------------------------------------------------------


async def _enable(desk: _Desk, endpoint: Endpoint, _: Form) -> web.Response:
    wanted = endpoints.enable(endpoint.developer_id, endpoint.id)
    await desk.call.perform(wanted, desk.actor)
    return _on(desk, f"{_path(endpoint)}?done=enable")


async def _test(desk: _Desk, endpoint: Endpoint, form: Form) -> web.Response:
    kind = form.text("type")
    if kind not in TYPES:
        raise PathUnknown
    sample = desk.call.request.app[SAMPLES](kind)
    wanted = attempts.send_test(endpoint.developer_id, endpoint.id, kind, sample)
    answer = await desk.call.perform(wanted, desk.actor)
    delivery_id = orjson.loads(answer.body)["delivery"]["id"]
    return _on(desk, f"{_path(endpoint)}/deliveries/{delivery_id}?done=yes")


async def _rotate(desk: _Desk, endpoint: Endpoint, form: Form) -> web.Response:
    if form.text("overlap") not in map(str, OVERLAPS):
        raise PathUnknown
    hours = int(form.text("overlap"))
    wanted = endpoints.regenerate_secret(endpoint.developer_id, endpoint.id, hours)
    told = orjson.loads((await desk.call.perform(wanted, desk.actor)).body)
    voice = desk.voice
    return desk.show(
        "developer_secret",
        tab=voice.say("developers.new_secret"),
        back=desk.speech.carry(_path(endpoint)),
        secrets=[
            (voice.say(f"developers.{name}"), told[key])
            for name, key in (
                ("secret", "secret"),
                ("standard_secret", "standardSecret"),
                ("public_key", "publicKey"),
            )
            if key in told
        ],
        hours=hours,
    )


async def _recover(desk: _Desk, endpoint: Endpoint, form: Form) -> web.Response:
    try:
        wanted = Recover.model_validate({"since": form.text("since")})
        command = recoveries.recover(endpoint.developer_id, endpoint.id, wanted.since, None)
        await desk.call.perform(command, desk.actor)
    except (ValidationError, WebhookRefused):
        return await _endpoint_page(
            desk, endpoint, status=400, error=desk.voice.say("developers.since_wrong")
        )
    return _on(desk, f"{_path(endpoint)}?done=recover")


# ---- What is shown ------------------------------------------------------------------------------


async def _endpoint_page(
    desk: _Desk, endpoint: Endpoint, *, status: int = 200, error: str = ""
) -> web.Response:
    call, voice, pool = desk.call, desk.voice, desk.call.house.pool
    query = call.request.query
    state = query.get("state") if query.get("state") in STATES else None
    cursor = query.get("cursor", "")
    before = UUID(cursor) if is_uuid(cursor) else None
    found = await list_deliveries(pool, endpoint.id, state=state, before=before, limit=ENTRIES + 1)
    shown = found[:ENTRIES]
    since = (await read_clock(pool)).real_now - DAY
    recent = await count_recent(pool, endpoint.id, since)
    done = query.get("done", "")
    meaning, words = _health(voice, endpoint)
    return desk.show(
        "developer_endpoint",
        status=status,
        tab=voice.say("developers.endpoint"),
        url=voice.typed(endpoint.url),
        meaning=meaning,
        health=words,
        facts=_endpoint_facts(voice, endpoint),
        recent=[
            (voice.say(f"developers.state.{name}"), voice.figure(str(getattr(recent, name))))
            for name in STATES
        ],
        is_active=endpoint.is_active,
        done=voice.say(f"developers.done_{done}") if done in ("enable", "recover") else "",
        error=error,
        action=desk.speech.carry(_path(endpoint)),
        path=_path(endpoint),
        token=desk.visitor.form_token(_purpose(endpoint)),
        types=[(one, one) for one in reversed(TYPES)],
        overlaps=[
            (str(hours), voice.say(f"developers.overlap_{hours}").striptags()) for hours in OVERLAPS
        ],
        recoveries=[
            _recovery_line(voice, one)
            for one in await list_recoveries(pool, endpoint.id, RECOVERIES)
        ],
        states=[
            ("", voice.say("developers.all").striptags()),
            *((one, voice.say(f"developers.state.{one}").striptags()) for one in STATES),
        ],
        state=state or "",
        deliveries=[_delivery_line(desk, endpoint, one) for one in shown],
        older=_older(desk, endpoint, state, shown) if len(found) > ENTRIES else None,
    )


def _older(desk: _Desk, endpoint: Endpoint, state: str | None, shown: list[Delivery]) -> str:
    query = {**({"state": state} if state else {}), "cursor": str(shown[-1].event_id)}
    return desk.speech.carry(f"{_path(endpoint)}?{urlencode(query)}")


def _health(voice: Voice, endpoint: Endpoint) -> tuple[str, Markup]:
    """Whether deliveries arrive there, for a chip."""
    if not endpoint.is_active:
        return "problem", voice.say("developers.disabled")
    if endpoint.failure_count:
        count = voice.figure(str(endpoint.failure_count))
        return "problem", voice.say("developers.failing", count=count)
    if endpoint.last_triggered_at is None:
        return "waiting", voice.say("developers.unused")
    return "done", voice.say("developers.healthy")


def _endpoint_facts(voice: Voice, endpoint: Endpoint) -> list[tuple[Markup, Markup]]:
    told = [
        ("events", voice.typed(", ".join(endpoint.events))),
        ("ladder", voice.say(f"developers.ladder_{endpoint.ladder}")),
        ("timeout", voice.say("developers.seconds", count=str(endpoint.timeout_seconds))),
        ("order", voice.say("developers.in_order" if endpoint.fifo else "developers.any_order")),
    ]
    if endpoint.last_triggered_at is not None:
        told.append(("last", voice.moment(instant(endpoint.last_triggered_at))))
        told.append(("last_status", _status(voice, endpoint.last_response_status, None)))
    if endpoint.disabled_reason and not endpoint.is_active:
        told.append(("reason", voice.typed(endpoint.disabled_reason)))
    if endpoint.public_key:
        told.append(("public_key", voice.typed(endpoint.public_key)))
    return [(voice.say(f"developers.{name}"), value) for name, value in told]


def _delivery_facts(voice: Voice, delivery: Delivery) -> list[tuple[Markup, Markup]]:
    told = [
        ("made", voice.moment(instant(delivery.created_at))),
        ("attempt", voice.figure(str(delivery.attempt))),
    ]
    if delivery.next_attempt_at is not None:
        told.append(("next_attempt", voice.moment(instant(delivery.next_attempt_at))))
    if delivery.settled_at is not None:
        told.append(("settled", voice.moment(instant(delivery.settled_at))))
    told.append(("event_id", voice.typed(str(delivery.event_id))))
    return [(voice.say(f"developers.{name}"), value) for name, value in told]


def _status(voice: Voice, status: int | None, fault: str | None) -> Markup:
    if status:
        return voice.say("developers.answered", status=voice.figure(str(status)))
    return voice.say("developers.no_answer", fault=voice.figure(fault or "-"))


def _tried(voice: Voice, one: Attempt) -> Tried:
    phases = (
        ("dns", one.dns_ms),
        ("connect", one.connect_ms),
        ("tls", one.tls_ms),
        ("first_byte", one.first_byte_ms),
        ("total", one.total_ms),
    )
    is_success = one.error_class is None and 200 <= one.status <= 299
    return Tried(
        title=voice.say(
            "developers.attempt_n",
            n=voice.figure(str(one.n)),
            at=voice.moment(instant(one.started_at)),
        ),
        meaning="done" if is_success else "problem",
        words=_status(voice, one.status, one.error_class),
        phases=[
            *(
                (voice.say(f"developers.phase_{name}"), voice.figure(f"{milliseconds} ms"))
                for name, milliseconds in phases
                if milliseconds is not None
            ),
            *([(voice.say("developers.address"), voice.typed(one.address))] if one.address else []),
        ],
        answer=voice.lines(one.answer[:ANSWER_CHARACTERS]) if one.answer else None,
    )


def _endpoint_line(desk: _Desk, endpoint: Endpoint) -> Line:
    meaning, words = _health(desk.voice, endpoint)
    events = desk.voice.typed(", ".join(endpoint.events))
    link = desk.speech.carry(_path(endpoint))
    return Line(link, desk.voice.typed(endpoint.url), events, meaning, words)


def _key_line(desk: _Desk, key: OwnKey) -> Line:
    voice = desk.voice
    used = (
        voice.say("developers.key_used", at=voice.moment(instant(key.last_used_at)))
        if key.last_used_at
        else voice.say("developers.key_unused")
    )
    words = voice.say("developers.key_good" if key.is_good else "developers.key_over")
    what = voice.say("developers.key", prefix=voice.figure(key.prefix), name=key.name)
    return Line("", what, used, "done" if key.is_good else "problem", words)


def _delivery_line(desk: _Desk, endpoint: Endpoint, delivery: Delivery) -> Line:
    voice = desk.voice
    return Line(
        desk.speech.carry(f"{_path(endpoint)}/deliveries/{delivery.id}"),
        voice.figure(delivery.type),
        voice.moment(instant(delivery.created_at)),
        MEANINGS[delivery.state],
        voice.say(f"developers.state.{delivery.state}"),
    )


def _recovery_line(voice: Voice, one: Recovery) -> Line:
    what = voice.say("developers.recovery", since=voice.moment(instant(one.since)))
    remark = voice.say(
        "developers.recovered",
        recovered=voice.figure(str(one.recovered)),
        count=voice.figure(str(one.count)),
    )
    words = voice.say(f"developers.recovery_{one.state}")
    return Line("", what, remark, MEANINGS[one.state], words)


# ---- Who, and what is meant ---------------------------------------------------------------------


async def _desk(call: Call[None, None]) -> _Desk | None:
    """Who is here; None: nobody who is signed in."""
    visitor = await arrive(call)
    if visitor.session is None:
        return None
    speech = spoken(call.request, visitor.session.language)
    voice = voice_of(call.request, speech, visitor.session.timezone)
    account = await read_account(call.house.pool, visitor.session.email)
    return _Desk(call, visitor, speech, voice, visitor.session.email, account)


async def _endpoint(desk: _Desk) -> Endpoint:
    """The endpoint in the path; another developer's is told from none at all by nothing."""
    asked = desk.call.path["id"]
    found = await read_endpoint(desk.call.house.pool, asked) if is_entity_id(asked) else None
    if found is None or desk.account is None or found.developer_id != desk.account.id:
        raise PathUnknown
    return found


async def _delivery(desk: _Desk, endpoint: Endpoint) -> Delivery:
    asked = desk.call.path["delivery"]
    found = await read_delivery(desk.call.house.pool, UUID(asked)) if is_uuid(asked) else None
    if found is None or found.endpoint_id != endpoint.id:
        raise PathUnknown
    return found


def _path(endpoint: Endpoint) -> str:
    return f"{HOME}/webhooks/{endpoint.id}"


def _purpose(endpoint: Endpoint) -> str:
    return f"developers/{endpoint.id}"


def _on(desk: _Desk, path: str) -> web.Response:
    return desk.visitor.keep(see_other(desk.speech.carry(path)))
