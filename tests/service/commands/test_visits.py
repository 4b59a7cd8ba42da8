"""Codes that prove an e-mail or a phone, and the sessions of those who have."""

import asyncio
import dataclasses

import asyncpg
import pytest

from service.commands.mails import open_mailbox
from service.commands.perform import House
from service.commands.visits import (
    PER_EMAIL_MAX,
    PER_IP_MAX,
    PER_PHONE_MAX,
    PHONE,
    SIGN_IN,
    TRIES_MAX,
    HouseSessions,
    Proof,
    ask_code,
    ask_phone_code,
    try_code,
)
from service.rules.errors import TooManyCodes
from service.store.users import read_user
from service.store.vault import Vault, hash_token
from service.store.visits import Visit
from tests.house import SECRET_KEY
from tests.makers import make_buyer
from tests.outbox import WORDS, send_all
from workers.retention import tidy

EMAIL, IP, PHONE_NUMBER = "nour@example.org", "203.0.113.7", "+21620123456"


async def asked(house: House, email: str = EMAIL) -> tuple[str, str]:
    """The id of a new code, and its digits."""
    code_id = await ask_code(house, email, IP, "en")
    return code_id, house.vault.code(SIGN_IN, code_id)


async def later(owner: asyncpg.Connection, seconds: int) -> None:
    """So much time goes by for every code and session."""
    for table in ("sign_in_code", "visit"):
        await owner.execute(
            f"UPDATE {table} SET created_at = created_at - make_interval(secs => $1),"
            " expires_at = expires_at - make_interval(secs => $1)",
            seconds,
        )


async def proof(house: House, code_id: str, digits: str, purpose: str = SIGN_IN) -> Proof:
    return (await try_code(house, purpose, code_id, digits)).proof


async def test_a_code_is_right_once(house: House) -> None:
    code_id, digits = await asked(house)
    assert len(digits) == 6
    assert digits.isdigit()
    tried = await try_code(house, SIGN_IN, code_id, digits)
    assert (tried.proof, tried.code and tried.code.email) == (Proof.RIGHT, EMAIL)
    assert await proof(house, code_id, digits) is Proof.OVER


async def test_two_who_have_the_right_code_at_once_are_one(house: House) -> None:
    code_id, digits = await asked(house)
    proofs = await asyncio.gather(*(proof(house, code_id, digits) for _ in range(5)))
    assert sorted(one.value for one in proofs) == ["over"] * 4 + ["right"]


async def test_the_fifth_wrong_try_ends_it_and_none_goes_uncounted(house: House) -> None:
    code_id, digits = await asked(house)
    wrong = str((int(digits) + 1) % 10**6).zfill(6)
    proofs = await asyncio.gather(*(proof(house, code_id, wrong) for _ in range(TRIES_MAX)))
    assert sorted(one.value for one in proofs) == ["over", *["wrong"] * 4]
    assert await proof(house, code_id, digits) is Proof.OVER


@pytest.mark.parametrize(
    "given", ["", "abc", "\uff11\uff12\uff13\uff14\uff15\uff16", "0" * 4000, "12345"]
)
async def test_what_is_no_code_is_wrong(house: House, given: str) -> None:
    code_id, _ = await asked(house)
    assert await proof(house, code_id, given) is Proof.WRONG


async def test_after_ten_minutes_it_is_over(house: House, owner: asyncpg.Connection) -> None:
    code_id, digits = await asked(house)
    await later(owner, 599)
    assert await proof(house, code_id, str((int(digits) + 1) % 10**6).zfill(6)) is Proof.WRONG
    await later(owner, 2)
    assert await proof(house, code_id, digits) is Proof.OVER


async def test_a_code_is_of_one_address_and_one_purpose(house: House) -> None:
    code_id, digits = await asked(house)
    other, _ = await asked(house, "other@example.org")
    if house.vault.code(SIGN_IN, other) != digits:
        assert await proof(house, other, digits) is Proof.WRONG
    assert await proof(house, code_id, digits, PHONE) is Proof.OVER
    assert await proof(house, "0" * 24, digits) is Proof.OVER


async def test_it_is_known_under_an_older_key_too(house: House) -> None:
    code_id, digits = await asked(house)
    rotated = dataclasses.replace(house, vault=Vault(["another-secret-key" * 3, SECRET_KEY]))
    assert rotated.vault.code(SIGN_IN, code_id) != digits
    assert await proof(rotated, code_id, digits) is Proof.RIGHT


async def test_one_is_sent_each_half_minute_and_five_an_hour(
    house: House, owner: asyncpg.Connection
) -> None:
    for _ in range(PER_EMAIL_MAX):
        await asked(house)
        with pytest.raises(TooManyCodes):
            await asked(house)
        await later(owner, 31)
    with pytest.raises(TooManyCodes):
        await asked(house)
    await later(owner, 3600)
    await asked(house)


async def test_of_several_who_ask_at_once_one_is_sent_a_code(house: House) -> None:
    asking = [asked(house) for _ in range(5)]
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert sum(isinstance(one, TooManyCodes) for one in answers) == 4
    assert await house.pool.fetchval("SELECT count(*) FROM mail") == 1


async def test_an_address_of_the_internet_asks_for_thirty_an_hour(house: House) -> None:
    for n in range(PER_IP_MAX):
        await asked(house, f"somebody-{n}@example.org")
    with pytest.raises(TooManyCodes):
        await asked(house, "one-more@example.org")


async def test_a_phone_is_sent_five_codes_an_hour_whoever_asks(
    house: House, owner: asyncpg.Connection
) -> None:
    for n in range(PER_PHONE_MAX):
        await ask_phone_code(house, f"somebody-{n}@example.org", PHONE_NUMBER, None, "en")
    with pytest.raises(TooManyCodes):
        await ask_phone_code(house, "one-more@example.org", PHONE_NUMBER, None, "en")
    await ask_phone_code(house, "one-more@example.org", "+21620999999", None, "en")
    await later(owner, 3600)
    await ask_phone_code(house, "another@example.org", PHONE_NUMBER, None, "en")


async def test_who_asks_for_many_addresses_at_once_gets_no_more_than_one_by_one(
    house: House,
) -> None:
    asking = [asked(house, f"somebody-{n}@example.org") for n in range(PER_IP_MAX + 10)]
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert sum(isinstance(one, TooManyCodes) for one in answers) == 10
    assert await house.pool.fetchval("SELECT count(*) FROM mail") == PER_IP_MAX


async def test_a_code_is_mailed_in_the_language_of_whoever_has_the_account(
    house: House, owner: asyncpg.Connection
) -> None:
    buyer = await make_buyer(house)
    await owner.execute("UPDATE app_user SET language = 'ar' WHERE email = $1", buyer.email)
    await ask_code(house, buyer.email, IP, "fr")
    await ask_code(house, EMAIL, IP, "fr")
    mails = await house.pool.fetch(
        "SELECT recipient, language FROM mail WHERE template = 'sign_in_code'"
    )
    assert {row["recipient"]: row["language"] for row in mails} == {buyer.email: "ar", EMAIL: "fr"}


async def test_nothing_of_a_code_is_kept(house: House) -> None:
    code_id, digits = await asked(house)
    rows = await house.pool.fetch(
        "SELECT facts::text || dedupe_key AS said FROM mail"
        " UNION ALL SELECT c::text FROM sign_in_code c WHERE id = $1",
        code_id,
    )
    assert len(rows) == 2
    assert [row["said"] for row in rows if digits in row["said"]] == []


async def test_a_phone_is_verified_by_its_code(house: House) -> None:
    buyer = await make_buyer(house)
    code_id = await ask_phone_code(house, buyer.email, PHONE_NUMBER, IP, "en")
    digits = house.vault.code(PHONE, code_id)
    assert await proof(house, code_id, digits, SIGN_IN) is Proof.OVER
    assert await proof(house, code_id, digits, PHONE) is Proof.RIGHT
    user = await read_user(house.pool, buyer.email)
    assert user is not None
    assert user.person.is_phone_verified
    phone = "SELECT phone FROM app_user WHERE email = $1"
    assert await house.pool.fetchval(phone, buyer.email) == PHONE_NUMBER


async def test_a_codes_mail_leads_to_the_page_that_asks_for_it(house: House) -> None:
    buyer = await make_buyer(house)
    phone_id = await ask_phone_code(house, buyer.email, PHONE_NUMBER, IP, "en")
    code_id, _ = await asked(house)
    await send_all(house)
    for email, path in ((buyer.email, f"phone/{phone_id}"), (EMAIL, f"sign-in/{code_id}")):
        [mail] = await open_mailbox(house.pool, WORDS, house.policy, house.vault, email)
        assert mail.links == [f"{house.policy.public_url}/{path}"]


async def test_a_session_knows_who_has_registered_and_ends(
    house: House, owner: asyncpg.Connection
) -> None:
    sessions = HouseSessions(house)
    buyer = await make_buyer(house)
    known, unknown = hash_token("known"), hash_token("unknown")
    assert (await sessions.create(known, buyer.email)).user_id == buyer.user_id
    assert await sessions.create(unknown, EMAIL) == Visit(EMAIL)
    assert await sessions.find(hash_token("nobody")) is None
    await sessions.end(unknown)
    assert await sessions.find(unknown) is None
    await later(owner, 12 * 3600)
    assert await sessions.find(known) is None


async def test_what_is_over_is_tidied_away(house: House, owner: asyncpg.Connection) -> None:
    await asked(house)
    await HouseSessions(house).create(hash_token("t"), EMAIL)
    await tidy(house)
    count = "SELECT (SELECT count(*) FROM visit) + (SELECT count(*) FROM sign_in_code)"
    assert await house.pool.fetchval(count) == 2
    await later(owner, 13 * 3600)
    await tidy(house)
    assert await house.pool.fetchval(count) == 0
