"""Each example of the document works as it is shown: in a shell, in Node.js, in Python."""

import asyncio
import json
import os
import shutil
import sys

import pytest

from service.cli.house import open_house
from service.commands import identity, sessions
from service.commands.attempts import send_test
from service.commands.developers import allow_redirects, enrol
from service.commands.disputes import answer, open_dispute
from service.commands.endpoints import create
from service.commands.payments import Wish, begin
from service.ingress.api import escrows, sandbox
from service.ingress.examples import EXAMPLES
from service.ingress.main import make_app
from service.ingress.openapi import request_of
from service.ingress.samples import FROM_ENVIRONMENT, LANGUAGES, curl
from service.rules.dispute import Split
from service.settings import load_settings
from service.wire.identity import NewVerification
from service.wire.sessions import NewSession
from service.wire.webhooks import WebhookCreate
from tests.house import CLEAN
from tests.makers import act, arrange, make_buyer, make_escrow, make_shop
from tests.outbox import tokens_of
from tests.service.ingress.conftest import listening
from tests.service.ingress.documented import ALL, faults, operation

COMMANDS = {
    "shell": ("bash", "-c"),
    "javascript": ("node", "--input-type=module", "-e"),
    "python": (sys.executable, "-c"),
}
ESCROWS = {
    escrows.deliver: {"mode": "quick", "status": "paid"},
    escrows.reject_delivery: {"mode": "quick", "status": "delivered"},
    escrows.read_contract: {"mode": "standard"},
    escrows.read_proof: {"mode": "quick_proof", "status": "paid"},
    sandbox.act: {"mode": "quick", "status": "paid"},
    sandbox.resolve_dispute: {"mode": "quick", "status": "paid"},
    escrows.read_dispute: {"mode": "quick", "status": "paid"},
    sandbox.decide_proof: {
        "mode": "quick_proof",
        "status": "paid",
        "then": ("submit_proof", "request_correction") * 4,
    },
}
"""What an example's escrow must be, where that matters."""
BACK = "https://shop.example.com/back"


@pytest.fixture(scope="module")
async def served(environ):
    """The URL of an ingress, and its application."""
    app = make_app(load_settings(environ | {"RATE_LIMIT_PER_MINUTE": "0"}))
    async with listening(app) as url:
        yield url


@pytest.fixture
async def variables(served, environ, owner, route):
    """What the example of this route reads from its environment, in a house of its own."""
    await owner.execute(CLEAN)
    async with open_house(load_settings(environ)) as house:
        shop = await make_shop(house)
        found = {"AMANA_URL": served, "AMANA_KEY": shop.api_key}
        if route.handler is not sandbox.register:
            buyer = await make_buyer(house, "buyer@example.com")
            escrow = await make_escrow(house, shop, buyer, **ESCROWS.get(route.handler, {}))
            found["ESCROW_ID"] = escrow.id
        if route.handler is escrows.reject_delivery:  # it takes the buyer's key
            made = await arrange(
                house, lambda tx: enrol(tx, "b@dev.example", "Buyer's", user_email=buyer.email)
            )
            found["AMANA_KEY"] = made.api_key
        if route.handler in (sandbox.resolve_dispute, escrows.read_dispute):
            await act(house, buyer.actor, open_dispute(escrow.id, "It never came."))
        if route.handler is escrows.read_dispute:
            offer = Split(escrow.held_minor - 1, 1)
            await act(house, shop.actor, answer(escrow.id, "It did.", offer=offer))
        if "/webhooks/{id}" in route.path:
            found |= await endpoint_of(house, shop)
        if "sessions" in route.path:
            await arrange(house, lambda tx: allow_redirects(tx, shop.developer_id, [BACK]))
            found["SESSION_ID"] = await session_of(house, shop, escrow)
        if "identity" in route.path and route.method != "POST":
            found["VERIFICATION_ID"] = await verification_of(house, shop)
        if "payments" in route.path:
            wish = Wish("topup", "bank_transfer", 250_000, "TND", buyer.user_id)
            begun = await act(house, buyer.actor, begin(wish))
            found["PAYMENT_ID"] = begun["payment"]["id"]
        if route.handler is sandbox.register:
            await make_escrow(house, shop, buyer_email="new@example.com")
            [found["INVITATION_TOKEN"]] = await tokens_of(house, "new@example.com")
    return found


async def run(lang, source, variables):
    """What this program prints; it must succeed."""
    if shutil.which(COMMANDS[lang][0]) is None:
        pytest.skip(f"there is no {COMMANDS[lang][0]} here, so its examples were not run")
    process = await asyncio.create_subprocess_exec(
        *COMMANDS[lang],
        source,
        env={"PATH": os.environ["PATH"], **variables},
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.PIPE,
    )
    out, err = await process.communicate()
    assert process.returncode == 0, (source, out.decode(), err.decode())
    return json.loads(out)


async def endpoint_of(house, shop):
    """A webhook endpoint of this shop, and a delivery there; their ids."""
    wanted = WebhookCreate(url="https://shop.example.com/hooks", events=["*"])
    made = (await act(house, shop.actor, create(shop.developer_id, wanted)))["webhook"]["id"]
    told = await act(house, shop.actor, send_test(shop.developer_id, made))
    return {"WEBHOOK_ID": made, "DELIVERY_ID": told["delivery"]["id"]}


async def session_of(house, shop, escrow):
    """A checkout session of this shop in which the buyer is to pay; its id."""
    asked = {"action": "accept_pay", "targetUserEmail": "buyer@example.com", "redirectUrl": BACK}
    wanted = NewSession.model_validate(asked)
    made = await act(house, shop.actor, sessions.create(shop.developer_id, escrow.id, wanted))
    return made["sessionId"]


async def verification_of(house, shop):
    """An identity verification that this shop asked for; its id."""
    wanted = NewVerification(email="buyer@example.com", external_user_id="u-1042")
    return (await act(house, shop.actor, identity.request(shop.developer_id, wanted)))["id"]


@pytest.mark.parametrize("lang", LANGUAGES)
@pytest.mark.parametrize("route", ALL, ids=lambda r: f"{r.method} {r.path}")
async def test_an_example_works_as_it_is_shown(route, lang, variables):
    [source] = [one["source"] for one in operation(route)["x-codeSamples"] if one["lang"] == lang]
    named = FROM_ENVIRONMENT.findall(curl(request_of(route, EXAMPLES[route.handler])))
    answer = await run(lang, source, {name: variables[name] for name in named})
    content = operation(route)["responses"][str(route.status)]["content"]["application/json"]
    assert faults(answer, content["schema"]) == []
    assert names(answer, content["example"]) == names(content["example"], answer)


def names(answer, other, at=""):
    """The names in an answer, as deep as both go; of a list, those of its first entry."""
    if isinstance(answer, dict) and isinstance(other, dict):
        below = [names(answer[name], other.get(name), f"{at}.{name}") for name in answer]
        return {f"{at}.{name}" for name in answer}.union(*below)
    if isinstance(answer, list) and isinstance(other, list) and answer and other:
        return names(answer[0], other[0], f"{at}[]")
    return set()
