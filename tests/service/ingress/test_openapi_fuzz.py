"""Schemathesis over the served document: seeded, bounded, against the real ingress.

It looks for a 500, a status or a content type that is not documented, and an answer that does
not fit its schema. It sends what the schemas allow and what they forbid.
"""

import asyncio
import shutil
import sys
from decimal import Decimal
from pathlib import Path

import aiohttp
import pytest

from service.cli.house import open_house
from service.commands import identity, sessions
from service.commands.attempts import send_test
from service.commands.developers import allow_redirects
from service.commands.endpoints import create
from service.commands.rates import set_rate
from service.ingress.examples import NAMED
from service.ingress.main import make_app
from service.rules.money import RATED_CURRENCIES
from service.settings import load_settings
from service.wire.identity import NewVerification
from service.wire.sessions import NewSession
from service.wire.webhooks import WebhookCreate
from tests.house import CLEAN
from tests.makers import act, arrange, make_buyer, make_escrow, make_shop
from tests.outbox import tokens_of
from tests.service.ingress.conftest import listening

SCHEMATHESIS = shutil.which("schemathesis", path=Path(sys.executable).parent)
SEED = 20260131
SECONDS_AT_MOST = 30
ASSOCIATION = "/api/v1/sandbox/association"
BACK = "https://shop.example.com/back"
CHECKS = (
    "not_a_server_error",
    "status_code_conformance",
    "content_type_conformance",
    "response_headers_conformance",
    "response_schema_conformance",
    "unsupported_method",
    "allow_header_conformance",
    "missing_required_header",
    "ignored_auth",
)


@pytest.mark.timeout(120)
async def test_nothing_that_can_be_asked_is_answered_otherwise_than_documented(
    environ, owner, tmp_path
):
    await owner.execute(CLEAN)
    settings = load_settings(environ | {"RATE_LIMIT_PER_MINUTE": "1000000"})
    async with listening(make_app(settings)) as url:
        key, named = await arranged(settings)
        document = tmp_path / "openapi.json"
        document.write_text(await served(url, named), encoding="utf-8")
        asked = (document, f"--url={url}", f"--header=Authorization: Bearer {key}")
        # Who has lost the association is refused at half of the doors: that comes last.
        await fuzzed(*asked, f"--exclude-path={ASSOCIATION}", seconds=SECONDS_AT_MOST)
        await fuzzed(*asked, f"--include-path={ASSOCIATION}", seconds=5)


async def fuzzed(*asked, seconds):
    """One run; what it has found fails the test, as it was told."""
    process = await asyncio.create_subprocess_exec(
        SCHEMATHESIS,
        "run",
        *asked,
        f"--seed={SEED}",
        f"--checks={','.join(CHECKS)}",
        "--phases=examples,coverage,fuzzing",
        "--max-examples=12",
        f"--max-time={seconds}",
        "--continue-on-failure",
        "--no-color",
        "--no-shrink",
        cwd=asked[0].parent,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
    )
    out, _ = await process.communicate()
    assert process.returncode == 0, out.decode()[-20_000:]


async def arranged(settings):
    """A key, and the things that the document's examples name."""
    async with open_house(settings) as house:
        for currency in RATED_CURRENCIES:
            await arrange(house, lambda tx, of=currency: set_rate(tx, of, Decimal(3), "sandbox"))
        shop, buyer = await make_shop(house), await make_buyer(house, "buyer@example.com")
        wanted = WebhookCreate(url="https://shop.example.com/hooks", events=["*"])
        webhook = await act(house, shop.actor, create(shop.developer_id, wanted))
        endpoint_id = webhook["webhook"]["id"]
        tried = await act(house, shop.actor, send_test(shop.developer_id, endpoint_id))
        asked = identity.request(shop.developer_id, NewVerification(email=buyer.email))
        await make_escrow(house, shop, buyer_email="new@example.com")
        [token] = await tokens_of(house, "new@example.com")
        escrow = await make_escrow(house, shop, buyer, mode="quick")
        await arrange(house, lambda tx: allow_redirects(tx, shop.developer_id, [BACK]))
        to_pay = NewSession.model_validate(
            {"action": "accept_pay", "targetUserEmail": buyer.email, "redirectUrl": BACK}
        )
        session = sessions.create(shop.developer_id, escrow.id, to_pay)
        return shop.api_key, {
            "$ESCROW_ID": escrow.id,
            "$SESSION_ID": (await act(house, shop.actor, session))["sessionId"],
            "$WEBHOOK_ID": endpoint_id,
            "$DELIVERY_ID": tried["delivery"]["id"],
            "$VERIFICATION_ID": (await act(house, shop.actor, asked))["id"],
            "$INVITATION_TOKEN": token,
        }


async def served(url, named):
    """The served document, whose examples name what is there."""
    async with aiohttp.ClientSession() as client, client.get(f"{url}/openapi.json") as response:
        text = await response.text()
    for name, value in named.items():
        text = text.replace(NAMED[name], value)
    return text
