"""Users: registered once, and linked to whatever waits for their e-mail."""

import asyncio

import pytest

from service.commands import users
from service.commands.perform import House
from service.rules.errors import EmailTaken, UserNotRegistered
from service.store.users import read_user
from tests.books import count_rows, read_log
from tests.makers import arrange, make_escrow, make_shop, reread

pytestmark = pytest.mark.usefixtures("sound")
NEW = "new@example.org"


async def register(house: House, email: str = NEW, **changes):
    return await arrange(house, lambda tx: users.register(tx, email, "Nour", "Z", **changes))


async def test_a_user_is_registered_with_an_event_of_its_own(house: House):
    user = await register(house, language="ar", is_phone_verified=False)
    assert await users.registered(house.pool, NEW) == user
    assert (user.person.language, user.is_email_verified) == ("ar", True)
    assert not user.person.is_phone_verified
    assert await read_log(house, user.person.id) == [("register", None, "system")]


async def test_nobody_is_registered_under_an_unknown_e_mail(house: House):
    with pytest.raises(UserNotRegistered) as refusal:
        await users.registered(house.pool, NEW)
    assert refusal.value.code == "USER_NOT_REGISTERED"


async def test_an_e_mail_is_registered_once(house: House):
    await register(house)
    before = await count_rows(house)
    with pytest.raises(EmailTaken):
        await register(house)
    assert await count_rows(house) == before


async def test_of_many_registrations_at_once_one_is_taken(house: House):
    for n in range(10):
        ended = await asyncio.gather(
            *(register(house, f"n{n}@example.org") for _ in range(4)), return_exceptions=True
        )
        assert sum(isinstance(one, EmailTaken) for one in ended) == 3


async def test_a_verified_e_mail_is_linked_to_everything_that_waits_for_it_oldest_first(
    house: House,
):
    shop = await make_shop(house)
    buys = [await make_escrow(house, shop, buyer_email=NEW) for _ in range(3)]
    sells = await make_escrow(house, shop, mode="quick", seller_email=NEW)
    cancelled = await make_escrow(house, shop, buyer_email=NEW, status="cancelled")
    user = await register(house)
    for escrow in buys:
        assert (await reread(house, escrow.id)).buyer == user.person
    assert (await reread(house, sells.id)).seller == user.person
    assert (await reread(house, cancelled.id)).buyer is None


async def test_an_e_mail_that_is_not_verified_is_linked_to_nothing(house: House):
    shop = await make_shop(house)
    escrow = await make_escrow(house, shop, buyer_email=NEW)
    user = await register(house, is_email_verified=False)
    assert (await reread(house, escrow.id)).buyer is None
    linked = await arrange(house, lambda tx: users.link_waiting(tx, user.person))
    assert linked == [escrow.id]


async def test_whoever_is_linked_to_one_side_is_not_linked_to_the_other(house: House):
    shop = await make_shop(house)
    escrow = await make_escrow(
        house, shop, mode="quick", seller_email=NEW, buyer_email="else@example.org"
    )
    user = await register(house)
    after = await reread(house, escrow.id)
    assert (after.seller, after.buyer) == (user.person, None)


async def test_a_user_that_is_needed_is_made_once_and_named_after_the_address(house: House):
    async def ensure(email: str):
        return await arrange(house, lambda tx: users.ensure_user(tx, email))

    made = await ensure("amel.ben.salah@example.org")
    assert (made.person.first_name, made.person.last_name) == ("Amel", "Ben Salah")
    assert (await ensure("x@example.org")).person.last_name == "User"
    assert await ensure("amel.ben.salah@example.org") == made


async def test_a_due_escrow_ends_before_its_party_is_linked(house: House, owner):
    shop = await make_shop(house)
    escrow = await make_escrow(house, shop, buyer_email=NEW)
    await owner.execute("UPDATE clock SET shift = interval '40 days'")
    await register(house)
    after = await reread(house, escrow.id)
    assert (after.status, after.buyer) == ("cancelled", None)
    assert await read_user(house.pool, NEW) is not None
