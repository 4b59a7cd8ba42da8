"""The sandbox provider's book: an outside of its own, which never looks at our payments."""

from collections.abc import Sequence
from datetime import datetime

from service.rules.charges import Charge
from service.store.db import Reader, Row, Transaction

READ_CHARGE = """
SELECT c.reference, c.payment_id, c.amount_minor, c.currency, c.description, c.return_url,
       c.expires_at, c.paid, c.pressed_at,
       ARRAY(SELECT r.refund_id::text FROM sandbox_refund r WHERE r.reference = c.reference
             ORDER BY r.position) AS refund_ids,
       ARRAY(SELECT r.amount_minor FROM sandbox_refund r WHERE r.reference = c.reference
             ORDER BY r.position) AS refund_amounts
FROM sandbox_charge c WHERE c.reference = $1
"""


async def read_charge(reader: Reader, reference: str) -> Charge | None:
    """The charge of this reference."""
    row = await reader.fetchrow(READ_CHARGE, reference)
    return _charge(row) if row else None


OPEN_CHARGE = """
INSERT INTO sandbox_charge (reference, payment_id, amount_minor, currency, description, return_url,
                            expires_at)
VALUES ($1, $2, $3, $4, $5, $6, $7) ON CONFLICT (reference) DO NOTHING
"""


async def open_charge(tx: Transaction, charge: Charge) -> None:
    """Write it down, unless there is one of this reference."""
    await tx.execute(
        OPEN_CHARGE,
        charge.reference,
        charge.payment_id,
        charge.amount_minor,
        charge.currency,
        charge.description,
        charge.return_url,
        charge.expires_at,
    )


# The first button counts; a second one waits for the first one's row and then changes nothing.
PRESS_CHARGE = """
UPDATE sandbox_charge SET paid = $2, pressed_at = $3 WHERE reference = $1 AND pressed_at IS NULL
"""


async def press_charge(tx: Transaction, reference: str, at: datetime, *, paid: bool) -> None:
    """Note the first button that is pressed."""
    await tx.execute(PRESS_CHARGE, reference, paid, at)


INSERT_REFUND = """
INSERT INTO sandbox_refund (reference, refund_id, amount_minor)
SELECT reference, $2, $3 FROM sandbox_charge WHERE reference = $1
ON CONFLICT (reference, refund_id) DO NOTHING
"""


async def insert_refund(tx: Transaction, reference: str, refund_id: str, amount_minor: int) -> None:
    """Note the refund, once for each id."""
    await tx.execute(INSERT_REFUND, reference, refund_id, amount_minor)


READ_UNTOLD = """
SELECT reference, told FROM sandbox_charge
WHERE pressed_at IS NOT NULL AND NOT is_told AND reference > $2 ORDER BY reference LIMIT $1
"""


async def read_untold(reader: Reader, limit: int, after: str) -> Sequence[tuple[str, int]]:
    """(reference, how many were sent) of pressed charges with notifications still to be sent.

    In the order of their references, those after this one: what waits holds nothing up.
    """
    rows = await reader.fetch(READ_UNTOLD, limit, after)
    return [(row["reference"], row["told"]) for row in rows]


NOTE_TOLD = """
UPDATE sandbox_charge SET told = greatest(told, $2), is_told = is_told OR $3 WHERE reference = $1
"""


async def note_told(tx: Transaction, reference: str, told: int, *, is_all: bool) -> None:
    """So many of its notifications were sent; whether that is all of them."""
    await tx.execute(NOTE_TOLD, reference, told, is_all)


def _charge(row: Row) -> Charge:
    facts = dict(row)
    refunds = zip(facts.pop("refund_ids"), facts.pop("refund_amounts"), strict=True)
    return Charge(**facts, refunds=tuple(refunds))
