"""Who is signed in at which browser, and the codes that prove an e-mail or a phone. Real time.

Of a session's token only its hash is kept; of a code nothing, it is derived from its row's id.
"""

from dataclasses import dataclass
from datetime import timedelta

from service.store.db import Reader, Transaction

INSERT_VISIT = """
INSERT INTO visit (token_hash, email, expires_at) VALUES ($1, $2, clock_timestamp() + $3)
"""


async def insert_visit(tx: Transaction, token_hash: bytes, email: str, lifetime: timedelta) -> None:
    """This browser is signed in as this e-mail."""
    await tx.execute(INSERT_VISIT, token_hash, email, lifetime)


@dataclass(frozen=True, slots=True)
class Visit:
    """Who is signed in; `user_id`, `language` and `timezone` are None until they register."""

    email: str
    user_id: str | None = None
    language: str | None = None
    timezone: str | None = None


READ_VISIT = """
SELECT v.email, u.id AS user_id, u.language, u.timezone
FROM visit v LEFT JOIN app_user u ON u.email = v.email AND u.email_verified_at IS NOT NULL
WHERE v.token_hash = $1 AND v.expires_at > clock_timestamp()
"""


async def read_visit(reader: Reader, token_hash: bytes) -> Visit | None:
    """Who is signed in under this token, unless that has ended or expired."""
    row = await reader.fetchrow(READ_VISIT, token_hash)
    return Visit(**dict(row)) if row else None


DELETE_VISIT = "DELETE FROM visit WHERE token_hash = $1"


async def delete_visit(tx: Transaction, token_hash: bytes) -> None:
    """This browser is signed out."""
    await tx.execute(DELETE_VISIT, token_hash)


# ---- Codes --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Code:
    """A code as its row stands, without the code. `is_over`: expired or used; `is_used`: used.

    `browser` is the hash of the token of the one that asked, where only that one may give it. The
    link that was mailed with it works until `is_link_over`.
    """

    id: str
    purpose: str
    email: str
    phone: str | None
    browser: bytes | None
    tries: int
    is_over: bool
    is_used: bool
    is_link_over: bool


@dataclass(frozen=True, slots=True)
class Asker:
    """Who asks for a code: their address, the network that it is in, and their browser."""

    ip: str | None
    network: str | None
    browser: bytes | None


# Who asks for the same e-mail, from the same IP or for the same phone at the same time waits here,
# so that both are counted. Locked in this order, always: nobody waits in a ring.
LOCK_ASKING = "SELECT pg_advisory_xact_lock(hashtextextended('code/' || $1, 0))"
LOCK_IP = "SELECT pg_advisory_xact_lock(hashtextextended('code-from/' || $1, 0))"
LOCK_PHONE = "SELECT pg_advisory_xact_lock(hashtextextended('code-to/' || $1, 0))"
COUNT_CODES = """
SELECT count(*) FILTER (WHERE email = $1 AND purpose = $2) AS of_email,
       count(*) FILTER (WHERE email = $1 AND purpose = $2
                           AND network IS NOT DISTINCT FROM $7) AS of_both,
       count(*) FILTER (WHERE email = $1 AND purpose = $2
                           AND network IS NOT DISTINCT FROM $7
                           AND created_at > now() - $5::interval) AS just_now,
       count(*) FILTER (WHERE ip = $3) AS of_ip,
       count(*) FILTER (WHERE phone = $4) AS of_phone,
       max(id) FILTER (WHERE email = $1 AND purpose = $2 AND browser = $8
                           AND phone IS NOT DISTINCT FROM $4 AND used_at IS NULL AND tries < $9
                           AND expires_at > clock_timestamp()
                           AND created_at > now() - $5::interval) AS own
FROM sign_in_code
WHERE created_at > now() - $6::interval
    AND (email = $1 AND purpose = $2 OR ip = $3 OR phone = $4)
"""


@dataclass(frozen=True, slots=True)
class Asked:
    """How many codes were asked for lately, by whom it concerns; some of them just now.

    `of_both`, and of these `just_now`: for this e-mail from this network. `own` is the id of the
    one that this browser has asked for just now, while it may still be given.
    """

    of_email: int
    of_both: int
    just_now: int
    of_ip: int
    of_phone: int
    own: str | None


async def count_codes(
    tx: Transaction,
    purpose: str,
    email: str,
    phone: str | None,
    asker: Asker,
    just_now: timedelta,
    lately: timedelta,
    tries_max: int,
) -> Asked:
    """Counted under locks on e-mail, IP and phone, which this transaction then holds."""
    await tx.fetchval(LOCK_ASKING, email)
    if asker.ip is not None:
        await tx.fetchval(LOCK_IP, asker.ip)
    if phone is not None:
        await tx.fetchval(LOCK_PHONE, phone)
    row = await tx.fetchrow(
        COUNT_CODES,
        email,
        purpose,
        asker.ip,
        phone,
        just_now,
        lately,
        asker.network,
        asker.browser,
        tries_max,
    )
    if row is None:
        raise AssertionError("a count gives one row")
    return Asked(**dict(row))


INSERT_CODE = """
INSERT INTO sign_in_code (id, purpose, email, phone, ip, network, browser, expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, clock_timestamp() + $8)
"""


async def insert_code(
    tx: Transaction,
    code_id: str,
    purpose: str,
    email: str,
    phone: str | None,
    asker: Asker,
    lifetime: timedelta,
) -> None:
    """A code that may be used for so long."""
    await tx.execute(
        INSERT_CODE,
        code_id,
        purpose,
        email,
        phone,
        asker.ip,
        asker.network,
        asker.browser,
        lifetime,
    )


READ_CODE = """
SELECT id, purpose, email, phone, browser, tries,
       used_at IS NOT NULL OR expires_at <= clock_timestamp() AS is_over,
       used_at IS NOT NULL AS is_used,
       used_at IS NOT NULL OR created_at <= clock_timestamp() - interval '1 hour' AS is_link_over
FROM sign_in_code WHERE id = $1
"""
# Two who try the same code wait for each other, so that no try goes uncounted.
LOCK_CODE = READ_CODE + " FOR NO KEY UPDATE"


async def read_code(reader: Reader, code_id: str) -> Code | None:
    """The code with this id."""
    row = await reader.fetchrow(READ_CODE, code_id)
    return Code(**dict(row)) if row else None


async def lock_code(tx: Transaction, code_id: str) -> Code | None:
    """As `read_code`, under this transaction's lock."""
    row = await tx.fetchrow(LOCK_CODE, code_id)
    return Code(**dict(row)) if row else None


COUNT_TRY = "UPDATE sign_in_code SET tries = tries + 1 WHERE id = $1"
USE_CODE = "UPDATE sign_in_code SET used_at = clock_timestamp() WHERE id = $1"


async def count_try(tx: Transaction, code_id: str) -> None:
    """A wrong code was given. Relies on the row's lock."""
    await tx.execute(COUNT_TRY, code_id)


async def use_code(tx: Transaction, code_id: str) -> None:
    """The right code was given, or its link was followed, once. Relies on the row's lock."""
    await tx.execute(USE_CODE, code_id)


VERIFY_PHONE = "UPDATE app_user SET phone = $2, phone_verified_at = $3 WHERE email = $1"


async def verify_phone(tx: Transaction, email: str, phone: str) -> None:
    """The phone is proven to be this person's."""
    await tx.execute(VERIFY_PHONE, email, phone, tx.now)


# What is over is kept for an hour more: it still counts against who asks too often, and the link
# that was mailed with it may still work.
DELETE_EXPIRED_VISITS = "DELETE FROM visit WHERE expires_at <= clock_timestamp()"
DELETE_EXPIRED_CODES = """
DELETE FROM sign_in_code WHERE expires_at <= clock_timestamp() - interval '1 hour'
"""


async def delete_expired_visits(tx: Transaction) -> int:
    """How many sessions and codes went that nobody can use any more."""
    gone = [await tx.execute(DELETE_EXPIRED_VISITS), await tx.execute(DELETE_EXPIRED_CODES)]
    return sum(int(status.split()[-1]) for status in gone)
