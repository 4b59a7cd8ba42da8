"""Webhook endpoints: made, changed, given a new secret, deleted by their developer."""

import secrets
from collections.abc import Mapping
from dataclasses import replace

import orjson

from service.commands.perform import Command
from service.rules.address import check_url
from service.rules.delivery import STANDARD, TIMEOUT_SECONDS
from service.rules.errors import WebhookNotFound, WebhookRefused
from service.rules.events import DEFAULT_SUBSCRIPTION
from service.rules.signing import standard_secret
from service.store import attempts, deliveries, endpoints, lanes
from service.store.db import Transaction
from service.store.endpoints import Endpoint, NewEndpoint
from service.store.events import Entry, append_events
from service.store.ids import entity_id, event_id
from service.store.vault import Vault
from service.wire.ed25519 import new_private_key, public_key
from service.wire.events import envelope
from service.wire.text import ascii_domain
from service.wire.webhooks import (
    EndpointData,
    Gone,
    NewWebhook,
    SecretAnswer,
    ToldWebhook,
    Webhook,
    WebhookAnswer,
    WebhookCreate,
    WebhookCreated,
    WebhookUpdate,
    WebhookUpdated,
)

SECRET_BYTES = 32


def create(developer_id: str, wanted: WebhookCreate) -> Command:
    """A new endpoint, active at once; its secret is shown here and never again.

    Raises:
        WebhookRefused: the URL will not do, or the developer has as many as are allowed.
    """

    async def command(tx: Transaction) -> WebhookCreated:
        _check(tx, wanted.url)
        most = tx.policy.max_webhooks_per_developer
        if await endpoints.lock_count(tx, developer_id) >= most:
            raise WebhookRefused(reason=f"Maximum {most} webhooks allowed per developer")
        made = NewEndpoint(
            id=entity_id(tx.now),
            developer_id=developer_id,
            url=wanted.url,
            events=_subscription(wanted.events) or DEFAULT_SUBSCRIPTION,
            ladder=wanted.ladder or STANDARD.name,
            timeout_seconds=wanted.timeout_seconds or TIMEOUT_SECONDS,
            headers=_sealed(tx, wanted.headers),
            max_per_second=wanted.max_per_second or None,
            fifo=bool(wanted.fifo),
        )
        await endpoints.insert_endpoint(tx, made)
        secret = await _new_secret(tx, made.id)
        public = await _new_pair(tx, made.id) if wanted.ed25519 else None
        await _tell(tx, made.id, 1, "create")
        shown = NewWebhook(
            id=made.id,
            url=made.url,
            secret=secret,
            standard_secret=standard_secret(secret),
            public_key=public,
            events=list(made.events),
            is_active=True,
            created_at=tx.now,
        )
        return WebhookCreated(message="Webhook created", webhook=shown)

    return command


def update(developer_id: str, endpoint_id: str, wanted: WebhookUpdate) -> Command:
    """The endpoint as wanted; what waited for a disabled one falls due when it is enabled.

    Raises:
        WebhookNotFound: the developer has no such endpoint.
        WebhookRefused: the URL will not do.
    """

    async def command(tx: Transaction) -> WebhookUpdated:
        if wanted.url is not None:
            _check(tx, wanted.url)
        before = await _lock(tx, developer_id, endpoint_id)
        after = _changed(tx, before, wanted)
        await endpoints.move_endpoint(tx, after)
        await _turn(tx, before, after)
        if wanted.ed25519 is not None:
            after = await _sign_by_pair(tx, after, is_wanted=wanted.ed25519)
        await _tell(tx, after.id, after.seq, "update")
        return WebhookUpdated(message="Webhook updated", webhook=shape(after, tx.vault))

    return command


def enable(developer_id: str, endpoint_id: str) -> Command:
    """The endpoint is sent to again, as from its first day; what was parked for it falls due.

    One that is active already has what waits tried now, as far as its receiver has not asked us to
    wait; its breaker lets one probe through.

    Raises:
        WebhookNotFound: the developer has no such endpoint.
    """

    async def command(tx: Transaction) -> WebhookAnswer:
        before = await _lock(tx, developer_id, endpoint_id)
        after = _changed(tx, before, WebhookUpdate.model_validate({"isActive": True}))
        await endpoints.move_endpoint(tx, after)
        if before.is_active:
            await attempts.hurry_lane(tx, after.id)
            tx.ring("webhooks")
        else:
            await _wake(tx, after.id)
        await _tell(tx, after.id, after.seq, "enable")
        return WebhookAnswer(webhook=shape(after, tx.vault))

    return command


def regenerate_secret(developer_id: str, endpoint_id: str, overlap_hours: int) -> Command:
    """A new secret; the old ones sign beside it for `overlap_hours` (0: they are dead at once).

    Where it is signed by Ed25519 too, the pair is a new one alike. At most `SECRETS_MAX` sign at
    once: the oldest beyond are dead at once too.
    """

    async def command(tx: Transaction) -> SecretAnswer:
        endpoint = await _lock(tx, developer_id, endpoint_id)
        secret = await _new_secret(tx, endpoint.id, overlap_hours)
        public = await _new_pair(tx, endpoint.id, overlap_hours) if endpoint.public_key else None
        seq = await endpoints.next_seq(tx, endpoint.id)
        await _tell(tx, endpoint.id, seq, "regenerate_secret", "secret.rotated", endpoint)
        return SecretAnswer(
            message="Secret regenerated",
            secret=secret,
            standard_secret=standard_secret(secret),
            public_key=public,
        )

    return command


def delete(developer_id: str, endpoint_id: str) -> Command:
    """Nothing is sent there any more; what waited is cancelled."""

    async def command(tx: Transaction) -> Gone:
        endpoint = await _lock(tx, developer_id, endpoint_id)
        await endpoints.delete_endpoint(tx, endpoint.id)
        await deliveries.cancel_deliveries(tx, [endpoint.id])
        await _tell(tx, endpoint.id, endpoint.seq + 1, "delete")
        return Gone(message="Webhook deleted")

    return command


def shape(endpoint: Endpoint, vault: Vault) -> Webhook:
    """The endpoint as its developer sees it, by a key of theirs: with its headers."""
    return Webhook(
        id=endpoint.id,
        url=endpoint.url,
        events=list(endpoint.events),
        is_active=endpoint.is_active,
        last_triggered_at=endpoint.last_triggered_at,
        last_response_status=endpoint.last_response_status,
        failure_count=endpoint.failure_count,
        created_at=endpoint.created_at,
        updated_at=endpoint.updated_at,
        ladder=endpoint.ladder,
        timeout_seconds=endpoint.timeout_seconds,
        max_per_second=endpoint.max_per_second,
        headers=orjson.loads(vault.open(endpoint.headers)) if endpoint.headers else {},
        fifo=endpoint.fifo,
        ed25519=endpoint.public_key is not None,
        public_key=endpoint.public_key,
        disabled_reason=endpoint.disabled_reason,
        flag=endpoint.flag,
    )


async def tell_disabled(tx: Transaction, gone: endpoints.Disabled) -> None:
    """`endpoint.disabled`, to the developer's other endpoints and the audit trail."""
    told = ToldWebhook(
        id=gone.id,
        url=gone.url,
        is_active=False,
        failure_count=gone.failure_count,
        disabled_reason=gone.disabled_reason,
    )
    await _append(tx, gone.id, gone.seq, "disable", "endpoint.disabled", told)


def _changed(tx: Transaction, before: Endpoint, wanted: WebhookUpdate) -> Endpoint:
    is_active = before.is_active if wanted.is_active is None else wanted.is_active
    pace = before.max_per_second if wanted.max_per_second is None else wanted.max_per_second
    url = wanted.url or before.url
    return replace(
        before,
        url=url,
        events=_subscription(wanted.events) or before.events,
        is_active=is_active,
        ladder=wanted.ladder or before.ladder,
        timeout_seconds=wanted.timeout_seconds or before.timeout_seconds,
        max_per_second=pace or None,
        fifo=before.fifo if wanted.fifo is None else wanted.fifo,
        headers=before.headers if wanted.headers is None else _sealed(tx, wanted.headers),
        disabled_reason=None if is_active else before.disabled_reason,
        flag=before.flag if url == before.url else None,
        seq=before.seq + 1,
        updated_at=tx.now,
    )


async def _turn(tx: Transaction, before: Endpoint, after: Endpoint) -> None:
    """The lane and what waits in it, where the endpoint was switched or moved elsewhere."""
    if after.is_active and (not before.is_active or before.url != after.url):
        await _wake(tx, after.id)
    elif before.is_active and not after.is_active:
        await deliveries.park_deliveries(tx, [after.id])


async def _wake(tx: Transaction, endpoint_id: str) -> None:
    """What was parked falls due, in a lane that starts afresh. Relies on the endpoint's lock."""
    await deliveries.unpark_deliveries(tx, [endpoint_id])
    await lanes.wake_lanes(tx, [endpoint_id])
    tx.ring("webhooks")


async def _sign_by_pair(tx: Transaction, endpoint: Endpoint, *, is_wanted: bool) -> Endpoint:
    """The endpoint with Ed25519 switched on or off; a pair that it has already stays."""
    if not is_wanted:
        await endpoints.delete_pairs(tx, endpoint.id)
        return replace(endpoint, public_key=None)
    if endpoint.public_key is not None:
        return endpoint
    return replace(endpoint, public_key=await _new_pair(tx, endpoint.id))


async def _lock(tx: Transaction, developer_id: str, endpoint_id: str) -> Endpoint:
    endpoint = await endpoints.lock_endpoint(tx, endpoint_id)
    if endpoint is None or endpoint.developer_id != developer_id:
        raise WebhookNotFound
    return endpoint


def _check(tx: Transaction, url: str) -> None:
    check_url(
        url,
        live=not tx.policy.is_sandbox,
        allow_private=tx.policy.webhook_allow_private,
        ascii_name=ascii_domain,
    )


def _subscription(events: list[str] | None) -> list[str]:
    return list(dict.fromkeys(events or ()))


def _sealed(tx: Transaction, headers: Mapping[str, str] | None) -> bytes | None:
    return tx.vault.seal(orjson.dumps(headers).decode()) if headers else None


async def _new_secret(tx: Transaction, endpoint_id: str, overlap_hours: int = 0) -> str:
    secret = secrets.token_hex(SECRET_BYTES)
    await endpoints.insert_secret(
        tx, endpoint_id, tx.vault.seal(secret), overlap_hours=overlap_hours
    )
    return secret


async def _new_pair(tx: Transaction, endpoint_id: str, overlap_hours: int = 0) -> str:
    """The public half of a new pair; the private one is sealed and leaves this house never."""
    private = new_private_key()
    public = public_key(private)
    await endpoints.insert_secret(
        tx, endpoint_id, tx.vault.seal(private), public_key=public, overlap_hours=overlap_hours
    )
    return public


async def _tell(
    tx: Transaction,
    endpoint_id: str,
    seq: int,
    step: str,
    event_type: str | None = None,
    endpoint: Endpoint | None = None,
) -> None:
    told = None
    if endpoint is not None:
        told = ToldWebhook(
            id=endpoint.id,
            url=endpoint.url,
            is_active=endpoint.is_active,
            failure_count=endpoint.failure_count,
            disabled_reason=endpoint.disabled_reason,
        )
    await _append(tx, endpoint_id, seq, step, event_type, told)


async def _append(
    tx: Transaction,
    endpoint_id: str,
    seq: int,
    step: str,
    event_type: str | None,
    told: ToldWebhook | None,
) -> None:
    uid, body = event_id(tx.now), None
    if event_type is not None and told is not None:
        body = envelope(uid, event_type, EndpointData(webhook=told), tx.now)
    entry = Entry(
        id=uid,
        subject_id=endpoint_id,
        subject_kind="endpoint",
        seq=seq,
        step=step,
        type=event_type,
        body=body,
    )
    await append_events(tx, [entry])
