"""Each example of the document works as it is shown: in a shell, in Node.js, in Python."""

import asyncio
import json
import os
import shutil
import sys
from decimal import Decimal

import pytest

from service.cli.house import open_house
from service.commands import identity, sessions
from service.commands import milestones as commands
from service.commands.attempts import send_test
from service.commands.developers import allow_redirects, enrol
from service.commands.disputes import answer, open_dispute
from service.commands.endpoints import create
from service.commands.payments import Wish, begin
from service.ingress.api import escrows, milestones, sandbox
from service.ingress.examples import EXAMPLES
from service.ingress.main import make_app
from service.ingress.openapi import request_of
from service.ingress.samples import FROM_ENVIRONMENT, LANGUAGES, curl
from service.rules.dispute import Split
from service.settings import load_settings
from service.store.users import read_user
from service.wire.identity import NewVerification
from service.wire.milestones import NewMilestoneEscrow, terms_of
from service.wire.sessions import NewSession
from service.wire.webhooks import WebhookCreate
from tests.house import CLEAN
from tests.makers import (
    Buyer,
    act,
    arrange,
    make_buyer,
    make_escrow,
    make_shop,
    top_up,
    user_actor,
)
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
MILESTONES = {
    # handler -> who asks, and in what state
    milestones.create: ("shop", ()),
    milestones.read_list: ("shop", ()),
    milestones.read_many_balances: ("shop", ("fund",)),
    milestones.read_one: ("shop", ()),
    milestones.read_next: ("shop", ()),
    milestones.read_log: ("shop", ()),
    milestones.update: ("shop", ()),
    milestones.fund: ("buyer", ()),
    milestones.change_status: ("provider", ()),
    milestones.change_statuses: ("provider", ()),
    milestones.approve: ("approver", ()),
    milestones.approve_many: ("approver", ()),
    milestones.release: ("approver", ("fund", "approve")),
    milestones.dispute: ("provider", ()),
    milestones.resolve: ("resolver", ("fund", "dispute")),
    milestones.withdraw: ("resolver", ("overfund", "approve", "release")),
    milestones.note: ("provider", ("dispute",)),
    milestones.make_session: ("shop", ()),
    sandbox.act_on_milestones: ("shop", ()),
}
"""What an example of the milestone family needs: whose key, and what was done before."""
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
            await dispute_of(house, shop, buyer, escrow)
        if "/webhooks/{id}" in route.path:
            found |= await endpoint_of(house, shop)
        if "sessions" in route.path and route.handler not in MILESTONES:
            await arrange(house, lambda tx: allow_redirects(tx, shop.developer_id, [BACK]))
            found["SESSION_ID"] = await session_of(house, shop, escrow)
        if "identity" in route.path and route.method != "POST":
            found["VERIFICATION_ID"] = await verification_of(house, shop)
        if "payments" in route.path:
            wish = Wish("topup", "bank_transfer", 250_000, "TND", buyer.user_id)
            begun = await act(house, buyer.actor, begin(wish))
            found["PAYMENT_ID"] = begun["payment"]["id"]
        if route.handler in MILESTONES:
            found |= await a_milestone_escrow(house, *MILESTONES[route.handler])
        if route.handler is sandbox.register:
            found["INVITATION_TOKEN"] = await invitation_of(house, shop)
    return found


async def invitation_of(house, shop):
    """The token of somebody new whom this shop has invited."""
    await make_escrow(house, shop, buyer_email="new@example.com")
    [token] = await tokens_of(house, "new@example.com")
    return token


async def dispute_of(house, shop, buyer, escrow):
    """The buyer's dispute, and the shop's answer with an offer."""
    await act(house, buyer.actor, open_dispute(escrow.id, "It never came."))
    offer = Split(escrow.held_minor - 1, 1)
    await act(house, shop.actor, answer(escrow.id, "It did.", offer=offer))


async def a_milestone_escrow(house, who, done):
    """The escrow that the examples show, after these steps, and the key of who asks."""
    people = ("approver", "provider", "shop", "resolver")
    users = {name: await make_buyer(house, f"{name}@example.com", "0") for name in people}
    users["buyer"] = await arrange(house, lambda tx: read_person(tx, "buyer@example.com"))
    await top_up(house, "buyer@example.com", "500", "USDC")
    made = await arrange(
        house, lambda tx: enrol(tx, "k@dev.example", "Its", user_email=f"{who}@example.com")
    )
    body = NewMilestoneEscrow.model_validate(EXAMPLES[milestones.create].body)
    created = await act(
        house,
        user_actor(users["shop"].user_id),
        commands.create(made.developer_id, terms_of(body)),
    )
    escrow_id = created["escrow"]["id"]
    steps = {
        "fund": ("buyer", commands.fund(escrow_id, Decimal(100))),
        "overfund": ("buyer", commands.fund(escrow_id, Decimal(120))),
        "approve": ("approver", commands.approve(escrow_id, [0])),
        "release": ("approver", commands.release(escrow_id)),
        "dispute": ("provider", commands.dispute(escrow_id, "It is late.")),
    }
    for name in done:
        by, command = steps[name]
        await act(house, user_actor(users[by].user_id), command)
    await arrange(house, lambda tx: allow_redirects(tx, made.developer_id, [BACK]))
    return {"MILESTONE_ESCROW_ID": escrow_id, "AMANA_KEY": made.api_key}


async def read_person(tx, email):
    """A user as the makers know them."""
    user = await read_user(tx, email)
    return Buyer(user.person.id, email)


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
