"""The sandbox's own provider: a page, magic amounts, signed notifications over real HTTP.

It is an outside of its own: it keeps what it knows in a `ChargeBook`, never looks at our payments,
and is told apart from a real provider by nothing but its name. What happens after the payer has
pressed the button is a pure function of the amount (`Conduct`) and of time; the ingress serves
the page and sends what `notifications` says.
"""

import hashlib
import hmac
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Protocol

import aiohttp
import orjson

from service.gateways.payments.provider import Notification, Order, Placed, Reversal
from service.rules.charges import Charge, Conduct
from service.rules.errors import GatewayFailure, Malformed, NotificationRefused, NotPayable
from service.rules.money import EXPONENTS
from service.rules.payment import SANDBOX, Outcome, Report
from service.wire.reading import read_object

SIGNATURE = "X-Sandbox-Signature"
LATER = timedelta(seconds=5)
POST_SECONDS = 10.0
PAGE = "/sandbox/pay/"
_REFUND = ":refund:"


Course = Sequence[tuple[timedelta, Outcome]]
_AT_ONCE = timedelta()
COURSES: Mapping[Conduct, Course] = {
    Conduct.DECLINE: [(_AT_ONCE, Outcome.FAILED)],
    Conduct.PENDING: [(_AT_ONCE, Outcome.PENDING), (LATER, Outcome.SUCCEEDED)],
    Conduct.TWICE: [(_AT_ONCE, Outcome.SUCCEEDED), (_AT_ONCE, Outcome.SUCCEEDED)],
    Conduct.LATE: [(_AT_ONCE, Outcome.CANCELLED), (LATER, Outcome.SUCCEEDED)],
}
APPROVED: Course = [(_AT_ONCE, Outcome.SUCCEEDED)]
TURNED_AWAY: Course = [(_AT_ONCE, Outcome.CANCELLED)]


class ChargeBook(Protocol):
    """Where the provider keeps its charges: every process of ours sees the same ones."""

    async def open(self, charge: Charge) -> Charge:
        """Write it down, unless there is one of this reference; whichever stands."""

    async def read(self, reference: str) -> Charge | None:
        """The charge of this reference."""

    async def press(self, reference: str, at: datetime, *, paid: bool) -> Charge | None:
        """Note the first button that is pressed; later ones change nothing."""

    async def refund(self, reference: str, refund_id: str, amount_minor: int) -> Charge | None:
        """Note the refund, once for each id."""


@dataclass(frozen=True, slots=True)
class Sending:
    """One notification as it goes out: when, the exact bytes, their headers."""

    at: datetime
    body: bytes
    headers: Mapping[str, str]


class SandboxProvider:
    """Signs with the first of the secret keys, and knows the signatures of all."""

    name = SANDBOX

    def __init__(
        self,
        book: ChargeBook,
        secret_keys: Sequence[str],
        public_url: str,
        now: Callable[[], datetime],
    ) -> None:
        self._book = book
        self._keys = [_derived(key) for key in secret_keys]
        self._public_url = public_url
        self._now = now

    @property
    def page_origin(self) -> str:
        """Our own address."""
        return self._public_url

    def check(self, amount_minor: int, currency: str) -> None:
        """It takes whatever the ledger can keep."""
        if currency not in EXPONENTS or amount_minor <= 0:
            raise NotPayable(provider=self.name, reason=f"it takes no {currency}")

    async def place(self, order: Order) -> Placed:
        """Open the charge; the page is ours."""
        asked = Charge(
            f"sbx_{order.payment_id}",
            order.payment_id,
            order.amount_minor,
            order.currency,
            order.description,
            order.return_url,
            order.expires_at,
        )
        stands = await self._book.open(asked)
        if replace(stands, paid=None, pressed_at=None, refunds=()) != asked:
            raise GatewayFailure("this payment was opened with other figures", permanent=True)
        return Placed(asked.reference, f"{self._public_url}{PAGE}{asked.reference}")

    def read(self, headers: Mapping[str, str], body: bytes) -> Notification | None:
        """The notification, if it is signed with one of our keys."""
        given = next((v for k, v in headers.items() if k.lower() == SIGNATURE.lower()), "")
        if not given.isascii():  # what is no header's text is signed by nobody
            given = ""
        signatures = [_signature(key, body) for key in self._keys]
        if not any(hmac.compare_digest(s.encode(), given.encode()) for s in signatures):
            raise NotificationRefused(provider=self.name, reason="its signature is wrong")
        try:
            return _read_notification(read_object(body))
        except (Malformed, KeyError, TypeError, ValueError) as broken:
            told = "its body cannot be read"
            raise NotificationRefused(provider=self.name, reason=told) from broken

    async def ask(self, provider_reference: str) -> Report:
        """How the charge, or its refund, stands now."""
        reference, _, refund_id = provider_reference.partition(_REFUND)
        charge = await self._book.read(reference)
        if charge is None:
            raise GatewayFailure("the sandbox knows no such payment", permanent=True)
        if not refund_id:
            return standing(charge, self._now())
        return _refunded(charge, refund_id)

    async def withdraw(self, provider_reference: str) -> None:
        """As if the payer had turned away, unless a button was pressed before."""
        charge = await self._book.press(provider_reference, self._now(), paid=False)
        if charge is None:
            raise GatewayFailure("the sandbox knows no such payment", permanent=True)

    async def send_back(self, reversal: Reversal) -> tuple[str, Report]:
        """Refund at once what was paid and has not been refunded."""
        reference = reversal.charge_reference.removesuffix(":charge")
        charge = await self._book.read(reference)
        if charge is None or not came(charge, self._now()):
            raise GatewayFailure("there is nothing to refund", permanent=True)
        if reversal.currency != reported(charge)[1]:
            raise GatewayFailure("the refund is in another currency", permanent=True)
        charge = await self._book.refund(reference, reversal.refund_id, reversal.amount_minor)
        if charge is None:
            raise GatewayFailure("there is nothing to refund", permanent=True)
        return f"{reference}{_REFUND}{reversal.refund_id}", _refunded(charge, reversal.refund_id)

    def notifications(self, charge: Charge) -> list[Sending]:
        """What is sent of a charge after a button was pressed, in order."""
        if charge.pressed_at is None:
            return []
        key = self._keys[0]
        if charge.paid and charge.conduct is Conduct.FORGED:
            key = _derived("somebody else's key")
        sendings = []
        for after, outcome in course(charge):
            body = _body(charge, outcome)
            headers = {"Content-Type": "application/json", SIGNATURE: _signature(key, body)}
            sendings.append(Sending(charge.pressed_at + after, body, headers))
        return sendings

    async def close(self) -> None:
        """Nothing is open."""


async def post_notification(session: aiohttp.ClientSession, url: str, sending: Sending) -> int:
    """Send it to our own door, as any provider would; the status that answers.

    Raises:
        GatewayFailure: the door did not answer.
    """
    timeout = aiohttp.ClientTimeout(total=POST_SECONDS)
    try:
        async with session.post(
            url, data=sending.body, headers=sending.headers, timeout=timeout, allow_redirects=False
        ) as response:
            return response.status
    except (aiohttp.ClientError, OSError, TimeoutError) as failure:
        told = f"the notification was not taken: {type(failure).__name__}"
        raise GatewayFailure(told, permanent=False) from failure


def course(charge: Charge) -> Course:
    """What happens after the button, and how long after it."""
    if charge.paid is None:
        return []
    return COURSES.get(charge.conduct, APPROVED) if charge.paid else TURNED_AWAY


def standing(charge: Charge, now: datetime) -> Report:
    """How the charge stands: pending until a button is pressed, or until its time is over."""
    outcome = Outcome.PENDING if now < charge.expires_at else Outcome.CANCELLED
    if charge.pressed_at is not None:
        due = [what for after, what in course(charge) if charge.pressed_at + after <= now]
        outcome = due[-1] if due else Outcome.PENDING
    return _report(charge, outcome)


def came(charge: Charge, now: datetime) -> bool:
    """Whether the provider has the money."""
    return standing(charge, now).outcome is Outcome.SUCCEEDED


def reported(charge: Charge) -> tuple[int, str]:
    """The amount in minor units and the currency that come, which the magic may make others."""
    amount, currency = charge.amount_minor, charge.currency
    match charge.conduct:
        case Conduct.WRONG_AMOUNT:
            return amount - 10 ** EXPONENTS[currency] // 100, currency
        case Conduct.WRONG_CURRENCY:
            return amount, "EUR" if currency != "EUR" else "USD"
    return amount, currency


def _report(charge: Charge, outcome: Outcome) -> Report:
    return Report(outcome, *reported(charge), f"{charge.reference}:charge")


def _refunded(charge: Charge, refund_id: str) -> Report:
    """Refunds count in the order they came; the one that would send back too much fails."""
    left, currency = reported(charge)
    for name, amount_minor in charge.refunds:
        done = amount_minor <= left
        left -= amount_minor if done else 0
        if name == refund_id:
            outcome = Outcome.SUCCEEDED if done else Outcome.FAILED
            named = f"{charge.reference}{_REFUND}{name}"
            return Report(outcome, amount_minor, currency, named, is_of_refund=True)
    raise GatewayFailure("the sandbox knows no such refund", permanent=True)


def _body(charge: Charge, outcome: Outcome) -> bytes:
    report = _report(charge, outcome)
    return orjson.dumps(
        {
            "id": f"{charge.reference}:{outcome}",
            "paymentId": charge.payment_id,
            "reference": charge.reference,
            "outcome": report.outcome,
            "amountMinor": report.amount_minor,
            "currency": report.currency,
            "charge": report.charge_reference,
        }
    )


def _read_notification(told: Mapping[str, Any]) -> Notification:
    outcome, currency = Outcome(told["outcome"]), _text(told["currency"])
    report = Report(outcome, told["amountMinor"], currency, _text(told["charge"]))
    return Notification(
        _text(told["id"]), _text(told["paymentId"]), _text(told["reference"]), report
    )


def _text(value: object) -> str:
    if not isinstance(value, str) or not value:
        raise TypeError("a name is a text")
    return value


def _derived(secret_key: str) -> bytes:
    return hmac.digest(secret_key.encode(), b"amana/sandbox payments", hashlib.sha256)


def _signature(key: bytes, body: bytes) -> str:
    return hmac.digest(key, body, hashlib.sha256).hex()
