"""Payments: read, locked, inserted, moved. Times are real, but for what events say.

Locks, everywhere: the escrow first, then payments in id order, then accounts in id order.
"""

from collections.abc import Sequence
from datetime import datetime

from service.rules.payment import Payment
from service.store.db import Reader, Row, Transaction

NAMES = (
    "id",
    "kind",
    "state",
    "provider",
    "amount_minor",
    "currency",
    "user_id",
    "escrow_id",
    "provider_reference",
    "charge_reference",
    "received_minor",
    "received_currency",
    "origin_id",
    "session_id",
    "expected_minor",
    "payer_email",
    "page_url",
    "proof_file",
    "payee",
    "note",
    "seq",
    "expires_at",
    "created_at",
    "asked_at",
    "ask_at",
    "decided_by",
    "settled_at",
)

READ_PAYMENT = "SELECT * FROM payment WHERE id = $1"


async def read_payment(reader: Reader, payment_id: str) -> Payment | None:
    """The payment, or None where there is none of this id."""
    row = await reader.fetchrow(READ_PAYMENT, payment_id)
    return _payment(row) if row else None


READ_PAYMENT_BY_REFERENCE = """
SELECT * FROM payment
WHERE provider = $1 AND provider_reference = $2 AND kind <> 'refund'
"""


async def read_payment_by_reference(
    reader: Reader, provider: str, reference: str
) -> Payment | None:
    """The payment that this provider calls so."""
    row = await reader.fetchrow(READ_PAYMENT_BY_REFERENCE, provider, reference)
    return _payment(row) if row else None


# Locks the rows in id order, after their escrow; a snapshot taken after the wait.
LOCK_PAYMENTS = """
SELECT * FROM payment WHERE id = ANY ($1::text[]) ORDER BY id FOR NO KEY UPDATE
"""


async def lock_payments(tx: Transaction, ids: Sequence[str]) -> list[Payment]:
    """Those of the payments that exist, in id order."""
    return [_payment(row) for row in await tx.fetch(LOCK_PAYMENTS, list(ids))]


# Locks in id order, after the escrows.
LOCK_OPEN_OF_ESCROWS = """
SELECT * FROM payment
WHERE escrow_id = ANY ($1::text[]) AND state IN ('created', 'pending') AND kind = 'accept_pay'
ORDER BY id FOR NO KEY UPDATE
"""


async def lock_open_of_escrows(tx: Transaction, escrow_ids: Sequence[str]) -> list[Payment]:
    """What is under way for these escrows."""
    return [_payment(row) for row in await tx.fetch(LOCK_OPEN_OF_ESCROWS, list(escrow_ids))]


READ_OPEN_OF_ESCROW = """
SELECT * FROM payment
WHERE escrow_id = $1 AND state IN ('created', 'pending') AND kind = 'accept_pay' ORDER BY id
"""


async def read_open_of_escrow(reader: Reader, escrow_id: str) -> list[Payment]:
    """What is under way for this escrow, oldest first."""
    return [_payment(row) for row in await reader.fetch(READ_OPEN_OF_ESCROW, escrow_id)]


# A charge counts wherever it was booked: of this payment, of its strays, under its own name.
READ_BOOKED = """
SELECT charge_reference FROM payment
WHERE (id = $1 OR origin_id = $1) AND charge_reference IS NOT NULL AND received_minor > 0
UNION
SELECT charge_reference FROM payment
WHERE provider = $2 AND charge_reference = $3 AND received_minor > 0
"""


async def read_booked(reader: Reader, payment: Payment, charge_reference: str) -> frozenset[str]:
    """The charges that this payment and those which strayed from it have received, and this one."""
    rows = await reader.fetch(READ_BOOKED, payment.id, payment.provider, charge_reference)
    return frozenset(row["charge_reference"] for row in rows)


INSERT_PAYMENT = """
INSERT INTO payment (
    id, kind, state, provider, amount_minor, currency, user_id, escrow_id, provider_reference,
    charge_reference, received_minor, received_currency, origin_id, session_id, expected_minor,
    payer_email, page_url, proof_file, payee, note, seq, expires_at, created_at, asked_at, ask_at,
    decided_by, settled_at)
VALUES ($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, $14, $15, $16, $17, $18, $19, $20,
        $21, $22, $23, $24, $25, $26, $27)
"""


async def insert_payments(tx: Transaction, payments: Sequence[Payment]) -> None:
    """New payments, in whatever state their first step leads to."""
    for payment in payments:
        await tx.execute(INSERT_PAYMENT, *[getattr(payment, name) for name in NAMES])


# Relies on the lock; fenced by state and seq. What was received is written once.
MOVE_PAYMENT = """
UPDATE payment SET state = $4, seq = $5, received_minor = $6, received_currency = $7,
    charge_reference = $8, provider_reference = $9, page_url = $10, proof_file = $11, note = $12,
    expires_at = $13, ask_at = $14, decided_by = $15, settled_at = $16
WHERE id = $1 AND state = $2 AND seq = $3
  AND (received_minor = 0 OR (received_minor, received_currency, charge_reference)
       IS NOT DISTINCT FROM ($6::bigint, $7::text, $8::text))
"""


async def move_payment(tx: Transaction, before: Payment, after: Payment) -> None:
    """From the state before to the one after, or an error."""
    status = await tx.execute(
        MOVE_PAYMENT,
        before.id,
        before.state,
        before.seq,
        after.state,
        after.seq,
        after.received_minor,
        after.received_currency,
        after.charge_reference,
        after.provider_reference,
        after.page_url,
        after.proof_file,
        after.note,
        after.expires_at,
        after.ask_at,
        after.decided_by,
        after.settled_at,
    )
    if status != "UPDATE 1":
        raise AssertionError(f"payment {before.id} was moved without its lock")


NOTE_ASKED = "UPDATE payment SET asked_at = $2, ask_at = $3 WHERE id = $1"


async def note_asked(tx: Transaction, payment_id: str, again_at: datetime) -> None:
    """The outside has answered now; it is asked again then."""
    await tx.execute(NOTE_ASKED, payment_id, tx.real_now, again_at)


# What was cancelled meanwhile is closed at the provider, as what is cancelled afterwards.
NOTE_PLACED = """
UPDATE payment SET provider_reference = coalesce(provider_reference, $2), page_url = $3,
    ask_at = CASE WHEN state = 'cancelled' THEN $4 ELSE ask_at END
WHERE id = $1 AND page_url IS NULL
"""


async def note_placed(tx: Transaction, payment_id: str, reference: str, page_url: str) -> None:
    """What the provider calls it, and its page, where something else was here before them."""
    await tx.execute(NOTE_PLACED, payment_id, reference, page_url, tx.real_now)


NOTE_CLOSED = """
UPDATE payment SET ask_at = NULL, asked_at = $2 WHERE id = $1 AND state = 'cancelled'
"""


async def note_closed(tx: Transaction, payment_id: str) -> None:
    """Its page at the provider can be paid no more."""
    await tx.execute(NOTE_CLOSED, payment_id, tx.real_now)


# Leases what is due for a minute; passes over what another worker is leasing.
LEASE_ASKABLE = """
UPDATE payment SET ask_at = statement_timestamp() + interval '60 seconds'
WHERE id IN (
    SELECT id FROM payment
    WHERE state IN ('created', 'pending') AND provider <> 'bank_transfer' AND kind <> 'payout'
      AND ask_at <= statement_timestamp()
    ORDER BY ask_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED)
RETURNING *
"""


async def lease_askable(tx: Transaction, limit: int) -> list[Payment]:
    """At most `limit` payments about which the outside is to be asked now; asked again in 60 s."""
    return [_payment(row) for row in await tx.fetch(LEASE_ASKABLE, limit)]


# As LEASE_ASKABLE.
LEASE_CLOSABLE = """
UPDATE payment SET ask_at = statement_timestamp() + interval '60 seconds'
WHERE id IN (
    SELECT id FROM payment WHERE state = 'cancelled' AND ask_at <= statement_timestamp()
    ORDER BY ask_at LIMIT $1 FOR NO KEY UPDATE SKIP LOCKED)
RETURNING *
"""


async def lease_closable(tx: Transaction, limit: int) -> list[Payment]:
    """At most `limit` payments that were cancelled here, and whose pages may still be open."""
    return [_payment(row) for row in await tx.fetch(LEASE_CLOSABLE, limit)]


# By hand and without a proof: nobody but the payer's own clock ends them. An escrow's page too.
READ_LAPSED = """
SELECT * FROM payment
WHERE state = 'created' AND provider = 'bank_transfer' AND kind IN ('topup', 'accept_pay')
  AND expires_at <= clock_timestamp()
ORDER BY expires_at LIMIT $1
"""


async def read_lapsed(reader: Reader, limit: int) -> list[Payment]:
    """Bank transfers of which no proof came in time, oldest first."""
    return [_payment(row) for row in await reader.fetch(READ_LAPSED, limit)]


LIST_PAYMENTS = """
SELECT * FROM payment
WHERE ($1::text IS NULL OR state = $1) AND kind = ANY ($2::text[])
  AND ($1::text IS NOT NULL OR state = 'needs_operator' OR kind = 'payout' AND state = 'created'
       OR provider = 'bank_transfer' AND state = 'pending')
  AND ($4::text IS NULL
       OR (created_at, id) > (SELECT p.created_at, p.id FROM payment p WHERE p.id = $4))
ORDER BY created_at, id LIMIT $3
"""


async def list_payments(
    reader: Reader, kinds: Sequence[str], state: str | None, limit: int, after: str | None = None
) -> list[Payment]:
    """Those in this state, else those that a person must decide; oldest first, from `after` on."""
    rows = await reader.fetch(LIST_PAYMENTS, state, list(kinds), limit, after)
    return [_payment(row) for row in rows]


# By the partial index of what is under way. Two who begin at once may both pass: it bounds work,
# not money.
COUNT_OPEN = """
SELECT count(*) FROM payment
WHERE user_id = $1 AND state IN ('created', 'pending') AND kind IN ('topup', 'accept_pay')
"""


async def count_open(reader: Reader, user_id: str) -> int:
    """How many payments this person has under way into their wallet."""
    count: int = await reader.fetchval(COUNT_OPEN, user_id)
    return count


LIST_OF_USER = """
SELECT * FROM payment
WHERE user_id = $1 AND kind = ANY ($2::text[])
  AND (NOT $3 OR state IN ('created', 'pending', 'needs_operator'))
ORDER BY created_at DESC, id DESC LIMIT $4
"""


async def list_of_user(
    reader: Reader, user_id: str, kinds: Sequence[str], limit: int, *, is_open: bool = False
) -> list[Payment]:
    """This person's payments of these kinds, newest first; with `is_open` what is under way."""
    rows = await reader.fetch(LIST_OF_USER, user_id, list(kinds), is_open, limit)
    return [_payment(row) for row in rows]


def _payment(row: Row) -> Payment:
    return Payment(**{name: row[name] for name in NAMES})
