"""Every step of the milestone family that somebody can take: five verbs each.

Lock, choose, move, post, tell stand in `milestone_steps.py`; the checks and their order in the
rules: `milestone_progress.py`, `_disputes.py`, `_resolution.py` and `_changes.py`.
"""

from collections.abc import Callable, Sequence
from datetime import datetime
from decimal import Decimal
from typing import Any

from service.commands.invitations import welcome_roles
from service.commands.milestone_steps import lock, record, told
from service.commands.perform import Command
from service.rules import (
    milestone_changes,
    milestone_disputes,
    milestone_ground,
    milestone_progress,
    milestone_resolution,
)
from service.rules.aggregate import Person
from service.rules.engagement import (
    WORKING,
    Holder,
    Milestone,
    MilestoneEscrow,
)
from service.rules.errors import (
    DailyCapReached,
    InsufficientFunds,
    MilestoneEscrowNotFound,
    OnlyOwnWallet,
    ResolverMustBeIndependent,
)
from service.rules.machine import Actor, ActorKind
from service.rules.milestone import Done
from service.rules.milestone_ground import check_frozen, roles_of
from service.rules.milestone_said import Share, StatusChange
from service.rules.milestone_terms import RECIPIENTS_MAX, Terms, check_terms
from service.store import events
from service.store.db import Transaction
from service.store.developers import count_today, read_company
from service.store.ids import entity_id
from service.store.invitations import accept_invitation, disarm_reminders
from service.store.milestones import (
    insert_milestone_escrow,
    lock_payer,
    read_milestone_escrow,
)
from service.store.users import await_registrations, read_users
from service.wire.milestone_shapes import MilestoneEscrowAnswer, answer, answer_outside
from service.wire.milestones import DistributionGiven, check_mode, minor_of, parts_of

Choose = Callable[[MilestoneEscrow, Transaction], Done]


def create(developer_id: str, terms: Terms) -> Command:
    """Open a milestone escrow; whoever is not registered yet is invited.

    Raises:
        OfMilestones: the first check of the fields that fails.
        DailyCapReached: the operator's cap on creations.
    """

    async def command(tx: Transaction) -> MilestoneEscrowAnswer:
        check_terms(terms)
        cap = tx.policy.daily_escrow_cap
        if cap is not None and (count := await count_today(tx, developer_id)) >= cap:
            raise DailyCapReached(limit=cap, count=count, remaining=0)
        escrow = await _drafted(tx, developer_id, terms)
        done = milestone_changes.created(escrow, tx.now)
        tx.taken.append(done)
        await insert_milestone_escrow(tx, done.after)
        await events.append_events(tx, told(tx, done))
        await welcome_roles(tx, done.after)
        return answer(done.after)

    return command


def fund(
    escrow_id: str,
    given: Decimal,
    *,
    expected_version: int | None = None,
    payer: str | None = None,
) -> Command:
    """The acting user pays into the pool; `payer` is their e-mail, where it was named.

    Amounts are read in the currency that the locked escrow has.

    Raises:
        OfMilestones: the first check that fails.
        InsufficientFunds: the wallet is short.
    """

    async def command(tx: Transaction) -> MilestoneEscrowAnswer:
        escrow = await lock(tx, escrow_id)
        amount = minor_of(given, escrow.currency, "amount")
        milestone_progress.check_fund(escrow, amount, expected_version)
        if tx.actor.user_id is None:
            raise OnlyOwnWallet
        holder, available = await lock_payer(tx, tx.actor.user_id, escrow.currency)
        if payer is not None and payer != holder.email:
            raise OnlyOwnWallet
        if available < amount:
            raise InsufficientFunds(available=available, needed=amount)
        done = milestone_progress.fund(escrow, holder, amount, tx.now)
        await record(tx, done)
        return answer(done.after) if _reads(tx.actor, escrow) else answer_outside(done.after)

    return command


def change_status(escrow_id: str, changes: Sequence[StatusChange]) -> Command:
    """The provider says how milestones stand."""
    return _taking(
        escrow_id,
        lambda escrow, tx: milestone_progress.change_status(escrow, changes, tx.actor, tx.now),
    )


def approve(escrow_id: str, indexes: Sequence[int]) -> Command:
    """The approver accepts milestones."""
    return _taking(
        escrow_id, lambda escrow, tx: milestone_progress.approve(escrow, indexes, tx.actor, tx.now)
    )


def release(escrow_id: str, indexes: Sequence[int] | None = None) -> Command:
    """The signer releases the whole, or these milestones of multi release."""

    return _taking(escrow_id, lambda escrow, tx: released(escrow, indexes, tx.actor, tx.now))


def released(
    escrow: MilestoneEscrow, indexes: Sequence[int] | None, actor: Actor, now: datetime
) -> Done:
    """The release of the whole, or of these milestones, as the escrow's release mode has it."""
    check_mode(escrow, "milestoneIndexes", indexes)
    if escrow.is_single:
        return milestone_progress.release(escrow, actor, now)
    return milestone_progress.release_milestones(escrow, indexes or (), actor, now)


def dispute(escrow_id: str, reason: str, indexes: Sequence[int] | None = None) -> Command:
    """Somebody disputes the whole, or these milestones of multi release."""

    return _taking(
        escrow_id, lambda escrow, tx: disputed(escrow, reason, indexes, tx.actor, tx.now)
    )


def disputed(
    escrow: MilestoneEscrow,
    reason: str,
    indexes: Sequence[int] | None,
    actor: Actor,
    now: datetime,
) -> Done:
    """The dispute of the whole, or of these milestones, as the escrow's release mode has it."""
    check_mode(escrow, "milestoneIndexes", indexes)
    if escrow.is_single:
        return milestone_disputes.dispute(escrow, reason, actor, now)
    return milestone_disputes.dispute_milestones(escrow, indexes or (), reason, actor, now)


def note(escrow_id: str, text: str, index: int | None = None) -> Command:
    """Somebody with a role adds words to a dispute."""
    return _taking(
        escrow_id, lambda escrow, tx: milestone_disputes.note(escrow, text, index, tx.actor, tx.now)
    )


def resolve(
    escrow_id: str, given: Sequence[DistributionGiven], index: int | None = None
) -> Command:
    """The resolver distributes the balance, or up to one milestone's amount."""

    async def command(tx: Transaction) -> MilestoneEscrowAnswer:
        escrow = await lock(tx, escrow_id)
        done = await resolved(tx, escrow, given, index, tx.actor)
        await record(tx, done)
        return answer(done.after)

    return command


async def resolved(
    tx: Transaction,
    escrow: MilestoneEscrow,
    given: Sequence[DistributionGiven],
    index: int | None,
    actor: Actor,
) -> Done:
    """The resolution of the whole, or of this milestone, as the escrow's release mode has it."""
    check_mode(escrow, "milestoneIndex", index)
    shares = await shares_of(tx, escrow, given)
    if index is None:
        return milestone_resolution.resolve(escrow, shares, actor, tx.now)
    return milestone_resolution.resolve_milestone(escrow, index, shares, actor, tx.now)


def withdraw_remaining(escrow_id: str, given: Sequence[DistributionGiven]) -> Command:
    """The resolver pays out what was left over."""

    async def command(tx: Transaction) -> MilestoneEscrowAnswer:
        escrow = await lock(tx, escrow_id)
        shares = await shares_of(tx, escrow, given)
        done = milestone_resolution.withdraw_remaining(escrow, shares, tx.actor, tx.now)
        await record(tx, done)
        return answer(done.after)

    return command


def update(escrow_id: str, terms: Terms, *, expected_version: int | None = None) -> Command:
    """The platform puts other terms in place; where nothing differs, nothing happens."""

    async def command(tx: Transaction) -> MilestoneEscrowAnswer:
        await _check_unlocked(tx, escrow_id, terms)
        holders = await _holders(tx, terms.emails)  # before the escrow: registrations wait first
        escrow = await lock(tx, escrow_id)
        done = milestone_changes.update(
            escrow, terms, holders, tx.actor, tx.now, expected_version=expected_version
        )
        if done is None:
            return answer(escrow)
        await record(tx, done)
        await welcome_roles(tx, done.after, done.before)
        return answer(done.after)

    return command


async def link_roles(
    tx: Transaction, escrow_id: str, person: Person, invited_as: str | None = None
) -> MilestoneEscrow | None:
    """Link a registered person to every role that waits for the e-mail; None if none does.

    A frozen escrow stays as it is; `unfreeze` links who has registered meanwhile.
    """
    email = invited_as or person.email
    escrow = await lock(tx, escrow_id)
    done = milestone_changes.linked(escrow, email, person.id, tx.now)
    if done is None:  # nobody waits, or they resolve: a reminder to register is of no use to them
        await disarm_reminders(tx, escrow_id, [email])
        return None
    await record(tx, done)
    await accept_invitation(tx, escrow_id, email, person.id)
    return done.after


def as_seen(escrow_id: str, version: int, taking: Command) -> Command:
    """The step, on the terms of this version only: those that its person has seen.

    Raises:
        EscrowPropertiesMismatch: they were changed meanwhile.
        Refused: as the step.
    """

    async def command(tx: Transaction) -> Any:
        milestone_ground.check_seen(await lock(tx, escrow_id), version)
        return await taking(tx)

    return command


def _taking(escrow_id: str, choose: Choose) -> Command:
    async def command(tx: Transaction) -> MilestoneEscrowAnswer:
        escrow = await lock(tx, escrow_id)
        done = choose(escrow, tx)
        await record(tx, done)
        return answer(done.after)

    return command


async def _drafted(tx: Transaction, developer_id: str, terms: Terms) -> MilestoneEscrow:
    """The escrow as it will stand, with both rates stored."""
    holders = await _holders(tx, terms.emails)
    escrow = MilestoneEscrow(
        id=entity_id(tx.now),
        release_mode=terms.release_mode,
        status=WORKING,
        creator_id=developer_id,
        creator_company=await read_company(tx, developer_id),
        engagement_id=terms.engagement_id,
        title=terms.title,
        description=terms.description,
        currency=terms.currency,
        amount_minor=terms.total_minor,
        platform_fee_bps=terms.platform_fee_bps,
        protocol_fee_bps=tx.policy.protocol_fee_bps,
        receiver_memo=terms.receiver_memo,
        resolver_deadline_days=terms.resolver_deadline_days,
        roles={role: holders[email] for role, email in terms.roles.items()},
        milestones=tuple(
            Milestone(
                one.description,
                amount_minor=one.amount_minor,
                receiver=holders[one.receiver] if one.receiver else None,
            )
            for one in terms.milestones
        ),
        created_at=tx.now,
        updated_at=tx.now,
    )
    if not milestone_ground.is_independent(escrow):
        raise ResolverMustBeIndependent
    return escrow


async def _check_unlocked(tx: Transaction, escrow_id: str, terms: Terms) -> None:
    """Fields and role, before an e-mail is locked: whoever may not update keeps nobody waiting.

    A clock's step that is due changes neither; all is checked again under the lock.
    """
    escrow = await read_milestone_escrow(tx, escrow_id)
    if escrow is None:
        raise MilestoneEscrowNotFound
    check_frozen(escrow)
    milestone_changes.check_update(escrow, terms, tx.actor)


async def _holders(tx: Transaction, emails: Sequence[str]) -> dict[str, Holder]:
    """Who is behind each e-mail: a user whose e-mail is verified, or nobody yet."""
    found = await read_users(tx, emails)
    unknown = sorted(e for e in emails if e not in found or not found[e].is_email_verified)
    if unknown and await await_registrations(tx, unknown):
        found = await read_users(tx, emails)
    return {
        email: Holder(email, user.person.id if user and user.is_email_verified else None)
        for email in emails
        for user in (found.get(email),)
    }


async def shares_of(
    tx: Transaction, escrow: MilestoneEscrow, given: Sequence[DistributionGiven]
) -> list[Share]:
    """The recipients looked up: by a role's e-mail here, else by the user's own.

    No more of them than a list may have: a longer one is refused before who they are matters.
    """
    parts = parts_of(given, escrow.currency)
    here = {holder.email: holder.user_id for holder in escrow.holders() if holder.user_id}
    others = sorted({email for email, _ in parts[:RECIPIENTS_MAX] if email not in here})
    users = await read_users(tx, others) if others else {}
    ids = here | {email: user.person.id for email, user in users.items() if user.is_email_verified}
    return [Share(Holder(email, ids.get(email)), amount) for email, amount in parts]


def _reads(actor: Actor, escrow: MilestoneEscrow) -> bool:
    """Whether this key reads the escrow. People see what their pages show, whatever is answered."""
    return (
        actor.kind is not ActorKind.DEVELOPER
        or actor.developer_id == escrow.creator_id
        or bool(roles_of(escrow, actor.user_id))
    )
