"""Who is invited, told and reminded, and what following the link does; all of it under races."""

import asyncio
from datetime import timedelta
from typing import Any

import asyncpg
import pytest

from service.commands import escrows, users
from service.commands.invitations import welcome
from service.commands.mails import open_mailbox
from service.commands.perform import House
from service.commands.registration import follow_link
from service.rules.aggregate import Escrow
from service.rules.errors import EmailTaken, Invalid, InvitationNotFound
from service.store.clock import read_clock
from service.store.deadlines import read_open
from service.words.mails import Words
from tests.makers import (
    Shop,
    act,
    advance,
    arrange,
    make_buyer,
    make_escrow,
    make_shop,
    reread,
)
from tests.outbox import mails_of, send_all, tokens_of

NEW = "new@example.org"


async def invited(house: House, shop: Shop, **changes: Any) -> Escrow:
    return await make_escrow(house, shop, **{"buyer_email": NEW, **changes})


async def follow(house: House, token: str, email: str | None = None) -> list[str]:
    _, linked = await arrange(house, lambda tx: follow_link(tx, token, "Nour", "Z", email=email))
    return linked


async def by(house: House, **days: float) -> None:
    now = (await read_clock(house.pool)).now
    await advance(house, now + timedelta(**days))


async def test_an_unknown_buyer_is_invited_and_the_seller_behind_the_key_is_not_told(house: House):
    shop = await make_shop(house)
    escrow = await invited(house, shop)
    assert await mails_of(house, escrow) == [("invitation", NEW)]
    [reminder] = [d for d in await read_open(house.pool, escrow.id) if d.kind != "expiry"]
    assert reminder.kind == "invitation_reminder"
    assert reminder.due_at == escrow.created_at + timedelta(days=2)


async def test_a_known_buyer_gets_a_notice_and_no_invitation(house: House):
    shop, buyer = await make_shop(house), await make_buyer(house)
    escrow = await make_escrow(house, shop, buyer)
    assert await mails_of(house, escrow) == [("escrow_notice", buyer.email)]
    assert await house.pool.fetchval("SELECT count(*) FROM invitation") == 0


async def test_two_unknown_parties_are_both_invited(house: House):
    shop = await make_shop(house)
    escrow = await invited(house, shop, mode="quick", seller_email="sells@example.org")
    assert sorted(await mails_of(house, escrow)) == [
        ("invitation", NEW),
        ("invitation", "sells@example.org"),
    ]
    assert escrow.seller is None
    assert escrow.buyer is None


async def test_a_known_third_party_seller_is_told(house: House):
    shop, seller = await make_shop(house), await make_buyer(house)
    escrow = await invited(house, shop, mode="quick", seller_email=seller.email)
    assert sorted(await mails_of(house, escrow)) == [
        ("escrow_notice", seller.email),
        ("invitation", NEW),
    ]


async def test_no_token_is_stored_anywhere(house: House, owner: asyncpg.Connection):
    shop = await make_shop(house)
    escrow = await invited(house, shop)
    [token] = await tokens_of(house, NEW)
    assert len(token) == 43
    for table in ("invitation", "mail", "event", "webhook_body", "deadline", "idempotency"):
        rows = await owner.fetch(f"SELECT to_jsonb(t)::text AS row FROM {table} t")
        assert not [row for row in rows if token in row["row"]], (table, escrow.id)


async def test_ten_creates_at_once_invite_the_same_person_once_an_escrow(house: House):
    shop = await make_shop(house)
    made = await asyncio.gather(*(invited(house, shop) for _ in range(10)))
    counted = await house.pool.fetch(
        "SELECT escrow_id, count(*) FROM invitation WHERE email = $1 GROUP BY escrow_id", NEW
    )
    assert {row["escrow_id"]: row["count"] for row in counted} == {e.id: 1 for e in made}
    for escrow in made:
        assert await mails_of(house, escrow) == [("invitation", NEW)]


async def test_ten_invitations_of_the_same_person_to_one_escrow_are_one(house: House):
    shop = await make_shop(house)
    escrow = await invited(house, shop)
    await asyncio.gather(
        *(arrange(house, lambda tx: welcome(tx, [(escrow, shop.actor)])) for _ in range(10))
    )
    assert await mails_of(house, escrow) == [("invitation", NEW)]
    assert await house.pool.fetchval("SELECT count(*) FROM invitation") == 1


async def test_a_person_is_reminded_after_two_and_seven_days_and_never_again(house: House):
    shop = await make_shop(house)
    escrow = await invited(house, shop)
    await by(house, days=1.9)
    assert await mails_of(house, escrow) == [("invitation", NEW)]
    await by(house, days=0.2)
    assert await mails_of(house, escrow) == [("invitation", NEW), ("invitation_reminder", NEW)]
    await by(house, days=4.8)
    assert len(await mails_of(house, escrow)) == 2
    await by(house, days=20)
    assert (
        await mails_of(house, escrow) == [("invitation", NEW)] + [("invitation_reminder", NEW)] * 2
    )


async def test_one_long_advance_fires_both_reminders_at_their_own_time(house: House):
    shop = await make_shop(house)
    escrow = await invited(house, shop)
    now = (await read_clock(house.pool)).now
    fired = await advance(house, now + timedelta(days=10))
    assert [(d.kind, d.due_at) for d in fired] == [
        ("invitation_reminder", escrow.created_at + timedelta(days=2)),
        ("invitation_reminder", escrow.created_at + timedelta(days=7)),
    ]


async def test_every_mail_of_an_invitation_carries_the_same_first_link(house: House):
    shop = await make_shop(house)
    await invited(house, shop)
    await by(house, days=8)
    tokens = await tokens_of(house, NEW)
    assert len(tokens) == 3
    assert len(set(tokens)) == 1


async def test_nobody_is_reminded_once_registered(house: House):
    shop = await make_shop(house)
    escrow = await invited(house, shop)
    await make_buyer(house, NEW)
    await by(house, days=10)
    assert "invitation_reminder" not in dict(await mails_of(house, escrow))
    assert [d.kind for d in await read_open(house.pool, escrow.id)] == ["expiry"]


async def test_nobody_is_reminded_of_a_cancelled_escrow(house: House):
    shop = await make_shop(house)
    escrow = await invited(house, shop, status="cancelled")
    await by(house, days=10)
    assert await mails_of(house, escrow) == [("invitation", NEW), ("escrow_cancelled", NEW)]


async def test_following_the_link_registers_and_links(house: House):
    shop = await make_shop(house)
    escrow = await invited(house, shop)
    [token] = await tokens_of(house, NEW)
    assert await follow(house, token) == [escrow.id]
    after = await reread(house, escrow.id)
    assert after.buyer is not None
    assert (after.buyer.email, after.buyer.first_name) == (NEW, "Nour")
    events = await house.pool.fetch(
        "SELECT type FROM event WHERE subject_id = $1 ORDER BY seq", escrow.id
    )
    assert [row["type"] for row in events] == ["escrow.created", "invitation.accepted"]


async def test_a_link_is_good_for_one_use(house: House):
    shop = await make_shop(house)
    await invited(house, shop)
    [token] = await tokens_of(house, NEW)
    await follow(house, token)
    with pytest.raises(InvitationNotFound):
        await follow(house, token)
    with pytest.raises(InvitationNotFound):
        await follow(house, token, "other@example.org")


async def test_of_ten_that_follow_a_link_at_once_one_registers(house: House):
    shop = await make_shop(house)
    await invited(house, shop)
    [token] = await tokens_of(house, NEW)
    outcomes = await asyncio.gather(
        *(follow(house, token) for _ in range(10)), return_exceptions=True
    )
    assert sum(isinstance(one, list) for one in outcomes) == 1
    assert sum(isinstance(one, InvitationNotFound) for one in outcomes) == 9
    assert await house.pool.fetchval("SELECT count(*) FROM app_user WHERE email = $1", NEW) == 1


@pytest.mark.parametrize("token", ["", "x", "A" * 43, "é" * 43])
async def test_an_unknown_token_is_not_found(house: House, token: str):
    shop = await make_shop(house)
    await invited(house, shop)
    with pytest.raises(InvitationNotFound):
        await follow(house, token)


async def test_a_link_dies_with_its_escrow(house: House):
    shop = await make_shop(house)
    escrow = await invited(house, shop)
    [token] = await tokens_of(house, NEW)
    await act(house, shop.actor, escrows.cancel(escrow.id))
    with pytest.raises(InvitationNotFound):
        await follow(house, token)
    assert await house.pool.fetchval("SELECT count(*) FROM app_user WHERE email = $1", NEW) == 0


async def test_the_link_of_one_escrow_links_all_that_wait(house: House):
    shop, other = await make_shop(house), await make_shop(house)
    first, second = await invited(house, shop), await invited(house, other, mode="quick")
    sold = await invited(house, shop, mode="quick", seller_email=NEW, buyer_email="b@example.org")
    tokens = await tokens_of(house, NEW)
    assert await follow(house, tokens[0]) == [first.id, second.id, sold.id]
    assert (await reread(house, sold.id)).seller_id == (await reread(house, first.id)).buyer_id
    for token in tokens:
        with pytest.raises(InvitationNotFound):
            await follow(house, token)


async def test_registering_without_the_link_links_and_spends_it(house: House):
    shop = await make_shop(house)
    escrow = await invited(house, shop)
    [token] = await tokens_of(house, NEW)
    buyer = await make_buyer(house, NEW)
    assert (await reread(house, escrow.id)).buyer_id == buyer.user_id
    with pytest.raises(InvitationNotFound):
        await follow(house, token)


async def test_an_unverified_registration_links_nothing_until_the_link_is_followed(house: House):
    shop = await make_shop(house)
    escrow = await invited(house, shop)
    [token] = await tokens_of(house, NEW)
    user = await arrange(
        house, lambda tx: users.register(tx, NEW, "Un", "Verified", is_email_verified=False)
    )
    assert (await reread(house, escrow.id)).buyer is None
    assert await follow(house, token) == [escrow.id]
    assert (await reread(house, escrow.id)).buyer_id == user.person.id


async def test_the_link_takes_another_address_and_links_what_it_invited_to(house: House):
    shop = await make_shop(house)
    escrow = await invited(house, shop)
    [token] = await tokens_of(house, NEW)
    assert await follow(house, token, "private@example.org") == [escrow.id]
    after = await reread(house, escrow.id)
    assert after.buyer is not None
    assert (after.buyer.email, after.buyer_email) == ("private@example.org", NEW)


async def test_the_link_takes_nobody_elses_account(house: House):
    shop, somebody = await make_shop(house), await make_buyer(house)
    escrow = await invited(house, shop)
    [token] = await tokens_of(house, NEW)
    with pytest.raises(EmailTaken):
        await follow(house, token, somebody.email)
    assert (await reread(house, escrow.id)).buyer is None


async def test_nobody_becomes_both_parties(house: House):
    shop = await make_shop(house)
    escrow = await invited(house, shop, mode="quick", seller_email="sells@example.org")
    [token] = await tokens_of(house, NEW)
    with pytest.raises(Invalid):
        await follow(house, token, "sells@example.org")
    assert (await reread(house, escrow.id)).buyer is None


async def test_following_the_link_races_with_cancelling(house: House):
    shop = await make_shop(house)
    for n in range(8):
        email = f"race{n}@example.org"
        escrow = await invited(house, shop, buyer_email=email)
        [token] = await tokens_of(house, email)
        outcomes = await asyncio.gather(
            follow(house, token),
            act(house, shop.actor, escrows.cancel(escrow.id)),
            return_exceptions=True,
        )
        assert not isinstance(outcomes[1], BaseException)
        linked = outcomes[0]
        assert isinstance(linked, InvitationNotFound) or linked == [escrow.id]
        assert (await reread(house, escrow.id)).status == "cancelled"


async def test_the_link_is_found_under_an_older_key(house: House):
    shop = await make_shop(house)
    await invited(house, shop)
    await send_all(house)
    before = await open_mailbox(house.pool, Words.read(), house.policy, house.vault, NEW)
    rotated = type(house.vault)(["a-newer-key-that-only-the-tests-know", *OLD_KEYS])
    after = await open_mailbox(house.pool, Words.read(), house.policy, rotated, NEW)
    assert [mail.links for mail in after] == [mail.links for mail in before]


OLD_KEYS = ["a-secret-key-that-only-the-tests-know-0123456789"]
