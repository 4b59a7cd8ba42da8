"""escrows.md 10: `GET /me` and the identity verifications, a test a sentence."""

from datetime import datetime, timedelta

import pytest

from service.commands import identity
from tests.conformance.shapes import ID, INSTANT, SENTENCE, Like, changed, e1, invalid, saying
from tests.conformance.world import V1, Partner, World, new_email
from tests.makers import arrange

ME = f"{V1}/me"
IDENTITY = f"{V1}/identity-verifications"
INSTANT_OR_NULL = Like("an instant or null", lambda v: v is None or INSTANT.holds(v))


async def test_me_shows_the_key_and_the_developer(world: World):
    for associated in (True, False):
        who = await world.partner(associated=associated, company="Ünï & Co")
        answer = await who.get(ME)
        key = {
            "id": ID,
            "name": SENTENCE,
            "keyPrefix": who.key[:16],
            "environment": "sandbox",
            "isActive": True,
            "lastUsedAt": INSTANT_OR_NULL,
            "expiresAt": None,
            "rateLimit": None,
            "metadata": {},
            "createdAt": INSTANT,
        }
        developer = {
            "id": who.developer_id,
            "email": saying("dev-", "@example.org"),
            "companyName": "Ünï & Co",
        }
        assert answer.differs(200, {"apiKey": key, "developer": developer}) == []


def record(email: str, **changes) -> dict:
    """A new one in the sandbox, without its message."""
    shape = {
        "id": ID,
        "email": email,
        "external_user_id": None,
        "kyc_status": "approved",
        "didit_session_status": "completed",
        "needs_admin_review": False,
        "claim_status": "pending",
        "linked_user_id": None,
        "linked_at": None,
        "created_at": INSTANT,
        "updated_at": INSTANT,
        "expires_at": INSTANT,
        "verification_email_sent": False,
        "verification_email_sent_at": None,
    }
    return changed(shape, changes)


PENDING = {
    "kyc_status": "pending",
    "didit_session_status": "in_progress",
    "verification_email_sent": True,
    "verification_email_sent_at": INSTANT,
}


def days(told: dict) -> timedelta:
    return datetime.fromisoformat(told["expires_at"]) - datetime.fromisoformat(told["created_at"])


@pytest.fixture
async def asking(live: Partner, live_door):
    """A developer at the live door."""
    async with live_door() as session:
        yield live.by(session)


# ---- The sandbox --------------------------------------------------------------------------------


async def test_in_the_sandbox_it_is_approved_at_once_without_a_mail(world: World, partner):
    email = new_email()
    answer = await partner.post(IDENTITY, {"email": f" {email.upper()} "})
    assert answer.differs(201, record(email, message=SENTENCE)) == []
    assert days(answer.body) == timedelta(days=90)
    mails = await world.root.get(f"{V1}/sandbox/mailbox?to={email}")
    assert mails.body == {"mails": []}


async def test_every_field_is_kept(partner: Partner):
    email = new_email()
    body = {
        "email": email,
        "external_user_id": "user 1",
        "redirect_url": "https://shop.example.org/back",
        "metadata": {f"key {n}": "v" * 500 for n in range(20)},
    }
    answer = await partner.post(IDENTITY, body)
    assert answer.differs(201, record(email, external_user_id="user 1", message=SENTENCE)) == []


async def test_one_is_read_flat_and_without_a_message(partner: Partner):
    email = new_email()
    made = (await partner.post(IDENTITY, {"email": email})).body
    answer = await partner.get(f"{IDENTITY}/{made['id']}")
    assert answer.differs(200, record(email, id=made["id"])) == []


async def test_those_of_an_e_mail_are_read_newest_first_at_most_20(world: World, partner):
    email = new_email()
    made = [(await partner.post(IDENTITY, {"email": email})).body["id"] for _ in range(22)]
    await partner.post(IDENTITY, {"email": new_email()})
    answer = await partner.get(f"{IDENTITY}?email={email.upper()}")
    told = [record(email, id=one) for one in made[:-21:-1]]
    assert len(told) == 20
    assert answer.differs(200, {"verifications": told}) == []
    stranger = await world.partner()
    answer = await stranger.get(f"{IDENTITY}?email={email}")
    assert answer.differs(200, {"verifications": []}) == []


async def test_registering_with_the_verified_e_mail_links_the_record(world: World, partner):
    email = new_email()
    made = (await partner.post(IDENTITY, {"email": email})).body
    person = await world.person(email, funds=0)
    answer = await partner.get(f"{IDENTITY}/{made['id']}")
    linked = {"claim_status": "linked", "linked_user_id": person.id, "linked_at": INSTANT}
    assert answer.differs(200, record(email, id=made["id"], **linked)) == []


async def test_an_unverified_e_mail_links_nothing(world: World, partner: Partner):
    email = new_email()
    made = (await partner.post(IDENTITY, {"email": email})).body
    await world.person(email, funds=0, is_verified=False)
    answer = await partner.get(f"{IDENTITY}/{made['id']}")
    assert answer.differs(200, record(email, id=made["id"])) == []


async def test_a_registered_and_approved_user_is_409(world: World, partner: Partner):
    person = await world.person(funds=0)
    first = await partner.post(IDENTITY, {"email": person.email})
    assert (first.status, first.body["claim_status"]) == (201, "linked")
    async with world.unchanged():
        answer = await partner.post(IDENTITY, {"email": person.email})
        conflict = e1(409, kyc_status="approved", user_exists=True)
        assert answer.differs(409, conflict) == []


# ---- Live ---------------------------------------------------------------------------------------


async def test_live_it_is_pending_and_the_link_is_mailed(asking: Partner, owner):
    email = new_email()
    answer = await asking.post(IDENTITY, {"email": email})
    assert answer.differs(201, record(email, **PENDING, message=SENTENCE)) == []
    count = "SELECT count(*) FROM mail WHERE recipient = $1"
    assert await owner.fetchval(count, email) == 1


async def test_the_same_e_mail_while_pending_is_200_with_the_same_record_and_no_second_mail(
    asking: Partner, owner
):
    email = new_email()
    made = (await asking.post(IDENTITY, {"email": email})).body
    again = await asking.post(IDENTITY, {"email": email.upper()})
    shown = record(email, id=made["id"], **PENDING, message=SENTENCE)
    assert again.differs(200, shown) == []
    count = "SELECT count(*) FROM mail WHERE recipient = $1"
    assert await owner.fetchval(count, email) == 1
    await owner.execute(
        "UPDATE identity_verification SET mailed_at = mailed_at - interval '301 seconds'"
    )
    third = await asking.post(IDENTITY, {"email": email})
    assert third.differs(200, shown) == []
    assert await owner.fetchval(count, email) == 2


async def test_past_its_expiry_a_pending_one_is_not_found_by_e_mail_and_a_new_one_is_made(
    world: World, asking: Partner
):
    email = new_email()
    made = (await asking.post(IDENTITY, {"email": email})).body
    await world.advance(days=91)
    answer = await asking.get(f"{IDENTITY}?email={email}")
    assert answer.differs(200, {"verifications": []}) == []
    assert (await asking.get(f"{IDENTITY}/{made['id']}")).status == 200
    again = await asking.post(IDENTITY, {"email": email})
    assert again.differs(201, record(email, **PENDING, message=SENTENCE)) == []
    assert again.body["id"] != made["id"]


@pytest.mark.parametrize(("approves", "status"), [(True, "approved"), (False, "rejected")])
async def test_live_the_operator_decides(live_house, asking: Partner, approves, status):
    email = new_email()
    made = (await asking.post(IDENTITY, {"email": email})).body
    await arrange(live_house, identity.decide(made["id"], approves=approves))
    answer = await asking.get(f"{IDENTITY}/{made['id']}")
    decided = {**PENDING, "kyc_status": status, "didit_session_status": "completed"}
    assert answer.differs(200, record(email, id=made["id"], **decided)) == []


# ---- Refusals -----------------------------------------------------------------------------------

BAD = {
    "email": [None, "", "nobody", 5, ["a@example.org"], "a@b"],
    "external_user_id": [5, True, ["x"], "x" * 256],
    "redirect_url": [
        "", "nowhere", "http://shop.example.org/", "https://", "javascript:alert(1)", 5,
        "https://u:p@shop.example.org/",
    ],
    "metadata": ["x", 5, ["x"], {str(n): "" for n in range(21)}],
}  # fmt: skip


@pytest.mark.parametrize("field", BAD)
async def test_a_bad_field_is_400_and_nothing_is_stored(world: World, partner: Partner, field):
    async with world.unchanged():
        for value in BAD[field]:
            answer = await partner.post(IDENTITY, {"email": new_email(), field: value})
            assert answer.differs(400, invalid(field)) == [], value


@pytest.mark.parametrize("value", ["x" * 501, 5, None])
async def test_metadata_has_string_values_of_at_most_500_characters(partner: Partner, value):
    answer = await partner.post(IDENTITY, {"email": new_email(), "metadata": {"a": value}})
    assert answer.differs(400, invalid("metadata.a")) == []


async def test_no_e_mail_is_400_in_the_body_and_in_the_query(partner: Partner):
    assert (await partner.post(IDENTITY, {})).differs(400, invalid("email")) == []
    for query in ("", "?email=", "?email=nobody", "?email=%00"):
        answer = await partner.get(f"{IDENTITY}{query}")
        assert answer.differs(400, invalid("email")) == []


async def test_all_bad_fields_are_named_at_once(partner: Partner):
    bad = {"email": "x", "external_user_id": 5, "redirect_url": "x", "metadata": "x"}
    assert (await partner.post(IDENTITY, bad)).differs(400, invalid(*bad)) == []


async def test_a_redirect_url_off_the_list_is_400_flat_not_e3(partner: Partner):
    listed = "https://shop.example.org/back"
    await partner.put("/api/developer/redirect-urls", {"urls": [listed]})
    for url, status in (
        (listed, 201),
        (f"{listed}/again?x=1", 201),
        ("https://shop.example.org/backdoor", 400),
        ("https://other.example.org/back", 400),
    ):
        body = {"email": new_email(), "redirect_url": url}
        answer = await partner.post(IDENTITY, body)
        assert answer.status == status, url
        if status == 400:
            assert answer.differs(400, invalid("redirect_url")) == []


async def test_a_blocked_domain_is_403(world: World, partner: Partner, another_door):
    async with another_door(blocked_email_domains=frozenset({"blocked.example"})) as session:
        async with world.unchanged():
            answer = await partner.by(session).post(IDENTITY, {"email": "a@blocked.example"})
            assert answer.differs(403, e1(403)) == []
        answer = await partner.by(session).post(IDENTITY, {"email": "a@other.example"})
        assert answer.status == 201


async def test_a_bad_id_is_400_e1_and_an_unknown_one_or_anothers_404(world: World, partner):
    made = (await partner.post(IDENTITY, {"email": new_email()})).body
    stranger = await world.partner()
    for odd in ("x", "0" * 23, "F" * 24, "%00"):
        assert (await partner.get(f"{IDENTITY}/{odd}")).differs(400, e1(400)) == []
    for who, one in ((partner, "0" * 24), (stranger, made["id"])):
        assert (await who.get(f"{IDENTITY}/{one}")).differs(404, e1(404)) == []
