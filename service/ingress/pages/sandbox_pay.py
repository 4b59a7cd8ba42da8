"""The page of the sandbox's provider: an amount, what happens with it, and two buttons.

It is an outside of its own: it writes in its book, and tells us over HTTP as any provider would.
No money is real here, and whoever has the link may press.
"""

from datetime import UTC, datetime
from html import escape

import aiohttp
import structlog
from aiohttp import web

from service.commands.charges import HouseBook
from service.gateways.payments.sandbox import SAYS, SandboxProvider, post_notification
from service.ingress.api.payments import PROVIDERS
from service.ingress.call import Call
from service.ingress.errors import PathUnknown
from service.ingress.pages.page import html
from service.rules.charges import Charge
from service.rules.errors import GatewayFailure
from service.rules.money import to_decimal
from service.rules.payment import SANDBOX

PAGE = (
    '<!doctype html><html lang="en"><head><meta charset="utf-8">'
    '<meta name="viewport" content="width=device-width, initial-scale=1">'
    "<title>Sandbox payment</title></head><body><main><h1>{amount} {currency}</h1>"
    "<p>{description}</p><p>{says}</p>{buttons}</main></body></html>"
)
BUTTONS = (
    '<form method="post" action="?pays=yes"><button>Pay</button></form>'
    '<form method="post" action="?pays=no"><button>Cancel</button></form>'
)
PRESSED = '<p>A button was pressed already.</p><p><a href="{back}">Back</a></p>'

log = structlog.get_logger()


async def show(call: Call[None, None]) -> web.Response:
    """The payment's page."""
    charge = await _charge(call)
    buttons = BUTTONS if charge.paid is None else PRESSED.format(back=escape(charge.return_url))
    page = PAGE.format(
        amount=format(to_decimal(charge.amount_minor, charge.currency), "f"),
        currency=charge.currency,
        description=escape(charge.description),
        says=escape(SAYS[charge.conduct]),
        buttons=buttons,
    )
    return html(page)


async def press(call: Call[None, None]) -> web.Response:
    """A button is pressed: what is due at once is told, the worker tells the rest; then back."""
    charge = await _charge(call)
    pays = call.request.query.get("pays") == "yes"
    now = datetime.now(UTC)
    if now >= charge.expires_at:
        raise web.HTTPSeeOther(charge.return_url)
    pressed = await HouseBook(call.house).press(charge.reference, now, paid=pays)
    provider = call.request.app[PROVIDERS].get(SANDBOX)
    address = call.request.transport and call.request.transport.get_extra_info("sockname")
    if pressed is not None and isinstance(provider, SandboxProvider) and isinstance(address, tuple):
        await _tell(call, provider, pressed, f"http://{_host(address[0])}:{address[1]}")
    raise web.HTTPSeeOther(charge.return_url)


async def _tell(
    call: Call[None, None], provider: SandboxProvider, charge: Charge, own_url: str
) -> None:
    """To the door that this request came in by; what fails here the worker tells again."""
    sendings = provider.notifications(charge)
    due = [sending for sending in sendings if sending.at <= datetime.now(UTC)]
    async with aiohttp.ClientSession() as session:
        for sending in due:
            try:
                await post_notification(
                    session, f"{own_url}/payments/notifications/{SANDBOX}", sending
                )
            except GatewayFailure as failure:
                log.warning("sandbox_not_heard", reason=str(failure))
                return
    book = HouseBook(call.house)
    await book.note_told(charge.reference, len(due), is_all=len(due) == len(sendings))


def _host(host: str) -> str:
    return f"[{host}]" if ":" in host else host


async def _charge(call: Call[None, None]) -> Charge:
    charge = await HouseBook(call.house).read(call.path["reference"])
    if charge is None:
        raise PathUnknown
    return charge
