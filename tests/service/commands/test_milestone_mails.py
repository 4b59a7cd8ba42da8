"""Who of a milestone escrow is written to, in which language, and what it says."""

from datetime import timedelta
from decimal import Decimal

import pytest

from service.commands import milestones
from service.commands.mails import open_mailbox
from service.commands.perform import House
from service.commands.registration import follow_link
from service.rules.errors import EscrowBalanceNotEnough
from service.rules.machine import Role
from service.store.clock import read_clock
from service.wire.mailbox import MailboxMail
from tests.makers import act, advance, arrange, make_buyer, top_up
from tests.milestones import (
    Crew,
    approve,
    dispute,
    look,
    make_crew,
    make_milestone_terms,
    make_milestones,
    release,
    resolve,
    shares,
)
from tests.outbox import WORDS, send_all, tokens_of


@pytest.fixture
async def crew(house: House) -> Crew:
    return await make_crew(house)


async def told(house: House, *templates: str) -> dict[str, str]:
    """Recipient -> template, of the mails of these templates; nobody has two of them."""
    rows = await house.pool.fetch(
        "SELECT recipient, template FROM mail WHERE template = ANY ($1::text[])", list(templates)
    )
    assert len({row["recipient"] for row in rows}) == len(rows)
    return {row["recipient"]: row["template"] for row in rows}


async def newest(house: House, email: str) -> MailboxMail:
    await send_all(house)
    return (await open_mailbox(house.pool, WORDS, house.policy, house.vault, email))[0]


def all_but(crew: Crew, *roles: Role) -> set[str]:
    return {person.email for role, person in crew.people.items() if role not in roles}


# ---- Languages ----------------------------------------------------------------------------------


async def speaks(owner, email: str, language: str) -> None:
    await owner.execute("UPDATE app_user SET language = $2 WHERE email = $1", email, language)


async def test_a_role_is_told_in_the_persons_own_language(house: House, crew: Crew, owner):
    await speaks(owner, crew.email(Role.APPROVER), "ar")
    await speaks(owner, crew.email(Role.RECEIVER), "fr")
    await make_milestones(house, crew, amount="100")
    assert "دورك في" in (await newest(house, crew.email(Role.APPROVER))).subject
    assert "Vous êtes désigné" in (await newest(house, crew.email(Role.RECEIVER))).subject
    assert "You are named" in (await newest(house, crew.email(Role.PLATFORM))).subject


async def test_who_is_not_registered_is_written_to_in_the_creators_language(
    house: House, crew: Crew, owner
):
    terms = make_milestone_terms(crew, amount="100")
    roles = {**terms.roles, Role.APPROVER: "one@example.com"}
    await make_milestones(house, crew, amount="100", roles=roles)
    assert "names you" in (await newest(house, "one@example.com")).subject
    user_id = await house.pool.fetchval(
        "SELECT user_id FROM developer WHERE id = $1", crew.shop.developer_id
    )
    assert user_id is not None
    await owner.execute("UPDATE app_user SET language = 'fr' WHERE id = $1", user_id)
    roles[Role.APPROVER] = "two@example.com"
    await make_milestones(house, crew, amount="100", roles=roles)
    assert "vous désigne" in (await newest(house, "two@example.com")).subject


async def test_a_mail_goes_to_the_address_that_the_person_has_by_now(house: House, crew: Crew):
    terms = make_milestone_terms(crew, amount="100")
    roles = {**terms.roles, Role.APPROVER: "one@example.com"}
    escrow = await make_milestones(house, crew, amount="100", roles=roles)
    [token] = await tokens_of(house, "one@example.com")
    await arrange(house, lambda tx: follow_link(tx, token, "New", "One", email="two@example.com"))
    await dispute(house, crew, escrow.id)
    found = await told(house, "role_disputed")
    assert ("two@example.com" in found, "one@example.com" in found) == (True, False)


# ---- Steps --------------------------------------------------------------------------------------


async def test_a_dispute_is_told_to_everybody_but_whoever_opened_it(house: House, crew: Crew):
    escrow = await make_milestones(
        house, crew, amounts=("60", "40"), resolver_deadline_days=3, title="A website"
    )
    await dispute(house, crew, escrow.id, 1)
    assert set(await told(house, "role_disputed")) == all_but(crew, Role.SERVICE_PROVIDER)
    to_resolver = await newest(house, crew.email(Role.DISPUTE_RESOLVER))
    assert to_resolver.subject == "Dispute: A website"
    for words in (
        f"{crew.email(Role.SERVICE_PROVIDER)} has opened",
        "Milestones: 2",
        "It is not what we agreed.",
        "It is for you to resolve it",
        "If it is not resolved by",
    ):
        assert words in to_resolver.text
    assert to_resolver.links == [f"{house.policy.public_url}/dashboard/escrow/{escrow.id}"]
    other = await newest(house, crew.email(Role.PLATFORM))
    assert "The dispute resolver decides" in other.text
    assert "It is for you" not in other.text


async def test_the_receiver_of_another_milestone_is_told_nothing_of_this_one(
    house: House, crew: Crew
):
    one, two = [await make_buyer(house, f"r{n}@example.org", "0") for n in (1, 2)]
    receivers = (one.email, two.email)
    escrow = await make_milestones(
        house, crew, amounts=("60", "40"), receivers=receivers, funded="100"
    )
    await dispute(house, crew, escrow.id, 1)
    found = await told(house, "role_disputed")
    assert (one.email in found, two.email in found) == (False, True)


async def test_a_release_is_told_to_every_role_and_its_payee_what_they_got(
    house: House, crew: Crew
):
    escrow = await make_milestones(house, crew, amount="100", count=2, funded="100")
    await approve(house, crew, escrow.id, 0, 1)
    await release(house, crew, escrow.id)
    found = await told(house, "role_released", "role_paid")
    receiver = crew.email(Role.RECEIVER)
    assert found == {
        receiver: "role_paid",
        **dict.fromkeys(all_but(crew, Role.RECEIVER), "role_released"),
    }
    mail = await newest(house, receiver)
    assert "94.700000 USDC of A website was released to you" in mail.text
    assert mail.links == [f"{house.policy.public_url}/dashboard/wallet"]
    assert (
        "100.000000 USDC of A website was released"
        in (await newest(house, crew.email(Role.APPROVER))).text
    )


async def test_two_milestones_of_one_receiver_are_one_mail_with_their_sum(house: House, crew: Crew):
    escrow = await make_milestones(house, crew, amounts=("60", "40", "5"), funded="105")
    await approve(house, crew, escrow.id, 0, 1)
    await release(house, crew, escrow.id, 0, 1)
    mail = await newest(house, crew.email(Role.RECEIVER))
    assert "94.700000 USDC" in mail.subject
    assert "Milestones: 1, 2" in (await newest(house, crew.email(Role.APPROVER))).text


async def test_a_resolution_tells_the_roles_and_each_who_got_something(house: House, crew: Crew):
    escrow = await make_milestones(house, crew, amount="100", funded="100")
    await dispute(house, crew, escrow.id)
    receiver, payer = crew.email(Role.RECEIVER), crew.payer.email
    await resolve(house, crew, escrow.id, (receiver, "40"), (payer, "60"))
    assert await told(house, "role_resolved", "role_paid") == {
        receiver: "role_paid",
        payer: "role_paid",
        **dict.fromkeys(all_but(crew, Role.RECEIVER), "role_resolved"),
    }
    mail = await newest(house, payer)
    assert "you get 56.820000 USDC" in mail.text
    assert "your address was named" not in mail.text
    assert (
        "100.000000 USDC was distributed" in (await newest(house, crew.email(Role.PLATFORM))).text
    )


async def test_time_tells_each_payer_what_came_back(house: House, crew: Crew):
    escrow = await make_milestones(
        house, crew, amounts=("60", "40"), funded="30", resolver_deadline_days=3
    )
    await top_up(house, crew.stranger.email, "30", "USDC")
    await act(house, crew.stranger.actor, milestones.fund(escrow.id, Decimal("10")))
    await dispute(house, crew, escrow.id, 1)
    await advance(house, (await read_clock(house.pool)).now + timedelta(days=4))
    assert (await look(house, escrow.id)).milestones[1].resolved
    for email, back in ((crew.payer.email, "30.000000"), (crew.stranger.email, "10.000000")):
        assert f"{back} USDC of what you paid in comes back" in (await newest(house, email)).text
    mail = await newest(house, crew.email(Role.PLATFORM))
    assert "Nobody has resolved the dispute" in mail.text
    assert "40.000000 USDC went back" in mail.text


async def test_time_ends_a_dispute_about_nothing_and_says_so(house: House, crew: Crew):
    escrow = await make_milestones(house, crew, amount="100", resolver_deadline_days=3)
    await dispute(house, crew, escrow.id)
    await advance(house, (await read_clock(house.pool)).now + timedelta(days=4))
    assert await told(house, "role_paid") == {}
    mail = await newest(house, crew.email(Role.RECEIVER))
    assert "There was no money to distribute" in mail.text


async def test_whoever_gets_of_the_remainder_is_told(house: House, crew: Crew):
    escrow = await make_milestones(house, crew, amount="100", funded="130")
    await approve(house, crew, escrow.id, 0)
    await release(house, crew, escrow.id)
    command = milestones.withdraw_remaining(escrow.id, shares((crew.payer.email, "30")))
    await act(house, crew.actor(Role.DISPUTE_RESOLVER), command)
    assert "you get 30.000000 USDC" in (await newest(house, crew.payer.email)).text


async def test_a_refused_step_writes_to_nobody(house: House, crew: Crew):
    escrow = await make_milestones(house, crew, amount="100", funded="50")
    await approve(house, crew, escrow.id, 0)
    before = await house.pool.fetchval("SELECT count(*) FROM mail")
    with pytest.raises(EscrowBalanceNotEnough):
        await release(house, crew, escrow.id)
    assert await house.pool.fetchval("SELECT count(*) FROM mail") == before
