"""Paying on our pages: which ways there are, how a payment begins, and its own page.

    policy = paying.policy(call)          # of a page whose form pays: the provider is named in it
    await paying.start(call, visitor, wish, back)

A payment's page is `/pay/<id>` for who is signed in and pays, `/pay/<id>/<session>` for a guest,
to whom the checkout session's handle is the secret, for as long as that session may be used. It has
the instructions of a bank transfer with the form for its proof, and it is where a provider sends
people back to: it asks the provider, unless that has just answered, then shows what stands.
Whoever has finished a shop's session goes on to the shop.
"""

from datetime import UTC, datetime

import orjson
import structlog
from aiohttp import web

from service.commands import payments
from service.commands.payments import Heard, Wish
from service.commands.perform import Command, Idempotency, perform
from service.gateways.payments.provider import PaymentProvider, order_of
from service.ingress.api.payments import PROVIDERS
from service.ingress.call import Call
from service.ingress.pages.arrival import arrive, to_sign_in
from service.ingress.pages.once import carry_out
from service.ingress.pages.page import POLICY, leading_to, see_other, show, spoken, voice_of
from service.ingress.pages.visitor import Visitor, receive
from service.ingress.route import is_entity_id
from service.ingress.uploads import take_files
from service.rules.checkout import way_back
from service.rules.errors import (
    FileEmpty,
    FileTypeUnknown,
    GatewayFailure,
    NotPayable,
    PaymentNotFound,
    PaymentNotOpen,
    PaymentUnderWay,
    Refused,
    SessionNotPending,
)
from service.rules.files import FORM_BYTES_MAX
from service.rules.machine import SYSTEM
from service.rules.money import to_decimal
from service.rules.payment import (
    ACCEPT_PAY,
    ASKED_LATELY,
    BY_HAND,
    CANCELLED,
    CREATED,
    FAILED,
    NEEDS_OPERATOR,
    PENDING,
    SUCCEEDED,
    TOPUP,
    Payment,
    home_of,
    page_of,
    transfer_reference,
)
from service.rules.session import COMPLETED
from service.store.escrows import read_escrow
from service.store.payments import read_open_of_escrow, read_payment
from service.store.sessions import Session, read_session
from service.wire.base import instant
from service.words.pages import Voice

WAYS: web.AppKey[tuple[str, ...]] = web.AppKey("payment_ways")
BANK_DETAILS: web.AppKey[str] = web.AppKey("bank_details")
PROOF_TYPES = "image/png,image/jpeg,image/webp,application/pdf"

log = structlog.get_logger()


# ---- For the pages on which people pay ----------------------------------------------------------


def methods(call: Call[None, None], *, is_guest: bool = False) -> tuple[str, ...]:
    """The ways to pay that are configured, as `Wish.provider` names them; the wallet is not one.

    A guest pays by bank transfer only. The words of each are `pay.way.<name>` in the catalogue.
    """
    ways = call.request.app[WAYS]
    return tuple(way for way in ways if way in BY_HAND) if is_guest else ways


def policy(call: Call[None, None], base: str = POLICY) -> str:
    """For a page whose form pays: it may end on our providers' pages."""
    for provider in call.request.app[PROVIDERS].values():
        base = leading_to(provider.page_origin, base)
    return leading_to(call.house.policy.public_url, base)


async def start(
    call: Call[None, None],
    visitor: Visitor,
    wish: Wish,
    back: str,
    sent: Idempotency | None = None,
) -> web.Response:
    """Begin this payment and send the payer on: to the provider's page, or to the payment's own.

    A card that this payer has under way for the same escrow and amount is gone on with. What the
    provider refuses for good is told on the payment's page, from where `home_of` leads back;
    `back` is where to go where nothing was begun at all; `sent` is the form's (`once.sending`).

    Raises:
        Refused: the escrow cannot be paid so, or not by this person: the form's to tell.
    """
    if wish.provider not in methods(call, is_guest=wish.user_id is None):
        raise NotPayable(provider=wish.provider, reason="it is not a way to pay here")
    provider = call.request.app[PROVIDERS].get(wish.provider)
    if provider is None and wish.provider not in BY_HAND:
        return see_other(spoken_path(call, visitor, back))
    if provider is not None:
        provider.check(wish.amount_minor, wish.currency)
    payment = await _under_way(call, wish) or await _begun(call, wish, sent)
    if provider is None:
        return see_other(spoken_path(call, visitor, page_of(payment)))
    return await _send(call, visitor, provider, payment)


def spoken_path(call: Call[None, None], visitor: Visitor, path: str) -> str:
    """A path of ours with the language that rides along, if one does."""
    stored = visitor.session.language if visitor.session else None
    return spoken(call.request, stored).carry(path)


async def _under_way(call: Call[None, None], wish: Wish) -> Payment | None:
    if wish.escrow_id is None or wish.kind != ACCEPT_PAY:
        return None
    asked = (wish.user_id, wish.provider, wish.amount_minor, wish.currency, wish.session_id)
    for one in await read_open_of_escrow(call.house.pool, wish.escrow_id):
        if asked == (one.user_id, one.provider, one.amount_minor, one.currency, one.session_id):
            return one
    return None


async def _begun(call: Call[None, None], wish: Wish, sent: Idempotency | None) -> Payment:
    try:
        made = await carry_out(call, call.actor.as_user(wish.user_id), payments.begin(wish), sent)
    except PaymentUnderWay:
        found = await _under_way(call, wish)  # the same form, sent twice at once
        if found is None:
            raise
        return found
    return await _stands(call, orjson.loads(made.body)["payment"]["id"])


async def _send(
    call: Call[None, None], visitor: Visitor, provider: PaymentProvider, payment: Payment
) -> web.Response:
    """To the provider's page; where the provider is away, the worker goes on."""
    own = spoken_path(call, visitor, page_of(payment))
    if payment.page_url is not None:
        return see_other(payment.page_url)
    try:
        placed = await provider.place(order_of(payment, call.house.policy.public_url))
    except GatewayFailure as failure:
        log.warning("provider_failed", provider=provider.name, reason=str(failure))
        if failure.permanent:
            await perform(call.house, SYSTEM, payments.end_without_report(payment.id, "decline"))
        return see_other(own)
    handed = payments.hand_over(payment.id, placed.provider_reference, placed.page_url)
    await perform(call.house, SYSTEM, handed)
    return see_other(placed.page_url)


# ---- The page of one payment --------------------------------------------------------------------


async def read_one(call: Call[None, None]) -> web.Response:
    """How the payment stands; a provider that has not said yet is asked once.

    Raises:
        PaymentNotFound: there is none of this id, or it is somebody else's.
    """
    visitor = await arrive(call)
    if "session" not in call.path and visitor.session is None:
        return to_sign_in(call)
    payment = await _asked(call, await _own(call, visitor))
    session = await _session(call, payment)
    if payment.state == SUCCEEDED and payment.provider not in BY_HAND:
        home = spoken_path(call, visitor, home_of(payment))
        if session is not None and session.status == COMPLETED:
            home = way_back(session.redirect_url, str(session.id), COMPLETED)
        return visitor.keep(see_other(home))
    return await _shown(call, visitor, payment)


async def take(call: Call[None, None]) -> web.Response:
    """The payer's form: a proof of the transfer, turning away, trying once more, going on to pay.

    Raises:
        PaymentNotFound, FormNotOurs, Refused: as the step.
    """
    visitor = await arrive(call)
    if "session" not in call.path and visitor.session is None:
        return to_sign_in(call)
    payment = await _own(call, visitor)
    uploads = take_files(call.request, files_max=1)
    form = await receive(
        call.request, visitor, purpose(payment), bytes_max=FORM_BYTES_MAX, keep=uploads
    )
    refusal: Refused | None = uploads.refusal
    match form.text("act"):
        case "prove" if refusal is None and uploads.files:
            refusal = await _tried(call, payment, payments.prove(payment.id, uploads.files[0]))
        case "prove":
            refusal = refusal or FileEmpty()
        case "cancel":
            refusal = await _tried(call, payment, payments.cancel(payment.id))
        case "again" if payment.state in (FAILED, CANCELLED):
            try:
                return visitor.keep(await start(call, visitor, wish_of(payment), home_of(payment)))
            except Refused as stands_against:
                refusal = stands_against
    if isinstance(refusal, SessionNotPending):
        await uploads.discard()
        return visitor.keep(see_other(spoken_path(call, visitor, home_of(payment))))
    if refusal is None:
        return visitor.keep(see_other(spoken_path(call, visitor, page_of(payment))))
    await uploads.discard()
    return await _shown(call, visitor, await _stands(call, payment.id), refusal)


def purpose(payment: Payment) -> str:
    """What the forms of this payment's page are for."""
    return f"pay/{payment.id}"


def wish_of(payment: Payment) -> Wish:
    """The same once more."""
    return Wish(
        payment.kind,
        payment.provider,
        payment.amount_minor,
        payment.currency,
        payment.user_id,
        payment.escrow_id,
        payment.session_id,
        payment.payer_email,
    )


async def _tried(call: Call[None, None], payment: Payment, command: Command) -> Refused | None:
    try:
        await perform(call.house, call.actor.as_user(payment.user_id), command)
    except (PaymentNotOpen, FileTypeUnknown, SessionNotPending) as refusal:
        return refusal
    return None


async def _stands(call: Call[None, None], payment_id: str) -> Payment:
    payment = await read_payment(call.house.pool, payment_id)
    if payment is None:
        raise PaymentNotFound
    return payment


async def _own(call: Call[None, None], visitor: Visitor) -> Payment:
    """The payment of who is there: the signed-in payer's, or a guest's by the session's handle."""
    if not is_entity_id(call.path["id"]):
        raise PaymentNotFound
    payment = await _stands(call, call.path["id"])
    handle = call.path.get("session")
    if handle is not None:
        is_own = payment.user_id is None and str(payment.session_id) == handle
    else:
        session = visitor.session
        is_own = session is not None and session.user_id == payment.user_id is not None
    if not is_own or payment.kind not in (TOPUP, ACCEPT_PAY):
        raise PaymentNotFound
    return payment


async def _session(call: Call[None, None], payment: Payment) -> Session | None:
    """The checkout session that the payment was begun in."""
    if payment.session_id is None:
        return None
    return await read_session(call.house.pool, payment.session_id)


async def _asked(call: Call[None, None], payment: Payment) -> Payment:
    """The payment after its provider was asked, where it is under way."""
    provider = call.request.app[PROVIDERS].get(payment.provider)
    if provider is None or not payment.is_open or payment.provider_reference is None:
        return payment
    if payment.asked_at is not None and datetime.now(UTC) < payment.asked_at + ASKED_LATELY:
        return payment
    try:
        report = await provider.ask(payment.provider_reference)
        heard = Heard(
            payment.provider, payment.id, payment.provider_reference, report, is_answer=True
        )
        await payments.hear(call.house, SYSTEM, heard)
    except GatewayFailure as failure:
        log.warning("provider_failed", provider=provider.name, reason=str(failure))
    return await _stands(call, payment.id)


async def _shown(
    call: Call[None, None], visitor: Visitor, payment: Payment, refusal: Refused | None = None
) -> web.Response:
    session = visitor.session
    speech = spoken(call.request, session.language if session else None)
    voice = voice_of(call.request, speech, session.timezone if session else None)
    escrow = await read_escrow(call.house.pool, payment.escrow_id) if payment.escrow_id else None
    begun_in = await _session(call, payment)
    leads = policy(call)
    standing, meaning = _standing(payment)
    shown = show(
        call.request,
        "paying",
        voice,
        status=400 if refusal else 200,
        policy=leading_to(begun_in.redirect_url, leads) if begun_in else leads,
        person=session.email if session else None,
        tab=voice.say("pay.title"),
        amount=spell(voice, payment.amount_minor, payment.currency),
        title=voice.typed(escrow.title) if escrow else voice.say("pay.topup"),
        standing=standing,
        meaning=meaning,
        note=voice.typed(payment.note) if payment.note and standing == "rejected" else None,
        reference=voice.figure(transfer_reference(payment.id)),
        bank=[voice.figure(line) for line in call.request.app[BANK_DETAILS].splitlines() if line],
        until=voice.moment(instant(payment.expires_at)) if payment.expires_at else None,
        page_url=payment.page_url if _may_pay_on(payment) else None,
        action=speech.carry(page_of(payment)),
        token=visitor.form_token(purpose(payment)),
        accept=PROOF_TYPES,
        error=words_of(voice, refusal) if refusal else "",
        home=speech.carry(home_of(payment)),
    )
    return visitor.keep(shown)


def _standing(payment: Payment) -> tuple[str, str]:
    """The sentence of how it stands (`pay.standing.<name>`), and what it means to a person."""
    if payment.state == NEEDS_OPERATOR:
        return "looked_at", "waiting"
    if payment.provider in BY_HAND:
        return {
            CREATED: ("instructions", "waiting"),
            PENDING: ("under_review", "waiting"),
            SUCCEEDED: ("approved", "done"),
            FAILED: ("rejected", "problem"),
            CANCELLED: ("cancelled", "done"),
        }[payment.state]
    return {
        SUCCEEDED: ("paid", "done"),
        FAILED: ("declined", "problem"),
        CANCELLED: ("cancelled", "done"),
    }.get(payment.state, ("asking", "waiting"))


def _may_pay_on(payment: Payment) -> bool:
    """Whether the provider's page may still be used."""
    is_over = payment.expires_at is not None and payment.expires_at <= datetime.now(UTC)
    return payment.is_open and not is_over


def spell(voice: Voice, amount_minor: int, currency: str) -> str:
    """An amount as this person reads it."""
    return voice.amount(format(to_decimal(amount_minor, currency), "f"), currency)


def words_of(voice: Voice, refusal: Refused) -> str:
    """What a refusal says to a person."""
    key = f"refusal.{refusal.code}"
    return voice.say(key) if voice.knows(key) else voice.say("page.error.not_now.text")
