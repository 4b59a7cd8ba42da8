"""Milestone escrows on phones: their pages in each language and direction, and three steps taken.

Axe finds nothing serious on any of them; one life is lived without a script.
"""

import pytest

from service.rules.machine import Role
from tests.milestones import approve, dispute, fund, look, make_crew, make_milestones, release
from tests.service.ingress.pages.test_milestone_pages import session

LANGUAGES = ("en", "ar", "fr")


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_life_is_lived_on_phones(street, person, language):
    scripts = language != "fr"
    crew = await make_crew(street.house)
    made = await make_milestones(
        street.house, crew, funded="100", amounts=("60", "40"), resolver_deadline_days=5
    )
    page = f"{street.url}/dashboard/escrow/{made.id}"

    async def somebody(role):
        one = await person(language, f"milestone-{role}", scripts=scripts)
        await one.is_signed_in(crew.email(role))
        return one

    provider = await somebody(Role.SERVICE_PROVIDER)
    await provider.go(f"{page}?lang={language}", "escrow")
    await provider.go(f"{page}/change_milestone_status?lang={language}", "report")
    await provider.page.check("input[name=milestone][value='0']")
    await provider.page.fill("#status", "done")
    await provider.page.fill("#evidence", "https://work.example/1")
    await provider.press()
    await provider.page.wait_for_url("**done=yes**")
    await provider.look("reported")

    approver = await somebody(Role.APPROVER)
    await approver.go(f"{street.url}/dashboard?lang={language}", "dashboard")
    link = await session(street.house, crew, made, "approve_milestone", crew.email(Role.APPROVER))
    await approver.go(f"{street.url}{link}?lang={language}", "approve")
    await approver.press()  # nothing is ticked: the form comes again
    await approver.look("approve-wrong")
    assert await approver.page.locator("#milestones-error").count() == 1
    await approver.page.check("input[name=milestone_0]")
    await approver.press()
    await approver.is_back()

    await release(street.house, crew, made.id, 0)
    await dispute(street.house, crew, made.id, 1)
    resolver = await somebody(Role.DISPUTE_RESOLVER)
    await resolver.go(f"{page}?lang={language}", "disputed")
    await resolver.go(f"{page}/resolve_dispute?lang={language}", "resolve")
    await resolver.page.fill("#share_0", "12.5")
    await resolver.page.fill("#share_1", "none")
    await resolver.press()
    await resolver.look("resolve-wrong")
    await resolver.page.fill("#share_1", "27,5" if language == "fr" else "27.5")
    await resolver.press()
    await resolver.page.wait_for_url("**done=yes**")
    await resolver.look("resolved")
    after = await look(street.house, made.id)
    assert (after.status, after.held_minor) == ("released", 0)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_every_other_step_keeps_nobody_out(street, person, language):
    crew = await make_crew(street.house)
    one = await person(language, "milestone-steps")
    single = await make_milestones(street.house, crew, funded="150", amount="100", count=2)
    await approve(street.house, crew, single.id, 0, 1)
    multi = await make_milestones(street.house, crew, funded="100", amounts=("60", "40"))
    await approve(street.house, crew, multi.id, 0)
    await dispute(street.house, crew, multi.id, 1)
    over = await make_milestones(street.house, crew, amount="100")
    await fund(street.house, crew, over.id, "150")
    await approve(street.house, crew, over.id, 0)
    await release(street.house, crew, over.id)
    shown = [
        (Role.RELEASE_SIGNER, single, "release"),
        (Role.RELEASE_SIGNER, multi, "release"),
        (Role.RECEIVER, single, "dispute"),
        (Role.RECEIVER, multi, "dispute"),
        (Role.PLATFORM, multi, "note_dispute"),
        (Role.PLATFORM, single, "fund"),
        (Role.DISPUTE_RESOLVER, over, "withdraw_remaining"),
        (Role.DISPUTE_RESOLVER, over, ""),
    ]
    for role, escrow, step in shown:
        await one.is_signed_in(crew.email(role))
        path = f"/dashboard/escrow/{escrow.id}{'/' if step else ''}{step}"
        await one.go(f"{street.url}{path}?lang={language}")
        assert await one.page.locator("main button.primary").count() == (1 if step else 0)


@pytest.mark.parametrize("language", LANGUAGES)
async def test_a_session_with_its_input_shows_it_and_asks_nothing(street, person, language):
    crew = await make_crew(street.house)
    made = await make_milestones(street.house, crew, amount="100")
    one = await person(language, "milestone-payer")
    await one.is_signed_in(crew.payer.email)
    given = {"amount": "100"}
    link = await session(street.house, crew, made, "fund", crew.payer.email, given)
    await one.go(f"{street.url}{link}?lang={language}", "fund")
    assert await one.page.locator("main input:not([type=hidden])").count() == 0
    await one.press()
    await one.is_back()
    assert (await look(street.house, made.id)).held_minor == 100_000_000
