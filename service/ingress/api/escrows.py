"""The buyer-seller escrows: create, list, read, and the steps that an API key takes."""

from collections.abc import Mapping
from dataclasses import replace
from decimal import Decimal
from typing import Any

from service.commands import amendments, contracts, disputes, escrows, proofs
from service.commands.perform import Answer, perform_grouped
from service.ingress.call import Call, Caller
from service.ingress.route import Subject, is_entity_id
from service.rules.aggregate import Escrow
from service.rules.errors import EscrowNotFound, InvalidEscrowId, NoProofPolicy, NotParty
from service.rules.escrow import MODES, PROOF, check_role
from service.rules.terms import Terms
from service.store.deadlines import read_open
from service.store.escrows import Scope, count_escrows, list_escrows, read_escrow
from service.store.mails import read_mail_troubles
from service.wire.contracts import ContractAnswer
from service.wire.disputes import CaseAnswer
from service.wire.escrows import (
    Changes,
    EscrowAnswer,
    EscrowPage,
    EscrowQuery,
    NewEscrow,
    Pagination,
    Reasoned,
    detail,
    listed,
    wire_mode,
)
from service.wire.mailbox import MailTrouble
from service.wire.next import NextAnswer, Open, next_answer
from service.wire.proofs import ProofAnswer


def may_see(caller: Caller, escrow: Escrow) -> bool:
    """The developer that created it, or one whose user is a party."""
    return caller.developer_id == escrow.creator_id or (
        caller.user_id is not None and caller.user_id in (escrow.seller_id, escrow.buyer_id)
    )


ESCROW = Subject(
    "id", is_entity_id, InvalidEscrowId, read_escrow, EscrowNotFound, may_see, NotParty
)


def escrow_for(step: str) -> Subject:
    """An escrow on which the caller may take this step at some time: else 403, before the body."""
    return replace(ESCROW, screen=lambda actor, escrow: check_role(step, escrow, actor))


def screen(caller: Caller, given: Mapping[str, Any]) -> None:
    """Create's 403s, before any field is looked at."""
    fee = given.get("developerFeePercentage")
    escrows.check_association(
        caller.user_id,
        has_seller_email=given.get("sellerEmail") is not None,
        has_developer_fee=isinstance(fee, int | Decimal) and not isinstance(fee, bool) and fee > 0,
    )


async def create(call: Call[NewEscrow, None]) -> Answer:
    """Open an escrow; without a key or a cap to be exact about, together with others."""
    terms = terms_of(call.body)
    is_plain = call.idempotency is None and call.house.policy.daily_escrow_cap is None
    if is_plain and not call.is_rehearsal:
        order = escrows.Order(call.actor, call.developer_id, terms)
        return await perform_grouped(call.house, escrows.create_all, order, status=call.status)
    return await call.perform(escrows.create(call.developer_id, terms))


def terms_of(body: NewEscrow) -> Terms:
    """The body as the rules want it."""
    policy = body.fulfillment_policy
    return Terms(
        title=body.title,
        amount=body.amount,
        currency=body.currency,
        buyer_email=body.buyer_email,
        seller_email=body.seller_email,
        mode=body.mode,
        estimated_delivery_days=body.estimated_delivery_days,
        contract_terms=body.contract_terms,
        auto_sign=body.auto_sign,
        developer_fee_bps=int(body.developer_fee_percentage * 100),
        fulfillment_policy=policy.model_dump(by_alias=True, exclude_none=True) if policy else None,
        language=body.language,
        auto_complete=body.auto_complete,
    )


async def read_list(call: Call[None, EscrowQuery]) -> EscrowPage:
    """The caller's escrows, newest first, by page or by cursor."""
    query, user_id, reader = call.query, call.user_id, call.house.pool
    scope = Scope(
        seller_id=user_id if query.role in (None, "seller") else None,
        buyer_id=user_id if query.role in (None, "buyer") else None,
        creator_id=call.developer_id if query.role is None else None,
        status=query.status,
        modes=tuple(mode for mode in MODES if query.mode in (None, wire_mode(mode))),
        created_from=query.created_from,
        created_before=query.created_before,
        text=query.q,
    )
    offset = 0 if query.cursor else (query.page - 1) * query.limit
    found = await list_escrows(
        reader, scope, before=query.cursor, limit=query.limit + 1, offset=offset
    )
    shown, more = found[: query.limit], len(found) > query.limit
    total = None if query.cursor else await count_escrows(reader, scope)
    return EscrowPage(
        escrows=[listed(escrow) for escrow in shown],
        pagination=Pagination(
            page=None if query.cursor else query.page,
            limit=query.limit,
            total=total,
            pages=None if total is None else -(-total // query.limit),
            next_cursor=shown[-1].id if more else None,
        ),
    )


async def read_one(call: Call[None, None]) -> EscrowAnswer:
    """One escrow in full, with what of its mail has not arrived."""
    troubles = await read_mail_troubles(call.house.pool, call.subject.id)
    return detail(
        call.subject,
        call.house.policy.ticket_prefix,
        [
            MailTrouble(
                to=one.recipient,
                template=one.template,
                state=one.state,
                attempts=one.attempts,
                last_error=one.last_error,
                next_attempt_at=one.next_attempt_at,
            )
            for one in troubles
        ],
    )


async def read_next(call: Call[None, None]) -> NextAnswer:
    """What may happen next, to whom it falls, and what time does."""
    deadlines = await read_open(call.house.pool, call.subject.id)
    return next_answer(
        call.subject, [Open(d.kind, d.due_at, d.remaining, d.subject) for d in deadlines]
    )


async def read_contract(call: Call[None, None]) -> ContractAnswer:
    """The contract of a standard escrow."""
    return await contracts.read_contract(call.house, call.subject)


async def read_proof(call: Call[None, None]) -> ProofAnswer:
    """Where the purchase proof stands."""
    if call.subject.mode != PROOF:
        raise NoProofPolicy
    return await proofs.read_proof(call.house, call.subject)


async def read_dispute(call: Call[None, None]) -> CaseAnswer:
    """What both parties have said, shown and offered in the last dispute."""
    return await disputes.read_case(call.house, call.subject)


async def update(call: Call[Changes, None]) -> Answer:
    """The seller or the creator changes the terms before payment."""
    return await call.perform(amendments.update(call.subject.id, changes_of(call.body)))


def changes_of(body: Changes) -> amendments.Changes:
    """The body as the command wants it."""
    return amendments.Changes(
        title=body.title,
        amount=body.amount,
        description=body.description,
        estimated_delivery_days=body.estimated_delivery_days,
        contract_terms=body.contract_terms,
    )


async def deliver(call: Call[None, None]) -> Answer:
    """The caller's user, the seller, has delivered."""
    return await call.perform(escrows.deliver(call.subject.id))


async def reject_delivery(call: Call[Reasoned, None]) -> Answer:
    """The caller's user, the buyer, sends the delivery back."""
    return await call.perform(escrows.reject_delivery(call.subject.id, call.body.reason))


async def cancel(call: Call[None, None]) -> Answer:
    """A party or the creator cancels before payment."""
    return await call.perform(escrows.cancel(call.subject.id))
