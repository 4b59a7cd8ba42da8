"""Every step of a milestone escrow is taken through its page by who may, and by a session's link.

What is refused says why beside the form, and changes nothing.
"""

import re
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal

import pytest

from service.commands import developers, milestones, sessions
from service.commands.registration import follow_link
from service.ingress.api.milestones import ACTS
from service.ingress.middlewares import HOUSE
from service.ingress.pages.milestone_blanks import FREE, recipients
from service.ingress.pages.milestone_standing import PAGES
from service.rules.machine import Role
from service.rules.milestone_outlook import outlook_of
from service.rules.milestone_said import StatusChange
from service.store.clock import read_clock
from service.store.ledger import read_balance
from service.store.milestones import read_fundings
from service.wire.sessions import NewMilestoneSession
from tests.makers import act, arrange, jump, top_up
from tests.milestones import (
    approve,
    dispute,
    look,
    make_crew,
    make_milestone_terms,
    make_milestones,
    release,
    resolve,
)
from tests.outbox import tokens_of
from tests.previews import HOSTILE
from tests.service.ingress.pages.people import signed_in, stranger
from tests.service.ingress.pages.test_arrival import Walker

BACK = "https://shop.example/back"
SINGLE, MULTI = {"amount": "100", "count": 2}, {"amounts": ("60", "40")}


async def nothing(house, crew, escrow_id):
    """The escrow as it was made."""


async def approved(house, crew, escrow_id):
    await approve(house, crew, escrow_id, 0, 1)


async def disputed(house, crew, escrow_id):
    await dispute(house, crew, escrow_id)


async def part_disputed(house, crew, escrow_id):
    await dispute(house, crew, escrow_id, 1)


async def released(house, crew, escrow_id):
    await approved(house, crew, escrow_id)
    await release(house, crew, escrow_id)


def to_receiver(amount):
    return lambda crew: {"who_0": crew.email(Role.RECEIVER), "share_0": amount}


def to_two(first, second):
    return lambda crew: {
        "who_0": crew.email(Role.RECEIVER), "share_0": first,
        "who_20": crew.payer.email, "share_20": second,
    }  # fmt: skip


def plainly(**fields):
    return lambda crew: fields


# (step, who, terms, funded, before it, what is filled in, what is true of the escrow after it)
STEPS = [
    ("fund", "payer-role", SINGLE, "0", nothing, plainly(sum="1,000.5"),
     lambda e: e.held_minor == 1_000_500_000),
    ("change_milestone_status", Role.SERVICE_PROVIDER, SINGLE, "0", nothing,
     plainly(milestone="1", status="half <b>done", evidence="see\nhere"),
     lambda e: (e.milestones[1].status, e.milestones[1].evidence)
     == ("half <b>done", "see\nhere")),
    ("approve_milestone", Role.APPROVER, SINGLE, "0", nothing,
     plainly(milestone_0="yes", milestone_1="yes"), lambda e: e.status == "pendingRelease"),
    ("approve_milestone", Role.APPROVER, MULTI, "0", nothing, plainly(milestone_1="yes"),
     lambda e: [one.approved for one in e.milestones] == [False, True]),
    ("release", Role.RELEASE_SIGNER, SINGLE, "100", approved, plainly(),
     lambda e: (e.status, e.held_minor) == ("released", 0)),
    ("release", Role.RELEASE_SIGNER, MULTI, "100", approved, plainly(milestone_0="yes"),
     lambda e: ([one.released for one in e.milestones], e.held_minor)
     == ([True, False], 40_000_000)),
    ("dispute", Role.RECEIVER, SINGLE, "0", nothing, plainly(reason="No\npages"),
     lambda e: e.milestones[0].dispute_reason == "No\npages"),
    ("dispute", Role.APPROVER, MULTI, "0", nothing, plainly(reason="No", milestone_1="yes"),
     lambda e: [one.disputed for one in e.milestones] == [False, True]),
    ("note_dispute", Role.PLATFORM, SINGLE, "0", disputed, plainly(note="We have seen it."),
     lambda e: e.status == "inDispute"),
    ("resolve_dispute", Role.DISPUTE_RESOLVER, SINGLE, "100", disputed, to_two("30", "70"),
     lambda e: (e.status, e.held_minor) == ("resolved", 0)),
    ("resolve_dispute", Role.DISPUTE_RESOLVER, MULTI, "100", part_disputed,
     lambda crew: {"milestone": "1", **to_receiver("39.5")(crew)},
     lambda e: ([one.resolved for one in e.milestones], e.held_minor)
     == ([False, True], 60_500_000)),
    ("withdraw_remaining", Role.DISPUTE_RESOLVER, SINGLE, "150", released, to_two("20", "30"),
     lambda e: e.held_minor == 0),
]  # fmt: skip


def case(given):
    return f"{given[0]}-{'single' if given[2] is SINGLE else 'multi'}"


async def arranged(house, terms, funded="0", before=nothing, **changes):
    crew = await make_crew(house)
    escrow = await make_milestones(house, crew, funded=funded, **terms, **changes)
    await before(house, crew, escrow.id)
    return crew, await look(house, escrow.id)


def email_of(crew, who):
    return crew.email(Role.PLATFORM if who == "payer-role" else who)


def path_of(escrow, step=""):
    return f"/dashboard/escrow/{escrow.id}{'/' if step else ''}{step}"


@pytest.mark.parametrize("given", STEPS, ids=case)
async def test_a_step_is_taken_on_its_page_by_who_may(ingress, house, owner, given):
    step, who, terms, funded, before, fills, holds = given
    crew, escrow = await arranged(house, terms, funded, before)
    email = email_of(crew, who)
    await top_up(house, email, "2000", "USDC")
    async with ingress(None) as client:
        person = await signed_in(client, owner, email)
        assert f'href="{path_of(escrow, step)}"' in (await person.get(path_of(escrow))).text
        page = await person.get(path_of(escrow, step))
        assert page.status == 200, page.words
        sent = {"form_token": page.token, "version": "1", **fills(crew)}
        answer = await person.post(path_of(escrow, step), sent)
        assert (answer.status, answer.location) == (303, f"{path_of(escrow)}?done=yes"), (
            answer.words
        )
        after = await look(house, escrow.id)
        assert holds(after)
        assert after.seq > escrow.seq
        done = await person.get(answer.location)
        assert done.status == 200
        assert "<b>done" not in done.text


@pytest.mark.parametrize("given", [one for one in STEPS if one[0] != "note_dispute"], ids=case)
@pytest.mark.parametrize("is_given", [True, False], ids=["given", "asked"])
async def test_a_step_is_taken_by_the_link_of_a_session(ingress, house, owner, given, is_given):
    step, who, terms, funded, before, fills, holds = given
    crew, escrow = await arranged(house, terms, funded, before)
    email = email_of(crew, who)
    await top_up(house, email, "2000", "USDC")
    bodies = INPUTS[step](escrow, crew) if is_given else None
    url = await session(house, crew, escrow, step, email, bodies)
    async with ingress(None) as client:
        person = await signed_in(client, owner, email)
        page = await person.get(url)
        assert page.status == 200, page.words
        fields = {} if is_given else {"version": "1", **fills(crew)}
        answer = await person.post(url, {"form_token": page.token, **fields})
        assert answer.status == 303, answer.words
        assert answer.location.startswith(BACK)
        assert answer.location.endswith("status=completed")
        assert holds(await look(house, escrow.id))
        assert (await person.post(url, {"form_token": page.token, **fields})).status == 303
        assert (await person.get(url)).status == 200


def both(escrow):
    return {} if escrow.is_single else {"milestoneIndexes": [0]}


def split(escrow, crew, *amounts):
    people = (crew.email(Role.RECEIVER), crew.payer.email)
    return [{"email": email, "amount": n} for email, n in zip(people, amounts, strict=False)]


INPUTS = {
    "fund": lambda escrow, crew: {"amount": "1000.5"},
    "change_milestone_status": lambda escrow, crew: {
        "updates": [{"index": 1, "status": "half <b>done", "evidence": "see\nhere"}]
    },
    "approve_milestone": lambda escrow, crew: {"indexes": [0, 1] if escrow.is_single else [1]},
    "release": lambda escrow, crew: both(escrow),
    "dispute": lambda escrow, crew: (
        {"reason": "No\npages"} if escrow.is_single else {"reason": "No", "milestoneIndexes": [1]}
    ),
    "resolve_dispute": lambda escrow, crew: (
        {"distributions": split(escrow, crew, "30", "70")}
        if escrow.is_single
        else {"milestoneIndex": 1, "distributions": split(escrow, crew, "39.5")}
    ),
    "withdraw_remaining": lambda escrow, crew: {"distributions": split(escrow, crew, "20", "30")},
}


async def session(house, crew, escrow, action, email, given=None):
    developer = crew.shop.developer_id
    await arrange(house, lambda tx: developers.allow_redirects(tx, developer, [BACK]))
    asked = NewMilestoneSession(action=action, targetUserEmail=email, redirectUrl=BACK, input=given)
    brought = None if given is None else ACTS[action].brings.model_validate(given)
    command = sessions.create_of_milestones(developer, escrow.id, asked, brought)
    made = await act(house, crew.shop.actor, command)
    return made["url"].removeprefix(house.policy.public_url)


async def test_who_registered_with_another_e_mail_takes_the_step_by_the_invited_ones_link(
    ingress, house, owner
):
    crew = await make_crew(house)
    terms = make_milestone_terms(crew, **SINGLE)
    roles = {**terms.roles, Role.APPROVER: "one@example.com"}
    escrow = await make_milestones(house, crew, **SINGLE, roles=roles)
    [token] = await tokens_of(house, "one@example.com")
    await arrange(house, lambda tx: follow_link(tx, token, "New", "One", email="two@example.com"))
    url = await session(house, crew, escrow, "approve_milestone", "one@example.com")
    async with ingress(None) as client:
        other = await (await signed_in(client, owner, crew.email(Role.PLATFORM))).get(url)
        assert "t•••@example.com" in other.words
        assert "milestone_0" not in other.text
        person = await signed_in(client, owner, "two@example.com")
        page = await person.get(url)
        answer = await person.post(
            url, {"form_token": page.token, "version": "1", "milestone_0": "yes"}
        )
    assert (answer.status, answer.location.endswith("status=completed")) == (303, True)
    assert (await look(house, escrow.id)).milestones[0].approved


@pytest.mark.parametrize(
    ("language", "says"),
    [
        ("en", "names you: receiver · receiver of a milestone"),
        ("fr", "vous désigne : bénéficiaire"),
        ("ar", "المستفيد"),
    ],
)
async def test_the_link_of_an_invitation_leads_a_newcomer_to_their_role(
    ingress, house, language, says
):
    async with ingress(None) as client:
        app_house = ingress.app[HOUSE]
        crew = await make_crew(app_house)
        terms = make_milestone_terms(crew, **MULTI)
        roles = {**terms.roles, Role.RECEIVER: "one@example.com"}
        escrow = await make_milestones(
            app_house, crew, **MULTI, roles=roles, receivers=["one@example.com"], title=HOSTILE
        )
        [token] = await tokens_of(app_house, "one@example.com")
        walker = Walker(client)
        page = await walker.get(f"/register/{token}?lang={language}")
        assert page.status == 200
        assert says in page.words
        assert "<script>" not in page.text
        names = {"first_name": "Nour", "last_name": "T", "language": language}
        answer = await walker.send(f"/register/{token}", **names)
        assert (answer.status, answer.location) == (303, path_of(escrow))
        assert (await walker.get(answer.location)).status == 200
        after = await look(house, escrow.id)
        assert after.roles[Role.RECEIVER].user_id == after.milestones[0].receiver.user_id
        assert after.roles[Role.RECEIVER].user_id is not None
        assert (await Walker(client).get(f"/register/{token}")).status != 200


# ---- What stands against it ---------------------------------------------------------------------

WRONG = [
    ("fund", SINGLE, nothing, {"sum": "none"}, 400, "Please write an amount"),
    ("fund", SINGLE, nothing, {"sum": "0.0000001"}, 400, "Please write an amount"),
    ("fund", SINGLE, nothing, {"sum": "0"}, 400, "Please write an amount"),
    ("fund", SINGLE, nothing, {"sum": "5", "version": "9"}, 409, "changed meanwhile"),
    ("fund", SINGLE, nothing, {"sum": "5000"}, 409, "Top it up first"),
    ("approve_milestone", MULTI, nothing, {}, 400, "choose one of these"),
    ("change_milestone_status", MULTI, nothing, {"milestone": "7", "status": "x"}, 400,
     "choose one of these"),
    ("change_milestone_status", MULTI, nothing, {"milestone": "0", "status": "x" * 51}, 400,
     "at most"),
    ("release", SINGLE, approved, {}, 409, "not enough money"),
    ("dispute", SINGLE, nothing, {"reason": ""}, 400, "fill this in"),
    ("resolve_dispute", SINGLE, disputed, {}, 400, "at least one amount"),
    ("resolve_dispute", SINGLE, disputed, {"who_0": "nobody", "share_0": "1"}, 400, "e-mail"),
]  # fmt: skip
WHOSE = {
    "fund": Role.PLATFORM,
    "approve_milestone": Role.APPROVER,
    "change_milestone_status": Role.SERVICE_PROVIDER,
    "release": Role.RELEASE_SIGNER,
    "dispute": Role.PLATFORM,
    "resolve_dispute": Role.DISPUTE_RESOLVER,
}


@pytest.mark.parametrize(("step", "terms", "before", "fields", "status", "says"), WRONG)
async def test_what_is_wrong_is_said_and_changes_nothing(
    ingress, house, owner, step, terms, before, fields, status, says
):
    crew, escrow = await arranged(house, terms, "100" if before is disputed else "0", before)
    email = crew.email(WHOSE[step])
    async with ingress(None) as client:
        person = await signed_in(client, owner, email)
        whole = await person.get(path_of(escrow))
        token = ingress.app[HOUSE].vault.link_token(
            f"form/escrow/{escrow.id}/{step}", person._cookie
        )
        sent = {"form_token": token, "version": "1", **fields}
        answer = await person.post(path_of(escrow, step), sent)
    assert whole.status == 200
    assert (answer.status, says in answer.words) == (status, True), answer.words
    assert await look(house, escrow.id) == escrow


async def test_shares_that_do_not_add_up_are_refused_and_kept_as_typed(ingress, house, owner):
    crew, escrow = await arranged(house, SINGLE, "100", disputed)
    async with ingress(None) as client:
        person = await signed_in(client, owner, crew.email(Role.DISPUTE_RESOLVER))
        page = await person.get(path_of(escrow, "resolve_dispute"))
        sent = {"form_token": page.token, "version": "1", **to_two("30", "60")(crew)}
        answer = await person.post(path_of(escrow, "resolve_dispute"), sent)
    assert answer.status == 409
    assert "exactly what is held" in answer.words
    assert 'name="share_0" type="text" value="30"' in answer.text
    assert await look(house, escrow.id) == escrow


ROW = re.compile(
    r'name="who_(\d+)"[^>]*? value="([^"]*)".*?name="share_\1"[^>]*? value="([^"]*)"', re.S
)


def version_of(page):
    """The version of the terms that the form says it was shown with."""
    return re.search(r'name="version" value="(\d+)"', page.text)[1]


def rows_of(page):
    """(e-mail, amount) of each row that has either, as the next click would send them."""
    return [(who, share) for _, who, share in ROW.findall(page.text) if who or share]


def sent_back(page):
    """What the browser sends of a form that is sent as it was shown."""
    fields = {f"who_{n}": who for n, who, _ in ROW.findall(page.text)}
    fields |= {f"share_{n}": share for n, _, share in ROW.findall(page.text)}
    return {"form_token": page.token, "version": version_of(page), **fields}


async def test_an_amount_stays_with_its_person_whoever_pays_in_meanwhile(ingress, house, owner):
    crew, escrow = await arranged(house, SINGLE, "100", disputed)
    await top_up(house, crew.stranger.email, "10", "USDC")
    path = path_of(escrow, "resolve_dispute")
    async with ingress(None) as client:
        person = await signed_in(client, owner, crew.email(Role.DISPUTE_RESOLVER))
        page = await person.get(path)
        emails = [who for who, _ in rows_of(page)]
        receiver, approver = crew.email(Role.RECEIVER), crew.email(Role.APPROVER)
        sent = sent_back(page)
        sent[f"share_{emails.index(receiver)}"] = "30"
        sent[f"share_{emails.index(approver)}"] = "60"
        free = len(emails)
        sent |= {f"who_{free}": "one@example.com", f"share_{free}": "10.x"}
        wrong = await person.post(path, sent)
        await act(house, crew.stranger.actor, milestones.fund(escrow.id, Decimal("0.5")))
        sent |= {f"who_{free}": crew.email(Role.PLATFORM), f"share_{free}": "10"}
        again = await person.post(path, sent)
        assert (wrong.status, again.status) == (400, 409)
        assert ("one@example.com", "10.x") in rows_of(wrong)
        paid = [(receiver, "30"), (approver, "60"), (crew.email(Role.PLATFORM), "10")]
        assert [row for row in rows_of(again) if row[1]] == paid
        assert (crew.stranger.email, "") in rows_of(again)
        assert again.text.count('type="email"') >= FREE
        fields = sent_back(again)
        [number] = [n for n, who in fields.items() if who == crew.stranger.email]
        fields[number.replace("who", "share")] = "0.5"
        done = await person.post(path, fields)
    assert done.status == 303, done.words
    assert (await look(house, escrow.id)).status == "resolved"
    balance = await read_balance(house.pool, crew.people[Role.APPROVER].user_id, "USDC")
    assert 0 < balance.available < 60_000_000
    assert (await read_balance(house.pool, crew.stranger.user_id, "USDC")).available < 10_000_000


@pytest.mark.parametrize("email", ["bob@localhost", "a@b", "@", "x" * 250 + "@example.com"])
async def test_what_is_no_e_mail_is_said_beside_the_address(ingress, house, owner, email):
    crew, escrow = await arranged(house, MULTI, "100", part_disputed)
    path = path_of(escrow, "resolve_dispute")
    async with ingress(None) as client:
        person = await signed_in(client, owner, crew.email(Role.DISPUTE_RESOLVER))
        page = await person.get(path)
        free = len(rows_of(page))
        sent = {**sent_back(page), "milestone": "1", f"who_{free}": email, f"share_{free}": "1"}
        answer = await person.post(path, sent)
    assert answer.status == 400
    assert f'id="who_{free}-error"' in answer.text
    assert 'id="milestone-error"' not in answer.text


@pytest.mark.parametrize("version", ["", "2", "x", "9" * 30])
@pytest.mark.parametrize(
    "given",
    [one for one in STEPS if one[0] not in ("note_dispute", "withdraw_remaining")],
    ids=case,
)
async def test_a_step_is_not_taken_on_terms_that_were_not_seen(
    ingress, house, owner, given, version
):
    step, who, terms, funded, before, fills, _ = given
    crew, escrow = await arranged(house, terms, funded, before)
    email = email_of(crew, who)
    await top_up(house, email, "2000", "USDC")
    async with ingress(None) as client:
        person = await signed_in(client, owner, email)
        page = await person.get(path_of(escrow, step))
        assert version_of(page) == "1"
        sent = {"form_token": page.token, **fills(crew), "version": version}
        answer = await person.post(path_of(escrow, step), sent)
    assert (answer.status, "changed meanwhile" in answer.words) == (409, True)
    assert version_of(answer) == "1"
    assert await look(house, escrow.id) == escrow


@pytest.mark.parametrize(
    ("language", "says"),
    [("en", "changed meanwhile"), ("fr", "ont changé entre-temps"), ("ar", "تغيّرت الشروط")],
)
async def test_an_approval_of_what_was_swapped_meanwhile_is_asked_for_anew(
    ingress, house, owner, language, says
):
    crew, escrow = await arranged(house, MULTI)
    terms = make_milestone_terms(crew, **MULTI)
    swapped = replace(terms, milestones=terms.milestones[::-1])
    path = f"{path_of(escrow, 'approve_milestone')}?lang={language}"
    async with ingress(None) as client:
        person = await signed_in(client, owner, crew.email(Role.APPROVER))
        page = await person.get(path)
        await act(house, crew.actor(Role.PLATFORM), milestones.update(escrow.id, swapped))
        sent = {"form_token": page.token, "version": version_of(page), "milestone_0": "yes"}
        again = await person.post(path, sent)
        assert (again.status, says in again.words) == (409, True), again.words
        assert [one.approved for one in (await look(house, escrow.id)).milestones] == [False] * 2
        assert (version_of(again), " checked" in again.text) == ("2", False)
        empty = {"form_token": page.token, "version": "1"}
        assert version_of(await person.post(path, empty)) == "2"
        sent = {"form_token": again.token, "version": version_of(again), "milestone_1": "yes"}
        assert (await person.post(path, sent)).status == 303
    assert [one.approved for one in (await look(house, escrow.id)).milestones] == [False, True]


@pytest.mark.parametrize(
    ("language", "says"),
    [
        ("en", "changed after this link"),
        ("fr", "ont changé depuis"),
        ("ar", "بعد إنشاء هذا الرابط"),
    ],
)
async def test_a_link_whose_input_was_given_for_other_terms_says_so_and_takes_no_step(
    ingress, house, owner, language, says
):
    crew, escrow = await arranged(house, MULTI)
    terms = make_milestone_terms(crew, **MULTI)
    email = crew.email(Role.APPROVER)
    url = await session(house, crew, escrow, "approve_milestone", email, {"indexes": [0]})
    asking = await session(house, crew, escrow, "approve_milestone", email)
    async with ingress(None) as client:
        person = await signed_in(client, owner, email)
        page, asked = await person.get(url), await person.get(asking)
        swapped = replace(terms, milestones=terms.milestones[::-1])
        await act(house, crew.actor(Role.PLATFORM), milestones.update(escrow.id, swapped))
        sent = {"form_token": page.token, "version": "2"}
        for answer in (
            await person.post(f"{url}?lang={language}", sent),
            await person.get(f"{url}?lang={language}"),
        ):
            assert says in answer.words
            assert answer.text.partition("<main>")[2].count("<button") == 1  # the one to leave by
        stale = {"form_token": asked.token, "version": version_of(asked), "milestone_0": "yes"}
        again = await person.post(asking, stale)
        assert (again.status, "changed meanwhile" in again.words) == (409, True)
        assert not any(one.approved for one in (await look(house, escrow.id)).milestones)
        fresh = {"form_token": again.token, "version": version_of(again), "milestone_0": "yes"}
        assert (await person.post(asking, fresh)).location.endswith("status=completed")


# ---- Who sees it --------------------------------------------------------------------------------


async def test_whoever_holds_no_role_is_told_of_nothing(ingress, house, owner):
    crew, escrow = await arranged(house, SINGLE, "100")
    async with ingress(None) as client:
        for email in (crew.stranger.email, crew.payer.email):
            person = await signed_in(client, owner, email)
            for path in (path_of(escrow), *(path_of(escrow, step) for step in PAGES)):
                page = await person.get(path)
                assert page.status == 404
                assert escrow.title not in page.text
            assert escrow.title not in (await person.get("/dashboard")).text


@pytest.mark.parametrize("ending", ["completed", "cancelled", "expired"])
async def test_only_its_person_learns_where_a_session_that_is_over_came_from(
    ingress, house, owner, ending
):
    crew, escrow = await arranged(house, SINGLE)
    email = crew.email(Role.APPROVER)
    url = await session(house, crew, escrow, "approve_milestone", email)
    async with ingress(None) as client:
        person = await signed_in(client, owner, email)
        other = await signed_in(client, owner, crew.stranger.email)
        page, others = await person.get(url), await other.get(url)
        left = {"act": "leave"} if ending == "cancelled" else {"milestone_0": "yes", "version": "1"}
        if ending == "expired":
            await jump(house, timedelta(minutes=31))
        sent = await person.post(url, {"form_token": page.token, **left})
        assert sent.location.startswith(BACK)
        assert sent.location.endswith(f"status={ending}")
        again = await person.post(url, {"form_token": page.token, **left})
        assert again.location == sent.location
        assert BACK in (await person.get(url)).text
        for one in (other, stranger(client)):
            shown = await one.get(url)
            assert (shown.status, BACK in shown.text) == (200, False)
        late = await other.post(url, {"form_token": others.token, "act": "leave"})
        assert BACK not in (late.location or "")


async def test_a_form_of_another_page_or_person_is_none_of_ours(ingress, house, owner):
    crew, escrow = await arranged(house, SINGLE, "100", approved)
    link = await session(house, crew, escrow, "release", crew.email(Role.RELEASE_SIGNER))
    async with ingress(None) as client:
        signer = await signed_in(client, owner, crew.email(Role.RELEASE_SIGNER))
        payer = await signed_in(client, owner, crew.email(Role.PLATFORM))
        step = path_of(escrow, "release")
        tokens = [
            "",
            "x" * 43,
            (await payer.get(path_of(escrow, "fund"))).token,
            (await signer.get(link)).token,
            (await signer.get(path_of(escrow, "fund"))).token,
        ]
        for token in tokens:
            assert (await signer.post(step, {"form_token": token})).status == 403
        theirs = (await signer.get(step)).token
        assert (await signer.post(link, {"form_token": theirs})).status == 403
        assert (await payer.post(step, {"form_token": theirs})).status == 403
    assert await look(house, escrow.id) == escrow


async def test_a_step_of_another_role_is_refused_whatever_its_form_says(ingress, house, owner):
    crew, escrow = await arranged(house, SINGLE, "100", approved)
    async with ingress(None) as client:
        for role in (Role.APPROVER, Role.SERVICE_PROVIDER, Role.PLATFORM, Role.RECEIVER):
            person = await signed_in(client, owner, crew.email(role))
            token = ingress.app[HOUSE].vault.link_token(
                f"form/escrow/{escrow.id}/release", person._cookie
            )
            answer = await person.post(path_of(escrow, "release"), {"form_token": token})
            assert answer.status == 404
    assert await look(house, escrow.id) == escrow


@pytest.mark.parametrize(
    ("language", "sums"),
    [
        ("en", ("1,234.500000 USDC", "2.55 %", "0.3 %")),
        ("fr", ("1\u202f234,500000 USDC", "2,55 %", "0,3 %")),
        ("ar", ("1.234,500000 USDC", "2,55 %", "0,3 %")),
    ],
)
async def test_sums_and_rates_are_written_as_the_language_does(
    ingress, house, owner, language, sums
):
    crew, escrow = await arranged(
        house, {"amount": "1234.5", "count": 1}, "1234.5", platform_fee_bps=255
    )
    async with ingress(None) as client:
        person = await signed_in(client, owner, crew.email(Role.PLATFORM))
        page = await person.get(f"{path_of(escrow)}?lang={language}")
    for one in sums:
        assert one in page.text
    assert f'dir="{"rtl" if language == "ar" else "ltr"}"' in page.text


async def test_each_role_is_offered_what_the_rules_allow_it_and_told_why_not(ingress, house, owner):
    crew, escrow = await arranged(house, MULTI, "100", part_disputed)
    now = (await read_clock(house.pool)).now
    async with ingress(None) as client:
        for role, holder in crew.people.items():
            person = await signed_in(client, owner, holder.email)
            page = await person.get(path_of(escrow))
            mine = {one.step: one.obstacle for one in outlook_of(escrow, holder.user_id, now)}
            for step in PAGES:
                is_linked = f'href="{path_of(escrow, step)}"' in page.text
                assert is_linked == (step in mine and mine[step] is None), (role, step)
                status = (await person.get(path_of(escrow, step))).status
                expected = 404 if step not in mine else 200 if mine[step] is None else 409
                assert status == expected, (role, step)


@pytest.mark.parametrize("language", ["en", "fr", "ar"])
async def test_the_page_tells_the_whole_life_in_the_persons_language(
    ingress, house, owner, language
):
    crew = await make_crew(house)
    hostile = await make_milestones(
        house, crew, amounts=("60", "40"), title=HOSTILE, description=HOSTILE
    )
    command = milestones.fund(hostile.id, 150)
    await act(house, crew.payer.actor, command)
    await approve(house, crew, hostile.id, 0)
    await release(house, crew, hostile.id, 0)
    await dispute(house, crew, hostile.id, 1)
    note = milestones.note(hostile.id, HOSTILE, 1)
    await act(house, crew.actor(Role.RECEIVER), note)
    await resolve(house, crew, hostile.id, (crew.payer.email, "40"), index=1)
    async with ingress(None) as client:
        person = await signed_in(client, owner, crew.email(Role.PLATFORM))
        page = await person.get(f"{path_of(hostile)}?lang={language}")
        listed = await person.get(f"/dashboard?lang={language}")
        assert page.status == listed.status == 200
        assert "<script>" not in page.text + listed.text
        for email in (crew.payer.email, crew.email(Role.RECEIVER)):
            assert email in page.words
        assert f'lang="{language}"' in page.text
        assert path_of(hostile) in listed.text


async def test_what_has_happened_is_told_for_good(house, owner, ingress):
    crew, escrow = await arranged(house, MULTI, "100", receivers=(None, None))
    provider = crew.actor(Role.SERVICE_PROVIDER)
    change = [StatusChange(0, "half of it is done")]
    await act(house, provider, milestones.change_status(escrow.id, change))
    await dispute(house, crew, escrow.id, 0)
    note = milestones.note(escrow.id, "Look at page three.", 0)
    await act(house, crew.actor(Role.RECEIVER), note)
    await resolve(house, crew, escrow.id, (crew.payer.email, "4"), index=0)
    async with ingress(None) as client:
        person = await signed_in(client, owner, crew.email(Role.PLATFORM))
        before = await person.get(path_of(escrow))
        await owner.execute("DELETE FROM webhook_body")
        after = await person.get(path_of(escrow))
    assert after.words == before.words
    for said in ("half of it is done", "Look at page three.", crew.payer.email):
        assert said in after.words


async def test_recipients_are_who_can_be_paid_and_never_the_resolver(house):
    crew, escrow = await arranged(house, MULTI, "10", receivers=(None, None))
    payers = await read_fundings(house.pool, escrow.id)
    from_house = [one.email for one in recipients(escrow, payers, Mute())]
    known = [one for one in from_house if one]
    assert known[:2] == [crew.email(Role.RECEIVER), crew.payer.email]
    assert crew.email(Role.DISPUTE_RESOLVER) not in known
    assert from_house[len(known) :] == [""] * FREE


class Mute:
    """A voice whose words do not matter here."""

    def say(self, key, **_):
        return key

    def figure(self, words):
        return words

    def typed(self, words):
        return words


async def test_a_wallet_leads_to_an_escrow_only_whom_it_shows_itself(ingress, house, owner):
    crew, escrow = await arranged(house, SINGLE, "100", approved)
    await release(house, crew, escrow.id)
    async with ingress(None) as client:
        for email, leads in ((crew.payer.email, False), (crew.email(Role.RECEIVER), True)):
            person = await signed_in(client, owner, email)
            wallet = await person.get("/dashboard/wallet?currency=USDC")
            assert escrow.title in wallet.words
            assert (path_of(escrow) in wallet.text) == leads
            assert (await person.get(path_of(escrow))).status == (200 if leads else 404)


# ---- The dashboard's list -----------------------------------------------------------------------


async def test_the_list_is_walked_and_searched(ingress, house, owner):
    crew = await make_crew(house)
    made = [await make_milestones(house, crew, amount="1", title=f"Job {n:02}") for n in range(23)]
    async with ingress(None) as client:
        person = await signed_in(client, owner, crew.email(Role.APPROVER))
        first = await person.get("/dashboard")
        assert [one.title in first.text for one in made] == [False] * 3 + [True] * 20
        older = await person.get(f"/dashboard?part={made[3].id}")
        assert [one.title in older.text for one in made] == [True] * 3 + [False] * 20
        found = await person.get("/dashboard?q=job 07")
        assert [one.title in found.text for one in made].count(True) == 1


# ---- Sessions -----------------------------------------------------------------------------------


async def test_a_link_tells_strangers_the_matter_alone_and_takes_nothing_from_them(
    ingress, house, owner
):
    crew, escrow = await arranged(house, SINGLE, "100", approved)
    url = await session(house, crew, escrow, "release", crew.email(Role.RELEASE_SIGNER))
    async with ingress(None) as client:
        person = await signed_in(client, owner, crew.stranger.email)
        page = await person.get(url)
        assert page.status == 200
        assert escrow.title in page.words
        assert crew.email(Role.RECEIVER) not in page.words
        answer = await person.post(url, {"form_token": page.token})
        assert answer.status == 403
    assert await look(house, escrow.id) == escrow


async def test_whoever_leaves_goes_back_and_the_link_is_over(ingress, house, owner):
    crew, escrow = await arranged(house, SINGLE, "100", approved)
    email = crew.email(Role.RELEASE_SIGNER)
    url = await session(house, crew, escrow, "release", email)
    async with ingress(None) as client:
        person = await signed_in(client, owner, email)
        page = await person.get(url)
        answer = await person.post(url, {"form_token": page.token, "act": "leave"})
        assert answer.location.endswith("status=cancelled")
        over = await person.get(url)
        assert (over.status, "This link is over" in over.words) == (200, True)
    assert (await look(house, escrow.id)).status == "pendingRelease"


async def test_anybody_pays_by_a_link_from_the_wallet_of_its_currency(ingress, house, owner):
    crew, escrow = await arranged(house, SINGLE)
    url = await session(house, crew, escrow, "fund", crew.payer.email, {"amount": "100"})
    async with ingress(None) as client:
        person = await signed_in(client, owner, crew.payer.email)
        page = await person.get(url)
        assert "100.000000 USDC" in page.words.replace("\u2069", "").replace("\u2068", "")
        await person.post(url, {"form_token": page.token})
    balance = await read_balance(house.pool, crew.payer.user_id, "USDC")
    assert (await look(house, escrow.id)).held_minor == 100_000_000
    assert balance.available == (1_000_000 - 100) * 10**6
