"""Who is told what by mail, and how a mail's row is claimed and settled.

`write_notices` writes rows inside the transaction of the steps that they tell about; nothing here
sends. Workers claim and settle through `tend`; a link's token is derived when it is needed.
"""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from types import MappingProxyType

from service.rules.aggregate import Escrow, Person
from service.rules.clocks import DISPUTE_ANSWER, Turn
from service.rules.delivery import DisableReason
from service.rules.escrow import CANCELLED, COMPLETED, Taken, roles
from service.rules.identity import Verification
from service.rules.lane import Told
from service.rules.machine import Actor, Role
from service.rules.money import to_decimal
from service.rules.policy import Policy
from service.store.db import Reader, Transaction
from service.store.deadlines import read_open_of
from service.store.endpoints import Addressed, Disabled
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
from service.words.facts import CodeFacts, EndpointFacts, EscrowFacts, IdentityFacts
from service.words.mails import (
    CODE_LINK,
    ENDPOINT_LINK,
    ESCROW_LINK,
    IDENTITY_LINK,
    PAYMENT_LINK,
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

CODE_PURPOSE = {"sign_in_code": "sign_in", "phone_code": "phone"}
CODE_PAGE = {"sign_in_code": "sign-in", "phone_code": "phone"}
"""Template -> what its code proves, and the page that asks for it."""
CODE_MINUTES = 10
"""How long a code may be used."""
SIGN_IN_LINK = "sign_in_link"
"""The purpose of the link that is mailed with a code to sign in; part of its HMAC."""

MAILBOX_LIMIT = 200
OVERDUE = "delivery_overdue"
CANCELLATION_ANSWER = "cancellation_answer"
DUE_OF = {
    OVERDUE: "delivery_due_at",
    "overdue_refund": "refund_due_at",
    "completion": "completion_due_at",
    DISPUTE_ANSWER: "answer_due_at",
    CANCELLATION_ANSWER: "request_due_at",
}
"""A clock's kind -> what a mail calls its end."""
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
Clocks = Mapping[str, datetime | None]
"""Kind -> when it strikes, None while it stands still; of an escrow's open deadlines."""


async def write_notices(tx: Transaction, taken: Sequence[Taken], turns: Sequence[Turn]) -> None:
    """The mails that steps of the buyer-seller family cause, if any; in the steps' transaction.

    A step's mails are told apart by the escrow's `seq` after it, so each is written once. `turns`
    are what the steps have done to the clocks, one each.
    """
    notices = [
        (one, turned, template, role)
        for one, turned in zip(taken, turns, strict=True)
        for template, role in announcements(one, tx.actor)
    ]
    clocks = await _clocks_after(tx, [(one, turned) for one, turned, *_ in notices])
    await insert_mails(
        tx,
        [
            new_mail(
                tx,
                template,
                one.after,
                role,
                f"{template}:{one.after.id}:{role}:{one.after.seq}",
                clocks=clocks[one.after.id],
                before=one.before,
            )
            for one, _, template, role in notices
        ],
    )


async def _clocks_after(
    tx: Transaction, steps: Sequence[tuple[Taken, Turn]]
) -> Mapping[str, Clocks]:
    """The clocks of each escrow after its step, with the one that has just struck.

    The database is asked only where some ran before the step: all others the step has armed.
    """
    older = {turned.escrow_id for _, turned in steps if turned.stays or turned.rearms}
    clocks: dict[str, dict[str, datetime | None]] = {}
    for one, turned in steps:
        armed = {kind: None if paused else due for kind, due, paused in turned.arms}
        struck = {OVERDUE: one.due_at} if one.row.name == "note_overdue" else {}
        clocks[turned.escrow_id] = armed | struck
    for deadline in await read_open_of(tx, sorted(older)) if older else ():
        due = deadline.due_at if deadline.remaining is None else None
        clocks[deadline.escrow_id].setdefault(deadline.kind, due)
    return clocks


def announcements(taken: Taken, actor: Actor) -> Iterator[tuple[str, Role]]:
    """Which template a step sends to which side; none for most steps.

    Money that moved is receipted to both; else whoever acted knows already.
    """
    notice = _notice(taken)
    if notice is None:
        return
    aware = notice.aware(taken, roles(actor, taken.before))
    yield from ((notice.template, role) for role in SIDES if role not in aware)


Aware = Callable[[Taken, frozenset[Role]], frozenset[Role]]


def _nobody(_: Taken, __: frozenset[Role]) -> frozenset[Role]:
    return frozenset()


def _acting(_: Taken, acting: frozenset[Role]) -> frozenset[Role]:
    return acting


def _opener(taken: Taken, _: frozenset[Role]) -> frozenset[Role]:
    dispute = taken.after.dispute
    return frozenset({Role(dispute.opener)}) if dispute else frozenset()


@dataclass(frozen=True, slots=True)
class Notice:
    """The template of a step's mails, and who needs none because they know already."""

    template: str
    aware: Aware = _nobody


NOTICES: Mapping[tuple[str, str] | str, Notice] = {
    "accept_pay": Notice("escrow_paid"),
    "approve_deposit": Notice("escrow_paid"),
    "update": Notice("terms_changed", _acting),
    "sign_contract": Notice("contract_signed", _acting),
    "cancel": Notice("escrow_cancelled", _acting),
    ("deliver", "delivered"): Notice("escrow_delivered", _acting),
    "reject_delivery": Notice("delivery_rejected", _acting),
    "note_overdue": Notice("delivery_overdue"),
    "request_cancellation": Notice("cancellation_requested", _acting),
    "reject_cancellation": Notice("cancellation_rejected", _acting),
    "submit_proof": Notice("proof_submitted", _acting),
    "request_correction": Notice("proof_correction", _acting),
    "accept_proof": Notice("proof_accepted", _acting),
    "pass_proof": Notice("proof_accepted"),
    "escalate_proof": Notice("proof_needs_review"),
    "dispute": Notice("dispute_opened", _acting),
    "remind_dispute": Notice("dispute_reminder", _opener),
    "answer_dispute": Notice("dispute_answered", _acting),
    "withdraw_dispute": Notice("dispute_withdrawn", _acting),
    "resolve_dispute": Notice("dispute_resolved"),
}
"""Step, or step and the state that it leads to -> who is told what. Every other step that ends an
escrow is told to both (`ENDS`); the rest needs nobody's attention, or has mails of its own."""
ENDS: Mapping[str, Notice] = {
    COMPLETED: Notice("escrow_completed"),
    CANCELLED: Notice("escrow_cancelled"),
}
FULLY_SIGNED = Notice("contract_complete")


def _notice(taken: Taken) -> Notice | None:
    row, contract = taken.row, taken.after.contract
    if row.name == "sign_contract" and contract is not None and contract.is_fully_signed:
        return FULLY_SIGNED
    if row.name == "update" and not changes_of(taken.before, taken.after):
        return None
    own = NOTICES.get((row.name, row.target)) or NOTICES.get(row.name)
    return own or (ENDS.get(row.target) if taken.leaves_state else None)


def new_mail(
    tx: Transaction,
    template: str,
    escrow: Escrow,
    role: Role,
    dedupe_key: str,
    invitation_id: str | None = None,
    clocks: Clocks = MappingProxyType({}),
    before: Escrow | None = None,
) -> NewMail:
    """The row of a mail to one side of an escrow, as the escrow and its `clocks` now stand.

    `before` is as it stood before the step.
    """
    mail_id = entity_id(tx.now)
    return NewMail(
        id=mail_id,
        recipient=address_of(escrow, role),
        template=template,
        language=escrow.language,
        facts={
            **facts_of(escrow, role, tx.now, tx.policy, clocks),
            "note": _said(template, escrow),
            **(changes_of(before, escrow) if before else {}),
        },
        dedupe_key=dedupe_key,
        message_id=message_id_of(mail_id, tx.policy),
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
        message_id=message_id_of(mail_id, tx.policy),
    )


def failing_mail(tx: Transaction, endpoint: Addressed, why: Told) -> NewMail:
    """The row of the mail to a developer whose endpoint fails; at most one a day for each `why`."""
    mail_id = entity_id(tx.now)
    reason = (why.name or "").lower()
    facts = EndpointFacts(endpoint_id=endpoint.id, url=endpoint.url, reason=reason)
    return NewMail(
        id=mail_id,
        recipient=endpoint.developer_email,
        template="endpoint_failing",
        language=endpoint.language,
        facts=dict(facts),
        dedupe_key=f"endpoint_failing:{endpoint.id}:{reason}:{tx.real_now:%Y-%m-%d}",
        message_id=message_id_of(mail_id, tx.policy),
    )


@dataclass(frozen=True, slots=True)
class Speech:
    """How somebody is written to; `timezone` is None for the house's."""

    language: str
    timezone: str | None = None


def identity_mail(
    tx: Transaction, verification: Verification, company: str, speech: Speech
) -> NewMail:
    """The row of the mail that asks a person to show who they are; once each time it is sent."""
    return _of_identity(
        tx,
        "identity_verification",
        verification,
        _identity_facts(tx, verification, company, None, speech),
        speech.language,
        f"identity_verification:{verification.id}:{verification.mails}",
    )


def decision_mail(
    tx: Transaction, verification: Verification, company: str, speech: Speech, reason: str | None
) -> NewMail:
    """The row of the mail that tells a person how their verification was decided, and why."""
    template = f"identity_{verification.kyc_status}"
    facts = _identity_facts(tx, verification, company, reason, speech)
    return _of_identity(
        tx, template, verification, facts, speech.language, f"{template}:{verification.id}"
    )


def _identity_facts(
    tx: Transaction, verification: Verification, company: str, reason: str | None, speech: Speech
) -> IdentityFacts:
    return IdentityFacts(
        verification_id=verification.id,
        company=company,
        expires_at=instant(verification.expires_at),
        timezone=speech.timezone or tx.policy.timezone,
        reason=reason,
    )


def _of_identity(
    tx: Transaction,
    template: str,
    verification: Verification,
    facts: IdentityFacts,
    language: str,
    dedupe_key: str,
) -> NewMail:
    mail_id = entity_id(tx.now)
    return NewMail(
        id=mail_id,
        recipient=verification.email,
        template=template,
        language=language,
        facts=dict(facts),
        dedupe_key=dedupe_key,
        message_id=message_id_of(mail_id, tx.policy),
        identity_id=verification.id,
    )


def code_mail(tx: Transaction, template: str, code_id: str, email: str, language: str) -> NewMail:
    """The row of a mail with a code, which is derived when it is written."""
    mail_id = entity_id(tx.now)
    return NewMail(
        id=mail_id,
        recipient=email,
        template=template,
        language=language,
        facts=dict(CodeFacts(code_id=code_id, minutes=CODE_MINUTES)),
        dedupe_key=f"code:{code_id}",
        message_id=message_id_of(mail_id, tx.policy),
    )


def address_of(escrow: Escrow, role: Role) -> str:
    """Where this side gets its mail: the user's address, else the one that was invited."""
    return escrow.seller_address if role is Role.SELLER else escrow.buyer_address


def facts_of(
    escrow: Escrow, role: Role, now: datetime, policy: Policy, clocks: Clocks
) -> EscrowFacts:
    """What a mail to this side says of the escrow; see `words/facts.py`."""
    settled_minor = escrow.funded_minor - escrow.refunded_minor
    fees_minor = escrow.escrow_fee_minor + escrow.developer_fee_minor
    completed = escrow.completed_at is not None
    held_minor = settled_minor if completed else escrow.amount_ledger_minor
    settlement = escrow.dispute.settlement if escrow.dispute else None
    net_minor = escrow.released_minor if completed else escrow.amount_ledger_minor - fees_minor
    reader = escrow.seller if role is Role.SELLER else escrow.buyer
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
            "disputed_at": _instant(escrow.dispute.opened_at if escrow.dispute else None),
            "expires_at": _instant(escrow.expires_at),
            "delivery_due_at": _instant(clocks.get(OVERDUE)),
            "refund_due_at": _instant(clocks.get("overdue_refund")),
            "completion_due_at": _instant(clocks.get("completion")),
            "answer_due_at": _instant(clocks.get(DISPUTE_ANSWER)),
            "request_due_at": _instant(clocks.get(CANCELLATION_ANSWER)),
            "proof_due_at": _instant(escrow.proof.upload_deadline if escrow.proof else None),
            "review_due_at": _instant(escrow.proof.review_deadline if escrow.proof else None),
        },
        paused=[name for kind, name in DUE_OF.items() if kind in clocks and clocks[kind] is None],
        at=instant(now),
        timezone=(reader.timezone if reader else None) or policy.timezone,
        reason=escrow.cancel_reason,
        refunded=_plain(escrow.refunded_minor, escrow.ledger_currency),
        settled_by=settlement.resolved_by if settlement else None,
    )


def changes_of(before: Escrow, after: Escrow) -> Mapping[str, object]:
    """What of the deal is another after a step, as a mail's facts; it makes signatures void."""
    changes: dict[str, object] = {}
    if before.amount_minor != after.amount_minor:
        changes["was"] = _plain(before.amount_minor, before.currency)
    if before.contract and after.contract and before.contract.terms != after.contract.terms:
        changes["is_rewritten"] = True
    return changes


def _said(template: str, escrow: Escrow) -> str | None:
    """What the other side wrote with the step that a mail of this template tells about."""
    match template:
        case "delivery_rejected":
            return escrow.rejections[-1].reason if escrow.rejections else None
        case "cancellation_requested":
            return escrow.cancellation.reason if escrow.cancellation else None
        case "dispute_opened":
            return escrow.dispute.reason if escrow.dispute else None
        case "proof_correction" if escrow.proof and escrow.proof.submissions:
            return escrow.proof.submissions[-1].correction
    return None


def links_of(mail: Mail, policy: Policy, vault: Vault) -> Mapping[str, str]:
    """Where this mail may point to. Raises LookupError when its token's key is gone."""
    links = {}
    if mail.escrow_id is not None:
        links[ESCROW_LINK] = f"{policy.public_url}/dashboard/escrow/{mail.escrow_id}"
    if "endpoint_id" in mail.facts:
        page = f"{policy.public_url}/dashboard/webhooks/{mail.facts['endpoint_id']}"
        links[ENDPOINT_LINK] = page
    if "page" in mail.facts:
        links[PAYMENT_LINK] = f"{policy.public_url}{mail.facts['page']}"
    if "code_id" in mail.facts:
        page = CODE_PAGE[mail.template]
        links[CODE_LINK] = f"{policy.public_url}/{page}/{mail.facts['code_id']}"
        if mail.template == "sign_in_code":
            links[CODE_LINK] += f"/{vault.link_token(SIGN_IN_LINK, mail.facts['code_id'])}"
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
    if "code_id" in mail.facts:
        code = vault.code(CODE_PURPOSE[mail.template], mail.facts["code_id"])
        facts = CodeFacts(code_id=mail.facts["code_id"], minutes=mail.facts["minutes"], code=code)
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


def message_id_of(mail_id: str, policy: Policy) -> str:
    """The fixed Message-ID of a mail, so that a repetition is told as one."""
    host = policy.public_url.split("://", 1)[-1].split("/", 1)[0].split(":", 1)[0]
    return f"<{mail_id}@{host}>"
