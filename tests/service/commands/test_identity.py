"""Identity verifications: asked for, mailed, decided, linked; and what happens when they race."""

import asyncio
import hashlib
from dataclasses import replace
from datetime import timedelta
from typing import Any

import asyncpg
import orjson
import pytest

from service.commands import checks, escrows, identity, sessions, users
from service.commands.developers import allow_redirects
from service.commands.mails import open_mailbox
from service.commands.perform import Answer, House, Idempotency, perform
from service.commands.registration import follow_link
from service.gateways.post import HttpPost
from service.rules.errors import (
    Forbidden,
    IdentityApproved,
    Invalid,
    Refused,
    SellerNotReady,
    VerificationDecided,
    VerificationExpired,
    VerificationNotFound,
)
from service.rules.identity import LINKED, UPDATED
from service.rules.machine import Actor, ActorKind
from service.store.identity import read_of_email, read_undecided, read_verification
from service.wire.identity import NewVerification, VerificationMade
from service.wire.sessions import NewSession
from tests.books import count_rows, read_log
from tests.makers import Shop, arrange, jump, make_buyer, make_escrow, make_shop, reread
from tests.outbox import WORDS, send_all, tokens_of
from tests.receiver import make_endpoint, receiving, verify
from tests.service.commands.asking import refused as refused_here
from workers.webhooks import Courier

pytestmark = pytest.mark.usefixtures("sound")

NEW = "new@example.org"
DAYS_90 = timedelta(days=90)
BACK = "https://shop.example/back"
OPERATOR = Actor(ActorKind.OPERATOR)


@pytest.fixture
def live(house: House) -> House:
    """The same house, with money that is real."""
    return House(house.pool, replace(house.policy, environment="live"), house.vault, house.bell)


async def ask(house: House, shop: Shop, email: str = NEW, **fields: Any) -> tuple[int, Any]:
    wanted = NewVerification.model_validate({"email": email, **fields})
    answer: Answer = await perform(
        house,
        shop.actor,
        identity.request(shop.developer_id, wanted),
        status=lambda told: 201 if isinstance(told, VerificationMade) else 200,
    )
    return answer.status, orjson.loads(answer.body)


async def decide(house: House, verification_id: str, *, approves: bool = True) -> Any:
    command = identity.decide(verification_id, approves=approves)
    return orjson.loads((await perform(house, OPERATOR, command)).body)


async def register(house: House, email: str = NEW, **options: Any) -> str:
    user = await arrange(house, lambda tx: users.register(tx, email, "Nour", "Z", **options))
    user_id: str = user.person.id
    return user_id


async def told(house: House, verification_id: str) -> list[tuple[str, Any]]:
    """Type and body of the webhooks about it, in order."""
    rows = await house.pool.fetch(
        "SELECT v.type, b.body FROM event v JOIN webhook_body b ON b.event_id = v.id"
        " WHERE v.subject_id = $1 ORDER BY v.seq",
        verification_id,
    )
    return [(row["type"], orjson.loads(row["body"])["data"]) for row in rows]


async def steps(house: House, verification_id: str) -> list[str]:
    return [step for step, _, _ in await read_log(house, verification_id)]


async def minutes_pass(owner: asyncpg.Connection, minutes: float) -> None:
    """Real time goes by, as far as the mailed links are concerned."""
    await owner.execute(
        "UPDATE identity_verification SET mailed_at = mailed_at - $1::interval",
        timedelta(minutes=minutes),
    )


async def mails_to(house: House, email: str = NEW) -> list[tuple[str, str]]:
    rows = await house.pool.fetch(
        "SELECT template, language FROM mail WHERE recipient = $1 ORDER BY created_at, id", email
    )
    return [tuple(row) for row in rows]


# ---- The sandbox --------------------------------------------------------------------------------


async def test_the_sandbox_approves_at_once_without_a_mail(house: House) -> None:
    shop = await make_shop(house)
    status, made = await ask(house, shop, external_user_id="u-1", metadata={"a": "b"})
    assert status == 201
    assert made == {
        "id": made["id"],
        "email": NEW,
        "external_user_id": "u-1",
        "kyc_status": "approved",
        "didit_session_status": "completed",
        "needs_admin_review": False,
        "claim_status": "pending",
        "linked_user_id": None,
        "linked_at": None,
        "created_at": made["created_at"],
        "updated_at": made["created_at"],
        "expires_at": made["expires_at"],
        "verification_email_sent": False,
        "verification_email_sent_at": None,
        "message": identity.AT_ONCE,
    }
    found = await read_verification(house.pool, made["id"])
    assert found is not None
    assert found.expires_at - found.created_at == DAYS_90
    assert (found.metadata, found.token_hash) == ({"a": "b"}, None)
    assert await mails_to(house) == []
    assert await told(house, made["id"]) == [
        (
            UPDATED,
            {
                "id": made["id"],
                "external_user_id": "u-1",
                "email": NEW,
                "kyc_status": "approved",
                "previous_kyc_status": "pending",
                "needs_admin_review": False,
                "linked_user_id": None,
                "status_source": "sandbox",
                "claim_status": "pending",
                "updated_at": made["updated_at"],
            },
        )
    ]


async def test_what_was_approved_is_asked_anew_until_the_person_registers(house: House) -> None:
    shop = await make_shop(house)
    ids = [(await ask(house, shop))[1]["id"] for _ in range(2)]
    assert len(set(ids)) == 2
    listed = await read_of_email(house.pool, shop.developer_id, NEW)
    assert [one.id for one in listed] == list(reversed(ids))
    await register(house)
    other = await make_shop(house)
    rows = await count_rows(house)
    for asking in (shop, other):
        with pytest.raises(IdentityApproved):
            await ask(house, asking)
    assert await count_rows(house) == rows


# ---- Linking ------------------------------------------------------------------------------------


async def test_registering_links_every_developers_records(house: House) -> None:
    shops = [await make_shop(house) for _ in range(2)]
    ids = [(await ask(house, shop))[1]["id"] for shop in shops]
    others = (await ask(house, shops[0], "other@example.org"))[1]["id"]
    user_id = await register(house)
    for verification_id in ids:
        linked = await read_verification(house.pool, verification_id)
        assert linked is not None
        assert linked.linked_user_id == user_id
        [_, (event_type, body)] = await told(house, verification_id)
        assert event_type == LINKED
        assert body == {
            "id": verification_id,
            "external_user_id": None,
            "email": NEW,
            "kyc_status": "approved",
            "linked_user_id": user_id,
            "linked_at": body["linked_at"],
        }
        assert await steps(house, verification_id) == ["create", "approve", "link"]
    unlinked = await read_verification(house.pool, others)
    assert unlinked is not None
    assert unlinked.linked_user_id is None


async def test_following_an_invitation_links_too_also_where_the_account_was_unverified(
    house: House,
) -> None:
    shop = await make_shop(house)
    await make_escrow(house, shop, buyer_email=NEW)
    verification_id = (await ask(house, shop))[1]["id"]
    user_id = await register(house, is_email_verified=False)
    assert await steps(house, verification_id) == ["create", "approve"]
    [token] = await tokens_of(house, NEW)
    await arrange(house, lambda tx: follow_link(tx, token, "Nour", "Z"))
    linked = await read_verification(house.pool, verification_id)
    assert linked is not None
    assert linked.linked_user_id == user_id


async def test_the_record_of_a_registered_user_is_linked_at_once(house: House) -> None:
    shop, buyer = await make_shop(house), await make_buyer(house)
    status, made = await ask(house, shop, buyer.email)
    assert (status, made["claim_status"], made["linked_user_id"]) == (201, "linked", buyer.user_id)
    assert await steps(house, made["id"]) == ["create", "approve", "link"]
    assert [event for event, _ in await told(house, made["id"])] == [UPDATED, LINKED]


async def test_an_unverified_e_mail_is_nobodys_and_is_not_linked(house: House) -> None:
    shop = await make_shop(house)
    await register(house, is_email_verified=False)
    assert (await ask(house, shop))[1]["claim_status"] == "pending"


async def test_asking_and_registering_at_once_never_leave_it_unlinked(house: House) -> None:
    shop = await make_shop(house)
    for n in range(8):
        email = f"user{n}@example.org"
        (_, made), user_id = await asyncio.gather(ask(house, shop, email), register(house, email))
        found = await read_verification(house.pool, made["id"])
        assert found is not None
        assert found.linked_user_id == user_id


# ---- Live ---------------------------------------------------------------------------------------


async def test_live_the_person_is_mailed_a_link_whose_hash_alone_is_kept(live: House) -> None:
    shop = await make_shop(live, company="Shop & Co")
    status, made = await ask(live, shop)
    assert status == 201
    assert (made["kyc_status"], made["didit_session_status"]) == ("pending", "in_progress")
    assert (made["needs_admin_review"], made["claim_status"]) == (False, "pending")
    assert made["verification_email_sent"] is True
    assert made["verification_email_sent_at"] is not None
    assert made["message"] == identity.MAILED
    assert await told(live, made["id"]) == []
    await send_all(live)
    [mail] = await open_mailbox(live.pool, WORDS, live.policy, live.vault, NEW)
    [link] = mail.links
    start, _, token = link.rpartition("/")
    assert start == "http://amana.test/identity"
    assert len(token) == 43
    kept = await live.pool.fetchrow("SELECT * FROM identity_verification")
    assert kept["token_hash"] == hashlib.sha256(token.encode()).digest()
    facts = await live.pool.fetchval("SELECT facts::text FROM mail WHERE recipient = $1", NEW)
    assert token not in facts
    assert token not in str(dict(kept))


async def test_while_it_is_pending_the_same_record_is_answered_and_mailed_every_five_minutes(
    live: House, owner: asyncpg.Connection
) -> None:
    shop = await make_shop(live)
    _, made = await ask(live, shop, external_user_id="first")
    status, again = await ask(live, shop, external_user_id="second")
    assert status == 200
    assert again == {**made, "message": identity.MAILED_JUST_NOW}
    await minutes_pass(owner, 4.9)
    assert (await ask(live, shop))[1]["message"] == identity.MAILED_JUST_NOW
    assert len(await mails_to(live)) == 1
    await minutes_pass(owner, 0.2)
    status, third = await ask(live, shop)
    assert (status, third["id"], third["message"]) == (200, made["id"], identity.MAILED_AGAIN)
    assert third["verification_email_sent_at"] > again["verification_email_sent_at"]
    assert (await ask(live, shop))[1]["message"] == identity.MAILED_JUST_NOW
    assert await mails_to(live) == [("identity_verification", "en")] * 2
    await send_all(live)
    mails = await open_mailbox(live.pool, WORDS, live.policy, live.vault, NEW)
    assert len(mails) == 2
    assert mails[0].links == mails[1].links
    assert await steps(live, made["id"]) == ["create", "remind"]


async def test_the_mail_speaks_the_users_language(live: House) -> None:
    shop = await make_shop(live)
    await register(live, language="ar")
    await ask(live, shop)
    assert await mails_to(live) == [("identity_verification", "ar")]


@pytest.mark.parametrize(("approves", "status"), [(True, "approved"), (False, "rejected")])
async def test_the_operator_decides_once(live: House, approves: bool, status: str) -> None:
    shop = await make_shop(live)
    made = (await ask(live, shop))[1]
    decided = await decide(live, made["id"], approves=approves)
    assert (decided["kyc_status"], decided["didit_session_status"]) == (status, "completed")
    [(event_type, body)] = await told(live, made["id"])
    assert event_type == UPDATED
    assert (body["kyc_status"], body["previous_kyc_status"]) == (status, "pending")
    assert (body["status_source"], body["claim_status"]) == ("admin_review", "pending")
    for again in (True, False):
        with pytest.raises(VerificationDecided, match=status):
            await decide(live, made["id"], approves=again)
    assert await read_log(live, made["id"]) == [
        ("create", None, "developer"),
        ("approve" if approves else "reject", UPDATED, "operator"),
    ]
    assert (await ask(live, shop))[0] == 201  # it is not pending, and nobody is registered


async def test_one_that_is_decided_is_mailed_no_more(live: House) -> None:
    shop = await make_shop(live)
    await decide(live, (await ask(live, shop))[1]["id"])
    await send_all(live)
    mails = await open_mailbox(live.pool, WORDS, live.policy, live.vault, NEW)
    assert [mail.subject for mail in mails] == ["Your identity is verified"]
    state = "SELECT state FROM mail WHERE recipient = $1"
    assert await live.pool.fetchval(state, NEW) == "cancelled"


async def test_nothing_can_be_decided_that_is_not_there(live: House) -> None:
    with pytest.raises(VerificationNotFound):
        await decide(live, "0" * 24)


async def test_what_is_linked_while_it_is_pending_is_decided_for_the_user(live: House) -> None:
    shop = await make_shop(live)
    made = (await ask(live, shop))[1]
    user_id = await register(live)
    status, again = await ask(live, shop)
    assert (status, again["id"], again["linked_user_id"]) == (200, made["id"], user_id)
    await decide(live, made["id"])
    [(first, linked), (second, updated)] = await told(live, made["id"])
    assert (first, linked["kyc_status"]) == (LINKED, "pending")
    assert (second, updated["linked_user_id"]) == (UPDATED, user_id)
    assert updated["claim_status"] == "linked"
    with pytest.raises(IdentityApproved):
        await ask(live, shop)


async def test_a_rejected_user_may_be_asked_again(live: House) -> None:
    shop = await make_shop(live)
    await register(live)
    made = (await ask(live, shop))[1]
    await decide(live, made["id"], approves=False)
    status, again = await ask(live, shop)
    assert (status, again["kyc_status"], again["claim_status"]) == (201, "pending", "linked")
    assert again["id"] != made["id"]


async def test_past_90_days_a_pending_one_is_lost_to_its_e_mail_and_asked_anew(
    live: House,
) -> None:
    shop = await make_shop(live)
    made = (await ask(live, shop))[1]
    await jump(live, DAYS_90 - timedelta(minutes=1))
    assert (await ask(live, shop))[1]["id"] == made["id"]
    assert [v.id for v in await read_of_email(live.pool, shop.developer_id, NEW)] == [made["id"]]
    assert [v.id for v in await read_undecided(live.pool, 10)] == [made["id"]]
    await jump(live, timedelta(minutes=1))
    assert await read_of_email(live.pool, shop.developer_id, NEW) == []
    assert await read_undecided(live.pool, 10) == []
    with pytest.raises(VerificationExpired):
        await decide(live, made["id"])
    status, new = await ask(live, shop)
    assert status == 201
    assert new["id"] != made["id"]
    assert [v.id for v in await read_of_email(live.pool, shop.developer_id, NEW)] == [new["id"]]
    old = await read_verification(live.pool, made["id"])
    assert old is not None
    assert (old.kyc_status, old.superseded) == ("pending", True)
    assert await steps(live, made["id"]) == ["create", "replace"]
    user_id = await register(live)
    assert await steps(live, made["id"]) == ["create", "replace"]
    linked = await read_verification(live.pool, new["id"])
    assert linked is not None
    assert linked.linked_user_id == user_id


async def test_what_was_decided_stays_found(live: House) -> None:
    shop = await make_shop(live)
    made = (await ask(live, shop))[1]
    await decide(live, made["id"])
    await jump(live, 2 * DAYS_90)
    assert [v.id for v in await read_of_email(live.pool, shop.developer_id, NEW)] == [made["id"]]


async def test_the_newest_twenty_are_listed(house: House) -> None:
    shop = await make_shop(house)
    ids = [(await ask(house, shop))[1]["id"] for _ in range(22)]
    listed = await read_of_email(house.pool, shop.developer_id, NEW)
    assert [one.id for one in listed] == list(reversed(ids))[:20]


# ---- Refusals -----------------------------------------------------------------------------------


async def refused(house: House, shop: Shop, kind: type[Refused], **fields: Any) -> Refused:
    before = await count_rows(house)
    with pytest.raises(kind) as raised:
        await ask(house, shop, **fields)
    assert await count_rows(house) == before
    assert await house.pool.fetchval("SELECT count(*) FROM identity_verification") == 0
    return raised.value


async def test_a_blocked_domain_is_refused(house: House) -> None:
    shop = await make_shop(house)
    await refused(house, shop, Forbidden, email="a@mailinator.com")
    policy = replace(house.policy, blocked_email_domains=frozenset({"example.org"}))
    strict = House(house.pool, policy, house.vault, house.bell)
    await refused(strict, shop, Forbidden, email=NEW)
    assert (await ask(strict, shop, "a@mailinator.com"))[0] == 201


async def test_a_redirect_url_must_be_on_the_list_where_there_is_one(house: House) -> None:
    shop = await make_shop(house)
    inside, outside = "https://shop.example/app/done", "https://shop.example/apple"
    assert (await ask(house, shop, redirect_url=outside))[0] == 201
    other = await make_shop(house)
    await arrange(
        house, lambda tx: allow_redirects(tx, other.developer_id, ["https://shop.example/app"])
    )
    with pytest.raises(Invalid) as raised:
        await ask(house, other, redirect_url=outside)
    assert raised.value.details == {"redirect_url": "must be on your list of redirect URLs"}
    assert (await ask(house, other, redirect_url=inside))[0] == 201


# ---- Races --------------------------------------------------------------------------------------


async def test_two_who_ask_at_once_get_one_record(live: House) -> None:
    shop = await make_shop(live)
    answers = await asyncio.gather(*(ask(live, shop) for _ in range(6)))
    assert sorted(status for status, _ in answers) == [200] * 5 + [201]
    assert len({answer["id"] for _, answer in answers}) == 1
    assert await mails_to(live) == [("identity_verification", "en")]


async def test_two_developers_who_ask_at_once_get_one_record_each(live: House) -> None:
    shops = [await make_shop(live) for _ in range(3)]
    answers = await asyncio.gather(*(ask(live, shop) for shop in shops))
    assert [status for status, _ in answers] == [201] * 3
    assert len({answer["id"] for _, answer in answers}) == 3


async def test_two_who_remind_at_once_send_one_mail(live: House, owner: asyncpg.Connection) -> None:
    shop = await make_shop(live)
    await ask(live, shop)
    await minutes_pass(owner, 6)
    await asyncio.gather(*(ask(live, shop) for _ in range(5)))
    assert len(await mails_to(live)) == 2


async def test_two_operators_who_decide_at_once_decide_once(live: House) -> None:
    made = (await ask(live, await make_shop(live)))[1]
    outcomes = await asyncio.gather(
        *(decide(live, made["id"], approves=n % 2 == 0) for n in range(4)), return_exceptions=True
    )
    assert sum(isinstance(outcome, VerificationDecided) for outcome in outcomes) == 3
    assert len(await told(live, made["id"])) == 1


async def test_deciding_and_registering_at_once_lose_nothing(live: House) -> None:
    shop = await make_shop(live)
    for n in range(6):
        email = f"user{n}@example.org"
        made = (await ask(live, shop, email))[1]
        user_id, _ = await asyncio.gather(register(live, email), decide(live, made["id"]))
        found = await read_verification(live.pool, made["id"])
        assert found is not None
        assert (found.kyc_status, found.linked_user_id) == ("approved", user_id)
        assert sorted(event for event, _ in await told(live, made["id"])) == [LINKED, UPDATED]


async def test_the_same_key_gives_the_same_answer_whatever_the_status_was(live: House) -> None:
    shop = await make_shop(live)
    wanted = NewVerification.model_validate({"email": NEW})

    async def keyed(key: str) -> Answer:
        return await perform(
            live,
            shop.actor,
            identity.request(shop.developer_id, wanted),
            status=lambda told: 201 if isinstance(told, VerificationMade) else 200,
            idempotency=Idempotency(shop.developer_id, key, hashlib.sha256(b"r").digest()),
        )

    first, second = await keyed("a"), await keyed("b")
    assert (first.status, second.status) == (201, 200)
    assert (await keyed("a")) == replace(first, replayed=True)
    assert (await keyed("b")) == replace(second, replayed=True)


# ---- What holds, and what is delivered ----------------------------------------------------------


async def test_a_gap_in_its_log_is_a_breach(house: House, owner: asyncpg.Connection) -> None:
    made = (await ask(house, await make_shop(house)))[1]
    assert {result.id for result in await checks.check_all(house) if not result.ok} == set()
    await owner.execute("UPDATE identity_verification SET seq = 7 WHERE id = $1", made["id"])
    broken = {result.id: result for result in await checks.check_all(house) if not result.ok}
    assert set(broken) == {"F"}
    [breach] = broken["F"].breaches
    assert (breach.subject, breach.escrow_id) == (made["id"], None)
    await owner.execute("UPDATE identity_verification SET seq = 2 WHERE id = $1", made["id"])


async def test_the_developer_that_asked_is_told_and_nobody_else(
    house: House, post: HttpPost
) -> None:
    shop, stranger = await make_shop(house), await make_shop(house)
    courier = Courier(house, post, chance=lambda: 0.5)
    async with receiving() as receiver, receiving() as other:
        made = await make_endpoint(house, shop, receiver.url, events=["identity.*"])
        await make_endpoint(house, shop, receiver.url, events=["escrow.*"])
        await make_endpoint(house, stranger, other.url, events=["*"])
        verification_id = (await ask(house, shop))[1]["id"]
        await register(house)
        await courier.settle_all()
        await courier.close(grace_seconds=0)
        receiver.parcels.sort(key=lambda parcel: parcel.headers["webhook-id"])
        assert receiver.types == [UPDATED, LINKED]
        assert other.parcels == []
        for parcel in receiver.parcels:
            verify(parcel, made["secret"])
            assert orjson.loads(parcel.body)["data"]["id"] == verification_id


# What waits for it -------------------------------------------------------------------------------


async def test_nobody_pays_a_seller_whose_identity_the_creator_still_waits_for(live: House) -> None:
    shop, buyer, seller = await make_shop(live), await make_buyer(live), await make_buyer(live)
    sale = await make_escrow(live, shop, buyer, mode="quick", seller_email=seller.email)
    _, asked = await ask(live, shop, seller.email)
    paying = escrows.pay(sale.id)
    refusal = await refused_here(live, SellerNotReady, buyer.actor, paying, sale.id)
    assert refusal.code == "SELLER_NOT_READY"
    await arrange(live, lambda tx: allow_redirects(tx, shop.developer_id, [BACK]))
    session = NewSession.model_validate(
        {"action": "accept_pay", "targetUserEmail": buyer.email, "redirectUrl": BACK}
    )
    making = sessions.create(shop.developer_id, sale.id, session)
    await refused_here(live, SellerNotReady, shop.actor, making, sale.id)
    await perform(live, OPERATOR, identity.decide(asked["id"], approves=True))
    await perform(live, buyer.actor, paying)
    assert (await reread(live, sale.id)).status == "paid"


@pytest.mark.parametrize("how", ["another developer", "expired", "rejected"])
async def test_a_check_that_is_not_the_creators_or_is_over_stops_no_payment(
    live: House, how: str
) -> None:
    shop, buyer, seller = await make_shop(live), await make_buyer(live), await make_buyer(live)
    asker = await make_shop(live) if how == "another developer" else shop
    _, asked = await ask(live, asker, seller.email)
    if how == "expired":
        await jump(live, DAYS_90 + timedelta(seconds=1))
    if how == "rejected":
        await perform(live, OPERATOR, identity.decide(asked["id"], approves=False))
    sale = await make_escrow(live, shop, buyer, mode="quick", seller_email=seller.email)
    await perform(live, buyer.actor, escrows.pay(sale.id))
    assert (await reread(live, sale.id)).status == "paid"
