"""Invitations: who is asked to register, who is only told, and who is reminded when.

A known e-mail is linked at once and gets a notice; an unknown one is invited by a link that is
derived from the invitation's row, and reminded after two and seven days, then never again.
"""

from collections.abc import Sequence
from datetime import datetime, timedelta

from service.commands.mails import INVITATION, SIDES, new_mail
from service.commands.milestone_mails import Told, named, role_mails
from service.rules.aggregate import Escrow
from service.rules.engagement import MilestoneEscrow
from service.rules.machine import Actor, Role
from service.store.db import Transaction
from service.store.deadlines import Arming, Deadline, arm_deadlines, fire_deadlines
from service.store.escrows import read_escrow
from service.store.ids import entity_id
from service.store.invitations import (
    Invitation,
    close_invitations,
    insert_invitations,
    note_reminder,
    read_invitation,
)
from service.store.mails import NewMail, insert_mails
from service.store.milestones import read_milestone_escrow
from service.store.vault import hash_token

REMINDER = "invitation_reminder"
ROLE_INVITATION, ROLE_REMINDER, ROLE_NOTICE = "role_invitation", "role_reminder", "role_notice"
"""The templates of the milestone family."""
REMINDED_AFTER = (timedelta(days=2), timedelta(days=7))


async def welcome(tx: Transaction, opened: Sequence[tuple[Escrow, Actor]]) -> list[Arming]:
    """Invite or notify both parties of new escrows; the reminders that are to be armed with them.

    The user behind the key that created one knows already and gets no notice.
    """
    asked = [
        (escrow, role) for escrow, _ in opened for role in SIDES if _user_id(escrow, role) is None
    ]
    invited, mails = await _invited(tx, asked)
    mails += [
        _notice(tx, escrow, role)
        for escrow, actor in opened
        for role in SIDES
        if _user_id(escrow, role) not in (None, actor.user_id)
    ]
    await insert_mails(tx, mails)
    return _reminders(tx, invited)


async def welcome_roles(
    tx: Transaction, escrow: MilestoneEscrow, before: MilestoneEscrow | None = None
) -> None:
    """Invite whoever is named in a milestone escrow and is nobody yet; tell the others.

    Of an update only those are asked or told who were not named `before`, and the invitations of
    those who no longer are end. The user who acts knows already.
    """
    standing = named(escrow)
    known = named(before) if before else {}
    gone = [email for email in known if email not in standing]
    if gone:
        await close_invitations(tx, escrow.id, gone)
    new = {email: standing[email] for email in standing if email not in known}
    asked = [
        _row(tx, escrow.id, role, email) for email, (role, user_id) in new.items() if not user_id
    ]
    made = await insert_invitations(tx, asked)
    invited = [one for one in asked if one.id in made]
    told = [_inviting(ROLE_INVITATION, one, f"{INVITATION}:{one.id}") for one in invited]
    told += [
        Told(ROLE_NOTICE, email, user_id, f"{ROLE_NOTICE}:{escrow.id}:{email}:{escrow.seq}", role)
        for email, (role, user_id) in new.items()
        if user_id and user_id != tx.actor.user_id
    ]
    await insert_mails(tx, await role_mails(tx, escrow, told))
    reminders = (_reminder(one, tx.now, escrow.seq) for one in invited)
    await arm_deadlines(tx, [arming for arming in reminders if arming is not None])


def _inviting(template: str, invitation: Invitation, key: str, role: Role | None = None) -> Told:
    """A mail with the invitation's link; of another `role` than it was made for, where given."""
    stands = role or Role(invitation.role)
    return Told(template, invitation.email, None, key, stands, invitation.id)


async def fire_reminders(tx: Transaction, deadline_ids: Sequence[int]) -> list[Deadline]:
    """Send the reminders whose deadlines are due at `tx.now`; what was fired.

    Moves no money and no escrow's state. A deadline whose race was lost, or whose invitation no
    longer waits, sends nothing.
    """
    fired = await fire_deadlines(tx, deadline_ids)
    for deadline in fired:
        await _remind(tx, deadline)
    return fired


async def _remind(tx: Transaction, deadline: Deadline) -> None:
    invitation = await read_invitation(tx, deadline.subject)
    if invitation is None or not invitation.is_open:
        return
    if not await note_reminder(tx, invitation):
        return
    mail, seq = await _reminding(tx, invitation)
    await insert_mails(tx, [mail])
    following = _reminder(invitation, tx.now, seq, sent=invitation.reminders + 1)
    if following:
        await arm_deadlines(tx, [following])


async def _reminding(tx: Transaction, invitation: Invitation) -> tuple[NewMail, int]:
    """The reminder's mail, in the words of the escrow's family, and the escrow's seq."""
    key = f"{REMINDER}:{invitation.id}:{invitation.reminders}"
    escrow = await read_escrow(tx, invitation.escrow_id)
    if escrow is not None:
        role = Role(invitation.role)
        return new_mail(tx, REMINDER, escrow, role, key, invitation.id), escrow.seq
    whole = await read_milestone_escrow(tx, invitation.escrow_id)
    if whole is None:
        raise AssertionError(f"the invitation {invitation.id} is to nothing")
    role, _ = named(whole)[invitation.email]  # the one that they have by now
    [mail] = await role_mails(tx, whole, [_inviting(ROLE_REMINDER, invitation, key, role)])
    return mail, whole.seq


async def _invited(
    tx: Transaction, sides: Sequence[tuple[Escrow, Role]]
) -> tuple[list[tuple[Invitation, Escrow]], list[NewMail]]:
    """The invitations that are new, and their mails; those who were invited before get none."""
    asked = [(_invitation(tx, escrow, role), escrow) for escrow, role in sides]
    new = await insert_invitations(tx, [invitation for invitation, _ in asked])
    invited = [(invitation, escrow) for invitation, escrow in asked if invitation.id in new]
    mails = [
        new_mail(tx, INVITATION, escrow, Role(one.role), f"{INVITATION}:{one.id}", one.id)
        for one, escrow in invited
    ]
    return invited, mails


def _reminders(tx: Transaction, invited: Sequence[tuple[Invitation, Escrow]]) -> list[Arming]:
    first = (_reminder(invitation, tx.now, escrow.seq) for invitation, escrow in invited)
    return [arming for arming in first if arming is not None]


def _invitation(tx: Transaction, escrow: Escrow, role: Role) -> Invitation:
    email = escrow.seller_email if role is Role.SELLER else escrow.buyer_email
    return _row(tx, escrow.id, role, email)


def _row(tx: Transaction, escrow_id: str, role: Role, email: str) -> Invitation:
    invitation_id = entity_id(tx.now)
    return Invitation(
        id=invitation_id,
        escrow_id=escrow_id,
        role=role.value,
        email=email,
        token_hash=hash_token(tx.vault.link_token(INVITATION, invitation_id)),
        counter=0,
        reminders=0,
        created_at=tx.now,
    )


def _notice(tx: Transaction, escrow: Escrow, role: Role) -> NewMail:
    return new_mail(tx, "escrow_notice", escrow, role, f"escrow_notice:{escrow.id}:{role}")


def _reminder(invitation: Invitation, now: datetime, version: int, sent: int = 0) -> Arming | None:
    """The next reminder after so many; one whose day has passed meanwhile is left out."""
    due = (invitation.created_at + after for after in REMINDED_AFTER[sent:])
    upcoming = next((at for at in due if at > now), None)
    if upcoming is None:
        return None
    return Arming(invitation.escrow_id, REMINDER, upcoming, version, invitation.id)


def _user_id(escrow: Escrow, role: Role) -> str | None:
    return escrow.seller_id if role is Role.SELLER else escrow.buyer_id
