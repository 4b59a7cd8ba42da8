"""Stripe, through its official library: hosted Checkout pages over payment intents.

What is asked of it carries our payment's id as idempotency key and in its metadata, so that a
notification finds its payment whatever its kind, and other business on the same account is passed
by. The payment intent is the money: its id is the charge reference. A card that is refused does not
end a payment, since the page lets the payer try another; the page's expiry does.

Sources: Stripe's API reference (Checkout Sessions, Payment Intents, Refunds, Webhooks) and its page
on currencies: three-decimal amounts end in 0, no amount has more than eight digits.
"""

import asyncio
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import replace
from datetime import timedelta
from typing import Any, TypeVar

import aiohttp
import stripe
import structlog
from stripe.params import RefundCreateParams
from stripe.params.checkout import SessionCreateParams

from service.gateways.payments.provider import Notification, Order, Placed, Reversal
from service.rules.errors import GatewayFailure, Malformed, NotificationRefused, NotPayable
from service.rules.payment import STRIPE, Outcome, Report
from service.wire.reading import read_object

# The library would keep an id of this machine in the home folder and send it along.
stripe.enable_telemetry = False

TOTAL_SECONDS = 15.0
TOLERANCE_SECONDS = 300
STEPS_MINOR = {"TND": 10, "USD": 1, "EUR": 1}
"""Currency -> the smallest step of an amount; what is not here Stripe does not take."""
PAGES = "https://checkout.stripe.com"
AMOUNT_MAX_MINOR = 99_999_999
OURS = "amana_payment"
"""The key of our id in Stripe's metadata."""
PAGE_LEEWAY = timedelta(minutes=35)
"""How much later than the payment its page ends: Stripe takes none that ends within 30 minutes, and
it may be asked for until the payment ends, by a clock that is not Stripe's."""
PASSING = frozenset({401, 403, 409, 429})
"""A key that the operator will mend, a twin that is under way, too many at once."""

UNREADABLE = (KeyError, TypeError, AttributeError, ValueError)
"""How reading what is not as documented fails, here and in the library."""

T = TypeVar("T")
log = structlog.get_logger()


class StripeProvider:
    """One account at Stripe. Made inside a running loop; closed by its owner.

    `webhook_secrets`: any of them may have signed, so that they can be changed without a gap.
    `api_base` is for tests, and its pages stand there as well.
    """

    name = STRIPE

    def __init__(
        self,
        secret_key: str,
        webhook_secrets: Sequence[str],
        *,
        api_base: str | None = None,
        total_seconds: float = TOTAL_SECONDS,
    ) -> None:
        self._webhook_secrets = webhook_secrets
        self._total_seconds = total_seconds
        self._page_origin = api_base or PAGES
        self._session = aiohttp.ClientSession(cookie_jar=aiohttp.DummyCookieJar(), trust_env=False)
        self._client = stripe.StripeClient(
            secret_key,
            http_client=stripe.AIOHTTPClient(timeout=total_seconds, session=self._session),
            base_addresses={"api": api_base} if api_base else None,
            max_network_retries=0,  # the worker asks again, and says so in its log
        )

    @property
    def page_origin(self) -> str:
        """Where Checkout's pages are."""
        return self._page_origin

    def check(self, amount_minor: int, currency: str) -> None:
        """Refuse what Stripe cannot express."""
        step = STEPS_MINOR.get(currency)
        if step is None:
            raise NotPayable(provider=self.name, reason=f"it takes no {currency}")
        if amount_minor % step:
            reason = f"an amount in {currency} may have two decimals here"
            raise NotPayable(provider=self.name, reason=reason)
        if not 0 < amount_minor <= AMOUNT_MAX_MINOR:
            raise NotPayable(provider=self.name, reason="the amount is too large")

    async def place(self, order: Order) -> Placed:
        """Open a Checkout page for cards.

        Raises:
            NotPayable: Stripe has no such amount.
            GatewayFailure: Stripe failed, or refused.
        """
        self.check(order.amount_minor, order.currency)
        page, key = _page(order), f"pay-{order.payment_id}"
        pages = self._client.v1.checkout.sessions
        return await self._asked(
            lambda: pages.create_async(page, {"idempotency_key": key}),
            lambda session: Placed(_text(session["id"]), _text(session["url"])),
        )

    def read(self, headers: Mapping[str, str], body: bytes) -> Notification | None:
        """The notification, or None where it is of no payment of ours."""
        given = next((v for k, v in headers.items() if k.lower() == "stripe-signature"), "")
        if not any(_is_signed(body, given, secret) for secret in self._webhook_secrets):
            raise NotificationRefused(provider=self.name, reason="its signature is wrong")
        try:
            event = read_object(body)
            thing = event["data"]["object"]
            payment_id = (thing.get("metadata") or {}).get(OURS)
            report = _report(thing) if payment_id is not None else None
            if payment_id is None or report is None:
                return None
            return Notification(_text(event["id"]), _text(payment_id), _text(thing["id"]), report)
        except (Malformed, *UNREADABLE) as broken:
            told = "its body cannot be read"
            raise NotificationRefused(provider=self.name, reason=told) from broken

    async def ask(self, provider_reference: str) -> Report:
        """How the payment or the refund stands.

        Raises:
            GatewayFailure: Stripe failed, or knows no such thing.
        """
        return await self._asked(lambda: self._fetched(provider_reference), _reported)

    async def withdraw(self, provider_reference: str) -> None:
        """Expire a Checkout page.

        Raises:
            GatewayFailure: Stripe failed, or the page is over already.
        """
        pages = self._client.v1.checkout.sessions
        await self._asked(
            lambda: pages.expire_async(provider_reference), lambda page: _text(page["id"])
        )

    async def send_back(self, reversal: Reversal) -> tuple[str, Report]:
        """Refund a charge, in whole or in part.

        Raises:
            NotPayable: Stripe has no such amount.
            GatewayFailure: Stripe failed, or refused.
        """
        self.check(reversal.amount_minor, reversal.currency)
        refund: RefundCreateParams = {
            "payment_intent": reversal.charge_reference,
            "amount": reversal.amount_minor,
            "metadata": {OURS: reversal.refund_id},
        }
        key = f"refund-{reversal.refund_id}"
        refunds = self._client.v1.refunds
        return await self._asked(
            lambda: refunds.create_async(refund, {"idempotency_key": key}),
            lambda made: (_text(made["id"]), _reported(made)),
        )

    async def close(self) -> None:
        """Close every connection."""
        await self._session.close()

    async def _fetched(self, reference: str) -> stripe.StripeObject:
        v1 = self._client.v1
        if reference.startswith("re_"):
            return await v1.refunds.retrieve_async(reference)
        if reference.startswith("pi_"):
            return await v1.payment_intents.retrieve_async(reference)
        return await v1.checkout.sessions.retrieve_async(reference, {"expand": ["payment_intent"]})

    async def _asked(
        self,
        call: Callable[[], Awaitable[stripe.StripeObject]],
        read: Callable[[Mapping[str, Any]], T],
    ) -> T:
        """What Stripe answers, within our time; whatever goes wrong is a GatewayFailure."""
        try:
            async with asyncio.timeout(self._total_seconds):
                answer = await call()
            return read(answer.to_dict())
        except TimeoutError:
            told = f"Stripe did not answer within {self._total_seconds:g} s"
            raise GatewayFailure(told, permanent=False) from None
        except stripe.StripeError as failure:
            raise failure_of(failure) from failure
        except UNREADABLE as broken:
            raise GatewayFailure("Stripe's answer cannot be read", permanent=False) from broken


def _page(order: Order) -> SessionCreateParams:
    return {
        "mode": "payment",
        "allowed_payment_method_types": ["card"],
        "adaptive_pricing": {"enabled": False},  # what we ask is what comes
        "client_reference_id": order.payment_id,
        "expires_at": int((order.expires_at + PAGE_LEEWAY).timestamp()),
        "success_url": order.return_url,
        "cancel_url": order.return_url,
        "line_items": [
            {
                "quantity": 1,
                "price_data": {
                    "currency": order.currency.lower(),
                    "unit_amount": order.amount_minor,
                    "product_data": {"name": order.description},
                },
            }
        ],
        "metadata": {OURS: order.payment_id},
        "payment_intent_data": {"metadata": {OURS: order.payment_id}},
    }


def failure_of(failure: stripe.StripeError) -> GatewayFailure:
    """What an error of the library means for this payment; the reason names no secret."""
    status = failure.http_status
    kind = type(failure).__name__
    if status is None:
        return GatewayFailure(f"Stripe could not be reached: {kind}", permanent=False)
    log.warning("stripe_refused_us", status=status, code=failure.code, stripe_id=failure.request_id)
    permanent = 400 <= status < 500 and status not in PASSING
    return GatewayFailure(f"Stripe answered {status} ({failure.code or kind})", permanent=permanent)


def _is_signed(body: bytes, given: str, secret: str) -> bool:
    """By the library's own check; what it cannot read is signed by nobody."""
    if not given.isascii():
        return False
    try:
        stripe.WebhookSignature.verify_header(body, given, secret, TOLERANCE_SECONDS)
    except (stripe.SignatureVerificationError, ValueError):
        return False
    return True


def _reported(thing: Mapping[str, Any]) -> Report:
    report = _report(thing)
    if report is None:
        raise ValueError("this says nothing of a payment")
    return report


def _report(thing: Mapping[str, Any]) -> Report | None:
    """What an object of Stripe's says of the payment; None for kinds that say nothing."""
    match thing["object"]:
        case "payment_intent":
            return _of_intent(thing)
        case "checkout.session":
            return _of_session(thing)
        case "refund":
            said = _told(_OF_REFUND[thing["status"]], thing, thing["amount"], thing["id"])
            return replace(said, is_of_refund=True)
    return None


def _of_intent(intent: Mapping[str, Any]) -> Report:
    match intent["status"]:
        case "succeeded":
            got = intent.get("amount_received", intent["amount"])
            return _told(Outcome.SUCCEEDED, intent, got, intent["id"])
        case "canceled":
            return _told(Outcome.CANCELLED, intent, intent["amount"], intent["id"])
    return _told(Outcome.PENDING, intent, intent["amount"], intent["id"])


def _of_session(session: Mapping[str, Any]) -> Report:
    """A finished page tells of its payment intent; one that has none yet tells of itself."""
    intent = session["payment_intent"]
    if isinstance(intent, Mapping) and intent["status"] in ("succeeded", "canceled"):
        return _of_intent(intent)
    named = intent["id"] if isinstance(intent, Mapping) else intent or session["id"]
    outcome = Outcome.PENDING
    if session["status"] == "expired":
        outcome = Outcome.CANCELLED
    elif session["payment_status"] == "paid":
        outcome = Outcome.SUCCEEDED
    return _told(outcome, session, session["amount_total"], named)


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("a name or an address of Stripe's is a text")
    return value


def _told(outcome: Outcome, thing: Mapping[str, Any], amount: object, charge: object) -> Report:
    if type(amount) is not int:
        raise TypeError("an amount of Stripe's is a whole number of minor units")
    return Report(outcome, amount, thing["currency"].upper(), _text(charge))


_OF_REFUND: Mapping[str, Outcome] = {
    "pending": Outcome.PENDING,
    "requires_action": Outcome.PENDING,
    "succeeded": Outcome.SUCCEEDED,
    "failed": Outcome.FAILED,
    "canceled": Outcome.CANCELLED,
}
