"""The page of the sandbox's provider: an amount, what happens with it, and two buttons.

It is an outside of its own: it writes in its book, and tells us over HTTP as any provider would.
No money is real here, and whoever has the link may press.
"""

from datetime import UTC, datetime

import aiohttp
import structlog
from aiohttp import web

from service.commands.charges import HouseBook
from service.gateways.payments.sandbox import SandboxProvider, post_notification
from service.ingress.api.payments import PROVIDERS
from service.ingress.call import Call
from service.ingress.errors import PathUnknown
from service.ingress.pages import page
from service.ingress.pages.arrival import arrive
from service.ingress.pages.page import POLICY, see_other, spoken, voice_of
from service.ingress.pages.paying import spell
from service.ingress.pages.visitor import receive
from service.rules.charges import Charge
from service.rules.errors import GatewayFailure
from service.rules.payment import SANDBOX

ANYWHERE = POLICY.replace("form-action 'self'", "form-action 'self' https: http:")
"""A provider does not know where people are sent on to from where it sends them back."""

log = structlog.get_logger()


async def show(call: Call[None, None]) -> web.Response:
    """The payment's page."""
    charge = await _charge(call)
    visitor = await arrive(call)
    speech = spoken(call.request)
    voice = voice_of(call.request, speech)
    is_over = charge.paid is None and _now() >= charge.expires_at
    shown = page.show(
        call.request,
        "sandbox_pay",
        voice,
        policy=ANYWHERE,
        tab=voice.say("sandbox_pay.title"),
        amount=spell(voice, charge.amount_minor, charge.currency),
        description=voice.typed(charge.description),
        conduct=charge.conduct.value,
        is_over=is_over,
        back=charge.return_url if is_over or charge.paid is not None else None,
        action=speech.carry(f"/sandbox/pay/{charge.reference}"),
        token=visitor.form_token(_purpose(charge)),
    )
    return visitor.keep(shown)


async def press(call: Call[None, None]) -> web.Response:
    """A button is pressed: what is due at once is told, the worker tells the rest; then back."""
    charge = await _charge(call)
    visitor = await arrive(call)
    form = await receive(call.request, visitor, _purpose(charge))
    if _now() < charge.expires_at:
        pays = form.text("pays") == "yes"
        pressed = await HouseBook(call.house).press(charge.reference, _now(), paid=pays)
        await _tell(call, pressed or charge)
    return visitor.keep(see_other(charge.return_url))


async def _tell(call: Call[None, None], charge: Charge) -> None:
    """To the door that this request came in by; what fails here the worker tells again."""
    provider = call.request.app[PROVIDERS].get(SANDBOX)
    address = call.request.transport and call.request.transport.get_extra_info("sockname")
    if not isinstance(provider, SandboxProvider) or not isinstance(address, tuple):
        return
    url = f"http://{_host(address[0])}:{address[1]}/payments/notifications/{SANDBOX}"
    sendings = provider.notifications(charge)
    due = [sending for sending in sendings if sending.at <= _now()]
    async with aiohttp.ClientSession() as session:
        for sending in due:
            try:
                await post_notification(session, url, sending)
            except GatewayFailure as failure:
                log.warning("sandbox_not_heard", reason=str(failure))
                return
    book = HouseBook(call.house)
    await book.note_told(charge.reference, len(due), is_all=len(due) == len(sendings))


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


def _now() -> datetime:
    return datetime.now(UTC)


def _purpose(charge: Charge) -> str:
    return f"sandbox/pay/{charge.reference}"


async def _charge(call: Call[None, None]) -> Charge:
    charge = await HouseBook(call.house).read(call.path["reference"])
    if charge is None:
        raise PathUnknown
    return charge
