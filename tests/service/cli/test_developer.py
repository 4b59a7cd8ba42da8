"""`amana developer`, `key`, `user` and `fx`: how an operator lets people in."""

from datetime import timedelta

import pytest

from service.commands.perform import House
from service.store.developers import read_developers
from service.store.keys import read_key
from service.store.users import read_user
from service.store.vault import hash_token
from tests.makers import make_escrow, make_shop, reread
from tests.service.cli.conftest import Amana

CREATE = ("developer", "create", "--email", "Dev@Shop.example", "--company", "Shop")


async def test_a_developer_is_made_with_a_key_and_a_user(house: House, amana: Amana) -> None:
    facts = (await amana(*CREATE, "--user-email", "seller@shop.example", "--json")).facts
    assert list(facts) == ["developerId", "apiKey", "userId"]
    key = await read_key(house.pool, hash_token(facts["apiKey"]))
    assert key is not None
    assert (key.developer_id, key.user_id) == (facts["developerId"], facts["userId"])
    user = await read_user(house.pool, "seller@shop.example")
    assert user is not None
    assert (user.is_email_verified, user.person.is_phone_verified) == (True, True)
    assert [row["email"] for row in await read_developers(house.pool)] == ["dev@shop.example"]


async def test_without_a_user_the_developer_is_its_own(house: House, amana: Amana) -> None:
    said = await amana(*CREATE)
    lines = said.stdout.splitlines()
    assert lines[-1] == "Keep the key: it is not shown again."
    user = await read_user(house.pool, "dev@shop.example")
    assert user is not None
    assert lines[1] == f"user      {user.person.id}"


async def test_an_email_is_used_once(house: House, amana: Amana) -> None:
    await amana(*CREATE)
    again = await amana(*CREATE)
    assert (again.stderr, again.exit_code) == ("Error: This e-mail is registered already.\n", 1)
    taken = await amana(
        "developer", "create", "--email", "b@b.example", "--company", "B",
        "--user-email", "dev@shop.example",
    )  # fmt: skip
    assert taken.exit_code == 1
    assert taken.stderr == "Error: This user is associated with another developer already.\n"
    assert len(await read_developers(house.pool)) == 1


@pytest.mark.parametrize(
    ("arguments", "complaint"),
    [
        (("--email", "nobody", "--company", "C"), "'nobody' must be a valid e-mail address"),
        (("--email", "a@b.example", "--company", " "), "' ' must not be empty"),
        (("--company", "C"), "Missing option '--email'"),
    ],
)
async def test_a_wrong_option_is_named(amana: Amana, arguments: tuple[str], complaint: str) -> None:
    said = await amana("developer", "create", *arguments)
    assert said.exit_code == 2
    assert complaint in said.stderr


async def test_developers_are_listed(house: House, amana: Amana) -> None:
    assert (await amana("developer", "list")).stdout == "there are no developers yet\n"
    made = (await amana(*CREATE, "--json")).facts
    said = await amana("developer", "list")
    assert said.stdout == (
        f"{made['developerId']}  dev@shop.example  Shop  as dev@shop.example  1 active keys\n"
    )
    [facts] = (await amana("developer", "list", "--json")).facts
    assert facts.pop("createdAt")
    assert facts == {
        "developerId": made["developerId"],
        "email": "dev@shop.example",
        "company": "Shop",
        "userEmail": "dev@shop.example",
        "activeKeys": 1,
    }


async def test_a_rotated_key_makes_way_for_a_new_one(house: House, amana: Amana) -> None:
    made = (await amana(*CREATE, "--json")).facts
    old = made["apiKey"]
    fresh = (await amana("key", "rotate", old[:16], "--json")).facts
    assert fresh["developerId"] == made["developerId"]
    assert await standing(house, old) == (False, True)
    assert await standing(house, fresh["apiKey"]) == (True, False)
    [first, second] = (await amana("key", "list", "--json")).facts
    assert (first["prefix"], first["isActive"]) == (old[:16], False)
    assert (second["prefix"], second["isActive"]) == (fresh["apiKey"][:16], True)
    assert (await amana("check")).exit_code == 0


async def test_a_rotated_key_may_stay_good_for_a_while(house: House, amana: Amana) -> None:
    made = (await amana(*CREATE, "--json")).facts
    await amana("key", "rotate", made["apiKey"][:16], "--keep-hours", "24")
    assert await standing(house, made["apiKey"]) == (True, False)
    kept = await house.pool.fetchval(
        "SELECT expires_at - now() FROM api_key WHERE hash = $1", hash_token(made["apiKey"])
    )
    assert timedelta(hours=23) < kept <= timedelta(hours=24)
    assert " UTC\n" in (await amana("key", "list")).stdout


async def test_a_revoked_key_is_good_no_longer(house: House, amana: Amana) -> None:
    made = (await amana(*CREATE, "--json")).facts
    [listed] = (await amana("key", "list", "--json")).facts
    facts = (await amana("key", "revoke", listed["keyId"], "--json")).facts
    assert facts == {"keyId": listed["keyId"], "isActive": False}
    assert await standing(house, made["apiKey"]) == (False, True)
    again = await amana("key", "revoke", listed["keyId"])
    assert again.exit_code == 1
    assert again.stderr.startswith(f"Error: There is not exactly one active key {listed['keyId']};")


async def standing(house: House, api_key: str) -> tuple[bool, bool]:
    """Whether the key is active, and whether it has expired."""
    found = await read_key(house.pool, hash_token(api_key))
    assert found is not None
    return found.is_active, found.is_expired


async def test_a_user_is_made_and_linked_to_what_waits(house: House, amana: Amana) -> None:
    shop = await make_shop(house)
    waiting = await make_escrow(house, shop, buyer_email="amel@buyers.example")
    arguments = ("--email", "Amel@Buyers.example", "--first-name", "Amel", "--last-name", "B")
    user = (await amana("user", "create", *arguments, "--json")).facts["user"]
    assert user["email"] == "amel@buyers.example"
    assert (await reread(house, waiting.id)).buyer_id == user["id"]
    again = await amana("user", "create", *arguments)
    assert (again.stderr, again.exit_code) == ("Error: This e-mail is registered already.\n", 1)


async def test_a_rate_is_set(house: House, amana: Amana) -> None:
    assert (await amana("fx", "set", "USD", "3.120")).stdout == "1 USD = 3.12 TND\n"
    facts = (await amana("fx", "set", "EUR", "3.4", "--json")).facts
    assert facts == {"currency": "EUR", "rate": "3.4"}
    rows = await house.pool.fetch("SELECT currency, rate::text, source FROM fx_rate ORDER BY id")
    assert [tuple(row) for row in rows] == [
        ("USD", "3.120", "operator"),
        ("EUR", "3.4", "operator"),
    ]


@pytest.mark.parametrize("arguments", [("USD", "0"), ("USD", "NaN"), ("TND", "1"), ("USD", "x")])
async def test_a_rate_that_cannot_be_is_refused(amana: Amana, arguments: tuple[str, str]) -> None:
    assert (await amana("fx", "set", "--", *arguments)).exit_code == 2
