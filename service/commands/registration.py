"""Following an invitation's link: the person registers, and every escrow that waits is linked.

The link proves that its e-mail is the person's. Another e-mail must have been verified by the
door before, and nobody else's account can be taken over by naming it.
"""

from service.commands import users
from service.rules.aggregate import Person
from service.rules.errors import EmailTaken, Invalid, InvitationNotFound
from service.store.db import Transaction
from service.store.escrows import lock_escrows, read_waiting_for
from service.store.invitations import Invitation, read_accepted, read_invitation_behind
from service.store.users import lock_email, read_user, verify_email
from service.store.vault import hash_token


async def follow_link(
    tx: Transaction,
    token: str,
    first_name: str,
    last_name: str,
    *,
    email: str | None = None,
    language: str = "en",
    is_phone_verified: bool = True,
) -> tuple[Person, list[str]]:
    """The person that now is a party, and the ids of the escrows that were linked, oldest first.

    `email` (lower case, verified by the door) is the one to register with where it is not the
    invited one.

    Raises:
        InvitationNotFound: the token is unknown or spent, or its escrow is final.
        EmailTaken: another e-mail than the invited one belongs to somebody already.
        Invalid: that e-mail is the other party's.
    """
    invitation, mode = await _held(tx, token, email)
    wanted = email or invitation.email
    user = await read_user(tx, wanted)
    if user is not None and wanted != invitation.email:
        raise EmailTaken(email=wanted)
    if user is None:
        user = await users.register(
            tx,
            wanted,
            first_name,
            last_name,
            language=language,
            is_phone_verified=is_phone_verified,
        )
    elif not user.is_email_verified:
        await verify_email(tx, user.person.id)
        await users.link_waiting(tx, user.person)
    await users.link(tx, invitation.escrow_id, mode, user.person, invitation.email)
    return user.person, await read_accepted(tx, user.person.id)


async def register_proven(
    tx: Transaction, email: str, first_name: str, last_name: str, language: str
) -> Person:
    """Register whoever has proven this e-mail by a code, and link every escrow that waits.

    Somebody who is registered already stays as they are.
    """
    await lock_email(tx, email)
    user = await read_user(tx, email)
    if user is None:
        user = await users.register(
            tx, email, first_name, last_name, language=language, is_phone_verified=False
        )
    elif not user.is_email_verified:
        await verify_email(tx, user.person.id)
        await users.link_waiting(tx, user.person)
    return user.person


async def _held(tx: Transaction, token: str, email: str | None) -> tuple[Invitation, str]:
    """The open invitation behind the token, and its escrow's mode.

    That escrow and the others that wait are locked, in order.
    """
    token_hash = hash_token(token)
    invitation = await read_invitation_behind(tx, token_hash)
    if invitation is None:
        raise InvitationNotFound
    await lock_email(tx, email or invitation.email)
    waiting = await read_waiting_for(tx, email or invitation.email)
    locked = await lock_escrows(
        tx, sorted({invitation.escrow_id, *(escrow_id for escrow_id, _ in waiting)})
    )
    # Whoever followed the link at the same time has committed by now.
    invitation = await read_invitation_behind(tx, token_hash)
    if invitation is None or not invitation.is_open:
        raise InvitationNotFound
    escrow = next(one.escrow for one in locked if one.escrow.id == invitation.escrow_id)
    others = {escrow.seller_email, escrow.buyer_email} - {invitation.email}
    if email is not None and email in others:
        raise Invalid({"email": "must not be the other party's"})
    return invitation, escrow.mode
