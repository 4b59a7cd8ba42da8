"""What a person sets about themselves."""

from service.commands.perform import Command, House, tend
from service.rules.errors import Invalid
from service.store.db import Transaction
from service.store.events import Entry, append_events
from service.store.ids import event_id
from service.store.profiles import Profile, end_visits, write_profile
from service.store.users import next_user_seq
from service.wire.base import Wire
from service.words.zones import ZONES

STEP = "change_profile"
"""The audit trail's word for it; what was changed is not kept there."""


class ProfileChanged(Wire):
    """The settings stand."""

    language: str
    timezone: str | None


def change(user_id: str, profile: Profile) -> Command:
    """The person's name, language and time zone are these.

    Raises:
        Invalid: there is no such time zone.
    """

    async def command(tx: Transaction) -> ProfileChanged:
        if profile.timezone is not None and profile.timezone not in ZONES:
            raise Invalid({"timezone": "must be an IANA time zone such as Africa/Tunis"})
        await write_profile(tx, user_id, profile)
        seq = await next_user_seq(tx, user_id)
        await append_events(tx, [Entry(event_id(tx.now), user_id, "user", seq, STEP)])
        return ProfileChanged(language=profile.language, timezone=profile.timezone)

    return command


async def sign_out_everywhere(house: House, email: str) -> None:
    """Every session of this e-mail is over, on every device."""

    async def upkeep(tx: Transaction) -> None:
        await end_visits(tx, email)

    await tend(house, upkeep)
