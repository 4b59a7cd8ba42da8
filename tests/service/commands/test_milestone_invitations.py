"""Who is invited to a milestone escrow, told, reminded and let go again as its roles change."""

from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from service.commands import milestones
from service.commands.perform import House
from service.commands.registration import follow_link
from service.rules.engagement import MilestoneEscrow
from service.rules.errors import InvitationNotFound
from service.rules.machine import Role
from service.rules.milestone_terms import Terms
from service.store.clock import read_clock
from service.store.deadlines import read_open
from tests.books import assert_sound
from tests.makers import act, advance, arrange, make_buyer
from tests.milestones import Crew, look, make_crew, make_milestone_terms
from tests.outbox import send_all, tokens_of

NEW = "new@example.org"


@pytest.fixture
async def crew(house: House) -> Crew:
    return await make_crew(house)


def terms_with(crew: Crew, **roles: str) -> Terms:
    """Legal terms, with these e-mails in these roles."""
    terms = make_milestone_terms(crew, amount="100", count=2)
    return replace(terms, roles={**terms.roles, **{Role[name]: one for name, one in roles.items()}})


async def opened(house: House, crew: Crew, **roles: str) -> MilestoneEscrow:
    command = milestones.create(crew.shop.developer_id, terms_with(crew, **roles))
    return await look(house, (await act(house, crew.shop.actor, command))["escrow"]["id"])


async def changed(house: House, crew: Crew, escrow: MilestoneEscrow, **roles: str) -> None:
    command = milestones.update(escrow.id, terms_with(crew, **roles))
    await act(house, crew.actor(Role.PLATFORM), command)


async def written(house: House, email: str) -> list[str]:
    """The templates of the mails to this person that are sent or still to be sent."""
    rows = await house.pool.fetch(
        "SELECT template FROM mail WHERE recipient = $1 AND state IN ('pending', 'sent')"
        " ORDER BY created_at, id",
        email,
    )
    return [row["template"] for row in rows]


async def by(house: House, **days: float) -> None:
    await advance(house, (await read_clock(house.pool)).now + timedelta(**days))


async def follow(house: House, token: str, **more: Any) -> list[str]:
    _, linked = await arrange(house, lambda tx: follow_link(tx, token, "Nour", "Z", **more))
    return linked


async def test_who_is_no_longer_named_is_not_reminded_and_their_link_is_void(
    house: House, crew: Crew
):
    escrow = await opened(house, crew, APPROVER=NEW)
    [token] = await tokens_of(house, NEW)
    await changed(house, crew, escrow)
    assert await read_open(house.pool, escrow.id) == []
    await by(house, days=8)
    await send_all(house)
    assert await written(house, NEW) == ["role_invitation"]
    with pytest.raises(InvitationNotFound):
        await follow(house, token)
    await assert_sound(house)


async def test_an_invitation_that_was_not_sent_yet_stays_unsent_when_it_is_closed(
    house: House, crew: Crew
):
    escrow = await opened(house, crew, APPROVER=NEW)
    await changed(house, crew, escrow)
    await send_all(house)
    assert await written(house, NEW) == []


async def test_who_is_named_again_is_invited_anew(house: House, crew: Crew):
    escrow = await opened(house, crew, APPROVER=NEW)
    [old] = await tokens_of(house, NEW)
    await changed(house, crew, escrow)
    await changed(house, crew, escrow, RECEIVER=NEW)
    assert await written(house, NEW) == ["role_invitation", "role_invitation"]
    [first, new] = await tokens_of(house, NEW)
    assert first == old != new
    assert await follow(house, new) == [escrow.id]
    assert (await look(house, escrow.id)).roles[Role.RECEIVER].user_id is not None
    await assert_sound(house)


async def test_who_has_another_role_by_now_keeps_the_link_and_is_reminded_of_that_role(
    house: House, crew: Crew
):
    escrow = await opened(house, crew, APPROVER=NEW)
    await changed(house, crew, escrow, RECEIVER=NEW)
    assert await written(house, NEW) == ["role_invitation"]
    await by(house, days=3)
    rows = await house.pool.fetch(
        "SELECT facts->>'role' AS role FROM mail WHERE recipient = $1 ORDER BY created_at, id",
        NEW,
    )
    assert [row["role"] for row in rows] == ["approver", "receiver"]
    [token, _] = await tokens_of(house, NEW)
    assert await follow(house, token) == [escrow.id]


async def test_an_update_tells_only_whom_it_names_for_the_first_time(house: House, crew: Crew):
    escrow = await opened(house, crew)
    told = await written(house, crew.email(Role.RECEIVER))
    other = await make_buyer(house, "other@example.org", "0")
    await changed(house, crew, escrow, APPROVER=other.email)
    assert await written(house, other.email) == ["role_notice"]
    assert await written(house, crew.email(Role.RECEIVER)) == told == ["role_notice"]
    await changed(house, crew, escrow)
    await changed(house, crew, escrow, APPROVER=other.email)
    assert await written(house, other.email) == ["role_notice", "role_notice"]


async def test_who_has_registered_and_is_not_linked_is_not_reminded(house: House, crew: Crew):
    """They resolve, and can hold no other role: a link to register is of no use to them."""
    other = "other@example.org"
    escrow = await opened(house, crew, DISPUTE_RESOLVER=NEW, APPROVER=other)
    [token] = await tokens_of(house, other)
    await follow(house, token, email=NEW)
    after = await look(house, escrow.id)
    assert after.roles[Role.DISPUTE_RESOLVER].user_id is not None
    assert after.roles[Role.APPROVER].user_id is None
    await by(house, days=8)
    await send_all(house)
    assert "role_reminder" not in await written(house, other)
    await assert_sound(house)
