"""Wallets: money that comes in from outside."""

from service.rules.errors import UserNotFound
from service.rules.postings import top_up as postings_of_top_up
from service.store import events, ledger
from service.store.db import Transaction
from service.store.ids import event_id
from service.store.ledger import Balance, read_balance
from service.store.users import next_user_seq, read_user

SANDBOX_PROVIDER = "sandbox"


async def top_up(tx: Transaction, email: str, amount_minor: int, currency: str) -> Balance:
    """Credit the wallet with money that the sandbox's provider took in; the balance after it.

    Raises:
        UserNotFound: nobody has this e-mail.
        BalanceTooLarge: the wallet would pass the ledger's bound.
    """
    user = await read_user(tx, email)
    if user is None:
        raise UserNotFound
    user_id = user.person.id
    seq = await next_user_seq(tx, user_id)
    legs = postings_of_top_up(user_id, SANDBOX_PROVIDER, amount_minor, currency)
    await ledger.post_transfers(tx, [ledger.Entry(leg, user_id, seq) for leg in legs])
    await events.append_events(tx, [events.Entry(event_id(tx.now), user_id, "user", seq, "top_up")])
    return await read_balance(tx, user_id, currency)
