"""Identity verifications: asked for, mailed, decided, and linked to whoever registers.

Asking and registering with the same e-mail do not pass each other: both hold the e-mail's lock, so
that two who ask at once get one record and no registration leaves one unlinked.
"""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from service.commands.files import record as record_files
from service.commands.mails import IDENTITY, Speech, decision_mail, identity_mail
from service.commands.perform import Command
from service.rules.aggregate import Person
from service.rules.checkout import is_on, read_target
from service.rules.errors import (
    Forbidden,
    IdentityApproved,
    Invalid,
    VerificationNotFound,
)
from service.rules.files import StoredFile
from service.rules.identity import (
    DOCUMENTS_MAX,
    EXPIRES_AFTER,
    LIVE,
    PENDING,
    TABLE,
    Verification,
    choose,
    is_blocked,
)
from service.rules.machine import NOWHERE, Step
from service.store import identity
from service.store.db import Transaction
from service.store.events import Entry, append_events
from service.store.identity import Asker
from service.store.ids import entity_id, event_id
from service.store.mails import insert_mails
from service.store.users import User, lock_email, read_user
from service.store.vault import hash_token
from service.wire.base import Wire
from service.wire.identity import NewVerification, found, identity_event, made, record
from service.wire.text import ascii_domain

AT_ONCE = "The sandbox approves at once; no e-mail was sent"
MAILED = "Verification requested; the link was sent by e-mail"
MAILED_AGAIN = "Verification is pending; the link was sent again"
UNDER_REVIEW = "The person has sent documents; they are being looked at"
MAILED_JUST_NOW = "Verification is pending; the link was sent less than 5 minutes ago"


def request(developer_id: str, wanted: NewVerification) -> Command:
    """The pending verification of this e-mail, or else a new one (a `VerificationMade`).

    Raises:
        Invalid: the redirect URL is not on the developer's list.
        Forbidden: the e-mail's domain is blocked.
        IdentityApproved: the user with this e-mail is registered and approved.
    """

    async def command(tx: Transaction) -> Wire:
        asker = await identity.read_asker(tx, developer_id)
        _check(tx, wanted, asker)
        await lock_email(tx, wanted.email)
        if await identity.read_is_approved(tx, wanted.email):
            raise IdentityApproved
        user = await read_user(tx, wanted.email)
        pending = await identity.lock_pending(tx, developer_id, wanted.email)
        if pending is not None:
            if not pending.is_expired(tx.now):
                return await _remind(tx, pending, asker, user)
            await _take(tx, pending, "replace", superseded=True)
        return await _open(tx, developer_id, wanted, asker, user)

    return command


def submit(token: str, files: Sequence[StoredFile], language: str) -> Command:
    """The person behind the mailed link shows who they are: 1 to DOCUMENTS_MAX files.

    The files are in the store already, and are recorded here; `language` is the page's. The link
    is spent with it.

    Raises:
        Invalid: there is no file, or there are too many.
        VerificationNotFound: no verification has this link.
        VerificationDecided, VerificationExpired, VerificationUnderReview: nothing is awaited.
    """

    async def command(tx: Transaction) -> Wire:
        if not 0 < len(files) <= DOCUMENTS_MAX:
            raise Invalid({"files": f"give 1 to {DOCUMENTS_MAX} files"})
        pending = await identity.lock_verification_behind(tx, hash_token(token))
        if pending is None:
            raise VerificationNotFound
        shown = await _take(tx, pending, "submit", needs_admin_review=True)
        await record_files(tx, files)
        await identity.insert_documents(tx, shown.id, files, language)
        return record(shown)

    return command


def decide(verification_id: str, *, approves: bool, reason: str | None = None) -> Command:
    """The operator's word on a pending verification; the person is told it by mail, with `reason`.

    Raises:
        VerificationNotFound: there is none with this id.
        VerificationDecided, VerificationExpired: it is not pending any more.
    """

    async def command(tx: Transaction) -> Wire:
        pending = await identity.lock_verification(tx, verification_id)
        if pending is None:
            raise VerificationNotFound
        step = "approve" if approves else "reject"
        decided = await _take(tx, pending, step, needs_admin_review=False)
        asker = await identity.read_asker(tx, decided.developer_id)
        speech = await _spoken(tx, decided)
        await insert_mails(tx, [decision_mail(tx, decided, asker.company, speech, reason)])
        return record(decided)

    return command


async def link_verifications(tx: Transaction, person: Person) -> None:
    """Every verification of this person's e-mail, whoever asked and however it stands, is theirs.

    For an e-mail that is verified; relies on its lock.
    """
    for waiting in await identity.lock_unlinked(tx, person.email):
        await _link(tx, waiting, person)


def _check(tx: Transaction, wanted: NewVerification, asker: Asker) -> None:
    url, allowed = wanted.redirect_url, asker.redirect_urls
    if url is not None and allowed and not is_on(allowed, read_target(url)):
        raise Invalid({"redirect_url": "must be on your list of redirect URLs"})
    domain = ascii_domain(wanted.email.rpartition("@")[2])
    if is_blocked(domain, tx.policy.blocked_email_domains):
        raise Forbidden(reason="E-mail addresses of this domain are not accepted.")


async def _open(
    tx: Transaction,
    developer_id: str,
    wanted: NewVerification,
    asker: Asker,
    user: User | None,
) -> Wire:
    opened = _new(tx, developer_id, wanted)
    row = TABLE.find("create", NOWHERE, tx.policy.environment)
    if row is None:
        raise AssertionError("no verification can be made")
    await identity.insert_verification(tx, opened)
    await _tell(tx, row, opened, opened)
    if tx.policy.is_sandbox:
        opened = await _take(tx, opened, "approve")
    else:
        await insert_mails(tx, [identity_mail(tx, opened, asker.company, _speech(user))])
    if user is not None and user.is_email_verified:
        opened = await _link(tx, opened, user.person)
    return made(opened, AT_ONCE if tx.policy.is_sandbox else MAILED)


async def _remind(tx: Transaction, pending: Verification, asker: Asker, user: User | None) -> Wire:
    if pending.needs_admin_review:
        return found(pending, UNDER_REVIEW)
    if not pending.may_be_mailed(tx.real_now):
        return found(pending, MAILED_JUST_NOW)
    pending = await _take(tx, pending, "remind", mails=pending.mails + 1, mailed_at=tx.real_now)
    await insert_mails(tx, [identity_mail(tx, pending, asker.company, _speech(user))])
    return found(pending, MAILED_AGAIN)


def _new(tx: Transaction, developer_id: str, wanted: NewVerification) -> Verification:
    """A record at its first step; live, with the hash of the link that is mailed."""
    verification_id = entity_id(tx.now)
    is_mailed = tx.policy.environment == LIVE
    return Verification(
        id=verification_id,
        developer_id=developer_id,
        email=wanted.email,
        external_user_id=wanted.external_user_id,
        redirect_url=wanted.redirect_url,
        metadata=wanted.metadata,
        kyc_status=PENDING,
        needs_admin_review=False,
        superseded=False,
        token_hash=hash_token(tx.vault.link_token(IDENTITY, verification_id))
        if is_mailed
        else None,
        counter=0,
        mails=1 if is_mailed else 0,
        mailed_at=tx.real_now if is_mailed else None,
        linked_user_id=None,
        linked_at=None,
        seq=1,
        expires_at=tx.now + EXPIRES_AFTER,
        created_at=tx.now,
        updated_at=tx.now,
    )


async def _link(tx: Transaction, waiting: Verification, person: Person) -> Verification:
    return await _take(tx, waiting, "link", linked_user_id=person.id, linked_at=tx.now)


async def _take(tx: Transaction, before: Verification, name: str, **changes: Any) -> Verification:
    """The verification after this step; relies on the row's lock."""
    row = choose(before, name, tx.policy.environment, tx.now)
    after = replace(before, kyc_status=row.target, seq=before.seq + 1, updated_at=tx.now, **changes)
    await identity.move_verification(tx, before, after)
    await _tell(tx, row, before, after)
    return after


async def _tell(tx: Transaction, row: Step, before: Verification, after: Verification) -> None:
    uid, mode = event_id(tx.now), tx.policy.environment
    event_type = next(iter(row.events), None)
    body = None
    if event_type is not None:
        body = identity_event(uid, event_type, before, after, mode, tx.now)
    entry = Entry(
        id=uid,
        subject_id=after.id,
        subject_kind="identity",
        seq=after.seq,
        step=row.name,
        type=event_type,
        body=body,
        family=TABLE.family,
        mode=mode,
        from_state=row.source,
        to_state=row.target,
    )
    await append_events(tx, [entry])


async def _spoken(tx: Transaction, verification: Verification) -> Speech:
    """How the person is written to: as the user has set it, else as the page spoke to them."""
    user = await read_user(tx, verification.email)
    documents = await identity.read_documents(tx, verification.id) if user is None else None
    return Speech(documents.language) if documents else _speech(user)


def _speech(user: User | None) -> Speech:
    return Speech("en") if user is None else Speech(user.person.language, user.person.timezone)
