"""What a person has set about themselves: name, language, time zone."""

from dataclasses import dataclass

from service.store.db import Reader, Transaction


@dataclass(frozen=True, slots=True)
class Profile:
    """A person's own settings; `timezone` is an IANA name, None for the house's."""

    first_name: str
    last_name: str
    language: str
    timezone: str | None


READ_PROFILE = "SELECT first_name, last_name, language, timezone FROM app_user WHERE id = $1"


async def read_profile(reader: Reader, user_id: str) -> Profile | None:
    """The person's settings; None where there is no such user."""
    row = await reader.fetchrow(READ_PROFILE, user_id)
    return Profile(**dict(row)) if row else None


# Locks the user's row: single writer of its event counter.
WRITE_PROFILE = """
UPDATE app_user SET first_name = $2, last_name = $3, language = $4, timezone = $5 WHERE id = $1
"""


async def write_profile(tx: Transaction, user_id: str, profile: Profile) -> None:
    """The person's settings from now on."""
    await tx.execute(
        WRITE_PROFILE,
        user_id,
        profile.first_name,
        profile.last_name,
        profile.language,
        profile.timezone,
    )


END_VISITS = "DELETE FROM visit WHERE email = $1"


async def end_visits(tx: Transaction, email: str) -> None:
    """Every browser that is signed in with this e-mail is a stranger again."""
    await tx.execute(END_VISITS, email)
