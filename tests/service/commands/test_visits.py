"""Codes that prove an e-mail or a phone, and the sessions of those who have."""

import asyncio
import dataclasses

import asyncpg
import pytest
from structlog.testing import capture_logs

from service.commands.mails import SIGN_IN_LINK, open_mailbox
from service.commands.perform import House
from service.commands.visits import (
    PER_EMAIL_MAX,
    PER_IP_MAX,
    PER_NETWORK_MAX,
    PER_PHONE_MAX,
    PHONE,
    SIGN_IN,
    TRIES_MAX,
    HouseSessions,
    Proof,
    ask_code,
    ask_phone_code,
    follow_link,
    network_of,
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
ELSEWHERE = "198.51.100.9"
OWN, OTHER = hash_token("her browser"), hash_token("another browser")


async def asked(
    house: House, email: str = EMAIL, *, ip: str | None = IP, browser: bytes | None = None
) -> tuple[str, str]:
    """The id of a new code, and its digits."""
    code_id = await ask_code(house, email, ip, "en", browser)
    return code_id, house.vault.code(SIGN_IN, code_id)


async def later(owner: asyncpg.Connection, seconds: int) -> None:
    """So much time goes by for every code and session."""
    for table in ("sign_in_code", "visit"):
        await owner.execute(
            f"UPDATE {table} SET created_at = created_at - make_interval(secs => $1),"
            " expires_at = expires_at - make_interval(secs => $1)",
            seconds,
        )


async def proof(
    house: House, code_id: str, digits: str, purpose: str = SIGN_IN, browser: bytes | None = None
) -> Proof:
    return (await try_code(house, purpose, code_id, digits, browser)).proof


async def link(house: House, email: str = EMAIL) -> str:
    """The token of the link in the newest mail to this address."""
    await send_all(house)
    mails = await open_mailbox(house.pool, WORDS, house.policy, house.vault, email)
    return mails[0].links[0].rpartition("/")[2]


async def test_a_code_is_right_once(house: House) -> None:
    code_id, digits = await asked(house)
    assert len(digits) == 6
    assert digits.isdigit()
    tried = await try_code(house, SIGN_IN, code_id, digits, None)
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
    for _ in range(PER_NETWORK_MAX):
        await asked(house)
        with pytest.raises(TooManyCodes):
            await asked(house)
        await later(owner, 31)
    with pytest.raises(TooManyCodes):
        await asked(house)
    await later(owner, 3600)
    await asked(house)


async def test_codes_that_others_ask_for_and_try_keep_nobody_out(
    house: House, owner: asyncpg.Connection
) -> None:
    for _ in range(PER_NETWORK_MAX):
        theirs, digits = await asked(house, ip=ELSEWHERE, browser=OTHER)
        wrong = str((int(digits) + 1) % 10**6).zfill(6)
        for _ in range(TRIES_MAX):
            await proof(house, theirs, wrong, browser=OTHER)
        await later(owner, 31)
    with pytest.raises(TooManyCodes):
        await asked(house, ip="198.51.100.200", browser=OTHER)
    code_id, digits = await asked(house, browser=OWN)
    assert await proof(house, code_id, digits, browser=OWN) is Proof.RIGHT


async def test_where_an_address_was_sent_too_many_the_last_mails_link_still_works(
    house: House, owner: asyncpg.Connection
) -> None:
    for n in range(PER_EMAIL_MAX):
        browser = hash_token(f"browser {n}")
        last, digits = await asked(house, ip=f"198.51.{n}.1", browser=browser)
    wrong = str((int(digits) + 1) % 10**6).zfill(6)
    for _ in range(TRIES_MAX):
        await proof(house, last, wrong, browser=browser)
    await later(owner, 3500)
    with pytest.raises(TooManyCodes):
        await asked(house, browser=OWN)
    tried = await follow_link(house, last, house.vault.link_token(SIGN_IN_LINK, last))
    assert (tried.proof, tried.code and tried.code.email) == (Proof.RIGHT, EMAIL)


async def test_only_the_browser_that_asked_gives_the_code_and_others_burn_no_try(
    house: House,
) -> None:
    code_id, digits = await asked(house, browser=OWN)
    for given in [digits] * (TRIES_MAX + 1):
        assert await proof(house, code_id, given, browser=OTHER) is Proof.ELSEWHERE
        assert await proof(house, code_id, given) is Proof.ELSEWHERE
    assert await proof(house, code_id, digits, browser=OWN) is Proof.RIGHT


async def test_a_mailed_link_is_right_once_and_for_an_hour(
    house: House, owner: asyncpg.Connection
) -> None:
    code_id, _ = await asked(house, browser=OWN)
    token = await link(house)
    for forged in ("", "A" * 43, house.vault.link_token(SIGN_IN, code_id), token + "="):
        assert (await follow_link(house, code_id, forged)).proof is Proof.WRONG
    answers = await asyncio.gather(*(follow_link(house, code_id, token) for _ in range(3)))
    assert sorted(one.proof.value for one in answers) == ["over", "over", "right"]
    await later(owner, 3600)
    late, _ = await asked(house, browser=OWN)
    await later(owner, 3599)
    await tidy(house)
    await later(owner, 2)
    over = await follow_link(house, late, house.vault.link_token(SIGN_IN_LINK, late))
    assert over.proof is Proof.OVER


async def test_a_code_that_was_used_leaves_no_link_and_a_phones_has_none(house: House) -> None:
    code_id, digits = await asked(house, browser=OWN)
    assert await proof(house, code_id, digits, browser=OWN) is Proof.RIGHT
    over = await follow_link(house, code_id, house.vault.link_token(SIGN_IN_LINK, code_id))
    assert over.proof is Proof.OVER
    buyer = await make_buyer(house)
    phone_id = await ask_phone_code(house, buyer.email, PHONE_NUMBER, IP, "en")
    none = await follow_link(house, phone_id, house.vault.link_token(SIGN_IN_LINK, phone_id))
    assert none.proof is Proof.WRONG


async def test_a_browser_that_asks_twice_at_once_is_sent_one_code(
    house: House, owner: asyncpg.Connection
) -> None:
    answers = await asyncio.gather(*(asked(house, browser=OWN) for _ in range(4)))
    assert len(set(answers)) == 1
    assert await house.pool.fetchval("SELECT count(*) FROM mail") == 1
    with pytest.raises(TooManyCodes):
        await asked(house, browser=OTHER)
    await later(owner, 31)
    code_id, digits = await asked(house, browser=OWN)
    assert (code_id, digits) != answers[0]
    wrong = str((int(digits) + 1) % 10**6).zfill(6)
    for _ in range(TRIES_MAX):
        await proof(house, code_id, wrong, browser=OWN)
    with pytest.raises(TooManyCodes):  # nobody is led back to what is over
        await asked(house, browser=OWN)


@pytest.mark.parametrize(
    ("ip", "network"),
    [
        ("203.0.113.7", "203.0.113.0/24"),
        ("2001:db8:1:2::3", "2001:db8:1::/48"),
        ("somewhere", "somewhere"),
        (None, None),
    ],
)
def test_what_shares_a_network(ip: str | None, network: str | None) -> None:
    assert network_of(ip) == network


async def test_a_refused_address_of_the_internet_is_told_to_the_operator_with_the_setting(
    house: House,
) -> None:
    with capture_logs() as lines:
        for n in range(PER_IP_MAX):
            await asked(house, f"somebody-{n}@example.org")
        assert lines == []
        with pytest.raises(TooManyCodes):
            await asked(house, "one-more@example.org")
    (told,) = map(str, lines)
    assert "TRUSTED_PROXIES" in told
    assert IP in told
    assert "one-more" not in told


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
    await ask_code(house, buyer.email, IP, "fr", None)
    await ask_code(house, EMAIL, IP, "fr", None)
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
    secrets = (digits, house.vault.link_token(SIGN_IN_LINK, code_id))
    assert [row["said"] for row in rows if any(one in row["said"] for one in secrets)] == []


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


async def test_a_codes_mail_leads_to_its_page_and_the_one_to_sign_in_signs_in(
    house: House,
) -> None:
    buyer = await make_buyer(house)
    phone_id = await ask_phone_code(house, buyer.email, PHONE_NUMBER, IP, "en")
    code_id, _ = await asked(house)
    await send_all(house)
    token = house.vault.link_token(SIGN_IN_LINK, code_id)
    for email, path in ((buyer.email, f"phone/{phone_id}"), (EMAIL, f"sign-in/{code_id}/{token}")):
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
