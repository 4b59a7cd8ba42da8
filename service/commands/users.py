"""Users: made, and linked to the escrows that wait for their e-mail."""

from service.commands.escrows import link_party
from service.commands.identity import link_verifications
from service.commands.milestones import link_roles
from service.rules.aggregate import Person
from service.rules.errors import EscrowFrozen, UserNotRegistered
from service.rules.milestone import MODE
from service.store import events
from service.store.db import Reader, Transaction
from service.store.escrows import read_waiting_for
from service.store.ids import entity_id, event_id
from service.store.users import User, insert_user, lock_email, next_user_seq, read_user


async def register(
    tx: Transaction,
    email: str,
    first_name: str,
    last_name: str,
    *,
    is_email_verified: bool = True,
    is_phone_verified: bool = True,
    language: str = "en",
) -> User:
    """A new user with this e-mail, linked to every escrow that waits for it once it is verified.

    Raises:
        EmailTaken: the e-mail is registered already (by the constraint).
    """
    await lock_email(tx, email)
    person = Person(entity_id(tx.now), email, first_name, last_name, language, is_phone_verified)
    user = User(person, is_email_verified)
    await insert_user(tx, user)
    seq = await next_user_seq(tx, person.id)
    await events.append_events(
        tx, [events.Entry(event_id(tx.now), person.id, "user", seq, "register")]
    )
    if is_email_verified:
        await link_waiting(tx, person)
    return user


async def registered(reader: Reader, email: str) -> User:
    """The registered user behind an e-mail.

    Raises:
        UserNotRegistered: nobody is registered with it.
    """
    user = await read_user(reader, email)
    if user is None:
        raise UserNotRegistered
    return user


async def link_waiting(tx: Transaction, person: Person) -> list[str]:
    """Link the person to every escrow in which the e-mail is a party; the ids, oldest first.

    And to every identity verification of it.
    """
    await link_verifications(tx, person)
    return [
        escrow_id
        for escrow_id, mode in await read_waiting_for(tx, person.email)
        if await link(tx, escrow_id, mode, person)
    ]


async def link(
    tx: Transaction, escrow_id: str, mode: str, person: Person, invited_as: str | None = None
) -> bool:
    """Whether the person has come to a place of this escrow, of whichever family it is."""
    if mode != MODE:
        return await link_party(tx, escrow_id, person, invited_as) is not None
    try:
        return await link_roles(tx, escrow_id, person, invited_as) is not None
    except EscrowFrozen:
        return False


async def ensure_user(tx: Transaction, email: str) -> User:
    """The user with this e-mail, made where there is none (named after the address)."""
    user = await read_user(tx, email)
    if user is None:
        await lock_email(tx, email)
        user = await read_user(tx, email)  # whoever registered it meanwhile has committed
    if user is not None:
        return user
    name = email.partition("@")[0].replace(".", " ").title()[:100]
    first, _, last = name.partition(" ")
    return await register(tx, email, first, last or "User")
