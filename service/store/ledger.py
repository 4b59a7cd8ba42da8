"""The ledger: transfers are written once; balances with a floor move with them."""

from collections.abc import Sequence
from dataclasses import dataclass

from service.rules.postings import Posting
from service.store.db import Reader, Transaction


@dataclass(frozen=True, slots=True)
class Entry:
    """A posting and the event that it belongs to."""

    posting: Posting
    subject_id: str
    seq: int
    escrow_id: str | None = None


# Locks accounts with a floor in id order, after the escrows (see post_transfers in schema.sql).
POST_TRANSFERS = """
SELECT post_transfers($1::text[], $2::text[], $3::text[], $4::text[], $5::text[], $6::bigint[],
                      $7::text[], $8::text[], $9::text[], $10::bigint[], $11)
"""


async def post_transfers(tx: Transaction, entries: Sequence[Entry]) -> None:
    """Every posting, in this order; a wallet that is short refuses all of them."""
    if not entries:
        return
    legs = [entry.posting for entry in entries]
    await tx.fetchval(
        POST_TRANSFERS,
        [leg.source.kind for leg in legs],
        [leg.source.owner for leg in legs],
        [leg.target.kind for leg in legs],
        [leg.target.owner for leg in legs],
        [leg.currency for leg in legs],
        [leg.amount_minor for leg in legs],
        [leg.reason for leg in legs],
        [entry.escrow_id for entry in entries],
        [entry.subject_id for entry in entries],
        [entry.seq for entry in entries],
        tx.now,
    )


# Locks the wallet, after the escrow: the balance cannot sink before this transaction ends. What is
# pending is locked with it, in id order: a step that spends may cancel what is under way.
LOCK_WALLET = """
WITH locked AS (
    SELECT kind, balance_minor FROM account
    WHERE kind IN ('available', 'pending') AND owner = $1 AND currency = $2
    ORDER BY id FOR NO KEY UPDATE
)
SELECT balance_minor FROM locked WHERE kind = 'available'
"""


async def lock_wallet(tx: Transaction, user_id: str, currency: str) -> int:
    """What the user can spend, in minor units; 0 where there is no account yet."""
    balance: int | None = await tx.fetchval(LOCK_WALLET, user_id, currency)
    return balance or 0


@dataclass(frozen=True, slots=True)
class Balance:
    """A wallet, in minor units: spendable, under way, and funded into escrows and still held."""

    available: int
    pending: int
    escrow: int
    currency: str


# Of a milestone escrow with several payers each is shown their share of what is still held; both
# families by a partial index, without a look at what is long over. Each escrow is looked up by
# itself: the planner would take a payer of many old ones for one of many that are held.
READ_BALANCE = """
SELECT coalesce(sum(balance_minor) FILTER (WHERE kind = 'available'), 0)::bigint AS available,
       coalesce(sum(balance_minor) FILTER (WHERE kind = 'pending'), 0)::bigint AS pending,
       (SELECT coalesce(sum(held_minor), 0)::bigint FROM escrow
        WHERE buyer_id = $1 AND ledger_currency = $2 AND held_minor > 0)
       + (SELECT coalesce(sum((
              SELECT floor(e.held_minor::numeric * f.amount_minor / e.funded_minor) FROM escrow e
              WHERE e.id = f.escrow_id AND e.ledger_currency = $2)), 0)::bigint
          FROM milestone_funding f WHERE f.user_id = $1 AND f.is_held) AS escrow
FROM account WHERE owner = $1 AND currency = $2 AND kind IN ('available', 'pending')
"""


async def read_balance(reader: Reader, user_id: str, currency: str) -> Balance:
    """The user's wallet in this currency."""
    row = await reader.fetchrow(READ_BALANCE, user_id, currency)
    if row is None:
        raise AssertionError("an aggregate without a row")
    return Balance(row["available"], row["pending"], row["escrow"], currency)


# Accounts without a floor keep no balance: theirs is the sum of their transfers.
READ_TRIAL_BALANCE = """
SELECT a.kind, a.currency, count(*) AS accounts,
       sum(coalesce(a.balance_minor, taken.sum - given.sum))::bigint AS balance_minor
FROM account a
LEFT JOIN LATERAL (SELECT coalesce(sum(amount_minor), 0) AS sum FROM transfer
                   WHERE to_account = a.id AND a.balance_minor IS NULL) AS taken ON true
LEFT JOIN LATERAL (SELECT coalesce(sum(amount_minor), 0) AS sum FROM transfer
                   WHERE from_account = a.id AND a.balance_minor IS NULL) AS given ON true
GROUP BY a.kind, a.currency ORDER BY a.currency, a.kind
"""


@dataclass(frozen=True, slots=True)
class TrialLine:
    """One kind of account in one currency: how many, and their balance in minor units."""

    kind: str
    currency: str
    accounts: int
    balance_minor: int


async def read_trial_balance(reader: Reader) -> list[TrialLine]:
    """Every kind of account; per currency the balances sum to 0."""
    rows = await reader.fetch(READ_TRIAL_BALANCE)
    return [
        TrialLine(row["kind"], row["currency"], row["accounts"], row["balance_minor"])
        for row in rows
    ]
