"""Who is told what by mail, and how a mail's row is claimed and settled.

`write_notices` writes rows inside the transaction of the steps that they tell about; nothing here
sends. Workers claim and settle through `tend`; a link's token is derived when it is needed.
"""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import datetime, timedelta

from service.rules.aggregate import Escrow, Person
from service.rules.clocks import CLOCKS
from service.rules.delivery import DisableReason
from service.rules.escrow import Taken, roles
from service.rules.identity import Verification
from service.rules.machine import Actor, Role
from service.rules.money import to_decimal
from service.rules.policy import Policy
from service.store.db import Reader, Transaction
from service.store.endpoints import Disabled
from service.store.ids import entity_id
from service.store.mails import (
    Link,
    Mail,
    NewMail,
    Settlement,
    insert_mails,
    read_sent_mails,
)
from service.store.vault import Vault
from service.wire.base import instant
from service.wire.mailbox import MailboxMail
from service.words.facts import EndpointFacts, EscrowFacts, IdentityFacts
from service.words.mails import (
    ENDPOINT_LINK,
    ESCROW_LINK,
    IDENTITY_LINK,
    REGISTER_LINK,
    Facts,
    Rendered,
    Words,
)

INVITATION = "invitation"
IDENTITY = "identity"
"""The purposes of links; part of their HMAC."""

LINK_OF = {INVITATION: REGISTER_LINK, IDENTITY: IDENTITY_LINK}
"""Purpose -> the link's name, which is its page's as well."""

MAILBOX_LIMIT = 200
SIDES = (Role.SELLER, Role.BUYER)

MINUTE, HOUR = 60, 3600
# Grey-listing servers want minutes, a broken one hours; after two days nobody waits for a mail.
WAITS_SECONDS = (
    10,
    MINUTE,
    5 * MINUTE,
    15 * MINUTE,
    HOUR,
    2 * HOUR,
    4 * HOUR,
    8 * HOUR,
    12 * HOUR,
    24 * HOUR,
)
_CLOCK_OF = {clock.kind: clock for clock in CLOCKS}


async def write_notices(tx: Transaction, taken: Sequence[Taken]) -> None:
    """The mails that steps of the buyer-seller family cause, if any; in the steps' transaction.

    A step's mails are told apart by the escrow's `seq` after it, so each is written once.
    """
    await insert_mails(
        tx,
        [
            new_mail(
                tx, template, one.after, role, f"{template}:{one.after.id}:{role}:{one.after.seq}"
            )
            for one in taken
            for template, role in announcements(one, tx.actor)
        ],
    )


def announcements(taken: Taken, actor: Actor) -> Iterator[tuple[str, Role]]:
    """Which template a step sends to which side; none for most steps.

    Money that moved is receipted to both; else whoever acted knows already.
    """
    template, aware = _told(taken, roles(actor, taken.before))
    if template is not None:
        yield from ((template, role) for role in SIDES if role not in aware)


def _told(taken: Taken, acting: frozenset[Role]) -> tuple[str | None, frozenset[Role]]:
    """The template of a step, and who needs no mail because they did it themselves."""
    nobody: frozenset[Role] = frozenset()
    if taken.row.name == "note_overdue":
        return "delivery_overdue", nobody
    if not taken.leaves_state:
        return None, nobody
    match taken.row.name, taken.row.target:
        case (("accept_pay" | "approve_deposit"), _):
            return "escrow_paid", nobody
        case "deliver", "delivered":
            return "escrow_delivered", acting
        case _, "completed":
            return "escrow_completed", nobody
        case _, "cancelled":
            return "escrow_cancelled", nobody if taken.before.funded_minor else acting
    return None, nobody


def new_mail(
    tx: Transaction,
    template: str,
    escrow: Escrow,
    role: Role,
    dedupe_key: str,
    invitation_id: str | None = None,
) -> NewMail:
    """The row of a mail to one side of an escrow, as the escrow now stands."""
    mail_id = entity_id(tx.now)
    return NewMail(
        id=mail_id,
        recipient=address_of(escrow, role),
        template=template,
        language=escrow.language,
        facts=dict(facts_of(escrow, role, tx.now, tx.policy)),
        dedupe_key=dedupe_key,
        message_id=_message_id(mail_id, tx.policy),
        escrow_id=escrow.id,
        invitation_id=invitation_id,
    )


def disabled_mail(tx: Transaction, endpoint: Disabled, reason: DisableReason) -> NewMail:
    """The row of the mail to a developer whose endpoint has just been disabled."""
    mail_id = entity_id(tx.now)
    facts = EndpointFacts(endpoint_id=endpoint.id, url=endpoint.url, reason=reason.name.lower())
    return NewMail(
        id=mail_id,
        recipient=endpoint.developer_email,
        template="endpoint_disabled",
        language=endpoint.language,
        facts=dict(facts),
        dedupe_key=f"endpoint_disabled:{endpoint.id}:{endpoint.seq}",
        message_id=_message_id(mail_id, tx.policy),
    )


def identity_mail(
    tx: Transaction, verification: Verification, company: str, language: str
) -> NewMail:
    """The row of the mail that asks a person to show who they are; once each time it is sent."""
    mail_id = entity_id(tx.now)
    facts = IdentityFacts(
        verification_id=verification.id,
        company=company,
        expires_at=instant(verification.expires_at),
        timezone=tx.policy.timezone,
    )
    return NewMail(
        id=mail_id,
        recipient=verification.email,
        template="identity_verification",
        language=language,
        facts=dict(facts),
        dedupe_key=f"identity_verification:{verification.id}:{verification.mails}",
        message_id=_message_id(mail_id, tx.policy),
        identity_id=verification.id,
    )


def address_of(escrow: Escrow, role: Role) -> str:
    """Where this side gets its mail: the user's address, else the one that was invited."""
    return escrow.seller_address if role is Role.SELLER else escrow.buyer_address


def facts_of(escrow: Escrow, role: Role, now: datetime, policy: Policy) -> EscrowFacts:
    """What a mail to this side says of the escrow; see `words/facts.py`."""
    settled_minor = escrow.funded_minor - escrow.refunded_minor
    fees_minor = escrow.escrow_fee_minor + escrow.developer_fee_minor
    completed = escrow.completed_at is not None
    held_minor = settled_minor if completed else escrow.amount_ledger_minor
    net_minor = escrow.released_minor if completed else escrow.amount_ledger_minor - fees_minor
    return EscrowFacts(
        escrow_id=escrow.id,
        title=escrow.title,
        amount=_plain(escrow.amount_minor, escrow.currency),
        currency=escrow.currency,
        held=_plain(held_minor, escrow.ledger_currency),
        net=_plain(net_minor, escrow.ledger_currency),
        ledger_currency=escrow.ledger_currency,
        mode=escrow.mode,
        status=escrow.status,
        role=role.value,
        seller=_name(escrow.seller, escrow.seller_email),
        buyer=_name(escrow.buyer, escrow.buyer_email),
        times={
            "created_at": instant(escrow.created_at),
            "paid_at": _instant(escrow.paid_at),
            "delivered_at": _instant(escrow.delivered_at),
            "completed_at": _instant(escrow.completed_at),
            "cancelled_at": _instant(escrow.cancelled_at),
            "expires_at": _instant(escrow.expires_at),
            "delivery_due_at": _due(escrow, "delivery_overdue", escrow.paid_at, now, policy),
            "refund_due_at": _due(escrow, "overdue_refund", escrow.paid_at, now, policy),
            "completion_due_at": _instant(escrow.completion_deadline)
            or _due(escrow, "completion", escrow.delivered_at, now, policy),
        },
        at=instant(now),
        timezone=policy.timezone,
        reason=escrow.cancel_reason,
    )


def links_of(mail: Mail, policy: Policy, vault: Vault) -> Mapping[str, str]:
    """Where this mail may point to. Raises LookupError when its token's key is gone."""
    links = {}
    if mail.escrow_id is not None:
        links[ESCROW_LINK] = f"{policy.public_url}/dashboard/escrow/{mail.escrow_id}"
    if "endpoint_id" in mail.facts:
        page = f"{policy.public_url}/dashboard/webhooks/{mail.facts['endpoint_id']}"
        links[ENDPOINT_LINK] = page
    if mail.link is not None:
        page = LINK_OF[mail.link.purpose]
        links[page] = f"{policy.public_url}/{page}/{token_of(mail.link, vault)}"
    return links


def token_of(link: Link, vault: Vault) -> str:
    """A link's token: the same on every try. Raises LookupError when its key is gone."""
    token = vault.link_token_for(link.token_hash, link.purpose, link.row_id, link.counter)
    if token is None:
        raise LookupError("the key that made this link is not in AMANA_SECRET_KEY")
    return token


def rendered(mail: Mail, words: Words, policy: Policy, vault: Vault) -> Rendered:
    """The mail in words, from its row; the same each time."""
    facts: Facts = mail.facts  # type: ignore[assignment]  # written by this file, JSON since
    return words.render(mail.template, mail.language, facts, links_of(mail, policy, vault))


async def open_mailbox(
    reader: Reader, words: Words, policy: Policy, vault: Vault, to: str | None = None
) -> list[MailboxMail]:
    """The sandbox's mailbox: what was really sent, newest first, at most MAILBOX_LIMIT."""
    recipient = to.strip().lower() if to else None
    mails = await read_sent_mails(reader, recipient, MAILBOX_LIMIT)
    return list(_shown(mails, words, policy, vault))


def _shown(
    mails: Iterable[Mail], words: Words, policy: Policy, vault: Vault
) -> Iterable[MailboxMail]:
    for mail in mails:
        if mail.sent_at is None:
            raise AssertionError(f"mail {mail.id} is in the mailbox and was not sent")
        written = rendered(mail, words, policy, vault)
        yield MailboxMail(
            to=mail.recipient,
            subject=written.subject,
            text=written.text,
            html=written.html,
            links=list(written.links),
            sent_at=mail.sent_at,
        )


def sent(mail: Mail) -> Settlement:
    """The mail server took it."""
    return Settlement(mail.id, "sent")


def moot(mail: Mail) -> Settlement:
    """Nobody needs it any more: its invitation was accepted, or its escrow is final."""
    return Settlement(mail.id, "cancelled")


def missed(mail: Mail, reason: str, *, permanent: bool, chance: float) -> Settlement:
    """It was not taken: again after the ladder's wait, or failed for good.

    `chance` in [0, 1) spreads the waits by 20 % each way.
    """
    if permanent or mail.attempt > len(WAITS_SECONDS):
        return Settlement(mail.id, "failed", error=reason)
    wait_seconds = WAITS_SECONDS[mail.attempt - 1] * (0.8 + 0.4 * chance)
    return Settlement(mail.id, "pending", timedelta(seconds=wait_seconds), reason)


def _plain(minor: int, currency: str) -> str:
    return format(to_decimal(minor, currency), "f")


def _name(person: Person | None, email: str) -> str:
    name = f"{person.first_name} {person.last_name}".strip() if person else ""
    return name or (person.email if person else email)


def _instant(moment: datetime | None) -> str | None:
    return instant(moment) if moment else None


def _due(
    escrow: Escrow, kind: str, since: datetime | None, now: datetime, policy: Policy
) -> str | None:
    """When this clock of the escrow strikes, counted from `since`; None while it has not begun."""
    clock = _CLOCK_OF[kind]
    if since is None or escrow.mode not in clock.modes:
        return None
    return instant(clock.due(escrow, since if kind == "completion" else now, policy))


def _message_id(mail_id: str, policy: Policy) -> str:
    host = policy.public_url.split("://", 1)[-1].split("/", 1)[0].split(":", 1)[0]
    return f"<{mail_id}@{host}>"
