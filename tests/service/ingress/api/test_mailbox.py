"""The mailbox over HTTP: whose mails, which links, for whom."""

import secrets

import pytest

from service.ingress.middlewares import HOUSE
from tests.outbox import send_all

MAILBOX = "/api/v1/sandbox/mailbox"


@pytest.fixture
async def shop(enrolled):
    """A developer whose user sells."""
    return await enrolled()


def escrow_for(buyer, title="A camera"):
    return {"title": title, "amount": 100, "buyerEmail": buyer, "mode": "instant"}


async def test_it_shows_what_was_sent_newest_first_and_the_invitations_link_first(ingress, shop):
    buyer = f"{secrets.token_hex(6)}@new.example"
    async with ingress(None, AMANA_PUBLIC_URL="https://pay.example") as client:
        for title in ("First", "Second"):
            await client.post(
                "/api/v1/escrows", json=escrow_for(buyer, title), headers=shop.headers
            )
            await send_all(ingress.app[HOUSE])
        asked = {"to": f" {buyer.upper()} "}
        async with client.get(MAILBOX, params=asked, headers=shop.headers) as response:
            assert response.status == 200
            mails = (await response.json())["mails"]
    assert [mail["to"] for mail in mails] == [buyer, buyer]
    assert ["Second" in mails[0]["subject"], "First" in mails[1]["subject"]] == [True, True]
    assert set(mails[0]) == {"to", "subject", "text", "html", "links", "sentAt"}
    assert mails[0]["links"][0].startswith("https://pay.example/register/")
    assert len(mails[0]["links"][0].rpartition("/")[2]) == 43


async def test_the_token_of_the_first_link_registers_the_person(ingress, shop):
    buyer = f"{secrets.token_hex(6)}@new.example"
    async with ingress(None) as client:
        async with client.post(
            "/api/v1/escrows", json=escrow_for(buyer), headers=shop.headers
        ) as response:
            escrow_id = (await response.json())["escrow"]["id"]
        await send_all(ingress.app[HOUSE])
        async with client.get(MAILBOX, params={"to": buyer}, headers=shop.headers) as response:
            link = (await response.json())["mails"][0]["links"][0]
        person = {"token": link.rpartition("/")[2], "firstName": "Rim", "lastName": "Gharbi"}
        async with client.post(
            "/api/v1/sandbox/register", json=person, headers=shop.headers
        ) as response:
            assert response.status == 201
            assert (await response.json())["escrows"] == [escrow_id]


async def test_nobody_was_written_to_yet(ingress, shop):
    async with ingress(None) as client:
        asked = {"to": "nobody@new.example"}
        async with client.get(MAILBOX, params=asked, headers=shop.headers) as response:
            assert await response.json() == {"mails": []}


async def test_it_needs_a_key_and_a_sandbox(ingress, shop):
    async with ingress(None) as client, client.get(MAILBOX) as response:
        assert response.status == 401
    async with (
        ingress(None, AMANA_ENV="live") as client,
        client.get(MAILBOX, headers=shop.headers) as response,
    ):
        assert response.status == 404
