"""The buyer-seller escrows: create, list, read, deliver, cancel."""

from collections.abc import Mapping
from decimal import Decimal
from typing import Any

from service.commands import escrows
from service.commands.perform import Answer, perform, perform_grouped
from service.ingress.call import Call, Caller
from service.ingress.route import Subject, is_entity_id
from service.rules.errors import EscrowNotFound, InvalidEscrowId, NotParty
from service.rules.escrow import Escrow
from service.rules.terms import Terms
from service.store.db import Reader
from service.store.escrows import Scope, count_escrows, list_escrows, read_escrow
from service.store.mails import read_mail_troubles
from service.wire.escrows import (
    EscrowAnswer,
    EscrowPage,
    EscrowQuery,
    NewEscrow,
    Pagination,
    detail,
    listed,
)
from service.wire.mailbox import MailTrouble


def may_see(caller: Caller, escrow: Escrow) -> bool:
    """The developer that created it, or one whose user is a party."""
    return caller.developer_id == escrow.creator_id or (
        caller.user_id is not None and caller.user_id in (escrow.seller_id, escrow.buyer_id)
    )


async def _read(reader: Reader, escrow_id: str) -> Escrow | None:
    escrow = await read_escrow(reader, escrow_id)
    return escrow if escrow is not None and escrow.mode != "milestone" else None


ESCROW = Subject("id", is_entity_id, InvalidEscrowId, _read, EscrowNotFound, may_see, NotParty)


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
    if call.idempotency is None and call.house.policy.daily_escrow_cap is None:
        order = escrows.Order(call.actor, call.developer_id, terms)
        return await perform_grouped(call.house, escrows.create_all, order, status=call.status)
    command = escrows.create(call.developer_id, terms)
    return await perform(
        call.house, call.actor, command, status=call.status, idempotency=call.idempotency
    )


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


async def deliver(call: Call[None, None]) -> Answer:
    """The caller's user, the seller, has delivered."""
    command = escrows.deliver(call.subject.id)
    return await perform(call.house, call.actor, command, idempotency=call.idempotency)


async def cancel(call: Call[None, None]) -> Answer:
    """A party or the creator cancels before payment."""
    command = escrows.cancel(call.subject.id)
    return await perform(call.house, call.actor, command, idempotency=call.idempotency)
