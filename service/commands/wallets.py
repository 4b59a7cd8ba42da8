"""Wallets: money that comes in from outside."""

from service.commands.payments import topped_up
from service.rules.errors import UserNotFound
from service.rules.payment import SANDBOX
from service.store.db import Transaction
from service.store.ledger import Balance, read_balance
from service.store.users import read_user


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
    await topped_up(tx, user_id, SANDBOX, amount_minor, currency)
    return await read_balance(tx, user_id, currency)
