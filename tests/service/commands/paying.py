"""Payments as the tests of commands arrange them: begun, reported, decided, looked at."""

from typing import Any
from uuid import UUID

from service.commands import payment_mails, payments, sessions
from service.commands.developers import allow_redirects
from service.commands.payments import Heard, Wish
from service.commands.perform import House
from service.rules.machine import SYSTEM, Actor, ActorKind
from service.rules.payment import (
    ACCEPT_PAY,
    BANK_TRANSFER,
    REFUND,
    SANDBOX,
    TOPUP,
    Outcome,
    Payment,
    Report,
)
from service.store.ledger import read_balance
from service.store.payments import list_payments, read_payment
from service.wire.sessions import NewSession
from tests.makers import Buyer, Shop, act, arrange, make_escrow, reread

OPERATOR = Actor(ActorKind.OPERATOR)
GUEST = Actor(ActorKind.USER)
GUEST_EMAIL = "guest@example.com"
BACK = "https://shop.example/back"
AMOUNT = 100_000


async def begin(house: House, buyer: Buyer | None, **wish: Any) -> str:
    """A payment of 100 TND by card, unless said otherwise; its id."""
    wished = {"kind": TOPUP, "provider": SANDBOX, "amount_minor": AMOUNT, "currency": "TND"}
    actor = buyer.actor if buyer else GUEST
    user_id = buyer.user_id if buyer else None
    made = await act(house, actor, payments.begin(Wish(**{**wished, "user_id": user_id, **wish})))
    return made["payment"]["id"]


async def begin_for(house: House, buyer: Buyer, escrow_id: str, **wish: Any) -> str:
    return await begin(house, buyer, kind=ACCEPT_PAY, escrow_id=escrow_id, **wish)


async def open_session(
    house: House, escrow_id: str, email: str = GUEST_EMAIL, action: str = ACCEPT_PAY
) -> UUID:
    """A checkout session of this escrow, of 30 minutes."""
    escrow = await reread(house, escrow_id)
    creator = escrow.creator_id
    await arrange(house, lambda tx: allow_redirects(tx, creator, [BACK]))
    asked = NewSession(action=action, targetUserEmail=email, redirectUrl=BACK)
    made = await act(house, SYSTEM, sessions.create(creator, escrow_id, asked))
    return UUID(made["sessionId"])


async def begin_guest(house: House, escrow_id: str, **wish: Any) -> str:
    """By bank transfer, in a session of its own unless one is given."""
    wished = {"provider": BANK_TRANSFER, "payer_email": GUEST_EMAIL, **wish}
    if "session_id" not in wished:
        wished["session_id"] = await open_session(house, escrow_id)
    return await begin(house, None, kind=ACCEPT_PAY, escrow_id=escrow_id, **wished)


async def hear(
    house: House,
    payment_id: str,
    outcome: Outcome = Outcome.SUCCEEDED,
    amount: int = AMOUNT,
    currency: str = "TND",
    charge: str = "ch_1",
    **heard: Any,
) -> None:
    found = await read_payment(house.pool, payment_id)
    is_of_refund = found is not None and found.kind == REFUND
    report = Report(outcome, amount, currency, charge, is_of_refund)
    told = {"provider": SANDBOX, "reference": f"ref_{payment_id}", **heard}
    await payments.hear(house, SYSTEM, Heard(payment_id=payment_id, report=report, **told))


async def decide(
    house: House,
    payment_id: str,
    *,
    approves: bool,
    received: tuple[int, str] | tuple[int, str, str] | None = None,
    note: str | None = None,
) -> str:
    """The operator's word; the state of the payment that it led to."""
    statement = payments.Statement(*received) if received else None
    command = payments.decide(payment_id, approves=approves, received=statement, note=note)
    return (await act(house, OPERATOR, command))["payment"]["state"]


async def stands(house: House, payment_id: str) -> Payment:
    found = await read_payment(house.pool, payment_id)
    assert found is not None
    return found


async def state(house: House, payment_id: str) -> str:
    return (await stands(house, payment_id)).state


async def money(house: House, buyer: Buyer) -> tuple[int, int]:
    """(available, pending)."""
    balance = await read_balance(house.pool, buyer.user_id, "TND")
    return balance.available, balance.pending


async def waiting(house: House, *kinds: str) -> list[Payment]:
    """What the operator must decide."""
    return await list_payments(house.pool, kinds or (TOPUP, ACCEPT_PAY, REFUND), None, 10)


async def unregistered(house: House, shop: Shop) -> str:
    """An instant escrow whose buyer has not registered; its id."""
    made = await make_escrow(house, shop, buyer_email=GUEST_EMAIL)
    return made.id


async def proven_by_guest(house: House, shop: Shop) -> tuple[str, str]:
    """(escrow, payment): a guest's proof is under review."""
    escrow_id = await unregistered(house, shop)
    payment_id = await begin_guest(house, escrow_id)
    await act(house, GUEST, payments.prove(payment_id, None))
    return escrow_id, payment_id


async def mails(house: House) -> list[tuple[str, str]]:
    """(template, recipient) of the payments' mails, oldest first."""
    rows = await house.pool.fetch("SELECT template, recipient FROM mail ORDER BY id")
    of_payments = set(payment_mails.TEMPLATES.values())
    return [(row["template"], row["recipient"]) for row in rows if row["template"] in of_payments]
