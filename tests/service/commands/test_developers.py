"""Developers, their one user and their keys."""

import asyncio
import re

import pytest

from service.commands import developers, users
from service.commands.perform import House
from service.rules.errors import EmailTaken, UserNotFound, UserTaken
from service.store.developers import read_developers
from service.store.keys import read_key
from service.store.users import read_user
from service.store.vault import hash_token
from tests.books import count_rows, read_log
from tests.makers import arrange, make_buyer, make_escrow, make_shop, reread

pytestmark = pytest.mark.usefixtures("sound")


async def enrol(house: House, email: str = "dev@example.org", **more):
    return await arrange(house, lambda tx: developers.enrol(tx, email, "Firm", **more))


async def test_a_developer_starts_with_a_key_that_is_shown_once(house: House):
    made = await enrol(house)
    assert re.fullmatch(r"sk_sandbox_[0-9a-f]{64}", made.api_key)
    assert made.user_id is None
    found = await read_key(house.pool, hash_token(made.api_key))
    assert found is not None
    assert (found.developer_id, found.is_active, found.is_expired) == (
        made.developer_id,
        True,
        False,
    )
    stored = await house.pool.fetchrow("SELECT * FROM api_key")
    assert made.api_key not in str(dict(stored))
    assert made.api_key.startswith(stored["prefix"])
    assert len(stored["prefix"]) < 20
    assert await read_log(house, made.developer_id) == [("enrol", None, "system")]


async def test_a_developers_user_is_made_where_there_is_none(house: House):
    made = await enrol(house, user_email="own@example.org")
    user = await read_user(house.pool, "own@example.org")
    assert user is not None
    assert made.user_id == user.person.id


async def test_a_developers_e_mail_is_taken_once_and_nothing_stays_of_the_second(house: House):
    await enrol(house)
    before = await count_rows(house)
    with pytest.raises(EmailTaken):
        await enrol(house, user_email="another@example.org")
    assert await count_rows(house) == before


async def test_of_many_who_want_the_same_new_user_at_once_one_gets_it(house: House):
    for turn in range(5):
        ended = await asyncio.gather(
            *(
                enrol(house, f"dev{turn}-{n}@example.org", user_email=f"own{turn}@example.org")
                for n in range(6)
            ),
            return_exceptions=True,
        )
        refused = [type(one) for one in ended if isinstance(one, BaseException)]
        assert refused == [UserTaken] * 5  # never that an e-mail is taken: each one's is free


async def test_a_user_belongs_to_one_developer(house: House):
    shop, other = await make_shop(house), await enrol(house)
    with pytest.raises(UserTaken) as refusal:
        await arrange(house, lambda tx: developers.associate(tx, other.developer_id, shop.email))
    assert refusal.value.code == "USER_ALREADY_ASSOCIATED"
    with pytest.raises(UserTaken):
        await enrol(house, "third@example.org", user_email=shop.email)


async def test_of_two_developers_who_want_the_same_user_at_once_one_gets_it(house: House):
    for n in range(8):
        wanted = await make_buyer(house)

        async def associate(developer_id: str, email: str = wanted.email) -> str:
            return await arrange(house, lambda tx: developers.associate(tx, developer_id, email))

        made = [await enrol(house, f"d{n}-{i}@example.org") for i in range(2)]
        ended = await asyncio.gather(
            *(associate(one.developer_id) for one in made), return_exceptions=True
        )
        assert [type(one) for one in ended if not isinstance(one, str)] == [UserTaken]


async def test_an_association_changes_hands_and_each_change_is_told(house: House):
    shop, other = await make_shop(house), await enrol(house)
    await arrange(house, lambda tx: developers.dissociate(tx, shop.developer_id))
    user_id = await arrange(
        house, lambda tx: developers.associate(tx, other.developer_id, shop.email)
    )
    assert user_id == shop.user_id
    assert [step for step, *_ in await read_log(house, shop.developer_id)] == [
        "enrol",
        "dissociate",
    ]
    assert [step for step, *_ in await read_log(house, other.developer_id)] == [
        "enrol",
        "associate",
    ]


async def test_an_unknown_user_is_not_associated(house: House):
    made = await enrol(house)
    with pytest.raises(UserNotFound):
        await arrange(
            house, lambda tx: developers.associate(tx, made.developer_id, "no@example.org")
        )


async def test_keys_are_added_and_counted(house: House):
    made = await enrol(house, user_email="own@example.org")
    second = await arrange(house, lambda tx: developers.add_key(tx, made.developer_id, "Second"))
    assert second != made.api_key
    [row] = await read_developers(house.pool)
    assert (row["email"], row["company"], row["user_email"], row["keys"]) == (
        "dev@example.org",
        "Firm",
        "own@example.org",
        2,
    )


async def test_a_user_who_waits_for_escrows_can_be_made_with_the_developer(house: House):
    shop = await make_shop(house)
    escrow = await make_escrow(house, shop, mode="quick", seller_email="own@example.org")
    made = await enrol(house, user_email="own@example.org")
    after = await reread(house, escrow.id)
    assert after.seller_id == made.user_id
    assert (await users.registered(house.pool, "own@example.org")).person.id == made.user_id
