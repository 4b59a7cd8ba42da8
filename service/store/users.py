"""Users and their e-mails; the user's event counter."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.rules.aggregate import Person
from service.store.db import Reader, Row, Transaction


@dataclass(frozen=True, slots=True)
class User:
    """A registered user."""

    person: Person
    is_email_verified: bool


READ_USERS = """
SELECT id AS own_id, email AS own_user_email, first_name AS own_first_name,
       last_name AS own_last_name, language AS own_language, timezone AS own_timezone,
       phone_verified_at IS NOT NULL AS own_phone_verified,
       email_verified_at IS NOT NULL AS is_email_verified
FROM app_user WHERE email = ANY ($1::text[])
"""


async def read_users(reader: Reader, emails: Sequence[str]) -> dict[str, User]:
    """The registered users among these e-mails, by e-mail."""
    rows = await reader.fetch(READ_USERS, list(emails))
    return {
        person.email: User(person, row["is_email_verified"])
        for row in rows
        if (person := as_person(row, "own")) is not None
    }


def as_person(row: Row, who: str) -> Person | None:
    """The person of the columns that begin with `who` and `_`; None where there is nobody."""
    if row[f"{who}_id"] is None:
        return None
    return Person(
        id=row[f"{who}_id"],
        email=row[f"{who}_user_email"],
        first_name=row[f"{who}_first_name"],
        last_name=row[f"{who}_last_name"],
        language=row[f"{who}_language"],
        is_phone_verified=row[f"{who}_phone_verified"],
        timezone=row[f"{who}_timezone"],
    )


async def read_user(reader: Reader, email: str) -> User | None:
    """The user with this e-mail, or None."""
    return (await read_users(reader, [email])).get(email)


# By the escrow's own rows first: who was invited by an e-mail may have registered with another.
READ_BOUND = """
SELECT id AS own_id, email AS own_user_email, first_name AS own_first_name,
       last_name AS own_last_name, language AS own_language, timezone AS own_timezone,
       phone_verified_at IS NOT NULL AS own_phone_verified,
       email_verified_at IS NOT NULL AS is_email_verified
FROM app_user WHERE id = coalesce(
    (SELECT r.user_id FROM escrow_role r
     WHERE r.escrow_id = $1 AND r.email = $2 AND r.user_id IS NOT NULL LIMIT 1),
    (SELECT u.id FROM app_user u WHERE u.email = $2))
"""


async def read_bound(reader: Reader, escrow_id: str, email: str) -> User | None:
    """Who stands behind an e-mail in this escrow: whoever holds a role by it, else its user."""
    row = await reader.fetchrow(READ_BOUND, escrow_id, email)
    person = as_person(row, "own") if row else None
    return User(person, row["is_email_verified"]) if row and person else None


READ_PEOPLE = """
SELECT id AS own_id, email AS own_user_email, first_name AS own_first_name,
       last_name AS own_last_name, language AS own_language, timezone AS own_timezone,
       phone_verified_at IS NOT NULL AS own_phone_verified
FROM app_user WHERE id = ANY ($1::text[])
"""


async def read_people(reader: Reader, user_ids: Sequence[str]) -> dict[str, Person]:
    """The users of these ids, by id."""
    rows = await reader.fetch(READ_PEOPLE, list(user_ids)) if user_ids else []
    people = (as_person(row, "own") for row in rows)
    return {person.id: person for person in people if person is not None}


async def read_user_by_id(reader: Reader, user_id: str) -> Person | None:
    """The user of this id, or None."""
    return (await read_people(reader, [user_id])).get(user_id)


INSERT_USER = """
INSERT INTO app_user (id, email, first_name, last_name, email_verified_at, phone_verified_at,
                      language, created_at)
VALUES ($1, $2, $3, $4, CASE WHEN $5 THEN $8::timestamptz END,
        CASE WHEN $6 THEN $8::timestamptz END, $7, $8)
"""


async def insert_user(tx: Transaction, user: User) -> None:
    """A new user; a taken e-mail is refused by the constraint."""
    person = user.person
    await tx.execute(
        INSERT_USER,
        person.id,
        person.email,
        person.first_name,
        person.last_name,
        user.is_email_verified,
        person.is_phone_verified,
        person.language,
        tx.now,
    )


# Shared: creates do not wait for each other, only for a registration with the same e-mail.
AWAIT_REGISTRATIONS = "SELECT await_registrations($1::text[])"


async def await_registrations(tx: Transaction, emails: Sequence[str]) -> bool:
    """Keep these unknown e-mails from registering until this transaction ends.

    True when one of them had just registered: what was read of them is out of date.
    """
    return bool(await tx.fetchval(AWAIT_REGISTRATIONS, list(emails)))


# Exclusive: waits for the creates that name this e-mail, so that their escrows are seen after it.
LOCK_EMAIL = "SELECT pg_advisory_xact_lock(hashtextextended('register/' || $1, 0))"


async def lock_email(tx: Transaction, email: str) -> None:
    """This transaction alone registers or verifies this e-mail."""
    await tx.fetchval(LOCK_EMAIL, email)


VERIFY_EMAIL = (
    "UPDATE app_user SET email_verified_at = $2 WHERE id = $1 AND email_verified_at IS NULL"
)


async def verify_email(tx: Transaction, user_id: str) -> None:
    """The e-mail is proven to be the user's."""
    await tx.execute(VERIFY_EMAIL, user_id, tx.now)


# Locks the user's row: single writer of its event counter.
NEXT_USER_SEQ = "UPDATE app_user SET seq = seq + 1 WHERE id = $1 RETURNING seq"


async def next_user_seq(tx: Transaction, user_id: str) -> int:
    """The seq of the user's next event; the row stays locked."""
    seq: int = await tx.fetchval(NEXT_USER_SEQ, user_id)
    return seq
