"""`amana identity`: what waits is shown, decided once, and told."""

from dataclasses import replace

import pytest

from service.commands import identity
from service.commands.perform import House, perform
from service.rules.identity import UPDATED
from service.rules.machine import Actor, ActorKind
from service.wire.identity import NewVerification
from tests.books import read_log
from tests.makers import make_file, make_shop
from tests.service.cli.conftest import Amana


@pytest.fixture
async def waiting(house: House, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Two verifications that wait for the operator, as a live deployment makes them."""
    monkeypatch.setenv("AMANA_ENV", "live")
    live = House(house.pool, replace(house.policy, environment="live"), house.vault, house.bell)
    shop = await make_shop(live, company="Shop")
    for email in ("first@example.org", "second@example.org"):
        wanted = NewVerification(email=email)
        await perform(live, shop.actor, identity.request(shop.developer_id, wanted))
    rows = await house.pool.fetch("SELECT id FROM identity_verification ORDER BY id")
    return [row["id"] for row in rows]


async def test_what_waits_is_listed_oldest_first(waiting: list[str], amana: Amana) -> None:
    said = await amana("identity", "list", "--json")
    assert [one["id"] for one in said.facts] == waiting
    assert set(said.facts[0]) == {
        "id", "email", "company", "needsAdminReview", "createdAt", "expiresAt",
    }  # fmt: skip
    lines = (await amana("identity", "list")).stdout.splitlines()
    assert [line.split()[:2] for line in lines] == [
        [waiting[0], "first@example.org"],
        [waiting[1], "second@example.org"],
    ]


async def test_where_nothing_waits_it_says_so(house: House, amana: Amana) -> None:
    assert (await amana("identity", "list")).stdout == "none waits for a decision\n"
    assert (await amana("identity", "list", "--json")).facts == []


REASON = ("--reason", "It cannot be read.")


@pytest.mark.parametrize(
    ("word", "status", "why"), [("approve", "approved", ()), ("reject", "rejected", REASON)]
)
async def test_the_operators_word_is_written_and_told(
    house: House, waiting: list[str], amana: Amana, word: str, status: str, why: tuple[str, ...]
) -> None:
    said = await amana("identity", "decide", waiting[0], f"--{word}", *why, "--json")
    assert (said.exit_code, said.facts["kyc_status"]) == (0, status)
    assert (await read_log(house, waiting[0]))[-1] == (word, UPDATED, "operator")
    again = await amana("identity", "decide", waiting[0], "--approve")
    assert again.exit_code == 1
    assert again.stderr == f"Error: This identity verification is {status} already.\n"
    said = await amana("identity", "decide", waiting[1], f"--{word}", *why)
    assert said.stdout == f"the verification {waiting[1]} is {status}\n"


async def test_what_a_person_sent_is_shown_with_links_to_look_at_it(
    house: House, waiting: list[str], amana: Amana
) -> None:
    live = House(house.pool, replace(house.policy, environment="live"), house.vault, house.bell)
    token = house.vault.link_token("identity", waiting[0])
    file = make_file()
    await perform(live, Actor(ActorKind.USER), identity.submit(token, [file], "fr"))
    shown = (await amana("identity", "show", waiting[0], "--json")).facts
    assert (shown["needs_admin_review"], shown["company"]) == (True, "Shop")
    [document] = shown["documents"]
    assert (document["mimeType"], document["filename"]) == (file.mime_type, file.filename)
    assert f"/files/{file.key}?expires=" in document["viewUrl"]
    assert "/files/" in (await amana("identity", "show", waiting[0])).stdout
    assert "documents are here" in (await amana("identity", "list")).stdout.splitlines()[0]
    assert "no documents" in (await amana("identity", "show", waiting[1])).stdout
    assert (await amana("identity", "show", "0" * 24)).exit_code == 1


async def test_a_word_must_be_given_on_one_that_is_there(waiting: list[str], amana: Amana) -> None:
    for words in ((), ("--approve", "--reject")):
        said = await amana("identity", "decide", waiting[0], *words)
        assert said.exit_code == 2
        assert "give one of --approve and --reject" in said.stderr
    for words, told in (((), "say why"), (("--reason", " "), "say why"),
                        (("--reason", "x" * 501), "at most 500")):  # fmt: skip
        said = await amana("identity", "decide", waiting[0], "--reject", *words)
        assert said.exit_code == 2
        assert told in said.stderr
    assert (await amana("identity", "decide", "nonsense", "--approve")).exit_code == 2
    unknown = await amana("identity", "decide", "0" * 24, "--approve")
    assert (unknown.exit_code, unknown.stdout) == (1, "")
    assert len((await amana("identity", "list", "--json")).facts) == 2
